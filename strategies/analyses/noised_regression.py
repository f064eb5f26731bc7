"""Linear, logistic and Poisson regression of an outcome on a formula's columns, from noised sums.

A person's row x is 1 and the formula's columns, each mapped from its public range to [-1, 1]; y is the outcome.

1. *products*  of each two of x, the exposure and y, all mapped so. For gaussian outcomes, of p coefficients,

                   beta = A^-1 b,   beta - beta_0 = A^-1 (X' e + E_b - E_A beta_0),

               where beta_0 is what people are drawn from, e their residuals and E the noise, and
               Var beta ~ A^-1 (s^2 A + Var (E_b - E_A beta)) A^-1: see `strategies/noised_system.py`. The residual sum
               of squares v' M v, v = (-beta, 1) and M all noised sums, is short of the true one by tr(A^-1 Var ...),
               which is given back; its noise has the variance tau^2 (2 |v|^4 - sum v^4), and it is taken to be at least
               that wide. This is the answer. For other outcomes the same sums hold score and information of the model
               in which all people are alike, and the first step follows from them.
2. *steps*     Newton's method for a fixed number of rounds: noised score s = sum (y - mu) x and information
               A = sum w x x' at the last estimate [1]. With d = A^-1 s, the last step,

                   beta + d - beta_0 = A^-1 (sum (y - mu_0) x + E_s - E_A d)   but for terms of second order in d,
                   Var (beta + d) ~ A^-1 (A + Var (E_s - E_A d)) A^-1.

What one person changes: an entry of the products at most by 1; the score by |y - mu| |x|, the information by w |x|^2,
with |x| <= sqrt(p). Beside a public estimate the linear predictor has public bounds, and so have |y - mu| and w: below
1 and 1/4 of a case and a control. A count is clamped to its public range [0, C], and so is its rate mu to C, which
bends the model for those alone whose rate would be above the largest count that anybody is said to have. Noise is as
wide as C asks: state a range that holds nearly all counts, not all.

Where A does not stand out from its noise there is a ridge, and no standard errors, tests and intervals: so it is with
columns that explain one another, or narrow within their ranges, and with too few people. A step moves nobody's linear
predictor by more than a public bound; where the last one would, or is longer than noise explains, there are no
estimates. Errors count on sampling and noise, and that the model holds: counts that vary more than Poisson's are told
too narrowly.

Released once, X' X / 4 bounds the information of cases in every round [2], and scores get what that saves. Median
distance of coefficients, for half a range, from those without noise, 100 samples of 5 columns each at equal loss:

                                                                    here    bounded, 6 rounds
    5,000 people, epsilon 1, about 3 of 10 are cases                0.034   0.025
    5,000 people, epsilon 3, about 1 of 20                          0.040   0.037
    20,000 people, epsilon 1, effects 2.5 times as strong           0.012   0.054, most of it bias

so that it comes to its end too late where there is most to find, and standard errors take the information anyway.

[1] McCullagh, Nelder: Generalized Linear Models, 2nd edition (1989), section 2.5.
[2] Boehning, Lindsay: Monotonicity of quadratic-approximation algorithms, Annals of the Institute of Statistical
    Mathematics 40 (1988).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from scipy import special

from strategies import formula, newton
from strategies.analyses.regression import PEOPLE_AT_A_TIME
from strategies.analysis import DERIVED, NAMES_COLUMN, NAMES_COLUMNS_IN_FORMULA, WHOLE, Answer, Frame, Needs, Total
from strategies.coefficients import RATIOS, Coefficients, missing
from strategies.cohort import Cohort
from strategies.errors import UsageError
from strategies.families import Family, Likelihood
from strategies.model_matrix import ModelMatrix
from strategies.noised_system import NoisedSystem, held
from strategies.outcomes import cases, check_ranges
from strategies.privacy import Regime
from strategies.summary import Field, Summary, after_rounding

Floats = NDArray[np.float64]
Facts = dict[str, float | int | str]

GRID_BITS = 24
"""Fraction bits of contributions up to 1; so many fewer as larger ones are longer."""

FRACTIONS = (0.08, 0.08, 0.16, 0.68)
"""Of the loss, of the rounds of an outcome that is not gaussian: the last one's noise is in the answer, that of those
before it decides how long its step is. With a quarter each, errors are 1.4 times as wide."""

INFORMATION_SHARE = 0.4
"""Of a step's loss; the rest is the score's."""

MOST_COUNT = 1_000_000
"""Of a public range of counts: noise would be as wide."""

LEAST_MEAN = 1e-3
"""Of cases in all, and of counts, where the first step starts."""

LEAST_WEIGHT = 2.0**-10
"""That a person is said to have at most, so that noise is some steps of the grid wide even where nobody has any."""

LONGEST = 4.0
"""By which a step moves anybody's linear predictor."""

