"""What an exact question asks about, told apart by the words that say who it is: a cohort's people, or an answer's.

Two questions with the same digest are about the same people of any data set, so they are refused alike for them; what
is computed of them is not in it. Two with different digests may happen to be about the same people: nobody knows that
who has not the data.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict
from typing import Any

from fl_client.selection import reads_genotypes
from fl_client.splits import ways
from strategies.analysis import PASSED, Analysis, Frame
from strategies.codec import canonical
from strategies.question import Question, offers
from strategies.study import Study


def of_cohort(study: Study, question: Question) -> str:
    """A digest of what says whom a question is about: its cohort, the ranges of the columns that this compares, and
    whether only people with genotypes are."""
    selection = study.selection(question)
    return _digest(_cohort(study, question, selection.reads.columns if selection else ()))


def of_answer(
    study: Study, question: Question, analysis: Analysis, frame: Frame, projections: Mapping[str, str]
) -> str:
    """A digest of what says who is in a round's answer or in a part of it, and how they are told apart: the cohort, the
    part of the people, the columns that keep out whoever lacks them, the optional ones, and where columns are cut.

    Which panel's genotypes are counted keeps nobody in or out; the one that a computed column follows from does.

    Args:
        analysis, frame: the round's.
        projections: question whose answer columns are computed from -> digest of the numbers that came with it.
    """
    selection, needs, derived = study.selection(question), analysis.needs(), study.derived(question)
    computed = {source.name: _source(study, source, projections) for source in study.sources(question)}

    def said(names: Iterable[str]) -> dict[str, Any]:
        out: dict[str, Any] = {}
        for name in names:
            if "." in name and name != PASSED:  # its range is the same, whatever its values follow from
                out[name] = computed[name.partition(".")[0]]
            else:
                out[name] = derived.get(name, frame.columns[name]).plain()
        return out

    compared = (selection.reads.columns if selection else frozenset()) | study.derived_reads(question).columns
    return _digest(
        {
            **_cohort(study, question, compared),
            "part": asdict(needs.part),
            "needed": said(needs.columns),
            "optional": said(needs.optional),
            "ways": [asdict(way) for way in ways(analysis, frame)],
        }
    )


def _cohort(study: Study, question: Question, compared: Collection[str]) -> dict[str, Any]:
    selection = study.selection(question)
    return {
        "cohort": selection.plain() if selection else {},
        "compared": {name: study.columns[name].plain() for name in compared},
        "genotyped": reads_genotypes(study, question),
    }


def _source(study: Study, source: Question, projections: Mapping[str, str]) -> dict[str, Any]:
    """What a person's values of the columns that a question offers follow from, beside her genotypes: the earlier
    questions that it reads itself are in the numbers that came with it."""
    panel = study.frame(source).panel
    return {
        "panel": panel.digest if panel is not None else "",
        "offers": list(offers(source, source.regime)),
        "projection": projections.get(source.name, ""),
    }


def _digest(told: Mapping[str, Any]) -> str:
    return hashlib.sha256(canonical(told)).hexdigest()
