"""Which of a site's variants is which of a panel's: orientations, builds, spellings, and what it means to be absent."""

from __future__ import annotations

import itertools
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fl_client.readers import Absent, Dataset, DatasetConfig
from fl_client.readers.index import Entries, Index
from fl_client.readers.intervals import Intervals
from fl_client.readers.matching import aligned, match
from fl_client.readers.sequence import Sequence
from strategies.analysis import Frame, Needs
from strategies.codec import decode
from strategies.cohort import COPY, NO_DOSAGE
from strategies.errors import DataError, UsageError
from strategies.variants import How, Panel, Variant, chromosome

PEOPLE = ("p1", "p2", "p3", "p4", "p5")


def index(*entries: tuple[str, int, str, str], several: bool = False) -> Index:
    made = Entries("site, line", several)
    for row, (name, position, reference, alternate) in enumerate(entries):
        made.enter(row, row + 1, name, str(position), reference, alternate)
    return made.index()


def panel(*variants: tuple[str, int, str, str], assembly: str = "GRCh37") -> Panel:
    return Panel(assembly, tuple(Variant(c, p, f"v{j}", r, a) for j, (c, p, r, a) in enumerate(variants)))


# --- names ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "known"),
    [
        ("22", "22"), ("chr22", "22"), ("CHR22", "22"), ("022", "22"), ("NC_000022.10", "22"), ("NC_000022.11", "22"),
        ("X", "X"), ("chrX", "X"), ("23", "X"), ("25", "X"), ("XY", "X"), ("PAR1", "X"), ("NC_000023.11", "X"),
        ("Y", "Y"), ("24", "Y"), ("NC_000024.9", "Y"), ("MT", "MT"), ("M", "MT"), ("chrM", "MT"), ("26", "MT"),
        ("NC_012920.1", "MT"), ("NC_000005.9", "5"), ("NC_000005.10", "5"), ("NC_000008.11", "8"),
        ("27", None), ("0", None), ("", None), ("chr", None), ("HLA-A", None), ("chr22_KI270731v1_random", None),
        ("NC_000022.9", None), ("NC_000005.11", None), ("chrchr1", None),
    ],
)  # fmt: skip
def test_chromosomes_go_by_many_names(name: str, known: str | None) -> None:
    assert chromosome(name) == known


# --- orientations -----------------------------------------------------------------------------------------------------

ORIENTATIONS = {
    "as written": (("1", 10, "A", "G"), [("1", 10, "A", "G")], How.AS_WRITTEN, 0),
    "swapped": (("1", 10, "A", "G"), [("1", 10, "G", "A")], How.SWAPPED, 0),
    "flipped": (("1", 10, "A", "G"), [("1", 10, "T", "C")], How.FLIPPED, 0),
    "flipped and swapped": (("1", 10, "A", "G"), [("1", 10, "C", "T")], How.FLIPPED_AND_SWAPPED, 0),
    "another place": (("1", 10, "A", "G"), [("1", 11, "A", "G")], How.ABSENT, -1),
    "another chromosome": (("1", 10, "A", "G"), [("2", 10, "A", "G")], How.ABSENT, -1),
    "another allele": (("1", 10, "A", "G"), [("1", 10, "A", "C")], How.ABSENT, -1),
    "another reference": (("1", 10, "A", "G"), [("1", 10, "C", "G")], How.ABSENT, -1),
    "palindromic": (("1", 10, "A", "T"), [("1", 10, "A", "T")], How.AS_WRITTEN, 0),
    "palindromic, swapped or flipped": (("1", 10, "A", "T"), [("1", 10, "T", "A")], How.ABSENT, -1),
    "palindromic, C and G": (("1", 10, "C", "G"), [("1", 10, "G", "C")], How.ABSENT, -1),
    "deletion": (("1", 10, "AT", "A"), [("1", 10, "AT", "A")], How.AS_WRITTEN, 0),
    "deletion, or insertion": (("1", 10, "AT", "A"), [("1", 10, "A", "AT")], How.ABSENT, -1),
    "deletion, flipped": (("1", 10, "AT", "A"), [("1", 10, "TA", "T")], How.ABSENT, -1),
    "as written before swapped": (("1", 10, "A", "G"), [("1", 10, "G", "A"), ("1", 10, "A", "G")], How.AS_WRITTEN, 1),
    "swapped or flipped": (("1", 10, "A", "G"), [("1", 10, "G", "A"), ("1", 10, "T", "C")], How.SEVERAL, -1),
    "flipped or both": (("1", 10, "A", "G"), [("1", 10, "C", "T"), ("1", 10, "T", "C")], How.SEVERAL, -1),
    "among others": (("1", 10, "A", "G"), [("1", 10, "A", "C"), ("1", 10, "A", "G")], How.AS_WRITTEN, 1),
}  # fmt: skip


