"""Every reason for which a node says no, reached by a real message at its door."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fl_client.gate import VETO_FILE, Gate
from fl_client.marks import KeptMarks
from strategies.analyses.genotype_counts import GenotypeCounts
from strategies.analysis import Range
from strategies.federation import Identity
from strategies.grammar import selection_of
from strategies.marks import Mark
from strategies.privacy import Budget
from strategies.question import Question
from strategies.reasons import MEANING, Reason
from strategies.study import Study
from strategies.summary import Summary
from strategies.wire import Answered, Close, Closed, Message, Refused, digest_of, pack_parts, unpack_parts
from tests.tiny import COUNTS, FREQUENCIES, LINEAR, NAMES, PANEL, TOGETHER, TRAINING, Pen, Tiny, people_of, study

Make = Callable[..., Tiny]
Case = Callable[[Make, pytest.MonkeyPatch], tuple[Tiny, bytes]]
SITE = "AT"
STUDY = study(COUNTS, LINEAR, FREQUENCIES)
SECRET = "AT-person-007 has 2 copies of v12"


def opened(tiny: Tiny, asked: object = STUDY) -> Pen:
    return tiny.pen(asked).open()  # type: ignore[arg-type]


def everywhere(tiny: Tiny, envelope: bytes, sites: tuple[str, ...] = NAMES) -> None:
    for site in sites:
        assert not isinstance(tiny.read(site, tiny.gates[site].answer(envelope)).header, Refused)


def forged_moments(people: int, deviation: float) -> Summary:
    """Round 1 of the association as no honest sites would sum it: two columns that hardly vary."""
    bits = LINEAR.analysis.MOMENT_BITS  # type: ignore[attr-defined]
    square = round(people * deviation**2 * 2**bits)
    return {
        "people": np.array(people),
        "sums": np.zeros(2, dtype=np.int64),
        "squares": np.full(2, square, dtype=np.int64),
        "genotypes": np.tile(np.array([people // 2, people // 4, 0]), (len(PANEL), 1)),
        "holders": np.full(len(PANEL), 4),
    }


def derived(total: Summary) -> object:
    from strategies.analysis import Total  # noqa: PLC0415

    return LINEAR.analysis.conclude(Total(total, NAMES), STUDY.frame(LINEAR))


# -- one function a case: a federation and the message that its site AT refuses ----------------------------------------


def garbage(make: Make, _: pytest.MonkeyPatch) -> tuple[Tiny, bytes]:
    return make(), b"hello"


def a_reply_as_request(make: Make, _: pytest.MonkeyPatch) -> tuple[Tiny, bytes]:
    tiny = make()
    return tiny, tiny.pen(STUDY).sign(Closed("0" * 64, SITE))


def a_study_in_no_parts(make: Make, _: pytest.MonkeyPatch) -> tuple[Tiny, bytes]:
    tiny = make()
    return tiny, tiny.pen(STUDY).opening(body=b"\0\0\0\2")


def totals_that_are_no_arrays(make: Make, _: pytest.MonkeyPatch) -> tuple[Tiny, bytes]:
    tiny = make()
    return tiny, opened(tiny).ask("linear", body=b"\0\0\0\1" + b"\0" * 7 + b"\4none", round=2)


def a_stranger(make: Make, _: pytest.MonkeyPatch) -> tuple[Tiny, bytes]:
    tiny = make()
    return tiny, tiny.pen(STUDY).opening(by=Identity.generate())


def a_node_as_coordinator(make: Make, _: pytest.MonkeyPatch) -> tuple[Tiny, bytes]:
    tiny = make()
    return tiny, tiny.pen(STUDY).opening(by=tiny.gates["BE"].identity)


def other_code(make: Make, _: pytest.MonkeyPatch) -> tuple[Tiny, bytes]:
    tiny = make()
    return tiny, tiny.pen(STUDY).opening(version="0.0.1+0123456789abcdef")


def other_code_since_the_opening(make: Make, _: pytest.MonkeyPatch) -> tuple[Tiny, bytes]:
    tiny = make()
    return tiny, opened(tiny).ask("counts", version="0.0.1+0123456789abcdef")


def other_wire_version(make: Make, _: pytest.MonkeyPatch) -> tuple[Tiny, bytes]:
    tiny = make()
    envelope = bytearray(tiny.pen(STUDY).opening())
    envelope[9] += 1
    return tiny, bytes(envelope)


def an_old_opening(make: Make, _: pytest.MonkeyPatch) -> tuple[Tiny, bytes]:
    tiny = make()
    return tiny, tiny.pen(STUDY).opening(expires=1)


def an_old_question(make: Make, _: pytest.MonkeyPatch) -> tuple[Tiny, bytes]:
    tiny = make()
    return tiny, opened(tiny).ask("counts", expires=1)


def an_old_unmasking(make: Make, _: pytest.MonkeyPatch) -> tuple[Tiny, bytes]:
    tiny = make()
    pen = opened(tiny)
    everywhere(tiny, request := pen.ask("counts"))
    return tiny, pen.unmask([request], expires=1)


def an_unknown_session(make: Make, _: pytest.MonkeyPatch) -> tuple[Tiny, bytes]:
    tiny = make()
    return tiny, opened(tiny).ask("counts", session="another")


def a_closed_session(make: Make, _: pytest.MonkeyPatch) -> tuple[Tiny, bytes]:
    tiny = make()
    pen = opened(tiny)
    everywhere(tiny, request := pen.ask("counts"))
    everywhere(tiny, pen.closing())
    return tiny, request  # its masked reply is gone as well


def a_study_that_is_none(make: Make, _: pytest.MonkeyPatch) -> tuple[Tiny, bytes]:
    tiny = make()
    return tiny, tiny.pen(STUDY).opening(body=b"\0\0\0\1" + b"\0" * 7 + b"\2{}")


def another_study_than_stated(make: Make, _: pytest.MonkeyPatch) -> tuple[Tiny, bytes]:
    tiny = make()
    return tiny, tiny.pen(STUDY).opening(study=study(COUNTS).digest)


def a_session_twice(make: Make, _: pytest.MonkeyPatch) -> tuple[Tiny, bytes]:
    tiny = make()
    opened(tiny)
    return tiny, tiny.pen(study(COUNTS)).opening()


def a_question_of_another_study(make: Make, _: pytest.MonkeyPatch) -> tuple[Tiny, bytes]:
    tiny = make()
    return tiny, opened(tiny).ask("counts", study=study(COUNTS).digest)


def coordinator_outside_policy(make: Make, _: pytest.MonkeyPatch) -> tuple[Tiny, bytes]:
    tiny = make(policies={SITE: {"coordinators": ["somebody"]}})
    return tiny, tiny.pen(STUDY).opening()


def purpose_outside_policy(make: Make, _: pytest.MonkeyPatch) -> tuple[Tiny, bytes]:
    tiny = make(policies={SITE: {"purposes": ["education"]}})
    return tiny, opened(tiny).ask("counts")


def analysis_outside_policy(make: Make, _: pytest.MonkeyPatch) -> tuple[Tiny, bytes]:
    tiny = make(policies={SITE: {"analyses": {"association": ["exact"]}}})
    return tiny, opened(tiny).ask("counts")


def regime_outside_policy(make: Make, _: pytest.MonkeyPatch) -> tuple[Tiny, bytes]:
    tiny = make(policies={SITE: {"analyses": {"allele_frequency": ["private"]}}})
    return tiny, opened(tiny).ask("counts")


def column_outside_policy(make: Make, _: pytest.MonkeyPatch) -> tuple[Tiny, bytes]:
    tiny = make(policies={SITE: {"columns": {"sex": [1, 2]}}})
    return tiny, opened(tiny).ask("linear")


def column_not_there(make: Make, _: pytest.MonkeyPatch) -> tuple[Tiny, bytes]:
    def rename(data: Path) -> None:
        table = data / SITE / "people.tsv"
        table.write_text(table.read_text().replace("trait", "height", 1))

    tiny = make(edit=rename)
    return tiny, opened(tiny).ask("linear")


def range_outside_policy(make: Make, _: pytest.MonkeyPatch) -> tuple[Tiny, bytes]:
    tiny = make(policies={SITE: {"columns": {"sex": [1, 2], "trait": [-4, 3.5]}}})
    return tiny, opened(tiny).ask("linear")


def about(index: str = "", *where: str) -> Study:
    """Counts of a cohort."""
    cohort = selection_of({"index": index, "where": list(where)}, "a test")
    return study(replace(COUNTS, cohort="some"), cohorts={"some": cohort})


def a_cohort_by_a_column_outside_policy(make: Make, _: pytest.MonkeyPatch) -> tuple[Tiny, bytes]:
    tiny = make(policies={SITE: {"columns": {"sex": [1, 2]}}})
    return tiny, opened(tiny, about("", "trait >= -4")).ask("counts")


def a_cohort_by_events(make: Make, _: pytest.MonkeyPatch) -> tuple[Tiny, bytes]:
    tiny = make()
    return tiny, opened(tiny, about("", "any condition SNOMED:1")).ask("counts")


def a_cohort_by_dates_where_no_events_are_asked_for(make: Make, _: pytest.MonkeyPatch) -> tuple[Tiny, bytes]:
    tiny = make()
    return tiny, opened(tiny, about("", "age at 2020-01-01 >= 18")).ask("counts")


def a_cohort_by_a_forbidden_code(make: Make, _: pytest.MonkeyPatch) -> tuple[Tiny, bytes]:
    tiny = make(events=["condition"], policies={SITE: {"events": ["condition"], "forbidden_codes": ["SNOMED:1+"]}})
    return tiny, opened(tiny, about("first condition SNOMED:1")).ask("counts")


def a_cohort_by_events_that_are_not_there(make: Make, _: pytest.MonkeyPatch) -> tuple[Tiny, bytes]:
    tiny = make(events=["condition"])
    return tiny, opened(tiny, about("", "any condition SNOMED:1")).ask("counts")


def a_cohort_of_a_few(make: Make, _: pytest.MonkeyPatch) -> tuple[Tiny, bytes]:
    tiny = make()
    return tiny, opened(tiny, about("", "trait >= 0")).ask("counts")


def a_cohort_of_all_but_a_few(make: Make, _: pytest.MonkeyPatch) -> tuple[Tiny, bytes]:
    tiny = make()
    everywhere(tiny, tiny.pen(STUDY, "before").open().ask("counts"))
    return tiny, opened(tiny, about("", "trait >= -1.1")).ask("counts")


def refusals_that_told_of_people_enough(make: Make, patch: pytest.MonkeyPatch) -> tuple[Tiny, bytes]:
    patch.setattr("fl_client.denials.MOST_DENIALS", 1)
    tiny = make()
    opened(tiny, about("", "trait >= 0"))
    return tiny, tiny.pen(STUDY, "after").open().ask("counts")


def a_derived_column_outside_policy(make: Make, _: pytest.MonkeyPatch) -> tuple[Tiny, bytes]:
    tiny = make()
    column = Range.from_plain({"value": "whether trait >= 0"}, "a test")
    asked = study(Question("derived", GenotypeCounts("panel", by="derived")))
    return tiny, opened(tiny, replace(asked, columns={**asked.columns, "derived": column})).ask("derived")


def its_own_part_without_leave(make: Make, _: pytest.MonkeyPatch) -> tuple[Tiny, bytes]:
    tiny = make()
    return tiny, opened(tiny, study(replace(COUNTS, by_site=True))).ask("counts")


def a_total_of_a_node_that_gives_parts(make: Make, _: pytest.MonkeyPatch) -> tuple[Tiny, bytes]:
    tiny = make(policies={SITE: {"by_site": ["exact"], "minimum_cell": 5}})
    return tiny, opened(tiny).ask("counts")


def noise_that_counts_on_more_sites_than_policy(make: Make, _: pytest.MonkeyPatch) -> tuple[Tiny, bytes]:
    tiny = make()
    return tiny, opened(tiny, study(replace(TOGETHER, honest_sites=3))).ask("frequencies")


def fewer_than_its_noise_counts_on(make: Make, _: pytest.MonkeyPatch) -> tuple[Tiny, bytes]:
    tiny = make(honest_sites=4)
    pen = opened(tiny, study(replace(TOGETHER, honest_sites=4)))
    return tiny, pen.share({"frequencies": 1}, ("AT", "BE", "CY"))


def a_share_for_a_question_beyond_the_budget(make: Make, _: pytest.MonkeyPatch) -> tuple[Tiny, bytes]:
    tiny = make()
    pen = opened(tiny, study(replace(TOGETHER, budget=Budget(20.0, 1e-5))))
    return tiny, pen.share({"frequencies": 1})


def another_build(make: Make, _: pytest.MonkeyPatch) -> tuple[Tiny, bytes]:
    tiny = make(datasets={SITE: {"assembly": "GRCh38"}})
    return tiny, opened(tiny).ask("counts")


def a_veto(make: Make, _: pytest.MonkeyPatch) -> tuple[Tiny, bytes]:
    tiny = make()
    request = opened(tiny).ask("counts")
    (tiny.gates[SITE].ledger.folder / VETO_FILE).touch()
    return tiny, request


def broken_data(make: Make, _: pytest.MonkeyPatch) -> tuple[Tiny, bytes]:
    tiny = make(edit=lambda data: (data / SITE / "genotypes.bed").write_bytes(b"\x6c\x1b\x01"))
    return tiny, opened(tiny).ask("counts")


def no_genotypes(make: Make, _: pytest.MonkeyPatch) -> tuple[Tiny, bytes]:
    tiny = make(datasets={SITE: {"genotypes": ""}})
    return tiny, opened(tiny).ask("frequencies")


def data_that_changed(make: Make, _: pytest.MonkeyPatch) -> tuple[Tiny, bytes]:
    tiny = make()
    request = opened(tiny).ask("counts")
    table = tiny.data / SITE / "people.tsv"
    table.write_text(table.read_text() + "\n")
    return tiny, request


def a_roster_without_it(make: Make, _: pytest.MonkeyPatch) -> tuple[Tiny, bytes]:
    tiny = make()
    return tiny, opened(tiny).ask("counts", roster=("BE", "CY", "DK"))


def a_roster_with_a_stranger(make: Make, _: pytest.MonkeyPatch) -> tuple[Tiny, bytes]:
    tiny = make()
    return tiny, opened(tiny).ask("counts", roster=(*NAMES, "XX"))


def a_roster_that_counts_twice(make: Make, _: pytest.MonkeyPatch) -> tuple[Tiny, bytes]:
    tiny = make()
    return tiny, opened(tiny).ask("counts", roster=("AT", "BE", "BE"))


def two_sites(make: Make, _: pytest.MonkeyPatch) -> tuple[Tiny, bytes]:
    tiny = make()
    return tiny, opened(tiny).share({"counts": 1}, ("AT", "BE"))


def fewer_than_its_policy_asks(make: Make, _: pytest.MonkeyPatch) -> tuple[Tiny, bytes]:
    tiny = make(policies={SITE: {"minimum_sites": 4}})
    return tiny, opened(tiny).share({"counts": 1}, ("AT", "BE", "CY"))


def agreement(pen: Pen, attempt: int = 1, roster: tuple[str, ...] = NAMES) -> tuple[bytes, list[bytes]]:
    """The request to share and what the sites sent, which they have not signed yet."""
    share = pen.share({"counts": attempt}, roster)
    return share, [pen.tiny.gates[site].answer(share) for site in roster]


def a_roster_that_isolates(make: Make, _: pytest.MonkeyPatch) -> tuple[Tiny, bytes]:
    tiny = make()
    pen = opened(tiny)
    everywhere(tiny, request := pen.ask("counts"))
    everywhere(tiny, pen.unmask([request]))
    return tiny, pen.agree(*agreement(pen, 2, ("AT", "BE", "CY")))


def a_roster_that_would_isolate_if_the_first_were_opened(make: Make, _: pytest.MonkeyPatch) -> tuple[Tiny, bytes]:
    tiny = make()
    assert tiny.pen(STUDY, "other").open().join("counts") is None
    pen = opened(tiny)
    return tiny, pen.agree(*agreement(pen, 1, ("AT", "BE", "CY")))


def a_roster_after_another_was_signed(make: Make, _: pytest.MonkeyPatch) -> tuple[Tiny, bytes]:
    tiny = make()
    share, shared = agreement(pen := opened(tiny))
    assert tiny.pen(STUDY, "other").open().join("counts", 1, ("AT", "BE", "CY")) is None
    return tiny, pen.agree(share, shared)


def an_agreement_of_an_earlier_attempt(make: Make, _: pytest.MonkeyPatch) -> tuple[Tiny, bytes]:
    tiny = make()
    share, shared = agreement(pen := opened(tiny))
    agreement(pen, 2)
    return tiny, pen.agree(share, shared)


def a_question_of_an_earlier_attempt(make: Make, _: pytest.MonkeyPatch) -> tuple[Tiny, bytes]:
    tiny = make()
    pen = opened(tiny)
    request = pen.ask("counts")
    agreement(pen, 2)
    return tiny, request


def a_question_that_nobody_agreed_on(make: Make, _: pytest.MonkeyPatch) -> tuple[Tiny, bytes]:
    tiny = make()
    return tiny, opened(tiny).ask("counts", agree=False)


def a_question_over_fewer_than_agreed(make: Make, _: pytest.MonkeyPatch) -> tuple[Tiny, bytes]:
    tiny = make()
    pen = opened(tiny)
    assert pen.join("counts") is None
    return tiny, pen.ask("counts", roster=("AT", "BE", "CY"))


def a_question_that_only_others_signed(make: Make, _: pytest.MonkeyPatch) -> tuple[Tiny, bytes]:
    tiny = make()
    share, shared = agreement(pen := opened(tiny))
    everywhere(tiny, pen.agree(share, shared), ("BE", "CY", "DK"))
    return tiny, pen.ask("counts", agree=False)


def an_agreement_on_nothing(make: Make, _: pytest.MonkeyPatch) -> tuple[Tiny, bytes]:
    tiny = make()
    return tiny, opened(tiny).agree(b"\0" * 90, [])


def keys_twice(make: Make, _: pytest.MonkeyPatch) -> tuple[Tiny, bytes]:
    tiny = make()
    agreement(pen := opened(tiny))
    return tiny, pen.share({"counts": 1}, expires=2**40)


def keys_for_a_private_question(make: Make, _: pytest.MonkeyPatch) -> tuple[Tiny, bytes]:
    tiny = make()
    return tiny, opened(tiny).share({"frequencies": 1})


def keys_for_another_study(make: Make, _: pytest.MonkeyPatch) -> tuple[Tiny, bytes]:
    tiny = make()
    return tiny, opened(tiny).share({"counts": 1}, study=study(COUNTS).digest)


def keys_that_a_policy_refuses(make: Make, _: pytest.MonkeyPatch) -> tuple[Tiny, bytes]:
    tiny = make(policies={SITE: {"analyses": {"association": ["exact"]}}})
    return tiny, opened(tiny).share({"counts": 1})


def an_old_exchange(make: Make, _: pytest.MonkeyPatch) -> tuple[Tiny, bytes]:
    tiny = make()
    return tiny, opened(tiny).share({"counts": 1}, expires=1)


def an_old_agreement(make: Make, _: pytest.MonkeyPatch) -> tuple[Tiny, bytes]:
    tiny = make()
    share, shared = agreement(pen := opened(tiny))
    return tiny, pen.agree(share, shared, expires=1)


def certificates(pen: Pen, **change: bytes) -> bytes:
    return pen.share({"counts": 1}, body=pack_parts((pen.certificates | change)[site] for site in NAMES))


def a_key_too_few(make: Make, _: pytest.MonkeyPatch) -> tuple[Tiny, bytes]:
    tiny = make()
    pen = opened(tiny)
    return tiny, pen.share({"counts": 1}, body=pack_parts([pen.certificates[s] for s in NAMES[:-1]]))


def a_key_of_another_site(make: Make, _: pytest.MonkeyPatch) -> tuple[Tiny, bytes]:
    tiny = make()
    pen = opened(tiny)
    return tiny, certificates(pen, DK=pen.certificates["CY"])


def a_key_of_another_session(make: Make, _: pytest.MonkeyPatch) -> tuple[Tiny, bytes]:
    tiny = make()
    pen, other = opened(tiny), tiny.pen(STUDY, "session-2").open()
    return tiny, certificates(pen, DK=other.certificates["DK"])


def its_own_key_of_another_session(make: Make, _: pytest.MonkeyPatch) -> tuple[Tiny, bytes]:
    tiny = make()
    pen, other = opened(tiny), tiny.pen(STUDY, "session-2").open()
    return tiny, certificates(pen, AT=other.certificates[SITE])


def another_key_that_it_signed_itself(make: Make, _: pytest.MonkeyPatch) -> tuple[Tiny, bytes]:
    """A second process with the node's identity opened the session too."""
    tiny = make()
    pen = opened(tiny)
    other = replace(tiny.read(SITE, pen.certificates[SITE]).header, key="11" * 32)  # type: ignore[type-var]
    return tiny, certificates(pen, AT=pen.sign(other, by=tiny.gates[SITE].identity))


