"""Awkward cohorts, and each analysis of the catalogue in every one of its rounds: what the laws run over."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import MISSING, dataclass, field, fields
from functools import cache
from types import MappingProxyType
from typing import Any

import numpy as np

from strategies.analyses.association import Missing
from strategies.analyses.carriers import Coding
from strategies.analyses.cox import Baseline
from strategies.analysis import PASSED, PROJECTED, Analysis, Answer, Following, Frame, Range, Total, names_of
from strategies.catalogue import CATALOGUE
from strategies.cohort import COPY, NO_DOSAGE, Cohort, Genotypes
from strategies.design import Standardise
from strategies.families import Family
from strategies.hits import SecondTest
from strategies.learning.boosted_trees import Loss
from strategies.sandwich import Errors
from strategies.variants import How, Panel, Variant

RANGES = {
    "trait": Range(-3.0, 5.0),
    "high": Range(0.0, 1.0),
    "sex": Range(1.0, 2.0),
    "score": Range(0.0, 10.0),
    "risk": Range(-6.0, 6.0),
    "wgr.trait_chr21": PROJECTED,
    "wgr.trait_chr22": PROJECTED,
    "arm": Range.of("placebo", "drug"),
    "smoking": Range.of("never", "former", "current"),
    "outcome": Range.of("none", "death", "other"),
    "time": Range(0.0, 100.0, "mo"),
    "visits": Range(0.0, 12.0),
    PASSED: Range.of("everybody", "adults", "treated", "followed"),
    "years": Range(0.25, 20.0, "a"),
}
FREQUENCIES = (0.5, 0.1, 0.93, None, 0.02, 0.37, 0.64)
WEIGHTS = (0.3, -0.2, None, 0.05, 1.0)


PLACES = (("22", 100), ("X", 5_000_000), ("Y", 5_000_000), ("X", 2_000_000), ("MT", 100), ("X", 154_000_000))
"""An autosome; X, Y, a pseudo-autosomal region of X, MT, X again."""

TWO = (("21", 100), ("22", 100))
"""Chromosomes that have an offset each."""


def panel(variants: int, places: tuple[tuple[str, int], ...] = PLACES[:1]) -> Panel:
    at = [places[j % len(places)] for j in range(variants)]
    rows = (
        Variant(c, p + j, f"v{j}", "A", "C", FREQUENCIES[j % 7], weight=WEIGHTS[j % 5], genes=genes_of(j))
        for j, (c, p) in enumerate(at)
    )
    return Panel("GRCh37", tuple(rows), states=frozenset({"WEIGHT", "GENE"}))


def genes_of(number: int) -> tuple[str, ...]:
    """Genes of five variants that share their last with the next; every tenth variant is in none, so that a panel can
    be cut there."""
    ten, place = divmod(number, 10)
    return tuple(f"gene{ten}{name}" for name, first in (("a", 0), ("b", 4)) if first <= place <= first + 4)


@cache
def cohort(people: int, variants: int, seed: int, missing: float = 0.1) -> Cohort:
    """People at random. They are drawn once and shared by all who ask alike, and nobody may write into them."""
    rng = np.random.default_rng(seed)
    codes = rng.binomial(2, rng.uniform(0.05, 0.95, variants)[:, None], (variants, people)).astype(np.uint8)
    codes[rng.random(codes.shape) < missing] = 3
    columns = {
        "trait": RANGES["trait"].clamp(rng.normal(0, 2, people)),
        "high": rng.integers(0, 2, people).astype(float),
        "sex": rng.integers(1, 3, people).astype(float),
        "score": rng.uniform(0, 10, people),
        "risk": RANGES["risk"].clamp(rng.normal(0.3, 1.5, people)),
    }
    for values in columns.values():
        values[rng.random(people) < missing / 2] = np.nan
    for chromosome in (21, 22):
        values = rng.normal(0, 0.5, people)
        values[rng.random(people) < missing / 4] = np.nan
        columns[f"wgr.trait_chr{chromosome}"] = values
    clinical(columns, people, missing, np.random.default_rng([9, seed]))
    columns["years"] = np.random.default_rng([11, seed]).uniform(0.25, 20.0, people)
    columns[PASSED] = np.random.default_rng([10, seed]).choice([0.0, 1.0, 2.0, 3.0], people, p=[0.2, 0.1, 0.1, 0.6])
    dosages = dosed(codes, rng)
    ways = np.random.default_rng([8, seed]).integers(0, len(How), variants).astype(np.uint8)
    for array in (*columns.values(), dosages, ways):
        array.setflags(write=False)
    return Cohort(people, Genotypes.pack(codes), MappingProxyType(columns), dosages=dosages, matched=ways)


def clinical(columns: dict[str, np.ndarray], people: int, missing: float, rng: np.random.Generator) -> None:
    """Add columns of categories, of times until an outcome, and of counts; times and counts have ties."""
    drawn = {
        "arm": rng.integers(0, 2, people).astype(float),
        "smoking": rng.choice([0.0, 1.0, 2.0], people, p=[0.5, 0.3, 0.2]),
        "outcome": rng.choice([0.0, 1.0, 2.0], people, p=[0.4, 0.4, 0.2]),
        "time": np.minimum(np.ceil(rng.exponential(30, people)), 100.0),
        "visits": np.minimum(rng.poisson(2.5, people), 12).astype(float),
    }
    for name, values in drawn.items():
        values[rng.random(people) < missing / 4] = np.nan
        columns[name] = values


def dosed(codes: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(M, N) dosages near to genotypes, some in the middle between two, and some where the genotype is missing."""
    away = rng.choice([0.0, 0.01, 0.1, 0.5], codes.shape, p=[0.5, 0.3, 0.1, 0.1]) * rng.uniform(0, 1, codes.shape)
    copies = np.where(codes == 2, 2 - away, np.where((codes == 0) | (codes == 3), away, 1 + away))
    none = (codes == 3) & (rng.random(codes.shape) < 0.7)
    return np.where(none, NO_DOSAGE, np.rint(copies * COPY)).astype(np.uint16)


