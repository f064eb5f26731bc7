"""The read-only view of people that an analysis may see."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from strategies import kernels

VARIANTS_AT_A_TIME = 2048
"""Of a walk."""

MISSING = 3
"""The 2-bit code of a missing genotype; 0, 1 and 2 are alternate allele counts."""

COPY = 1 << 14
"""A dosage's units in one copy of an allele: PLINK 2's resolution."""

NO_DOSAGE = 0xFFFF
"""The dosage of a missing genotype; the others go from 0 to 2 COPY."""


@dataclass(frozen=True, eq=False)
class Genotypes:
    """Alternate allele counts, two bits each, four people to a byte, first person in the lowest bits.

    Attributes:
        packed: (M, ceil(N / 4)) bytes, M variants by N people; padding bits are zero.
        people: N.
    """

    packed: NDArray[np.uint8]
    people: int

    def __post_init__(self) -> None:
        assert self.packed.dtype == np.uint8
        assert self.packed.ndim == 2
        assert self.packed.shape[1] == -(-self.people // 4)
        self.packed.setflags(write=False)

    def __len__(self) -> int:
        return len(self.packed)

    @staticmethod
    def pack(codes: NDArray[np.uint8]) -> Genotypes:
        """From (M, N) codes 0, 1, 2 or MISSING.

        >>> Genotypes.pack(np.array([[0, 1, 2, 3, 2]], dtype=np.uint8)).codes().tolist()
        [[0, 1, 2, 3, 2]]
        """
        variants, people = codes.shape
        padded = np.zeros((variants, -(-people // 4) * 4), dtype=np.uint8)
        padded[:, :people] = codes
        quads = padded.reshape(variants, -1, 4)
        packed = quads[:, :, 0] | quads[:, :, 1] << 2 | quads[:, :, 2] << 4 | quads[:, :, 3] << 6
        return Genotypes(np.ascontiguousarray(packed.astype(np.uint8)), people)

    def codes(self) -> NDArray[np.uint8]:
        """(M, N) codes."""
        return kernels.unpack(self.packed, self.people)

    def counts(self, inside: NDArray[np.bool_] | None = None) -> NDArray[np.int64]:
        """(M, 4) number of people with 0, 1 and 2 alternate alleles, and with none observed: of all, or those (N,)
        inside.

        >>> Genotypes.pack(np.array([[0, 1, 2, 3, 2]], dtype=np.uint8)).counts().tolist()
        [[1, 1, 2, 1]]
        """
        return kernels.counts(self.packed, self.people, inside)

    def take(self, people: NDArray[np.int64]) -> Genotypes:
        """The same variants for some of the people, in the order given."""
        return Genotypes(kernels.take(self.packed, people), len(people))

    def __getitem__(self, rows: slice | NDArray[np.int64]) -> Genotypes:
        return Genotypes(self.packed[rows], self.people)


@dataclass(frozen=True, eq=False)
class Stored:
    """Genotypes of M variants by N people that stay in their file until some of them are read.

    Attributes:
        variants: M.
        people: N.
        read: the genotypes of some rows.
    """

    variants: int
    people: int
    read: Callable[[slice | NDArray[np.int64]], Genotypes] = field(repr=False)

    def __len__(self) -> int:
        return self.variants

    def __getitem__(self, rows: slice | NDArray[np.int64]) -> Genotypes:
        return self.read(rows)

    def take(self, people: NDArray[np.int64]) -> Stored:
        """The same variants for some of the people, in the order given."""
        return Stored(self.variants, len(people), lambda rows: self.read(rows).take(people))


def blocks(genotypes: Genotypes | Stored) -> Iterator[tuple[slice, Genotypes]]:
    """All variants, some thousand at a time: their places, and the genotypes."""
    for start in range(0, len(genotypes), VARIANTS_AT_A_TIME):
        span = slice(start, min(start + VARIANTS_AT_A_TIME, len(genotypes)))
        yield span, genotypes[span]


def _no_columns() -> Mapping[str, NDArray[np.float64]]:
    return MappingProxyType({})


@dataclass(frozen=True, eq=False)
class Cohort:
    """What a node opened for one request: only the columns asked for, clamped to their public ranges.

    Attributes:
        people: N.
        genotypes: the request's slice of the panel, or None if the request reads none.
        stored: the same in its place, where it is large and the request walks it block by block.
        columns: name -> (N,) values, NaN where missing.
        dosages: (M, N) expected alternate alleles of the same variants in units of 1 / COPY, NO_DOSAGE where missing,
            if the request reads dosages.
        matched: (M,) a `How` for each of the variants, which the people of a site share, if the request reads them.
        part: (N,) numbers in [0, 1) that cut people into public parts (training, held out), drawn from each person's
            own identifier and the study alone, so that nobody's part depends on anybody else.
    """

    people: int
    genotypes: Genotypes | None = None
    columns: Mapping[str, NDArray[np.float64]] = field(default_factory=_no_columns)
    part: NDArray[np.float64] | None = None
    dosages: NDArray[np.uint16] | None = None
    matched: NDArray[np.uint8] | None = None
    stored: Stored | None = None

    def __len__(self) -> int:
        return self.people

    @property
    def complete(self) -> NDArray[np.bool_]:
        """(N,) whether each person has a value in every column that was opened.

        These are the people of an exact answer: an exact analysis leaves the others out, whatever their genotypes, so
        that who is in it is known before it is computed. `tests/laws` holds every analysis to that.
        """
        return self.having(self.columns)

    def having(self, names: Iterable[str]) -> NDArray[np.bool_]:
        """(N,) whether each person has a value in each of some columns."""
        inside = np.ones(self.people, dtype=bool)
        for name in names:
            inside &= ~np.isnan(self.columns[name])
        return inside

    @property
    def walked(self) -> Genotypes | Stored:
        """The genotypes of a request that walks them."""
        walked = self.genotypes if self.stored is None else self.stored
        assert walked is not None
        return walked

    def take(self, people: NDArray[np.int64]) -> Cohort:
        """Some of the people, in the order given."""
        return Cohort(
            people=len(people),
            genotypes=None if self.genotypes is None else self.genotypes.take(people),
            columns=MappingProxyType({name: values[people] for name, values in self.columns.items()}),
            part=None if self.part is None else self.part[people],
            dosages=None if self.dosages is None else self.dosages[:, people],
            matched=self.matched,
            stored=None if self.stored is None else self.stored.take(people),
        )