def a_key_of_low_order(make: Make, _: pytest.MonkeyPatch) -> tuple[Tiny, bytes]:
    tiny = make()
    pen = opened(tiny)
    weak = replace(tiny.read("DK", pen.certificates["DK"]).header, key="00" * 32)  # type: ignore[type-var]
    return tiny, certificates(pen, DK=pen.sign(weak, by=tiny.gates["DK"].identity))  # the site itself is false


def sent(pen: Pen, site: str, body: bytes | None = None, **change: object) -> tuple[bytes, list[bytes]]:
    """An agreement in which one site, false itself, sent something else."""
    share, shared = agreement(pen)
    place = NAMES.index(site)
    message = pen.tiny.read(site, shared[place])
    header = replace(message.header, **change)  # type: ignore[type-var, arg-type]
    shared[place] = pen.sign(header, message.body if body is None else body, pen.tiny.gates[site].identity)
    return share, shared


def a_mask_key_of_low_order(make: Make, _: pytest.MonkeyPatch) -> tuple[Tiny, bytes]:
    tiny = make()
    pen = opened(tiny)
    return tiny, pen.agree(*sent(pen, "DK", keys={"counts": "00" * 32}))


def a_mask_key_that_is_none(make: Make, _: pytest.MonkeyPatch) -> tuple[Tiny, bytes]:
    tiny = make()
    pen = opened(tiny)
    return tiny, pen.agree(*sent(pen, "DK", keys={"counts": "key"}))


