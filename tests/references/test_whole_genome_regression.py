"""Whole-genome regression over sites against dense algebra on the pooled genotypes, and what its offsets do to the
association of relatives."""

from __future__ import annotations

from types import MappingProxyType

import numpy as np
import pytest
from numpy.typing import NDArray

from strategies.analyses.whole_genome_regression import WholeGenomeRegression
from strategies.analysis import Answer, Frame, Range
from strategies.cohort import MISSING, Cohort, Genotypes
from strategies.variants import Panel, Variant
from tests.references.families import Families
from tests.references.test_principal_components import over_sites

RANGES = {"height": Range(-10.0, 10.0), "weight": Range(-20.0, 30.0), "age": Range(0.0, 100.0)}
COVARIATES = ("age",)


def standardised(codes: NDArray[np.uint8]) -> NDArray[np.float64]:
    """(M, N) genotypes centred and scaled by their frequencies; missing ones at the centre, of 14 binary places."""
    values = np.where(codes == MISSING, np.nan, codes.astype(np.float64))
    mean = np.nanmean(values, axis=1, keepdims=True)
    return np.nan_to_num((values - np.rint(mean * 2**14) / 2**14) / np.sqrt(mean * (1 - mean / 2)))


def without(x: NDArray[np.float64], values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Values of people, last axis, less what a regression on X explains."""
    q, _ = np.linalg.qr(x)
    return values - (values @ q) @ q.T


def frame(chromosome: NDArray[np.int64]) -> Frame:
    variants = tuple(Variant(str(c), 100 + 10 * j, ".", "A", "C") for j, c in enumerate(chromosome))
    return Frame(Panel("GRCh37", variants), RANGES)


def split(codes: NDArray[np.uint8], columns: dict[str, NDArray[np.float64]], site: NDArray[np.int64]) -> list[Cohort]:
    return [
        Cohort(
            int((site == s).sum()),
            Genotypes.pack(codes[:, site == s]),
            MappingProxyType({name: values[site == s] for name, values in columns.items()}),
        )
        for s in range(int(site.max()) + 1)
    ]


def heritability(z: NDArray[np.float64], y: NDArray[np.float64], free: int) -> tuple[float, NDArray[np.float64]]:
    """By restricted likelihood from all eigenvalues of the people's relationships; and its curve over 0.01, ..."""
    values, vectors = np.linalg.eigh(z.T @ z)
    values, turned = np.maximum(values[-free:], 0), (vectors.T @ y)[-free:]  # X explains the rest
    grid, curve = np.arange(1, 100) / 100, []
    for h in grid:
        variance = values * h / len(z) + 1 - h
        curve.append(-0.5 * (free * np.log((turned**2 / variance).sum()) + np.log(variance).sum()))
    return float(grid[int(np.argmax(curve))]), np.array(curve)


@pytest.fixture(scope="module")
def relatives() -> tuple[Families, dict[str, NDArray[np.float64]]]:
    rng = np.random.default_rng(7)
    people = Families.of(families=120, children=3, chromosomes=4, each=60, rng=rng)
    codes, n = people.codes, people.codes.shape[1]
    age = rng.uniform(20, 80, n)
    z = standardised(codes)
    genetic = z.T @ rng.normal(0, 1, len(z))
    columns = {
        "height": 0.9 * genetic / genetic.std() + rng.normal(0, 0.9, n) + 0.02 * age,
        "weight": rng.normal(0, 2, n) + 0.5 * (genetic / genetic.std()) - 0.01 * age,
        "age": age,
    }
    codes[rng.random(codes.shape) < 0.02] = MISSING
    columns["weight"][rng.random(n) < 0.03] = np.nan
    return people, columns


@pytest.fixture(scope="module")
def answer(relatives: tuple[Families, dict[str, NDArray[np.float64]]]) -> Answer:
    people, columns = relatives
    site = np.random.default_rng(1).choice(4, len(people.family), p=(0.1, 0.2, 0.3, 0.4))
    question = WholeGenomeRegression(
        "panel", ("height", "weight"), COVARIATES, tuple("1234"), iterations=50, tolerance=1e-7
    )
    return over_sites(question, split(people.codes, columns, site), frame(people.chromosome))


def test_weights_are_those_of_a_dense_ridge_regression_of_the_pooled_people(
    relatives: tuple[Families, dict[str, NDArray[np.float64]]], answer: Answer
) -> None:
    people, columns = relatives
    there = np.isfinite(columns["weight"])
    codes, table = people.codes[:, there], answer.tables["weights"]
    assert answer.facts["people"] == there.sum()
    x = np.column_stack([np.ones(there.sum()), columns["age"][there]])
    z = without(x, standardised(codes))
    values = np.where(codes == MISSING, np.nan, codes.astype(np.float64))
    mean = np.nanmean(values, axis=1)
    for trait in ("height", "weight"):
        y = columns[trait][there] / columns[trait][there].std()
        h = float(answer.facts[f"heritability_{trait}"])
        ridge = len(z) * (1 - h) / h
        for c in range(1, 5):
            other = people.chromosome != c
            inner = z[other] @ z[other].T + ridge * np.eye(other.sum())
            want = np.linalg.solve(inner, z[other] @ without(x, y)) / np.sqrt(mean * (1 - mean / 2))[other]
            got = np.asarray(table[f"{trait}_chr{c}"])
            assert np.linalg.norm(got[other] - want) < 1e-6 * np.linalg.norm(want)
            assert not got[~other].any()
        assert float(answer.facts[f"deviation_{trait}"]) == pytest.approx(columns[trait][there].std(), rel=1e-7)
    assert float(answer.facts["residual"]) <= 1e-7
