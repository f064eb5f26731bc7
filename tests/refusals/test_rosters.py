"""Rosters: which totals may exist together, sites that fall silent, refuse or come back, and runs that are resumed."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import strategies.analysis
from fl_server.conduct import Result
from strategies.analysis import Total
from strategies.errors import GenosumError, RefusedError, TooFewSitesError, UsageError
from strategies.privacy import Budget
from strategies.reasons import Reason
from strategies.summary import Summary
from strategies.wire import Agree, Ask, Refused, Share, digest_of, open_envelope
from tests.tiny import COUNTS, FREQUENCIES, LINEAR, NAMES, TRAINING, GateLink, Pen, Tiny, genotypes, study

SITE = "AT"
Make = Callable[..., Tiny]


def reason(tiny: Tiny, envelope: bytes, site: str = SITE) -> Reason | None:
    header = tiny.read(site, tiny.gates[site].answer(envelope)).header
    return header.reason if isinstance(header, Refused) else None


def total_over(pen: Pen, roster: Sequence[str], attempt: int = 1) -> Reason | None:
    """Have a roster's sites open a total; None, or the first refusal."""
    if (refused := pen.join("counts", attempt, roster)) is not None:
        return refused
    request = pen.ask("counts", roster=roster, attempt=attempt)
    answers = [reason(pen.tiny, request, site) for site in roster]
    return next(
        filter(None, [*answers, *(reason(pen.tiny, pen.unmask([request], attempt=attempt), s) for s in roster)]), None
    )


FIVE = ("AT", "BE", "CY", "DK", "EE")
HISTORIES: dict[str, tuple[tuple[str, ...], list[str], list[str], bool]] = {
    # name: (sites with own_total, rosters opened before, the roster asked now, whether it is answered)
    "the same again": ((), ["AT BE CY DK EE"], ["AT BE CY DK EE"], True),
    "one fewer": ((), ["AT BE CY DK EE"], ["AT BE CY DK"], False),
    "one more": ((), ["AT BE CY DK"], ["AT BE CY DK EE"], False),
    "two fewer": ((), ["AT BE CY DK EE"], ["AT BE CY"], True),
    "one changed": ((), ["AT BE CY"], ["AT BE DK"], True),
    "itself alone, by two steps": ((), ["AT BE CY DK EE", "AT BE CY"], ["AT DK EE"], False),
    "a pair and one, by three": ((), ["AT BE CY", "AT BE DK"], ["AT CY DK"], True),
    "all, by four": ((), ["AT BE CY", "AT BE DK", "AT CY DK"], ["AT BE CY DK"], False),
    "one fewer, who agreed": (("EE",), ["AT BE CY DK EE"], ["AT BE CY DK"], True),
    "one fewer, when others agreed": (("AT", "BE", "CY", "DK"), ["AT BE CY DK EE"], ["AT BE CY DK"], False),
    "two isolated, one agreed": (("DK",), ["AT BE CY DK EE", "AT BE CY EE"], ["AT BE CY DK"], False),
    "two isolated, both agreed": (("DK", "EE"), ["AT BE CY DK EE", "AT BE CY EE"], ["AT BE CY DK"], True),
}


@pytest.mark.parametrize("history", HISTORIES)
def test_a_roster_is_answered_only_if_no_site_is_singled_out(make_tiny: Make, history: str) -> None:
    agreed, before, (now,), answered = HISTORIES[history]
    tiny = make_tiny(names=FIVE, own_total=agreed)
    pen = tiny.pen(study(COUNTS)).open(FIVE)
    for attempt, roster in enumerate(before, start=1):
        assert total_over(pen, roster.split(), attempt=attempt) is None
    got = total_over(pen, now.split(), attempt=5)
    assert got is (None if answered else Reason.ROSTER_ISOLATES)


