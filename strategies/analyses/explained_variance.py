"""How much of a quantitative trait's variance a score explains, over the people of all sites together.

    y = X c + e   and   y = X c + s b + e,   by least squares over the people with every column,

with X an intercept and covariates, s the score. R2 of either, their difference, and the effect of each column follow
from sums of products [1], which is all that leaves. Where few people have every column, the answer is withheld.

[1] Seber, Lee: Linear Regression Analysis, 2nd edition (2003), sections 3.1 and 4.3.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from scipy import special

from strategies.analysis import NAMES_COLUMN, WHOLE, Answer, Column, Frame, Needs, Total
from strategies.cohort import Cohort
from strategies.errors import UsageError
from strategies.labels import SPACE
from strategies.privacy import Regime
from strategies.protections.suppression import WITHHELD, small
from strategies.summary import Field, Summary

PRODUCT_BITS = 36
"""Fraction bits of products of columns in units of half their range: 2^21 people fit for each of 32 sites."""

LEAST_DEVIATION = 1e-3
"""A column's pooled standard deviation in units of half its range; below this the sums lose their precision."""

FACTS = (
    "r2",
    "r2_covariates",
    "r2_incremental",
    "r2_partial",
    "beta_per_standard_deviation",
    "standard_error_per_standard_deviation",
    "standard_deviation",
)
"""What the answer says of the score; the last is the score's own."""


@dataclass(frozen=True)
class ExplainedVariance:
    """R2 of a score beyond covariates, and the effect of a standard deviation of it.

    Attributes:
        predictor: name of the score: a column, or one that an earlier question offers.
        trait: name of the quantitative column.
        covariates: names of further columns; an intercept is always there.
    """

    analysis: ClassVar[str] = "explained_variance"
    regime: ClassVar[Regime] = Regime.EXACT
    by_site: ClassVar[bool] = False
    summary_in_words: ClassVar[str] = "sums of the products of score, trait and covariates"

    predictor: str = field(metadata=NAMES_COLUMN)
    trait: str = field(metadata=NAMES_COLUMN)
    covariates: tuple[str, ...] = field(default=(), metadata=NAMES_COLUMN)

    def __post_init__(self) -> None:
        if len(set(self._columns)) != len(self._columns):
            raise ValueError("predictor, trait and covariates must be different columns.")

    @property
    def _columns(self) -> tuple[str, ...]:
        return (*self.covariates, self.predictor, self.trait)

    def needs(self) -> Needs:
        return Needs(columns=self._columns)

    def rounds(self) -> int:
        return 1

    def fraction(self) -> float:
        return 0.0

    def slices(self, frame: Frame) -> tuple[slice, ...]:
        return WHOLE

    def leaves(self, frame: Frame) -> dict[str, Field]:
        q = len(np.triu_indices(len(self._columns) + 1)[0])
        unit = "products of intercept, covariates, score and trait, in units of half their range"
        return {
            "people": Field((), "people with every column", 1, 1),
            "products": Field((q,), unit, q, q**0.5, PRODUCT_BITS),  # of values in [-1, 1]
        }

    def summarise(self, cohort: Cohort, frame: Frame) -> Summary:
        inside = cohort.complete
        units = [frame.columns[name].unit(cohort.columns[name][inside]) for name in self._columns]
        rows = np.stack([np.ones(int(inside.sum())), *units], axis=1)
        i, j = np.triu_indices(rows.shape[1])
        products = self.leaves(frame)["products"].integers(rows[:, i] * rows[:, j]).sum(axis=0)
        return {"people": np.array(len(rows), dtype=np.int64), "products": products}

    def withhold(self, sums: Summary, minimum_cell: int) -> Summary:
        if small(sums["people"], minimum_cell):
            return {name: np.full_like(array, WITHHELD) for name, array in sums.items()}
        return sums

    def conclude(self, total: Total, frame: Frame) -> Answer:
        sums = self.withhold(total.sums, total.minimum_cell)
        terms = (*self.covariates, self.predictor)
        if sums["people"] == WITHHELD:
            return self._answer(math.nan, np.full((len(terms), 2), np.nan), 0, np.full(len(FACTS), np.nan))
        people, size = int(sums["people"]), len(self._columns)
        degrees = people - size
        if degrees < 1:
            raise UsageError(
                "A regression needs more people than it has parameters.",
                f"{people} people have every column, {size} parameters",
                "drop covariates or ask sites that have the columns.",
            )
        products = np.empty((size + 1, size + 1))
        i, j = np.triu_indices(size + 1)
        products[i, j] = products[j, i] = self.leaves(frame)["products"].values(sums["products"]) / people
        mean = products[0, 1:]
        scatter = products[1:, 1:] - np.outer(mean, mean)
        deviation = np.sqrt(np.maximum(np.diagonal(scatter), 0.0))
        constant = [name for name, d in zip(self._columns, deviation, strict=True) if not d > LEAST_DEVIATION]
        if constant:
            raise UsageError(
                "Score, trait and covariates must vary over the sites together, relative to their range.",
                f"(nearly) constant: {', '.join(constant)}",
                "drop them or narrow their range.",
            )
        correlation = scatter / np.outer(deviation, deviation)
        if np.linalg.eigvalsh(correlation)[0] < 1e-9:
            raise UsageError(
                "Score, trait and covariates must not explain one another.",
                f"{', '.join(self._columns)} are linearly dependent",
                "drop what follows from the others.",
            )
        full, alone = _explained(correlation, size - 1), _explained(correlation, size - 2)
        inverse = np.linalg.inv(correlation[:-1, :-1])
        slope = inverse @ correlation[:-1, -1]
        error = np.sqrt(np.diagonal(inverse) * (1 - full) / degrees)
        half = np.array([(frame.columns[n].maximum - frame.columns[n].minimum) / 2 for n in self._columns])
        unit = deviation[-1] * half[-1] / (deviation[:-1] * half[:-1])
        per, scale = deviation[-1] * half[-1], deviation[-2] * half[-2]
        facts = (full, alone, full - alone, (full - alone) / (1 - alone), slope[-1] * per, error[-1] * per, scale)
        return self._answer(people, np.stack([slope * unit, error * unit], axis=1), degrees, np.array(facts))

    def _answer(self, people: float, effects: NDArray[np.float64], degrees: int, facts: NDArray[np.float64]) -> Answer:
        beta, error = effects.T
        t = beta / error
        withheld = np.isnan(beta)
        table: dict[str, Column] = {
            "term": (*self.covariates, self.predictor),
            "beta": beta,
            "standard_error": error,
            "t": t,
            "p_value": 2 * special.stdtr(max(degrees, 1), -np.abs(t)),
            "withheld": withheld,
        }
        told = {"people": people, "trait": self.trait, **dict(zip(FACTS, facts.tolist(), strict=True))}
        return Answer({"effects": table}, told, int(withheld.sum()))


