"""Which columns are missing, and which of them together; exact.

Everybody is counted in every column: with a value, or without. A column is told where both numbers are none or enough,
and two columns together where all four numbers of people with and without each are.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from strategies.analysis import NAMES_ANY_COLUMN, WHOLE, Answer, Column, Frame, Needs, Total
from strategies.cohort import Cohort
from strategies.privacy import Regime
from strategies.protections.suppression import WITHHELD, small
from strategies.summary import Field, Summary
from strategies.variables import MOST_VARIABLES, draw_matrix


@dataclass(frozen=True)
class Missingness:
    """How many people lack each of some columns, and each two of them.

    Attributes:
        variables: names of 2 to 50 columns.
    """

    analysis: ClassVar[str] = "missingness"
    regime: ClassVar[Regime] = Regime.EXACT
    by_site: ClassVar[bool] = True
    summary_in_words: ClassVar[str] = "numbers of people without each column, and without each two of them"

    variables: tuple[str, ...] = field(metadata=NAMES_ANY_COLUMN)

    def __post_init__(self) -> None:
        if not 2 <= len(self.variables) <= MOST_VARIABLES or len(set(self.variables)) < len(self.variables):
            raise ValueError(f"variables are 2 to {MOST_VARIABLES} different columns.")

    def needs(self) -> Needs:
        return Needs(optional=self.variables)

    def rounds(self) -> int:
        return 1

    def fraction(self) -> float:
        return 0.0

    def slices(self, frame: Frame) -> tuple[slice, ...]:
        return WHOLE

    def leaves(self, frame: Frame) -> dict[str, Field]:
        v = len(self.variables)
        pairs = v * (v - 1) // 2
        return {
            "people": Field((), "people", 1, 1),
            "missing": Field((v,), "people without each column", v, v**0.5),
            "both": Field((pairs,), "people without each two columns", pairs, pairs**0.5),
        }

    def summarise(self, cohort: Cohort, frame: Frame) -> Summary:
        missing = np.stack([np.isnan(cohort.columns[name]) for name in self.variables], axis=1)
        i, j = np.triu_indices(len(self.variables), 1)
        return {
            "people": np.array(len(cohort), dtype=np.int64),
            "missing": missing.sum(axis=0, dtype=np.int64),
            "both": (missing[:, i] & missing[:, j]).sum(axis=0, dtype=np.int64),
        }

    def withhold(self, sums: Summary, minimum_cell: int) -> Summary:
        people, missing, both = sums["people"], sums["missing"], sums["both"]
        if people == WITHHELD or small(people, minimum_cell):
            return {name: np.full_like(array, WITHHELD) for name, array in sums.items()}
        gone = (missing == WITHHELD) | small(missing, minimum_cell) | small(people - missing, minimum_cell)
        i, j = np.triu_indices(len(self.variables), 1)
        cells = (both, missing[i] - both, missing[j] - both, people - missing[i] - missing[j] + both)
        few: NDArray[np.bool_] = np.any([small(cell, minimum_cell) for cell in cells], axis=0)
        few |= gone[i] | gone[j] | (both == WITHHELD)
        return {
            "people": people,
            "missing": np.where(gone, WITHHELD, missing),
            "both": np.where(few, WITHHELD, both),
        }

    def conclude(self, total: Total, frame: Frame) -> Answer:
        sums = self.withhold(total.sums, total.minimum_cell)
        told = {name: np.where(array == WITHHELD, np.nan, array.astype(np.float64)) for name, array in sums.items()}
        i, j = np.triu_indices(len(self.variables), 1)
        people, missing = float(told["people"]), told["missing"]
        columns: dict[str, Column] = {
            "variable": self.variables,
            "people": people - missing,
            "missing": missing,
            "share_missing": missing / people if people > 0 else np.full(len(missing), np.nan),
            "withheld": np.isnan(missing),
        }
        together: dict[str, Column] = {
            "variable": tuple(self.variables[k] for k in i),
            "other": tuple(self.variables[k] for k in j),
            "missing": told["both"],
            "withheld": np.isnan(told["both"]),
        }
        return Answer({"columns": columns, "together": together}, {"people": people}, int(np.isnan(missing).sum()))


def missing_shares(answer: Answer) -> NDArray[np.float64]:
    """(V, V) shares of people who lack both of two columns, and on the diagonal each; NaN where withheld."""
    missing = np.asarray(answer.tables["columns"]["missing"], dtype=np.float64)
    out = np.diag(missing)
    i, j = np.triu_indices(len(missing), 1)
    out[i, j] = out[j, i] = np.asarray(answer.tables["together"]["missing"], dtype=np.float64)
    people = float(answer.facts["people"])
    return np.asarray(out / people if people > 0 else np.full_like(out, np.nan))


def draw_missing(answer: Answer, axes: Any) -> str:
    """Draw a map of who lacks what together; returns the figure in words."""
    shares, names = missing_shares(answer), [str(name) for name in answer.tables["columns"]["variable"]]
    draw_matrix(shares, names, names, axes)
    axes.set_xlabel("% of people")
    own = np.diagonal(shares)
    if not np.isfinite(own).any():
        return f"Map of missing values of {len(names)} columns: all numbers are withheld."
    most = int(np.nanargmax(own))
    return (
        f"Map of the share of people, in per cent, who lack each two of {len(names)} columns; on the diagonal each "
        f"column, of which {names[most]} is missing most often, {100 * own[most]:.0f} %."
    )


def draw_missing_by_site(answers: dict[str, Answer], axes: Any) -> str:
    """Draw the share without each column at each site; returns the figure in words."""
    names = [str(name) for name in next(iter(answers.values())).tables["columns"]["variable"]]
    shares = np.stack(
        [np.asarray(one.tables["columns"]["share_missing"], dtype=np.float64) for one in answers.values()], axis=1
    )
    draw_matrix(shares, names, list(answers), axes)
    axes.set_xlabel("% of people")
    return (
        f"Map of the share of people, in per cent, without each of {len(names)} columns at {len(answers)} sites; "
        f"{int(np.isnan(shares).sum())} numbers are withheld, where a cross stands."
    )
