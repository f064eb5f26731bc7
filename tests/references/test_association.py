"""Every form of an association over sites equals ordinary least squares over the people together, computed plainly."""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest

from strategies.analyses.association import LinearAssociation, Missing
from strategies.analysis import Answer, Frame, Total
from strategies.cohort import COPY, NO_DOSAGE, Cohort
from strategies.design import Standardise
from strategies.tested import Form
from tests.laws.zoo import PLACES, RANGES, TWO, add, cohort, panel, whole

VARIANTS, SITES = 40, ("a", "b", "c", "d")
QUESTION = LinearAssociation("common", ("trait", "high"), ("sex", "score"), minimum_minor_alleles=5, minimum_missing=12)
ADJUSTED = Answer({}, {"shrinkage_trait": 0.8, "calibration_trait": 1.2})
AT = np.array([0, 0, 0, 0, 0, 1, 1, 1, 2, 3])
"""The sites of ten people after one another: unequal sizes."""


def frame_of(question: LinearAssociation) -> Frame:
    return Frame(panel(VARIANTS, TWO if question.offset else PLACES[:1]), RANGES)


def site_of(everybody: Cohort) -> np.ndarray:
    return AT[np.arange(len(everybody)) % len(AT)]


def people(seed: int, missing: float = 0.08) -> Cohort:
    """Sites that differ in their traits and in their alleles, some people without a value, some variants odd."""
    rng = np.random.default_rng(seed)
    drawn = cohort(400, VARIANTS, seed, missing)
    site = site_of(drawn)
    assert drawn.genotypes is not None
    codes = drawn.genotypes.codes().copy()
    codes[0] = 0  # nobody has the alternate
    codes[1, 2:] = 0  # few copies
    codes[2][codes[2] == 3] = 0  # nobody is missing
    codes[3][codes[3] == 3] = 1
    codes[3, 30:33] = 3  # few are missing
    codes[4, site > 1] = 3  # two sites hold it
    codes[5, site == 3] = 3  # one site does not hold it
    sex = drawn.columns["sex"]
    codes[6] = np.where(np.isnan(sex), 3, np.nan_to_num(sex)).astype(np.uint8)  # the genotype is a covariate
    columns = dict(drawn.columns)
    moved = columns["trait"] + 0.7 * site + 0.3 * (codes[9] % 3) + rng.normal(0, 1, len(site))
    columns["trait"] = RANGES["trait"].clamp(moved)
    columns |= {name: np.nan_to_num(values) for name, values in columns.items() if "." in name}
    assert drawn.dosages is not None
    dosages = np.concatenate([whole(codes[:7]), drawn.dosages[7:]])
    return replace(
        drawn, genotypes=type(drawn.genotypes).pack(codes), columns=MappingProxyType(columns), dosages=dosages
    )


def answered(question: LinearAssociation, everybody: Cohort, minimum_cell: int = 0) -> tuple[Answer, LinearAssociation]:
    parts = [everybody.take(np.flatnonzero(site_of(everybody) == s)) for s in range(4)]
    frame = frame_of(question)
    if question.offset:
        question = question.after(ADJUSTED, frame)
    second = question.conclude(Total(add([question.summarise(p, frame) for p in parts]), SITES), frame)
    assert isinstance(second, LinearAssociation)
    sums = add([second.summarise(p, frame) for p in parts])
    answer = second.conclude(Total(sums, SITES, {}, minimum_cell), frame)
    assert isinstance(answer, Answer)
    return answer, second


