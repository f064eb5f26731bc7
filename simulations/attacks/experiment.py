"""Attacks on synthetic people over numbers of people, variants and epsilon, beside what theory allows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from simulations.attacks import success
from simulations.attacks.beacon import beacon_ratio, rarest_first
from simulations.attacks.frequencies import Reference, Release, frequency_ratio, homer, scores
from simulations.release import Site, released
from strategies.analyses.allele_frequency import NoisedFrequency
from strategies.analyses.genotype_counts import GenotypeCounts
from strategies.analysis import Frame
from strategies.cohort import Cohort, Genotypes
from strategies.errors import UsageError
from strategies.privacy import Budget
from strategies.question import Question
from strategies.variants import Panel, Variant

LEAST_FREQUENCY, MOST_FREQUENCY = 0.05, 0.5
"""Common, independent variants: the case in which an attack is strongest a variant."""

MOST_GENOTYPES = 4 * 10**9
"""Variants times people drawn at a time; a byte each."""


@dataclass(frozen=True)
class Setting:
    """What is simulated: `people` members and as many others, `repeats` times, from `seed`."""

    people: int = 1000
    variants: tuple[int, ...] = (500, 5000, 20000)
    epsilon: tuple[float, ...] = (0.5, 1.0, 3.0, 10.0)
    repeats: int = 10
    seed: int = 1
    delta: float = 1e-6

    def __post_init__(self) -> None:
        for name, values, low, high in (
            ("people", (self.people,), 2, 10**6),
            ("variants", self.variants, 1, 10**6),
            ("repeats", (self.repeats,), 2, 10**4),
            ("seed", (self.seed,), 0, 2**32),
        ):
            if not values or any(not low <= v <= high for v in values):
                found = ", ".join(map(str, values)) or "none"
                raise UsageError(f"{name} must be from {low} to {high}.", found, f"correct --{name}.")
        if 2 * self.people * max(self.variants) > MOST_GENOTYPES:
            found = f"{2 * self.people * max(self.variants)}"
            raise UsageError(
                f"A simulated attack draws at most {MOST_GENOTYPES} genotypes at a time.", found, "ask for fewer."
            )
        for epsilon in self.epsilon:
            try:
                Budget(epsilon, self.delta)
            except ValueError as error:
                found = f"epsilon {epsilon:g}, delta {self.delta:g}"
                raise UsageError(str(error), found, "correct --epsilon or --delta.") from None


@dataclass(frozen=True)
class Row:
    """One release, attacked in every repeat; people are synthetic.

    Attributes:
        variants: M, independent of each other.
        epsilon, rho: what the release cost; None if it was exact.
        auc, auc_low_95, auc_high_95: of the likelihood ratio, the mean over repeats with its 95 % interval.
        homer_auc: of Homer's distance, likewise the mean.
        tpr_at_fpr_1e_2, tpr_at_fpr_1e_3, epsilon_at_least: over the people of all repeats together.
        theory: without noise Phi(sqrt(M / 2n)), which the AUC should be; else Phi(sqrt(rho)), which none exceeds.
    """

    variants: int
    epsilon: float | None
    rho: float | None
    auc: float
    auc_low_95: float
    auc_high_95: float
    homer_auc: float
    tpr_at_fpr_1e_2: float
    tpr_at_fpr_1e_3: float
    epsilon_at_least: float
    theory: float


def table(setting: Setting) -> Iterator[Row]:
    """The rows, each number of variants exact first and then at each epsilon."""
    for m in setting.variants:
        rng = np.random.default_rng([setting.seed, m])
        p = np.round(rng.uniform(LEAST_FREQUENCY, MOST_FREQUENCY, m), 6)
        frame, reference = Frame(panel(p)), Reference.published(p)
        budgets = [None, *(Budget(e, setting.delta) for e in setting.epsilon)]
        ratio: list[list[tuple[NDArray[np.float64], NDArray[np.float64]]]] = [[] for _ in budgets]
        distance: list[list[float]] = [[] for _ in budgets]
        for _ in range(setting.repeats):
            codes = draw(p, 2 * setting.people, rng)
            members = Cohort(setting.people, Genotypes.pack(codes[:, : setting.people]))
            releases = [release(members, frame, budget) for budget in budgets]
            tables = [f(r, reference) for r in releases for f in (frequency_ratio, homer)]
            scored = scores(np.stack(tables, axis=2), codes)
            inside, outside = scored[: setting.people], scored[setting.people :]
            for i in range(len(budgets)):
                ratio[i].append((inside[:, 2 * i], outside[:, 2 * i]))
                distance[i].append(success.auc(inside[:, 2 * i + 1], outside[:, 2 * i + 1]))
        for budget, pairs, areas in zip(budgets, ratio, distance, strict=True):
            yield _row(m, setting, budget, pairs, float(np.mean(areas)))


def _row(
    m: int,
    setting: Setting,
    budget: Budget | None,
    pairs: Sequence[tuple[NDArray[np.float64], NDArray[np.float64]]],
    homer_auc: float,
) -> Row:
    areas = np.array([success.auc(*pair) for pair in pairs])
    low, high = success.mean_interval(areas)
    members, others = (np.concatenate(scored) for scored in zip(*pairs, strict=True))
    return Row(
        m,
        budget.epsilon if budget else None,
        budget.loss.rho if budget else None,
        float(areas.mean()),
        low,
        high,
        homer_auc,
        success.found(members, others, 1e-2),
        success.found(members, others, 1e-3),
        success.epsilon_at_least(members, others, budget.delta if budget else 0.0),
        success.at_most(budget.loss.rho) if budget else success.without_noise(m, setting.people),
    )


RARE_VARIANTS, RAREST, LEAST_RARE = 5000, 0.001, 0.02
"""What a Beacon is asked: alleles with frequencies even in their logarithm between these."""

QUERIES = (1, 10, 100)


@dataclass(frozen=True)
class BeaconRow:
    """Beacon answers attacked in every repeat; people are synthetic.

    Attributes:
        queries: how many of the rarest alleles that a person carries are asked for.
        epsilon: what *each* answer costs, turned round with chance 1 / (1 + e^epsilon); None if answers are exact.
        auc, auc_low_95, auc_high_95: the mean over repeats with its 95 % interval.
    """

    queries: int
    epsilon: float | None
    auc: float
    auc_low_95: float
    auc_high_95: float


def beacon_table(setting: Setting) -> tuple[BeaconRow, ...]:
    """The Beacon attack at each number of queries and, for randomised answers, each epsilon an answer."""
    rng = np.random.default_rng([setting.seed, 0])
    p = np.exp(rng.uniform(np.log(RAREST), np.log(LEAST_RARE), RARE_VARIANTS))
    frame, reference = Frame(panel(p)), Reference.published(p)
    prices = (None, *setting.epsilon)
    areas = np.zeros((setting.repeats, len(QUERIES), len(prices)))
    for repeat in areas:
        codes = draw(p, 2 * setting.people, rng)
        members = Cohort(setting.people, Genotypes.pack(codes[:, : setting.people]))
        carried = release(members, frame, None).above > 0
        tables = []
        for epsilon in prices:
            turned = 0.0 if epsilon is None else 1 / (1 + np.exp(epsilon))
            answers = carried ^ (rng.random(len(p)) < turned)
            tables.append(beacon_ratio(answers, setting.people, reference, turned))
        for at, queries in enumerate(QUERIES):
            scored = scores(np.stack(tables, axis=2), rarest_first(codes, p, queries))
            for price, column in enumerate(scored.T):
                repeat[at, price] = success.auc(column[: setting.people], column[setting.people :])
    return tuple(
        BeaconRow(queries, epsilon, float(areas[:, i, j].mean()), *success.mean_interval(areas[:, i, j]))
        for i, queries in enumerate(QUERIES)
        for j, epsilon in enumerate(prices)
    )


def panel(frequencies: NDArray[np.float64]) -> Panel:
    """Made-up variants with these published frequencies."""
    return Panel(
        "GRCh38", tuple(Variant("1", i + 1, f"made-up-{i}", "A", "C", float(f)) for i, f in enumerate(frequencies))
    )


def draw(frequencies: NDArray[np.float64], people: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    """(M, N) genotypes in Hardy-Weinberg proportions, independent of each other."""
    out = np.empty((len(frequencies), people), dtype=np.uint8)
    for start in range(0, len(frequencies), 1000):
        p = frequencies[start : start + 1000, None].astype(np.float32)
        copies = rng.random((2, len(p), people), dtype=np.float32) < p
        np.add(copies[0], copies[1], out=out[start : start + 1000], dtype=np.uint8)
    return out


def release(members: Cohort, frame: Frame, budget: Budget | None, minimum_cell: int = 0) -> Release:
    """The product's own answer from one site: exact genotype counts, or noised frequencies within a budget."""
    site = Site(tuple(f"made-up-{i}" for i in range(len(members))), members)
    assert frame.panel is not None
    if budget is None:
        return Release.exact(released(Question("counts", GenotypeCounts("panel")), frame, [site], minimum_cell).answer)
    alone = Question("frequencies", NoisedFrequency("panel"), budget, by_site=True)
    return Release.private(released(alone, frame, [site]).answer, frame.panel.frequencies)
