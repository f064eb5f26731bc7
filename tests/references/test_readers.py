"""Readers: what is on disk against plink2's own counts, three formats of one truth, and one message per broken file."""

import csv
import gzip
import os
import struct
import tracemalloc
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from cyvcf2 import VCF, Writer
from pgenlib import PgenWriter

from fl_client import readers
from fl_client.readers import Dataset, DatasetConfig
from fl_client.readers.calls import Calls
from fl_client.readers.plink import Bed, Pgen
from fl_client.readers.tables import Table
from fl_client.readers.vcf import Vcf
from strategies import cohort as cohorts
from strategies.analysis import Frame, Needs, Part, Range
from strategies.codec import decode
from strategies.cohort import MISSING, Genotypes
from strategies.errors import DataError, UsageError
from strategies.variants import Panel, Variant

ROOT = Path(__file__).parents[2]
EUROPE = ROOT / "simulations" / "data" / "europe1000g"
GOLDEN = Path(__file__).parent / "europe1000g"
CORPUS = ROOT.parent / "shared" / "data" / "vcf"
SITES = {"FI": ("pgen", 92), "GB": ("vcf.gz", 86), "IT": ("bed", 91), "CEU": ("pgen", 89)}
PANEL_ONLY = Needs(panel="common")


@pytest.fixture(scope="module")
def panel() -> Panel:
    return Panel.read(EUROPE / "panel.tsv.gz", "GRCh37")


@pytest.fixture(scope="module")
def sites() -> dict[str, Dataset]:
    return {
        name: Dataset.open(DatasetConfig(name, "GRCh37", "people.tsv", f"genotypes.{kind}"), EUROPE / name)
        for name, (kind, _) in SITES.items()
    }


# --- a small truth, written in every format ---------------------------------------------------------------------------

PEOPLE = ("p1", "p2", "p3", "p4", "p5", "p6")
LISTED = (
    ("chr1", 100, "A", "C"),
    ("1", 200, "a", "G"),
    ("2", 300, "A", "T"),
    ("X", 400, "CAT", "C"),
    ("chrM", 500, "G", "A"),
    ("HLA_1", 600, "G", "A"),
)
CODES = np.array(
    [[0, 1, 2, 3, 2, 1], [3, 3, 3, 3, 3, 3], [2, 2, 1, 0, 0, 3], [0, 0, 0, 0, 0, 1], [2, 1, 0, 1, 2, 3], [0] * 6],
    dtype=np.uint8,
)
ASKED = Panel(
    "GRCh37",
    (
        Variant("MT", 500, "as_is", "G", "A"),
        Variant("1", 100, "swapped", "C", "A"),
        Variant("2", 300, "palindrome", "A", "T"),
        Variant("2", 300, "palindrome_swapped", "T", "A"),
        Variant("3", 100, "absent", "A", "C"),
        Variant("X", 400, "deletion_swapped_or_insertion", "C", "CAT"),
        Variant("1", 200, "all_missing", "A", "G"),
        Variant("1", 100, "another_allele", "A", "G"),
    ),
)
EXPECTED = np.array(
    [CODES[4], [2, 1, 0, 3, 0, 1], CODES[2], [3] * 6, [3] * 6, [3] * 6, [3] * 6, [3] * 6], dtype=np.uint8
)


def write_people(folder: Path, people=PEOPLE, name: str = "people.tsv") -> None:
    (folder / name).write_text("person\tage\n" + "".join(f"{p}\t{30 + i}\n" for i, p in enumerate(people)))