def a_mask_key_for_another_question(make: Make, _: pytest.MonkeyPatch) -> tuple[Tiny, bytes]:
    tiny = make()
    pen = opened(tiny)
    return tiny, pen.agree(*sent(pen, "DK", keys={"linear": "11" * 32}))


def its_own_keys_replaced(make: Make, _: pytest.MonkeyPatch) -> tuple[Tiny, bytes]:
    tiny = make()
    pen = opened(tiny)
    return tiny, pen.agree(*sent(pen, SITE, keys={"counts": "11" * 32}))


def shares_sealed_to_somebody_else(make: Make, _: pytest.MonkeyPatch) -> tuple[Tiny, bytes]:
    tiny = make()
    pen = opened(tiny)
    share, shared = agreement(pen)
    parts = unpack_parts(tiny.read("DK", shared[3]).body)
    return tiny, pen.agree(*sent_again(pen, share, shared, pack_parts([parts[1], parts[0], parts[2]])))


def shares_too_few(make: Make, _: pytest.MonkeyPatch) -> tuple[Tiny, bytes]:
    tiny = make()
    pen = opened(tiny)
    return tiny, pen.agree(*sent_again(pen, *agreement(pen), pack_parts([])))


def sent_again(pen: Pen, share: bytes, shared: list[bytes], body: bytes) -> tuple[bytes, list[bytes]]:
    header = pen.tiny.read("DK", shared[3]).header
    return share, [*shared[:3], pen.sign(header, body, pen.tiny.gates["DK"].identity)]


