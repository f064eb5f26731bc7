"""The drawings of a quality-control report, as inline SVG: text stays text, points are pixels, colours follow the page.

A drawing shows every person or pair as a point and nobody by name. It stays at the node with the report.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
from cycler import cycler
from matplotlib.colors import LinearSegmentedColormap, LogNorm
from matplotlib.figure import Figure as Canvas
from numpy.typing import NDArray

from fl_client.qc.kinship import KINSHIP_BINS, OPPOSITE_BINS, Relatives
from fl_client.qc.measures import Measures
from fl_client.qc.thresholds import Thresholds
from fl_client.qc.verdict import Reason, Verdict
from strategies.ploidy import FEMALE, MALE

INK, RULE = "#101112", "#d0d1d2"
"""Stand-ins in a drawing for the page's own colours of text and of hairlines."""

IN, OUT, THIRD = "#2a7ab9", "#d2691e", "#848b93"
"""Blue, orange and grey: told apart by people of any colour vision, and on white as on black."""

WIDTH, HEIGHT = 400, 300
"""Of a drawing, in CSS pixels."""

STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "font.family": "DejaVu Sans",
    "font.size": 10.0,
    "legend.frameon": False,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": RULE,
    "axes.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "xtick.color": RULE,
    "ytick.color": RULE,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "figure.facecolor": "none",
    "axes.prop_cycle": cycler(color=[IN, OUT, THIRD]),
    "lines.markersize": 5.0,
}


@dataclass(frozen=True)
class Figure:
    """A drawing in the page.

    Attributes:
        caption: what it shows.
        svg: it, as an SVG element that says in words what it shows.
    """

    caption: str
    svg: str


def figures(measures: Measures, relatives: Relatives | None, verdict: Verdict, thresholds: Thresholds) -> list[Figure]:
    """One for each measure that there is."""
    people = (measures.call_rates, thresholds.person_call_rate, "people")
    variants = (measures.variant_call_rates, thresholds.variant_call_rate, "variants")
    out = [
        _figure("people-called", "Call rate of people", lambda axes: _called(axes, *people)),
        _figure("variants-called", "Call rate of variants", lambda axes: _called(axes, *variants)),
    ]
    if Reason.HETEROZYGOSITY not in verdict.unjudged:
        out.append(
            _figure(
                "heterozygosity",
                "Heterozygosity against call rate, each point a person",
                lambda axes: _heterozygosity(axes, measures, verdict, thresholds),
            )
        )
    if Reason.SEX not in verdict.unjudged:
        out.append(
            _figure("sex", "Inbreeding coefficient on X, by the sex of the people table",
                    lambda axes: _sex(axes, measures, thresholds))
        )  # fmt: skip
    if relatives is not None:
        out.append(
            _figure("relatives", "Kinship against the share of opposite homozygotes, all pairs of people",
                    lambda axes: _relatives(axes, relatives, thresholds))
        )  # fmt: skip
    return out


def _called(axes: Any, rates: NDArray[np.float64], least: float, what: str) -> str:
    rates = rates[~np.isnan(rates)]
    axes.hist(rates, bins=np.linspace(min(rates.min(initial=1.0), least - 0.01), 1.0, 41), log=True)
    axes.axvline(least, color=OUT, linestyle="--")
    axes.set(xlabel="call rate", ylabel=what, ylim=(0.7, None))
    below = int((rates < least).sum())
    median = np.median(rates) if len(rates) else np.nan
    return f"Histogram of the call rate of {len(rates):,} {what}; median {median:.4f}, {below:,} below {least:g}."


def _heterozygosity(axes: Any, measures: Measures, verdict: Verdict, thresholds: Thresholds) -> str:
    outside = verdict.reasons[Reason.HETEROZYGOSITY]
    for chosen, colour, label in ((~outside, IN, "within"), (outside, OUT, "outside")):
        axes.plot(
            measures.call_rates[chosen],
            measures.autosomes.rate[chosen],
            ".",
            color=colour,
            label=label,
            rasterized=True,
        )
    for side in (-1, 1):
        axes.axhline(verdict.mean + side * thresholds.heterozygosity_sd * verdict.sd, color=OUT, linestyle="--")
    axes.axvline(thresholds.person_call_rate, color=OUT, linestyle="--")
    axes.set(xlabel="call rate", ylabel="share of heterozygous calls")
    return (
        f"Heterozygosity of {len(outside):,} people: mean {verdict.mean:.4f}, standard deviation {verdict.sd:.4f}; "
        f"{int(outside.sum()):,} lie more than {thresholds.heterozygosity_sd:g} standard deviations away."
    )


