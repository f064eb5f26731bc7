"""People and events of an OMOP CDM 5.4, by one set of statements for every database that holds one."""

from __future__ import annotations

import datetime
import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from types import MappingProxyType
from typing import Any

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray

from fl_client.readers.calls import shown
from fl_client.readers.events import MOST_EVENTS, NEVER, Events, Periods, ordered, too_many
from fl_client.readers.store import Store, mistyped
from fl_client.readers.variables import Variable
from strategies.errors import DataError
from strategies.events import Code, Domain
from strategies.selection import Event

FEMALE, MALE = 8532, 8507
"""OMOP's concepts of gender."""

_EPOCH = datetime.date(1970, 1, 1)
_MOST_DAYS = 3_000_000
"""More than from 1970-01-01 to 9999-12-31, or to the year 1."""

_NUMBER, _TEXT, _DATE = sa.BigInteger(), sa.String(), sa.Date()
_VALUE: sa.Double[float] = sa.Double()


@dataclass(frozen=True)
class _Where:
    """Where a domain's events stand: its table, the columns of the concept and of the day, and whether they have a
    value and a unit."""

    table: str
    concept: str
    day: str
    measured: bool = False

    @property
    def source(self) -> str:
        """The column of the concept in the source's own vocabulary."""
        return self.concept.replace("_concept_id", "_source_concept_id")


_DOMAINS: Mapping[Domain, _Where] = {
    Domain.CONDITION: _Where("condition_occurrence", "condition_concept_id", "condition_start_date"),
    Domain.DRUG: _Where("drug_exposure", "drug_concept_id", "drug_exposure_start_date"),
    Domain.PROCEDURE: _Where("procedure_occurrence", "procedure_concept_id", "procedure_date"),
    Domain.MEASUREMENT: _Where("measurement", "measurement_concept_id", "measurement_date", True),
    Domain.OBSERVATION: _Where("observation", "observation_concept_id", "observation_date", True),
    Domain.VISIT: _Where("visit_occurrence", "visit_concept_id", "visit_start_date"),
    Domain.DEVICE: _Where("device_exposure", "device_concept_id", "device_exposure_start_date"),
}


def _columns(where: _Where) -> dict[str, sa.types.TypeEngine[Any]]:
    out: dict[str, sa.types.TypeEngine[Any]] = dict.fromkeys(("person_id", where.concept, where.source), _NUMBER)
    out[where.day] = _DATE
    if where.measured:
        out |= {"value_as_number": _VALUE, "unit_concept_id": _NUMBER, "unit_source_value": _TEXT}
    return out


SHAPE: Mapping[str, Mapping[str, sa.types.TypeEngine[Any]]] = {
    "person": {
        "person_id": _NUMBER, "gender_concept_id": _NUMBER, "year_of_birth": _NUMBER, "month_of_birth": _NUMBER,
        "day_of_birth": _NUMBER,
    },
    "observation_period": {
        "person_id": _NUMBER, "observation_period_start_date": _DATE, "observation_period_end_date": _DATE,
    },
    "death": {"person_id": _NUMBER, "death_date": _DATE},
    **{where.table: _columns(where) for where in _DOMAINS.values()},
    "concept": {"concept_id": _NUMBER, "vocabulary_id": _TEXT, "concept_code": _TEXT},
    "concept_ancestor": {"ancestor_concept_id": _NUMBER, "descendant_concept_id": _NUMBER},
    "concept_relationship": {"concept_id_1": _NUMBER, "concept_id_2": _NUMBER, "relationship_id": _TEXT},
    "cdm_source": {
        "cdm_source_name": _TEXT, "source_release_date": _TEXT, "cdm_release_date": _TEXT, "cdm_version": _TEXT,
        "vocabulary_version": _TEXT,
    },
}  # fmt: skip
"""All that is ever read of a CDM: its tables, their columns and types."""

_OPTIONAL = {"unit_concept_id", "unit_source_value"}
"""Columns that a table of results need not have."""

