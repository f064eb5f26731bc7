"""Strict decoding of plain data (TOML, JSON) into frozen dataclasses: keys known, types right, or an error."""

from __future__ import annotations

import json
import math
import tomllib
import types
from collections.abc import Mapping
from dataclasses import MISSING, fields
from enum import StrEnum
from pathlib import Path
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

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
    hints = _hints(cls)
    known = {f.name: f for f in fields(cls) if f.init and f.name not in leave_out}  # type: ignore[arg-type]
    unknown = sorted(set(raw) - set(known))
    if unknown:
        raise UsageError(
            f"{where} has these keys: {', '.join(known)}.",
            f"unknown {', '.join(map(repr, unknown))[:200]}",
            "correct or remove it.",
        )
    missing = [n for n, f in known.items() if n not in raw and f.default is MISSING and f.default_factory is MISSING]
    if missing:
        raise UsageError(f"{where} needs {', '.join(missing)}.", "it is not there", "add it.")
    values = {name: _value(hints[name], raw[name], f"{where}, {name}") for name in raw}
    try:
        return cls(**values)
    except ValueError as error:
        raise UsageError(f"{where}: {error}", "another value", "correct it.") from None


_HINTS: dict[type, dict[str, Any]] = {}
"""Kept, since every annotation is compiled anew each time, and a roster's messages are decoded by every site."""


def _hints(cls: type) -> dict[str, Any]:
    if cls not in _HINTS:
        _HINTS[cls] = get_type_hints(cls)
    return _HINTS[cls]


def _value(hint: Any, raw: Any, where: str) -> Any:
    if hint is str and isinstance(raw, str) and (raw.isascii() or not any("\ud800" <= c <= "\udfff" for c in raw)):
        return raw  # half of a surrogate pair, which JSON can spell, is no character
    if hint is bool and isinstance(raw, bool):
        return raw
    if hint is int and isinstance(raw, int) and not isinstance(raw, bool) and abs(raw) < 2**63:
        return raw
    if hint is float and isinstance(raw, int | float) and not isinstance(raw, bool) and abs(raw) < 2**1023:
        return float(raw)  # neither NaN nor infinite, nor a whole number beyond float64
    if hint is Any:
        return raw
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return None if raw is None else _value(next(a for a in arguments if a is not type(None)), raw, where)
    if origin is tuple and isinstance(raw, list | tuple):
        return tuple(_value(arguments[0], item, where) for item in raw)
    if origin in (dict, Mapping) and isinstance(raw, Mapping):
        return {_value(str, k, where): _value(arguments[1], v, f"{where}, {k!s:.40}") for k, v in raw.items()}
    if isinstance(hint, type) and issubclass(hint, StrEnum):
        if isinstance(raw, str) and raw in tuple(hint):
            return hint(raw)
        raise UsageError(f"{where} must be one of {', '.join(hint)}.", repr(raw)[:80], "use one of these.")
    if hasattr(hint, "from_plain"):
        return hint.from_plain(raw, where)
    if hasattr(hint, "__dataclass_fields__") and isinstance(raw, Mapping):
        return decode(hint, raw, where)
    raise UsageError(f"{where} must be {_words(hint)}.", repr(raw)[:80], "correct it.")


def _words(hint: Any) -> str:
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is tuple:
        return f"a list of {_words(arguments[0])}s"
    if origin in (dict, Mapping):
        return "a table"
    names = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}
    return names.get(hint, "a table")