def keys_of_another_attempt(make: Make, _: pytest.MonkeyPatch) -> tuple[Tiny, bytes]:
    tiny = make()
    pen = opened(tiny)
    _, shared = agreement(pen)
    share, others = agreement(pen, 2)
    return tiny, pen.agree(share, [*others[:3], shared[3]])


def a_signature_too_few(make: Make, _: pytest.MonkeyPatch) -> tuple[Tiny, bytes]:
    tiny = make()
    pen = opened(tiny)
    everywhere(tiny, request := pen.ask("counts"))
    return tiny, pen.unmask([request], body=pack_parts(pen.agreed["counts", 1][:3]))


def a_signature_under_another_agreement(make: Make, _: pytest.MonkeyPatch) -> tuple[Tiny, bytes]:
    tiny = make()
    pen, other = opened(tiny), tiny.pen(STUDY, "session-2").open()
    everywhere(tiny, request := pen.ask("counts"))
    assert other.join("counts") is None
    return tiny, pen.unmask([request], body=pack_parts([*pen.agreed["counts", 1][:3], other.agreed["counts", 1][3]]))


def the_seeds_of_an_earlier_attempt(make: Make, _: pytest.MonkeyPatch) -> tuple[Tiny, bytes]:
    tiny = make()
    pen = opened(tiny)
    everywhere(tiny, request := pen.ask("counts"))
    agreement(pen, 2)
    return tiny, pen.unmask([request])


def shares_of_what_it_did_not_open(make: Make, _: pytest.MonkeyPatch) -> tuple[Tiny, bytes]:
    tiny = make()
    pen = opened(tiny)
    everywhere(tiny, pen.ask("counts"))
    return tiny, pen.recover(["DK"])


def opened_here(make: Make) -> tuple[Tiny, Pen]:
    tiny = make()
    pen = opened(tiny)
    everywhere(tiny, request := pen.ask("counts"))
    everywhere(tiny, pen.unmask([request]))
    return tiny, pen


