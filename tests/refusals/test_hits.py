"""What a node does not take from a coordinator about the second test of a binary trait."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from strategies.analyses.logistic_association import LogisticAssociation, Stage
from strategies.hits import SecondTest
from strategies.question import Question
from strategies.reasons import Reason
from tests.refusals import later
from tests.tiny import NAMES, VARIANTS, Tiny, study, write_sites

PAGE = LogisticAssociation("panel", "high", ("sex",), SecondTest.FIRTH, 1.0, minimum_minor_alleles=1)
QUESTION = Question("binary", PAGE)
STUDY = study(QUESTION)


@pytest.fixture
def tiny(tmp_path: Path) -> Iterator[Tiny]:
    made = Tiny.of(write_sites(tmp_path / "data", own_total=NAMES), tmp_path / "nodes")
    yield made
    made.close()


def asked(tiny: Tiny, stage: Stage, **change: Callable[[Any], Any]) -> Reason | None:
    return later.asked(tiny, STUDY, QUESTION, lambda page: page.stage is stage, change)


@pytest.mark.parametrize("stage", [Stage.NULL, Stage.SCORES, Stage.HITS])
def test_each_stage_is_answered(tiny: Tiny, stage: Stage) -> None:
    assert asked(tiny, stage) is None


def beyond(hits: np.ndarray) -> np.ndarray:
    return np.append(hits[:-1], VARIANTS)


@pytest.mark.parametrize(
    ("stage", "change", "why"),
    [
        (Stage.NULL, {"scale": lambda s: (1e-9,)}, Reason.NOT_DERIVED),
        (Stage.NULL, {"centre": lambda c: (2.0,)}, Reason.NOT_DERIVED),
        (Stage.NULL, {"null": lambda n: (*n, 0.0)}, Reason.NOT_DERIVED),
        (Stage.NULL, {"null": lambda n: (1e9, 0.0)}, Reason.NOT_DERIVED),
        (Stage.NULL, {"people": lambda p: 0}, Reason.NOT_DERIVED),
        (Stage.NULL, {"taken": lambda t: t + 1}, Reason.NOT_DERIVED),
        (Stage.NULL, {"second_stage": lambda p: 0.5}, Reason.NOT_DERIVED),
        (Stage.SCORES, {"imputed": lambda m: m + 2}, Reason.NOT_DERIVED),
        (Stage.SCORES, {"imputed": lambda m: m[:-1]}, Reason.STUDY_INVALID),
        (Stage.HITS, {"hits": lambda h: h[::-1].copy()}, Reason.NOT_DERIVED),
        (Stage.HITS, {"hits": lambda h: h - 1000}, Reason.NOT_DERIVED),
        (Stage.HITS, {"hits": beyond}, Reason.OUT_OF_ORDER),
        (Stage.HITS, {"hits": lambda h: h[:-1]}, Reason.NOT_DERIVED),
        (Stage.HITS, {"hits": lambda h: h.astype(np.float64)}, Reason.NOT_DERIVED),
        (Stage.HITS, {"models": lambda m: m[:, :-1].copy()}, Reason.NOT_DERIVED),
        (Stage.HITS, {"models": lambda m: m * 1e9}, Reason.NOT_DERIVED),
    ],
)  # fmt: skip
def test_a_round_that_does_not_fit_is_refused(
    tiny: Tiny, stage: Stage, change: dict[str, Callable[[Any], Any]], why: Reason
) -> None:
    assert asked(tiny, stage, **change) is why
