"""A question answered in memory: summarise, add noise, conclude, as behind every gate, with no gate before it.

For attacks that are repeated hundreds of times, and for shadow models. Not for answers: nothing is charged.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce

from strategies.analysis import Analysis, Answer, Frame, Total
from strategies.cohort import Cohort
from strategies.protections import noise
from strategies.question import Question
from strategies.summary import add


@dataclass(frozen=True)
class Site:
    """One site's people: identifiers, which draw training and held-out part, and what is known of them."""

    identifiers: tuple[str, ...]
    people: Cohort


@dataclass(frozen=True)
class Released:
    """What a coordinator saw: each round's question and total, and the answer in the end."""

    rounds: tuple[tuple[Analysis, Total], ...]
    answer: Answer


def released(question: Question, frame: Frame, sites: Sequence[Site], minimum_cell: int = 0) -> Released:
    """Ask a question of sites in memory, from its first round to its answer.

    Args:
        question: with the noise that each site adds to it, if it is private.
        frame: panel and ranges.
        sites: who is asked.
        minimum_cell: smallest number of people that an exact cell may show.
    """
    rounds = []
    now: Analysis | Answer = question.analysis
    while not isinstance(now, Answer):
        fields = now.leaves(frame)
        sds = question.noise(now, fields)
        parts = []
        for site in sites:
            chosen = now.needs().part.holds(site.identifiers).nonzero()[0]
            people = site.people if len(chosen) == len(site.people) else site.people.take(chosen)
            summary = now.summarise(people, frame)
            parts.append(noise.add_noise(summary, fields, sds) if sds else summary)
        together = {name: sd * len(sites) ** 0.5 for name, sd in sds.items()}
        names = tuple(str(number) for number in range(len(sites)))
        total = Total(reduce(add, parts), names, together, minimum_cell)
        rounds.append((now, total))
        now = now.conclude(total, frame)
    return Released(tuple(rounds), now)
