"""Attrition: how many people are left after each step of a cohort's definition, and so how many are in it.

A step's people are among those of the step before, so what is counted is in how many steps, from the first on, each
person passed: cells into which everybody falls once. What is left after a step is a sum of the last cells, and who left
is one of them. In the exact form a cell is withheld by the rules for tables, and with it what is left after each step
between the first withheld cell and the last. The private form has noise in each cell: one person changes one cell by
one, where she would change every step that she passed if what is left were counted instead.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from strategies.analysis import PASSED, WHOLE, Answer, Frame, Needs, Total
from strategies.cohort import Cohort
from strategies.labels import SPACE
from strategies.privacy import Regime
from strategies.protections.suppression import WITHHELD, hidden_cells, replaced
from strategies.summary import COUNT_BITS, Field, Summary

MOST_LETTERS = 64
"""Of a step's text in a drawing."""


def _steps(frame: Frame) -> int:
    """K + 1: nobody's step, and each step of the cohort."""
    return round(frame.columns[PASSED].maximum) + 1


def _counted(cohort: Cohort, frame: Frame) -> NDArray[np.int64]:
    """(K + 1,) people who passed exactly so many steps."""
    values = cohort.columns[PASSED][cohort.complete]
    at = np.clip(np.rint(values), 0, _steps(frame) - 1).astype(np.int64)
    return np.bincount(at, minlength=_steps(frame)).astype(np.int64)


def _texts(frame: Frame) -> tuple[str, ...]:
    return frame.columns[PASSED].categories or tuple(map(str, range(_steps(frame))))


@dataclass(frozen=True)
class Attrition:
    """How many people each step of a cohort leaves, exactly. The question's `cohort` says which."""

    analysis: ClassVar[str] = "attrition"
    regime: ClassVar[Regime] = Regime.EXACT
    by_site: ClassVar[bool] = True
    summary_in_words: ClassVar[str] = "the number of people who passed exactly so many steps of the cohort's definition"

    def needs(self) -> Needs:
        return Needs(columns=(PASSED,))

    def rounds(self) -> int:
        return 1

    def fraction(self) -> float:
        return 0.0

    def slices(self, frame: Frame) -> tuple[slice, ...]:
        return WHOLE

    def leaves(self, frame: Frame) -> dict[str, Field]:
        return {
            "people": Field((), "people", 1, 1),
            "passed": Field((_steps(frame),), "people who passed exactly so many steps", 1, 1),
        }

    def summarise(self, cohort: Cohort, frame: Frame) -> Summary:
        passed = _counted(cohort, frame)
        return {"people": np.array(passed.sum(), dtype=np.int64), "passed": passed}

    def withhold(self, sums: Summary, minimum_cell: int) -> Summary:
        if (sums["passed"] == WITHHELD).any():  # it was done before
            return sums
        hidden = hidden_cells({("step",): sums["passed"]}, minimum_cell)
        if hidden[()].any():
            return {name: np.full_like(array, WITHHELD) for name, array in sums.items()}
        return replaced(sums, ("passed",), hidden["step",], WITHHELD)

    def conclude(self, total: Total, frame: Frame) -> Answer:
        sums = self.withhold(total.sums, total.minimum_cell)
        cells = np.where(sums["passed"] == WITHHELD, np.nan, sums["passed"].astype(np.float64))
        people = math.nan if sums["people"] == WITHHELD else float(sums["people"])
        # What is left follows from the cells before a step, or from those after it, if all of either are shown.
        before = people - np.concatenate([[0.0], np.cumsum(cells)[:-1]])
        after = np.cumsum(cells[::-1])[::-1]
        return _answer(frame, cells, np.where(np.isnan(before), after, before), {})


