"""Families whose genomes are dropped down from unrelated founders, with crossing over: people who are relatives."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Families:
    """Parents and their children.

    Attributes:
        codes: (M, N) alternate alleles.
        chromosome: (M,) number of each variant's chromosome, from 1.
        family: (N,) number of each person's family.
        founder: (N,) whether a person is one of two unrelated parents.
    """

    codes: NDArray[np.uint8]
    chromosome: NDArray[np.int64]
    family: NDArray[np.int64]
    founder: NDArray[np.bool_]

    @staticmethod
    def of(families: int, children: int, chromosomes: int, each: int, rng: np.random.Generator) -> Families:
        """Chromosomes of `each` variants in linkage equilibrium among founders, all one Morgan long."""
        m = chromosomes * each
        frequency = rng.uniform(0.1, 0.9, m)
        parents = [(rng.random((families, 2, m)) < frequency).astype(np.uint8) for _ in range(2)]
        people = [parent.sum(axis=1) for parent in parents]
        for _ in range(children):
            child = np.zeros((families, m), dtype=np.uint8)
            for parent in parents:
                crossed = rng.random((families, m)) < 1 / each
                crossed[:, ::each] = rng.random((families, chromosomes)) < 0.5
                child += np.where(crossed.cumsum(axis=1) % 2 == 0, parent[:, 0], parent[:, 1])
            people.append(child)
        codes = np.stack(people, axis=1).reshape(-1, m).T
        size = children + 2
        return Families(
            np.ascontiguousarray(codes, dtype=np.uint8),
            np.repeat(np.arange(1, chromosomes + 1), each),
            np.repeat(np.arange(families), size),
            np.tile(np.arange(size) < 2, families),
        )
