"""Files read by columns give what the same files give line by line: every value, and every error."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fl_client.readers import numbers, packed, plink
from fl_client.readers.held import Held
from fl_client.readers.index import Entries
from fl_client.readers.packed import Packed, unpacked
from fl_client.readers.tables import Table
from strategies.errors import DataError

columns = plink.columns
once = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])

# Cells, what stands between them, and all that makes a file less than plain.
TEXTS = st.lists(
    st.sampled_from(["a", "1", "-9", "\t", "\t", " ", "\n", "\n", "\r\n", '"', "\x0b", "\x1c", "\u2003", "é", ","]),
    max_size=30,
).map("".join)
PLAIN = st.lists(st.lists(st.sampled_from(["a", "1", "x1"]), min_size=1, max_size=2), min_size=1, max_size=4).map(
    lambda rows: "".join("\t".join(row) + "\n" for row in rows)
)


@once
@given(TEXTS | PLAIN)
def test_words_are_those_of_each_line(tmp_path: Path, text: str) -> None:
    path = tmp_path / "file"
    path.write_bytes(text.encode())
    with path.open(encoding="utf-8") as file:  # as the format's own tools read it: line by line
        want = [line.split() for line in file]
    read = columns(path)
    assert read is None or [list(row) for row in zip(*read, strict=True)] == want
    plain = text.isascii() and not set(text) & set('\r"\x0b\x1c')
    assert (read is not None) == (plain and bool(want) and {len(row) for row in want} == {len(want[0])} - {0})


@once
@given(TEXTS | PLAIN, st.sampled_from(["\t", ","]))
def test_cells_are_those_of_a_csv_reader(tmp_path: Path, text: str, separator: str) -> None:
    path = tmp_path / "file"
    path.write_bytes(text.encode())
    read = columns(path, separator)
    if read is not None:
        with path.open(encoding="utf-8", newline="") as file:
            want = list(csv.reader(file, delimiter=separator, strict=True))
        assert [list(row) for row in zip(*read, strict=True)] == want
    elif text.isascii() and not set(text) & set('\r"\x0b\x1c') and text.strip("\n"):
        counts = {0 if not line else line.count(separator) + 1 for line in text.removesuffix("\n").split("\n")}
        assert len(counts) > 1


def test_a_line_that_is_too_long_is_left_to_the_reader_that_says_so(tmp_path: Path) -> None:
    path = tmp_path / "people.tsv"
    path.write_text(f"person\tx\na\t{'1' * 200_000}\n")
    assert columns(path, "\t") is None
    with pytest.raises(DataError, match="field larger than field limit"):
        Table.open(path)


CELLS = ["1", "2.5", "-9", "1e3", "1e999", "NA", "", ".", "?", "NaN", "nan", "inf", "1_0", "٣", "x", "0x1", "+4", "1."]


@once
@given(st.lists(st.sampled_from(CELLS), max_size=12))
def test_numbers_are_those_of_each_cell(cells: list[str]) -> None:
    each = [numbers.number(cell) for cell in cells]
    values, first = numbers.numbers(cells)
    np.testing.assert_array_equal(values, [np.nan if value is None else value for value in each])
    assert first == next((i for i, value in enumerate(each) if value is None), None)


VARIANTS = st.lists(
    st.tuples(
        st.sampled_from(["1", "chr1", "22", "X", "25", "HLA-A", "0"]),
        st.sampled_from(["1", "2", "3", "0", "-1", "007", "2147483647", "2147483648", "99999999999", "1e2", "٣"]),
        st.sampled_from(["A", "C", "a", "AT", "<DEL>", "N"]),
        st.sampled_from(["A", "G", "T", "at", "*", "."]),
    )
    | st.tuples(st.just("1"), st.integers(1, 50).map(str), st.sampled_from("AC"), st.sampled_from(["G", "T", "GT"])),
    min_size=1,
    max_size=8,
)


@once
@given(VARIANTS)
def test_variants_are_those_of_each_line(listed: list[tuple[str, str, str, str]]) -> None:
    def outcome(together: bool) -> object:
        entries = Entries("g.bim, line")
        try:
            if together:
                entries.enter_all(*zip(*listed, strict=True))
            else:
                for row, line in enumerate(listed):
                    entries.enter(row, row + 1, *line)
            index = entries.index()
        except DataError as error:
            return str(error)
        touched = list(zip(index.touched.starts.tolist(), index.touched.ends.tolist(), strict=True))
        return sorted(zip(index, index.rows.tolist(), strict=True)), touched

    assert outcome(together=True) == outcome(together=False)


def test_a_bed_of_many_pieces_is_read_by_all_readers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    people, variants = 41, 700
    rng = np.random.default_rng(5)
    codes = rng.integers(0, 4, (variants, 44), dtype=np.uint8)
    codes[:, people:] = 0
    quads = codes.reshape(variants, -1, 4) << np.array([0, 2, 4, 6], dtype=np.uint8)
    (tmp_path / "g.bed").write_bytes(b"\x6c\x1b\x01" + quads.sum(axis=2).astype(np.uint8).tobytes())
    monkeypatch.setattr(packed, "_BYTES_AT_A_TIME", 100)
    cells = Packed(Held.open(tmp_path / "g.bed"), 3, people, bed=True)
    rows = rng.permutation(variants)
    want = np.array([2, 3, 1, 0])[codes[rows, :people]]
    np.testing.assert_array_equal(unpacked(cells, rows), want)
    (tmp_path / "cut.bed").write_bytes((tmp_path / "g.bed").read_bytes()[:-50])
    with pytest.raises(DataError, match="stay as they are"):  # whichever reader meets the end
        unpacked(Packed(Held.open(tmp_path / "cut.bed"), 3, people, bed=True), rows)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is there and readable"):
        columns(tmp_path / "nothing")
