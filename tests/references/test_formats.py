"""Formats beside GT of a VCF: dosages, several alternates, BGEN, gVCF; and reading by the block.

plink2 writes the same genotypes in every format; what it exports as text is the truth.
"""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from bgen import BgenWriter

from fl_client.readers import Dataset, DatasetConfig, vcf
from fl_client.readers.bgen import Bgen
from fl_client.readers.calls import Calls
from fl_client.readers.held import Held
from fl_client.readers.packed import Packed
from fl_client.readers.plink import Pgen
from fl_client.readers.vcf import Vcf
from strategies.analysis import Frame, Needs
from strategies.cohort import COPY, NO_DOSAGE, Genotypes
from strategies.errors import DataError
from strategies.kernels import packing
from strategies.variants import Panel, Variant

ROOT = Path(__file__).parents[2]
PEOPLE = ("a", "b", "c", "d", "e", "f")
HEAD = (
    '##fileformat=VCFv4.2\n##contig=<ID=1>\n##FORMAT=<ID=GT,Number=1,Type=String,Description="g">\n'
    '##FORMAT=<ID=DS,Number=A,Type=Float,Description="d">\n'
)
DOSED = (
    "1 20 . A C . . . GT:DS 0/0:0.05 0/1:0.9 1/1:1.95 0/1:1.2 ./.:. 0/0:0",
    "1 30 . A G . . . GT:DS 0|0:0.01 0|1:1.1 1|1:1.899 1|0:1.1 .|.:. 0|1:1",
    "1 40 . AT A . . . GT 0/0 0/1 1/1 0/1 ./. 0/1",
)
COPIES = np.array([[0.05, 0.9, 1.95, 1.2, np.nan, 0], [0.01, 1.1, 1.899, 1.1, np.nan, 1], [0, 1, 2, 1, np.nan, 1]])
HARD = np.array([[0, 1, 2, 3, 3, 0], [0, 1, 3, 1, 3, 1], [0, 1, 2, 1, 3, 1]], dtype=np.uint8)
"""The genotypes of those dosages: 1.2 and 1.899 are further than 0.1 from a whole number."""

PLINK2 = pytest.mark.skipif(shutil.which("plink2") is None, reason="plink2 is not installed: files are not compared")


def plink2(*words: str) -> None:
    subprocess.run(["plink2", "--threads", "1", *words], check=True, capture_output=True)


def write_vcf(folder: Path, *lines: str, head: str = HEAD, people: tuple[str, ...] = PEOPLE) -> Path:
    columns = "\t".join(("#CHROM", "POS", "ID", "REF", "ALT", "QUAL", "FILTER", "INFO", "FORMAT", *people))
    (folder / "g.vcf").write_text(head + columns + "\n" + "".join(line.replace(" ", "\t") + "\n" for line in lines))
    return folder / "g.vcf"


