"""People as GA4GH Phenopackets (version 2): a folder of JSON files, one person each."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from fl_client.readers.calls import distinct, shown
from fl_client.readers.events import NEVER
from fl_client.readers.lines import absent
from fl_client.readers.recorded import Happened, Recorded, day_of
from fl_client.readers.tables import Table
from fl_client.readers.variables import Variable
from strategies.codec import parse
from strategies.errors import DataError
from strategies.events import Domain

VARIABLES: Mapping[str, Variable] = MappingProxyType(
    {
        "sex": Variable(categories=("female", "male"), meaning="sex of the subject", minimal="sex"),
        "karyotypic_sex": Variable(
            categories=("XX", "XY", "XO", "XXY", "XXX", "XXYY", "XXXY", "XXXX", "XYY", "OTHER_KARYOTYPE"),
            meaning="karyotypic sex of the subject",
        ),
        "year_of_birth": Variable(range=(1850, 2100), meaning="calendar year of birth", minimal="year of birth"),
        "died": Variable(categories=("no", "yes"), meaning="vital status: deceased or alive", minimal="vital status"),
        "age_last_seen": Variable(range=(0, 130), unit="a", meaning="age at the last encounter"),
        "survival_days": Variable(range=(0, 50000), unit="d", meaning="survival time after the diagnosis"),
    }
)
"""What every phenopacket offers without a declaration."""

_AGE = re.compile(r"P(?:(\d+)Y)?(?:(\d+)M)?(?:(\d+)W)?(?:(\d+)D)?(?:T[0-9HMS.]*)?")
_DAYS = (365.25, 365.25 / 12, 7.0, 1.0)


def files(folder: Path) -> list[Path]:
    """The JSON files of a folder, by name.

    Raises:
        DataError: if it is not there.
    """
    try:
        return sorted(path for path in folder.iterdir() if path.suffix == ".json")
    except OSError as error:
        raise absent(folder, error) from None


def read(folder: Path, leave_out: Collection[str] = frozenset()) -> tuple[Table, Recorded]:
    """People and their events, but for some; by identifier, in ascending order.

    Where a person has no date of birth and all else is told by ages, day 0 is the birth: ages and distances in time
    hold, calendar dates do not. Ages are turned into days by 365.25 days a year.

    Raises:
        DataError: if a file is no phenopacket, or two are of one person.
    """
    packets: dict[str, tuple[Path, Mapping[str, Any]]] = {}
    listed = []
    for path in files(folder):
        packet = _packet(path)
        person = _text(path, _at(path, packet, "subject"), "id")
        listed.append(person)
        packets[person] = (path, packet)
    distinct(listed, folder.name)
    if unknown := sorted(set(leave_out) - set(packets)):
        raise DataError(
            "Everybody who is to be left out is among the phenopackets.",
            f"{len(unknown)} are not in {folder.name}: {shown(unknown)}",
            "correct the identifiers in the `exclude` file: they are the subjects' ids.",
        )
    people = sorted(set(packets) - set(leave_out))
    happened: list[Happened] = []
    values = {name: np.full(len(people), np.nan) for name in VARIABLES}
    for place, person in enumerate(people):
        path, packet = packets[person]
        for name, value in _person(place, path, packet, happened).items():
            values[name][place] = value
    for column in values.values():
        column.setflags(write=False)
    table = Table(folder.name, tuple(people), MappingProxyType(values), MappingProxyType({}), VARIABLES)
    return table, Recorded.of(folder.name, len(people), happened)


def _packet(path: Path) -> Mapping[str, Any]:
    try:
        return parse(path.read_bytes())
    except OSError as error:
        raise absent(path, error) from None
    except ValueError as error:
        raise _bad(path, f"no JSON object: {error}") from None


def _person(place: int, path: Path, packet: Mapping[str, Any], happened: list[Happened]) -> dict[str, float]:
    """The values of one person's variables; what happened is added to the rest."""
    subject = _at(path, packet, "subject")
    vital = _at(path, subject, "vitalStatus")
    told = list(_told(path, packet))
    seen, died = subject.get("timeAtLastEncounter"), vital.get("timeOfDeath")
    born = _day(path, subject.get("dateOfBirth"))
    times = [time for _, _, time, _, _ in told] + [seen, died]
    by_age = born == NEVER and not any(_timestamp(time) for time in times)
    birth = 0 if by_age and any(map(_age, times)) else born
    for domain, code, time, value, unit in told:
        happened.append(Happened(place, domain, code, _when(path, time, birth), value, unit))
    last, death = _when(path, seen, birth), _when(path, died, birth)
    for word, day in (("birth", birth), ("end", last), ("death", death)):
        if day != NEVER:
            happened.append(Happened(place, word, "", day))
    out = {"died": {"DECEASED": 1.0, "ALIVE": 0.0}.get(str(vital.get("status")), np.nan)}
    out["sex"] = {"FEMALE": 0.0, "MALE": 1.0}.get(str(subject.get("sex")), np.nan)
    karyotypes = VARIABLES["karyotypic_sex"].shape.categories
    if (karyotype := str(subject.get("karyotypicSex"))) in karyotypes:
        out["karyotypic_sex"] = float(karyotypes.index(karyotype))
    if born != NEVER:
        out["year_of_birth"] = float(np.datetime64(born, "D").astype("datetime64[Y]").astype(int) + 1970)
    if NEVER not in (birth, last):
        out["age_last_seen"] = (last - birth) / 365.25
    survived = vital.get("survivalTimeInDays")
    if isinstance(survived, int | float) and not isinstance(survived, bool):
        out["survival_days"] = float(survived)
    return out


