"""How well scores tell members from others: ROC, its area, the members found at few false alarms, and an epsilon that
the release cannot be below; beside them what theory allows.

[1] DeLong, DeLong, Clarke-Pearson: Comparing the areas under two or more correlated ROC curves, Biometrics 44 (1988).
[2] Carlini et al.: Membership Inference Attacks From First Principles, IEEE S&P 2022, section IV-A.
[3] Clopper, Pearson: The use of confidence or fiducial limits, Biometrika 26 (1934).
[4] Jagielski, Ullman, Oprea: Auditing Differentially Private Machine Learning, NeurIPS 2020, section 3.
[5] Steinke, Nasr, Jagielski: Privacy Auditing with One (1) Training Run, NeurIPS 2023.
[6] Sankararaman et al.: Genomic privacy and limits of individual detection in a pool, Nature Genetics 41 (2009).
[7] Dong, Roth, Su: Gaussian Differential Privacy, JRSS B 84 (2022), theorem 1 and corollary 3.3.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from fl_server.results.attack import MeasuredAttack
from strategies.privacy import Budget

CONFIDENCE = 0.95


def roc(members: NDArray[np.float64], others: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """False and true positive rates of every threshold, from (0, 0) to (1, 1).

    >>> [rates.tolist() for rates in roc(np.array([3.0, 1.0]), np.array([2.0, 0.0]))]
    [[0.0, 0.0, 0.5, 0.5, 1.0], [0.0, 0.5, 0.5, 1.0, 1.0]]
    """
    thresholds = np.unique(np.concatenate([members, others]))[::-1]
    above = [(len(s) - np.searchsorted(np.sort(s), thresholds, side="left")) / len(s) for s in (others, members)]
    false, true = (np.concatenate([[0.0], rates]) for rates in above)
    return false, true


def auc(members: NDArray[np.float64], others: NDArray[np.float64]) -> float:
    """The chance that a random member scores above a random other person; ties count half.

    >>> auc(np.array([2.0, 3.0]), np.array([1.0, 2.0]))
    0.875
    """
    return float(_beaten(members, others).mean())


def interval(members: NDArray[np.float64], others: NDArray[np.float64]) -> tuple[float, float]:
    """95 % interval of the AUC [1, equation 5], within [0, 1].

    Where nobody, or everybody, is beaten, the variance of [1] is zero and says nothing. Pairs of one member and one
    other person, each used once, are independent; the interval is then theirs [3].
    """
    area = auc(members, others)
    n1, n0 = len(members), len(others)
    if area in (0.0, 1.0):
        pairs = min(n1, n0)
        return clopper_pearson(round(area * pairs), pairs)
    variance = _spread(_beaten(members, others)) / n1 + _spread(1 - _beaten(others, members)) / n0
    reach = float(stats.norm.ppf(0.5 + CONFIDENCE / 2)) * math.sqrt(variance)
    return max(0.0, area - reach), min(1.0, area + reach)


def mean_interval(areas: NDArray[np.float64]) -> tuple[float, float]:
    """95 % interval of the mean of at least two repeats' AUC, by Student's t."""
    reach = stats.t.ppf(0.5 + CONFIDENCE / 2, len(areas) - 1) * areas.std(ddof=1) / math.sqrt(len(areas))
    return max(0.0, float(areas.mean() - reach)), min(1.0, float(areas.mean() + reach))


def found(members: NDArray[np.float64], others: NDArray[np.float64], false_alarms: float) -> float:
    """The share of members above the lowest threshold that at most this share of the others pass [2].

    With fewer than 1 / false_alarms others none may pass, so the figure is then too small rather than too large.

    >>> found(np.array([1.0, 3.0, 5.0]), np.array([0.0, 2.0, 4.0]), 0.01)
    0.3333333333333333
    """
    false, true = roc(members, others)
    return float(true[false <= false_alarms].max())


def epsilon_at_least(members: NDArray[np.float64], others: NDArray[np.float64], delta: float) -> float:
    """A lower bound on epsilon at `delta`, with 95 % confidence over people [4]; 0 where the scores show none.

    (epsilon, delta) implies TPR <= e^epsilon FPR + delta at every threshold, and the same of both rates' complements.
    The threshold is chosen on every second person, the rates are bounded on the rest by [3]. People of one release
    share its noise, so that the confidence is over people and not over releases; [5] treats that case.
    """
    thresholds = np.unique(np.concatenate([members[::2], others[::2]]))
    tried = _bounds(members[::2], others[::2], delta, thresholds)
    side, best = np.unravel_index(int(np.argmax(tried)), tried.shape)
    return max(0.0, float(_bounds(members[1::2], others[1::2], delta, thresholds[[best]])[side, 0]))


def clopper_pearson(successes: int, trials: int) -> tuple[float, float]:
    """Exact two-sided 95 % interval of a probability [3].

    >>> [round(end, 4) for end in clopper_pearson(25, 25)]
    [0.8628, 1.0]
    """
    low, high = _limits(np.array([successes]), trials)
    return float(low[0]), float(high[0])


def without_noise(variants: float, people: float) -> float:
    """AUC of the likelihood ratio test on exact frequencies of independent variants and a known reference [6]:
    Phi(sqrt(M / 2n)).

    >>> round(without_noise(500, 1000), 4)
    0.6915
    """
    return float(stats.norm.cdf(math.sqrt(variants / (2 * people))))


def at_most(rho: float) -> float:
    """AUC that no attack on Gaussian noise of loss rho passes: it is sqrt(2 rho)-GDP, so Phi(sqrt(rho)) [7].

    >>> round(at_most(0.25), 4)
    0.6915
    """
    return float(stats.norm.cdf(math.sqrt(rho)))


def measured(
    attack: str,
    reference: str,
    members: NDArray[np.float64],
    others: NDArray[np.float64],
    synthetic: bool,
    budget: Budget | None,
) -> MeasuredAttack:
    """All figures of one attack.

    Args:
        attack, reference: what is done and what the attacker compares with, in words.
        members, others: scores of people who took part and of people who did not, at least two each.
        synthetic: whether the people were made up.
        budget: what the release was allowed to cost; None if it was exact.
    """
    low, high = interval(members, others)
    return MeasuredAttack(
        attack,
        reference,
        len(members),
        len(others),
        synthetic,
        auc(members, others),
        low,
        high,
        found(members, others, 1e-2),
        found(members, others, 1e-3),
        epsilon_at_least(members, others, budget.delta if budget else 0.0),
        at_most(budget.loss.rho) if budget else None,
    )


def _beaten(scores: NDArray[np.float64], opponents: NDArray[np.float64]) -> NDArray[np.float64]:
    """The share of opponents that each score beats; ties count half."""
    ordered = np.sort(opponents)
    below, up_to = (np.searchsorted(ordered, scores, side=side) for side in ("left", "right"))
    return np.asarray((below + up_to) / (2 * len(opponents)), dtype=np.float64)


def _spread(values: NDArray[np.float64]) -> float:
    return float(values.var(ddof=1)) if len(values) > 1 else 0.25  # the widest that values in [0, 1] can be


def _limits(successes: NDArray[np.int64], trials: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    tail = (1 - CONFIDENCE) / 2
    low = np.where(successes > 0, stats.beta.ppf(tail, np.maximum(successes, 1), trials - successes + 1), 0.0)
    high = np.where(successes < trials, stats.beta.ppf(1 - tail, successes + 1, np.maximum(trials - successes, 1)), 1.0)
    return low, high


def _bounds(
    members: NDArray[np.float64], others: NDArray[np.float64], delta: float, thresholds: NDArray[np.float64]
) -> NDArray[np.float64]:
    """(2, T) the bound of [4] at each of T thresholds, for scores above it and for scores up to it."""
    n1, n0 = len(members), len(others)
    m, o = (len(s) - np.searchsorted(np.sort(s), thresholds, side="right") for s in (members, others))
    above = _ratio(_limits(m, n1)[0], _limits(o, n0)[1], delta)
    up_to = _ratio(_limits(n0 - o, n0)[0], _limits(n1 - m, n1)[1], delta)
    return np.stack([above, up_to])


def _ratio(likely: NDArray[np.float64], unlikely: NDArray[np.float64], delta: float) -> NDArray[np.float64]:
    return np.asarray(np.log(np.maximum(likely - delta, 1e-300) / unlikely), dtype=np.float64)
