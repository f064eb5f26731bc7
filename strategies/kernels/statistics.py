"""Loops over variants: exact tests of genotype counts, and a regression for each variant."""

from __future__ import annotations

from typing import Any

import numpy as np

from strategies.kernels.compiled import compiled


@compiled
def hardy_weinberg(counts: Any, out: Any) -> None:
    """(M,) exact p values of (M, 3) genotype counts, NaN where nobody is: see `allele_frequency.hardy_weinberg`."""
    for j in range(len(counts)):
        het = np.float64(counts[j, 1])
        rare, common = np.float64(min(counts[j, 0], counts[j, 2])), np.float64(max(counts[j, 0], counts[j, 2]))
        if het + rare + common == 0:
            out[j] = np.nan
            continue
        total, tail = 1.0, 1.0
        # Tables with the same allele counts are walked outwards from the observed one, relative to its probability.
        for fewer in range(2):
            h, r, c, p = het, rare, common, 1.0
            while h > 1 if fewer == 0 else r > 0:
                if fewer == 0:
                    p = p * h * (h - 1) / (4 * (r + 1) * (c + 1))
                    h, r, c = h - 2, r + 1, c + 1
                else:
                    p = p * 4 * r * c / ((h + 2) * (h + 1))
                    h, r, c = h + 2, r - 1, c - 1
                total += p
                if p <= 1 + 1e-8:
                    tail += p
                    if p <= tail * 1e-17:  # beyond the mode, probabilities fall for good
                        break
        out[j] = min(1.0, tail / total)


@compiled
def regress(  # noqa: PLR0912
    products: Any,
    missing: Any,
    at: Any,
    i: Any,
    j: Any,
    unit: float,
    scores: Any,
    squares: Any,
    degrees: Any,
    size: int,
    beta: Any,
    error: Any,
) -> None:
    """Slope and standard error of the genotype, for each variant and trait: the columns' block by Cholesky's method.

    Args:
        products: (q,) integers: products of `size` covariates with all columns, and squares of the traits, over all
            people.
        missing: (Q, q) the same over the people whose products are subtracted.
        at: (M,) each variant's place in `missing`, or -1.
        i, j: (q,) which columns each product is of.
        unit: what an integer of the products stands for.
        scores: (M, K) genotype times covariates and traits.
        squares: (M,) squared genotypes.
        degrees: (M,) degrees of freedom.
        beta, error: (M, P), NaN where covariates explain the genotype or one another, or nothing is left over.
    """
    wide = scores.shape[1]
    traits = wide - size
    whole, factor = np.zeros((wide, wide)), np.zeros((size, size))
    u, v = np.empty(size), np.empty((size, traits))
    for r in range(len(at)):
        for q in range(len(products)):
            left = products[q]
            if at[r] >= 0:
                left -= missing[at[r], q]
            whole[i[q], j[q]] = whole[j[q], i[q]] = left * unit
        able = degrees[r] > 0
        for a in range(size):
            for b in range(a):
                rest = whole[a, b]
                for c in range(b):
                    rest -= factor[a, c] * factor[b, c]
                factor[a, b] = rest / factor[b, b]
            rest = whole[a, a]
            for c in range(a):
                rest -= factor[a, c] * factor[a, c]
            able = able and rest > 1e-10 * whole[a, a]
            factor[a, a] = np.sqrt(rest) if rest > 0 else 1.0
        own = squares[r]
        for a in range(size):
            rest = scores[r, a]
            for c in range(a):
                rest -= factor[a, c] * u[c]
            u[a] = rest / factor[a, a]
            own -= u[a] * u[a]
            for p in range(traits):
                rest = whole[a, size + p]
                for c in range(a):
                    rest -= factor[a, c] * v[c, p]
                v[a, p] = rest / factor[a, a]
        # Where covariates explain the genotype or the trait, what is left over is rounding and not a fit.
        able = able and own > 1e-8 * max(squares[r], 1e-300)
        for p in range(traits):
            common, trait = scores[r, size + p], whole[size + p, size + p]
            rest = trait
            for a in range(size):
                common -= u[a] * v[a, p]
                rest -= v[a, p] * v[a, p]
            beta[r, p] = error[r, p] = np.nan
            if able and rest > 1e-10 * trait:
                slope = common / own
                beta[r, p] = slope
                error[r, p] = np.sqrt(max(rest - slope * common, 0.0) / (degrees[r] * own))
