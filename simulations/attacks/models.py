"""Membership from a trained classifier: what it says about its own training people, and what its rounds gave away.

Loss [1]: a person whom the model fits well is taken for one that it was trained on; in closed form for every network
here, -log(1 + exp(-(2y - 1) f(x))). Shadow models [2]: the same model is trained again on people drawn at random; a
person's confidence (2y - 1) f(x) in the model attacked is held against the two normals that it follows in the shadow
models trained with and without that person. Shadows differ from the model in people and noise alone.

Rounds [3]: somebody who sees every noised sum of gradients (the coordinator) needs no model. Let S be all rounds' sums
in a row, g a person's gradients in a row at the rounds' public weights, m and C the mean and covariance of g over
public people, and s the noise's deviations. With V = n C + diag(s^2) the log-likelihood ratio of two normals is

    (g - m)' V^-1 (S - n m) - (g - m)' V^-1 (g - m) / 2.

[1] Yeom et al.: Privacy Risk in Machine Learning, CSF 2018, adversary 2.
[2] Carlini et al.: Membership Inference Attacks From First Principles, IEEE S&P 2022, algorithm 1 with global variance.
[3] Nasr et al.: Adversary Instantiation, IEEE S&P 2021, section IV: the adversary that sees intermediate updates.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def losses(confidence: NDArray[np.float64]) -> NDArray[np.float64]:
    """(N,) logistic losses of (N,) confidences (2y - 1) f(x); the lower, the likelier a member.

    >>> losses(np.array([0.0])).round(4).tolist()
    [0.6931]
    """
    return np.asarray(np.logaddexp(0.0, -confidence), dtype=np.float64)


def shadow_ratio(
    confidence: NDArray[np.float64], shadows: NDArray[np.float64], inside: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """(N,) log-likelihood ratios of membership [2].

    Args:
        confidence: (N,) of the model attacked.
        shadows: (K, N) of K shadow models.
        inside: (K, N) whether each was trained on each person; at least one with and one without everybody.

    Returns:
        the ratios. With few shadows a variance of one's own would be all noise, so that all people share two.
    """
    assert shadows.shape == inside.shape == (len(shadows), len(confidence))
    log_density = []
    for chosen in (inside, ~inside):
        count = chosen.sum(axis=0)
        mean = np.where(chosen, shadows, 0.0).sum(axis=0) / count
        squares = np.where(chosen, (shadows - mean) ** 2, 0.0).sum()
        variance = squares / max(int((count - 1).sum()), 1)
        log_density.append(-((confidence - mean) ** 2) / (2 * variance) - np.log(variance) / 2)
    return np.asarray(log_density[0] - log_density[1], dtype=np.float64)


def rounds_ratio(
    sums: NDArray[np.float64],
    noise_sd: NDArray[np.float64],
    gradients: NDArray[np.float64],
    reference: NDArray[np.float64],
    people: float,
) -> NDArray[np.float64]:
    """(N,) log-likelihood ratios of membership from the noised sums of every round [3].

    Args:
        sums: (D,) released sums, T rounds of d parameters in a row.
        noise_sd: (D,) deviation of the noise in each, above 0.
        gradients: (N, D) the targets' clipped gradients.
        reference: (K, D) those of public people like them.
        people: n.
    """
    mean = reference.mean(axis=0)
    v = people * np.cov(reference, rowvar=False) + np.diag(noise_sd**2)
    moved = gradients - mean
    weighted = np.linalg.solve(v, moved.T).T
    return np.asarray(weighted @ (sums - people * mean) - (weighted * moved).sum(axis=1) / 2, dtype=np.float64)
