"""How a tree of decisions grows from histograms: which bins may part people, and where a node is best parted.

A node of people with gradients g and second derivatives h of the loss has the value -G / (H + l2), G and H their sums,
and parting it gains G_l^2 / (H_l + l2) + G_r^2 / (H_r + l2) - G^2 / (H + l2) [1, equations 5 and 7]. Ties go to the
feature named first, then to the lowest bin, as in scikit-learn's histogram gradient boosting, whose splits these are.

[1] Chen, Guestrin: XGBoost: A Scalable Tree Boosting System, KDD 2016.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from strategies.protections.suppression import PROFILES, WITHHELD, check_profile, small

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]

LEAST_CURVATURE = 1e-3
"""The smallest sum of second derivatives on either side, as scikit-learn has it."""

TINY = 1e-15
"""Keeps a node without second derivatives from a division by zero."""


def coarsened(cells: Counts, minimum: int) -> Counts:
    """Cells with `WITHHELD` in each bin that is joined to a later one, which holds the sum of both.

    Bins of a node and feature are joined from the lowest on, until each holds nobody or at least the minimum of people;
    what is left at the end joins the last before it. A node of fewer people is withheld all over. A higher minimum
    withholds what a lower one does: each profile starts from what the one before withheld.

    Args:
        cells: (L, F, B, 1 + S) people and sums of them by node, feature and bin; or what this function made of them.
        minimum: one of the profiles.

    >>> one = np.array([3, 1, 0, 4, 2])[None, None, :, None]
    >>> coarsened(one, 3)[0, 0, :, 0] == WITHHELD
    array([False,  True,  True,  True, False])
    """
    check_profile(minimum)
    for level in PROFILES[1 : PROFILES.index(minimum) + 1]:
        cells = _coarsened(cells, level)
    return cells


def _coarsened(cells: Counts, minimum: int) -> Counts:
    shown = cells[..., 0] != WITHHELD
    sums = np.where(shown[..., None], cells, 0)
    for node, feature in np.argwhere(small(sums[..., 0], minimum).any(axis=2)).tolist():
        place = node, feature
        closed, joined = list[tuple[int, Counts]](), np.zeros_like(sums[place][0])
        for at in np.flatnonzero(shown[place]).tolist():
            joined = joined + sums[place][at]
            if not small(joined[:1], minimum).any():
                closed.append((at, joined))
                joined = np.zeros_like(joined)
        if joined[0]:
            while closed and small(joined[:1], minimum).any():
                joined = joined + closed.pop()[1]
            closed = [] if small(joined[:1], minimum).any() else [*closed, (cells.shape[2] - 1, joined)]
        shown[place], sums[place] = False, 0
        for at, row in closed:
            shown[(*place, at)], sums[(*place, at)] = True, row
    return np.where(shown[..., None], sums, WITHHELD)


@dataclass(frozen=True, eq=False)
class Parting:
    """The best parting of each of L nodes.

    Attributes:
        people: (L,) in each node.
        gain: (L,) of its best parting; 0 where none gains, or enough people are on neither side.
        feature, cut: (L,) by which feature, and the last bin of the first child; -1 where there is none.
        value: (L,) the node's own.
        children: (L, 2) values of the two.
        sizes: (L, 2) people in the two.
    """

    people: Counts
    gain: Floats
    feature: Counts
    cut: Counts
    value: Floats
    children: Floats
    sizes: Counts


def parted(cells: Counts, gradients: Floats, curvatures: Floats, least: int, l2: float) -> Parting:
    """The best parting of each node.

    Args:
        cells: (L, F, B) people by node, feature and bin; `WITHHELD` where a bin is joined to a later one.
        gradients, curvatures: (L, F, B) their sums; 0 where withheld.
        least: fewest people in a child.
        l2: added to every sum of curvatures.
    """
    there = cells != WITHHELD
    n, g, h = (np.cumsum(np.where(there, one, 0), axis=2) for one in (cells, gradients, curvatures))
    whole = [one[:, :1, -1:] for one in (n, g, h)]
    right = [total - one for total, one in zip(whole, (n, g, h), strict=True)]

    def value(gradient: Floats, curvature: Floats) -> Floats:
        return np.asarray(-gradient / (curvature + l2 + TINY))

    own = value(whole[1], whole[2])
    low, high = value(g, h), value(right[1], right[2])
    gain = whole[1] * own - g * low - right[1] * high
    able = there & (n >= least) & (right[0] >= least) & (h >= LEAST_CURVATURE) & (right[2] >= LEAST_CURVATURE)
    able[:, :, -1] = False
    gain = np.where(able, gain, 0.0)
    flat = gain.reshape(len(gain), -1)
    best = flat.argmax(axis=1)
    most, rows = flat[np.arange(len(flat)), best], np.arange(len(flat))
    feature, cut = np.divmod(best, cells.shape[2])
    at = rows, feature, cut
    some = most > 0
    return Parting(
        people=whole[0][:, 0, 0],
        gain=most,
        feature=np.where(some, feature, -1),
        cut=np.where(some, cut, -1),
        value=own[:, 0, 0],
        children=np.stack([low[at], high[at]], axis=1),
        sizes=np.stack([n[at], right[0][at]], axis=1).astype(np.int64),
    )
