"""How well a score tells cases from controls, over the people of all sites together.

The odds ratio of a standard deviation comes from a logistic regression on intercept, covariates and score, fitted by
Newton's method: each round sums gradient and information at the coordinator's last estimate. A last round sums two
histograms of the score, cases' and controls', on a fine public grid. From them follow the area under the curve [1],
with ties within a bin counted as a half, and between which values the area of the unbinned scores lies; and the cases
and controls in each tenth of all people, cut where bins end.

A small cell of the tenths is withheld, and others with it; where there are few cases or few controls, all is. The area
and the odds ratio are single numbers from everybody's sums, as a regression's are, and not withheld for a tenth's sake.

[1] Hanley, McNeil: The meaning and use of the area under a ROC curve, Radiology 143 (1982).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from scipy import special

from strategies.analyses.allele_frequency import NORMAL_95
from strategies.analysis import DERIVED, NAMES_CASES, NAMES_COLUMN, WHOLE, Answer, Column, Frame, Needs, Total
from strategies.cohort import Cohort
from strategies.privacy import Regime
from strategies.protections.suppression import WITHHELD, hidden_cells, small
from strategies.summary import Field, Summary

SUM_BITS = 36
"""Fraction bits of gradient and information, of columns in units of half their range."""

MOST_STEPS = 15
CONVERGED = 1e-10
"""Newton decrement g' I^-1 g, a chi-square, at which the step that is left is the last."""

FARTHEST = 500.0
"""Log odds beyond which cases and controls are taken to be separable: there is no estimate then."""

TENTHS = 10
MIDDLE = slice(4, 6)
"""The fifth and sixth, to which odds are related."""


