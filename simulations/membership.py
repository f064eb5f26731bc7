"""What an exact answer gives away about who is in it, measured on the study's own sites.

Half of each site's people, drawn by a public hash of their identifiers, answer the study's exact questions once more;
the other half are the non-members. Simulation only: nobody but a simulation holds everybody's data.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from fl_client.readers import Dataset
from simulations.attacks import first_half, measure
from simulations.run import simulate
from simulations.sites import Sites
from strategies.analysis import Needs, names_of
from strategies.cohort import Cohort, Genotypes
from strategies.errors import GenosumError
from strategies.study import Question, Study


def measured(study: Study, data: Path) -> dict[str, float]:
    """The membership AUC of each exact question that an attack is known for.

    Args:
        study: the study; its private questions are left out, their epsilon bounds every attack, and so are exact ones
            that are answered for each site.
        data: the folder with `sites.toml`.

    Returns:
        question name -> AUC; questions are left out that half of the people are too few to answer.
    """
    exact = tuple(q for q in study.questions if q.summed)
    if not exact:
        return {}
    try:
        answers = simulate(replace(study, questions=exact), data, keep=_takes_part).results
    except GenosumError:
        return {}
    found = {}
    for result in answers:
        members, others = _halves(study, result.question, data)
        area = measure(result.question.analysis, result.answer, members, others)
        if area is not None:
            found[result.question.name] = area
    return found


def _takes_part(identifier: str) -> bool:
    return bool(first_half([identifier])[0])


def everybody(study: Study, question: Question, data: Path) -> Cohort:
    """All people of all sites with what the question names; simulation only."""
    return _joined([people for people, _ in _sites(study, question, data)])


def _halves(study: Study, question: Question, data: Path) -> tuple[Cohort, Cohort]:
    """All people of all sites, as those who took part and those who did not."""
    sites = _sites(study, question, data)
    members = _joined([people.take(np.flatnonzero(inside)) for people, inside in sites])
    return members, _joined([people.take(np.flatnonzero(~inside)) for people, inside in sites])


def _sites(study: Study, question: Question, data: Path) -> list[tuple[Cohort, NDArray[np.bool_]]]:
    """Each site's people, and whether each of them is in the half that takes part."""
    frame, panels = study.frame(question), names_of(question.analysis, "panel")
    needs = Needs(names_of(question.analysis, "column"), panels[0] if panels else None)
    datasets = [Dataset.open(site.dataset, data) for site in Sites.read(data).sites.values()]
    return [(dataset.cohort(needs, frame), first_half(dataset.people)) for dataset in datasets]


def _joined(cohorts: list[Cohort]) -> Cohort:
    genotypes = [c.genotypes.codes() for c in cohorts if c.genotypes is not None]
    columns: Mapping[str, list[np.ndarray]] = {name: [c.columns[name] for c in cohorts] for name in cohorts[0].columns}
    return Cohort(
        sum(len(c) for c in cohorts),
        Genotypes.pack(np.concatenate(genotypes, axis=1)) if genotypes else None,
        MappingProxyType({name: np.concatenate(values) for name, values in columns.items()}),
    )
