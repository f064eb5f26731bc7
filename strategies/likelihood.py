"""The likelihood of a binary trait: each person's part in it, how large that can be, and steps to its maximum.

    l(b) = sum y eta - log(1 + exp(eta)),   U = sum (y - mu) x,   I = sum w x x',   mu = expit(eta), w = mu (1 - mu)

Firth's penalised likelihood [1] is l + log det(I) / 2; its score is U with the residual y - mu + h (1/2 - mu), where
h = w x' I^-1 x are the leverages. A round's leverages are those of the round before, w and I alike, so that one round a
step is enough: where steps end, both are the same.

The tail of a score S = sum a (y - mu), under the null hypothesis, by the saddlepoint approximation [2, 3]:

    K(t) = sum log(1 - mu + mu exp(a t)) - a mu t,   K'(t) = s,   P(S > s) = Phi(-u),   u = w + log(v / w) / w,
    w = sign(t) sqrt(2 (t s - K(t))),   v = t sqrt(K''(t)).

A person's part is worked out for the person alone, column by column, and does not depend on who else is there.

[1] Heinze, Schemper: A solution to the problem of separation in logistic regression, Statistics in Medicine 21 (2002).
[2] Dey, Schmidt, Abecasis, Lee: A fast and accurate algorithm to test for binary phenotypes and its application to
    PheWAS, American Journal of Human Genetics 101 (2017), equations 2 and 3.
[3] Barndorff-Nielsen: Approximate interval probabilities, Journal of the Royal Statistical Society B 52 (1990).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special

from strategies.summary import Field, Summary

Floats = NDArray[np.float64]

CONVERGED = 3e-8
"""Steps of Newton's that are shorter than this, in each column's unit, are the last."""

MOST_STEP = 5.0
SEPARATED = 20.0
"""Log odds per unit of a column beyond which its likelihood is taken to have no maximum."""

SINGULAR = 1e-10
"""The smallest eigenvalue of an information matrix, relative to the largest."""

FLAT = 1e-6
"""A likelihood that falls by less is not told from one that has been rounded."""

ROOT = 1e-7
"""Distance of K' from the score, in standard deviations, at which a saddlepoint is found."""

MOST_FACTOR = 2.0**28
"""Of the two integers whose product is a term of the information; beyond it a factor is held. Standardised columns of N
people stay below sqrt(N)."""

SLACK = 2.0**-20
"""By which log odds on their way through different sums may differ at most."""


