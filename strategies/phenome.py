"""Pairs of a variant and a phenotype beside covariates: what sites sum about each, and what follows.

A pair is of the people who have the covariates, the phenotype and a genotype at the variant; g is the copies that they
carry, X an intercept and the standardised covariates.

    numbers       y = X c + g b + e; X'X, X'y, y'y and g'X, g'y, once: least squares [1]
    two classes   log odds of the second = X c + g b; score, information and likelihood at the coordinator's last
                  estimate, one round a step of Newton's method, all pairs together [2]; or with Firth's penalty

That estimate is the coordinator's word; how steep it may be is in `strategies.steepness`.

[1] Seber, Lee: Linear Regression Analysis, 2nd edition (2003), section 3.3.
[2] McCullagh, Nelder: Generalized Linear Models, 2nd edition (1989), section 4.4.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import special

from strategies import kernels
from strategies.alleles import Alleles
from strategies.analysis import Range
from strategies.covariates import Covariates
from strategies.hits import Models, Round, SecondTest, bounded
from strategies.likelihood import SLACK, Grid, Reach, Sample, beginning
from strategies.newton import SINGULAR, decomposed
from strategies.summary import Field, Summary
from strategies.two_way import trend, woolf

Floats = NDArray[np.float64]

MOMENT_BITS = 36

PAIRS_AT_A_TIME = 512
"""A constant in code: what is worked out about pairs needs some times the memory that it takes itself."""

Values = Callable[[int], Floats]
"""The (N,) values of a phenotype by its number: in [-1, 1], or 0 and 1; NaN where missing."""


@dataclass(frozen=True, eq=False)
class Pairs:
    """H pairs that are asked about together, in the order of their variants.

    Attributes:
        rows, phenotypes: (H,) row of the genotypes at hand, and number of the phenotype.
        standard: covariates' mean and deviation.
        people: how many have all covariates, at all sites.
    """

    rows: NDArray[np.int64]
    phenotypes: NDArray[np.int64]
    standard: Covariates
    people: int

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def bits(self) -> int:
        """Fraction bits, as fine as the ring allows: by Cauchy and Schwarz no sum of products of standardised
        covariates exceeds N, and none with copies 4 N. With 2^5 sites and the node's limit of 2^62 / sites, 54 - log2 N
        bits fit."""
        return max(54 - self.people.bit_length(), 16)

    # -- phenotypes of numbers ----------------------------------------------------------------------------------------

    def leaves_of_numbers(self) -> dict[str, Field]:
        """The fields of the sums about phenotypes of numbers, in units of half their range."""
        most = np.append(np.abs(self.standard.ends).max(axis=0), 1.0)
        i, j = np.triu_indices(len(most))
        one = {
            "products": bounded("products of intercept, covariates and phenotype", most[None, i] * most[j], self.bits),
            "scores": bounded("alternate alleles times covariates and phenotype", 2 * most[None, 1:], self.bits),
        }
        h = len(self)
        return {
            name: replace(f, shape=(h, *f.shape[1:]), l1=h * f.l1, l2=h**0.5 * f.l2, per_variant=True)
            for name, f in one.items()
        }

    def sums_of_numbers(
        self, alleles: Alleles, values: Values, unit: Floats, inside: NDArray[np.bool_]
    ) -> dict[str, NDArray[np.int64]]:
        """Of a site's N people.

        Args:
            alleles: of them all.
            values: their phenotypes.
            unit: (N, K) covariates in [-1, 1]; NaN where missing.
            inside: (N,) who has all of them.
        """
        fields = self.leaves_of_numbers()
        out = {name: np.zeros(field.shape, dtype=np.int64) for name, field in fields.items()}
        size = 1 + unit.shape[1]
        i, j = np.triu_indices(size + 1)
        for number in np.unique(self.phenotypes):
            mine, y = np.flatnonzero(self.phenotypes == number), values(int(number))
            there = inside & ~np.isnan(y)
            w = np.zeros((len(y), size + 1))
            w[there, :-1], w[there, -1] = self.standard.across(unit[there]).T, y[there]
            rows = self.rows[mine]
            whole = kernels.products(w, size, self.bits)
            missing = kernels.missing_products(alleles.packed, rows, w, size, self.bits)
            out["products"][mine] = (whole - missing)[:, np.minimum(i, size), j]
            out["scores"][mine] = alleles.product(rows, fields["scores"].integers(w[:, 1:]))
        return out

    # -- phenotypes of two classes ------------------------------------------------------------------------------------

    def sums_of_classes(
        self, models: Models, alleles: Alleles, values: Values, unit: Floats, inside: NDArray[np.bool_]
    ) -> dict[str, NDArray[np.int64]]:
        """Of a site's N people under (H) models; else as `sums_of_numbers`."""
        fields = leaves_of_classes(models, self)
        out = {name: np.zeros(field.shape, dtype=np.int64) for name, field in fields.items()}
        for number in np.unique(self.phenotypes):
            mine, y = np.flatnonzero(self.phenotypes == number), values(int(number))
            there = inside & ~np.isnan(y)
            packed, people = alleles.packed, len(y)
            lacking = kernels.counts(packed[self.rows[mine]], people, there)[:, 3] > 0
            codes = kernels.unpack(packed[self.rows[mine[lacking]]], people)
            groups = [(mine[~lacking], there)]  # those without a missing genotype are of the same people
            groups += [(mine[at : at + 1], there & (codes[n] < 3)) for n, at in enumerate(np.flatnonzero(lacking))]
            for some, who in groups:
                if not len(some):
                    continue
                across, zeros = self.standard.across(unit[who]), np.zeros(np.count_nonzero(who))
                sample = Sample.of(across, y[who] > 0, zeros, np.zeros(len(across)))
                sums: Summary = models[some].sums(alleles, self.rows[some], who, sample, fields)
                for name, own in sums.items():
                    out[name][some] = own
        return out


