"""Linkage disequilibrium: the correlation of the genotypes of neighbouring variants, and clumps of an association.

For each pair of variants a, b in a band, over the n people whose genotypes are observed at both:

    r = (n sum ab - sum a sum b) / sqrt((n sum a^2 - (sum a)^2) (n sum b^2 - (sum b)^2))

with a, b = 0, 1, 2 alternate alleles: the correlation of unphased genotypes [1], not of haplotypes.

Round 1 counts genotypes. Only common variants go on, since a rare one's row of sums is its carriers' genotypes. Round 2
sums for each pair the products ab; where somebody's genotype is missing, also the people of whom n, sum a, sum b and
the sums of squares are made. The band is public: for each variant that takes part the next ones on its chromosome, in
the order of positions, no farther than the window and no more than `variants_in_band`.

With `clump`, the name of an earlier association question, pairs are those of its hits: variants with p <= `index_p`
beside all within the window with p <= `member_p`. From their r2 and p values the answer forms clumps [2], greedily: the
variant with the smallest p that is in no clump yet is the index of one; all with r2 of at least `r2` to it that are in
none join. A pair whose r2 is withheld or unknown joins as well and is flagged, since nothing says that it is apart.

What is withheld. Of the nine cells (people with a = 0, 1, 2 and b = 0, 1, 2) the sums tell those weighted numbers of
people whose weights are u(a) + v(b) + w a b, and no others. The ones that no person makes negative are made up of the
two variants' own counts and of twelve more: for each path of five cells from corner to corner of the table, neighbours
all, the one that weighs those by 0 (a path is where the optimum of a transport problem with costs ab lies [3]). A pair
is withheld if one of the twelve is from 1 to the minimum less 1, so few people would be known to lie beside the path;
if fewer than the minimum carry either allele of either variant; or if somebody has both genotypes at fewer than three
sites. A variant takes part only if nobody, or at least the minimum, lacks its genotype. What is asked is what can be
known of a pair's cells from its own sums; not what follows from several pairs together, nor which genotypes those
people have who lack the other one.

One site's part of a total stays hidden by secure summing. NaN: a variant that does not vary among the n people. Places
of which not everybody has two copies (X but for its pseudo-autosomal regions, Y, MT) do not take part.

[1] Weir: Inferences about linkage disequilibrium, Biometrics 35 (1979): the composite measure.
[2] Purcell et al.: PLINK, AJHG 81 (2007), and the manual of PLINK 1.9, `--clump`.
[3] Hoffman: On simple linear programming problems, Proc. Symp. Pure Math. 7 (1963): Monge arrays.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from itertools import combinations, pairwise
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from strategies import kernels
from strategies.analyses.allele_frequency import variant_columns
from strategies.analysis import (
    CARRIED,
    DERIVED,
    KEPT,
    NAMES_PANEL,
    NAMES_QUESTION,
    WHOLE,
    Answer,
    Column,
    Frame,
    Needs,
    Total,
    by_variants,
)
from strategies.clumps import clumped
from strategies.cohort import VARIANTS_AT_A_TIME, Cohort, Genotypes, Stored
from strategies.errors import UsageError
from strategies.ploidy import TWO, copies
from strategies.privacy import Regime
from strategies.products import counted, counts_leave, rare
from strategies.protections.suppression import WITHHELD, held_by_few, replaced, small
from strategies.summary import Field, Summary
from strategies.variants import Panel

MOST_PAIRS = 2**20
"""Of one question: 56 MB from each site at most, in one piece, since a band runs over the edges of any slices."""

COMMON, SOME, HIT, INDEX, FEW = 1, 2, 4, 8, 16
"""Bits of a variant's role: its counts and its place let it take part; some genotypes are missing; its p value lets it
be in a clump; or be an index of one; fewer than three sites hold it. Without clumps, all are hits and may be one."""

Rows = NDArray[np.int64]


@dataclass(frozen=True)
class LinkageDisequilibrium:
    """r and r2 of the pairs of variants in a band; clumps of an association, if one is named.

    Attributes:
        panel: name of the study's panel.
        window_kb: largest distance of a pair, in thousands of base pairs.
        variants_in_band: each variant's pairs are with at most so many of the panel after it. Not for clumps.
        minimum_minor_alleles: least pooled number of minor alleles of a variant that takes part.
        clump: an earlier question whose answer has p values for the same panel; `question.table` if it has several.
        index_p, member_p: largest p of a clump's index, and of its members.
        r2: least r2 of a member with its index.
        taken: rounds taken so far.
        people: pooled number of people.
        role: (M,) bits of each variant.
        pairs: (P, 2) rows of each pair.
        counts: (M, 2) pooled people with at least one and with two alternate alleles; 0 where withheld.
        evidence: (M,) p values of the association; NaN where it has none.
    """

    analysis: ClassVar[str] = "linkage"
    regime: ClassVar[Regime] = Regime.EXACT
    by_site: ClassVar[bool] = False
    summary_in_words: ClassVar[str] = (
        "genotype counts of each variant; for each pair of neighbours the sum over people of the product of genotypes, "
        "the number of people with both, and the two variants' genotype counts among them"
    )

    panel: str = field(metadata=NAMES_PANEL)
    window_kb: float = 250.0
    variants_in_band: int = 50
    minimum_minor_alleles: int = 20
    clump: str | None = field(default=None, metadata=NAMES_QUESTION)
    index_p: float = 1e-4
    member_p: float = 1e-2
    r2: float = 0.5
    taken: int = field(default=0, metadata=DERIVED)
    people: int = field(default=0, metadata=DERIVED)
    role: Rows = field(default_factory=lambda: np.zeros(0, dtype=np.int64), compare=False, metadata=CARRIED)
    pairs: Rows = field(default_factory=lambda: np.zeros((0, 2), dtype=np.int64), compare=False, metadata=KEPT)
    counts: Rows = field(default_factory=lambda: np.zeros((0, 2), dtype=np.int64), compare=False, metadata=KEPT)
    evidence: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0), compare=False, metadata=KEPT)

    def __post_init__(self) -> None:
        for name, low, high in (
            ("window_kb", 1e-3, 1e6),
            ("variants_in_band", 1, 10_000),
            ("minimum_minor_alleles", 0, 10**9),
            ("index_p", 0, 1),
            ("member_p", self.index_p, 1),
            ("r2", 0, 1),
            ("taken", 0, 1),
        ):
            if not low <= getattr(self, name) <= high:
                raise ValueError(f"{name} must be from {low} to {high}.")
        if self.role.ndim != 1 or self.role.dtype != np.int64 or ((self.role < 0) | (self.role > 31)).any():
            raise ValueError("A role is five bits for each variant.")

    @property
    def follows(self) -> str:
        """The earlier question that is clumped, or nothing."""
        return (self.clump or "").partition(".")[0]

    def after(self, answer: Answer, frame: Frame) -> LinkageDisequilibrium:
        """The question once that one is answered.

        Raises:
            UsageError: if the answer has no p values, or several tables of them and none is named.
        """
        wanted = (self.clump or "").partition(".")[2]
        able = {n: t["p_value"] for n, t in answer.tables.items() if "p_value" in t and wanted in ("", n)}
        if len(able) != 1:
            raise UsageError(
                "A clumped question's answer has one table of p values, or `clump` names one: question.table.",
                f"clump = {self.clump!r}: {', '.join(able) or 'none'}",
                "name an association, and which of its traits.",
            )
        return replace(self, evidence=np.asarray(next(iter(able.values())), dtype=np.float64))

    def needs(self) -> Needs:
        return Needs(panel=self.panel, walked=self.taken > 0)

    def rounds(self) -> int:
        return 2

    def fraction(self) -> float:
        return 0.0

    def slices(self, frame: Frame) -> tuple[slice, ...]:
        return WHOLE if self.taken else by_variants(frame)

    def leaves(self, frame: Frame) -> dict[str, Field]:
        assert frame.panel is not None
        m = len(frame.panel)
        if not self.taken:
            return counts_leave(m)
        if len(self.role) != m:
            raise ValueError("A role stands for each variant.")
        pairs = self._pairs(frame.panel)
        p, q = len(pairs), len(self._some(pairs))
        # Two alleles at both: a product of 4, and one person more in four of the numbers of people.
        words = "people without either genotype; of the others, with 1 or 2 and with 2 alternate alleles at each"
        return {
            "products": Field((p,), "alternate alleles at one variant times those at the other", 4 * p, 4 * p**0.5),
            "observed": Field((q, 5), words, 4 * q, 2 * q**0.5),
            "holders": Field((q,), "sites where somebody has both genotypes", q, q**0.5, over="sites"),
            "people": Field((), "people", 1, 1),
        }

    def _pairs(self, panel: Panel) -> Rows:
        """(P, 2) the variants of each pair that is asked, by their rows in the panel.

        Raises:
            UsageError: if they are too many.
        """
        key = (panel.places.chromosomes.astype(np.int64) << 40) + panel.places.positions
        order = np.argsort(key, kind="stable")
        key = key[order]
        last = np.searchsorted(key, key + round(1000 * self.window_kb), side="right") - 1
        if not self.clump:
            last = np.minimum(last, np.arange(len(key)) + self.variants_in_band)
        # From here on, places are those among the variants that take part: i pairs with i + 1 to last[i].
        part = np.flatnonzero((self.role[order] & (COMMON | HIT)) == COMMON | HIT)
        on, last, here = order[part], np.searchsorted(part, last[part], side="right") - 1, np.arange(len(part))
        index = np.flatnonzero(self.role[on] & INDEX)
        rest = np.setdiff1d(here, index)
        start, stop = (np.searchsorted(index, bound[rest], side="right") for bound in (here, last))
        number = int((last[index] - index).sum()) + int((stop - start).sum())
        if number > MOST_PAIRS:
            raise UsageError(
                f"A question is about {MOST_PAIRS:,} pairs of variants at most.",
                f"{number:,}",
                "narrow the window or the band, thin the panel, or lower the p values.",
            )
        one = np.concatenate([np.repeat(index, last[index] - index), np.repeat(rest, stop - start)])
        other = np.concatenate([_runs(index + 1, last[index] + 1), index[_runs(start, stop)]])
        pairs: Rows = on[np.stack([one, other], axis=1)[np.argsort(one, kind="stable")]]
        return pairs

    def _some(self, pairs: Rows) -> Rows:
        """(Q,) which pairs have a variant of which somebody's genotype is missing."""
        return np.flatnonzero(((self.role[pairs] & SOME) > 0).any(axis=1))

    def summarise(self, cohort: Cohort, frame: Frame) -> Summary:
        assert frame.panel is not None
        if not self.taken:
            assert cohort.genotypes is not None
            return counted(cohort.genotypes)
        people = np.array(len(cohort), dtype=np.int64)
        pairs = self._pairs(frame.panel)
        products, observed = _sums(cohort.walked, pairs, self._some(pairs))
        holders = (observed[:, 0] < len(cohort)).astype(np.int64)
        return {"products": products, "observed": observed, "holders": holders, "people": people}

    def withhold(self, sums: Summary, minimum_cell: int) -> Summary:
        if self.taken:
            few = self._few(sums, minimum_cell)
            shown = replaced(sums, ("products",), few, WITHHELD)
            return replaced(shown, ("observed",), few[self._some(self.pairs)], WITHHELD)
        if small(sums["people"], minimum_cell):
            return {name: np.full_like(array, WITHHELD) for name, array in sums.items()}
        few = rare(sums["genotypes"], int(sums["people"]), self.minimum_minor_alleles, minimum_cell)
        return replaced(sums, ("genotypes",), few, WITHHELD)

    def _few(self, sums: Summary, minimum_cell: int) -> NDArray[np.bool_]:
        """(P,) whether a pair's sums tell of few people."""
        few: NDArray[np.bool_] = sums["products"] == WITHHELD
        n, one, other = self._margins(sums, few)
        product = np.where(few, 0, sums["products"])
        for cells in (one, other):
            few |= (n - cells[:, 2] < minimum_cell) | (n - cells[:, 0] < minimum_cell)
        for row, column, weight in BESIDE_A_PATH:
            few |= small(one @ row + other @ column + weight * product, minimum_cell)
        return few

    def _margins(self, sums: Summary, hidden: NDArray[np.bool_]) -> tuple[Rows, Rows, Rows]:
        """(P,) n, and (P, 3) those with 0, 1 and 2 alternate alleles at each variant of a pair; what is hidden counts
        as if nobody's genotype were missing."""
        whole, some = self.counts[self.pairs].reshape(-1, 4), self._some(self.pairs)
        some = some[~hidden[some]]
        seen = sums["observed"][~hidden[self._some(self.pairs)]]
        n = np.full(len(whole), self.people)
        n[some] -= seen[:, 0]
        whole[some] = seen[:, 1:]
        cells = [np.stack([n - whole[:, k], whole[:, k] - whole[:, k + 1], whole[:, k + 1]], axis=1) for k in (0, 2)]
        return n, cells[0], cells[1]

    def conclude(self, total: Total, frame: Frame) -> Answer | LinkageDisequilibrium:
        assert frame.panel is not None
        sums, m = self.withhold(total.sums, total.minimum_cell), len(frame.panel)
        if not self.taken:
            if sums["people"] == WITHHELD:
                return replace(self, people=0, role=np.zeros(m, dtype=np.int64))._answer(frame, math.nan)
            return self._second(frame, sums, len(total.sites))
        hidden, some = sums["products"] == WITHHELD, self._some(self.pairs)
        few = np.zeros(len(hidden), dtype=bool)
        few[some] = held_by_few(sums["holders"], len(total.sites))
        n, one, other = self._margins(sums, hidden)
        alleles = np.arange(3)
        product = np.where(hidden, 0, sums["products"])
        a, b = one @ alleles, other @ alleles
        between = (n * product - a * b).astype(np.float64)
        spread = [(n * (cells @ alleles**2) - s**2).astype(np.float64) for cells, s in ((one, a), (other, b))]
        varied = (spread[0] > 0) & (spread[1] > 0) & ~hidden & ~few
        root = np.sqrt(np.where(varied, spread[0], 1.0)) * np.sqrt(np.where(varied, spread[1], 1.0))
        r = np.where(varied, np.clip(between / root, -1, 1), np.nan)
        return self._answer(frame, self.people, r, np.where(hidden | few, np.nan, n), hidden | few, few)

    def _second(self, frame: Frame, sums: Summary, sites: int) -> Answer | LinkageDisequilibrium:
        assert frame.panel is not None
        hidden = (sums["genotypes"] == WITHHELD).any(axis=1)
        het, alt, missing = np.where(hidden[:, None], 0, sums["genotypes"]).T
        few = held_by_few(sums["holders"], sites)
        p = self.evidence if self.clump else np.zeros(len(hidden))
        if self.clump and not len(p):  # nothing is known of the earlier answer where a round is only planned
            p = np.zeros(len(hidden))
        role = COMMON * (~hidden & ~few & (copies(frame.panel) == TWO)) + SOME * (missing > 0) + FEW * few
        role = (role + HIT * (p <= self.member_p) + INDEX * (p <= self.index_p)).astype(np.int64)
        counts = np.stack([het + alt, alt], axis=1)
        begun = replace(self, taken=1, people=int(sums["people"]), role=role, counts=counts)
        pairs = begun._pairs(frame.panel)
        return replace(begun, pairs=pairs) if len(pairs) else begun._answer(frame, begun.people)

    def _answer(
        self,
        frame: Frame,
        people: float,
        r: NDArray[np.float64] | None = None,
        n: NDArray[np.float64] | None = None,
        withheld: NDArray[np.bool_] | None = None,
        held_by_few: NDArray[np.bool_] | None = None,
    ) -> Answer:
        """The tables; without the sums of round 2, of no pairs."""
        assert frame.panel is not None
        variants, nothing = variant_columns(frame.panel), np.zeros(0)
        r, n = nothing if r is None else r, nothing if n is None else n
        hidden = nothing.astype(bool) if withheld is None else withheld
        few = nothing.astype(bool) if held_by_few is None else held_by_few
        (one, other), identifiers = self.pairs.T, variants["id"]
        position = np.asarray(variants["position"])
        squared = r**2
        both, shown = self.pairs.ravel(), np.repeat(~hidden, 2)
        m, apart = len(frame.panel), (self.role & COMMON) == 0
        tables: dict[str, Mapping[str, Column]] = {
            "pairs": {
                "chromosome": tuple(variants["chromosome"][j] for j in one.tolist()),
                "row_a": one,
                "row_b": other,
                "id_a": tuple(identifiers[j] for j in one.tolist()),
                "id_b": tuple(identifiers[j] for j in other.tolist()),
                "distance": position[other] - position[one],
                "r": r,
                "r2": squared,
                "n": n,
                "withheld": hidden,
                "held_by_few": few,
            },
            "variants": {
                **variants,
                "pairs": np.bincount(both[shown], minlength=m),
                "pairs_withheld": np.bincount(both[~shown], minlength=m),
                "r2_sum": np.where(apart, np.nan, np.bincount(both, np.repeat(np.nan_to_num(squared), 2), minlength=m)),
                "two_copies": copies(frame.panel) == TWO,
                "withheld": apart,
                "held_by_few": (self.role & FEW) > 0,
            },
        }
        facts: dict[str, float | int | str] = {
            "people": people,
            "variants": m,
            "variants_used": int((~apart).sum()),
            "pairs": len(r),
            "pairs_withheld": int(hidden.sum()),
        }
        if self.clump:
            p = np.where(apart, np.nan, self.evidence) if len(self.evidence) else np.full(m, np.nan)
            clumps, members = clumped(p, self.pairs, squared, (self.index_p, self.member_p, self.r2), variants)
            tables |= {"clumps": clumps, "members": members}
            facts |= {"clumps": len(clumps["clump"]), "clumped": self.clump}
        return Answer(tables, facts, int(apart.sum()) + int(hidden.sum()))