def codes(
    calls: Calls, rows: np.ndarray | None = None, swap: bool = False, chosen: np.ndarray | None = None
) -> np.ndarray:
    rows = calls.index.rows if rows is None else rows
    people = len(calls.people) if chosen is None else len(chosen)
    out = np.empty((len(rows), -(-people // 4)), dtype=np.uint8)
    calls.fill(rows, np.full(len(rows), swap), chosen, out)
    return Genotypes(out, people).codes()


def units(copies: np.ndarray) -> np.ndarray:
    return np.where(np.isnan(copies), NO_DOSAGE, np.floor(np.nan_to_num(copies) * COPY + 0.5)).astype(np.uint16)


# --- dosages ----------------------------------------------------------------------------------------------------------


def test_dosages_of_a_vcf(tmp_path: Path) -> None:
    calls = Vcf.open(write_vcf(tmp_path, *DOSED))
    np.testing.assert_array_equal(calls.dosages(calls.index.rows), units(COPIES))
    np.testing.assert_array_equal(calls.dosages(calls.index.rows[[2, 0]]), units(COPIES[[2, 0]]))
    np.testing.assert_array_equal(codes(calls)[0], [0, 1, 2, 1, 3, 0])  # GT stands, whatever the dosage says
    alone = [line.replace("GT:DS", "DS") for line in DOSED[:2]]
    for word in ("0/0:", "0/1:", "1/1:", "./.:", "0|0:", "0|1:", "1|1:", "1|0:", ".|.:"):
        alone = [line.replace(word, "") for line in alone]
    calls = Vcf.open(write_vcf(tmp_path, *alone))
    np.testing.assert_array_equal(calls.dosages(calls.index.rows), units(COPIES[:2]))
    np.testing.assert_array_equal(codes(calls), HARD[:2])


def test_dosages_of_several_alternates_haploids_and_gaps(tmp_path: Path) -> None:
    calls = Vcf.open(
        write_vcf(
            tmp_path,
            "1 20 . A C,<X>,T . . . GT:DS 0/1:.9,0,.1 3/3:0,0,2 0/2:0,1,0 ./.:. 1/3:. 1:1,0,0",
            "1 30 . A C . . . GL 0,0,0 0,0,0 0,0,0 0,0,0 0,0,0 0,0,0",
            "1 40 . A C,G . . . GT:DS 0/1:.5 1/2:1 0/0:0 0/0:0 0/0:0 0/0:0",
        )
    )
    assert [key[1:] for key in calls.index] == [
        (20, "A", "C"),
        (20, "A", "T"),
        (30, "A", "C"),
        (40, "A", "C"),
        (40, "A", "G"),
    ]
    gaps = [np.nan] * 6
    want = [[0.9, 0, 0, np.nan, 1, 2], [0.1, 2, 0, np.nan, 1, 0], gaps, [1, 1, 0, 0, 0, 0], [0, 1, 0, 0, 0, 0]]
    np.testing.assert_array_equal(calls.dosages(calls.index.rows), units(np.array(want)))
    np.testing.assert_array_equal(codes(calls)[:3], [[1, 0, 0, 3, 1, 2], [0, 2, 0, 3, 1, 0], [3] * 6])


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("1 20 . A C . . . DS 0 0 2.1 0 0 0", "record 1: 0 to 2.1 copies"),
        ("1 20 . A C . . . DS 0 0 -1 0 0 0", "record 1: -1 to 0 copies"),
        ("1 20 . A C . . . GT:DS 1:1.5 0/0:0 0/0:0 0/0:0 0/0:0 0/0:0", "record 1: 0 to 3 copies"),
        ("1 20 . A C . . . GT:DS 0/0:0,1 0/0:0 0/0:0 0/0:0 0/0:0 0/0:0", "2 dosages a person, 1 alternates"),
        ("1 20 . A C,G . . . DS 0 0 0 0 0 0", "1 dosages a person, 2 alternates"),
    ],
)
def test_a_dosage_that_is_none_is_refused(line: str, found: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="A dosage") as error:
        Vcf.open(write_vcf(tmp_path, line))
    assert found in error.value.found


def test_a_header_that_does_not_name_dosages_has_none(tmp_path: Path) -> None:
    head = HEAD.replace("Type=Float", "Type=String")
    calls = Vcf.open(write_vcf(tmp_path, DOSED[0].replace("0.05", "x"), head=head))
    assert calls.dosed is None
    np.testing.assert_array_equal(calls.dosages(calls.index.rows), units(np.array([[0, 1, 2, 1, np.nan, 0]])))
    with pytest.raises(DataError, match=r"genotypes \(GT\) or dosages"):
        Vcf.open(write_vcf(tmp_path, "1 20 . A C . . . DS 0 0 0 0 0 0", head=head))


def test_a_cohort_has_the_dosages_that_are_asked_for(tmp_path: Path) -> None:
    write_vcf(tmp_path, *DOSED)
    chosen = ("f", "b", "a")
    (tmp_path / "people.tsv").write_text("person\n" + "".join(f"{p}\n" for p in chosen))
    site = Dataset.open(DatasetConfig("S", "GRCh37", "people.tsv", "g.vcf"), tmp_path)
    panel = Panel(
        "GRCh37",
        (Variant("1", 30, "swapped", "G", "A"), Variant("1", 31, "no", "G", "A"), Variant("1", 20, "", "A", "C")),
    )
    assert site.cohort(Needs(panel="p"), Frame(panel)).dosages is None
    cohort = site.cohort(Needs(panel="p", dosages=True), Frame(panel))
    at = [PEOPLE.index(p) for p in chosen]
    want = units(COPIES)[:, at]
    np.testing.assert_array_equal(cohort.dosages, [2 * COPY - want[1], [NO_DOSAGE] * 3, want[0]])
    assert not cohort.dosages.flags.writeable


# --- formats that plink2 writes ---------------------------------------------------------------------------------------


@PLINK2
@pytest.mark.parametrize("version", ["1.1", "1.2 bits=8", "1.3"])
def test_a_bgen_is_what_plink2_wrote(version: str, tmp_path: Path) -> None:
    write_vcf(tmp_path, *DOSED)
    stem = str(tmp_path / "g")
    plink2("--vcf", f"{stem}.vcf", "dosage=DS", "--make-pgen", "--out", stem)
    kind, *more = f"bgen-{version}".split()
    plink2("--pfile", stem, "--export", kind, "ref-first", *more, "--out", stem)
    calls, pgen = Bgen.open(tmp_path / "g.bgen"), Pgen.open(tmp_path / "g.pgen")
    assert list(calls.index) == list(pgen.index) == [("1", 20, "A", "C"), ("1", 30, "A", "G"), ("1", 40, "AT", "A")]
    assert calls.people == PEOPLE
    rows, eight = calls.index.rows, "=8" in version
    np.testing.assert_array_equal(pgen.dosages(rows), units(COPIES))
    np.testing.assert_array_equal(codes(pgen), HARD)
    got, want = calls.dosages(rows).astype(int), pgen.dosages(rows).astype(int)
    assert np.abs(got - want).max() <= (COPY * 2 / 255 if eight else 1)  # a probability's own rounding
    assert ((got == NO_DOSAGE) == (want == NO_DOSAGE)).all()
    np.testing.assert_array_equal(codes(calls)[:, [0, 1, 3, 4, 5]], HARD[:, [0, 1, 3, 4, 5]])
    np.testing.assert_array_equal(codes(calls, swap=True), np.array([2, 1, 0, 3])[codes(calls)])
    some = np.array([5, 1])
    np.testing.assert_array_equal(codes(calls, rows[[2, 0]], chosen=some), codes(calls)[[2, 0]][:, some])


@PLINK2
def test_a_pgen_of_several_alternates_is_its_vcf(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    lines = []
    for i in range(40):
        alternates = ["C", "G", "T", "ACC", "<DEL>"][: 1 + i % 5]
        pairs = rng.integers(-1, len(alternates) + 1, (40, 2))
        words = ["./." if min(pair) < 0 else f"{pair[0]}/{pair[1]}" for pair in pairs]
        lines.append(f"1 {10 + i} . A {','.join(alternates)} . . . GT {' '.join(words)}")
    people = tuple(f"p{i}" for i in range(40))
    write_vcf(tmp_path, *lines, people=people)
    plink2("--vcf", str(tmp_path / "g.vcf"), "--make-pgen", "--out", str(tmp_path / "g"))
    text, pgen = Vcf.open(tmp_path / "g.vcf"), Pgen.open(tmp_path / "g.pgen")
    assert list(text.index) == list(pgen.index)
    assert len(pgen.index) == 8 * (1 + 2 + 3 + 4 + 4)
    np.testing.assert_array_equal(codes(pgen), codes(text))
    np.testing.assert_array_equal(pgen.dosages(pgen.index.rows), text.dosages(text.index.rows))
    order, some = np.random.default_rng(6).permutation(len(pgen.index)), np.array([30, 2, 17])
    mixed = codes(pgen, pgen.index.rows[order], True, some)
    np.testing.assert_array_equal(mixed, codes(text, text.index.rows[order], True, some))


# --- BGEN -------------------------------------------------------------------------------------------------------------


def genotype_columns(alleles: int) -> list[tuple[int, int]]:
    return sorted(
        ((a, b) for a, b in itertools.combinations_with_replacement(range(alleles), 2)), key=lambda p: p[::-1]
    )


def write_bgen(path: Path, samples: tuple[str, ...] = PEOPLE) -> np.ndarray:
    """Variants of 2 and 3 alleles, unphased and phased, with haploids; (rows, N) expected alternate alleles."""
    rng, want = np.random.default_rng(8), []
    with BgenWriter(str(path), len(PEOPLE), samples=list(samples), compression="zlib") as out:
        for number, (alleles, phased) in enumerate(((2, False), (3, False), (2, True), (3, True))):
            pairs = genotype_columns(alleles)
            width = 2 * alleles if phased else len(pairs)
            raw = (
                rng.dirichlet(np.ones(alleles), (6, 2)).reshape(6, width)
                if phased
                else rng.dirichlet(np.ones(width), 6)
            )
            raw[3] = np.nan
            names = ["A", "C", "GT"][:alleles]
            out.add_variant(f"v{number}", f"rs{number}", "07", 100 + number, names, raw, phased=phased, bit_depth=16)
            for k in range(1, alleles):
                if phased:
                    want.append(raw[:, k] + raw[:, alleles + k])
                else:
                    want.append(sum(raw[:, i] * pair.count(k) for i, pair in enumerate(pairs)))
    return np.array(want)


def test_probabilities_of_every_kind(tmp_path: Path) -> None:
    want = write_bgen(tmp_path / "g.bgen")
    calls = Bgen.open(tmp_path / "g.bgen")
    assert calls.people == PEOPLE
    assert [key[:2] for key in calls.index] == [("7", 100), ("7", 101), ("7", 101), ("7", 102), ("7", 103), ("7", 103)]
    got = calls.dosages(np.arange(6))
    assert (got[:, 3] == NO_DOSAGE).all()
    seen = [0, 1, 2, 4, 5]
    np.testing.assert_allclose(got[:, seen] / COPY, want[:, seen], atol=2e-4)
    hard = codes(calls, np.arange(6))
    close = np.abs(want - np.round(want)) <= 0.0995
    far = np.abs(want - np.round(want)) >= 0.1005
    assert (hard[close] == np.round(want)[close]).all()
    assert (hard[far | np.isnan(want)] == 3).all()


def test_a_haploid_counts_double_in_a_bgen(tmp_path: Path) -> None:
    with BgenWriter(str(tmp_path / "g.bgen"), 3, samples=["a", "b", "c"]) as out:
        raw = np.array([[0.25, 0.75, np.nan], [0, 0, 1], [1, 0, np.nan]])
        out.add_variant("v", "rs", "X", 5, ["A", "C"], raw, ploidy=np.array([1, 2, 1], dtype=np.uint8))
    calls = Bgen.open(tmp_path / "g.bgen")
    np.testing.assert_allclose(calls.dosages(np.arange(1))[0] / COPY, [1.5, 2, 0], atol=0.01)


def test_an_index_of_another_bgen_is_not_believed(tmp_path: Path) -> None:
    write_bgen(tmp_path / "g.bgen")
    (tmp_path / "g.bgen.bgi").write_bytes(b"of another file")
    assert len(Bgen.open(tmp_path / "g.bgen").index) == 6


SAMPLES = "ID_1 ID_2 missing\n0 0 0\n" + "".join(f"0 q{i} 0\n" for i in range(6))
BAD_BGEN = {
    "cut": (lambda f: (f / "g.bgen").write_bytes((f / "g.bgen").read_bytes()[:-9]), "whole", "g.bgen: "),
    "empty": (lambda f: (f / "g.bgen").write_bytes(b""), "whole", "g.bgen: "),
    "another file": (lambda f: (f / "g.bgen").write_bytes(b"PK" * 5000), "whole", "g.bgen: "),
    "gone": (lambda f: (f / "g.bgen").unlink(), "there and readable", "g.bgen: No such file"),
    "sample header": (lambda f: (f / "g.sample").write_text("IID\n0\n"), "starts with a header", "g.sample: 'IID'"),
    "sample ragged": (lambda f: (f / "g.sample").write_text(SAMPLES + "0\n"), "starts with a header", "g.sample"),
    "sample short": (lambda f: (f / "g.sample").write_text(SAMPLES[:-7]), "the people of its", "g.sample names 5"),
    "sample twice": (lambda f: (f / "g.sample").write_text(SAMPLES.replace("q2", "q1")), "are distinct", "'q1'"),
    "nobody": (lambda f: write_bgen(f / "g.bgen", ()), "names its people", "there is no g.sample"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD_BGEN)
def test_a_bad_bgen_has_one_message(name: str, tmp_path: Path) -> None:
    breaks, rule, found = BAD_BGEN[name]
    write_bgen(tmp_path / "g.bgen")
    breaks(tmp_path)
    with pytest.raises(DataError) as error:
        Bgen.open(tmp_path / "g.bgen")
    assert rule in error.value.rule
    assert found in error.value.found


def test_a_sample_file_names_the_people(tmp_path: Path) -> None:
    write_bgen(tmp_path / "g.bgen")
    (tmp_path / "g.sample").write_text(SAMPLES)
    assert Bgen.open(tmp_path / "g.bgen").people == tuple(f"q{i}" for i in range(6))
    (tmp_path / "people.tsv").write_text("person\nq1\n")
    config = DatasetConfig("S", "GRCh37", "people.tsv", "g.bgen")
    first = Dataset.open(config, tmp_path)
    (tmp_path / "g.sample").write_text(SAMPLES + "\n")
    with pytest.raises(DataError, match=r"g\.sample changed"):
        first.cohort(Needs(), Frame())


DAMAGE = """
import random, sys
from pathlib import Path
from fl_client.readers.bgen import Bgen
from strategies.errors import DataError
path, rng = Path(sys.argv[1]), random.Random(3)
raw = path.read_bytes()
for number in range(300):
    data = bytearray(raw)
    for _ in range(rng.randint(1, 4)): data[rng.randrange(len(data))] = rng.randrange(256)
    path.write_bytes(data)
    try: Bgen.open(path)
    except DataError: pass
print("whole")
"""


def test_damage_at_random_never_ends_the_process(tmp_path: Path) -> None:
    write_bgen(tmp_path / "g.bgen")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", DAMAGE, str(tmp_path / "g.bgen")]
    done = subprocess.run(command, capture_output=True, errors="replace", env=environment, check=False)
    assert done.stdout == "whole\n", (done.returncode, done.stderr[-2000:])


# --- gVCF -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "line",
    [
        "1 20 . A <NON_REF> . . END=30 GT 0/0 0/0 0/0 0/0 0/0 0/0",
        "1 20 . A <*> . . . GT 0/0 0/0 0/0 0/0 0/0 0/0",
        "1 20 . A . . . END=30 GT 0/0 0/0 0/0 0/0 0/0 0/0",
    ],
)
def test_a_gvcf_is_refused(line: str, tmp_path: Path) -> None:
    head = HEAD + '##INFO=<ID=END,Number=1,Type=Integer,Description="e">\n'
    with pytest.raises(DataError, match="not a gVCF") as error:
        Vcf.open(write_vcf(tmp_path, DOSED[2], line, head=head))
    assert error.value.found == "g.vcf, record 2: a block of reference calls"


def test_alleles_beside_any_other_are_no_gvcf(tmp_path: Path) -> None:
    calls = Vcf.open(
        write_vcf(
            tmp_path, "1 20 . A C,<*> . . . GT 0/0 0/1 1/1 0/2 ./. 0/0", "1 21 . A . . . . GT 0/0 0/0 0/0 0/0 0/0 0/0"
        )
    )
    np.testing.assert_array_equal(codes(calls), [[0, 1, 2, 0, 3, 0]])


# --- by the block -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("people", [1, 4, 5, 8, 11])
@pytest.mark.parametrize("bed", [True, False])
def test_packed_rows_in_any_order_for_anybody(
    people: int, bed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fl_client.readers.packed._BYTES_AT_A_TIME", 16)
    monkeypatch.setattr("fl_client.readers.packed._GAP", 6)
    rng = np.random.default_rng([people, bed])
    truth = rng.integers(0, 4, (50, people), dtype=np.uint8)
    stored = np.array([3, 2, 0, 1], dtype=np.uint8)[truth] if bed else truth
    cells = Genotypes.pack(stored).packed.copy()
    if bed and people % 4:
        cells[:, -1] |= 0xFF << 2 * (people % 4) & 0xFF  # what pads a .bed may be anything
    (tmp_path / "cells").write_bytes(b"abc" + cells.tobytes())
    packed = Packed(Held.open(tmp_path / "cells"), 3, people, bed)
    for _ in range(20):
        rows = rng.choice(np.append(np.arange(50), -1), rng.integers(1, 30))
        swapped = rng.random(len(rows)) < 0.5
        for chosen in (None, rng.permutation(people), rng.integers(0, people, rng.integers(0, 9))):
            count = people if chosen is None else len(chosen)
            out = np.full((len(rows), -(-count // 4)), 0xAB, dtype=np.uint8)
            packed.fill(rows, swapped, chosen, out)
            want = truth[rows] if chosen is None else truth[rows][:, chosen]
            want = np.where(swapped[:, None], np.array([2, 1, 0, 3], dtype=np.uint8)[want], want)
            want = Genotypes.pack(want).packed
            np.testing.assert_array_equal(out[rows >= 0], want[rows >= 0])
            assert (out[rows < 0] == 0xAB).all()


def test_codes_are_packed_whatever_is_missing() -> None:
    given = np.random.default_rng(1).integers(-128, 128, (40, 13)).astype(np.int8)
    given[:20] = given[:20] % 3
    out = np.empty((40, 4), dtype=np.uint8)
    packing.pack(given, out, np.arange(40))
    want = np.where((given < 0) | (given > 2), 3, given).astype(np.uint8)
    np.testing.assert_array_equal(out, Genotypes.pack(want).packed)


def test_a_file_that_is_cut_while_it_is_open_is_an_error_and_no_end(tmp_path: Path) -> None:
    (tmp_path / "cells").write_bytes(bytes(4000))
    packed = Packed(Held.open(tmp_path / "cells"), 0, 4, False)
    os.truncate(tmp_path / "cells", 100)
    with pytest.raises(DataError, match="stay as they are"):
        packed.fill(np.arange(4000), np.zeros(4000, dtype=bool), None, np.empty((4000, 1), dtype=np.uint8))


def test_memory_does_not_grow_with_genotypes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vcf, "_CELLS_AT_A_TIME", 1 << 16)
    people = tuple(f"p{i}" for i in range(2000))
    line = "\t".join(("", ".", "A", "C", ".", ".", ".", "GT:DS", *["0/1:1"] * len(people)))
    peaks = []
    for variants in (50, 450):
        path = write_vcf(tmp_path, people=people)
        with path.open("a") as file:
            file.writelines(f"1\t{10 + i}{line}\n" for i in range(variants))
        tracemalloc.start()
        calls = Vcf.open(path, tmp_path)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert (codes(calls) == 1).all()
        assert (calls.dosages(calls.index.rows[-2:]) == COPY).all()
    # Packed, 400 variants more are 200 kB, and their dosages 1.6 MB; the list of variants is some forty bytes each.
    assert peaks[1] - peaks[0] < 100_000
    assert list(tmp_path.iterdir()) == [tmp_path / "g.vcf"]
