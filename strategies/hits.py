"""Variants that are tested a second time: what is asked about each, what leaves, and what follows.

A model has, for each of H hits, one of these forms:

    `logistic`, `firth`    log odds = X c + (g - mean) b;     q = 1 + columns of X coefficients are sought
    `firth_approximate`    log odds = null model + a b;        b is sought, q = 1
    `spa`                  the tails of the score of a;        a t for each is sought, q = 2

where a = g - X out is the genotype without what covariates explain of it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray
from scipy import special

from strategies import likelihood
from strategies.alleles import Alleles
from strategies.kernels.threads import in_pieces
from strategies.likelihood import MOST_FACTOR, Floats, Grid, Reach, Sample
from strategies.steepness import steep, steep_squares
from strategies.summary import MOST_CONTRIBUTION, Field, Summary

MOST_SOUGHT = 2.0**20
"""Of a coefficient or a t that a node is asked about."""

LEAST_TILTED = 0.1
"""|z| below which a saddlepoint lies too near to 0 to be told from it; the score's own p stands there."""

HITS_AT_A_TIME = 4
"""A constant in code, of the work of one of two threads."""


class SecondTest(StrEnum):
    """What is done about a variant whose score has a small p."""

    SCORE = "score"
    LOGISTIC = "logistic"
    FIRTH = "firth"
    FIRTH_APPROXIMATE = "firth_approximate"
    SPA = "spa"

    @property
    def penalised(self) -> bool:
        return self in (SecondTest.FIRTH, SecondTest.FIRTH_APPROXIMATE)

    @property
    def adjusted(self) -> bool:
        """Whether covariates are taken out of the genotype, and the null model is left as it is."""
        return self in (SecondTest.FIRTH_APPROXIMATE, SecondTest.SPA)

    def chosen(self, p: Floats, z: Floats, below: float, most: int) -> NDArray[np.int64]:
        """Which of so many variants are hits, ascending: at most so many, with the smallest p.

        Args:
            p: (M,) by which they are chosen.
            z: (M,) of the score itself.
            below: what p is below.
            most: how many.
        """
        out = np.flatnonzero(p < below)
        if self is SecondTest.SPA:
            out = out[np.abs(z[out]) >= LEAST_TILTED]
        return np.sort(out[np.argsort(p[out], kind="stable")][:most])

    def sizes(self, k: int) -> tuple[int, ...]:
        """Numbers of a model of k covariates, the intercept among them: mean, sought, anchor, inverse and out."""
        q = {SecondTest.FIRTH_APPROXIMATE: 1, SecondTest.SPA: 2}.get(self, 1 + k)
        return 1, q, q * self.penalised, (q * (q + 1) // 2) * self.penalised, k * self.adjusted


@dataclass(frozen=True, eq=False)
class Models:
    """What is asked about H hits; where a test has not something, it is (H, 0).

    Attributes:
        test: one that is not the score's.
        mean: (H, 1) mean number of alternate alleles, which a missing genotype counts as.
        sought: (H, q).
        anchor, inverse: (H, q) where leverages are taken, and (H, q (q + 1) / 2) I^-1 there, above its diagonal.
        out: (H, k) what takes covariates out of the genotype.
    """

    test: SecondTest
    mean: Floats
    sought: Floats
    anchor: Floats
    inverse: Floats
    out: Floats

    @staticmethod
    def of(test: SecondTest, numbers: Floats, k: int) -> Models:
        """From the (H, ...) numbers that travel.

        Raises:
            ValueError: if they are not models of the test.
        """
        sizes = test.sizes(k)
        if test is SecondTest.SCORE or numbers.ndim != 2 or numbers.shape[1] != sum(sizes):
            raise ValueError("A hit has a model.")
        mean, sought, *rest = np.split(numbers, np.cumsum(sizes)[:-1], axis=1)
        if not ((mean > 0) & (mean < 2)).all() or not (np.abs(sought) <= MOST_SOUGHT).all():
            raise ValueError("A hit's mean and coefficients are within their bounds.")
        return Models(test, mean, sought, *rest)

    @property
    def numbers(self) -> Floats:
        return np.concatenate([self.mean, self.sought, self.anchor, self.inverse, self.out], axis=1)

    @staticmethod
    def first(
        test: SecondTest, u: Floats, v: Floats, mean: Floats, null: Floats, inverse: Floats, out: Floats
    ) -> tuple[Models, Floats]:
        """One step of Newton's method away from the null model, and the state of the search.

        Args:
            u, v, mean: (H,) U, V and the mean genotype.
            null, inverse: (H, k) the null models and (H, k, k) their I^-1.
            out: (H, k) I^-1 g'(w X).
        """
        b, mean, nothing = np.clip(u / v, -2.0, 2.0)[:, None], mean[:, None], np.zeros((len(u), 0))
        if test is SecondTest.SPA:
            t = (np.abs(u) / v)[:, None] * np.array([1.0, -1.0])
            brackets = np.tile([0.0, -np.inf, np.inf, 0.0], (len(u), 1))
            return Models(test, mean, t, nothing, nothing, out), brackets
        if test is SecondTest.FIRTH_APPROXIMATE:
            return Models(test, mean, b, np.zeros_like(b), 1 / v[:, None], out), likelihood.beginning(b)
        start, left = np.concatenate([b, null - b * out], axis=1), out.copy()
        start[:, 1:2] += b * mean  # of the genotype measured from its mean
        left[:, :1] -= mean
        if not test.penalised:
            return Models(test, mean, start, nothing, nothing, nothing), likelihood.beginning(start)
        whole = np.empty((len(u), 1 + null.shape[1], 1 + null.shape[1]))  # the inverse of a matrix in blocks
        whole[:, 0, 0] = 1 / v
        whole[:, 0, 1:] = whole[:, 1:, 0] = -left / v[:, None]
        whole[:, 1:, 1:] = inverse + left[:, :, None] * left[:, None, :] / v[:, None, None]
        anchor = np.concatenate([np.zeros_like(b), null], axis=1)
        above = whole[:, *np.triu_indices(whole.shape[1])]
        return Models(test, mean, start, anchor, above, nothing), likelihood.beginning(start)

    def __getitem__(self, rows: slice | NDArray[np.int64] | NDArray[np.bool_]) -> Models:
        pieces = (self.mean, self.sought, self.anchor, self.inverse, self.out)
        return Models(self.test, *(piece[rows] for piece in pieces))

    def __len__(self) -> int:
        return len(self.mean)

    @staticmethod
    def joined(parts: Sequence[Models]) -> Models:
        """Those of one test, one after another."""
        numbers = zip(*((p.mean, p.sought, p.anchor, p.inverse, p.out) for p in parts), strict=True)
        mean, sought, anchor, inverse, out = (np.concatenate(pieces) for pieces in numbers)
        return Models(parts[0].test, mean, sought, anchor, inverse, out)

    def steep(self, null: Floats, scale: Floats) -> NDArray[np.bool_]:
        """(H,) which of them no node takes: see `strategies.steepness`.

        Args:
            null: (H, k) the null models.
            scale: (k - 1) deviations of the covariates in half ranges.
        """
        points = (self.sought, self.anchor) if self.test.penalised else (self.sought,)
        if self.test is SecondTest.SPA:
            points = (self.sought[:, :1], self.sought[:, 1:])
        tests = []
        for at in points:
            tests.append(steep(null - at * self.out if self.test.adjusted else at[:, 1:], scale))
            if self.test is not SecondTest.SPA:  # whose t is in units of a score
                tests.append(~(np.abs(at[:, 0]) <= likelihood.SEPARATED))
        if self.test.penalised:
            forms = symmetric(self.inverse)
            if self.test.adjusted:  # of g - X out
                left = np.concatenate([np.ones_like(self.inverse), -self.out], axis=1)
                forms = forms * left[:, :, None] * left[:, None, :]
            tests.append(steep_squares(forms, scale))
        return np.asarray(np.any(tests, axis=0), dtype=np.bool_)

    # -- what leaves ----------------------------------------------------------------------------------------------

    def leaves(self, null: Floats, ends: Floats, farthest: float, bits: int) -> dict[str, Field]:
        """The fields of sums about these hits.

        Args:
            null: (H, k) the null models.
            ends: (2, k) lowest and highest values of the covariates.
            farthest: the largest absolute value of an offset, in log odds.
            bits: fraction bits.
        """
        h, zero = len(self), np.zeros(len(self))
        base, some = Reach.of(null, ends).widened(farthest), Reach(zero, zero + 2)
        left = (
            Reach.of(-self.out, ends).plus(some) if self.test.adjusted else Reach(-self.mean[:, 0], 2 - self.mean[:, 0])
        )
        if self.test is SecondTest.SPA:
            parts = [base.cumulants(left.times(self.sought[:, t]), left.most) for t in (0, 1)]
            beyond = np.repeat((left.most * base.residual)[:, None], 2, axis=1)
            return {
                "cumulants": bounded("K, K' and K'' at t", np.stack(parts, axis=1), bits, True),
                "ends": bounded("lowest and highest score", beyond, bits, True),
            }
        most, grid = left.most[:, None], Grid(bits)
        if self.test.adjusted:
            moved = left.times(self.sought[:, 0])
        else:
            most = np.concatenate([most, np.tile(np.abs(ends).max(axis=0), (h, 1))], axis=1)
            moved = Reach.of(self.sought[:, 1:] - null, ends).plus(left.times(self.sought[:, 0]))

        def reach(at: Floats) -> Reach:
            if self.test.adjusted:
                return Reach.of(null - at * self.out, ends).plus(some.times(at[:, 0])).widened(farthest)
            return Reach.of(at[:, 1:], ends).plus(left.times(at[:, 0])).widened(farthest)

        odds = reach(self.sought)
        residual = odds.residual
        if self.test.penalised:
            leverage = (
                np.einsum("hi,hij,hj->h", most, np.abs(symmetric(self.inverse)), most) * reach(self.anchor).weight
            )
            residual = residual + np.minimum(leverage, 1.0) * odds.pull
        gain = "log likelihood beyond the null model's"
        return {
            "score": bounded("residuals times genotype and covariates", residual[:, None] * most, bits, True),
            "information": products("weighted products of the same", odds.weight, most, grid, True),
            "likelihood": bounded(gain, moved.most[:, None], grid.likelihood, True, (h,)),
        }

    def sums(
        self,
        alleles: Alleles,
        rows: NDArray[np.int64],
        inside: NDArray[np.bool_],
        sample: Sample,
        fields: Mapping[str, Field],
    ) -> Summary:
        """What a site sums about these hits.

        Args:
            alleles: of all its people.
            rows: (H,) of the hits.
            inside: (N,) the people who are in the sample.
            sample: of them, under the null model of all these hits.
            fields: of `leaves`, of these hits and maybe of others.
        """
        from strategies.kernels import terms  # noqa: PLC0415  (numba loads where it is used)

        out = {name: np.zeros((len(self), *f.shape[1:]), dtype=np.int64) for name, f in fields.items()}
        spa, adjusted = self.test is SecondTest.SPA, self.test.adjusted
        units = Grid(fields["cumulants" if spa else "score"].fraction_bits).units
        people, null, mean = np.flatnonzero(inside), sample.null, self.mean[:, 0]
        shift = np.zeros(len(self)) if adjusted else mean
        across = sample.across[:0] if adjusted else sample.across
        covariates = sample.across if adjusted else sample.across[:0]
        integers, base = terms.whole(across, units[2]), null if adjusted else sample.offset
        q = 1 + len(across)
        products, inverses = np.zeros((len(self), q, q), dtype=np.int64), symmetric(self.inverse)

        def work(s: slice) -> None:
            column = alleles.values(rows[s], people, mean[s], shift[s]), covariates, self.out[s]
            if spa:
                at = self.sought[s]
                terms.tilts(*column, null, sample.level, at, units[0], out["cumulants"][s], out["ends"][s])
                return
            terms.hits(
                *column, across, integers, sample.cases, null, sample.level, base, self.sought[s], self.anchor[s],
                inverses[s], units, out["score"][s], products[s], out["likelihood"][s],
            )  # fmt: skip

        in_pieces(work, len(self), HITS_AT_A_TIME)
        if not spa:
            out["information"] = products[:, *np.triu_indices(q)]
        return out

    # -- what follows ---------------------------------------------------------------------------------------------

    def followed(self, values: Mapping[str, Floats], search: Floats, scored: Floats) -> Round:
        """The next round's models from the sums.

        Args:
            values: the fields' values.
            search: (H, ...) the state of the search.
            scored: (H, 2) U and V.
        """
        return (self._tilted if self.test is SecondTest.SPA else self._stepped)(values, search, scored)

    def _stepped(self, values: Mapping[str, Floats], search: Floats, scored: Floats) -> Round:
        information = symmetric(values["information"])
        step = likelihood.newton(
            self.sought, search, values["score"], information, values["likelihood"], 1, self.test.penalised
        )
        beta, error = step.following[:, 0], np.sqrt(np.maximum(step.inverse[:, 0, 0], 0.0))
        with np.errstate(invalid="ignore", divide="ignore"):
            z = beta / error
        if self.test is SecondTest.FIRTH_APPROXIMATE:  # both likelihoods have their penalty: that of b = 0 is of V
            z = np.sign(beta) * np.sqrt(np.maximum(2 * step.value - np.log(scored[:, 1]), 0.0))
        following = replace(self, sought=step.following)
        if self.test.penalised:
            above, better = step.inverse[:, *np.triu_indices(self.sought.shape[1])], step.better[:, None]
            anchor, inverse = np.where(better, self.sought, self.anchor), np.where(better, above, self.inverse)
            following = replace(following, anchor=anchor, inverse=inverse)
        rows = np.stack([beta, error, z, 2 * special.ndtr(-np.abs(z))], axis=1)
        return Round(following, step.search, rows, step.done, step.lost & ~step.done)

    def _tilted(self, values: Mapping[str, Floats], search: Floats, scored: Floats) -> Round:
        u, v = scored.T
        step = likelihood.saddle(self.sought, search, values["cumulants"], values["ends"], u)
        log_p = np.minimum(np.logaddexp(step.tail[:, 0], step.tail[:, 1]), 0.0)
        z = -np.sign(u) * special.ndtri_exp(np.minimum(log_p, -1e-12) - math.log(2))
        able = np.isfinite(z) & (z != 0)
        rows = np.stack([u / v, np.abs(u / v / np.where(able, z, np.nan)), z, np.exp(log_p)], axis=1)
        following = replace(self, sought=step.at)
        return Round(following, step.bracket, rows, step.done & able, step.done & ~able)


@dataclass(frozen=True, eq=False)
class Round:
    """H hits, one round on.

    Attributes:
        models, search: for the next round.
        rows: (H, 4) beta, standard error, z and p as they would be now.
        done, lost: (H,) whether these are the estimates, or there are none.
    """

    models: Models
    search: Floats
    rows: Floats
    done: NDArray[np.bool_]
    lost: NDArray[np.bool_]


def bounded(unit: str, most: Floats, bits: int, by_row: bool = False, shape: tuple[int, ...] | None = None) -> Field:
    """A field from the largest absolute value of a person's contribution to each entry, before rounding.

    A contribution is rounded by half a unit, and one that two alleles multiply afterwards by two; beyond the largest
    integer it is held.
    """
    grid = 2.0**-bits
    bound = np.minimum(most * (1 + 1e-9) + 2 * grid, 2 * MOST_CONTRIBUTION * grid)
    return _field(unit, bound, most.shape if shape is None else shape, bits, by_row)


def products(unit: str, weight: Floats, most: Floats, grid: Grid, by_row: bool = False) -> Field:
    """A field of H models' weighted products of columns, row by row above the diagonal. Where neither is the first,
    both factors of a contribution are rounded.

    Args:
        weight, most: (H,) largest weights and (H, q) largest absolute values.
    """
    units, (i, j) = grid.units, np.triu_indices(most.shape[1])
    whole = np.minimum(
        weight[:, None] * most[:, i] * most[:, j] * (1 + 1e-9) + 1 / units[0], MOST_CONTRIBUTION / units[0]
    )
    one = np.minimum(weight[:, None] * most[:, i] * (1 + 1e-9) + 1 / units[1], MOST_FACTOR / units[1])
    other = np.minimum(most[:, j] * (1 + 1e-9) + 1 / units[2], MOST_FACTOR / units[2])
    bound = np.where(i == 0, whole, one * other)
    return _field(unit, bound, bound.shape, grid.bits, by_row)


def _field(unit: str, bound: Floats, shape: tuple[int, ...], bits: int, by_row: bool) -> Field:
    return Field(shape, unit, float(bound.sum()), float(np.sqrt((bound**2).sum())), bits, by_row)


def symmetric(above: Floats) -> Floats:
    """(H, q, q) symmetric matrices from their upper triangles (H, q (q + 1) / 2), row by row."""
    q = (math.isqrt(8 * above.shape[1] + 1) - 1) // 2
    i, j = np.triu_indices(q)
    out = np.zeros((len(above), q, q))
    out[:, i, j] = out[:, j, i] = above
    return out