@pytest.mark.parametrize("agreed", [True, False])
def test_for_itself_a_node_believes_its_own_policy_alone(make_tiny: Make, agreed: bool) -> None:
    """A federation file that somebody edited does not open a site whose operator never agreed."""
    tiny = make_tiny(names=FIVE, own_total=["DK"])
    gate = tiny.gates["DK"]
    gate.policy = replace(gate.policy, own_total=agreed)
    pen = tiny.pen(study(COUNTS)).open(FIVE)
    for attempt, roster in enumerate((("AT", "BE", "DK"), ("CY", "DK", "EE")), start=1):
        assert total_over(pen, roster, attempt) is None
    # the first two totals less this one are DK's own
    assert pen.join("counts", 3, FIVE) is (None if agreed else Reason.ROSTER_ISOLATES)


def test_rosters_count_over_questions_sessions_and_restarts(make_tiny: Make) -> None:
    tiny = make_tiny(names=FIVE)
    pen = tiny.pen(study(COUNTS, LINEAR)).open(FIVE)
    assert total_over(pen, ("AT", "BE", "CY")) is None
    for site in FIVE:
        tiny.gates[site].answer(pen.closing())
        tiny.restart(site)
    later = tiny.pen(study(LINEAR), "later").open(FIVE)
    assert later.join("linear", 1, ("AT", "BE", "CY", "DK")) is Reason.ROSTER_ISOLATES
    assert later.join("linear", 2, FIVE) is None


# -- an agreement counts from its signature on -------------------------------------------------------------------------


def test_an_agreement_counts_until_enough_of_its_sites_have_withdrawn(make_tiny: Make) -> None:
    """Three signatures are all that its coordinator needs to go on with the others' shares, so a roster that was
    signed counts though its total was never opened, for everybody who hears of it."""
    tiny = make_tiny()
    pen = tiny.pen(study(COUNTS)).open()
    assert pen.join("counts") is None
    for number, closed in enumerate((("DK",), ("DK", "AT"), ("CY",))):
        other = tiny.pen(study(COUNTS), f"other-{number}").open()
        assert other.join("counts", 1, ("AT", "BE", "CY")) is Reason.ROSTER_ISOLATES
        for site in closed:
            assert reason(tiny, pen.closing(), site) is None
    other = tiny.pen(study(COUNTS), "other").open()
    assert other.join("counts", 1, ("AT", "BE", "CY")) is None, "of four sites two have withdrawn: three are needed"


def test_an_attempt_that_the_others_have_withdrawn_is_dead_for_who_slept(make_tiny: Make) -> None:
    tiny = make_tiny()
    pen = tiny.pen(study(COUNTS)).open()
    assert pen.join("counts") is None
    assert total_over(pen, ("AT", "BE", "CY"), attempt=2) is None
    known = {site: tiny.gates[site].ledger.agreements.known() for site in NAMES}
    assert known["AT"].pending == known["BE"].pending == known["CY"].pending == {}
    assert [*known["DK"].pending.values()] == [NAMES], "DK knows nothing of it"
    later = tiny.pen(study(LINEAR), "later").open()
    assert later.join("linear", 1, ("BE", "CY", "DK")) is None, "the others' lists say that the first attempt is dead"


SEVEN = ("AT", "BE", "CY", "DK", "EE", "FI", "GR")


def test_two_coordinators_at_once_do_not_slip_past_the_lists(make_tiny: Make) -> None:
    """The total over all seven is out. {AT BE CY DK} and {DK EE FI GR} are each in order, but not both: together with
    the first they give DK's part. Both are shared before either is signed; and since three of {EE FI GR DK} could
    recover DK's masks without it, DK must not sign the second at all."""
    tiny = make_tiny(names=SEVEN)
    first = tiny.pen(study(COUNTS), "first").open(SEVEN)
    assert total_over(first, SEVEN) is None
    rosters = (("AT", "BE", "CY", "DK"), ("DK", "EE", "FI", "GR"))
    pens = [tiny.pen(study(COUNTS), name).open(SEVEN) for name in ("one", "two")]
    shares = [pen.share({"counts": 1}, roster) for pen, roster in zip(pens, rosters, strict=True)]
    shared = [[tiny.gates[s].answer(e) for s in r] for e, r in zip(shares, rosters, strict=True)]
    agrees = [pen.agree(e, bodies) for pen, e, bodies in zip(pens, shares, shared, strict=True)]
    assert [reason(tiny, agrees[0], site) for site in rosters[0]] == [None] * 4
    assert reason(tiny, agrees[1], "DK") is Reason.AGREEMENT_STALE
    assert pens[1].join("counts", 2, rosters[1]) is Reason.ROSTER_ISOLATES, "and asked again, its list says why"


