"""Loops over dosages: two bytes a person."""

from __future__ import annotations

from typing import Any

import numpy as np

from strategies.cohort import COPY, NO_DOSAGE
from strategies.kernels.compiled import compiled


@compiled
def powers(dosages: Any, inside: Any, out: Any) -> None:
    """(M, 2) sums of the dosages, and of their squares, of those `inside` (N,) who have one."""
    for j in range(len(dosages)):
        for i in range(len(inside)):
            d = np.int64(dosages[j, i])
            if inside[i] and d != NO_DOSAGE:
                out[j, 0] += d
                out[j, 1] += d * d


@compiled
def product(dosages: Any, rows: Any, columns: Any, out: Any) -> None:
    """Add to (R, C) the alleles of some rows times columns (N, C), each person's product rounded; 0 where missing."""
    for r in range(len(rows)):
        for i in range(len(columns)):
            d = dosages[rows[r], i]
            if d != NO_DOSAGE and d:
                alleles = np.float64(d) / COPY
                for c in range(columns.shape[1]):
                    out[r, c] += np.int64(np.rint(alleles * np.float64(columns[i, c])))


@compiled
def squares(dosages: Any, rows: Any, column: Any, out: Any) -> None:
    """Add to (R,) the squared alleles of some rows times a column (N,), each person's product rounded; 0 where
    missing."""
    for r in range(len(rows)):
        for i in range(len(column)):
            d = dosages[rows[r], i]
            if d != NO_DOSAGE and d:
                alleles = np.float64(d) / COPY
                out[r] += np.int64(np.rint(alleles * alleles * np.float64(column[i])))


@compiled
def stand_for(dosages: Any, rows: Any, people: Any, missing: Any, shift: Any, out: Any) -> None:
    """(R, K) the dosages of K of the people at some rows, or (R,) `missing`, less (R,) `shift`."""
    for r in range(len(rows)):
        for i in range(len(people)):
            d = dosages[rows[r], people[i]]
            out[r, i] = (missing[r] if d == NO_DOSAGE else np.float64(d) / COPY) - shift[r]
