"""Where people lie in trees, and histograms of them: loops over people, one column of bins after another."""

from __future__ import annotations

from typing import Any

from strategies.kernels.compiled import compiled


@compiled
def binned(values: Any, edges: Any, out: Any) -> None:
    """Into `out` the (n,) bin of each value between (B + 1,) edges that are about equally far apart; a value on an edge
    begins a bin, and one beyond an end lies in the bin there."""
    last = len(edges) - 2
    per = (last + 1) / (edges[last + 1] - edges[0])
    for i in range(len(values)):
        at = min(max(int((values[i] - edges[0]) * per), 0), last)
        while at > 0 and values[i] < edges[at]:
            at -= 1
        while at < last and values[i] >= edges[at + 1]:
            at += 1
        out[i] = at


@compiled
def placed(bins: Any, features: Any, cuts: Any, out: Any) -> None:
    """Into `out` the (n,) node of one tree at which each person ends, from the root 0; the children of node k are
    2 k + 1, of bins up to its cut, and 2 k + 2.

    Args:
        bins: (n, F): what one person's way needs lies together.
        features: (K,) by which feature each node parts people; negative where it does not.
        cuts: (K,) the last bin of its first child.
    """
    for i in range(len(bins)):
        at = 0
        while at < len(features) and features[at] >= 0:
            at = 2 * at + 1 + (bins[i, features[at]] > cuts[at])
        out[i] = at


@compiled
def added(bins: Any, features: Any, cuts: Any, values: Any, out: Any) -> None:
    """Add to the (n,) `out` each of T trees' values at the nodes where people end, tree after tree."""
    for i in range(len(bins)):
        for t in range(len(features)):
            at = 0
            while at < features.shape[1] and features[t, at] >= 0:
                at = 2 * at + 1 + (bins[i, features[t, at]] > cuts[t, at])
            out[i] += values[t, at]


@compiled
def histograms(bins: Any, place: Any, numbers: Any, out: Any) -> None:
    """Of (F, n) bins, add people, and sums of their (n, S) integers, to (L, F, B, 1 + S) cells; people of a negative
    place count in none."""
    sums = numbers.shape[1]
    for f in range(bins.shape[0]):
        for i in range(bins.shape[1]):
            at = place[i]
            if at >= 0:
                cell = out[at, f, bins[f, i]]
                cell[0] += 1
                for s in range(sums):
                    cell[1 + s] += numbers[i, s]
