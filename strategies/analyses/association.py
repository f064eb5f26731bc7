"""Association of a quantitative trait with each variant: linear regression, complete-case per variant.

    y = a + g b + X c + e,   one regression per variant, over the people in whom y, X and g are all observed.

Round 1 sums the columns and their squares, so that all sites standardise with the same pooled mean and deviation.
Round 2 sums, for each variant, g'X, g'y, genotype counts and the products of the people whose genotype is missing;
subtracting those from the whole cohort's products gives the complete-case normal equations exactly [1, section 2].
No person's values leave, but at a variant with one missing genotype the subtracted products *are* one person's: they
may travel only under secure summing, and a variant whose pooled number of missing genotypes, of observed ones, or of
people with the minor allele lies below the minimum is withheld. Where few people have trait and covariates, their
number and the whole answer are withheld before round 2.

Not for related people or strong population structure beyond the covariates.

[1] Seber, Lee: Linear Regression Analysis, 2nd edition (2003), section 3.2: partitioned normal equations.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from scipy import special

from strategies.analyses.allele_frequency import variant_columns
from strategies.analysis import (
    DERIVED,
    NAMES_COLUMN,
    NAMES_PANEL,
    WHOLE,
    Answer,
    Column,
    Frame,
    Needs,
    Total,
    by_variants,
)
from strategies.cohort import MISSING, Cohort
from strategies.errors import GenosumError, UsageError
from strategies.privacy import Regime
from strategies.protections.suppression import WITHHELD, held_by_few, replaced, small
from strategies.summary import MOST_CONTRIBUTION, Field, Summary

PEOPLE_BLOCK, VARIANT_BLOCK, LIMB_BITS = 65536, 256, 26
"""Tile of the genotype product, and the limbs in which it is exact: constants in code, so bits never differ."""

LEAST_DEVIATION = 1e-4
"""A column's pooled standard deviation in units of half its range; below this the sums lose their precision."""

ESTIMATES = ("beta", "standard_error", "t", "p_value", "effect_allele_frequency", "n")
"""What the answer says about a variant."""

BY_VARIANT = ("genotypes", "scores", "missing")
"""The sums of round 2 over people that have a row for each variant."""


