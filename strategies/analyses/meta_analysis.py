"""Meta-analysis of quantitative traits: each site's own regressions, combined by their estimates and errors.

Each site sums what one linear regression a variant needs, complete-case, over its own people, in one round; from the
sums of each site alone its beta_s and standard error e_s follow. With w_s = 1 / e_s^2, over the S sites that have both:

    fixed    beta = sum w_s beta_s / sum w_s,  error = (sum w_s)^(-1/2)
    Q        sum w_s (beta_s - beta)^2, chi-square with S - 1 degrees of freedom where the sites' effects are the same
    I2       max(0, (Q - (S - 1)) / Q)
    random   the same with w*_s = 1 / (e_s^2 + tau^2),
             tau^2 = max(0, (Q - (S - 1)) / (sum w_s - sum w_s^2 / sum w_s)) [1]

It stands beside the joint fit of `association` and is not equal to it: covariates have effects of their own at each
site, each site has a mean of its own, and a variant that is rare at a site has no estimate there. Choose it where sites
may not give a total, or where their effects may differ.

Each site withholds for itself. A variant has no estimate from a site where its minor allele count lies below
`minimum_minor_alleles`, where fewer people than the minimum carry either allele, or where the genotype of somebody, but
of fewer than the minimum, is missing. The coordinator sees each site's sums of the others.

NaN: at a site, a variant that covariates explain, or a site where trait or covariates do not vary, explain one another,
or are known of too few people (its facts say which); over the sites, a variant that fewer than two have an estimate of.

[1] DerSimonian, Laird: Meta-analysis in clinical trials, Controlled Clinical Trials 7 (1986): the weighted estimate by
    moments, cut at 0.
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

from strategies import kernels
from strategies.analyses.allele_frequency import NORMAL_95, variant_columns
from strategies.analyses.association import ESTIMATES, MOST_TRAITS
from strategies.analysis import NAMES_COLUMN, NAMES_PANEL, Answer, Column, Frame, Needs, Total, by_variants
from strategies.cohort import Cohort
from strategies.design import LEAST_DEVIATION
from strategies.ploidy import check_sex, read_by_sex
from strategies.privacy import Regime
from strategies.products import rare
from strategies.protections.suppression import WITHHELD, held_by_few, replaced
from strategies.summary import Field, Summary

FRACTION_BITS, REST_BITS = 40, 64
"""Columns lie in [-1, 1]: a million people with two alleles reach 2^61. What a contribution has below that grid is
summed apart, on a finer one: a site's mean may be large beside its deviation, and only the coordinator takes it off."""

MEASURED = ("products", "scores", "missing")
BY_VARIANT = ("genotypes", "scores", "missing", "scores_rest", "missing_rest")
COMBINED = (
    "beta", "standard_error", "z", "p_value", "beta_random", "standard_error_random", "p_value_random", "q",
    "q_p_value", "i2", "tau2", "effect_allele_frequency", "n",
)  # fmt: skip
"""What the answer over all sites says about a variant."""


