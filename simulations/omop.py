"""Made-up people in the tables of an OMOP CDM 5.4: nothing here comes from a person, and all of it from a seed.

Diabetes of both types, hypertension, HbA1c in two units, metformin, visits, deaths: enough of each for a question, in a
vocabulary of a dozen concepts whose numbers and codes are OMOP's.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
from numpy.typing import NDArray
from psycopg import sql

CONCEPTS = (
    (8507, "Gender", "M"), (8532, "Gender", "F"), (8554, "UCUM", "%"), (8840, "UCUM", "mg/dL"),
    (201820, "SNOMED", "73211009"), (201826, "SNOMED", "44054006"), (201254, "SNOMED", "46635009"),
    (320128, "SNOMED", "59621000"), (45533019, "ICD10CM", "E11"), (3004410, "LOINC", "4548-4"),
    (3027114, "LOINC", "2093-3"), (1503297, "RxNorm", "6809"), (9202, "Visit", "OP"), (9201, "Visit", "IP"),
    (4336464, "SNOMED", "232717009"), (4252419, "SNOMED", "14106009"), (4275495, "SNOMED", "365981007"),
)  # fmt: skip
"""Concept, vocabulary, code."""

ANCESTORS = ((201820, 201820), (201820, 201826), (201820, 201254), (201826, 201826), (201254, 201254))
"""Ancestor and descendant: both types of diabetes are diabetes."""

_TYPES = {pa.int64(): "bigint", pa.float64(): "numeric", pa.date32(): "date", pa.string(): "varchar"}
_FIRST, _LAST = (np.datetime64(day).astype(int) for day in ("2005-01-01", "2024-12-31"))


@dataclass(frozen=True, eq=False)
class Cdm:
    """A made-up CDM: its tables by name."""

    tables: Mapping[str, pa.Table] = field(repr=False)

    @staticmethod
    def of(people: int, seed: int, first: int = 1) -> Cdm:
        """So many people, numbered from `first` on with gaps; the same seed gives the same people."""
        rng = np.random.default_rng(seed)
        person = first + np.cumsum(rng.integers(1, 4, people))
        born = rng.integers(np.datetime64("1925-01-01").astype(int), np.datetime64("2004-12-31").astype(int), people)
        begin = rng.integers(_FIRST, _LAST - 400, people)
        end = np.minimum(begin + 30 + rng.exponential(2500, people).astype(np.int64), _LAST)
        age = (begin - born) / 365.25
        diabetic = rng.random(people) < 0.02 + 0.002 * age
        hypertensive = rng.random(people) < 0.05 + 0.004 * age
        died = rng.random(people) < 0.0008 * age
        twice, middle = rng.random(people) < 0.1, (begin + end) // 2
        again = middle + 1 + np.where(person % 2, (end - middle) // 2, 0)  # one period in two rows, or two with a gap
        date = born.astype("datetime64[D]")
        year = date.astype("datetime64[Y]")
        month = date.astype("datetime64[M]")
        who = {"person_id": person}
        tables = {
            "person": who | {
                "gender_concept_id": np.where(rng.random(people) < 0.5, 8507, 8532),
                "year_of_birth": year.astype(int) + 1970,
                "month_of_birth": month.astype(int) % 12 + 1,
                "day_of_birth": (date - month).astype(int) + 1,
            },
            "observation_period": {
                "person_id": np.concatenate([person, person[twice]]),
                "observation_period_start_date": _dates(np.concatenate([begin, again[twice]])),
                "observation_period_end_date": _dates(np.concatenate([np.where(twice, middle, end), end[twice]])),
            },
            "death": {"person_id": person[died], "death_date": _dates(end[died])},
        }  # fmt: skip

        def events(chosen: NDArray[np.bool_], most: int) -> tuple[NDArray[np.int64], pa.Array]:
            """Whose, and on which day within who is followed: up to `most` of each of the chosen."""
            at = np.repeat(np.flatnonzero(chosen), rng.integers(1, most + 1, int(chosen.sum())))
            return at, _dates(begin[at] + (rng.random(len(at)) * (end[at] - begin[at])).astype(np.int64))

        at, day = events(diabetic, 3)
        kind = np.where(rng.random(people) < 0.1, 201254, 201826)[at]
        more, when = events(hypertensive, 2)
        tables["condition_occurrence"] = {
            "person_id": np.concatenate([person[at], person[more]]),
            "condition_concept_id": np.concatenate([kind, np.full(len(more), 320128)]),
            "condition_source_concept_id": np.concatenate(
                [np.where(kind == 201826, 45533019, 0), np.zeros(len(more), int)]
            ),
            "condition_start_date": pa.concat_arrays([day, when]),
        }
        at, day = events(diabetic | (rng.random(people) < 0.1), 4)
        percent = np.round(np.clip(rng.normal(5.4 + 1.8 * diabetic[at], 0.8), 3.5, 15), 1)
        ifcc = rng.random(len(at)) < 0.3
        value = np.where(ifcc, np.round((percent - 2.152) / 0.09148), percent)
        lost = rng.random(len(at)) < 0.02
        tables["measurement"] = {
            "person_id": person[at],
            "measurement_concept_id": np.full(len(at), 3004410),
            "measurement_source_concept_id": np.zeros(len(at), int),
            "measurement_date": day,
            "value_as_number": pa.array(value, mask=lost),
            "unit_concept_id": np.where(ifcc, 0, 8554),
            "unit_source_value": pa.array(np.where(ifcc, "mmol/mol", "%")),
        }
        for table, column, concept, chosen, most in (
            ("drug_exposure", "drug_exposure_start_date", 1503297, diabetic & (rng.random(people) < 0.6), 5),
            ("visit_occurrence", "visit_start_date", 9202, rng.random(people) < 0.8, 6),
            ("procedure_occurrence", "procedure_date", 4336464, rng.random(people) < 0.01, 1),
            ("device_exposure", "device_exposure_start_date", 4252419, rng.random(people) < 0.01, 1),
            ("observation", "observation_date", 4275495, rng.random(people) < 0.2, 1),
        ):
            at, day = events(chosen, most)
            name = column.split("_", maxsplit=1)[0]
            tables[table] = {
                "person_id": person[at],
                f"{name}_concept_id": np.full(len(at), concept),
                f"{name}_source_concept_id": np.zeros(len(at), int),
                column: day,
            }
        none = pa.nulls(len(tables["observation"]["person_id"]))
        tables["observation"] |= {
            "value_as_number": none.cast(pa.float64()), "unit_concept_id": none.cast(pa.int64()),
            "unit_source_value": none.cast(pa.string()),
        }  # fmt: skip
        number, vocabulary, code = zip(*CONCEPTS, strict=True)
        tables["concept"] = {"concept_id": number, "vocabulary_id": vocabulary, "concept_code": code}
        above, below = zip(*ANCESTORS, strict=True)
        tables["concept_ancestor"] = {"ancestor_concept_id": above, "descendant_concept_id": below}
        release = datetime.date(2025, 1, 1) + datetime.timedelta(seed % 365)
        tables["cdm_source"] = {
            "cdm_source_name": ["made up"], "source_release_date": [release], "cdm_release_date": [release],
            "cdm_version": ["5.4"], "vocabulary_version": ["a dozen concepts"],
        }  # fmt: skip
        return Cdm({name: pa.table(dict(columns)) for name, columns in tables.items()})

    def copy_to(self, connection: psycopg.Connection[Any], schema: str) -> None:
        """Make the tables in a new schema of a PostgreSQL database, and fill them by COPY."""
        connection.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(schema)))
        for name, table in self.tables.items():
            where = sql.Identifier(schema, name)
            columns = [sql.SQL("{} {}").format(sql.Identifier(f.name), sql.SQL(_TYPES[f.type])) for f in table.schema]
            connection.execute(sql.SQL("CREATE TABLE {} ({})").format(where, sql.SQL(", ").join(columns)))
            lines = pa.BufferOutputStream()
            pyarrow.csv.write_csv(table, lines, pyarrow.csv.WriteOptions(include_header=False))
            with connection.cursor().copy(sql.SQL("COPY {} FROM STDIN (FORMAT csv)").format(where)) as copy:
                copy.write(lines.getvalue())
            connection.execute(sql.SQL("ANALYZE {}").format(where))

    def write_parquet(self, folder: Path) -> None:
        """One file a table."""
        for name, table in self.tables.items():
            pyarrow.parquet.write_table(table, folder / f"{name}.parquet")

    def write_csv(self, folder: Path) -> None:
        """One file a table, named in capitals as OHDSI's exports are."""
        for name, table in self.tables.items():
            pyarrow.csv.write_csv(table, folder / f"{name.upper()}.csv")

    def write_duckdb(self, path: Path, schema: str = "main") -> None:
        """One database."""
        import duckdb  # noqa: PLC0415  loaded where it is needed, as a node does

        with duckdb.connect(str(path)) as connection:
            if schema != "main":
                connection.execute(f"CREATE SCHEMA {schema}")
            for name, table in self.tables.items():
                connection.from_arrow(table).create(f"{schema}.{name}")


def _dates(days: NDArray[np.int64]) -> pa.Array:
    return pa.array(days.astype("datetime64[D]"))
