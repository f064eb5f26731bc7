"""Kinds of clinical events, as a study names them."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Domain(StrEnum):
    """Domains of events, as OMOP CDM 5.4 has them."""

    CONDITION = "condition"
    DRUG = "drug"
    PROCEDURE = "procedure"
    MEASUREMENT = "measurement"
    OBSERVATION = "observation"
    VISIT = "visit"
    DEVICE = "device"


@dataclass(frozen=True)
class Code:
    """A code of a vocabulary, such as SNOMED 44054006 (type 2 diabetes) or LOINC 4548-4 (HbA1c).

    Attributes:
        vocabulary: OMOP's name of it, such as SNOMED, LOINC, ICD10CM, ATC, RxNorm, HPO; or OMOP for a concept's number.
        code: as the vocabulary writes it.
        descendants: whether all that lies below it is meant as well; needs the vocabulary's hierarchy at the node.
    """

    vocabulary: str
    code: str
    descendants: bool = False

    def __str__(self) -> str:
        """
        >>> str(Code("SNOMED", "44054006", True))
        'SNOMED:44054006+'
        """
        return f"{self.vocabulary}:{self.code}{'+' * self.descendants}"