@dataclass(frozen=True)
class Discrimination:
    """Area under the curve, odds ratio per standard deviation, and cases and controls by tenth of a score.

    Attributes:
        predictor: name of the score: a column, or one that an earlier question offers.
        label: name of the column whose upper half of the public range are cases.
        covariates: names of further columns; an intercept is always there.
        lowest, highest, bins: the grid of the histograms; people beyond it count in its end bins.
        steps: Newton steps taken.
        estimate: the regression's coefficients so far, of columns in units of half their range.
        deviation: the score's pooled standard deviation in that unit.
        fit: log odds of the score in that unit and their variance, once fitted; a variance of 0 where there is no fit.
    """

    analysis: ClassVar[str] = "discrimination"
    regime: ClassVar[Regime] = Regime.EXACT
    by_site: ClassVar[bool] = False
    summary_in_words: ClassVar[str] = (
        "in each round, gradient and information of a logistic regression; then numbers of cases and of controls in "
        "each fine bin of the score"
    )

    predictor: str = field(metadata=NAMES_COLUMN)
    label: str = field(metadata=NAMES_CASES)
    covariates: tuple[str, ...] = field(default=(), metadata=NAMES_COLUMN)
    lowest: float = -4.0
    highest: float = 4.0
    bins: int = 400
    steps: int = field(default=0, metadata=DERIVED)
    estimate: tuple[float, ...] = field(default=(), metadata=DERIVED)
    deviation: float = field(default=0.0, metadata=DERIVED)
    fit: tuple[float, ...] = field(default=(), metadata=DERIVED)

    def __post_init__(self) -> None:
        if len(set(self._columns)) != len(self._columns):
            raise ValueError("predictor, label and covariates must be different columns.")
        if not (self.lowest < self.highest and math.isfinite(self.highest - self.lowest)):
            raise ValueError("lowest must be below highest.")
        if not 2 <= self.bins <= 2000:
            raise ValueError("bins must be from 2 to 2000.")
        if not all(map(math.isfinite, self.estimate)) or len(self.estimate) not in (0, len(self._columns)):
            raise ValueError("An estimate has a number for each coefficient.")
        if not all(map(math.isfinite, (self.deviation, *self.fit))) or len(self.fit) not in (0, 2):
            raise ValueError("A fit is an estimate and its variance.")

    @property
    def _columns(self) -> tuple[str, ...]:
        return (*self.covariates, self.predictor, self.label)

    @property
    def _at(self) -> NDArray[np.float64]:
        """(k,) coefficients of intercept, covariates and score."""
        return np.array(self.estimate) if self.estimate else np.zeros(len(self._columns))

    @property
    def _edges(self) -> NDArray[np.float64]:
        """(bins + 1,) of the bins."""
        return np.linspace(self.lowest, self.highest, self.bins + 1)

    def cuts(self, frame: Frame) -> Mapping[str, tuple[float, ...]]:
        return {self.predictor: tuple(self._edges[1:-1].tolist())}

    def needs(self) -> Needs:
        return Needs(columns=self._columns)

    def rounds(self) -> int:
        return MOST_STEPS + 1

    def fraction(self) -> float:
        return 0.0

    def slices(self, frame: Frame) -> tuple[slice, ...]:
        return WHOLE

    def leaves(self, frame: Frame) -> dict[str, Field]:
        people = Field((2,), "controls and cases", 1, 1)
        if self.fit:
            histogram = Field((2, self.bins), "controls and cases in each bin", 1, 1)
            return {"people": people, "histogram": histogram}
        k = len(self._columns)
        q = k * (k + 1) // 2
        start, spread = self._at[0], float(np.abs(self._at[1:]).sum())
        error = float(max(special.expit(start + spread), special.expit(spread - start)))
        nearest = max(abs(start) - spread, 0.0)  # log odds at which a variance is largest
        weight = float(special.expit(nearest) * special.expit(-nearest))
        grid = 2.0**-SUM_BITS
        return {
            "people": people,
            "gradient": Field(
                (k,), "error of the prediction times columns", k * (error + grid), k**0.5 * (error + grid), SUM_BITS
            ),
            "information": Field(
                (q,),
                "variance of the prediction times products of columns",
                q * (weight + grid),
                q**0.5 * (weight + grid),
                SUM_BITS,
            ),
        }

    def summarise(self, cohort: Cohort, frame: Frame) -> Summary:
        inside, fields = cohort.complete, self.leaves(frame)
        case = frame.columns[self.label].unit(cohort.columns[self.label][inside]) > 0
        people = np.array([np.count_nonzero(~case), np.count_nonzero(case)], dtype=np.int64)
        if self.fit:
            at = np.searchsorted(self._edges[1:-1], cohort.columns[self.predictor][inside], side="right")
            histogram = np.zeros(fields["histogram"].shape, dtype=np.int64)
            np.add.at(histogram, (case.astype(np.int64), at), 1)
            return {"people": people, "histogram": histogram}
        names = (*self.covariates, self.predictor)
        rows = np.stack(
            [np.ones(len(case)), *(frame.columns[n].unit(cohort.columns[n][inside]) for n in names)], axis=1
        )
        # One person's log odds must not depend on who stands beside her in a matrix product.
        odds = (rows * self._at).sum(axis=1)
        risk = special.expit(odds)
        i, j = np.triu_indices(rows.shape[1])
        weight = risk * special.expit(-odds)
        return {
            "people": people,
            "gradient": fields["gradient"].integers((case - risk)[:, None] * rows).sum(axis=0),
            "information": fields["information"].integers(weight[:, None] * rows[:, i] * rows[:, j]).sum(axis=0),
        }

    def withhold(self, sums: Summary, minimum_cell: int) -> Summary:
        if small(sums["people"], minimum_cell).any():
            return {name: np.full_like(array, WITHHELD) for name, array in sums.items()}
        return sums

    def conclude(self, total: Total, frame: Frame) -> Answer | Discrimination:
        sums = self.withhold(total.sums, total.minimum_cell)
        if (sums["people"] == WITHHELD).any():
            return self._answer(np.full(2, np.nan), None, 0)
        if self.fit:
            return self._answer(sums["people"].astype(np.float64), sums["histogram"], total.minimum_cell)
        fields, size = self.leaves(frame), len(self._columns)
        gradient = fields["gradient"].values(sums["gradient"])
        information = np.empty((size, size))
        i, j = np.triu_indices(size)
        information[i, j] = information[j, i] = fields["information"].values(sums["information"])
        deviation = self.deviation
        if not self.estimate and sums["people"].sum() > 0:  # at even odds the information is a quarter of the products
            products = 4 * information / int(sums["people"].sum())
            deviation = math.sqrt(max(float(products[-1, -1] - products[0, -1] ** 2), 0.0))
        done = replace(self, deviation=deviation, fit=(0.0, 0.0))
        scale = np.sqrt(np.maximum(np.diagonal(information), 0.0))
        if not sums["people"].all() or not (scale > 0).all():
            return done
        if np.linalg.eigvalsh(information / np.outer(scale, scale))[0] < 1e-9:
            return done
        step = np.linalg.solve(information, gradient)
        following = self._at + step
        if not float(np.abs(following).sum()) < FARTHEST:
            return done
        if float(step @ gradient) < CONVERGED:
            return replace(done, fit=(float(following[-1]), float(np.linalg.inv(information)[-1, -1])))
        if self.steps + 1 == MOST_STEPS:
            return done
        return replace(self, deviation=deviation, estimate=tuple(following.tolist()), steps=self.steps + 1)

    def _answer(self, people: NDArray[np.float64], histogram: NDArray[np.int64] | None, minimum_cell: int) -> Answer:
        nothing = histogram is None
        counts = np.zeros((2, self.bins), dtype=np.int64) if histogram is None else histogram
        edges = self._edges
        cuts = _cuts(counts.sum(axis=0))
        tenths = np.stack([np.add.reduceat(np.append(row, 0), cuts[:-1]) * (np.diff(cuts) > 0) for row in counts])
        hidden = hidden_cells({("status", "tenth"): tenths}, 0 if nothing else minimum_cell)
        cells = np.where(hidden["status", "tenth"] | nothing, np.nan, tenths)
        everybody = np.where(hidden["tenth",] | nothing, np.nan, tenths.sum(axis=0))
        withheld: NDArray[np.bool_] = np.any(np.isnan(cells), axis=0)
        table: dict[str, Column] = {
            "tenth": np.arange(1, TENTHS + 1),
            "low": edges[cuts[:-1]],
            "high": edges[cuts[1:]],
            "people": everybody,
            "controls": cells[0],
            "cases": cells[1],
            "odds_ratio": _odds_ratios(cells),
            "withheld": withheld,
        }
        low, high = _area(counts)
        odds, variance = self.fit if self.fit and self.fit[1] > 0 and not nothing else (math.nan, math.nan)
        log, error = odds * self.deviation, math.sqrt(variance) * self.deviation
        with np.errstate(over="ignore"):
            ratio, lower, upper = (float(np.exp(log + z * error)) for z in (0.0, -NORMAL_95, NORMAL_95))
        facts: dict[str, float | int | str] = {
            "people": float(people.sum()),
            "controls": float(people[0]),
            "cases": float(people[1]),
            "area": (low + high) / 2,
            "area_low": low,
            "area_high": high,
            "odds_ratio_per_standard_deviation": ratio,
            "odds_ratio_low": lower,
            "odds_ratio_high": upper,
            "log_odds_per_standard_deviation": log,
            "standard_error": error,
            "p_value": 2 * float(special.ndtr(-abs(log / error))) if error > 0 else math.nan,
        }
        return Answer({"tenths": table}, facts, int(withheld.sum()))


