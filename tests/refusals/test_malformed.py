"""Files of people that are not as they should be: the right value, or one clear error that says nothing of what stands
in a cell; never another exception, and never a wrong number."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
import warnings
import zipfile
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest

from fl_client.readers import Dataset, DatasetConfig
from fl_client.readers.events import NEVER
from fl_client.readers.variables import Variable
from fl_client.selection import results
from simulations.omop import Cdm
from strategies.analysis import Frame, Needs, Range
from strategies.codec import read_toml
from strategies.errors import DataError, UsageError
from strategies.events import Code, Domain

SECRET = "5EC2ET"
"""What stands in a cell, and in no error."""


def opened(folder: Path, **source: Any) -> Dataset:
    return Dataset.open(DatasetConfig("T", "GRCh38", **source), folder)


def says(error: pytest.ExceptionInfo[DataError], found: str, secret: str = SECRET) -> None:
    assert found in error.value.found, error.value.found
    assert secret not in str(error.value)
    assert error.value.rule
    assert error.value.remedy
    assert error.value.__cause__ is None or error.value.__suppress_context__


def column(data: Dataset, name: str = "x") -> list[float]:
    return data.cohort(Needs((name,)), Frame(None, {name: Range(-1e9, 1e9)})).columns[name].tolist()


# --- people tables: texts ---------------------------------------------------------------------------------------------

RIGHT = {
    "a byte order mark": ("people.csv", b"\xef\xbb\xbfperson,x\na,1\nb,2\n"),
    "lines of Windows": ("people.tsv", b"person\tx\r\na\t1\r\nb\t2\r\n"),
    "both": ("people.csv", b"\xef\xbb\xbfperson,x\r\na,1\r\nb,2\r\n"),
    "no end of the last line": ("people.csv", b"person,x\na,1\nb,2"),
    "quotes": ("people.csv", b'"person","x"\n"a","1"\n"b","2"\n'),
    "a line's end within quotes": ("people.csv", b'person,x,note\na,1,"smokes\ndrinks"\nb,2,no\n'),
    "a comma within quotes": ("people.csv", b'person,x,note\na,1,"smokes, drinks"\nb,2,no\n'),
    "a NUL in a text": ("people.tsv", b"person\tx\tnote\na\t1\tno\0thing\nb\t2\tno\n"),
    "a long text": ("people.csv", b"person,x,note\na,1," + b"n" * 100_000 + b"\nb,2,no\n"),
    "spaces": ("people.csv", b"person , x\na , 1\nb ,\t2 \n"),
    "exponents and signs": ("people.csv", b"person,x\na,+1e0\nb,20E-1\n"),
    "another script": ("people.csv", "person,x,Größe\na,1,ü\nb,2,Ж\n".encode()),
}


@pytest.mark.parametrize("name", RIGHT)
def test_a_text_that_says_what_it_means_is_read(name: str, tmp_path: Path) -> None:
    file, content = RIGHT[name]
    (tmp_path / file).write_bytes(content)
    data = opened(tmp_path, people=file)
    assert data.people == ("a", "b")
    assert column(data) == [1, 2]
    if "note" in data.headings:
        with pytest.raises(DataError) as error:
            column(data, "note")
        says(error, "person 1 has neither", "smokes")


def test_a_line_s_end_within_a_number_is_no_digit_less(tmp_path: Path) -> None:
    (tmp_path / "people.csv").write_bytes(b'person,x\na,"1\n2"\nb,3\n')
    with pytest.raises(DataError) as error:
        column(opened(tmp_path, people="people.csv"))
    says(error, "person 1 has neither", "2")


@pytest.mark.parametrize(
    ("file", "content", "found"),
    [
        ("people.csv", b"", "people.csv is empty"),
        ("people.csv", b"\n\n", "people.csv"),
        ("people.csv", b"\xef\xbb\xbf", "people.csv is empty"),
        ("people.csv", b"person,x,x\na,5EC2ET,2\n", "'x' is empty or stands there twice"),
        ("people.csv", b"person,x,\na,5EC2ET,2\n", "'' is empty or stands there twice"),
        ("people.csv", b"person,x\na,5EC2ET,2\n", "line 2: 3 instead of 2"),
        ("people.csv", b"person,x\na,5EC2ET\n\n", "line 3: 0 instead of 2"),
        ("people.csv", b"person;x\na;5EC2ET\n", "'person;x'"),
        ("people.csv", b'person,x\na,"5EC2ET\n', "line"),
        ("people.csv", b'person,x\na,"5EC2ET"3\n', "line 2"),
        ("people.csv", b"person,x\na," + b"5EC2ET" * 50_000 + b"\n", "field larger than field limit"),
        ("people.tsv", "person\tx\na\t5EC2ETé\n".encode("latin-1"), "at byte"),
        ("people.tsv", "person\tx\na\t5EC2ET\n".encode("utf-16"), "at byte 0"),
        ("people.csv", b"person,x\n,5EC2ET\n", "person 1 has none"),
    ],
)
def test_a_text_that_is_no_table_is_refused(file: str, content: bytes, found: str, tmp_path: Path) -> None:
    (tmp_path / file).write_bytes(content)
    with pytest.raises(DataError) as error:
        opened(tmp_path, people=file)
    says(error, found)


@pytest.mark.parametrize(
    "cell",
    ["1.234.567", "1'234", "1 234", "1e", "0x1A", "٣", "5EC2ET", "2020-01-31", "31.01.2020", "--5", "12%"],
)
@pytest.mark.parametrize("declared", [False, True])
def test_what_may_mean_another_number_is_none(cell: str, declared: bool, tmp_path: Path) -> None:
    (tmp_path / "people.tsv").write_text(f"person\tx\na\t7\nb\t{cell}\n", encoding="utf-8")
    data = opened(tmp_path, people="people.tsv", variables={"x": Variable(range=(0, 100))} if declared else {})
    with pytest.raises(DataError) as error:
        column(data)
    says(error, "people.tsv, column 'x': person 2 has neither", cell)


def test_a_decimal_comma_is_another_cell_or_no_number(tmp_path: Path) -> None:
    (tmp_path / "people.csv").write_text("person,x\na,1,5\n")
    with pytest.raises(DataError) as error:
        opened(tmp_path, people="people.csv")
    says(error, "line 2: 3 instead of 2", "1,5")
    (tmp_path / "people.csv").write_text('person,x\na,"1,5"\n')
    with pytest.raises(DataError) as error:
        column(opened(tmp_path, people="people.csv"))
    says(error, "person 1 has neither", "1,5")


# --- people tables: Parquet and DuckDB --------------------------------------------------------------------------------

COLUMNS = {
    "person": pa.array([7, 8]),
    "nested": pa.array([[1, 2], [3]]),
    "structure": pa.array([{"a": SECRET}, {"a": "b"}]),
    "level": pa.array(["low", "high"]).dictionary_encode(),
    "whole": pa.array([5, None], pa.int32()),
    "unsigned": pa.array([2**40, None], pa.uint64()),
    "money": pa.array([Decimal("1.25"), None]),
    "real": pa.array([1.5, np.nan], from_pandas=False),
    "null": pa.array([1.5, None]),
    "endless": pa.array([1.5, np.inf]),
    "yes": pa.array([True, False]),
    "time": pa.array([0, 10**15], pa.timestamp("us", tz="America/New_York")),
    "day": pa.array([0, 1], pa.date32()),
    "nothing": pa.nulls(2),
}
NUMBERS = {
    "whole": [5, np.nan], "unsigned": [2**40, np.nan], "money": [1.25, np.nan], "real": [1.5, np.nan],
    "null": [1.5, np.nan], "endless": [1.5, np.nan], "yes": [1, 0], "nothing": [np.nan, np.nan],
}  # fmt: skip


@pytest.mark.parametrize("kind", ["parquet", "duckdb"])
def test_columns_of_every_type(kind: str, tmp_path: Path) -> None:
    import duckdb  # noqa: PLC0415

    table = pa.table(COLUMNS)
    if kind == "parquet":
        pyarrow.parquet.write_table(table, tmp_path / "people.parquet")
    else:
        with duckdb.connect(str(tmp_path / "people.duckdb")) as connection:
            connection.from_arrow(table).create("stored")
            connection.execute("CREATE VIEW people AS SELECT *, INTERVAL 3 DAY AS lapse, uuid() AS number FROM stored")
    where = {"people": f"people.{kind}"} | ({"table": "people"} if kind == "duckdb" else {})
    data = opened(tmp_path, **where, variables={"level": Variable(categories=("low", "high"))})
    assert data.people == ("7", "8")
    for name, want in NUMBERS.items():
        got = data.cohort(Needs((name,)), Frame(None, {name: Range(0, 2.0**41)})).columns[name]
        np.testing.assert_array_equal(got, want, err_msg=name)
    level = data.cohort(Needs(("level",)), Frame(None, {"level": Range.of("high", "low")})).columns["level"]
    np.testing.assert_array_equal(level, [1, 0])
    for name in ("nested", "structure", "time", "day", *(("lapse", "number") if kind == "duckdb" else ())):
        with pytest.raises(DataError) as error:
            column(data, name)
        says(error, "person 1 has neither")


def test_names_are_names_whatever_they_say(tmp_path: Path) -> None:
    import duckdb  # noqa: PLC0415

    name, cell = 'x"; DROP TABLE people; --', "'; DROP TABLE people; --"
    with duckdb.connect(str(tmp_path / "people.duckdb")) as connection:
        connection.from_arrow(pa.table({"person": ["a", "b"], name: ["no", cell]})).create("people")
    variable = Variable(column=name, categories=("no", cell))
    data = opened(tmp_path, people="people.duckdb", table="people", variables={"x": variable})
    got = data.cohort(Needs(("x",)), Frame(None, {"x": Range.of(cell, "no")})).columns["x"]
    assert got.tolist() == [1, 0]
    with pytest.raises(DataError) as error:
        opened(tmp_path, people="people.duckdb", table=name)
    says(error, "does not exist")


def _newer(path: Path) -> None:
    raw = bytearray(path.read_bytes())
    assert raw[8:12] == b"DUCK"
    raw[12:20] = struct.pack("<Q", 9999)
    path.write_bytes(raw)


@pytest.mark.parametrize(
    "spoil", [_newer, lambda p: p.write_bytes(b""), lambda p: p.write_bytes(p.read_bytes()[:9000])]
)
def test_a_database_that_this_program_cannot_read(spoil: Callable[[Path], object], tmp_path: Path) -> None:
    import duckdb  # noqa: PLC0415

    path = tmp_path / "people.duckdb"
    with duckdb.connect(str(path)) as connection:
        connection.execute(f"CREATE TABLE people AS SELECT '{SECRET}' AS person, range AS x FROM range(9999)")
    spoil(path)
    for where in ({"people": "people.duckdb", "table": "people"}, {"omop": "people.duckdb"}):
        with pytest.raises(DataError) as error:
            opened(tmp_path, **where)
        says(error, "people.duckdb")


WRITER = """
import duckdb, sys
connection = duckdb.connect(sys.argv[1])
connection.execute("PRAGMA disable_checkpoint_on_shutdown")
connection.execute("CREATE TABLE IF NOT EXISTS people AS SELECT 'a' AS person, 1 AS x")
print("ready", flush=True)
sys.stdin.readline()
connection.execute("INSERT INTO people VALUES ('b', 2)")
connection.close()
"""


def test_a_database_that_is_written_to_is_opened_when_that_has_ended(tmp_path: Path) -> None:
    import duckdb  # noqa: PLC0415

    path, where = tmp_path / "people.duckdb", {"people": "people.duckdb", "table": "people"}
    with duckdb.connect(str(path)) as connection:
        connection.execute("CREATE TABLE people AS SELECT 'a' AS person, 1 AS x")
    before = opened(tmp_path, **where)
    assert before.people == ("a",)
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as writer:
        assert writer.stdout is not None
        assert writer.stdin is not None
        assert writer.stdout.readline() == "ready\n"
        with pytest.raises(DataError) as error:
            opened(tmp_path, **where)
        says(error, "lock")
        writer.communicate("\n")
    assert writer.returncode == 0
    # What was written stands in the log beside the file, and in no byte of the file itself.
    assert (tmp_path / "people.duckdb.wal").exists()
    after = opened(tmp_path, **where)
    assert after.people == ("a", "b")
    assert after.digest != before.digest


# --- OMOP -------------------------------------------------------------------------------------------------------------

CONDITION = (Domain.CONDITION, (Code("OMOP", "201820", descendants=True),))
HBA1C = (Domain.MEASUREMENT, (Code("LOINC", "4548-4"),))


def changed(cdm: Cdm, table: str, **columns: Any) -> Cdm:
    """Some columns of a table as something else."""
    own = cdm.tables[table]
    for name, made in columns.items():
        values = made(own[name].to_pylist()) if callable(made) else made
        at = own.column_names.index(name)
        own = own.set_column(at, name, values if isinstance(values, pa.Array) else pa.array(values))
    return Cdm({**cdm.tables, table: own})


def write_csv(cdm: Cdm, folder: Path) -> dict[str, Any]:
    cdm.write_csv(folder)
    return {"omop": "."}


def write_parquet(cdm: Cdm, folder: Path) -> dict[str, Any]:
    cdm.write_parquet(folder)
    return {"omop": "."}


def write_duckdb(cdm: Cdm, folder: Path) -> dict[str, Any]:
    cdm.write_duckdb(folder / "cdm.duckdb")
    return {"omop": "cdm.duckdb"}


WRITERS = [write_csv, write_parquet, write_duckdb]


READ = ("person", "observation_period", "death", "condition_occurrence", "measurement", "concept", "concept_ancestor")


@pytest.fixture(scope="module")
def cdm() -> Cdm:
    whole = Cdm.of(60, seed=2).tables
    return Cdm({name: table for name, table in whole.items() if name in READ})


def read(data: Dataset, *asked: tuple[Domain, tuple[Code, ...]]) -> None:
    assert data.clinical is not None
    for domain, codes in asked:
        data.clinical.events(domain, codes)


def first(other: Any) -> Callable[[list[Any]], list[Any]]:
    return lambda values: [other, *map(type(other), values[1:])]


SPOILT: dict[str, tuple[str, dict[str, Any], str]] = {
    "people's identifiers are texts": ("person", {"person_id": first(SECRET)}, "person_id"),
    "an identifier is no whole number": ("person", {"person_id": first(12.6)}, "person_id"),
    "a concept is a text": ("person", {"gender_concept_id": first(SECRET)}, "gender_concept_id"),
    "a year is a fraction": ("person", {"year_of_birth": first(1950.5)}, "year_of_birth"),
    "a day is written otherwise": (
        "condition_occurrence", {"condition_start_date": lambda v: [f"{d:%d.%m.%Y}" for d in v]},
        "condition_start_date",
    ),
    "a day is American": (
        "death", {"death_date": lambda v: [f"{d:%m/%d/%Y}" for d in v]}, "death_date",
    ),
    "a result is a text": ("measurement", {"value_as_number": first(SECRET)}, "value_as_number"),
    "a result has a comma": ("measurement", {"value_as_number": first("4,5")}, "value_as_number"),
}  # fmt: skip


@pytest.mark.parametrize("name", SPOILT)
@pytest.mark.parametrize("write", WRITERS)
def test_a_column_of_another_type_is_refused(name: str, write: Callable[..., Any], cdm: Cdm, tmp_path: Path) -> None:
    table, columns, found = SPOILT[name]
    where = write(changed(cdm, table, **columns), tmp_path)
    with pytest.raises(DataError) as error:
        read(opened(tmp_path, **where), CONDITION, HBA1C)
    assert error.value.rule == "The columns of a CDM are of the types that CDM 5.4 gives them."
    says(error, "a cell of")
    assert found in error.value.found or write is write_duckdb
    for text in ("12.6", "1950.5", "4,5", "20"):
        assert text not in error.value.found


HARMLESS: dict[str, tuple[Callable[..., Any], str, dict[str, Any]]] = {
    "whole numbers with a point": (write_csv, "person", {"gender_concept_id": lambda v: list(map(float, v))}),
    "identifiers with a point": (write_duckdb, "person", {"person_id": lambda v: list(map(float, v))}),
    "decimals": (write_parquet, "person", {"year_of_birth": lambda v: list(map(Decimal, v))}),
    "days as timestamps": (
        write_parquet, "condition_occurrence", {"condition_start_date": lambda v: pa.array(v).cast(pa.timestamp("us"))}
    ),
    "days as timestamps with a zone": (
        write_duckdb, "condition_occurrence",
        {"condition_start_date": lambda v: pa.array(v).cast(pa.timestamp("us")).cast(pa.timestamp("us", tz="UTC"))},
    ),
    "a dictionary": (write_parquet, "measurement", {"unit_source_value": lambda v: pa.array(v).dictionary_encode()}),
}  # fmt: skip


@pytest.mark.parametrize("name", HARMLESS)
def test_a_column_of_another_type_that_says_the_same_is_read(name: str, cdm: Cdm, tmp_path: Path) -> None:
    write, table, columns = HARMLESS[name]
    for folder in ("plain", "other"):
        (tmp_path / folder).mkdir()
    one = opened(tmp_path / "plain", **write(cdm, tmp_path / "plain"))
    other = opened(tmp_path / "other", **write(changed(cdm, table, **columns), tmp_path / "other"))
    assert one.people == other.people
    assert one.clinical is not None
    assert other.clinical is not None
    for column_name in one.table.parsed:
        np.testing.assert_array_equal(one.table.parsed[column_name], other.table.parsed[column_name])
    for asked in (CONDITION, HBA1C):
        got, want = other.clinical.events(*asked), one.clinical.events(*asked)
        assert len(want)
        np.testing.assert_array_equal(got.day, want.day)
        np.testing.assert_array_equal(got.person, want.person)
        np.testing.assert_array_equal(got.value, want.value)
        assert got.ucum == want.ucum


def test_what_a_cdm_does_not_know_is_missing(cdm: Cdm, tmp_path: Path) -> None:
    people = len(cdm.tables["person"])
    months = pa.array([np.nan] * people, from_pandas=False)
    where = write_parquet(
        changed(
            cdm, "person", gender_concept_id=[0] * people, month_of_birth=months, year_of_birth=[None, 0, 1950] * 20
        ),
        tmp_path,
    )
    (tmp_path / "death.parquet").unlink()
    (tmp_path / "observation_period.parquet").unlink()
    data = opened(tmp_path, **where)
    assert np.isnan(data.table.parsed["sex"]).all()
    assert data.table.parsed["died"].sum() == 0
    assert data.clinical is not None
    middle = np.datetime64("1950-07-01").astype(int)
    assert data.clinical.born.tolist() == [NEVER, NEVER, middle] * 20
    assert (data.clinical.followed == NEVER).all()
    assert not data.clinical.periods.hold(np.zeros(people, int), np.zeros(people, int)).any()
    with pytest.raises(DataError) as error:
        data.clinical.events(Domain.VISIT, ())
    says(error, "no table visit_occurrence")
    with pytest.raises(DataError) as error:
        data.clinical.events(Domain.CONDITION, (Code("OMOP", "0"),))
    says(error, "OMOP:0")


def test_days_in_an_impossible_order_are_days(cdm: Cdm, tmp_path: Path) -> None:
    """Events before birth, and deaths before all else: an age is negative, and clamped."""
    where = write_parquet(changed(cdm, "person", year_of_birth=[2999] * len(cdm.tables["person"])), tmp_path)
    data = opened(tmp_path, **where)
    assert (data.table.parsed["age_at_start"] < -900).all()
    frame = Frame(None, {"age_at_start": Range(0, 130, "a")})
    assert set(data.cohort(Needs(("age_at_start",)), frame).columns["age_at_start"]) == {0.0}


@pytest.mark.parametrize(
    ("table", "lost", "asked"),
    [
        ("measurement", "value_as_number", HBA1C), ("condition_occurrence", "condition_start_date", CONDITION),
        ("death", "death_date", None), ("observation_period", "observation_period_end_date", None),
        ("person", "year_of_birth", None),
    ],
)  # fmt: skip
def test_a_column_that_is_not_there_is_named(table: str, lost: str, asked: Any, cdm: Cdm, tmp_path: Path) -> None:
    where = write_parquet(Cdm({**cdm.tables, table: cdm.tables[table].drop_columns([lost])}), tmp_path)
    with pytest.raises(DataError) as error:
        read(opened(tmp_path, **where), *([asked] if asked else []))
    assert error.value.rule == f"An OMOP CDM 5.4 has a table `{table}`."
    says(error, f"no column {lost} in it")


def test_a_day_of_no_calendar_is_none(cdm: Cdm, tmp_path: Path) -> None:
    import duckdb  # noqa: PLC0415

    where = write_duckdb(cdm, tmp_path)
    with duckdb.connect(str(tmp_path / "cdm.duckdb")) as connection:
        connection.execute("UPDATE observation_period SET observation_period_end_date = 'infinity'")
    with pytest.raises(DataError) as error:
        opened(tmp_path, **where)
    says(error, "a cell of a date", "infinity")


def _encrypted(archive: Path) -> None:
    raw = archive.read_bytes()
    for start, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        at = raw.find(start)
        while at >= 0:
            raw = raw[: at + flags] + bytes([raw[at + flags] | 1]) + raw[at + flags + 1 :]
            at = raw.find(start, at + 1)
    archive.write_bytes(raw)


def _bytes_changed(archive: Path) -> None:
    raw = bytearray(archive.read_bytes())
    raw[200:900] = bytes(700)
    archive.write_bytes(raw)


def _two_of_a_table(archive: Path) -> None:
    with zipfile.ZipFile(archive, "a") as more:
        more.writestr("old/Person.csv", "person_id\n1\n")


@pytest.mark.parametrize(
    ("spoil", "found"),
    [
        (_encrypted, "password"),
        (_bytes_changed, "cdm.zip"),
        (_two_of_a_table, "are of the same table"),
        (lambda p: p.write_bytes(p.read_bytes()[:-50]), "cdm.zip"),
        (lambda p: p.write_bytes(b""), "cdm.zip"),
    ],
)
def test_an_archive_that_is_none(spoil: Callable[[Path], object], found: str, cdm: Cdm, tmp_path: Path) -> None:
    (tmp_path / "files").mkdir()
    cdm.write_csv(tmp_path / "files")
    with zipfile.ZipFile(tmp_path / "cdm.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted((tmp_path / "files").iterdir()):
            archive.write(file, file.name)
    assert len(opened(tmp_path, omop="cdm.zip").people) == 60
    spoil(tmp_path / "cdm.zip")
    with pytest.raises(DataError) as error:
        opened(tmp_path, omop="cdm.zip")
    says(error, found)


PERSON = "person_id,gender_concept_id,year_of_birth,month_of_birth,day_of_birth"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (b"", "PERSON.csv"),
        (f"{PERSON}\n1,8507,1950,1,5EC2ET,9\n".encode(), "got 6"),
        (f"{PERSON}\n1,8507,5EC2ET\n".encode(), "got 3"),
        (f"{PERSON},PERSON_ID\n1,8507,1950,1,1,2\n".encode(), "a column stands there twice"),
        (f"{PERSON},person_id\n1,8507,1950,1,1,2\n".encode(), "a column stands there twice"),
        (f"{PERSON}\n1,8507,1950,1,\xff\n".encode("latin-1"), "column #4"),
        (f"{PERSON}\n1,8507,1950,1,{'9' * 400}\n".encode(), "day_of_birth"),
        (f"{PERSON}\n1,8507,1950,1,{'5EC2ET' * 300_000}\n".encode(), "PERSON.csv"),
        (b"person_id;gender_concept_id\n1;8507\n", "no column"),
        (f"{PERSON}\n1,8507,1950,1,1\n1,8507,1950,1,1\n".encode(), "1 more than once"),
        (f"{PERSON}\n,8507,1950,1,1\n".encode(), "without person_id"),
    ],
)
def test_an_export_that_is_none(text: bytes, found: str, tmp_path: Path) -> None:
    (tmp_path / "PERSON.csv").write_bytes(text)
    with pytest.raises(DataError) as error:
        opened(tmp_path, omop=".")
    assert found in error.value.found or (found == "PERSON.csv" and "a cell of" in error.value.found)
    says(error, "")


@pytest.mark.parametrize(
    "text",
    [
        f"\ufeff{PERSON}\n1,8507,1950,1,1\n2,8532,1951,2,3\n",
        f"{PERSON}\n1,8507,1950,1,1\n2,8532,1951,2,3\n".replace("\n", "\r\n"),
        f"{PERSON.upper()},note\n1,8507,1950.0,1,1,\"a\n,b\"\n2,8532,1951,2,3,c\n",
        f"{PERSON}\n1,8507,1950,1,1\n2,8532,1951,2,3\n".replace(",", "\t"),
    ],
)  # fmt: skip
def test_an_export_as_other_programs_write_it(text: str, tmp_path: Path) -> None:
    (tmp_path / "PERSON.csv").write_bytes(text.encode())
    data = opened(tmp_path, omop=".")
    assert data.people == ("1", "2")
    assert data.table.parsed["sex"].tolist() == [1, 0]
    assert data.clinical is not None
    born = [np.datetime64(day).astype(int) for day in ("1950-01-01", "1951-02-03")]
    assert data.clinical.born.tolist() == born


def test_a_day_does_not_depend_on_where_it_is_read(cdm: Cdm, tmp_path: Path) -> None:
    for write in WRITERS:
        folder = tmp_path / write.__name__
        folder.mkdir()
        store = opened(folder, **write(cdm, folder)).clinical.store  # type: ignore[union-attr]
        assert store._connection.execute("SELECT current_setting('TimeZone')").fetchone() == ("UTC",)


# --- Phenopackets -----------------------------------------------------------------------------------------------------

FAR = "1" + "0" * 400
PACKET = {"id": "x", "subject": {"id": SECRET, "vitalStatus": {"status": "DECEASED", "survivalTimeInDays": 1}}}
RESULT = {"assay": {"id": "LOINC:4548-4"}, "value": {"quantity": {"value": 1, "unit": {"id": "UCUM:%"}}}}


def packet(folder: Path, old: str, new: str) -> Path:
    """A folder of one person's Phenopacket with one result, a part of its text replaced."""
    text = json.dumps(PACKET | {"measurements": [RESULT]})
    assert old in text
    folder.mkdir(exist_ok=True)
    (folder / "a.json").write_text(text.replace(old, new, 1))
    return folder