def _sums(genotypes: Genotypes | Stored, pairs: Rows, some: Rows) -> tuple[Rows, Rows]:
    """(P,) products of genotypes, and (Q, 5) numbers of people for some of the pairs, which lie in the order of their
    first variants: some thousand of these, with all that they pair with, are in memory at a time."""
    products, observed = np.empty(len(pairs), dtype=np.int64), np.empty((len(some), 5), dtype=np.int64)
    firsts = np.flatnonzero(np.diff(pairs[:, 0], prepend=-1))
    for start, stop in pairwise([*firsts[::VARIANTS_AT_A_TIME].tolist(), len(pairs)]):
        within = slice(*np.searchsorted(some, (start, stop)).tolist())
        rows, at = np.unique(pairs[start:stop], return_inverse=True)
        products[start:stop], observed[within] = kernels.pair_sums(
            genotypes[rows].packed, at.reshape(-1, 2), some[within] - start
        )
    return products, observed


def _runs(start: Rows, stop: Rows) -> Rows:
    """The whole numbers from each start to its stop, one run after the other.

    >>> _runs(np.array([3, 7, 1]), np.array([5, 7, 3])).tolist()
    [3, 4, 1, 2]
    """
    length = stop - start
    return np.arange(int(length.sum())) + np.repeat(stop - np.cumsum(length), length)


