"""Regressions on published clinical tables, over their own sites or random ones, against statsmodels on all rows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm

from strategies.analyses.regression import Regression
from strategies.analysis import Range
from strategies.families import Family
from strategies.sandwich import Errors
from tests.references.test_regression import cohort, over_sites, same

CLINICAL = Path(__file__).parents[3] / "shared" / "data" / "clinical"

pytestmark = pytest.mark.skipif(not CLINICAL.exists(), reason="the shared data folder is not there")


def ready(table: pd.DataFrame, ranges: dict[str, Range]) -> pd.DataFrame:
    """Columns of numbers, clamped as a node does it."""
    out = table.astype(float)
    for name, span in ranges.items():
        out[name] = span.clamp(out[name].to_numpy())
    return out


def test_deaths_of_flchain() -> None:
    raw = pd.read_csv(CLINICAL / "survival_flchain.csv")
    ranges = {
        "age": Range(50.0, 105.0),
        "male": Range.of("F", "M"),
        "kappa": Range(0.001, 50.0),
        "creatinine": Range(0.1, 20.0),
        "death": Range(0.0, 1.0),
        "futime": Range(0.5, 6000.0),
    }
    table = ready(raw.assign(male=raw["sex"] == "M")[list(ranges)], ranges)
    assert len(table) == 7874
    split = np.random.default_rng(1).integers(0, 6, len(table))
    parts = [cohort(table[split == s], ranges) for s in range(7)]
    whole = table.dropna()
    assert len(whole) == 6524, "creatinine is missing of 1,350 people"
    x = pd.DataFrame({"one": 1.0, "age": whole["age"], "male": whole["male"], "kappa": np.log(whole["kappa"])})
    x["age:male"] = x["age"] * x["male"]
    formula = "age*male + log(kappa)"
    needed = [*ranges]
    for family, errors in ((Family.BINOMIAL, Errors.HC0), (Family.POISSON, Errors.CLASSICAL)):
        exposure = "futime" if family is Family.POISSON else None
        question = Regression("death", f"{formula} + creatinine", family, exposure, errors)
        full = x.assign(creatinine=whole["creatinine"])
        full = full[["one", "age", "male", "kappa", "creatinine", "age:male"]]
        if family is Family.BINOMIAL:
            want = sm.Logit(whole["death"], full).fit(disp=0, tol=1e-14, method="newton", cov_type="HC0")
        else:
            offset = np.log(whole["futime"])
            want = sm.Poisson(whole["death"], full, offset=offset).fit(disp=0, tol=1e-14, method="newton")
        assert set(question.needs().columns) <= set(needed)
        same(over_sites(question, parts, ranges), want)


def test_status_by_treatment_at_two_centres_of_respiratory() -> None:
    raw = pd.read_csv(CLINICAL / "HSAUR_respiratory.csv").query("month == 4")
    ranges = {
        "treatment": Range.of("placebo", "treatment"),
        "age": Range(10.0, 80.0),
        "good": Range(0.0, 1.0),
    }
    table = pd.DataFrame(
        {"treatment": raw["treatment"] == "treatment", "age": raw["age"], "good": raw["status"] == "good"}
    ).astype(float)
    parts = [cohort(table[(raw["centre"] == c).to_numpy()], ranges) for c in (1, 2)]
    x = sm.add_constant(table[["treatment", "age"]]).assign(square=table["age"] ** 2)
    want = sm.Logit(table["good"], x).fit(disp=0, tol=1e-14, method="newton")
    same(over_sites(Regression("good", "treatment + age + age^2", Family.BINOMIAL), parts, ranges), want)


def test_birth_weight_at_the_four_clinics_of_opt() -> None:
    raw = pd.read_csv(CLINICAL / "medicaldata_opt.csv")
    ranges = {
        "age": Range(15.0, 50.0),
        "smokes": Range(0.0, 1.0),
        "weight": Range(0.0, 6000.0, "g"),
        "bmi": Range(10.0, 80.0),
    }
    table = pd.DataFrame(
        {
            "age": raw["Age"],
            "smokes": raw["Use.Tob"].str.strip().map({"Yes": 1.0, "No": 0.0}),
            "weight": pd.to_numeric(raw["Birthweight"], errors="coerce"),
            "bmi": raw["BMI"],
        }
    ).astype(float)
    clinics = raw["Clinic"].to_numpy()
    parts = [cohort(table[clinics == c], ranges) for c in np.unique(clinics)]
    assert len(parts) == 4
    inside = table.notna().all(axis=1)
    whole, at = table[inside], clinics[inside]
    x = sm.add_constant(whole[["age", "smokes", "bmi"]])
    same(over_sites(Regression("weight", "age + smokes + bmi"), parts, ranges), sm.OLS(whole["weight"], x).fit())
    own = pd.concat([x.drop(columns="const"), pd.get_dummies(pd.Series(at, index=whole.index), dtype=float)], axis=1)
    want = sm.OLS(whole["weight"], own).fit(cov_type="HC1")
    answer = over_sites(Regression("weight", "age + smokes + bmi", errors=Errors.HC1, site_effects=True), parts, ranges)
    table = answer.tables["coefficients"]
    np.testing.assert_allclose(np.asarray(table["coefficient"]), want.params[:3], rtol=1e-8)
    np.testing.assert_allclose(np.asarray(table["standard_error"]), want.bse[:3], rtol=1e-8)


def test_copper_of_pbc_as_a_count() -> None:
    """Copper, a whole number that varies far more than Poisson's, as a count."""
    raw = pd.read_csv(CLINICAL / "survival_pbc.csv")
    ranges = {"copper": Range(0.0, 600.0), "age": Range(20.0, 90.0), "bili": Range(0.1, 40.0), "stage": Range(1.0, 4.0)}
    table = raw[list(ranges)].astype(float)
    split = np.random.default_rng(3).integers(0, 4, len(table))
    parts = [cohort(table[split == s], ranges) for s in range(4)]
    whole = table.dropna()
    x = sm.add_constant(pd.DataFrame({"age": whole["age"], "bili": np.log(whole["bili"]), "stage": whole["stage"]}))
    start = sm.Poisson(whole["copper"], x).fit(disp=0, method="newton").params
    want = sm.NegativeBinomial(whole["copper"], x).fit(np.append(start, 0.5), disp=0, method="newton", tol=1e-14)
    same(over_sites(Regression("copper", "age + log(bili) + stage", Family.NEGATIVE_BINOMIAL), parts, ranges), want)