@dataclass(frozen=True)
class MetaAnalysis:
    """Beta and standard error of each trait for every variant at each site, and what they combine to.

    Attributes:
        panel: name of the study's panel.
        traits: names of the quantitative columns; a person counts who has all of them and all covariates.
        covariates: names of further columns; an intercept is always there.
        minimum_minor_alleles: least number of minor alleles at a site, among its people with traits and covariates.
        sex: name of the column of sexes, which variants on X outside its pseudo-autosomal regions and on MT need. One
            copy counts as two, as PLINK 2 takes it.
    """

    analysis: ClassVar[str] = "meta_analysis"
    regime: ClassVar[Regime] = Regime.EXACT
    by_site: ClassVar[bool] = True
    summary_in_words: ClassVar[str] = "for each variant, the sums that a linear regression of each site's own needs"

    panel: str = field(metadata=NAMES_PANEL)
    traits: tuple[str, ...] = field(metadata=NAMES_COLUMN)
    covariates: tuple[str, ...] = field(default=(), metadata=NAMES_COLUMN)
    minimum_minor_alleles: int = 20
    sex: str | None = field(default=None, metadata=NAMES_COLUMN)

    def __post_init__(self) -> None:
        if not 1 <= len(self.traits) <= MOST_TRAITS:
            raise ValueError(f"traits must name 1 to {MOST_TRAITS} columns.")
        if len(set(self._columns)) != len(self._columns):
            raise ValueError("traits and covariates must be different columns.")
        if not 1 <= self.minimum_minor_alleles <= 10**9:
            raise ValueError("minimum_minor_alleles must be from 1 to 1000000000.")

    @property
    def _columns(self) -> tuple[str, ...]:
        return (*self.covariates, *self.traits)

    @property
    def _pairs(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Index pairs (i <= j) of the products of w = (1, covariates, traits) that a regression reads, row by row:
        traits meet the intercept, covariates and themselves."""
        size, wide = 1 + len(self.covariates), 1 + len(self._columns)
        pairs = [(i, j) for i in range(size) for j in range(i, wide)] + [(j, j) for j in range(size, wide)]
        rows, columns = np.array(pairs, dtype=np.int64).T
        return rows, columns

    def needs(self) -> Needs:
        sex = () if self.sex is None else (self.sex,)
        return Needs(columns=tuple(dict.fromkeys((*self._columns, *sex))), panel=self.panel)

    def rounds(self) -> int:
        return 1

    def fraction(self) -> float:
        return 0.0

    def slices(self, frame: Frame) -> tuple[slice, ...]:
        return by_variants(frame)

    def leaves(self, frame: Frame) -> dict[str, Field]:
        assert frame.panel is not None
        check_sex(frame.panel, self.panel, self.sex, frame.columns, males_alone=False)
        m, k, q, f = len(frame.panel), len(self._columns), len(self._pairs[0]), FRACTION_BITS
        cells, sites = "people with 1, 2 or no observed alternate alleles", "sites that hold the variant"
        scores, missing = "alternate alleles times covariates and traits", "products of people without genotype"
        # Columns are in units of half their range: a product moves by at most 1, alleles times a column by 2.
        fields = {
            "products": Field((q,), "products of intercept, covariates and traits", q, q**0.5, f),
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
        assert frame.panel is not None
        columns = np.stack([frame.columns[name].unit(cohort.columns[name]) for name in self._columns], axis=1)
        inside = cohort.having(self.needs().columns)
        genotypes = read_by_sex(cohort, frame.panel, self.sex)
        unit, (i, j) = np.where(inside[:, None], columns, 0.0), self._pairs
        w = np.concatenate([inside[:, None].astype(np.float64), unit], axis=1)
        z, products = _on_two_grids(unit), _on_two_grids(*_exact_product(w[:, i], w[:, j]))
        packed, cells = genotypes.packed, genotypes.counts(inside)
        rows, some = np.arange(len(cells)), np.flatnonzero(cells[:, 3])
        missing = np.zeros((len(cells), products.shape[1]), dtype=np.int64)
        missing[some] = kernels.missing_imputed(packed, some, np.ones(len(some)), products)
        halves = {
            "products": np.split(products.sum(axis=0), 2),
            "scores": np.split(kernels.product(packed, rows, cells, z), 2, axis=1),
            "missing": np.split(missing, 2, axis=1),
        }
        return {
            **{name: coarse for name, (coarse, _) in halves.items()},
            **{f"{name}_rest": rest for name, (_, rest) in halves.items()},
            "genotypes": cells[:, 1:],
            "holders": np.any(cells[:, :3], axis=1).astype(np.int64),
        }

    def withhold(self, sums: Summary, minimum_cell: int) -> Summary:
        people = int(sums["products"][0]) >> FRACTION_BITS
        if sums["products"][0] == WITHHELD or 0 < people < minimum_cell:
            return {name: np.full_like(array, WITHHELD) for name, array in sums.items()}
        few = rare(sums["genotypes"], people, self.minimum_minor_alleles, minimum_cell)
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
        people, k = int(sums["products"][0]) >> FRACTION_BITS, len(self.covariates)
        if people < k + 3:
            return self._answer(frame, people, "fewer people than parameters", hidden, held)
        # A mean may be large beside its deviation: what is left after it was taken off needs more digits than doubles.
        exact = {
            name: sums[name].astype(np.longdouble) * 2.0**-FRACTION_BITS
            + sums[f"{name}_rest"].astype(np.longdouble) * 2.0**-REST_BITS
            for name in MEASURED
        }
        (i, j), wide = self._pairs, 1 + len(self._columns)
        mean = exact["products"][:wide] / people
        mean[0] = 0
        variance = np.ones_like(mean)
        variance[i[i == j]] = exact["products"][i == j] / people - mean[i[i == j]] ** 2
        if not (variance > LEAST_DEVIATION**2).all():
            return self._answer(frame, people, "a trait or a covariate does not vary", hidden, held)
        scale = np.sqrt(variance)
        # On a grid again, far below what a double's own rounding is worth.
        unit = people * 2.0**-62
        whole, apart = (
            np.rint(_standardised(exact[name].reshape(-1, len(i)), mean, scale, i, j) / unit).astype(np.int64)
            for name in ("products", "missing")
        )
        if not self._independent(whole[0] * unit / people):
            return self._answer(frame, people, "traits and covariates explain one another", hidden, held)
        het, alt, missing = sums["genotypes"].T
        alleles, observed = het + 2 * alt, people - missing
        scores = np.concatenate([alleles[:, None].astype(np.longdouble), exact["scores"]], axis=1)
        scores = ((scores - mean * alleles[:, None]) / scale).astype(np.float64)
        some = np.flatnonzero(missing)
        at = np.full(len(missing), -1)
        at[some] = np.arange(len(some))
        degrees = np.where(hidden, 0, observed - k - 2)
        squares = (het + 4 * alt).astype(np.float64)
        beta, error = kernels.regress(whole[0], apart[some], at, (i, j), unit, scores, squares, degrees, 1 + k)
        spans = [frame.columns[name] for name in self.traits]
        units = scale[1 + k :].astype(np.float64) * [(s.maximum - s.minimum) / 2 for s in spans]
        with np.errstate(invalid="ignore", divide="ignore"):
            t, frequency = beta / error, alleles / (2 * observed)
            p = 2 * special.stdtr(np.maximum(degrees, 1)[:, None], -np.abs(t))
        estimates = {
            name: dict(zip(ESTIMATES, (*columns, frequency, observed), strict=True))
            for name, *columns in zip(self.traits, (beta * units).T, (error * units).T, t.T, p.T, strict=True)
        }
        return self._answer(frame, people, "done", hidden, held, estimates)

    def _independent(self, products: NDArray[np.float64]) -> bool:
        """Whether no trait follows from the covariates, nor one of these from the others; of mean products (q,)."""
        (i, j), size = self._pairs, 1 + len(self.covariates)
        whole = np.zeros((size + len(self.traits),) * 2)
        whole[i, j] = whole[j, i] = products
        sets = [[*range(size), number] for number in range(size, len(whole))]
        return all(np.linalg.eigvalsh(whole[np.ix_(one, one)])[0] >= 1e-9 for one in sets)

    def _answer(
        self,
        frame: Frame,
        people: float,
        fit: str,
        withheld: NDArray[np.bool_],
        held_by_few: NDArray[np.bool_] | None = None,
        estimates: Mapping[str, Mapping[str, NDArray[Any]]] | None = None,
    ) -> Answer:
        """A site's tables, one for each trait, with NaN where nothing is shown."""
        assert frame.panel is not None
        variants, nothing = variant_columns(frame.panel), np.full(len(withheld), np.nan)
        few = np.zeros_like(withheld) if held_by_few is None else held_by_few
        tables: dict[str, Mapping[str, Column]] = {}
        for trait in self.traits:
            shown = {name: nothing for name in ESTIMATES}
            if estimates is not None:
                shown = {name: np.where(withheld, np.nan, values) for name, values in estimates[trait].items()}
            tables[trait] = {**variants, **shown, "withheld": withheld, "held_by_few": few}
        return Answer(tables, {**self._facts(people, frame), "fit": fit}, int(withheld.sum()))

    def _facts(self, people: float, frame: Frame) -> dict[str, float | int | str]:
        traits, covariates = ", ".join(self.traits), ", ".join(self.covariates)
        return {"people": people, "traits": traits, "covariates": covariates, "variants": len(frame.panel or ())}

    def combine(self, answers: Mapping[str, Answer], frame: Frame) -> Answer:
        assert frame.panel is not None
        variants = variant_columns(frame.panel)
        tables: dict[str, Mapping[str, Column]] = {}
        for trait in self.traits:
            parts = [answer.tables[trait] for answer in answers.values()]
            beta, error, frequency, n = (
                np.stack([np.asarray(part[name], dtype=np.float64) for part in parts])
                for name in ("beta", "standard_error", "effect_allele_frequency", "n")
            )
            able = np.isfinite(beta) & np.isfinite(error) & (error > 0)
            sites, people = able.sum(axis=0), np.where(able, n, 0.0)
            with np.errstate(invalid="ignore", divide="ignore"):
                values = combined(np.where(able, beta, 0.0), np.where(able, error, np.inf))
                alleles = np.where(able, people * frequency, 0.0).sum(axis=0)
                values |= {"effect_allele_frequency": alleles / people.sum(axis=0), "n": people.sum(axis=0)}
            shown = {name: np.where(sites < 2, np.nan, values[name]) for name in COMBINED}
            tables[trait] = {**variants, **shown, "sites": sites}
        everybody = sum(float(answer.facts["people"]) for answer in answers.values())
        return Answer(tables, self._facts(everybody, frame))


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


def _on_two_grids(values: NDArray[np.float64], beyond: NDArray[np.float64] | float = 0.0) -> NDArray[np.int64]:
    """(N, 2 c) integers: (N, c) values on the coarse grid, and what they and `beyond` have below it on the fine one."""
    coarse = np.rint(values * 2.0**FRACTION_BITS)
    rest = np.rint(((values - coarse * 2.0**-FRACTION_BITS) + beyond) * 2.0**REST_BITS)
    return np.concatenate([coarse, rest], axis=1).astype(np.int64)


def _standardised(
    products: NDArray[Any], mean: NDArray[Any], scale: NDArray[Any], i: NDArray[np.int64], j: NDArray[np.int64]
) -> NDArray[Any]:
    """(M, q) the products of pairs of w, the intercept's with all first, as they are of (w - mean) / scale."""
    first = products[:, : len(mean)]
    moved = products - mean[i] * first[:, j] - mean[j] * first[:, i] + mean[i] * mean[j] * first[:, :1]
    out: NDArray[Any] = moved / (scale[i] * scale[j])
    return out


def draw_forest(answer: Answer, by_site: Mapping[str, Answer], trait: str, row: int, axes: Any) -> str:
    """Draw each site's estimate of a variant (squares), and the two combined (diamonds); returns it in words."""
    table = answer.tables[trait]
    lines = [(site, one.tables[trait], "beta", "standard_error") for site, one in by_site.items()]
    lines += [("fixed", table, "beta", "standard_error")]
    lines += [("random", table, "beta_random", "standard_error_random")]
    for at, (name, own, estimate, error) in enumerate(lines):
        middle, half = (float(np.asarray(own[column])[row]) for column in (estimate, error))
        colour, marker = ("C0", "s") if name in by_site else ("C1", "D")
        if not math.isfinite(middle):
            axes.text(0.5, at, "none", transform=axes.get_yaxis_transform(), ha="center", va="center")
            continue
        axes.hlines(at, middle - NORMAL_95 * half, middle + NORMAL_95 * half, color=colour, linewidth=1.6)
        axes.plot([middle], [at], marker, color=colour, markersize=6)
    axes.axvline(0, color="C2", linewidth=1, linestyle=(0, (3, 2)))
    axes.axhline(len(by_site) - 0.5, color="C2", linewidth=0.6)
    axes.set_yticks(range(len(lines)), [name for name, *_ in lines])
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(len(lines) - 0.5, -0.5)
    axes.set_xlabel("beta, 95 % interval")
    name = f"{table['chromosome'][row]}:{int(np.asarray(table['position'])[row])}"
    i2 = 100 * float(np.asarray(table["i2"])[row])
    return f"Forest plot of {name} at {', '.join(by_site)} and combined; I² = {i2:.0f} %."
