"""What the sums of a pair of variants tell of its nine cells, by linear programming, and what is withheld."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.optimize import linprog

from strategies.analyses.linkage import BESIDE_A_PATH, LinkageDisequilibrium
from strategies.analysis import Answer, Frame, Total
from strategies.cohort import MISSING, Cohort, Genotypes
from strategies.protections.suppression import WITHHELD
from strategies.variants import Panel, Variant
from tests.laws.zoo import add

COPIES = np.arange(3)
KNOWN = np.array([*(np.eye(3)[k].repeat(3) for k in range(3)), *(np.tile(np.eye(3)[k], 3) for k in range(3)),
                  np.outer(COPIES, COPIES).ravel()])  # fmt: skip
"""(7, 9) weights of the nine cells in what is known: each variant's own counts, and the sum of products."""

MARGINS = KNOWN[:6].reshape(6, 3, 3)
WEIGHTS = np.array([u[:, None] + v + w * np.outer(COPIES, COPIES) for u, v, w in BESIDE_A_PATH])


def tables(rng: np.random.Generator, number: int) -> list[NDArray[np.int64]]:
    """Tables of nine cells: independent ones, and such that lie near a path, with some empty cells."""
    out = []
    for k in range(number):
        share = np.outer(rng.dirichlet([1, 1, 1]), rng.dirichlet([1, 1, 1]))
        if k % 2:
            weight = WEIGHTS[rng.integers(len(WEIGHTS))] > 0
            share = np.where(weight, share * rng.choice([0.0, 0.05]), share)
        out.append(rng.multinomial(int(rng.choice([20, 60, 200])), (share / share.sum()).ravel()).reshape(3, 3))
    return out


def most(cell: int, table: NDArray[np.int64]) -> float:
    """The largest number of people that a cell may hold, for who knows the sums alone."""
    weights = np.zeros(9)
    weights[cell] = -1.0
    return float(-linprog(weights, A_eq=KNOWN, b_eq=KNOWN @ table.ravel(), method="highs").fun)


def test_the_twelve_weights_and_the_margins_are_all_that_bounds_a_cell() -> None:
    assert len({w.tobytes() for w in WEIGHTS}) == 12
    assert (WEIGHTS >= 0).all()
    assert ((WEIGHTS == 0).sum(axis=(1, 2)) == 5).all()
    rays = np.concatenate([MARGINS, WEIGHTS]).reshape(-1, 9)
    tight = 0
    for table in tables(np.random.default_rng(1), 60):
        values = rays @ table.ravel()
        for cell in range(9):
            bound = min(v / w[cell] for v, w in zip(values, rays, strict=True) if w[cell])
            assert most(cell, table) == pytest.approx(bound, abs=1e-6)
            tight += bound < min(values[:6])
    assert tight > 50, "the twelve say more than the margins"


def answered(codes: NDArray[np.uint8], minimum: int) -> tuple[LinkageDisequilibrium, Answer]:
    """The second round and the answer over three sites."""
    panel = Panel("GRCh37", tuple(Variant("1", 1 + j, f"v{j}", "A", "C") for j in range(len(codes))))
    parts = [Cohort(codes[:, s::3].shape[1], Genotypes.pack(codes[:, s::3])) for s in range(3)]
    question: LinkageDisequilibrium = LinkageDisequilibrium("p", variants_in_band=1, minimum_minor_alleles=1)
    while True:
        total = Total(add([question.summarise(p, Frame(panel)) for p in parts]), ("a", "b", "c"), {}, minimum)
        following = question.conclude(total, Frame(panel))
        if isinstance(following, Answer):
            return question, following
        question = following


def people(table: NDArray[np.int64]) -> NDArray[np.uint8]:
    """(2, N) genotypes with the table's numbers of people."""
    one, other = np.repeat(np.stack(np.divmod(np.arange(9), 3)), table.ravel(), axis=1)
    order = np.random.default_rng(int(table.sum())).permutation(len(one))
    return np.stack([one, other]).astype(np.uint8)[:, order]


@pytest.mark.parametrize("minimum", [3, 5, 10])
def test_no_few_people_are_known_to_lie_beside_a_path(minimum: int) -> None:
    made = [t for t in tables(np.random.default_rng(minimum), 900) if t.sum() == 200]
    answer = answered(np.concatenate([people(table) for table in made]), minimum)[1]
    tabled = answer.tables["pairs"]
    rows = {int(a): k for k, (a, b) in enumerate(zip(tabled["row_a"], tabled["row_b"], strict=True)) if b == a + 1}
    counted = {True: 0, False: 0}
    for number, table in enumerate(made):
        one, other = table.sum(axis=1), table.sum(axis=0)
        carriers = min(one[1:].sum(), one[:2].sum(), other[1:].sum(), other[:2].sum())
        values = [int((w * table).sum()) for w in WEIGHTS]
        few = carriers < minimum or any(0 < v < minimum for v in values)
        at = rows.get(2 * number)
        shown = at is not None and not tabled["withheld"][at]
        assert shown == (not few), (table, values)
        assert not shown or tabled["n"][at] == 200
        counted[shown] += 1
    assert min(counted.values()) > 10, counted


