"""How an association's answer is looked at: genomic inflation, and evidence along the genome and against chance."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import special

from strategies.analysis import Column

Table = Mapping[str, Column]
"""One trait's table of an association."""

GENOME_WIDE = 5e-8
"""The usual level of genome-wide significance."""


FEW_POINTS = 500
"""Up to so many points are drawn larger."""


def genomic_inflation(p: NDArray[np.float64]) -> float:
    """Lambda [2]: the median chi-square of the p values over its expectation; NaN where there is none.

    >>> round(genomic_inflation(np.linspace(0.001, 0.999, 999)), 3)
    1.0

    [2] Devlin, Roeder: Genomic control for association studies, Biometrics 55 (1999).
    """
    p = p[np.isfinite(p)]
    return float(special.chdtri(1, np.median(p)) / special.chdtri(1, 0.5)) if len(p) else float("nan")


def _evidence(table: Table) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """(M,) -log10 p and whether it is shown at all."""
    p = np.asarray(table["p_value"], dtype=np.float64)
    return -np.log10(np.maximum(p, np.finfo(np.float64).tiny)), np.isfinite(p)


def draw_along(table: Table, values: NDArray[np.float64], axes: Any) -> NDArray[np.float64]:
    """Draw a value of each variant along the genome, chromosomes side by side in the panel's order, in turn dark and
    light; returns (M,) places. NaN is not drawn."""
    chromosomes = np.array(table["chromosome"])
    positions = np.asarray(table["position"], dtype=np.float64) / 1e6
    order = list(dict.fromkeys(table["chromosome"]))
    offset, ticks, size = 0.0, [], 22 if len(positions) <= FEW_POINTS else 7
    place = positions.copy()
    gap = 0.02 * sum(float(np.ptp(positions[chromosomes == name])) for name in order)
    for number, name in enumerate(order):
        here = chromosomes == name
        if len(order) > 1:
            place[here] += offset - positions[here].min()
            offset = float(place[here].max()) + gap
            ticks.append((float(place[here].mean()), str(name)))
        here &= np.isfinite(values)
        axes.scatter(place[here], values[here], s=size, color=f"C{2 * (number % 2)}", linewidths=0, rasterized=True)
    if len(place):  # of all variants, drawn or not, so that a chromosome's name stands in its middle
        edge = max(0.01 * float(np.ptp(place)), 1e-6)
        axes.set_xlim(float(place.min()) - edge, float(place.max()) + edge)
    if len(order) > 1:
        axes.set_xticks([at for at, _ in ticks], [name for _, name in ticks])
        axes.set_xlabel("chromosome")
    else:
        axes.set_xlabel(f"position on chromosome {order[0]} (million base pairs)")
    return place


def name_highest(table: Table, values: NDArray[np.float64], place: NDArray[np.float64], axes: Any) -> str:
    """Write its name beside the highest point of `draw_along`; returns the name, or nothing if there is no point."""
    if not np.isfinite(values).any():
        return ""
    top = int(np.nanargmax(values))
    name = f"{table['chromosome'][top]}:{int(np.asarray(table['position'])[top])}"
    left = place[top] > (place.min() + place.max()) / 2
    shift, side = (-7, "right") if left else (7, "left")
    axes.annotate(name, (place[top], values[top]), xytext=(shift, -2), textcoords="offset points", ha=side)
    return name


def draw_manhattan(table: Table, axes: Any) -> str:
    """Draw each variant's -log10 p along the genome, with a ring around those that a second test was made of; returns
    the figure in words."""
    evidence, shown = _evidence(table)
    evidence = np.where(shown, evidence, np.nan)
    place = draw_along(table, evidence, axes)
    level, highest = -np.log10(GENOME_WIDE), float(np.nanmax(evidence, initial=0))
    axes.axhline(level, color="C1", linewidth=1, linestyle=(0, (5, 3)))
    axes.set_ylim(0, 1.1 * max(highest, level + 1))
    axes.set_ylabel("−log₁₀ p")
    again = shown & ~np.isin(table["test"], ("", "score")) if "test" in table else np.zeros_like(shown)
    if again.any():
        ring = 70 if len(place) <= FEW_POINTS else 34
        axes.scatter(
            place[again], evidence[again], s=ring, facecolors="none", edgecolors="C1", linewidths=0.8, rasterized=True,
            label="tested a second time",
        )  # fmt: skip
        axes.legend(loc="lower left", bbox_to_anchor=(-0.02, 1.0))
    name = name_highest(table, evidence, place, axes)
    if not name:
        return "Manhattan plot without a point: every variant is withheld."
    passing = int((shown & (evidence > level)).sum())
    twice = f" {int(again.sum()):,} of them were tested a second time (rings)." if again.any() else ""
    return (
        f"Manhattan plot of {int(shown.sum()):,} variants: {passing:,} lie beyond the level of 5 × 10⁻⁸ (dashed line), "
        f"the highest is {name} at −log₁₀ p = {highest:.1f}.{twice}"
    )


def leads(table: Table, most: int, apart: float = 1e6) -> list[int]:
    """The rows of the smallest p values, none within so many base pairs of a smaller one.

    >>> table = {"p_value": np.array([0.1, 1e-9, 1e-8]), "chromosome": ("1",) * 3, "position": np.array([1, 2, 30])}
    >>> leads(table, 2, apart=10.0)
    [1, 2]
    """
    p, position = (np.asarray(table[name], dtype=np.float64) for name in ("p_value", "position"))
    taken = ~np.isfinite(p)
    chromosomes, out = np.array(table["chromosome"]), list[int]()
    while len(out) < most and not taken.all():
        row = int(np.argmin(np.where(taken, 2.0, p)))
        out.append(row)
        taken |= (chromosomes == chromosomes[row]) & (np.abs(position - position[row]) <= apart)
    return out


def draw_quantiles(table: Table, axes: Any) -> str:
    """Draw observed against expected -log10 p with the band that 95 % of null p values keep; returns it in words."""
    evidence, shown = _evidence(table)
    observed = np.sort(evidence[shown])[::-1]
    n = len(observed)
    rank = np.arange(1, n + 1)
    expected = -np.log10((rank - 0.5) / max(n, 1))
    at = np.unique(np.geomspace(1, n, 200).astype(np.int64)) if n else np.arange(0)
    band = [-np.log10(special.betaincinv(at, n + 1 - at, q)) for q in (0.025, 0.975)]
    axes.fill_between(expected[at - 1], band[1], band[0], color="C2", alpha=0.3, linewidth=0)
    axes.plot([0, expected.max(initial=1)], [0, expected.max(initial=1)], color="C2", linewidth=1)
    axes.scatter(expected, observed, s=7, color="C0", linewidths=0, rasterized=True)
    axes.set_xlabel("expected −log₁₀ p")
    axes.set_ylabel("observed −log₁₀ p")
    if not n:
        return "Observed against expected p values, without a point: every variant is withheld."
    inflation = genomic_inflation(np.asarray(table["p_value"], dtype=np.float64))
    axes.text(0.05, 0.93, f"λ = {inflation:.3f}", transform=axes.transAxes, va="top")
    return f"Observed against expected p values of {n:,} variants; genomic inflation λ = {inflation:.3f}."