def test_a_run_whose_agreement_went_stale_agrees_once_more(make_tiny: Make, quick_path: Path) -> None:
    """Between the two exchanges another study's roster was signed: the run begins another attempt and loses nobody."""
    tiny = make_tiny(own_total=NAMES)
    link, meanwhile = tiny.link(), tiny.pen(study(COUNTS), "meanwhile").open()

    def on_request(name: str, envelopes: list[bytes]) -> list[bytes]:
        header = open_envelope(envelopes[0], {"demo": tiny.workspace.identity.public}).header
        if isinstance(header, Agree) and ("counts", 1) not in meanwhile.agreed:
            assert meanwhile.join("counts", 1, ("AT", "BE", "CY")) is None
        return envelopes

    link.on_request = on_request
    (result,) = tiny.conductor(study(COUNTS), quick_path / "run", link).run()
    assert result.statement.sites == NAMES
    assert result.statement.absent == {}
    assert np.array_equal(table_of(result), counts_over(NAMES))
    asked = [open_envelope(e, {"demo": tiny.workspace.identity.public}).header for s, e, _ in link.traffic if s == SITE]
    assert [h.attempt for h in asked if isinstance(h, Ask)] == [2]


def test_studies_over_one_roster_do_not_disturb_each_other(tiny: Tiny) -> None:
    """Whatever their order: another total over the same sites tells nothing more about any one of them."""
    pens = [tiny.pen(study(COUNTS), name).open() for name in ("one", "two")]
    shares = [pen.share({"counts": 1}) for pen in pens]
    shared = [[tiny.gates[s].answer(e) for s in NAMES] for e in shares]
    agrees = [pen.agree(e, bodies) for pen, e, bodies in zip(pens, shares, shared, strict=True)]
    assert [reason(tiny, e, s) for s in NAMES for e in agrees] == [None] * 8


def test_questions_with_one_roster_agree_once(make_tiny: Make, quick_path: Path) -> None:
    tiny = make_tiny()
    link = tiny.link()
    tiny.conductor(study(COUNTS, FREQUENCIES, LINEAR), quick_path / "run", link).run()
    headers = [
        open_envelope(e, {"demo": tiny.workspace.identity.public}).header for s, e, _ in link.traffic if s == SITE
    ]
    (share,) = (h for h in headers if isinstance(h, Share))
    assert share.questions == {"counts": 1, "linear": 1}
    assert sum(isinstance(h, Agree) for h in headers) == 1


# -- later rounds follow from earlier totals ---------------------------------------------------------------------------


@pytest.fixture
def first_round(tiny: Tiny, quick_path: Path) -> Summary:
    """The association's honest totals of round 1, which any coordinator sees."""
    from fl_client.readers import Dataset  # noqa: PLC0415
    from strategies.summary import add  # noqa: PLC0415

    asked = study(LINEAR)
    frame, total = asked.frame(LINEAR), None
    for gate in tiny.gates.values():
        assert isinstance(gate.dataset, Dataset)
        part = LINEAR.analysis.summarise(gate.dataset.cohort(LINEAR.analysis.needs(), frame), frame)
        total = part if total is None else add(total, part)
    assert total is not None
    return total


