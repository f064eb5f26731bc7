"""What a node does with cohorts: texts that are none are refused unread, people are who the text says, and nobody is
looked for whom policy protects; and `fl-client explain` says the same."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tomli_w

from fl_client.cli import main
from fl_client.explain import explained
from fl_client.ledger import VETO_FILE
from fl_client.ranges import objection
from fl_client.readers import Dataset
from fl_client.readers.variables import Variable
from fl_client.selection import forbidden
from strategies.analyses.association import LinearAssociation
from strategies.analyses.attrition import Attrition, NoisedAttrition
from strategies.analyses.score_distribution import ScoreDistribution
from strategies.analyses.table_one import TableOne
from strategies.analysis import Range
from strategies.errors import RefusedError, UsageError
from strategies.events import Code, Domain
from strategies.grammar import code_of, index_of, selection_of, value_of
from strategies.privacy import Budget
from strategies.question import Question
from strategies.reasons import Reason
from strategies.study import Study
from strategies.wire import Opened, Refused, pack_parts
from tests.clinical import Happening, InMemory, Life
from tests.tiny import COLUMNS, COUNTS, LINEAR, NAMES, PANEL, PEOPLE, Tiny, genotypes, study

Make = Callable[..., Tiny]

INJECTED = (
    # SQL
    "'; DROP TABLE person; --", "age >= 40; DROP TABLE person", "age >= 40 -- comment", "1=1", "1 = 1", "or 1=1",
    "age >= 40 or 1=1", "age >= 40 or '1'='1'", "age >= 40 union select * from person", "age >= (select max(age))",
    "age >= 40 /* */", "age >= 40 #", "age = 40 limit 1", "any condition SNOMED:1' or 'a'='a", "any condition SNOMED:%",
    "any condition SNOMED:1 or true", "any condition SNOMED:1) or (1=1", "any condition SNOMED:*", 'age >= "40"',
    "age like 4", "age between 1 and 2", "age is null", "age is not null", "sex = female'--", "sex = ''", "sex = ' '",
    "sex = 'a;b'", "sex = 'female\\' or \\'1'", "sex in ()", "sex in (female", "sex in (female,)", "sex in (,)",
    "exists (select 1)", "pg_sleep(10)", "age >= pg_sleep(10)", "age::int >= 4", "age || age", "@@version", "age >= @x",
    "person.age >= 4", "information_schema.tables = a", "\"age\" >= 40", "`age` >= 40", "[age] >= 40", "$1 >= 40",
    ":age >= 40", "%(age)s >= 40", "? >= 40", "xp_cmdshell = a", "cast(age as int) >= 4",
    # shells and files
    "$(id)", "`id`", "age >= 40 && id", "age >= 40 | sh", "age > /etc/passwd", "age < /dev/zero", "../../etc/passwd",
    "file:///etc/passwd", "~ >= 4", "age >= 40\n; rm -rf /", "${HOME}", "%HOME%", "!id", "age >= 40 & age >= 41",
    # format strings and templates
    "{age} >= 40", "{{7*7}}", "{% raw %}", "{0.__class__}", "%s", "%n%n%n", "<%= 7*7 %>", "#{7*7}", "f'{age}'",
    "age >= {0}", "${jndi:ldap://x/y}", "any measurement LOINC:1 >= 48 {{unit}}", "any measurement LOINC:1 >= 48 ${x}",
    # code
    "__import__('os').system('id')", "lambda: 0", "eval(1)", "age.__class__", "age.real >= 4", "age >= 40 if 1 else 2",
    "age >= 0x28", "age >= 4e1", "age >= 1_000", "age >= nan", "age >= inf", "age >= -inf", "age >= +4", "age >= 4.",
    "age >= .4", "age >= --4", "age >= 1.2.3", "age >= ", "age >= 40 40", "age => 40", "age =< 40", "age == 40",
    "age <> 40", "age ! 40", "40 <= age", "20 <= age <= 40", "<script>alert(1)</script>", "age >= 40<!--",
    # numbers and lengths
    f"age >= {'9' * 400}", f"age >= 0.{'0' * 40}1", "age >= 1234567890123", f"any condition SNOMED:{'1' * 60}",
    f"any condition {'S' * 40}:1", f"{'a' * 50} >= 4", "at least 0 visit", "at least 1001 visit", "at least -1 visit",
    "at least 1.5 visit", "any visit within 0 days of index", "any visit within 99999 days of index",
    "any visit within 2.5 days of 2020-01-01", "followed for 0 days after 2020-01-01", "age at birth >= 999",
    "age >= 40 " + "and age >= 40 " * 400, "(" * 13 + "age >= 40" + ")" * 13, "not " * 14 + "age >= 40",
    "(" * 900, ")" * 900, "any visit " + "before first visit " * 14 + "before 2020-01-01", "age >= 40" + " " * 2000,
    # dates
    "any visit before 2020-02-30", "any visit before 2020-13-01", "any visit before 20200101", "any visit on 2020-1-1",
    "any visit before 0000-00-00", "any visit before 9999-12-31", "any visit before now()", "any visit before today",
    # unicode and control characters
    "age \u2265 40", "\uff41ge >= 40", "age >= \u0664\u0660", "age\u200b >= 40", "age\u00a0>= 40", "\u202eage >= 40",
    "age >= 40\0", "\0", "age\t>= 40", "age >= 40\r", "age >= 4\u00b2", "sex = f\u00e9male", "sex = '\u2019'",
    "\ufeffage >= 4",
    "age >= 40\u2028or age < 40", "age \u0061\u0301 >= 4", "any condition SNOMED\uff1a1", "\U0001f600", "sex = 'a\nb'",
    # the grammar's own words in the wrong places
    "", " ", "and", "or", "not", "any", "no", "any condition before", "any condition within index", "first condition",
    "any condition SNOMED:", "any condition :1", "any condition SNOMED:1 |", "any condition | SNOMED:1",
    "any drug ATC:++",
    "any drug ATC:A10 + ", "any drug A10", "any drug ATC: A10", "any surgery", "any CONDITION", "ANY condition",
    "any condition SNOMED:1 >= 3", "any drug <= 3", "has genes", "age at >= 18", "age at index", "is missing", "in (a)",
    "and is missing", "age is", "age in (40)", "sex in female", "followed for 3 weeks after birth", "age is missing or",
    "followed for 3 days of birth", "any visit after birth before death", "any visit on on birth", "() or age >= 4",
    "age >= 40 xor age >= 50", "age >= 40, age >= 50", "age >= 40 age >= 50", "(age >= 40))", "((age >= 40)", 
    # of another study's columns, categories or ranges
    "income >= 40", "sex = other", "sex >= 1", "age = old", "age >= 4000", "any visit after index", "derived >= 1",
)  # fmt: skip

RAW_COLUMNS: dict[str, Any] = {
    "age": [0, 110],
    "sex": {"categories": ["male", "female"]},
    "derived": {"value": "count of visit", "range": [0, 9]},
}


def document(where: Any, columns: Mapping[str, Any] = RAW_COLUMNS, **cohort: Any) -> bytes:
    """A study's document whose only cohort says this, as a coordinator who keeps to no rule would write it."""
    raw = json.loads(study(COUNTS).document) | {"columns": columns, "cohorts": {"some": {"where": where, **cohort}}}
    raw["question"][0]["cohort"] = "some"
    return json.dumps(raw, sort_keys=True, separators=(",", ":")).encode()


