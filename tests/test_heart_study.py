"""The example study of four hospitals, end to end: gates, secure summing, report; equal to statsmodels on all rows."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
import tomli_w
from sklearn.ensemble import HistGradientBoostingClassifier

from fl_server import results
from simulations.run import simulate
from strategies.analysis import parameters
from strategies.learning.boosted_trees import BoostedTrees
from strategies.question import Question
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
        "coordinators": ["demo"], "purposes": ["scientific_research"],
        "analyses": {"regression": ["exact"], "boosted_trees": ["exact"]},
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


FEATURES = ("age", "sex", "pain", "pressure", "heart_rate", "exercise_angina", "st_depression")


def test_four_hospitals_trees_are_those_of_all_rows(tmp_path: Path) -> None:
    """scikit-learn's on everybody with every column, equally binned, where cells of few people need not be joined."""
    study = Study.read(ROOT / "simulations" / "studies" / "heart.toml")
    (tmp_path / "sites").mkdir()
    everybody = write_hospitals(tmp_path / "sites", study)
    policies = tmp_path / "sites" / "sites.toml"
    policies.write_text(policies.read_text(encoding="utf-8").replace("minimum_cell = 5", "minimum_cell = 0"))
    page = BoostedTrees("disease", FEATURES, trees=12, depth=3)
    asked = replace(study, minimum_cell=0, questions=(Question("trees", page),))
    (result,) = simulate(asked, tmp_path / "sites").results
    table, facts = result.answer.tables["trees"], result.answer.facts

    columns = [column for name in FEATURES for column in TERMS.get(name, {name: name}).values()]
    rows = everybody[["disease", *columns]].dropna()
    assert facts["people"] == len(rows)
    pain = np.array(["typical_angina", "atypical_angina", "non_anginal_pain", "asymptomatic"])
    values: dict[str, np.ndarray] = {}
    for name in FEATURES:
        if name == "pain":
            typical = 1 - rows[[*TERMS["pain"].values()]].sum(axis=1)
            kinds = [typical, *(rows[kind] for kind in pain[1:])]
            labels = ("typical angina", "atypical angina", "non-anginal pain", "asymptomatic")
            values |= {f"pain {label}": kind.to_numpy() for label, kind in zip(labels, kinds, strict=True)}
        elif name in TERMS:
            ((term, column),) = TERMS[name].items()
            values[f"{name} {term.split('[')[1][:-1]}"] = rows[column].to_numpy()
        else:
            span = study.columns[name]
            edges = np.linspace(span.minimum, span.maximum, 33)
            values[name] = np.clip(np.searchsorted(edges, rows[name], side="right") - 1, 0, 31)
    model = HistGradientBoostingClassifier(
        max_iter=12, max_depth=3, max_leaf_nodes=None, min_samples_leaf=20, early_stopping=False
    ).fit(np.stack([*values.values()], axis=1).astype(float), rows["disease"])
    assert facts["base"] == pytest.approx(model._baseline_prediction.item(), rel=1e-12)
    for number, (predictor,) in enumerate(model._predictors, start=1):
        mine = np.asarray(table["tree"]) == number
        order = _in_order(np.asarray(table["node"])[mine], np.asarray(table["feature"])[mine])
        nodes = predictor.nodes
        parted = nodes["is_leaf"] == 0
        named = np.where(parted, np.array([*values])[nodes["feature_idx"]], "")
        assert np.asarray(table["feature"])[mine][order].tolist() == named.tolist()
        assert np.asarray(table["people"])[mine][order].tolist() == nodes["count"].tolist()
        np.testing.assert_allclose(np.asarray(table["value"])[mine][order][~parted], nodes["value"][~parted], atol=1e-9)
    assert facts["rounds"] <= 1 + 12 * 3


def _in_order(node: np.ndarray, feature: np.ndarray) -> list[int]:
    """Places of a tree's nodes as scikit-learn has them: a node, then all below its first child, then its second."""
    place = {int(k): i for i, k in enumerate(node)}

    def below(k: int) -> list[int]:
        return [place[k], *(below(2 * k + 1) + below(2 * k + 2) if feature[place[k]] else [])]

    return below(0)
