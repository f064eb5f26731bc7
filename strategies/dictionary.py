"""What a node says in public about its variables: names, shapes, meanings and mappings; never values or counts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from strategies.analysis import Range
from strategies.codec import decode
from strategies.errors import UsageError


@dataclass(frozen=True)
class Described:
    """One variable of a public dictionary.

    Attributes:
        shape: its public range and unit, or its categories.
        meaning: what it is, in words.
        minimal: the field of the 1+MG minimal metadata that it fills, or nothing.
        concept: the OMOP concept that it is, or 0.
    """

    shape: Range
    meaning: str = ""
    minimal: str = ""
    concept: int = 0

    def __post_init__(self) -> None:
        if not all(len(text) <= 200 and (text.isprintable() or not text) for text in (self.meaning, self.minimal)):
            raise ValueError("meaning and minimal are at most 200 printable characters.")
        if self.concept < 0:
            raise ValueError("concept is the number of an OMOP concept.")

    @staticmethod
    def from_plain(raw: Any, where: str) -> Described:
        """What a file says: a column's range or categories as in a policy, and beside them what it means.

        Raises:
            UsageError: for anything else.
        """
        words = {key: raw[key] for key in ("meaning", "minimal", "concept") if isinstance(raw, Mapping) and key in raw}
        rest = {key: value for key, value in raw.items() if key not in words} if words else raw
        said = decode(_Words, words, where)
        try:
            return Described(Range.from_plain(rest, where), said.meaning, said.minimal, said.concept)
        except ValueError as error:
            raise UsageError(f"{where}: {error}", "another value", "correct it.") from None

    def plain(self) -> list[float] | dict[str, Any]:
        """What a file would say."""
        said = {"meaning": self.meaning, "minimal": self.minimal, "concept": self.concept}
        words = {key: value for key, value in said.items() if value}
        shape = self.shape.plain()
        if not words:
            return shape
        return (shape if isinstance(shape, dict) else {"range": shape}) | words


@dataclass(frozen=True)
class _Words:
    meaning: str = ""
    minimal: str = ""
    concept: int = 0
