"""What answers give away about who is in them, measured on a study's own sites.

Half of each site's people, drawn by a public hash of their identifiers, answer the study's questions once more; the
other half are the others. Simulation only: nobody but a simulation holds everybody's data.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray
from scipy import special

from fl_client.readers import Dataset
from fl_server.conduct import Result
from fl_server.results.attack import Attacks, MeasuredAttack
from simulations.attacks import association, frequencies, models, success
from simulations.attacks.frequencies import Reference, Release
from simulations.release import Site, released
from simulations.run import simulate
from simulations.sites import Sites
from strategies.analyses.allele_frequency import NoisedFrequency
from strategies.analyses.association import LinearAssociation
from strategies.analyses.genotype_counts import GenotypeCounts
from strategies.analysis import Frame, Needs, Part, names_of
from strategies.cohort import Cohort, Genotypes
from strategies.errors import GenosumError
from strategies.learning.train import PrivateTraining, Shapes
from strategies.learning.train import scores as predicted
from strategies.privacy import Regime
from strategies.question import Question
from strategies.study import Study

OTHERS = "everybody else who did not take part"
OTHERS_OF_SITE = "everybody else of the same site who did not take part"
EVERYBODY = "everybody's data, in models trained on random halves"

SHADOWS = 16
"""Models trained again for one attack: eight with and eight without each person, about."""

Scores = tuple[NDArray[np.float64], NDArray[np.float64]]
"""Of the people who took part and of those who did not."""


@dataclass(frozen=True)
class Tried:
    """One attack's scores, and what it compared with."""

    attack: str
    reference: str
    scores: Scores


@dataclass(frozen=True)
class Halves:
    """One site's people, and whether each takes part."""

    identifiers: tuple[str, ...]
    people: Cohort
    inside: NDArray[np.bool_]

    @property
    def members(self) -> Cohort:
        return self.people.take(np.flatnonzero(self.inside))

    @property
    def others(self) -> Cohort:
        return self.people.take(np.flatnonzero(~self.inside))


def first_half(people: Sequence[str], salt: str = "membership") -> NDArray[np.bool_]:
    """(N,) whether each person is in the half that takes part: a public draw from the person's own identifier."""
    return Part(0.0, 0.5, salt).holds(people)


def measured(study: Study, data: Path) -> Attacks:
    """The attacks known on each of a study's answers, tried.

    Args:
        study: the study; exact questions that are answered for each site are left out.
        data: the folder with `sites.toml`.

    Returns:
        question name -> its attacks, the one with the largest AUC first; questions are left out that no attack is known
        for here, or that half of the people are too few to answer.
    """
    found = {}
    synthetic = any(site.dataset.synthetic for site in Sites.read(data).sites.values())
    for regime in Regime:
        questions = tuple(q for q in study.questions if q.regime is regime and (q.summed or q.budget))
        try:
            results = simulate(replace(study, questions=questions), data, keep=_takes_part).results if questions else ()
        except GenosumError:
            continue
        for result in results:
            question, halves = result.question, _halves(study, result.question, data)
            attacks = measure(result, study.frame(question), halves, synthetic)
            if attacks:
                found[question.name] = attacks
    return {q.name: found[q.name] for q in study.questions if q.name in found}


def measure(result: Result, frame: Frame, halves: Mapping[str, Halves], synthetic: bool) -> tuple[MeasuredAttack, ...]:
    """The attacks known on one answer, the one with the largest AUC first; none where fewer than two are to be told.

    Args:
        result: an answer from the members alone.
        frame: the question's panel and ranges.
        halves: site -> its people with the question's whole panel and columns.
        synthetic: whether they were made up.
    """
    attack = ATTACKS.get(type(result.question.analysis))
    if attack is None:
        return ()
    out = [
        success.measured(t.attack, t.reference, *t.scores, synthetic, result.question.budget)
        for t in attack(result, frame, halves)
        if min(map(len, t.scores)) > 1
    ]
    return tuple(sorted(out, key=lambda a: -a.auc))


