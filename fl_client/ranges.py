"""How a study asks for a column, held against what a node's policy allows."""

from __future__ import annotations

from fl_client.readers.variables import Variable
from strategies.analysis import NEARLY, Range
from strategies.reasons import Reason
from strategies.units import SAME, conversion


def objection(asked: Range, allowed: Range, variable: Variable | None, exact: bool) -> Reason | None:
    """Why a column may not be read so, from public facts alone; None if it may.

    Args:
        asked: what the study states.
        allowed: what the policy does.
        variable: what the node declares of it, if it does; without that no unit is converted, and cells are places in
            the policy's list of categories.
        exact: whether the question is. The same people's exact total under two ranges differs by those alone whom the
            narrower one clamps, and under two lists of categories by those alone whose category only one has.
    """
    if bool(asked.categories) != bool(allowed.categories):
        return Reason.CATEGORIES_DIFFER
    if asked.categories:
        listed, known = set(asked.categories), set(allowed.categories)
        if variable is None and asked.categories != allowed.categories:
            return Reason.CATEGORIES_DIFFER  # its cells are places in the policy's list, and in no other
        return Reason.CATEGORIES_DIFFER if not listed <= known or (exact and listed != known) else None
    turned = SAME if asked.ucum == allowed.ucum else None
    if turned is None and variable is not None:
        turned = conversion(allowed.ucum, asked.ucum, variable.measured)
    if turned is None:
        return Reason.UNIT_NOT_CONVERTIBLE
    low, high = sorted(
        (allowed.minimum * turned.factor + turned.offset, allowed.maximum * turned.factor + turned.offset)
    )
    # A limit that was converted is the same to as many digits as anybody would write.
    room = 0.0 if turned == SAME else NEARLY * max(abs(low), abs(high))
    if asked.minimum < low - room or asked.maximum > high + room:
        return Reason.RANGE_OUTSIDE_POLICY
    if exact and (asked.minimum > low + room or asked.maximum < high - room):
        return Reason.RANGE_OUTSIDE_POLICY
    return None


def fits(allowed: Range, variable: Variable) -> bool:
    """Whether a policy's range or categories are such as a declared variable has."""
    own = variable.shape
    if allowed.categories or own.categories:
        return bool(own.categories) and set(allowed.categories) <= set(own.categories) and bool(allowed.categories)
    return variable.conversion(allowed.ucum) is not None
