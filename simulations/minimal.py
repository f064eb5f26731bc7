"""Synthetic countries that record what GDI's minimal metadata ask for: on them the five use cases of 1+MG are tried.

Subject (birth, administrative gender, country of origin, last follow-up), diagnosis (SNOMED CT), treatment (ATC),
stage, exposure to tobacco, results (LOINC), and genotypes of a panel. Everybody is made up, and so is every effect that
is planted for a study to find:

* malignant hyperthermia: a third of the carriers of one of six variants in RYR1 have it, and 1 in 200 of the others;
* melanoma: half carry BRAF V600E, and then a BRAF inhibitor halves the hazard of death, unless PTEN is changed, too;
* type 2 diabetes and HbA1c follow a score of forty variants, age and smoking;
* of those with COVID-19, the severe cases follow one variant on chromosome 3, age and being male.

The tumour's variants stand among the genotypes as if they were germline, so that one panel serves all.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import tomli_w
from numpy.typing import NDArray
from scipy import special

from simulations.populations import write_bed
from strategies.catalogue import CATALOGUE
from strategies.errors import UsageError
from strategies.variants import ASSEMBLIES, Panel, Variant

COUNTRIES = {"EE": 700, "ES": 900, "FI": 800, "NL": 600, "PT": 500}
ASSEMBLY = ASSEMBLIES[-1]
SCORED, NEUTRAL = 40, 60
"""Variants of common disease, and others that do nothing."""

FST = 0.01
HYPERTHERMIA, MELANOMA = "SNOMED:405501007", "SNOMED:372244006"
DIABETES, COVID, VENTILATION = "SNOMED:44054006", "SNOMED:840539006", "SNOMED:40617009"
BRAF_INHIBITOR, CHECKPOINT_INHIBITOR, HBA1C = "ATC:L01EC01", "ATC:L01FF01", "LOINC:59261-8"

RYR1, BRAF, PTEN, SEVERITY = slice(0, 6), 6, 7, 8
SCORE = slice(9, 9 + SCORED)
"""Where each kind of variant stands in the panel."""

PANELS = {
    "ryr1": RYR1,
    "tumour": slice(BRAF, PTEN + 1),
    "common": slice(SEVERITY, 9 + SCORED + NEUTRAL),
    "score": SCORE,
    "phenome": slice(SEVERITY, SEVERITY + 13),
}
"""The pieces of it that the example studies name: simulations/studies/madeup_*.tsv."""

FIRST, LAST = np.datetime64("2012-01-01"), np.datetime64("2025-06-30")
"""Of the days on which something was recorded."""

STAGES = ("I", "II", "III", "IV")
SMOKING = ("never", "former", "current", "UNK")


def panel() -> Panel:
    """The variants; those of the score have weights, and those in RYR1 a gene. Positions are plausible, no more."""
    rng = np.random.default_rng(1)
    rows = [
        Variant("19", 38_433_691 + 20_011 * j, f"ryr1_{j}", "C", "T", 0.004, None, 1.0, ("RYR1",)) for j in range(6)
    ]
    rows += [
        Variant("7", 140_753_336, "braf_v600e", "A", "T", 0.02),
        Variant("10", 87_933_147, "pten_r130x", "C", "T", 0.02),
        Variant("3", 45_823_240, "severity", "G", "C", 0.2),
    ]
    weights = np.round(rng.normal(0, 0.25, SCORED), 4)
    for j in range(SCORED + NEUTRAL):
        where, frequency = ("1", "2", "4", "5", "6")[j % 5], round(float(rng.uniform(0.05, 0.95)), 3)
        weight = float(weights[j]) if j < SCORED else None
        rows.append(Variant(where, 5_000_000 + 1_000_003 * (j // 5), f"common_{j}", "A", "G", frequency, weight=weight))
    return Panel(ASSEMBLY, tuple(rows), states=frozenset({"FREQUENCY", "WEIGHT", "GENE"}))


@dataclass(frozen=True)
class People:
    """N people of one country.

    Attributes:
        copies: (M, N) alternate alleles, 3 where missing.
        columns: name -> N cells.
        events: lines of the table of events: person, domain, code, date, value and unit.
    """

    copies: NDArray[np.uint8] = field(repr=False)
    columns: dict[str, list[str]]
    events: list[tuple[str, ...]]


def write(folder: Path, seed: int = 1) -> None:
    """Write a folder of synthetic sites: `sites.toml`, `panel.tsv`, and for each country people, events and genotypes.

    Raises:
        UsageError: if the folder exists.
    """
    if folder.exists():
        raise UsageError("Synthetic sites are written into a new folder.", f"{folder} exists", "name another.")
    folder.mkdir(parents=True)
    variants, sites = panel(), {}
    (folder / "panel.tsv").write_bytes(variants.encode())
    for number, (country, size) in enumerate(COUNTRIES.items(), start=1):
        home = folder / country
        home.mkdir()
        people = drawn(country, size, variants, np.random.default_rng([seed, number]))
        write_bed(home / "genotypes", variants, people.copies, people.columns["person"])
        _write_lines(home / "people.tsv", tuple(people.columns), zip(*people.columns.values(), strict=True))
        _write_lines(home / "events.tsv", ("person", "domain", "code", "date", "value", "unit"), people.events)
        sites[country] = {
            "country": country, "people": size,
            "dataset": {
                "identifier": f"GDI-{country}-MADEUP-{number:04d}", "assembly": ASSEMBLY, "synthetic": True,
                "people": f"{country}/people.tsv", "events": f"{country}/events.tsv",
                "genotypes": f"{country}/genotypes.bed", "variables": VARIABLES,
            },
        }  # fmt: skip
    (folder / "sites.toml").write_text(
        "# Synthetic people; nothing here comes from a person.\n" + tomli_w.dumps({"policy": POLICY, "sites": sites}),
        encoding="utf-8",
    )


VARIABLES = {
    "gender": {
        "categories": ["female", "male"], "meaning": "administrative gender", "minimal": "Subject.administrativeGender",
    },
    "origin": {
        "categories": [*COUNTRIES], "meaning": "country of origin, ISO 3166", "minimal": "Subject.countryOfOrigin",
    },
    "smoking": {
        "categories": [*SMOKING[:3]], "meaning": "exposure to tobacco", "minimal": "EnvironmentalExposure.tobacco",
    },
    "pack_years": {
        "range": [0, 100], "unit": "a", "missing": [-9], "meaning": "packs a day times years",
        "minimal": "EnvironmentalExposure.packYears",
    },
    "stage": {"categories": [*STAGES], "meaning": "stage of the tumour", "minimal": "TNM.stage"},
}  # fmt: skip

POLICY = {
    "coordinators": ["demo"], "purposes": ["scientific_research"], "epsilon": 10.0, "delta": 1e-5,
    "minimum_people": 20, "minimum_cell": 5, "by_site": ["private"],
    "events": ["condition", "drug", "procedure", "measurement"],
    "analyses": {a.analysis: [b.regime.value for b in CATALOGUE if b.analysis == a.analysis] for a in CATALOGUE},
    "columns": {
        "gender": {"categories": ["female", "male"]}, "origin": {"categories": [*COUNTRIES]},
        "smoking": {"categories": [*SMOKING[:3]]}, "pack_years": {"range": [0, 100], "unit": "a"},
        "stage": {"categories": [*STAGES]},
        # Derived columns of exact questions, as the example studies derive them.
        "age": {"value": "age at 2025-06-30", "range": [0, 110], "unit": "a"},
        "affected": {"value": f"whether any condition {HYPERTHERMIA}"},
        "diabetes": {"value": f"whether any condition {DIABETES}"},
        "hba1c": {"value": f"last of measurement {HBA1C}", "range": [10, 200], "unit": "mmol/mol"},
        "onset": {"value": f"age at first condition {MELANOMA}", "range": [0, 110], "unit": "a"},
        "days": {"value": f"days from first condition {MELANOMA} to death or end of follow-up", "range": [0, 5000],
                 "unit": "d"},
        "died": {"value": "whether age at death >= 0"},
        "inhibitor": {"value": f"whether any drug {BRAF_INHIBITOR} after first condition {MELANOMA}"},
        "severe": {"value": f"whether any procedure {VENTILATION} within 60 days after first condition {COVID}"},
    },
}  # fmt: skip


def drawn(country: str, size: int, variants: Panel, rng: np.random.Generator) -> People:
    """The people of a country."""
    ancestral = np.array([v.frequency for v in variants.variants], dtype=np.float64)
    spread = (1 - FST) / FST
    local = np.where(ancestral < 0.01, ancestral, rng.beta(ancestral * spread, (1 - ancestral) * spread))
    copies = rng.binomial(2, local[:, None], (len(variants), size)).astype(np.uint8)
    male, age = rng.random(size) < 0.5, rng.uniform(18, 90, size)
    smoking = rng.choice(4, size, p=[0.4, 0.3, 0.2, 0.1])
    pack_years = np.where(smoking == 0, 0.0, np.round(rng.gamma(2, 8, size), 1)).clip(0, 100)
    person = [f"{country}{i:05d}" for i in range(size)]
    born = LAST - np.rint(age * 365.25).astype("timedelta64[D]")
    events = _Events(person, rng)
    events.dates("birth", born)
    melanoma = rng.random(size) < 0.35
    copies[BRAF, melanoma] = rng.random(int(melanoma.sum())) < 0.5
    copies[PTEN, melanoma] = rng.random(int(melanoma.sum())) < 0.3
    stage = np.where(melanoma, rng.choice(4, size, p=[0.4, 0.3, 0.2, 0.1]), -1)
    died = _melanoma(events, melanoma, stage, copies[BRAF] > 0, copies[PTEN] > 0)
    carries = (copies[RYR1] > 0).any(axis=0)
    events.add("condition", HYPERTHERMIA, rng.random(size) < np.where(carries, 1 / 3, 1 / 200))
    weights = np.array([v.weight or 0.0 for v in variants.variants[SCORE]])
    risk = weights @ (copies[SCORE] - 2 * ancestral[SCORE, None]) + 0.04 * (age - 55) + 0.4 * (smoking == 2)
    diabetic = rng.random(size) < special.expit(risk - 2)
    events.add("condition", DIABETES, diabetic)
    results = np.round(38 + 2 * risk + 14 * diabetic + rng.normal(0, 4, size))
    events.add("measurement", HBA1C, rng.random(size) < 0.9, results)
    infected = rng.random(size) < 0.5
    severe = special.expit(0.9 * copies[SEVERITY] + 0.05 * (age - 60) + 0.6 * male - 2.2)
    infection = events.add("condition", COVID, infected, since=np.datetime64("2020-03-01"))
    events.add("procedure", VENTILATION, infected & (rng.random(size) < severe), after=infection)
    events.dates("start", np.full(size, FIRST))
    events.dates("end", np.where(np.isnat(died), LAST, died))
    events.dates("death", died)
    rest = copies[SCORE.start :]
    missing = np.where(np.arange(len(rest)) % 2, 0.03, 0.0)  # of nobody or of many, so that no count of them is small
    rest[rng.random(rest.shape) < missing[:, None]] = 3
    columns = {
        "person": person,
        "gender": ["male" if one else "female" for one in male],
        "origin": [country if rng.random() < 0.9 else str(rng.choice([*COUNTRIES])) for _ in range(size)],
        "smoking": [SMOKING[k] for k in smoking],
        "pack_years": ["-9" if k == 3 else f"{years:g}" for k, years in zip(smoking, pack_years, strict=True)],
        "stage": [STAGES[k] if k >= 0 else "NA" for k in stage],
    }
    return People(copies, columns, events.lines)


class _Events:
    """The events of people, as they are made up."""

    def __init__(self, person: list[str], rng: np.random.Generator) -> None:
        self.person, self.rng, self.lines = person, rng, list[tuple[str, ...]]()

    def dates(self, kind: str, days: NDArray[np.datetime64]) -> None:
        """A date of each person who has one."""
        self.lines += [(p, kind, "", str(d), "", "") for p, d in zip(self.person, days, strict=True) if not np.isnat(d)]

    def add(
        self,
        domain: str,
        code: str,
        who: NDArray[np.bool_],
        values: NDArray[np.float64] | None = None,
        since: np.datetime64 = FIRST,
        after: NDArray[np.datetime64] | None = None,
    ) -> NDArray[np.datetime64]:
        """One event of some people, on a day since another or a few days after one; returns the days."""
        days = since + self.rng.integers(0, int((LAST - since).astype(int)) - 700, len(who)).astype("timedelta64[D]")
        if after is not None:
            days = after + self.rng.integers(1, 60, len(who)).astype("timedelta64[D]")
        days[~who] = np.datetime64("NaT")
        for i in np.flatnonzero(who):
            result = ("", "") if values is None else (f"{values[i]:g}", "mmol/mol")
            self.lines.append((self.person[i], domain, code, str(days[i]), *result))
        return days


def _melanoma(
    events: _Events, who: NDArray[np.bool_], stage: NDArray[np.int64], braf: NDArray[np.bool_], pten: NDArray[np.bool_]
) -> NDArray[np.datetime64]:
    """Diagnosis, treatment, and the days of death."""
    rng, found = events.rng, events.add("condition", MELANOMA, who)
    inhibited = who & braf & (rng.random(len(who)) < 0.6)
    events.add("drug", BRAF_INHIBITOR, inhibited, after=found)
    events.add("drug", CHECKPOINT_INHIBITOR, who & ~inhibited & (rng.random(len(who)) < 0.5), after=found)
    hazard = 0.04 * 1.8**stage * np.where(inhibited & ~pten, 0.5, 1.0)
    lived = np.where(who, rng.exponential(1 / hazard), 200.0)
    died = found + np.rint(lived * 365.25).astype("timedelta64[D]")
    died[~(died < LAST)] = np.datetime64("NaT")
    return np.asarray(died)


def _write_lines(path: Path, header: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> None:
    lines = ["\t".join(row) for row in (header, *rows)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
