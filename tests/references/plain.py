"""Whole files as arrays, for tests that compare over every variant."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fl_client.readers.index import Key
from fl_client.readers.plink import Bed
from strategies.cohort import Genotypes


def whole_bed(path: Path) -> tuple[list[Key], list[str], NDArray[np.int8]]:
    """All variants of a PLINK 1 file in order of place, its people, and (M, N) copies of each alternate allele."""
    bed = Bed.open(path)
    packed = np.zeros((len(bed.index), -(-len(bed.people) // 4)), dtype=np.uint8)
    bed.fill(bed.index.rows, np.zeros(len(bed.index), dtype=bool), None, packed)
    return list(bed.index), list(bed.people), Genotypes(packed, len(bed.people)).codes()
