"""What a node does not take from a coordinator about the second test of a binary trait."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from strategies.analyses.logistic_association import LogisticAssociation, Stage
from strategies.hits import Models, SecondTest
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
        (Stage.NULL, {"null": lambda n: (0.0, 33.0), "scale": lambda s: (0.5,)}, Reason.NOT_DERIVED),
        (Stage.NULL, {"null": lambda n: (0.0, 1.0), "scale": lambda s: (1e-4,)}, Reason.NOT_DERIVED),
        (Stage.SCORES, {"null": lambda n: (0.0, 33.0), "scale": lambda s: (0.5,)}, Reason.NOT_DERIVED),
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
        (Stage.HITS, {"models": lambda m: m + 2.0**19 * (np.arange(m.shape[1]) == 3)}, Reason.STUDY_INVALID),
        (Stage.HITS, {"models": lambda m: m + 1e9 * (np.arange(m.shape[1]) == m.shape[1] - 1)}, Reason.STUDY_INVALID),
    ],
)  # fmt: skip
def test_a_round_that_does_not_fit_is_refused(
    tiny: Tiny, stage: Stage, change: dict[str, Callable[[Any], Any]], why: Reason
) -> None:
    assert asked(tiny, stage, **change) is why


def test_the_steepest_null_model_is_answered(tiny: Tiny) -> None:
    assert asked(tiny, Stage.SCORES, null=lambda n: (0.0, 31.9), scale=lambda s: (0.5,)) is None


SCALE, NULL = np.array([0.5]), np.array([[-1.0, 0.2]])


@pytest.mark.parametrize(
    ("test", "numbers", "taken"),
    [  # mean, sought, anchor, inverse, out
        (SecondTest.FIRTH_APPROXIMATE, [1.0, 0.5, 0.5, 0.2, 0.1, 0.3], True),
        (SecondTest.FIRTH_APPROXIMATE, [1.0, 0.5, 0.5, 0.2, 0.1, 1e3], False),  # what is taken out leaps
        (SecondTest.FIRTH_APPROXIMATE, [1.0, 0.0, 0.5, 0.2, 0.1, 1e3], False),  # where leverages are taken
        (SecondTest.FIRTH_APPROXIMATE, [1.0, 0.0, 0.0, 0.2, 0.1, 1e3], False),  # and they alone
        (SecondTest.FIRTH_APPROXIMATE, [1.0, 0.0, 0.0, -0.2, 0.1, 0.3], False),
        (SecondTest.SPA, [1.0, 2.0, -2.0, 0.1, 0.3], True),
        (SecondTest.SPA, [1.0, 2.0, -2e3, 0.1, 0.3], False),
        (SecondTest.LOGISTIC, [1.0, 0.5, -1.0, 30.0], True),
        (SecondTest.LOGISTIC, [1.0, 0.5, -1.0, 33.0], False),
        (SecondTest.LOGISTIC, [1.0, 21.0, -1.0, 0.2], False),
    ],
)
def test_no_second_test_leaps_over_covariates(test: SecondTest, numbers: list[float], taken: bool) -> None:
    assert Models.of(test, np.array([numbers]), 2).steep(NULL, SCALE).tolist() == [not taken]