def test_honest_totals_are_followed_and_nothing_else(tiny: Tiny, first_round: Summary) -> None:
    asked = study(LINEAR, COUNTS)
    pen, frame = tiny.pen(asked).open(), asked.frame(LINEAR)
    second = LINEAR.analysis.conclude(Total(first_round, NAMES), frame)
    assert isinstance(second, type(LINEAR.analysis))
    other = {**first_round, "sums": first_round["sums"] + 2**28}
    third = LINEAR.analysis.conclude(Total(other, NAMES), frame)

    refused = {
        "forged parameters": pen.ask("linear", analysis=third, earlier=[first_round]),
        "forged totals": pen.ask("linear", analysis=second, earlier=[other]),
        "no totals": pen.ask("linear", analysis=second, earlier=[], round=2),
        "round 1 again, as round 2": pen.ask("linear", round=2),
        "totals twice": pen.ask("linear", analysis=second, earlier=[first_round, first_round], round=2),
        "round 1's parameters": pen.ask("linear", analysis=LINEAR.analysis, earlier=[first_round], slices=1),
        "round 2's parameters in round 1": pen.ask("linear", analysis=second),
        "a name too many": pen.ask("linear", analysis=second, earlier=[{**first_round, "more": np.zeros(2, int)}]),
        "a name too few": pen.ask("linear", analysis=second, earlier=[{"people": first_round["people"]}]),
        "another shape": pen.ask("linear", analysis=second, earlier=[{**first_round, "sums": np.zeros(3, int)}]),
        "another selection of variants": pen.ask(
            "linear", analysis=replace(second, forms="2" * len(second.forms)), earlier=[first_round]
        ),
        "constant columns": pen.ask("linear", analysis=second, earlier=[{k: v * 0 for k, v in first_round.items()}]),
        "negative squares": pen.ask(
            "linear", analysis=second, earlier=[{**first_round, "squares": -first_round["squares"]}]
        ),
        "one parameter more": pen.ask(
            "linear", earlier=[first_round], analysis=second, parameters={"panel": "panel", "extra": 1}
        ),
    }
    for name, envelope in refused.items():
        assert reason(tiny, envelope) is Reason.NOT_DERIVED, name
    assert reason(tiny, pen.ask("linear", analysis=second, earlier=[first_round])) is None


@pytest.mark.parametrize("honest_first", [True, False])
def test_a_round_follows_from_one_set_of_totals(tiny: Tiny, first_round: Summary, honest_first: bool) -> None:
    """Other totals with the parameters that follow from them are in order by themselves, but not beside the first."""
    asked = study(LINEAR)
    pen, frame = tiny.pen(asked).open(), asked.frame(LINEAR)
    other = {**first_round, "sums": first_round["sums"] + 2**28}
    asks = []
    for total in (first_round, other) if honest_first else (other, first_round):
        following = LINEAR.analysis.conclude(Total(total, NAMES), frame)
        assert not isinstance(following, strategies.analysis.Answer)
        asks.append(pen.ask("linear", analysis=following, earlier=[total]))
    assert reason(tiny, asks[0]) is None
    assert reason(tiny, asks[1]) is Reason.NOT_DERIVED
    tiny.restart(SITE)
    assert reason(tiny, asks[1]) is Reason.NOT_DERIVED
    assert reason(tiny, asks[0]) is None


def test_a_private_round_is_not_drawn_again_under_another_round_s_number(tiny: Tiny) -> None:
    """Each draw of the noise of one round would cost once more what only once was reserved."""
    pen = tiny.pen(study(TRAINING)).open()
    assert reason(tiny, pen.ask("training")) is None
    for number in (2, 3):
        assert reason(tiny, pen.ask("training", round=number)) is Reason.NOT_DERIVED


def test_a_model_that_does_not_follow_from_the_totals_is_refused(tiny: Tiny) -> None:
    asked = study(TRAINING)
    pen, frame = tiny.pen(asked).open(), asked.frame(TRAINING)
    fields = TRAINING.analysis.leaves(frame)
    total = {name: np.zeros(f.shape, dtype=np.int64) for name, f in fields.items()}
    second = TRAINING.analysis.conclude(Total(total, NAMES), frame)
    assert not isinstance(second, strategies.analysis.Answer)
    chosen = replace(second, weights=tuple(1.0 for _ in second.weights))  # type: ignore[attr-defined, type-var]
    assert reason(tiny, pen.ask("training", analysis=chosen, earlier=[total])) is Reason.NOT_DERIVED
    assert reason(tiny, pen.ask("training", analysis=second, earlier=[total])) is None