VARIABLES: Mapping[str, Variable] = MappingProxyType(
    {
        "sex": Variable(categories=("female", "male"), meaning="sex, as OMOP's gender concept has it", minimal="sex"),
        "year_of_birth": Variable(range=(1850, 2100), meaning="calendar year of birth", minimal="year of birth"),
        "died": Variable(categories=("no", "yes"), meaning="whether a death is recorded", minimal="vital status"),
        "age_at_start": Variable(range=(0, 130), unit="a", meaning="age on the first observed day"),
        "age_at_end": Variable(range=(0, 130), unit="a", meaning="age on the last observed day"),
        "followed": Variable(
            range=(0, 50000), unit="d", meaning="days from the first observed day to the last, gaps included"
        ),
    }
)
"""What every CDM offers without a declaration."""


@dataclass(frozen=True, eq=False)
class Omop:
    """N people of a CDM and, on demand, their events. It is a `Clinical`.

    Attributes:
        store: where the tables are.
        persons: (N,) identifiers, ascending.
        born, died, followed, periods: as of `Clinical`. Where the month of birth is unknown it is July, where the day
            is, the 15th.
        gender: (N,) OMOP concepts.
    """

    store: Store = field(repr=False)
    persons: NDArray[np.int64] = field(repr=False)
    born: NDArray[np.int64] = field(repr=False)
    died: NDArray[np.int64] = field(repr=False)
    periods: Periods = field(repr=False)
    gender: NDArray[np.int64] = field(repr=False)
    _year: NDArray[np.int64] = field(repr=False)

    @staticmethod
    def open(store: Store, leave_out: Collection[str] = frozenset()) -> Omop:
        """Read who is there, but for some.

        Raises:
            DataError: if there is no such CDM, two rows are of one person, or somebody who is to be left out is not
                there.
        """
        columns = SHAPE["person"]
        _has_columns(store, "person", columns)
        person = _table(store, "person")
        persons, gender, year, month, day = store.rows(sa.select(*(person.c[name] for name in columns)))
        order = np.argsort(persons, kind="stable")
        persons = persons[order]
        if (persons == NEVER).any() or (np.diff(persons) == 0).any():
            raise DataError(
                "The people of a CDM are distinct.",
                f"{store.name}: {len(persons) - len(np.unique(persons))} more than once, or without person_id",
                "restore the primary key of `person`.",
            )
        named = {str(who) for who in persons.tolist()} if leave_out else set()
        if unknown := sorted(set(leave_out) - named):
            raise DataError(
                "Everybody who is to be left out is in the CDM.",
                f"{len(unknown)} are not in {store.name}: {shown(unknown)}",
                "correct the identifiers in the `exclude` file: they are person_id.",
            )
        keep = ~np.isin(persons, np.array([int(who) for who in leave_out], dtype=np.int64))
        order, persons = order[keep], persons[keep]
        died = np.full(len(persons), NEVER)
        if "death" in store.tables:
            _has_columns(store, "death", SHAPE["death"])
            death = _table(store, "death")
            statement = sa.select(death.c.person_id, _day(sa.func.min(death.c.death_date)))
            who, when = store.rows(statement.group_by(death.c.person_id))
            at, here = _places(persons, who)
            died[at] = _dates(store, when)[here]
        at = first = last = np.zeros(0, dtype=np.int64)
        if "observation_period" in store.tables:
            _has_columns(store, "observation_period", SHAPE["observation_period"])
            period = _table(store, "observation_period")
            days = [_day(period.c[f"observation_period_{end}_date"]) for end in ("start", "end")]
            who, first, last = store.rows(sa.select(period.c.person_id, *days))
            at, here = _places(persons, who)
            first, last = _dates(store, first)[here], _dates(store, last)[here]
        born = _born(year[order], month[order], day[order])
        for values in (persons, born, died):
            values.setflags(write=False)
        return Omop(store, persons, born, died, Periods.joined(at, first, last), gender[order], year[order])

    @property
    def dated(self) -> NDArray[np.bool_]:
        """As of `Clinical`: everybody's days are dates."""
        return np.ones(len(self.persons), dtype=bool)

    @cached_property
    def followed(self) -> NDArray[np.int64]:
        """As of `Clinical`: the first day of the first observation period, and the last of the last."""
        ends = self.periods.ends(len(self.persons))
        ends.setflags(write=False)
        return ends

    @cached_property
    def digest(self) -> str:
        """What tells two releases of a CDM apart where no file does: its release, the rows of each table, its people
        and their dates."""
        whole = hashlib.sha256(b"genosum cdm v1\0")
        if "cdm_source" in self.store.tables:
            source = _table(self.store, "cdm_source")
            named = [sa.cast(source.c[name], sa.Text).label(name) for name in SHAPE["cdm_source"]
                     if name in self.store.tables["cdm_source"]]  # fmt: skip
            lines = sorted("\t".join(row) for row in zip(*self.store.rows(sa.select(*named)), strict=True))
            whole.update("\n".join(lines).encode())
        whole.update(repr(sorted(self.store.counts.items())).encode())
        periods = (self.periods.person, self.periods.first, self.periods.last)
        for values in (self.persons, self.born, self.died, *periods, self.gender):
            whole.update(b"\0" + values.astype("<i8").tobytes())
        return whole.hexdigest()[:16]

    def variables(self) -> dict[str, NDArray[np.float64]]:
        """Name -> (N,) values of `VARIABLES`, NaN where missing."""
        first, last = self.followed.T
        sex = np.select([self.gender == FEMALE, self.gender == MALE], [0.0, 1.0], np.nan)
        return {
            "sex": sex,
            "year_of_birth": np.where(self._year == NEVER, np.nan, self._year.astype(np.float64)),
            "died": (self.died != NEVER).astype(np.float64),
            "age_at_start": _between(self.born, first) / 365.25,
            "age_at_end": _between(self.born, last) / 365.25,
            "followed": _between(first, last),
        }

    def events(self, domain: Domain, codes: Sequence[Code]) -> Events:
        """As `Clinical.events`. An event is of a code if its standard concept is, or the concept in its source's own
        vocabulary.

        Raises:
            DataError: also if a code's vocabulary, or the hierarchy for its descendants, is not there.
        """
        where = _DOMAINS[domain]
        if where.table not in self.store.tables:
            raise DataError(
                "Events are asked of a domain that the CDM has.",
                f"{self.store.name} has no table {where.table}",
                "load it, or leave the domain out of the study.",
            )
        t, there = _table(self.store, where.table), self.store.tables[where.table]
        _has_columns(self.store, where.table, set(SHAPE[where.table]) - _OPTIONAL - {where.source})
        selected, joined = [t.c.person_id, _day(t.c[where.day])], t
        if where.measured:
            written, joined = self._unit(t, there)
            selected += [sa.cast(t.c.value_as_number, _VALUE), written]
        meant = [concepts for code in codes for concepts in self._concepts(code)]
        named = [t.c[column] for column in (where.concept, where.source) if column in there]
        matching = sa.or_(sa.false(), *(column.in_(concepts) for column in named for concepts in meant))
        wanted = sa.select(*selected).select_from(joined).where(matching if codes else sa.true())
        found = self.store.rows(wanted.limit(MOST_EVENTS + 1))
        if len(found[0]) > MOST_EVENTS:
            raise too_many(f"{self.store.name}, {where.table},", codes)
        value, unit = found[2:] if where.measured else (np.full(len(found[0]), np.nan), _nothing(len(found[0])))
        return ordered(self.persons, found[0], _dates(self.store, found[1]), value, unit)

    def _concepts(self, code: Code) -> list[Any]:
        """The concepts that a code means: its own, and a statement of those below it, to which they are bound."""
        self._has(code)
        own = self._own(code)
        return [own, self._below(own)] if code.descendants else [own]

    def names(self, code: Code) -> frozenset[Code]:
        """As `Clinical.names`."""
        return self._named(code, self._meant(code))

    def shares(self, one: Code, other: Code) -> bool:
        """As `Clinical.shares`."""
        meant, others = self._meant(one), self._meant(other)
        if not (self._hierarchy and meant and others):
            return False
        below = self._below(meant)
        both = below.where(below.selected_columns[0].in_(self._below(others)))
        return len(self.store.rows(both.limit(1))[0]) > 0

    def knows(self, asked: Collection[Event]) -> bool:
        """As `Clinical.knows`."""
        if any(_DOMAINS[event.domain].table not in self.store.tables for event in asked):
            return False
        try:
            for code in {code for event in asked for code in event.codes}:
                self._has(code)
        except DataError:
            return False
        return True

    def above(self, code: Code) -> frozenset[Code]:
        """As `Clinical.above`."""
        meant = self._meant(code)
        if not self._hierarchy or not meant:
            return self._named(code, meant)
        ancestor = _table(self.store, "concept_ancestor")
        wanted = sa.select(ancestor.c.ancestor_concept_id).where(ancestor.c.descendant_concept_id.in_(meant)).distinct()
        return self._named(code, [*meant, *self.store.rows(wanted)[0].tolist()])

    def _meant(self, code: Code) -> list[int]:
        """The concepts of a code, and the standard ones to which they are mapped; none where it is not known here."""
        try:
            self._has(Code(code.vocabulary, code.code))
        except DataError:
            return []
        own = self._own(code)
        if "concept_relationship" not in self.store.tables or not own:
            return own
        relation = _table(self.store, "concept_relationship")
        mapped = sa.select(relation.c.concept_id_2).where(
            relation.c.concept_id_1.in_(own), relation.c.relationship_id == "Maps to"
        )
        return [*own, *self.store.rows(mapped)[0].tolist()]

    def _named(self, code: Code, concepts: Sequence[int]) -> frozenset[Code]:
        """A code, and all names of some concepts."""
        out = {Code(code.vocabulary, code.code), *(Code("OMOP", str(concept)) for concept in concepts)}
        if "concept" in self.store.tables and concepts:
            concept = _table(self.store, "concept")
            wanted = sa.select(concept.c.vocabulary_id, concept.c.concept_code)
            found = self.store.rows(wanted.where(concept.c.concept_id.in_(list(concepts))))
            out |= {Code(vocabulary, own) for vocabulary, own in zip(*(c.tolist() for c in found), strict=True)}
        return frozenset(out)

    def _own(self, code: Code) -> list[int]:
        """The concepts that a code names: OMOP's is one, a vocabulary's own is looked up."""
        if code.vocabulary == "OMOP":
            return [int(code.code)]
        concept = _table(self.store, "concept")
        wanted = sa.select(concept.c.concept_id).where(
            concept.c.vocabulary_id == code.vocabulary, concept.c.concept_code == code.code
        )
        found: list[int] = self.store.rows(wanted)[0].tolist()
        return found

    def _below(self, concepts: Sequence[int]) -> sa.Select[tuple[int]]:
        """A statement of what lies below some concepts."""
        ancestor = _table(self.store, "concept_ancestor")
        return sa.select(ancestor.c.descendant_concept_id).where(ancestor.c.ancestor_concept_id.in_(concepts))

    def _has(self, code: Code) -> None:
        """Assert that a code can be looked up here."""
        if code.vocabulary == "OMOP":
            if not (code.code.isascii() and code.code.isdecimal() and len(code.code) <= 10 and int(code.code)):
                raise DataError(
                    "A code of OMOP is a concept's number; 0 stands for what is mapped to none.",
                    f"{str(code)!r:.60}",
                    "correct the study.",
                )
        elif code.vocabulary not in self._vocabularies:
            raise DataError(
                "A code is looked up in its vocabulary.",
                f"{self.store.name} has none named {code.vocabulary!r:.40} in `concept`",
                "load the vocabulary from Athena, or ask by OMOP concepts.",
            )
        if code.descendants and not self._hierarchy:
            raise DataError(
                "What lies below a code follows from the vocabulary's hierarchy.",
                f"{self.store.name}: `concept_ancestor` is not there, or empty",
                "load it from Athena, or ask for the codes one by one.",
            )

    @cached_property
    def _vocabularies(self) -> frozenset[str]:
        if "concept" not in self.store.tables:
            return frozenset()
        concept = _table(self.store, "concept")
        (found,) = self.store.rows(sa.select(concept.c.vocabulary_id).distinct())
        return frozenset(found.tolist())

    @cached_property
    def _hierarchy(self) -> bool:
        if "concept_ancestor" not in self.store.tables:
            return False
        ancestor = _table(self.store, "concept_ancestor")
        return len(self.store.rows(sa.select(ancestor.c.ancestor_concept_id).limit(1))[0]) > 0

    def _unit(self, t: sa.TableClause, there: Collection[str]) -> tuple[sa.ColumnElement[Any], Any]:
        """The unit's code in UCUM, or else as the source wrote it; and the events joined to their units."""
        as_written = t.c.unit_source_value if "unit_source_value" in there else sa.literal("")
        if "UCUM" not in self._vocabularies or "unit_concept_id" not in there:
            return sa.func.coalesce(as_written, "", type_=_TEXT), t
        unit = _table(self.store, "concept").alias("unit")
        of_ucum = sa.and_(unit.c.concept_id == t.c.unit_concept_id, unit.c.vocabulary_id == "UCUM")
        return sa.func.coalesce(unit.c.concept_code, as_written, "", type_=_TEXT), t.outerjoin(unit, of_ucum)