@pytest.mark.parametrize("number", [FAR, f"-{FAR}", f"{FAR}.5", "1e400", "-1e400", "9" * 5000, "Infinity", "NaN"])
@pytest.mark.parametrize("place", ['"value": 1', '"survivalTimeInDays": 1', '"id": "x"'])
def test_a_number_that_is_none_is_said_wherever_it_stands(place: str, number: str, tmp_path: Path) -> None:
    packet(tmp_path / "packets", place, f"{place.rpartition(' ')[0]} {number}")
    with pytest.raises(DataError) as error:
        opened(tmp_path, phenopackets="packets")
    says(error, "a.json: no JSON object: not a finite number")
    assert number[:20] not in str(error.value) or number in ("Infinity", "NaN")


@pytest.mark.parametrize("number", ["1e308", "-1e308", "8" * 308])
def test_a_number_that_float64_has_is_one(number: str, tmp_path: Path) -> None:
    packet(tmp_path / "packets", '"survivalTimeInDays": 1', f'"survivalTimeInDays": {number}')
    data = opened(tmp_path, phenopackets="packets")
    assert data.table.parsed["survival_days"].tolist() == [float(number)]


@pytest.mark.parametrize("depth", [200, 700, 900, 5000, 100_000])
@pytest.mark.parametrize(("start", "end"), [("[", "]"), ('{"a":', "}")])
def test_what_is_nested_deeply_is_read_or_said(start: str, end: str, depth: int, tmp_path: Path) -> None:
    deep = f'"x", "more": {start * depth}{"[]" if start != "[" else ""}{end * depth}'
    packet(tmp_path / "packets", '"x"', deep)
    if depth == 200:
        assert opened(tmp_path, phenopackets="packets").people == (SECRET,)
        return
    with pytest.raises(DataError) as error:
        opened(tmp_path, phenopackets="packets")
    says(error, "a.json: no JSON object: nested too deeply")


