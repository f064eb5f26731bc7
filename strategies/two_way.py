"""Tests and measures of tables of counts: chi-square, Fisher's exact test, odds ratios, Cramer's V, Mantel-Haenszel.

[1] Woolf: On estimating the relation between blood group and disease, Annals of Human Genetics 19 (1955).
[2] Cornfield: A statistical problem arising from retrospective studies, Third Berkeley Symposium 4 (1956).
[3] Robins, Breslow, Greenland: Estimators of the Mantel-Haenszel variance consistent in both sparse data and large
    strata limiting models, Biometrics 42 (1986), equation 4.
[4] Armitage: Tests for linear trends in proportions and frequencies, Biometrics 11 (1955).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special
from scipy.optimize import brentq

from strategies.analyses.allele_frequency import NORMAL_95

MOST_TABLES = 500_000
"""Tables, or beginnings of them, that an exact test of more than two rows or columns may walk through."""

Counts = NDArray[np.int64]


@dataclass(frozen=True)
class Ratio:
    """An odds ratio and its 95 % interval; NaN where there is none."""

    estimate: float
    low: float
    high: float


NO_RATIO = Ratio(math.nan, math.nan, math.nan)


def chi_square(counts: NDArray[np.float64]) -> tuple[float, int, float]:
    """Pearson's chi-square, its degrees of freedom and p, without a correction; empty rows and columns do not count.

    >>> statistic, degrees, p = chi_square(np.array([[10.0, 20.0], [20.0, 10.0]]))
    >>> round(statistic, 6), degrees, round(p, 6)
    (6.666667, 1, 0.009823)
    """
    counts = counts[counts.sum(axis=1) > 0][:, counts.sum(axis=0) > 0]
    if min(counts.shape) < 2:
        return math.nan, 0, math.nan
    degrees = (counts.shape[0] - 1) * (counts.shape[1] - 1)
    expected = np.outer(counts.sum(axis=1), counts.sum(axis=0)) / counts.sum()
    statistic = float(((counts - expected) ** 2 / expected).sum())
    return statistic, degrees, float(special.chdtrc(degrees, statistic))


def cramers_v(counts: NDArray[np.float64]) -> float:
    """Cramer's V, without a correction of its bias; NaN where chi-square is."""
    counts = counts[counts.sum(axis=1) > 0][:, counts.sum(axis=0) > 0]
    statistic, degrees, _ = chi_square(counts)
    return math.sqrt(statistic / counts.sum() / (min(counts.shape) - 1)) if degrees else math.nan


def fisher(counts: Counts) -> float:
    """Two-sided p of Fisher's exact test: the probability, given the margins, of all tables no likelier than this one.

    Of more than two rows or columns by walking through all tables, column by column; NaN where that would be more than
    `MOST_TABLES`.

    >>> round(fisher(np.array([[8, 2], [1, 5]])), 6)
    0.034965
    """
    counts = counts[counts.any(axis=1)][:, counts.any(axis=0)]
    if min(counts.shape) < 2:
        return 1.0
    counts = counts if len(counts) <= counts.shape[1] else counts.T
    counts = counts[:, np.argsort(-counts.sum(axis=0), kind="stable")]
    rows, columns = counts.sum(axis=1), counts.sum(axis=0)
    left, chance = rows[None].copy(), np.zeros(1)  # what is left of the rows, and log probability so far
    for column in columns[:-1]:
        taken, made = left[:, :0], np.arange(len(left))
        for i in range(len(rows)):
            used = taken.sum(axis=1)
            least = np.maximum(0, column - used - left[made, i + 1 :].sum(axis=1))
            most = np.minimum(left[made, i], column - used)
            many = np.maximum(most - least + 1, 0)
            if many.sum() > MOST_TABLES:
                return math.nan
            again = np.repeat(np.arange(len(made)), many)
            offset = np.arange(len(again)) - np.repeat(np.cumsum(many) - many, many)
            taken = np.concatenate([taken[again], (least[again] + offset)[:, None]], axis=1)
            made = made[again]
        chance = chance[made] - special.gammaln(taken + 1.0).sum(axis=1)
        left = left[made] - taken
    chance = chance - special.gammaln(left + 1.0).sum(axis=1)
    margins = float(special.gammaln(rows + 1.0).sum() + special.gammaln(columns + 1.0).sum())
    margins -= float(special.gammaln(counts.sum() + 1.0))
    here = -float(special.gammaln(counts + 1.0).sum())
    no_likelier = chance <= here + 1e-7
    return min(1.0, float(np.exp(margins + chance[no_likelier]).sum()))


