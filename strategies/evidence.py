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


def draw_manhattan(table: Table, axes: Any) -> str:
    """Draw each variant's -log10 p along the genome; returns the figure in words."""
    evidence, shown = _evidence(table)
    chromosomes = np.array(table["chromosome"])
    positions = np.asarray(table["position"], dtype=np.float64) / 1e6
    order = list(dict.fromkeys(table["chromosome"]))
    offset, ticks = 0.0, []
    place = positions.copy()
    for number, name in enumerate(order):
        here = chromosomes == name
        if len(order) > 1:  # chromosomes stand side by side, in the panel's order
            place[here] += offset - positions[here].min()
            offset = float(place[here].max()) + 5.0
            ticks.append((float(place[here].mean()), str(name)))
        here &= shown
        axes.scatter(place[here], evidence[here], s=7, color=f"C{2 * (number % 2)}", linewidths=0, rasterized=True)
    level = -np.log10(GENOME_WIDE)
    axes.axhline(level, color="C1", linewidth=1, linestyle=(0, (5, 3)))
    axes.set_ylim(0, 1.1 * max(float(evidence[shown].max(initial=0)), level + 1))
    axes.margins(x=0.01)
    axes.set_ylabel("−log₁₀ p")
    if len(order) > 1:
        axes.set_xticks([at for at, _ in ticks], [name for _, name in ticks])
        axes.set_xlabel("chromosome")
    else:
        axes.set_xlabel(f"position on chromosome {order[0]} (million base pairs)")
    if not shown.any():
        return "Manhattan plot without a point: every variant is withheld."
    top = int(np.argmax(np.where(shown, evidence, -1)))
    name = f"{chromosomes[top]}:{int(np.asarray(table['position'])[top])}"
    left = place[top] > (place.min() + place.max()) / 2
    shift, side = (-7, "right") if left else (7, "left")
    axes.annotate(name, (place[top], evidence[top]), xytext=(shift, -2), textcoords="offset points", ha=side)
    passing = int((shown & (evidence > level)).sum())
    return (
        f"Manhattan plot of {int(shown.sum()):,} variants: {passing:,} lie beyond the level of 5 × 10⁻⁸ (dashed line), "
        f"the highest is {name} at −log₁₀ p = {evidence[top]:.1f}."
    )


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
    inflation = genomic_inflation(np.asarray(table["p_value"], dtype=np.float64))
    axes.text(0.05, 0.93, f"λ = {inflation:.3f}", transform=axes.transAxes, va="top")
    axes.set_xlabel("expected −log₁₀ p")
    axes.set_ylabel("observed −log₁₀ p")
    return f"Observed against expected p values of {n:,} variants; genomic inflation λ = {inflation:.3f}."