@pytest.mark.parametrize("name", ORIENTATIONS)
def test_orientations(name: str) -> None:
    asked, entries, how, row = ORIENTATIONS[name]
    found = match(panel(asked), "GRCh37", index(*entries), None, None)
    assert (How(found.how[0]), found.rows[0]) == (how, row)
    assert found.swapped[0] == (how in (How.SWAPPED, How.FLIPPED_AND_SWAPPED))
    assert found.counts()[how.name.lower()] == 1


def test_a_slice_is_found_as_the_whole_is() -> None:
    rng = random.Random(3)
    letters = list(itertools.permutations("ACGT", 2))
    entries = [(str(1 + i % 22), rng.randint(1, 400), *rng.choice(letters)) for i in range(20_000)]
    entries = list(dict.fromkeys(entries))
    asked = panel(
        *dict.fromkeys((str(rng.randint(1, 22)), rng.randint(1, 400), *rng.choice(letters)) for _ in range(3000))
    )
    site = index(*entries)
    whole = match(asked, "GRCh37", site, None, None)
    parts = [match(asked[a : a + 700], "GRCh37", site, None, None) for a in range(0, len(asked), 700)]
    np.testing.assert_array_equal(np.concatenate([p.rows for p in parts]), whole.rows)
    # The rules once more, by a dictionary and one variant at a time.
    rows, turn = {key: row for row, key in enumerate(entries)}, str.maketrans("ACGT", "TGCA")
    for j, (name, position, reference, alternate) in enumerate(v.key for v in asked.variants):
        r, a = reference.translate(turn), alternate.translate(turn)
        ways = [(alternate, reference), (r, a), (a, r)] if r != alternate else []
        others = [rows[name, position, *way] for way in ways if (name, position, *way) in rows]
        exact = rows.get((name, position, reference, alternate))
        assert whole.rows[j] == (exact if exact is not None else others[0] if len(others) == 1 else -1)
    assert all(whole.counts()[how.name.lower()] > 5 for how in How if how is not How.NO_POSITION)


# --- builds -----------------------------------------------------------------------------------------------------------

BOTH = b"#CHROM\tPOS\tID\tREF\tALT\tPOS_GRCh38\tFREQUENCY\n1\t10\tv0\tA\tG\t110\t0.25\n1\t20\tv1\tA\tG\t.\t.\n"


