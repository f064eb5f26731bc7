"""Panel matching: at how many sites each variant of a panel was found, and how.

A site finds a variant as it is written, with its alleles swapped, on the other strand, or both; or not: it is absent,
several of the site's entries may be it, or it has no position in the site's build. Each site adds 1 to one of these
ways under secure summing, so that no site's list of variants is seen. A site at which nobody is asked adds nothing.

What a list holds may follow from what its people carry, so a number of one or two sites is withheld, with all others
from which it follows: of a variant that one or two sites found, or did not find, everything; of one that one or two
sites found in some way, or missed for some reason, all the ways, but not how many sites found it. A site knows its own
way, so what is shown of three sites tells each of them about the two others together.

Whoever may ask many rosters learns more than one answer tells; nodes refuse rosters that isolate a site.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from strategies.analyses.allele_frequency import variant_columns
from strategies.analysis import NAMES_PANEL, Answer, Column, Frame, Needs, Total, by_variants
from strategies.cohort import Cohort
from strategies.privacy import Regime
from strategies.protections.suppression import LEAST_HOLDERS, WITHHELD, replaced, small
from strategies.summary import Field, Summary
from strategies.variants import How

WAYS = tuple(how.name.lower() for how in How)
"""Names of the ways, in the order of `How`."""

FOUND = np.array([how.found for how in How])


@dataclass(frozen=True)
class PanelMatching:
    """How many sites found each variant, and in which way.

    Attributes:
        panel: name of the study's panel.
    """

    analysis: ClassVar[str] = "panel_matching"
    regime: ClassVar[Regime] = Regime.EXACT
    by_site: ClassVar[bool] = False
    summary_in_words: ClassVar[str] = (
        "for each variant, whether the site has it, and as it is written, swapped, on the other strand, or why not; "
        "the number of people"
    )

    panel: str = field(metadata=NAMES_PANEL)

    def needs(self) -> Needs:
        return Needs(matched=self.panel)

    def rounds(self) -> int:
        return 1

    def fraction(self) -> float:
        return 0.0

    def slices(self, frame: Frame) -> tuple[slice, ...]:
        return by_variants(frame)

    def leaves(self, frame: Frame) -> dict[str, Field]:
        assert frame.panel is not None
        m = len(frame.panel)
        return {
            "ways": Field((m, len(WAYS)), "sites by way", m, m**0.5, per_variant=True, over="sites"),
            "found": Field(
                (m, 2), "sites that did not find it, and that did", m, m**0.5, per_variant=True, over="sites"
            ),
            "people": Field((), "people", 1, 1),
        }

    def summarise(self, cohort: Cohort, frame: Frame) -> Summary:
        assert cohort.matched is not None
        ways = (cohort.matched[:, None] == np.arange(len(WAYS))).astype(np.int64) * (len(cohort) > 0)
        found = np.stack([ways[:, ~FOUND].sum(axis=1), ways[:, FOUND].sum(axis=1)], axis=1)
        return {"ways": ways, "found": found, "people": np.array(len(cohort), dtype=np.int64)}

    def withhold(self, sums: Summary, minimum_cell: int) -> Summary:
        if small(sums["people"], minimum_cell):
            return {name: np.full_like(array, WITHHELD) for name, array in sums.items()}
        few, some = (np.any(small(sums[name], LEAST_HOLDERS), axis=1) for name in ("found", "ways"))
        return replaced(replaced(sums, ("found",), few, WITHHELD), ("ways",), some, WITHHELD)

    def conclude(self, total: Total, frame: Frame) -> Answer:
        assert frame.panel is not None
        sums = self.withhold(total.sums, total.minimum_cell)
        withheld = (sums["found"] == WITHHELD).any(axis=1)
        whole = sums["people"] != WITHHELD
        shown = {name: _told(column) for name, column in zip(("not_found", "found"), sums["found"].T, strict=True)}
        shown |= {name: _told(column) for name, column in zip(WAYS, sums["ways"].T, strict=True)}
        table: dict[str, Column] = {
            **variant_columns(frame.panel),
            **shown,
            "ways_withheld": (sums["ways"] == WITHHELD).any(axis=1),
            "withheld": withheld,
            "held_by_few": withheld & whole,
        }
        facts: dict[str, float | int | str] = {
            "people": int(sums["people"]) if whole else math.nan,
            "variants": len(frame.panel),
            "found_everywhere": int((shown["not_found"] == 0).sum()),
            "found_nowhere": int((shown["found"] == 0).sum()),
        }
        return Answer({"matches": table}, facts, int(withheld.sum()))


def _told(sites: NDArray[np.int64]) -> NDArray[np.float64]:
    return np.where(sites == WITHHELD, np.nan, sites)


def draw_found(answer: Answer, axes: Any) -> str:
    """Draw how many variants were found at how many sites; returns the figure in words."""
    found = np.asarray(answer.tables["matches"]["found"], dtype=np.float64)
    sites, variants = np.unique(found[np.isfinite(found)].astype(np.int64), return_counts=True)
    hidden = int(np.isnan(found).sum())
    labels = [str(n) for n in sites.tolist()] + ["withheld"]
    counts = [*variants.tolist(), hidden]
    axes.bar(range(len(labels) - 1), counts[:-1], width=0.7, color="C0")
    axes.bar([len(labels) - 1], [hidden], width=0.7, color="none", edgecolor="C2", hatch="//")
    for at, number in enumerate(counts):
        axes.text(at, number, f"{number:,}", ha="center", va="bottom")
    axes.set_xticks(range(len(labels)), labels)
    axes.set_ylim(0, 1.12 * max(*counts, 1))
    axes.set_xlabel("sites that found the variant")
    axes.set_ylabel("variants")
    told = ", ".join(f"{number:,} at {label}" for label, number in zip(labels[:-1], counts[:-1], strict=True))
    return f"Variants by the number of sites that found them: {told or 'none shown'}; {hidden:,} are withheld."
