"""Rare variants gene by gene: burden test, SKAT and SKAT-O of a quantitative trait, over the people of all sites.

With G the alternate alleles of a gene's variants (a missing genotype counting as none), X an intercept and covariates,
the scores and their covariance under no effect are, from sums of products over people,

    S = G'y - G'X (X'X)^-1 X'y,   V = G'G - G'X (X'X)^-1 X'G,   Var S = s2 V;

with weights w, burden is (w'S)^2 / (s2 w'V w), SKAT is sum (w S)^2 [1], and SKAT-O the best of their mixtures [2].

The score of a variant with few carriers is those people's trait. So variants with an alternate allele seen less than
three times, or with fewer carriers than the minimum, never stand alone: a gene's are collapsed into one, which says
whether a person carries any. Round 1 counts each variant's alleles and sums the columns' products. Round 2 counts each
gene's carriers, and of its collapsed variants. Round 3 sums scores and covariance of what has carriers enough, and a
gene whose carriers are fewer than the minimum is withheld. That two variants are carried together, or by how few, is in
the covariance that the coordinator's software sees; the answer tells p values and carriers.

[1] Wu et al.: Rare-variant association testing for sequencing data with the sequence kernel association test, AJHG 89
    (2011), equations 3 and 4.
[2] Lee, Wu, Lin: Optimal tests for rare variant effects in sequencing association studies, Biostatistics 13 (2012),
    section 3.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from strategies.analysis import (
    CARRIED,
    DERIVED,
    KEPT,
    NAMES_COLUMN,
    NAMES_PANEL,
    VARIANTS_PER_SLICE,
    Answer,
    Column,
    Frame,
    Needs,
    Total,
    by_variants,
    stating,
)
from strategies.cohort import MISSING, Cohort, Genotypes
from strategies.errors import UsageError
from strategies.evidence import draw_along
from strategies.kernel_tests import burden, skat, skat_o
from strategies.ploidy import check_sex, read_by_sex
from strategies.privacy import Regime
from strategies.protections.suppression import WITHHELD, held_by_few, replaced, small
from strategies.summary import Field, Summary
from strategies.variants import GENE, MOST_GENES, WEIGHT, Panel

PRODUCT_BITS = 36
"""Fraction bits of products of columns in units of half their range: 2^21 people fit for each of 32 sites."""

LEAST_DEVIATION = 1e-3
"""A column's pooled standard deviation in units of half its range; below this the sums lose their precision."""

LEAST_ALLELES = 3
"""A variant whose alternate allele is seen less often is collapsed."""

OUT, ALONE, COLLAPSED = 0.0, 1.0, 2.0
"""What becomes of a variant."""

MOST_UNITS = 1000
"""Variants that stand alone in one gene: half a million covariances."""


@dataclass(frozen=True)
class Gene:
    """One gene's part of a panel.

    Attributes:
        name: the gene's.
        members: places of its variants among the panel's.
        bits: each member's place among the names of the variant's genes.
    """

    name: str
    members: tuple[int, ...]
    bits: tuple[int, ...]


def genes(panel: Panel) -> tuple[Gene, ...]:
    """The genes of a panel, in the order of their first variants."""
    found: dict[str, list[tuple[int, int]]] = {}
    for j, variant in enumerate(panel.variants):
        for bit, name in enumerate(variant.genes):
            found.setdefault(name, []).append((j, bit))
    return tuple(Gene(n, tuple(j for j, _ in at), tuple(b for _, b in at)) for n, at in found.items())


def by_genes(panel: Panel) -> tuple[slice, ...]:
    """Cut a panel into slices of about a constant number of variants, none of which parts a gene."""
    last: dict[str, int] = {}
    for j, variant in enumerate(panel.variants):
        last.update(dict.fromkeys(variant.genes, j))
    out, start, reach = [], 0, -1
    for j, variant in enumerate(panel.variants):
        reach = max([reach, j, *(last[name] for name in variant.genes)])
        if reach == j and (j + 1 - start >= VARIANTS_PER_SLICE or j + 1 == len(panel)):
            out.append(slice(start, j + 1))
            start = j + 1
    return tuple(out)


