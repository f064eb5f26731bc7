"""All phenotypes of a variant beside covariates: each pair equal to statsmodels on the pooled people."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from numpy.typing import NDArray

from strategies import phenome
from strategies.analyses.phewas import PROBLEMS, SEPARATED, STEEP, PheWAS
from strategies.analysis import Answer, Frame, Range, Total
from strategies.cohort import MISSING, Cohort, Genotypes
from strategies.protections.suppression import WITHHELD, small
from strategies.variants import Panel, Variant
from tests.laws.zoo import add
from tests.references.test_logistic_association import firth

RANGES = {
    "age": Range(18.0, 90.0, "a"),
    "sex": Range.of("female", "male"),
    "pcs.pc1": Range(-32.0, 32.0),
    "bmi": Range(10.0, 60.0, "kg/m2"),
    "ldl": Range(0.0, 10.0, "mmol/L"),
    "gout": Range.of("no", "yes"),
    "asthma": Range.of("no", "yes"),
    "rare": Range.of("no", "yes"),
    "apart": Range.of("no", "yes"),
}
COVARIATES = ("age", "sex", "pcs.pc1")
PHENOTYPES = ("bmi", "gout", "ldl", "asthma", "rare", "apart")
FREQUENCIES = (0.45, 0.3, 0.12, 0.5, 0.25, 0.4)
PEOPLE, SITES_MADE = 1500, 4
QUESTION = PheWAS("few", PHENOTYPES, COVARIATES)
FRAME = Frame(Panel("GRCh37", tuple(Variant("22", 1 + j, f"v{j}", "A", "C") for j in range(len(FREQUENCIES)))), RANGES)


@dataclass(frozen=True, eq=False)
class People:
    """Pooled people, cut over some sites."""

    codes: NDArray[np.uint8]
    columns: dict[str, NDArray[np.float64]]

    @property
    def parts(self) -> list[Cohort]:
        at = [np.flatnonzero(np.random.default_rng(3).integers(0, SITES_MADE, PEOPLE) == s) for s in range(SITES_MADE)]
        whole = Cohort(PEOPLE, Genotypes.pack(self.codes), self.columns)
        return [whole.take(some) for some in at]

    def pair(self, variant: int, phenotype: str) -> pd.DataFrame:
        """Whoever has the covariates, the phenotype and the genotype: y, copies, covariates."""
        table = pd.DataFrame({"y": self.columns[phenotype], "g": self.codes[variant].astype(float)})
        table["g"] = table["g"].where(table["g"] != MISSING)
        return table.assign(**{name: self.columns[name] for name in COVARIATES}).dropna()

    def asked(
        self, question: PheWAS, minimum: int = 0, frame: Frame = FRAME
    ) -> tuple[pd.DataFrame, list[PheWAS], Answer]:
        """The answer's table, and the rounds that led to it."""
        steps, at, parts = [question], question, self.parts
        while True:
            total = Total(add([at.summarise(part, frame) for part in parts]), tuple("abcd"), {}, minimum)
            following = at.conclude(total, frame)
            if isinstance(following, Answer):
                return pd.DataFrame(dict(following.tables["phenome"])), steps, following
            steps, at = [*steps, following], following


@pytest.fixture(scope="module")
def people() -> People:
    rng = np.random.default_rng(22)
    codes = np.stack([rng.binomial(2, f, PEOPLE) for f in FREQUENCIES]).astype(np.uint8)
    copies = codes.astype(float)
    age, sex, pc = rng.uniform(20, 85, PEOPLE), rng.integers(0, 2, PEOPLE), rng.normal(0, 1, PEOPLE)
    odds = {
        "gout": -2 + 0.03 * (age - 50) + 0.8 * sex + 0.3 * pc + 0.5 * copies[1],
        "asthma": -0.5 - 0.01 * age + 0.4 * copies[0] - 0.2 * sex,
        "rare": np.full(PEOPLE, -3.4) + 0.2 * copies[3],
        "apart": np.where(sex == 1, -1.5, -50.0),  # men alone have it
    }
    columns: dict[str, Any] = {
        "age": age, "sex": sex, "pcs.pc1": pc,
        "bmi": 25 + 0.05 * age + 0.7 * copies[2] - 0.5 * pc + rng.normal(0, 3, PEOPLE),
        "ldl": 3 + 0.01 * age + 0.2 * sex - 0.3 * copies[4] + rng.normal(0, 0.8, PEOPLE),
        **{name: rng.random(PEOPLE) < 1 / (1 + np.exp(-eta)) for name, eta in odds.items()},
    }  # fmt: skip
    columns = {name: RANGES[name].clamp(np.asarray(values, dtype=float)) for name, values in columns.items()}
    for name, values in columns.items():
        values[rng.random(PEOPLE) < (0.03 if name in COVARIATES else 0.15)] = np.nan
    codes[rng.random(codes.shape) < 0.03] = MISSING
    codes[0, codes[0] == MISSING] = 1  # one variant that everybody has a genotype of
    return People(codes, columns)


