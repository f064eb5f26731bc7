"""People as GA4GH Phenopackets (version 2): a folder of JSON files, one person each."""

from __future__ import annotations

import math
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
from strategies.codec import is_text, parse
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

_AGE = re.compile(r"P(?=[\dT])(?:(\d{1,3})Y)?(?:(\d{1,4})M)?(?:(\d{1,4})W)?(?:(\d{1,5})D)?(?:T[\dHMS.]+)?", re.ASCII)
_LETTER = re.compile("_([a-z0-9])")


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

    An age is the first day on which the person has it, by the calendar: P14Y is the fourteenth birthday. Of a range of
    ages it is the younger, of an interval the start; gestational ages and classes of ages are no days. Whoever's packet
    tells ages, and neither her birth nor any other date, has no calendar: her days are counted from her birth. Where
    other dates are told and the birth is not, ages are no days.

    A phenopacket says of no time that nothing else happened in it. A person counts as followed from the first to the
    last day of which it tells anything, as OHDSI has it for sources without enrolment: an onset, a measurement, a
    procedure, a treatment, the last encounter; to her death, if its day is told.

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
    dated = np.ones(len(people), dtype=bool)
    for place, person in enumerate(people):
        path, packet = packets[person]
        own, dated[place] = _person(place, path, packet, happened)
        for name, value in own.items():
            values[name][place] = value
    for column in values.values():
        column.setflags(write=False)
    table = Table(folder.name, tuple(people), MappingProxyType(values), MappingProxyType({}), VARIABLES)
    return table, Recorded.of(folder.name, dated, happened)


def _packet(path: Path) -> Mapping[str, Any]:
    try:
        packet: Mapping[str, Any] = _named(parse(path.read_bytes()))
    except OSError as error:
        raise absent(path, error) from None
    except ValueError as error:
        raise _bad(path, f"no JSON object: {error}") from None
    except RecursionError:
        raise _bad(path, "no JSON object: nested too deeply") from None
    if not str(_at(path, packet, "metaData").get("phenopacketSchemaVersion", "2")).startswith("2"):
        raise _bad(path, "it says that it is of another version")
    return packet


def _named(part: Any) -> Any:
    """A message with its fields as ProtoJSON writes them; it reads them as the schema does, too: `date_of_birth`."""
    if isinstance(part, Mapping):
        return {_LETTER.sub(lambda found: found[1].upper(), key): _named(value) for key, value in part.items()}
    if isinstance(part, str) and not is_text(part):
        raise ValueError("half of a surrogate pair is no character")
    return [_named(one) for one in part] if isinstance(part, list) else part


def _person(
    place: int, path: Path, packet: Mapping[str, Any], happened: list[Happened]
) -> tuple[dict[str, float], bool]:
    """The values of one person's variables, and whether she has a calendar; what happened is added to the rest."""
    subject = _at(path, packet, "subject")
    vital = _at(path, subject, "vitalStatus")
    told = list(_told(path, packet))
    seen, died = subject.get("timeAtLastEncounter"), vital.get("timeOfDeath")
    born = _day(path, subject.get("dateOfBirth"))
    times = [time for _, _, time, _, _ in told] + [seen, died]
    dated = born != NEVER or any(map(_timestamp, times)) or not any(map(_age, times))
    birth = born if dated else 0
    days = [_when(path, time, birth) for time in times]
    for (domain, code, _, value, unit), day in zip(told, days, strict=False):
        happened.append(Happened(place, domain, code, day, value, unit))
    *_, last, death = days
    known = [day for day in days if day != NEVER]
    end = max(known, default=NEVER) if death == NEVER else death
    for word, day in (("birth", birth), ("start", min(known, default=NEVER)), ("end", end), ("death", death)):
        if day != NEVER:
            happened.append(Happened(place, word, "", day))
    out = {"died": {"DECEASED": 1.0, "ALIVE": 0.0}.get(str(vital.get("status")), np.nan)}
    out["sex"] = {"FEMALE": 0.0, "MALE": 1.0}.get(str(subject.get("sex")), np.nan)
    karyotypes = VARIABLES["karyotypic_sex"].shape.categories
    if (karyotype := str(subject.get("karyotypicSex"))) in karyotypes:
        out["karyotypic_sex"] = float(karyotypes.index(karyotype))
    if born != NEVER:
        out["year_of_birth"] = float(np.datetime64(born, "D").astype("datetime64[Y]").astype(int) + 1970)
    if (age := _age(seen)) is not None:
        years, months, weeks, more = _parts(path, age)
        out["age_last_seen"] = years + months / 12 + (7 * weeks + more) / 365.25
    elif NEVER not in (birth, last):
        out["age_last_seen"] = (last - birth) / 365.25
    survived = vital.get("survivalTimeInDays")
    if isinstance(survived, int | float) and not isinstance(survived, bool):
        out["survival_days"] = float(survived)
    return out, dated


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
        if isinstance(value, bool) or not isinstance(value, int | float) or math.isinf(value):
            raise _bad(path, "a quantity's value is no number")
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
    age = _age(time)
    return NEVER if age is None or birth == NEVER else _aged(birth, *_parts(path, age))


def _parts(path: Path, age: str) -> tuple[int, int, int, int]:
    """Years, months, weeks and days of a duration; hours do not count."""
    if (found := _AGE.fullmatch(age)) is None:
        raise _bad(path, "an age is no duration such as P40Y10M5D")
    years, months, weeks, days = (int(number or 0) for number in found.groups())
    return years, months, weeks, days


def _aged(birth: int, years: int, months: int, weeks: int, days: int) -> int:
    """The first day on which somebody is so old; who was born on a day that a month has not, is so on the next month's
    first.

    >>> born = int(np.datetime64("2004-02-29").astype(int))
    >>> [str(np.datetime64(_aged(born, y, m, 0, 0), "D")) for y, m in ((4, 0), (5, 0), (0, 12))]
    ['2008-02-29', '2009-03-01', '2005-03-01']
    """
    born = np.datetime64(birth, "D")
    month = born.astype("datetime64[M]")
    begins, ends = ((month + 12 * years + months + k).astype("datetime64[D]").astype(int) for k in (0, 1))
    return int(begins + min((born - month.astype("datetime64[D]")).astype(int), ends - begins)) + 7 * weeks + days


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
        raise _bad(path, "a date is no timestamp such as 1990-03-01T00:00:00Z")
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
        raise _bad(path, f"{key} has no id that is a code such as HP:0001250")
    return code


def _bad(path: Path, found: str) -> DataError:
    return DataError(
        "A phenopacket is a JSON object of version 2 of GA4GH's schema, with a subject.",
        f"{path.name}: {found}",
        "correct the file, or move it out of the folder.",
    )
