"""Coefficients as a table: standard errors, tests, intervals, ratios; and as a forest plot."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import special

from strategies.analysis import Answer, Column

Floats = NDArray[np.float64]

RATIOS = {"binomial": "odds ratio", "poisson": "rate ratio", "negative_binomial": "rate ratio"}
"""What the exponential of a coefficient is, by family."""

MOST_DRAWN = 40
"""Rows of a forest plot."""


@dataclass(frozen=True, eq=False)
class Coefficients:
    """Estimates in the terms' own units.

    Attributes:
        names: of the p coefficients.
        values: (p,).
        covariance: (p, p).
        degrees: of freedom of t, or None where the statistic is normal.
    """

    names: tuple[str, ...]
    values: Floats
    covariance: Floats
    degrees: float | None = None

    def table(self, ratio: bool) -> dict[str, Column]:
        """The rows of an answer.

        Args:
            ratio: whether exponentials are given, with their intervals.
        """
        error = np.sqrt(np.maximum(np.diagonal(self.covariance), 0.0))
        with np.errstate(divide="ignore", invalid="ignore"):
            statistic = self.values / error
        if self.degrees is None:
            p, quantile = 2 * special.ndtr(-np.abs(statistic)), float(special.ndtri(0.975))
        else:
            p = 2 * special.stdtr(self.degrees, -np.abs(statistic))
            quantile = float(special.stdtrit(self.degrees, 0.975))
        low, high = self.values - quantile * error, self.values + quantile * error
        out: dict[str, Column] = {
            "term": self.names,
            "coefficient": self.values,
            "standard_error": error,
            "statistic": statistic,
            "p_value": p,
            "low": low,
            "high": high,
        }
        if ratio:
            with np.errstate(over="ignore"):
                out |= {"ratio": np.exp(self.values), "ratio_low": np.exp(low), "ratio_high": np.exp(high)}
        return out


def missing(names: tuple[str, ...], ratio: bool) -> dict[str, Column]:
    """The rows of an answer without estimates."""
    nothing = np.full(len(names), np.nan)
    return Coefficients(names, nothing, np.full((len(names), len(names)), np.nan)).table(ratio)


def draw_forest(answer: Answer, axes: Any) -> str:
    """Draw each coefficient but the intercept with its 95 % interval, ratios on an axis of logarithms; returns the
    figure in words."""
    table = answer.tables["coefficients"]
    ratio = "ratio" in table
    columns = ("ratio", "ratio_low", "ratio_high") if ratio else ("coefficient", "low", "high")
    middle, low, high = (np.asarray(table[name], dtype=np.float64) for name in columns)
    names = [str(term) for term in table["term"]]
    drawn = [i for i, name in enumerate(names) if not name.startswith("(")][:MOST_DRAWN]
    word = RATIOS.get(str(answer.facts.get("distribution", "")), "coefficient")
    shown = [i for i in drawn if np.isfinite([middle[i], low[i], high[i]]).all() and (not ratio or low[i] > 0)]
    if ratio and shown:
        axes.set_xscale("log")
        axes.xaxis.get_major_locator().set_params(subs=(1, 2, 5))
        axes.xaxis.set_major_formatter("{x:g}")
        axes.minorticks_off()
    for at, i in enumerate(drawn):
        if i not in shown:
            axes.text(0.5, at, "none", transform=axes.get_yaxis_transform(), ha="center", va="center")
            continue
        axes.hlines(at, low[i], high[i], color="C0", linewidth=1.6)
        axes.plot([middle[i]], [at], "s", color="C0", markersize=6)
    axes.axvline(1.0 if ratio else 0.0, color="C2", linewidth=1, linestyle=(0, (3, 2)))
    axes.set_yticks(range(len(drawn)), [names[i] for i in drawn])
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(len(drawn) - 0.5, -0.5)
    axes.set_xlabel(f"{word}, 95 % interval")
    said = "; ".join(f"{names[i]} {middle[i]:.3g} ({low[i]:.3g} to {high[i]:.3g})" for i in shown[:6])
    response = answer.facts.get("response", "the response")
    return f"Forest plot of the {word}s of {response}: {said or 'there are none, or they are withheld'}."


def likelihood_facts(value: float, parameters: int, people: int) -> dict[str, float | int | str]:
    """Log likelihood, AIC and BIC."""
    return {
        "log_likelihood": value,
        "aic": 2 * parameters - 2 * value,
        "bic": parameters * math.log(people) - 2 * value,
    }
