"""An OMOP CDM on a real PostgreSQL: read by a role that cannot write, and the same as the same CDM in files."""

from __future__ import annotations

import gc
import resource
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import psycopg
import pytest
import sqlalchemy as sa
import statsmodels.api as sm
import tomli_w
from psycopg import sql
from sklearn.metrics import roc_auc_score

from fl_client.readers import Dataset, DatasetConfig
from fl_client.readers.omop import SHAPE
from fl_client.readers.server import Server
from simulations.omop import Cdm
from strategies.analyses.discrimination import Discrimination
from strategies.analysis import Frame, Needs, Range
from strategies.errors import DataError, UsageError
from strategies.events import Code, Domain
from strategies.question import Question
from strategies.reasons import Reason
from strategies.study import Purpose, Study
from strategies.wire import Answered, Opened, Refused
from tests.postgresql import Server as Postgresql
from tests.references.test_sources import ASKED, DIABETES, assert_followed, same, says, with_periods
from tests.tiny import POLICY, Tiny

PEOPLE = 20_000


def owner(server: Postgresql) -> psycopg.Connection[Any]:
    return psycopg.connect(host=str(server.socket), user=server.user, dbname="postgres", autocommit=True)


def url(server: Postgresql, role: str = "reader") -> str:
    return f"postgresql+psycopg://{role}@/postgres?host={server.socket}"


@pytest.fixture(scope="module")
def cdm() -> Cdm:
    return Cdm.of(PEOPLE, seed=11)


@pytest.fixture(scope="module")
def loaded(postgresql: Postgresql, cdm: Cdm) -> Iterator[Postgresql]:
    """The CDM in a schema that the role `reader` may read."""
    with owner(postgresql) as connection:
        cdm.copy_to(connection, "cdm54")
        connection.execute("CREATE ROLE reader LOGIN")
        connection.execute("GRANT USAGE ON SCHEMA cdm54 TO reader")
        connection.execute("GRANT SELECT ON ALL TABLES IN SCHEMA cdm54 TO reader")
        yield postgresql
        connection.execute("DROP SCHEMA cdm54 CASCADE")
        connection.execute("DROP OWNED BY reader")
        connection.execute("DROP ROLE reader")


def config(server: Postgresql, **change: Any) -> DatasetConfig:
    return replace(DatasetConfig("T", "GRCh38", omop=url(server), schema="cdm54"), **change)


def test_a_server_gives_what_files_give(loaded: Postgresql, cdm: Cdm, tmp_path: Path) -> None:
    cdm.write_parquet(tmp_path)
    files = Dataset.open(DatasetConfig("T", "GRCh38", omop="."), tmp_path)
    server = Dataset.open(config(loaded), tmp_path)
    assert len(server.people) == PEOPLE
    assert server.people == files.people
    for name, values in files.table.parsed.items():
        np.testing.assert_array_equal(server.table.parsed[name], values)
    assert server.clinical is not None
    assert files.clinical is not None
    for dates in ("born", "died", "followed"):
        np.testing.assert_array_equal(getattr(server.clinical, dates), getattr(files.clinical, dates))
    for asked in ASKED.values():
        same(server.clinical.events(*asked), files.clinical.events(*asked))
    assert len(server.clinical.events(Domain.CONDITION, DIABETES)) > 2000
    assert server.digest == Dataset.open(config(loaded), tmp_path).digest