# -- what a coordinator is told ----------------------------------------------------------------------------------------


def test_too_few_sites_is_exit_code_5_and_names_who_is_missing(tiny: Tiny, quick_path: Path) -> None:
    link = tiny.link()
    link.down = {"BE", "DK"}
    for number, question in enumerate((COUNTS, FREQUENCIES)):
        with pytest.raises(TooFewSitesError) as error:
            tiny.conductor(study(question), quick_path / str(number), link).run()
        assert error.value.exit_code == 5
        assert error.value.rule == f"Question '{question.name}' needs 3 sites."
        assert error.value.found == "2 of 4 answer; BE did not answer, DK did not answer"
        assert error.value.remedy == "wait until more are up, then run with --resume."
    assert all(gate.ledger.spent().rho == 0 for gate in tiny.gates.values()), "below quorum nobody is charged"


def test_refusals_that_leave_too_few_are_exit_code_3_and_name_code_and_rule(make_tiny: Make, quick_path: Path) -> None:
    tiny = make_tiny(analyses={"allele_frequency": ["private"]})
    with pytest.raises(RefusedError) as error:
        tiny.conductor(study(COUNTS), quick_path / "run").run()
    assert (error.value.exit_code, error.value.code) == (3, "ANALYSIS_NOT_ALLOWED")
    assert "The node's policy names the analyses and regimes that it runs." in error.value.rule
    assert error.value.found.startswith("0 of 4 answer; AT refused: ANALYSIS_NOT_ALLOWED, BE refused:")
    assert error.value.remedy == "ask the node's operator."


def test_a_site_that_refuses_to_open_is_named(tiny: Tiny, quick_path: Path) -> None:
    (tiny.gates["CY"].ledger.folder / "VETO").touch()
    (result,) = tiny.conductor(study(COUNTS), quick_path / "run").run()
    assert result.statement.sites == ("AT", "BE", "DK")
    assert result.statement.absent == {"CY": "refused: VETOED"}


def test_a_site_may_refuse_one_question_and_answer_the_others(make_tiny: Make, quick_path: Path) -> None:
    """Each question has a roster of its own; for two exact ones the site that differs must have agreed."""
    tiny = make_tiny(policies={"DK": {"columns": {"sex": [1, 2]}}}, own_total=["DK"])
    counts, linear, noised = tiny.conductor(study(COUNTS, LINEAR, FREQUENCIES), quick_path / "run").run()
    assert counts.statement.sites == noised.statement.sites == NAMES
    assert linear.statement.sites == ("AT", "BE", "CY")
    assert linear.statement.absent == {"DK": "refused: COLUMN_NOT_ALLOWED"}
    assert counts.statement.absent == noised.statement.absent == {}


def test_exact_questions_over_rosters_that_isolate_end_with_the_code(make_tiny: Make, quick_path: Path) -> None:
    tiny = make_tiny(policies={"DK": {"columns": {"sex": [1, 2]}}})
    with pytest.raises(RefusedError) as error:
        tiny.conductor(study(COUNTS, LINEAR), quick_path / "run").run()
    assert error.value.code == "ROSTER_ISOLATES"


def test_an_exhausted_budget_does_not_keep_a_site_from_exact_questions(make_tiny: Make, quick_path: Path) -> None:
    """DK refuses the private question when it is asked; were it left out of the second exact one, rosters would
    isolate it."""
    tiny = make_tiny(policies={"DK": {"epsilon": 0.5}})
    counts, noised, linear = tiny.conductor(study(COUNTS, FREQUENCIES, LINEAR), quick_path / "run").run()
    assert counts.statement.sites == linear.statement.sites == NAMES
    assert noised.statement.sites == ("AT", "BE", "CY")
    assert noised.statement.absent == {"DK": "refused: BUDGET_EXHAUSTED"}
    assert linear.statement.absent == {}


def test_synthetic_and_real_people_are_not_mixed(make_tiny: Make, quick_path: Path) -> None:
    tiny = make_tiny(datasets={"CY": {"synthetic": False}})
    with pytest.raises(UsageError, match="never mixed") as error:
        tiny.conductor(study(COUNTS), quick_path / "run").run()
    assert error.value.found == "synthetic: AT, BE, DK"


