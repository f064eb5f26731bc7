"""Linear mixed model with a random intercept for each site, by restricted or full maximum likelihood.

    y = X b + u_s + e,   u_s normal with variance tau^2,   e normal with variance sigma^2,   lambda = tau^2 / sigma^2

With n_s people, means m_s of the columns (1, x, y) and scatter S_s around them at site s, and w_s = n_s / (1 + n_s
lambda), all that the likelihood needs is M = sum S_s + w_s m_s m_s' and sum log(1 + n_s lambda) [1]: A, the part of M
of X, gives b = A^-1 c and its covariance sigma^2 A^-1. The ratio lambda is where the profile likelihood is highest, by
bisection of its derivative.

It is asked for each site, and combined from the sites' own means and scatters. Sums over the sites at one trial value
of lambda after another would show no less: n_s is in them site by site, and a few values of lambda tell the sites'
parts apart. So a node's policy decides about this page as about other answers of its own.

A site withholds its part where its people, or its people in a category, are few; the others are combined without it.
NaN and a fact `problem`: fewer than three sites, columns that explain one another.

[1] Laird, Ware: Random-effects models for longitudinal data, Biometrics 38 (1982), equations 3.1 to 3.5; Harville:
    Maximum likelihood approaches to variance component estimation, JASA 72 (1977), section 4.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from strategies import formula, newton
from strategies.analysis import NAMES_COLUMN, NAMES_COLUMNS_IN_FORMULA, WHOLE, Answer, Column, Frame, Needs, Total
from strategies.coefficients import Coefficients, missing
from strategies.cohort import Cohort
from strategies.model_matrix import LEAST_DEVIATION, ModelMatrix
from strategies.privacy import Regime
from strategies.protections.suppression import LEAST_HOLDERS, WITHHELD, small
from strategies.summary import Field, Summary

Floats = NDArray[np.float64]

PEOPLE_AT_A_TIME = 4096
"""A constant in code: memory does not grow with a site."""

PRODUCT_BITS = 36
"""Fraction bits of products of columns in units of half their range: 2^21 people fit for each of 32 sites."""

RATIOS = 10.0 ** np.arange(-8, 9)
"""Of lambda, between which its likelihood's maximum is sought."""

HALVINGS = 60

FEW = "people, or people of a category, are fewer than the minimum"


class Method(StrEnum):
    """Which likelihood: restricted, of what columns leave, or full."""

    REML = "reml"
    ML = "ml"


