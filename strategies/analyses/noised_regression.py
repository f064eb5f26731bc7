"""Linear regression of an outcome on a formula's columns, from noised sums of products.

One round. A person's row z is 1, the formula's columns and the response, each mapped from its public range to [-1, 1];
she adds the products of each two of them. With noised sums A of the columns' own products and b of those with the
response, of p coefficients,

    beta = A^-1 b,    beta - beta_0 = A^-1 (X' e + r),    r = E_b - E_A beta_0,

where beta_0 is what people are drawn from, e their residuals and E the noise, tau wide in each entry: exactly so, as
b = X' y + E_b and A = X' X + E_A. The noise of an entry above the diagonal stands below it, too, hence

    Var r = tau^2 ((1 + |beta_0|^2) I + beta_0 beta_0' - diag(beta_0^2)),
    Var beta ~ A^-1 (s^2 A + Var r) A^-1,

with beta in the place of beta_0 and A in that of X' X, and as if A and r were independent: delta method. The residual
sum of squares v' M v, v = (-beta, 1) and M all noised sums, is short of the true one by tr(A^-1 Var r), which is given
back; its noise has the variance tau^2 (2 |v|^4 - sum v^4), and it is taken to be at least that wide.

Where the least eigenvalue of A is below tau sqrt(p log(2 p^2 / 0.05)), about as large as noise makes one, a ridge lifts
it there [1, algorithm 1; theirs is of an eigenvalue with noise of its own, ours of the noised matrix, which costs
nothing]. Coefficients are then drawn towards 0 by nobody knows how much: standard errors, tests and intervals are NaN.
So it is with columns that explain one another, or narrow within their ranges, and with too few people.

Other distributions take rounds that follow from one another; `train` fits a logistic model privately.

[1] Wang: Revisiting differentially private linear regression: optimal and adaptive prediction and estimation in
    unbounded domain, UAI 2018.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from strategies import formula, newton
from strategies.analyses.regression import PEOPLE_AT_A_TIME
from strategies.analysis import NAMES_COLUMN, NAMES_COLUMNS_IN_FORMULA, WHOLE, Answer, Frame, Needs, Total
from strategies.coefficients import Coefficients
from strategies.cohort import Cohort
from strategies.families import Family
from strategies.model_matrix import ModelMatrix
from strategies.privacy import Regime
from strategies.summary import Field, Summary

Floats = NDArray[np.float64]

PRODUCT_BITS = 16

FAILURE = 0.05
"""Of [1]: the probability that noise alone has a longer eigenvalue than the ridge counts on."""

LEAST_EIGENVALUE = 1e-6
"""Of sums of products without noise, which are solved all the same."""


@dataclass(frozen=True)
class NoisedRegression:
    """Coefficients of a linear model, with standard errors that count on sampling and noise.

    Attributes:
        response, formula: as of the exact one.
        distribution: gaussian.
    """

    analysis: ClassVar[str] = "regression"
    regime: ClassVar[Regime] = Regime.PRIVATE
    by_site: ClassVar[bool] = True
    summary_in_words: ClassVar[str] = (
        "noised sums of products of each two of 1, the formula's columns and the response, in units of half their "
        "public ranges"
    )

    response: str = field(metadata=NAMES_COLUMN)
    formula: str = field(metadata=NAMES_COLUMNS_IN_FORMULA)
    distribution: Family = Family.GAUSSIAN

    def __post_init__(self) -> None:
        if self.response in formula.parse(self.formula).columns:
            raise ValueError("the response is not a column of the formula.")
        if self.distribution is not Family.GAUSSIAN:
            raise ValueError(
                f"a private regression is of a gaussian outcome, not {self.distribution.value}: its rounds would "
                "follow from one another, and each need noise of its own. `train` fits a logistic model privately; "
                "ask other regressions exactly."
            )

    def needs(self) -> Needs:
        return Needs(columns=(self.response, *formula.parse(self.formula).columns))

    def rounds(self) -> int:
        return 1

    def fraction(self) -> float:
        return 1.0

    def slices(self, frame: Frame) -> tuple[slice, ...]:
        return WHOLE

    def _matrix(self, frame: Frame) -> ModelMatrix:
        span = frame.columns[self.response]
        terms = formula.parse(self.formula).over(frame.columns)
        return ModelMatrix.of(terms, ((span.minimum, span.maximum),), np.zeros(0), np.zeros(0))

    def leaves(self, frame: Frame) -> dict[str, Field]:
        entries = 1 + len(self._matrix(frame).low)
        size = entries * (entries + 1) // 2
        words = "products of each two of 1, the columns and the response, in units of half their ranges"
        return {"products": Field((size,), words, size, size**0.5, PRODUCT_BITS)}

    def summarise(self, cohort: Cohort, frame: Frame) -> Summary:
        matrix, products = self._matrix(frame), self.leaves(frame)["products"]
        i, j = np.triu_indices(1 + len(matrix.low))
        inside, out = np.flatnonzero(cohort.complete), np.zeros(products.shape, dtype=np.int64)
        for start in range(0, len(inside), PEOPLE_AT_A_TIME):
            some = inside[start : start + PEOPLE_AT_A_TIME]
            columns = {name: np.ascontiguousarray(cohort.columns[name][some]) for name in self.needs().columns}
            unit = matrix.unit(columns, (columns[self.response],))
            z = np.concatenate([np.ones((len(unit), 1)), unit], axis=1)
            out += products.integers(z[:, i] * z[:, j]).sum(axis=0)
        return {"products": out}

    def withhold(self, sums: Summary, minimum_cell: int) -> Summary:
        return sums

    def conclude(self, total: Total, frame: Frame) -> Answer:
        matrix, noise = self._matrix(frame), total.noise.get("products", 0.0)
        names = matrix.terms.names
        whole = newton.symmetric(self.leaves(frame)["products"].values(total.sums["products"]), 1 + len(matrix.low))
        people, sought = float(whole[0, 0]), whole[not matrix.terms.intercept :, not matrix.terms.intercept :]
        estimate, covariance, variance, ridge = solved(sought, noise, people)
        half = float(matrix.half[-1])
        own = matrix.own_units(len(names)) * half
        values = own @ estimate
        if matrix.terms.intercept:
            values[0] += matrix.middle[-1]
        table = Coefficients(names, values, own @ covariance @ own.T).table(False)
        facts: dict[str, float | int | str] = {
            "people": people,
            "people_noise_sd": noise,
            "product_noise_sd": noise,
            "response": self.response,
            "formula": self.formula,
            "distribution": self.distribution.value,
            "errors": "noised",
            "effect": "coefficient",
            "problem": "none",
            "dispersion": variance * half**2,
            "ridge": ridge,
        }
        return Answer({"coefficients": table}, facts)


def solved(products: Floats, noise: float, people: float) -> tuple[Floats, Floats, float, float]:
    """(p,) coefficients, their (p, p) covariance, the variance of a residual, and the ridge; covariance and variance
    are NaN where there is a ridge.

    Args:
        products: (p + 1, p + 1) noised sums of products of the columns and of the response, which is last.
        noise: standard deviation of each.
        people: their noised number.

    >>> estimate, covariance, variance, ridge = solved(np.array([[100.0, 20.0], [20.0, 50.0]]), 1.0, 101.0)
    >>> float(estimate[0]), round(float(covariance[0, 0]), 6), ridge
    (0.2, 0.004705, 0.0)
    """
    p = len(products) - 1
    a, b = products[:p, :p], products[:p, p]
    enough = max(noise * math.sqrt(p * math.log(2 * p**2 / FAILURE)), LEAST_EIGENVALUE)
    ridge = max(enough - float(np.linalg.eigvalsh(a)[0]), 0.0)
    estimate = np.asarray(np.linalg.solve(a + ridge * np.eye(p), b), dtype=np.float64)
    if ridge:
        return estimate, np.full((p, p), np.nan), math.nan, ridge
    inverse = np.linalg.inv(a)
    square = estimate**2
    residual = noise**2 * ((1 + square.sum()) * np.eye(p) + np.outer(estimate, estimate) - np.diag(square))
    v = np.append(-estimate, 1.0)
    width = noise * math.sqrt(2 * float((v**2).sum()) ** 2 - float((v**4).sum()))
    left = max(float(v @ products @ v + np.trace(inverse @ residual)), width)
    variance = left / max(people - p, 1.0)
    covariance: Floats = inverse * variance + inverse @ residual @ inverse
    return estimate, covariance, variance, ridge
