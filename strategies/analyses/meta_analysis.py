"""Meta-analysis of a quantitative trait: each site's own regressions, combined by their estimates and errors.

Each site sums what one linear regression a variant needs, complete-case, over its own people, in one round; from the
sums of each site alone its beta_s and standard error e_s follow. With w_s = 1 / e_s^2, over the S sites that have both:

    fixed    beta = sum w_s beta_s / sum w_s,  error = (sum w_s)^(-1/2)
    Q        sum w_s (beta_s - beta)^2, chi-square with S - 1 degrees of freedom where the sites' effects are the same
    I2       max(0, (Q - (S - 1)) / Q)
    random   the same with w*_s = 1 / (e_s^2 + tau^2),
             tau^2 = max(0, (Q - (S - 1)) / (sum w_s - sum w_s^2 / sum w_s)) [1, equations 8 and 9]

It stands beside the joint fit of `association` and is not equal to it: covariates have effects of their own at each
site, each site has a mean of its own, and a variant that is rare at a site has no estimate there. Choose it where sites
may not give a total, or where their effects may differ.

Each site withholds for itself. A variant has no estimate from a site where its minor allele count lies below
`minimum_minor_alleles`, where fewer people than the minimum carry either allele, or where the genotype of somebody, but
of fewer than the minimum, is missing. The coordinator sees each site's sums of the others.

NaN: at a site, a variant that covariates explain, or a site where trait or covariates do not vary, explain one another,
or are known of too few people (its facts say which); over the sites, a variant that fewer than two have an estimate of.

[1] DerSimonian, Laird: Meta-analysis in clinical trials, Controlled Clinical Trials 7 (1986).
[2] Higgins, Thompson: Quantifying heterogeneity in a meta-analysis, Statistics in Medicine 21 (2002): I2.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from scipy import special

from strategies.analyses.allele_frequency import NORMAL_95, variant_columns
from strategies.analyses.association import ESTIMATES, LEAST_DEVIATION, _product, _regressions
from strategies.analysis import NAMES_COLUMN, NAMES_PANEL, Answer, Column, Frame, Needs, Total, by_variants
from strategies.cohort import MISSING, Cohort
from strategies.privacy import Regime
from strategies.protections.suppression import WITHHELD, held_by_few, replaced, small
from strategies.summary import Field, Summary

FRACTION_BITS, REST_BITS = 40, 64
"""Columns lie in [-1, 1]: a million people with two alleles reach 2^61. What a contribution has below that grid is
summed apart, on a finer one: a site's mean may be large beside its deviation, and only the coordinator takes it off."""

VARIANT_BLOCK = 256
MEASURED = ("products", "scores", "missing")
BY_VARIANT = ("genotypes", "scores", "missing", "scores_rest", "missing_rest")
COMBINED = (
    "beta", "standard_error", "z", "p_value", "beta_random", "standard_error_random", "p_value_random", "q",
    "q_p_value", "i2", "tau2", "effect_allele_frequency", "n",
)  # fmt: skip
"""What the answer over all sites says about a variant."""