def _counts(result: Result, _: Frame, halves: Mapping[str, Halves]) -> list[Tried]:
    members, others = (_codes(cohort) for cohort in _together(halves))
    answer, release = result.answer, Release.exact(result.answer)

    def tried(name: str, table: Callable[[Reference], NDArray[np.float64]]) -> Tried:
        own, known = table(Reference.of(others, own=True)), table(Reference.of(others))
        return Tried(name, OTHERS, (frequencies.scores(known, members), frequencies.scores(own, others)))

    return [
        tried(
            "likelihood ratio of genotype counts",
            lambda r: frequencies.genotype_ratio(frequencies.genotype_counts(answer), r),
        ),
        tried("likelihood ratio of frequencies", lambda r: frequencies.frequency_ratio(release, r)),
        tried("Homer's distance", lambda r: frequencies.homer(release, r)),
    ]


def _noised(result: Result, frame: Frame, halves: Mapping[str, Halves]) -> list[Tried]:
    """Each person is held against the release of that person's own site, if there is one: it has the least noise."""
    assert frame.panel is not None
    tables = {
        "noise-aware likelihood ratio of frequencies": frequencies.frequency_ratio,
        "Homer's distance": frequencies.homer,
    }
    out = []
    for name, table in tables.items():
        members, others = [], []
        groups = [(answer, {site: halves[site]}) for site, answer in result.by_site.items()]
        for answer, group in groups or [(result.answer, halves)]:
            release = Release.private(answer, frame.panel.frequencies)
            inside, outside = (_codes(cohort) for cohort in _together(group))
            members.append(frequencies.scores(table(release, Reference.of(outside)), inside))
            others.append(frequencies.scores(table(release, Reference.of(outside, own=True)), outside))
        out.append(Tried(name, OTHERS_OF_SITE, (np.concatenate(members), np.concatenate(others))))
    return out


def _regression(result: Result, _: Frame, halves: Mapping[str, Halves]) -> list[Tried]:
    analysis = result.question.analysis
    assert isinstance(analysis, LinearAssociation)
    groups = [_complete(people, (*analysis.covariates, *analysis.traits)) for people in _together(halves)]
    everybody, cut = _joined(groups), len(groups[0])
    codes = _codes(everybody)
    covariates = np.stack([np.ones(len(everybody)), *(everybody.columns[c] for c in analysis.covariates)], axis=1)
    out = []
    for trait in analysis.traits:
        table = {name: np.asarray(column) for name, column in result.answer.tables[trait].items()}
        scored = association.regression_scores(
            table["t"],
            table["effect_allele_frequency"],
            table["n"],
            codes,
            association.residuals(covariates, everybody.columns[trait]),
        )
        name = f"likelihood ratio of the regression statistics of {trait}"
        out.append(Tried(name, OTHERS, (scored[:cut], scored[cut:])))
    return out


def _training(result: Result, frame: Frame, halves: Mapping[str, Halves]) -> list[Tried]:
    """Only people whom the study's own draw gives to training can have been trained on."""
    analysis = result.question.analysis
    assert isinstance(analysis, PrivateTraining)
    assert result.answer.model is not None
    columns = (analysis.label, *analysis.covariates)
    sites = [_trainable(h, analysis, columns) for h in halves.values()]
    inside = np.concatenate([h.inside for h in sites])
    people = _joined([h.people for h in sites])
    mine = confidence(analysis, result.answer.model, people, frame)
    shadows, drawn = _shadows(result.question, analysis, frame, sites)
    ratio = models.shadow_ratio(mine, shadows, drawn)
    loss = -models.losses(mine)
    return [
        Tried("loss of the model", "nothing", (loss[inside], loss[~inside])),
        Tried(f"{SHADOWS} shadow models", EVERYBODY, (ratio[inside], ratio[~inside])),
    ]


def _trainable(halves: Halves, analysis: PrivateTraining, columns: Sequence[str]) -> Halves:
    known = np.isfinite(np.stack([halves.people.columns[c] for c in columns])).all(axis=0)
    kept = np.flatnonzero(known & analysis.needs().part.holds(halves.identifiers))
    return Halves(tuple(halves.identifiers[i] for i in kept), halves.people.take(kept), halves.inside[kept])