def pieces(number: int) -> Iterator[slice]:
    """All of so many pairs, some at a time; none of none, once."""
    return (slice(a, a + PAIRS_AT_A_TIME) for a in range(0, max(number, 1), PAIRS_AT_A_TIME))


def steep(models: Models, standard: Covariates) -> NDArray[np.bool_]:
    """(H,) which models no node takes."""
    null = np.zeros((1, 1 + len(standard.scale)))  # of which these models make no use
    return np.concatenate([models[some].steep(null, standard.scale) for some in pieces(len(models))])


def leaves_of_classes(models: Models, pairs: Pairs) -> dict[str, Field]:
    """The fields of the sums about phenotypes of two classes, each under its model."""
    parts = [_leaves(models[some], pairs) for some in pieces(len(models))]
    return {
        name: replace(
            first,
            shape=(len(models), *first.shape[1:]),
            l1=sum(part[name].l1 for part in parts),
            l2=math.hypot(*(part[name].l2 for part in parts)),
        )
        for name, first in parts[0].items()
    }


def _leaves(models: Models, pairs: Pairs) -> dict[str, Field]:
    """Log likelihoods are told beyond those of even odds: y eta - log(1 + exp(eta)) + log 2, monotone in eta."""
    ends, sought = pairs.standard.ends, models.sought
    out = models.leaves(np.zeros((len(models), ends.shape[1])), ends, 0.0, pairs.bits)
    own = Reach(-models.mean[:, 0], 2 - models.mean[:, 0]).times(sought[:, 0])
    odds = Reach.of(sought[:, 1:], ends).plus(own).widened(SLACK)
    gains = np.stack([special.log_expit(sign * eta) for sign in (-1, 1) for eta in (odds.low, odds.high)], axis=1)
    most = np.abs(gains + math.log(2)).max(axis=1, initial=0.0)[:, None]
    told = bounded(out["likelihood"].unit, most, Grid(pairs.bits).likelihood, True, (len(models),))
    return {**out, "likelihood": told}