def _sex(axes: Any, measures: Measures, thresholds: Thresholds) -> str:
    f = measures.x.coefficient
    groups = [
        ("women", f[measures.sex == FEMALE]),
        ("men", f[measures.sex == MALE]),
        ("not told", f[measures.sex == 0]),
    ]
    shown = [(label, values[~np.isnan(values)]) for label, values in groups if len(values)]
    lowest = min([values.min(initial=0.0) for _, values in shown], default=0.0)
    axes.hist(
        [values for _, values in shown], bins=np.linspace(lowest, 1, 41), log=True, stacked=True,
        label=[label for label, _ in shown],
    )  # fmt: skip
    for line in (thresholds.female_f, thresholds.male_f):
        axes.axvline(line, color=INK, linestyle="--")
    axes.set(xlabel="F on X", ylabel="people", ylim=(0.7, None))
    axes.legend()
    told = "; ".join(f"{label} {np.median(values):.2f}" for label, values in shown if len(values))
    return f"Histogram of the inbreeding coefficient on X. Medians: {told}."


def _relatives(axes: Any, relatives: Relatives, thresholds: Thresholds) -> str:
    density = np.where(relatives.density > 0, relatives.density, np.nan)
    norm = LogNorm(1, max(2, int(relatives.density.max())))
    shades = LinearSegmentedColormap.from_list("pairs", [IN + "38", IN])  # from clear: it lies on white and on black
    axes.pcolormesh(OPPOSITE_BINS, KINSHIP_BINS, density.T, cmap=shades, norm=norm, rasterized=True)
    share = np.minimum(relatives.opposite / relatives.observed, OPPOSITE_BINS[-1])
    axes.plot(share, relatives.kinship, ".", color=OUT, rasterized=True, clip_on=False)
    axes.axhline(thresholds.kinship, color=OUT, linestyle="--")
    rows, columns = np.nonzero(relatives.density)
    if len(rows):
        axes.set_xlim(OPPOSITE_BINS[rows.min()], OPPOSITE_BINS[rows.max() + 1])
        axes.set_ylim(KINSHIP_BINS[columns.min()], max(KINSHIP_BINS[columns.max() + 1], thresholds.kinship + 0.02))
    axes.set(xlabel="share of opposite homozygotes", ylabel="kinship")
    return (
        f"Kinship of {int(relatives.degrees.sum()):,} pairs against their share of opposite homozygotes; "
        f"{len(relatives):,} pairs lie above {thresholds.kinship:g}."
    )


def _figure(name: str, caption: str, draw: Callable[[Any], str]) -> Figure:
    """Equal names and data give equal bytes."""
    with mpl.rc_context({**STYLE, "svg.hashsalt": name}):
        canvas = Canvas(figsize=(WIDTH / 72, HEIGHT / 72))
        canvas.subplots_adjust(left=0.14, bottom=0.15, right=0.98, top=0.97)
        words = draw(canvas.add_subplot())
        out = io.StringIO()
        canvas.savefig(out, format="svg", dpi=144, metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    return Figure(caption, _inline(out.getvalue(), name, words))


def _inline(document: str, name: str, words: str) -> str:
    """An SVG file as an element of a page: no prologue, no names of namespaces, identifiers unique in the page."""
    body = document[document.index("<svg") :]
    body = body[body.index(">") + 1 :]
    body = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->", "", body, flags=re.DOTALL)
    body = body.replace("xlink:href", "href")
    body = re.sub(r'\bid="([^"]+)"', rf'id="{name}-\1"', body)
    body = re.sub(r'href="#([^"]+)"', rf'href="#{name}-\1"', body)
    body = re.sub(r"url\(#([^)]+)\)", rf"url(#{name}-\1)", body)
    body = body.replace(INK, "var(--ink)").replace(RULE, "var(--hair)")
    return f'<svg role="img" aria-label="{words}" viewBox="0 0 {WIDTH} {HEIGHT}">{body}'.strip()
