"""Integer noise in bulk: a table of 320 bits, uniform bits below it, and a rejection that is decided exactly.

Both laws are P(x) proportional to exp(-E(|x|)) over the integers, with E(a) = quadratic a^2 + linear a. A magnitude is
put together as a = 2^b q + r [1, algorithm 11]:

    1 q from a table of P(q) proportional to exp(-E(2^b q)), by inversion
    2 r uniform among 0 .. 2^b - 1
    3 kept with probability exp(-(E(2^b q + r) - E(2^b q)))
    4 a fair sign; the negative zero is thrown away

b is such that the table's own scale is small whatever the noise's, so one table of a few thousand entries serves every
scale up to 2^52. Random words are ChaCha20's (RFC 8439) under a key from the operating system, fresh for every call.

How far a draw is from its law. The table holds cumulated probabilities as integers of 320 bits, computed in integers;
a uniform number of 320 bits is compared with them, first its top word, and on a tie all of it. Floating point only
sorts out the words for which step 3 is clear by a margin of 2^-40, a thousand times its rounding; the others are
decided in integers. So a proposal's total variation distance is at most K + 4 units of 2^-320 for K entries: one unit
for each entry's rounding, one for the tail beyond the table, the rest for step 3 and for the weights, which have 64
bits more.
At least half of the proposals are kept, which makes it 4 (K + 4) for a draw: below 2^-305 with K at most 3,700.

[1] Ducas, Durmus, Lepoint, Lyubashevsky: Lattice Signatures and Bimodal Gaussians, CRYPTO 2013, section 6.
"""

from __future__ import annotations

import bisect
import math
import os
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from typing import Self

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, CipherContext, algorithms
from numpy.typing import NDArray

BITS = 320
"""Of a table's entries. Delta grows by (1 + e^epsilon) times the distance, and a budget's epsilon may be 100: e^100 is
2^144, more than 128 bits would bear."""

GUARD_BITS = 64
"""What the weights have beyond the table: the recurrence below loses 2^27 units of them at most."""

MOST_ENTRIES = 3700
"""Of any scale's table; a cell's number and what lies below it then fit 63 bits."""

DISTANCE = 2.0**-305
"""Total variation distance of one draw from its law, at most."""

_TILE = 1 << 16
"""Proposals at a time: what they need stays in the processor's cache."""

_ZEROS = bytes(8 * _TILE)

_CLEAR = 2.0**-40


@dataclass(frozen=True)
class Law:
    """P(x) proportional to exp(-(quadratic x^2 + linear |x|)) over the integers x, cut at multiples of 2^cell_bits."""

    quadratic: Fraction
    linear: Fraction
    cell_bits: int

    @classmethod
    def gaussian(cls, scale: float) -> Self:
        """P(x) proportional to exp(-x^2 / (2 scale^2)); the table's own scale is below 128."""
        return cls(1 / (2 * Fraction(scale) ** 2), Fraction(0), max(0, math.frexp(scale)[1] - 7))

    @classmethod
    def laplace(cls, scale: float) -> Self:
        """P(x) proportional to exp(-|x| / scale); the table's own scale is below 16."""
        return cls(Fraction(0), 1 / Fraction(scale), max(0, math.frexp(scale)[1] - 4))


