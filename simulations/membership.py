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

from fl_client.readers import Dataset
from simulations.attacks import first_half, measure
from simulations.run import simulate
from simulations.sites import Sites
from strategies.analysis import Needs, names_of
from strategies.cohort import Cohort, Genotypes
from strategies.errors import GenosumError
from strategies.privacy import Regime
from strategies.study import Question, Study


def measured(study: Study, data: Path) -> dict[str, float]:
    """The membership AUC of each exact question that an attack is known for.

    Args:
        study: the study; its private questions are left out, their epsilon bounds every attack.
        data: the folder with `sites.toml`.

    Returns:
        question name -> AUC; questions are left out that half of the people are too few to answer.
    """
    exact = tuple(q for q in study.questions if q.regime is Regime.EXACT)
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


def _halves(study: Study, question: Question, data: Path) -> tuple[Cohort, Cohort]:
    """Everybody of all sites, as those who took part and those who did not."""
    frame, panels = study.frame(question), names_of(question.analysis, "panel")
    needs = Needs(names_of(question.analysis, "column"), panels[0] if panels else None)
    parts: list[tuple[Cohort, Cohort]] = []
    for site in Sites.read(data).sites.values():
        dataset = Dataset.open(site.dataset, data)
        everybody, inside = dataset.cohort(needs, frame), first_half(dataset.people)
        parts.append((everybody.take(np.flatnonzero(inside)), everybody.take(np.flatnonzero(~inside))))
    return _joined([members for members, _ in parts]), _joined([others for _, others in parts])


def _joined(cohorts: list[Cohort]) -> Cohort:
    genotypes = [c.genotypes.codes() for c in cohorts if c.genotypes is not None]
    columns: Mapping[str, list[np.ndarray]] = {name: [c.columns[name] for c in cohorts] for name in cohorts[0].columns}
    return Cohort(
        sum(len(c) for c in cohorts),
        Genotypes.pack(np.concatenate(genotypes, axis=1)) if genotypes else None,
        MappingProxyType({name: np.concatenate(values) for name, values in columns.items()}),
    )
