"""Columns that a node computes for its own people from public numbers: principal components, scores, predictions, and
genotypes of a few variants.

    column[i, l] = shift[l] + sum_j weight[j, l] (g[i, j] - centre[j]),   over the variants with an observed genotype,

so a genotype that is missing, or a variant that the site does not hold, counts as `centre`. Sums are integers on a grid
that follows from the weights alone: nobody's number depends on the others, on the order or on the machine. A column of
one variant's genotypes has a value for each number of copies instead, and none where the genotype is missing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from strategies.cohort import Genotypes

MOST_WEIGHT = 2.0**20
MOST_COLUMNS = 4096
FINEST_BITS = 44
"""Of the grid of weights; coarser where their sum would not fit into 62 bits."""


@dataclass(frozen=True, eq=False)
class Projection:
    """L columns from M variants.

    Attributes:
        names: (L) names of the columns.
        weights: (M, L).
        centre: (M,) alternate alleles where nothing is observed, from 0 to 2.
        shift: (L,).
    """

    names: tuple[str, ...]
    weights: NDArray[np.float64]
    centre: NDArray[np.float64]
    shift: NDArray[np.float64]

    def __post_init__(self) -> None:
        m, columns = len(self.centre), len(self.names)
        shapes = (self.weights.shape, self.centre.shape, self.shift.shape)
        if shapes != ((m, columns), (m,), (columns,)) or not 0 < columns <= MOST_COLUMNS or not m:
            raise ValueError("A projection has a weight for each variant and column.")
        for values, most in ((self.weights, MOST_WEIGHT), (self.shift, MOST_WEIGHT), (self.centre - 1, 1.0)):
            if values.dtype != np.float64 or not (np.abs(values) <= most).all():
                raise ValueError("A projection's numbers are within their bounds.")

    def __len__(self) -> int:
        return len(self.centre)

    @property
    def bits(self) -> int:
        """Fraction bits of the grid: sums over all variants stay below 2^62."""
        most = float(np.abs(self.weights).sum(axis=0).max()) * 2 + len(self)
        return min(FINEST_BITS, 61 - math.ceil(math.log2(most)))

    def arrays(self) -> dict[str, NDArray[np.float64]]:
        """What travels to a node."""
        return {"weights": self.weights, "centre": self.centre, "shift": self.shift}

    @staticmethod
    def of(names: tuple[str, ...], arrays: Mapping[str, NDArray[np.float64]]) -> Projection:
        """What arrived at a node.

        Raises:
            ValueError: if it is not a projection.
        """
        if set(arrays) != {"weights", "centre", "shift"}:
            raise ValueError("A projection is weights, centre and shift.")
        return Projection(names, arrays["weights"], arrays["centre"], arrays["shift"])

    def steps(self, span: slice) -> NDArray[np.int64]:
        """(m, 4, L) what a person with 0, 1, 2 or no observed alternate alleles adds, on the grid, of some variants."""
        weights, centre = self.weights[span], self.centre[span, None]
        levels = [np.rint(weights * (copies - centre) * 2.0**self.bits) for copies in range(3)]
        return np.stack([*levels, np.zeros_like(weights)], axis=1).astype(np.int64)

    def add(self, sums: NDArray[np.int64], genotypes: Genotypes, span: slice) -> None:
        """Add to (N, L) sums on the grid what the variants of the span contribute."""
        from strategies.kernels.scores import add_steps  # noqa: PLC0415  (numba loads where it is used)

        add_steps(genotypes.packed, self.steps(span), sums)

    def columns(self, sums: NDArray[np.int64]) -> dict[str, NDArray[np.float64]]:
        """Name -> (N,) values, from complete sums."""
        values = sums * 2.0**-self.bits + self.shift
        return {name: np.ascontiguousarray(values[:, i]) for i, name in enumerate(self.names)}


MOST_GENOTYPES = 200


@dataclass(frozen=True, eq=False)
class GenotypeColumns:
    """K columns of the first K of M variants: a value for 0, 1 and 2 alternate alleles, and none where the genotype is
    missing.

    Attributes:
        names: (K) names of the columns.
        levels: (M, 3) values; -1 where there is to be none.
    """

    names: tuple[str, ...]
    levels: NDArray[np.float64]

    def __post_init__(self) -> None:
        m, columns = len(self.levels), len(self.names)
        if self.levels.shape != (m, 3) or not 0 < columns <= min(m, MOST_GENOTYPES):
            raise ValueError(f"At most {MOST_GENOTYPES} variants have a column each, with three values.")
        if self.levels.dtype != np.float64 or not np.isin(self.levels, (-1, 0, 1, 2)).all():
            raise ValueError("A column's values are 0, 1 and 2, or -1 for none.")

    def __len__(self) -> int:
        return len(self.levels)

    def arrays(self) -> dict[str, NDArray[np.float64]]:
        """What travels to a node."""
        return {"levels": self.levels}

    def add(self, sums: NDArray[np.int64], genotypes: Genotypes, span: slice) -> None:
        """Add to (N, K) genotypes, from zero, those of the variants of the span."""
        mine = min(max(len(self.names) - span.start, 0), len(genotypes))
        sums[:, span.start : span.start + mine] += genotypes[:mine].codes().T

    def columns(self, sums: NDArray[np.int64]) -> dict[str, NDArray[np.float64]]:
        """Name -> (N,) values, from all genotypes; NaN where there is none."""
        padded = np.concatenate(
            [np.where(self.levels < 0, np.nan, self.levels), np.full((len(self), 1), np.nan)], axis=1
        )
        return {name: padded[j][sums[:, j]] for j, name in enumerate(self.names)}


def projection_of(names: tuple[str, ...], arrays: Mapping[str, NDArray[np.float64]]) -> Projection | GenotypeColumns:
    """What arrived at a node.

    Raises:
        ValueError: if it is neither.
    """
    if set(arrays) == {"levels"}:
        return GenotypeColumns(names, arrays["levels"])
    return Projection.of(names, arrays)