@dataclass(frozen=True)
class RareVariants:
    """Burden, SKAT and SKAT-O p values of every gene of a panel.

    Attributes:
        panel: name of the study's panel, which states genes. If it states weights they are the variants'; otherwise
            they are the density of Beta(1, 25) at the pooled frequency.
        trait: name of the quantitative column.
        covariates: names of further columns; an intercept is always there.
        maximum_frequency: of the alternate allele; a variant with more is left out.
        sex: name of the column of sexes, which variants on X outside its pseudo-autosomal regions and on MT need. One
            copy counts as two, and somebody who would be heterozygous with it as a non-carrier.
        taken: rounds taken so far.
        people: the pooled number of people with trait and covariates.
        roles: (M,) OUT, ALONE or COLLAPSED.
        tested: (M, 2) which of a variant's genes are tested, and which of these with their collapsed variants: a bit
            for each name, in their order.
        frequency: (M,) pooled, NaN where withheld.
        few: (M,) whether fewer than three sites hold the variant.
        products: of intercept, covariates and trait.
        carriers: (G, 2) of each gene, and of its collapsed variants; NaN where withheld.
    """

    analysis: ClassVar[str] = "rare_variants"
    regime: ClassVar[Regime] = Regime.EXACT
    by_site: ClassVar[bool] = False
    summary_in_words: ClassVar[str] = (
        "allele counts of each variant; numbers of carriers of each gene; then for each gene sums of alternate alleles "
        "times trait and covariates, and times each other"
    )

    panel: str = field(metadata=stating(NAMES_PANEL, GENE))
    trait: str = field(metadata=NAMES_COLUMN)
    covariates: tuple[str, ...] = field(default=(), metadata=NAMES_COLUMN)
    maximum_frequency: float = 0.01
    sex: str | None = field(default=None, metadata=NAMES_COLUMN)
    taken: int = field(default=0, metadata=DERIVED)
    people: int = field(default=0, metadata=DERIVED)
    roles: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0), compare=False, metadata=CARRIED)
    tested: NDArray[np.float64] = field(default_factory=lambda: np.zeros((0, 2)), compare=False, metadata=CARRIED)
    frequency: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0), compare=False, metadata=KEPT)
    few: NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, dtype=bool), compare=False, metadata=KEPT)
    products: NDArray[np.float64] = field(default_factory=lambda: np.zeros((0, 0)), compare=False, metadata=KEPT)
    carriers: NDArray[np.float64] = field(default_factory=lambda: np.zeros((0, 2)), compare=False, metadata=KEPT)

    def __post_init__(self) -> None:
        if self.trait in self.covariates or len(set(self.covariates)) != len(self.covariates):
            raise ValueError("trait and covariates must be different columns.")
        if not 0 < self.maximum_frequency <= 0.5:
            raise ValueError("maximum_frequency must be above 0 and at most 0.5.")
        if not (0 <= self.taken <= 2 and 0 <= self.people < 2**31):
            raise ValueError("taken is from 0 to 2, people a number below 2^31.")
        if not np.isin(self.roles, (OUT, ALONE, COLLAPSED)).all():
            raise ValueError("A variant is out, alone or collapsed.")
        if not (self.tested == np.clip(np.rint(self.tested), 0, 2.0**MOST_GENES - 1)).all():
            raise ValueError("tested holds bits.")

    @property
    def _columns(self) -> tuple[str, ...]:
        return (*self.covariates, self.trait)

    def needs(self) -> Needs:
        sex = () if self.sex is None else (self.sex,)
        return Needs(columns=tuple(dict.fromkeys((*self._columns, *sex))), panel=self.panel)

    def rounds(self) -> int:
        return 3

    def fraction(self) -> float:
        return 0.0

    def slices(self, frame: Frame) -> tuple[slice, ...]:
        assert frame.panel is not None
        return by_genes(frame.panel) if self.taken else by_variants(frame)

    def _genes(self, frame: Frame) -> list[tuple[list[int], list[int]]]:
        """Of each gene of a slice, the places of its variants that stand alone, and of those that are collapsed.

        In round 3 these are none of a gene that is not tested, or not with its collapsed variants.

        Raises:
            ValueError: if what was carried is not about this panel.
        """
        panel = frame.panel
        assert panel is not None
        span = slice(frame.start, frame.start + len(panel))
        roles, tested = self.roles[span], self.tested[span]
        if len(roles) != len(panel) or tested.shape != (len(panel) * (self.taken > 1), 2):
            raise ValueError("A role is given for each variant.")
        out = []
        for gene in genes(panel):
            allowed = [[True, True] for _ in gene.members]
            if self.taken > 1:
                allowed = [
                    [bool(int(bits) >> place & 1) for bits in tested[j]]
                    for j, place in zip(gene.members, gene.bits, strict=True)
                ]
            rows = list(zip(gene.members, allowed, strict=True))
            alone = [j for j, (whole, _) in rows if whole and roles[j] == ALONE]
            collapsed = [j for j, (whole, both) in rows if whole and both and roles[j] == COLLAPSED]
            out.append((alone, collapsed))
        return out

    def leaves(self, frame: Frame) -> dict[str, Field]:
        panel, columns = frame.panel, len(self._columns) + 1
        assert panel is not None
        check_sex(panel, self.panel, self.sex, frame.columns, males_alone=False)
        m, people = len(panel), Field((), "people with trait and covariates", 1, 1)
        if not self.taken:
            q = columns * (columns + 1) // 2
            return {
                "genotypes": Field((m, 2), "people with 1 or 2 alternate alleles", m, m**0.5, per_variant=True),
                "holders": Field((m,), "sites that hold the variant", m, m**0.5, per_variant=True, over="sites"),
                "products": Field((q,), "products of intercept, covariates and trait", q, q**0.5, PRODUCT_BITS),
                "people": people,
            }
        parts = self._genes(frame)
        if self.taken == 1:
            most = max(sum(bool(alone or rare) + bool(rare) for alone, rare in parts), 1)
            words = "carriers of each gene's variants, and of its collapsed ones"
            return {"carriers": Field((len(parts), 2), words, most, most**0.5, per_variant=True), "people": people}
        copies = [np.array([2.0] * len(alone) + [1.0] * bool(rare)) for alone, rare in parts]
        pairs = [np.outer(c, c)[np.triu_indices(len(c))] for c in copies]
        each, both = (np.concatenate([np.zeros(0), *part]) for part in (copies, pairs))
        words = "alternate alleles times intercept, covariates and trait"
        return {
            "sums": Field(
                (len(each), columns),
                words,
                columns * float(each.sum()),
                columns**0.5 * float(np.sqrt((each**2).sum())),
                PRODUCT_BITS,
                per_variant=True,
            ),
            "covariance": Field(
                (len(both),),
                "products of two variants' alternate alleles",
                float(both.sum()),
                float(np.sqrt((both**2).sum())),
                per_variant=True,
            ),
            "people": people,
        }

    def summarise(self, cohort: Cohort, frame: Frame) -> Summary:
        assert frame.panel is not None
        there, fields = np.flatnonzero(cohort.complete), self.leaves(frame)
        people = np.array(len(there), dtype=np.int64)
        units = [frame.columns[name].unit(cohort.columns[name][there]) for name in self._columns]
        rows = np.stack([np.ones(len(there)), *units], axis=1)
        genotypes = read_by_sex(cohort, frame.panel, self.sex)
        if len(there) < len(cohort):
            genotypes = genotypes.take(there)
        if not self.taken:
            i, j = np.triu_indices(rows.shape[1])
            cells = genotypes.counts()
            return {
                "genotypes": cells[:, 1:3],
                "holders": np.any(cells[:, :3], axis=1).astype(np.int64),
                "products": fields["products"].integers(rows[:, i] * rows[:, j]).sum(axis=0),
                "people": people,
            }
        parts = self._genes(frame)
        if self.taken == 1:
            carriers = np.zeros(fields["carriers"].shape, dtype=np.int64)
            for at, (alone, rare) in enumerate(parts):
                copies = _copies(genotypes, [*alone, *rare])
                carriers[at] = np.any(copies, axis=0).sum(), np.any(copies[len(alone) :], axis=0).sum()
            return {"carriers": carriers, "people": people}
        whole = fields["sums"].integers(rows)
        sums, covariance = [np.zeros((0, rows.shape[1]), dtype=np.int64)], [np.zeros(0, dtype=np.int64)]
        for alone, rare in parts:
            copies = _copies(genotypes, [*alone, *rare])
            if rare:
                copies = np.vstack([copies[: len(alone)], np.any(copies[len(alone) :], axis=0)[None, :]])
            carrying = np.flatnonzero(copies.any(axis=0))
            own = copies[:, carrying].astype(np.int64)
            sums.append(own @ whole[carrying])
            covariance.append((own @ own.T)[np.triu_indices(len(own))])
        return {"sums": np.concatenate(sums), "covariance": np.concatenate(covariance), "people": people}

    def withhold(self, sums: Summary, minimum_cell: int) -> Summary:
        if small(sums["people"], minimum_cell):
            return {name: np.full_like(array, WITHHELD) for name, array in sums.items()}
        if self.taken == 1:
            carriers, collapsed = sums["carriers"].T
            few = small(carriers, minimum_cell) | small(sums["people"] - carriers, minimum_cell)
            out: dict[str, NDArray[np.int64]] = dict(sums)
            out["carriers"] = np.where(few[:, None], WITHHELD, sums["carriers"])
            out["carriers"][small(collapsed, minimum_cell), 1] = WITHHELD
            return out
        if self.taken:
            return sums
        het, alt = sums["genotypes"].T
        alleles = het + 2 * alt
        rare = (alleles > 0) & ((alleles < LEAST_ALLELES) | small(het + alt, minimum_cell))
        common = alleles > 2 * self.maximum_frequency * sums["people"]
        shown = replaced(sums, ("genotypes",), rare & ~common, WITHHELD)
        return replaced(shown, ("genotypes",), common, 0)  # left out, whatever they are

    def conclude(self, total: Total, frame: Frame) -> Answer | RareVariants:
        assert frame.panel is not None
        sums = self.withhold(total.sums, total.minimum_cell)
        if sums["people"] == WITHHELD:
            return self._answer(frame.panel, math.nan, np.full((len(genes(frame.panel)), 2), np.nan))
        if not self.taken:
            return self._started(sums, frame, len(total.sites))
        if self.taken == 1:
            carriers = np.where(sums["carriers"] == WITHHELD, np.nan, sums["carriers"])
            tested = np.zeros((len(frame.panel), 2))
            for gene, (whole, rare) in zip(genes(frame.panel), carriers.tolist(), strict=True):
                for j, place in zip(gene.members, gene.bits, strict=True):
                    tested[j] += np.array([whole > 0, rare > 0]) * 2.0**place
            following = replace(self, taken=2, tested=tested, carriers=carriers)
            most = max(len(alone) for alone, _ in following._genes(frame))
            if most > MOST_UNITS:
                raise UsageError(
                    f"A gene is tested with at most {MOST_UNITS} variants beside its collapsed ones.",
                    f"one has {most}",
                    "lower maximum_frequency, or split the gene in the panel.",
                )
            if not any(map(any, following._genes(frame))):
                return following._answer(frame.panel, self.people, carriers)
            return following
        return self._answer(frame.panel, self.people, self.carriers, self._tests(sums, frame))

    def _started(self, sums: Summary, frame: Frame, sites: int) -> Answer | RareVariants:
        assert frame.panel is not None
        people, size = int(sums["people"]), len(self._columns) + 1
        if people < size + 1:
            raise UsageError(
                "A regression needs more people than it has parameters.",
                f"{people} people have trait and covariates, {size} parameters",
                "drop covariates or ask sites that have the columns.",
            )
        products = np.empty((size, size))
        i, j = np.triu_indices(size)
        products[i, j] = products[j, i] = self.leaves(frame)["products"].values(sums["products"])
        mean = products[0] / people
        deviation = np.sqrt(np.maximum(np.diagonal(products) / people - mean**2, 0.0))[1:]
        scaled = (products / people - np.outer(mean, mean))[1:, 1:] / np.maximum(np.outer(deviation, deviation), 1e-300)
        constant = [name for name, d in zip(self._columns, deviation, strict=True) if not d > LEAST_DEVIATION]
        if constant or np.linalg.eigvalsh(scaled)[0] < 1e-9:
            raise UsageError(
                "Trait and covariates must vary over the sites together, and not explain one another.",
                f"(nearly) constant: {', '.join(constant)}"
                if constant
                else f"{', '.join(self._columns)} are dependent",
                "drop columns, or narrow their range.",
            )
        few, hidden = held_by_few(sums["holders"], sites), sums["genotypes"][:, 0] == WITHHELD
        alleles = np.where(hidden, 0, sums["genotypes"] @ np.array([1, 2]))
        roles = np.where(hidden, COLLAPSED, np.where(alleles > 0, ALONE, OUT))
        roles = np.where(few | ~np.array([bool(v.genes) for v in frame.panel.variants]), OUT, roles)
        following = replace(
            self,
            taken=1,
            people=people,
            roles=roles,
            frequency=np.where(hidden, np.nan, alleles / (2 * people)),
            few=few,
            products=products,
        )
        if not roles.any():
            return following._answer(frame.panel, people, np.zeros((len(genes(frame.panel)), 2)))
        return following

    def _tests(self, sums: Summary, frame: Frame) -> NDArray[np.float64]:
        """(G, 5) burden effect, standard error and p value, and p values of SKAT and SKAT-O."""
        assert frame.panel is not None
        values = self.leaves(frame)["sums"].values(sums["sums"])
        inner, size = self.products[:-1, :-1], len(self._columns)
        coefficients = np.linalg.solve(inner, self.products[:-1, -1])
        rest = float(self.products[-1, -1] - coefficients @ self.products[:-1, -1])
        variance = rest / (self.people - size)
        span = frame.columns[self.trait]
        half = (span.maximum - span.minimum) / 2
        weights = frame.panel.weights if WEIGHT in frame.panel.states else _beta_weights(self.frequency)
        parts = self._genes(frame)
        out, row, pair = np.full((len(parts), 5), np.nan), 0, 0
        for at, (alone, rare) in enumerate(parts):
            units = len(alone) + bool(rare)
            if not units:
                continue
            pairs = units * (units + 1) // 2
            own, upper = values[row : row + units], sums["covariance"][pair : pair + pairs]
            row, pair = row + units, pair + pairs
            covariance = np.empty((units, units))
            i, j = np.triu_indices(units)
            covariance[i, j] = covariance[j, i] = upper
            scores = own[:, -1] - own[:, :-1] @ coefficients
            covariance -= own[:, :-1] @ np.linalg.solve(inner, own[:, :-1].T)
            w = weights[alone]
            if rare:
                together = (
                    weights[rare].mean()
                    if WEIGHT in frame.panel.states
                    else _beta_weights(np.array([self.carriers[at, 1] / (2 * self.people)]))
                )
                w = np.append(w, together)
            weighted, spread = w * scores, covariance * np.outer(w, w)
            beta, error, p = burden(weighted, spread, variance)
            out[at] = beta * half, error * half, p, skat(weighted, spread, variance), skat_o(weighted, spread, variance)
        return out

    def _answer(
        self,
        panel: Panel,
        people: float,
        carriers: NDArray[np.float64],
        tests: NDArray[np.float64] | None = None,
    ) -> Answer:
        found = genes(panel)
        numbers = np.full((len(found), 5), np.nan) if tests is None else tests
        roles = self.roles if len(self.roles) else np.full(len(panel), OUT)
        withheld = np.isnan(carriers[:, 0])

        def among(role: float) -> NDArray[np.int64]:
            return np.array([np.count_nonzero(roles[list(gene.members)] == role) for gene in found], dtype=np.int64)

        def place(gene: Gene) -> list[int]:
            return [panel.variants[j].position for j in gene.members]

        table: dict[str, Column] = {
            "gene": tuple(gene.name for gene in found),
            "chromosome": tuple(panel.variants[gene.members[0]].chromosome for gene in found),
            "first_position": np.array([min(place(gene)) for gene in found], dtype=np.int64),
            "last_position": np.array([max(place(gene)) for gene in found], dtype=np.int64),
            "variants": np.array([len(gene.members) for gene in found], dtype=np.int64),
            "alone": among(ALONE),
            "collapsed": among(COLLAPSED),
            "carriers": carriers[:, 0],
            **dict(zip(TESTS, numbers.T, strict=True)),
            "withheld": withheld,
        }
        facts: dict[str, float | int | str] = {
            "people": people,
            "trait": self.trait,
            "covariates": ", ".join(self.covariates),
            "genes": len(found),
            "held_by_few": int(self.few.sum()),
        }
        return Answer({"genes": table}, facts, int(withheld.sum()))