def shares_of_its_own_root(make: Make, _: pytest.MonkeyPatch) -> tuple[Tiny, bytes]:
    tiny, pen = opened_here(make)
    return tiny, pen.recover([SITE])


def an_old_recovery(make: Make, _: pytest.MonkeyPatch) -> tuple[Tiny, bytes]:
    tiny, pen = opened_here(make)
    return tiny, pen.recover(["DK"], expires=1)


def a_sealing_key_of_low_order(make: Make, _: pytest.MonkeyPatch) -> tuple[Tiny, bytes]:
    tiny = make()
    return tiny, tiny.pen(STUDY).opening(sealing="00" * 32)


def a_question_that_is_not_asked(make: Make, _: pytest.MonkeyPatch) -> tuple[Tiny, bytes]:
    tiny = make()
    return tiny, opened(tiny).ask("height")


def a_slice_too_far(make: Make, _: pytest.MonkeyPatch) -> tuple[Tiny, bytes]:
    tiny = make()
    return tiny, opened(tiny).ask("counts", number=1)


def a_slice_before_the_first(make: Make, _: pytest.MonkeyPatch) -> tuple[Tiny, bytes]:
    tiny = make()
    return tiny, opened(tiny).ask("counts", number=-1)


def another_cut(make: Make, _: pytest.MonkeyPatch) -> tuple[Tiny, bytes]:
    tiny = make()
    return tiny, opened(tiny).ask("counts", slices=2)


def a_round_too_far(make: Make, _: pytest.MonkeyPatch) -> tuple[Tiny, bytes]:
    tiny = make()
    return tiny, opened(tiny).ask("counts", round=2)


def a_second_draw_of_the_noise(make: Make, _: pytest.MonkeyPatch) -> tuple[Tiny, bytes]:
    tiny = make()
    return tiny, opened(tiny).ask("frequencies", attempt=2)


def chosen_parameters(make: Make, _: pytest.MonkeyPatch) -> tuple[Tiny, bytes]:
    tiny = make()
    return tiny, opened(tiny).ask("counts", parameters={"panel": "another"})


def totals_of_no_round(make: Make, _: pytest.MonkeyPatch) -> tuple[Tiny, bytes]:
    tiny = make()
    return tiny, opened(tiny).ask("counts", earlier=[{"genotypes": np.zeros((50, 4), dtype=np.int64)}], round=1)


def a_slot_twice(make: Make, _: pytest.MonkeyPatch) -> tuple[Tiny, bytes]:
    tiny = make()
    pen = opened(tiny)
    everywhere(tiny, pen.ask("counts"), (SITE,))
    return tiny, pen.ask("counts", expires=2**40)


LOST = Mark(f"TINY-{SITE}", 900, "a" * 64, 0.25, ("",) * 10)


def a_mark_that_it_did_not_sign(make: Make, _: pytest.MonkeyPatch) -> tuple[Tiny, bytes]:
    tiny = make()
    return tiny, tiny.pen(STUDY).opening(marks={SITE: LOST.signed(tiny.gates["BE"].identity)})


def a_mark_that_it_does_not_know(make: Make, _: pytest.MonkeyPatch) -> tuple[Tiny, bytes]:
    tiny = make()
    return tiny, tiny.pen(STUDY).opening(marks={SITE: LOST.signed(tiny.gates[SITE].identity)})


def a_question_of_a_ledger_that_is_behind(make: Make, _: pytest.MonkeyPatch) -> tuple[Tiny, bytes]:
    tiny = make()
    pen = opened(tiny)
    tiny.gates[SITE].ledger.present(LOST)
    return tiny, pen.ask("frequencies")


def more_than_the_budget(make: Make, _: pytest.MonkeyPatch) -> tuple[Tiny, bytes]:
    tiny = make(epsilon=0.9)
    return tiny, opened(tiny).ask("frequencies")


def fewer_people_than_policy(make: Make, _: pytest.MonkeyPatch) -> tuple[Tiny, bytes]:
    tiny = make(policies={SITE: {"minimum_people": 31}})
    return tiny, opened(tiny).ask("counts")


def everybody_but_one(make: Make, _: pytest.MonkeyPatch) -> tuple[Tiny, bytes]:
    """Counts over everybody, then an association that leaves out one person who has no trait."""

    def blank(data: Path) -> None:
        table = data / SITE / "people.tsv"
        table.write_text(re.sub(r"(AT-person-007\t)[^\t]+", r"\1NA", table.read_text()))

    tiny = make(edit=blank)
    pen = opened(tiny)
    everywhere(tiny, pen.ask("counts"))
    return tiny, pen.ask("linear")


def a_session_of_another_version(make: Make, _: pytest.MonkeyPatch) -> tuple[Tiny, bytes]:
    tiny = make()
    pen = opened(tiny)
    gate = tiny.gates[SITE]
    gate.dataset_config = replace(gate.dataset_config, version=2)
    return tiny, pen.ask("counts")


def a_range_narrower_than_the_policy_s(make: Make, _: pytest.MonkeyPatch) -> tuple[Tiny, bytes]:
    """In exact sums: with the total over the whole range, it tells about those alone who lie between the two."""
    tiny = make(policies={SITE: {"columns": {"sex": [1, 2], "trait": [-4, 4.5]}}})
    return tiny, opened(tiny).ask("linear")


def a_number_without_the_policy_s_unit(make: Make, _: pytest.MonkeyPatch) -> tuple[Tiny, bytes]:
    tiny = make(policies={SITE: {"columns": {"sex": [1, 2], "trait": {"range": [-4, 4], "unit": "mmol/L"}}}})
    return tiny, opened(tiny).ask("linear")


def a_unit_that_the_declared_one_does_not_convert_to(make: Make, _: pytest.MonkeyPatch) -> tuple[Tiny, bytes]:
    tiny = make(
        policies={SITE: {"columns": {"sex": [1, 2], "trait": {"range": [-4, 4], "unit": "mg/dL"}}}},
        datasets={SITE: {"variables": {"trait": {"range": [-5, 5], "unit": "mg/dL", "missing": [0]}}}},
    )
    asked = study(LINEAR, columns={"trait": Range(-4.0, 4.0, "mmol/L"), "sex": Range(1.0, 2.0)})
    return tiny, opened(tiny, asked).ask("linear")


def categories_in_the_place_of_numbers(make: Make, _: pytest.MonkeyPatch) -> tuple[Tiny, bytes]:
    tiny = make()
    asked = study(LINEAR, columns={"trait": Range(-4.0, 4.0), "sex": Range.of("male", "female")})
    return tiny, opened(tiny, asked).ask("linear")