def test_there_are_enough_of_them() -> None:
    assert len(set(INJECTED)) == len(INJECTED) >= 100


@pytest.mark.parametrize("text", INJECTED, ids=[ascii(t)[:40] for t in INJECTED])
def test_a_text_that_is_no_condition_is_refused_with_its_place(text: str) -> None:
    before = time.process_time()
    with pytest.raises(UsageError) as raised:
        Study.from_document(document([text]), {"panel": PANEL.encode()})
    assert time.process_time() - before < 1
    said = str(raised.value)
    assert said.isascii()
    assert said.replace("\n", "").isprintable()
    assert "step 1" in said or "cohort some" in said
    assert len(said) < 700


@pytest.mark.parametrize("read", [index_of, value_of, code_of])
def test_a_text_that_is_no_condition_is_no_day_value_or_code_either(read: Callable[[str, str], object]) -> None:
    for text in INJECTED:
        if (read, text) in ((index_of, "first condition"), (value_of, "age at index")):
            continue
        with pytest.raises(UsageError):
            read(text, "a test")


def test_a_node_refuses_them_all_before_it_opens_anything(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    def untouched(*_: object, **__: object) -> None:
        raise AssertionError("data were opened")

    opened = json.loads(document(["age >= 40"]))
    gate = tiny.gates["AT"]
    for name in ("cohort", "clinical", "people", "genotyped"):
        monkeypatch.setattr(Dataset, name, property(untouched), raising=name != "clinical")  # that is a field
    for number, text in enumerate(INJECTED):
        body = json.dumps(opened | {"cohorts": {"some": {"where": [text]}}}).encode()
        pen = tiny.pen(study(COUNTS), f"session-{number}")
        request = pen.opening(pack_parts([body, b"panel", PANEL.encode()]), study=hashlib.sha256(body).hexdigest())
        header = tiny.read("AT", gate.answer(request)).header
        assert isinstance(header, Refused), ascii(text)
        assert header.reason is Reason.STUDY_INVALID, (ascii(text), header.reason)


def test_the_same_document_with_a_condition_is_opened(tiny: Tiny) -> None:
    body = document(["age >= 40 and sex = female"])
    request = tiny.pen(study(COUNTS)).opening(
        pack_parts([body, b"panel", PANEL.encode()]), study=Study.from_document(body, {"panel": PANEL.encode()}).digest
    )
    header = tiny.read("AT", tiny.gates["AT"].answer(request)).header
    assert isinstance(header, Opened)
    assert header.refuses == {"counts": Reason.COLUMN_NOT_ALLOWED}, "that has no such column"


@pytest.mark.parametrize(
    ("cohort", "said"),
    [
        ({"where": []}, "an index, or 1 to 20 steps"),
        ({"where": ["age >= 4"] * 21}, "an index, or 1 to 20 steps"),
        ({"where": 3}, "list of a texts"),
        ({"where": [], "index": "first condition before index"}, "`index` is a cohort's own day"),
        ({"where": ["age >= 4"], "code": "x"}, "has these keys: where, index"),
    ],
)
def test_a_cohort_has_an_index_or_steps(cohort: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        Study.from_document(document(**cohort), {"panel": PANEL.encode()})


@pytest.mark.parametrize(
    ("column", "said"),
    [
        ({"value": "age at birth"}, "has a range"),
        ({"value": "age at birth", "categories": ["no", "yes"]}, "has the categories no and yes, and every other"),
        ({"value": "whether any visit", "range": [0, 1]}, "has the categories no and yes, and every other"),
        ({"value": "whether any visit", "categories": ["a", "b"]}, "has the categories no and yes, and every other"),
        ({"value": "count of visit", "range": [0, 9], "unit": "kg"}, "counts have no unit"),
        ({"value": "whether income >= 3"}, "stand in the study's .columns."),
        ({"value": "mean of drug", "range": [0, 1]}, "a measurement or observation"),
        ({}, "a range .lowest, highest. or categories"),
    ],
)
def test_a_derived_column_says_its_range_or_is_yes_or_no(column: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        Study.from_document(document(["age >= 4"], RAW_COLUMNS | {"new": column}), {"panel": PANEL.encode()})


# -- at the gate -------------------------------------------------------------------------------------------------------

FIRST = "first condition SNOMED:1+"
ONSET = date(2015, 6, 1)
TEXTS = {
    "half": {"where": ["trait >= 0"]},
    "most": {"where": "trait >= -1.1"},
    "sick": {"index": FIRST, "where": ["age at index >= 40", "no drug ATC:A10+ before index"]},
    "nobody": {"where": "trait >= 4"},
    "any": {"where": "any condition"},
}
COHORTS = {name: selection_of(raw, name) for name, raw in TEXTS.items()}
AGE = Range.from_plain({"value": "age at index", "range": [0, 120]}, "age")
DERIVED = {"age": AGE, "treated": Range.from_plain({"value": "whether any drug ATC:A10+ after index"}, "treated")}
ALLOWED = {
    **{name: list(span) for name, span in COLUMNS.items()},
    "age": {"value": f"age at {FIRST}", "range": [0, 120]},
    "treated": {"value": f"whether any drug ATC:A10+ after {FIRST}"},
}


def lives_of(site: str) -> list[Life]:
    """Who is 40 or older at the first of her diagnoses: all but every fifth; some were treated before."""
    out = []
    for i in range(PEOPLE):
        onset = ONSET + timedelta(days=40 * i)
        years = 30 if i % 5 == 4 else 45 + i
        told = [
            Happening(Domain.CONDITION, "SNOMED:11", onset),
            Happening(Domain.CONDITION, "SNOMED:12", date(2021, 1, 1)),
        ]
        if i % 10 == 3:
            told.append(Happening(Domain.DRUG, "ATC:A10A", onset - timedelta(days=1)))
        if i % 3 == 0:
            told.append(Happening(Domain.DRUG, "ATC:A10A", onset + timedelta(days=9)))
        out.append(Life(born=onset - timedelta(days=years * 366), happened=tuple(told if i != 9 else [])))
    return out


@pytest.fixture
def sources(monkeypatch: pytest.MonkeyPatch) -> dict[str, InMemory]:
    """Each site's clinical source."""
    out = {f"TINY-{site}": InMemory(lives_of(site)) for site in NAMES}
    there = property(lambda self: out[self.config.identifier], lambda self, opened: None)
    monkeypatch.setattr(Dataset, "clinical", there, raising=False)
    return out


def asked(*questions: Question, **change: Any) -> Study:
    made = study(*questions, cohorts=COHORTS, **change)
    return replace(made, columns={**made.columns, **DERIVED})


def trait_of(tiny: Tiny, site: str) -> np.ndarray:
    dataset = tiny.gates[site].dataset
    assert dataset is not None
    return dataset.table.column("trait")


def in_sick(site: str) -> list[bool]:
    return [i != 9 and i % 5 != 4 and i % 10 != 3 for i in range(PEOPLE)]


def test_an_answer_about_a_cohort_is_of_its_people(make_tiny: Make, quick_path: Path) -> None:
    tiny = make_tiny(minimum_people=1)
    (result,) = tiny.conductor(asked(replace(COUNTS, cohort="half")), quick_path / "run").run()
    table, want = result.answer.tables["frequencies"], np.zeros((len(PANEL), 4), dtype=np.int64)
    for site in NAMES:
        codes = genotypes(site)[:, trait_of(tiny, site) >= 0]
        want += np.stack([(codes == code).sum(axis=1) for code in range(4)], axis=1)
    assert np.array_equal(np.stack([table[n] for n in ("hom_ref", "het", "hom_alt")], axis=1), want[:, :3])
    assert result.answer.facts["people"] == want[0].sum() < 4 * PEOPLE


def test_events_are_asked_for_once_whatever_the_rounds(
    make_tiny: Make, quick_path: Path, sources: dict[str, InMemory]
) -> None:
    tiny = make_tiny(minimum_people=1, events=["condition", "drug"], columns=ALLOWED)
    regression = Question(
        "linear",
        LinearAssociation("panel", ("age",), ("treated", "sex"), minimum_minor_alleles=1, minimum_missing=1),
        cohort="sick",
    )
    (result,) = tiny.conductor(asked(regression), quick_path / "run").run()
    assert result.answer.facts["people"] == sum(sum(in_sick(site)) for site in NAMES)
    assert regression.analysis.rounds() > 1
    for source in sources.values():
        assert sorted(map(str, source.asked)) == sorted(map(str, set(source.asked)))
        assert len(source.asked) == 2


def test_a_cohort_s_steps_are_counted(make_tiny: Make, quick_path: Path, sources: dict[str, InMemory]) -> None:
    tiny = make_tiny(events=["condition", "drug"], columns=ALLOWED, minimum_people=1)
    (result,) = tiny.conductor(asked(Question("flow", Attrition(), cohort="sick")), quick_path / "run").run()
    table = result.answer.tables["steps"]
    people = [
        4 * PEOPLE,
        4 * (PEOPLE - 1),
        4 * sum(i % 5 != 4 and i != 9 for i in range(PEOPLE)),
        4 * sum(in_sick("AT")),
    ]
    assert np.asarray(table["people"]).tolist() == people
    assert np.asarray(table["left_out"]).tolist() == [0, *(-np.diff(people)).tolist()]
    assert result.answer.facts["people_in_cohort"] == people[-1]


def test_small_differences_between_steps_are_withheld(make_tiny: Make, quick_path: Path) -> None:
    """Step 2 leaves out 1 to 4 of 120 people, which must not follow from the steps around it."""
    tiny = make_tiny(minimum_cell=5, minimum_people=1)
    traits = np.sort(np.concatenate([trait_of(tiny, site) for site in NAMES]))
    first, second = (float((traits[i - 1] + traits[i]) / 2) for i in (30, 33))
    steps = [f"trait >= {first:.6f}", f"trait >= {second:.6f}", "trait >= 0"]
    cohorts = {"steps": selection_of({"where": steps}, "steps")}
    (result,) = tiny.conductor(
        study(Question("flow", Attrition(), cohort="steps"), cohorts=cohorts), quick_path / "run"
    ).run()
    people = np.asarray(result.answer.tables["steps"]["people"])
    assert people[0] == 120
    assert np.isnan(people[1:3]).any()
    shown = people[~np.isnan(people)]
    assert all(d == 0 or d >= 5 for d in np.abs(np.diff(shown)))
    assert np.isnan(result.answer.tables["steps"]["left_out"][2])


def test_a_private_attrition_is_near_the_truth_and_says_its_noise(make_tiny: Make, quick_path: Path) -> None:
    tiny = make_tiny()
    flow = Question("flow", NoisedAttrition(), Budget(8.0, 1e-5), cohort="half")
    (result,) = tiny.conductor(asked(flow), quick_path / "run").run()
    table = result.answer.tables["steps"]
    sd, truth = np.asarray(table["people_noise_sd"]), sum(int((trait_of(tiny, s) >= 0).sum()) for s in NAMES)
    assert sd[0] == pytest.approx(sd[1] * 2**0.5)
    assert abs(table["people"][1] - truth) < 6 * sd[1]  # 2e-9 of draws are farther


def reason_of(tiny: Tiny, made: Study, question: str, site: str = "AT") -> Reason | None:
    """What a site says to a question: the code in `Opened`, or of the request itself."""
    pen = tiny.pen(made, "why").open()
    opened = tiny.read(site, pen.certificates[site]).header
    assert isinstance(opened, Opened)
    header = tiny.read(site, tiny.gates[site].answer(pen.ask(question))).header
    said = header.reason if isinstance(header, Refused) else None
    assert opened.refuses.get(question) is said or (opened.refuses == {} and said is Reason.OVERLAP)
    return said


def test_in_the_private_regime_nothing_about_the_cohort_is_a_reason(make_tiny: Make) -> None:
    tiny = make_tiny()
    for number, cohort in enumerate(("half", "most", "nobody")):
        question = Question("flow", NoisedAttrition(), Budget(0.1, 1e-5), by_site=True, cohort=cohort)
        pen = tiny.pen(asked(question), f"session-{number}").open()
        header = tiny.read("AT", tiny.gates["AT"].answer(pen.ask("flow"))).header
        assert not isinstance(header, Refused)


def test_two_cohorts_that_differ_by_a_few_are_not_both_answered(make_tiny: Make) -> None:
    tiny = make_tiny()
    inside = int((trait_of(tiny, "AT") >= -1.1).sum())
    assert 20 <= inside < PEOPLE
    pen = tiny.pen(asked(COUNTS, replace(COUNTS, name="most", cohort="most"))).open()
    assert not isinstance(tiny.read("AT", tiny.gates["AT"].answer(pen.ask("counts"))).header, Refused)
    refused = tiny.read("AT", tiny.gates["AT"].answer(pen.ask("most"))).header
    assert isinstance(refused, Refused)
    assert refused.reason is Reason.OVERLAP


def test_a_cohort_s_steps_are_not_counted_twice_but_for_a_few(make_tiny: Make) -> None:
    """Two attritions, the second of which leaves out one person more at its only step."""
    tiny = make_tiny(minimum_people=5)
    third, fourth = np.sort(trait_of(tiny, "AT"))[8:10]
    texts = {"one": f"trait >= {third - 1e-4:.4f}", "other": f"trait >= {fourth - 1e-4:.4f}", "few": "trait >= 1.5"}
    cohorts = {name: selection_of({"where": text}, name) for name, text in texts.items()}
    questions = [Question(name, Attrition(), cohort=name) for name in texts]
    pen = tiny.pen(study(*questions, cohorts=cohorts)).open()
    replies = [tiny.read("AT", tiny.gates["AT"].answer(pen.ask(name))).header for name in texts]
    assert [reply.reason if isinstance(reply, Refused) else None for reply in replies] == [
        None,
        Reason.OVERLAP,
        Reason.TOO_FEW_PEOPLE,
    ]
    assert 0 < int((trait_of(tiny, "AT") >= 1.5).sum()) < 5


def test_steps_of_cohorts_that_end_alike_are_not_counted_twice_but_for_one(make_tiny: Make) -> None:
    tiny = make_tiny(minimum_people=5)
    ordered = np.sort(trait_of(tiny, "AT"))
    third, fourth, last = ordered[8] - 1e-4, ordered[9] - 1e-4, f"trait >= {np.median(ordered):.4f}"
    cohorts = {
        name: selection_of({"where": [f"trait >= {least:.4f}", last]}, name)
        for name, least in (("one", third), ("other", fourth), ("again", third))
    }
    pen = tiny.pen(study(*(Question(name, Attrition(), cohort=name) for name in cohorts), cohorts=cohorts)).open()
    replies = [tiny.read("AT", tiny.gates["AT"].answer(pen.ask(name))).header for name in cohorts]
    reasons = [reply.reason if isinstance(reply, Refused) else None for reply in replies]
    assert reasons == [None, Reason.OVERLAP, None]


def test_a_refusal_does_not_tell_whether_anybody_is_in_a_cohort(make_tiny: Make) -> None:
    tiny = make_tiny(minimum_people=5)
    cohorts = {
        "nobody": selection_of({"where": "trait >= 1 and trait <= -1"}, "nobody"),
        "few": selection_of({"where": f"trait >= {np.sort(trait_of(tiny, 'AT'))[-3] - 1e-4:.4f}"}, "few"),
    }
    asked_of = study(*(replace(COUNTS, name=name, cohort=name) for name in cohorts), cohorts=cohorts)
    said = [tiny.gates["AT"].objection("demo", asked_of, question) for question in asked_of.questions]
    assert said == [(Reason.TOO_FEW_PEOPLE, {"minimum_people": 5})] * 2


def test_a_quantile_is_not_narrowed_below_the_minimum(make_tiny: Make) -> None:
    tiny = make_tiny(minimum_cell=5)
    for fewest, reason in ((4, Reason.TOO_FEW_PEOPLE), (5, None)):
        question = Question("people", TableOne(("trait",), fewest=fewest))
        said = tiny.gates["AT"].objection("demo", study(question), question)
        assert said == (None if reason is None else (reason, {"minimum_cell": 5}))


def test_places_of_categories_are_those_of_the_policy() -> None:
    allowed, declared = Range.of("control", "case"), Variable(categories={"1": "case", "0": "control"})
    turned = Range.of("case", "control")
    assert objection(allowed, allowed, None, exact=False) is None
    assert objection(turned, allowed, None, exact=False) is Reason.CATEGORIES_DIFFER
    assert objection(turned, allowed, declared, exact=True) is None, "cells are read by their names"


def test_those_without_genotypes_are_in_no_round_of_a_question_about_them(
    make_tiny: Make, quick_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = np.arange(PEOPLE) % 6 != 0
    monkeypatch.setattr(Dataset, "genotyped", property(lambda _: there))
    tiny = make_tiny()
    results = tiny.conductor(study(COUNTS, LINEAR), quick_path / "run").run()
    assert [r.answer.facts["people"] for r in results] == [4 * int(there.sum())] * 2
    traits = Question("traits", ScoreDistribution("trait"))
    pen = tiny.pen(study(traits), "everybody").open()
    refused = tiny.read("AT", tiny.gates["AT"].answer(pen.ask("traits"))).header
    assert isinstance(refused, Refused), "everybody would be asked, of whom 5 are not in the others"
    assert refused.reason is Reason.OVERLAP


def test_what_policy_forbids_it_forbids_under_any_code() -> None:
    clinical = InMemory([])
    below, above, other = Code("SNOMED", "11"), Code("SNOMED", "1"), Code("SNOMED", "2")
    with_all = replace(above, descendants=True)
    assert forbidden(above, above, clinical)
    assert forbidden(below, with_all, clinical)
    assert not forbidden(below, above, clinical)
    assert forbidden(with_all, below, clinical), "it would ask about it among others"
    assert not forbidden(above, below, clinical)
    assert not forbidden(other, with_all, clinical)
    assert not forbidden(below, with_all, None), "nobody can tell without a vocabulary"
    five, seven = Code("SNOMED", "5", descendants=True), Code("SNOMED", "7", descendants=True)
    assert forbidden(seven, five, clinical), "one code lies below both"
    assert not forbidden(replace(seven, descendants=False), five, clinical)


# -- explain -----------------------------------------------------------------------------------------------------------

EXPLAINED: dict[str, tuple[Question, dict[str, Any], Reason | None]] = {
    "answered": (replace(COUNTS, cohort="most"), {}, None),
    "column": (replace(LINEAR, cohort="half"), {"columns": {"sex": [1, 2]}}, Reason.COLUMN_NOT_ALLOWED),
    "cohort's column": (replace(COUNTS, cohort="half"), {"columns": {"sex": [1, 2]}}, Reason.COLUMN_NOT_ALLOWED),
    "small": (replace(COUNTS, cohort="half"), {}, Reason.TOO_FEW_PEOPLE),
    "events": (replace(COUNTS, cohort="sick"), {}, Reason.EVENTS_NOT_ALLOWED),
    "some events": (replace(COUNTS, cohort="sick"), {"events": ["condition"]}, Reason.EVENTS_NOT_ALLOWED),
    "code": (
        replace(COUNTS, cohort="sick"),
        {"events": ["condition", "drug"], "forbidden_codes": ["SNOMED:11"]},
        Reason.CODE_NOT_ALLOWED,
    ),
    "all codes": (
        replace(COUNTS, cohort="any"),
        {"events": ["condition"], "forbidden_codes": ["SNOMED:99"]},
        Reason.CODE_NOT_ALLOWED,
    ),
    "derived": (
        Question("derived", ScoreDistribution("age"), cohort="sick"),
        {"events": ["condition", "drug"]},
        Reason.COLUMN_NOT_ALLOWED,
    ),
    "derived otherwise": (
        Question("derived", ScoreDistribution("age"), cohort="sick"),
        {"events": ["condition", "drug"], "columns": ALLOWED | {"age": {"value": "age at death", "range": [0, 120]}}},
        Reason.RANGE_OUTSIDE_POLICY,
    ),
}


@pytest.mark.parametrize("name", EXPLAINED)
def test_explain_says_what_the_node_would(make_tiny: Make, sources: dict[str, InMemory], name: str) -> None:
    question, policy, reason = EXPLAINED[name]
    tiny = make_tiny(**policy)
    made = asked(question)
    (told,) = explained(tiny.gates["AT"], made, "demo")
    assert told.refused is reason
    assert reason_of(tiny, made, question.name) is reason
    text = "\n".join(line for _, line in told.lines)
    assert (reason or "would be given to demo") in text


@pytest.mark.parametrize(
    ("columns", "reason"),
    [
        ({"trait": Range(-4.0, 4.0, "kg"), "sex": Range(1.0, 2.0)}, Reason.UNIT_NOT_CONVERTIBLE),
        ({"trait": Range(-4.0, 4.0), "sex": Range.of("a free text", "another")}, Reason.CATEGORIES_DIFFER),
        ({"trait": Range(-4.0, 3.0), "sex": Range(1.0, 2.0)}, Reason.RANGE_OUTSIDE_POLICY),
    ],
)
def test_explain_says_the_same_of_units_and_texts(make_tiny: Make, columns: dict[str, Range], reason: Reason) -> None:
    tiny, made = make_tiny(), study(LINEAR, columns=columns)
    (told,) = explained(tiny.gates["AT"], made, "demo")
    assert told.refused is reason
    assert reason_of(tiny, made, LINEAR.name) is reason
    assert reason in "\n".join(line for _, line in told.lines)


def test_explain_says_who_what_and_on_which_terms(make_tiny: Make, sources: dict[str, InMemory]) -> None:
    tiny = make_tiny(events=["condition", "drug"], columns=ALLOWED, minimum_people=1)
    regression = Question("linear", LinearAssociation("panel", ("age",), ("sex",)), cohort="sick")
    before = len(list(tiny.gates["AT"].ledger.journal()))
    flow = Question("flow", NoisedAttrition(), Budget(1.0, 1e-5), cohort="most")
    told = explained(tiny.gates["AT"], asked(regression, flow), "demo")
    text = "\n".join(f"{what}|{line}" for one in told for what, line in one.lines)
    for words in (
        "who|the cohort sick, who",
        "|1. has the first record of a condition with code SNOMED 1 or any below it; its day is the index day",
        "|2. the age on the index day is at least 40 whole years",
        "|3. no record of a drug with code ATC A10 or any below it, before the index day",
        "|of them, those who have genotypes",
        "reads|column sex: [1, 2]",
        "|derived column age: the age on the day of the first record of a condition with code SNOMED 1",
        "|genotypes of 50 variants, panel panel",
        "leaves|",
        "terms|exact: refused below 1 people here",
        "terms|private: ",
        "who|everybody, by how many of these steps they pass:",
        "passed: 2 numbers: people who passed exactly so many steps",
        "answer|would be given to demo",
    ):
        assert words in text, (words, text)
    assert len(list(tiny.gates["AT"].ledger.journal())) == before, "nothing is recorded"


@pytest.mark.parametrize(("where", "code"), [("trait >= -1.1", 0), ("trait >= 0", RefusedError.exit_code)])
def test_explain_on_the_command_line(
    make_tiny: Make, quick_path: Path, capsys: pytest.CaptureFixture[str], where: str, code: int
) -> None:
    tiny = make_tiny()
    tiny.close()
    (quick_path / "panel.tsv").write_bytes(PANEL.encode())
    raw = {
        "title": "explained", "purpose": "scientific_research", "assembly": "GRCh37",
        "columns": {"trait": list(COLUMNS["trait"])}, "panels": {"panel": {"file": "panel.tsv"}},
        "cohorts": {"some": {"where": where}},
        "question": [
            {"name": "counts", "analysis": "allele_frequency", "regime": "exact", "panel": "panel", "cohort": "some"}
        ],
    }  # fmt: skip
    (quick_path / "study.toml").write_text(tomli_w.dumps(raw), encoding="utf-8")
    node = tiny.workspace.node_files["AT"]
    assert main(["explain", str(quick_path / "study.toml"), "--node", str(node)]) == code
    out = capsys.readouterr().out
    assert ("TOO_FEW_PEOPLE; minimum_people = 20" in out) == bool(code)
    assert f"{1 - bool(code)} of 1 questions would be answered" in out


def test_a_veto_is_explained(tiny: Tiny) -> None:
    (tiny.gates["AT"].ledger.folder / VETO_FILE).touch()
    assert {one.refused for one in explained(tiny.gates["AT"], study(COUNTS), "demo")} == {Reason.VETOED}