# -- sites that fall silent, coordinators that are killed --------------------------------------------------------------


@pytest.fixture
def small_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    """50 variants in 5 slices, so that a round takes two exchanges."""
    monkeypatch.setattr(strategies.analysis, "VARIANTS_PER_SLICE", 12)


def counts_over(sites: Sequence[str]) -> np.ndarray:
    codes = np.concatenate([genotypes(site) for site in sites], axis=1)
    return np.stack([(codes == k).sum(axis=1) for k in range(4)], axis=1)


def table_of(result: Result) -> np.ndarray:
    table = result.answer.tables["frequencies"]
    return np.stack([np.asarray(table[c]) for c in ("hom_ref", "het", "hom_alt", "missing")], axis=1)


def silent_at(link: GateLink, site: str, exchange: int) -> None:
    """From its exchange number `exchange` on (0 is the opening), the site is gone."""
    seen = {"exchanges": -1}

    def on_request(name: str, envelopes: list[bytes]) -> list[bytes] | None:
        if name == site:
            seen["exchanges"] += 1
            if seen["exchanges"] >= exchange:
                link.down.add(site)
                return None
        return envelopes

    link.on_request = on_request


@pytest.mark.parametrize("exchange", [0, 1, 2, 3, 4, 5, 6])
def test_a_site_lost_on_the_way_is_named_and_the_others_answer(
    make_tiny: Make, quick_path: Path, small_slices: None, exchange: int
) -> None:
    tiny = make_tiny(own_total=NAMES)
    link = tiny.link()
    silent_at(link, "CY", exchange)
    first, second = tiny.conductor(study(COUNTS, FREQUENCIES), quick_path / "run", link).run()
    others, gone = ("AT", "BE", "DK"), {"CY": "did not answer"}
    assert second.statement.sites == others
    assert second.statement.absent == gone
    if exchange == 6:  # the last opening: the others' shares open its masks
        assert (first.statement.sites, first.statement.recovered) == (NAMES, gone)
    else:
        assert (first.statement.sites, first.statement.absent) == (others, gone)
    assert np.array_equal(table_of(first), counts_over(first.statement.sites))


@pytest.mark.parametrize("exchange", [4, 5])
def test_a_site_lost_after_a_total_was_opened_ends_the_question_unless_it_agreed(
    make_tiny: Make, quick_path: Path, small_slices: None, exchange: int
) -> None:
    tiny = make_tiny()
    link = tiny.link()
    silent_at(link, "CY", exchange)
    with pytest.raises(RefusedError) as error:
        tiny.conductor(study(COUNTS), quick_path / "run", link).run()
    assert error.value.code == "ROSTER_ISOLATES"


def test_a_site_that_answers_late_is_left_out_and_the_total_holds(tiny: Tiny, quick_path: Path) -> None:
    """The node answered, so its masks are in everybody's part, but the reply was not there in time: another attempt."""
    link = tiny.link()

    def on_reply(name: str, envelopes: list[bytes], replies: list[bytes]) -> list[bytes] | None:
        header = open_envelope(envelopes[0], {"demo": tiny.workspace.identity.public}).header
        return None if name == "DK" and isinstance(header, Ask) else replies

    link.on_reply = on_reply
    (result,) = tiny.conductor(study(COUNTS), quick_path / "run", link).run()
    assert result.statement.absent == {"DK": "did not answer"}
    assert np.array_equal(table_of(result), counts_over(("AT", "BE", "CY")))


def test_a_run_below_quorum_is_resumed_when_a_site_is_back(tiny: Tiny, quick_path: Path) -> None:
    for number, question in enumerate((COUNTS, FREQUENCIES)):
        asked, run, link = study(question), quick_path / str(number), tiny.link()
        link.down = {"CY"}
        silent_at(link, "DK", 1)
        with pytest.raises(TooFewSitesError):
            tiny.conductor(asked, run, link).run()
        (result,) = tiny.conductor(asked, run, tiny.link()).run()
        assert set(result.statement.sites) >= {"AT", "BE", "DK"}
        assert set(result.statement.sites) | set(result.statement.absent) == set(NAMES)
        if question is COUNTS:
            assert np.array_equal(table_of(result), counts_over(result.statement.sites))
    assert tiny.gates[SITE].ledger.spent() == Budget(1.0, 1e-5).loss


