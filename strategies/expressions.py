"""What a study's conditions and values name is what the study declares, before it is sent to anybody."""

from __future__ import annotations

from collections.abc import Mapping

from strategies.analysis import Analysis, Range, names_of
from strategies.errors import UsageError
from strategies.selection import (
    Anchor,
    Category,
    Condition,
    Missing,
    Number,
    Selection,
    Value,
    number_text,
    reads,
    within,
)

MOST_COHORTS = 50
MOST_CODES = 2000
"""Of a study: a node looks each of them up in its vocabulary."""


def check_selection(selection: Selection, columns: Mapping[str, Range], where: str) -> None:
    """Assert that a cohort names the study's columns and their categories, and its index where it has one.

    Raises:
        UsageError: if it does not.
    """
    if selection.index is not None:
        check_expression(selection.index, columns, f"{where}, index")
    for number, step in enumerate(selection.steps, start=1):
        check_expression(step, columns, f"{where}, step {number}", selection.index is not None)


def check_expression(
    expression: Condition | Value | Anchor, columns: Mapping[str, Range], where: str, index: bool = False
) -> None:
    """Assert that an expression names the study's columns and their categories, and an index only if there is one.

    Raises:
        UsageError: if it does not.
    """
    if reads(expression).index and not index:
        raise UsageError(
            f"{where}: `index` is a cohort's own day, and stands in the `where` of a cohort that has one.",
            f"{str(expression)!r:.80}",
            'give the cohort an index, such as index = "first condition SNOMED:44054006+".',
        )
    for part in within(expression):
        if isinstance(part, Number | Category | Missing):
            _check_column(part, columns, where)


def _check_column(part: Number | Category | Missing, columns: Mapping[str, Range], where: str) -> None:
    column = columns.get(part.column)
    if column is None or column.value is not None:
        raise UsageError(
            f"{where}: a condition is about columns of the people table that stand in the study's [columns].",
            f"{part.column!r}",
            "declare it there, or say what it is derived from.",
        )
    if isinstance(part, Category):
        unknown = [c for c in part.categories if c not in column.categories]
        if unknown:
            raise UsageError(
                f"{where}: {part.column} has the categories {column!s:.200}."
                if column.categories
                else f"{where}: {part.column} is a column of numbers.",
                f"{', '.join(map(repr, unknown))[:80]}",
                "name one of its categories, or compare it with a number.",
            )
    if isinstance(part, Number):
        if column.categories:
            raise UsageError(
                f"{where}: {part.column} has categories, which are named, in single quotes where they are no words.",
                f"{part!s}",
                f"name one of {column!s:.120}.",
            )
        if not column.minimum <= part.number <= column.maximum:
            raise UsageError(
                f"{where}: a column is compared with a number in its public range {column}, to which it is clamped.",
                f"{part.column} {part.operator.value} {number_text(part.number)}",
                "compare it with another number, or widen the range.",
            )


def check_codes(cohorts: Mapping[str, Selection], columns: Mapping[str, Range], where: str) -> None:
    """Assert that a study's cohorts and derived columns name no more codes than nodes look up.

    Raises:
        UsageError: if they do.
    """
    values = (column.value for column in columns.values() if column.value is not None)
    named = reads(*values).codes.union(*(cohort.reads.codes for cohort in cohorts.values()))
    if len(named) > MOST_CODES:
        raise UsageError(
            f"{where}: a study's cohorts and derived columns name at most {MOST_CODES:,} different codes.",
            f"{len(named):,}",
            "name the code above several with +, or ask in several studies.",
        )


def check_question(analysis: Analysis, selection: Selection | None, columns: Mapping[str, Range], where: str) -> None:
    """Assert that the derived columns that a question reads have the days that they count from.

    Raises:
        UsageError: if one names an index, and the question's cohort has none.
    """
    index = selection is not None and selection.index is not None
    for name in names_of(analysis, "column"):
        if name in columns and (value := columns[name].value) is not None and reads(value).index and not index:
            raise UsageError(
                f"{where}: a column that is derived from `index` is read in a cohort that has one.",
                f"{name} = {str(value)!r:.80}",
                "name a cohort with an index, or derive the column from another day.",
            )
