"""Cox's partial likelihood from sums over the people who leave in each interval of time, ties by Efron.

Of w = exp(x b), let R be the sums of w (1, x, xx') over those at risk in an interval, which are running sums of the
leavers', and D the same over its d deaths. With c = l / d for l = 0 .. d - 1 and phi_c = R_0 - c D_0 [1, section 4.3],

    l(b) = sum_deaths x b - sum log phi_c
    U    = sum_deaths x   - sum z_c,                          z_c = (R_1 - c D_1) / phi_c
    I    = sum (R_2 - c D_2) / phi_c - z_c z_c'

so that sums of 1 / phi, c / phi and of their products are all that a tie of many deaths takes. The test of proportional
hazards is the score test of a coefficient x g(t) beside x [2], with g centred at its mean over deaths.

[1] Efron: The efficiency of Cox's likelihood function for censored data, JASA 72 (1977).
[2] Grambsch, Therneau: Proportional hazards tests and diagnostics based on weighted residuals, Biometrika 81 (1994),
    section 2; as `cox.zph` of R's survival package has it since 3.0.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

MOST_SUM = 2**54
"""Integers of a sum beyond it are as good as held at a site: 2^62 over up to 256 sites."""


@dataclass(frozen=True, eq=False)
class Efron:
    """The partial likelihood of S strata at some b, of k columns.

    Attributes:
        value: its logarithm; NaN if the sums are none of people.
        parts: (S, J, k) by which each interval adds to its gradient.
        information: (S, J, k, k) and to the negative second derivatives.
        risk: (S, J) R_0.
    """

    value: float
    parts: Floats
    information: Floats
    risk: Floats

    @staticmethod
    def of(leaving: Integers, dying: Integers, columns: Integers, deaths: Integers, b: Floats, bits: int) -> Efron:
        """From (S, J, q) sums over leavers and deaths, (S, J, k) over deaths' columns, and (S, J) deaths."""
        k, unit = len(b), 2.0**-bits
        risk = np.cumsum(leaving[:, ::-1], axis=1)[:, ::-1].astype(np.float64) * unit
        whole = max((int(abs(a).max(initial=0)) for a in (leaving, dying)), default=0)
        R, D, x = _square(risk, k), _square(dying.astype(np.float64) * unit, k), columns * unit
        parts, information = np.zeros(x.shape), np.zeros((*x.shape, k))
        value, sane = float((x @ b).sum()), whole < MOST_SUM
        for place in zip(*np.nonzero(deaths), strict=True):
            c = np.arange(deaths[place]) / deaths[place]
            r, d = R[place], D[place]
            phi = r[0, 0] - c * d[0, 0]
            sane &= bool((phi > 0).all())
            if not sane:
                break
            value -= float(np.log(phi).sum())
            one, two = 1 / phi, 1 / phi**2
            a0, a1 = float(one.sum()), float((c * one).sum())
            b0, b1, b2 = float(two.sum()), float((c * two).sum()), float((c * c * two).sum())
            cross = np.outer(r[0, 1:], d[0, 1:])
            parts[place] = x[place] - (a0 * r[0, 1:] - a1 * d[0, 1:])
            information[place] = a0 * r[1:, 1:] - a1 * d[1:, 1:]
            information[place] -= b0 * np.outer(r[0, 1:], r[0, 1:]) - b1 * (cross + cross.T)
            information[place] -= b2 * np.outer(d[0, 1:], d[0, 1:])
        return Efron(value if sane else math.nan, parts, information, R[..., 0, 0])

    @property
    def gradient(self) -> Floats:
        return np.asarray(self.parts.sum(axis=(0, 1)))

    @property
    def whole(self) -> Floats:
        """(k, k) the information."""
        return np.asarray(self.information.sum(axis=(0, 1)))

    def proportional(self, times: Floats, deaths: Integers) -> tuple[Floats, Floats]:
        """(k + 1,) chi-squares of the test of each column and, last, of all together, with their degrees of freedom.

        Args:
            times: (J,) g(t) of each interval.
            deaths: (S, J).
        """
        k = self.parts.shape[-1]
        g = times - float((deaths * times).sum() / max(deaths.sum(), 1))
        score = np.einsum("sjk,j->k", self.parts, g)
        inner, mixed, outer = (np.einsum("sjkl,j->kl", self.information, g**power) for power in (0, 1, 2))
        variance = outer - mixed @ np.linalg.pinv(inner) @ mixed
        degrees, out = np.append(np.ones(k), k), np.full(k + 1, np.nan)
        for at in range(k):
            if variance[at, at] > 0:
                out[at] = score[at] ** 2 / variance[at, at]
        if k and np.linalg.eigvalsh(variance)[0] > 0:
            out[k] = score @ np.linalg.solve(variance, score)
        return out, degrees


def tail(chi2: Floats | float, degrees: Floats | float) -> Floats:
    """P values of chi-squares; NaN without one."""
    return np.asarray(special.chdtrc(degrees, chi2), dtype=np.float64)


def _square(upper: Floats, k: int) -> Floats:
    """(..., 1 + k, 1 + k) symmetric matrices from their upper triangles."""
    i, j = np.triu_indices(1 + k)
    out = np.zeros((*upper.shape[:-1], 1 + k, 1 + k))
    out[..., i, j] = out[..., j, i] = upper
    return out
