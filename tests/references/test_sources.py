"""Every kind of clinical source gives the same people, numbers and events: what pandas reads of the same files."""

from __future__ import annotations

import csv
import io
import itertools
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from fl_client.ranges import objection
from fl_client.readers import Dataset, DatasetConfig
from fl_client.readers.events import NEVER, Events
from fl_client.readers.variables import Variable
from fl_client.selection import Records, derived, passed
from simulations.omop import Cdm
from strategies.analysis import Frame, Needs, Range
from strategies.codec import decode
from strategies.errors import DataError, UsageError
from strategies.events import Code, Domain
from strategies.grammar import condition_of
from strategies.reasons import Reason
from strategies.selection import Selection
from strategies.units import conversion
from strategies.variants import Panel, Variant

SHARED = Path(__file__).parents[2].parent / "shared" / "data"
SYNTHEA = SHARED / "omop_synthea"
HEART = SHARED / "heart_4hospitals"
DIABETES = (Code("SNOMED", "73211009", descendants=True),)
ASKED: dict[str, tuple[Domain, tuple[Code, ...]]] = {
    "diabetes of any type": (Domain.CONDITION, DIABETES),
    "diabetes itself": (Domain.CONDITION, (Code("SNOMED", "73211009"),)),
    "by the source's own code": (Domain.CONDITION, (Code("ICD10CM", "E11"),)),
    "by concept": (Domain.CONDITION, (Code("OMOP", "320128"),)),
    "a concept and what lies below": (Domain.CONDITION, (Code("OMOP", "201820", descendants=True),)),
    "two codes": (Domain.CONDITION, (Code("SNOMED", "44054006"), Code("SNOMED", "59621000"))),
    "HbA1c": (Domain.MEASUREMENT, (Code("LOINC", "4548-4"),)),
    "metformin": (Domain.DRUG, (Code("RxNorm", "6809"),)),
    "visits": (Domain.VISIT, (Code("Visit", "OP"),)),
    "procedures": (Domain.PROCEDURE, (Code("OMOP", "4336464"),)),
    "devices": (Domain.DEVICE, (Code("OMOP", "4252419"),)),
    "observations": (Domain.OBSERVATION, (Code("SNOMED", "365981007"),)),
    "a code that nobody has": (Domain.CONDITION, (Code("SNOMED", "1"),)),
    "no code": (Domain.CONDITION, ()),
}


def says(error: pytest.ExceptionInfo[DataError | UsageError], rule: str, found: str) -> None:
    assert rule in error.value.rule
    assert found in error.value.found, error.value.found
    assert error.value.remedy


def opened(folder: Path, **source: Any) -> Dataset:
    return Dataset.open(decode(DatasetConfig, {"identifier": "T", "assembly": "GRCh38"} | source, "[dataset]"), folder)


def same(one: Events, other: Events) -> None:
    np.testing.assert_array_equal(one.person, other.person)
    np.testing.assert_array_equal(one.day, other.day)
    np.testing.assert_array_equal(one.value, other.value)
    assert one.ucum == other.ucum


# --- OMOP: what is in the files, by pandas ----------------------------------------------------------------------------


def days(column: pd.Series) -> pd.Series:
    out = (pd.to_datetime(column) - pd.Timestamp("1970-01-01")).dt.days
    return out.fillna(NEVER).astype(np.int64) if out.notna().all() else out.map(lambda d: NEVER if d != d else int(d))


TABLES = {
    Domain.CONDITION: ("condition_occurrence", "condition", "condition_start_date"),
    Domain.DRUG: ("drug_exposure", "drug", "drug_exposure_start_date"),
    Domain.PROCEDURE: ("procedure_occurrence", "procedure", "procedure_date"),
    Domain.MEASUREMENT: ("measurement", "measurement", "measurement_date"),
    Domain.OBSERVATION: ("observation", "observation", "observation_date"),
    Domain.VISIT: ("visit_occurrence", "visit", "visit_start_date"),
    Domain.DEVICE: ("device_exposure", "device", "device_exposure_start_date"),
}


def by_pandas(tables: dict[str, pd.DataFrame], domain: Domain, codes: tuple[Code, ...]) -> pd.DataFrame:
    """Person, day, value and unit of the events, from the tables themselves."""
    concept, wanted = tables["concept"], set()
    for code in codes:
        if code.vocabulary == "OMOP":
            own = {int(code.code)}
        else:
            rows = (concept.vocabulary_id == code.vocabulary) & (concept.concept_code.astype(str) == code.code)
            own = set(concept.concept_id[rows])
        if code.descendants:
            ancestor = tables["concept_ancestor"]
            own |= set(ancestor.descendant_concept_id[ancestor.ancestor_concept_id.isin(own)])
        wanted |= own
    name, prefix, date = TABLES[domain]
    table = tables[name]
    named = table[f"{prefix}_concept_id"].isin(wanted) | table[f"{prefix}_source_concept_id"].isin(wanted)
    found = table[named] if codes else table
    out = pd.DataFrame({"person": found.person_id.to_numpy(), "day": days(found[date]).to_numpy()})
    out["value"], out["unit"] = np.nan, ""
    if "value_as_number" in found and len(found):
        out["value"] = found.value_as_number.astype(float).to_numpy()
        ucum = dict(concept[concept.vocabulary_id == "UCUM"][["concept_id", "concept_code"]].to_numpy())
        pairs = zip(found.unit_concept_id, found.unit_source_value.fillna(""), strict=True)
        out["unit"] = [ucum.get(number, written) for number, written in pairs]
    return out.sort_values(["person", "day", "value", "unit"], ignore_index=True)


def held_against(data: Dataset, tables: dict[str, pd.DataFrame], domain: Domain, codes: tuple[Code, ...]) -> int:
    assert data.clinical is not None
    got, want = data.clinical.events(domain, codes), by_pandas(tables, domain, codes)
    np.testing.assert_array_equal([int(data.people[k]) for k in got.person], want.person)
    np.testing.assert_array_equal(got.day, want.day)
    np.testing.assert_array_equal(got.value, want.value)
    assert list(got.ucum) == list(want.unit)
    return len(got)


@pytest.fixture(scope="module")
def cdm() -> Cdm:
    return Cdm.of(3000, seed=5)


SOURCES: dict[str, Callable[[Cdm, Path], dict[str, str]]] = {}


def source(write: Callable[[Cdm, Path], dict[str, str]]) -> Callable[[Cdm, Path], dict[str, str]]:
    SOURCES[write.__name__] = write
    return write


@source
def duckdb_file(cdm: Cdm, folder: Path) -> dict[str, str]:
    cdm.write_duckdb(folder / "cdm.duckdb", "cdm54")
    return {"omop": "cdm.duckdb", "schema": "cdm54"}


