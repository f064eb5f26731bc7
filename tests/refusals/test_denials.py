"""Refusals that tell of people are counted, and end."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from fl_client import asked
from fl_client.denials import MOST_DENIALS
from fl_client.gate import Gate
from strategies.analyses.genotype_counts import GenotypeCounts
from strategies.analyses.histogram import Histogram
from strategies.analyses.principal_components import PrincipalComponents
from strategies.analyses.score_distribution import ScoreDistribution
from strategies.analysis import Analysis
from strategies.expressions import MOST_COHORTS
from strategies.grammar import selection_of
from strategies.question import Question
from strategies.reasons import Reason
from strategies.study import Study
from strategies.variants import Panel
from strategies.wire import Opened
from tests.refusals.test_cuts import between, values_of
from tests.refusals.test_overlap import SITE, ask, lines_of, renew, write
from tests.refusals.test_projections import weights
from tests.refusals.test_rosters import reason
from tests.tiny import COMPONENTS, COUNTS, FREQUENCIES, PANEL, Tiny, study

Make = Callable[..., Tiny]
K, MOST = 5, 4


@pytest.fixture
def tiny(make_tiny: Make, monkeypatch: pytest.MonkeyPatch) -> Tiny:
    monkeypatch.setattr("fl_client.denials.MOST_DENIALS", MOST)
    return make_tiny(minimum_people=K)


def told(gate: Gate) -> int:
    with gate.ledger._engine.begin() as connection:
        return int(connection.exec_driver_sql("SELECT coalesce(sum(runs), 0) FROM denials").scalar_one())


def above(*least: float) -> Study:
    """Questions about those whose trait is at least so much."""
    cohorts = {f"c{n}": selection_of({"where": f"trait >= {at:.4f}"}, "a test") for n, at in enumerate(least)}
    return study(*(replace(COUNTS, name=name, cohort=name) for name in cohorts), COUNTS, FREQUENCIES, cohorts=cohorts)


def refuses(tiny: Tiny, asked: Study, session: str) -> dict[str, Reason]:
    """What AT says to opening a study."""
    opened = tiny.read("AT", tiny.gates["AT"].answer(tiny.pen(asked, session).opening())).header
    assert isinstance(opened, Opened)
    return dict(opened.refuses)


def test_nobody_is_looked_for_by_refusals_without_end(tiny: Tiny) -> None:
    """The fifth largest trait, by halving: each study that is opened says whether there are five above a point."""
    low, high, heard = -4.0, 4.0, list[Reason | None]()
    for step in range(40):
        middle = (low + high) / 2
        said = refuses(tiny, above(middle), f"s{step}").get("c0")
        heard.append(said)
        low, high = (low, middle) if said is Reason.TOO_FEW_PEOPLE else (middle, high)
    assert heard.count(Reason.TOO_FEW_PEOPLE) == MOST
    first = heard.index(Reason.TOO_MANY_REFUSALS)
    assert set(heard[first:]) == {Reason.TOO_MANY_REFUSALS}
    fifth = np.sort(values_of(tiny))[-K]
    assert high - fifth > 1e-3 or fifth - low > 1e-3, "it is not found"


def test_then_every_exact_question_is_refused_until_the_year_is_over(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    points = [3.0 + n / 10 for n in range(MOST)]
    assert set(refuses(tiny, above(*points[:-1]), "before").values()) == {Reason.TOO_FEW_PEOPLE}
    assert ask(tiny, "counts", above(*points)) is Reason.TOO_MANY_REFUSALS, "opened with one more"
    assert told(tiny.gates["AT"]) == MOST
    tiny.restart("AT")
    assert ask(tiny, "counts", study(COUNTS)) is Reason.TOO_MANY_REFUSALS
    assert ask(tiny, "frequencies", study(FREQUENCIES)) is None, "private questions tell by noise alone"
    ledger = tiny.gates["AT"].ledger
    assert ledger.denials.exhausted("demo")
    assert not ledger.denials.exhausted("another")
    today = time.gmtime()
    monkeypatch.setattr("fl_client.denials.time.gmtime", lambda *_: time.struct_time((today.tm_year + 1, *today[1:])))
    assert ask(tiny, "counts", study(COUNTS)) is None


def test_the_same_is_told_once_and_what_tells_nothing_is_not_counted(tiny: Tiny) -> None:
    asked = above(3.0)
    for session in ("one", "two", "three"):
        assert refuses(tiny, asked, session) == {"c0": Reason.TOO_FEW_PEOPLE}
    assert told(tiny.gates["AT"]) == 1
    for question in asked.questions:
        tiny.gates["AT"].objection("demo", asked, question)
        tiny.gates["AT"].objection("another", asked, question)
    gate = tiny.gates["AT"]
    gate.policy = replace(gate.policy, purposes=())
    assert Reason.PURPOSE_NOT_ALLOWED in refuses(tiny, above(3.1), "four").values()
    assert told(tiny.gates["AT"]) == 1, "neither what the operator asked nor what policy alone decided"


def test_refusals_for_people_and_cuts_that_differ_by_a_few_are_counted_too(tiny: Tiny) -> None:
    points = [between(tiny, n) for n in (14, 15, 16)]
    questions = study(*(Question(f"q{n}", Histogram("trait", edges=(-4.0, at, 4.0))) for n, at in enumerate(points)))
    assert ask(tiny, "q0", questions) is None
    assert [ask(tiny, name, questions) for name in ("q1", "q2", "q1")] == [Reason.OVERLAP] * 3
    assert told(tiny.gates["AT"]) == 2
    assert ask(tiny, "c0", above(between(tiny, 2))) is Reason.OVERLAP
    assert told(tiny.gates["AT"]) == 3


def test_two_studies_whose_every_cohort_is_too_small_stay_within_the_bound() -> None:
    assert 2 * MOST_COHORTS <= MOST_DENIALS


# -- what counts once --------------------------------------------------------------------------------------------------

THREE = study(
    Question("trait", Histogram("trait", bins=2)), Question("sex", Histogram("sex", edges=(0.5, 1.5, 2.5))), COUNTS
)
SCORES = Question("scores", ScoreDistribution("pca.pc1", lowest=-1.0, highest=1.0, bins=2))
SMALL = Panel("GRCh37", PANEL.variants[:20])


def leaves(tiny: Tiny, everybody: list[str], people: int) -> None:
    """The next version of AT's data set, without the last so many of its people."""
    write(tiny, everybody[: len(everybody) - people])
    renew(tiny)