def some_of_the_policy_s_categories(make: Make, _: pytest.MonkeyPatch) -> tuple[Tiny, bytes]:
    """In exact sums: with the total over all of them, it tells about the people of the third alone."""
    listed = {"categories": ["male", "female", "intersex"]}
    tiny = make(policies={SITE: {"columns": {"sex": listed, "trait": [-4, 4]}}})
    asked = study(LINEAR, columns={"trait": Range(-4.0, 4.0), "sex": Range.of("male", "female")})
    return tiny, opened(tiny, asked).ask("linear")


def a_first_round_that_would_overflow(make: Make, patch: pytest.MonkeyPatch) -> tuple[Tiny, bytes]:
    tiny = make()
    patch.setattr("strategies.summary.MOST_INTEGER", 4 * 20)  # thirty people are more than a ring that small holds
    return tiny, opened(tiny).ask("counts")


def more_attempts_than_sites(make: Make, _: pytest.MonkeyPatch) -> tuple[Tiny, bytes]:
    tiny = make()
    return tiny, opened(tiny).share({"counts": 9})


def seeds_of_nothing(make: Make, _: pytest.MonkeyPatch) -> tuple[Tiny, bytes]:
    tiny = make()
    pen = opened(tiny)
    return tiny, pen.unmask([pen.ask("counts")])


def seeds_of_another_session(make: Make, _: pytest.MonkeyPatch) -> tuple[Tiny, bytes]:
    tiny = make()
    other = tiny.pen(STUDY, "session-2").open()
    everywhere(tiny, request := other.ask("counts"))
    pen = opened(tiny)
    assert pen.join("counts") is None
    return tiny, pen.unmask([request])


def seeds_of_a_private_question(make: Make, _: pytest.MonkeyPatch) -> tuple[Tiny, bytes]:
    tiny = make()
    pen = opened(tiny)
    everywhere(tiny, request := pen.ask("frequencies"))
    assert pen.join("counts") is None
    return tiny, pen.unmask([request])


def a_failing_analysis(make: Make, patch: pytest.MonkeyPatch) -> tuple[Tiny, bytes]:
    tiny = make()

    def fail(*_: object) -> None:
        raise RuntimeError(SECRET)

    request = opened(tiny).ask("counts")
    patch.setattr(type(COUNTS.analysis), "summarise", fail)
    return tiny, request


def a_full_disk(make: Make, patch: pytest.MonkeyPatch) -> tuple[Tiny, bytes]:
    tiny = make()

    def fail(*_: object) -> None:
        raise OSError(28, SECRET)

    request = opened(tiny).ask("counts")
    patch.setattr(tiny.gates[SITE].ledger, "record", fail)
    return tiny, request


