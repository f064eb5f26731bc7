"""What is known of each variant's odds ratio, from a score test of all and a second test of some."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special

from strategies.analysis import Column
from strategies.hits import SecondTest
from strategies.products import FEW
from strategies.protections.suppression import small

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Estimates:
    """Estimates of M variants.

    Attributes:
        numbers: (M, 6) beta, standard error, z, p, whether it is the second test's, whether it converged; NaN where a
            variant is left out.
    """

    numbers: Floats

    @staticmethod
    def none(variants: int) -> Estimates:
        return Estimates(np.full((variants, 6), np.nan))

    def scored(self, on: NDArray[np.int64], rows: Floats) -> Estimates:
        """With score tests' (n, 4) beta, standard error, z and p of the variants at n places."""
        beside = np.stack([np.zeros(len(on)), np.isfinite(rows[:, 2])], axis=1)
        return self._with(on, np.concatenate([rows, beside], axis=1))

    def tested(self, hits: NDArray[np.int64], done: NDArray[np.bool_], rows: Floats) -> Estimates:
        """With second tests' of the variants at n places; those that are not `done` (n,) have none."""
        known = np.where(done[:, None], rows, np.nan)
        return self._with(hits, np.concatenate([known, np.stack([np.ones(len(done)), done], axis=1)], axis=1))

    def _with(self, places: NDArray[np.int64], rows: Floats) -> Estimates:
        numbers = self.numbers.copy()
        numbers[places] = rows
        return Estimates(numbers)

    @property
    def converged(self) -> NDArray[np.bool_]:
        return np.asarray(self.numbers[:, 5] == 1)

    @property
    def second(self) -> NDArray[np.bool_]:
        return np.asarray(self.numbers[:, 4] == 1)

    def table(
        self,
        test: SecondTest,
        means: Floats,
        unobserved: NDArray[np.int64],
        people: int,
        cases: int,
        minimum_cell: int,
    ) -> Mapping[str, Column]:
        """What the answer says of each variant, NaN in rows that are left out.

        Args:
            test: the second test.
            means: (M,) pooled mean number of alternate alleles, SMALL or FEW.
            unobserved: (M,) people without a genotype.
            people, cases: pooled numbers.
            minimum_cell: fewest people without a genotype whom a frequency may tell of.
        """
        inside, few = means > 0, small(unobserved, minimum_cell)
        # What a few people without a genotype do to a frequency would tell their number.
        frequency = np.where(few, np.rint(means / 2 * people) / max(people, 1), means / 2)
        names = np.where(inside, np.where(self.second, test.value, SecondTest.SCORE.value), "")
        return {
            **dict(zip(("beta", "standard_error", "z", "p_value"), self.numbers.T, strict=False)),
            "effect_allele_frequency": np.where(inside, frequency, np.nan),
            "n": np.where(inside, float(people), np.nan),
            "cases": np.where(inside, float(cases), np.nan),
            "test": tuple(names.tolist()),
            "converged": self.converged,
            "imputed": inside & (unobserved > 0),
            "withheld": ~inside,
            "held_by_few": means == FEW,
        }


def corrected(rows: Floats, shrinkage: float, calibration: Floats) -> Floats:
    """(n, 4) beta, standard error, z and p, from those of tests whose beta is too small by a factor, and whose squared
    z by others (n,)."""
    (beta, error, z, _), root = rows.T, np.sqrt(calibration)
    p = 2 * special.ndtr(-np.abs(z * root))
    return np.stack([beta / shrinkage, error / (shrinkage * root), z * root, p], axis=1)