def test_a_panel_holds_positions_of_both_builds() -> None:
    both = Panel.decode(BOTH, "GRCh37", "p")
    assert both.assemblies == ("GRCh37", "GRCh38")
    assert both.positions("GRCh37").tolist() == [10, 20]
    assert both.positions("GRCh38").tolist() == [110, 0]
    assert both.variants[0] == Variant("1", 10, "v0", "A", "G", 0.25, 110)
    assert Panel.decode(both.encode(), "GRCh37", "p") == both
    assert both[1:].assemblies == both.assemblies
    site = index(("1", 10, "A", "C"), ("1", 20, "A", "G"), ("1", 110, "G", "A"))
    found = match(both, "GRCh38", site, None, None)
    assert [How(h) for h in found.how] == [How.SWAPPED, How.NO_POSITION]
    assert found.rows.tolist() == [2, -1]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (BOTH.replace(b"POS_GRCh38", b"POS_GRCh37"), "POS_GRCh37"),
        (BOTH.replace(b"POS_GRCh38", b"POS_hg38"), "POS_hg38"),
        (BOTH.replace(b"FREQUENCY", b"POS_GRCh38"), "POS_GRCh38 POS_GRCh38"),
        (BOTH.replace(b"\t110", b"\t0"), "line 2: position '0'"),
        (BOTH.replace(b"\t110", b"\tx"), "line 2: position 'x'"),
        (BOTH.replace(b"0.25", b"1.5"), "line 2: frequency '1.5'"),
        (BOTH.replace(b"\t20\t", b"\t-1\t"), "line 3: position '-1'"),
        (BOTH.replace(b"\t20\t", b"\t10\t"), "1:10:A:G stands on lines 2 and 3"),
        (BOTH[:-3] + b"\n", "line 3: 6 columns instead of 7"),
    ],
)  # fmt: skip
def test_a_malformed_panel_has_one_message(text: bytes, found: str) -> None:
    with pytest.raises(UsageError) as error:
        Panel.decode(text, "GRCh37", "p")
    assert found in error.value.found


# --- spellings --------------------------------------------------------------------------------------------------------


def write_fasta(folder: Path, letters: str, width: int = 7, name: str = "chr1") -> Path:
    lines = [letters[a : a + width] for a in range(0, len(letters), width)]
    (folder / "g.fa").write_text(f">{name} made up\n" + "\n".join(lines) + "\n")
    offset = len(f">{name} made up\n")
    (folder / "g.fa.fai").write_text(f"{name}\t{len(letters)}\t{offset}\t{width}\t{width + 1}\n")
    return folder / "g.fa"


def spellings(genome: str, haplotype: str) -> list[tuple[int, str, str]]:
    """Every position, reference and alternate, no allele empty, that turns a genome into a haplotype."""
    out = []
    for start in range(len(genome)):
        for stop in range(start + 1, len(genome) + 1):
            alternate = haplotype[start : len(haplotype) - (len(genome) - stop)]
            if alternate and haplotype == genome[:start] + alternate + genome[stop:]:
                out.append((start + 1, genome[start:stop], alternate))
    return out


def test_every_spelling_of_a_variant_comes_to_the_left_most_and_shortest(tmp_path: Path) -> None:
    rng, compared = random.Random(5), 0
    for _ in range(25):
        genome = "G" + "".join(rng.choice("AC") for _ in range(18)) + "T"
        sequence = Sequence.open(write_fasta(tmp_path, genome, rng.randint(3, 30)))
        start = rng.randint(1, len(genome) - 4)
        new = "".join(rng.choice("AC") for _ in range(rng.randint(0, 3)))
        haplotype = genome[:start] + new + genome[start + rng.randint(0, 3) :]
        if haplotype == genome:
            continue
        ways = [w for w in spellings(genome, haplotype) if w[1] != w[2]]
        shortest = min(len(r) + len(a) for _, r, a in ways)
        best = min(w for w in ways if len(w[1]) + len(w[2]) == shortest)
        for position, reference, alternate in ways:
            assert sequence.aligned("1", position, reference, alternate) == best
            turned = sequence.aligned("1", position, alternate, reference)  # which allele the genome has matters not
            assert turned == (best[0], best[2], best[1])
            compared += 1
    assert compared > 500


def test_a_spelling_that_the_genome_does_not_have_stays(tmp_path: Path) -> None:
    sequence = Sequence.open(write_fasta(tmp_path, "GATTTTACA"))
    assert sequence.letters("1", -5, 100) == "GATTTTACA"
    assert sequence.letters("2", 1, 5) == ""
    assert sequence.aligned("1", 5, "CT", "C") == (5, "CT", "C")
    assert sequence.aligned("2", 5, "TT", "T") == (5, "TT", "T")
    assert sequence.aligned("1", 5, "TT", "T") == (2, "AT", "A")
    assert sequence.aligned("1", 1, "GA", "A") == (1, "GA", "A")  # nothing lies before it


