"""A study over the synthetic people of Synthea in OMOP: three sites of the same CDM that each leave the others' people
out, equal to statsmodels and plain counting on the export's tables."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
import tomli_w

from simulations.run import simulate
from strategies.analyses.regression import Regression
from strategies.analyses.survival import SurvivalCurves
from strategies.analyses.table_one import TableOne
from strategies.analysis import Range
from strategies.question import Question
from strategies.study import Purpose, Study

ARCHIVE = Path(__file__).parents[2] / "shared" / "data" / "omop_synthea" / "Synthea27Nj_5.4.zip"

pytestmark = pytest.mark.skipif(not ARCHIVE.exists(), reason="the shared data folder is not there")

COLUMNS = {
    "sex": {"categories": ["female", "male"]},
    "age_at_end": {"range": [0, 130], "unit": "a"},
    "visits": {"range": [0, 1000], "value": "count of visit"},
    "days": {"range": [0, 50000], "unit": "d", "value": "days from birth to death or end of follow-up"},
    "dead": {"value": "whether age at death >= 0"},
}


def table(name: str) -> pd.DataFrame:
    with zipfile.ZipFile(ARCHIVE) as archive:
        (entry,) = [n for n in archive.namelist() if n.lower().rsplit("/")[-1] == f"{name}.csv"]
        out = pd.read_csv(io.BytesIO(archive.read(entry)), low_memory=False)
    return out.rename(columns=str.lower)


def everybody() -> pd.DataFrame:
    """Each person's values, by pandas alone."""
    person, period, visit, death = (table(n) for n in ("person", "observation_period", "visit_occurrence", "death"))
    out = person.set_index("person_id")[["gender_concept_id", "year_of_birth", "month_of_birth", "day_of_birth"]]
    born = pd.to_datetime(dict(zip(("year", "month", "day"), (out[c] for c in out.columns[1:]), strict=True)))
    end = pd.to_datetime(period.groupby("person_id")["observation_period_end_date"].max()).reindex(out.index)
    died = pd.to_datetime(death.groupby("person_id")["death_date"].min()).reindex(out.index)
    return pd.DataFrame(
        {
            "male": (out["gender_concept_id"] == 8507).astype(float),
            "age": (end - born).dt.days / 365.25,
            "visits": visit.groupby("person_id").size().reindex(out.index).fillna(0).astype(float),
            "days": (pd.concat([end, died], axis=1).min(axis=1) - born).dt.days.astype(float),
            "dead": died.notna().astype(float),
        }
    ).sort_index()


def test_a_study_of_three_cdms_is_that_of_all_people(tmp_path: Path) -> None:
    people = everybody()
    sites = {}
    for number, name in enumerate(("A", "B", "C")):
        others = [str(p) for k, p in enumerate(people.index) if k % 3 != number]
        (tmp_path / f"{name}.txt").write_text("\n".join(others) + "\n", encoding="utf-8")
        dataset = {
            "identifier": f"SYNTHEA-{name}", "assembly": "GRCh38", "synthetic": True, "omop": str(ARCHIVE),
            "exclude": f"{name}.txt",
        }  # fmt: skip
        sites[name] = {"country": "FI", "people": len(people) - len(others), "dataset": dataset}
    policy = {
        "coordinators": ["demo"], "purposes": ["scientific_research"], "epsilon": 1.0, "delta": 1e-6,
        "analyses": {"regression": ["exact"], "survival": ["exact"], "table_one": ["exact"]},
        "minimum_people": 1, "minimum_sites": 3, "minimum_cell": 0, "columns": COLUMNS, "events": ["visit"],
    }  # fmt: skip
    (tmp_path / "sites.toml").write_text(tomli_w.dumps({"policy": policy, "sites": sites}), encoding="utf-8")
    study = Study(
        "Synthea", Purpose.SCIENTIFIC_RESEARCH, "GRCh38", 3,
        {name: Range.from_plain(said, name) for name, said in COLUMNS.items()}, {},
        (
            Question("model", Regression("visits", "age_at_end + sex")),
            Question("people", TableOne(("age_at_end", "visits"), by="sex")),
            Question("lives", SurvivalCurves("days", "dead", intervals=500)),
        ),
    )  # fmt: skip
    model, table_one, lives = (result.answer for result in simulate(study, tmp_path).results)

    want = sm.OLS(people["visits"], sm.add_constant(people[["age", "male"]])).fit()
    np.testing.assert_allclose(model.tables["coefficients"]["coefficient"], want.params, rtol=1e-8)
    np.testing.assert_allclose(model.tables["coefficients"]["standard_error"], want.bse, rtol=1e-8)
    numbers = pd.DataFrame(table_one.tables["numbers"])
    for (variable, ours), (group, male) in [
        (v, g) for v in (("age_at_end", "age"), ("visits", "visits")) for g in (("female", 0), ("male", 1))
    ]:
        row = numbers[(numbers["variable"] == variable) & (numbers["group"] == group)]
        some = people[people["male"] == male][ours]
        assert row["mean"].item() == pytest.approx(some.mean(), rel=1e-9)
        assert row["people"].item() == len(some)
    assert lives.facts["events"] == people["dead"].sum() > 0
    curve = pd.DataFrame(lives.tables["survival"])
    at, alive = curve["time"].to_numpy(), 1.0
    for step, shown in zip(at, curve["survival"], strict=True):
        ends = np.ceil(people["days"] / 100) * 100  # 500 intervals of 100 days
        gone, risk = ((ends == step) & (people["dead"] == 1)).sum(), (ends >= step).sum()
        alive *= 1 - gone / risk if risk else 1.0
        assert shown == pytest.approx(alive, abs=1e-12)