class KilledError(BaseException):
    """The coordinator's process is gone."""


def killed_at(link: GateLink, exchange: int, delivered: int) -> None:
    """Exchange number `exchange` reaches `delivered` sites; then the coordinator dies."""
    real, seen = link.exchange, {"exchanges": -1}

    def exchange_(messages: dict[int, Sequence[bytes]], timeout_s: float) -> object:
        seen["exchanges"] += 1
        if seen["exchanges"] == exchange:
            real(dict(list(messages.items())[:delivered]), timeout_s)
            raise KilledError
        return real(messages, timeout_s)

    link.exchange = exchange_  # type: ignore[assignment, method-assign]


EXCHANGES = 1 + 2 + 4 + 1 + 1 + 1
"""Opening; sharing and signing; two times asking and unmasking of the counts; the frequencies; closing; and none is
left after that."""


BACK = {"all back": None, "one missing": "CY"}
KILLS = {
    # Every exchange is cut short after one site and after all, and resumed with all sites and with one missing; which
    # of these go together alternates, and the slow proofs have the others.
    f"{exchange}-{delivered}-{back}": (exchange, delivered, back, (exchange + delivered) % 2 == (back == "all back"))
    for exchange in range(EXCHANGES - 1)
    for delivered in (1, 4)
    for back in BACK
}


@pytest.mark.parametrize(
    ("exchange", "delivered", "back"),
    [
        pytest.param(exchange, delivered, back, id=name, marks=[] if often else [pytest.mark.proof])
        for name, (exchange, delivered, back, often) in KILLS.items()
    ],
)
def test_a_killed_run_is_resumed_without_asking_again_or_paying_twice(
    make_tiny: Make, quick_path: Path, small_slices: None, exchange: int, delivered: int, back: str
) -> None:
    missing, tiny = BACK[back], make_tiny(own_total=NAMES)
    asked = study(COUNTS, FREQUENCIES)
    dying = tiny.link()
    killed_at(dying, exchange, delivered)
    with pytest.raises(KilledError):
        tiny.conductor(asked, quick_path / "run", dying).run()
    answered = {digest_of(e): r for name, e, r in dying.traffic if name == SITE}
    done = {file.name for file in (quick_path / "run").glob("*.total")}

    link = tiny.link()
    link.down = {missing} if missing else set()
    counts, noised = tiny.conductor(asked, quick_path / "run", link).run()

    for result in (counts, noised):
        assert set(result.statement.sites) | set(result.statement.absent) == set(NAMES)
        assert len(result.statement.sites) >= 3
    assert np.array_equal(table_of(counts), counts_over(counts.statement.sites))
    if missing is None:
        assert counts.statement.sites == noised.statement.sites == NAMES
    again = {digest_of(e): r for name, e, r in link.traffic if name == SITE}
    for digest in answered.keys() & again.keys():
        assert again[digest] == answered[digest], "what is asked again is answered with the stored bytes"
    asks = {}
    for _, envelope, _ in link.traffic:
        header = open_envelope(envelope, {"demo": tiny.workspace.identity.public}).header
        if isinstance(header, Ask):
            asks[header.question, header.round, header.slice, header.attempt] = header
    for name in done:
        question, attempt, number, start = name.removesuffix(".total").split(".")
        for n in range(int(start), min(int(start) + 4, 5)):
            assert (question, int(number), n, int(attempt)) not in asks, "a finished slice is not asked again"
    for gate in tiny.gates.values():
        assert gate.ledger.spent().rho <= Budget(1.0, 1e-5).loss.rho
        assert [line["event"] for line in gate.ledger.journal()].count("reserve") <= 1