def whole(codes: np.ndarray) -> np.ndarray:
    """(M, N) genotypes as dosages."""
    return np.where(codes == 3, NO_DOSAGE, codes.astype(np.uint16) * COPY).astype(np.uint16)


def extreme_people(variants: int) -> Cohort:
    """Every corner: all genotypes alike, columns at the ends of their ranges, everything missing."""
    rows, columns = [], []
    for code in (0, 1, 2, 3):
        for end in ("minimum", "maximum", "missing", "mixed"):
            rows.append(np.full(variants, code, dtype=np.uint8))
            columns.append(end)
    alternating = np.tile(np.array([0, 2], dtype=np.uint8), variants)[:variants]
    rows += [alternating, 2 - alternating]
    columns += ["minimum", "maximum"]

    def value(name: str, end: str, number: int) -> float:
        span = RANGES[name]
        if end == "missing":
            return np.nan
        if end == "mixed":
            return span.minimum if number % 2 else span.maximum
        return float(getattr(span, end))

    table = {name: np.array([value(name, end, i) for i, end in enumerate(columns)]) for i, name in enumerate(RANGES)}
    codes, ways = np.stack(rows, axis=1), (np.arange(variants) % len(How)).astype(np.uint8)
    return Cohort(len(rows), Genotypes.pack(codes), MappingProxyType(table), dosages=whole(codes), matched=ways)


@cache
def cohorts(variants: int) -> Mapping[str, Cohort]:
    empty = np.zeros(0, dtype=np.int64)
    return {
        "ordinary": cohort(61, variants, 1),
        "nothing missing": cohort(33, variants, 2, missing=0.0),
        "mostly missing": cohort(40, variants, 3, missing=0.9),
        "one person": cohort(1, variants, 4),
        "nobody": cohort(5, variants, 5).take(empty),
        "extremes": extreme_people(variants),
    }


