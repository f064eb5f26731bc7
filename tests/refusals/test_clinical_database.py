"""A real PostgreSQL under hostile texts and in bad order: nothing of a text reaches it but as a bound value, nothing is
changed, and what cannot be read is one clear error that says nothing of a cell."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pyarrow as pa
import pytest
import sqlalchemy as sa
from psycopg import sql

from fl_client.readers import Dataset, server
from fl_client.readers.omop import SHAPE
from fl_client.readers.server import Server
from simulations.omop import Cdm
from strategies.analysis import Range
from strategies.errors import DataError
from strategies.events import Code, Domain
from strategies.reasons import Reason
from strategies.study import Purpose, Study
from strategies.wire import Answered, Opened, Refused, pack_parts
from tests.postgresql import Server as Postgresql
from tests.references.test_clinical_server import ALLOWED, DIED, SITES, config, nodes, owner, schema, url
from tests.refusals.test_cohorts import INJECTED
from tests.refusals.test_malformed import CONDITION, HBA1C, read, says


def contents(connection: psycopg.Connection[Any], where: str) -> dict[str, str]:
    """A digest of all rows of each table of a schema, and the number of its tables."""
    found = connection.execute("SELECT table_name FROM information_schema.tables WHERE table_schema = %s", [where])
    out = {}
    for (name,) in found.fetchall():
        rows = sql.SQL("SELECT md5(string_agg(t::text, E'\\n' ORDER BY t::text)) FROM {} t").format(
            sql.Identifier(where, name)
        )
        out[name] = str(connection.execute(rows).fetchone())
    return out


@pytest.fixture
def said(postgresql: Postgresql) -> Iterator[Any]:
    """All statements and their parameters that the server saw so far, as it logs them."""
    log = postgresql.socket / "server.log"
    with owner(postgresql) as connection:
        for value in ("all", "none"):
            connection.execute(sql.SQL("ALTER SYSTEM SET log_statement = {}").format(value))
            connection.execute("SELECT pg_reload_conf()")
            if value == "all":
                yield lambda: log.read_text(encoding="utf-8", errors="replace")
        connection.execute("ALTER SYSTEM RESET log_statement")
        connection.execute("SELECT pg_reload_conf()")


def test_no_text_of_a_study_reaches_the_database(postgresql: Postgresql, said: Any, quick_path: Path) -> None:
    """Each of over a hundred cohorts that are none is refused with its code at a node whose people are in PostgreSQL,
    under a role that cannot write; the database sees none of them and stays as it is. The same document with a
    condition in the same place is opened and answered."""
    assert len(set(INJECTED)) >= 100
    columns = {name: Range.from_plain(raw, name) for name, raw in ALLOWED.items()}
    asked = Study("five CDMs", Purpose.SCIENTIFIC_RESEARCH, "GRCh38", 3, columns, {}, (DIED,))
    with nodes(postgresql, 1000, quick_path) as (tiny, _, _), owner(postgresql) as connection:
        plain = json.loads(asked.document)
        plain["question"][0]["cohort"] = "some"
        before = contents(connection, "AT")
        assert len(before) > 10
        start = len(said())
        for number, text in enumerate(INJECTED):
            body = json.dumps(plain | {"cohorts": {"some": {"where": [text]}}}).encode()
            pen = tiny.pen(asked, f"session-{number}")
            request = pen.opening(pack_parts([body]), study=hashlib.sha256(body).hexdigest())
            header = tiny.read("AT", tiny.gates["AT"].answer(request)).header
            assert isinstance(header, Refused), ascii(text)
            assert header.reason is Reason.STUDY_INVALID, (ascii(text), header.reason)
        assert len(said()) == start, "a statement was sent"
        assert contents(connection, "AT") == before
        body = plain | {"cohorts": {"some": {"where": ["sex = female"]}}}
        meant = Study.from_document(json.dumps(body, sort_keys=True, separators=(",", ":")).encode(), {})
        pen = tiny.pen(meant, "meant").open(SITES)
        assert isinstance(tiny.read("AT", pen.certificates["AT"]).header, Opened)
        assert isinstance(tiny.read("AT", tiny.gates["AT"].answer(pen.ask("died", roster=SITES))).header, Answered)
        assert "pg_current_snapshot" in said()[start:]
        assert contents(connection, "AT") == before


STORABLE = [text for text in dict.fromkeys(INJECTED) if text and "\0" not in text]
"""PostgreSQL's texts have no NUL."""