def test_a_site_lost_before_a_kill_is_still_named_after_it(
    make_tiny: Make, quick_path: Path, small_slices: None
) -> None:
    """CY is silent when first asked, and back when the run is resumed: too late for the roster that was signed."""
    tiny = make_tiny()
    dying = tiny.link()
    killed_at(dying, exchange=5, delivered=0)
    silent_at(dying, "CY", 1)
    with pytest.raises(KilledError):
        tiny.conductor(study(COUNTS), quick_path / "run", dying).run()
    (result,) = tiny.conductor(study(COUNTS), quick_path / "run").run()
    assert result.statement.sites == ("AT", "BE", "DK")
    assert result.statement.absent == {"CY": "did not answer"}


def test_the_exchanges_of_the_resumed_study_are_as_many_as_were_killed(
    make_tiny: Make, quick_path: Path, small_slices: None
) -> None:
    tiny = make_tiny()
    link, count = tiny.link(), {"exchanges": 0}
    real = link.exchange

    def counted(*arguments: object) -> object:
        count["exchanges"] += 1
        return real(*arguments)  # type: ignore[arg-type]

    link.exchange = counted  # type: ignore[assignment, method-assign]
    tiny.conductor(study(COUNTS, FREQUENCIES), quick_path / "run", link).run()
    assert count["exchanges"] == EXCHANGES - 1


def test_a_finished_run_is_read_again_though_most_sites_are_gone(tiny: Tiny, quick_path: Path) -> None:
    asked = study(COUNTS, FREQUENCIES)
    first = tiny.conductor(asked, quick_path / "run").run()
    link = tiny.link()
    link.down = {"AT", "BE", "CY"}
    second = tiny.conductor(asked, quick_path / "run", link).run()
    for one, other in zip(first, second, strict=True):
        assert one.statement.sites == other.statement.sites == NAMES
        for column, values in one.answer.tables["frequencies"].items():
            assert np.array_equal(np.asarray(values), np.asarray(other.answer.tables["frequencies"][column]))


def test_a_run_is_not_resumed_with_another_study(tiny: Tiny, quick_path: Path) -> None:
    tiny.conductor(study(COUNTS), quick_path / "run").run()
    with pytest.raises(UsageError, match="resumed with the same study"):
        tiny.conductor(study(LINEAR), quick_path / "run").run()


def another_value(text: str) -> str:
    return re.sub(r"(CY-person-029\t)[^\t]+", r"\g<1>0.5", text)


def changed_in_mid_question(tiny: Tiny, change: Callable[[str], str]) -> GateLink:
    """Between two exchanges of round 2, CY's table changes and its node starts again."""
    link = tiny.link()

    def on_request(name: str, envelopes: list[bytes]) -> list[bytes]:
        header = open_envelope(envelopes[0], {"demo": tiny.workspace.identity.public}).header
        if name == "CY" and isinstance(header, Ask) and header.round == 2 and header.slice == 4:
            table = tiny.data / "CY" / "people.tsv"
            table.write_text(change(table.read_text()))
            link.gates["CY"] = tiny.restart("CY")  # type: ignore[index]
        return envelopes

    link.on_request = on_request
    return link


def test_a_site_whose_data_change_in_mid_question_stops(make_tiny: Make, quick_path: Path, small_slices: None) -> None:
    tiny = make_tiny(own_total=NAMES)
    link = changed_in_mid_question(tiny, another_value)
    (result,) = tiny.conductor(study(LINEAR), quick_path / "run", link).run()
    assert result.statement.absent == {"CY": "refused: DATASET_UNAVAILABLE"}


def test_data_that_change_unseen_in_mid_question_end_it(
    make_tiny: Make, quick_path: Path, small_slices: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The whole cohort's products come with every slice: their agreement shows the coordinator what a node hid."""
    tiny = make_tiny()
    monkeypatch.setattr("fl_client.versions.settle", lambda *_: None)
    link = changed_in_mid_question(tiny, another_value)
    with pytest.raises(GenosumError, match="must not change in mid-question"):
        tiny.conductor(study(LINEAR), quick_path / "run", link).run()