@pytest.mark.parametrize("place", [SECRET, "LOINC:4548-4", "UCUM:%"])
def test_half_a_character_is_none(place: str, tmp_path: Path) -> None:
    """An identifier that no encoding has could neither be numbered nor drawn into a part."""
    packet(tmp_path / "packets", place, rf"{place}\ud800")
    with pytest.raises(DataError) as error:
        opened(tmp_path, phenopackets="packets")
    says(error, "a.json: no JSON object: half of a surrogate pair is no character")


# --- values that a conversion takes out of float64 --------------------------------------------------------------------


def test_a_value_beyond_all_numbers_of_another_unit_lies_at_the_end_of_its_range(tmp_path: Path) -> None:
    (tmp_path / "people.tsv").write_text("person\tx\na\t1e305\nb\t-1e305\nc\t2\nd\tNA\n")
    data = opened(tmp_path, people="people.tsv", variables={"x": Variable(range=(-1e306, 1e306), unit="kg")})
    asked = Frame(None, {"x": Range(-5000.0, 5000.0, "g")})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        got = data.cohort(Needs(("x",)), asked).columns["x"]
    np.testing.assert_array_equal(got, [5000, -5000, 2000, np.nan])


def test_so_does_a_result(tmp_path: Path) -> None:
    """1e308 g/L in mg/L is more than float64 has, and more than any number that it is compared with."""
    folder = packet(tmp_path / "packets", '"value": 1', '"value": 1e308')
    (folder / "a.json").write_text((folder / "a.json").read_text().replace("UCUM:%", "UCUM:g/L"))
    data = opened(tmp_path, phenopackets="packets")
    assert data.clinical is not None
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        got = results(data.clinical.events(*HBA1C), HBA1C[1], "mg/L")
    assert got.tolist() == [np.inf]


# --- the node's file --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [10**400, -(10**400), float("inf"), float("nan"), True])
def test_a_missing_code_is_a_number_that_a_cell_can_have(code: Any) -> None:
    with pytest.raises(ValueError, match="missing codes are texts or numbers"):
        Variable(range=(0, 1), missing=(code,))


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (f"version = {'9' * 5000}", "4300 digits"), (f"version = {'[' * 3000}{']' * 3000}", "nested too deeply"),
        ("version = 5EC2ET", "at line 1"),
    ],
)  # fmt: skip
def test_a_file_that_is_no_toml_is_said(text: str, found: str, tmp_path: Path) -> None:
    (tmp_path / "node.toml").write_text(text)
    with pytest.raises(UsageError) as error:
        read_toml(tmp_path / "node.toml", "A node's file", "It is readable.", "correct the path.")
    assert error.value.rule == "A node's file is written in TOML."
    assert found in error.value.found
    assert SECRET not in str(error.value)