def woolf(counts: NDArray[np.float64]) -> Ratio:
    """The odds ratio ad / bc of a table [[a, b], [c, d]], with the interval of its logarithm [1]; NaN with a 0.

    >>> round(woolf(np.array([[20.0, 10.0], [10.0, 20.0]])).estimate, 9)
    4.0
    """
    if counts.shape != (2, 2) or not (counts > 0).all():
        return NO_RATIO
    log, error = float(np.log(counts) @ [1, -1] @ [1, -1]), math.sqrt(float((1 / counts).sum()))
    return Ratio(math.exp(log), math.exp(log - NORMAL_95 * error), math.exp(log + NORMAL_95 * error))


def conditional(counts: Counts) -> Ratio:
    """The conditional maximum likelihood odds ratio, and the exact interval given the margins [2].

    >>> ratio = conditional(np.array([[8, 2], [1, 5]]))
    >>> round(ratio.estimate, 4), round(ratio.low, 4), round(ratio.high, 2)
    (15.4658, 1.0088, 1059.64)
    """
    (a, b), (c, d) = counts.tolist()
    row, column, people = a + b, a + c, a + b + c + d
    x = np.arange(max(0, row + column - people), min(row, column) + 1, dtype=np.float64)
    if len(x) < 2:
        return NO_RATIO
    weight = -sum(special.gammaln(n + 1) for n in (x, row - x, column - x, people - row - column + x))

    def shares(log: float) -> NDArray[np.float64]:
        return np.asarray(special.softmax(weight + x * log))

    def solved(wanted: float, values: NDArray[np.float64]) -> float:
        """The odds ratio at which the mean of rising values is the wanted one."""
        far = 60.0
        if not float(shares(-far) @ values) < wanted < float(shares(far) @ values):
            return math.nan
        return math.exp(brentq(lambda log: float(shares(log) @ values) - wanted, -far, far, xtol=1e-13, rtol=1e-13))

    tail = 0.025
    estimate = 0.0 if a == x[0] else math.inf if a == x[-1] else solved(a, x)
    low = 0.0 if a == x[0] else solved(tail, (x >= a).astype(np.float64))
    high = math.inf if a == x[-1] else solved(1 - tail, (x > a).astype(np.float64))
    return Ratio(estimate, low, high)


@dataclass(frozen=True)
class Pooled:
    """What 2 x 2 tables of several strata say together.

    Attributes:
        ratio: the Mantel-Haenszel odds ratio, with the interval of [3].
        statistic, p: the Cochran-Mantel-Haenszel chi-square with one degree of freedom, without a correction.
    """

    ratio: Ratio
    statistic: float
    p: float


def mantel_haenszel(counts: NDArray[np.float64]) -> Pooled:
    """Of (S, 2, 2) counts; NaN where nothing varies within a stratum."""
    counts = counts[counts.sum(axis=(1, 2)) > 1]
    a, b, c, d = counts[:, 0, 0], counts[:, 0, 1], counts[:, 1, 0], counts[:, 1, 1]
    n = counts.sum(axis=(1, 2))
    r, s = a * d / n, b * c / n
    row, column = a + b, a + c
    variance = float((row * (n - row) * column * (n - column) / (n**2 * (n - 1))).sum())
    if not variance > 0:
        return Pooled(NO_RATIO, math.nan, math.nan)
    statistic = float((a - row * column / n).sum()) ** 2 / variance
    ratio = NO_RATIO
    if r.sum() > 0 and s.sum() > 0:
        p, q = (a + d) / n, (b + c) / n
        spread = (p * r).sum() / (2 * r.sum() ** 2) + (q * s).sum() / (2 * s.sum() ** 2)
        spread += (p * s + q * r).sum() / (2 * r.sum() * s.sum())
        log, error = math.log(r.sum() / s.sum()), math.sqrt(float(spread))
        ratio = Ratio(math.exp(log), math.exp(log - NORMAL_95 * error), math.exp(log + NORMAL_95 * error))
    return Pooled(ratio, statistic, float(special.chdtrc(1, statistic)))


