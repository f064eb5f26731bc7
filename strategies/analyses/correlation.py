"""A matrix of Pearson correlations of some columns, of those who have them all.

Exact: a first round sums columns and squares, a second one products of columns in their pooled deviations, so that no
precision is lost where a column is narrow within its public range. Private: one round of noised sums of products of
columns in half their ranges; intervals count on noise and sampling. Ranks are not summed, so there is no Spearman.

[1] Fisher: On the probable error of a coefficient of correlation, Metron 1 (1921).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from scipy import special

from strategies.analyses.allele_frequency import NORMAL_95
from strategies.analysis import DERIVED, NAMES_COLUMN, WHOLE, Answer, Column, Frame, Needs, Total
from strategies.cohort import Cohort
from strategies.privacy import Regime
from strategies.protections.suppression import WITHHELD, small
from strategies.summary import COUNT_BITS, MOST_CONTRIBUTION, Field, Summary
from strategies.variables import draw_matrix

SUM_BITS = 36
NOISED_BITS = 16
LEAST_DEVIATION = 1e-5
"""In units of half a range: a column that varies less is constant."""

MOST_COLUMNS = 50


def _check(columns: tuple[str, ...]) -> None:
    if not 2 <= len(columns) <= MOST_COLUMNS or len(set(columns)) < len(columns):
        raise ValueError(f"columns are 2 to {MOST_COLUMNS} different ones.")


def _unit(columns: tuple[str, ...], cohort: Cohort, frame: Frame) -> NDArray[np.float64]:
    """(n, k) columns in units of half their ranges, of those who have them all."""
    inside = cohort.having(columns)
    return np.stack([frame.columns[name].unit(cohort.columns[name][inside]) for name in columns], axis=1)


@dataclass(frozen=True)
class Correlation:
    """Pearson correlations, their intervals and p values.

    Attributes:
        columns: names of 2 to 50 columns of numbers, or of two categories.
        centre, scale: pooled means and deviations in units of half a range, once summed.
    """

    analysis: ClassVar[str] = "correlation"
    regime: ClassVar[Regime] = Regime.EXACT
    by_site: ClassVar[bool] = False
    summary_in_words: ClassVar[str] = "sums of columns and of their squares; then sums of products of each two columns"

    columns: tuple[str, ...] = field(metadata=NAMES_COLUMN)
    centre: tuple[float, ...] = field(default=(), metadata=DERIVED)
    scale: tuple[float, ...] = field(default=(), metadata=DERIVED)

    def __post_init__(self) -> None:
        _check(self.columns)
        if not len(self.centre) == len(self.scale) in (0, len(self.columns)):
            raise ValueError("Each column has a mean and a deviation.")
        if not all(-1 <= c <= 1 for c in self.centre) or not all(LEAST_DEVIATION <= s <= 2 for s in self.scale):
            raise ValueError("Means lie from -1 to 1, deviations from 10^-5 to 2.")

    def needs(self) -> Needs:
        return Needs(columns=self.columns)

    def rounds(self) -> int:
        return 2

    def fraction(self) -> float:
        return 0.0

    def slices(self, frame: Frame) -> tuple[slice, ...]:
        return WHOLE

    def leaves(self, frame: Frame) -> dict[str, Field]:
        k, grid = len(self.columns), 2.0**-SUM_BITS
        people = Field((), "people", 1, 1)
        if not self.scale:
            words = "sums of columns and of their squares, in units of half their ranges"
            return {"people": people, "moments": Field((k, 2), words, 2 * k, (2 * k) ** 0.5, SUM_BITS)}
        farthest = (1 + np.abs(self.centre)) / np.array(self.scale)
        i, j = np.triu_indices(k)
        most = np.concatenate([farthest, farthest[i] * farthest[j]]) + grid
        most = np.minimum(most, MOST_CONTRIBUTION * grid)
        words = "sums of columns in their pooled deviations, and of products of each two"
        return {
            "people": people,
            "products": Field((len(most),), words, float(most.sum()), float(np.linalg.norm(most)), SUM_BITS),
        }

    def summarise(self, cohort: Cohort, frame: Frame) -> Summary:
        unit, fields = _unit(self.columns, cohort, frame), self.leaves(frame)
        people = np.array(len(unit), dtype=np.int64)
        if not self.scale:
            return {
                "people": people,
                "moments": fields["moments"].integers(np.stack([unit, unit**2], axis=2)).sum(axis=0),
            }
        z = (unit - np.array(self.centre)) / np.array(self.scale)
        i, j = np.triu_indices(len(self.columns))
        own = fields["products"].integers(np.concatenate([z, z[:, i] * z[:, j]], axis=1))
        return {"people": people, "products": own.sum(axis=0)}

    def withhold(self, sums: Summary, minimum_cell: int) -> Summary:
        if sums["people"] == WITHHELD or small(sums["people"], minimum_cell):
            return {name: np.full_like(array, WITHHELD) for name, array in sums.items()}
        return sums

    def conclude(self, total: Total, frame: Frame) -> Answer | Correlation:
        sums, k = self.withhold(total.sums, total.minimum_cell), len(self.columns)
        people = math.nan if sums["people"] == WITHHELD else int(sums["people"])
        nothing = np.full((k, k), np.nan)
        if not people > 3:
            return self._answer(people, nothing)
        values = {name: f.values(sums[name]) for name, f in self.leaves(frame).items()}
        if not self.scale:
            mean, square = values["moments"].T / people
            deviation = np.sqrt(np.maximum(square - mean**2, 0.0))
            if not (deviation >= LEAST_DEVIATION).all():
                return self._answer(people, nothing)
            centre, scale = np.clip(mean, -1.0, 1.0), np.minimum(deviation, 2.0)
            return replace(self, centre=tuple(centre.tolist()), scale=tuple(scale.tolist()))
        matrix, mean = nothing.copy(), values["products"][:k] / people
        i, j = np.triu_indices(k)
        matrix[i, j] = matrix[j, i] = values["products"][k:]
        matrix -= people * np.outer(mean, mean)  # the first round's means are as fine as its grid
        scale = np.sqrt(np.maximum(np.diagonal(matrix), 0.0))
        with np.errstate(divide="ignore", invalid="ignore"):
            return self._answer(people, np.clip(matrix / np.outer(scale, scale), -1.0, 1.0))

    def _answer(self, people: float, r: NDArray[np.float64]) -> Answer:
        i, j = np.triu_indices(len(self.columns), 1)
        own = r[i, j]
        with np.errstate(divide="ignore", invalid="ignore"):
            half = NORMAL_95 / math.sqrt(people - 3) if people > 3 else math.nan
            low, high = np.tanh(np.arctanh(own) - half), np.tanh(np.arctanh(own) + half)
            t = own * np.sqrt((people - 2) / np.maximum(1 - own**2, 0.0))
            p = 2 * special.stdtr(max(people - 2, 1), -np.abs(t))
        table = {**_pairs(self.columns, i, j), "r": own, "low_95": low, "high_95": high, "p_value": p}
        return Answer({"correlations": table}, {"people": people})


def _pairs(columns: Sequence[str], i: NDArray[np.int64], j: NDArray[np.int64]) -> dict[str, Column]:
    return {"variable": tuple(columns[k] for k in i), "other": tuple(columns[k] for k in j)}


@dataclass(frozen=True)
class NoisedCorrelation:
    """The same from noised sums.

    Attributes:
        columns: as of the exact one.
    """

    analysis: ClassVar[str] = "correlation"
    regime: ClassVar[Regime] = Regime.PRIVATE
    by_site: ClassVar[bool] = True
    summary_in_words: ClassVar[str] = (
        "noised sums of columns and of products of each two, and a noised number of people"
    )

    columns: tuple[str, ...] = field(metadata=NAMES_COLUMN)

    def __post_init__(self) -> None:
        _check(self.columns)

    def needs(self) -> Needs:
        return Needs(columns=self.columns)

    def rounds(self) -> int:
        return 1

    def fraction(self) -> float:
        return 1.0

    def slices(self, frame: Frame) -> tuple[slice, ...]:
        return WHOLE

    def leaves(self, frame: Frame) -> dict[str, Field]:
        k = len(self.columns)
        size = k + k * (k + 1) // 2
        return {
            "people": Field((), "people", 1.0, 1.0, COUNT_BITS, share=0.1),
            "moments": Field(
                (size,),
                "sums of columns, and of products of columns, in units of half their ranges",
                size,
                size**0.5,
                NOISED_BITS,
                share=0.9,
            ),
        }

    def summarise(self, cohort: Cohort, frame: Frame) -> Summary:
        unit = _unit(self.columns, cohort, frame)
        i, j = np.triu_indices(len(self.columns))
        own = self.leaves(frame)["moments"].integers(np.concatenate([unit, unit[:, i] * unit[:, j]], axis=1))
        return {"people": np.array(len(unit) << COUNT_BITS, dtype=np.int64), "moments": own.sum(axis=0)}

    def withhold(self, sums: Summary, minimum_cell: int) -> Summary:
        return sums

    def conclude(self, total: Total, frame: Frame) -> Answer:
        fields, k = self.leaves(frame), len(self.columns)
        people, moments = (fields[name].values(total.sums[name]) for name in ("people", "moments"))
        n, noise = max(float(people), 1.0), total.noise.get("moments", 0.0)
        mean, products = moments[:k] / n, np.empty((k, k))
        i, j = np.triu_indices(k)
        products[i, j] = products[j, i] = moments[k:] / n
        covariance = products - np.outer(mean, mean)
        # The noise of a covariance: of its product, of both means in the product of means, of the number of people.
        spread = noise / n * np.sqrt(1 + mean[:, None] ** 2 + mean[None] ** 2)
        spread = np.hypot(spread, total.noise.get("people", 0.0) / n * (2 * np.outer(mean, mean) - products))
        variance, lost = np.diagonal(covariance), np.diagonal(spread)
        able = variance > 2 * lost
        with np.errstate(divide="ignore", invalid="ignore"):
            r = np.clip(covariance / np.sqrt(np.outer(variance, variance)), -1, 1)
            relative = (lost / variance) ** 2
            error = spread**2 / np.outer(variance, variance) + r**2 / 4 * (relative[:, None] + relative[None])
            error = np.sqrt(error + (1 - r**2) ** 2 / n)
        i, j = np.triu_indices(k, 1)
        shown = able[i] & able[j]
        own, half = np.where(shown, r[i, j], np.nan), NORMAL_95 * error[i, j]
        table: dict[str, Column] = {
            **_pairs(self.columns, i, j),
            "r": own,
            "low_95": np.where(shown, np.maximum(own - half, -1.0), -1.0),
            "high_95": np.where(shown, np.minimum(own + half, 1.0), 1.0),
        }
        facts: dict[str, float | int | str] = {
            "people": float(people), "people_noise_sd": total.noise.get("people", 0.0), "moment_noise_sd": noise,
        }  # fmt: skip
        return Answer({"correlations": table}, facts)


def draw_correlations(answer: Answer, axes: Any) -> str:
    """Draw the matrix, times 100; returns the figure in words."""
    table = answer.tables["correlations"]
    names = list(dict.fromkeys([*table["variable"], *table["other"]]))
    r = np.asarray(table["r"], dtype=np.float64)
    matrix = np.eye(len(names))
    for a, b, value in zip(table["variable"], table["other"], r.tolist(), strict=True):
        matrix[names.index(a), names.index(b)] = matrix[names.index(b), names.index(a)] = value
    draw_matrix(matrix, names, names, axes)
    axes.set_xlabel("correlation × 100")
    if not np.isfinite(r).any():
        return f"Correlations of {len(names)} columns: there are none, or they are withheld."
    most = int(np.nanargmax(np.abs(r)))
    pair = f"{table['variable'][most]} and {table['other'][most]}"
    return f"Correlations of {len(names)} columns; the strongest is that of {pair}, {r[most]:.2f}."
