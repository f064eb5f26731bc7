"""Table one: of each variable how many have it, its mean, deviation and quantiles or its categories; exact.

A variable is told of those who have it; who lacks it is a cell of its own, so nobody is left out for another
variable's sake. Quantiles come from counting rounds: each cuts the interval that holds a quantile into 32 bins, counts,
and keeps the bin in which the rank lies, down to bins of 1/32^r of the public range, or until a bin would hold fewer
than `fewest` people. The quantile of the pooled values (the smallest that a part of at least q does not exceed) lies in
the interval, which is the answer; nothing narrower is known.

A variable's small cells are withheld, and others with them, so that none follows from those shown; a mean, deviation or
quantile goes with its number of people. A variable's groups are shown all or not at all: with one small cell in a group
it shows everybody alone, and whoever knows the groups' sizes still finds a span of at least the minimum in each cell.
Minima and maxima are individuals, and are not asked for.

[1] Yang, Dalton: A unified approach to measuring the effect size between two groups, SAS Global Forum 2012, paper 335.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from strategies.analysis import DERIVED, NAMES_ANY_COLUMN, NAMES_GROUPS, WHOLE, Answer, Column, Frame, Needs, Total
from strategies.cohort import Cohort
from strategies.labels import unit_of, with_unit
from strategies.privacy import Regime
from strategies.protections.suppression import WITHHELD, hidden_cells, small
from strategies.summary import Field, Summary
from strategies.variables import MOST_VARIABLES, Variables, columns_of, mean_and_deviation, per_group

BINS = 32
MOMENT_BITS = 36
ALL = "all"
"""Stands for everybody in the column of groups."""


def check_asked(variables: tuple[str, ...], by: str | None, quantiles: tuple[float, ...]) -> None:
    """Assert that a table one, exact or noised, is about different columns and levels.

    Raises:
        ValueError: if it is not.
    """
    if not 1 <= len(variables) <= MOST_VARIABLES or len({*variables, by}) <= len(variables):
        raise ValueError(f"variables are 1 to {MOST_VARIABLES} different columns, none of them that of groups.")
    if len(quantiles) > 9 or list(quantiles) != sorted(set(quantiles)):
        raise ValueError("quantiles are at most 9 levels, ascending.")
    if not all(0.05 <= level <= 0.95 for level in quantiles):
        raise ValueError("a quantile's level lies from 0.05 to 0.95.")


COLOURS = 3
"""More strata than this are told apart by their names."""


@dataclass(frozen=True)
class TableOne:
    """Counts, means, deviations, quantiles and categories of some variables, by group if asked.

    Attributes:
        variables: names of 1 to 50 columns; one of categories is counted, one of numbers averaged.
        by: name of a column whose categories, or whole numbers, are groups; who lacks it takes no part.
        quantiles: levels from 0.05 to 0.95, ascending.
        narrowings: counting rounds.
        fewest: people in the narrowest interval that is told, from 1; a policy's minimum of people in a cell holds too.
        path: for each round so far, the place of the bin that holds each quantile, the people below it and in it, one
            after the other, by variable, stratum and level; the place counts bins of that round over the whole range.
        counted: whether the counting rounds are over.
    """

    analysis: ClassVar[str] = "table_one"
    regime: ClassVar[Regime] = Regime.EXACT
    by_site: ClassVar[bool] = False
    summary_in_words: ClassVar[str] = (
        "of each variable and group, numbers of people in each category and without a value, sums of numbers and of "
        "their squares, and people in bins about the quantiles"
    )

    variables: tuple[str, ...] = field(metadata=NAMES_ANY_COLUMN)
    by: str | None = field(default=None, metadata=NAMES_GROUPS)
    quantiles: tuple[float, ...] = (0.25, 0.5, 0.75)
    narrowings: int = 3
    fewest: int = 20
    path: tuple[tuple[int, ...], ...] = field(default=(), metadata=DERIVED)
    counted: bool = field(default=False, metadata=DERIVED)

    def __post_init__(self) -> None:
        check_asked(self.variables, self.by, self.quantiles)
        if not 1 <= self.narrowings <= 4:
            raise ValueError("narrowings must be from 1 to 4.")
        if not 1 <= self.fewest <= 1000:
            raise ValueError("fewest must be from 1 to 1000.")
        if len(self.path) > self.narrowings or any(n < 0 for one in self.path for n in one):
            raise ValueError("A path has an entry for each counting round.")

    def needs(self) -> Needs:
        return Needs(columns=(self.by,) if self.by else (), optional=self.variables)

    def rounds(self) -> int:
        return 1 + (self.narrowings if self.quantiles else 0)

    def fraction(self) -> float:
        return 0.0

    def slices(self, frame: Frame) -> tuple[slice, ...]:
        return WHOLE

    def _variables(self, frame: Frame) -> Variables:
        return Variables.of(self.variables, self.by, frame.columns)

    def _counting(self, variables: Variables) -> bool:
        return bool(self.quantiles and variables.numbers) and not self.counted

    def _shape(self, variables: Variables) -> tuple[int, int, int]:
        """Variables of numbers, strata (everybody, then each group) and levels."""
        return len(variables.numbers), 1 + len(variables.labels), len(self.quantiles)

    def _steps(self, variables: Variables) -> NDArray[np.int64]:
        """(rounds so far, 3, V', S, Q) bin, people below and people in it.

        Raises:
            ValueError: if a path is none of such variables.
        """
        shape = self._shape(variables)
        if any(len(one) != 3 * math.prod(shape) for one in self.path):
            raise ValueError("A path has three numbers for each quantile.")
        return np.array(self.path, dtype=np.int64).reshape(len(self.path), 3, *shape)

    def _narrowing(self, variables: Variables) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """(V', S, Q) the bin that is cut in this round, and whether it is: it holds people enough."""
        shape, steps = self._shape(variables), self._steps(variables)
        if not len(steps):
            return np.zeros(shape, dtype=np.int64), np.ones(shape, dtype=bool)
        return steps[-1, 0], np.asarray((steps[:, 2] >= self.fewest).all(axis=0))

    def leaves(self, frame: Frame) -> dict[str, Field]:
        variables = self._variables(frame)
        people, groups = Field((), "people", 1, 1), len(variables.labels)
        if self._counting(variables):
            shape, (place, active) = self._shape(variables), self._narrowing(variables)
            # Intervals of a variable and stratum are alike or apart: a person is in as many as are alike.
            alike = (place[..., None] == place[..., None, :]) & active[..., None] & active[..., None, :]
            at_once = alike.sum(axis=-1).max(axis=-1)
            most = int(at_once[:, 0].sum() + at_once[:, 1:].max(axis=1, initial=0).sum())
            words = "people in each bin of the interval that holds a quantile"
            return {"people": people, "bins": Field((*shape, BINS), words, most, most**0.5)}
        out = {"people": people}
        if groups:
            out["group_people"] = Field((groups,), "people by group", 1, 1)
        for i, name in enumerate(variables.names):
            size = variables.size(i)
            words = f"people in each category of {name} and without" if size > 2 else f"people with and without {name}"
            out[f"cells_{i}"] = Field((size,), words, 1, 1)
            if groups:
                out[f"group_cells_{i}"] = Field((groups, size), f"{words}, by group", 1, 1)
        for i in variables.numbers:
            words = f"sums of {variables.names[i]} and of its square, in units of half its range"
            out[f"moments_{i}"] = Field((2,), words, 2, 2**0.5, MOMENT_BITS)
            if groups:
                out[f"group_moments_{i}"] = Field((groups, 2), f"{words}, by group", 2, 2**0.5, MOMENT_BITS)
        return out

    def summarise(self, cohort: Cohort, frame: Frame) -> Summary:
        variables, fields = self._variables(frame), self.leaves(frame)
        group = variables.group_of(cohort)
        out = {"people": np.array(np.count_nonzero(group >= 0), dtype=np.int64)}
        if self._counting(variables):
            return out | {"bins": self._bins(cohort, group, variables)}
        if variables.labels:
            out["group_people"] = np.bincount(group[group >= 0], minlength=len(variables.labels)).astype(np.int64)
        for i in range(len(variables.names)):
            counts = variables.counts(cohort, i)
            out[f"cells_{i}"] = counts.sum(axis=0)
            if variables.labels:
                out[f"group_cells_{i}"] = counts
        for i in variables.numbers:
            unit = np.nan_to_num(variables.unit(cohort, i))
            own = fields[f"moments_{i}"].integers(np.stack([unit, unit**2], axis=1))
            moments = per_group(own, group, len(variables.groups))
            out[f"moments_{i}"] = moments.sum(axis=0)
            if variables.labels:
                out[f"group_moments_{i}"] = moments
        return out

    def _bins(self, cohort: Cohort, group: NDArray[np.int64], variables: Variables) -> NDArray[np.int64]:
        """(V', S, Q, BINS) people in each bin of the intervals that are cut in this round."""
        place, active = self._narrowing(variables)
        out = np.zeros((*self._shape(variables), BINS), dtype=np.int64)
        bins = BINS ** (len(self.path) + 1)
        for v, i in enumerate(variables.numbers):
            unit = variables.unit(cohort, i)
            there = (group >= 0) & ~np.isnan(unit)
            at = np.clip(np.floor((unit[there] + 1) / 2 * bins), 0, bins - 1).astype(np.int64)
            for s, q in zip(*np.nonzero(active[v]), strict=True):
                within = at - place[v, s, q] * BINS
                inside = (within >= 0) & (within < BINS) & ((s == 0) | (group[there] == s - 1))
                out[v, s, q] = np.bincount(within[inside], minlength=BINS)
        return out

    def withhold(self, sums: Summary, minimum_cell: int) -> Summary:
        if any((array == WITHHELD).any() for array in sums.values()):  # it was done before
            return sums
        if small(sums["people"], minimum_cell):
            return _nothing(sums)
        out = dict(sums)
        for name in [n for n in sums if n.startswith("cells_")]:
            hidden = hidden_cells({("value",): sums[name]}, minimum_cell)
            if hidden[()]:
                return _nothing(sums)
            out |= _hidden(out, name, hidden["value",])
            if (by_group := sums.get(f"group_{name}")) is not None:
                few = small(by_group, minimum_cell).any()
                out |= _hidden(out, name, np.broadcast_to(few, by_group.shape), "group_")
        if "group_people" in sums and small(sums["group_people"], minimum_cell).any():
            out["group_people"] = np.full_like(sums["group_people"], WITHHELD)
        return out

    def conclude(self, total: Total, frame: Frame) -> Answer | TableOne:
        variables = self._variables(frame)
        sums = self.withhold(total.sums, total.minimum_cell)
        if not self._counting(variables):
            return self._answer(sums, variables, total.minimum_cell)
        if sums["people"] == WITHHELD:
            names = replace(self, counted=True).leaves(frame)
            nothing = {name: np.full(f.shape, WITHHELD, dtype=np.int64) for name, f in names.items()}
            return self._answer(nothing, variables, total.minimum_cell)
        return self._narrowed(sums["bins"], variables)

    def _narrowed(self, bins: NDArray[np.int64], variables: Variables) -> TableOne:
        """The next round: of each interval, the bin that holds the quantile's rank."""
        place, active = self._narrowing(variables)
        held = np.maximum(bins, 0)
        up_to = np.cumsum(held, axis=-1)
        if self.path:
            rank = self._steps(variables)[-1, 1]
        else:  # the smallest value that a part of at least q does not exceed
            rank = np.ceil(up_to[..., -1] * np.array(self.quantiles) - 1e-9).astype(np.int64)
        at = np.minimum((up_to < rank[..., None]).sum(axis=-1), BINS - 1)
        inside = np.where(active, np.take_along_axis(held, at[..., None], axis=-1)[..., 0], 0)
        below = np.take_along_axis(up_to - held, at[..., None], axis=-1)[..., 0]
        step = np.stack([place * BINS + at, np.maximum(rank - below, 0), inside])
        path = (*self.path, tuple(step.ravel().tolist()))
        done = len(path) == self.narrowings or not (active & (inside >= self.fewest)).any()
        return replace(self, path=path, counted=done)

    def _answer(self, sums: Summary, variables: Variables, minimum_cell: int) -> Answer:
        strata = (ALL, *variables.labels)

        def told(name: str, s: int) -> NDArray[np.float64]:
            """A stratum's array, NaN where withheld."""
            array = sums[name] if s == 0 else sums[f"group_{name}"][s - 1]
            return np.where(array == WITHHELD, np.nan, array.astype(np.float64))

        numbers: list[tuple[Any, ...]] = []
        categories: list[tuple[Any, ...]] = []
        for i, (name, span) in enumerate(zip(variables.names, variables.ranges, strict=True)):
            for s, label in enumerate(strata):
                cells = told(f"cells_{i}", s)
                if not span.categories:
                    first, second = told(f"moments_{i}", s) * 2.0**-MOMENT_BITS
                    mean, deviation = mean_and_deviation(cells[:1], first, second, span)
                    numbers.append((name, label, *cells, float(mean[0]), float(deviation[0]), np.isnan(cells).any()))
                    continue
                having = cells[:-1].sum()
                for j, people in enumerate(cells):
                    what = span.categories[j] if j < len(cells) - 1 else ""
                    share = people / having if what and having > 0 else np.nan
                    categories.append((name, what, label, people, share, np.isnan(people)))
        tables = {
            "numbers": columns_of(
                ("variable", "group", "people", "missing", "mean", "standard_deviation", "withheld"), numbers
            ),
            "categories": columns_of(("variable", "category", "group", "people", "share", "withheld"), categories),
            "quantiles": self._quantiles(sums, variables, strata, minimum_cell),
        }
        if len(variables.labels) == 2:
            tables["differences"] = columns_of(
                ("variable", "standardised_mean_difference"),
                [(name, _difference(i, sums, variables)) for i, name in enumerate(variables.names)],
            )
        facts: dict[str, float | int | str] = {"people": _number(sums["people"])}
        for name, span in zip(variables.names, variables.ranges, strict=True):
            facts |= unit_of(span, name)
        for label, people in zip(variables.labels, sums.get("group_people", ()), strict=True):
            facts[f"people_{label}"] = _number(people)
        rows = int(sum(np.count_nonzero(tables[name]["withheld"]) for name in ("numbers", "categories")))
        return Answer(tables, facts, rows)

    def _quantiles(
        self, sums: Summary, variables: Variables, strata: tuple[str, ...], minimum_cell: int
    ) -> dict[str, Column]:
        """Of each quantile the narrowest interval that holds people enough."""
        rows = list[tuple[Any, ...]]()
        steps, least = self._steps(variables), max(self.fewest, minimum_cell)
        for v, i in enumerate(variables.numbers):
            name, span = variables.names[i], variables.ranges[i]
            for s, label in enumerate(strata):
                having = sums[f"cells_{i}"][0] if s == 0 else sums[f"group_cells_{i}"][s - 1, 0]
                for q, level in enumerate(self.quantiles):
                    low, high, withheld = math.nan, math.nan, bool(having == WITHHELD)
                    if not withheld and having > 0:
                        depth = int(np.cumprod(steps[:, 2, v, s, q] >= least).sum())
                        bins, at = BINS**depth, int(steps[depth - 1, 0, v, s, q]) if depth else 0
                        low, high = (span.minimum + (span.maximum - span.minimum) * e / bins for e in (at, at + 1))
                    rows.append((name, label, level, low, high, withheld))
        return columns_of(("variable", "group", "quantile", "low", "high", "withheld"), rows)


def _nothing(sums: Summary) -> Summary:
    return {name: np.full_like(array, WITHHELD) for name, array in sums.items()}


def _hidden(sums: Summary, name: str, hidden: NDArray[np.bool_], prefix: str = "") -> dict[str, NDArray[np.int64]]:
    """A variable's cells with those hidden blotted out, and the moments of people whose number is hidden."""
    cells, moments = f"{prefix}{name}", f"{prefix}{name.replace('cells', 'moments')}"
    out = {cells: np.where(hidden, WITHHELD, sums[cells])}
    if moments in sums:
        out[moments] = np.where(hidden[..., :1], WITHHELD, sums[moments])
    return out


def _number(people: NDArray[np.int64]) -> float:
    return math.nan if people == WITHHELD else int(people)


def _difference(variable: int, sums: Summary, variables: Variables) -> float:
    """The standardised difference of the second group from the first: of means in root mean square deviations, of
    categories as in [1], where its sign is lost; NaN where a number that it follows from is withheld."""
    cells = sums[f"group_cells_{variable}"]
    if (cells == WITHHELD).any() or not (cells[:, :-1].sum(axis=1) > 0).all():
        return math.nan
    if variable in variables.numbers:
        first, second = sums[f"group_moments_{variable}"].T * 2.0**-MOMENT_BITS
        mean, deviation = mean_and_deviation(cells[:, 0].astype(np.float64), first, second, variables.ranges[variable])
        spread = math.sqrt(float((deviation**2).mean()))
        return float(mean[1] - mean[0]) / spread if spread > 0 else math.nan
    return category_difference(cells[:, :-1])


def category_difference(counts: NDArray[np.int64]) -> float:
    """The multinomial standardised difference of (2, K) counts [1]: a Mahalanobis distance of the shares.

    >>> round(category_difference(np.array([[60, 40], [50, 50]])), 6)
    0.202031
    """
    shares = counts[:, counts.any(axis=0)] / counts.sum(axis=1, keepdims=True)
    apart = (shares[1] - shares[0])[1:]
    if not len(apart):
        return 0.0
    spread = np.mean([np.diag(p) - np.outer(p, p) for p in shares[:, 1:]], axis=0)
    square = float(apart @ np.linalg.pinv(spread) @ apart)
    return math.sqrt(max(square, 0.0))


def draw_quantiles(answers: Mapping[str, Answer], axes: Any) -> str:
    """Draw each number's outer quantiles as a line and the middle ones as points, each on a scale of its own; of one
    answer everybody's and each group's, of several each site's; returns the figure in words."""
    first = next(iter(answers.values()))
    ends = ("low", "high") if "low" in first.tables["quantiles"] else ("low_95", "high_95")
    lines, hidden = list[tuple[str, str, NDArray[np.float64]]](), 0  # variable, whose, and the ends of each quantile
    for site, answer in answers.items():
        table = answer.tables["quantiles"]
        both = np.stack([np.asarray(table[end], dtype=np.float64) for end in ends], axis=1)
        hidden += int(np.isnan(both[:, 0]).sum())
        of_variable, of_group = np.array(table["variable"]), np.array(table["group"])
        for name in dict.fromkeys(table["variable"]):
            for whose in dict.fromkeys(table["group"]) if len(answers) == 1 else (ALL,):
                own = both[(of_variable == name) & (of_group == whose)]
                lines.append((name, str(whose) if len(answers) == 1 else site, own[np.isfinite(own[:, 0])]))
    variables, strata = (list(dict.fromkeys(names)) for names in ([v for v, _, _ in lines], [s for _, s, _ in lines]))
    few = len(strata) <= COLOURS
    for v, variable in enumerate(variables):
        own_lines = [(strata.index(whose), whose, own) for name, whose, own in lines if name == variable and len(own)]
        spans = np.concatenate([own.ravel() for _, _, own in own_lines]) if own_lines else np.zeros(0)
        least, most = float(spans.min(initial=np.inf)), float(spans.max(initial=-np.inf))
        if not most > least:
            continue
        for s, whose, own in own_lines:
            place, middle = v - 0.4 + 0.62 * (s + 0.5) / len(strata), (own.mean(axis=1) - least) / (most - least)
            look, label = {"color": f"C{s if few else 0}"}, whose[:20] if few else None
            axes.plot(
                [middle.min(), middle.max()], [place, place], linewidth=1.4, label=label if not v else None, **look
            )
            axes.plot(middle, np.full(len(middle), place), "o", markersize=4, **look)
            if not few:
                axes.text(1.02, place, whose[:14], va="center", fontsize=8)
        axes.plot([0, 1], [v + 0.27, v + 0.27], color="C2", linewidth=0.8)
        for at in (0.0, 0.25, 0.5, 0.75, 1.0):
            axes.plot([at, at], [v + 0.27, v + 0.31], color="C2", linewidth=0.8)
            axes.text(
                at,
                v + 0.33,
                f"{least + at * (most - least):.3g}".replace("-", "\N{MINUS SIGN}"),
                ha="center",
                va="top",
                fontsize=9,
            )
    names = [with_unit(f"{name:.16}", first, name) for name in variables]
    axes.set_yticks(np.arange(len(variables)) - 0.1, names)
    axes.set_ylim(max(len(variables), 1) - 0.4, -0.5)
    axes.set_xlim(-0.05, 1.05 if few else 1.15)
    axes.set_xticks([])
    axes.tick_params(axis="y", length=0)
    axes.spines[["left", "bottom"]].set_visible(False)
    if few and len(strata) > 1 and axes.lines:
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3)
    told = f"; {hidden} quantiles are withheld" if hidden else ""
    of = f"at {len(answers)} sites" if len(answers) > 1 else f"for {len(strata)} strata of people"
    return f"Quantiles of {len(variables)} variables of numbers, each on a scale of its own, drawn {of}{told}."