CASES: dict[Case, Reason] = {
    garbage: Reason.MALFORMED,
    a_reply_as_request: Reason.MALFORMED,
    a_study_in_no_parts: Reason.MALFORMED,
    totals_that_are_no_arrays: Reason.MALFORMED,
    a_stranger: Reason.BAD_SIGNATURE,
    a_node_as_coordinator: Reason.BAD_SIGNATURE,
    other_code: Reason.VERSION_MISMATCH,
    other_code_since_the_opening: Reason.VERSION_MISMATCH,
    other_wire_version: Reason.VERSION_MISMATCH,
    an_old_opening: Reason.EXPIRED,
    an_old_question: Reason.EXPIRED,
    an_old_unmasking: Reason.EXPIRED,
    an_unknown_session: Reason.NOT_OPENED,
    a_closed_session: Reason.NOT_OPENED,
    a_study_that_is_none: Reason.STUDY_INVALID,
    another_study_than_stated: Reason.STUDY_INVALID,
    a_session_twice: Reason.SESSION_CONFLICT,
    a_question_of_another_study: Reason.SESSION_CONFLICT,
    a_session_of_another_version: Reason.SESSION_CONFLICT,
    coordinator_outside_policy: Reason.COORDINATOR_NOT_ALLOWED,
    purpose_outside_policy: Reason.PURPOSE_NOT_ALLOWED,
    analysis_outside_policy: Reason.ANALYSIS_NOT_ALLOWED,
    regime_outside_policy: Reason.ANALYSIS_NOT_ALLOWED,
    column_outside_policy: Reason.COLUMN_NOT_ALLOWED,
    column_not_there: Reason.COLUMN_NOT_ALLOWED,
    range_outside_policy: Reason.RANGE_OUTSIDE_POLICY,
    a_cohort_by_a_column_outside_policy: Reason.COLUMN_NOT_ALLOWED,
    a_cohort_by_events: Reason.EVENTS_NOT_ALLOWED,
    a_cohort_by_dates_where_no_events_are_asked_for: Reason.EVENTS_NOT_ALLOWED,
    a_cohort_by_a_forbidden_code: Reason.CODE_NOT_ALLOWED,
    a_cohort_by_events_that_are_not_there: Reason.DATASET_UNAVAILABLE,
    a_cohort_of_a_few: Reason.TOO_FEW_PEOPLE,
    a_cohort_of_all_but_a_few: Reason.OVERLAP,
    refusals_that_told_of_people_enough: Reason.TOO_MANY_REFUSALS,
    a_derived_column_outside_policy: Reason.COLUMN_NOT_ALLOWED,
    its_own_part_without_leave: Reason.BY_SITE_NOT_ALLOWED,
    a_total_of_a_node_that_gives_parts: Reason.BY_SITE_NOT_ALLOWED,
    noise_that_counts_on_more_sites_than_policy: Reason.HONEST_SITES,
    fewer_than_its_noise_counts_on: Reason.TOO_FEW_SITES,
    a_share_for_a_question_beyond_the_budget: Reason.BUDGET_EXHAUSTED,
    a_range_narrower_than_the_policy_s: Reason.RANGE_OUTSIDE_POLICY,
    a_number_without_the_policy_s_unit: Reason.UNIT_NOT_CONVERTIBLE,
    a_unit_that_the_declared_one_does_not_convert_to: Reason.UNIT_NOT_CONVERTIBLE,
    categories_in_the_place_of_numbers: Reason.CATEGORIES_DIFFER,
    some_of_the_policy_s_categories: Reason.CATEGORIES_DIFFER,
    another_build: Reason.WRONG_ASSEMBLY,
    a_veto: Reason.VETOED,
    broken_data: Reason.DATASET_UNAVAILABLE,
    no_genotypes: Reason.DATASET_UNAVAILABLE,
    data_that_changed: Reason.DATASET_UNAVAILABLE,
    a_roster_without_it: Reason.NOT_IN_ROSTER,
    a_roster_with_a_stranger: Reason.NOT_IN_ROSTER,
    a_roster_that_counts_twice: Reason.NOT_IN_ROSTER,
    two_sites: Reason.TOO_FEW_SITES,
    fewer_than_its_policy_asks: Reason.TOO_FEW_SITES,
    a_roster_that_isolates: Reason.ROSTER_ISOLATES,
    a_roster_that_would_isolate_if_the_first_were_opened: Reason.ROSTER_ISOLATES,
    a_roster_after_another_was_signed: Reason.AGREEMENT_STALE,
    an_agreement_of_an_earlier_attempt: Reason.AGREEMENT_STALE,
    a_question_of_an_earlier_attempt: Reason.AGREEMENT_STALE,
    the_seeds_of_an_earlier_attempt: Reason.AGREEMENT_STALE,
    a_question_that_nobody_agreed_on: Reason.NOT_AGREED,
    a_question_over_fewer_than_agreed: Reason.NOT_AGREED,
    a_question_that_only_others_signed: Reason.NOT_AGREED,
    an_agreement_on_nothing: Reason.NOT_AGREED,
    a_signature_too_few: Reason.NOT_AGREED,
    a_signature_under_another_agreement: Reason.NOT_AGREED,
    shares_of_what_it_did_not_open: Reason.NOT_AGREED,
    shares_of_its_own_root: Reason.NOT_IN_ROSTER,
    keys_twice: Reason.ALREADY_ANSWERED,
    keys_for_a_private_question: Reason.OUT_OF_ORDER,
    keys_for_another_study: Reason.SESSION_CONFLICT,
    keys_that_a_policy_refuses: Reason.ANALYSIS_NOT_ALLOWED,
    an_old_exchange: Reason.EXPIRED,
    an_old_agreement: Reason.EXPIRED,
    an_old_recovery: Reason.EXPIRED,
    a_key_too_few: Reason.KEYS_INVALID,
    a_key_of_another_site: Reason.KEYS_INVALID,
    a_key_of_another_session: Reason.KEYS_INVALID,
    its_own_key_of_another_session: Reason.KEYS_INVALID,
    another_key_that_it_signed_itself: Reason.KEYS_INVALID,
    a_key_of_low_order: Reason.KEYS_INVALID,
    a_mask_key_of_low_order: Reason.KEYS_INVALID,
    a_mask_key_that_is_none: Reason.KEYS_INVALID,
    a_mask_key_for_another_question: Reason.KEYS_INVALID,
    its_own_keys_replaced: Reason.KEYS_INVALID,
    shares_sealed_to_somebody_else: Reason.KEYS_INVALID,
    shares_too_few: Reason.KEYS_INVALID,
    keys_of_another_attempt: Reason.KEYS_INVALID,
    a_sealing_key_of_low_order: Reason.KEYS_INVALID,
    a_question_that_is_not_asked: Reason.OUT_OF_ORDER,
    a_slice_too_far: Reason.OUT_OF_ORDER,
    a_slice_before_the_first: Reason.OUT_OF_ORDER,
    another_cut: Reason.OUT_OF_ORDER,
    a_round_too_far: Reason.OUT_OF_ORDER,
    a_second_draw_of_the_noise: Reason.OUT_OF_ORDER,
    chosen_parameters: Reason.NOT_DERIVED,
    totals_of_no_round: Reason.NOT_DERIVED,
    a_slot_twice: Reason.ALREADY_ANSWERED,
    more_than_the_budget: Reason.BUDGET_EXHAUSTED,
    a_mark_that_it_did_not_sign: Reason.BAD_SIGNATURE,
    a_mark_that_it_does_not_know: Reason.LEDGER_BEHIND,
    a_question_of_a_ledger_that_is_behind: Reason.LEDGER_BEHIND,
    fewer_people_than_policy: Reason.TOO_FEW_PEOPLE,
    everybody_but_one: Reason.OVERLAP,
    a_first_round_that_would_overflow: Reason.SUM_OVERFLOW,
    more_attempts_than_sites: Reason.OUT_OF_ORDER,
    seeds_of_nothing: Reason.NOT_ANSWERED,
    seeds_of_another_session: Reason.NOT_ANSWERED,
    seeds_of_a_private_question: Reason.NOT_ANSWERED,
    a_failing_analysis: Reason.INTERNAL,
    a_full_disk: Reason.INTERNAL,
}
PUBLIC = {
    Reason.TOO_FEW_SITES: {"minimum_sites"},
    Reason.TOO_FEW_PEOPLE: {"minimum_people"},
    Reason.OVERLAP: {"minimum_people"},
    Reason.TOO_MANY_REFUSALS: {"most"},
    Reason.BUDGET_EXHAUSTED: {"rho_asked", "rho_left", "rho_lifetime"},
    Reason.HONEST_SITES: {"honest_sites"},
}


def private_words() -> list[str]:
    """What must stand in no refusal, journal or log: people, variants, parameters, texts of exceptions."""
    variants = [word for v in PANEL.variants for word in (f'"{v.identifier}"', str(v), f":{v.position}")]
    return [*people_of(SITE), *variants, "panel", "covariates", "trait", "Traceback", "Error", SECRET, "copies"]


def test_every_reason_is_reached() -> None:
    assert set(CASES.values()) == set(Reason) == set(MEANING)