def test_such_a_text_as_a_code_is_that_code(postgresql: Postgresql) -> None:
    """They are the codes of a vocabulary, and each finds its own record and nothing else."""
    cdm = Cdm.of(len(STORABLE), seed=4)
    person = cdm.tables["person"]["person_id"].to_numpy()
    codes = np.arange(len(STORABLE)) + 5000
    tables = {
        "concept": {
            "concept_id": codes, "vocabulary_id": ["Hostile"] * len(codes), "concept_code": STORABLE,
        },
        "condition_occurrence": {
            "person_id": person, "condition_concept_id": codes, "condition_source_concept_id": codes * 0,
            "condition_start_date": pa.array([0] * len(codes), pa.date32()),
        },
    }  # fmt: skip
    cdm = Cdm({**cdm.tables, **{name: pa.table(columns) for name, columns in tables.items()}})
    assert len(STORABLE) >= 100
    with owner(postgresql) as connection, schema(connection, cdm, "strings") as role:
        before = contents(connection, "strings")
        clinical = Dataset.open(config(postgresql, omop=url(postgresql, role), schema="strings"), Path()).clinical
        assert clinical is not None
        for at, text in enumerate(STORABLE):
            code = Code("Hostile", text)
            assert clinical.events(Domain.CONDITION, (code,)).person.tolist() == [at], ascii(text)
            assert code in clinical.names(code)
            with pytest.raises(DataError):
                clinical.events(Domain.CONDITION, (Code(text, "1"),))
        with pytest.raises(DataError) as error:
            clinical.events(Domain.CONDITION, (Code("Hostile", "a\0b"),))
        says(error, "NUL")
        assert contents(connection, "strings") == before


# --- a database in bad order ------------------------------------------------------------------------------------------

WHERE = "bad_order"

SPOILT = {
    "identifiers are texts": (
        "ALTER TABLE person ALTER person_id TYPE text USING '5EC2ET' || person_id", "its column's",
    ),
    "identifiers are texts of digits": ("ALTER TABLE person ALTER person_id TYPE text", "its column's"),
    "an identifier is a fraction": (
        "ALTER TABLE person ALTER person_id TYPE numeric USING person_id + 0.25", "its column's",
    ),
    "an identifier is endless": (
        "ALTER TABLE person ALTER person_id TYPE numeric; UPDATE person SET person_id = 'Infinity' "
        "WHERE person_id = (SELECT min(person_id) FROM person)",
        "its column's",
    ),
    "days are written otherwise": (
        "ALTER TABLE death ALTER death_date TYPE text USING to_char(death_date, 'DD.MM.YYYY')", "its column's",
    ),
    "days are American": (
        "ALTER TABLE condition_occurrence ALTER condition_start_date TYPE text "
        "USING to_char(condition_start_date, 'MM/DD/YYYY')", "its column's",
    ),
    "a day is none": ("UPDATE observation_period SET observation_period_end_date = 'infinity'", "its column's"),
    "results are texts": (
        "ALTER TABLE measurement ALTER value_as_number TYPE text USING '5EC2ET' || value_as_number", "its column's",
    ),
    "concepts are texts": (
        "ALTER TABLE condition_occurrence ALTER condition_concept_id TYPE text", "operator does not exist",
    ),
    "a column is gone": ("ALTER TABLE measurement DROP value_as_number", "no column value_as_number"),
    "a column of everybody's is gone": ("ALTER TABLE person DROP year_of_birth", "no column year_of_birth"),
    "a table is gone": ("DROP TABLE condition_occurrence", "no table condition_occurrence"),
    "a permission is lacking": ("REVOKE SELECT ON measurement FROM reader_bad_order", "permission denied for table"),
    "the schema is closed": ("REVOKE USAGE ON SCHEMA bad_order FROM reader_bad_order", "permission denied for schema"),
    "people are there twice": ("INSERT INTO person SELECT * FROM person", "60 more than once"),
}  # fmt: skip


@pytest.fixture
def bad_order(postgresql: Postgresql) -> Iterator[psycopg.Connection[Any]]:
    with owner(postgresql) as connection, schema(connection, Cdm.of(60, seed=2), WHERE):
        connection.execute("SET search_path TO bad_order")
        yield connection


