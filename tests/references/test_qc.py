"""Quality control against what the field uses: plink2, PLINK 1.9, and definitions written out by hand."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import networkx as nx
import numpy as np
import pytest
from numpy.typing import NDArray

from fl_client.qc import genotypes, kinship
from fl_client.qc.genotypes import Place, Variants
from fl_client.qc.measures import measure, sex_of
from fl_client.qc.unrelated import EXACT, families, unrelated
from fl_client.readers import Dataset, DatasetConfig
from fl_client.readers.index import Entries
from fl_client.readers.plink import Bed
from tests import pedigrees
from tests.pedigrees import FEMALE, MALE

PLINK2 = shutil.which("plink2")
SHARED = next((p / "shared/data" for p in Path(__file__).parents if (p / "shared/data").is_dir()), None)
with_plink2 = pytest.mark.skipif(PLINK2 is None, reason="plink2 is not installed; .ci/run installs it")
with_shared = pytest.mark.skipif(SHARED is None, reason="no folder shared/data above this one")

PEOPLE, VARIANTS = 310, 2 * genotypes.SPAN + 1000
SEXES = np.where(np.arange(PEOPLE) % 2 == 0, MALE, FEMALE)
CHILDREN = {20: (0, 1), 21: (0, 1), 22: (20, 3), 23: (4, 21), 24: (6, 5), 25: (6, 7)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Families among strangers of two ancestries, and men with errors on X; 3 % of all genotypes are missing, and a
    third of those of a few variants and people."""
    rng = np.random.default_rng(31)
    home = tmp_path_factory.mktemp("families")
    variants = pedigrees.panel(VARIANTS, 300)
    codes = pedigrees.founders(variants, SEXES, rng)
    codes[:, 200:] = pedigrees.founders(variants, SEXES[200:], rng)
    pedigrees.drop(variants, codes, SEXES, CHILDREN, rng)
    codes[:, 30] = codes[:, 8]
    errors = rng.random((300, 10)) < 0.1
    codes[VARIANTS:, 40:60:2][errors] = 1
    codes = pedigrees.unobserved(codes, 0.03, rng)
    codes[::97] = pedigrees.unobserved(codes[::97], 0.3, rng)
    codes[:, ::100] = pedigrees.unobserved(codes[:, ::100], 0.3, rng)
    pedigrees.site(home, variants, codes, SEXES)
    told = "".join(f"0\t{p}\t0\t0\t{s}\t-9\n" for p, s in zip(pedigrees.identifiers(PEOPLE), SEXES, strict=True))
    (home / "g.fam").write_text(told)
    return home


@pytest.fixture(scope="module")
def data(folder: Path) -> Dataset:
    return Dataset.open(pedigrees.config(), folder)


def plink2(stem: Path, *words: str) -> dict[str, list[list[str]]]:
    """Run plink2 beside its input; its tables, by the last part of their names: header and lines."""
    assert PLINK2 is not None
    out = stem.parent / "out"
    out.mkdir(exist_ok=True)
    command = [PLINK2, "--bfile", str(stem), *words, "--threads", "1", "--out", str(out / "o")]
    subprocess.run(command, check=True, capture_output=True)
    return {f.suffix[1:]: [line.split() for line in f.read_text().splitlines()] for f in out.glob("o.*")}


def autosomal(data: Dataset) -> NDArray[np.int64]:
    variants = Variants.of(data)
    return variants.rows[variants.places == Place.AUTOSOME]


Pairs = dict[frozenset[str], tuple[int, int, int, float]]
"""Pair of people -> variants, both heterozygous, opposite homozygotes, kinship."""


def listed(data: Dataset, found: kinship.Relatives) -> Pairs:
    numbers = zip(found.observed, found.both_heterozygous, found.opposite, found.kinship, strict=True)
    pairs = zip(found.first, found.second, strict=True)
    return {
        frozenset((data.people[i], data.people[j])): (int(n), int(h), int(o), float(k))
        for (i, j), (n, h, o, k) in zip(pairs, numbers, strict=True)
    }


def king_table(stem: Path, *words: str) -> Pairs:
    """What `plink2 --make-king-table` says."""
    table = plink2(stem, "--make-king-table", "cols=id,nsnp,hethet,ibs0,kinship", "counts", *words)["kin0"]
    assert table[0][-6:] == ["#IID1", "IID2", "NSNP", "HETHET", "IBS0", "KINSHIP"]
    return {
        frozenset(line[-6:-4]): (int(line[-4]), int(line[-3]), int(line[-2]), float(line[-1])) for line in table[1:]
    }


