"""What a node does not take from a coordinator about pairs of a variant and a phenotype beside covariates."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import count
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import special

from strategies import phenome
from strategies.analyses.phewas import MOST_SUMS, PheWAS
from strategies.analysis import Frame, Range
from strategies.covariates import Covariates
from strategies.errors import UsageError
from strategies.hits import SecondTest
from strategies.phenome import Pairs
from strategies.question import Question
from strategies.reasons import Reason
from strategies.steepness import STEEPEST
from strategies.study import Study
from tests.refusals import later
from tests.tiny import COLUMNS, NAMES, PANEL, VARIANTS, Tiny, study, write_sites

PAGE = PheWAS("panel", ("trait", "high"), ("sex",))
QUESTION = Question("phenome", PAGE)
HIGH = Range.of("0", "1")
SESSIONS = count(1)
STUDY = study(QUESTION, columns={"trait": Range(-4.0, 4.0), "high": HIGH, "sex": Range(1.0, 2.0)})


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tiny]:
    """Each round is asked in a session of its own, so that one federation does for all."""
    folder, columns = tmp_path_factory.mktemp("pairs"), {n: list(span) for n, span in COLUMNS.items()}
    columns |= {"high": HIGH.plain()}
    made = Tiny.of(write_sites(folder / "data", own_total=NAMES, columns=columns), folder / "nodes")
    yield made
    made.close()


def asked(tiny: Tiny, rounds: int, **change: Callable[[Any], Any]) -> Reason | None:
    session = f"session-{next(SESSIONS)}"
    return later.asked(tiny, STUDY, QUESTION, lambda page: page.taken >= rounds, change, session)


@pytest.mark.parametrize("taken", [0, 1, 2])
def test_each_round_is_answered(tiny: Tiny, taken: int) -> None:
    assert asked(tiny, taken) is None


def beyond(pairs: np.ndarray) -> np.ndarray:
    return np.append(pairs[:-1], 2 * VARIANTS)


def forged(copies: float, intercept: float, slope: float) -> Callable[[NDArray[Any]], NDArray[Any]]:
    """All models with these numbers."""
    return lambda m: np.column_stack([m[:, :1], np.tile([copies, intercept, slope], (len(m), 1))])


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"scale": lambda s: (1e-9,)}, Reason.NOT_DERIVED),
        ({"centre": lambda c: (2.0,)}, Reason.NOT_DERIVED),
        ({"people": lambda p: 0}, Reason.NOT_DERIVED),
        ({"taken": lambda t: t + 1}, Reason.NOT_DERIVED),
        ({"firth": lambda f: True}, Reason.NOT_DERIVED),
        ({"pairs": lambda h: h[::-1].copy()}, Reason.NOT_DERIVED),
        ({"pairs": lambda h: h - 1000}, Reason.NOT_DERIVED),
        ({"pairs": lambda h: h.astype(np.float64)}, Reason.NOT_DERIVED),
        ({"pairs": beyond}, Reason.OUT_OF_ORDER),
        ({"pairs": lambda h: h[h % 2 == 0]}, Reason.STUDY_INVALID),
        ({"models": lambda m: m[:, :-1].copy()}, Reason.NOT_DERIVED),
        ({"models": lambda m: m[:-1]}, Reason.STUDY_INVALID),
        ({"models": lambda m: m * 1e9}, Reason.NOT_DERIVED),
        ({"models": forged(0.0, 2.0**18, 2.0**19)}, Reason.NOT_DERIVED),  # log odds leap within 2^-19 deviations
        ({"models": forged(0.0, 0.0, 33.0), "scale": lambda s: (0.5,)}, Reason.NOT_DERIVED),
        ({"models": forged(0.0, 0.0, 1.0), "scale": lambda s: (1e-4,)}, Reason.NOT_DERIVED),
        ({"models": forged(0.0, 65.0, 0.0)}, Reason.NOT_DERIVED),
        ({"models": forged(20.5, 0.0, 0.0)}, Reason.NOT_DERIVED),
    ],
)
def test_a_round_that_does_not_fit_is_refused(tiny: Tiny, change: dict[str, Callable[[Any], Any]], why: Reason) -> None:
    assert asked(tiny, 1, **change) is why


def test_the_steepest_model_is_answered(tiny: Tiny) -> None:
    """So what is refused above is refused for what it is."""
    assert asked(tiny, 1, models=forged(0.0, 0.0, 31.9), scale=lambda s: (0.5,)) is None


STATED = PheWAS("panel", ("high",), ("c",), firth=True, taken=1, people=100, centre=(0.0,), scale=(0.5,))


def penalised(anchor: list[float], inverse: list[float]) -> NDArray[np.float64]:
    """A round's one model with no effect, and what its leverages are taken of."""
    return np.array([[1.0, 0.0, 0.0, 0.0, *anchor, *inverse]])


