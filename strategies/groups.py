"""Groups of people: the codes of a public column."""

from __future__ import annotations

import math

from strategies.analysis import Range
from strategies.errors import UsageError

MOST_GROUPS = 20


def group_codes(column: str, span: Range) -> range:
    """The codes of a column of groups, from the lowest to the highest.

    Raises:
        UsageError: if the column's range is none of codes, or of too many.
    """
    codes = range(math.ceil(span.minimum), math.floor(span.maximum) + 1) if span.maximum < 2**31 else range(0)
    if (codes.start, codes.stop - 1) != (span.minimum, span.maximum) or len(codes) > MOST_GROUPS:
        raise UsageError(
            f"Groups are the whole numbers of a column's public range, at most {MOST_GROUPS} of them.",
            f"the range of {column!r} is [{span.minimum:g}, {span.maximum:g}]",
            f"declare the lowest and highest code, for example {column} = [1, 4], in the study's [columns].",
        )
    return codes
