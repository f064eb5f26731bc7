"""Models of a binary trait without any variant: what sites sum about them, and a step to all their maxima.

    log odds = X c + s o,   s = 1 / sqrt(mu (1 - mu)),   mu = cases / people

with o a prediction of the trait in deviations of it, one for each of C chromosomes that is left out; C = 1 and o = 0
without an offset. On the scale of log odds a working response is (y - mu) / (mu (1 - mu)) [1], so that o sqrt(mu (1 -
mu)), the prediction of y - mu, is o / sqrt(mu (1 - mu)) there: penalised quasi-likelihood with one weight for all.

[1] Breslow, Clayton: Approximate inference in generalized linear mixed models, JASA 88 (1993), section 2.3; Chen et
    al.: Control for population structure and relatedness for binary traits, Am. J. Human Genetics 98 (2016).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from strategies import likelihood
from strategies.errors import UsageError
from strategies.hits import bounded, products, symmetric
from strategies.likelihood import Floats, Grid, Reach
from strategies.summary import Field

LEAST_INFORMATION = 1e-9
"""The smallest eigenvalue of a first round's information, relative to the trait's variance."""


@dataclass(frozen=True, eq=False)
class NullModels:
    """C models of k coefficients over the same people.

    Attributes:
        coefficients: (C, k) of the intercept and the standardised covariates.
        ends: (2, k) lowest and highest values of these.
        farthest: largest absolute value of anybody's offset, in log odds; 0 without.
        bits: fraction bits of the sums.
    """

    coefficients: Floats
    ends: Floats
    farthest: float
    bits: int

    def __len__(self) -> int:
        return len(self.coefficients)

    @property
    def reach(self) -> Reach:
        """(C,) of log odds."""
        return Reach.of(self.coefficients, self.ends).widened(self.farthest)

    def leaves(self) -> dict[str, Field]:
        """The fields of sums about these models."""
        reach, grid = self.reach, Grid(self.bits)
        most = np.tile(np.abs(self.ends).max(axis=0), (len(self), 1))
        gain = Reach.of(self.coefficients, self.ends).most
        return {
            "score": bounded("residuals times covariates", reach.residual[:, None] * most, self.bits),
            "information": products("weighted products of covariates", reach.weight, most, grid),
            "likelihood": bounded("log likelihood beyond that of the offset, or of even odds", gain, grid.likelihood),
        }

    def residuals(self) -> dict[str, Field]:
        """The field of the sums of squared residuals."""
        longest = self.reach.residual[:, None] ** 2
        return {"residuals": bounded("squared residuals", longest, self.bits, shape=(len(self),))}

    def step(self, search: Floats, values: Mapping[str, Floats]) -> Step:
        """A step of Newton's method of those that are not at their maxima yet.

        Args:
            search: (C, k + 2) as `Step` has it.
            values: of the fields.
        """
        at, k = self.coefficients, self.coefficients.shape[1]
        there = search[:, -1] > 0
        step = likelihood.newton(
            at, search[:, :-1], values["score"], symmetric(values["information"]), values["likelihood"], k
        )
        done = step.done | there
        return Step(
            np.where(there[:, None], at, step.following),
            np.concatenate([step.search, done[:, None]], axis=1),
            bool(done.all()),
            bool((step.lost & ~there).any()),
        )


@dataclass(frozen=True, eq=False)
class Step:
    """C models, one step on.

    Attributes:
        coefficients: (C, k) where the next round looks.
        search: (C, k + 2) what the step after it needs, and whether a model is at its maximum.
        done: whether all of them are.
        lost: whether one of them has none.
    """

    coefficients: Floats
    search: Floats
    done: bool
    lost: bool


def beginning(at: Floats) -> Floats:
    """(C, k + 2) a search that starts at (C, k)."""
    return np.concatenate([likelihood.beginning(at), np.zeros((len(at), 1))], axis=1)


def dispersions(values: Mapping[str, Floats]) -> Floats:
    """(C,) how long residuals are, squared, relative to what they are expected to be at these log odds."""
    return np.asarray(values["residuals"] / values["information"][:, 0])


def check_independent(information: Floats, spread: float, covariates: tuple[str, ...]) -> None:
    """Assert that covariates do not explain one another, by the (C, q) information where they explain nothing of the
    trait yet, and the trait's squared deviations.

    Raises:
        UsageError: if they do.
    """
    if (np.linalg.eigvalsh(symmetric(information))[:, 0] < LEAST_INFORMATION * spread).any():
        raise UsageError(
            "Covariates must not explain one another.",
            f"{', '.join(covariates)} are linearly dependent",
            "drop what follows from the others.",
        )
