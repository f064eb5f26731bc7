"""What operators and coordinators type, without a network: what is made, what is said, and every way to be wrong."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import socket
import stat
import time
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
import tomli_w
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_ssh_private_key
from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.supercore.task_identity import TaskIdentity

from fl_client import cli as client
from fl_client import executor, serving
from fl_client.ledger import VETO_FILE, Ledger
from fl_client.policy import NodeConfig
from fl_client.reservations import Charge, Place
from fl_server import cli as server
from fl_server.config import ServerConfig
from strategies.errors import DataError
from strategies.federation import Federation
from strategies.privacy import Loss
from strategies.reasons import Reason
from tests.deployment.conftest import ASSOCIATION, COUNTS, PRIVATE
from tests.tiny import write_site

Said = pytest.CaptureFixture[str]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A site's files: a.bed, a.bim, a.fam and its people table, wherever the tiny federation keeps them."""
    write_site(tmp_path / "files", "A")
    return tmp_path / "files"


def _init(folder: Path, data: Path, name: str = "FI", *more: str) -> int:
    people = next(iter(data.rglob("*.tsv")))
    genotypes = next(iter(data.rglob("*.bed")))
    words = [
        "init",
        str(folder),
        "--name",
        name,
        "--country",
        "FI",
        "--people",
        str(people),
        "--genotypes",
        str(genotypes),
    ]
    return client.main([*words, "--dataset", "GDI-FI-TEST-0001", "--assembly", "GRCh37", *more])


