"""Variants of a slice that regressions are asked of, and what a site sums about them."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from strategies import kernels
from strategies.alleles import Alleles
from strategies.analysis import Frame
from strategies.design import Design, whole
from strategies.summary import Field, Summary


class Form(IntEnum):
    """How a variant goes on after the counts; as a digit it travels with round 2."""

    FEW = 0
    RARE = 1
    WHOLE = 2
    LESS = 3
    IMPUTED = 4


@dataclass(frozen=True, eq=False)
class Tested:
    """A slice's M variants: m go on, of which `less` and I `imputed` have people without a genotype.

    Attributes:
        forms: (M,).
        means: (I,) number of alleles that whoever has no genotype is given.
        blocks: (M,) number of the design's block whose responses a variant meets.
    """

    forms: NDArray[np.int64]
    means: NDArray[np.float64]
    blocks: NDArray[np.int64]

    @staticmethod
    def of(digits: str, means: str, blocks: NDArray[np.int64], frame: Frame) -> Tested:
        """From each panel variant's form, a digit, and the imputed ones' means as base64 of their float64."""
        assert frame.panel is not None
        forms = numbers(digits[frame.start : frame.start + len(frame.panel)])
        before = digits.count(str(Form.IMPUTED.value), 0, frame.start)
        here = int(np.count_nonzero(forms == Form.IMPUTED))
        given = np.frombuffer(base64.b64decode(means), dtype="<f8")[before : before + here]
        return Tested(forms, np.clip(np.nan_to_num(given), 0.0, 2.0), blocks)

    @property
    def on(self) -> NDArray[np.int64]:
        """(m,) places of the variants that go on."""
        return np.flatnonzero(self.forms > Form.RARE)

    @property
    def less(self) -> NDArray[np.int64]:
        return np.flatnonzero(self.forms == Form.LESS)

    @property
    def imputed(self) -> NDArray[np.int64]:
        return np.flatnonzero(self.forms == Form.IMPUTED)

    def sums(self, alleles: Alleles, w: NDArray[np.float64], design: Design, grid: Field) -> Summary:
        """Scores (m, K + P) of alleles, and the products (less, K + 2, 1 + K + P) of the people without a genotype.

        Args:
            alleles: of a site's people.
            w: (N, 1 + K + C P) their intercept, covariates and responses.
            design: what they are.
            grid: a field on their grid.
        """
        on, less, imputed = self.on, self.less, self.imputed
        size, p, means = 1 + design.covariates, design.traits, np.zeros(len(self.forms))
        means[imputed] = self.means
        scores = np.empty((len(on), size - 1 + p), dtype=np.int64)
        missing = np.empty((len(less), size + 1, size + p), dtype=np.int64)
        for block in np.unique(self.blocks[on]):
            mine = w
            if design.blocks > 1:
                mine = np.concatenate([w[:, :size], w[:, size + block * p : size + (block + 1) * p]], axis=1)
            z = grid.integers(mine[:, 1:])
            here, given, lacking = (rows[self.blocks[rows] == block] for rows in (on, imputed, less))
            own = alleles.product(here, z)
            own[np.searchsorted(here, given)] += kernels.missing_imputed(alleles.packed, given, means[given], z)
            scores[np.searchsorted(on, here)] = own
            missing[np.searchsorted(less, lacking)] = kernels.missing_products(
                alleles.packed, lacking, mine, size, design.bits
            )
        return {"scores": scores, "missing": missing}

    def centred(
        self, sums: Summary, alleles: Alleles, people: int, totals: NDArray[np.int64], design: Design
    ) -> Summary:
        """The site's sums with genotypes, and the columns of those who count for a variant, measured from their means.

        Args:
            sums: as they are without.
            alleles: of its people.
            people: n, of the site.
            totals: (K + C P) the columns' sums over its people.
            design: what the columns are.
        """
        forms, absent, unit = self.forms[self.on], alleles.cells[self.on, 3], 2.0**-alleles.bits
        (i, j), bits, k = design.pairs(), design.bits, design.covariates
        number, squared = alleles.sums[self.on] * unit, alleles.squares[self.on] * unit**2
        given, counted = forms == Form.IMPUTED, np.maximum(people - absent, 1)
        number[given] += self.means * absent[given]
        squared[given] += self.means**2 * absent[given]
        counted[given] = max(people, 1)
        responses = totals[k:].reshape(-1, design.traits)[self.blocks[self.on]]
        columns = np.concatenate([np.broadcast_to(totals[:k], (len(forms), k)), responses], axis=1)
        columns[forms == Form.LESS] -= sums["missing"][:, 0, 1:]
        left = columns[forms == Form.LESS].astype(np.float64)
        apart = left[:, i] * left[:, j] * 2.0**-bits / counted[forms == Form.LESS, None]
        squares = (squared - number**2 / counted) * 2.0 ** (bits - 1)
        return {
            "scores": sums["scores"] - whole(number[:, None] * columns / counted[:, None]),
            "missing": design.paired(sums["missing"]) + whole(apart),
            "squares": whole(squares),
        }


def numbers(digits: str) -> NDArray[np.int64]:
    """Forms as they travel."""
    return np.frombuffer(digits.encode(), dtype=np.uint8).astype(np.int64) - ord("0")
