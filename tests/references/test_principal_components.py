"""Principal components over sites against a singular value decomposition of the pooled genotypes, and what later
questions make of them against least squares."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from simulations.run import simulate
from strategies.analyses.association import LinearAssociation
from strategies.analyses.principal_components import PrincipalComponents
from strategies.analysis import Analysis, Answer, Frame, Total
from strategies.cohort import MISSING, Cohort, Genotypes
from strategies.question import Question
from strategies.variants import Panel, Variant
from tests.laws.zoo import PLACES, add, cohort, panel
from tests.references.plain import whole_bed
from tests.references.test_pooled import DEMO, TRAIT, demo_study, pooled

PHASE_1 = Path(__file__).parents[3] / "shared" / "data" / "1kg_phase1" / "1kg_phase1_v3_b37_thinned.bed"


def decomposed(codes: NDArray[np.uint8]) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Loadings, eigenvalues relative to the number of variants, and scores of unit variance, by numpy's SVD."""
    values = np.where(codes == MISSING, np.nan, codes.astype(np.float64))
    mean = np.nanmean(values, axis=1, keepdims=True)
    scaled = np.nan_to_num((values - mean) / np.sqrt(mean * (1 - mean / 2)))
    left, size, right = np.linalg.svd(scaled, full_matrices=False)
    return left, size**2 / len(codes), right * np.sqrt(codes.shape[1])


def common(codes: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """(M,) whether the pooled minor allele was seen 20 times."""
    copies, observed = np.where(codes == MISSING, 0, codes).sum(axis=1), (codes != MISSING).sum(axis=1)
    return np.asarray(np.minimum(copies, 2 * observed - copies) >= 20)


def canonical(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    """The smallest canonical correlation of two orthonormal bases."""
    return float(np.linalg.svd(one.T @ other, compute_uv=False).min())


def over_sites(question: Analysis, parts: list[Cohort], frame: Frame) -> Answer:
    for _ in range(question.rounds()):
        total = add([question.summarise(part, frame) for part in parts])
        following = question.conclude(Total(total, tuple("abcdefg"[: len(parts)])), frame)
        if isinstance(following, Answer):
            return following
        question = following
    raise AssertionError("no answer within the question's rounds")


@pytest.mark.skipif(not PHASE_1.exists(), reason="the shared data folder is not there")
def test_components_of_1000_genomes_are_those_of_the_pooled_people() -> None:
    keys, _, codes = whole_bed(PHASE_1)
    frame = Frame(Panel("GRCh37", tuple(Variant(c, p, ".", r, a) for c, p, r, a in keys)))
    site = np.random.default_rng(5).choice(4, codes.shape[1], p=(0.1, 0.2, 0.3, 0.4))
    parts = [Cohort(int((site == s).sum()), Genotypes.pack(codes[:, site == s])) for s in range(4)]
    answer = over_sites(PrincipalComponents("panel"), parts, frame)
    table = answer.tables["loadings"]
    inside = ~np.asarray(table["withheld"])
    assert np.array_equal(inside, common(codes))
    loadings = np.stack([np.asarray(table[f"pc{k}"])[inside] for k in range(1, 11)], axis=1)
    want, values, _ = decomposed(codes[inside])
    assert canonical(loadings[:, :6], want[:, :6]) >= 0.9999999
    assert canonical(loadings, want[:, :10]) >= 0.9999
    found = [float(answer.facts[f"eigenvalue_{k}"]) for k in range(1, 11)]
    assert found == pytest.approx(values[:10], rel=1e-5)
    assert float(answer.facts["residual"]) < 1e-3


def test_variants_on_x_y_and_mt_stay_out() -> None:
    """Men's single copies would be a component of their own."""
    everybody = cohort(400, 24, 3, missing=0.02)
    parts = [everybody.take(np.arange(400)[s::4]) for s in range(4)]
    mixed = over_sites(PrincipalComponents("p", 2), parts, Frame(panel(24, PLACES))).tables["loadings"]
    out = np.array([v.chromosome in ("X", "Y", "MT") and v.position not in range(2_000_000, 2_000_030)
                    and v.position < 154_931_044 for v in panel(24, PLACES).variants])  # fmt: skip
    assert out.sum() == 16
    assert np.array_equal(np.asarray(mixed["withheld"]), out)


def test_a_later_question_adjusts_for_components_that_never_left() -> None:
    study = demo_study("gstt1")
    components = Question("pca", PrincipalComponents("common", components=2))
    adjusted = Question("adjusted", LinearAssociation("common", (TRAIT,), ("sex", "pca.pc1", "pca.pc2")))
    fewer = Panel("GRCh37", study.panels["common"].variants[::4])
    asked = replace(study, questions=(components, adjusted), panels={**study.panels, "common": fewer})
    pca, association = (result.answer for result in simulate(asked, DEMO).results)
    codes, columns, _ = pooled(DEMO)
    codes = codes[::4]
    inside = common(codes)
    assert np.array_equal(inside, ~np.asarray(pca.tables["loadings"]["withheld"]))
    scores = decomposed(codes[inside])[2][:2].T
    table = association.tables[TRAIT]
    rows = np.argsort(np.asarray(table["p_value"]))[:200:10]
    y = columns[:, -1]
    for row in rows:
        x = np.column_stack([codes[row], np.ones(len(y)), columns[:, 0], scores])
        beta, rest, _, _ = np.linalg.lstsq(x, y, rcond=None)
        error = np.sqrt(rest[0] / (len(y) - 5) * np.linalg.inv(x.T @ x)[0, 0])
        # Components are asked for until they have turned by 1e-4 at most.
        assert np.asarray(table["t"])[row] == pytest.approx(beta[0] / error, rel=1e-4)
    assert association.facts["people"] == len(y)