def test_a_new_version_of_the_data_is_no_new_question(tiny: Tiny) -> None:
    """Consents are withdrawn night by night, and a coordinator asks the same study every morning: it is refused once
    for each of its questions, and again only after it was answered."""
    everybody = lines_of(tiny)
    assert [ask(tiny, q.name, THREE) for q in THREE.questions] == [None] * 3
    for fewer in (1, 2, 3, 4):
        leaves(tiny, everybody, fewer)
        assert [ask(tiny, q.name, THREE) for q in THREE.questions] == [Reason.OVERLAP] * 3, fewer
        assert told(tiny.gates[SITE]) == 3
    leaves(tiny, everybody, K)
    assert ask(tiny, "counts", THREE) is None
    leaves(tiny, everybody, K + 1)
    assert ask(tiny, "counts", THREE) is Reason.OVERLAP, "somebody left since"
    assert told(tiny.gates[SITE]) == MOST
    assert ask(tiny, "trait", THREE) is Reason.TOO_MANY_REFUSALS


def test_so_for_a_cohort_that_grows_and_shrinks(tiny: Tiny) -> None:
    (header, *lines), values = lines_of(tiny), values_of(tiny)
    order = [lines[number] for number in np.argsort(values)]
    asked_of = above(between(tiny, len(lines) - K - 1))
    for version, (people, counted) in enumerate([(K - 1, 1), (K - 2, 1), (K, 1), (K - 3, 2)]):
        write(tiny, [header, *order[: -K - 1], *order[-people:]])
        renew(tiny)
        want = {} if people >= K else {"c0": Reason.TOO_FEW_PEOPLE}
        assert refuses(tiny, asked_of, f"v{version}") == want
        assert told(tiny.gates[SITE]) == counted


def test_words_are_counted_and_not_who_they_turn_out_to_be(tiny: Tiny) -> None:
    """Or halving would find a value for the price of one: between two values all cohorts are of the same people."""
    low, high = np.sort(values_of(tiny))[-K:][:2]
    points = np.linspace(low, high, 4)[1:]
    assert set(refuses(tiny, above(*points), "some").values()) == {Reason.TOO_FEW_PEOPLE}
    assert told(tiny.gates[SITE]) == len(points)


