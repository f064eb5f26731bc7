"""The example study that asks every genotype question, over the demo's sites in this process."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest

from fl_server import results
from simulations.run import simulate
from strategies.catalogue import CATALOGUE
from strategies.privacy import Regime
from strategies.study import Study
from strategies.variants import Panel

ROOT = Path(__file__).parents[1]
STUDY, SITES = ROOT / "simulations" / "studies" / "genotypes.toml", ROOT / "simulations" / "data" / "europe1000g"
PEOPLE = 358


@pytest.mark.parametrize("every", [8, pytest.param(1, marks=pytest.mark.proof)])
def test_every_genotype_question_of_the_example_is_answered(every: int, tmp_path: Path) -> None:
    """In full: by all four sites, about everybody, no fact unknown, and numbers in every table. One in so many of the
    large panel's variants is asked about."""
    asked, out = Study.read(STUDY), tmp_path / "results"
    common = asked.panels["common"]
    asked = replace(asked, panels={**asked.panels, "common": Panel(common.assembly, common.variants[::every])})
    of_genotypes = {page for page in CATALOGUE if page.regime is Regime.EXACT and "panel" in page.__dataclass_fields__}  # type: ignore[attr-defined]
    assert of_genotypes <= {type(q.analysis) for q in asked.questions}
    outcome = simulate(asked, SITES)
    results.write(asked, outcome.federation, outcome.results, out)
    answers, report = results.load(out), (out / "report.html").read_text()
    assert list(answers) == [question.name for question in asked.questions]
    for name, answer in answers.items():
        assert answer.statement["sites"] == ["CEU", "FI", "GB", "IT"], name
        assert answer.facts.get("people", PEOPLE) == PEOPLE, name
        assert None not in answer.facts.values(), name
        assert name in report
        tables = list((out / name).glob("*.parquet"))
        assert tables, name
        for file in tables:
            table = pl.read_parquet(file)
            numbers = [c for c, kind in table.schema.items() if kind.is_float()]
            known = [int(table[c].is_finite().sum() or 0) for c in numbers]
            assert min(known, default=len(table)) > len(table) / 2, (file, known)
    offset = answers["high_beside_it"].facts
    assert offset["offset"] == "high_from_elsewhere"
    for name in ("dispersion_chr22", "calibration_GSTT1_high"):  # nothing lies on another chromosome
        assert offset[name] == pytest.approx(1, abs=1e-9)
