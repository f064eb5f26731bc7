"""What a node does not take from a coordinator about pairs of a variant and a phenotype beside covariates."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from strategies.analyses.phewas import PheWAS
from strategies.analysis import Range
from strategies.errors import UsageError
from strategies.question import Question
from strategies.reasons import Reason
from strategies.study import Study
from tests.refusals import later
from tests.tiny import COLUMNS, NAMES, PANEL, VARIANTS, Tiny, study, write_sites

PAGE = PheWAS("panel", ("trait", "high"), ("sex",))
QUESTION = Question("phenome", PAGE)
HIGH = Range.of("0", "1")
STUDY = study(QUESTION, columns={"trait": Range(-4.0, 4.0), "high": HIGH, "sex": Range(1.0, 2.0)})


@pytest.fixture
def tiny(tmp_path: Path) -> Iterator[Tiny]:
    columns = {name: list(span) for name, span in COLUMNS.items()} | {"high": HIGH.plain()}
    made = Tiny.of(write_sites(tmp_path / "data", own_total=NAMES, columns=columns), tmp_path / "nodes")
    yield made
    made.close()


def asked(tiny: Tiny, rounds: int, **change: Callable[[Any], Any]) -> Reason | None:
    return later.asked(tiny, STUDY, QUESTION, lambda page: page.taken >= rounds, change)


@pytest.mark.parametrize("taken", [0, 1, 2])
def test_each_round_is_answered(tiny: Tiny, taken: int) -> None:
    assert asked(tiny, taken) is None


def beyond(pairs: np.ndarray) -> np.ndarray:
    return np.append(pairs[:-1], 2 * VARIANTS)


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
    ],
)
def test_a_round_that_does_not_fit_is_refused(tiny: Tiny, change: dict[str, Callable[[Any], Any]], why: Reason) -> None:
    assert asked(tiny, 1, **change) is why


def test_only_what_takes_one_round_is_answered_for_each_site() -> None:
    assert PheWAS("panel", ("trait",)).by_site
    with pytest.raises(UsageError, match="exact ones in one round"):
        Study.from_document(study(Question("q", PAGE, by_site=True)).document, {"panel": PANEL.encode()})