@dataclass(frozen=True)
class LinearAssociation:
    """Beta, standard error, t and p of one trait for every variant of a panel.

    Attributes:
        panel: name of the study's panel.
        trait: name of the quantitative column.
        covariates: names of further columns; an intercept is always there.
        people: the pooled number of people with trait and covariates; 0 in round 1, derived from its totals.
        centre, scale: pooled mean and deviation of (covariates, trait) after mapping each range to [-1, 1]; likewise.
    """

    analysis: ClassVar[str] = "association"
    regime: ClassVar[Regime] = Regime.EXACT
    by_site: ClassVar[bool] = False
    summary_in_words: ClassVar[str] = "for each variant, the sums that a linear regression needs, over the sites"

    panel: str = field(metadata=NAMES_PANEL)
    trait: str = field(metadata=NAMES_COLUMN)
    covariates: tuple[str, ...] = field(default=(), metadata=NAMES_COLUMN)
    people: int = field(default=0, metadata=DERIVED)
    centre: tuple[float, ...] = field(default=(), metadata=DERIVED)
    scale: tuple[float, ...] = field(default=(), metadata=DERIVED)

    def __post_init__(self) -> None:
        if self.trait in self.covariates or len(set(self.covariates)) != len(self.covariates):
            raise ValueError("trait and covariates must be different columns.")

    MOMENT_BITS: ClassVar[int] = 32

    @property
    def _bits(self) -> int:
        """Fraction bits of round 2, as fine as the ring allows.

        Standardised columns have sum z^2 = N over all sites, so by Cauchy and Schwarz no sum of products exceeds N and
        no genotype sum 2 N. With 2^5 sites and the node's limit of 2^62 / sites, f = 56 - log2 N bits fit.
        """
        return 56 - self.people.bit_length()

    @property
    def _most(self) -> NDArray[np.float64]:
        """(k + 1,) largest absolute value of (1, covariates, trait) after standardising, from the ranges' ends."""
        centre, scale = np.array(self.centre), np.array(self.scale)
        return np.concatenate([[1.0], np.maximum(np.abs(1 - centre), np.abs(1 + centre)) / scale])

    @property
    def _columns(self) -> tuple[str, ...]:
        return (*self.covariates, self.trait)

    @property
    def _products(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Index pairs (i <= j) of the products of w = (1, covariates, trait), row by row."""
        rows, columns = np.triu_indices(len(self._columns) + 1)
        return rows.astype(np.int64), columns.astype(np.int64)

    def needs(self) -> Needs:
        return Needs(columns=self._columns, panel=self.panel if self.centre else None)

    def rounds(self) -> int:
        return 2

    def fraction(self) -> float:
        return 0.0

    def slices(self, frame: Frame) -> tuple[slice, ...]:
        return by_variants(frame) if self.centre else WHOLE

    def leaves(self, frame: Frame) -> dict[str, Field]:
        k = len(self._columns)
        if not self.centre:
            # Values lie in [-1, 1]: each sum moves by at most 1.
            return {
                "people": Field((), "people with trait and covariates", 1, 1),
                "sums": Field((k,), "sums of columns in units of half their range", k, k**0.5, self.MOMENT_BITS),
                "squares": Field((k,), "sums of squares of the same", k, k**0.5, self.MOMENT_BITS),
            }
        assert frame.panel is not None
        m, (i, j), f = len(frame.panel), self._products, self._bits
        grid = 2.0**-f  # rounding moves a contribution by half of this at most
        held = MOST_CONTRIBUTION * grid  # only a forged first round leads here
        most = np.minimum(self._most[i] * self._most[j] + grid, held)
        value = 2 * np.minimum(self._most[1:] + grid, held)  # times at most two alleles
        products_l1, products_l2 = float(most.sum()), float(np.sqrt((most**2).sum()))
        scores_l1, scores_l2 = m * float(value.sum()), m**0.5 * float(np.sqrt((value**2).sum()))
        return {
            "products": Field((len(i),), "products of intercept, covariates and trait", products_l1, products_l2, f),
            "genotypes": Field(
                (m, 3), "people with 1, 2 or no observed alternate alleles", m, m**0.5, per_variant=True
            ),
            "scores": Field(
                (m, k), "alternate alleles times covariates and trait", scores_l1, scores_l2, f, per_variant=True
            ),
            "missing": Field(
                (m, len(i)),
                "products of people without genotype",
                m * products_l1,
                m**0.5 * products_l2,
                f,
                per_variant=True,
            ),
            "holders": Field((m,), "sites that hold the variant", m, m**0.5, per_variant=True, over="sites"),
        }

    def summarise(self, cohort: Cohort, frame: Frame) -> Summary:
        columns = np.stack([frame.columns[name].unit(cohort.columns[name]) for name in self._columns], axis=1)
        complete = np.flatnonzero(np.isfinite(columns).all(axis=1))
        unit = columns[complete]
        fields = self.leaves(frame)
        if not self.centre:
            return {
                "people": np.array(len(unit), dtype=np.int64),
                "sums": fields["sums"].integers(unit).sum(axis=0),
                "squares": fields["squares"].integers(unit**2).sum(axis=0),
            }
        assert cohort.genotypes is not None
        standardised = (unit - np.array(self.centre)) / np.array(self.scale)
        z = fields["scores"].integers(standardised)
        w = np.concatenate([np.ones((len(z), 1)), standardised], axis=1)
        i, j = self._products
        products = fields["products"].integers(w[:, i] * w[:, j])
        genotypes = cohort.genotypes if len(complete) == len(cohort) else cohort.genotypes.take(complete)
        scores = np.empty(fields["scores"].shape, dtype=np.int64)
        missing = np.zeros(fields["missing"].shape, dtype=np.int64)
        for start in range(0, len(genotypes), VARIANT_BLOCK):
            span = slice(start, start + VARIANT_BLOCK)
            codes = genotypes[span].codes()
            scores[span] = _product(np.where(codes == MISSING, 0, codes), z)
            for row in np.flatnonzero((codes == MISSING).any(axis=1)):
                missing[start + row] = products[codes[row] == MISSING].sum(axis=0)
        cells = genotypes.counts()
        return {
            "products": products.sum(axis=0),
            "genotypes": cells[:, 1:],
            "scores": scores,
            "missing": missing,
            "holders": np.any(cells[:, :3], axis=1).astype(np.int64),
        }

    def withhold(self, sums: Summary, minimum_cell: int) -> Summary:
        if not self.centre:
            if small(sums["people"], minimum_cell):
                return {name: np.full_like(array, WITHHELD) for name, array in sums.items()}
            return sums
        het, alt, missing = sums["genotypes"].T
        observed = (int(sums["products"][0]) >> self._bits) - missing
        minor = np.minimum(het + alt, observed - alt)  # people with either allele, not alleles
        few = small(missing, minimum_cell) | (minor < minimum_cell) | (observed < minimum_cell)
        return replaced(sums, BY_VARIANT, few & (observed > 0), WITHHELD)

    def conclude(self, total: Total, frame: Frame) -> Answer | LinearAssociation:
        fields = self.leaves(frame)
        sums = self.withhold(total.sums, total.minimum_cell)
        if not self.centre:
            if sums["people"] == WITHHELD:
                return self._answer(frame, math.nan, np.ones(len(frame.panel or ()), dtype=bool))
            return self._standardised({name: fields[name].values(sums[name]) for name in fields})
        assert frame.panel is not None
        held = held_by_few(sums["holders"], len(total.sites))
        hidden = held | (sums["genotypes"] == WITHHELD).any(axis=1)
        sums = replaced(sums, BY_VARIANT, hidden, 0)
        values = {name: fields[name].values(sums[name]) for name in fields}
        k = len(self._columns)  # intercept and covariates
        people = int(sums["products"][0]) >> self._bits
        het, alt, missing = sums["genotypes"].T
        observed, alleles = people - missing, het + 2 * alt
        whole = _symmetric(values["products"][None, :], *self._products, k + 1)
        if people < 1 or np.abs(np.diagonal(whole[0])[1:] / people - 1).max(initial=0.0) > 0.9:
            raise GenosumError(
                "Columns standardised by round 1 have a mean square of 1 in round 2.",
                "sums that do not agree",
                "run the study again; if it stays so, a site's data changed in between.",
            )
        if np.linalg.eigvalsh(whole[0] / people)[0] < 1e-9:
            raise UsageError(
                "Covariates must not explain one another or the trait.",
                f"{', '.join(self._columns)} are linearly dependent",
                "drop what follows from the others.",
            )
        beta, error = _regressions(
            whole - _symmetric(values["missing"], *self._products, k + 1),
            np.concatenate([alleles[:, None].astype(np.float64), values["scores"]], axis=1),
            (het + 4 * alt).astype(np.float64),
            observed,
        )
        degrees = observed - k - 1
        span = frame.columns[self.trait]
        unit = self.scale[-1] * (span.maximum - span.minimum) / 2
        with np.errstate(invalid="ignore", divide="ignore"):
            t = beta / error
            columns = {
                "beta": beta * unit,
                "standard_error": error * unit,
                "t": t,
                "p_value": 2 * special.stdtr(np.maximum(degrees, 1), -np.abs(t)),
                "effect_allele_frequency": alleles / (2 * observed),
                "n": observed,
            }
        return self._answer(frame, people, hidden, held, columns)

    def _answer(
        self,
        frame: Frame,
        people: float,
        withheld: NDArray[np.bool_],
        held_by_few: NDArray[np.bool_] | None = None,
        columns: Mapping[str, NDArray[Any]] | None = None,
    ) -> Answer:
        """The table with NaN in the rows that are withheld; `columns` and `held_by_few` are None if all are."""
        assert frame.panel is not None
        nothing = np.full(len(withheld), np.nan)
        shown = {name: np.where(withheld, np.nan, columns[name]) if columns else nothing for name in ESTIMATES}
        table: dict[str, Column] = {
            **variant_columns(frame.panel),
            **shown,
            "withheld": withheld,
            "held_by_few": np.zeros_like(withheld) if held_by_few is None else held_by_few,
        }
        facts: dict[str, float | int | str] = {
            "people": people,
            "trait": self.trait,
            "covariates": ", ".join(self.covariates),
            "variants": len(frame.panel),
        }
        return Answer({"associations": table}, facts, int(withheld.sum()))

    def _standardised(self, values: dict[str, NDArray[np.float64]]) -> LinearAssociation:
        people = float(values["people"])
        if people < len(self._columns) + 2:
            raise UsageError(
                "A regression needs more people than it has parameters.",
                f"{people:.0f} people have trait and covariates, {len(self._columns) + 1} parameters",
                "drop covariates or ask sites that have the columns.",
            )
        mean = values["sums"] / people
        variance = values["squares"] / people - mean**2
        constant = [name for name, v in zip(self._columns, variance, strict=True) if not v > LEAST_DEVIATION**2]
        if constant:
            raise UsageError(
                "Trait and covariates must vary over the sites together, relative to their range.",
                f"(nearly) constant: {', '.join(constant)}",
                "drop them or narrow their range.",
            )
        return replace(self, people=int(people), centre=tuple(mean.tolist()), scale=tuple(np.sqrt(variance).tolist()))


def _product(alleles: NDArray[np.uint8], z: NDArray[np.int64]) -> NDArray[np.int64]:
    """(m, k) sums of alternate alleles (m, n) times integers (n, k), exact.

    Each integer is cut into a high and a low limb of 26 bits; a tile's sum of either stays below 2^53, where float64
    holds every integer, so the matrix product is exact in whatever order the library adds.
    """
    limbs = np.concatenate([z >> LIMB_BITS, z & (2**LIMB_BITS - 1)], axis=1).astype(np.float64)
    out = np.zeros((len(alleles), 2 * z.shape[1]), dtype=np.int64)
    for start in range(0, len(z), PEOPLE_BLOCK):
        span = slice(start, start + PEOPLE_BLOCK)
        out += (alleles[:, span].astype(np.float64) @ limbs[span]).astype(np.int64)
    k = z.shape[1]
    return (out[:, :k] << LIMB_BITS) + out[:, k:]


def _symmetric(vech: NDArray[np.float64], i: NDArray[np.int64], j: NDArray[np.int64], size: int) -> NDArray[np.float64]:
    """(M, size, size) symmetric matrices from their upper triangles (M, q)."""
    out = np.empty((len(vech), size, size))
    out[:, i, j] = vech
    out[:, j, i] = vech
    return out


def _regressions(
    products: NDArray[np.float64],
    scores: NDArray[np.float64],
    squares: NDArray[np.float64],
    observed: NDArray[np.int64],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Slope and standard error of the genotype, per variant.

    Args:
        products: (M, k + 1, k + 1) products of (1, covariates, trait) over the people with a genotype.
        scores: (M, k + 1) genotype times (1, covariates, trait).
        squares: (M,) squared genotypes.
        observed: (M,) people with a genotype.

    Returns:
        beta, error: (M,) NaN where covariates explain the genotype, or too few people remain.
    """
    k = products.shape[1] - 1
    beta, error = np.full(len(products), np.nan), np.full(len(products), np.nan)
    able = np.flatnonzero(observed > k + 1)
    spectrum = np.linalg.eigvalsh(products[able, :k, :k])
    able = able[spectrum[:, 0] > 1e-10 * spectrum[:, -1]]
    factor = np.linalg.cholesky(products[able, :k, :k])
    right = np.stack([scores[able, :k], products[able, :k, k]], axis=2)
    u, v = np.moveaxis(np.linalg.solve(factor, right), 2, 0)  # L^-1 X'g and L^-1 X'y
    s_gg = squares[able] - (u * u).sum(axis=1)
    s_gy = scores[able, k] - (u * v).sum(axis=1)
    s_yy = products[able, k, k] - (v * v).sum(axis=1)
    # Where covariates explain the genotype or the trait, what is left over is rounding and not a fit.
    fit = (s_gg > 1e-8 * np.maximum(squares[able], 1e-300)) & (s_yy > 1e-10 * products[able, k, k])
    with np.errstate(invalid="ignore", divide="ignore"):
        slope = np.where(fit, s_gy / s_gg, np.nan)
        residual = np.maximum(s_yy - slope * s_gy, 0.0)
        beta[able] = slope
        error[able] = np.sqrt(residual / ((observed[able] - k - 1) * s_gg))
    return beta, error


GENOME_WIDE = 5e-8
"""The usual level of genome-wide significance."""


def genomic_inflation(p: NDArray[np.float64]) -> float:
    """Lambda [2]: the median chi-square of the p values over its expectation; NaN where there is none.

    >>> round(genomic_inflation(np.linspace(0.001, 0.999, 999)), 3)
    1.0

    [2] Devlin, Roeder: Genomic control for association studies, Biometrics 55 (1999).
    """
    p = p[np.isfinite(p)]
    return float(special.chdtri(1, np.median(p)) / special.chdtri(1, 0.5)) if len(p) else float("nan")


def _evidence(answer: Answer) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """(M,) -log10 p and whether it is shown at all."""
    p = np.asarray(answer.tables["associations"]["p_value"], dtype=np.float64)
    return -np.log10(np.maximum(p, np.finfo(np.float64).tiny)), np.isfinite(p)


def draw_manhattan(answer: Answer, axes: Any) -> str:
    """Draw each variant's -log10 p along the genome; returns the figure in words."""
    table = answer.tables["associations"]
    evidence, shown = _evidence(answer)
    chromosomes = np.array(table["chromosome"])
    positions = np.asarray(table["position"], dtype=np.float64) / 1e6
    order = list(dict.fromkeys(table["chromosome"]))
    offset, ticks = 0.0, []
    place = positions.copy()
    for number, name in enumerate(order):
        here = chromosomes == name
        if len(order) > 1:  # chromosomes stand side by side, in the panel's order
            place[here] += offset - positions[here].min()
            offset = float(place[here].max()) + 5.0
            ticks.append((float(place[here].mean()), str(name)))
        here &= shown
        axes.scatter(place[here], evidence[here], s=7, color=f"C{2 * (number % 2)}", linewidths=0, rasterized=True)
    level = -np.log10(GENOME_WIDE)
    axes.axhline(level, color="C1", linewidth=1, linestyle=(0, (5, 3)))
    axes.set_ylim(0, 1.1 * max(float(evidence[shown].max(initial=0)), level + 1))
    axes.margins(x=0.01)
    axes.set_ylabel("−log₁₀ p")
    if len(order) > 1:
        axes.set_xticks([at for at, _ in ticks], [name for _, name in ticks])
        axes.set_xlabel("chromosome")
    else:
        axes.set_xlabel(f"position on chromosome {order[0]} (million base pairs)")
    if not shown.any():
        return "Manhattan plot without a point: every variant is withheld."
    top = int(np.argmax(np.where(shown, evidence, -1)))
    name = f"{chromosomes[top]}:{int(np.asarray(table['position'])[top])}"
    left = place[top] > (place.min() + place.max()) / 2
    shift, side = (-7, "right") if left else (7, "left")
    axes.annotate(name, (place[top], evidence[top]), xytext=(shift, -2), textcoords="offset points", ha=side)
    passing = int((shown & (evidence > level)).sum())
    return (
        f"Manhattan plot of {int(shown.sum()):,} variants: {passing:,} lie beyond the level of 5 × 10⁻⁸ (dashed line), "
        f"the highest is {name} at −log₁₀ p = {evidence[top]:.1f}."
    )


def draw_quantiles(answer: Answer, axes: Any) -> str:
    """Draw observed against expected -log10 p with the band that 95 % of null p values keep; returns it in words."""
    evidence, shown = _evidence(answer)
    observed = np.sort(evidence[shown])[::-1]
    n = len(observed)
    rank = np.arange(1, n + 1)
    expected = -np.log10((rank - 0.5) / max(n, 1))
    at = np.unique(np.geomspace(1, n, 200).astype(np.int64)) if n else np.arange(0)
    band = [-np.log10(special.betaincinv(at, n + 1 - at, q)) for q in (0.025, 0.975)]
    axes.fill_between(expected[at - 1], band[1], band[0], color="C2", alpha=0.3, linewidth=0)
    axes.plot([0, expected.max(initial=1)], [0, expected.max(initial=1)], color="C2", linewidth=1)
    axes.scatter(expected, observed, s=7, color="C0", linewidths=0, rasterized=True)
    inflation = genomic_inflation(np.asarray(answer.tables["associations"]["p_value"], dtype=np.float64))
    axes.text(0.05, 0.93, f"λ = {inflation:.3f}", transform=axes.transAxes, va="top")
    axes.set_xlabel("expected −log₁₀ p")
    axes.set_ylabel("observed −log₁₀ p")
    return f"Observed against expected p values of {n:,} variants; genomic inflation λ = {inflation:.3f}."