def _told(path: Path, packet: Mapping[str, Any]) -> Iterator[tuple[str, str, Any, float, str]]:
    """Domain, code, time element, value and unit of each event that was observed."""
    for disease in _list(path, packet, "diseases"):
        if not disease.get("excluded"):
            yield Domain.CONDITION, _code(path, disease, "term"), disease.get("onset"), np.nan, ""
    for feature in _list(path, packet, "phenotypicFeatures"):
        if not feature.get("excluded"):
            yield Domain.CONDITION, _code(path, feature, "type"), feature.get("onset"), np.nan, ""
    for measurement in _list(path, packet, "measurements"):
        quantity = _at(path, _at(path, measurement, "value"), "quantity")
        value = quantity.get("value", np.nan)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise _bad(path, f"a quantity's value is {str(value)!r:.40}")
        unit = str(_at(path, quantity, "unit").get("id", "")).removeprefix("UCUM:")
        code = _code(path, measurement, "assay")
        yield Domain.MEASUREMENT, code, measurement.get("timeObserved"), float(value), unit
    for action in _list(path, packet, "medicalActions"):
        if procedure := _at(path, action, "procedure"):
            yield Domain.PROCEDURE, _code(path, procedure, "code"), procedure.get("performed"), np.nan, ""
        if treatment := _at(path, action, "treatment"):
            doses = [_at(path, dose, "interval").get("start") for dose in _list(path, treatment, "doseIntervals")]
            first = min((start for start in doses if isinstance(start, str)), default=None)
            yield Domain.DRUG, _code(path, treatment, "agent"), {"timestamp": first} if first else None, np.nan, ""


def _when(path: Path, time: Any, birth: int) -> int:
    """The day of a time element, or of a timestamp; NEVER where it says none."""
    if (timestamp := _timestamp(time)) is not None:
        return _day(path, timestamp)
    if (age := _age(time)) is None or birth == NEVER:
        return NEVER
    found = _AGE.fullmatch(age)
    if found is None or age == "P":
        raise _bad(path, f"age {age!r:.40}")
    return birth + int(sum(int(number or 0) * days for number, days in zip(found.groups(), _DAYS, strict=True)))


def _timestamp(time: Any) -> str | None:
    """The timestamp of a time element, or the start of its interval."""
    if isinstance(time, str):
        return time
    if not isinstance(time, Mapping):
        return None
    interval = time.get("interval")
    found = time.get("timestamp", interval.get("start") if isinstance(interval, Mapping) else None)
    return found if isinstance(found, str) else None


def _age(time: Any) -> str | None:
    """The age of a time element as a duration of ISO 8601; of a range, the younger."""
    age = time.get("age") if isinstance(time, Mapping) else None
    spread = time.get("ageRange") if isinstance(time, Mapping) else None
    if isinstance(spread, Mapping):
        age = spread.get("start")
    found = age.get("iso8601duration") if isinstance(age, Mapping) else None
    return found if isinstance(found, str) else None


def _day(path: Path, date: Any) -> int:
    day = day_of(date) if isinstance(date, str) else NEVER if date is None else None
    if day is None:
        raise _bad(path, f"date {str(date)!r:.40}")
    return day


def _at(path: Path, message: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """A part of a message, empty where it is not there."""
    part = message.get(key)
    if part is not None and not isinstance(part, Mapping):
        raise _bad(path, f"{key} is no object")
    return part or {}


def _list(path: Path, message: Mapping[str, Any], key: str) -> list[Mapping[str, Any]]:
    parts = message.get(key) or []
    if not (isinstance(parts, list) and all(isinstance(part, Mapping) for part in parts)):
        raise _bad(path, f"{key} is no list of objects")
    return parts


def _text(path: Path, message: Mapping[str, Any], key: str) -> str:
    text = message.get(key)
    if not isinstance(text, str) or not text:
        raise _bad(path, f"{key} of the subject is not there")
    return text


def _code(path: Path, message: Mapping[str, Any], key: str) -> str:
    code = _at(path, message, key).get("id")
    if not isinstance(code, str) or ":" not in code:
        raise _bad(path, f"{key} is {str(code)!r:.40}, and no code such as HP:0001250")
    return code


def _bad(path: Path, found: str) -> DataError:
    return DataError(
        "A phenopacket is a JSON object of version 2 of GA4GH's schema, with a subject.",
        f"{path.name}: {found}",
        "correct the file, or move it out of the folder.",
    )