# -- people's parts ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Grid:
    """Fraction bits: of scores and information, and a little coarser of likelihoods."""

    bits: int

    @property
    def units(self) -> Floats:
        """2 to the fraction bits of scores; of the two factors of a term of the information; and of likelihoods."""
        return 2.0 ** np.array([self.bits, self.bits - self.bits // 2, self.bits // 2, self.likelihood])

    @property
    def likelihood(self) -> int:
        return self.bits - 5


@dataclass(frozen=True, eq=False)
class Sample:
    """The people of a site who have trait and covariates, n of them.

    Attributes:
        across: (k, n) intercept and covariates.
        cases: (n,) y.
        offset: (n,) log odds to which those of the columns add.
        coefficients: (k,) of the null model.
        null, level: (n,) log odds under it, and log(1 + exp) of them.
    """

    across: Floats
    cases: NDArray[np.bool_]
    offset: Floats
    coefficients: Floats
    null: Floats
    level: Floats

    @staticmethod
    def of(across: Floats, cases: NDArray[np.bool_], offset: Floats, coefficients: Floats) -> Sample:
        """Log odds are sums over columns from the first to the last, and the offset."""
        from strategies.kernels import terms  # noqa: PLC0415  (numba loads where it is used)

        across = np.ascontiguousarray(across)
        null = terms.along(across, coefficients) + offset
        return Sample(across, cases, offset, coefficients, null, terms.levels(null))

    def weighed(self) -> tuple[Floats, Floats]:
        """(n,) residuals y - mu and weights mu (1 - mu) of the null model."""
        from strategies.kernels import terms  # noqa: PLC0415

        residuals, weights = np.empty(len(self.null)), np.empty(len(self.null))
        terms.bend(self.null, self.cases, residuals, weights)
        return residuals, weights

    def terms(self, bits: int, squared: Field | None) -> Summary:
        """The sums over people of the null model's `score` U (k,), `information` I, row by row above its diagonal
        (k (k + 1) / 2,), `likelihood` l beyond that of the offset alone, and, if they are asked for, `residuals`
        (y - mu)^2."""
        from strategies.kernels import terms  # noqa: PLC0415

        units, alone, none = Grid(bits).units, self.offset, np.zeros(0)
        integers, k = terms.whole(self.across[1:], units[2]), len(self.across)
        score, products = np.zeros(k, dtype=np.int64), np.zeros((k, k), dtype=np.int64)
        gain = terms.hit(
            self.across[0], self.across[1:], integers, self.cases, alone, terms.levels(alone), alone,
            self.coefficients, none, none[None, :0], units, score, products,
        )  # fmt: skip
        above = products[np.triu_indices(k)]
        out = {"score": score, "information": above, "likelihood": np.array(gain, dtype=np.int64)}
        return out if squared is None else {**out, "residuals": squared.integers(self.weighed()[0] ** 2).sum()}


# -- how large that can be --------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Reach:
    """(H,) the lowest and the highest that a number of anybody's can be, in each of H models."""

    low: Floats
    high: Floats

    @staticmethod
    def of(coefficients: Floats, ends: Floats) -> Reach:
        """Of sums of (H, k) coefficients times columns that lie between (2, k) ends."""
        parts = coefficients[:, None, :] * ends
        return Reach(parts.min(axis=1).sum(axis=1), parts.max(axis=1).sum(axis=1))

    def plus(self, other: Reach) -> Reach:
        return Reach(self.low + other.low, self.high + other.high)

    def widened(self, by: float) -> Reach:
        """Of sums with something that lies at most so far from 0."""
        return Reach(self.low - by, self.high + by)

    def times(self, factor: Floats) -> Reach:
        one, two = self.low * factor, self.high * factor
        return Reach(np.minimum(one, two), np.maximum(one, two))

    @property
    def most(self) -> Floats:
        return np.maximum(np.abs(self.low), np.abs(self.high))

    @property
    def residual(self) -> Floats:
        """Largest |y - mu|, of log odds."""
        return np.asarray(np.maximum(special.expit(SLACK - self.low), special.expit(self.high + SLACK)))

    @property
    def weight(self) -> Floats:
        """Largest mu (1 - mu), of log odds."""
        odds = np.clip(0.0, self.low - SLACK, self.high + SLACK)
        return np.asarray(special.expit(odds) * special.expit(-odds), dtype=np.float64)

    @property
    def pull(self) -> Floats:
        """Largest |1/2 - mu|, of log odds."""
        return np.asarray(special.expit(self.most + SLACK) - 0.5, dtype=np.float64)

    def cumulants(self, tilts: Reach, value: Floats) -> Floats:
        """(H, 3) largest parts in K, K' and K'', of log odds that are tilted and of people's largest |value|.

        For a tilt d, a part in K is largest where mu = 1 / d - 1 / (exp(d) - 1), one in K' where the log odds are
        -d / 2, and both grow with |d|.
        """
        out = np.zeros((len(self.low), 3))
        for d in (tilts.low - SLACK, tilts.high + SLACK):
            with np.errstate(over="ignore"):
                bent = special.logit(np.clip(1 / d - 1 / np.expm1(d), 1e-300, 1 - 1e-16))
            at, half = self._nearest(bent), self._nearest(-d / 2)
            k = special.log_expit(-at) - special.log_expit(-at - d) - d * special.expit(at)
            shift = np.abs(special.expit(half + d) - special.expit(half))
            out[:, :2] = np.maximum(out[:, :2], np.stack([k, shift * value], axis=1))
        out[:, 2] = value**2 * self.plus(tilts).weight
        return out * (1 + SLACK) + SLACK**2

    def _nearest(self, odds: Floats) -> Floats:
        return np.clip(odds, self.low - SLACK, self.high + SLACK)


# -- steps ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Step:
    """H models, one step on.

    Attributes:
        following: (H, q) where the next round looks.
        search: (H, q + 1) what the step after it needs: the best so far, and its likelihood.
        inverse: (H, q, q) I^-1 there.
        value: (H,) the (penalised) log likelihood, as far as it exceeds the null model's.
        better: (H,) whether this round's point is the best so far.
        done: (H,) whether the step was the last.
        lost: (H,) whether the information is singular at the start, or a watched coefficient beyond `SEPARATED`.
    """

    following: Floats
    search: Floats
    inverse: Floats
    value: Floats
    better: NDArray[np.bool_]
    done: NDArray[np.bool_]
    lost: NDArray[np.bool_]


def beginning(at: Floats) -> Floats:
    """(H, q + 1) a search that starts at (H, q)."""
    return np.concatenate([at, np.full((len(at), 1), -np.inf)], axis=1)


def newton(
    at: Floats, search: Floats, score: Floats, information: Floats, value: Floats, watched: int, penalised: bool = False
) -> Step:
    """A step of Newton's method, or half of the way back where the likelihood fell.

    Args:
        at: (H, q) where this round looked.
        search: as `Step` has it.
        score: (H, q) U.
        information: (H, q, q) I.
        value: (H,) the log likelihood, as far as it exceeds the null model's.
        watched: how many of the first coefficients may show separation.
        penalised: whether by Firth's penalty.
    """
    q = at.shape[1]
    previous, best = search[:, :q], search[:, q]
    sane = np.isfinite(information).all(axis=(1, 2)) & np.isfinite(score).all(axis=1) & np.isfinite(value)
    information = np.where(sane[:, None, None], information, 0.0)
    spectrum = np.linalg.eigvalsh(information)
    able = sane & (spectrum[:, 0] > SINGULAR * np.maximum(spectrum[:, -1], 1e-300))
    information = np.where(able[:, None, None], information, np.eye(q))
    inverse: Floats = np.linalg.inv(information).astype(np.float64)
    if penalised:
        value = value + np.linalg.slogdet(information)[1] / 2
    worse = np.isfinite(best) & (~able | (value < best - FLAT))
    fresh = np.einsum("hij,hj->hi", inverse, np.where(sane[:, None], score, 0.0))
    longest = np.abs(fresh).max(axis=1)
    fresh *= np.minimum(1.0, MOST_STEP / np.maximum(longest, 1e-300))[:, None]
    following = np.where(worse[:, None], (previous + at) / 2, at + fresh)
    lost = (~able & ~worse) | (np.abs(following[:, :watched]) > SEPARATED).any(axis=1)
    kept = np.concatenate([at, value[:, None]], axis=1)
    search = np.where(worse[:, None], search, kept)
    return Step(following, search, inverse, value, ~worse, able & ~worse & (longest < CONVERGED), lost)


@dataclass(frozen=True, eq=False)
class Saddle:
    """H scores' two tails, one step on; the second axis runs over the tail above and the one below.

    Attributes:
        at: (H, 2) the t at which the next round looks.
        bracket: (H, 4) lower ends and upper ends of where the saddlepoints lie.
        tail: (H, 2) log of each tail's probability; -inf where the score cannot reach it.
        done: (H,) whether both are found.
    """

    at: Floats
    bracket: Floats
    tail: Floats
    done: NDArray[np.bool_]


def saddle(at: Floats, bracket: Floats, sums: Floats, ends: Floats, score: Floats) -> Saddle:
    """A step towards K'(t) = |s| and K'(t) = -|s| within brackets.

    Args:
        at, bracket: as `Saddle` has them.
        sums: (H, 2, 3) K, K' and K'' there.
        ends: (H, 2) the lowest and the highest that the score can be.
        score: (H,) s.
    """
    wanted = np.abs(score)[:, None] * np.array([1.0, -1.0])
    k, slope, curve = np.moveaxis(sums, 2, 0)
    beyond = np.stack([wanted[:, 0] >= ends[:, 1], wanted[:, 1] <= ends[:, 0]], axis=1)
    with np.errstate(all="ignore"):
        off = slope - wanted
        low, high = bracket[:, :2], bracket[:, 2:]
        low, high = np.where(off < 0, np.maximum(low, at), low), np.where(off > 0, np.minimum(high, at), high)
        step = np.clip(-off / curve, -2 * np.abs(at), 2 * np.abs(at))  # t does not change sign, nor run away
        following = at + np.where(np.isfinite(step), step, at)
        middle = np.where(np.isfinite(low + high), (low + high) / 2, at * 2)
        following = np.where((following > low) & (following < high), following, middle)
        found = beyond | (np.abs(off) <= ROOT * np.sqrt(curve))
        w = np.sign(at) * np.sqrt(np.maximum(2 * (at * wanted - k), 0.0))
        v = at * np.sqrt(curve)
        u = np.sign(at) * (w + np.log(v / w) / w)
        tail = np.where(beyond, -math.inf, special.log_ndtr(-u))
    return Saddle(np.where(found, at, following), np.concatenate([low, high], axis=1), tail, found.all(axis=1))
