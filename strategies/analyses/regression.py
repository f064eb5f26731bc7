"""Regression of an outcome on a formula's columns, over the people of all sites together: linear, logistic, of counts.

    gaussian             E y = X b                    least squares; t with people less coefficients degrees of freedom
    binomial             log odds = X b               a case lies above the middle of the column's range
    poisson              log rate = X b (+ log exposure)
    negative_binomial    the same, variance mu + alpha mu^2, alpha estimated beside b

1. *moments*  People (cases and controls), sums and squares of the formula's columns, so that all sites standardise
              alike, and people in each combination of categories.
2. *fit*      gaussian: sums of products, once. Else Newton's method, one round a step: score, information and
              likelihood at the coordinator's last estimate [1]; where the likelihood fell, half of the way back.
3. *errors*   Where they are not classical, one round more: sums of s s', s a person's own score, and the sandwich
              A^-1 B A^-1 of them [2]. hc1 is hc0 times n / (n - p). `clustered` adds the outer product of each site's
              whole score instead, times S / (S - 1) (n - 1) / (n - p) over S sites.

`site_effects` gives each site an intercept of its own, for gaussian alone: columns are centred at the site, which
equals a column for each site in the pooled regression [3]. Of the other families a site's intercept does not drop out
by centring, and would have to be shown.

Withheld: everything, where people, cases, controls, people with a count above 0, or people in a combination of
categories (of binomial outcomes cases and controls in it) are fewer than the minimum; a column of numbers at which
everybody is at one of the ends of the range counts as one of two categories. A coefficient of a level with two people
is those two people. No minimum hides what an estimate tells about those above it.

No estimates, and a fact `problem` that says why: too few people, no cases or no controls, a column that hardly varies,
columns that explain one another, a likelihood without a maximum (columns that separate cases from controls, or a level
without events; counts that vary no more than Poisson's), no end within the rounds.

[1] McCullagh, Nelder: Generalized Linear Models, 2nd edition (1989), section 2.5.
[2] White: Maximum likelihood estimation of misspecified models, Econometrica 50 (1982); MacKinnon, White: Some
    heteroskedasticity-consistent covariance matrix estimators, Journal of Econometrics 29 (1985): HC0 and HC1; Liang,
    Zeger: Longitudinal data analysis using generalized linear models, Biometrika 73 (1986): clusters.
[3] Lovell: Seasonal adjustment of economic time series, JASA 58 (1963): the theorem of Frisch and Waugh.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from itertools import accumulate
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from strategies import formula, newton
from strategies.analysis import DERIVED, NAMES_COLUMN, NAMES_COLUMNS_IN_FORMULA, WHOLE, Answer, Frame, Needs, Total
from strategies.coefficients import RATIOS, Coefficients, likelihood_facts, missing
from strategies.cohort import Cohort
from strategies.families import FARTHEST, Family, Likelihood
from strategies.least_squares import LeastSquares
from strategies.model_matrix import LEAST_DEVIATION, ModelMatrix
from strategies.outcomes import cases, check_ranges, middle_of
from strategies.privacy import Regime
from strategies.protections.suppression import WITHHELD, small
from strategies.regression_sums import RegressionSums, Sample
from strategies.sandwich import Errors, sandwich
from strategies.separation import separated
from strategies.summary import Field, Summary

Floats = NDArray[np.float64]
Facts = dict[str, float | int | str]

PEOPLE_AT_A_TIME = 4096
"""A constant in code: memory does not grow with a site."""

MOST_STEPS = 40

MOST_COEFFICIENT = 2.0**20
"""Of an estimate that a node is asked about, standardised."""

ABOVE_ALL_EVENTS = 7.0
"""Log rates are held so far above the logarithm of the number of all events."""

LEAST_LOG_ALPHA, MOST_LOG_ALPHA = -12.0, 12.0
"""Below, counts vary no more than Poisson's."""

COUNTING_BITS = 32
"""Fraction bits of counts and exposures in units of their largest."""

FEW = "people, cases, controls or people of a category are fewer than the minimum"
"""What is said where everything is withheld."""


class Stage(StrEnum):
    """What a round asks for."""

    MOMENTS = "moments"
    FIT = "fit"
    ERRORS = "errors"


