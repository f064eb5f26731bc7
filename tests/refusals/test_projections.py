"""Columns that an answer offers: computed once, from public weights, kept at the node and gone with the study."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fl_client.gate import Gate
from strategies.analyses.principal_components import PrincipalComponents
from strategies.analysis import Total
from strategies.errors import UsageError
from strategies.projection import Projection
from strategies.question import Question
from strategies.reasons import Reason
from strategies.study import Study
from strategies.wire import Projected, Refused, pack_arrays
from tests.laws.zoo import add
from tests.tiny import (
    ADJUSTED,
    COMPONENTS,
    COUNTS,
    NAMES,
    PANEL,
    PEOPLE,
    TRAINING,
    VARIANTS,
    Pen,
    Tiny,
    genotypes,
    study,
    write_sites,
)

STUDY = study(COUNTS, COMPONENTS, ADJUSTED)
SITE = NAMES[0]


@pytest.fixture
def tiny(tmp_path: Path) -> Any:
    made = Tiny.of(write_sites(tmp_path / "data"), tmp_path / "nodes")
    yield made
    made.close()


def weights(seed: int = 0, variants: int = VARIANTS, columns: int = 2) -> Projection:
    rng = np.random.default_rng(seed)
    names = tuple(f"pc{k}" for k in range(1, columns + 1))
    return Projection(
        names, rng.normal(0, 0.1, (variants, columns)), rng.uniform(0, 2, variants), rng.normal(0, 1, columns)
    )


def reason(tiny: Tiny, envelope: bytes) -> Reason | None:
    header = tiny.read(SITE, tiny.gates[SITE].answer(envelope)).header
    return header.reason if isinstance(header, Refused) else None


def kept(gate: Gate) -> list[Path]:
    return list(gate.ledger.folder.glob("panels-*/*.columns"))


def test_a_column_is_shift_and_weights_times_distance_from_the_centre(tiny: Tiny) -> None:
    projection = weights(1)
    codes = genotypes(SITE).astype(np.float64)
    distance = np.where(codes == 3, 0.0, codes - projection.centre[:, None])
    want = projection.shift + distance.T @ projection.weights
    dataset = tiny.gates[SITE].dataset
    assert dataset is not None
    got = dataset.project(projection, PANEL)
    assert list(got) == ["pc1", "pc2"]
    assert np.allclose(np.stack([got["pc1"], got["pc2"]], axis=1), want, rtol=0, atol=1e-11)


def test_weights_of_any_allowed_size_fit_the_grid() -> None:
    for weight in (0.0, 1e-300, 1.0, 2.0**20):
        projection = Projection(("a",), np.full((5000, 1), weight), np.full(5000, 2.0), np.zeros(1))
        most = np.abs(projection.steps(slice(None))).max(axis=1).sum()
        assert most < 2**62, weight


def test_columns_are_kept_for_the_study_and_no_longer(tiny: Tiny) -> None:
    pen = tiny.pen(STUDY).open()
    request = pen.project("pca", weights())
    first = tiny.gates[SITE].answer(request)
    assert isinstance(tiny.read(SITE, first).header, Projected)
    assert not tiny.read(SITE, first).body, "nothing of the columns leaves"
    assert tiny.gates[SITE].answer(request) == first
    (file,) = kept(tiny.gates[SITE])
    assert file.stat().st_mode & 0o777 == 0o600
    assert tiny.restart(SITE).ledger.panels.columns(pen.session, "pca") is not None
    tiny.gates[SITE].answer(pen.closing())
    assert not kept(tiny.gates[SITE])


NO_NUMBERS = pack_arrays(weights().arrays() | {"shift": np.array([np.nan, 0.0])})


def second_weights(pen: Pen) -> bytes:
    pen.tiny.gates[SITE].answer(pen.project("pca", weights(0)))
    return pen.project("pca", weights(1))


@pytest.mark.parametrize(
    ("envelope", "why"),
    [
        (second_weights, Reason.ALREADY_ANSWERED),
        (lambda pen: pen.project("counts", weights()), Reason.OUT_OF_ORDER),
        (lambda pen: pen.project("nothing", weights()), Reason.OUT_OF_ORDER),
        (lambda pen: pen.project("pca", weights(variants=VARIANTS - 1)), Reason.MALFORMED),
        (lambda pen: pen.project("pca", weights(columns=3)), Reason.MALFORMED),
        (lambda pen: pen.project("pca", weights(), body=b"nonsense"), Reason.MALFORMED),
        (lambda pen: pen.project("pca", weights(), body=NO_NUMBERS), Reason.MALFORMED),
        (lambda pen: pen.project("pca", weights(), expires=1), Reason.EXPIRED),
        (lambda pen: pen.project("pca", weights(), session="another"), Reason.NOT_OPENED),
        (lambda pen: pen.project("pca", weights(), study="0" * 64), Reason.SESSION_CONFLICT),
        (lambda pen: pen.ask("adjusted"), Reason.OUT_OF_ORDER),
    ],
)  # fmt: skip
def test_what_a_node_does_not_project(tiny: Tiny, envelope: Callable[[Pen], bytes], why: Reason) -> None:
    assert reason(tiny, envelope(tiny.pen(STUDY).open())) is why


def test_a_node_that_refuses_the_source_refuses_what_reads_it(tmp_path: Path) -> None:
    data = write_sites(tmp_path / "data", policies={SITE: {"analyses": {"association": ["exact"]}}})
    tiny = Tiny.of(data, tmp_path / "nodes")
    pen = tiny.pen(STUDY).open()
    assert reason(tiny, pen.project("pca", weights())) is Reason.ANALYSIS_NOT_ALLOWED
    assert reason(tiny, pen.ask("adjusted", agree=False)) is Reason.ANALYSIS_NOT_ALLOWED
    tiny.close()


def test_a_study_runs_on_without_the_site_that_could_not_project(tmp_path: Path) -> None:
    tiny = Tiny.of(write_sites(tmp_path / "data", own_total=NAMES), tmp_path / "nodes")
    link = tiny.link()

    def lost(name: str, envelopes: list[bytes]) -> list[bytes] | None:
        return None if name == SITE and any(b'"kind":"project"' in e for e in envelopes) else envelopes

    link.on_request = lost
    results = tiny.conductor(study(COMPONENTS, ADJUSTED), tmp_path / "run", link).run()
    assert results[0].statement.sites == NAMES
    assert results[1].statement.sites == tuple(n for n in NAMES if n != SITE)
    assert results[1].statement.absent == {SITE: "did not answer"}
    assert results[1].answer.facts["people"] == 3 * PEOPLE
    tiny.close()


def test_a_resumed_study_answers_alike(tiny: Tiny, tmp_path: Path) -> None:
    asked, link = study(COMPONENTS, ADJUSTED), tiny.link()
    one = tiny.conductor(asked, tmp_path / "run", link).run()
    sent = len(link.traffic)
    other = tiny.conductor(asked, tmp_path / "run", link).run()
    again = link.traffic[sent:]
    assert not any(b'"kind":"project"' in envelope or b'"kind":"ask"' in envelope for _, envelope, _ in again)
    for a, b in zip(one, other, strict=True):
        ((_, table),), ((_, same),) = a.answer.tables.items(), b.answer.tables.items()
        for column, values in table.items():
            np.testing.assert_array_equal(values, same[column], column)


def stated(tiny: Tiny, **change: Any) -> bytes:
    """The second round of the components, with arrays that a test changes."""
    pen = tiny.pen(STUDY).open()
    question = COMPONENTS.analysis
    assert isinstance(question, PrincipalComponents)
    frame = STUDY.frame(COMPONENTS)
    parts = []
    for gate in tiny.gates.values():
        assert gate.dataset is not None
        parts.append(question.summarise(gate.dataset.cohort(question.needs(), frame), frame))
    total = add(parts)
    second = question.conclude(Total(total, NAMES), frame)
    assert isinstance(second, PrincipalComponents)
    for name, value in change.items():
        object.__setattr__(second, name, value(getattr(second, name)))
    return pen.ask("pca", analysis=second, earlier=[total])


def test_a_round_that_carries_arrays_is_taken_once(tiny: Tiny) -> None:
    assert reason(tiny, stated(tiny)) is None


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"block": lambda v: 2 * v}, Reason.NOT_DERIVED),
        ({"block": lambda v: v[:-1]}, Reason.NOT_DERIVED),
        ({"centre": lambda c: c - 2}, Reason.NOT_DERIVED),
        ({"taken": lambda t: t + 1}, Reason.NOT_DERIVED),
        ({"minimum_minor_alleles": lambda _: 0}, Reason.NOT_DERIVED),
        ({"components": lambda k: k + 1}, Reason.NOT_DERIVED),
    ],
)
def test_a_round_that_carries_other_arrays_is_refused(tiny: Tiny, change: dict[str, Any], why: Reason) -> None:
    assert reason(tiny, stated(tiny, **change)) is why


def test_a_column_is_offered_by_an_earlier_question_to_its_own_regime() -> None:
    def asked(*questions: Question) -> Study:
        return Study.from_document(study(*questions).document, {"panel": PANEL.encode()})

    assert asked(COMPONENTS, ADJUSTED).sources(ADJUSTED) == (COMPONENTS,)
    for questions in ((ADJUSTED, COMPONENTS), (COUNTS, ADJUSTED)):
        with pytest.raises(UsageError, match="a column with a dot"):
            asked(*questions)
    training = replace(TRAINING, analysis=replace(TRAINING.analysis, covariates=("pca.pc1",)))
    with pytest.raises(UsageError, match="for exact questions alone"):
        asked(COMPONENTS, training)