@dataclass(frozen=True)
class NoisedAttrition:
    """How many people each step of a cohort leaves, with noise. The question's `cohort` says which."""

    analysis: ClassVar[str] = "attrition"
    regime: ClassVar[Regime] = Regime.PRIVATE
    by_site: ClassVar[bool] = True
    summary_in_words: ClassVar[str] = (
        "the noised number of people who passed exactly so many steps of the cohort's definition"
    )

    def needs(self) -> Needs:
        return Needs(columns=(PASSED,))

    def rounds(self) -> int:
        return 1

    def fraction(self) -> float:
        return 1.0

    def slices(self, frame: Frame) -> tuple[slice, ...]:
        return WHOLE

    def leaves(self, frame: Frame) -> dict[str, Field]:
        return {"passed": Field((_steps(frame),), "people who passed exactly so many steps", 1.0, 1.0, COUNT_BITS)}

    def summarise(self, cohort: Cohort, frame: Frame) -> Summary:
        return {"passed": _counted(cohort, frame) << COUNT_BITS}

    def withhold(self, sums: Summary, minimum_cell: int) -> Summary:
        return sums

    def conclude(self, total: Total, frame: Frame) -> Answer:
        cells = self.leaves(frame)["passed"].values(total.sums["passed"])
        sd = total.noise.get("passed", 0.0) * np.sqrt(np.arange(len(cells), 0, -1))
        return _answer(frame, cells, np.cumsum(cells[::-1])[::-1], {"people_noise_sd": sd})


def _answer(
    frame: Frame, cells: NDArray[np.float64], left: NDArray[np.float64], more: Mapping[str, NDArray[np.float64]]
) -> Answer:
    """The answer from the (K + 1,) cells and what is left after each step, NaN where withheld."""
    out = np.concatenate([[0.0], cells[:-1]])
    withheld = np.isnan(left) | np.isnan(out)
    table = {"step": _texts(frame), "people": left, "left_out": out, **more, "withheld": withheld}
    facts: dict[str, float | int | str] = {"people": float(left[0]), "people_in_cohort": float(left[-1])}
    facts |= {f"{name}_in_cohort": float(values[-1]) for name, values in more.items()}
    return Answer({"steps": table}, facts, int(withheld.sum()))


def draw_attrition(answer: Answer, axes: Any) -> str:
    """Draw what each step leaves as bars below one another, with who left beside the arrows; returns it in words."""
    table = answer.tables["steps"]
    left, out = (np.asarray(table[name], dtype=np.float64) for name in ("people", "left_out"))
    widest = max(float(np.nanmax(left)) if np.isfinite(left).any() else 1.0, 1.0)
    for step, (text, people, gone) in enumerate(zip(table["step"], left, out, strict=True)):
        known = bool(np.isfinite(people))
        axes.barh(-step, people if known else widest, 0.42, color="C0", alpha=1.0 if known else 0.12)
        axes.text(0, -step + 0.28, str(text)[:MOST_LETTERS], va="bottom", ha="left", fontsize=9.5)
        number = f"{SPACE}{people:,.0f}" if known else f"{SPACE}withheld"
        axes.text(people if known else widest, -step, number, va="center", ha="left")
        if step:
            axes.annotate(
                "", (-0.06 * widest, -step), (-0.06 * widest, -step + 1),
                arrowprops={"arrowstyle": "->", "color": "C2", "connectionstyle": "arc3,rad=0"}, annotation_clip=False,
            )  # fmt: skip
            sign = "\N{MINUS SIGN}" if gone >= 0 else "+"  # noise may add people
            lost = f"{sign}{abs(gone):,.0f}" if np.isfinite(gone) else "withheld"
            axes.text(-0.08 * widest, -step + 0.5, lost, va="center", ha="right", color="C1", fontsize=9.5)
    axes.set_xlim(-0.3 * widest, 1.2 * widest)
    axes.set_ylim(-len(left) + 0.5, 0.75)
    axes.set_axis_off()
    told = ", ".join(f"{people:,.0f}" if np.isfinite(people) else "withheld" for people in left)
    return f"People left after each of {len(left) - 1} steps, from everybody on: {told}."