def _has_columns(store: Store, table: str, wanted: Collection[str]) -> None:
    if missing := sorted(set(wanted) - set(store.tables.get(table, ()))):
        raise DataError(
            f"An OMOP CDM 5.4 has a table `{table}`.",
            f"{store.name}, schema {store.schema!r:.40}: no column {', '.join(missing)} in it",
            "load it as the CDM has it; name the CDM as `omop` and its schema as `schema` in the [dataset] table.",
        )


def _nothing(length: int) -> NDArray[Any]:
    out = np.empty(length, dtype=object)
    out[:] = ""
    return out


def _table(store: Store, name: str) -> sa.TableClause:
    return sa.table(name, *(sa.column(c, kind) for c, kind in SHAPE[name].items()), schema=store.schema)


def _day(date: sa.ColumnElement[Any]) -> sa.ColumnElement[Any]:
    """Days since 1970-01-01: both databases subtract dates to a whole number."""
    return sa.type_coerce(sa.cast(date, _DATE) - sa.literal(_EPOCH, _DATE), _NUMBER)


def _dates(store: Store, days: NDArray[np.int64]) -> NDArray[np.int64]:
    """Days that are some: DuckDB has dates of no calendar, such as infinity; PostgreSQL says so itself."""
    if ((days != NEVER) & (np.abs(days) > _MOST_DAYS)).any():
        raise mistyped(store.name, "a date")
    return days