@dataclass(frozen=True, eq=False)
class Table:
    """The cells of a law, to be drawn by inversion.

    Attributes:
        law: the law.
        ends: (K,) the probability of cells 0 .. q together, in units of 2^-320; the last is 2^320.
        tops: (K,) the top words of `ends`; of the last, all ones.
    """

    law: Law
    ends: tuple[int, ...]
    tops: NDArray[np.uint64]

    @staticmethod
    def of(law: Law) -> Table:
        """Weights by w_(q+1) = w_q g_q and g_(q+1) = g_q h, in integers: two products an entry, no exponential."""
        bits = BITS + GUARD_BITS
        cell = 1 << law.cell_bits
        g = exponential(law.quadratic * cell**2 + law.linear * cell, bits)
        h = exponential(2 * law.quadratic * cell**2, bits)
        weight, weights = 1 << bits, [1 << bits]
        # Beyond the table weights fall by e^(-1/16) or faster: a cell of 2^-325 leaves less than 2^-320 in all.
        while (weight := weight * g >> bits) >> (bits - BITS - 5):
            weights.append(weight)
            g = g * h >> bits
        assert len(weights) <= MOST_ENTRIES
        total, so_far, ends = sum(weights), 0, []
        for weight in weights:
            so_far += weight
            ends.append((so_far << BITS) // total)
        tops = [min(end >> (BITS - 64), 2**64 - 1) for end in ends]
        return Table(law, tuple(ends), np.array(tops, dtype=np.uint64))

    def cells(self, words: NDArray[np.uint64]) -> NDArray[np.int64]:
        """(n,) the cell in which each uniform number lies; `words` are their top words."""
        found: NDArray[np.int64] = np.searchsorted(self.tops, words).astype(np.int64)
        for i in np.flatnonzero(self.tops[found] == words):
            found[i] = bisect.bisect_right(self.ends, _longer(words[i]))
        return found

    def keep(self, cells: NDArray[np.int64], low: NDArray[np.int64], words: NDArray[np.uint64]) -> NDArray[np.bool_]:
        """(n,) whether each proposal is kept: with probability exp(-(E(2^b q + r) - E(2^b q)))."""
        law = self.law
        ends = (cells << (law.cell_bits + 1)) + low  # E's difference is r (quadratic (2^(b+1) q + r) + linear)
        exponent = low.astype(np.float64) * (float(law.quadratic) * ends + float(law.linear))
        chance, uniform = np.exp(-exponent), words * 2.0**-64
        kept: NDArray[np.bool_] = uniform < chance
        for i in np.flatnonzero(np.abs(uniform - chance) <= chance * _CLEAR):
            exact = int(low[i]) * (law.quadratic * int(ends[i]) + law.linear)
            kept[i] = _longer(words[i]) < exponential(exact, BITS)
        return kept

    def draw(self, size: int) -> NDArray[np.int64]:
        """(size,) independent draws."""
        stream = Cipher(algorithms.ChaCha20(os.urandom(32), bytes(16)), mode=None).encryptor()
        out, filled = np.empty(size, dtype=np.int64), 0
        while filled < size:
            proposed = self._proposals(stream, min(_TILE, (size - filled) * 33 // 32 + 32))
            proposed = proposed[: size - filled]
            out[filled : filled + len(proposed)] = proposed
            filled += len(proposed)
        return out

    def _proposals(self, stream: CipherContext, n: int) -> NDArray[np.int64]:
        """Those of n proposals that are kept."""
        cells, bits, b = self.cells(_words(stream, n)), _words(stream, n), self.law.cell_bits
        negative = (bits >> 63).astype(bool)
        if b == 0:
            kept, magnitude = ~(negative & (cells == 0)), cells
        else:
            low = (bits & np.uint64((1 << b) - 1)).astype(np.int64)
            magnitude = (cells << b) + low
            kept = self.keep(cells, low, _words(stream, n)) & ~(negative & (magnitude == 0))
        signed: NDArray[np.int64] = np.where(negative, -magnitude, magnitude)[kept]
        return signed


def delta_of_sampling(draws: int, epsilon: float) -> float:
    """What the tables add to the delta of a release of `draws` numbers that is (epsilon, delta)-DP with the exact laws.

    Distances of draws add up to one of the release; outputs of either of two neighbouring data sets may be off by it,
    and one side counts e^epsilon times.

    >>> delta_of_sampling(10**6, 1.0) < 1e-84
    True
    """
    return draws * DISTANCE * (1 + math.exp(epsilon))


@lru_cache(maxsize=64)
def table(law: Law) -> Table:
    """The law's table, made once: some milliseconds and a few hundred kilobytes."""
    return Table.of(law)


def exponential(exponent: Fraction, bits: int) -> int:
    """e^-exponent in units of 2^-bits, off by less than two units; the exponent is not negative.

    >>> exponential(Fraction(1), 20), round(math.exp(-1) * 2**20)
    (385749, 385750)
    """
    if exponent > bits:  # e^-bits is below one unit
        return 0
    halvings = max(0, math.ceil(exponent).bit_length())
    more = bits + halvings + 32  # every squaring below doubles what is off
    reduced = (exponent.numerator << more) // (exponent.denominator << halvings)
    term = total = 1 << more
    n = 0
    while term:
        n += 1
        term = (term * reduced >> more) // n
        total += -term if n % 2 else term
    for _ in range(halvings):
        total = total * total >> more
    return total >> (more - bits)


def _words(stream: CipherContext, n: int) -> NDArray[np.uint64]:
    return np.frombuffer(stream.update(memoryview(_ZEROS)[: 8 * n]), dtype="<u8")


def _longer(word: np.uint64) -> int:
    """A uniform number of 320 bits whose top word is given."""
    return int(word) << (BITS - 64) | int.from_bytes(os.urandom(BITS // 8 - 8), "big")