TESTS = ("burden_beta", "burden_standard_error", "burden_p", "skat_p", "skat_o_p")


def _copies(genotypes: Genotypes, rows: list[int]) -> NDArray[np.uint8]:
    """(m, N) alternate alleles of some of the variants; none where a genotype is missing."""
    if not rows:
        return np.zeros((0, genotypes.people), dtype=np.uint8)
    first = min(rows)
    codes = genotypes[first : max(rows) + 1].codes()[np.array(rows) - first]
    return np.where(codes == MISSING, 0, codes)


def _beta_weights(frequency: NDArray[np.float64]) -> NDArray[np.float64]:
    """The density of Beta(1, 25) [1, section Material and Methods]."""
    return 25 * (1 - frequency) ** 24


def draw_genes(answer: Answer, axes: Any) -> str:
    """Draw each gene's -log10 p of SKAT-O along the genome, and name the highest; returns the figure in words."""
    table = answer.tables["genes"]
    p = np.asarray(table["skat_o_p"], dtype=np.float64)
    shown, middle = np.isfinite(p), (np.asarray(table["first_position"]) + np.asarray(table["last_position"])) / 2
    evidence = np.where(shown, -np.log10(np.maximum(p, np.finfo(np.float64).tiny)), np.nan)
    place = draw_along({"chromosome": table["chromosome"], "position": middle}, evidence, axes)
    axes.set_ylabel("−log₁₀ p (SKAT-O)")
    if not shown.any():
        return "Genes along the genome, without a point: none was tested."
    level = -math.log10(0.05 / int(shown.sum()))
    axes.axhline(level, color="C1", linewidth=1, linestyle=(0, (5, 3)))
    axes.set_ylim(0, 1.12 * max(float(np.nanmax(evidence)), level))
    top = int(np.nanargmax(evidence))
    left = place[top] > (place.min() + place.max()) / 2
    shift, side = (-6, "right") if left else (6, "left")
    axes.annotate(
        table["gene"][top], (place[top], evidence[top]), xytext=(shift, 2), textcoords="offset points", ha=side
    )
    passing = int((evidence > level).sum())
    return (
        f"{int(shown.sum()):,} genes along the genome: {passing} lie beyond the dashed line at {level:.1f}; "
        f"{table['gene'][top]} is highest, at −log₁₀ p = {evidence[top]:.1f}."
    )