@dataclass(frozen=True)
class MetaAnalysis:
    """Beta and standard error of one trait for every variant at each site, and what they combine to.

    Attributes:
        panel: name of the study's panel.
        trait: name of the quantitative column.
        covariates: names of further columns; an intercept is always there.
        minimum_minor_alleles: least number of minor alleles at a site, among its people with trait and covariates.
    """

    analysis: ClassVar[str] = "meta_analysis"
    regime: ClassVar[Regime] = Regime.EXACT
    by_site: ClassVar[bool] = True
    summary_in_words: ClassVar[str] = "for each variant, the sums that a linear regression of each site's own needs"

    panel: str = field(metadata=NAMES_PANEL)
    trait: str = field(metadata=NAMES_COLUMN)
    covariates: tuple[str, ...] = field(default=(), metadata=NAMES_COLUMN)
    minimum_minor_alleles: int = 20

    def __post_init__(self) -> None:
        if self.trait in self.covariates or len(set(self.covariates)) != len(self.covariates):
            raise ValueError("trait and covariates must be different columns.")
        if not 1 <= self.minimum_minor_alleles <= 10**9:
            raise ValueError("minimum_minor_alleles must be from 1 to 1000000000.")

    @property
    def _columns(self) -> tuple[str, ...]:
        return (*self.covariates, self.trait)

    @property
    def _pairs(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Index pairs (i <= j) of the products of w = (1, covariates, trait), row by row."""
        rows, columns = np.triu_indices(len(self._columns) + 1)
        return rows.astype(np.int64), columns.astype(np.int64)

    def needs(self) -> Needs:
        return Needs(columns=self._columns, panel=self.panel)

    def rounds(self) -> int:
        return 1

    def fraction(self) -> float:
        return 0.0

    def slices(self, frame: Frame) -> tuple[slice, ...]:
        return by_variants(frame)

    def leaves(self, frame: Frame) -> dict[str, Field]:
        assert frame.panel is not None
        m, k, q, f = len(frame.panel), len(self._columns), len(self._pairs[0]), FRACTION_BITS
        cells, sites = "people with 1, 2 or no observed alternate alleles", "sites that hold the variant"
        scores, missing = "alternate alleles times covariates and trait", "products of people without genotype"
        # Columns are in units of half their range: a product moves by at most 1, alleles times a column by 2.
        fields = {
            "products": Field((q,), "products of intercept, covariates and trait", q, q**0.5, f),
            "scores": Field((m, k), scores, 2 * m * k, 2 * (m * k) ** 0.5, f, per_variant=True),
            "missing": Field((m, q), missing, m * q, (m * q) ** 0.5, f, per_variant=True),
        }
        half = 2.0 ** -(f + 1) * (1 + 2.0**-12)  # of a unit, and what a double's product has beyond its digits
        rests = {
            f"{name}_rest": replace(
                one, unit=f"{one.unit}, the rest", l1=one.l1 * half, l2=one.l2 * half, fraction_bits=REST_BITS
            )
            for name, one in fields.items()
        }
        return {
            **fields,
            **rests,
            "genotypes": Field((m, 3), cells, m, m**0.5, per_variant=True),
            "holders": Field((m,), sites, m, m**0.5, per_variant=True, over="sites"),
        }

    def summarise(self, cohort: Cohort, frame: Frame) -> Summary:
        assert cohort.genotypes is not None
        columns = np.stack([frame.columns[name].unit(cohort.columns[name]) for name in self._columns], axis=1)
        complete = np.flatnonzero(np.isfinite(columns).all(axis=1))
        fields, unit, (i, j) = self.leaves(frame), columns[complete], self._pairs
        w = np.concatenate([np.ones((len(unit), 1)), unit], axis=1)
        z = _on_two_grids(unit, np.zeros_like(unit))
        products = _on_two_grids(*_exact_product(w[:, i], w[:, j]))
        k, q = unit.shape[1], len(i)
        genotypes = cohort.genotypes if len(complete) == len(cohort) else cohort.genotypes.take(complete)
        scores = np.empty((len(genotypes), 2 * k), dtype=np.int64)
        missing = np.zeros((len(genotypes), 2 * q), dtype=np.int64)
        for start in range(0, len(genotypes), VARIANT_BLOCK):
            span = slice(start, start + VARIANT_BLOCK)
            codes = genotypes[span].codes()
            scores[span] = _product(np.where(codes == MISSING, 0, codes), z)
            for row in np.flatnonzero((codes == MISSING).any(axis=1)):
                missing[start + row] = products[codes[row] == MISSING].sum(axis=0)
        cells, whole = genotypes.counts(), products.sum(axis=0)
        sums = {
            "products": whole[:q], "products_rest": whole[q:], "scores": scores[:, :k], "scores_rest": scores[:, k:],
            "missing": missing[:, :q], "missing_rest": missing[:, q:], "genotypes": cells[:, 1:],
            "holders": np.any(cells[:, :3], axis=1).astype(np.int64),
        }  # fmt: skip
        return {name: np.ascontiguousarray(sums[name]) for name in fields}

    def withhold(self, sums: Summary, minimum_cell: int) -> Summary:
        people = int(sums["products"][0]) >> FRACTION_BITS
        if sums["products"][0] == WITHHELD or 0 < people < minimum_cell:
            return {name: np.full_like(array, WITHHELD) for name, array in sums.items()}
        het, alt, missing = sums["genotypes"].T
        observed, alleles = people - missing, het + 2 * alt
        few = np.minimum(alleles, 2 * observed - alleles) < self.minimum_minor_alleles
        carriers = np.minimum(het + alt, observed - alt)  # people with either allele, not alleles
        few |= small(missing, minimum_cell) | (carriers < minimum_cell) | (observed < minimum_cell)
        return replaced(sums, BY_VARIANT, few | (sums["genotypes"] == WITHHELD).any(axis=1), WITHHELD)

    def conclude(self, total: Total, frame: Frame) -> Answer:
        """One site's own regressions; of a sum over several, what they are of its people together."""
        assert frame.panel is not None
        sums = self.withhold(total.sums, total.minimum_cell)
        if sums["products"][0] == WITHHELD:
            return self._answer(frame, math.nan, "few people", np.ones(len(frame.panel), dtype=bool))
        held = held_by_few(sums["holders"], len(total.sites))
        hidden = held | (sums["genotypes"] == WITHHELD).any(axis=1)
        sums = replaced(sums, BY_VARIANT, hidden, 0)
        people, k = int(sums["products"][0]) >> FRACTION_BITS, len(self._columns)
        if people < k + 2:
            return self._answer(frame, people, "fewer people than parameters", hidden, held)
        # A mean may be large beside its deviation: what is left after it was taken off needs more digits than doubles.
        exact = {
            name: sums[name].astype(np.longdouble) * 2.0**-FRACTION_BITS
            + sums[f"{name}_rest"].astype(np.longdouble) * 2.0**-REST_BITS
            for name in MEASURED
        }
        whole = _square(exact["products"][None], *self._pairs, k + 1)
        mean = np.concatenate([[0], whole[0, 0, 1:] / people])
        variance = np.concatenate([[1], np.diagonal(whole[0])[1:] / people - mean[1:] ** 2])
        if not (variance > LEAST_DEVIATION**2).all():
            return self._answer(frame, people, "trait or a covariate does not vary", hidden, held)
        scale = np.sqrt(variance)
        products = _standardised(whole, mean, scale)
        if np.linalg.eigvalsh(products[0] / people)[0] < 1e-9:
            return self._answer(frame, people, "trait and covariates explain one another", hidden, held)
        het, alt, missing = sums["genotypes"].T
        alleles, observed = het + 2 * alt, people - missing
        apart = _standardised(_square(exact["missing"], *self._pairs, k + 1), mean, scale)
        scores = np.concatenate([alleles[:, None].astype(np.longdouble), exact["scores"]], axis=1)
        scores = ((scores - mean * alleles[:, None]) / scale).astype(np.float64)
        beta, error = _regressions(products - apart, scores, (het + 4 * alt).astype(np.float64), observed)
        span = frame.columns[self.trait]
        unit = float(scale[-1]) * (span.maximum - span.minimum) / 2
        degrees = observed - k - 1
        with np.errstate(invalid="ignore", divide="ignore"):
            t = beta / error
            columns = (
                beta * unit, error * unit, t, 2 * special.stdtr(np.maximum(degrees, 1), -np.abs(t)),
                alleles / (2 * observed), observed,
            )  # fmt: skip
        return self._answer(frame, people, "done", hidden, held, dict(zip(ESTIMATES, columns, strict=True)))

    def _answer(
        self,
        frame: Frame,
        people: float,
        fit: str,
        withheld: NDArray[np.bool_],
        held_by_few: NDArray[np.bool_] | None = None,
        columns: Mapping[str, NDArray[Any]] | None = None,
    ) -> Answer:
        """A site's table, with NaN where nothing is shown."""
        assert frame.panel is not None
        nothing = np.full(len(withheld), np.nan)
        table: dict[str, Column] = {
            **variant_columns(frame.panel),
            **{name: np.where(withheld, np.nan, columns[name]) if columns else nothing for name in ESTIMATES},
            "withheld": withheld,
            "held_by_few": np.zeros_like(withheld) if held_by_few is None else held_by_few,
        }
        facts: dict[str, float | int | str] = {
            "people": people, "fit": fit, "trait": self.trait, "covariates": ", ".join(self.covariates),
            "variants": len(withheld),
        }  # fmt: skip
        return Answer({"associations": table}, facts, int(withheld.sum()))

    def combine(self, answers: Mapping[str, Answer], frame: Frame) -> Answer:
        assert frame.panel is not None
        tables = [answer.tables["associations"] for answer in answers.values()]
        beta, error, frequency, n = (
            np.stack([np.asarray(t[name], dtype=np.float64) for t in tables])
            for name in ("beta", "standard_error", "effect_allele_frequency", "n")
        )
        able = np.isfinite(beta) & np.isfinite(error) & (error > 0)
        sites = able.sum(axis=0)
        people = np.where(able, n, 0.0)
        with np.errstate(invalid="ignore", divide="ignore"):
            values = combined(np.where(able, beta, 0.0), np.where(able, error, np.inf))
            values["effect_allele_frequency"] = np.where(able, people * frequency, 0).sum(axis=0) / people.sum(axis=0)
        values["n"] = people.sum(axis=0)
        table: dict[str, Column] = {
            **variant_columns(frame.panel),
            **{name: np.where(sites < 2, np.nan, values[name]) for name in COMBINED},
            "sites": sites,
        }
        facts: dict[str, float | int | str] = {
            "people": sum(float(answer.facts["people"]) for answer in answers.values()),
            "trait": self.trait,
            "covariates": ", ".join(self.covariates),
            "variants": len(frame.panel),
            "combined": int((sites >= 2).sum()),
        }
        return Answer({"associations": table}, facts)


def combined(beta: NDArray[np.float64], error: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
    """Fixed and random effects of (S, M) estimates with standard errors, and their heterogeneity, in the trait's unit.

    A site without an estimate has an infinite error. What one or no site has, is of no meaning here.

    >>> out = combined(np.array([[1.0], [3.0]]), np.array([[1.0], [1.0]]))
    >>> [float(out[name][0]) for name in ("beta", "q", "i2", "tau2")]
    [2.0, 2.0, 0.5, 1.0]
    """
    weight = error**-2.0
    sites, whole = np.count_nonzero(weight, axis=0), weight.sum(axis=0)
    fixed = (weight * beta).sum(axis=0) / whole
    q = (weight * (beta - fixed) ** 2).sum(axis=0)
    beyond = np.maximum(q - (sites - 1), 0)
    tau2 = beyond / (whole - (weight**2).sum(axis=0) / whole)
    random = 1 / (error**2 + tau2)
    mean = (random * beta).sum(axis=0) / random.sum(axis=0)
    spread, wide = whole**-0.5, random.sum(axis=0) ** -0.5
    return {
        "beta": fixed,
        "standard_error": spread,
        "z": fixed / spread,
        "p_value": 2 * special.ndtr(-np.abs(fixed / spread)),
        "beta_random": mean,
        "standard_error_random": wide,
        "p_value_random": 2 * special.ndtr(-np.abs(mean / wide)),
        "q": q,
        "q_p_value": special.chdtrc(np.maximum(sites - 1, 1), q),
        "i2": np.where(q > 0, beyond / np.where(q > 0, q, 1.0), 0.0),
        "tau2": tau2,
    }


def _exact_product(a: NDArray[np.float64], b: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """a b as a double and what is left over, exactly [Dekker: A floating-point technique for extending the available
    precision, Numer. Math. 18 (1971)].

    >>> [float(x[0]) for x in _exact_product(np.array([1 + 2.0**-30]), np.array([1 - 2.0**-30]))]
    [1.0, -8.673617379884035e-19]
    """
    (a_high, a_low), (b_high, b_low) = (_halves(a), _halves(b))
    product = a * b
    return product, ((a_high * b_high - product) + a_high * b_low + a_low * b_high) + a_low * b_low


def _halves(values: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """A double as the sum of two of 26 digits."""
    high = values * (2.0**27 + 1) - (values * (2.0**27 + 1) - values)
    return high, values - high


def _on_two_grids(values: NDArray[np.float64], beyond: NDArray[np.float64]) -> NDArray[np.int64]:
    """(N, 2 c) integers: (N, c) values on the coarse grid, and what they and `beyond` have below it on the fine one."""
    coarse = np.rint(values * 2.0**FRACTION_BITS)
    rest = np.rint(((values - coarse * 2.0**-FRACTION_BITS) + beyond) * 2.0**REST_BITS)
    return np.concatenate([coarse, rest], axis=1).astype(np.int64)


def _square(vech: NDArray[Any], i: NDArray[np.int64], j: NDArray[np.int64], size: int) -> NDArray[Any]:
    """(M, size, size) symmetric matrices from their upper triangles (M, q), in their own precision."""
    out = np.empty((len(vech), size, size), dtype=vech.dtype)
    out[:, i, j] = vech
    out[:, j, i] = vech
    return out


def _standardised(products: NDArray[Any], mean: NDArray[Any], scale: NDArray[Any]) -> NDArray[np.float64]:
    """(M, c, c) the products of w, of which the first is the intercept, as they are of (w - mean) / scale."""
    first = products[:, 0]
    moved = products - mean[:, None] * first[:, None, :] - mean * first[:, :, None]
    moved += np.outer(mean, mean) * first[:, 0, None, None]
    out: NDArray[np.float64] = (moved / np.outer(scale, scale)).astype(np.float64)
    return out


def draw_forest(answer: Answer, by_site: Mapping[str, Answer], axes: Any) -> str:
    """Draw each site's estimate of the variant with the smallest p, and the two combined; returns it in words."""
    table = answer.tables["associations"]
    p = np.asarray(table["p_value"], dtype=np.float64)
    if not np.isfinite(p).any():
        return "Forest plot without a variant: fewer than two sites have an estimate of any."
    row = int(np.nanargmin(p))
    lines = [(site, one.tables["associations"], "beta", "standard_error", "C0") for site, one in by_site.items()]
    lines += [("fixed", table, "beta", "standard_error", "C1")]
    lines += [("random", table, "beta_random", "standard_error_random", "C1")]
    for at, (_, own, estimate, error, colour) in enumerate(lines):
        middle, half = (float(np.asarray(own[name])[row]) for name in (estimate, error))
        axes.hlines(at, middle - NORMAL_95 * half, middle + NORMAL_95 * half, color=colour, linewidth=1.6)
        axes.plot([middle], [at], "D" if colour == "C1" else "s", color=colour, markersize=6)
    axes.axvline(0, color="C2", linewidth=1, linestyle=(0, (3, 2)))
    axes.set_yticks(range(len(lines)), [name for name, *_ in lines])
    axes.set_ylim(len(lines) - 0.5, -0.5)
    axes.set_xlabel("beta, 95 % interval")
    name = f"{table['chromosome'][row]}:{int(np.asarray(table['position'])[row])}"
    i2 = 100 * float(np.asarray(table["i2"])[row])
    return f"Forest plot of {name} at {', '.join(by_site)} and combined; I² = {i2:.0f} %."