def test_insertions_and_deletions_are_found_however_they_are_spelt(tmp_path: Path) -> None:
    sequence = Sequence.open(write_fasta(tmp_path, "GATTTTACACACAG"))
    site = index(
        ("1", 5, "TT", "T"), ("1", 11, "A", "ACA"), ("1", 3, "TT", "TC"), ("1", 7, "ACA", "A"), ("1", 9, "ACA", "A")
    )
    other = aligned(site, sequence)
    asked = panel(
        ("1", 2, "AT", "A"), ("1", 4, "T", "TT"), ("1", 6, "T", "TAC"), ("1", 4, "T", "C"), ("1", 6, "TAC", "T"),
        ("1", 7, "ACA", "A"), ("1", 9, "G", "C"),
    )  # fmt: skip
    found = match(asked, "GRCh37", site, other, sequence)
    #  a deletion of one T; its insertion, which is not there; two letters more; a letter in a longer word; two ways to
    #  lose AC, which are one, so that neither stands for it; but as written one of them does
    assert [How(h) for h in found.how] == [
        How.AS_WRITTEN, How.ABSENT, How.AS_WRITTEN, How.AS_WRITTEN, How.SEVERAL, How.AS_WRITTEN, How.ABSENT,
    ]  # fmt: skip
    assert found.rows.tolist() == [0, -1, 1, 2, -1, 3, -1]
    plain = match(asked, "GRCh37", site, None, None)
    assert plain.rows.tolist() == [-1, -1, -1, -1, -1, 3, -1]
    backwards = match(
        panel(("1", 4, "T", "TT"), ("1", 11, "ACA", "A")), "GRCh37", index(("1", 2, "AT", "A")), None, sequence
    )
    assert backwards.rows.tolist() == [-1, -1]


def test_long_alleles_are_swapped_only_where_the_genome_has_one_of_the_two(tmp_path: Path) -> None:
    sequence = Sequence.open(write_fasta(tmp_path, "GATTTTACACACAG"))
    for asked, entry, how in (
        (("1", 5, "T", "TT"), ("1", 5, "TT", "T"), How.ABSENT),  # one T more, and one T fewer
        (("1", 1, "G", "GC"), ("1", 1, "GC", "G"), How.SWAPPED),  # nobody can lose a C that is not there
        (("1", 1, "GA", "GC"), ("1", 1, "GC", "GA"), How.SWAPPED),
        (("1", 1, "CC", "GC"), ("1", 1, "GC", "CC"), How.ABSENT),  # neither is there
    ):
        site = index(entry)
        assert match(panel(asked), "GRCh37", site, aligned(site, sequence), sequence).how[0] == how
        assert match(panel(asked), "GRCh37", site, None, None).how[0] == How.ABSENT


@pytest.mark.parametrize(
    ("edit", "found"),
    [
        (lambda f: (f / "g.fa.fai").unlink(), "g.fa.fai: No such file"),
        (lambda f: (f / "g.fa").unlink(), "g.fa: No such file"),
        (lambda f: (f / "g.fa.fai").write_text("1\t9\n"), "g.fa.fai, line 1: '1\\t9'"),
        (lambda f: (f / "g.fa.fai").write_text("1\t9\t5\t0\t1\n"), "g.fa.fai, line 1"),
        (lambda f: (f / "g.fa.fai").write_text(""), "0 chromosomes"),
        (lambda f: (f / "g.fa.fai").write_text("1\t90\t14\t7\t8\n"), "g.fa has"),
    ],
)
def test_a_reference_genome_that_does_not_fit_is_refused(edit, found: str, tmp_path: Path) -> None:
    path = write_fasta(tmp_path, "GATTTTACA")
    edit(tmp_path)
    with pytest.raises(DataError) as error:
        Sequence.open(path)
    assert found in error.value.found


# --- absent -----------------------------------------------------------------------------------------------------------