def test_one_discordant_person_among_many_is_withheld() -> None:
    """Two variants that agree in all but one person: the sums tell that there is one, and her genotypes."""
    codes = people(np.diag([200, 150, 50]))
    assert not answered(codes, 5)[1].tables["pairs"]["withheld"].any(), "nobody is no small number"
    codes[0, 0] = (codes[0, 0] + 1) % 3
    tabled = answered(codes, 5)[1].tables["pairs"]
    assert tabled["withheld"].tolist() == [True]
    assert np.isnan(tabled["r"]).all()
    assert np.isnan(tabled["n"]).all()


def test_few_people_without_a_genotype_of_a_pair_are_withheld() -> None:
    codes = np.random.default_rng(2).integers(0, 3, (2, 400)).astype(np.uint8)
    codes[0, :6], codes[1, :6] = MISSING, MISSING
    assert answered(codes, 5)[1].tables["pairs"]["n"].tolist() == [394]
    assert len(answered(codes, 10)[1].tables["pairs"]["n"]) == 0, "six are few: neither variant takes part"


def test_a_pair_that_two_sites_see_together_is_withheld() -> None:
    """Each variant is held by all sites, but at one nobody has both genotypes."""
    codes = np.random.default_rng(3).integers(0, 3, (2, 300)).astype(np.uint8)
    first = np.flatnonzero(np.arange(300) % 3 == 0)
    codes[0, first[::2]], codes[1, first[1::2]] = MISSING, MISSING
    tabled = answered(codes, 0)[1].tables["pairs"]
    assert tabled["held_by_few"].tolist() == [True]
    assert tabled["withheld"].tolist() == [True]
    assert np.isnan(tabled["r"]).all()


def test_few_carriers_among_those_with_both_genotypes_are_withheld() -> None:
    """Forty carry the one variant, but only three of them have a genotype at the other: all the same."""
    codes = np.random.default_rng(5).binomial(2, 0.5, (2, 600)).astype(np.uint8)
    codes[0] = 0
    codes[0, :40] = 1
    codes[1, :37], codes[1, 37:40] = MISSING, 2
    tabled = answered(codes, 5)[1].tables["pairs"]
    assert tabled["withheld"].tolist() == [True]
    assert not tabled["held_by_few"].any()


def test_rare_variants_are_in_no_pair_that_is_asked() -> None:
    """A rare variant's sums of products would be its carriers' genotypes: nodes are not asked for them."""
    codes = np.random.default_rng(4).binomial(2, 0.4, (6, 600)).astype(np.uint8)
    codes[2], codes[4] = 0, 0
    codes[2, :7], codes[4, :19] = 1, 1
    panel = Panel("GRCh37", tuple(Variant("1", 1 + j, f"v{j}", "A", "C") for j in range(6)))
    first = LinkageDisequilibrium("p")
    parts = [Cohort(200, Genotypes.pack(codes[:, s::3])) for s in range(3)]
    total = add([first.summarise(part, Frame(panel)) for part in parts])
    second = first.conclude(Total(total, ("a", "b", "c"), {}, 5), Frame(panel))
    assert isinstance(second, LinkageDisequilibrium)
    assert {int(j) for j in second.pairs.ravel()} == {0, 1, 3, 5}
    assert len(second.summarise(parts[0], Frame(panel))["products"]) == 6


def test_nothing_that_is_withheld_is_looked_at_again() -> None:
    codes = people(np.array([[60, 3, 0], [2, 40, 0], [0, 1, 30]]))
    question, answer = answered(codes, 5)
    panel = Panel("GRCh37", tuple(Variant("1", 1 + j, f"v{j}", "A", "C") for j in range(2)))
    sums = question.summarise(Cohort(codes.shape[1], Genotypes.pack(codes)), Frame(panel))
    blotted = question.withhold(sums, 5)
    assert (blotted["products"] == WITHHELD).all()
    again = replace(question).conclude(Total(blotted, ("a", "b", "c"), {}, 5), Frame(panel))
    assert isinstance(again, Answer)
    assert str(again.tables) == str(answer.tables)