def trend(counts: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Cochran-Armitage chi-square [4] of (..., 2, K) tables with the scores 0 to K - 1, and p; NaN where none.

    It is the score test of a logistic regression on the scores.

    >>> statistic, p = trend(np.array([[40.0, 30.0, 10.0], [20.0, 30.0, 25.0]]))
    >>> round(float(statistic), 5), round(float(p), 6)
    (12.86628, 0.000335)
    """
    scores, people, cases = np.arange(counts.shape[-1]), counts.sum(axis=(-2, -1)), counts[..., 1, :].sum(axis=-1)
    by_score = counts.sum(axis=-2)
    with np.errstate(divide="ignore", invalid="ignore"):
        share, mean = cases / people, (by_score @ scores) / people
        score = counts[..., 1, :] @ scores - share * (by_score @ scores)
        variance = share * (1 - share) * ((by_score @ scores**2) - people * mean**2)
        statistic = np.where(variance > 1e-12 * np.maximum(people, 1), score**2 / variance, np.nan)
    return statistic, special.chdtrc(1, statistic)


def noised_chi_square(counts: NDArray[np.float64], noise: float) -> tuple[float, int, float]:
    """A chi-square of independence that knows of the noise in each cell, its degrees of freedom and p.

    Deviations from independence are d = A n for n the cells and A = (I - r 1') x (I - c 1') with the shares r and c of
    rows and columns; their variance is A (N diag(rc) + noise^2 I) A', and d' V^+ d is chi-square. Without noise it is
    Pearson's. NaN where a row or column is lost in the noise of its sum.

    >>> table = np.array([[10.0, 20.0], [20.0, 10.0]])
    >>> round(noised_chi_square(table, 0.0)[0], 6), round(noised_chi_square(table, 5.0)[0], 6)
    (6.666667, 2.5)
    """
    rows, columns, people = counts.sum(axis=1), counts.sum(axis=0), float(counts.sum())
    degrees = (counts.shape[0] - 1) * (counts.shape[1] - 1)
    least = 2 * noise * np.sqrt([counts.shape[1], counts.shape[0]])
    if degrees < 1 or not ((rows > least[0]).all() and (columns > least[1]).all()):
        return math.nan, degrees, math.nan
    r, c = rows / people, columns / people
    project = np.kron(np.eye(len(r)) - np.outer(r, np.ones_like(r)), np.eye(len(c)) - np.outer(c, np.ones_like(c)))
    variance = project @ np.diag(people * np.kron(r, c) + noise**2) @ project.T
    apart = project @ counts.ravel()
    values, vectors = np.linalg.eigh(variance)
    there = slice(len(values) - degrees, None)
    statistic = float(((vectors.T @ apart)[there] ** 2 / values[there]).sum())
    return statistic, degrees, float(special.chdtrc(degrees, statistic))


def noised_woolf(counts: NDArray[np.float64], noise: float) -> Ratio:
    """As `woolf`, with the noise of each cell in the interval; NaN where a cell is below two deviations of the noise.

    >>> table = np.array([[90.0, 30.0], [40.0, 80.0]])
    >>> round(noised_woolf(table, 0.0).low - woolf(table).low, 9), round(noised_woolf(table, 5.0).low, 3)
    (0.0, 2.941)
    """
    if counts.shape != (2, 2) or not ((counts > 0) & (counts >= 2 * noise)).all():
        return NO_RATIO
    log = float(np.log(counts) @ [1, -1] @ [1, -1])
    error = math.sqrt(float((1 / counts + (noise / counts) ** 2).sum()))
    return Ratio(math.exp(log), math.exp(log - NORMAL_95 * error), math.exp(log + NORMAL_95 * error))
