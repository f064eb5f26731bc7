"""One country whose file is written in another way altogether gives the answer that it gives as it is.

Italy's genotypes are written anew: half of the alleles swapped, a third on the other strand, chromosomes named chr22,
positions of the other build, lines and people in another order, 5 % of the variants left out.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fl_client.readers import Dataset
from simulations.populations import write_bed
from simulations.run import simulate
from simulations.sites import Sites
from strategies.analysis import Frame, Needs
from strategies.study import Study
from strategies.variants import COMPLEMENT, Panel, Variant

ROOT = Path(__file__).parents[2]
DEMO = ROOT / "simulations" / "data" / "europe1000g"
SITE = "IT"
EVERY = 20

Answers = dict[str, dict[str, np.ndarray]]


def shifted(position: int) -> int:
    """A made-up other build: the chromosome's parts lie in another order."""
    return 60_000_000 - position if position % 3 else 100_000_000 + position


def panel() -> Panel:
    """Every fifth of the demo's variants, with positions in both builds."""
    variants = Panel.read(DEMO / "panel.tsv.gz", "GRCh37").variants[::EVERY]
    return Panel("GRCh37", tuple(v._replace(lifted=shifted(v.position)) for v in variants), lifts=True)


def study() -> Study:
    read = Study.read(ROOT / "simulations" / "studies" / "demo.toml")
    asked = tuple(q for q in read.questions if q.name in ("counts", "gstt1"))
    return replace(read, panels={"common": panel()}, questions=asked)


def answers(data: Path) -> Answers:
    out = {}
    for result in simulate(study(), data).results:
        ((_, table),) = result.answer.tables.items()
        out[result.question.name] = {name: np.asarray(values) for name, values in table.items()}
    return out


def rewritten(folder: Path) -> tuple[np.ndarray, dict[str, int]]:
    """Write the sites with Italy anew; (M,) which variants it still has, and how many lines are in which way."""
    text = (DEMO / "sites.toml").read_text()
    for name in ("FI", "GB", "CEU"):
        (folder / name).symlink_to(DEMO / name)
    (folder / SITE).mkdir()
    (folder / SITE / "people.tsv").write_bytes((DEMO / SITE / "people.tsv").read_bytes())
    was = f'identifier = "GDI-{SITE}-DEMO-0001", assembly = "GRCh37"'
    assert was in text
    (folder / "sites.toml").write_text(text.replace(was, was.replace("37", "38")))

    site, asked = Dataset.open(Sites.read(DEMO).sites[SITE].dataset, DEMO), panel()
    codes = site.cohort(Needs(panel="common"), Frame(asked)).genotypes.codes()
    rng = np.random.default_rng(7)
    palindromic = np.array([v.palindromic for v in asked.variants])
    swapped, flipped = rng.random((2, len(asked))) < np.array([[0.5], [0.33]])
    flipped &= ~(palindromic & swapped)  # looks as it did, with the other allele counted: only a frequency could tell
    gone = rng.random(len(asked)) < 0.05
    written, rows = [], []
    for j in rng.permutation(np.flatnonzero(~gone)):
        v = asked.variants[j]
        alleles = (v.alternate, v.reference) if swapped[j] else (v.reference, v.alternate)
        if flipped[j]:
            alleles = (alleles[0].translate(COMPLEMENT), alleles[1].translate(COMPLEMENT))
        written.append(Variant("chr22", shifted(v.position), v.identifier, *alleles))
        rows.append(np.where(codes[j] == 3, 3, 2 - codes[j]) if swapped[j] else codes[j])
    people = rng.permutation(len(site.people))
    mixed = np.array(rows, dtype=np.uint8)[:, people]
    write_bed(folder / SITE / "genotypes", Panel("GRCh38", tuple(written)), mixed, [site.people[i] for i in people])
    # By rule a palindromic variant is found as written alone: what looks swapped is absent.
    there = ~gone & ~(palindromic & (swapped | flipped))
    ways = {"swapped": swapped & ~flipped, "flipped": flipped & ~swapped, "both": swapped & flipped}
    return there, {name: int((way & there).sum()) for name, way in ways.items()}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Answers, Answers, np.ndarray, dict[str, int]]:
    folder = tmp_path_factory.mktemp("country")
    there, ways = rewritten(folder)
    return answers(DEMO), answers(folder), there, ways


def test_the_same_answer_on_the_shared_variants(runs: tuple[Answers, Answers, np.ndarray, dict[str, int]]) -> None:
    clean, other, there, ways = runs
    assert min(ways.values()) > 75
    assert 0.75 < there.mean() < 0.95
    for name, table in clean.items():
        for column, values in table.items():
            np.testing.assert_array_equal(other[name][column][there], values[there], err_msg=f"{name}, {column}")


def test_what_is_absent_there_is_missing_there_alone(runs: tuple[Answers, Answers, np.ndarray, dict[str, int]]) -> None:
    clean, other, there, _ = runs
    people = 91
    missing = other["counts"]["missing"] - clean["counts"]["missing"]
    assert (missing == np.where(there, 0, people)).all()
    assert (other["counts"]["an"] == clean["counts"]["an"] - 2 * missing).all()
    ac, an = other["counts"]["ac"], other["counts"]["an"]
    asked = np.minimum(ac, an - ac) >= 20  # an association is asked about no rarer ones
    assert asked[~there].sum() > 75
    assert (np.isnan(other["gstt1"]["n"]) == ~asked).all()
    assert (other["gstt1"]["n"] == clean["gstt1"]["n"] - missing)[asked].all()