def test_stretches_are_sets_of_places() -> None:
    rng = np.random.default_rng(4)
    for _ in range(50):
        starts = rng.integers(0, 60, rng.integers(0, 12))
        ends = starts + rng.integers(0, 9, len(starts))
        union = Intervals.of(starts, ends)
        inside = {p for a, b in zip(starts, ends, strict=True) for p in range(a, b + 1)}
        assert (union.starts[1:] > union.ends[:-1] + 1).all()
        places, lengths = rng.integers(0, 70, 200), rng.integers(1, 6, 200)
        words = [set(range(p, p + n)) for p, n in zip(places, lengths, strict=True)]
        assert union.touch(places, lengths).tolist() == [bool(w & inside) for w in words]
        assert union.contain(places, lengths).tolist() == [w <= inside for w in words]


def write_site(folder: Path) -> None:
    people = "".join(f"{p}\t1\n" for p in PEOPLE)
    (folder / "people.tsv").write_text("person\tage\n" + people)
    head = "##fileformat=VCFv4.2\n##contig=<ID=1>\n##contig=<ID=Y>\n"
    head += '##FORMAT=<ID=GT,Number=1,Type=String,Description="g">\n'
    columns = "\t".join(("#CHROM", "POS", "ID", "REF", "ALT", "QUAL", "FILTER", "INFO", "FORMAT", *PEOPLE))
    lines = [
        ("1", 10, "A", "G", "0/1 1/1 0/0 ./. 0/0"),
        ("1", 20, "A", "T", "0/1 1/1 0/0 ./. 0/0"),
        ("1", 30, "ACGT", "A", "0/1 1/1 0/0 ./. 0/0"),
        ("1", 40, "A", "<DEL>", "0/1 1/1 0/0 ./. 0/0"),
        ("1", 50, "C", "G,T", "0/1 1/2 0/0 ./. 0/0"),
    ]
    body = "".join(f"{c}\t{p}\t.\t{r}\t{a}\t.\t.\t.\tGT\t{g}\n" for c, p, r, a, g in lines).replace(" ", "\t")
    (folder / "g.vcf").write_text(head + columns + "\n" + body)
    (folder / "callable.bed").write_text("track name=x\nchr1\t0\t60\nchr1\t99\t110\nchrY\t0\t100\nchrUn_1\t0\t5\n")


ABSENT = Panel(
    "GRCh37",
    (
        Variant("1", 10, "there", "A", "G"),
        Variant("1", 11, "absent", "A", "G"),
        Variant("1", 20, "palindromic, swapped", "T", "A"),
        Variant("1", 31, "under a deletion", "C", "T"),
        Variant("1", 40, "at a symbolic allele", "A", "G"),
        Variant("1", 50, "another alternate", "C", "A"),
        Variant("1", 60, "last place of a region", "C", "A"),
        Variant("1", 61, "beyond it", "C", "A"),
        Variant("1", 100, "first place of a region", "C", "A"),
        Variant("1", 15, "a deletion, absent", "CA", "C"),
        Variant("Y", 15, "on Y", "C", "T"),
    ),
)
REFERENCE = DatasetConfig("S", "GRCh37", "people.tsv", "g.vcf", absent_means=Absent.REFERENCE, callable="callable.bed")


def open_site(folder: Path, **change: Any) -> Dataset:
    return Dataset.open(replace(REFERENCE, **change), folder)


def test_absent_means_what_the_operator_says(tmp_path: Path) -> None:
    write_site(tmp_path)
    want = np.full((11, 5), 3)
    want[0] = [1, 2, 0, 3, 0]
    unknown = open_site(tmp_path, absent_means=Absent.UNKNOWN, callable="")
    needs = Needs(panel="p", dosages=True)
    cohort = unknown.cohort(needs, Frame(ABSENT))
    np.testing.assert_array_equal(cohort.genotypes.codes(), want)
    np.testing.assert_array_equal(cohort.dosages, np.where(want == 3, NO_DOSAGE, want * COPY))
    reference = open_site(tmp_path)
    for row in (1, 6, 8):
        want[row] = 0
    cohort = reference.cohort(needs, Frame(ABSENT))
    np.testing.assert_array_equal(cohort.genotypes.codes(), want)
    np.testing.assert_array_equal(cohort.dosages, np.where(want == 3, NO_DOSAGE, want * COPY))
    few = reference.cohort(needs, Frame(ABSENT)).take(np.array([4, 1]))
    np.testing.assert_array_equal(few.genotypes.codes(), want[:, [4, 1]])
    np.testing.assert_array_equal(few.dosages, cohort.dosages[:, [4, 1]])


