"""What is counted before a binary trait is modelled: people and cases, covariates, and genotypes at each variant."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from strategies.alleles import DOSAGE_BITS, Alleles
from strategies.covariates import Covariates, Floats
from strategies.errors import UsageError
from strategies.products import centring, seldom
from strategies.protections.suppression import WITHHELD, replaced, small
from strategies.summary import Field, Summary


def leaves(variants: int, covariates: int, dosed: bool) -> dict[str, Field]:
    """The fields of so many variants' and covariates' sums; `dosed` whether dosages are read."""
    m, words = variants, "people with 1, 2 or no observed alternate alleles"
    dosages = Field((m,), "sums of dosages", 2 * m, 2 * m**0.5, DOSAGE_BITS, True)
    return {
        "cases": Field((), "cases", 1, 1),
        **Covariates.leaves(covariates),
        "genotypes": Field((m, 3), words, m, m**0.5, per_variant=True),
        **({"alleles": dosages} if dosed else {}),
        "holders": Field((m,), "sites that hold the variant", m, m**0.5, per_variant=True, over="sites"),
    }


def sums(unit: Floats, cases: NDArray[np.bool_], alleles: Alleles) -> Summary:
    """Of a site's n people with trait and covariates.

    Args:
        unit: (n, K) covariates in [-1, 1].
        cases: (n,) y.
        alleles: at all variants.
    """
    return {
        "cases": np.array(np.count_nonzero(cases), dtype=np.int64),
        **Covariates.sums(unit),
        "genotypes": alleles.cells[:, 1:],
        **({} if alleles.dosages is None else {"alleles": alleles.sums}),
        "holders": np.any(alleles.cells[:, :3], axis=1).astype(np.int64),
    }


def withheld(total: Summary, minimum_minor_alleles: int, minimum_cell: int) -> Summary:
    """The sums, and that of people, without variants that are rare; nothing of few people, cases or controls."""
    people, cases = total["people"], total["cases"]
    if any(small(number, minimum_cell) for number in (people, cases, people - cases)):
        return {name: np.full_like(array, WITHHELD) for name, array in total.items()}
    # How many people are given the mean is not told, so that they may be few.
    few = seldom(total["genotypes"], int(people), minimum_minor_alleles, minimum_cell, total.get("alleles"))
    return replaced(total, [name for name in ("genotypes", "alleles") if name in total], few, WITHHELD)


@dataclass(frozen=True, eq=False)
class Moments:
    """What follows from the sums over all sites.

    Attributes:
        people, cases: pooled numbers.
        standard: covariates' mean and deviation.
        means: (M,) pooled mean number of alternate alleles, SMALL or FEW.
        unobserved: (M,) people without a genotype; 0 where a variant is left out.
    """

    people: int
    cases: int
    standard: Covariates
    means: Floats
    unobserved: NDArray[np.int64]

    @staticmethod
    def of(total: Summary, covariates: tuple[str, ...], sites: int) -> Moments:
        """From sums that are `withheld`, if not all are.

        Raises:
            UsageError: if there are no cases or controls, or few people, or a covariate does not vary.
        """
        people, cases, k = int(total["people"]), int(total["cases"]), len(covariates)
        if people < k + 3 or not 0 < cases < people:
            raise UsageError(
                "A binary trait needs cases and controls, and more people than the model has parameters.",
                f"{people} people have trait and covariates, {cases} of them are cases; {k + 2} parameters",
                "correct the trait's range, drop covariates, or ask sites that have the columns.",
            )
        values = {name: field.values(total[name]) for name, field in Covariates.leaves(k).items()}
        missing = total["genotypes"][:, 2]
        return Moments(
            people,
            cases,
            Covariates.of(covariates, values, people),
            centring(total, sites).centre,
            np.where(missing == WITHHELD, 0, missing),
        )
