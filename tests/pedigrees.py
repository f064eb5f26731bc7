"""Made-up families: founders in Hardy-Weinberg proportions, and children to whom their genotypes drop."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fl_client.readers import Dataset, DatasetConfig
from simulations.populations import write_bed, write_table
from strategies.variants import Panel, Variant

Codes = NDArray[np.uint8]
MALE, FEMALE = 1, 2


def panel(autosomal: int, on_x: int = 0) -> Panel:
    """Variants spread evenly over the autosomes, then some on X between its paired regions."""
    places = [(str(j * 22 // autosomal + 1), 1000 + 10 * j) for j in range(autosomal)]
    places += [("X", 3_000_000 + 10 * j) for j in range(on_x)]
    return Panel("GRCh37", tuple(Variant(c, position, f"v{c}_{position}", "A", "G") for c, position in places))


def founders(variants: Panel, sexes: NDArray[np.int64], rng: np.random.Generator) -> Codes:
    """(M, N) genotypes; a man's on X are homozygous, as files write his one copy."""
    p = rng.uniform(0.05, 0.5, (len(variants), 1))
    codes = rng.binomial(2, p, (len(variants), len(sexes))).astype(np.uint8)
    men = np.outer(_on_x(variants), sexes == MALE)
    codes[men] = 2 * rng.binomial(1, p, codes.shape).astype(np.uint8)[men]
    return codes


def drop(
    variants: Panel, codes: Codes, sexes: NDArray[np.int64], children: Mapping[int, tuple[int, int]],
    rng: np.random.Generator,
) -> None:  # fmt: skip
    """Overwrite children's genotypes, child -> (father, mother), in that order; variants are unlinked."""
    x = _on_x(variants)
    for child, (father, mother) in children.items():
        assert (sexes[father], sexes[mother]) == (MALE, FEMALE)
        given = [np.where(codes[:, p] == 1, rng.integers(0, 2, len(codes)), codes[:, p] // 2) for p in (father, mother)]
        on_x = 2 * given[1] if sexes[child] == MALE else given[0] + given[1]
        codes[:, child] = np.where(x, on_x, given[0] + given[1])


def unobserved(codes: Codes, share: float, rng: np.random.Generator) -> Codes:
    """The same with a share of the genotypes missing."""
    return np.where(rng.random(codes.shape) < share, np.uint8(3), codes)


def identifiers(people: int) -> list[str]:
    return [f"person-{i:04d}" for i in range(people)]


def site(folder: Path, variants: Panel, codes: Codes, sexes: NDArray[np.int64]) -> None:
    """Write .bed, .bim, .fam and the people table, with no sex where it is 0."""
    write_bed(folder / "g", variants, codes, identifiers(len(sexes)))
    write_table(folder / "people.tsv", identifiers(len(sexes)), {"sex": np.where(sexes == 0, np.nan, sexes)})


def config() -> DatasetConfig:
    """The data set that `site` writes."""
    return DatasetConfig("PEDIGREE", "GRCh37", "people.tsv", "g.bed", synthetic=True)


def opened(folder: Path, variants: Panel, codes: Codes, sexes: NDArray[np.int64]) -> Dataset:
    """A data set, written and opened."""
    site(folder, variants, codes, sexes)
    return Dataset.open(config(), folder)


def _on_x(variants: Panel) -> NDArray[np.bool_]:
    return np.array([v.chromosome == "X" for v in variants.variants])