@dataclass(frozen=True)
class MixedModel:
    """Coefficients and variances of a linear model with a random intercept for each site.

    Attributes:
        response: name of the outcome's column.
        formula: the right side, see `strategies/formula.py`; with an intercept.
        method: which likelihood.
    """

    analysis: ClassVar[str] = "mixed_model"
    regime: ClassVar[Regime] = Regime.EXACT
    by_site: ClassVar[bool] = True
    summary_in_words: ClassVar[str] = (
        "each site's number of people, means of the columns and of the response, and sums of their products"
    )

    response: str = field(metadata=NAMES_COLUMN)
    formula: str = field(metadata=NAMES_COLUMNS_IN_FORMULA)
    method: Method = Method.REML

    def __post_init__(self) -> None:
        written = formula.parse(self.formula)
        if self.response in written.columns:
            raise ValueError("the response is not a column of the formula.")
        if not written.intercept:
            raise ValueError("random intercepts vary around an intercept: leave - 1 out.")

    @property
    def _columns(self) -> tuple[str, ...]:
        return (self.response, *formula.parse(self.formula).columns)

    def _matrix(self, frame: Frame) -> ModelMatrix:
        span = frame.columns[self.response]
        terms = formula.parse(self.formula).over(frame.columns)
        return ModelMatrix.of(terms, ((span.minimum, span.maximum),), np.zeros(0), np.zeros(0))

    def needs(self) -> Needs:
        return Needs(columns=self._columns)

    def rounds(self) -> int:
        return 1

    def fraction(self) -> float:
        return 0.0

    def slices(self, frame: Frame) -> tuple[slice, ...]:
        return WHOLE

    def cuts(self, frame: Frame) -> Mapping[str, tuple[float, ...]]:
        return formula.parse(self.formula).knots

    def leaves(self, frame: Frame) -> dict[str, Field]:
        matrix = self._matrix(frame)
        q, words = len(np.triu_indices(1 + len(matrix.low))[0]), "products of intercept, columns and response"
        out = {
            "people": Field((), "people with every column", 1, 1),
            "products": Field((q,), f"{words}, in units of half their range", q, q**0.5, PRODUCT_BITS),
        }
        if tables := matrix.terms.tables:
            cells = sum(math.prod(len(frame.columns[name].categories) for name in table) for table in tables)
            unit = "people in each combination of categories"
            out["cells"] = Field((cells,), unit, len(tables), len(tables) ** 0.5)
        return out

    def summarise(self, cohort: Cohort, frame: Frame) -> Summary:
        matrix, fields, inside = self._matrix(frame), self.leaves(frame), np.flatnonzero(cohort.complete)
        out = {name: np.zeros(one.shape, dtype=np.int64) for name, one in fields.items()}
        out["people"] += len(inside)
        i, j = np.triu_indices(1 + len(matrix.low))
        for start in range(0, len(inside), PEOPLE_AT_A_TIME):
            some = inside[start : start + PEOPLE_AT_A_TIME]
            columns = {name: np.ascontiguousarray(cohort.columns[name][some]) for name in self._columns}
            rows = matrix.rows(columns, (columns[self.response],))
            part = {"products": fields["products"].integers(rows[:, i] * rows[:, j]).sum(axis=0)}
            if "cells" in fields:
                part["cells"] = np.concatenate(list(_cells(matrix, columns, frame)))
            for name, sums in part.items():
                out[name] += sums
        return out

    def withhold(self, sums: Summary, minimum_cell: int) -> Summary:
        few = [sums["people"], *([sums["cells"]] if "cells" in sums else [])]
        if not any((n == WITHHELD).any() for n in few):
            few.append(self._at_ends(sums))
        if any(small(n, minimum_cell).any() or (n == WITHHELD).any() for n in few):
            return {name: np.full_like(array, WITHHELD) for name, array in sums.items()}
        return sums

    @staticmethod
    def _at_ends(sums: Summary) -> NDArray[np.int64]:
        """People at the lower and the upper end of each column at which everybody is at one, as of two categories."""
        size = _size(len(sums["products"]))
        i, j = np.triu_indices(size)
        values, n = sums["products"] * 2.0**-PRODUCT_BITS, int(sums["people"])
        total, squares = values[(i == 0) & (j > 0)], values[(i == j) & (j > 0)]
        upper = np.rint((n + total) / 2)
        return np.asarray(np.where(squares >= n - 1e-6, np.stack([n - upper, upper]), 0), dtype=np.int64)

    def conclude(self, total: Total, frame: Frame) -> Answer:
        """One site's part: each column's mean, and its scatter with all columns, in their own units."""
        sums, matrix = self.withhold(total.sums, total.minimum_cell), self._matrix(frame)
        size, hidden = len(matrix.low), sums["people"] == WITHHELD
        names = (*(term.name for term in matrix.terms.terms), self.response)
        people, mean, scatter = math.nan, np.full(size, np.nan), np.full((size, size), np.nan)
        if not hidden:
            people = float(sums["people"])
        if not hidden and people > 0:
            i, j = np.triu_indices(1 + size)
            whole = np.empty((1 + size, 1 + size), dtype=np.longdouble)  # a mean may be large beside its deviation
            whole[i, j] = whole[j, i] = sums["products"].astype(np.longdouble) * 2.0**-PRODUCT_BITS
            unit = whole[0, 1:] / people
            scatter = ((whole[1:, 1:] - np.outer(unit, whole[0, 1:])) * np.outer(matrix.half, matrix.half)).astype(
                float
            )
            mean = (matrix.middle + matrix.half * unit).astype(np.float64)
        withheld = np.full(size, bool(hidden))
        products_with = {f"with_{name}": scatter[:, at] for at, name in enumerate(names)}
        table: dict[str, Column] = {"term": names, "mean": mean, **products_with, "withheld": withheld}
        problem = FEW if hidden else "none"
        return Answer({"coefficients": table}, {"people": people, "problem": problem}, int(withheld.sum()))

    def combine(self, answers: Mapping[str, Answer], frame: Frame) -> Answer:
        matrix = self._matrix(frame)
        size, terms = len(matrix.low), matrix.terms.names
        parts = [a for a in answers.values() if float(a.facts["people"]) > 0]
        n = np.array([float(a.facts["people"]) for a in parts])
        mean = np.array([np.asarray(a.tables["coefficients"]["mean"], dtype=np.float64) for a in parts])
        names = [f"with_{name}" for name in (*(term.name for term in matrix.terms.terms), self.response)]
        scatter = np.array([[np.asarray(a.tables["coefficients"][name]) for name in names] for a in parts])
        if len(parts) < LEAST_HOLDERS:
            return self._nothing(terms, n, f"fewer than {LEAST_HOLDERS} sites")
        pooled = (n @ mean) / n.sum()
        within = scatter.sum(axis=0)
        away = mean - pooled
        deviation = np.sqrt(np.maximum(np.diagonal(within + (away * n[:, None]).T @ away) / n.sum(), 0.0))
        flat = [t for t, d, h in zip((*terms[1:], self.response), deviation, matrix.half, strict=True)
                if not d > LEAST_DEVIATION * h]  # fmt: skip
        if flat:
            return self._nothing(terms, n, f"(nearly) constant, relative to its range: {', '.join(flat)}")
        if n.sum() <= size + 2:
            return self._nothing(terms, n, "fewer people than coefficients, or as many")
        model = _Profile(
            n, np.column_stack([np.ones(len(n)), away / deviation]), _bordered(within, deviation), self.method
        )
        if dependent := newton.dependent(model.products(0.0)[:-1, :-1], terms):
            return self._nothing(terms, n, f"columns explain one another: {dependent}")
        ratio = model.best()
        b, residual, _ = model.solved(ratio)
        variance = residual / model.degrees
        own = np.diag(np.append(1.0, 1 / deviation[:-1])) * deviation[-1]
        own[0, 1:] = -pooled[:-1] / deviation[:-1] * deviation[-1]
        values = own @ b
        values[0] += pooled[-1]
        covariance = own @ np.linalg.inv(model.products(ratio)[:-1, :-1]) @ own.T * variance
        unit = float(deviation[-1] ** 2)
        facts = {
            "residual_variance": variance * unit,
            "site_variance": ratio * variance * unit,
            "intraclass_correlation": ratio / (1 + ratio),
            "log_likelihood": model.value(ratio) - model.degrees / 2 * math.log(unit) + model.shift(deviation[:-1]),
        }
        return self._answer(n, Coefficients(terms, values, covariance).table(False), facts, "none")

    def _nothing(self, terms: tuple[str, ...], people: Floats, problem: str) -> Answer:
        nothing = dict.fromkeys(
            ("residual_variance", "site_variance", "intraclass_correlation", "log_likelihood"), math.nan
        )
        return self._answer(people, missing(terms, False), nothing, problem)

    def _answer(self, people: Floats, table: Mapping[str, object], facts: Mapping[str, float], problem: str) -> Answer:
        told = {"people": float(people.sum()), "sites": len(people), "response": self.response}
        told |= {"formula": self.formula, "method": self.method.value, "problem": problem}
        return Answer({"coefficients": table}, {**told, **facts})  # type: ignore[dict-item]