@source
def parquet_folder(cdm: Cdm, folder: Path) -> dict[str, str]:
    cdm.write_parquet(folder)
    return {"omop": "."}


@source
def csv_folder(cdm: Cdm, folder: Path) -> dict[str, str]:
    cdm.write_csv(folder)
    return {"omop": "."}


@source
def csv_archive(cdm: Cdm, folder: Path) -> dict[str, str]:
    cdm.write_csv(folder)
    with zipfile.ZipFile(folder / "export.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for file in folder.glob("*.csv"):
            archive.write(file, f"export/{file.name}")
    return {"omop": "export.zip"}


def plain(cdm: Cdm) -> dict[str, pd.DataFrame]:
    return {name: table.to_pandas() for name, table in cdm.tables.items()}


@pytest.mark.parametrize("write", SOURCES.values(), ids=SOURCES)
def test_a_cdm_is_the_same_in_every_store(write: Callable[..., dict[str, str]], cdm: Cdm, tmp_path: Path) -> None:
    data = opened(tmp_path, **write(cdm, tmp_path))
    assert_people(data, plain(cdm))
    found = {name: held_against(data, plain(cdm), *asked) for name, asked in ASKED.items()}
    assert found["diabetes of any type"] > found["by the source's own code"] > 0
    assert found["diabetes itself"] == found["a code that nobody has"] == 0 < found["no code"]
    assert min(found[n] for n in ("HbA1c", "metformin", "visits", "procedures", "devices", "observations")) > 0
    assert found["a concept and what lies below"] == found["diabetes of any type"]
    hba1c = data.clinical.events(*ASKED["HbA1c"])  # type: ignore[union-attr]
    assert set(hba1c.ucum) == {"%", "mmol/mol"}
    assert np.isnan(hba1c.value).any()


def assert_people(data: Dataset, tables: dict[str, pd.DataFrame]) -> None:
    person = tables["person"].sort_values("person_id", ignore_index=True)
    assert list(data.people) == [str(p) for p in person.person_id]
    born = days(pd.to_datetime(person[["year_of_birth", "month_of_birth", "day_of_birth"]].rename(
        columns=lambda c: c.removesuffix("_of_birth"))))  # fmt: skip
    period = tables["observation_period"].groupby("person_id")
    begin = days(period.observation_period_start_date.min().reindex(person.person_id))
    end = days(period.observation_period_end_date.max().reindex(person.person_id))
    died = days(tables["death"].set_index("person_id").death_date.reindex(person.person_id))
    assert data.clinical is not None
    np.testing.assert_array_equal(data.clinical.born, born)
    np.testing.assert_array_equal(data.clinical.died, died)
    np.testing.assert_array_equal(data.clinical.followed, np.stack([begin, end], axis=1))
    frame = Frame(None, {
        "sex": Range.of("male", "female"), "year_of_birth": Range(1900, 2030), "died": Range.of("no", "yes"),
        "age_at_start": Range(0, 1600, "mo"), "followed": Range(0, 40000, "d"),
    })  # fmt: skip
    got = data.cohort(Needs(tuple(frame.columns)), frame).columns
    np.testing.assert_array_equal(got["sex"], person.gender_concept_id.map({8507: 0.0, 8532: 1.0}))
    np.testing.assert_array_equal(got["year_of_birth"], person.year_of_birth)
    np.testing.assert_array_equal(got["died"], (died != NEVER).astype(float))
    np.testing.assert_array_equal(got["followed"], (end - begin).astype(float))
    np.testing.assert_allclose(got["age_at_start"], (begin.to_numpy() - born) / 365.25 * 12, rtol=1e-12)


@pytest.fixture(scope="module")
def synthea() -> dict[str, pd.DataFrame]:
    if not SYNTHEA.exists():
        pytest.skip("shared/data/omop_synthea is not here")
    with zipfile.ZipFile(SYNTHEA / "Synthea27Nj_5.4.zip") as archive:
        return {
            Path(n).stem.lower(): pd.read_csv(
                io.BytesIO(archive.read(n)), low_memory=False, keep_default_na=False, na_values=[""]
            )
            for n in archive.namelist()
            if n.endswith(".csv") and "__MACOSX" not in n
        }


@pytest.mark.parametrize("name", ["Synthea27Nj_5.4.zip", "Synthea27NjParquet_5.4.zip"])
def test_synthea_is_what_pandas_reads(name: str, synthea: dict[str, pd.DataFrame]) -> None:
    data = opened(SYNTHEA, omop=name)
    assert len(data.people) == 28
    assert_people(data, synthea)
    concepts = synthea["concept"]
    total = 0
    for domain, (table, prefix, _) in TABLES.items():
        every = tuple(Code("OMOP", str(c)) for c in sorted(set(synthea[table][f"{prefix}_concept_id"]) - {0}))
        total += held_against(data, synthea, domain, every)
    assert total > 14_000
    named = concepts[concepts.vocabulary_id.isin(["SNOMED", "LOINC", "RxNorm"])].sample(8, random_state=1)
    for vocabulary, code in zip(named.vocabulary_id, named.concept_code, strict=True):
        for domain in TABLES:
            held_against(data, synthea, domain, (Code(vocabulary, str(code)),))
    with pytest.raises(DataError) as error:  # the export has the table, and nothing in it
        data.clinical.events(Domain.CONDITION, DIABETES)  # type: ignore[union-attr]
    says(error, "hierarchy", "`concept_ancestor` is not there, or empty")
    with pytest.raises(DataError) as error:
        data.clinical.events(Domain.CONDITION, (Code("ICD10CM", "E11"),))  # type: ignore[union-attr]
    says(error, "looked up in its vocabulary", "'ICD10CM'")


# One continuous period that has the event and all the days beside it, as OHDSI's cohort definitions ask; CDM 5.4 has
# overlapping and adjacent rows merged, and rows of real databases are neither merged nor always whole.


def with_periods(cdm: Cdm) -> Cdm:
    """The same people with up to five observation periods each: with gaps, adjacent, within one another, in any order,
    some without an end, some that end before they begin, some of strangers."""
    rng = np.random.default_rng(3)
    person = np.repeat(cdm.tables["person"]["person_id"].to_numpy(), rng.integers(0, 6, len(cdm.tables["person"])))
    person[rng.random(len(person)) < 0.02] = 10**9
    first = np.datetime64("2015-01-01").astype(int) + 10 * rng.integers(0, 60, len(person))
    last = first + rng.choice([-5, 0, 9, 10, 50, 89, 200], len(person))
    order = rng.permutation(len(person))
    rows = {
        "person_id": person[order],
        "observation_period_start_date": pa.array(first[order].astype("datetime64[D]")),
        "observation_period_end_date": pa.array(
            last[order].astype("datetime64[D]"), mask=rng.random(len(person)) < 0.05
        ),
    }
    return Cdm({**cdm.tables, "observation_period": pa.table(rows)})


def assert_followed(data: Dataset, cdm: Cdm) -> None:
    """Against each person's days, one by one."""
    rows = cdm.tables["observation_period"].to_pandas()
    observed: dict[str, set[int]] = {person: set() for person in data.people}
    first, last = (days(rows[f"observation_period_{end}_date"]) for end in ("start", "end"))
    for person, begin, end in zip(rows.person_id.astype(str), first, last, strict=True):
        if person in observed and NEVER not in (begin, end):
            observed[person] |= set(range(begin, end + 1))
    assert data.clinical is not None
    assert data.clinical.followed.tolist() == [
        [min(own, default=NEVER), max(own, default=NEVER)] for own in observed.values()
    ]
    known = Records(len(data.people), {}, {}, data.genotyped, data.clinical)
    share = []
    for length, (relation, step), date in itertools.product(
        (1, 20, 91), (("after", 1), ("before", -1)), ("2015-06-02", "2015-09-01", "2016-01-20")
    ):
        asked = condition_of(f"followed for {length} days {relation} {date}", "a test")
        at = int(np.datetime64(date).astype(int))
        got = passed(Selection(None, (asked,)), known)[0] == 1
        want = [all(at + step * k in own for k in range(length + 1)) for own in observed.values()]
        np.testing.assert_array_equal(got, want)
        share.append(got.mean())
    assert 0.02 < min(share) < max(share) < 0.8


@pytest.mark.parametrize("write", SOURCES.values(), ids=SOURCES)
def test_a_person_is_followed_within_one_period(write: Callable[..., dict[str, str]], tmp_path: Path) -> None:
    cdm = with_periods(Cdm.of(400, seed=8))
    assert_followed(opened(tmp_path, **write(cdm, tmp_path)), cdm)


def test_people_can_be_left_out_of_a_cdm(cdm: Cdm, tmp_path: Path) -> None:
    whole = opened(tmp_path, **parquet_folder(cdm, tmp_path))
    out = whole.people[7:20]
    (tmp_path / "exclude.txt").write_text("\n".join(out) + "\n")
    some = opened(tmp_path, omop=".", exclude="exclude.txt")
    assert some.people == tuple(p for p in whole.people if p not in out)
    tables = {
        n: t if "person_id" not in t else t[~t.person_id.isin([int(p) for p in out])] for n, t in plain(cdm).items()
    }
    assert_people(some, tables)
    held_against(some, tables, *ASKED["visits"])
    (tmp_path / "exclude.txt").write_text("nobody\n")
    with pytest.raises(DataError) as error:
        opened(tmp_path, omop=".", exclude="exclude.txt")
    says(error, "Everybody who is to be left out", "'nobody'")


def test_a_unit_that_is_no_unit_is_none_whatever_its_length() -> None:
    for unit in (".".join("m" * 2000), "(" * 5000, "m" * 41):
        assert conversion(unit, "mmol/L") is None


def test_texts_of_a_code_are_values_and_never_statements(cdm: Cdm, tmp_path: Path) -> None:
    data = opened(tmp_path, **duckdb_file(cdm, tmp_path))
    before = (tmp_path / "cdm.duckdb").read_bytes()
    assert data.clinical is not None
    for text in (
        "' OR '1'='1",
        "x'; DROP TABLE cdm54.person; --",
        "$1",
        "%s",
        ":vocabulary_id_1",
        "\\'",
        "?",
        "44054006'",
    ):
        assert len(data.clinical.events(Domain.CONDITION, (Code("SNOMED", text),))) == 0
        with pytest.raises(DataError):
            data.clinical.events(Domain.CONDITION, (Code(text, "44054006"),))
        with pytest.raises(DataError):
            data.clinical.events(Domain.CONDITION, (Code("OMOP", text),))
    assert held_against(data, plain(cdm), *ASKED["diabetes of any type"]) > 0
    assert (tmp_path / "cdm.duckdb").read_bytes() == before
    store = data._store or data.clinical.store  # type: ignore[attr-defined]
    for statement in ("COPY cdm54.person TO 'out.csv'", "SELECT * FROM read_csv('/etc/passwd')", "INSTALL httpfs",
                      "DELETE FROM cdm54.person", "SET enable_external_access = true"):  # fmt: skip
        with pytest.raises(Exception, match=r"read-only|file system|disabled|locked|attached in"):
            store._connection.execute(statement)


@pytest.mark.parametrize(
    ("spoil", "rule", "found"),
    [
        (lambda f: (f / "person.parquet").unlink(), "has a table `person`", "no column day_of_birth"),
        (lambda f: (f / "person.parquet").write_bytes(b"PAR1"), "Tables are read from", "."),
        (lambda f: (f / "measurement.parquet").unlink(), "a domain that the CDM has", "no table measurement"),
        (lambda f: (f / "concept.parquet").unlink(), "looked up in its vocabulary", "'LOINC'"),
        (
            lambda f: pd.concat([(p := pd.read_parquet(f / "person.parquet")), p[:1]]).to_parquet(f / "person.parquet"),
            "people of a CDM are distinct",
            "1 more than once",
        ),
    ],
)
def test_a_cdm_that_is_not_as_it_must_be(
    spoil: Callable[[Path], object], rule: str, found: str, cdm: Cdm, tmp_path: Path
) -> None:
    cdm.write_parquet(tmp_path)
    spoil(tmp_path)
    with pytest.raises(DataError) as error:
        opened(tmp_path, omop=".").clinical.events(*ASKED["HbA1c"])  # type: ignore[union-attr]
    says(error, rule, found)


@pytest.mark.parametrize("write", SOURCES.values(), ids=SOURCES)
def test_a_change_of_an_export_is_seen(write: Callable[..., dict[str, str]], cdm: Cdm, tmp_path: Path) -> None:
    where = write(cdm, tmp_path)
    data = opened(tmp_path, **where)
    assert data.digest == opened(tmp_path, **where).digest
    (tmp_path / "new").mkdir()
    write(Cdm.of(3000, seed=6), tmp_path / "new")
    for file in (tmp_path / "new").iterdir():
        file.replace(tmp_path / file.name)
    with pytest.raises(DataError) as error:
        data.assert_unchanged()
    says(error, "stay as they are", "changed since it was opened")
    before = data.digest
    del data, error
    assert opened(tmp_path, **where).digest != before


# --- people tables ----------------------------------------------------------------------------------------------------

CELLS = {
    "person": ["a", "b", "c", "d", "e", "f"],
    "age": ["30", "41.5", "", "50", "61", "-9"],
    "chol": ["200", "0", "240", "NA", "0.0", "310"],
    "sex": ["1", "0", "1.0", "9", "UNK", "0"],
    "smoking": ["never", "current", "NASK", "often", "former", "?"],
}
VARIABLES = {
    "years": {"column": "age", "range": [0, 120], "unit": "a", "missing": [-9]},
    "chol": {"range": [50, 700], "unit": "mg/dL", "missing": ["0"], "concept": 3027114, "meaning": "total cholesterol"},
    "sex": {"categories": {"1": "male", "0": "female"}, "minimal": "sex"},
    "smoking": {"categories": ["never", "former", "current"]},
}


def write_table(path: Path) -> dict[str, Any]:
    frame = pd.DataFrame(CELLS)
    if path.suffix in (".tsv", ".csv"):
        frame.to_csv(path, sep="," if path.suffix == ".csv" else "\t", index=False)
        return {"people": path.name}
    for column in ("age", "chol"):
        frame[column] = pd.to_numeric(frame[column], errors="coerce")
    if path.suffix == ".parquet":
        frame.to_parquet(path)
        return {"people": path.name}
    import duckdb  # noqa: PLC0415  it outlives a frozen collection of garbage otherwise, and says so

    with duckdb.connect(str(path)) as connection:
        connection.execute('CREATE TABLE "the people" AS SELECT * FROM frame')
    return {"people": path.name, "table": "the people"}


@pytest.mark.parametrize("kind", ["tsv", "csv", "parquet", "duckdb"])
def test_a_people_table_is_the_same_in_every_format(kind: str, tmp_path: Path) -> None:
    data = opened(tmp_path, **write_table(tmp_path / f"people.{kind}"), variables=VARIABLES)
    assert data.people == tuple(CELLS["person"])
    assert data.columns == ("age", "chol", "sex", "smoking", "years")
    assert data.table.unlisted == {"sex": 1, "smoking": 1}
    frame = Frame(None, {
        "age": Range(0, 100), "years": Range(0, 120, "a"), "chol": Range(0, 20, "mmol/L"),
        "sex": Range.of("female", "male"), "smoking": Range.of("current", "never"),
    })  # fmt: skip
    got = data.cohort(Needs(tuple(frame.columns)), frame).columns
    nan = np.nan
    np.testing.assert_array_equal(got["age"], [30, 41.5, nan, 50, 61, 0])  # as it lies there: -9, clamped
    np.testing.assert_array_equal(got["years"], [30, 41.5, nan, 50, 61, nan])
    np.testing.assert_allclose(got["chol"], np.array([200, nan, 240, nan, nan, 310]) / 38.6654, rtol=1e-12)
    np.testing.assert_array_equal(got["sex"], [1, 0, 1, nan, nan, 0])
    np.testing.assert_array_equal(got["smoking"], [1, 0, nan, nan, nan, nan])


def test_a_free_text_can_be_read_as_declared_alone(tmp_path: Path) -> None:
    (tmp_path / "people.tsv").write_text("person\tnote\na\tyes\nb\tsmokes, drinks, lives at 5 Elm St\nc\tno\n")
    bare, declared = (opened(tmp_path, people="people.tsv", variables=v)
                      for v in ({}, {"note": {"categories": ["no", "yes"]}}))  # fmt: skip
    assert bare.columns == ()
    asked = Frame(None, {"note": Range.of("no", "smokes, drinks, lives at 5 Elm St", "yes")})
    with pytest.raises(DataError):
        bare.cohort(Needs(("note",)), asked)
    got = declared.cohort(Needs(("note",)), asked).columns["note"]
    np.testing.assert_array_equal(got, [2, np.nan, 0])


@pytest.mark.parametrize(
    "word",
    [
        *[
            "NI",
            "UNK",
            "ASKU",
            "NASK",
            "NAV",
            "NAVU",
            "QS",
            "TRC",
            "MSK",
            "NP",
            "DER",
            "OTH",
            "INV",
            "PINF",
            "NINF",
            "NA",
            "?",
            ".",
            "NaN",
        ],
        "",
    ],
)
def test_a_null_flavour_is_missing_unless_it_is_a_category(word: str, tmp_path: Path) -> None:
    (tmp_path / "people.tsv").write_text(f"person\tx\ty\na\t{word}\t1\nb\tyes\t{word}\n")
    variables = {"x": {"categories": ["no", "yes"]}, "y": {"range": [0, 5]}}
    frame = Frame(None, {"x": Range.of("no", "yes"), "y": Range(0, 5)})
    data = opened(tmp_path, people="people.tsv", variables=variables)
    assert data.table.unlisted == {"x": 0}
    got = data.cohort(Needs(("x", "y")), frame).columns
    np.testing.assert_array_equal(got["x"], [np.nan, 1])
    np.testing.assert_array_equal(got["y"], [1, np.nan])
    if word:
        variables = {"x": {"categories": {word: "no answer", "yes": "yes"}}}
        data = opened(tmp_path, people="people.tsv", variables=variables)
        got = data.cohort(Needs(("x",)), Frame(None, {"x": Range.of("yes", "no answer")})).columns
        np.testing.assert_array_equal(got["x"], [1, 0])


@pytest.mark.parametrize(
    ("variable", "message"),
    [
        ({}, "a range = [lowest, highest] or categories"),
        ({"range": [0, 1], "categories": ["a", "b"]}, "a range = [lowest, highest] or categories"),
        ({"range": [1, 0]}, "a variable's range is"),
        ({"range": [0, 1], "unit": "mg / dL"}, "A unit is a code of UCUM"),
        ({"categories": ["a"]}, "2 to 1,000 different categories"),
        ({"categories": ["a", "b"], "unit": "kg"}, "categories have no unit"),
        ({"categories": {"1": "a", "1.0": "b"}}, "each cell stands for one category"),
        ({"categories": ["a", 3]}, "categories are a list of names"),
        ({"categories": "ab"}, "categories are a list of names"),
        ({"categories": {"-9": "a", "b": "b"}, "missing": [-9]}, "declared as missing and as a category"),
        ({"range": [0, 1], "missing": [True]}, "missing codes are texts or numbers"),
        ({"range": [0, 1], "analyte": "LOINC:1-8"}, "analyte is none"),
        ({"range": [0, 1], "meaning": "a\nb"}, "200 printable characters"),
        ({"range": [0, 1], "concept": -1}, "number of an OMOP concept"),
        ({"range": [0, 1], "kind": "x"}, "unknown 'kind'"),
    ],
)
def test_a_variable_is_declared_strictly(variable: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as error:
        opened(Path(), people="people.tsv", variables={"x": variable})
    assert message in str(error.value)
    assert error.value.remedy


# --- units ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("analyte", "value", "unit", "want", "other"),
    [  # factors as published by laboratories and the NGSP, to the digits that these give
        ("cholesterol", 200, "mg/dL", 5.17, "mmol/L"), ("glucose", 126, "mg/dL", 6.99, "mmol/L"),
        ("creatinine", 1.0, "mg/dL", 88.4, "umol/L"), ("triglycerides", 150, "mg/dL", 1.69, "mmol/L"),
        ("haemoglobin", 14.0, "g/dL", 8.69, "mmol/L"), ("hba1c", 7.0, "%", 53.0, "mmol/mol"),
        ("hba1c", 48, "mmol/mol", 6.5, "%"), ("", 120, "mm[Hg]", 16.0, "kPa"), ("", 37, "Cel", 98.6, "[degF]"),
        ("", 4.5, "10*3/uL", 4.5, "10*9/L"), ("", 180, "cm", 1.8, "m"), ("", 1, "[lb_av]", 0.4536, "kg"),
    ],
)  # fmt: skip
def test_units_convert_as_published(analyte: str, value: float, unit: str, want: float, other: str) -> None:
    there, back = conversion(unit, other, analyte), conversion(other, unit, analyte)
    assert there is not None
    assert back is not None
    got = there(np.array([value, np.nan]))
    digits = len(str(want).split(".")[1])
    assert abs(got[0] - want) <= 0.51 * 10**-digits
    assert np.isnan(got[1])
    np.testing.assert_allclose(back(got)[0], value, rtol=1e-12)


@pytest.mark.parametrize(
    ("one", "other", "analyte"),
    [
        ("mg/dL", "", ""), ("mg/dL", "mmol/L", ""), ("mg/dL", "mmol/L", "hba1c"), ("%", "mmol/mol", ""),
        ("%", "mmol/mol", "glucose"), ("kg", "m", ""), ("zork", "kg", ""), ("[iU]/L", "U/L", ""), ("{score}", "%", ""),
        ("mL/min", "mL/min/{1.73_m2}", ""), ("dB", "1", ""), ("[pH]", "mol/L", ""), ("10*99999999", "1", ""),
        ("((((", "kg", ""),
    ],
)  # fmt: skip
def test_what_no_unit_converts_to_is_refused(one: str, other: str, analyte: str) -> None:
    assert conversion(one, other, analyte) is None
    assert conversion(other, one, analyte) is None


HBA1C = Variable(range=(0, 20), unit="%", analyte="hba1c")


@pytest.mark.parametrize(
    ("asked", "allowed", "exact", "private"),
    [
        (Range(0, 10), Range(0, 10), None, None),
        (Range(0, 9), Range(0, 10), Reason.RANGE_OUTSIDE_POLICY, None),
        (Range(0, 11), Range(0, 10), Reason.RANGE_OUTSIDE_POLICY, Reason.RANGE_OUTSIDE_POLICY),
        (Range(0, 10, "g/L"), Range(0, 10), Reason.UNIT_NOT_CONVERTIBLE, Reason.UNIT_NOT_CONVERTIBLE),
        (Range(20, 130, "mmol/mol"), Range(4, 14, "%"), Reason.RANGE_OUTSIDE_POLICY, Reason.RANGE_OUTSIDE_POLICY),
        (Range(20.2011368605, 129.5146480105, "mmol/mol"), Range(4, 14, "%"), None, None),
        (Range(20.201138, 129.5146480105, "mmol/mol"), Range(4, 14, "%"), Reason.RANGE_OUTSIDE_POLICY, None),
        (Range(40, 100, "mmol/mol"), Range(4, 14, "%"), Reason.RANGE_OUTSIDE_POLICY, None),
        (Range.of("a", "b"), Range.of("b", "a"), None, None),
        (Range.of("a", "b"), Range.of("a", "b", "c"), Reason.CATEGORIES_DIFFER, None),
        (Range.of("a", "d"), Range.of("a", "b", "c"), Reason.CATEGORIES_DIFFER, Reason.CATEGORIES_DIFFER),
        (Range.of("a", "b"), Range(0, 1), Reason.CATEGORIES_DIFFER, Reason.CATEGORIES_DIFFER),
        (Range(0, 1), Range.of("a", "b"), Reason.CATEGORIES_DIFFER, Reason.CATEGORIES_DIFFER),
    ],
)
def test_what_a_policy_lets_a_study_ask(
    asked: Range, allowed: Range, exact: Reason | None, private: Reason | None
) -> None:
    assert objection(asked, allowed, HBA1C, exact=True) == exact
    assert objection(asked, allowed, HBA1C, exact=False) == private


def test_no_unit_is_converted_that_is_not_declared() -> None:
    assert objection(Range(0, 1, "g"), Range(0, 1000, "mg"), None, exact=False) is Reason.UNIT_NOT_CONVERTIBLE
    assert objection(Range(0, 1, "g"), Range(0, 1, "g"), None, exact=True) is None


# --- four hospitals ---------------------------------------------------------------------------------------------------

COLUMNS = (
    "age",
    "sex",
    "cp",
    "trestbps",
    "chol",
    "fbs",
    "restecg",
    "thalach",
    "exang",
    "oldpeak",
    "slope",
    "ca",
    "thal",
    "num",
)


@pytest.mark.skipif(not HEART.exists(), reason="shared/data/heart_4hospitals is not here")
@pytest.mark.parametrize(
    ("name", "people", "no_chol", "female", "diseased"),
    [  # as SOURCE.md says; of the chol that is missing, 0 and ? together
        ("cleveland", 303, 0, 0.320, 0.459), ("hungarian", 294, 23, 0.276, 0.361),
        ("switzerland", 123, 123, 0.081, 0.935), ("va", 200, 56, 0.030, 0.745),
    ],
)  # fmt: skip
def test_missing_codes_of_the_four_hospitals(
    name: str, people: int, no_chol: int, female: float, diseased: float, tmp_path: Path
) -> None:
    raw = (HEART / f"processed.{name}.data").read_text().split()
    lines = [f"{i}\t" + line.replace(",", "\t") for i, line in enumerate(raw)]
    (tmp_path / "people.tsv").write_text("\n".join(["\t".join(("person", *COLUMNS)), *lines]) + "\n")
    variables = {
        "chol": {"range": [50, 700], "unit": "mg/dL", "missing": [0], "analyte": "cholesterol"},
        "sex": {"categories": {"1": "male", "0": "female"}},
        "disease": {"column": "num", "categories": {"0": "no", "1": "yes", "2": "yes", "3": "yes", "4": "yes"}},
        "thal": {"categories": {"3": "normal", "6": "fixed defect", "7": "reversible defect"}, "missing": [-9]},
    }
    data = opened(tmp_path, people="people.tsv", variables=variables)
    frame = Frame(None, {
        "chol": Range(50, 700, "mg/dL"), "sex": Range.of("female", "male"), "disease": Range.of("no", "yes"),
        "thal": Range.of("normal", "fixed defect", "reversible defect"), "trestbps": Range(0, 300),
    })  # fmt: skip
    got = data.cohort(Needs(tuple(frame.columns)), frame).columns
    table = pd.read_csv(HEART / f"processed.{name}.data", names=COLUMNS, na_values="?")
    assert len(data.people) == len(table) == people
    chol = table.chol.where(table.chol != 0)
    assert chol.isna().sum() == np.isnan(got["chol"]).sum() == no_chol
    np.testing.assert_array_equal(got["chol"], chol)
    np.testing.assert_array_equal(got["sex"], table.sex)
    assert abs(np.mean(got["sex"] == 0) - female) < 6e-4
    np.testing.assert_array_equal(got["disease"], (table.num > 0).astype(float))
    assert abs(np.mean(got["disease"]) - diseased) < 6e-4
    np.testing.assert_array_equal(got["thal"], table.thal.map({3.0: 0.0, 6.0: 1.0, 7.0: 2.0}))
    np.testing.assert_array_equal(got["trestbps"], table.trestbps)


@pytest.mark.skipif(not HEART.exists(), reason="shared/data/heart_4hospitals is not here")
def test_minus_nine_is_missing_where_it_is_declared(tmp_path: Path) -> None:
    raw = [line.split() for line in (HEART / "reprocessed.hungarian.data").read_text().splitlines() if line.strip()]
    rows = [[str(i), *line] for i, line in enumerate(raw)]
    with (tmp_path / "people.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["person", *COLUMNS], *rows])
    missing = {name: {"range": [0, 700], "missing": [-9]} for name in COLUMNS}
    data = opened(tmp_path, people="people.csv", variables=missing)
    frame = Frame(None, dict.fromkeys(COLUMNS, Range(0, 700)))
    got = data.cohort(Needs(COLUMNS), frame).columns
    table = pd.DataFrame(raw, columns=COLUMNS, dtype=float).replace(-9, np.nan)
    assert table.isna().to_numpy().sum() > 700
    for name in COLUMNS:
        np.testing.assert_array_equal(got[name], table[name])


# --- events in a table, phenopackets ----------------------------------------------------------------------------------

EVENTS = """person\tdomain\tcode\tdate\tvalue\tunit
b\tcondition\tSNOMED:44054006\t2010-05-01\t\t
a\tmeasurement\tLOINC:4548-4\t2011-01-01\t6.9\t%
a\tcondition\tSNOMED:44054006\t\t\t
a\tbirth\t\t1950-02-03\t\t
b\tdeath\t\t2012-01-01\t\t
a\tstart\t\t2009-01-01\t\t
a\tend\t\t2013-06-01\t\t
z\tcondition\tSNOMED:44054006\t2010-05-01\t\t
a\tcondition\tSNOMEDCT:44054006\t2009-12-31T23:59:00Z\t\t
"""


@pytest.mark.parametrize("kind", ["tsv", "csv", "parquet"])
def test_a_table_of_events(kind: str, tmp_path: Path) -> None:
    (tmp_path / "people.tsv").write_text("person\tx\na\t1\nb\t2\n")
    frame = pd.read_csv(io.StringIO(EVENTS), sep="\t")
    if kind == "parquet":
        frame.to_parquet(tmp_path / "events.parquet")
    else:
        frame.to_csv(tmp_path / f"events.{kind}", sep="\t" if kind == "tsv" else ",", index=False)
    clinical = opened(tmp_path, people="people.tsv", events=f"events.{kind}").clinical
    assert clinical is not None
    told = ["1950-02-03", "2009-01-01", "2009-12-31", "2010-05-01", "2011-01-01", "2012-01-01", "2013-06-01"]
    day = {text: int(np.datetime64(text).astype(int)) for text in told}
    assert clinical.born.tolist() == [day["1950-02-03"], NEVER]
    assert clinical.died.tolist() == [NEVER, day["2012-01-01"]]
    assert clinical.followed.tolist() == [[day["2009-01-01"], day["2013-06-01"]], [NEVER, NEVER]]
    found = clinical.events(Domain.CONDITION, (Code("SNOMED", "44054006"),))
    assert found.person.tolist() == [0, 0, 1]
    assert found.day.tolist() == [NEVER, day["2009-12-31"], day["2010-05-01"]]
    found = clinical.events(Domain.MEASUREMENT, (Code("LOINC", "4548-4"), Code("LOINC", "0-0")))
    assert (found.day.tolist(), found.value.tolist(), found.ucum) == ([day["2011-01-01"]], [6.9], ("%",))
    with pytest.raises(DataError) as error:
        clinical.events(Domain.CONDITION, DIABETES)
    says(error, "hierarchy", "SNOMED:73211009+")


@pytest.mark.parametrize(
    ("old", "new", "found"),
    [
        ("person\tdomain", "person\tkind", "the header is person, kind"),
        ("\tmeasurement\t", "\tlab\t", "event 2: its domain is another word"),
        ("LOINC:4548-4", "4548-4", "event 2: its code is none"),
        ("2011-01-01", "01.01.2011", "event 2: its date is none"),
        ("2011-01-01", "2011-02-30", "event 2: its date is none"),
        ("6.9", "high", "event 2: its value is no number"),
        ("b\tdeath", "a\tbirth", "the person has a birth before"),
        ("2012-01-01", "", "its date is none"),
    ],
)
def test_a_table_of_events_that_is_not_as_it_must_be(old: str, new: str, found: str, tmp_path: Path) -> None:
    (tmp_path / "people.tsv").write_text("person\tx\na\t1\nb\t2\n")
    (tmp_path / "events.tsv").write_text(EVENTS.replace(old, new, 1))
    with pytest.raises(DataError) as error:
        opened(tmp_path, people="people.tsv", events="events.tsv")
    says(error, "A table of events has", found)


PACKET = {
    "id": "packet-1",
    "subject": {
        "id": "patient-2", "sex": "FEMALE", "karyotypicSex": "XX", "dateOfBirth": "1990-03-01T00:00:00Z",
        "timeAtLastEncounter": {"age": {"iso8601duration": "P30Y"}},
        "vitalStatus": {"status": "DECEASED", "timeOfDeath": {"timestamp": "2021-07-01T00:00:00Z"},
                        "survivalTimeInDays": 400},
    },
    "phenotypicFeatures": [
        {"type": {"id": "HP:0001250", "label": "Seizure"}, "onset": {"age": {"iso8601duration": "P1Y6M"}}},
        {"type": {"id": "HP:0001251"}, "excluded": True},
    ],
    "diseases": [{"term": {"id": "OMIM:143100"}, "onset": {"timestamp": "2019-01-02T00:00:00Z"}}],
    "measurements": [{"assay": {"id": "LOINC:26515-7"}, "timeObserved": {"timestamp": "2020-10-01T10:00:00Z"},
                      "value": {"quantity": {"unit": {"id": "UCUM:10*3/uL"}, "value": 24.5}}}],
    "medicalActions": [
        {"procedure": {"code": {"id": "NCIT:C28743"}, "performed": {"timestamp": "2019-03-01T00:00:00Z"}}},
        {"treatment": {"agent": {"id": "DrugCentral:1610"}, "doseIntervals": [
            {"interval": {"start": "2019-05-01T00:00:00Z"}}, {"interval": {"start": "2019-04-01T00:00:00Z"}}]}},
    ],
    "metaData": {"phenopacketSchemaVersion": "2.0"},
}  # fmt: skip
BY_AGE = {
    "id": "packet-2",
    "subject": {"id": "patient-1", "sex": "MALE", "timeAtLastEncounter": {"age": {"iso8601duration": "P14Y"}}},
    "diseases": [{"term": {"id": "MONDO:0007254"}, "onset": {"age": {"iso8601duration": "P8Y"}}},
                 {"term": {"id": "HP:0001250"}}],
}  # fmt: skip


def write_packets(folder: Path, *packets: dict[str, Any]) -> None:
    folder.mkdir(exist_ok=True)
    for number, packet in enumerate(packets):
        (folder / f"{number}.json").write_text(json.dumps(packet))


def test_phenopackets(tmp_path: Path) -> None:
    write_packets(tmp_path / "packets", PACKET, BY_AGE)
    data = opened(tmp_path, phenopackets="packets")
    assert data.people == ("patient-1", "patient-2")
    frame = Frame(None, {
        "sex": Range.of("male", "female"), "died": Range.of("no", "yes"), "year_of_birth": Range(1900, 2020),
        "survival_days": Range(0, 5000, "d"), "karyotypic_sex": Range.of("XX", "XY"),
    })  # fmt: skip
    got = data.cohort(Needs(tuple(frame.columns)), frame).columns
    assert {name: values.tolist()[1] for name, values in got.items()} == {
        "sex": 1, "died": 1, "year_of_birth": 1990, "survival_days": 400, "karyotypic_sex": 0,
    }  # fmt: skip
    assert got["sex"][0] == 0
    assert all(np.isnan(got[name][0]) for name in ("died", "year_of_birth", "survival_days"))
    clinical = data.clinical
    assert clinical is not None

    def day(text: str) -> int:
        return int(np.datetime64(text).astype(int))

    assert clinical.born.tolist() == [0, day("1990-03-01")]
    assert clinical.died.tolist() == [NEVER, day("2021-07-01")]
    assert clinical.followed[:, 1].tolist() == [day("1984-01-01"), day("2021-07-01")]
    found = clinical.events(Domain.CONDITION, (Code("HPO", "0001250"),))
    assert found.person.tolist() == [0, 1]
    assert found.day.tolist() == [NEVER, day("1991-09-01")]
    same(found, clinical.events(Domain.CONDITION, (Code("HP", "0001250"),)))
    same(found, clinical.events(Domain.CONDITION, (Code("HPO", "HP:0001250"),)))
    assert len(clinical.events(Domain.CONDITION, (Code("HPO", "0001251"),))) == 0  # looked for, and not there
    assert clinical.events(Domain.CONDITION, (Code("MONDO", "0007254"),)).day.tolist() == [day("1978-01-01")]
    found = clinical.events(Domain.MEASUREMENT, (Code("LOINC", "26515-7"),))
    assert (found.day.tolist(), found.value.tolist(), found.ucum) == ([day("2020-10-01")], [24.5], ("10*3/uL",))
    assert clinical.events(Domain.PROCEDURE, (Code("NCIt", "C28743"),)).day.tolist() == [day("2019-03-01")]
    assert clinical.events(Domain.DRUG, (Code("DrugCentral", "1610"),)).day.tolist() == [day("2019-04-01")]
    (tmp_path / "packets" / "9.json").write_text(json.dumps(PACKET | {"subject": {"id": "another"}}))
    with pytest.raises(DataError) as error:
        data.assert_unchanged()
    says(error, "stay as they are", "packets changed")


def a_packet(person: str, *told: dict[str, Any], subject: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    diseases = [{"term": {"id": "MONDO:1"}, "onset": onset} for onset in told]
    return {"subject": {"id": person, **(subject or {})}, "diseases": diseases, **more}


def age(text: str) -> dict[str, Any]:
    return {"age": {"iso8601duration": text}}


def on(text: str) -> dict[str, Any]:
    return {"timestamp": f"{text}T00:00:00Z"}


PACKETS = (
    a_packet("a", age("P8Y"), subject={"timeAtLastEncounter": age("P14Y3M")}),  # ages alone
    a_packet("b", age("P8Y"), subject={"dateOfBirth": "1990-02-01T00:00:00Z", "timeAtLastEncounter": age("P14Y")}),
    a_packet("c", on("1998-02-01"), age("P9Y"), subject={"timeAtLastEncounter": on("2004-02-01")}),  # no birth: no ages
    a_packet("d", age("P8Y"), subject={"vitalStatus": {"status": "DECEASED", "timeOfDeath": age("P9Y")},
                                       "timeAtLastEncounter": age("P8Y6M")}),
    a_packet("e", {"ontologyClass": {"id": "HP:0003577"}}, {"gestationalAge": {"weeks": 33}}),  # no day at all
    a_packet("f", {"ageRange": {"start": {"iso8601duration": "P8Y"}, "end": {"iso8601duration": "P9Y"}}}),
    a_packet("g", age("P8Y"), subject={"date_of_birth": "1990-02-01T00:00:00Z", "time_at_last_encounter": age("P14Y")}),
)  # fmt: skip
HOLD = {
    "any condition MONDO:1": "abcdefg",
    "age at first condition MONDO:1 = 8": "abdfg",
    "age at end of follow-up = 14": "abg",
    "age at end of follow-up = 9": "d",
    "age at death = 9": "d",
    "any condition MONDO:1 before 2020-01-01": "bcg",
    "any condition MONDO:1 on 1998-02-01": "bcg",
    "no condition MONDO:1 before 2020-01-01": "adef",
    "any condition MONDO:1 within 9 years before end of follow-up": "abcdg",
    "age at 2020-01-01 >= 0": "bg",
    "followed for 365 days after first condition MONDO:1": "abcdg",
    "followed for 366 days after first condition MONDO:1": "abcg",
    "followed for 1 day before first condition MONDO:1": "",
    "followed for 1 day after 2000-01-01": "bcg",
    "followed for 1 day before end of follow-up": "abcdg",
}


@pytest.mark.parametrize("text", HOLD)
def test_who_tells_ages_alone_has_ages_and_no_dates(text: str, tmp_path: Path) -> None:
    write_packets(tmp_path / "packets", *PACKETS)
    data = opened(tmp_path, phenopackets="packets")
    known = Records(len(data.people), {}, {}, data.genotyped, data.clinical)
    asked = condition_of(text.replace("9 years", "3287 days"), "a test")
    there = passed(Selection(None, (asked,)), known)[0] == 1
    assert "".join(np.array(data.people)[there]) == HOLD[text]


def test_the_age_last_seen_is_the_one_that_is_told(tmp_path: Path) -> None:
    write_packets(tmp_path / "packets", *PACKETS)
    got = opened(tmp_path, phenopackets="packets").table.parsed["age_last_seen"]
    np.testing.assert_array_equal(got, [14.25, 14, np.nan, 8.5, np.nan, np.nan, 14])


@pytest.mark.parametrize("born", [None, "2004-02-29", "1999-12-31", "2001-03-01"])
def test_somebody_is_as_old_as_it_says(born: str | None, tmp_path: Path) -> None:
    birth = {"dateOfBirth": f"{born}T00:00:00Z"} if born else {}
    write_packets(tmp_path / "packets", *(a_packet(f"{k:03}", age(f"P{k}Y"), subject=birth) for k in range(110)))
    data = opened(tmp_path, phenopackets="packets")
    known = Records(len(data.people), {}, {}, data.genotyped, data.clinical)
    value = Range.from_plain({"value": "age at first condition", "range": [0, 120]}, "age")
    np.testing.assert_array_equal(derived(value, known), np.arange(110))


@pytest.mark.parametrize(
    ("packet", "found"),
    [
        ({"subject": {}}, "0.json: id of the subject"),
        ({"subject": {"id": "a"}, "diseases": {}}, ""),
        ({"subject": {"id": "a"}, "diseases": [3]}, "diseases is no list of objects"),
        ({"subject": {"id": "a"}, "diseases": [{"term": {"label": "x"}}]}, "term has no id that is a code"),
        ({"subject": {"id": "a", "dateOfBirth": "1990"}}, "a date is no timestamp"),
        (
            BY_AGE | {"diseases": [{"term": {"id": "A:1"}, "onset": {"age": {"iso8601duration": "8 years"}}}]},
            "an age is no duration",
        ),
        ({"subject": {"id": "a", "timeAtLastEncounter": {"age": {"iso8601duration": "P"}}}}, "an age is no duration"),
        ({"subject": {"id": "a", "timeAtLastEncounter": {"age": {"iso8601duration": "P9999999Y"}}}}, "an age is no"),
        ({"subject": {"id": "a"}, "metaData": {"phenopacketSchemaVersion": "1.0"}}, "of another version"),
        ({"subject": {"id": "a"}, "diseases": [{"term": "MONDO:1"}]}, "term is no object"),
    ],
)
def test_a_phenopacket_that_is_none(packet: dict[str, Any], found: str, tmp_path: Path) -> None:
    write_packets(tmp_path / "packets", packet)
    if not found:
        opened(tmp_path, phenopackets="packets")
        return
    with pytest.raises(DataError) as error:
        opened(tmp_path, phenopackets="packets")
    says(error, "A phenopacket is a JSON object", found)


# --- people without genotypes -----------------------------------------------------------------------------------------

VCF = """##fileformat=VCFv4.2
##contig=<ID=1>
##FORMAT=<ID=GT,Number=1,Type=String,Description="Genotype">
#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\tFORMAT\tG1\tG2\tG3
1\t100\t.\tA\tC\t.\t.\t.\tGT\t0/1\t1/1\t0/0
1\t200\t.\tG\tT\t.\t.\t.\tGT\t1/1\t./.\t0/1
"""
PANEL = Panel(
    "GRCh37", (Variant("1", 100, "a", "A", "C"), Variant("1", 200, "b", "T", "G"), Variant("2", 5, "c", "A", "C"))
)


def test_people_without_genotypes_are_all_missing(tmp_path: Path) -> None:
    (tmp_path / "g.vcf").write_text(VCF)
    (tmp_path / "people.tsv").write_text("person\tx\np1\t1\np2\t2\np3\t3\np4\t4\np5\t5\n")
    (tmp_path / "link.tsv").write_text("person\tgenotype\np4\tG1\np2\tG3\np1\tG9\n")
    data = Dataset.open(DatasetConfig("T", "GRCh37", "people.tsv", "g.vcf", link="link.tsv"), tmp_path)
    assert data.genotyped.tolist() == [False, True, False, True, False]
    cohort = data.cohort(Needs(("x",), panel="p", dosages=True), Frame(PANEL, {"x": Range(0, 9)}))
    assert cohort.genotypes is not None
    want = [[3, 0, 3, 1, 3], [3, 1, 3, 0, 3], [3, 3, 3, 3, 3]]
    assert cohort.genotypes.codes().tolist() == want
    assert cohort.dosages is not None
    assert [[d / 16384 if d != 65535 else 3 for d in row] for row in cohort.dosages.tolist()] == want
    assert cohort.people == 5
    some = data.of_genotyped()
    assert some.people == ("p2", "p4")
    assert some.table.column("x").tolist() == [2, 4]
    (tmp_path / "people2.tsv").write_text("person\tx\nG2\t1\nnobody\t2\n")
    beside = Dataset.open(DatasetConfig("T", "GRCh37", "people2.tsv", "g.vcf"), tmp_path)
    assert beside.genotyped.tolist() == [True, False]


@pytest.mark.parametrize(
    ("text", "rule", "found"),
    [
        ("person\tgenotype\np1\tG8\n", "Somebody of the data set has genotypes", "'G8'"),
        ("person\tgenotype\np1\tG1\np2\tG1\n", "distinct", "'G1'"),
        ("person\tgenotype\np1\tG1\np1\tG2\n", "distinct", "'p1'"),
        ("person\tsample\np1\tG1\n", "A link has two columns", "person, sample"),
    ],
)
def test_a_link_that_is_none(text: str, rule: str, found: str, tmp_path: Path) -> None:
    (tmp_path / "g.vcf").write_text(VCF)
    (tmp_path / "people.tsv").write_text("person\tx\np1\t1\np2\t2\n")
    (tmp_path / "link.tsv").write_text(text)
    with pytest.raises(DataError) as error:
        Dataset.open(DatasetConfig("T", "GRCh37", "people.tsv", "g.vcf", link="link.tsv"), tmp_path)
    says(error, rule, found)


def test_what_a_node_declares_is_part_of_its_version(tmp_path: Path) -> None:
    where = write_table(tmp_path / "people.tsv")
    digests = {
        opened(tmp_path, **where, variables=variables).digest
        for variables in ({}, VARIABLES, VARIABLES | {"chol": VARIABLES["chol"] | {"missing": []}})
    }
    assert len(digests) == 3
