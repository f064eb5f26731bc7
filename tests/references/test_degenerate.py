"""Inputs at which a regression is none: said in words, never printed as a hit."""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType

import numpy as np
import pytest

from strategies.analyses.association import LinearAssociation
from strategies.analyses.logistic_association import LogisticAssociation
from strategies.analysis import Answer, Frame, Range, Total
from strategies.cohort import Cohort
from strategies.errors import GenosumError, UsageError
from tests.laws.zoo import RANGES, add, cohort, panel

VARIANTS = 23
QUESTION = LinearAssociation("common", ("trait",), ("sex", "score"), minimum_minor_alleles=1, minimum_missing=1)


def answered(people: Cohort, question: LinearAssociation = QUESTION, minimum_cell: int = 0) -> Answer:
    frame = Frame(panel(VARIANTS), RANGES | {"copy": Range(0.0, 10.0)})
    parts = [people.take(np.arange(len(people))[s::3]) for s in range(3)]
    following = question.conclude(Total(add([question.summarise(p, frame) for p in parts]), ("a", "b", "c")), frame)
    assert isinstance(following, LinearAssociation)
    sums = add([following.summarise(p, frame) for p in parts])
    answer = following.conclude(Total(sums, ("a", "b", "c"), {}, minimum_cell), frame)
    assert isinstance(answer, Answer)
    return answer


def with_column(people: Cohort, name: str, values: np.ndarray) -> Cohort:
    return replace(people, columns=MappingProxyType({**people.columns, name: values}))


def test_a_trait_that_follows_from_its_covariates_is_named() -> None:
    people = cohort(200, VARIANTS, 31, missing=0.0)
    with pytest.raises(UsageError, match="must not explain one another"):
        answered(with_column(people, "trait", (people.columns["sex"] - 1) / 2))


def test_a_covariate_that_stands_there_twice_is_named() -> None:
    people = cohort(200, VARIANTS, 32, missing=0.0)
    twice = with_column(people, "copy", people.columns["score"])
    with pytest.raises(UsageError, match="score, copy"):
        answered(twice, LinearAssociation("common", ("trait",), ("score", "copy")))


def test_a_trait_that_nearly_follows_is_still_a_regression() -> None:
    people = cohort(200, VARIANTS, 33, missing=0.0)
    noise = np.random.default_rng(1).normal(0, 1e-3, 200)
    table = answered(with_column(people, "trait", (people.columns["sex"] - 1) / 2 + noise)).tables["trait"]
    t = np.asarray(table["t"])
    assert np.isfinite(t).any()
    assert np.nanmax(np.abs(t)) < 8


def test_log_odds_that_nodes_would_take_for_a_leap_are_named() -> None:
    """Nothing is wrong with the covariate but its range, which is 1,000 times too wide."""
    people, rng = cohort(400, VARIANTS, 36, missing=0.0), np.random.default_rng(2)
    far = rng.normal(0, 1, 400)
    people = with_column(with_column(people, "far", far), "case", (far + rng.logistic(0, 1, 400) > 0).astype(float))

    def asked(widest: float) -> None:
        frame = Frame(panel(VARIANTS), RANGES | {"far": Range(-widest, widest), "case": Range.of("no", "yes")})
        question: LogisticAssociation | Answer = LogisticAssociation("common", "case", ("far",))
        while isinstance(question, LogisticAssociation):
            question = question.conclude(Total(question.summarise(people, frame), ("a",)), frame)

    asked(5.0)
    with pytest.raises(UsageError, match="change by at most 64 over half"):
        asked(5000.0)


def test_second_round_sums_that_do_not_agree_with_the_first_are_noticed() -> None:
    people = cohort(90, VARIANTS, 34, missing=0.0)
    frame = Frame(panel(VARIANTS), RANGES)
    following = QUESTION.conclude(Total(QUESTION.summarise(people, frame), ("a",)), frame)
    assert isinstance(following, LinearAssociation)
    forged = replace(following, scale=tuple(s / 4 for s in following.scale))
    with pytest.raises(GenosumError, match="do not agree"):
        forged.conclude(Total(forged.summarise(people, frame), ("a",)), frame)


def test_carriers_are_people_not_alleles() -> None:
    """Three people with two copies each are three people, though six alleles."""
    people = cohort(60, VARIANTS, 35, missing=0.0)
    assert people.genotypes is not None
    codes = people.genotypes.codes().copy()
    codes[4] = 0
    codes[4, :3] = 2
    rare = replace(people, genotypes=type(people.genotypes).pack(codes))
    assert answered(rare, minimum_cell=5).tables["trait"]["withheld"][4]
    assert not answered(rare, minimum_cell=3).tables["trait"]["withheld"][4]


@pytest.mark.parametrize("span", [(0.0, 0.0), (0.0, 5e-324), (1e9, 1e9 + 1e-3), (5.0, 4.0), (-1e308, 1e308)])
def test_a_range_narrower_than_rounding_is_none(span: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match="wider than rounding"):
        Range(*span)