def _size(above: int) -> int:
    """Of a matrix with so many entries on and above its diagonal."""
    return (math.isqrt(8 * above + 1) - 1) // 2


def _cells(matrix: ModelMatrix, columns: Mapping[str, Floats], frame: Frame) -> Iterator[NDArray[np.int64]]:
    """People in each combination of each table's categories."""
    for table in matrix.terms.tables:
        sizes = [len(frame.columns[name].categories) for name in table]
        at = np.ravel_multi_index(tuple(columns[name].astype(np.int64) for name in table), sizes)
        yield np.bincount(at, minlength=math.prod(sizes)).astype(np.int64)


def _bordered(within: Floats, deviation: Floats) -> Floats:
    """(k + 2, k + 2) scatter within sites, of columns in deviations, with the intercept's, which is 0, before it."""
    out = np.zeros((len(within) + 1, len(within) + 1))
    out[1:, 1:] = within / np.outer(deviation, deviation)
    return out


@dataclass(frozen=True, eq=False)
class _Profile:
    """The likelihood as a function of lambda alone.

    Attributes:
        people: (S,) n_s.
        means: (S, k + 2) m_s of intercept, columns and response.
        within: (k + 2, k + 2) sum of the S_s.
        method: which likelihood.
    """

    people: Floats
    means: Floats
    within: Floats
    method: Method

    @property
    def degrees(self) -> float:
        """By which the residual sum of squares is divided."""
        fixed = self.means.shape[1] - 1 if self.method is Method.REML else 0
        return float(self.people.sum() - fixed)

    def weights(self, ratio: float) -> Floats:
        return np.asarray(self.people / (1 + self.people * ratio))

    def products(self, ratio: float) -> Floats:
        """M."""
        return np.asarray(self.within + (self.means * self.weights(ratio)[:, None]).T @ self.means)

    def solved(self, ratio: float) -> tuple[Floats, float, float]:
        """b, the residual sum of squares, and the derivative of the log likelihood by lambda."""
        m, w = self.products(ratio), self.weights(ratio)
        b: Floats = np.linalg.solve(m[:-1, :-1], m[:-1, -1]).astype(np.float64)
        residual = float(m[-1, -1] - b @ m[:-1, -1])
        left = self.means @ np.append(-b, 1.0)
        slope = -self.degrees * float((w**2) @ left**2) / residual + float(w.sum())
        if self.method is Method.REML:
            x = self.means[:, :-1]
            slope -= float((w**2) @ np.einsum("si,ij,sj->s", x, np.linalg.inv(m[:-1, :-1]), x))
        return b, residual, -slope / 2

    def value(self, ratio: float) -> float:
        """The log likelihood, with the variance at its best for the ratio."""
        _, residual, _ = self.solved(ratio)
        out = self.degrees * (math.log(2 * math.pi * residual / self.degrees) + 1)
        out += float(np.log1p(self.people * ratio).sum())
        if self.method is Method.REML:
            out += float(np.linalg.slogdet(self.products(ratio)[:-1, :-1])[1])
        return float(-out / 2)

    def shift(self, deviation: Floats) -> float:
        """What the restricted likelihood has less where columns are not in these deviations."""
        return -float(np.log(deviation).sum()) if self.method is Method.REML else 0.0

    def best(self) -> float:
        """The ratio at which the likelihood is highest; 0 where it falls from there."""
        tried: list[float] = [0.0, *RATIOS.tolist()]
        at = int(np.argmax([self.value(ratio) for ratio in tried]))
        low, high = tried[max(at - 1, 0)], tried[min(at + 1, len(tried) - 1)]
        if self.solved(low)[2] <= 0:
            return low
        for _ in range(HALVINGS):
            middle = (low + high) / 2
            low, high = (middle, high) if self.solved(middle)[2] > 0 else (low, middle)
        return (low + high) / 2