def _explained(correlation: NDArray[np.float64], predictors: int) -> float:
    """R2 of the last column on the first few, from all columns' correlations."""
    if not predictors:
        return 0.0
    c = correlation[:predictors, -1]
    return float(c @ np.linalg.solve(correlation[:predictors, :predictors], c))


def draw_explained(answer: Answer, axes: Any) -> str:
    """Draw R2 of the covariates alone and with the score; returns the figure in words."""
    values = [float(answer.facts[name]) for name in ("r2_covariates", "r2")]
    shown = np.nan_to_num(values)
    axes.barh([1, 0], shown, height=0.5, color=["C2", "C0"])
    widest = max(float(shown.max()), 1e-4)
    for at, value in zip((1, 0), values, strict=True):
        text = f"{SPACE}{value:.4f}" if math.isfinite(value) else f"{SPACE}withheld"
        axes.text(float(np.nan_to_num(value)), at, text, va="center")
    axes.set_yticks([1, 0], ["covariates", "with the score"])
    axes.tick_params(axis="y", length=0)
    axes.set_xlim(0, 1.35 * widest)
    axes.set_ylim(-0.6, 1.6)
    axes.xaxis.get_major_locator().set_params(nbins=4)
    axes.set_xlabel("R²")
    if not np.isfinite(values).all():
        return f"R² of {answer.facts['trait']}: withheld, of the covariates alone and with the score."
    return f"R² of {answer.facts['trait']}: {values[0]:.4f} of the covariates alone, {values[1]:.4f} with the score."