def pairs() -> Iterator[tuple[int, int, str]]:
    for j in range(len(FREQUENCIES)):
        for i, name in enumerate(PHENOTYPES):
            yield j * len(PHENOTYPES) + i, j, name


def test_each_pair_is_statsmodels_regression_of_the_pooled_people(people: People) -> None:
    table, _, answer = people.asked(QUESTION)
    assert answer.facts["people"] == np.isfinite([people.columns[name] for name in COVARIATES]).all(axis=0).sum()
    for row, variant, name in pairs():
        got, own = table.iloc[row], people.pair(variant, name)
        assert (got["variant"], got["phenotype"], got["people"]) == (f"v{variant}", name, len(own))
        if name == "apart":
            continue
        x = sm.add_constant(own[["g", *COVARIATES]])
        if RANGES[name].categories:
            assert got["cases"] == own["y"].sum()
            fit = sm.Logit(own["y"], x).fit(disp=0, method="newton", tol=1e-13, maxiter=100)
            low, high = np.exp(fit.conf_int().loc["g"])
            want = np.array([np.exp(fit.params["g"]), low, high, fit.params["g"], fit.bse["g"], fit.pvalues["g"]])
            names = ["odds_ratio", "odds_ratio_low", "odds_ratio_high", "beta", "standard_error", "p_value"]
            np.testing.assert_allclose(got[names].astype(float), want, rtol=1e-7, err_msg=f"{variant} {name}")
        else:
            assert np.isnan(got["odds_ratio"])
            ols = sm.OLS(own["y"], x).fit()
            want = np.array([ols.params["g"], ols.bse["g"], ols.pvalues["g"]])
            told = got[["beta", "standard_error", "p_value"]].astype(float)
            np.testing.assert_allclose(told, want, rtol=1e-8, err_msg=f"{variant} {name}")
        assert got["problem"] == "none"
    best = table.loc[table[table["phenotype"] == "gout"]["p_value"].idxmin()]
    assert best["variant"] == "v1"


def test_where_categories_are_separated_a_pair_says_so(people: People) -> None:
    table, steps, answer = people.asked(QUESTION)
    apart = table["phenotype"] == "apart"
    assert set(table["problem"][apart]) <= {PROBLEMS[SEPARATED], PROBLEMS[-1]}
    assert table.loc[apart, ["beta", "odds_ratio", "p_value"]].isna().all(axis=None)
    assert answer.facts["without_estimate"] == apart.sum()
    assert len(steps) <= QUESTION.rounds()


def test_a_covariate_in_too_wide_a_range_is_said_and_no_node_is_asked(people: People) -> None:
    """Ages of twenty to ninety in a range of 200,000 years: log odds climb by thousands over half of it."""
    wide = Frame(FRAME.panel, {**RANGES, "age": Range(-1e5, 1e5)})
    table, steps, _ = people.asked(replace(QUESTION, phenotypes=("gout", "bmi")), frame=wide)
    gout = table["phenotype"] == "gout"
    assert set(table["problem"][gout]) == {PROBLEMS[STEEP]}
    assert table.loc[gout, ["beta", "odds_ratio", "p_value"]].isna().all(axis=None)
    assert set(table["problem"][~gout]) == {"none"}, "least squares weigh all alike"
    assert len(steps) == 2, "a site would refuse the steps that follow"