MOST_COEFFICIENT = 12.0
"""Within which estimates are held, for half a range of a column."""

UNEXPLAINED = 1e-3
"""The probability that noise alone makes a score longer than the last step is taken to be explained by."""

UNSETTLED = "the noised steps did not come to their end: columns separate the outcomes, or their effects are too strong"


@dataclass(frozen=True)
class NoisedRegression:
    """Coefficients of a linear, logistic or Poisson model, with standard errors that count on sampling and noise.

    Attributes:
        response, formula, distribution, exposure: as of the exact one; not negative_binomial.
        taken: rounds taken.
        people: their noised number.
        estimate: coefficients so far, for half a range of a column.
    """

    analysis: ClassVar[str] = "regression"
    regime: ClassVar[Regime] = Regime.PRIVATE
    by_site: ClassVar[bool] = True
    summary_in_words: ClassVar[str] = (
        "noised sums of products of each two of 1, the formula's columns and the response, in units of half their "
        "public ranges; of cases or counts, in each further round, the noised sums that a step of the regression needs"
    )

    response: str = field(metadata=NAMES_COLUMN)
    formula: str = field(metadata=NAMES_COLUMNS_IN_FORMULA)
    distribution: Family = Family.GAUSSIAN
    exposure: str | None = field(default=None, metadata=NAMES_COLUMN)
    taken: int = field(default=0, metadata=DERIVED)
    people: float = field(default=0.0, metadata=DERIVED)
    estimate: tuple[float, ...] = field(default=(), metadata=DERIVED)

    def __post_init__(self) -> None:
        written = formula.parse(self.formula)
        if self.response in written.columns or self.exposure in (*written.columns, self.response):
            raise ValueError("the response and the exposure are not columns of the formula.")
        if self.distribution is Family.NEGATIVE_BINOMIAL:
            raise ValueError(
                "a private regression is not of a negative_binomial outcome: the likelihood of its dispersion is not "
                "concave, so that steps towards its maximum have to be compared, and each comparison would need noise "
                "of its own. Ask distribution poisson, or ask it exactly."
            )
        if self.exposure is not None and not self.distribution.counts:
            raise ValueError("an exposure is one of counts: ask distribution poisson.")
        if not 0 <= self.taken < self.rounds() or (self.taken > 0) != (len(self.estimate) > 0):
            raise ValueError("An estimate follows from earlier rounds.")
        if not all(abs(b) <= MOST_COEFFICIENT for b in self.estimate) or not math.isfinite(self.people):
            raise ValueError("A round's numbers are within their bounds.")

    # -- shapes -------------------------------------------------------------------------------------------------------

    @property
    def _linear(self) -> bool:
        return self.distribution is Family.GAUSSIAN

    def needs(self) -> Needs:
        exposure = () if self.exposure is None else (self.exposure,)
        return Needs(columns=(self.response, *exposure, *formula.parse(self.formula).columns))

    def rounds(self) -> int:
        return 1 if self._linear else len(FRACTIONS)

    def fraction(self) -> float:
        return 1.0 if self._linear else FRACTIONS[self.taken]

    def slices(self, frame: Frame) -> tuple[slice, ...]:
        return WHOLE

    def _matrix(self, frame: Frame) -> ModelMatrix:
        """The formula's columns, and in the first round exposure and response after them."""
        further = list[tuple[float, float]]()
        if not self.taken:
            names = [self.response] if self.exposure is None else [self.exposure, self.response]
            further = [(frame.columns[name].minimum, frame.columns[name].maximum) for name in names]
            if self.distribution is Family.BINOMIAL:
                further[-1] = (0.0, 1.0)
        terms = formula.parse(self.formula).over(frame.columns)
        return ModelMatrix.of(terms, tuple(further), np.zeros(0), np.zeros(0))

    def _unit_of_exposure(self, matrix: ModelMatrix, frame: Frame) -> float:
        """The unit of exposures, which an intercept takes up; without one, 1."""
        if self.exposure is None or not matrix.terms.intercept:
            return 1.0
        return frame.columns[self.exposure].maximum

    def _likelihood(self, matrix: ModelMatrix, frame: Frame) -> Likelihood:
        """One person's, at the estimate."""
        if len(self.estimate) != len(matrix.terms.names):
            raise ValueError("An estimate has a number for each coefficient.")
        low, high = (float(end) for end in np.sort(np.array(self.estimate) * matrix.ends, axis=0).sum(axis=1))
        if self.exposure is not None:
            span, unit = frame.columns[self.exposure], self._unit_of_exposure(matrix, frame)
            low, high = low + math.log(span.minimum / unit), high + math.log(span.maximum / unit)
        span = frame.columns[self.response]
        if self.distribution is Family.BINOMIAL:
            return Likelihood(self.distribution, (0.0, 1.0), (low, high))
        return Likelihood(self.distribution, (span.minimum, span.maximum), (low, high), ceiling=math.log(span.maximum))

    def leaves(self, frame: Frame) -> dict[str, Field]:
        check_ranges(self.distribution, self.response, self.exposure, frame)
        span = frame.columns[self.response]
        if self.distribution.counts and span.maximum > MOST_COUNT:
            raise UsageError(
                f"A private regression is of counts up to {MOST_COUNT:,}, as noise is as wide as the largest.",
                f"{self.response} in {span}",
                "lower the upper end of its range to what nearly everybody is below: larger counts are taken for it.",
            )
        matrix = self._matrix(frame)
        if not self.taken:
            entries = 1 + len(matrix.low)
            size = entries * (entries + 1) // 2
            words = "products of each two of 1, the columns and the response, in units of half their ranges"
            return {"products": Field((size,), words, size, size**0.5, GRID_BITS)}
        own, x = self._likelihood(matrix, frame).most, matrix.most
        i, j = np.triu_indices(len(x))
        second, words = (
            max(own["weight"], LEAST_WEIGHT) * x[i] * x[j],
            "derivatives of the log likelihood by the coefficients",
        )
        return {
            "score": _field(words, own["residual"] * x, 1 - INFORMATION_SHARE),
            "information": _field(f"second {words}, with the sign changed", second, INFORMATION_SHARE),
        }

    # -- at a site ----------------------------------------------------------------------------------------------------

    def summarise(self, cohort: Cohort, frame: Frame) -> Summary:
        matrix, fields = self._matrix(frame), self.leaves(frame)
        out = {name: np.zeros(one.shape, dtype=np.int64) for name, one in fields.items()}
        for columns in self._pieces(cohort):
            parts = self._step_parts(columns, matrix, frame) if self.taken else self._products(columns, matrix, frame)
            for name, values in parts.items():
                out[name] += fields[name].integers(values).sum(axis=0)
        return out

    def _pieces(self, cohort: Cohort) -> Iterator[dict[str, Floats]]:
        """The columns of some people at a time."""
        inside = np.flatnonzero(cohort.complete)
        for start in range(0, len(inside), PEOPLE_AT_A_TIME):
            some = inside[start : start + PEOPLE_AT_A_TIME]
            yield {name: np.ascontiguousarray(cohort.columns[name][some]) for name in self.needs().columns}

    def _outcome(self, columns: Mapping[str, Floats], frame: Frame) -> Floats:
        y = columns[self.response]
        return cases(frame.columns[self.response], y).astype(np.float64) if self._binomial else y

    @property
    def _binomial(self) -> bool:
        return self.distribution is Family.BINOMIAL

    def _products(self, columns: Mapping[str, Floats], matrix: ModelMatrix, frame: Frame) -> dict[str, Floats]:
        exposure = () if self.exposure is None else (columns[self.exposure],)
        unit = matrix.unit(columns, (*exposure, self._outcome(columns, frame)))
        z = np.concatenate([np.ones((len(unit), 1)), unit], axis=1)
        i, j = np.triu_indices(z.shape[1])
        return {"products": z[:, i] * z[:, j]}

    def _step_parts(self, columns: Mapping[str, Floats], matrix: ModelMatrix, frame: Frame) -> dict[str, Floats]:
        rows, likelihood = matrix.rows(columns), self._likelihood(matrix, frame)
        eta = (rows * np.array(self.estimate)).sum(axis=1)  # one person's must not depend on who stands beside her
        if self.exposure is not None:
            eta = eta + np.log(columns[self.exposure] / self._unit_of_exposure(matrix, frame))
        most, own = likelihood.most, likelihood.parts(self._outcome(columns, frame), eta)
        residual, weight = (np.clip(own[name], -most[name], most[name])[:, None] for name in ("residual", "weight"))
        i, j = np.triu_indices(rows.shape[1])
        return {"score": residual * rows, "information": weight * rows[:, i] * rows[:, j]}

    # -- over the sites -----------------------------------------------------------------------------------------------

    def withhold(self, sums: Summary, minimum_cell: int) -> Summary:
        return sums

    def conclude(self, total: Total, frame: Frame) -> Answer | NoisedRegression:
        matrix = self._matrix(frame)
        values = {name: one.values(total.sums[name]) for name, one in self.leaves(frame).items()}
        if self.taken:
            return self._stepped(values, total.noise, matrix, frame)
        whole = newton.symmetric(values["products"], 1 + len(matrix.low))
        return self._solved(whole, total.noise, matrix) if self._linear else self._begun(whole, matrix, frame)

    def _solved(self, whole: Floats, noise: Mapping[str, float], matrix: ModelMatrix) -> Answer:
        """A linear model's answer."""
        sd, names, without = noise.get("products", 0.0), matrix.terms.names, not matrix.terms.intercept
        people = float(whole[0, 0])
        estimate, covariance, variance, ridge = solved(whole[without:, without:], sd, people)
        half = float(matrix.half[-1])
        own = matrix.own_units(len(names)) * half
        values = own @ estimate
        if matrix.terms.intercept:
            values[0] += matrix.middle[-1]
        table = Coefficients(names, values, own @ covariance @ own.T).table(False)
        facts: Facts = {
            "people": people,
            "people_noise_sd": sd,
            "product_noise_sd": sd,
            **self._told("none"),
            "dispersion": variance * half**2,
            "ridge": ridge,
        }
        return Answer({"coefficients": table}, facts)

    def _begun(self, whole: Floats, matrix: ModelMatrix, frame: Frame) -> NoisedRegression:
        """The first step, from the model in which all people have one mean, or one rate."""
        intercept, people = matrix.terms.intercept, float(whole[0, 0])
        some, n = slice(1 - intercept, 1 + len(matrix.terms.terms)), max(people, 1.0)

        def raw(column: int) -> Floats:
            """Sums of a further column's products, in its own units."""
            return np.asarray(matrix.middle[column] * whole[0] + matrix.half[column] * whole[column])

        y, exposed, ones, products = raw(-1), whole[0], whole[0, some], whole[some, some]
        most = 1 - LEAST_MEAN if self._binomial else frame.columns[self.response].maximum
        mean = rate = min(max(float(y[0]) / n, LEAST_MEAN), most)
        weight, level = mean * (1 - mean), float(special.logit(mean))
        if not self._binomial:
            if self.exposure is not None:
                span, unit = frame.columns[self.exposure], self._unit_of_exposure(matrix, frame)
                exposed = raw(-2) / unit
                rate /= min(max(float(exposed[0]) / n, span.minimum / unit), span.maximum / unit)
            weight, level = mean, math.log(rate)
        start = np.eye(len(products))[0] if intercept else held(products, ones)
        estimate = moved(level * start, held(weight * products, y[some] - rate * exposed[some]))
        return replace(self, taken=1, people=people, estimate=tuple(estimate.tolist()))

    def _stepped(
        self, values: Mapping[str, Floats], noise: Mapping[str, float], matrix: ModelMatrix, frame: Frame
    ) -> Answer | NoisedRegression:
        """The next step, or the answer."""
        at, names = np.array(self.estimate), matrix.terms.names
        information, score = newton.symmetric(values["information"], len(at)), values["score"]
        if self.taken + 1 < self.rounds():
            estimate = moved(at, held(information, score))
            return replace(self, taken=self.taken + 1, estimate=tuple(estimate.tolist()))
        sd = noise.get("score", 0.0)
        system = NoisedSystem(information, score, noise.get("information", 0.0), sd)
        estimate, ridge = moved(at, system.solution), system.ridge
        covariance = np.full(information.shape, np.nan)
        if not ridge:
            covariance = system.inverse + system.inverse @ system.noise @ system.inverse
        own = matrix.own_units(len(names))
        told = own @ estimate
        if matrix.terms.intercept:
            told[0] -= math.log(self._unit_of_exposure(matrix, frame))
        table, problem = Coefficients(names, told, own @ covariance @ own.T).table(True), "none"
        before = sd * math.sqrt(self.fraction() / FRACTIONS[self.taken - 1])
        if not ridge and not (np.allclose(estimate, at + system.solution) and settled(system, covariance, before)):
            table, problem = missing(names, True), UNSETTLED
        fields, first = self.leaves(frame), replace(self, taken=0, estimate=())
        one = first.leaves(frame)["products"].l2 / first.fraction() ** 0.5
        people_noise = sd * one / fields["score"].l2 * (self.fraction() * (1 - INFORMATION_SHARE)) ** 0.5
        facts: Facts = {
            "people": self.people,
            "people_noise_sd": people_noise,
            "score_noise_sd": sd,
            "information_noise_sd": noise.get("information", 0.0),
            **self._told(problem),
            "rounds": self.rounds(),
            "ridge": ridge,
        }
        return Answer({"coefficients": table}, facts)

    # -- answers ------------------------------------------------------------------------------------------------------

    def _told(self, problem: str) -> Facts:
        return {
            "response": self.response,
            "formula": self.formula,
            "distribution": self.distribution.value,
            "errors": "noised",
            "effect": RATIOS.get(self.distribution.value, "coefficient"),
            "problem": problem,
        }


