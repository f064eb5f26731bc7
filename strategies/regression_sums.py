"""What sites sum about a regression at the coordinator's last estimate, and how far one person reaches.

Linear: products of columns and response, over people, or of their deviations from a site's own means. Of other
families: score, information and likelihood. For robust errors the products of people's scores s besides, or of each
site's sum of them: the score of a linear model is the residual times the columns.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from strategies.families import Likelihood
from strategies.fine_sums import GRID_BITS, SUM_BITS, FineSums
from strategies.model_matrix import ModelMatrix
from strategies.summary import MOST_CONTRIBUTION, Field, Summary

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Sample:
    """Some people of a site.

    Attributes:
        rows: (n, p) standardised columns, of a linear model with the response after them.
        outcome: (n,) y.
        offset: (n,) what their linear predictors have added.
    """

    rows: Floats
    outcome: Floats
    offset: Floats


@dataclass(frozen=True, eq=False)
class RegressionSums:
    """One round's sums.

    Attributes:
        matrix: the columns, of a linear model with the response after them.
        people: pooled number of people.
        likelihood: one person's, at the estimate; of a linear model none.
        coefficients: (p,) the estimate, of standardised columns; empty before a linear model has one.
        scores: whose scores are squared: nobody's, each person's, or each site's.
        within: whether a linear model's columns are measured from a site's means.
    """

    matrix: ModelMatrix
    people: int
    likelihood: Likelihood | None
    coefficients: Floats
    scores: Literal["", "people", "sites"] = ""
    within: bool = False

    @cached_property
    def largest(self) -> Floats:
        """(p,) the largest absolute values of a row; within sites nobody is farther from a mean than twice that."""
        most = self.matrix.most
        return 2 * most[self.matrix.terms.intercept :] if self.within else most

    @cached_property
    def score(self) -> Floats:
        """(q,) the largest absolute values of a person's score."""
        if self.likelihood is None:
            b = np.append(-self.coefficients, 1.0) if len(self.coefficients) else np.zeros(len(self.largest))
            ends = np.stack([-self.largest, self.largest]) if self.within else self.matrix.ends
            return np.asarray(self.largest[:-1] * np.abs(np.sort(b * ends, axis=0).sum(axis=1)).max())
        most = self.likelihood.most
        own = most["residual"] * self.largest
        return np.append(own, most["slope"]) if "slope" in most else own

    # -- what leaves --------------------------------------------------------------------------------------------------

    @cached_property
    def parts(self) -> dict[str, FineSums]:
        """Sums over people."""
        if self.within:
            return {}
        n, most, (i, j) = self.people, self.largest, np.triu_indices(len(self.largest))
        out = []
        if self.likelihood is None:
            out.append(FineSums("products", "products of columns and response", most[i] * most[j], n))
        else:
            own = self.likelihood.most
            second = own["weight"] * most[i] * most[j]
            if "slope" in own:
                second = np.concatenate([second, own["cross"] * most, [own["bend"]]])
            values = np.array([own[name] for name in ("likelihood", "saturated") if name in own])
            out.append(FineSums("score", "derivatives of the log likelihood by the coefficients", self.score, n))
            out.append(FineSums("information", "second derivatives, with the sign changed", second, n))
            out.append(FineSums("likelihood", "log likelihoods, the model's and the saturated one's", values, n))
            if "pearson" in own:
                words = "squared residuals over their variances"
                out.append(FineSums("pearson", words, np.array([own["pearson"]]), n))
        if self.scores == "people":
            i, j = np.triu_indices(len(self.score))
            out.append(FineSums("meat", "products of people's scores", self.score[i] * self.score[j], n))
        return {part.name: part for part in out}

    def leaves(self) -> dict[str, Field]:
        """The fields of the round."""
        out = {name: field for part in self.parts.values() for name, field in part.leaves().items()}
        n, own, (i, j) = self.people, self.largest, np.triu_indices(len(self.largest))
        if self.within:
            # A person at distance d from a mean adds at most d_i d_j, and each of the others' is rounded anew.
            bits = self._bits
            each = own[i] * own[j] + (1 + n * (1 + own[i] + own[j])) * 2.0**-bits
            out["products"] = _within("products of columns and response, from a site's means", each, bits)
        i, j = np.triu_indices(len(self.score))
        pairs = self.score[i] * self.score[j]
        if self.scores == "people" and self.within:
            # A mean is in everybody's residual: who else is there decides how much of the sum changes with it.
            bits = _room(n * pairs)
            out["meat"] = _within("products of people's scores, from a site's means", n * (pairs + 2.0**-bits), bits)
        if self.scores == "sites":
            # Of a site's score U and a person's s, U U' changes by U s' + s U' + s s'; with a mean, all of U may.
            bits = _room(n**2 * pairs)
            each = pairs * (2 * n + 1) * (n if self.within else 1)
            words, unit = "products of each site's summed scores", 2.0**-bits
            out["clusters"] = _within(words, each + unit, bits)
            out["clusters_rest"] = _within(f"{words}, the rest", np.full(each.shape, unit), bits + GRID_BITS)
        return out

    @property
    def _bits(self) -> int:
        """Of deviations from a site's means: standardised columns have sum z^2 = N over all sites, so by Cauchy and
        Schwarz no sum of their products exceeds N."""
        return SUM_BITS - 1 - self.people.bit_length()

    # -- at a site ----------------------------------------------------------------------------------------------------

    def sums(self, samples: Callable[[], Iterable[Sample]]) -> Summary:
        """Of a site's people, whom `samples` walks through, once or twice."""
        fields = self.leaves()
        out = {name: np.zeros(field.shape, dtype=np.int64) for name, field in fields.items()}
        grid = Field((len(self.score),), "a site's score", 0, 0, _room(self.people * self.score))
        whole = np.zeros(grid.shape, dtype=np.int64)
        mean = self._mean(samples) if self.within else np.zeros(0)
        for sample in samples():
            if self.within:
                part, score = self._from_means(sample, mean, fields)
            else:
                values, score = self._values(sample)
                part = {n: s for name, one in self.parts.items() for n, s in one.sums(values[name]).items()}
            if self.scores == "sites":  # integers, so that it does not depend on the order of people
                whole += grid.integers(np.clip(score, -self.score, self.score)).sum(axis=0)
            for name, sums in part.items():
                out[name] += sums
        if self.scores == "sites":
            i, j = np.triu_indices(len(self.score))
            u, coarse = grid.values(whole), fields["clusters"]
            out["clusters"] = coarse.integers(u[i] * u[j])
            out["clusters_rest"] = fields["clusters_rest"].integers(u[i] * u[j] - coarse.values(out["clusters"]))
        return out

    def _values(self, sample: Sample) -> tuple[dict[str, Floats], Floats]:
        """What is summed of each person, and (n, q) the people's scores."""
        rows, (i, j) = sample.rows, np.triu_indices(sample.rows.shape[1])
        if self.likelihood is None:
            score = rows[:, :-1] * self._residual(rows)[:, None]
            values = {"products": rows[:, i] * rows[:, j]}
        else:
            eta = (rows * self.coefficients).sum(axis=1)  # one person's must not depend on who stands beside her
            own = self.likelihood.parts(sample.outcome, eta + sample.offset)
            own = {
                name: np.clip(part, -self.likelihood.most[name], self.likelihood.most[name])
                for name, part in own.items()
            }
            score = own["residual"][:, None] * rows
            second = own["weight"][:, None] * rows[:, i] * rows[:, j]
            if "slope" in own:
                score = np.concatenate([score, own["slope"][:, None]], axis=1)
                second = np.concatenate([second, own["cross"][:, None] * rows, own["bend"][:, None]], axis=1)
            both = np.stack([own[name] for name in ("likelihood", "saturated") if name in own], axis=1)
            values = {"score": score, "information": second, "likelihood": both}
            if "pearson" in own:
                values["pearson"] = own["pearson"][:, None]
        if "meat" in self.parts:
            i, j = np.triu_indices(score.shape[1])
            values["meat"] = score[:, i] * score[:, j]
        return values, score

    def _residual(self, rows: Floats) -> Floats:
        """(n,) of a linear model; 0 before it has an estimate."""
        if not len(self.coefficients):
            return np.zeros(len(rows))
        return np.asarray((rows * np.append(-self.coefficients, 1.0)).sum(axis=1))

    def _mean(self, samples: Callable[[], Iterable[Sample]]) -> Floats:
        """(p,) of integers on the grid, so that it does not depend on the order of people."""
        grid = self.leaves()["products"]
        people, total = 0, np.zeros(len(self.largest), dtype=np.int64)
        for sample in samples():
            people += len(sample.rows)
            total += grid.integers(sample.rows[:, 1:]).sum(axis=0)
        return np.asarray(total / max(people, 1))

    def _from_means(self, sample: Sample, mean: Floats, fields: Mapping[str, Field]) -> tuple[Summary, Floats]:
        grid = fields["products"]
        w = (grid.integers(sample.rows[:, 1:]) - mean) * 2.0**-grid.fraction_bits
        i, j = np.triu_indices(w.shape[1])
        out = {"products": grid.integers(w[:, i] * w[:, j]).sum(axis=0)}
        score = w[:, :-1] * self._residual(w)[:, None]
        if "meat" in fields:
            i, j = np.triu_indices(score.shape[1])
            out["meat"] = fields["meat"].integers(score[:, i] * score[:, j]).sum(axis=0)
        return out, score


def _room(most: Floats) -> int:
    """Fraction bits with which a sum of at most so much stays within the ring."""
    return SUM_BITS - math.ceil(math.log2(max(float(most.max(initial=0.0)), 2.0**-60)))


def _within(unit: str, each: Floats, bits: int) -> Field:
    """Sums of what each site measures within itself, of which one person changes at most so much of each."""
    held = np.minimum(each, MOST_CONTRIBUTION * 2.0**-bits * 2)
    return Field(each.shape, unit, float(held.sum()), float(np.sqrt((held**2).sum())), bits, over="within")