def started(test: SecondTest, people: Floats, cases: Floats, copies: Floats, covariates: int) -> tuple[Models, Floats]:
    """Models of H pairs without any effect yet, and their search.

    Args:
        people, cases, copies: (H,) of those with a genotype: how many, of the second class, and their copies.
        covariates: K.
    """
    mean, q, none = (copies / people)[:, None], 2 + covariates, np.zeros((len(people), 0))
    sought = np.zeros((len(people), q))
    sought[:, 1] = special.logit(cases / people)
    anchor, inverse = (sought, np.zeros((len(people), q * (q + 1) // 2))) if test.penalised else (none, none)
    return Models(test, mean, sought, anchor, inverse, none), beginning(sought)


def followed(models: Models, fields: Mapping[str, Field], sums: Summary, search: Floats) -> Round:
    """The round after, from the sums about phenotypes of two classes, of H models; search is (H, ...)."""
    steps = []
    for some in pieces(len(models)):
        values = {name: fields[name].values(sums[name][some]) for name in ("score", "information", "likelihood")}
        steps.append(models[some].followed(values, search[some], np.zeros((len(models[some]), 2))))
    return Round(
        Models.joined([step.models for step in steps]),
        np.concatenate([step.search for step in steps]),
        np.concatenate([step.rows for step in steps]),
        np.concatenate([step.done for step in steps]),
        np.concatenate([step.lost for step in steps]),
    )


def regressed(products: Floats, scores: Floats, cells: NDArray[np.int64]) -> Floats:
    """(H, 3) slope, standard error and p of least squares; NaN where covariates explain the variant or one another.

    Args:
        products: (H, q) upper triangles of intercept, covariates and phenotype.
        scores: (H, K + 1) copies times covariates and phenotype.
        cells: (H, 3) people with 0, 1 and 2 copies.
    """
    size = scores.shape[1]
    i, j = np.triu_indices(size + 1)
    out, number = np.full((len(products), 3), np.nan), np.arange(3.0)
    for h, (above, along, people) in enumerate(zip(products, scores, cells, strict=True)):
        whole = np.zeros((size + 1, size + 1))
        whole[i, j] = whole[j, i] = above
        square = np.zeros((size + 1, size + 1))  # of intercept, covariates and copies
        square[:size, :size] = whole[:size, :size]
        square[size, :size] = square[:size, size] = np.append(people @ number, along[:-1])
        square[size, size] = people @ number**2
        right, degrees = np.append(whole[:size, size], along[-1]), float(people.sum()) - size - 1
        scale, spectrum, _ = decomposed(square)
        if not (degrees > 0 and spectrum[0] > SINGULAR):
            continue
        inverse = np.linalg.inv(square / np.outer(scale, scale)) / np.outer(scale, scale)
        estimate = inverse @ right
        left = max(float(whole[size, size] - estimate @ right), 0.0)
        error = float(np.sqrt(left / degrees * inverse[-1, -1]))
        p = 2 * float(special.stdtr(degrees, -abs(estimate[-1]) / error)) if error > 0 else np.nan
        out[h] = estimate[-1], error, p
    return out


def trended(cells: NDArray[np.int64]) -> tuple[float, ...]:
    """`ESTIMATES` without covariates, of (4, 3) people by genotype and category."""
    table = cells[:3, :2].T.astype(np.float64)
    ratio = woolf(np.stack([table[::-1, 1:].sum(axis=1), table[::-1, 0]], axis=1))
    p = float(trend(table)[1])
    return float(table.sum()), float(table[1].sum()), ratio.estimate, ratio.low, ratio.high, math.nan, math.nan, p


def regressed_alone(cells: NDArray[np.int64], sums: NDArray[np.int64], span: Range) -> tuple[float, ...]:
    """Of (4, 3) people by genotype with a value, and (3, 2) sums: the regression of the values on copies."""
    people, copy, half = cells[:3, 0].astype(np.float64), np.arange(3.0), (span.maximum - span.minimum) / 2
    first, second = sums.T * 2.0**-MOMENT_BITS
    n = float(people.sum())
    beta = error = p = math.nan
    if n > 2:
        gg = float(people @ copy**2) - float(people @ copy) ** 2 / n
        gy = float(first @ copy) - float(people @ copy) * float(first.sum()) / n
        yy = float(second.sum()) - float(first.sum()) ** 2 / n
        if gg > 1e-9 * n and yy > 0:
            beta = gy / gg
            error = math.sqrt(max(yy - beta * gy, 0.0) / (n - 2) / gg)
            p = 2 * float(special.stdtr(n - 2, -abs(beta / error))) if error > 0 else math.nan
    return n, math.nan, math.nan, math.nan, math.nan, half * beta, half * error, p
