"""The distribution of a score over people: a histogram on a public grid, its mean and deviation, by group if asked.

A standardised score of an earlier question is the same for all countries, so the same grid serves for all of them: the
countries' own histograms are asked for by site, where each site withholds its own small cells. People beyond the grid
count in its end bins. A small cell is withheld, and others with it, so that none follows from those shown; where a
group's number of people is small, its mean and deviation are withheld, too.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from strategies.analysis import NAMES_COLUMN, NAMES_GROUPS, WHOLE, Answer, Column, Frame, Needs, Total
from strategies.cohort import Cohort
from strategies.groups import group_codes, group_names
from strategies.privacy import Regime
from strategies.protections.suppression import WITHHELD, hidden_cells, replaced
from strategies.summary import Field, Summary

MOMENT_BITS = 32


@dataclass(frozen=True)
class ScoreDistribution:
    """How many people have a score in each bin of a public grid.

    Attributes:
        predictor: name of the score: a column, or one that an earlier question offers.
        by: name of a column whose codes, the whole numbers of its range, are groups that are told apart. A value in
            between counts as the nearest code. At most 20 groups; people without a value are left out.
        lowest, highest, bins: the grid.
    """

    analysis: ClassVar[str] = "score_distribution"
    regime: ClassVar[Regime] = Regime.EXACT
    by_site: ClassVar[bool] = True
    summary_in_words: ClassVar[str] = (
        "numbers of people in each bin of the score and group, and each group's sums of the score and of its square"
    )

    predictor: str = field(metadata=NAMES_COLUMN)
    by: str | None = field(default=None, metadata=NAMES_GROUPS)
    lowest: float = -4.0
    highest: float = 4.0
    bins: int = 40

    def __post_init__(self) -> None:
        if self.predictor == self.by:
            raise ValueError("predictor and by must be different columns.")
        if not (self.lowest < self.highest and math.isfinite(self.highest - self.lowest)):
            raise ValueError("lowest must be below highest.")
        if not 2 <= self.bins <= 200:
            raise ValueError("bins must be from 2 to 200.")

    def needs(self) -> Needs:
        return Needs(columns=(self.predictor, *((self.by,) if self.by else ())))

    def rounds(self) -> int:
        return 1

    def fraction(self) -> float:
        return 0.0

    def slices(self, frame: Frame) -> tuple[slice, ...]:
        return WHOLE

    @property
    def _edges(self) -> NDArray[np.float64]:
        """(bins + 1,) of the bins."""
        return np.linspace(self.lowest, self.highest, self.bins + 1)

    def cuts(self, frame: Frame) -> Mapping[str, tuple[float, ...]]:
        return {self.predictor: tuple(self._edges[1:-1].tolist())}

    def _groups(self, frame: Frame) -> NDArray[np.int64]:
        """(G,) codes of the groups.

        Raises:
            UsageError: if the column's range is none of codes, or of too many.
        """
        if self.by is None:
            return np.zeros(1, dtype=np.int64)
        return np.array(group_codes(self.by, frame.columns[self.by]), dtype=np.int64)

    def leaves(self, frame: Frame) -> dict[str, Field]:
        groups = len(self._groups(frame))
        return {
            "people": Field((), "people", 1, 1),
            "groups": Field((groups,), "people in each group", 1, 1),
            "histogram": Field((groups, self.bins), "people in each group and bin", 1, 1),
            # A value lies in [-1, 1], in units of half the range, and so does its square.
            "moments": Field((groups, 2), "sums of the score and of its square", 2, 2**0.5, MOMENT_BITS),
        }

    def summarise(self, cohort: Cohort, frame: Frame) -> Summary:
        inside = cohort.complete
        values, groups, fields = cohort.columns[self.predictor][inside], self._groups(frame), self.leaves(frame)
        at = np.zeros(len(values), dtype=np.int64)
        if self.by is not None:
            at = np.rint(cohort.columns[self.by][inside]).astype(np.int64) - groups[0]
        bins = np.searchsorted(self._edges[1:-1], values, side="right")
        histogram = np.zeros(fields["histogram"].shape, dtype=np.int64)
        np.add.at(histogram, (at, bins), 1)
        unit = frame.columns[self.predictor].unit(values)
        moments = np.zeros(fields["moments"].shape, dtype=np.int64)
        np.add.at(moments, at, fields["moments"].integers(np.stack([unit, unit**2], axis=1)))
        return {
            "people": np.array(len(values), dtype=np.int64),
            "groups": histogram.sum(axis=1),
            "histogram": histogram,
            "moments": moments,
        }

    def withhold(self, sums: Summary, minimum_cell: int) -> Summary:
        histogram = sums["histogram"]
        if (histogram == WITHHELD).any():  # it was done before
            return sums
        hidden = hidden_cells({("group", "bin"): histogram}, minimum_cell)
        if hidden[()].any():
            return {name: np.full_like(array, WITHHELD) for name, array in sums.items()}
        out = replaced(sums, ("histogram",), hidden["bin", "group"].T, WITHHELD)
        return replaced(out, ("groups", "moments"), hidden["group",], WITHHELD)

    def conclude(self, total: Total, frame: Frame) -> Answer:
        sums = self.withhold(total.sums, total.minimum_cell)
        groups, shown = self._groups(frame), sums["groups"] != WITHHELD
        edges = self._edges
        histogram = sums["histogram"].ravel()
        withheld = histogram == WITHHELD
        table: dict[str, Column] = {
            **self._labelled(frame),
            "low": np.tile(edges[:-1], len(groups)),
            "high": np.tile(edges[1:], len(groups)),
            "people": np.where(withheld, np.nan, histogram),
            "withheld": withheld,
        }
        moments = self.leaves(frame)["moments"].values(np.where(shown[:, None], sums["moments"], 0))
        facts: dict[str, float | int | str] = {"people": _told(sums["people"])}
        whole = moments.sum(axis=0) if shown.all() else np.full(2, np.nan)
        facts |= self._moments(float(facts["people"]), whole, frame, "")
        names = group_names(self.by, frame.columns[self.by]) if self.by else ()
        for label, people, sum_ in zip(names, sums["groups"], moments, strict=False):
            name = f"_{self.by}_{label}"
            facts[f"people{name}"] = _told(people)
            facts |= self._moments(_told(people), sum_, frame, name)
        return Answer({"distribution": table}, facts, int(withheld.sum()))

    def _labelled(self, frame: Frame) -> dict[str, Column]:
        """The group of each row: its category, or its code."""
        if self.by is None:
            return {}
        if names := frame.columns[self.by].categories:
            return {self.by: tuple(name for name in names for _ in range(self.bins))}
        return {self.by: np.repeat(self._groups(frame), self.bins)}

    def _moments(self, people: float, sums: NDArray[np.float64], frame: Frame, name: str) -> dict[str, float]:
        """Mean and standard deviation of so many people, in the score's own unit."""
        span = frame.columns[self.predictor]
        half = (span.maximum - span.minimum) / 2
        mean, square = sums / people if people > 0 else np.full(2, np.nan)
        return {
            f"mean{name}": (span.maximum + span.minimum) / 2 + half * float(mean),
            f"standard_deviation{name}": half * math.sqrt(max(float(square - mean**2), 0.0))
            if people > 0
            else math.nan,
        }