def test_a_person_is_followed_within_one_period_here_too(postgresql: Postgresql) -> None:
    cdm = with_periods(Cdm.of(400, seed=8))
    with owner(postgresql) as connection, schema(connection, cdm, "periods") as role:
        assert_followed(Dataset.open(config(postgresql, omop=url(postgresql, role), schema="periods"), Path()), cdm)


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO cdm54.death VALUES (1, '2020-01-01')", "UPDATE cdm54.person SET year_of_birth = 1900",
        "DELETE FROM cdm54.person", "TRUNCATE cdm54.person", "CREATE TABLE cdm54.x (a int)", "DROP TABLE cdm54.person",
        "CREATE TEMPORARY TABLE x (a int)", "SELECT * INTO cdm54.y FROM cdm54.person", "COPY cdm54.person TO '/tmp/x'",
    ],
)  # fmt: skip
def test_nothing_can_be_written_through_the_node_s_own_connection(statement: str, loaded: Postgresql) -> None:
    store = Server.open(url(loaded), "cdm54", SHAPE, 60)
    with store._engine.connect() as connection, pytest.raises(sa.exc.DBAPIError) as error:
        connection.exec_driver_sql(statement)
    assert isinstance(error.value.orig, psycopg.errors.ReadOnlySqlTransaction | psycopg.errors.InsufficientPrivilege)
    with psycopg.connect(host=str(loaded.socket), user="reader", dbname="postgres") as plain:  # nor as that role at all
        plain.execute("SET SESSION CHARACTERISTICS AS TRANSACTION READ WRITE")
        if "TEMPORARY" not in statement:
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                plain.execute(statement)


GRANTS = {
    "may insert": ("GRANT INSERT ON cdm54.measurement TO writer", "measurement"),
    "may update a column": ("GRANT UPDATE (year_of_birth) ON cdm54.person TO writer", "person"),
    "may delete": ("GRANT DELETE ON cdm54.death TO writer", "death"),
    "may make tables": ("GRANT CREATE ON SCHEMA cdm54 TO writer", "new tables in cdm54"),
    "is the owner": ("ALTER TABLE cdm54.death OWNER TO writer", "death"),
}


@pytest.mark.parametrize("name", [*GRANTS, "is the superuser"])
def test_a_role_that_can_write_is_refused(name: str, loaded: Postgresql, tmp_path: Path) -> None:
    with owner(loaded) as connection:
        connection.execute("CREATE ROLE writer LOGIN IN ROLE reader")
        try:
            role, found = "writer", "person"
            if name in GRANTS:
                statement, found = GRANTS[name]
                Dataset.open(config(loaded, omop=url(loaded, role)), tmp_path)
                connection.execute(statement)
            else:
                role, found = loaded.user, "cdm_source"
            with pytest.raises(DataError) as error:
                Dataset.open(config(loaded, omop=url(loaded, role)), tmp_path)
            says(error, "as a role that cannot write there", f"it may write {found}")
        finally:
            connection.execute(sql.SQL("REASSIGN OWNED BY writer TO {}").format(sql.Identifier(loaded.user)))
            connection.execute("DROP OWNED BY writer")
            connection.execute("DROP ROLE writer")


def test_a_statement_that_takes_too_long_is_given_up(loaded: Postgresql) -> None:
    store = Server.open(url(loaded), "cdm54", SHAPE, 1)
    began = time.monotonic()
    with pytest.raises(DataError) as error:
        store.rows(sa.select(sa.cast(sa.func.pg_sleep(60), sa.Text)))
    says(error, "each statement within the timeout", "statement timeout")
    assert time.monotonic() - began < 30


def test_what_is_not_read_need_not_be_readable(postgresql: Postgresql, loaded: Postgresql, cdm: Cdm) -> None:
    """Least privilege: a role with the columns of `SHAPE` and no others is enough."""
    with owner(postgresql) as connection:
        connection.execute("CREATE ROLE narrow LOGIN")
        connection.execute("GRANT USAGE ON SCHEMA cdm54 TO narrow")
        connection.execute("ALTER TABLE cdm54.person ADD person_source_value text DEFAULT 'a name'")
        try:
            for table, columns in ((name, SHAPE[name]) for name in SHAPE if name in cdm.tables):
                there = set(cdm.tables[table].column_names)
                names = sql.SQL(", ").join(sql.Identifier(c) for c in columns if c in there)
                where = sql.Identifier("cdm54", table)
                connection.execute(sql.SQL("GRANT SELECT ({}) ON {} TO narrow").format(names, where))
            data = Dataset.open(config(loaded, omop=url(loaded, "narrow")), Path())
            assert data.clinical is not None
            assert len(data.clinical.events(*ASKED["HbA1c"])) > 1000
            data.assert_unchanged()
        finally:
            connection.execute("ALTER TABLE cdm54.person DROP person_source_value")
            connection.execute("DROP OWNED BY narrow")
            connection.execute("DROP ROLE narrow")