PARAMETERS: dict[str, Any] = {
    "panel": "common",
    "trait": "trait",
    "traits": ("trait",),
    "minimum_minor_alleles": 1,
    "minimum_missing": 1,
    "covariates": ("sex", "score"),
    "label": "high",
    "expected_people": 200,
    "split": "law",
    "components": 3,
    "chromosomes": ("21", "22"),
    "variants_in_band": 6,
    "test": SecondTest.FIRTH,
    "second_stage": 1.0,
    "most_hits": 4,
    "predictor": "risk",
    "bins": 12,
    "time": "time",
    "event": "high",
    "outcome": "outcome",
    "maximum_frequency": 0.5,
    "variable": "risk",
    "names": ("carrier",),
    "category": "arm",
    "phenotypes": ("risk", "arm", "visits"),
    "columns": ("trait", "arm", "risk"),
    "row": "arm",
    "column": "smoking",
    "variables": ("score", "smoking", "visits"),
    "response": "trait",
    "formula": "sex + score",
    "features": ("score", "risk", "smoking"),
    "trees": 3,
    "depth": 2,
    "leaf_people": 5,
}
"""A value for each parameter without default that any analysis has, by the parameter's name."""

CHANGES: tuple[dict[str, Any], ...] = (
    {},
    {"clip": 1.5},
    {"hidden": 3},
    {"covariates": ()},
    {"clipping_norm": 50.0},
    {"clump": "scan", "index_p": 0.2, "member_p": 0.6, "r2": 0.01},
    {"by": "trait"},
    {"by": "arm", "quantiles": (0.1, 0.5), "fewest": 1, "narrowings": 4},
    {"by": "high", "quantiles": ()},
    {"variable": "smoking", "by": "arm"},
    {"coding": Coding.COPIES, "names": ("one", "two")},
    {"category": "smoking"},
    {"edges": (-1.0, 0.0, 0.5, 3.0)},
    {"row": "arm", "column": "high", "stratum": "smoking"},
    {"sex": "sex"},
    {"by": "high", "sex": "sex", "labels": ("FI", "SE")},
    {"traits": ("trait", "high"), "minimum_missing": 31},
    {"missing": Missing.MEAN_IMPUTED, "covariates": ("sex",)},
    {"phenotypes": ("risk", "visits")},
    {"phenotypes": ("arm",), "covariates": ("score",), "firth": True},
    {"strata": "arm"},
    {"baseline": Baseline.SITE, "strata": "arm"},
    {"event": "high", "covariates": ("smoking", "score"), "intervals": 13},
    {"ends": (5.0, 20.0, 60.0)},
    {"site_effects": True, "covariates": ("sex",), "minimum_missing": 31},
    {"site_effects": True, "traits": ("trait", "high"), "missing": Missing.MEAN_IMPUTED},
    {"standardise": Standardise.SITE},
    {"dosages": True, "covariates": ("sex",), "minimum_missing": 5},
    {"dosages": True, "site_effects": True, "minimum_missing": 5},
    {"offset": "wgr", "minimum_missing": 31},
    {"offset": "wgr", "site_effects": True, "covariates": ("sex",), "minimum_missing": 31},
    {"test": SecondTest.FIRTH_APPROXIMATE},
    {"test": SecondTest.SPA},
    {"test": SecondTest.SCORE},
    {"offset": "wgr", "dosages": True, "test": SecondTest.SCORE},
    {"offset": "wgr", "test": SecondTest.FIRTH},
    {"offset": "wgr", "test": SecondTest.FIRTH_APPROXIMATE},
    {"offset": "wgr", "dosages": True, "test": SecondTest.SPA, "covariates": ()},
    {"formula": "arm*score + smoking + spline(time, 20, 40, 60) + risk^2"},
    {"formula": "sex + score", "site_effects": True, "errors": Errors.HC0},
    {"distribution": Family.BINOMIAL, "response": "high", "formula": "score + risk - 1", "errors": Errors.HC0},
    {"distribution": Family.POISSON, "response": "time", "formula": "arm + score", "errors": Errors.CLUSTERED},
    {"distribution": Family.NEGATIVE_BINOMIAL, "response": "time", "formula": "arm + score", "errors": Errors.HC0},
    {"distribution": Family.BINOMIAL, "response": "high", "formula": "arm + score + risk"},
    {"distribution": Family.POISSON, "response": "time", "formula": "smoking + score", "exposure": "years"},
    {"features": ("score", "arm", "risk"), "loss": Loss.SQUARED, "trees": 2, "depth": 2, "leaf_people": 3},
)
"""Further cases: an analysis that has all parameters of a change is under the laws with these values, too. One that
names a column of sexes is asked of a panel with X, Y and MT."""