def moved(estimate: Floats, step: Floats) -> Floats:
    """(p,) an estimate one step on: nobody's linear predictor moves by more than `LONGEST`, as no column is beyond 1.

    >>> moved(np.array([1.0, 0.0]), np.array([-6.0, 2.0])).tolist()
    [-2.0, 1.0]
    """
    length = max(float(np.abs(step).sum()), LONGEST)
    return np.clip(estimate + step * (LONGEST / length), -MOST_COEFFICIENT, MOST_COEFFICIENT)


def settled(system: NoisedSystem, covariance: Floats, before: float) -> bool:
    """Whether a last step is no longer than the noise of the one before it explains, or what it neglects is small.

    At the estimate before it the score is what noise left there, if steps had come to their end. If not, the terms of
    second order come to sum w (1 - 2 mu) (x' d)^2 x / 2 of cases, and of counts without 1 - 2 mu: each entry to
    d' A d / 2 at most. Where columns separate the outcomes, steps come to no end.

    Args:
        system: whose solution is the step d.
        covariance: (p, p) of the estimate.
        before: standard deviation of the noise in an entry of the last score but one.
    """
    step, score = system.solution, system.right
    variance = before**2 + system.right_noise**2
    if score @ score <= variance * float(special.chdtri(len(score), UNEXPLAINED)):
        return True
    neglected = float(step @ system.matrix @ step) / 2 * np.abs(system.inverse).sum(axis=0)
    return bool((neglected <= np.sqrt(np.diagonal(covariance))).all())