@pytest.fixture
def home(tmp_path: Path, data: Path) -> Path:
    """A coordinator's folder with one node, FI, beside it; each has what the other sent."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    assert server.main(["init", str(tmp_path / "co"), "--name", "demo"]) == 0
    assert _init(tmp_path / "FI", data, "FI", "--runtime-port", port) == 0
    assert server.main(["admit", str(tmp_path / "co"), str(tmp_path / "FI" / "registration.toml")]) == 0
    for file in ("federation.toml", "ca.crt"):
        shutil.copy(tmp_path / "co" / file, tmp_path / "FI" / file)
    return tmp_path


def _edit(path: Path, change: Callable[[dict], object]) -> None:  # type: ignore[type-arg]
    document = tomllib.loads(path.read_text())
    change(document)
    path.write_text(tomli_w.dumps(document))


def _wrong(code: int, said: Said, want: int, *parts: str) -> None:
    """One clear message of three lines, the right exit code, no traceback."""
    error = said.readouterr().err
    assert code == want, error
    assert re.fullmatch(r"(?s)[^\n]+\n  Found:  .+\n  Remedy: [^\n]+\n", error), error
    assert "Traceback" not in error
    for part in parts:
        assert part in error


# -- init, admit ------------------------------------------------------------------------------------------------------


def test_init_makes_keys_that_only_their_owner_reads(home: Path) -> None:
    secrets = (
        "co/identity.pem",
        "co/superexec.secret",
        "co/ca.key",
        "co/server.key",
        "FI/identity.pem",
        "FI/supernode.key",
    )
    for name in secrets:
        assert stat.S_IMODE((home / name).stat().st_mode) == 0o600, name
    for name in ("co", "FI"):
        assert stat.S_IMODE((home / name).stat().st_mode) == 0o700
    key = load_ssh_private_key((home / "FI" / "supernode.key").read_bytes(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    assert isinstance(key.curve, ec.SECP384R1)
    names = x509.load_pem_x509_certificate(
        (home / "co" / "server.crt").read_bytes()
    ).extensions.get_extension_for_class(x509.SubjectAlternativeName)
    assert names.value.get_values_for_type(x509.DNSName) == ["localhost"]
    assert [str(a) for a in names.value.get_values_for_type(x509.IPAddress)] == ["127.0.0.1"]
    listen = ServerConfig.read(home / "co" / "server.toml").superlink
    assert {listen.listen.split(":")[0], listen.api.split(":")[0]} == {"127.0.0.1"}


def test_a_node_allows_nothing_until_its_operator_says_so(home: Path) -> None:
    policy = NodeConfig.read(home / "FI" / "node.toml").policy
    assert (policy.coordinators, policy.purposes, dict(policy.analyses), dict(policy.columns)) == ((), (), {}, {})
    assert (policy.minimum_people, policy.minimum_sites, policy.minimum_cell) == (20, 3, 5)


def test_a_registration_holds_public_lines_only(home: Path) -> None:
    registration = tomllib.loads((home / "FI" / "registration.toml").read_text())
    assert registration.keys() == {"name", "supernode", "node"}
    assert registration["node"].keys() == {"country", "identity", "own_total", "people"}
    node = Federation.read(home / "co" / "federation.toml").nodes["FI"]
    assert (node.country, node.identity) == ("FI", registration["node"]["identity"])
    assert (home / "co" / "supernodes" / "FI.pub").read_text().strip() == registration["supernode"]


def test_init_and_admit_refuse(home: Path, data: Path, capsys: Said) -> None:
    _wrong(server.main(["init", str(home / "co"), "--name", "demo"]), capsys, 2, "starts in a new folder")
    _wrong(server.main(["init", str(home / "x"), "--name", "a b"]), capsys, 2, "letters, digits")
    _wrong(server.main(["init", str(home / "x"), "--name", "a", "--api-port", "0"]), capsys, 2, "host:port")
    _wrong(_init(home / "FI", data), capsys, 2, "starts in a new folder")
    _wrong(_init(home / "x", data, "F I"), capsys, 2, "letters, digits")
    assert not (home / "x").exists()
    coordinator, sent = str(home / "co"), home / "FI" / "registration.toml"
    _wrong(server.main(["admit", coordinator, str(sent)]), capsys, 2, "admitted once", "FI is in federation.toml")
    _edit(sent, lambda d: d.update(name="SE"))
    _wrong(server.main(["admit", coordinator, str(sent)]), capsys, 2, "keys of its own", "the key of FI")
    assert _init(home / "DK", data, "DK") == 0
    _edit(
        home / "DK" / "registration.toml",
        lambda d: d["node"].update(identity=tomllib.loads(sent.read_text())["node"]["identity"]),
    )
    _wrong(
        server.main(["admit", coordinator, str(home / "DK" / "registration.toml")]),
        capsys,
        2,
        "identity key of its own",
    )
    _edit(sent, lambda d: d.update(supernode="ssh-ed25519 AAAA"))
    _wrong(server.main(["admit", coordinator, str(sent)]), capsys, 2, "ECDSA key")
    _wrong(server.main(["admit", coordinator, str(home / "nothing")]), capsys, 2, "readable file")
    assert sorted(Federation.read(home / "co" / "federation.toml").nodes) == ["FI"]
    assert [file.name for file in (home / "co" / "supernodes").iterdir()] == ["FI.pub"]


def test_data_that_cannot_be_read_exit_with_4(tmp_path: Path, data: Path, capsys: Said) -> None:
    next(iter(data.rglob("*.tsv"))).write_text("")
    _wrong(_init(tmp_path / "FI", data), capsys, 4)
    assert not (tmp_path / "FI").exists()


# -- fl-client check, serve, veto, ledger -----------------------------------------------------------------------------


def _allow(home: Path) -> Path:
    node = home / "FI" / "node.toml"
    table = Path(tomllib.loads(node.read_text())["dataset"]["people"])
    column = table.read_text().splitlines()[0].split("\t")[1]
    _edit(
        node,
        lambda d: d["policy"].update(
            coordinators=["demo", "who"],
            purposes=["scientific_research"],
            analyses={"allele_frequency": ["exact"]},
            columns={column: [-1e-9, 1e-9], "shoe_size": [20, 60]},
        ),
    )
    return node


def test_a_version_is_fixed_named_and_held_to(home: Path, data: Path, capsys: Said) -> None:
    node = _allow(home)
    capsys.readouterr()
    assert client.main(["data", str(node)]) == 0
    assert re.search(r"30 people, files [0-9a-f]{16}, version 1\nThe node's file names", capsys.readouterr().out)
    assert client.main(["check", str(node)]) == 0
    assert re.search(r"version +1; no exact answer yet\n", capsys.readouterr().out)
    (home / "FI" / "exclude.txt").write_text(next(iter(data.rglob("*.tsv"))).read_text().splitlines()[3].split("\t")[0])
    _edit(node, lambda d: d["dataset"].update(exclude="exclude.txt"))
    _wrong(client.main(["check", str(node)]), capsys, 4, "stays as it was fixed", "`fl-client data`")
    assert client.main(["data", str(node)]) == 0
    assert re.search(r"29 people, .* version 2\nNext: version = 2 in the \[dataset\]", capsys.readouterr().out)
    _edit(node, lambda d: d["dataset"].update(version=2))
    assert client.main(["check", str(node)]) == 0
    _edit(node, lambda d: d["dataset"].update(version=3))
    _wrong(client.main(["check", str(node)]), capsys, 4, "has a version that was fixed", "fixed are 1, 2")


def test_check_tells_the_operator_what_the_gate_would_do(home: Path, capsys: Said) -> None:
    node = _allow(home)
    capsys.readouterr()
    assert client.main(["check", str(node)]) == 0
    out = capsys.readouterr().out
    pinned = hashlib.sha256((home / "FI" / "federation.toml").read_bytes()).hexdigest()
    assert f"SHA-256 {pinned}" in out
    assert "GDI-FI-TEST-0001, GRCh37, files " in out
    assert re.search(r"version +1, fixed when it is first served\n", out)
    assert re.search(r"30 people, \d+ variants", out)
    assert re.search(r"Warning: \w+: \d+ values lie outside \[-1e-09, 1e-09\]; the gate clamps them\.", out)
    assert "Warning: shoe_size: the policy allows it, but the people table has no such numeric column." in out
    assert "Warning: the policy answers who, who is not in federation.toml." in out
    assert "epsilon 1, delta 1e-05, per person: rho 0.030557, spent 0.000000, left 0.030557" in out
    assert out.endswith(f"Nothing was sent. Next: fl-client serve {node}\n")


def test_check_says_who_has_genotypes_and_what_is_in_no_category(home: Path, capsys: Said) -> None:
    node = _allow(home)
    people = Path(tomllib.loads(node.read_text())["dataset"]["people"])
    header, first, *rest = people.read_text().splitlines()
    people.write_text("\n".join([header, first, *(f"new-{line}" for line in rest[:4]), *rest[4:]]) + "\n")
    sex = header.split("\t").index("sex")
    neither = sum(line.split("\t")[sex] not in ("1", "1.0") for line in (first, *rest))
    _edit(node, lambda d: d["dataset"].update(variables={"sex": {"categories": {"1": "male", "x": "female"}}}))
    _edit(node, lambda d: d["policy"]["columns"].update(sex={"categories": ["female", "male"]}))
    capsys.readouterr()
    assert client.main(["check", str(node)]) == 0
    out = capsys.readouterr().out
    assert f"{len(rest) + 1} people, 50 variants, genotypes of {len(rest) - 3}\n" in out
    assert f"Warning: sex: {neither} cells are none of the declared categories, and count as missing." in out


def test_check_says_how_a_studys_panels_are_found(home: Path, tmp_path: Path, capsys: Said) -> None:
    node = _allow(home)
    lines = [
        "#CHROM\tPOS\tID\tREF\tALT",
        *("22\t1000\tv0\tA\tC", "22\t1010\tv1\tC\tA", "22\t1020\tv2\tT\tG", "22\t1030\tv3\tG\tT", "22\t5\tv4\tA\tC"),
    ]
    (tmp_path / "panel.tsv").write_text("\n".join(lines) + "\n")
    (tmp_path / "study.toml").write_text(
        'title = "t"\npurpose = "scientific_research"\nassembly = "GRCh37"\n[panels.few]\nfile = "panel.tsv"\n'
        '[[question]]\nname = "counts"\nanalysis = "allele_frequency"\nregime = "exact"\npanel = "few"\n'
    )
    capsys.readouterr()
    assert client.main(["check", str(node), "--study", str(tmp_path / "study.toml")]) == 0
    out = capsys.readouterr().out
    ways = "1 absent, 1 as written, 1 swapped, 1 flipped, 1 flipped and swapped"
    assert re.search(rf"panel +few, 5 variants: {ways}\n", out)
    assert "Warning: few: variants lie on the other strand; " in out


def test_check_refuses(home: Path, capsys: Said) -> None:
    node = _allow(home)
    config = NodeConfig.read(node)
    assert config.link is not None

    def check() -> int:
        return client.main(["check", str(node)])

    with socket.create_server(("127.0.0.1", config.link.runtime_port)):
        _wrong(check(), capsys, 2, "A port is listened on by one process", str(config.link.runtime_port), "in use")
        _wrong(client.main(["serve", str(node)]), capsys, 2, "A port is listened on by one process")
    for file, message in (
        ("supernode.key", "has its supernode key"), ("ca.crt", "pins the authority"),
        ("identity.pem", "signing key"), ("federation.toml", "federation file"),
    ):  # fmt: skip
        (home / "FI" / file).rename(home / "away")
        _wrong(check(), capsys, 2, message)
        (home / "away").rename(home / "FI" / file)
    (home / "FI" / "supernode.key").chmod(0o644)
    _wrong(check(), capsys, 2, "read by its owner alone", "chmod 600")
    (home / "FI" / "supernode.key").chmod(0o600)
    with serving.once(config):
        capsys.readouterr()
        assert check() == 0
        assert "being served now" in capsys.readouterr().out
        _wrong(client.main(["serve", str(node)]), capsys, 2, "A node is served once")
    genotypes = Path(config.dataset.genotypes)
    genotypes.write_bytes(genotypes.read_bytes()[:-1])
    _wrong(check(), capsys, 4)
    _edit(node, lambda d: d.update(link=d["link"] | {"surprise": 1}))
    _wrong(check(), capsys, 2, "surprise")
    _edit(node, lambda d: d.pop("link"))
    _wrong(check(), capsys, 2, "has a [link] table")
    _wrong(client.main(["check", str(home / "nothing")]), capsys, 2, "readable")


def test_a_key_that_the_federation_does_not_know(home: Path, data: Path, capsys: Said) -> None:
    assert _init(home / "other", data) == 0
    shutil.copy(home / "other" / "identity.pem", home / "FI" / "identity.pem")
    for verb in ("check", "serve"):
        _wrong(
            client.main([verb, str(home / "FI" / "node.toml")]), capsys, 2, "FI with this key is not in federation.toml"
        )


def test_veto_and_lift(home: Path) -> None:
    node = str(home / "FI" / "node.toml")
    veto = home / "FI" / "state" / VETO_FILE
    assert client.main(["veto", node]) == 0
    assert veto.exists()
    assert client.main(["veto", node, "--lift"]) == 0
    assert not veto.exists()
    assert client.main(["veto", node, "--lift"]) == 0


def test_denials_are_listed_and_lifted(home: Path, capsys: Said, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fl_client.cli.MOST_DENIALS", 3)
    node, year = home / "FI" / "node.toml", time.gmtime().tm_year
    capsys.readouterr()
    assert client.main(["denials", str(node)]) == 0
    assert capsys.readouterr().out == "Nobody was refused anything for people's sake.\n"
    ledger = NodeConfig.read(node).open_ledger()
    for number in range(3):
        ledger.denials.refused("helsinki", f"thing {number}", Reason.OVERLAP)
    ledger.denials.refused("demo", "thing 0", Reason.TOO_FEW_PEOPLE)
    ledger.close()
    assert client.main(["denials", str(node)]) == 0
    demo = f"demo, {year}: 1 of 3 refusals that told of people\n"
    assert capsys.readouterr().out == (
        f"{demo}helsinki, {year}: 3 of 3 refusals that told of people; all exact questions are refused in that year\n"
    )
    assert client.main(["denials", str(node), "--lift", "helsinki"]) == 0
    assert capsys.readouterr().out == "3 refusals are forgotten: FI answers helsinki again, within its policy.\n"
    assert client.main(["denials", str(node)]) == 0
    assert capsys.readouterr().out == demo
    _wrong(client.main(["denials", str(node), "--lift", "helsinki"]), capsys, 2, "FI refused 'helsinki' nothing")
    assert client.main(["ledger", "export", str(node)]) == 0
    (line,) = [json.loads(line)["entry"] for line in capsys.readouterr().out.splitlines()]
    assert (line["event"], line["coordinator"], line["denials"]) == ("lift_denials", "helsinki", 3)


def test_ledger_verifies_and_adds_up(home: Path, capsys: Said) -> None:
    node = home / "FI" / "node.toml"
    config = NodeConfig.read(node)
    ledger, year = config.open_ledger(), time.gmtime().tm_year
    event = {"kind": "gaussian", "multiplier": (1 / 0.02) ** 0.5, "count": 1}
    charge = Charge(Place("session", "question", 1), Loss(0.01), "demo", year)
    ledger.reserve(charge, config.policy.bounds, [event])
    ledger.note({"event": "refuse"})
    ledger.close()
    capsys.readouterr()
    assert client.main(["ledger", "show", str(node)]) == 0
    left = "rho 0.010000 of 0.030557, left 0.020557"
    assert capsys.readouterr().out == (
        "journal     2 entries, verified: each follows from the one before\n"
        "            1 refuse, 1 reserve\n"
        f"spent       {left}\n"
        f"epsilon     {Loss(0.01).epsilon(1e-5):.4g} of 1 at delta 1e-05, per person (zCDP, enforced)\n"
        "            0.5457 by Renyi divergences, 0.497 by privacy loss distributions\n"
        f"in {year}     {left}\n"
        f"permit      demo: {left}\n"
    )
    assert client.main(["ledger", "verify", str(node)]) == 0
    assert capsys.readouterr().out.splitlines()[1] == "spent       rho 0.010000, as the tables say"
    assert client.main(["ledger", "export", str(node)]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(line["sequence"], line["entry"]["event"]) for line in lines] == [(1, "reserve"), (2, "refuse")]
    before = "0" * 64
    for line in lines:  # the chain, followed by whoever has the export alone
        text = json.dumps(line["entry"], sort_keys=True, separators=(",", ":"))
        before = hashlib.sha256((before + text).encode()).hexdigest()
        assert line["head"] == before
    assert client.main(["ledger", "adopt", str(node)]) == 0
    assert capsys.readouterr().out == "Nothing is missing: the ledger knows every mark that it was shown.\n"
    import sqlite3  # noqa: PLC0415

    with sqlite3.connect(config.folder / config.state / "ledger.sqlite") as database:
        database.execute("update journal set entry = replace(entry, 'refuse', 'answer')")
    database.close()
    for verb in ("show", "verify", "export", "adopt"):
        _wrong(client.main(["ledger", verb, str(node)]), capsys, 4, "journal is append-only", "altered at entry 2")


# -- executor ---------------------------------------------------------------------------------------------------------


def test_the_executor_withholds_the_text_of_exceptions_and_names_the_node_itself(tmp_path: Path) -> None:
    TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 1, 1, 1
    app, seen = ClientApp(), []

    @app.query("genosum")
    def genosum(message: Message, context: Context) -> Message:
        seen.append(context.node_config["node"])
        raise ValueError("patient 123 carries rs1")

    context = Context(run_id=1, node_id=2, node_config={"node": "/from/the/wire"}, state=RecordDict(), run_config={})
    message = Message(RecordDict({"x": ConfigRecord({})}), dst_node_id=2, message_type="query.genosum")
    reply, status = executor.respond(app, message, context, tmp_path / "node.toml")
    assert seen == [str(tmp_path / "node.toml")]
    assert (reply.error.reason, status) == ("error on node (details withheld)", "failed")


# -- fl-server plan, run ----------------------------------------------------------------------------------------------


def test_plan_of_a_study(write_study: Callable[..., Path], home: Path, capsys: Said) -> None:
    study = write_study("planned", COUNTS, PRIVATE, ASSOCIATION)
    capsys.readouterr()
    assert server.main(["plan", str(study), "--federation", str(home / "co" / "federation.toml")]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "1. counts: allele_frequency, exact reads 20,000 variants of panel common" in out
    assert "genotypes, 20,000 x 4: people with 0, 1, 2 or no observed alternate alleles" in out
    assert "costs no epsilon: the exact total, for the permit holder, not for publication" in out
    assert re.search(r"takes 4 exchanges; about 80\d kB from each site", out)
    assert "costs epsilon 1 at delta 1e-05 (rho 0.030557) per person at each site" in out
    assert "takes 4 exchanges in at most 2 rounds" in out
    assert "All questions: 16 exchanges; epsilon 1 at delta 1e-05 (rho 0.030557) per person at each site." in out
    assert re.search(r"Warning: freq at FI \(\d+ people\): a 95 % interval will be about 0\.\d\d wide\. For 0\.1", out)
    assert out.endswith(f"Nothing was sent. Next: fl-server run {study}")


def test_run_refuses_before_anything_is_sent(
    write_study: Callable[..., Path], home: Path, tmp_path: Path, capsys: Said
) -> None:
    study, out = write_study("run", COUNTS), tmp_path / "results" / "run"

    def run(*words: str) -> int:
        return server.main(["run", str(study), "--server", str(home / "co" / "server.toml"), "--out", str(out), *words])

    _wrong(run("--resume"), capsys, 2, "resumed from its folder")
    assert not out.parent.exists()
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    _edit(home / "co" / "server.toml", lambda d: d["superlink"].update(api=f"127.0.0.1:{port}"))
    (out.parent / "run.run").mkdir(parents=True)
    _wrong(run(), capsys, 2, "add --resume")
    out.mkdir()
    _wrong(run(), capsys, 2, "Answers are written into a new folder")
    capsys.readouterr()
    assert run("--resume") == 0
    assert capsys.readouterr().out == f"{out} is complete.\n"
    assert not (out.parent / "run.run").exists()
    out.rmdir()
    (home / "co" / "superexec.secret").chmod(0o640)
    _wrong(run(), capsys, 2, "A secret may be read by its owner alone")
    (home / "co" / "superexec.secret").unlink()
    _wrong(run("--resume"), capsys, 2, "keeps the SuperLink's secret in a file")
    _wrong(server.main(["run", str(home / "nothing"), "--server", "x"]), capsys, 2, "study is a readable file")
    _wrong(
        server.main(["run", str(study), "--server", str(home / "nothing")]), capsys, 2, "coordinator's file is readable"
    )


def test_two_processes_never_run_one_folder(
    write_study: Callable[..., Path], home: Path, tmp_path: Path, capsys: Said
) -> None:
    out = tmp_path / "out"
    with server._alone(tmp_path / "out.run"):
        words = [
            "run",
            str(write_study("run", COUNTS)),
            "--server",
            str(home / "co" / "server.toml"),
            "--out",
            str(out),
        ]
        _wrong(server.main([*words, "--resume"]), capsys, 2, "A run has one process")


def test_serve_refuses(home: Path, capsys: Said, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "execve", lambda *_: pytest.fail("started"))
    path = home / "co" / "server.toml"
    config = ServerConfig.read(path)
    with socket.create_server(("127.0.0.1", 0)) as busy:
        address = f"127.0.0.1:{busy.getsockname()[1]}"
        for name in ("listen", "api"):
            keep = path.read_text()
            _edit(path, lambda d, name=name: d["superlink"].update({name: address}))  # type: ignore[misc]
            _wrong(server.main(["serve", str(path)]), capsys, 2, "A port is listened on by one process", address)
            path.write_text(keep)
    _edit(path, lambda d: d["superlink"].update(api="0.0.0.0:9442"))
    _wrong(server.main(["serve", str(path)]), capsys, 2, "api must be a loopback address")
    _edit(path, lambda d: d["superlink"].update(api=config.superlink.api))
    (home / "co" / "server.key").write_bytes((home / "co" / "ca.key").read_bytes())
    _wrong(server.main(["serve", str(path)]), capsys, 2, "has a certificate and its key")


@pytest.mark.parametrize("host", ["m\u00fcnchen.example", "", "bad host name", "-x", "a" * 70])
def test_a_host_that_is_none_is_said_before_anything_is_made(
    host: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert server.main(["init", str(tmp_path / "new"), "--name", "c", f"--host={host}"]) == 2
    assert "A host is a name" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_what_the_system_does_not_allow_is_no_traceback(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("no folder")
    assert server.main(["init", str(blocked / "new"), "--name", "c"]) == 2
    assert "Remedy" in capsys.readouterr().err


def test_a_damaged_ledger_is_named_and_never_replaced(tmp_path: Path) -> None:
    state = tmp_path / "state"
    state.mkdir()
    (state / "ledger.sqlite").write_bytes(b"not a database" * 100)
    with pytest.raises(DataError, match="never start with an empty one"):
        Ledger(state, "DATA")
    assert (state / "ledger.sqlite").read_bytes() == b"not a database" * 100
