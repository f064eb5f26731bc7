"""The example study of four hospitals, end to end: gates, secure summing, report; equal to statsmodels on all rows."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
import tomli_w

from fl_server import results
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


VARIABLES: dict[str, dict[str, Any]] = {
    "age": {"range": [20, 90], "unit": "a"},
    "sex": {"categories": {"0": "female", "1": "male"}},
    "pain": {
        "column": "cp",
        "categories": {"1": "typical angina", "2": "atypical angina", "3": "non-anginal pain", "4": "asymptomatic"},
    },
    "pressure": {"column": "trestbps", "range": [60, 250], "unit": "mm[Hg]", "missing": [0]},
    "cholesterol": {"column": "chol", "range": [60, 700], "unit": "mg/dL", "missing": [0], "analyte": "cholesterol"},
    "heart_rate": {"column": "thalach", "range": [50, 230], "unit": "/min"},
    "exercise_angina": {"column": "exang", "categories": {"0": "no", "1": "yes"}},
    "st_depression": {"column": "oldpeak", "range": [-5, 10], "unit": "mm"},
    "disease": {"column": "num", "categories": {"0": "no", "1": "yes", "2": "yes", "3": "yes", "4": "yes"}},
}
"""What a node says of the files' columns; `?` is missing everywhere, and so is what heart-disease.names has as -9."""

TERMS = {
    "sex": {"sex[male]": "male"},
    "pain": {f"pain[{name}]": name.replace(" ", "_").replace("-", "_") for name in
             ("atypical angina", "non-anginal pain", "asymptomatic")},
    "exercise_angina": {"exercise_angina[yes]": "exercise_angina"},
    "disease": {"disease[yes]": "disease"},
}  # fmt: skip
"""A formula's categories -> the terms that they become, and the columns of 0 and 1 that these are here."""


def write_hospitals(folder: Path, study: Study) -> pd.DataFrame:
    """A folder of sites with the original lines, and all their people."""
    sites, tables = {}, []
    for name, (country, _) in HOSPITALS.items():
        table = hospital(name)
        lines = list(dict.fromkeys((DATA / f"processed.{name}.data").read_text(encoding="utf-8").split()))
        rows = [",".join(["person", *NAMES]), *(f"{name}-{i:03d},{line}" for i, line in enumerate(lines))]
        (folder / f"{name}.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
        variables = {key: {"missing": [-9]} | said for key, said in VARIABLES.items()}
        dataset = {"identifier": f"HEART-{name}", "assembly": "GRCh37", "people": f"{name}.csv", "variables": variables}
        sites[name] = {"country": country, "people": len(table), "dataset": dataset}
        tables.append(table.assign(site=name))
    policy = {
        "coordinators": ["demo"], "purposes": ["scientific_research"], "analyses": {"regression": ["exact"]},
        "epsilon": 1.0, "delta": 1e-6, "minimum_people": 20, "minimum_sites": 3, "minimum_cell": 5,
        "columns": {name: span.plain() for name, span in study.columns.items()},
    }  # fmt: skip
    (folder / "sites.toml").write_text(tomli_w.dumps({"policy": policy, "sites": sites}), encoding="utf-8")
    return pd.concat(tables, ignore_index=True)


def terms(study: Study, question: str) -> dict[str, str]:
    """The terms of a question's formula, and the columns that they are."""
    said = str(parameters(study.question(question).analysis)["formula"]).split(" + ")  # type: ignore[union-attr]
    return {term: column for name in said for term, column in TERMS.get(name, {name: name}).items()}


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
        complete = everybody[["disease", *names.values()]].dropna()
        rows = sm.add_constant(complete[[*names.values()]])
        want = sm.Logit(complete["disease"], rows).fit(disp=0, tol=1e-14, method="newton")
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
    rows = everybody[["heart_rate", "site", *within.values()]].dropna()
    own = pd.concat([rows[[*within.values()]], pd.get_dummies(rows["site"], dtype=float)], axis=1)
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
        shown = f"{ratio:.4g}".replace("-", "−")
        assert re.search(rf"{re.escape(name)}</t[dh]>.*?{shown}", article[1], re.DOTALL), name