def write_bed(folder: Path, codes=CODES, listed=LISTED, people=PEOPLE) -> Path:
    pairs = np.array([3, 2, 0, 1], dtype=np.uint8)[codes]  # 0, 1, 2 copies of A1, missing
    padded = np.zeros((len(codes), -(-len(people) // 4) * 4), dtype=np.uint8)
    padded[:, : len(people)] = pairs
    quads = padded.reshape(len(codes), -1, 4) << np.array([0, 2, 4, 6], dtype=np.uint8)
    (folder / "g.bed").write_bytes(b"\x6c\x1b\x01" + quads.sum(axis=2).astype(np.uint8).tobytes())
    (folder / "g.bim").write_text("".join(f"{c}\trs{i}\t0\t{p}\t{a}\t{r}\n" for i, (c, p, r, a) in enumerate(listed)))
    (folder / "g.fam").write_text("".join(f"f {p} 0 0 0 -9\n" for p in people))
    return folder / "g.bed"


def write_pgen(folder: Path, codes=CODES, listed=LISTED, people=PEOPLE) -> Path:
    with PgenWriter(os.fsencode(folder / "g.pgen"), len(people), variant_ct=len(codes), nonref_flags=False) as out:
        for row in codes:
            out.append_biallelic(np.where(row == MISSING, -9, row).astype(np.int8))
    (folder / "g.psam").write_text("#FID\tIID\tSEX\n" + "".join(f"0\t{p}\tNA\n" for p in people))
    lines = [f"{c}\t{p}\trs{i}\t{r}\t{a}\tPASS\n" for i, (c, p, r, a) in enumerate(listed)]
    (folder / "g.pvar").write_text("##source=test\n#CHROM\tPOS\tID\tREF\tALT\tFILTER\n" + "".join(lines))
    return folder / "g.pgen"


HEADER = '##fileformat=VCFv4.2\n##FORMAT=<ID=GT,Number=1,Type=String,Description="Genotype">\n' + "".join(
    f"##contig=<ID={name}>\n" for name in ("1", "2", "X", "chr1", "chrM", "HLA_1")
)


def vcf_text(lines: list[str], people=PEOPLE) -> str:
    columns = ["#CHROM", "POS", "ID", "REF", "ALT", "QUAL", "FILTER", "INFO", "FORMAT"]
    return HEADER + "\t".join([*columns, *people]) + "\n" + "".join(line.replace(" ", "\t") + "\n" for line in lines)


def truth_as_lines(codes=CODES, listed=LISTED) -> list[str]:
    words = (("0/0", "0|0"), ("0/1", "1|0"), ("1/1", "1|1"), ("./.", ".|1"))
    return [
        f"{c} {p} . {r} {a} . . . GT " + " ".join(words[g][j % 2] for j, g in enumerate(row))
        for (c, p, r, a), row in zip(listed, codes, strict=True)
    ]


def write_vcf(folder: Path, lines: list[str] | None = None, people=PEOPLE) -> Path:
    (folder / "g.vcf").write_text(vcf_text(truth_as_lines() if lines is None else lines, people))
    return folder / "g.vcf"


END = bytes.fromhex("1f8b08040000000000ff0600424302001b0003000000000000000000")


def bgzip(text: bytes, size: int = 60_000) -> bytes:
    out = b""
    for start in range(0, len(text), size):
        block = text[start : start + size]
        deflate = zlib.compressobj(6, zlib.DEFLATED, -15)
        body = deflate.compress(block) + deflate.flush()
        head = struct.pack("<4BI2BH2BHH", 31, 139, 8, 4, 0, 0, 255, 6, 66, 67, 2, len(body) + 25)
        out += head + body + struct.pack("<II", zlib.crc32(block), len(block))
    return out + END


def write_vcf_gz(folder: Path) -> Path:
    (folder / "g.vcf.gz").write_bytes(bgzip(vcf_text(truth_as_lines()).encode()))
    return folder / "g.vcf.gz"


def write_bcf(folder: Path, lines: list[str] | None = None) -> Path:
    source = VCF(str(write_vcf(folder, lines)))
    out = Writer(str(folder / "g.bcf"), source, mode="wb")
    for record in source:
        out.write_record(record)
    out.close()
    return folder / "g.bcf"


FORMATS = {"bed": write_bed, "pgen": write_pgen, "vcf": write_vcf, "vcf.gz": write_vcf_gz, "bcf": write_bcf}


def open_small(folder: Path, kind: str) -> Dataset:
    return Dataset.open(DatasetConfig("SMALL", "GRCh37", "people.tsv", f"g.{kind}"), folder)


def rows_of(calls: Calls) -> dict[tuple[str, int, str, str], int]:
    return dict(zip(calls.index, calls.index.rows.tolist(), strict=True))


def codes_of(calls: Calls, rows: np.ndarray | None = None) -> np.ndarray:
    """(K, N) codes of rows of a file, by default of all its usable ones in the order of their places."""
    rows = calls.index.rows if rows is None else rows
    out = np.empty((len(rows), -(-len(calls.people) // 4)), dtype=np.uint8)
    calls.fill(rows, np.zeros(len(rows), dtype=bool), None, out)
    return Genotypes(out, len(calls.people)).codes()


def says(error: pytest.ExceptionInfo[DataError], rule: str, found: str) -> None:
    assert rule in error.value.rule
    assert found in error.value.found
    assert error.value.remedy
    assert error.value.exit_code == 4


# --- the four real sites ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SITES)
def test_every_count_equals_plink2(name: str, sites: dict[str, Dataset], panel: Panel) -> None:
    with gzip.open(GOLDEN / f"{name}.gcount.gz", "rt") as file:
        golden = list(csv.DictReader(file, delimiter="\t"))
    assert [(g["#CHROM"], g["ID"], g["REF"], g["ALT"]) for g in golden] == [
        (v.chromosome, v.identifier, v.reference, v.alternate) for v in panel.variants
    ]
    names = ("HOM_REF_CT", "HET_REF_ALT_CTS", "TWO_ALT_GENO_CTS", "MISSING_CT")
    expected = np.array([[int(g[n]) for n in names] for g in golden])
    cohort = sites[name].cohort(PANEL_ONLY, Frame(panel))
    assert len(cohort) == SITES[name][1]
    assert cohort.genotypes is not None
    assert cohort.genotypes.counts().shape == (20_000, 4)
    np.testing.assert_array_equal(cohort.genotypes.counts(), expected)


def test_slices_of_a_panel_are_the_panel(sites: dict[str, Dataset], panel: Panel) -> None:
    for site in sites.values():
        whole = site.cohort(PANEL_ONLY, Frame(panel)).genotypes
        parts = [site.cohort(PANEL_ONLY, Frame(panel)[a : a + 4096]).genotypes for a in range(0, len(panel), 4096)]
        np.testing.assert_array_equal(np.concatenate([p.packed for p in parts]), whole.packed)


def test_many_genotypes_that_are_walked_stay_in_their_file(
    sites: dict[str, Dataset], panel: Panel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(readers, "MOST_HELD", 10_000)
    for site in sites.values():
        whole = site.cohort(PANEL_ONLY, Frame(panel)).genotypes
        peaks = []
        for most in (2 * cohorts.VARIANTS_AT_A_TIME, len(panel)):
            some = Frame(panel)[:most]
            tracemalloc.start()
            cohort = site.cohort(replace(PANEL_ONLY, walked=True), some)
            assert cohort.genotypes is None
            walked = [np.array_equal(part.packed, whole.packed[span]) for span, part in cohorts.blocks(cohort.walked)]
            peaks.append(tracemalloc.get_traced_memory()[1])
            tracemalloc.stop()
            assert len(walked) == -(-most // cohorts.VARIANTS_AT_A_TIME)
            assert all(walked)
        assert peaks[1] < 1.3 * peaks[0], "two blocks, or ten"
        rows = np.array([5, 17_000, 300])
        np.testing.assert_array_equal(cohort.walked[rows].packed, whole.packed[rows])
        people = np.array([3, 1])
        np.testing.assert_array_equal(cohort.take(people).walked[rows].codes(), whole[rows].take(people).codes())


def test_real_columns(sites: dict[str, Dataset]) -> None:
    site = sites["FI"]
    assert "population" not in site.columns
    assert site.missing_columns(("sex", "population", "height")) == ("population", "height")
    assert site.out_of_range({"sex": Range(1, 2), "GSTT1_high": Range(0, 0.5)})["sex"] == 0
    cohort = site.cohort(Needs(columns=("sex", "pc1")), Frame(None, {"sex": Range(1, 2), "pc1": Range(-10, 10)}))
    assert cohort.genotypes is None
    assert set(cohort.columns) == {"sex", "pc1"}
    assert cohort.columns["sex"][:2].tolist() == [2, 2]
    assert cohort.columns["pc1"][:2].tolist() == [10, 10]
    assert not any(values.flags.writeable for values in cohort.columns.values())


# --- one truth, five formats ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", FORMATS)
def test_formats_agree(kind: str, tmp_path: Path) -> None:
    write_people(tmp_path)
    FORMATS[kind](tmp_path)
    site = open_small(tmp_path, kind)
    cohort = site.cohort(PANEL_ONLY, Frame(ASKED))
    np.testing.assert_array_equal(cohort.genotypes.codes(), EXPECTED)
    assert not cohort.genotypes.packed.flags.writeable


@pytest.mark.parametrize("kind", ["bed", "pgen", "vcf"])
@pytest.mark.parametrize("people", [("p5", "p1"), ("p3",), PEOPLE[::-1]])
def test_people_are_the_tables_in_its_order(kind: str, people: tuple[str, ...], tmp_path: Path) -> None:
    write_people(tmp_path, people)
    FORMATS[kind](tmp_path)
    site = open_small(tmp_path, kind)
    cohort = site.cohort(Needs(columns=("age",), panel="p"), Frame(ASKED, {"age": Range(0, 120)}))
    assert site.people == people
    np.testing.assert_array_equal(cohort.genotypes.codes(), EXPECTED[:, [PEOPLE.index(p) for p in people]])
    assert cohort.columns["age"].tolist() == [30 + i for i in range(len(people))]


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5])
def test_fewer_people_than_a_byte_holds(count: int, tmp_path: Path) -> None:
    write_people(tmp_path, PEOPLE[:count])
    for kind, write in (("bed", write_bed), ("pgen", write_pgen)):
        write(tmp_path, CODES[:, :count], LISTED, PEOPLE[:count])
        got = open_small(tmp_path, kind).cohort(PANEL_ONLY, Frame(ASKED)).genotypes
        np.testing.assert_array_equal(got.codes(), EXPECTED[:, :count])


def test_a_real_site_reads_alike_in_every_format(sites: dict[str, Dataset], panel: Panel, tmp_path: Path) -> None:
    site, few = sites["FI"], panel[:3000]
    truth = site.cohort(PANEL_ONLY, Frame(few)).genotypes.codes()
    holes = np.random.default_rng(1).random(truth.shape) < 0.05
    truth = np.where(holes, MISSING, truth).astype(np.uint8)
    listed = tuple((v.chromosome, v.position, v.reference, v.alternate) for v in few.variants)
    write_people(tmp_path, site.people)
    write_bed(tmp_path, truth, listed, site.people)
    write_pgen(tmp_path, truth, listed, site.people)
    write_vcf(tmp_path, truth_as_lines(truth, listed), site.people)
    for kind in ("bed", "pgen", "vcf"):
        got = open_small(tmp_path, kind).cohort(PANEL_ONLY, Frame(few)).genotypes
        np.testing.assert_array_equal(got.codes(), truth, err_msg=kind)


def test_parts_restrict_people_and_columns_alike(sites: dict[str, Dataset], panel: Panel) -> None:
    site, frame = sites["IT"], Frame(panel[:50], {"pc1": Range(-1000, 1000)})
    whole = site.cohort(Needs(("pc1",), "common"), frame)
    seen = []
    for part in (Part(0.0, 0.6, "s"), Part(0.6, 1.0, "s")):
        inside = np.flatnonzero(part.holds(site.people))
        assert 0 < len(inside) < len(whole)
        cohort = site.cohort(Needs(("pc1",), "common", part), frame)
        np.testing.assert_array_equal(cohort.genotypes.codes(), whole.genotypes.codes()[:, inside])
        np.testing.assert_array_equal(cohort.columns["pc1"], whole.columns["pc1"][inside])
        seen += inside.tolist()
    assert sorted(seen) == list(range(len(whole)))
    nobody = site.cohort(Needs(("pc1",), "common", Part(0.5, 0.5, "s")), frame)
    assert len(nobody) == 0
    assert nobody.genotypes.counts().sum() == 0


# --- what a VCF may say -----------------------------------------------------------------------------------------------


def test_genotypes_of_every_spelling(tmp_path: Path) -> None:
    people = tuple("abcdefghi")
    lines = [
        "1 10 . A C,G . . . GT 0/1 1|1 1/2 2|2 0/2 ./. .|1 1 .",
        "1 20 . A C,*,<DEL> . . . DP:GT 5:0/1 5:1/1 5:1/2 5:2/3 5:3/3 5:./. 5:0/. 5:0 5:.",
        "1 30 . A . . . . GT 0/0 0/0 0/0 0/0 0/0 0/0 0/0 0 .",
        "1 40 . N C . . . GT 0/0 0/0 0/0 0/0 0/0 0/0 0/0 0 .",
        "1 50 . A <DUP> . . . GT 0/0 0/0 0/0 0/0 0/0 0/0 0/0 0 .",
        "X 60 . A T . . . GT 0 1 0 1 0 1 0 1 .",
    ]
    calls = Vcf.open(write_vcf(tmp_path, lines, people))
    assert list(calls.index) == [("1", 10, "A", "C"), ("1", 10, "A", "G"), ("1", 20, "A", "C"), ("X", 60, "A", "T")]
    np.testing.assert_array_equal(
        codes_of(calls),
        [
            [1, 2, 1, 0, 0, 3, 3, 2, 3],
            [0, 0, 1, 2, 1, 3, 3, 0, 3],
            [1, 2, 1, 0, 0, 3, 3, 0, 3],
            [0, 2, 0, 2, 0, 2, 0, 2, 3],
        ],
    )


def test_more_variants_than_a_block(tmp_path: Path) -> None:
    codes = np.random.default_rng(2).integers(0, 4, (2500, 6), dtype=np.uint8)
    listed = tuple(("1", 10 + i, "A", "C") for i in range(2500))
    calls = Vcf.open(write_vcf(tmp_path, truth_as_lines(codes, listed)))
    np.testing.assert_array_equal(codes_of(calls), codes)
    np.testing.assert_array_equal(codes_of(calls, np.array([2400, 3, 1024])), codes[[2400, 3, 1024]])


GOOD = "1 10 . A C . . . GT 0/1 0/1 0/1 0/1 0/1 0/1"
BAD_VCF = {
    "duplicate variant": ([GOOD, GOOD], "variants of a genotype file are distinct", "record 2: 1:10:A:C stands"),
    "duplicate by case": ([GOOD, GOOD.replace("A C", "a c")], "are distinct", "record 2: 1:10:A:C"),
    "duplicate alternate": ([GOOD.replace("C", "C,C")], "are distinct", "record 1: 1:10:A:C"),
    "equal alleles": ([GOOD.replace("C", "A")], "two different alleles", "1:10 has 'A' twice"),
    "one genotype too few": ([GOOD.removesuffix(" 0/1")], "follows the VCF", "has 14 columns, the header 15"),
    "one genotype too many": ([GOOD + " 0/1"], "follows the VCF", "has 16 columns, the header 15"),
    "an empty line": ([GOOD, ""], "follows the VCF", "has 1 columns, the header 15"),
    "a position beyond 32 bits": ([GOOD.replace("10", "99999999999")], "follows the VCF", "position '99999999999'"),
    "a position that is a word": ([GOOD.replace("10", "ten")], "follows the VCF", "position 'ten'"),
    "an allele that is not there": (
        [GOOD.replace("0/1", "0/2")],
        "alleles that the record names",
        "highest allele 2 of 1",
    ),
    "three alleles": ([GOOD.replace("0/1", "0/1/1")], "one or two alleles", "record 1: 3"),
    "a word for a genotype": ([GOOD, GOOD.replace("10", "11").replace("0/1", "x/y")], "follows the VCF", "record 2"),
    "no GT": ([GOOD.replace("GT", "DP").replace("0/1", "7")], "genotypes (GT) or dosages", "neither, in 1 records"),
    "no variant": ([], "at least one variant", "g.vcf: none"),
    "no usable variant": ([GOOD.replace("1 10", "HLA_1 10")], "at least one variant", "g.vcf: none"),
}


@pytest.mark.parametrize("name", BAD_VCF)
def test_a_bad_record_has_one_message(name: str, tmp_path: Path) -> None:
    lines, rule, found = BAD_VCF[name]
    with pytest.raises(DataError) as error:
        Vcf.open(write_vcf(tmp_path, lines))
    says(error, rule, found)


@pytest.mark.parametrize(
    ("text", "rule", "found"),
    [
        ("", "A VCF starts with", "starts with b''"),
        ("person\tsex\n", "A VCF starts with", "starts with b'perso'"),
        (HEADER, "follows the VCF", "no header #CHROM"),
        (HEADER + "1\t10\n", "follows the VCF", "should be the header #CHROM"),
        (HEADER + "#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\n", "one column for each person", "g.vcf: none"),
        (vcf_text([GOOD], (*PEOPLE[:5], "p1")), "follows the VCF", "the header"),
        (vcf_text([GOOD])[:-1], "whole to its last byte", "line 10 has no end"),
        (vcf_text([GOOD])[:-9], "whole to its last byte", "line 10 has no end"),
    ],
)
def test_a_bad_text_has_one_message(text: str, rule: str, found: str, tmp_path: Path) -> None:
    (tmp_path / "g.vcf").write_text(text)
    with pytest.raises(DataError) as error:
        Vcf.open(tmp_path / "g.vcf")
    says(error, rule, found)


def blocks(raw: bytes) -> list[int]:
    starts, at = [], 0
    while at < len(raw):
        starts.append(at)
        at += int.from_bytes(raw[at + 16 : at + 18], "little") + 1
    return starts


def test_a_cut_or_damaged_real_file_is_never_shorter(tmp_path: Path) -> None:
    raw = (EUROPE / "GB" / "genotypes.vcf.gz").read_bytes()
    starts = blocks(raw)
    text = gzip.decompress(raw)
    line = text.rfind(b"\n", 0, len(text) // 2) + 1
    cut = {
        "no end-of-file block": raw[:-28],
        "in the middle of a block": raw[: len(raw) // 2],
        "between two blocks": raw[: starts[5]],
        "in a line, and closed": raw[: starts[5]] + END,
        "damaged": raw[: starts[3] + 100] + b"XXXX" + raw[starts[3] + 104 :],
        "a cut text, compressed": bgzip(text[: line - 3]),
        "plain gzip, cut": gzip.compress(text)[:-100],
    }
    for name, data in cut.items():
        (tmp_path / "g.vcf.gz").write_bytes(data)
        with pytest.raises(DataError) as error:
            Vcf.open(tmp_path / "g.vcf.gz")
        assert error.value.rule == "A genotype file is whole to its last byte.", name
    (tmp_path / "g.vcf.gz").write_bytes(gzip.compress(text))
    assert len(Vcf.open(tmp_path / "g.vcf.gz").index) == 20_000


def test_a_cut_or_damaged_bcf_is_never_shorter(tmp_path: Path) -> None:
    whole = gzip.decompress(write_bcf(tmp_path).read_bytes())
    path = tmp_path / "g.bcf"
    rule = "A genotype file is whole to its last byte."
    assert len(Vcf.open(path).index) == 5
    for data, found in (
        (bgzip(whole)[:-28], "no end-of-file block"),
        (bgzip(whole[:-5]), "bytes are announced"),
        (whole[:-5], "bytes are announced"),
        (bgzip(whole + b"\1\0"), "record 7 has no end"),
        (bgzip(whole[:200]), "bytes are announced"),
    ):
        path.write_bytes(data)
        with pytest.raises(DataError) as error:
            Vcf.open(path)
        says(error, rule, found)
    at = 9 + int.from_bytes(whole[5:9], "little") + 8 + 20
    path.write_bytes(bgzip(whole[:at] + b"\5" + whole[at + 1 :]))
    with pytest.raises(DataError) as error:
        Vcf.open(path)
    says(error, "follows the VCF specification", "record 1 is not for 6 people")


def test_a_library_that_stops_early_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fl_client.readers.vcf._records", lambda path: 7)
    with pytest.raises(DataError) as error:
        Vcf.open(write_vcf(tmp_path))
    says(error, "follows the VCF specification", "6 records could be read of 7")


# --- broken PLINK files -----------------------------------------------------------------------------------------------


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


BAD_BED = {
    "cut": (lambda f: cut(f / "g.bed", 1), "3 bytes and", "has 14 bytes, expected 15 for 6 variants and 6 people"),
    "longer": (lambda f: longer(f / "g.bed"), "3 bytes and", "has 16 bytes, expected 15 for 6 variants and 6 people"),
    "magic": (lambda f: patch(f / "g.bed", 0, b"PK"), "starts with the bytes 6c 1b 01", "starts with 50 4b 01"),
    "empty": (lambda f: (f / "g.bed").write_bytes(b""), "starts with the bytes 6c 1b 01", "starts with nothing"),
    "sample-major": (lambda f: patch(f / "g.bed", 2, b"\0"), "variant by variant", "person by person"),
    "no fam": (lambda f: (f / "g.fam").unlink(), "is there and readable", "g.fam: No such file"),
    "no bim": (lambda f: (f / "g.bim").unlink(), "is there and readable", "g.bim: No such file"),
    "no bed": (lambda f: (f / "g.bed").unlink(), "is there and readable", "g.bed: No such file"),
    "duplicate person": (lambda f: edit(f / "g.fam", "f p2", "f p1"), "distinct", "g.fam: 1 more than once, 'p1'"),
    "ragged fam": (lambda f: edit(f / "g.fam", " -9", ""), "Each line has 6 columns", "g.fam, line 1: 5"),
    "ragged bim": (lambda f: edit(f / "g.bim", "\trs1", ""), "Each line has 6 columns", "g.bim, line 2: 5"),
    "empty fam": (lambda f: (f / "g.fam").write_text(""), "at least one person", "g.fam: none"),
    "empty bim": (lambda f: (f / "g.bim").write_text(""), "at least one variant", "g.bim: none"),
    "position": (lambda f: edit(f / "g.bim", "200", "2e2"), "whole number", "g.bim, line 2: position '2e2'"),
    "duplicate variant": (
        lambda f: edit(f / "g.bim", "1\trs1\t0\t200\tG\ta", "1\trs1\t0\t100\tC\tA"),
        "are distinct",
        "g.bim, line 2: 1:100:A:C stands there a second time",
    ),
    "not text": (lambda f: (f / "g.bim").write_bytes(b"\xff\xfe1"), "UTF-8", "g.bim: invalid start byte at byte 0"),
}


def cut(path: Path, length: int) -> None:
    path.write_bytes(path.read_bytes()[:-length])


def longer(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\0")


def patch(path: Path, at: int, new: bytes) -> None:
    raw = path.read_bytes()
    path.write_bytes(raw[:at] + new + raw[at + len(new) :])


@pytest.mark.parametrize("name", BAD_BED)
def test_a_bad_bed_has_one_message(name: str, tmp_path: Path) -> None:
    breaks, rule, found = BAD_BED[name]
    path = write_bed(tmp_path)
    breaks(tmp_path)
    with pytest.raises(DataError) as error:
        Bed.open(path)
    says(error, rule, found)


BAD_PGEN = {
    "cut": (lambda f: cut(f / "g.pgen", 1), "A .pgen is whole", "g.pgen: "),
    "empty": (lambda f: (f / "g.pgen").write_bytes(b""), "A .pgen is whole", "too small"),
    "magic": (lambda f: patch(f / "g.pgen", 0, b"PK"), "A .pgen is whole", "is not a .pgen file"),
    "no pgen": (lambda f: (f / "g.pgen").unlink(), "is there and readable", "g.pgen: No such file"),
    "no pvar": (lambda f: (f / "g.pvar").unlink(), "is there and readable", "g.pvar: No such file"),
    "no psam": (lambda f: (f / "g.psam").unlink(), "is there and readable", "g.psam: No such file"),
    "one person fewer": (lambda f: edit(f / "g.psam", "0\tp6\tNA\n", ""), "A .pgen is whole", "contains 6 samples"),
    "one variant fewer": (
        lambda f: edit(f / "g.pvar", "2\t300\trs2\tA\tT\tPASS\n", ""),
        "is whole",
        "contains 6 variants",
    ),
    "psam header": (lambda f: edit(f / "g.psam", "#FID\tIID", "FID\tIID"), "A .psam has a header with IID", "line 1"),
    "psam without IID": (lambda f: edit(f / "g.psam", "IID", "SID"), "A .psam has a header with IID", "line 1"),
    "pvar header": (lambda f: edit(f / "g.pvar", "#CHROM\tPOS", "CHROM\tPOS"), "A .pvar has a header", "line 2"),
    "ragged pvar": (lambda f: edit(f / "g.pvar", "A\tC\tPASS", "A\tC"), "as many columns", "line 3: 5 instead of 6"),
    "duplicate person": (lambda f: edit(f / "g.psam", "p2", "p1"), "distinct", "g.psam: 1 more than once, 'p1'"),
    "nameless person": (lambda f: edit(f / "g.psam", "p2", ""), "has an identifier", "g.psam: person 2 has none"),
    "duplicate variant": (
        lambda f: edit(f / "g.pvar", "200\trs1\ta\tG", "100\trs1\tA\tC"),
        "distinct",
        "line 4: 1:100:A:C",
    ),
    "empty psam": (lambda f: (f / "g.psam").write_text(""), "at least one person", "g.psam: none"),
    "empty pvar": (lambda f: (f / "g.pvar").write_text(""), "at least one variant", "g.pvar: none"),
}


@pytest.mark.parametrize("name", BAD_PGEN)
def test_a_bad_pgen_has_one_message(name: str, tmp_path: Path) -> None:
    breaks, rule, found = BAD_PGEN[name]
    path = write_pgen(tmp_path)
    breaks(tmp_path)
    with pytest.raises(DataError) as error:
        Pgen.open(path)
    says(error, rule, found)


def test_a_cut_or_damaged_real_pgen_is_refused_when_opened(tmp_path: Path) -> None:
    for suffix in ("pvar", "psam"):
        (tmp_path / f"g.{suffix}").write_bytes((EUROPE / "FI" / f"genotypes.{suffix}").read_bytes())
    raw = (EUROPE / "FI" / "genotypes.pgen").read_bytes()
    for data in (raw[:-1], raw[: len(raw) // 2], raw[:200_000] + b"\xff" * 50 + raw[200_050:]):
        (tmp_path / "g.pgen").write_bytes(data)
        with pytest.raises(DataError) as error:
            Pgen.open(tmp_path / "g.pgen")
        says(error, "A .pgen is whole", "g.pgen: ")


def test_unplaced_and_unspelt_variants_are_passed_over(tmp_path: Path) -> None:
    listed = (
        ("0", 0, "A", "C"),
        ("1", -5, "A", "C"),
        ("1", 0, "A", "C"),
        ("1", 9, "A", "0"),
        ("1", 9, "A", "C"),
        LISTED[5],
    )
    assert rows_of(Bed.open(write_bed(tmp_path, CODES, listed))) == {("1", 9, "A", "C"): 4}
    assert rows_of(Pgen.open(write_pgen(tmp_path, CODES, listed))) == {("1", 9, "A", "C"): 4}


# --- tables of people -------------------------------------------------------------------------------------------------


def test_a_table(tmp_path: Path) -> None:
    path = tmp_path / "people.csv"
    path.write_text('person,age,"body, mass",sex,note,nothing\na, 30 ,1e1,1,"x, y",NA\nb,NA,-9,?,,.\nc,.,NaN,,z,\n')
    table = Table.open(path)
    assert table.people == ("a", "b", "c")
    assert set(table.columns) == {"age", "body, mass", "sex", "nothing"}
    np.testing.assert_array_equal(table.column("age"), [30, np.nan, np.nan])
    np.testing.assert_array_equal(table.column("body, mass"), [10, -9, np.nan])
    np.testing.assert_array_equal(table.column("sex"), [1, np.nan, np.nan])
    assert np.isnan(table.column("nothing")).all()
    assert not table.column("age").flags.writeable


@pytest.mark.parametrize("cell", ["FIN", "1_000", "inf", "-Infinity", "nan", "1e999", "1,5", "٣", "0x10", "1 2"])
def test_a_cell_that_is_no_number_shows_when_the_column_is_asked_for(cell: str, tmp_path: Path) -> None:
    (tmp_path / "people.tsv").write_text(f"person\tx\ty\na\t1\t1\nb\t{cell}\t2\n", encoding="utf-8")
    site = Dataset.open(DatasetConfig("T", "GRCh38", "people.tsv"), tmp_path)
    assert site.columns == ("y",)
    assert site.missing_columns(("x", "y")) == ("x",)
    for ask in (
        lambda: site.cohort(Needs(("x",)), Frame(None, {"x": Range(0, 1)})),
        lambda: site.out_of_range({"x": Range(0, 1)}),
    ):
        with pytest.raises(DataError) as error:
            ask()
        says(error, "holds numbers", "people.tsv, column 'x': person 2 has neither")


BAD_TABLES = {
    "empty": ("", "starts with a header", "people.tsv is empty"),
    "first column": ("id\tx\na\t1\n", "is called 'person'", "people.tsv: 'id'"),
    "duplicate header": (
        "person\tx\tx\na\t1\t1\n",
        "a name of its own",
        "people.tsv: 'x' is empty or stands there twice",
    ),
    "empty header": ("person\t\na\t1\n", "a name of its own", "''"),
    "ragged": ("person\tx\na\t1\nb\n", "as many cells", "line 3: 1 instead of 2"),
    "one cell too many": ("person\tx\na\t1\t2\n", "as many cells", "line 2: 3 instead of 2"),
    "empty line": ("person\tx\na\t1\n\nb\t1\n", "as many cells", "line 3: 0 instead of 2"),
    "duplicate person": ("person\tx\na\t1\nb\t1\na\t2\n", "people of a file are distinct", "1 more than once, 'a'"),
    "nameless person": ("person\tx\na\t1\n \t1\n", "has an identifier", "person 2 has none"),
    "commas": ("person,x\na,1\n", "is called 'person'", "'person,x'"),
}


@pytest.mark.parametrize("name", BAD_TABLES)
def test_a_bad_table_has_one_message(name: str, tmp_path: Path) -> None:
    text, rule, found = BAD_TABLES[name]
    (tmp_path / "people.tsv").write_text(text)
    with pytest.raises(DataError) as error:
        Table.open(tmp_path / "people.tsv")
    says(error, rule, found)


@pytest.mark.parametrize(
    ("raw", "rule", "found"),
    [
        (b"person,x\na,\xe4\n", "UTF-8", "people.csv: invalid continuation byte"),
        (b'person,x\na,"1\n', "plain tab-separated or comma-separated", "unexpected end of data"),
        (b'person,x\na,"1"2\n', "plain tab-separated or comma-separated", "line 2"),
    ],
)
def test_a_bad_csv_has_one_message(raw: bytes, rule: str, found: str, tmp_path: Path) -> None:
    (tmp_path / "people.csv").write_bytes(raw)
    with pytest.raises(DataError) as error:
        Table.open(tmp_path / "people.csv")
    says(error, rule, found)


# --- data sets --------------------------------------------------------------------------------------------------------


def test_the_configuration_is_decoded_strictly() -> None:
    raw = {"identifier": "GDI-FI-DEMO-0001", "assembly": "GRCh37", "people": "people.tsv"}
    config = decode(DatasetConfig, raw, "the [dataset] table")
    assert config == DatasetConfig("GDI-FI-DEMO-0001", "GRCh37", "people.tsv", "", False, "person")
    for key, value, message in (
        ("assembly", "hg19", "assembly must be one of GRCh37, GRCh38"),
        ("identifier", "", "identifier must be 1 to 64"),
        ("people", "", "people must name the people table"),
        ("genotype", "x.bed", "unknown 'genotype'"),
    ):
        with pytest.raises(UsageError, match=message):
            decode(DatasetConfig, raw | {key: value}, "the [dataset] table")


def test_a_data_set_that_does_not_fit_its_genotypes(tmp_path: Path) -> None:
    write_bed(tmp_path)
    write_people(tmp_path, ("q1", "q2", "q3", "q4"))
    with pytest.raises(DataError) as error:
        open_small(tmp_path, "bed")
    says(error, "Somebody of the data set has genotypes", "none of 4 is in g.bed: 'q1', 'q2', 'q3' ...")
    assert "q4" not in str(error.value)
    with pytest.raises(DataError) as error:
        open_small(tmp_path, "gen")
    says(error, "is there and readable", "g.gen: No such file")
    (tmp_path / "g.gen").write_bytes(b"")
    with pytest.raises(DataError) as error:
        open_small(tmp_path, "gen")
    says(error, "read from .bed, .pgen, .bgen, .vcf, .vcf.gz or .bcf", "g.gen")


def test_what_a_cohort_refuses(tmp_path: Path) -> None:
    write_people(tmp_path)
    write_bed(tmp_path)
    site = open_small(tmp_path, "bed")
    tables = Dataset.open(DatasetConfig("T", "GRCh37", "people.tsv"), tmp_path)
    for ask, rule, found in (
        (lambda: site.cohort(Needs(("height",)), Frame()), "is in the people table", "no column 'height'"),
        (lambda: site.cohort(Needs(("age",)), Frame()), "within a public range", "'age' has none"),
        (
            lambda: site.cohort(PANEL_ONLY, Frame(Panel("GRCh38", ASKED.variants))),
            "in which it has positions",
            "the panel is GRCh38",
        ),
        (lambda: site.cohort(PANEL_ONLY, Frame()), "needs genotypes", "no panel came"),
        (lambda: tables.cohort(PANEL_ONLY, Frame(ASKED)), "needs genotypes", "T has none"),
    ):
        with pytest.raises(DataError) as error:
            ask()
        says(error, rule, found)


def test_out_of_range_counts_values_but_not_missing_ones(tmp_path: Path) -> None:
    (tmp_path / "people.tsv").write_text("person\tage\na\t-1\nb\t0\nc\t50\nd\t101\ne\tNA\n")
    site = Dataset.open(DatasetConfig("T", "GRCh37", "people.tsv"), tmp_path)
    assert site.out_of_range({"age": Range(0, 100)}) == {"age": 2}
    cohort = site.cohort(Needs(("age",)), Frame(None, {"age": Range(0, 100)}))
    np.testing.assert_array_equal(cohort.columns["age"], [0, 0, 50, 100, np.nan])


@pytest.mark.parametrize("changed", ["people.tsv", "g.bed", "g.bim", "g.fam"])
def test_a_change_is_seen(changed: str, tmp_path: Path) -> None:
    write_people(tmp_path)
    write_bed(tmp_path)
    site = open_small(tmp_path, "bed")
    assert len(site.digest) == 16
    assert site.digest == open_small(tmp_path, "bed").digest
    path = tmp_path / changed
    before = path.stat().st_mtime_ns
    edits = {
        "people.tsv": (b"30", b"31"),
        "g.bed": (b"\xff", b"\xfb"),
        "g.bim": (b"rs0", b"rs9"),
        "g.fam": (b"-9", b"-1"),
    }
    raw = path.read_bytes()
    assert edits[changed][0] in raw
    path.write_bytes(raw.replace(*edits[changed], 1))
    os.utime(path, ns=(before + 1_000_000_000, before + 1_000_000_000))
    with pytest.raises(DataError) as error:
        site.cohort(Needs(("age",)), Frame(None, {"age": Range(0, 1)}))
    says(error, "stay as they are", f"{changed} changed since")
    assert open_small(tmp_path, "bed").digest != site.digest


def test_identifiers_do_not_show_in_a_representation(sites: dict[str, Dataset]) -> None:
    for site in sites.values():
        assert site.people[0] not in repr(site)
        assert site.people[0] not in repr(site.calls)
        assert site.people[0] not in repr(site.table)