def test_the_genome_says_which_allele_is_the_reference(tmp_path: Path) -> None:
    write_site(tmp_path)
    letters = list("N" * 120)
    letters[10], letters[59], letters[99], letters[14:16] = "G", "C", "T", "CA"
    write_fasta(tmp_path, "".join(letters))
    codes = open_site(tmp_path, reference="g.fa").cohort(Needs(panel="p"), Frame(ABSENT)).genotypes.codes()
    assert codes[[1, 6, 8, 9]].tolist() == [[2] * 5, [0] * 5, [3] * 5, [0] * 5]


def test_in_another_build_only_a_genome_knows_the_reference(tmp_path: Path) -> None:
    write_site(tmp_path)
    asked = Panel("GRCh38", (Variant("1", 1011, "absent", "A", "G", None, 11),), lifts=True)
    assert open_site(tmp_path).cohort(Needs(panel="p"), Frame(asked)).genotypes.codes().tolist() == [[3] * 5]
    write_fasta(tmp_path, "A" * 120)
    codes = open_site(tmp_path, reference="g.fa").cohort(Needs(panel="p"), Frame(asked)).genotypes.codes()
    assert codes.tolist() == [[0] * 5]


@pytest.mark.parametrize(
    ("line", "found"),
    [("1\t5\n", "line 1: '1\\t5'"), ("1\t5\t5\n", "line 1"), ("1\t-1\t5\n", "line 1"),
     ("HLA\t1\t5\n", "none"), ("", "none")],
)  # fmt: skip
def test_malformed_regions_have_one_message(line: str, found: str, tmp_path: Path) -> None:
    (tmp_path / "c.bed").write_text(line)
    with pytest.raises(DataError) as error:
        Intervals.read(tmp_path / "c.bed")
    assert found in error.value.found


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"absent_means": "reference"}, "callable must name the regions"),
        ({"callable": "c.bed"}, "callable must name the regions"),
        ({"absent_means": "zero"}, "must be one of unknown, reference"),
        ({"genotypes": "", "reference": "g.fa"}, "callable, reference and link belong to genotypes"),
    ],
)
def test_what_absent_means_is_decoded_strictly(change: dict[str, str], message: str) -> None:
    raw = {"identifier": "S", "assembly": "GRCh37", "people": "people.tsv", "genotypes": "g.vcf"}
    with pytest.raises(UsageError, match=message):
        decode(DatasetConfig, raw | change, "the [dataset] table")


def test_the_digest_covers_every_file_and_a_change_is_seen(tmp_path: Path) -> None:
    write_site(tmp_path)
    write_fasta(tmp_path, "A" * 120)
    site = open_site(tmp_path, reference="g.fa")
    digests = {
        site.digest,
        open_site(tmp_path).digest,
        open_site(tmp_path, absent_means=Absent.UNKNOWN, callable="").digest,
    }
    assert len(digests) == 3
    for name in ("callable.bed", "g.fa", "g.fa.fai"):
        path = tmp_path / name
        raw = path.read_bytes()
        path.write_bytes(
            raw.replace(b"60", b"59") if name == "callable.bed" else raw + b"\n" if name == "g.fa" else raw * 2
        )
        with pytest.raises(DataError, match=f"{name} changed since"):
            site.cohort(Needs(panel="p"), Frame(ABSENT))
        digests.add(open_site(tmp_path, reference="g.fa").digest)
        path.write_bytes(raw)
        site = open_site(tmp_path, reference="g.fa")
    assert len(digests) == 6