def has_codes(change: Mapping[str, Any]) -> bool:
    """Whether a change names columns whose ranges are those of codes, so that no other range is one of theirs."""
    return bool({"by", "sex", "row"} & set(change))


@dataclass(frozen=True)
class Case:
    """An analysis in one of its rounds, with what is public around it."""

    name: str
    analysis: Analysis
    frame: Frame
    change: Mapping[str, Any] = field(default_factory=dict)


def add(summaries: list[Any]) -> dict[str, np.ndarray]:
    """An adder of the tests' own."""
    return {name: np.sum([s[name] for s in summaries], axis=0, dtype=np.int64) for name in summaries[0]}


def first(page: type[Analysis], change: Mapping[str, Any] | None = None) -> Any:
    """The analysis in its first round, with parameters as in PARAMETERS, or in the change where they stand there."""
    given = {f.name: PARAMETERS[f.name] for f in fields(page) if f.name in PARAMETERS and f.init}  # type: ignore[arg-type]
    needed = [f.name for f in fields(page) if f.default is MISSING and f.default_factory is MISSING and f.init]  # type: ignore[arg-type]
    assert set(needed) <= set(given), f"give {page.__name__}'s parameters {needed} a value in PARAMETERS"
    return page(**(given | dict(change or {})))


def begun(question: Any, frame: Frame) -> Any:
    """The question after the earlier one whose answer it reads, if it does: an association with p values at random, or
    a whole-genome regression."""
    if not (isinstance(question, Following) and question.follows):
        return question
    if names_of(question, "offering"):
        return question.after(Answer({}, {"shrinkage_trait": 0.8, "calibration_trait": 1.2}), frame)
    p = np.random.default_rng(3).random(len(frame.panel or ()))
    p[::7] = np.nan
    return question.after(Answer({"trait": {"p_value": p}}, {}), frame)


def changes(page: type[Analysis]) -> list[dict[str, Any]]:
    """Those of CHANGES whose parameters the analysis has."""
    return [change for change in CHANGES if set(change) <= {f.name for f in fields(page)}]  # type: ignore[arg-type]


def rounds(
    page: type[Analysis], people: Cohort, frame: Frame, change: Mapping[str, Any] | None = None
) -> Iterator[Analysis]:
    """The analysis in each round that the totals of some people lead to."""
    analysis: Any = begun(first(page, change), frame)
    for _ in range(analysis.rounds()):
        yield analysis
        parts = [people.take(np.arange(len(people))[s::3]) for s in range(3)]
        total = add([analysis.summarise(p, frame) for p in parts])
        analysis = analysis.conclude(Total(total, ("a", "b", "c")), frame)
        if not isinstance(analysis, Analysis):
            return


def frame_for(change: Mapping[str, Any], variants: int) -> Frame:
    """What is public around a question with these parameters."""
    places = PLACES if "by" in change else tuple(place for place in PLACES if place[0] != "Y")
    if "offset" in change:
        places = TWO
    return Frame(panel(variants, places if {"sex", "offset"} & set(change) else PLACES[:1]), RANGES)


@cache
def cases(variants: int) -> tuple[Case, ...]:
    people = cohort(300, variants, 9)
    out = []
    for page in CATALOGUE:
        for change in changes(page):
            frame = frame_for(change, variants)
            steps = list(rounds(page, people, frame, change))
            chosen = {0: steps[0], len(steps) // 2: steps[len(steps) // 2], len(steps) - 1: steps[-1]}
            name = " ".join([page.__name__, *(f"{k} {v}" for k, v in change.items())])
            out += [Case(f"{name} round {n + 1}", step, frame, change) for n, step in sorted(chosen.items())]
    return tuple(out)