def least_squares(question: LinearAssociation, everybody: Cohort, forms: str) -> dict[str, dict[str, np.ndarray]]:
    """The same by numpy's least squares over all people, with an indicator column for each site."""
    assert everybody.genotypes is not None
    assert everybody.dosages is not None
    size = len(question.covariates)
    table = np.stack([everybody.columns[name] for name in (*question.covariates, *question.traits)], axis=1)
    inside = np.isfinite(table).all(axis=1)
    table, codes = table[inside], everybody.genotypes.codes()[:, inside].astype(float)
    if question.dosages:
        codes = np.where(everybody.dosages == NO_DOSAGE, 3.0, everybody.dosages / COPY)[:, inside]
    deviation = table.std(axis=0)
    offsets = [everybody.columns[f"wgr.trait_chr{c}"][inside] for c, _ in TWO]
    site = site_of(everybody)[inside]
    if question.standardise is Standardise.SITE:
        for s in range(4):
            table[site == s] = (table[site == s] - table[site == s].mean(axis=0)) / table[site == s].std(axis=0)
    names = ("beta", "standard_error", "t", "n")
    out = {trait: {name: np.full(len(codes), np.nan) for name in names} for trait in question.traits}
    for j, form in enumerate(map(int, forms)):
        if form < Form.WHOLE:
            continue
        g = codes[j].copy()
        seen = g != 3
        if form == Form.IMPUTED:
            g[~seen] = g[seen].mean()
            seen[:] = True
        own = np.ones((len(g), 1))
        if question.site_effects:
            own = np.stack([site == s for s in np.unique(site[seen])], axis=1)
        X = np.column_stack([own, table[:, :size], g])[seen]
        for trait in question.traits:
            out[trait]["n"][j] = seen.sum()
        if np.linalg.matrix_rank(X) < X.shape[1]:
            continue
        inverse = np.linalg.inv(X.T @ X)
        for number, trait in enumerate(question.traits, start=size):
            y = table[seen, number]
            if question.offset:
                y = y - deviation[number] * offsets[j % 2][seen]
            b = inverse @ (X.T @ y)
            b += inverse @ (X.T @ (y - X @ b))
            left = y - X @ b
            error = np.sqrt(left @ left / (len(y) - X.shape[1]) * inverse[-1, -1])
            shrinkage, calibration = ADJUSTED.facts.values() if question.offset else (1.0, 1.0)
            b, error = b / shrinkage, error / (shrinkage * np.sqrt(calibration))
            for name, value in zip(names, (b[-1], error, b[-1] / error), strict=False):
                out[trait][name][j] = value
    return out


CHANGES: tuple[dict[str, Any], ...] = (
    {},
    {"missing": Missing.MEAN_IMPUTED},
    {"site_effects": True},
    {"site_effects": True, "missing": Missing.MEAN_IMPUTED},
    {"site_effects": True, "covariates": ()},
    {"standardise": Standardise.SITE},
    {"standardise": Standardise.SITE, "site_effects": True, "traits": ("trait",)},
    {"traits": ("high",), "covariates": (), "minimum_missing": 1},
    {"dosages": True},
    {"dosages": True, "missing": Missing.MEAN_IMPUTED, "minimum_missing": 1},
    {"dosages": True, "site_effects": True},
    {"offset": "wgr", "traits": ("trait",)},
    {"offset": "wgr", "traits": ("trait",), "missing": Missing.MEAN_IMPUTED, "covariates": ()},
    {"offset": "wgr", "traits": ("trait",), "site_effects": True, "dosages": True},
)


@pytest.mark.parametrize("change", CHANGES, ids=[" ".join(map(str, c)) or "plain" for c in CHANGES])
def test_every_form_is_least_squares(change: dict[str, Any]) -> None:
    question, everybody = replace(QUESTION, **change), people(1)
    answer, second = answered(question, everybody)
    want = least_squares(question, everybody, second.forms)
    for trait in question.traits:
        for name, values in want[trait].items():
            got = np.asarray(answer.tables[trait][name])
            assert np.array_equal(np.isnan(got), np.isnan(values)), (trait, name)
            there = np.isfinite(values)
            assert there.sum() > 30
            print(trait, name, f"{np.abs(got[there] / values[there] - 1).max():.1e}")
            # An offset is taken from a trait in deviations whose sum of squares is on a grid of 2^-32.
            assert np.abs(got[there] / values[there] - 1).max() < (1e-8 if question.offset else 1e-9), (trait, name)


def test_the_forms_are_what_the_counts_say() -> None:
    _, second = answered(QUESTION, people(1))
    want = (Form.RARE, Form.RARE, Form.WHOLE, Form.IMPUTED, Form.FEW, Form.LESS)
    assert [int(digit) for digit in second.forms[:6]] == list(want)
    _, imputed = answered(replace(QUESTION, missing=Missing.MEAN_IMPUTED), people(1))
    assert set(imputed.forms) == {"0", "1", "2", "4"}