@pytest.mark.parametrize("firth", [False, True])
def test_some_pairs_at_a_time_are_the_same_as_all(people: People, firth: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    one = replace(QUESTION, phenotypes=("gout", "bmi", "asthma"), firth=firth)
    table, steps, _ = people.asked(one)
    monkeypatch.setattr(phenome, "PAIRS_AT_A_TIME", 5)
    again, others, _ = people.asked(one)
    pd.testing.assert_frame_equal(again, table)
    for whole, pieces in zip(steps, others, strict=True):
        got, want = pieces.leaves(FRAME), whole.leaves(FRAME)
        assert {name: f.shape for name, f in got.items()} == {name: f.shape for name, f in want.items()}
        for name in got:
            assert (got[name].l1, got[name].l2) == pytest.approx((want[name].l1, want[name].l2), rel=1e-12)


def test_firths_penalty_has_an_estimate_where_they_are(people: People) -> None:
    table, _, answer = people.asked(replace(QUESTION, firth=True))
    assert answer.facts["without_estimate"] == 0
    for row, variant, name in pairs():
        if name not in ("rare", "apart", "gout") or variant > 2:
            continue
        own = people.pair(variant, name)
        x = np.column_stack([own["g"], np.ones(len(own)), own[[*COVARIATES]]])
        x[:, 2:] = (x[:, 2:] - x[:, 2:].mean(axis=0)) / x[:, 2:].std(axis=0)
        b, error, _ = firth(x, own["y"].to_numpy())
        assert table["beta"][row] == pytest.approx(b[0], abs=1e-6 * error)
        assert table["standard_error"][row] == pytest.approx(error, rel=1e-6)


def test_a_pair_with_a_small_cell_is_never_fitted(people: People) -> None:
    minimum = 10
    table, steps, _ = people.asked(QUESTION, minimum)
    there = np.isfinite([people.columns[name] for name in COVARIATES]).all(axis=0)
    few = []
    for _, variant, name in pairs():
        place = np.nan_to_num(people.columns[name], nan=-1.0)
        kinds = place if RANGES[name].categories else np.where(place < 0, -1.0, 0.0)
        cells = [
            np.count_nonzero(there & (people.codes[variant] == code) & (kinds == kind))
            for code in range(4)
            for kind in np.unique(kinds)
        ]
        few.append(bool(small(np.array(cells), minimum).any()))
    assert 0 < sum(few) < len(few)
    assert table["withheld"].tolist() == few
    assert table.loc[table["withheld"], ["people", "cases", "beta", "p_value"]].isna().all(axis=None)
    for step in steps[1:]:
        assert not set(step.pairs.tolist()) & set(np.flatnonzero(few).tolist())
    assert len(steps[1].pairs) == len(few) - sum(few)
    blotted = steps[0].withhold(add([steps[0].summarise(part, FRAME) for part in people.parts]), minimum)
    of_classes = [name for name in PHENOTYPES if RANGES[name].categories]
    hidden = (blotted["binary"] == WITHHELD).any(axis=(2, 3))
    assert hidden.ravel().tolist() == [f for f, (_, _, name) in zip(few, pairs(), strict=True) if name in of_classes]


def test_who_lacks_a_covariate_is_out_of_all_and_who_lacks_a_phenotype_of_that_alone(people: People) -> None:
    assert QUESTION.needs().columns == COVARIATES
    assert QUESTION.needs().optional == PHENOTYPES
    table, _, _ = people.asked(QUESTION)
    columns = {name: values.copy() for name, values in people.columns.items()}
    first = int(np.flatnonzero(np.isfinite(list(columns.values())).all(axis=0))[0])
    columns["gout"][first] = np.nan
    other, _, _ = People(people.codes, columns).asked(QUESTION)
    same = table["phenotype"] != "gout"
    assert table[same].equals(other[same])
    assert (other["people"][~same] <= table["people"][~same]).all()
    columns["age"][first] = np.nan
    out, _, _ = People(people.codes, columns).asked(QUESTION)
    for row, variant, _ in pairs():
        if people.codes[variant, first] != MISSING:
            assert out["people"][row] == table["people"][row] - 1