def assert_equal(ours: Pairs, theirs: Pairs) -> None:
    """Counts exactly, kinship to the six digits that plink2 prints."""
    assert {pair: numbers[:3] for pair, numbers in ours.items()} == {p: n[:3] for p, n in theirs.items()}
    assert max(abs(numbers[3] - theirs[pair][3]) for pair, numbers in ours.items()) <= 0.5000001e-6


# -- relatives --------------------------------------------------------------------------------------------------------


@with_plink2
def test_kinship_is_plink2s_for_every_pair(
    folder: Path, data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Across tiles of people, spans of variants and a last word that is not full; plink2 prints six digits."""
    monkeypatch.setattr(kinship, "_TILE", 128)
    found = kinship.relatives(data, autosomal(data), -1.0, tmp_path)
    theirs = king_table(folder / "g")
    assert len(theirs) == PEOPLE * (PEOPLE - 1) // 2
    assert_equal(listed(data, found), theirs)
    assert found.degrees.sum() == found.density.sum() == len(theirs)


def test_kinship_is_its_definition(data: Dataset, tmp_path: Path) -> None:
    """Equation 11 of Manichaikul et al. with the smaller number of heterozygotes, written out for two people."""
    rows = autosomal(data)
    found = kinship.relatives(data, rows, 0.2, tmp_path)
    codes = np.concatenate([block for _, block in genotypes.blocks(data, rows)]).astype(int)
    assert len(found) == 14
    for first, second, value in zip(found.first, found.second, found.kinship, strict=True):
        i, j = codes[:, [first, second]][(codes[:, [first, second]] != 3).all(axis=1)].T
        both, opposite = ((i == 1) & (j == 1)).sum(), (abs(i - j) == 2).sum()
        least, sum_of_both = min((i == 1).sum(), (j == 1).sum()), (i == 1).sum() + (j == 1).sum()
        assert value == pytest.approx((both - 2 * opposite) / (2 * least) + 0.5 - sum_of_both / (4 * least), abs=1e-12)


def test_relatives_have_the_kinship_of_their_pedigree(data: Dataset, tmp_path: Path) -> None:
    """Standard deviation at 17,000 unlinked variants: below 0.01."""
    found = kinship.relatives(data, autosomal(data), -1.0, tmp_path)
    value = {(int(i), int(j)): k for i, j, k in zip(found.first, found.second, found.kinship, strict=True)}
    pedigree = {(8, 30): 0.5, (0, 20): 0.25, (1, 21): 0.25, (20, 21): 0.25, (20, 22): 0.25, (0, 22): 0.125,
                (21, 22): 0.125, (22, 23): 0.0625, (24, 25): 0.125, (10, 11): 0.0}  # fmt: skip
    for pair, expected in pedigree.items():
        assert abs(value[pair] - expected) < 0.05, pair
    assert all(value[i, j] < 0.0 for i in range(40, 60) for j in range(210, 230)), "two ancestries"


@with_plink2
@with_shared
def test_relatives_of_1000_genomes_are_plink2s(tmp_path: Path) -> None:
    assert SHARED is not None
    stem = tmp_path / "g"
    for suffix in ("bed", "bim", "fam"):
        shutil.copy(SHARED / f"1kg_phase1/1kg_phase1_v3_b37_thinned.{suffix}", stem.with_suffix(f".{suffix}"))
    people = [line.split()[1] for line in stem.with_suffix(".fam").read_text().splitlines()]
    (tmp_path / "people.tsv").write_text("\n".join(["person", *people, ""]))
    data = Dataset.open(DatasetConfig("KG", "GRCh37", "people.tsv", "g.bed"), tmp_path)
    found = kinship.relatives(data, autosomal(data), 0.0884, tmp_path)
    assert_equal(listed(data, found), king_table(stem, "--king-table-filter", "0.0884"))
    assert len(found) == 41
    pairs = list(zip(found.first.tolist(), found.second.tolist(), strict=True))
    out = unrelated(data.people, [14079] * len(people), pairs)
    plink2(stem, "--king-cutoff", "0.0884")
    left_out_by_plink2 = (tmp_path / "out/o.king.cutoff.out.id").read_text().split()
    assert len(out) == 29 <= len({*left_out_by_plink2} & {*people})
    _is_maximal(len(people), pairs, set(out))


# -- call rates, heterozygosity, sex ----------------------------------------------------------------------------------


@with_plink2
def test_call_rates_are_plink2s(folder: Path, data: Dataset) -> None:
    measures = measure(data, Variants.of(data), sex_of(data, "sex"), 0.95)
    tables = plink2(folder / "g", "--missing")
    smiss, vmiss = tables["smiss"], tables["vmiss"]
    missing, whole = smiss[0].index("MISSING_CT"), smiss[0].index("OBS_CT")
    assert (len(measures.variants) - measures.called).tolist() == [int(line[missing]) for line in smiss[1:]]
    assert {measures.countable} == {int(line[whole]) for line in smiss[1:]}
    by_name = {line[1]: int(line[vmiss[0].index("MISSING_CT")]) for line in vmiss[1:]}
    names = [f"v{key[0]}_{key[1]}" for key in measures.variants]
    assert measures.counts[:, 3].tolist() == [by_name[name] for name in names]
    assert 0 < (~measures.used).sum() < len(measures.used) / 2, "among them those of which a third is missing"


@with_plink2
def test_heterozygosity_is_plink2s(folder: Path, data: Dataset) -> None:
    measures = measure(data, Variants.of(data), sex_of(data, "sex"), 0.95)
    words = ("--geno", "0.05", "--chr", "1-22", "--het", "cols=hom,nobs,f")
    table = plink2(folder / "g", *words)["het"]
    head = table[0][-4:]
    assert head == ["O(HOM)", "E(HOM)", "OBS_CT", "F"]
    autosomes = measures.autosomes
    for i, line in enumerate(table[1:]):
        homozygous, expected, observed, f = line[-4:]
        assert int(homozygous) == autosomes.observed[i] - autosomes.heterozygous[i]
        assert int(observed) == autosomes.observed[i]
        assert autosomes.expected[i] == pytest.approx(float(expected), rel=5e-6)
        assert autosomes.coefficient[i] == pytest.approx(float(f), abs=1e-5)


@with_shared
def test_the_coefficient_on_x_is_plink_19s(tmp_path: Path) -> None:
    """Made by: plink1.9 --bfile data --check-sex (PLINK v1.90b6.26 of Debian 12), which prints four digits."""
    assert SHARED is not None
    stem = SHARED / "association_golden/plinkQC/data"
    for suffix in ("bed", "bim", "fam"):
        shutil.copy(stem.with_suffix(f".{suffix}"), tmp_path / f"g.{suffix}")
    lines = (Path(__file__).parent / "plink19/plinkQC.sexcheck").read_text().splitlines()[1:]
    golden = [line.split() for line in lines]
    (tmp_path / "people.tsv").write_text("person\tsex\n" + "".join(f"{g[1]}\t{g[2]}\n" for g in golden))
    data = Dataset.open(DatasetConfig("Q", "GRCh37", "people.tsv", "g.bed"), tmp_path)
    f = measure(data, Variants.of(data), sex_of(data, "sex"), 0.0).x.coefficient
    assert len(golden) == 200
    assert np.abs(f - [float(g[5]) for g in golden]).max() <= 5.1e-5
    problem = np.where(f < 0.2, FEMALE, np.where(f > 0.8, MALE, 0)) != sex_of(data, "sex")
    assert problem.tolist() == [g[4] == "PROBLEM" for g in golden]
    assert problem.sum() == 7


def test_the_coefficient_on_x_is_its_definition(data: Dataset) -> None:
    """Person by person and variant by variant, a man one copy; heterozygous men say nothing about a frequency."""
    measures = measure(data, Variants.of(data), sex_of(data, "sex"), 0.95)
    on_x = measures.variants.places == Place.X
    blocks = genotypes.blocks(data, measures.variants.rows[on_x])
    codes, used = np.concatenate([block for _, block in blocks]).astype(int), measures.used[on_x]
    for person in (0, 1, 40, 101):
        observed = expected = homozygous = 0.0
        for row in codes[used]:
            if row[person] != 3:
                women, men = row[(SEXES == FEMALE) & (row != 3)], row[(SEXES == MALE) & ((row == 0) | (row == 2))]
                p = (women.sum() + men.sum() / 2) / (2 * len(women) + len(men))
                observed, expected = observed + 1, expected + 1 - 2 * p * (1 - p)
                homozygous += row[person] != 1
        f = (homozygous - expected) / (observed - expected)
        assert measures.x.coefficient[person] == pytest.approx(f, abs=1e-12)
    perfect = measures.x.coefficient == 1
    assert perfect.tolist() == [sex == MALE and person not in range(40, 60) for person, sex in enumerate(SEXES)]


@pytest.mark.parametrize(
    ("assembly", "first", "last"), [("GRCh37", 2_699_520, 154_931_044), ("GRCh38", 2_781_479, 155_701_383)]
)
def test_the_paired_regions_of_x_are_plink2s(data: Dataset, assembly: str, first: int, last: int) -> None:
    """Ends as `plink2 --help split-par` prints them: both belong to the regions."""
    entries = Entries("here")
    for row, position in enumerate((first, first + 1, last - 1, last)):
        entries.enter(row, row, "X", str(position), "A", "C")
    assert isinstance(data.calls, Bed)
    calls = replace(data.calls, index=entries.index())
    placed = Variants.of(replace(data, calls=calls, config=replace(data.config, assembly=assembly)))
    assert placed.places.tolist() == [Place.X_PAIRED, Place.X, Place.X, Place.X_PAIRED]


# -- whom to keep -----------------------------------------------------------------------------------------------------


def _is_maximal(people: int, pairs: list[tuple[int, int]], out: set[int]) -> None:
    """No pair is kept, and nobody could be put back."""
    kept = set(range(people)) - out
    assert not any(i in kept and j in kept for i, j in pairs)
    for person in out:
        assert any(person in pair and (set(pair) - {person}) & kept for pair in pairs), person


def test_the_most_unrelated_people_are_kept() -> None:
    """Every subset of up to ten people is tried: the largest, then of most genotypes, then first by hash."""
    rng = np.random.default_rng(8)
    for _ in range(150):
        n = int(rng.integers(2, 11))
        pairs = [pair for pair in combinations(range(n), 2) if rng.random() < rng.choice([0.15, 0.35, 0.7])]
        observed = rng.integers(*rng.choice([(1, 1000), (98, 100)]), n).tolist()
        names = [f"n{k}" for k in rng.permutation(1000)[:n]]
        by_hash = sorted(range(n), key=lambda i: hashlib.sha256(names[i].encode()).digest())
        _, _, _, best = max(
            (len(chosen), sum(observed[i] for i in chosen), [i in chosen for i in by_hash], chosen)
            for size in range(n + 1)
            for chosen in combinations(range(n), size)
            if not any(i in chosen and j in chosen for i, j in pairs)
        )
        kept = set(range(n)) - set(unrelated(names, observed, pairs))
        assert kept == set(best)
        _is_maximal(n, pairs, set(range(n)) - kept)
        order = rng.permutation(n)
        at = {int(old): new for new, old in enumerate(order)}
        again = unrelated(
            [names[i] for i in order], [observed[i] for i in order], [(at[j], at[i]) for i, j in pairs[::-1]]
        )
        assert {int(order[i]) for i in again} == set(range(n)) - kept, "whatever the order"


def test_families_of_the_largest_size_are_solved_exactly() -> None:
    for seed in range(4):
        graph = nx.connected_watts_strogatz_graph(EXACT, 4, 0.5, seed=seed)
        out = unrelated([str(i) for i in range(EXACT)], [7] * EXACT, graph.edges)
        clique, _ = nx.max_weight_clique(nx.complement(graph), weight=None)
        assert EXACT - len(out) == len(clique)


def test_large_families_are_thinned_until_nobody_is_related() -> None:
    for seed in range(2):
        graph = nx.gnm_random_graph(900, 1500, seed=seed)
        pairs = [(int(i), int(j)) for i, j in graph.edges]
        names = [f"n{k}" for k in range(900)]
        out = unrelated(names, [7] * 900, pairs)
        _is_maximal(900, pairs, set(out))
        assert families(pairs)[0] > 10 * EXACT
        plain = max(len(nx.maximal_independent_set(graph, seed=s)) for s in range(8))
        assert 900 - len(out) > plain, "better than eight maximal sets at random"
        reverse = unrelated(names[::-1], [7] * 900, [(899 - i, 899 - j) for i, j in pairs])
        assert {899 - i for i in reverse} == set(out)