CHANGES = {
    "a person comes": "INSERT INTO {s}.person SELECT max(person_id) + 1, 8507, 1950, 1, 1 FROM {s}.person",
    "a person goes": "DELETE FROM {s}.person WHERE person_id = (SELECT min(person_id) FROM {s}.person)",
    "an event comes": "INSERT INTO {s}.measurement SELECT * FROM {s}.measurement LIMIT 1",
    "a value changes in place": "UPDATE {s}.measurement SET value_as_number = 5 WHERE ctid = '(0,1)'",
    "one goes and another comes": "WITH gone AS (DELETE FROM {s}.death WHERE ctid = '(0,1)' RETURNING *) "
    "INSERT INTO {s}.death SELECT * FROM gone",
    "a release": "UPDATE {s}.cdm_source SET cdm_release_date = '2030-01-01'",
}


@contextmanager
def schema(connection: psycopg.Connection[Any], cdm: Cdm, name: str) -> Iterator[str]:
    """A CDM in a schema of its own, and the role that may read it."""
    where, role = sql.Identifier(name), sql.Identifier(f"reader_{name}")
    cdm.copy_to(connection, name)
    connection.execute(sql.SQL("CREATE ROLE {} LOGIN").format(role))
    connection.execute(sql.SQL("GRANT USAGE ON SCHEMA {} TO {}").format(where, role))
    connection.execute(sql.SQL("GRANT SELECT ON ALL TABLES IN SCHEMA {} TO {}").format(where, role))
    try:
        yield f"reader_{name}"
    finally:
        connection.execute(sql.SQL("DROP SCHEMA {} CASCADE").format(where))
        connection.execute(sql.SQL("DROP OWNED BY {}").format(role))
        connection.execute(sql.SQL("DROP ROLE {}").format(role))


@pytest.fixture
def small(postgresql: Postgresql) -> Iterator[Callable[[str], None]]:
    """A CDM in the schema `small`, and a way to change it."""
    with owner(postgresql) as connection, schema(connection, Cdm.of(200, seed=1), "small"):
        yield lambda statement: void(connection.execute(statement))


def void(_: object) -> None: ...


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_under_way_is_noticed(name: str, postgresql: Postgresql, small: Callable[[str], None]) -> None:
    where = config(postgresql, omop=url(postgresql, "reader_small"), schema="small")
    data = Dataset.open(where, Path())
    frame = Frame(None, {"sex": Range.of("female", "male")})
    data.cohort(Needs(("sex",)), frame)
    small("CREATE TABLE public.unrelated AS SELECT 1 AS x")  # transactions elsewhere are no change
    try:
        data.cohort(Needs(("sex",)), frame)
    finally:
        small("DROP TABLE public.unrelated")
    small(CHANGES[name].format(s="small"))
    with pytest.raises(DataError) as error:
        data.cohort(Needs(("sex",)), frame)
    says(error, "tables of an open data set stay as they are", "changed since it was opened")
    again = Dataset.open(where, Path())
    again.assert_unchanged()
    # Told apart for good: releases, people, counts. A value that changed in place needs a new release to be.
    assert (again.digest != data.digest) == (name not in ("a value changes in place", "one goes and another comes"))


def test_codes_are_bound_by_the_server(loaded: Postgresql) -> None:
    clinical = Dataset.open(config(loaded), Path()).clinical
    assert clinical is not None
    for text in ("' OR '1'='1", "x'; DROP TABLE cdm54.person; --", "$1", "%s", "%(x)s", "44054006'"):
        assert len(clinical.events(Domain.CONDITION, (Code("SNOMED", text),))) == 0
        with pytest.raises(DataError):
            clinical.events(Domain.CONDITION, (Code(text, "1"),))


@pytest.mark.parametrize(
    ("change", "rule", "found"),
    [
        ({"schema": "nowhere"}, "has a table `person`", "schema 'nowhere'"),
        ({"omop": "postgresql+psycopg://nobody@/postgres?host={socket}"}, "can be reached and read", "nobody"),
        ({"omop": "postgresql+psycopg://reader@/nothing?host={socket}"}, "can be reached and read", "nothing"),
        ({"omop": "postgresql+psycopg://reader@/postgres?host=/nowhere"}, "can be reached and read", "/nowhere"),
    ],
)
def test_a_database_that_is_none(change: dict[str, str], rule: str, found: str, loaded: Postgresql) -> None:
    with pytest.raises(DataError) as error:
        Dataset.open(config(loaded, **{k: v.format(socket=loaded.socket) for k, v in change.items()}), Path())
    says(error, rule, found)