def opened(postgresql: Postgresql) -> Dataset:
    return Dataset.open(config(postgresql, omop=url(postgresql, f"reader_{WHERE}"), schema=WHERE), Path())


@pytest.mark.parametrize("name", SPOILT)
def test_what_cannot_be_read_is_said(name: str, postgresql: Postgresql, bad_order: psycopg.Connection[Any]) -> None:
    statement, found = SPOILT[name]
    bad_order.execute(statement)
    with pytest.raises(DataError) as error:
        read(opened(postgresql), CONDITION, HBA1C)
    says(error, found)
    assert "/20" not in error.value.found


SAME = {
    "identifiers are decimals": "ALTER TABLE person ALTER person_id TYPE numeric",
    "months are floats": "ALTER TABLE person ALTER month_of_birth TYPE double precision",
    "days are timestamps with a zone": (
        "SET TIME ZONE 'UTC'; ALTER TABLE condition_occurrence ALTER condition_start_date TYPE timestamptz "
        "USING condition_start_date + interval '30 minutes'; ALTER ROLE reader_bad_order SET TimeZone = 'America/Lima'"
    ),
    "people are a view": "ALTER TABLE person RENAME TO everybody; CREATE VIEW person AS SELECT * FROM everybody; "
    "GRANT SELECT ON person TO reader_bad_order",
    "results are in partitions": "ALTER TABLE measurement RENAME TO whole; CREATE TABLE measurement (LIKE whole) "
    "PARTITION BY HASH (person_id); "
    "CREATE TABLE half PARTITION OF measurement FOR VALUES WITH (MODULUS 2, REMAINDER 0); "
    "CREATE TABLE other PARTITION OF measurement FOR VALUES WITH (MODULUS 2, REMAINDER 1); "
    "INSERT INTO measurement SELECT * FROM whole; GRANT SELECT ON measurement TO reader_bad_order",
}


@pytest.mark.parametrize("name", SAME)
def test_what_says_the_same_is_read_as_the_same(
    name: str, postgresql: Postgresql, bad_order: psycopg.Connection[Any]
) -> None:
    one = opened(postgresql)
    assert one.clinical is not None
    want = [one.clinical.events(*asked) for asked in (CONDITION, HBA1C)]
    bad_order.execute(SAME[name])
    other = opened(postgresql)
    assert other.people == one.people
    assert other.clinical is not None
    np.testing.assert_array_equal(other.clinical.born, one.clinical.born)
    for asked, events in zip((CONDITION, HBA1C), want, strict=True):
        got = other.clinical.events(*asked)
        assert len(got)
        np.testing.assert_array_equal(got.day, events.day)
        np.testing.assert_array_equal(got.value, events.value)
        assert got.ucum == events.ucum
    other.assert_unchanged()


def test_a_row_of_a_view_that_comes_is_noticed(postgresql: Postgresql, bad_order: psycopg.Connection[Any]) -> None:
    bad_order.execute(SAME["people are a view"])
    data = opened(postgresql)
    bad_order.execute("INSERT INTO everybody SELECT person_id + 10000, 8507, 1950, 1, 1 FROM everybody LIMIT 1")
    with pytest.raises(DataError) as error:
        data.assert_unchanged()
    says(error, "bad_order.person changed since it was opened")
    assert opened(postgresql).digest != data.digest


def test_a_connection_that_is_lost_while_rows_come(
    postgresql: Postgresql, bad_order: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    store, own = Server.open(url(postgresql, f"reader_{WHERE}"), WHERE, SHAPE, 60), server.array
    batches = []

    def cut(kind: Any, values: Any) -> Any:
        if not batches:
            bad_order.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'reader_bad_order'"
            )
        batches.append(len(values))
        return own(kind, values)

    rows = sa.select(sa.cast(sa.func.generate_series(1, 10**6), sa.Text))
    monkeypatch.setattr(server, "array", cut)
    with pytest.raises(DataError) as error:
        store.rows(rows)
    monkeypatch.undo()
    assert 0 < sum(batches) < 10**6
    says(error, "terminat")
    assert len(store.rows(rows)[0]) == 10**6, "the next question connects anew"
    store.assert_unchanged()
