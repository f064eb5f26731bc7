"""The example study of four hospitals, end to end: gates, secure summing, report; equal to statsmodels on all rows."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
import tomli_w

from fl_server import results
from simulations.populations import write_table
from simulations.run import simulate
from strategies.analysis import parameters
from strategies.study import Study

ROOT = Path(__file__).parents[1]
DATA = ROOT.parent / "shared" / "data" / "heart_4hospitals"
HOSPITALS = {"cleveland": ("US", 303), "hungarian": ("HU", 294), "switzerland": ("CH", 123), "va": ("US", 200)}
NAMES = [
    "age", "sex", "cp", "trestbps", "chol", "fbs", "restecg", "thalach", "exang", "oldpeak", "slope", "ca", "thal",
    "num",
]  # fmt: skip
"""Of the processed files' columns, from heart-disease.names."""

pytestmark = pytest.mark.skipif(not DATA.exists(), reason="the shared data folder is not there")


def hospital(name: str) -> pd.DataFrame:
    """A hospital's people, as the study names their columns; rows that stand there twice are one person."""
    raw = pd.read_csv(DATA / f"processed.{name}.data", header=None, names=NAMES, na_values=["?", "-9", "-9.0"])
    assert len(raw) == HOSPITALS[name][1]
    raw = raw.drop_duplicates()
    out = pd.DataFrame({"age": raw["age"], "male": raw["sex"]})
    for code, pain in ((2, "atypical_angina"), (3, "non_anginal_pain"), (4, "asymptomatic")):
        out[pain] = (raw["cp"] == code).astype(float).where(raw["cp"].notna())
    out["pressure"] = raw["trestbps"].replace(0, np.nan)
    out["cholesterol"] = raw["chol"].replace(0, np.nan)
    out["heart_rate"], out["exercise_angina"], out["st_depression"] = raw["thalach"], raw["exang"], raw["oldpeak"]
    out["disease"] = (raw["num"] > 0).astype(float)
    return out.astype(float)


def write_hospitals(folder: Path, study: Study) -> pd.DataFrame:
    """A folder of sites, and all their people."""
    sites, tables = {}, []
    for name, (country, _) in HOSPITALS.items():
        table = hospital(name)
        people = [f"{name}-{i:03d}" for i in range(len(table))]
        write_table(folder / f"{name}.tsv", people, {c: table[c].to_numpy() for c in table})
        dataset = {"identifier": f"HEART-{name}", "assembly": "GRCh37", "people": f"{name}.tsv"}
        sites[name] = {"country": country, "people": len(table), "dataset": dataset}
        tables.append(table.assign(site=name))
    policy = {
        "coordinators": ["demo"], "purposes": ["scientific_research"], "analyses": {"regression": ["exact"]},
        "epsilon": 1.0, "delta": 1e-6, "minimum_people": 20, "minimum_sites": 3, "minimum_cell": 5,
        "columns": {name: span.plain() for name, span in study.columns.items()},
    }  # fmt: skip
    (folder / "sites.toml").write_text(tomli_w.dumps({"policy": policy, "sites": sites}), encoding="utf-8")
    return pd.concat(tables, ignore_index=True)


def terms(study: Study, question: str) -> list[str]:
    return str(parameters(study.question(question).analysis)["formula"]).split(" + ")  # type: ignore[union-attr]


def test_four_hospitals_regressions_are_those_of_all_rows(tmp_path: Path) -> None:
    study = Study.read(ROOT / "simulations" / "studies" / "heart.toml")
    (tmp_path / "sites").mkdir()
    everybody = write_hospitals(tmp_path / "sites", study)
    assert everybody["cholesterol"].isna().sum() == 201, "30 are ?, 172 are 0, one stands twice"
    outcome = simulate(study, tmp_path / "sites")
    results.write(study, outcome.federation, outcome.results, tmp_path / "out")
    answers = results.load(tmp_path / "out")

    for question in ("cholesterol", "disease"):
        names = terms(study, question)
        complete = everybody[["disease", *names]].dropna()
        want = sm.Logit(complete["disease"], sm.add_constant(complete[names])).fit(disp=0, tol=1e-14, method="newton")
        table, facts = answers[question].table(), answers[question].facts
        assert table["term"].to_list() == ["(intercept)", *names]
        np.testing.assert_allclose(table["coefficient"], want.params, rtol=1e-8)
        np.testing.assert_allclose(table["standard_error"], want.bse, rtol=1e-8)
        np.testing.assert_allclose(table["ratio"], np.exp(want.params), rtol=1e-8)
        np.testing.assert_allclose(table["p_value"], want.pvalues, rtol=1e-6)
        assert (facts["people"], facts["cases"]) == (len(complete), complete["disease"].sum())
        assert facts["log_likelihood"] == pytest.approx(want.llf, rel=1e-10)
    assert answers["disease"].facts["people"] > 800
    assert all(answer.statement["sites"] == sorted(HOSPITALS) for answer in answers.values())

    within = terms(study, "heart_rate")
    rows = everybody[["heart_rate", "site", *within]].dropna()
    own = pd.concat([rows[within], pd.get_dummies(rows["site"], dtype=float)], axis=1)
    linear = sm.OLS(rows["heart_rate"], own).fit()
    table = answers["heart_rate"].table()
    np.testing.assert_allclose(table["coefficient"], linear.params[: len(within)], rtol=1e-8)
    np.testing.assert_allclose(table["standard_error"], linear.bse[: len(within)], rtol=1e-8)
    assert answers["curved"].facts["problem"] == "none"

    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    article = re.search(r'<article aria-labelledby="answer-disease">(.*?)</article>', page, re.DOTALL)
    assert article is not None
    assert '<figure id="disease-forest"' in article[1]
    assert "Forest plot of the odds ratios of disease: age" in article[1]
    for name, ratio in zip(names, np.exp(want.params[1:]), strict=True):
        assert re.search(rf"{name}</t[dh]>.*?{ratio:.4g}".replace("-", "−"), article[1], re.DOTALL), name