def test_what_is_computed_of_the_same_people_does_not_matter(tiny: Tiny) -> None:
    questions = study(
        COUNTS,
        Question("small", GenotypeCounts("small")),
        replace(COUNTS, name="again"),
        Question("sex", Histogram("sex", edges=(0.5, 1.5, 2.5))),
        panels={"panel": PANEL, "small": SMALL},
    )
    everybody = lines_of(tiny)
    assert ask(tiny, "counts", questions) is None
    leaves(tiny, everybody, 1)
    for name, counted in (("small", 1), ("counts", 1), ("again", 1), ("sex", 2)):
        assert ask(tiny, name, questions) is Reason.OVERLAP
        assert told(tiny.gates[SITE]) == counted, name


def test_what_a_question_s_source_is_refused_for_is_the_source_s(tiny: Tiny) -> None:
    cohort = {"few": selection_of({"where": "trait >= 3.0"}, "a test")}
    questions = study(replace(COMPONENTS, cohort="few"), SCORES, COUNTS, cohorts=cohort)
    assert refuses(tiny, questions, "one") == {"pca": Reason.TOO_FEW_PEOPLE, "scores": Reason.TOO_FEW_PEOPLE}
    assert told(tiny.gates[SITE]) == 1


def test_a_computed_column_is_what_it_was_computed_from(tiny: Tiny) -> None:
    """The study's words for a score say nothing: the numbers that come with it are the coordinator's."""
    questions, everybody = study(COMPONENTS, SCORES, COUNTS), lines_of(tiny)
    assert ask(tiny, "counts", questions) is None
    leaves(tiny, everybody, 1)
    for session, (seed, counted) in enumerate([(1, 1), (1, 1), (2, 2), (1, 2)]):
        pen = tiny.pen(questions, f"scores-{session}").open()
        assert reason(tiny, pen.project("pca", weights(seed))) is None
        assert reason(tiny, pen.ask("scores")) is Reason.OVERLAP
        assert told(tiny.gates[SITE]) == counted, (session, seed)


def test_two_scores_of_one_name_are_two() -> None:
    def about(source: Analysis, panel: Panel = PANEL, numbers: str = "a", **change: object) -> str:
        one = study(replace(COMPONENTS, analysis=source), SCORES, panels={"panel": panel})
        analysis = replace(SCORES.analysis, **change)  # type: ignore[type-var]
        return asked.of_answer(one, SCORES, analysis, one.frame(SCORES), {"pca": numbers})

    two, more = (PrincipalComponents("panel", components=n, iterations=3) for n in (2, 3))
    different = [about(two), about(two, SMALL), about(two, numbers="b"), about(more), about(two, bins=3),
                 about(two, lowest=-2.0), about(two, predictor="pca.pc2")]  # fmt: skip
    assert len(set(different)) == len(different)
    assert about(two) == about(replace(two, iterations=9)), "with the same numbers"


def test_every_change_of_what_is_said_counts(tiny: Tiny) -> None:
    denials = tiny.gates[SITE].ledger.denials

    def said(*words: Reason | None) -> int:
        for word in words:
            if word is None:
                denials.answered("demo", ["this"])
            else:
                denials.refused("demo", "this", word)
        return sum(denials.counts().values())

    few, beside = Reason.TOO_FEW_PEOPLE, Reason.OVERLAP
    assert said(None, beside, beside, beside) == 1
    assert said(few, few) == 2
    assert said(beside) == 3
    assert said(None, None) == 3
    assert said(beside, beside) == 4
    denials.refused("demo", "that", few)
    denials.refused("another", "this", few)
    year = time.gmtime().tm_year
    assert denials.counts() == {("demo", year): 5, ("another", year): 1}


def test_an_operator_lifts_a_year_of_one_coordinator(tiny: Tiny) -> None:
    assert set(refuses(tiny, above(*(3.0 + n / 10 for n in range(MOST))), "one").values()) >= {Reason.TOO_FEW_PEOPLE}
    ledger = tiny.gates[SITE].ledger
    ledger.denials.refused("another", "this", Reason.OVERLAP)
    assert ask(tiny, "counts", study(COUNTS)) is Reason.TOO_MANY_REFUSALS
    assert ledger.denials.lift("demo") == MOST
    assert ask(tiny, "counts", study(COUNTS)) is None
    lifted = [line for line in ledger.journal() if line["event"] == "lift_denials"]
    assert [(line["coordinator"], line["denials"]) for line in lifted] == [("demo", MOST)]
    assert ledger.denials.counts() == {("another", time.gmtime().tm_year): 1}
    assert ledger.denials.lift("demo") == 0
    ledger.verify()
    assert refuses(tiny, above(3.0), "two") == {"c0": Reason.TOO_FEW_PEOPLE}
    assert told(tiny.gates[SITE]) == 2, "and counted again"