def _shadows(
    question: Question, analysis: PrivateTraining, frame: Frame, sites: Sequence[Halves]
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """(SHADOWS, N) confidences of models trained on halves, and who was in; each person is in one of every two."""
    everybody = _joined([h.people for h in sites])
    cuts = np.cumsum([len(h.people) for h in sites])[:-1]
    rng = np.random.default_rng(SHADOWS)  # the attacker's own draws; no secret hangs on them
    first = rng.random((SHADOWS // 2, len(everybody))) < 0.5
    drawn = np.concatenate([first, ~first])
    out = []
    for chosen in drawn:
        parts = [
            Site(tuple(np.array(h.identifiers, dtype=object)[here]), h.people.take(np.flatnonzero(here)))
            for h, here in zip(sites, np.split(chosen, cuts), strict=True)
        ]
        model = released(question, frame, parts).answer.model
        assert model is not None
        out.append(confidence(analysis, model, everybody, frame))
    return np.stack(out), drawn


def confidence(
    analysis: PrivateTraining, model: Mapping[str, NDArray[np.float32]], people: Cohort, frame: Frame
) -> NDArray[np.float64]:
    """(N,) log odds that a released model gives each person's own label, for people with label and covariates."""
    inputs, labels = analysis.inputs(people, frame)
    shapes = Shapes(inputs.shape[1], analysis.hidden)
    weights = np.concatenate([np.asarray(model[name], dtype=np.float64).ravel() for name in shapes.named])
    odds = special.logit(np.clip(predicted(shapes, weights, inputs), 1e-12, 1 - 1e-12))
    return np.asarray((2 * labels - 1) * odds, dtype=np.float64)


ATTACKS: Mapping[type, Callable[[Result, Frame, Mapping[str, Halves]], list[Tried]]] = {
    GenotypeCounts: _counts,
    NoisedFrequency: _noised,
    LinearAssociation: _regression,
    PrivateTraining: _training,
}


def everybody(study: Study, question: Question, data: Path) -> Cohort:
    """All people of all sites with what the question names; simulation only."""
    return _joined([site.people for site in _halves(study, question, data).values()])


def _takes_part(identifier: str) -> bool:
    return bool(first_half([identifier])[0])


def _halves(study: Study, question: Question, data: Path) -> dict[str, Halves]:
    """Each site's people, and whether each of them is in the half that takes part."""
    frame, panels = study.frame(question), names_of(question.analysis, "panel")
    needs = Needs(names_of(question.analysis, "column"), panels[0] if panels else None)
    out = {}
    for name, site in Sites.read(data).sites.items():
        dataset = Dataset.open(site.dataset, data)
        people = tuple(dataset.people)
        out[name] = Halves(people, dataset.cohort(needs, frame), first_half(people))
    return out


def _together(halves: Mapping[str, Halves]) -> tuple[Cohort, Cohort]:
    """All people of all sites who took part, and all who did not."""
    return _joined([h.members for h in halves.values()]), _joined([h.others for h in halves.values()])


def _complete(people: Cohort, columns: Sequence[str]) -> Cohort:
    known = np.isfinite(np.stack([people.columns[c] for c in columns])).all(axis=0)
    return people.take(np.flatnonzero(known))


def _codes(people: Cohort) -> NDArray[np.uint8]:
    assert people.genotypes is not None
    return people.genotypes.codes()


def _joined(cohorts: Sequence[Cohort]) -> Cohort:
    genotypes = [c.genotypes.codes() for c in cohorts if c.genotypes is not None]
    columns: Mapping[str, list[np.ndarray]] = {name: [c.columns[name] for c in cohorts] for name in cohorts[0].columns}
    return Cohort(
        sum(len(c) for c in cohorts),
        Genotypes.pack(np.concatenate(genotypes, axis=1)) if genotypes else None,
        MappingProxyType({name: np.concatenate(values) for name, values in columns.items()}),
    )