@pytest.mark.parametrize(
    ("where", "found"),
    [
        ("postgresql+psycopg://a:secret@h/d", "omop names one"),
        ("postgresql+psycopg://a@h/d?password=secret", "omop names one"),
        ("postgresql://a@h/d", "omop is something else"),
    ],
)
def test_a_password_does_not_stand_in_a_node_s_file(where: str, found: str) -> None:
    with pytest.raises(UsageError) as error:
        Dataset.open(DatasetConfig("T", "GRCh38", omop=where), Path())
    assert found in str(error.value)
    assert "secret" not in str(error.value)


# --- five nodes with a schema each, as one study sees them ------------------------------------------------------------

SITES = ("AT", "BE", "CY", "DK", "EE")
DIED = Question("died", Discrimination("age_at_end", "died", ("sex",), lowest=0.0, highest=130.0, bins=1300))
ALLOWED = {
    "age_at_end": {"range": [0, 130], "unit": "a"},
    "sex": {"categories": ["female", "male"]},
    "died": {"categories": ["no", "yes"]},
}


@contextmanager
def nodes(server: Postgresql, people: int, folder: Path) -> Iterator[tuple[Tiny, list[Cdm], dict[str, float]]]:
    """A federation of five nodes over a schema each, so many people together, and the seconds that it took."""
    cdms = [Cdm.of(people // len(SITES), seed=100 + k, first=10**8 * k) for k in range(len(SITES))]
    seconds = {}
    with owner(server) as connection:
        began = time.perf_counter()
        for site, cdm in zip(SITES, cdms, strict=True):
            cdm.copy_to(connection, site)
            connection.execute(sql.SQL("CREATE ROLE {} LOGIN").format(role := sql.Identifier(f"node_{site}")))
            where = sql.Identifier(site)
            connection.execute(sql.SQL("GRANT USAGE ON SCHEMA {} TO {}").format(where, role))
            connection.execute(sql.SQL("GRANT SELECT ON ALL TABLES IN SCHEMA {} TO {}").format(where, role))
        seconds["load by COPY"] = time.perf_counter() - began
        policy = POLICY | {"columns": ALLOWED, "minimum_cell": 5}
        sites = {
            site: {
                "country": site,
                "dataset": {
                    "identifier": f"OMOP-{site}", "assembly": "GRCh38", "synthetic": True, "schema": site,
                    "omop": url(server, f"node_{site}"),
                },
            }
            for site in SITES
        }  # fmt: skip
        (folder / "sites.toml").write_text(tomli_w.dumps({"policy": policy, "sites": sites}))
        try:
            began = time.perf_counter()
            tiny = Tiny.of(folder, folder / "nodes")
            seconds["open five nodes"] = time.perf_counter() - began
            try:
                yield tiny, cdms, seconds
            finally:
                tiny.close()
                for gate in tiny.gates.values():
                    gate.dataset = None
        finally:
            gc.collect()
            for site in SITES:
                connection.execute(sql.SQL("DROP SCHEMA {} CASCADE").format(sql.Identifier(site)))
                role = sql.Identifier(f"node_{site}")
                connection.execute(sql.SQL("DROP OWNED BY {}").format(role))
                connection.execute(sql.SQL("DROP ROLE {}").format(role))


def pooled(cdms: list[Cdm]) -> pd.DataFrame:
    """Age at the end of observation, sex and death of all people, by pandas."""
    parts = []
    for cdm in cdms:
        person, period, death = (cdm.tables[n].to_pandas() for n in ("person", "observation_period", "death"))
        born = pd.to_datetime(pd.DataFrame({part: person[f"{part}_of_birth"] for part in ("year", "month", "day")}))
        last = period.groupby("person_id").observation_period_end_date.max()
        end = pd.to_datetime(last.reindex(person.person_id))
        parts.append(pd.DataFrame({
            "male": person.gender_concept_id == 8507,
            "age": (end.to_numpy() - born.to_numpy()) / np.timedelta64(1, "D") / 365.25,
            "died": person.person_id.isin(death.person_id),
        }))  # fmt: skip
    return pd.concat(parts, ignore_index=True).astype(float)


def ask(tiny: Tiny, folder: Path) -> Mapping[str, float | int | str]:
    columns = {name: Range.from_plain(raw, name) for name, raw in ALLOWED.items()}
    asked = Study("five CDMs", Purpose.SCIENTIFIC_RESEARCH, "GRCh38", 3, columns, {}, (DIED,))
    (result,) = tiny.conductor(asked, folder / "run").run()
    return result.answer.facts


def assert_pooled(facts: Mapping[str, float | int | str], whole: pd.DataFrame) -> None:
    model = sm.Logit(whole.died, sm.add_constant(whole[["male", "age"]])).fit(disp=0)
    assert facts["cases"] == whole.died.sum()
    assert facts["controls"] == (1 - whole.died).sum()
    want = model.params["age"] * whole.age.std(ddof=0), model.bse["age"] * whole.age.std(ddof=0)
    got = facts["log_odds_per_standard_deviation"], facts["standard_error"]
    np.testing.assert_allclose(np.array(got, dtype=float), want, rtol=1e-6)
    area = roc_auc_score(whole.died, whole.age)
    assert float(facts["area_low"]) <= area <= float(facts["area_high"])


def test_a_question_over_five_cdms_is_the_pooled_answer(postgresql: Postgresql, quick_path: Path) -> None:
    with nodes(postgresql, PEOPLE, quick_path) as (tiny, cdms, _):
        assert_pooled(ask(tiny, quick_path), pooled(cdms))


def test_a_node_whose_cdm_changed_or_may_be_written_answers_nothing(postgresql: Postgresql, quick_path: Path) -> None:
    with nodes(postgresql, 500, quick_path) as (tiny, _, _), owner(postgresql) as connection:
        columns = {name: Range.from_plain(raw, name) for name, raw in ALLOWED.items()}
        asked = Study("five CDMs", Purpose.SCIENTIFIC_RESEARCH, "GRCh38", 3, columns, {}, (DIED,))
        pen = tiny.pen(asked).open(SITES)
        request = pen.ask("died", roster=SITES)
        connection.execute('DELETE FROM "AT".visit_occurrence')
        refused = tiny.read("AT", tiny.gates["AT"].answer(request)).header
        assert isinstance(refused, Refused)
        assert refused.reason is Reason.DATASET_UNAVAILABLE
        assert isinstance(tiny.read("BE", tiny.gates["BE"].answer(request)).header, Answered)
        connection.execute('GRANT INSERT ON "BE".death TO "node_BE"')
        tiny.restart("BE")
        assert tiny.gates["BE"].dataset is None
        other = tiny.pen(asked, "session-2")
        header = tiny.read("BE", tiny.gates["BE"].answer(other.opening())).header
        assert isinstance(header, Opened)
        assert header.refuses == {"died": Reason.DATASET_UNAVAILABLE}


@pytest.mark.proof
def test_a_million_people_in_five_databases(postgresql: Postgresql, quick_path: Path) -> None:
    with nodes(postgresql, 1_000_000, quick_path) as (tiny, cdms, seconds):
        rows = sum(len(table) for cdm in cdms for table in cdm.tables.values())
        began = time.perf_counter()
        facts = ask(tiny, quick_path)
        seconds["question"] = time.perf_counter() - began
        clinical = [gate.dataset.clinical for gate in tiny.gates.values() if gate.dataset is not None]
        began = time.perf_counter()
        found = sum(len(one.events(*ASKED["HbA1c"])) for one in clinical if one is not None)
        seconds[f"{found:,} HbA1c of five nodes"] = time.perf_counter() - began
        assert_pooled(facts, pooled(cdms))
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    print(f"\n1,000,000 people, {rows:,} rows, 5 schemas of one PostgreSQL")
    print("".join(f"{what:<32}{taken:8.1f} s\n" for what, taken in seconds.items()), f"peak memory {peak} MB", sep="")