def _cuts(people: NDArray[np.int64]) -> NDArray[np.int64]:
    """(11,) the edges of bins that come nearest to cutting people into tenths."""
    up_to = np.concatenate([[0], np.cumsum(people)])
    wanted = up_to[-1] * np.arange(1, TENTHS) / TENTHS
    at = np.abs(up_to[None, :] - wanted[:, None]).argmin(axis=1)
    return np.concatenate([[0], at, [len(people)]])


def _area(counts: NDArray[np.int64]) -> tuple[float, float]:
    """Between which values the area under the curve of the unbinned scores lies; NaN without cases or controls.

    >>> _area(np.array([[2, 1, 0], [0, 1, 2]]))
    (0.8888888888888888, 1.0)
    """
    controls, cases = counts.astype(np.float64)
    pairs = float(controls.sum() * cases.sum())
    if not pairs:
        return math.nan, math.nan
    below = np.concatenate([[0.0], np.cumsum(controls)[:-1]])
    return float(cases @ below) / pairs, float(cases @ (below + controls)) / pairs


def _odds_ratios(cells: NDArray[np.float64]) -> NDArray[np.float64]:
    """(10,) odds of each tenth over those of the fifth and sixth together; NaN where one of them is 0 or withheld."""
    middle = cells[:, MIDDLE].sum(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = cells[1] / cells[0] * (middle[0] / middle[1])
    return np.where(np.isfinite(ratio) & (ratio > 0), ratio, np.nan)


def draw_tenths(answer: Answer, axes: Any) -> str:
    """Draw the odds ratio of each tenth to the middle fifth, with Woolf's interval; returns the figure in words."""
    table = answer.tables["tenths"]
    ratio, controls, cases = (np.asarray(table[n], dtype=np.float64) for n in ("odds_ratio", "controls", "cases"))
    with np.errstate(divide="ignore", invalid="ignore"):
        error = np.sqrt(1 / controls + 1 / cases + 1 / controls[MIDDLE].sum() + 1 / cases[MIDDLE].sum())
    low, high = ratio * np.exp(-NORMAL_95 * error), ratio * np.exp(NORMAL_95 * error)
    at, middle = np.arange(1, TENTHS + 1), np.isin(np.arange(TENTHS), np.arange(TENTHS)[MIDDLE])
    axes.vlines(at[~middle], low[~middle], high[~middle], color="C0", linewidth=1.4)
    axes.plot(at[~middle], ratio[~middle], "o", color="C0", markersize=6)
    axes.plot(at[middle], ratio[middle], "o", color="C0", markersize=6, markerfacecolor="none")
    axes.axhline(1.0, color="C2", linewidth=1, linestyle=(0, (3, 2)))
    if np.isfinite(ratio).any():
        axes.set_yscale("log")
        axes.yaxis.get_major_locator().set_params(subs=(1, 2, 5))
        axes.yaxis.set_major_formatter("{x:g}")
        axes.minorticks_off()
    axes.set_xticks(at)
    axes.set_xlabel("tenth of the score")
    axes.set_ylabel("odds ratio")
    if not np.isfinite(ratio).any():
        return "Odds ratios by tenth of the score: there are none, or they are withheld."
    return (
        f"Odds ratios by tenth of the score; the area under the curve is {float(answer.facts['area']):.3f}, the odds "
        f"ratio of a standard deviation {float(answer.facts['odds_ratio_per_standard_deviation']):.2f}."
    )