def _field(unit: str, most: Floats, share: float) -> Field:
    """Sums over people of which nobody adds more than so much to each entry, on a grid of 2^24 steps up to there."""
    bits = GRID_BITS - max(math.ceil(math.log2(float(most.max()))), 0)
    l1, l2 = float(most.sum()) + len(most) * 2.0**-bits, after_rounding(float(np.linalg.norm(most)), len(most), bits)
    return Field(most.shape, unit, l1, l2, bits, share=share)


def solved(products: Floats, noise: float, people: float) -> tuple[Floats, Floats, float, float]:
    """(p,) coefficients of a linear model, their (p, p) covariance, the variance of a residual, and the ridge;
    covariance and variance are NaN where there is a ridge.

    Args:
        products: (p + 1, p + 1) noised sums of products of the columns and of the response, which is last.
        noise: standard deviation of each.
        people: their noised number.

    >>> estimate, covariance, variance, ridge = solved(np.array([[100.0, 20.0], [20.0, 50.0]]), 1.0, 101.0)
    >>> float(estimate[0]), round(float(covariance[0, 0]), 6), ridge
    (0.2, 0.004705, 0.0)
    """
    p = len(products) - 1
    system = NoisedSystem(products[:p, :p], products[:p, p], noise, noise)
    estimate = system.solution
    if system.ridge:
        return estimate, np.full((p, p), np.nan), math.nan, system.ridge
    inverse, residual = system.inverse, system.noise
    v = np.append(-estimate, 1.0)
    width = noise * math.sqrt(2 * float((v**2).sum()) ** 2 - float((v**4).sum()))
    left = max(float(v @ products @ v + np.trace(inverse @ residual)), width)
    variance = left / max(people - p, 1.0)
    covariance: Floats = inverse * variance + inverse @ residual @ inverse
    return estimate, covariance, variance, system.ridge
