"""Units of measurement, as UCUM writes them, and how a value in one becomes a value in another, or why it does not.

Plain units are converted by pint, over UCUM's own grammar. Between mass and amount of substance stands the analyte's
molar mass, and HbA1c has a master equation of its own; both are a closed table.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from ucumvert import PintUcumRegistry

MOLAR_MASS: Mapping[str, float] = {
    "cholesterol": 386.654,
    "creatinine": 113.12,
    "glucose": 180.156,
    "haemoglobin": 16114.0,
    "triglycerides": 885.4,
}
"""Grams in a mole, by analyte: PubChem's, and by convention those of haemoglobin's monomer and of triolein."""

HBA1C = "hba1c"
_NGSP_SLOPE, _NGSP_START = 0.09148, 2.152
"""NGSP per cent = 0.09148 IFCC mmol/mol + 2.152 (Hoelzel et al., Clin. Chem. 50:166, 2004)."""

ANALYTES: Mapping[str, str] = {
    "LOINC:2093-3": "cholesterol", "OMOP:3027114": "cholesterol", "LOINC:14647-2": "cholesterol",
    "LOINC:2085-9": "cholesterol", "OMOP:3007070": "cholesterol", "LOINC:14646-4": "cholesterol",
    "LOINC:13457-7": "cholesterol", "OMOP:3028437": "cholesterol", "LOINC:18262-6": "cholesterol",
    "LOINC:2345-7": "glucose", "OMOP:3004501": "glucose", "LOINC:14749-6": "glucose", "LOINC:2339-0": "glucose",
    "LOINC:2160-0": "creatinine", "OMOP:3016723": "creatinine", "LOINC:14682-9": "creatinine",
    "LOINC:2571-8": "triglycerides", "OMOP:3022192": "triglycerides", "LOINC:14927-8": "triglycerides",
    "LOINC:718-7": "haemoglobin", "OMOP:3000963": "haemoglobin", "LOINC:59260-0": "haemoglobin",
    "LOINC:4548-4": HBA1C, "OMOP:3004410": HBA1C, "LOINC:59261-8": HBA1C,
}  # fmt: skip
"""What is measured, by LOINC code or OMOP concept; HDL and LDL are cholesterol by mass."""

LONGEST = 40
"""Characters of a unit."""

_ANNOTATION = re.compile(r"\{[^}]*\}")
_FAR = re.compile(r"\d{4}")
"""Of an exponent, which would be computed; no unit of a laboratory has it."""


@dataclass(frozen=True)
class Conversion:
    """A value in the new unit is `factor` times the value in the old one, plus `offset`."""

    factor: float = 1.0
    offset: float = 0.0

    def __call__(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Values in the new unit; NaN stays NaN, and what float64 has not is infinite."""
        with np.errstate(over="ignore"):
            return values if self == SAME else values * self.factor + self.offset

    def then(self, other: Conversion) -> Conversion:
        """This one, and the other after it."""
        return Conversion(self.factor * other.factor, self.offset * other.factor + other.offset)


SAME = Conversion()


def analyte_of(name: str) -> str:
    """The closed table's name of what is measured: itself, a LOINC code or an OMOP concept; or nothing.

    >>> analyte_of("glucose"), analyte_of("LOINC:4548-4"), analyte_of("LOINC:1-8")
    ('glucose', 'hba1c', '')
    """
    return name if name in MOLAR_MASS or name == HBA1C else ANALYTES.get(name, "")


@lru_cache(maxsize=4096)
def conversion(source: str, target: str, analyte: str = "") -> Conversion | None:
    """How values in one unit become values in another, or None where they do not.

    A unit on one side only is no conversion, nor are different annotations ({score} and {count}), nor arbitrary units
    of a substance ([iU] and U), nor mass and amount of substance without a known analyte.

    Args:
        source, target: codes of UCUM, or nothing for a number without a unit.
        analyte: what is measured, as `analyte_of` knows it.

    >>> conversion("mg/dL", "g/L").factor
    0.01
    >>> round(conversion("mg/dL", "mmol/L", "LOINC:2093-3").factor * 200, 3)
    5.173
    >>> conversion("%", "mmol/mol", "hba1c")(np.array([6.5])).round(1).tolist()
    [47.5]
    >>> conversion("mg/dL", "mmol/L") is None, conversion("%", "mmol/mol") is None, conversion("", "mg/dL") is None
    (True, True, True)
    """
    if source == target:
        return SAME
    if not (source and target) or _ANNOTATION.findall(source) != _ANNOTATION.findall(target):
        return None
    if max(len(source), len(target)) > LONGEST:
        return None
    if any(_FAR.search(_ANNOTATION.sub("", unit)) for unit in (source, target)):
        return None
    kind = analyte_of(analyte)
    if kind == HBA1C and (between := _hba1c(source, target)) is not None:
        return between
    # Amount of substance per amount of substance has no dimension, and is yet no percentage of mass.
    if ("mol" in source) == ("mol" in target):
        return _plain(source, target)
    if kind not in MOLAR_MASS:
        return None
    grams = MOLAR_MASS[kind]
    if "mol" in target:
        first, second = _plain(source, "g/L"), _plain("mol/L", target)
        return None if first is None or second is None else first.then(Conversion(1 / grams)).then(second)
    first, second = _plain(source, "mol/L"), _plain("g/L", target)
    return None if first is None or second is None else first.then(Conversion(grams)).then(second)


def _hba1c(source: str, target: str) -> Conversion | None:
    if (source, target) == ("mmol/mol", "%"):
        return Conversion(_NGSP_SLOPE, _NGSP_START)
    if (source, target) == ("%", "mmol/mol"):
        return Conversion(1 / _NGSP_SLOPE, -_NGSP_START / _NGSP_SLOPE)
    return None


def _plain(source: str, target: str) -> Conversion | None:
    """Between two units of one dimension, neither through a substance."""
    import lark  # noqa: PLC0415
    import pint  # noqa: PLC0415

    try:
        old, new = (_registry().from_ucum(_ANNOTATION.sub("", unit) or "1") for unit in (source, target))
        with np.errstate(all="ignore"):  # of a logarithm's unit at 0
            turned = [
                _registry().Quantity(v * old.magnitude, old.units).to(new.units).magnitude for v in (0.0, 1.0, 2.0)
            ]
        start, one, two = (float(value / new.magnitude) for value in turned)
    except (lark.exceptions.LarkError, pint.PintError, ValueError, ZeroDivisionError, OverflowError, RecursionError):
        return None
    known = Conversion(one - start, start)
    straight = math.isclose(two - one, one - start, rel_tol=1e-9)  # a logarithm's unit is not
    return known if straight and known.factor and math.isfinite(known.factor) and math.isfinite(start) else None


@cache
def _registry() -> PintUcumRegistry:
    """UCUM's units; it takes a second to load, and nobody loads it whose units are alike."""
    from ucumvert import PintUcumRegistry  # noqa: PLC0415

    return PintUcumRegistry()
