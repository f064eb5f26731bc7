"""Rare-variant tests over sites against their definitions on the pooled people, written with all people's matrices; the
distribution of quadratic forms against chi-squares, numerical inversion and simulation."""

from __future__ import annotations

from itertools import pairwise
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from strategies import kernel_tests
from strategies.analyses import rare_variants
from strategies.analyses.rare_variants import RareVariants, by_genes
from strategies.analysis import Answer, Frame, Range, Total
from strategies.cohort import MISSING, Cohort, Genotypes
from strategies.quadratic_form import upper_tail
from strategies.summary import join
from strategies.variants import Panel, Variant
from tests.laws.zoo import add

Matrix = NDArray[np.float64]

PEOPLE, VARIANTS, SIZE = 1200, 60, 12
RANGES = {"trait": Range(-8.0, 8.0), "sex": Range(1.0, 2.0), "age": Range(20.0, 90.0)}


def panel(weights: Matrix | None = None) -> Panel:
    """Five genes of twelve variants; the last variant of each is also the next one's, and every seventh is in none."""
    rows = []
    for j in range(VARIANTS):
        names = [f"g{j // SIZE}"] + [f"g{j // SIZE + 1}"] * (j % SIZE == SIZE - 1 and j // SIZE in (0, 3))
        rows.append(
            Variant(
                "1", 100 + j, f"v{j}", "A", "C",
                weight=None if weights is None else float(weights[j]),
                genes=() if j % 7 == 6 else tuple(names),
            )
        )  # fmt: skip
    states = {"GENE"} if weights is None else {"GENE", "WEIGHT"}
    return Panel("GRCh37", tuple(rows), states=frozenset(states))


def people(seed: int = 1) -> Cohort:
    rng = np.random.default_rng(seed)
    frequency = rng.choice([0.0004, 0.001, 0.004, 0.009, 0.05], VARIANTS)[:, None]
    codes = rng.binomial(2, frequency, (VARIANTS, PEOPLE)).astype(np.uint8)
    copies = codes.astype(np.float64)
    sex, age = rng.integers(1, 3, PEOPLE).astype(float), rng.uniform(20, 90, PEOPLE).round()
    trait = rng.normal(0, 1, PEOPLE) + 0.3 * sex + 0.01 * age + 0.9 * copies[:6].sum(axis=0) - copies[25:30].sum(axis=0)
    trait += copies[30:36].sum(axis=0)
    codes[rng.random(codes.shape) < 0.01] = MISSING
    age[rng.random(PEOPLE) < 0.05] = np.nan
    columns = {"trait": RANGES["trait"].clamp(trait), "sex": sex, "age": age}
    return Cohort(PEOPLE, Genotypes.pack(codes), MappingProxyType(columns))


def asked(everybody: Cohort, frame: Frame, minimum: int = 0, **change: Any) -> Answer:
    """The question over four sites, slice by slice as the gate cuts it."""
    site = np.random.default_rng(2).choice(4, len(everybody), p=(0.1, 0.2, 0.3, 0.4))
    parts = [everybody.take(np.flatnonzero(site == s)) for s in range(4)]
    question: Any = RareVariants("panel", "trait", ("sex", "age"), **change)
    for _ in range(question.rounds()):
        totals = []
        for span in question.slices(frame):
            cut = [Cohort(len(p), p.genotypes[span], p.columns) for p in parts if p.genotypes is not None]
            totals.append(add([question.summarise(part, frame[span]) for part in cut]))
        total = join(totals, question.leaves(frame))
        question = question.conclude(Total(total, ("a", "b", "c", "d"), {}, minimum), frame)
        if isinstance(question, Answer):
            return question
    raise AssertionError("no answer within the question's rounds")


def tail(x: float, weights: Matrix, terms: int = 1 << 16) -> float:
    """P(Q > x): of one or two squares exactly, of three by conditioning on the smallest, of more by Davies' sum
    [Applied Statistics 29, 1980, equation 5] with so small a step and so many terms that no error exceeds 1e-11."""
    w = np.sort(weights[weights > 1e-9 * weights.max()])[::-1]
    if x <= 0:
        return 1.0
    if len(w) == 1:
        return float(stats.chi2.sf(x / w[0], 1))
    if len(w) == 2:
        at = (np.arange(4000) + 0.5) * np.pi / 4000
        return float(np.exp(-x / (2 * (w[0] * np.cos(at) ** 2 + w[1] * np.sin(at) ** 2))).mean())
    if len(w) == 3:
        end, beyond = min(np.sqrt(x / w[2]), 9.0), 0.0
        z, mass = np.polynomial.legendre.leggauss(200)
        for low, high in [(0, end / 2), (end / 2, end)]:
            at = (z + 1) / 2 * (high - low) + low
            inside = [tail(x - w[2] * t * t, w[:2]) for t in at]
            beyond += float(mass @ (np.array(inside) * stats.norm.pdf(at))) * (high - low)
        return beyond + 2 * float(stats.norm.sf(end))
    step = 2 * np.pi / (2 * x + 2 * w.sum() + 80 * w[0])
    u = step * (np.arange(terms) + 0.5)
    angle, log = -x * u / 2, np.zeros(len(u))
    for each in w:
        angle += 0.5 * np.arctan(each * u)
        log += 0.25 * np.log1p((each * u) ** 2)
    return float(0.5 + (np.sin(angle) / (np.arange(terms) + 0.5) * np.exp(-log)).sum() / np.pi)


def of_pooled(gene: str, everybody: Cohort, on: Panel, minimum: int, mixed: bool) -> dict[str, float]:
    """The tests of one gene by their definitions, from all people's genotypes."""
    assert everybody.genotypes is not None
    there = np.isfinite(everybody.columns["age"])
    codes = everybody.genotypes.codes()[:, there]
    copies = np.where(codes == MISSING, 0, codes).astype(np.float64)
    n = copies.shape[1]
    X = np.column_stack([np.ones(n), everybody.columns["sex"][there], everybody.columns["age"][there]])
    y = everybody.columns["trait"][there]
    residual = y - X @ np.linalg.lstsq(X, y, rcond=None)[0]
    variance = residual @ residual / (n - 3)
    units, weights, rare = [], [], []
    for j, variant in enumerate(on.variants):
        carriers, alleles = (copies[j] > 0).sum(), copies[j].sum()
        if gene not in variant.genes or not 0 < alleles <= 0.02 * n:
            continue
        if alleles < 3 or carriers < minimum:
            rare.append(j)
        else:
            units.append(copies[j])
            weights.append(on.weights[j] if "WEIGHT" in on.states else stats.beta.pdf(alleles / (2 * n), 1, 25))
    if rare and (copies[rare].any(axis=0).sum() >= max(minimum, 1)):
        together = copies[rare].any(axis=0).astype(float)
        units.append(together)
        stated = "WEIGHT" in on.states
        weights.append(on.weights[rare].mean() if stated else stats.beta.pdf(together.sum() / (2 * n), 1, 25))
    if not units:
        return {}
    G = np.array(units).T * np.array(weights)
    Z = G - X @ np.linalg.lstsq(X, G, rcond=None)[0]
    scores = Z.T @ residual
    z = scores.sum() / np.sqrt(variance * Z.sum(axis=1) @ Z.sum(axis=1))
    out = {
        "burden_p": float(2 * stats.norm.sf(abs(z))),
        "burden_beta": float(scores.sum() / (Z.sum(axis=1) @ Z.sum(axis=1))),
        "skat_p": tail(scores @ scores / variance, np.linalg.svd(Z, compute_uv=False) ** 2),
    }
    return out | ({"skat_o_p": lee(scores / np.sqrt(variance), Z)} if mixed else {})


def lee(scores: Matrix, Z: Matrix) -> float:
    """SKAT-O by the steps of the 2012 paper's section 3, with the people-by-variants matrix itself."""
    m = Z.shape[1]
    if m == 1:
        return float(stats.chi2.sf(scores @ scores / (Z**2).sum(), 1))
    rhos = [0, 0.1**2, 0.2**2, 0.3**2, 0.4**2, 0.5**2, 0.5, 1]
    spectra, p = [], []
    for rho in rhos:
        root = np.linalg.cholesky((1 - min(rho, 0.999999999)) * np.eye(m) + min(rho, 0.999999999) * np.ones((m, m)))
        spectra.append(np.linalg.svd(Z @ root, compute_uv=False) ** 2)
        p.append(tail((1 - rho) * scores @ scores + rho * scores.sum() ** 2, spectra[-1]))
    least = min(p)
    mean = Z.mean(axis=1)
    along = np.outer(mean, mean @ Z) / (mean @ mean)
    rest = Z - along
    w = np.linalg.svd(rest, compute_uv=False) ** 2
    w = w[w > 1e-9 * w.max()]
    zeta = 4 * ((along.T @ along) * (rest.T @ rest)).sum()
    spread = np.sqrt(2 * (w**2).sum() / (2 * (w**2).sum() + zeta))
    tau = [
        m**2 * r * (mean @ mean) + (1 - r) * ((mean @ Z) ** 2).sum() / (mean @ mean) for r in np.minimum(rhos, 0.999)
    ]
    quantile = []
    for s in spectra:  # a chi-square of the same kurtosis, and of the same skewness where there is one
        c1, c2, c3, c4 = (float((s**k).sum()) for k in (1, 2, 3, 4))
        s1, s2 = c3 / c2**1.5, c4 / c2**2
        if s1**2 > s2:
            a = 1 / (s1 - np.sqrt(s1**2 - s2))
            degrees = a**2 - 2 * (s1 * a**3 - a**2)
        else:
            degrees = 1 / s2
        quantile.append((stats.chi2.isf(least, degrees) - degrees) / np.sqrt(2 * degrees) * np.sqrt(2 * c2) + c1)

    def inner(z: float) -> float:
        delta = min((q - t * z * z) / (1 - r) for q, t, r in zip(quantile, tau, np.minimum(rhos, 0.999), strict=True))
        return float(tail((delta - w.sum()) * spread + w.sum(), w, 1 << 14) * 2 * stats.norm.pdf(z))

    ends = np.linspace(0, np.sqrt(min(q / t for q, t in zip(quantile, tau, strict=True))), 21)
    node, mass = np.polynomial.legendre.leggauss(4)
    whole = 2 * stats.norm.sf(ends[-1])
    for a, b in pairwise(ends):
        whole += sum(k * (b - a) / 2 * inner((a + b) / 2 + (b - a) / 2 * x) for x, k in zip(node, mass, strict=True))
    return float(min(whole, 8 * least))


LOOSER = {"burden_p": 1e-7, "burden_beta": 1e-7, "skat_p": 1e-6, "skat_o_p": 1e-3}


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("minimum", [0, 5])
def test_genes_are_tested_as_by_their_definitions(
    weighted: bool, minimum: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rare_variants, "VARIANTS_PER_SLICE", 10)
    weights = np.random.default_rng(3).uniform(0.2, 3, VARIANTS) if weighted else None
    frame, everybody = Frame(panel(weights), RANGES), people()
    assert frame.panel is not None
    assert len(by_genes(frame.panel)) == 3
    table = asked(everybody, frame, minimum).tables["genes"]
    tested = 0
    for at, gene in enumerate(table["gene"]):
        want = of_pooled(str(gene), everybody, frame.panel, minimum, not weighted and not minimum)
        for name, value in want.items():
            got = float(np.asarray(table[name])[at])
            print(gene, name, got, value)
            assert got == pytest.approx(value, rel=LOOSER[name], abs=1e-9), (gene, name)
        tested += bool(want)
    assert tested == 5
    assert min(np.asarray(table["skat_o_p"])) < 1e-3
    assert np.asarray(table["collapsed"]).sum() > 3


def test_slices_part_no_gene(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rare_variants, "VARIANTS_PER_SLICE", 10)
    on = panel()
    spans = by_genes(on)
    assert [(s.start, s.stop) for s in spans] == [(0, 24), (24, 36), (36, 60)]
    for span in spans:
        inside = {name for v in on[span].variants for name in v.genes}
        outside = {name for v in (*on.variants[: span.start], *on.variants[span.stop :]) for name in v.genes}
        assert not inside & outside


def test_a_gene_with_few_carriers_is_withheld_and_nothing_of_it_is_asked_for() -> None:
    everybody, on = people(), panel()
    assert everybody.genotypes is not None
    codes = everybody.genotypes.codes().copy()
    codes[SIZE - 1 : 2 * SIZE] = 0  # the first is g0's as well
    codes[SIZE + 3, 5], codes[SIZE + 4, 9] = 1, 2  # two people
    few = Cohort(PEOPLE, Genotypes.pack(codes), everybody.columns)
    table = asked(few, Frame(on, RANGES), 5).tables["genes"]
    at = table["gene"].index("g1")  # type: ignore[union-attr]
    assert np.asarray(table["withheld"])[at]
    for name in ("carriers", "burden_p", "skat_p", "skat_o_p"):
        assert np.isnan(np.asarray(table[name])[at])
    question: Any = RareVariants("panel", "trait", ("sex", "age"))
    for _ in range(2):
        total = Total(question.summarise(few, Frame(on, RANGES)), ("a",), {}, 5)
        question = question.conclude(total, Frame(on, RANGES))
    names = [gene.name for gene in rare_variants.genes(on)]
    assert question._genes(Frame(on))[names.index("g1")] == ([], [])
    for alone, _ in question._genes(Frame(on)):
        assert all((codes[j] % 3 > 0).sum() >= 5 for j in alone)


@pytest.mark.parametrize("degrees", [1, 2, 3, 10, 300])
def test_tails_of_equal_weights_are_chi_squares(degrees: int) -> None:
    for p in (0.999, 0.6, 0.45, 0.33, 0.1, 1e-4, 1e-9, 1e-40, 1e-250):
        x = float(stats.chi2.isf(p, degrees))
        assert upper_tail(2.5 * x, np.full(degrees, 2.5)) == pytest.approx(p, rel=1e-9)


def test_tails_of_unequal_weights_are_those_of_the_sum() -> None:
    rng = np.random.default_rng(4)
    for size in (2, 3, 5, 8, 30):
        weights = rng.exponential(size=size) ** 2
        for ratio in (0.1, 0.7, 0.99, 1.0, 1.01, 1.4, 3.0, 6.0):
            x = ratio * float(weights.sum())
            assert upper_tail(x, weights) == pytest.approx(tail(x, weights), rel=1e-7, abs=1e-10), (size, ratio)
    assert np.isnan(upper_tail(1.0, np.zeros(3)))
    assert upper_tail(-1.0, np.ones(3)) == 1.0


@pytest.mark.proof
def test_skat_o_is_uniform_without_effects() -> None:
    rng = np.random.default_rng(8)
    mixed = rng.normal(size=(9, 9)) * rng.exponential(size=9)
    covariance = mixed @ mixed.T + 0.3
    root = np.linalg.cholesky(covariance)
    p = [kernel_tests.skat_o(root @ rng.normal(size=9), covariance, 1.0) for _ in range(600)]
    # The integral and its quantiles are approximations; a uniform sample fails at this level once in a million.
    assert stats.kstest(p, "uniform").pvalue > 1e-6
    assert 0.03 < np.mean(np.array(p) < 0.05) < 0.075
