"""Genotypes of a few variants as columns: who carries what stays at the nodes, and later questions group people by it.

The answer is each variant's exact genotype counts. Every node then has a column of its own people for each variant that
is named: copies of the alternate allele, or whether there is one. Where the genotype is missing there is no value, so
whoever lacks it takes no part in a question that needs the column. A variant whose counts are withheld, or that fewer
than three sites hold, has a column without values.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import ClassVar

import numpy as np

from strategies.analyses.genotype_counts import GenotypeCounts
from strategies.analysis import NAMES_PANEL, Answer, Frame, Needs, Range, Total, by_variants
from strategies.cohort import Cohort
from strategies.errors import UsageError
from strategies.ploidy import copies
from strategies.privacy import Regime
from strategies.projection import MOST_GENOTYPES, GenotypeColumns
from strategies.summary import Field, Summary


class Coding(StrEnum):
    """What a column says: copies of the alternate allele, or whether there is one."""

    COPIES = "copies"
    CARRIER = "carrier"


@dataclass(frozen=True)
class Carriers:
    """Columns of the genotypes of a panel's first variants.

    Attributes:
        panel: name of the study's panel.
        names: names of the columns, for as many of its variants.
        coding: what they say.
    """

    analysis: ClassVar[str] = "carriers"
    regime: ClassVar[Regime] = Regime.EXACT
    by_site: ClassVar[bool] = False
    summary_in_words: ClassVar[str] = (
        "for each variant, the number of people with each genotype and of sites that hold it; the number of people"
    )

    panel: str = field(metadata=NAMES_PANEL)
    names: tuple[str, ...]
    coding: Coding = Coding.CARRIER

    def __post_init__(self) -> None:
        if not 1 <= len(self.names) <= MOST_GENOTYPES or len(set(self.names)) < len(self.names):
            raise ValueError(f"names are 1 to {MOST_GENOTYPES} different ones.")
        if not all(name.isascii() and name.replace("_", "a").isalnum() and len(name) <= 40 for name in self.names):
            raise ValueError("a column's name is 1 to 40 letters, digits and '_'.")

    @property
    def offers(self) -> Mapping[str, Range]:
        span = Range(0.0, 2.0) if self.coding is Coding.COPIES else Range.of("non-carrier", "carrier")
        return dict.fromkeys(self.names, span)

    @property
    def _counts(self) -> GenotypeCounts:
        return GenotypeCounts(self.panel)

    def needs(self) -> Needs:
        return Needs(panel=self.panel)

    def rounds(self) -> int:
        return 1

    def fraction(self) -> float:
        return 0.0

    def slices(self, frame: Frame) -> tuple[slice, ...]:
        return by_variants(frame)

    def leaves(self, frame: Frame) -> dict[str, Field]:
        assert frame.panel is not None
        if frame.start == 0 and len(frame.panel) < len(self.names):
            raise UsageError(
                "There is a variant for each name.",
                f"{len(self.names)} names and {len(frame.panel)} variants in panel {self.panel!r:.60}",
                "name no more columns than the panel has variants.",
            )
        if (odd := copies(frame.panel)).any():
            raise UsageError(
                "Columns of genotypes are of variants of which everybody carries two copies.",
                f"{np.count_nonzero(odd)} of panel {self.panel!r:.40} on X beyond pseudo-autosomal regions, Y or MT",
                "leave them out of the panel.",
            )
        return self._counts.leaves(frame)

    def summarise(self, cohort: Cohort, frame: Frame) -> Summary:
        return self._counts.summarise(cohort, frame)

    def withhold(self, sums: Summary, minimum_cell: int) -> Summary:
        return self._counts.withhold(sums, minimum_cell)

    def conclude(self, total: Total, frame: Frame) -> Answer:
        assert frame.panel is not None
        answer = self._counts.conclude(total, frame)
        names = self.names + ("",) * (len(frame.panel) - len(self.names))
        table = {"column": names, **answer.tables["frequencies"]}
        return Answer({"variants": table}, answer.facts, answer.withheld)

    def projection(self, answer: Answer, frame: Frame) -> GenotypeColumns:
        """What each of 0, 1 and 2 copies is in the columns."""
        assert frame.panel is not None
        shown = ~np.asarray(answer.tables["variants"]["withheld"])
        levels = np.array([0.0, 1.0, 2.0 if self.coding is Coding.COPIES else 1.0])
        return GenotypeColumns(self.names, np.where(shown[:, None], levels, -1.0))
