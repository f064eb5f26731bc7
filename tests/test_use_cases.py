"""The example studies of the five use cases of 1+MG, on made-up countries: each is answered, and finds what was planted
and nothing else; its report says on its face that nobody stands behind it."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import statsmodels.api as sm

from fl_server import results
from fl_server.results import Results
from simulations import minimal
from simulations.run import simulate
from strategies.study import Study
from strategies.variants import Panel

STUDIES = Path(__file__).parents[1] / "simulations" / "studies"


@pytest.fixture(scope="module")
def countries(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("minimal") / "countries"
    minimal.write(folder)
    return folder


def answered(name: str, countries: Path, out: Path) -> Results:
    study = Study.read(STUDIES / f"{name}.toml")
    outcome = simulate(study, countries)
    results.write(study, outcome.federation, outcome.results, out)
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "Synthetic data" in page
    assert "SYNTHETIC" in (STUDIES / f"{name}.toml").read_text(encoding="utf-8")
    assert [result.question.name for result in outcome.results] == [question.name for question in study.questions]
    return results.load(out)


def happened(countries: Path, domain: str, code: str = "") -> dict[str, str]:
    """Who had an event -> its date, read anew from the tables."""
    out = {}
    for country in minimal.COUNTRIES:
        with (countries / country / "events.tsv").open(encoding="utf-8") as file:
            rows = csv.DictReader(file, delimiter="\t")
            out |= {row["person"]: row["date"] for row in rows if (row["domain"], row["code"]) == (domain, code)}
    return out


def test_the_studies_panels_are_the_made_up_ones() -> None:
    whole = minimal.panel()
    for name, span in minimal.PANELS.items():
        asked = Panel.read(STUDIES / f"madeup_{name}.tsv", minimal.ASSEMBLY)
        assert [v.key for v in asked.variants] == [v.key for v in whole[span].variants]


def test_rare_disease(countries: Path, tmp_path: Path) -> None:
    found = answered("rare_disease", countries, tmp_path / "out")
    affected = happened(countries, "condition", minimal.HYPERTHERMIA)
    assert found["carriers_by_diagnosis"].facts["people_yes"] == len(affected)
    gene = found["gene"].table().row(0, named=True)
    assert gene["gene"] == "RYR1"
    assert gene["skat_o_p"] < 1e-8


def test_cancer(countries: Path, tmp_path: Path) -> None:
    found = answered("cancer", countries, tmp_path / "out")
    melanoma, inhibited = (
        happened(countries, "condition", minimal.MELANOMA),
        happened(countries, "drug", minimal.BRAF_INHIBITOR),
    )
    steps = found["flow"].table()["people"].to_list()
    assert steps == [sum(minimal.COUNTRIES.values()), *[len(melanoma)] * 3]
    margins = found["treatment"].table("margins")
    assert margins.filter(variable="inhibitor", category="yes")["people"].item() == len(inhibited)
    hazards = {row["term"]: row for row in found["hazards"].table().iter_rows(named=True)}
    assert hazards["inhibitor yes"]["hazard_ratio"] < 0.8
    assert hazards["inhibitor yes"]["p_value"] < 1e-3
    assert hazards["stage IV"]["hazard_ratio"] > hazards["stage III"]["hazard_ratio"] > 1.5
    assert hazards["onset"]["p_value"] > 1e-3, "nothing was planted there"
    dead = happened(countries, "death")
    assert found["curves"].facts["events"] == sum(person in dead for person in melanoma)


def test_common_disease(countries: Path, tmp_path: Path) -> None:
    found = answered("common_disease", countries, tmp_path / "out")
    diabetic = happened(countries, "condition", minimal.DIABETES)
    assert found["told_apart"].facts["cases"] == len(diabetic)
    assert found["told_apart"].facts["area"] > 0.65
    score = found["hba1c"].table().filter(term="score.score")
    assert score["p_value"].item() < 1e-30
    scored = found["diabetes"].table().filter(found["diabetes"].table()["p_value"] < 1e-6)["id"].to_list()
    assert scored
    assert {int(name.removeprefix("common_")) < minimal.SCORED for name in scored} == {True}
    phenome, facts = found["phenome"].table(), found["phenome"].facts
    assert facts["covariates"] == "age, gender"
    assert (len(phenome), facts["tests"]) == (65, 65), "no cell of theirs is small"
    best = phenome.filter(phenome["q_value"] < 1e-3)
    pairs = set(zip(best["variant"], best["phenotype"], strict=True))
    assert ("severity", "severe") in pairs
    of_score = {phenotype for variant, phenotype in pairs if variant.startswith("common_")}
    assert {"hba1c"} <= of_score <= {"hba1c", "diabetes"}, "nothing was planted elsewhere"
    # The logistic association asks the same with another penalty, of people with a mean in the place of a genotype.
    ratios = phenome.filter(phenotype="diabetes").join(found["diabetes"].table(), left_on="variant", right_on="id")
    assert len(ratios) == 13
    np.testing.assert_allclose(ratios["beta"], ratios["beta_right"], atol=0.5 * float(ratios["standard_error"].max()))


def test_infectious_disease(countries: Path, tmp_path: Path) -> None:
    found = answered("infectious_disease", countries, tmp_path / "out")
    infected, ventilated = (
        happened(countries, *one) for one in (("condition", minimal.COVID), ("procedure", minimal.VENTILATION))
    )
    assert found["severity"].facts["people"] == len(infected)
    table = found["severity"].table().sort("p_value", nulls_last=True)
    assert table["id"][0] == "severity"
    assert table["p_value"][0] < 1e-6 < table["p_value"][1]
    born, male = happened(countries, "birth"), {}
    for country in minimal.COUNTRIES:
        with (countries / country / "people.tsv").open(encoding="utf-8") as file:
            male |= {row["person"]: row["gender"] == "male" for row in csv.DictReader(file, delimiter="\t")}
    people = sorted(infected)
    age = np.array([_years(born[person], "2025-06-30") for person in people], dtype=np.float64)
    is_male = np.array([male[person] for person in people], dtype=np.float64)
    severe = np.array([person in ventilated for person in people], dtype=np.float64)
    pooled = sm.Logit(severe, np.column_stack([np.ones(len(people)), age, is_male, age * is_male])).fit(
        disp=0, tol=1e-12
    )
    np.testing.assert_allclose(found["risk"].table()["coefficient"], pooled.params, rtol=1e-7, atol=1e-9)


def _years(born: str, day: str) -> int:
    """Whole years from one date to another."""
    return int(day[:4]) - int(born[:4]) - (day[5:] < born[5:])


def test_genome_of_europe(countries: Path, tmp_path: Path) -> None:
    found = answered("genome_of_europe", countries, tmp_path / "out")
    everybody = sum(minimal.COUNTRIES.values())
    assert found["frequencies"].facts["people"] == found["pca"].facts["people"] == everybody
    exact, noised = found["frequencies"].table(), found["published_frequencies"].table()
    away = np.abs(exact["frequency"].to_numpy() - noised["frequency"].to_numpy())
    assert np.nanmedian(away) > 0, "noise was added"
    assert np.nanmedian(away) < 0.1
    (people,) = {found["distribution"].facts["people"]}
    assert people == everybody
