"""How a whole-genome regression's answer is looked at: what each offset is expected to explain."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from strategies.analysis import Answer


def offset_variances(answer: Answer, trait: str) -> dict[str, float]:
    """Chromosome -> variance of the offset that leaves it out, in squared deviations of the trait, if variants were
    independent and in Hardy-Weinberg proportions: sum_j w_j^2 2 f_j (1 - f_j)."""
    table, name = answer.tables["weights"], f"{trait}_chr"
    frequency = np.nan_to_num(np.asarray(table["frequency"], dtype=np.float64))
    spread = 2 * frequency * (1 - frequency)
    weights: dict[str, NDArray[np.float64]] = {
        column.removeprefix(name): np.nan_to_num(np.asarray(values, dtype=np.float64))
        for column, values in table.items()
        if column.startswith(name)
    }
    return {chromosome: float(w**2 @ spread) for chromosome, w in weights.items()}


def draw_offsets(answer: Answer, trait: str, axes: Any) -> str:
    """Draw the expected variance of each chromosome's offset, beside the heritability; returns it in words."""
    variances, whole = offset_variances(answer, trait), float(answer.facts[f"heritability_{trait}"])
    at = np.arange(len(variances))
    axes.bar(at, list(variances.values()), width=0.7, color="C0")
    axes.set_xticks(at, list(variances))
    axes.set_xlim(-0.6, max(len(at) - 0.4, 1.6))
    top = max(whole if np.isfinite(whole) else 0.0, *variances.values(), 1e-9)
    axes.set_ylim(0, 1.15 * top)
    axes.set_xlabel("chromosome left out")
    axes.set_ylabel("expected variance")
    if not np.isfinite(whole):
        return f"Offsets of {trait}: there are none, since its heritability is not known."
    axes.axhline(whole, color="C1", linewidth=1.4, linestyle=(0, (5, 3)))
    axes.annotate(
        f"heritability {whole:.2f}", (0.99, whole), xycoords=axes.get_yaxis_transform(), xytext=(0, 4),
        textcoords="offset points", ha="right", va="bottom",
    )  # fmt: skip
    low, high = min(variances.values()), max(variances.values())
    return (
        f"Expected variance of the offsets of {trait}, by the chromosome that each leaves out: {low:.3f} to {high:.3f} "
        f"of the trait's variance; the dashed line is its heritability, {whole:.2f}."
    )
