"""Numbers and names as a page writes them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from strategies.analysis import Column
from strategies.question import Question

NONE = "–"

SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def count(value: Any) -> str:
    """A whole number with thin spaces between thousands; a dash where there is none."""
    if value is None or not math.isfinite(value):
        return NONE
    return f"{round(value):,}".replace(",", "\u202f").replace("-", "−")


def power(value: float) -> str:
    """A number in three digits, with a power of ten where it is small.

    >>> power(2.5e-83), power(0.0312), power(1e-5)
    ('2.5 × 10⁻⁸³', '0.0312', '10⁻⁵')
    """
    if not math.isfinite(value):
        return NONE
    if value == 0:
        return "below 10⁻³⁰⁰"
    if value >= 0.001:
        return f"{value:.3g}"
    mantissa, exponent = f"{value:.1e}".split("e")
    ten = "10" + str(int(exponent)).translate(SUPERSCRIPTS)
    return ten if mantissa == "1.0" else f"{mantissa} × {ten}"


def fixed(value: float, digits: int) -> str:
    """A number with so many digits after the point; a dash where there is none."""
    return f"{value:.{digits}f}".replace("-", "−") if math.isfinite(value) else NONE


def short(value: float, digits: int = 6) -> str:
    """A number in so many digits at most."""
    return f"{value:.{digits}g}".replace("-", "−") if math.isfinite(value) else NONE


def percent(part: float, digits: int) -> str:
    """A part as so many per cent."""
    return f"{fixed(100 * part, digits)} %" if math.isfinite(part) else NONE


def between(low: float, high: float, digits: int) -> str:
    """The two ends of an interval."""
    return f"{fixed(low, digits)} to {fixed(high, digits)}"


def floats(column: Column) -> NDArray[np.float64]:
    """A table's column as numbers, NaN where one is withheld."""
    return np.asarray(column, dtype=np.float64)


def number(facts: Mapping[str, Any], name: str) -> float:
    """A fact as a number; NaN where there is none."""
    return float(facts.get(name, math.nan))


def listed(names: Any) -> str:
    """Names with commas, and 'and' before the last."""
    names = [names] if isinstance(names, str) else [str(n) for n in names]
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}" if names else "none"


def spoken(question: Question) -> str:
    """The analysis that a question asks for."""
    return question.analysis.analysis.replace("_", " ")


def variant(table: Mapping[str, Column], i: int) -> str:
    """Place and alleles of the variant in a row."""
    return f"{place(table, i)} {table['ref'][i]}>{table['alt'][i]}"


def place(table: Mapping[str, Column], i: int) -> str:
    """Chromosome and position of the variant in a row."""
    return f"{table['chromosome'][i]}:{int(floats(table['position'])[i])}"


def smallest(p: NDArray[np.float64], rows: int) -> list[int]:
    """The rows with the smallest p values, those without any left out."""
    order = np.argsort(np.where(np.isfinite(p), p, 2.0), kind="stable")[:rows]
    return [i for i in order.tolist() if np.isfinite(p[i])]
