"""Linkage disequilibrium over sites against numpy's correlations and plink 1.9 on the pooled genotypes, SAIGE's
published matrices, and clumps against plink 1.9's and a plain loop.

The goldens under plink19 were made with PLINK v1.90b6.26 on the demo's pooled people:
pairs.ld   the first 400 variants with the missing genotypes of `thinned`: --r2 --ld-window-kb 250 --ld-window 16
           --ld-window-r2 0
hits.clumped  --clump of the plink2 golden's p values of GSTT1: --clump-p1 1e-4 --clump-p2 1e-2 --clump-r2 0.5
           --clump-kb 250
hits.ld    r2 of the haplotype frequencies by which --clump goes: --r2 dprime --ld-window-kb 250 --ld-window 99999,
           of variants with p <= 0.01, where r2 is 0.5 or more
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from numpy.typing import NDArray

import fl_server.results
from strategies.analyses.allele_frequency import variant_columns
from strategies.analyses.linkage import LinkageDisequilibrium
from strategies.analysis import Answer, Frame
from strategies.clumps import clumped
from strategies.cohort import MISSING, Cohort, Genotypes
from strategies.question import Question
from strategies.variants import Panel, Variant
from tests.references.plain import whole_bed
from tests.references.test_pooled import DEMO, golden, pooled
from tests.references.test_principal_components import over_sites
from tests.tiny import LINEAR, Tiny, genotypes, study

PLINK = Path(__file__).parent / "plink19"
SAIGE = Path(__file__).parents[3] / "shared" / "data" / "association_golden" / "SAIGE"
P1, P2, R2 = 1e-4, 1e-2, 0.5


def table(name: str) -> pl.DataFrame:
    return pl.read_csv(PLINK / f"{name}.gz", separator="\t", null_values=["NA"])


def split(codes: NDArray[np.uint8], sites: int, seed: int = 1) -> list[Cohort]:
    at = np.random.default_rng(seed).integers(0, sites, codes.shape[1])
    return [Cohort(int((at == s).sum()), Genotypes.pack(codes[:, at == s])) for s in range(sites)]


def correlation(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> tuple[float, int]:
    """numpy's correlation of the people with both genotypes, and their number."""
    both = (a != MISSING) & (b != MISSING)
    with np.errstate(invalid="ignore", divide="ignore"):
        return float(np.corrcoef(a[both].astype(float), b[both].astype(float))[0, 1]), int(both.sum())


@pytest.fixture(scope="module")
def demo() -> tuple[Panel, NDArray[np.uint8]]:
    return Panel.read(DEMO / "panel.tsv.gz", "GRCh37"), pooled(DEMO)[0]