def _places(persons: NDArray[np.int64], who: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Where people stand among all, and which of them do; strangers are left out."""
    at = np.searchsorted(persons, who)
    here = at < len(persons)
    here[here] = persons[at[here]] == who[here]
    return at[here], here


def _born(year: NDArray[np.int64], month: NDArray[np.int64], day: NDArray[np.int64]) -> NDArray[np.int64]:
    """(N,) days since 1970-01-01; NEVER where the year is unknown."""
    known = (year > 0) & (year < 3000)
    has_month = (month >= 1) & (month <= 12)
    months = (np.where(known, year, 1970) - 1970) * 12 + np.where(has_month, month, 7) - 1
    start = months.astype("datetime64[M]").astype("datetime64[D]").astype(np.int64)
    length = (months + 1).astype("datetime64[M]").astype("datetime64[D]").astype(np.int64) - start
    of_month = np.where(has_month & (day >= 1), np.minimum(day, length), np.where(has_month, 15, 1))
    return np.where(known, start + of_month - 1, NEVER)


def _between(first: NDArray[np.int64], second: NDArray[np.int64]) -> NDArray[np.float64]:
    """Days from one to the other, NaN where either is unknown."""
    known = (first != NEVER) & (second != NEVER)
    return np.where(known, np.where(known, second, 0) - np.where(known, first, 0), np.nan).astype(np.float64)
