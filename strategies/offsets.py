"""The offset of an association: what an earlier whole-genome regression predicts from all other chromosomes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from strategies.analysis import Answer, Frame
from strategies.errors import UsageError
from strategies.variants import Panel

ADJUSTMENTS = ("shrinkage", "calibration")
"""What an offset's answer states of each trait."""

MOST_LEFT_OUT = 100
"""Chromosomes."""


@dataclass(frozen=True)
class Offset:
    """Predictions of P traits, in deviations of each, one for each of C chromosomes that is left out.

    Attributes:
        name: of the earlier question; None for no offset.
        traits: (P).
        left_out: (C); empty before it is known, and where there is no offset.
    """

    name: str | None
    traits: tuple[str, ...]
    left_out: tuple[str, ...] = ()

    @property
    def columns(self) -> tuple[str, ...]:
        """(C P) names of the columns, chromosome by chromosome."""
        return tuple(f"{self.name}.{trait}_chr{c}" for c in self.left_out for trait in self.traits)

    @property
    def number(self) -> int:
        """Of different responses of a trait: C, and 1 without an offset."""
        return max(1, len(self.left_out))

    def of(self, panel: Panel) -> tuple[str, ...]:
        """The chromosomes that are left out for a panel's variants; none without an offset."""
        return tuple(dict.fromkeys(v.chromosome for v in panel.variants)) if self.name else ()

    def blocks(self, panel: Panel) -> NDArray[np.int64]:
        """(M,) the number of each variant's chromosome among those left out; 0 without an offset.

        Raises:
            ValueError: if one is not among them.
        """
        if not self.left_out:
            return np.zeros(len(panel), dtype=np.int64)
        places = {name: c for c, name in enumerate(self.left_out)}
        out = np.array([places.get(v.chromosome, -1) for v in panel.variants], dtype=np.int64)
        if (out < 0).any():
            raise ValueError("A round leaves out each chromosome of its panel.")
        return out

    def farthest(self, frame: Frame) -> float:
        """The largest absolute value of a prediction; 0 without an offset.

        Raises:
            ValueError: if there is no such column.
        """
        if not set(self.columns) <= set(frame.columns):
            raise ValueError("A round leaves out chromosomes that its offset has predictions for.")
        ends = [frame.columns[name] for name in self.columns]
        return max((max(abs(e.minimum), abs(e.maximum)) for e in ends), default=0.0)

    def check(self, frame: Frame) -> None:
        """Assert that there is a prediction of each trait without each of the panel's chromosomes.

        Raises:
            UsageError: if there is not.
        """
        assert frame.panel is not None
        wanted = [f"{trait}_chr{name}" for trait in self.traits for name in self.of(frame.panel)]
        without = [name for name in wanted if f"{self.name}.{name}" not in frame.columns]
        if without:
            raise UsageError(
                "An offset has a prediction of each trait without each chromosome of the panel.",
                f"{self.name!r} does not offer {', '.join(without[:5])}",
                "name the traits, and the chromosomes even of other variants, in the whole-genome regression.",
            )

    def check_left_out(self) -> None:
        """Assert that different chromosomes are left out, if there is an offset.

        Raises:
            ValueError: if they are not.
        """
        names = self.left_out
        if bool(names) != bool(self.name) or len(set(names)) != len(names) or len(names) > MOST_LEFT_OUT:
            raise ValueError("A round with an offset leaves different chromosomes out.")

    def stated(self, answer: Answer) -> NDArray[np.float64]:
        """(2, P) shrinkage and calibration from the earlier answer.

        Raises:
            UsageError: if it has no predictions of a trait.
        """
        found = [[answer.facts.get(f"{what}_{t}", math.nan) for t in self.traits] for what in ADJUSTMENTS]
        numbers = np.array(found, dtype=np.float64)
        if not (np.isfinite(numbers) & (numbers > 0)).all():
            raise UsageError(
                "An offset comes from a regression that found variants to predict its traits from.",
                f"{self.name!r} has predictions of none, or not of all",
                "ask it of more people or variants, or leave the offset out.",
            )
        return numbers

    def facts(self, adjustments: NDArray[np.float64]) -> Mapping[str, float | str]:
        """What an association's answer says of its offset; nothing without one."""
        if self.name is None:
            return {}
        out: dict[str, float | str] = {"offset": self.name}
        for what, values in zip(ADJUSTMENTS, adjustments, strict=False):
            out |= {f"{what}_{trait}": float(v) for trait, v in zip(self.traits, values, strict=True)}
        return out