def _beside_a_path() -> tuple[tuple[Rows, Rows, int], ...]:
    """For each of the twelve paths, (3,) u, (3,) v and w of the weights u(a) + v(b) + w a b that are 0 on it.

    A path goes from a = b = 0 to a = b = 2 by steps of one in a or in b, or so from a = 0, b = 2 to a = 2, b = 0; along
    it each step gives one u or v more.

    >>> [int((u[:, None] + v + w * np.outer(range(3), range(3))).min()) for u, v, w in _beside_a_path()]
    [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
    """
    out = []
    for weight in (-1, 1):
        for across in combinations(range(4), 2):
            u, v, a, b = {0: 0}, {0 if weight < 0 else 2: 0}, 0, 0
            for step in range(4):
                a, b = (a + 1, b) if step in across else (a, b + 1)
                at = b if weight < 0 else 2 - b
                if step in across:
                    u[a] = -v[at] - weight * a * at
                else:
                    v[at] = -u[a] - weight * a * at
            out.append((np.array([u[k] for k in range(3)]), np.array([v[k] for k in range(3)]), weight))
    return tuple(out)


BESIDE_A_PATH = _beside_a_path()


def draw_decay(answer: Answer, axes: Any) -> str:
    """Draw r2 against distance, and its mean; returns the figure in words."""
    table = answer.tables["pairs"]
    squared, distance = np.asarray(table["r2"], dtype=np.float64), np.asarray(table["distance"]) / 1000
    shown = np.isfinite(squared)
    squared, distance = squared[shown], distance[shown]
    faint = min(0.3, max(0.03, 2000 / max(len(squared), 1)))  # the mean is seen through ever so many
    axes.scatter(distance, squared, s=4, color="C2", alpha=faint, linewidths=0, rasterized=True)
    edges = np.linspace(0, max(float(distance.max(initial=0)), 1e-3), 26)
    inside = np.clip(np.digitize(distance, edges) - 1, 0, 24)
    number = np.bincount(inside, minlength=25)
    mean = np.bincount(inside, squared, minlength=25) / np.maximum(number, 1)
    axes.plot(((edges[1:] + edges[:-1]) / 2)[number > 0], mean[number > 0], color="C0", linewidth=2.4)
    axes.set_ylim(0, 1.02)
    axes.xaxis.get_major_locator().set_params(nbins=5)
    axes.set_xlabel("distance (thousand base pairs)")
    axes.set_ylabel("r²")
    strong = int((squared >= 0.8).sum())
    return f"r² of {len(squared):,} pairs of variants by their distance; {strong:,} pairs have r² of at least 0.8."
