"""Estimates from numbers of people who leave in each of J intervals of time: survival, incidence of causes, log-rank.

Shapes: G groups, S strata, J intervals, K causes. Of n at risk, d leave by an event.

    S(t) = prod (1 - d / n),   Var log S(t) = sum d / (n (n - d))                                [1, Greenwood, 2.1.4]
    log(-log S(t)) +- z (Var log S(t))^(1/2) / |log S(t)|                                        [1, 1.4.2]
    mean up to tau = integral of S,   its variance sum (integral from t to tau of S)^2 d / (n (n - d))    [2, 4.5.2]
    F_k(t) = sum S(t-) d_k / n,                                                                  [3, equation 2]
    Var F_k(t) = sum (F_k(t) - F_k)^2 d / (n (n - d)) + sum S-^2 d_k (n - d_k) / n^3
                 - 2 sum (F_k(t) - F_k) S- d_k / n^2                                             [4, section 10.4]
    log-rank: U_g = sum d_g - n_g d / n,   V_gh = sum d (n - d) / (n - 1) n_g / n (1_gh - n_h / n)        [2, 7.3]

[1] Kalbfleisch, Prentice: The Statistical Analysis of Failure Time Data, 2nd edition (2002).
[2] Klein, Moeschberger: Survival Analysis, 2nd edition (2003).
[3] Aalen, Johansen: An empirical transition matrix for non-homogeneous Markov chains, Scand. J. Statistics 5 (1978).
[4] Marubini, Valsecchi: Analysing Survival Data from Clinical Trials and Observational Studies (1995); the same is in
    Collett: Modelling Survival Data in Medical Research, 3rd edition (2015), section 12.3.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special

from strategies.analyses.allele_frequency import NORMAL_95

Floats = NDArray[np.float64]

HALF = 0.5 + 1e-12
"""A half, and what rounding makes of it."""


def at_risk(leaving: Floats) -> Floats:
    """(..., J) people at risk in each interval, from those who leave in it and later.

    >>> at_risk(np.array([2.0, 0.0, 3.0])).tolist()
    [5.0, 3.0, 3.0]
    """
    return np.asarray(np.cumsum(leaving[..., ::-1], axis=-1)[..., ::-1])


@dataclass(frozen=True, eq=False)
class Survival:
    """Survival curves.

    Attributes:
        risk: (G, J) people at risk.
        survival: (G, J) at the interval's end.
        greenwood: (G, J) variance of its logarithm; infinite once nobody is left.
    """

    risk: Floats
    survival: Floats
    greenwood: Floats

    @staticmethod
    def of(events: Floats, leaving: Floats) -> Survival:
        """From (G, J) people with an event, and people who leave with or without one."""
        n = at_risk(leaving)
        with np.errstate(divide="ignore", invalid="ignore"):
            share = np.where(events > 0, events / n, 0.0)
            terms = np.where(events > 0, share / (n - events), 0.0)
        return Survival(n, np.cumprod(1 - share, axis=-1), np.cumsum(terms, axis=-1))

    def errors(self, log_noise: Floats | float = 0.0) -> Floats:
        """(G, J) standard errors of survival, with a further variance of its logarithm; 0 where nobody survives."""
        with np.errstate(invalid="ignore"):
            error = self.survival * np.sqrt(self.greenwood + log_noise)
        return np.where(self.survival > 0, error, 0.0)

    def interval(self, log_noise: Floats | float = 0.0) -> tuple[Floats, Floats]:
        """(G, J) ends of the 95 % interval, from one of log S itself where S is 1; NaN where nobody survives."""
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            log, spread = np.log(self.survival), NORMAL_95 * np.sqrt(self.greenwood + log_noise)
            width = spread / log
            middle = np.log(-log)
            low, high = np.exp(-np.exp(middle - width)), np.exp(-np.exp(middle + width))
        there = (self.survival > 0) & (self.survival < 1)
        one = self.survival == 1
        edges = np.where(one, np.exp(-np.where(one, spread, 0.0)), np.nan), np.where(one, 1.0, np.nan)
        return np.where(there, low, edges[0]), np.where(there, high, edges[1])


def median(survival: Floats, ends: Floats) -> Floats:
    """(G,) the first end at which at most a half survives; NaN where there is none.

    >>> median(np.array([[0.75, 0.5, 0.2], [0.9, 0.8, 0.7]]), np.array([1.0, 2.0, 3.0])).tolist()
    [2.0, nan]
    """
    low = survival <= HALF
    if not low.any():
        return np.full(len(survival), np.nan)
    return np.where(low.any(axis=-1), ends[low.argmax(axis=-1)], np.nan)


def restricted_mean(curve: Survival, ends: Floats, until: float, start: float) -> tuple[Floats, Floats]:
    """(G,) mean time up to a limit, and its standard error: the areas under the curves from 0, or before it from the
    start of the grid.

    >>> one = Survival.of(np.array([[1.0, 0.0]]), np.array([[2.0, 2.0]]))
    >>> restricted_mean(one, np.array([1.0, 3.0]), 2.0, 0.0)[0].tolist()
    [1.75]
    """
    edges = np.minimum(np.concatenate([[min(start, 0.0)], ends]), until)
    widths = np.append(np.diff(edges), until - edges[-1])
    heights = np.concatenate([np.ones((len(curve.survival), 1)), curve.survival], axis=1)
    areas = heights * widths
    after = at_risk(areas)[:, 1:]  # from each interval's end to the limit
    terms = np.diff(curve.greenwood, axis=1, prepend=0.0)
    with np.errstate(invalid="ignore"):
        variance = np.where(after > 0, after**2 * terms, 0.0).sum(axis=1)
    return areas.sum(axis=1), np.sqrt(variance)


@dataclass(frozen=True)
class LogRank:
    """A test that groups have the same hazard.

    Attributes:
        observed, expected: events of each group.
        chi2, degrees, p_value: NaN, 0 and NaN where nothing tells groups apart.
    """

    observed: Floats
    expected: Floats
    chi2: float
    degrees: int
    p_value: float


def log_rank(events: Floats, leaving: Floats) -> LogRank:
    """The test within strata, from (S, G, J) people with an event, and people who leave with or without one."""
    n_g, d_g = at_risk(leaving), events
    n, d = n_g.sum(axis=1), d_g.sum(axis=1)
    able = n > 0
    part = n_g / np.where(able, n, 1.0)[:, None, :]
    expected = np.einsum("sgj,sj->g", part, d)
    observed = d_g.sum(axis=(0, 2))
    spread = np.where(n > 1, d * (n - d) / np.where(n > 1, n - 1, 1.0), 0.0)
    shared = np.einsum("sj,sgj,shj->gh", spread, part, part)
    variance = np.diag(np.einsum("sj,sgj->g", spread, part)) - shared
    told = np.flatnonzero(np.diagonal(variance) > 0)
    if len(told) < 2:
        return LogRank(observed, expected, math.nan, 0, math.nan)
    some = told[:-1]
    away = (observed - expected)[some]
    chi2 = float(away @ np.linalg.solve(variance[np.ix_(some, some)], away))
    degrees = len(some)
    return LogRank(observed, expected, chi2, degrees, float(special.chdtrc(degrees, chi2)))


@dataclass(frozen=True, eq=False)
class Incidence:
    """Cumulative incidences of competing causes.

    Attributes:
        risk, survival: (G, J) people at risk, and who had no event of any cause, at the interval's end.
        incidence: (K, G, J).
        variance: (K, G, J) of it.
    """

    risk: Floats
    survival: Floats
    incidence: Floats
    variance: Floats

    @staticmethod
    def of(causes: Floats, leaving: Floats) -> Incidence:
        """From (K, G, J) people with an event of each cause, and (G, J) who leave with or without one."""
        d = causes.sum(axis=0)
        curve = Survival.of(d, leaving)
        n = np.where(curve.risk > 0, curve.risk, 1.0)
        before = np.concatenate([np.ones((len(d), 1)), curve.survival[:, :-1]], axis=1)
        steps = before * causes / n
        incidence = np.cumsum(steps, axis=-1)
        with np.errstate(divide="ignore", invalid="ignore"):
            first = np.where(n > d, d / (n * (n - d)), 0.0)  # nothing is left to change where all have had an event
        second = before**2 * causes * (n - causes) / n**3
        third = steps / n
        # sum over earlier intervals of (F(t) - F)^2 a and of (F(t) - F) b, by running sums of powers of F
        a = [np.cumsum(incidence**power * first, axis=-1) for power in (0, 1, 2)]
        b = [np.cumsum(incidence**power * third, axis=-1) for power in (0, 1)]
        squares = incidence**2 * a[0] - 2 * incidence * a[1] + a[2]
        variance = squares + np.cumsum(second, axis=-1) - 2 * (incidence * b[0] - b[1])
        return Incidence(curve.risk, curve.survival, incidence, np.maximum(variance, 0.0))

    def interval(self) -> tuple[Floats, Floats]:
        """(K, G, J) ends of the 95 % interval on the scale of log(-log F); 0 to 0 before the first event."""
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            log = np.log(self.incidence)
            width = NORMAL_95 * np.sqrt(self.variance) / (self.incidence * np.abs(log))
            middle = np.log(-log)
            low, high = np.exp(-np.exp(middle + width)), np.exp(-np.exp(middle - width))
        there = (self.incidence > 0) & (self.incidence < 1)
        edge = np.where(self.incidence > 0, np.nan, 0.0)
        return np.where(there, low, edge), np.where(there, high, edge)
