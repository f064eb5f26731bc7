"""What a node says in public of its columns: their shapes and meanings, in the form that a registration takes."""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
import tomli_w

from fl_client.cli import main
from fl_server.cli import Registration
from simulations.populations import write_table
from strategies.analysis import Range
from strategies.codec import decode
from strategies.dictionary import Described
from strategies.errors import UsageError
from strategies.federation import Federation, Identity, Node
from tests.tiny import Tiny, people_of

COLUMNS = {
    "sex": {"categories": ["female", "male"]},
    "trait": {"range": [-4, 4], "unit": "mmol/L"},
    "high": [0, 1],
}
VARIABLES = {
    "sex": {"categories": {"2": "female", "1": "male"}, "minimal": "sex", "meaning": "sex at birth"},
    "trait": {"range": [-10, 10], "unit": "mmol/L", "concept": 3004501, "missing": [0], "meaning": "glucose"},
}
Make = Callable[..., Tiny]


@pytest.fixture
def node(make_tiny: Make) -> Path:
    tiny = make_tiny(policies={"AT": {"columns": COLUMNS}}, datasets={"AT": {"variables": VARIABLES}})
    return tiny.workspace.node_files["AT"]


def test_a_dictionary_is_what_a_registration_takes(
    node: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["dictionary", str(node)]) == 0
    text = capsys.readouterr().out
    assert main(["dictionary", str(node), "--out", str(tmp_path / "dictionary.toml")]) == 0
    assert (tmp_path / "dictionary.toml").read_text() == text
    registration = {
        "name": "AT", "supernode": "ssh-key",
        "node": {"country": "AT", "identity": Identity.generate().public} | tomllib.loads(text)["node"],
    }  # fmt: skip
    known = decode(Registration, registration, "registration.toml").node
    assert known.columns == {
        "sex": Described(Range.of("female", "male"), "sex at birth", "sex"),
        "trait": Described(Range(-4, 4, "mmol/L"), "glucose", "", 3004501),
        "high": Described(Range(0, 1)),
    }
    plain = Federation("f", {"AT": known}, {}).plain()
    (tmp_path / "federation.toml").write_text(tomli_w.dumps(plain))
    assert Federation.read(tmp_path / "federation.toml").nodes["AT"] == known
    capsys.readouterr()
    assert main(["dictionary", str(node), "--out", str(tmp_path / "dictionary.toml")]) == 2
    assert "written into a new file" in capsys.readouterr().err


def test_no_value_and_no_person_decides_about_a_dictionary(node: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["dictionary", str(node)]) == 0
    before = capsys.readouterr().out
    assert not any(person in before for person in people_of("AT"))
    table = Path(tomllib.loads(node.read_text())["dataset"]["people"])
    write_table(table, people_of("AT")[:3], {"nothing": [1.0, 2.0, 3.0]})  # type: ignore[dict-item]
    assert main(["dictionary", str(node)]) == 0
    assert capsys.readouterr().out == before


@pytest.mark.parametrize(
    "said",
    [
        {"range": [0, 1], "values": [3]},
        {"meaning": "x"},
        {"range": [0, 1], "meaning": 3},
        {"range": [0, 1], "concept": -1},
    ],
)
def test_a_dictionary_is_decoded_strictly(said: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        decode(Node, {"country": "AT", "identity": Identity.generate().public, "columns": {"x": said}}, "node")
