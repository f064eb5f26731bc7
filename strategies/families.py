"""Outcomes of a generalised linear model: one person's part in the likelihood, and how large that can be.

    binomial            y in {0, 1}, mu = expit(eta)         l = y eta - log(1 + exp(eta))
    poisson             mu = exp(eta)                        l = y eta - mu - log y!
    negative_binomial   mu = exp(eta), alpha = 1 / r [1]     l = log G(y + r) - log G(r) - log y! + r log(r / (r + mu))
                                                                 + y log(mu / (r + mu))

With respect to eta, the residual is dl / d eta and the weight -d2l / d eta2, observed. Of the third the logarithm of
alpha is sought as well: slope, cross and bend are dl / d log alpha, and minus its derivatives by eta and by itself.

[1] Cameron, Trivedi: Regression Analysis of Count Data, 2nd edition (2013), section 3.3: NB2, variance mu + alpha mu^2.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import special

Floats = NDArray[np.float64]

FARTHEST = 30.0
"""Log rates are held within this: exp(30) is 10^13 events a person."""

LATTICE = 33
"""Points along an axis at which the parts of a negative binomial likelihood, smooth in log mu, are looked up."""

BEYOND = 1.25
"""By which such a part may exceed its largest value on the lattice; there it is held."""


class Family(StrEnum):
    """The distribution of the outcome; links are identity, logit, log and log."""

    GAUSSIAN = "gaussian"
    BINOMIAL = "binomial"
    POISSON = "poisson"
    NEGATIVE_BINOMIAL = "negative_binomial"

    @property
    def counts(self) -> bool:
        return self in (Family.POISSON, Family.NEGATIVE_BINOMIAL)


@dataclass(frozen=True)
class Likelihood:
    """That of one person, whose outcome and linear predictor lie within public bounds.

    Attributes:
        family: any but gaussian, whose sums of products say all.
        outcome: lowest and highest y.
        reach: lowest and highest eta.
        log_alpha: of a negative binomial one.
        ceiling: where a log rate is held; at a maximum nobody's rate is above the number of all events.
    """

    family: Family
    outcome: tuple[float, float]
    reach: tuple[float, float]
    log_alpha: float = 0.0
    ceiling: float = FARTHEST

    @property
    def held(self) -> tuple[float, float]:
        """The ends of eta; of a log rate within `FARTHEST` and the ceiling."""
        if self.family is Family.BINOMIAL:
            return self.reach
        low, high = (min(max(end, -FARTHEST), FARTHEST, self.ceiling) for end in self.reach)
        return low, high

    def parts(self, y: Floats, eta: Floats) -> dict[str, Floats]:
        """Residual, weight, likelihood, and what else the family has, of (n,) people."""
        if self.family is Family.BINOMIAL:
            return {
                "residual": y - special.expit(eta),
                "weight": special.expit(eta) * special.expit(-eta),
                "likelihood": special.log_expit((2 * y - 1) * eta),
            }
        eta = np.clip(eta, *self.held)
        mu = np.exp(eta)
        if self.family is Family.POISSON:
            factorial = special.gammaln(y + 1)
            return {
                "residual": y - mu,
                "weight": mu,
                "likelihood": y * eta - mu - factorial,
                "saturated": special.xlogy(y, y) - y - factorial,
                "pearson": (y - mu) ** 2 / mu,
            }
        return self._negative_binomial(y, eta, mu)

    def _negative_binomial(self, y: Floats, eta: Floats, mu: Floats) -> dict[str, Floats]:
        alpha = math.exp(self.log_alpha)
        r, one = 1 / alpha, 1 + alpha * mu
        log_one = special.log1p(alpha * mu)
        a = special.psi(y + r) - special.psi(r) - log_one + (mu - y) / (r + mu)
        by_r = special.zeta(2.0, y + r) - special.zeta(2.0, r) + r**-1 - 1 / (r + mu) - (mu - y) / (r + mu) ** 2
        return {
            "residual": (y - mu) / one,
            "weight": mu * (1 + alpha * y) / one**2,
            "likelihood": special.gammaln(y + r)
            - special.gammaln(r)
            - special.gammaln(y + 1)
            - (r + y) * log_one
            + y * (self.log_alpha + eta),
            "slope": -r * a,
            "cross": (y - mu) * alpha * mu / one**2,
            "bend": -(r * a + r**2 * by_r),
        }

    @property
    def most(self) -> dict[str, float]:
        """Largest absolute values of the parts."""
        return _most(self)


@lru_cache(maxsize=64)
def _most(one: Likelihood) -> dict[str, float]:
    """At the ends of y and eta, or where a derivative is 0 within them; of a negative binomial on a lattice as well."""
    low, high = one.held
    y, inner, beyond = np.array(one.outcome), list[float](), 1.0
    if one.family is Family.BINOMIAL:
        y, inner = np.array([0.0, 1.0]), [0.0]
    elif one.family is Family.NEGATIVE_BINOMIAL:
        y = one.outcome[0] + np.linspace(0, 1, LATTICE) ** 3 * (one.outcome[1] - one.outcome[0])
        inner, beyond = [-one.log_alpha, *np.linspace(low, high, 2 * LATTICE).tolist()], BEYOND
    eta = np.array([low, high, *(min(max(e, low), high) for e in inner)])
    every_y, every_eta = np.meshgrid(y, eta)
    parts = one.parts(every_y.ravel(), every_eta.ravel())
    return {name: beyond * float(np.abs(values).max()) for name, values in parts.items()}