def thinned(codes: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The first 400 variants with 3 % of the genotypes taken away."""
    out = codes[:400].copy()
    out[np.random.default_rng(20260102).random(out.shape) < 0.03] = MISSING
    return out


def test_r_is_numpys_and_the_band_is_as_asked() -> None:
    """Variants in no order, on two chromosomes, some of them rare."""
    rng, m, people = np.random.default_rng(4), 60, 400
    codes = rng.binomial(2, rng.beta(0.4, 0.4, m)[:, None], (m, people)).astype(np.uint8)
    for j in range(1, m, 2):  # neighbours are alike
        alike = rng.random(people) < 0.8
        codes[j, alike] = codes[j - 1, alike]
    codes[rng.random(codes.shape) < 0.05] = MISSING
    codes[12] = np.where(codes[12] == MISSING, 0, codes[12])
    place = rng.permutation(m)
    variants = tuple(Variant("21" if j % 3 else "22", 1000 * int(p), f"v{j}", "A", "C") for j, p in enumerate(place))
    asked = LinkageDisequilibrium("p", window_kb=11.0, variants_in_band=4)
    answer = over_sites(asked, split(codes, 4), Frame(Panel("GRCh37", variants)))
    copies, seen = np.where(codes == MISSING, 0, codes).sum(axis=1), (codes != MISSING).sum(axis=1)
    common = [j for j in range(m) if min(copies[j], 2 * seen[j] - copies[j]) >= 20]
    assert 30 < len(common) < m
    band = set()
    for chromosome in ("21", "22"):
        line = sorted((j for j in range(m) if variants[j].chromosome == chromosome), key=lambda j: variants[j].position)
        for i, one in enumerate(line):
            near = [b for b in line[i + 1 : i + 5] if variants[b].position - variants[one].position <= 11_000]
            band |= {(one, b) for b in near if {one, b} <= set(common)}
    pairs = answer.tables["pairs"]
    assert set(zip(pairs["row_a"], pairs["row_b"], strict=True)) == band
    assert len(pairs["row_a"]) == len(band)
    for a, b, r, squared, n in zip(*(pairs[c] for c in ("row_a", "row_b", "r", "r2", "n")), strict=True):
        want, number = correlation(codes[a], codes[b])
        assert n == number
        assert abs(r - want) < 1e-12
        assert squared == r**2
    sums = answer.tables["variants"]
    for j in common:
        mine = [r2 for a, b, r2 in zip(pairs["row_a"], pairs["row_b"], pairs["r2"], strict=True) if j in (a, b)]
        assert sums["r2_sum"][j] == pytest.approx(sum(mine), abs=1e-12)
        assert sums["pairs"][j] == len(mine)


def test_a_variant_that_does_not_vary_beside_another_has_no_r() -> None:
    rng = np.random.default_rng(6)
    codes = rng.integers(0, 3, (2, 300)).astype(np.uint8)
    codes[0, 100:] = MISSING
    codes[1, :100] = 1
    panel = Panel("GRCh37", (Variant("1", 1, "a", "A", "C"), Variant("1", 2, "b", "A", "C")))
    answer = over_sites(LinkageDisequilibrium("p"), split(codes, 3), Frame(panel))
    assert np.isnan(answer.tables["pairs"]["r"]).tolist() == [True]
    assert answer.tables["pairs"]["n"].tolist() == [100]
    assert not answer.tables["pairs"]["withheld"].any()


def test_r2_is_plinks(demo: tuple[Panel, NDArray[np.uint8]]) -> None:
    panel, codes = demo
    asked = LinkageDisequilibrium("p", window_kb=250, variants_in_band=15, minimum_minor_alleles=1)
    pairs = over_sites(asked, split(thinned(codes), 4), Frame(panel[:400])).tables["pairs"]
    want = {(a, b): r2 for a, b, r2 in table("pairs.ld").rows()}
    assert len(want) == 5880
    got = dict(zip(zip(pairs["id_a"], pairs["id_b"], strict=True), pairs["r2"], strict=True))
    assert got.keys() == want.keys()
    assert [got[k] for k in want] == pytest.approx(list(want.values()), rel=5e-6, abs=1e-9)  # six digits are printed


@pytest.mark.skipif(not SAIGE.exists(), reason="the shared data folder is not there")
def test_products_are_saiges() -> None:
    """SAIGE's matrices G G' of three genes, over the first 5,000 people of its example: each integer that it prints."""
    keys, _, codes = whole_bed(SAIGE / "input" / "genotype_100markers.bed")
    at = {key[1]: j for j, key in enumerate(keys)}
    panel = Panel("GRCh37", tuple(Variant(c, p, f"rs{p}", r, a) for c, p, r, a in keys))
    role = np.full(len(panel), 13, dtype=np.int64)
    asked = replace(LinkageDisequilibrium("p", variants_in_band=100), taken=1, people=5000, role=role)
    parts = [asked.summarise(part, Frame(panel)) for part in split(codes[:, :5000], 3)]
    products = np.sum([part["products"] for part in parts], axis=0)
    got = {(a, b): p for (a, b), p in zip(asked._pairs(panel).tolist(), products.tolist(), strict=True)}
    info = pl.read_csv(SAIGE / "output" / "LDmat.marker_info.txt", separator="\t")
    checked = 0
    for gene in ("GENE1", "GENE2", "GENE3"):
        rows = [at[position] for position in info.filter(pl.col("Set") == gene)["POS"].to_list()]
        lines = (SAIGE / "output" / f"LDmat_{gene}.txt").read_text().split("\n")
        for i, j, value in (map(int, line.split()) for line in lines if line):
            if i != j:
                one, other = sorted((rows[i], rows[j]))
                assert got[one, other] == value
                checked += 1
    assert checked > 1500


def plain_clumps(p: NDArray[np.float64], place: NDArray[np.int64], r2: Callable[[int, int], float]) -> dict[int, set]:
    """Clumps by the rule as it reads, one variant after the other."""
    out: dict[int, set] = {}
    free = set(np.flatnonzero(p <= P2).tolist())
    while True:
        left = sorted((p[j], j) for j in free if p[j] <= P1)
        if not left:
            return out
        index = left[0][1]
        near = [j for j in free if j != index and abs(int(place[j]) - int(place[index])) <= 250_000]
        out[index] = {index, *(j for j in near if r2(index, j) >= R2)}
        free -= out[index]


def as_sets(clumps: dict, members: dict) -> dict:
    names = dict(zip(clumps["clump"].tolist(), clumps["id"], strict=True))
    out: dict = {name: set() for name in names.values()}
    for clump, name in zip(members["clump"].tolist(), members["id"], strict=True):
        out[names[clump]].add(name)
    return out


def test_clumps_are_those_of_a_plain_loop(demo: tuple[Panel, NDArray[np.uint8]]) -> None:
    panel, codes = demo
    p = golden("pooled.GSTT1_rn.glm.linear")["P"].to_numpy()
    codes = codes.copy()
    p = np.where(np.arange(len(p)) % 50 == 7, np.nan, p)
    asked = LinkageDisequilibrium("common", clump="gstt1").after(Answer({"gstt1": {"p_value": p}}, {}), Frame(panel))
    answer = over_sites(asked, split(codes, 4), Frame(panel))
    place = np.array([v.position for v in panel.variants])
    want = plain_clumps(p, place, lambda i, j: correlation(codes[i], codes[j])[0] ** 2)
    names = [v.identifier for v in panel.variants]
    got = as_sets(answer.tables["clumps"], answer.tables["members"])
    assert got == {names[i]: {names[j] for j in clump} for i, clump in want.items()}
    assert 20 < len(got) == answer.facts["clumps"]
    assert not answer.tables["members"]["unknown"].any()
    assert answer.tables["clumps"]["members"].tolist() == [len(clump) for clump in want.values()]


def test_clumps_are_plinks_given_its_r2() -> None:
    """PLINK 1.9 clumps by the r2 of estimated haplotype frequencies. By that, ours are its 62 clumps to the last
    member; by the r2 of genotypes, which is what sums over people give, there are 47."""
    panel = Panel.read(DEMO / "panel.tsv.gz", "GRCh37")
    p = golden("pooled.GSTT1_rn.glm.linear")["P"].to_numpy()
    row = {v.identifier: j for j, v in enumerate(panel.variants)}
    hits = table("hits.ld")
    pairs = np.array([[row[a], row[b]] for a, b in zip(hits["SNP_A"], hits["SNP_B"], strict=True)])
    got = as_sets(*clumped(p, pairs, hits["R2"].to_numpy(), (P1, P2, R2), variant_columns(panel)))
    want = {}
    for index, _, others in table("hits.clumped").rows():
        named = set() if others == "NONE" else {name.partition("(")[0] for name in others.split(",")}
        want[index] = {index, *named}
    assert got == want
    assert len(want) == 62


def test_a_pair_that_is_not_known_joins_and_is_flagged() -> None:
    p, pairs = np.array([1e-9, 1e-6, 1e-3, 1e-5, np.nan]), np.array([[0, 1], [0, 2], [0, 3], [0, 4]])
    variants = {"position": np.arange(5), "id": ("a", "b", "c", "d", "e")}
    r2 = np.array([np.nan, 0.9, 0.1, 0.9])
    clumps, members = clumped(p, pairs, r2, (P1, P2, R2), variants)
    assert as_sets(clumps, members) == {"a": {"a", "b", "c"}, "d": {"d"}}
    assert clumps["unknown"].tolist() == [1, 0]
    assert dict(zip(members["id"], members["unknown"].tolist(), strict=True)) == {
        "a": False, "b": True, "c": False, "d": False,
    }  # fmt: skip


def test_a_study_clumps_its_own_association(tiny: Tiny, quick_path: Path) -> None:
    """Over gates and conductor: the answer of one question chooses the pairs of the next."""
    asked = LinkageDisequilibrium("panel", clump="linear", index_p=0.3, member_p=0.6, r2=0.01)
    both = study(LINEAR, Question("clumps", asked))
    association, linkage = tiny.conductor(both, quick_path / "run").run()
    p = np.asarray(association.answer.tables["trait"]["p_value"])
    codes = np.concatenate([genotypes(site) for site in tiny.gates], axis=1)
    pairs, clumps = linkage.answer.tables["pairs"], linkage.answer.tables["clumps"]
    want = {
        (a, b)
        for a in range(len(p))
        for b in range(a + 1, len(p))
        if max(p[a], p[b]) <= 0.6 and min(p[a], p[b]) <= 0.3 and {a, b} <= set(common(codes))
    }
    assert set(zip(pairs["row_a"].tolist(), pairs["row_b"].tolist(), strict=True)) == want
    assert pairs["r"].tolist() == pytest.approx(
        [correlation(codes[a], codes[b])[0] for a, b in sorted(want)], abs=1e-12
    )
    assert clumps["p_value"][0] == np.nanmin(p[common(codes)])
    again = tiny.conductor(both, quick_path / "run").run()[1].answer
    assert again.tables["members"]["id"] == linkage.answer.tables["members"]["id"], "a run that goes on ends alike"
    fl_server.results.write(both, tiny.federation, [association, linkage], quick_path / "out")
    read = fl_server.results.load(quick_path / "out")["clumps"]
    assert read.tables == ("pairs", "variants", "clumps", "members")
    assert read.table("clumps")["id"].to_list() == list(clumps["id"])
    page = (quick_path / "out" / "report.html").read_text()
    assert f'aria-label="r² of {len(want)} pairs of variants by their distance' in page


def common(codes: NDArray[np.uint8]) -> list[int]:
    copies, seen = np.where(codes == MISSING, 0, codes).sum(axis=1), (codes != MISSING).sum(axis=1)
    return np.flatnonzero(np.minimum(copies, 2 * seen - copies) >= 20).tolist()