@dataclass(frozen=True)
class Regression:
    """Coefficients, standard errors, tests and intervals of a generalised linear model.

    Attributes:
        response: name of the outcome's column.
        formula: the right side, see `strategies/formula.py`.
        distribution: of the outcome.
        exposure: name of a positive column whose logarithm is added to the log rate of counts.
        errors: which standard errors.
        site_effects: whether each site has an intercept of its own.
        stage: what this round asks for.
        people: pooled number of complete people.
        centre, scale: of the formula's columns, and for gaussian the response, as `ModelMatrix` has them.
        steps: Newton steps taken.
        estimate: standardised coefficients so far, and log alpha of a negative binomial.
        search: the best estimate before this, and its likelihood.
        null: the likelihood of the model without columns, where it is known.
        weight: the mean weight of a person there.
    """

    analysis: ClassVar[str] = "regression"
    regime: ClassVar[Regime] = Regime.EXACT
    by_site: ClassVar[bool] = False
    summary_in_words: ClassVar[str] = (
        "sums and squares of the formula's columns and numbers of people in each combination of categories; then, in "
        "each round, the sums that a step of the regression needs, over the sites"
    )

    response: str = field(metadata=NAMES_COLUMN)
    formula: str = field(metadata=NAMES_COLUMNS_IN_FORMULA)
    distribution: Family = Family.GAUSSIAN
    exposure: str | None = field(default=None, metadata=NAMES_COLUMN)
    errors: Errors = Errors.CLASSICAL
    site_effects: bool = False
    stage: Stage = field(default=Stage.MOMENTS, metadata=DERIVED)
    people: int = field(default=0, metadata=DERIVED)
    centre: tuple[float, ...] = field(default=(), metadata=DERIVED)
    scale: tuple[float, ...] = field(default=(), metadata=DERIVED)
    steps: int = field(default=0, metadata=DERIVED)
    estimate: tuple[float, ...] = field(default=(), metadata=DERIVED)
    search: tuple[float, ...] = field(default=(), metadata=DERIVED)
    null: float = field(default=0.0, metadata=DERIVED)
    weight: float = field(default=1.0, metadata=DERIVED)

    def __post_init__(self) -> None:
        written = formula.parse(self.formula)
        if self.response in written.columns or self.exposure in (*written.columns, self.response):
            raise ValueError("the response and the exposure are not columns of the formula.")
        if self.exposure is not None and not self.distribution.counts:
            raise ValueError("an exposure is one of counts: ask distribution poisson or negative_binomial.")
        if self.site_effects and not self._linear:
            raise ValueError(
                "site effects drop out by centring in a linear model alone; in a logistic one, or one of counts, each "
                "is a coefficient of one site's people. Ask distribution gaussian, or name a column of categories, one "
                "a site, in the formula: its levels are then counted."
            )
        if self.site_effects and not (written.intercept and written.products):
            raise ValueError("site effects stand beside columns, and in the place of an intercept: leave - 1 out.")
        if not 0 <= self.people < 2**40 or not 0 <= self.steps <= MOST_STEPS:
            raise ValueError("A round has a number of people and of steps.")
        if not all(map(math.isfinite, (*self.centre, *self.scale, *self.search, self.null))):
            raise ValueError("A round's numbers are finite.")
        if not all(abs(b) <= MOST_COEFFICIENT for b in self.estimate):
            raise ValueError("An estimate is within its bounds.")
        if not (math.isfinite(self.weight) and self.weight > 0):
            raise ValueError("A person's weight is positive.")

    # -- shapes -------------------------------------------------------------------------------------------------------

    @property
    def _columns(self) -> tuple[str, ...]:
        exposure = () if self.exposure is None else (self.exposure,)
        return (self.response, *exposure, *formula.parse(self.formula).columns)

    @property
    def _classes(self) -> int:
        """Of people: controls and cases, or all in one."""
        return 1 + (self.distribution is Family.BINOMIAL)

    @property
    def _linear(self) -> bool:
        return self.distribution is Family.GAUSSIAN

    @property
    def _dispersed(self) -> bool:
        return self.distribution is Family.NEGATIVE_BINOMIAL

    def _matrix(self, frame: Frame) -> ModelMatrix:
        span = frame.columns[self.response]
        further = ((span.minimum, span.maximum),) * self._linear
        terms = formula.parse(self.formula).over(frame.columns)
        return ModelMatrix.of(terms, further, np.array(self.centre), np.array(self.scale))

    def _round(self, matrix: ModelMatrix, frame: Frame) -> RegressionSums:
        """What is summed in a round of `fit` or `errors`."""
        names, estimate = self._names(matrix), np.array(self.estimate)
        if len(self.estimate) not in ({0, len(names)} if self._linear and self.stage is Stage.FIT else {len(names)}):
            raise ValueError("An estimate has a number for each coefficient.")
        if len(self.search) not in (0, len(self.estimate) + 1):
            raise ValueError("A search has an estimate and its likelihood.")
        b, likelihood = estimate[: len(estimate) - self._dispersed], None
        if not self._linear:
            low, high = (float(end) for end in np.sort(b * matrix.ends, axis=0).sum(axis=1))
            if self.exposure is not None:
                span = frame.columns[self.exposure]
                low, high = low + math.log(span.minimum), high + math.log(span.maximum)
            log_alpha = min(max(self.estimate[-1], LEAST_LOG_ALPHA), MOST_LOG_ALPHA) if self._dispersed else 0.0
            span = frame.columns[self.response]
            ceiling = min(max(math.log(self.weight * max(self.people, 1)), 0.0) + ABOVE_ALL_EVENTS, FARTHEST)
            likelihood = Likelihood(self.distribution, (span.minimum, span.maximum), (low, high), log_alpha, ceiling)
        scores: Literal["", "people", "sites"] = ""
        if self.stage is Stage.ERRORS:
            scores = "sites" if self.errors is Errors.CLUSTERED else "people"
        return RegressionSums(matrix, self.people, likelihood, b, scores, self.site_effects)

    def _names(self, matrix: ModelMatrix) -> tuple[str, ...]:
        """Of the coefficients that are sought."""
        names = matrix.terms.names[self.site_effects :]
        return (*names, "(log alpha)") if self._dispersed else names

    def needs(self) -> Needs:
        return Needs(columns=self._columns)

    def rounds(self) -> int:
        return 1 + (1 if self._linear else MOST_STEPS) + (self.errors is not Errors.CLASSICAL)

    def fraction(self) -> float:
        return 0.0

    def slices(self, frame: Frame) -> tuple[slice, ...]:
        return WHOLE

    def cuts(self, frame: Frame) -> Mapping[str, tuple[float, ...]]:
        parted = {self.response: (middle_of(frame.columns[self.response]),)} if self._classes > 1 else {}
        return {**formula.parse(self.formula).knots, **parted}

    def leaves(self, frame: Frame) -> dict[str, Field]:
        check_ranges(self.distribution, self.response, self.exposure, frame)
        matrix, classes = self._matrix(frame), self._classes
        words = "controls and cases with every column" if classes > 1 else "people with every column"
        out = {"people": Field((classes,), words, 1, 1)}
        if self.stage is not Stage.MOMENTS:
            if self.site_effects or (self.stage is Stage.ERRORS and self.errors is Errors.CLUSTERED):
                out["sites"] = Field((), "sites with people", 1, 1, over="sites")
            return out | self._round(matrix, frame).leaves()
        if len(matrix.low):
            out |= ModelMatrix.leaves(classes, len(matrix.low))
        if tables := matrix.terms.tables:
            cells = sum(map(math.prod, self._sizes(matrix, frame)))
            unit = "people in each combination of categories"
            out["cells"] = Field((classes, cells), unit, len(tables), len(tables) ** 0.5)
        if self.distribution.counts:
            t, unit = 2 + (self.exposure is not None), "counts, their squares and exposures, in units of the largest"
            out["counts"] = Field((t,), unit, t, t**0.5, COUNTING_BITS)
            out["positive"] = Field((), "people with a count above 0", 1, 1)
        return out

    @staticmethod
    def _sizes(matrix: ModelMatrix, frame: Frame) -> list[list[int]]:
        """The numbers of categories of each table's columns."""
        return [[len(frame.columns[name].categories) for name in table] for table in matrix.terms.tables]

    # -- at a site ----------------------------------------------------------------------------------------------------

    def summarise(self, cohort: Cohort, frame: Frame) -> Summary:
        matrix, fields, inside = self._matrix(frame), self.leaves(frame), np.flatnonzero(cohort.complete)

        def pieces() -> Iterator[dict[str, Floats]]:
            for start in range(0, len(inside), PEOPLE_AT_A_TIME):
                some = inside[start : start + PEOPLE_AT_A_TIME]
                yield {name: np.ascontiguousarray(cohort.columns[name][some]) for name in self._columns}

        out = {name: np.zeros(field.shape, dtype=np.int64) for name, field in fields.items()}
        for columns in pieces():
            group = self._group(columns, frame)
            part = {"people": np.bincount(group, minlength=self._classes).astype(np.int64)}
            if self.stage is Stage.MOMENTS:
                part |= self._counted(columns, group, matrix, frame)
            for name, sums in part.items():
                out[name] += sums
        if self.stage is Stage.MOMENTS:
            return out
        if "sites" in fields:
            out["sites"] = np.array(len(inside) > 0, dtype=np.int64)
        return out | dict(
            self._round(matrix, frame).sums(lambda: (self._sample(one, matrix, frame) for one in pieces()))
        )

    def _group(self, columns: Mapping[str, Floats], frame: Frame) -> NDArray[np.int64]:
        """(n,) whether each person is a case; 0 in other families."""
        y = columns[self.response]
        if self._classes == 1:
            return np.zeros(len(y), dtype=np.int64)
        return cases(frame.columns[self.response], y)

    def _counted(
        self, columns: Mapping[str, Floats], group: NDArray[np.int64], matrix: ModelMatrix, frame: Frame
    ) -> dict[str, NDArray[np.int64]]:
        out, y, fields = dict[str, NDArray[np.int64]](), columns[self.response], self.leaves(frame)
        if len(matrix.low):
            out |= ModelMatrix.sums(matrix.unit(columns, (y,) * self._linear), group, self._classes)
        if "cells" in fields:
            cells, sizes = np.zeros(fields["cells"].shape, dtype=np.int64), self._sizes(matrix, frame)
            starts = accumulate(map(math.prod, sizes), initial=0)
            for table, size, start in zip(matrix.terms.tables, sizes, starts, strict=False):
                at = np.ravel_multi_index(tuple(columns[name].astype(np.int64) for name in table), size)
                np.add.at(cells, (group, start + at), 1)
            out["cells"] = cells
        if self.distribution.counts:
            share = y / frame.columns[self.response].maximum
            counts = [share, share**2]
            if self.exposure is not None:
                counts.append(columns[self.exposure] / frame.columns[self.exposure].maximum)
            out["counts"] = fields["counts"].integers(np.stack(counts, axis=1)).sum(axis=0)
            out["positive"] = np.array(np.count_nonzero(y > 0), dtype=np.int64)
        return out

    def _sample(self, columns: Mapping[str, Floats], matrix: ModelMatrix, frame: Frame) -> Sample:
        y = columns[self.response]
        rows = matrix.rows(columns, (y,) * self._linear)
        if self._classes > 1:
            y = self._group(columns, frame).astype(np.float64)
        offset = np.zeros(len(y)) if self.exposure is None else np.log(columns[self.exposure])
        return Sample(rows, y, offset)

    # -- over the sites -----------------------------------------------------------------------------------------------

    def withhold(self, sums: Summary, minimum_cell: int) -> Summary:
        few = [sums["people"], *(sums[name] for name in ("cells", "positive") if name in sums)]
        if any(small(number, minimum_cell).any() or (number == WITHHELD).any() for number in few):
            return {name: np.full_like(array, WITHHELD) for name, array in sums.items()}
        return sums

    def conclude(self, total: Total, frame: Frame) -> Answer | Regression:
        sums, matrix = self.withhold(total.sums, total.minimum_cell), self._matrix(frame)
        if (sums["people"] == WITHHELD).any() or self._few_at_an_end(sums, matrix, total.minimum_cell):
            return self._nothing(matrix, np.full(self._classes, np.nan), FEW)
        if self.stage is Stage.MOMENTS:
            return self._begun(sums, matrix, frame)
        return self._solved(sums, matrix, frame) if self._linear else self._stepped(sums, matrix, frame)

    def _few_at_an_end(self, sums: Summary, matrix: ModelMatrix, minimum_cell: int) -> bool:
        """Whether a column of numbers is one of two categories, of which one is of few people."""
        if self.stage is not Stage.MOMENTS or not len(matrix.low):
            return False
        return bool(small(matrix.at_ends(sums, sums["people"]), minimum_cell).any())

    def _begun(self, sums: Summary, matrix: ModelMatrix, frame: Frame) -> Answer | Regression:
        """The first round that fits."""
        people = sums["people"].astype(np.float64)
        n, names = int(people.sum()), matrix.terms.names
        if n <= len(names) + self._dispersed + self.site_effects:
            return self._nothing(matrix, people, "fewer people than coefficients, or as many")
        if self._classes > 1 and not people.all():
            return self._nothing(matrix, people, "no cases, or no controls")
        centre, scale = matrix.moments(sums, n) if len(matrix.low) else (np.zeros(0), np.zeros(0))
        own = (*(term.name for term in matrix.terms.terms), self.response)
        flat = [name for name, s in zip(own, scale, strict=False) if not s > LEAST_DEVIATION]
        if flat:
            return self._nothing(matrix, people, f"(nearly) constant, relative to its range: {', '.join(flat)}")
        following = replace(self, stage=Stage.FIT, people=n, centre=tuple(centre.tolist()), scale=tuple(scale.tolist()))
        if self._linear:
            return following
        start = np.zeros(len(names) + self._dispersed)
        if self._classes > 1:
            mean, level = people[1] / n, math.log(people[1] / people[0])
            following = replace(following, weight=float(mean * (1 - mean)))
        else:
            counts = self.leaves(frame)["counts"].values(sums["counts"]) * frame.columns[self.response].maximum
            if not counts[0] > 0:
                return self._nothing(matrix, people, "no events")
            mean, exposed = counts[0] / n, float(n)
            if self.exposure is not None:
                exposed = float(counts[2] / frame.columns[self.response].maximum)
                exposed *= frame.columns[self.exposure].maximum
            level = math.log(counts[0] / exposed)
            following = replace(following, weight=float(mean))
            if self._dispersed:
                square = counts[1] * frame.columns[self.response].maximum / n
                start[-1] = math.log(min(max((square - mean**2 - mean) / mean**2, 0.05), 10.0))
        if matrix.terms.intercept:
            start[0] = level
        return replace(following, estimate=tuple(start.tolist()))

    # -- a linear model -----------------------------------------------------------------------------------------------

    def _solved(self, sums: Summary, matrix: ModelMatrix, frame: Frame) -> Answer | Regression:
        asked, people = self._round(matrix, frame), sums["people"].astype(np.float64)
        names, sites = self._names(matrix), int(sums["sites"]) if self.site_effects else 0
        if self.site_effects:
            above = asked.leaves()["products"].values(sums["products"])
        else:
            above = asked.parts["products"].values(sums)
        products = newton.symmetric(above, len(names) + 1)
        fit = LeastSquares(matrix, products, self.people, self.site_effects, sites)
        if fit.problem:
            return self._nothing(matrix, people, fit.problem)
        estimate, degrees = fit.estimate, float(fit.degrees)
        if self.errors is Errors.CLASSICAL:
            return self._answer(people, fit.coefficients(estimate, fit.covariance, degrees).table(False), fit.facts())
        if self.stage is Stage.FIT:
            return replace(self, stage=Stage.ERRORS, estimate=tuple(estimate.tolist()))
        covariance, problem = sandwich(self.errors, fit.inverse, sums, asked, len(names) + sites)
        if problem:
            return self._nothing(matrix, people, problem)
        fitted = fit.coefficients(np.array(self.estimate), covariance, None)
        return self._answer(people, fitted.table(False), fit.facts())

    # -- other families -----------------------------------------------------------------------------------------------

    def _stepped(self, sums: Summary, matrix: ModelMatrix, frame: Frame) -> Answer | Regression:
        """The next step, the round of robust errors, or the answer."""
        asked, people = self._round(matrix, frame), sums["people"].astype(np.float64)
        values = {name: part.values(sums) for name, part in asked.parts.items()}
        names, p = self._names(matrix), len(matrix.terms.names)
        size = p * (p + 1) // 2
        information = np.zeros((len(names), len(names)))
        information[:p, :p] = newton.symmetric(values["information"][:size], p)
        if self._dispersed:
            information[p, :] = information[:, p] = values["information"][size:]
        value = float(values["likelihood"][0])
        null = value if not self.steps and matrix.terms.intercept and not self._dispersed else self.null
        if self.stage is Stage.FIT:
            if lost := self._lost(information[:p, :p], names[:p]):
                return self._nothing(matrix, people, lost)
            step = newton.step(np.array(self.estimate), np.array(self.search), values["score"], information, value)
            if not step.done:
                if self.steps + 1 == MOST_STEPS or not (np.abs(step.following) < MOST_COEFFICIENT).all():
                    return self._nothing(matrix, people, f"no maximum within {MOST_STEPS} steps")
                estimate, search = tuple(step.following.tolist()), tuple(step.search.tolist())
                return replace(self, steps=self.steps + 1, estimate=estimate, search=search, null=null)
            if self.errors is not Errors.CLASSICAL:
                return replace(self, stage=Stage.ERRORS, null=null)
        covariance, problem = np.asarray(np.linalg.inv(information), dtype=np.float64), ""
        if self.errors is not Errors.CLASSICAL:
            covariance, problem = sandwich(self.errors, covariance, sums, asked, len(names))
        if problem:
            return self._nothing(matrix, people, problem)
        saturated = float(values["likelihood"][1]) if len(values["likelihood"]) > 1 else 0.0
        facts: Facts = {
            **likelihood_facts(value, len(names), self.people),
            "degrees_of_freedom": self.people - len(names),
            **({} if self._dispersed else {"deviance": 2 * (saturated - value)}),
            **({"null_log_likelihood": null, "null_deviance": 2 * (saturated - null)} if null else {}),
            "steps": self.steps,
        }
        if "pearson" in values:
            facts["dispersion"] = float(values["pearson"][0]) / (self.people - p)
        return self._answer(people, self._estimated(matrix, covariance).table(True), facts)

    def _estimated(self, matrix: ModelMatrix, covariance: Floats) -> Coefficients:
        """In the terms' own units; alpha in the place of its logarithm, where the likelihood is level."""
        names, p = self._names(matrix), len(matrix.terms.names)
        own = np.eye(len(names))
        own[:p, :p] = matrix.own_units(p)
        estimate = own @ np.array(self.estimate)
        if self._dispersed:
            own[p, p] = estimate[p] = math.exp(estimate[p])
        return Coefficients(self._told(names), estimate, own @ covariance @ own.T)

    def _lost(self, information: Floats, names: tuple[str, ...]) -> str:
        """Why there is no maximum: columns that explain one another, or along which the likelihood does not end."""
        if not self.steps and (dependent := newton.dependent(information, names)):
            return f"columns explain one another: {dependent}"
        if self._dispersed and self.estimate[-1] <= LEAST_LOG_ALPHA:
            return "counts vary no more than Poisson's: ask distribution poisson"
        start = self.people * self.weight
        return separated(self.distribution, names, np.array(self.estimate[: len(names)]), information, start)

    # -- answers ------------------------------------------------------------------------------------------------------

    @staticmethod
    def _told(names: tuple[str, ...]) -> tuple[str, ...]:
        return tuple("(alpha)" if name == "(log alpha)" else name for name in names)

    def _nothing(self, matrix: ModelMatrix, people: Floats, problem: str) -> Answer:
        return self._answer(people, missing(self._told(self._names(matrix)), not self._linear), {}, problem)

    def _answer(self, people: Floats, table: Mapping[str, object], facts: Facts, problem: str = "none") -> Answer:
        rows = len(table["term"])  # type: ignore[arg-type]
        withheld = np.full(rows, problem == FEW)
        told: Facts = {
            "people": float(people.sum()),
            **({"controls": float(people[0]), "cases": float(people[1])} if self._classes > 1 else {}),
            "response": self.response,
            "formula": self.formula,
            "distribution": self.distribution.value,
            "errors": self.errors.value,
            "effect": RATIOS.get(self.distribution.value, "coefficient"),
            "problem": problem,
        }
        return Answer({"coefficients": {**table, "withheld": withheld}}, {**told, **facts}, int(withheld.sum()))  # type: ignore[dict-item]
