"""Strict decoding of plain data (TOML, JSON) into frozen dataclasses: keys known, types right, or an error."""

from __future__ import annotations

import json
import math
import tomllib
import types
from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import Any, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from strategies.errors import UsageError

T = TypeVar("T")


def canonical(document: Mapping[str, Any]) -> bytes:
    """The one JSON text of a document: sorted keys, no spaces, no NaN.

    Raises:
        ValueError: if a number is not finite.
    """
    return json.dumps(document, sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=True).encode()


def parse(text: bytes) -> dict[str, Any]:
    """A JSON object, strictly: no duplicate keys, no NaN, no number that float64 has not.

    Raises:
        ValueError: if the text is anything else.
    """

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        out = dict(pairs)
        if len(out) != len(pairs):
            raise ValueError("duplicate key")
        return out

    def refuse(_: str) -> float:
        raise ValueError("not a finite number")

    def real(digits: str) -> float:
        return number if math.isfinite(number := float(digits)) else refuse(digits)

    def whole(digits: str) -> int:
        real(digits)
        return int(digits)

    try:
        document = json.loads(
            text.decode("utf-8"), object_pairs_hook=unique, parse_constant=refuse, parse_float=real, parse_int=whole
        )
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if not isinstance(document, dict):
        raise ValueError("not an object")
    return document


def read_toml(path: Path, what: str, rule: str, remedy: str) -> dict[str, Any]:
    """The table of a TOML file that a person wrote.

    Args:
        path: the file.
        what: what it is, as the beginning of a sentence, such as "A study".
        rule, remedy: what is said if it cannot be read.

    Raises:
        UsageError: if it cannot be read, or is not TOML.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(rule, f"{path}: {error.strerror}", remedy) from None
    except ValueError as error:  # of TOML, of its encoding, or of a number of more than 4,300 digits
        raise UsageError(f"{what} is written in TOML.", f"{path.name}: {error}", "correct the line.") from None
    except RecursionError:
        raise UsageError(f"{what} is written in TOML.", f"{path.name}: nested too deeply", "correct it.") from None


def is_number(raw: Any) -> bool:
    """Whether it is a number, and one that float64 has: neither NaN nor infinite, nor a whole one beyond."""
    return isinstance(raw, int | float) and not isinstance(raw, bool) and abs(raw) < 2**1023


def is_text(raw: str) -> bool:
    """Whether it has characters alone: half of a surrogate pair, which JSON can spell, is none."""
    return raw.isascii() or not any("\ud800" <= c <= "\udfff" for c in raw)


def decode(cls: type[T], raw: Mapping[str, Any], where: str, *, leave_out: frozenset[str] = frozenset()) -> T:
    """Build a frozen dataclass from plain data.

    Args:
        cls: the dataclass; its annotations say what is allowed.
        raw: key -> value.
        where: what is being read, for the error.
        leave_out: fields that the data may not set.

    Raises:
        UsageError: for an unknown or missing key, a wrong type, or a value that the dataclass itself refuses.
    """
    allowed, needed = _keys(cls, leave_out)  # type: ignore[arg-type]
    if not raw.keys() <= allowed.keys():
        unknown = sorted(set(raw) - set(allowed))
        raise UsageError(
            f"{where} has these keys: {', '.join(allowed)}.",
            f"unknown {', '.join(map(repr, unknown))[:200]}",
            "correct or remove it.",
        )
    if not needed <= raw.keys():
        missing = [name for name in allowed if name in needed and name not in raw]
        raise UsageError(f"{where} needs {', '.join(missing)}.", "it is not there", "add it.")
    values = {name: allowed[name](raw[name], f"{where}, {name}") for name in raw}
    try:
        return cls(**values)
    except ValueError as error:
        raise UsageError(f"{where}: {error}", "another value", "correct it.") from None


Reading = Callable[[Any, str], Any]
"""From a plain value, and what is being read."""


@cache
def _keys(cls: type, leave_out: frozenset[str]) -> tuple[dict[str, Reading], frozenset[str]]:
    """How a dataclass' fields are read, and which of them must be there. Kept, as `_reading` is: to take annotations
    apart takes longer than to read a value, and a roster's messages are decoded by every site."""
    hints = get_type_hints(cls)
    known = [f for f in fields(cls) if f.init and f.name not in leave_out]
    needed = frozenset(f.name for f in known if f.default is MISSING and f.default_factory is MISSING)
    return {f.name: _reading(hints[f.name]) for f in known}, needed


@cache
def _reading(hint: Any) -> Reading:
    """How a value with this annotation is read."""
    origin, arguments = get_origin(hint), get_args(hint)

    def refused(raw: Any, where: str) -> UsageError:
        return UsageError(f"{where} must be {_words(hint)}.", repr(raw)[:80], "correct it.")

    def optional(raw: Any, where: str) -> Any:
        return None if raw is None else one(raw, where)

    def several(raw: Any, where: str) -> Any:
        if isinstance(raw, list | tuple):
            return tuple([one(item, where) for item in raw])
        raise refused(raw, where)

    def table(raw: Any, where: str) -> Any:
        if isinstance(raw, Mapping):
            return {text(k, where): one(v, f"{where}, {k!s:.40}") for k, v in raw.items()}
        raise refused(raw, where)

    def word(raw: Any, where: str) -> Any:
        if isinstance(raw, str) and raw in tuple(hint):
            return hint(raw)
        raise UsageError(f"{where} must be one of {', '.join(hint)}.", repr(raw)[:80], "use one of these.")

    def inner(raw: Any, where: str) -> Any:
        if isinstance(raw, Mapping):
            return decode(hint, raw, where)
        raise refused(raw, where)

    def plain(raw: Any, where: str) -> Any:
        if hint is bool and isinstance(raw, bool):
            return raw
        if hint is int and isinstance(raw, int) and not isinstance(raw, bool) and abs(raw) < 2**63:
            return raw
        if hint is float and is_number(raw):
            return float(raw)
        if hint is str and isinstance(raw, str) and is_text(raw):
            return raw
        raise refused(raw, where)

    if hint is Any:
        return lambda raw, where: raw
    if origin in (Union, types.UnionType):
        one = _reading(next(a for a in arguments if a is not type(None)))
        return optional
    if origin is tuple:
        one = _reading(arguments[0])
        return several
    if origin in (dict, Mapping):
        text, one = _reading(str), _reading(arguments[1])
        return table
    if isinstance(hint, type) and issubclass(hint, StrEnum):
        return word
    if hasattr(hint, "from_plain"):
        return cast(Reading, hint.from_plain)
    return inner if hasattr(hint, "__dataclass_fields__") else plain


def _words(hint: Any) -> str:
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is tuple:
        return f"a list of {_words(arguments[0])}s"
    if origin in (dict, Mapping):
        return "a table"
    names = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}
    return names.get(hint, "a table")