@pytest.mark.parametrize("case", CASES, ids=[case.__name__ for case in CASES])
def test_a_refusal_says_its_code_and_public_numbers_and_is_in_the_journal(
    case: Case, make_tiny: Make, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    tiny, envelope = case(make_tiny, monkeypatch)
    gate = tiny.gates[SITE]
    before, spent = len(list(gate.ledger.journal())), gate.ledger.spent()
    caplog.clear()
    with caplog.at_level(logging.DEBUG, "genosum"):
        reply = gate.answer(envelope)

    message = tiny.read(SITE, reply)
    refused = message.header
    assert isinstance(refused, Refused)
    assert refused.reason is CASES[case]
    assert (refused.request, refused.node, message.body) == (digest_of(envelope), SITE, b"")
    assert set(refused.public) == PUBLIC.get(refused.reason, set())
    assert refused.public.get("minimum_people", gate.policy.minimum_people) == gate.policy.minimum_people

    lines = list(gate.ledger.journal())[before:]
    assert [line["event"] for line in lines] == ["refuse"]
    assert lines[0]["reason"] == refused.reason
    assert set(lines[0]) <= {"event", "reason", "coordinator", "session", "study", "question", "time", "spent"}
    for word in private_words():
        assert word.encode() not in reply
        assert word not in json.dumps(lines)
    for line in caplog.messages:
        # The log is the node's own and names what is wrong with a file, but no text of an unforeseen exception.
        assert SECRET not in line
    if refused.reason is not Reason.INTERNAL:
        assert gate.ledger.spent() == spent, "a refusal before data were read costs nothing"


def test_a_refusal_answers_even_when_the_journal_cannot_be_written(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> None:
        raise OSError(28, SECRET)

    monkeypatch.setattr(tiny.gates[SITE].ledger, "note", fail)
    message = tiny.read(SITE, tiny.gates[SITE].answer(b"garbage"))
    assert isinstance(message.header, Refused)
    assert message.header.reason is Reason.MALFORMED
    assert caplog.messages == ["the journal cannot be written: OSError"]


def test_a_veto_in_mid_study_stops_everything_but_forgetting(tiny: Tiny) -> None:
    pen, gate = opened(tiny), tiny.gates[SITE]
    everywhere(tiny, answered := pen.ask("counts"))
    everywhere(tiny, noised := pen.ask("frequencies"), (SITE,))
    veto = gate.ledger.folder / VETO_FILE
    veto.touch()
    again = [pen.opening(), pen.share({"counts": 1}), answered, noised, pen.ask("linear"), pen.unmask([answered])]
    for envelope in again:
        header = tiny.read(SITE, gate.answer(envelope)).header
        assert isinstance(header, Refused)
        assert header.reason is Reason.VETOED
    veto.unlink()
    assert not isinstance(tiny.read(SITE, gate.answer(pen.unmask([answered]))).header, Refused)
    veto.touch()
    assert isinstance(tiny.read(SITE, gate.answer(pen.closing())).header, Closed)


def test_a_session_belongs_to_the_coordinator_who_opened_it(make_tiny: Make) -> None:
    """Another coordinator of the federation can sign the very same request, which then has the same digest."""
    tiny = make_tiny(coordinators=["demo", "other"])
    other, gate = Identity.generate(), tiny.gates[SITE]
    coordinator = replace(tiny.federation.coordinators["demo"], identity=other.public)
    gate.federation = replace(tiny.federation, coordinators={**tiny.federation.coordinators, "other": coordinator})
    pen = opened(tiny)
    everywhere(tiny, exact := pen.ask("counts"))
    everywhere(tiny, noised := pen.ask("frequencies"), (SITE,))
    mine = [
        pen.opening(),
        pen.share({"counts": 1}),
        exact,
        noised,
        pen.unmask([exact]),
        pen.recover(["DK"]),
        pen.closing(),
    ]
    for envelope in mine:
        header = _signed_again(envelope, tiny, other)
        theirs = tiny.read(SITE, gate.answer(header)).header
        assert digest_of(header) == digest_of(envelope)
        assert isinstance(theirs, Refused)
        assert theirs.reason is Reason.SESSION_CONFLICT


def _signed_again(envelope: bytes, tiny: Tiny, by: Identity) -> bytes:
    from strategies.wire import open_envelope, seal_envelope  # noqa: PLC0415

    message: Message = open_envelope(envelope, {"demo": tiny.workspace.identity.public})
    return seal_envelope(message.header, message.body, by)


def test_closing_an_unknown_session_changes_nothing(tiny: Tiny) -> None:
    gate = tiny.gates[SITE]
    pen = opened(tiny)
    everywhere(tiny, request := pen.ask("counts"))
    reply = gate.answer(pen.sign(Close("another", 2**40)))
    assert isinstance(tiny.read(SITE, reply).header, Closed)
    assert not isinstance(tiny.read(SITE, gate.answer(request)).header, Refused)


def test_a_budget_of_another_question_is_reported_by_public_numbers(make_tiny: Make) -> None:
    tiny = make_tiny(epsilon=3.0)
    dear = replace(FREQUENCIES, name="dear", budget=Budget(3.0, 1e-5))
    pen = tiny.pen(study(FREQUENCIES, dear, TRAINING)).open()
    everywhere(tiny, pen.ask("frequencies"), (SITE,))
    header = tiny.read(SITE, tiny.gates[SITE].answer(pen.ask("dear"))).header
    assert isinstance(header, Refused)
    asked, had = Budget(3.0, 1e-5).loss.rho, Budget(1.0, 1e-5).loss.rho
    assert header.public == {
        "rho_asked": pytest.approx(asked),
        "rho_left": pytest.approx(asked - had),
        "rho_lifetime": pytest.approx(asked),
    }


def test_the_gate_of_a_node_that_the_federation_does_not_know_is_not_built(tiny: Tiny) -> None:
    from fl_client.policy import NodeConfig  # noqa: PLC0415
    from strategies.errors import UsageError  # noqa: PLC0415

    config = NodeConfig.read(tiny.workspace.node_files[SITE])
    with pytest.raises(UsageError, match="known to the federation by its name and key"):
        Gate.build(replace(config, name="BE"))


@pytest.mark.parametrize(("people", "deviation"), [(10, 2e-4), (4, 0.4), (100, 1e-3)])
def test_forged_totals_are_answered_like_any(make_tiny: Make, people: int, deviation: float) -> None:
    """Whether a site's sum lies beyond a limit of the coordinator's choice must not be told by a refusal."""
    tiny = make_tiny()
    forged = forged_moments(people=people, deviation=deviation)
    request = opened(tiny).ask("linear", analysis=derived(forged), earlier=[forged])  # type: ignore[arg-type]
    assert isinstance(tiny.read(SITE, tiny.gates[SITE].answer(request)).header, Answered)


def test_a_reply_whose_mark_cannot_be_kept_does_not_leave(make_tiny: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny = make_tiny()
    pen, gate = opened(tiny), tiny.gates[SITE]
    requests = [pen.ask("counts"), b"garbage"]

    def full() -> Mark:
        raise OSError("no space left on device")

    with monkeypatch.context() as disk:
        disk.setattr(gate.ledger, "mark", full)
        refused = [tiny.read(SITE, reply).header for reply in gate.answers(requests)]
    assert [h.reason for h in refused if isinstance(h, Refused)] == [Reason.INTERNAL, Reason.INTERNAL]
    assert all(isinstance(h, Refused) and h.mark is None for h in refused)
    answered, malformed = (tiny.read(SITE, reply).header for reply in gate.answers(requests))
    assert isinstance(answered, Answered)
    assert answered.mark is not None
    assert (kept := KeptMarks(gate.ledger.folder, gate.ledger.dataset).read().issued) is not None
    assert kept.sequence >= answered.mark.sequence, "the stored reply left after its mark was kept"
    assert isinstance(malformed, Refused)
    assert malformed.reason is Reason.MALFORMED