def _told(people: NDArray[np.int64]) -> float:
    return math.nan if people == WITHHELD else int(people)


@dataclass(frozen=True, eq=False)
class Distribution:
    """One group's or one site's histogram.

    Attributes:
        name: what it is of.
        edges: (B + 1,) of the bins.
        people: people in all; NaN where withheld.
        counts: (B,) people in each bin; NaN where withheld.
        mean, deviation: NaN where withheld.
    """

    name: str
    edges: NDArray[np.float64]
    people: float
    counts: NDArray[np.float64]
    mean: float
    deviation: float

    @property
    def withheld(self) -> int:
        return int(np.isnan(self.counts).sum())


def distributions(answer: Answer, by_site: Mapping[str, Answer]) -> tuple[Distribution, ...]:
    """The histograms of an answer over all sites, or of each site's, group by group."""
    out = []
    for site, one in (by_site or {"": answer}).items():
        table, facts = one.tables["distribution"], one.facts
        column = next(iter(table))
        groups = np.array([str(label) for label in table[column]] if column != "low" else [""] * len(table["low"]))
        for group in dict.fromkeys(groups.tolist()):
            rows = groups == group
            suffix, label = ("", "everybody") if column == "low" else (f"_{column}_{group}", f"{column} {group}")
            low, high, counts = (np.asarray(table[name], dtype=np.float64)[rows] for name in ("low", "high", "people"))
            numbers = [float(facts[f"{name}{suffix}"]) for name in ("people", "mean", "standard_deviation")]
            name = " ".join(filter(None, (site, "" if site and column == "low" else label)))
            out.append(Distribution(name, np.append(low, high[-1]), numbers[0], counts, *numbers[1:]))
    return tuple(out)


def draw_distributions(found: Sequence[Distribution], axes: Any) -> str:
    """Draw each histogram as shares of its people in a row of its own, with its mean; returns the figure in words."""
    shares = [one.counts / (one.people if one.people > 0 else np.nan) for one in found]
    tallest = max((float(np.nanmax(s)) for s in shares if np.isfinite(s).any()), default=1.0)
    for row, (one, share) in enumerate(zip(found, shares, strict=True)):
        base, middle = -float(row), (one.edges[1:] + one.edges[:-1]) / 2
        height = base + 0.85 * np.nan_to_num(share) / tallest
        axes.stairs(height, one.edges, baseline=base, fill=True, color="C0", alpha=0.35)
        axes.stairs(height, one.edges, baseline=base, color="C0", linewidth=1.2)
        hidden = np.isnan(one.counts)
        axes.plot(middle[hidden], np.full(int(hidden.sum()), base + 0.06), "x", color="C1", markersize=4)
        if np.isfinite(one.mean):
            axes.plot([one.mean, one.mean], [base - 0.1, base + 0.02], color="C1", linewidth=2.4)
    axes.set_yticks(-np.arange(len(found)), [one.name for one in found])
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(-len(found) + 0.8, 0.95)
    axes.set_xlabel("score")
    told = ", ".join(f"{one.name} {one.mean:.2f}" for one in found if np.isfinite(one.mean))
    return (
        f"Histograms of a score, {len(found)} in rows below one another; means: {told or 'withheld'}; "
        f"{sum(one.withheld for one in found)} bins are withheld."
    )