@pytest.mark.parametrize(
    ("anchor", "inverse", "taken"),
    [
        ([0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0, 0.0, 0.0], True),  # as the first round has it
        ([0.0, 0.0, 0.0], [0.1, 0.0, 0.0, 0.1, -0.05, 0.1], True),
        ([0.0, 0.0, 30.0], [0.1, 0.0, 0.0, 0.1, 0.0, 0.1], True),
        ([0.0, 0.0, 1e5], [0.1, 0.0, 0.0, 0.1, 0.0, 0.1], False),
        ([np.nan, 0.0, 0.0], [0.1, 0.0, 0.0, 0.1, 0.0, 0.1], False),
        ([0.0, 0.0, 0.0], [0.1, 0.0, 0.0, 0.1, 0.0, 1100.0], False),  # beyond 64^2 at a deviation of 1/2
        ([0.0, 0.0, 0.0], [0.1, 0.0, 0.0, 3000.0, 1500.0, 750.0], False),  # in between two columns alone
        ([0.0, 0.0, 0.0], [0.1, 0.0, 0.0, 1.0, 0.0, -4.0], False),  # positive where |c| < 1/2 deviation alone
        ([0.0, 0.0, 0.0], [0.1, 0.0, 0.0, 0.1, 0.0, np.inf], False),
        ([0.0, 0.0, 0.0], [0.1, 0.0, 0.0, 0.1, 0.0, np.nan], False),
    ],
)
def test_leverages_mark_no_slice_of_people_out(anchor: list[float], inverse: list[float], taken: bool) -> None:
    one = {"pairs": np.array([0]), "models": penalised(anchor, inverse)}
    if taken:
        replace(STATED, **one)
    else:
        with pytest.raises(ValueError, match="too steep"):
            replace(STATED, **one)


@pytest.mark.parametrize("people", [640, 6400])
@pytest.mark.parametrize("middle", [0.0, 0.5, 1.0, 1.5])
def test_the_steepest_model_rests_on_some_of_people_who_lie_evenly(people: int, middle: float) -> None:
    """Worked out here, with log odds that are 0 within the range, at its end, and beyond it."""
    odds = STEEPEST * (np.linspace(-1, 1, people) - middle)
    weight = special.expit(odds) * special.expit(-odds)
    assert weight.sum() ** 2 / (weight**2).sum() >= 0.9 * people / STEEPEST  # they are a grid, and no integral


def test_what_needs_too_many_sums_is_said_before_anything_is_asked() -> None:
    columns = {f"c{i}": Range(0.0, 1.0) for i in range(50)} | {f"p{i}": HIGH for i in range(200)}
    many = PheWAS("panel", tuple(f"p{i}" for i in range(200)), tuple(f"c{i}" for i in range(50)))
    frame = Frame(PANEL, columns)
    with pytest.raises(UsageError) as said:
        many.leaves(frame)
    pairs, each = 200 * VARIANTS, 52 * 53 // 2
    assert pairs * each > MOST_SUMS
    assert f"{VARIANTS} variants by 200 phenotypes beside 50 covariates: {each:,} of each pair" in str(said.value)
    assert f"ask about {MOST_SUMS // each:,} pairs at once" in str(said.value)
    fewer = MOST_SUMS // each // VARIANTS
    replace(many, phenotypes=many.phenotypes[:fewer]).leaves(frame)


def test_the_most_that_may_be_asked_is_declared_in_little_memory() -> None:
    """50,000 pairs beside ten covariates: all bounds at once, with what they are made of, are 170 MB."""
    h, k = 50_000, 10
    assert h * (k + 2) * (k + 3) // 2 <= MOST_SUMS
    one = np.ones(h)
    models, _ = phenome.started(SecondTest.LOGISTIC, 1000 * one, 300 * one, 900 * one, k)
    standard = Covariates(np.zeros(k), np.full(k, 0.3))
    pairs = Pairs(np.repeat(np.arange(100), 500), np.tile(np.arange(500), 100), standard, 500_000)
    tracemalloc.start()
    try:
        phenome.leaves_of_classes(models, pairs)
        pairs.leaves_of_numbers()
        assert tracemalloc.get_traced_memory()[1] < 50e6
    finally:
        tracemalloc.stop()


def test_only_what_takes_one_round_is_answered_for_each_site() -> None:
    assert PheWAS("panel", ("trait",)).by_site
    with pytest.raises(UsageError, match="exact ones in one round"):
        Study.from_document(study(Question("q", PAGE, by_site=True)).document, {"panel": PANEL.encode()})
