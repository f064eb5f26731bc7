"""What a trained model should be held against: how well the best single variant of its panel does alone.

Simulation only: it looks at everybody's labels. It is chosen and measured on the same people, which flatters it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from scipy.stats import rankdata

from fl_server.conduct import Result
from simulations.membership import everybody
from strategies.cohort import MISSING
from strategies.learning.train import PrivateTraining
from strategies.question import Question
from strategies.study import Study


def beside(results: Sequence[Result], study: Study, data: Path) -> tuple[Result, ...]:
    """The results, with the best single variant's AUC among the facts of every trained model.

    Args:
        results: a simulation's results.
        study: the study.
        data: the folder with `sites.toml`.
    """
    return tuple(_beside(r, study, data) if isinstance(r.question.analysis, PrivateTraining) else r for r in results)


def _beside(result: Result, study: Study, data: Path) -> Result:
    area, name = best_single_variant(study, result.question, data)
    facts = {**result.answer.facts, "simulation_only_best_variant_auc": area, "simulation_only_best_variant": name}
    return replace(result, answer=replace(result.answer, facts=facts))


def best_single_variant(study: Study, question: Question, data: Path) -> tuple[float, str]:
    """The largest AUC with which any one variant of the question's panel tells the label, and that variant."""
    assert isinstance(question.analysis, PrivateTraining)
    panel, people = study.frame(question).panel, everybody(study, question, data)
    assert panel is not None
    assert people.genotypes is not None
    label, codes = people.columns[question.analysis.label], people.genotypes.codes()
    areas = np.zeros(len(panel))
    for j, row in enumerate(codes):
        seen = np.isfinite(label) & (row != MISSING)
        positive = label[seen] > 0.5
        cases, controls = int(positive.sum()), int((~positive).sum())
        if cases and controls:
            ranks = rankdata(row[seen])[positive].sum()
            area = (ranks - cases * (cases + 1) / 2) / (cases * controls)  # Mann and Whitney's U
            areas[j] = max(area, 1 - area)
    best = int(np.argmax(areas))
    return float(areas[best]), str(panel.variants[best])
