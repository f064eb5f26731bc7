"""Match rates: what percentage of a panel each site found, and how, in whole per cent.

A site's own account of its match stays at the site. Where its policy gives exact answers for the site alone, this much
leaves: for each way in which a variant is found or missed, the percentage of the panel's variants, rounded to 1 %, of
a panel of at least 1,000 variants. Which variants these are does not follow; that of ten variants nearly none is
found does not even show.

Rounding is no defence against panels made for the purpose: one variant more or less moves a percentage that lies on the
edge. A study's questions are few, signed and kept in the audit of every node; `panel_matching` asks for sums.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from strategies.analyses.panel_matching import FOUND, WAYS
from strategies.analysis import NAMES_PANEL, WHOLE, Answer, Column, Frame, Needs, Total, of_at_least
from strategies.cohort import Cohort
from strategies.labels import SPACE
from strategies.privacy import Regime
from strategies.protections.suppression import WITHHELD, small
from strategies.summary import Field, Summary

LEAST_VARIANTS = 1000

PERCENT = 101
"""0 to 100."""


@dataclass(frozen=True)
class MatchRates:
    """The rounded percentage of a panel that each site found in each way.

    Attributes:
        panel: name of the study's panel, of at least 1,000 variants.
    """

    analysis: ClassVar[str] = "match_rates"
    regime: ClassVar[Regime] = Regime.EXACT
    by_site: ClassVar[bool] = True
    summary_in_words: ClassVar[str] = (
        "the percentage of the panel's variants, in whole per cent, that the site has as they are written, swapped, on "
        "the other strand, or not, and why; the number of people"
    )

    panel: str = field(metadata=of_at_least(NAMES_PANEL, LEAST_VARIANTS))

    def needs(self) -> Needs:
        return Needs(matched=self.panel)

    def rounds(self) -> int:
        return 1

    def fraction(self) -> float:
        return 0.0

    def slices(self, frame: Frame) -> tuple[slice, ...]:
        return WHOLE

    def leaves(self, frame: Frame) -> dict[str, Field]:
        shape = (len(WAYS), PERCENT)
        words = "sites by way and by the percentage found so"
        return {
            "sites": Field(shape, words, len(WAYS), len(WAYS) ** 0.5, over="sites"),
            "people": Field((), "people", 1, 1),
        }

    def summarise(self, cohort: Cohort, frame: Frame) -> Summary:
        assert cohort.matched is not None
        number = np.bincount(cohort.matched, minlength=len(WAYS))
        percent = np.rint(100 * number / max(len(cohort.matched), 1)).astype(np.int64)
        sites = (percent[:, None] == np.arange(PERCENT)).astype(np.int64) * (len(cohort) > 0)
        return {"sites": sites, "people": np.array(len(cohort), dtype=np.int64)}

    def withhold(self, sums: Summary, minimum_cell: int) -> Summary:
        if small(sums["people"], minimum_cell):
            return {name: np.full_like(array, WITHHELD) for name, array in sums.items()}
        return sums

    def conclude(self, total: Total, frame: Frame) -> Answer:
        """One site's percentages; of a sum over several, their mean over the sites."""
        assert frame.panel is not None
        sums = self.withhold(total.sums, total.minimum_cell)
        whole = sums["people"] != WITHHELD
        sites = np.where(whole, sums["sites"], 0)
        with np.errstate(invalid="ignore"):
            percent = sites @ np.arange(PERCENT) / sites.sum(axis=1)
        table: dict[str, Column] = {"way": WAYS, "percent": percent, "withheld": np.isnan(percent)}
        people = int(sums["people"]) if whole else math.nan
        return Answer({"rates": table}, {"people": people, "variants": len(frame.panel)}, int(np.isnan(percent).sum()))


def rates(by_site: Mapping[str, Answer]) -> dict[str, dict[str, float]]:
    """Site -> way -> per cent."""
    return {
        site: dict(zip(WAYS, np.asarray(one.tables["rates"]["percent"], dtype=np.float64).tolist(), strict=True))
        for site, one in by_site.items()
    }


def draw_rates(by_site: Mapping[str, Answer], axes: Any) -> str:
    """Draw each site's percentage that was found in any way; returns the figure in words."""
    found = {
        site: sum(percent for (_, percent), is_found in zip(ways.items(), FOUND, strict=True) if is_found)
        for site, ways in rates(by_site).items()
    }
    values = np.nan_to_num(list(found.values()))
    at = np.arange(len(found))
    axes.barh(at, values, height=0.6, color="C0")
    for row, value in zip(at, found.values(), strict=True):
        axes.text(float(np.nan_to_num(value)), row, f"{SPACE}{_told(value)}", va="center")
    axes.set_yticks(at, list(found))
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(len(at) - 0.4, -0.6)
    axes.set_xlim(0, 112)
    axes.set_xticks(range(0, 101, 20))
    axes.set_xlabel("% of the panel's variants found")
    told = ", ".join(f"{site} {_told(value)}" for site, value in found.items())
    return f"Percentage of the panel that each site found in any way, each way rounded to 1 %: {told}."


def _told(percent: float) -> str:
    return f"{percent:.0f} %" if math.isfinite(percent) else "withheld"
