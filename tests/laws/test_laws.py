"""What holds for every analysis of the catalogue, in every round: a new analysis is under these laws at once."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import fields, replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

import strategies.cohort
from strategies.analyses import linkage
from strategies.analysis import (
    WHOLE,
    Analysis,
    Answer,
    Cutting,
    Frame,
    Total,
    alike,
    carried,
    carries,
    names_of,
    parameters,
    stated,
)
from strategies.catalogue import CATALOGUE, find
from strategies.codec import canonical, parse
from strategies.cohort import MISSING, Cohort, Genotypes, Stored
from strategies.errors import UsageError
from strategies.privacy import Budget, Loss, Regime, stacked
from strategies.protections import noise
from strategies.protections.secure_sum import flatten, unflatten
from strategies.protections.suppression import PROFILES, WITHHELD
from strategies.summary import check, join
from strategies.wire import pack_arrays, unpack_arrays, unpack_numbers
from tests.laws.zoo import (
    RANGES,
    Case,
    add,
    begun,
    cases,
    changes,
    cohort,
    cohorts,
    first,
    frame_for,
    has_codes,
    panel,
    rounds,
)

VARIANTS = 23
CASES = cases(VARIANTS)
every_case = pytest.mark.parametrize("case", CASES, ids=[c.name for c in CASES])
PRIVATE = [c for c in CASES if c.analysis.regime is Regime.PRIVATE]
EXACT = [c for c in CASES if c.analysis.regime is Regime.EXACT]
CUT = [c for c in CASES if any(f.per_variant for f in c.analysis.leaves(c.frame).values())]
EXACT_PAGES = [page for page in CATALOGUE if page.regime is Regime.EXACT]
ASKED = [
    (page, change)
    for page in EXACT_PAGES
    for change in ({}, *(c for c in changes(page) if has_codes(c) or {"dosages", "offset", "distribution"} & set(c)))
]
every_exact = pytest.mark.parametrize(("page", "change"), ASKED, ids=[f"{p.__name__} {c}" for p, c in ASKED])
every_page = pytest.mark.parametrize("page", CATALOGUE, ids=[p.__name__ for p in CATALOGUE])


@every_case
@pytest.mark.parametrize("name", list(cohorts(VARIANTS)))
def test_what_leaves_is_what_was_declared(case: Case, name: str) -> None:
    check(case.analysis.summarise(cohorts(VARIANTS)[name], case.frame), case.analysis.leaves(case.frame))


@every_case
@pytest.mark.parametrize("sites", [1, 2, 4, 7])
def test_the_sum_over_sites_is_the_summary_of_all_people(case: Case, sites: int) -> None:
    people = cohort(97, VARIANTS, 11)
    cut = np.random.default_rng(sites).integers(0, sites, len(people))  # a site may be empty
    parts = [case.analysis.summarise(people.take(np.flatnonzero(cut == s)), case.frame) for s in range(sites)]
    whole, total = case.analysis.summarise(people, case.frame), add(parts)
    for name, field in case.analysis.leaves(case.frame).items():
        if field.over == "people":
            assert np.array_equal(whole[name], total[name]), name
        elif field.over == "within":  # a sum over sites of what each measures from its own mean
            assert sites > 1 or np.array_equal(whole[name], total[name]), name
        else:  # each site adds 0 or 1, whatever the number of its people
            assert {int(v) for part in [*parts, whole] for v in part[name].flat} <= {0, 1}, name
            assert np.array_equal(total[name] > 0, whole[name] > 0), name


@every_case
def test_the_order_of_people_does_not_matter(case: Case) -> None:
    people = cohort(80, VARIANTS, 12)
    one = case.analysis.summarise(people, case.frame)
    other = case.analysis.summarise(people.take(np.random.default_rng(0).permutation(80)), case.frame)
    assert all(np.array_equal(one[f], other[f]) for f in one)


@pytest.mark.parametrize("case", EXACT, ids=[c.name for c in EXACT])
@pytest.mark.parametrize("name", list(cohorts(VARIANTS)))
def test_the_people_of_an_exact_answer_are_the_complete_ones(case: Case, name: str) -> None:
    """A node compares answers by them: whoever is complete changes what leaves, and whoever is not changes nothing.

    A genotype that is missing at single variants changes nothing of this; it is a cell of that variant. Nor does a
    value that is missing in an optional column, which is a cell of that column.
    """
    whole = cohorts(VARIANTS)[name]
    columns = {column: whole.columns[column] for column in case.analysis.needs().opened}  # what the gate opens
    people = replace(whole, columns=columns)
    everybody = case.analysis.summarise(people, case.frame)
    changes = []
    for person in range(len(people)):
        rest = case.analysis.summarise(people.take(np.delete(np.arange(len(people)), person)), case.frame)
        changes.append(any(not np.array_equal(everybody[field], rest[field]) for field in everybody))
    assert changes == people.having(case.analysis.needs().columns).tolist()


def nudged(analysis: Analysis) -> Iterator[Analysis]:
    """The round with one number of the study's larger, for each that may be."""
    for f in fields(analysis):  # type: ignore[arg-type]
        value, written = getattr(analysis, f.name), list[Any]()
        if f.metadata.get("derived"):
            continue
        if isinstance(value, bool | float | int):
            written = [value + (1 if type(value) is int else 0.3)] if not isinstance(value, bool) else []
        elif isinstance(value, tuple) and value and isinstance(value[0], float):
            written = [(*value[:i], value[i] + 0.3, *value[i + 1 :]) for i in range(len(value))]
        elif f.metadata.get("formula"):
            spans = [m.span() for m in re.finditer(r"(?<=[ ,])[0-9.]+(?=[,)])", value)]
            written = [f"{value[:a]}{float(value[a:b]) + 0.3}{value[b:]}" for a, b in spans]
        for one in written:
            with suppress(ValueError):
                yield replace(analysis, **{f.name: one})  # type: ignore[type-var]


COLUMNS_ALONE = [c for c in EXACT if c.analysis.needs().panel is None and not c.analysis.needs().matched]


@pytest.mark.parametrize("case", COLUMNS_ALONE, ids=[c.name for c in COLUMNS_ALONE])
def test_whatever_number_of_a_study_moves_what_is_summed_is_a_declared_cut(case: Case) -> None:
    """A page that tells people apart at points which the study chooses says so, for nodes to hold them apart."""
    people = cohort(200, VARIANTS, 12)
    before = case.analysis.summarise(people, case.frame)
    for other in nudged(case.analysis):
        try:
            after = other.summarise(people, case.frame)
        except (ValueError, UsageError):
            continue
        same = before.keys() == after.keys() and all(np.array_equal(before[name], after[name]) for name in before)
        if not same:
            assert isinstance(case.analysis, Cutting), "a page with points of the study's declares them"
            assert isinstance(other, Cutting)
            assert case.analysis.cuts(case.frame) != other.cuts(case.frame)
    if isinstance(case.analysis, Cutting):
        for name, points in case.analysis.cuts(case.frame).items():
            assert name in case.analysis.needs().opened
            assert list(points) == sorted(set(points))


@pytest.mark.parametrize("case", CUT, ids=[c.name for c in CUT])
def test_slices_join_to_the_whole(case: Case) -> None:
    people = cohort(30, VARIANTS, 14)
    whole = case.analysis.summarise(people, case.frame)
    if case.analysis.regime is Regime.PRIVATE:
        assert len(case.analysis.slices(case.frame)) == 1, "a private round is one release"
        return
    spans = [slice(0, 9), slice(9, 10), slice(10, 23)]
    parts = []
    for span in spans:
        assert people.genotypes is not None
        assert people.dosages is not None
        assert people.matched is not None
        cut = replace(
            people, genotypes=people.genotypes[span], dosages=people.dosages[span], matched=people.matched[span]
        )
        parts.append(case.analysis.summarise(cut, case.frame[span]))
    joined = join(parts, case.analysis.leaves(case.frame))
    assert all(np.array_equal(whole[f], joined[f]) for f in whole)


WALKED = [c for c in CASES if c.analysis.needs().walked]


@pytest.mark.parametrize("case", WALKED, ids=[c.name for c in WALKED])
def test_walked_genotypes_may_stay_in_their_file(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    people = cohort(70, VARIANTS, 16)
    whole = case.analysis.summarise(people, case.frame)
    for module in (strategies.cohort, linkage):
        monkeypatch.setattr(module, "VARIANTS_AT_A_TIME", 4)
    read: list[int] = []

    def some(rows: slice | np.ndarray) -> Genotypes:
        assert people.genotypes is not None
        read.append(len(people.genotypes[rows]))
        return people.genotypes[rows]

    apart = replace(people, genotypes=None, stored=Stored(VARIANTS, len(people), some))
    assert all(np.array_equal(whole[f], values) for f, values in case.analysis.summarise(apart, case.frame).items())
    pairs = case.analysis.analysis == "linkage"  # four variants come with all that they pair with
    assert pairs or (sum(read) >= VARIANTS and max(read) <= 4)


@pytest.mark.parametrize("case", CASES, ids=[c.name for c in CASES])
def test_a_round_in_one_piece_walks_its_genotypes(case: Case) -> None:
    """Or memory would grow with the panel; training holds its inputs, whose number is limited."""
    needs, cut = case.analysis.needs(), case.analysis.slices(case.frame)
    in_one_piece = needs.panel is not None and isinstance(cut[0], slice) and cut == WHOLE
    assert needs.walked == (in_one_piece and case.analysis.analysis != "train")


@every_case
def test_summaries_survive_wire_and_ring(case: Case) -> None:
    summary = case.analysis.summarise(cohort(50, VARIANTS, 15), case.frame)
    read = unpack_arrays(pack_arrays(summary))
    back = unflatten(flatten(summary), case.analysis.leaves(case.frame))
    for name in summary:
        assert read[name].shape == summary[name].shape
        assert np.array_equal(read[name], summary[name])
        assert np.array_equal(back[name], summary[name])


@every_case
def test_conclude_is_a_function_of_the_sums_alone(case: Case) -> None:
    total = case.analysis.summarise(cohort(120, VARIANTS, 16), case.frame)
    one = case.analysis.conclude(Total(total, ("a", "b", "c")), case.frame)
    # Which variants take part in rounds that carry arrays is decided by the coordinator, with the rules that it knows.
    sites = ("a", "b", "c") if carries(type(case.analysis)) else ("d",)
    other = case.analysis.conclude(Total(total, sites, {}, 0), case.frame)
    if isinstance(one, Analysis):
        assert isinstance(other, Analysis)
        assert parameters(one) == parameters(other), "the next round must be derivable by a node"
        assert all(np.array_equal(array, carried(other)[name]) for name, array in carried(one).items())


@every_case
def test_parameters_survive_json(case: Case) -> None:
    assert parse(canonical(parameters(case.analysis))) == parameters(case.analysis)


@every_case
def test_a_node_takes_a_round_as_it_was_stated(case: Case) -> None:
    given, asked = parse(canonical(parameters(case.analysis))), first(type(case.analysis), case.change)
    arrays = unpack_numbers(pack_arrays(carried(case.analysis)))
    again = stated(asked, given, arrays)
    assert alike(parameters(again), parameters(case.analysis))
    summary, other = (a.summarise(cohort(40, VARIANTS, 18), case.frame) for a in (case.analysis, again))
    assert all(np.array_equal(summary[name], other[name]) for name in summary)


@every_page
def test_only_exact_questions_carry_arrays_and_count_their_rounds(page: type[Analysis]) -> None:
    if carries(page):
        assert page.regime is Regime.EXACT
        steps = list(rounds(page, cohort(300, VARIANTS, 19), CASES[0].frame))
        assert [parameters(step)["taken"] for step in steps] == list(range(len(steps)))


@pytest.mark.parametrize("case", PRIVATE, ids=[c.name for c in PRIVATE])
@pytest.mark.parametrize("people", ["ordinary", "nobody", "one person", "mostly missing"])
def test_a_private_conclusion_survives_any_noise(case: Case, people: str) -> None:
    declared = case.analysis.leaves(case.frame)
    loss = Loss(Budget(0.2, 1e-6).loss.rho * case.analysis.fraction())
    sds = noise.scales(declared, loss)
    for _ in range(20):
        noised = noise.add_noise(case.analysis.summarise(cohorts(VARIANTS)[people], case.frame), declared, sds)
        assert isinstance(case.analysis.conclude(Total(noised, ("a",), sds), case.frame), Analysis | Answer)


@every_page
def test_a_question_ends_within_its_rounds_and_its_loss(page: type[Analysis]) -> None:
    frame = CASES[0].frame
    steps = list(rounds(page, cohort(300, VARIANTS, 17), frame))
    assert len(steps) <= steps[0].rounds()
    spends = [(s.needs().part.start, s.needs().part.stop, s.fraction()) for s in steps]
    if page.regime is Regime.PRIVATE:
        assert 0 < stacked(spends) <= 1 + 1e-9
        for step in steps:
            # What the gate's noise costs, computed from the declared bounds, is what the question pays.
            loss = Loss(0.2 * step.fraction())
            fields = step.leaves(frame)
            assert noise.spent(fields, noise.scales(fields, loss)).rho == pytest.approx(loss.rho, rel=1e-12)
    else:
        assert all(fraction == 0 for _, _, fraction in spends)


@every_page
def test_a_page_is_found_by_its_name_and_promise(page: type[Analysis]) -> None:
    assert find(page.analysis, page.regime) is page
    assert page.summary_in_words


@every_case
def test_only_exact_sums_add_over_sites(case: Case) -> None:
    if case.analysis.regime is Regime.PRIVATE:
        assert {field.over for field in case.analysis.leaves(case.frame).values()} == {"people"}


@every_case
def test_an_exact_answer_for_each_site_takes_one_round(case: Case) -> None:
    assert case.analysis.regime is Regime.PRIVATE or not case.analysis.by_site or case.analysis.rounds() == 1


@pytest.mark.parametrize("case", PRIVATE, ids=[c.name for c in PRIVATE])
@pytest.mark.parametrize("people", ["ordinary", "nobody", "one person", "mostly missing"])
def test_a_private_analysis_looks_at_no_floor(case: Case, people: str) -> None:
    summary = case.analysis.summarise(cohorts(VARIANTS)[people], case.frame)
    kept = case.analysis.withhold(summary, 20)
    assert all(np.array_equal(kept[name], summary[name]) for name in summary)
    with_floor, without = (case.analysis.conclude(Total(summary, ("a",), {}, k), case.frame) for k in (20, 0))
    if isinstance(without, Analysis):
        assert isinstance(with_floor, Analysis)
        assert parameters(with_floor) == parameters(without)
    else:
        assert isinstance(with_floor, Answer)
        assert str(with_floor) == str(without)


def every_round(
    page: type[Analysis], parts: list[Cohort], frame: Frame, minimum: int, change: Mapping[str, Any] | None = None
) -> Iterator[tuple[Analysis, Total]]:
    """An exact analysis' rounds over some sites, and the total that each is concluded from."""
    sites = tuple("abcdefg"[: len(parts)])
    question: Any = begun(first(page, change), frame)
    while isinstance(question, Analysis):
        total = Total(add([question.summarise(part, frame) for part in parts]), sites, {}, minimum)
        yield question, total
        question = question.conclude(total, frame)


def last_round(
    page: type[Analysis], parts: list[Cohort], frame: Frame, minimum: int, change: Mapping[str, Any] | None = None
) -> tuple[Analysis, Total]:
    """The last question of an exact analysis over some sites, and the total that it is concluded from."""
    *_, last = every_round(page, parts, frame, minimum, change)
    return last


def arrays(question: Analysis) -> dict[str, Any]:
    """Those that a round carries, and those that stay with the coordinator."""
    kept = {f.name: getattr(question, f.name) for f in fields(question) if f.metadata.get("array")}  # type: ignore[arg-type]
    return {name: array for name, array in kept.items() if isinstance(array, np.ndarray)}


@every_exact
def test_nothing_that_is_written_depends_on_what_was_withheld(page: type[Analysis], change: dict[str, Any]) -> None:
    """The answer is the same, digit for digit, where every withheld number was blotted out before it is concluded:
    nothing in it, by subtraction or otherwise, can tell which it was."""
    withheld = 0
    for seed in range(12):
        size, frame, minimum = (12, 30, 60, 150, 2)[seed % 5], frame_for(change, VARIANTS), (3, 10)[seed % 2]
        everybody = cohort(size, VARIANTS, 40 + seed, missing=(0.0, 0.03, 0.3)[seed % 3])
        parts = [everybody.take(np.arange(size)[s::4]) for s in range(4)]
        try:
            steps = list(every_round(page, parts, frame, minimum, change))
        except UsageError:  # a dozen people are fewer than a regression has parameters, and it says so in words
            continue
        for question, total in steps:
            said = question.conclude(total, frame)
            blotted = question.withhold(total.sums, minimum)
            withheld += sum(int((array == WITHHELD).sum()) for array in blotted.values())
            if all(np.array_equal(blotted[name], array) for name, array in total.sums.items()):
                continue  # it would be concluded from the same sums
            again = question.conclude(Total(blotted, total.sites, {}, minimum), frame)
            if isinstance(said, Analysis):
                assert isinstance(again, Analysis)
                assert parameters(again) == parameters(said)
                for name, array in arrays(said).items():
                    np.testing.assert_array_equal(arrays(again)[name], array, name)
                continue
            assert isinstance(again, Answer)
            for name, table in said.tables.items():
                for column, values in table.items():
                    np.testing.assert_array_equal(again.tables[name][column], values, column)
            assert (str(again.facts), again.withheld) == (str(said.facts), said.withheld)
    assert withheld > 0


def rows_shown(answer: Answer) -> dict[str, set[Any]]:
    """The rows that each table with rows that may be withheld shows: by number, or by what a pair is of, since which
    pairs there are depends on the minimum."""
    out: dict[str, set[Any]] = {}
    for name, table in answer.tables.items():
        if "withheld" in table:
            pairs = "id_a" in table
            rows = zip(table["id_a"], table["id_b"], strict=True) if pairs else range(len(table["withheld"]))
            out[name] = {row for row, hidden in zip(rows, table["withheld"], strict=True) if not hidden}
    return out


@every_exact
def test_a_higher_minimum_withholds_no_less(page: type[Analysis], change: dict[str, Any]) -> None:
    size = 90 if names_of(first(page, change), "panel") else 21  # a table of people alone has larger cells
    frame, everybody = frame_for(change, VARIANTS), cohort(size, VARIANTS, 70, missing=0.06)
    parts = [everybody.take(np.arange(size)[s::3]) for s in range(3)]
    shown = []
    for minimum in PROFILES:
        question, total = last_round(page, parts, frame, minimum, change)
        answer = question.conclude(total, frame)
        assert isinstance(answer, Answer)
        shown.append(rows_shown(answer))
    for name, most in shown[0].items():
        assert all(more[name] >= less[name] for more, less in pairwise(shown)), name
        if counts_sites(question, frame):  # of enough people, no minimum of people withholds more
            assert shown[-1][name] == most, name
        else:
            assert shown[-1][name] < most or not most, name


def counts_sites(question: Analysis, frame: Frame) -> bool:
    """Whether an answer's rows count sites, and people are counted as a whole alone."""
    return all(field.over == "sites" for field in question.leaves(frame).values() if field.shape)


COUNTED = {"people", "cases", "controls", "carriers", "missing", "events", "censored"}


@pytest.mark.parametrize("page", EXACT_PAGES, ids=[p.__name__ for p in EXACT_PAGES])
@pytest.mark.parametrize("people", [1, 2, 4, 7, 25])
def test_no_small_cell_is_shown(page: type[Analysis], people: int) -> None:
    """By brute force over the people: of every row shown, each genotype's people, those without one, and those beside
    the answer are none or at least the minimum; so is the number of people."""
    minimum, frame, shown_rows = 5, Frame(panel(VARIANTS), RANGES), 0
    for seed in range(6):
        everybody = cohort(people * 4, VARIANTS, 80 + seed, missing=0.1 * (seed % 2))
        parts = [everybody.take(np.arange(people * 4)[s::4]) for s in range(4)]
        try:
            question, total = last_round(page, parts, frame, minimum)
        except UsageError:
            continue
        answer = question.conclude(total, frame)
        assert isinstance(answer, Answer)
        assert everybody.genotypes is not None
        columns = [everybody.columns[name] for name in names_of(question, "column")]
        there = np.isfinite(columns).all(axis=0) if columns else np.ones(people * 4, dtype=bool)
        number = float(answer.facts["people"])
        assert np.isnan(number) or number == 0 or number >= minimum
        at = [(np.arange(people * 4) % 4 == site)[there] for site in range(4)]
        observed = everybody.genotypes.codes()[:, there]
        for table in answer.tables.values():
            if "ref" not in table:  # not a row for each variant: counts of people, in the table and among the facts
                told = [answer.facts[name] for name in answer.facts if name.split("_")[0] in COUNTED]
                told += [n for name in COUNTED & set(table) for n in np.asarray(table[name]).tolist()]
                counts = [float(n) for n in told if not np.isnan(n)]
                assert not any(0 < n < minimum for n in counts)
                shown_rows += len(counts)
            if "ref" not in table or "withheld" not in table:  # or nothing to withhold
                continue
            imputed = table.get("imputed", np.zeros(VARIANTS, dtype=bool))
            flags = (table["withheld"], table["held_by_few"], imputed)
            for codes, hidden, few, given in zip(observed, *flags, strict=True):
                cells = [int((codes == code).sum()) for code in range(4)]
                of_sites = counts_sites(question, frame)
                holders = sum(bool(site.any() if of_sites else (codes[site] != MISSING).any()) for site in at)
                assert few == (holders < 3) or np.isnan(number)
                if not hidden:
                    shown_rows += 1
                    assert holders >= 3
                    if of_sites:
                        continue
                    carriers = min(cells[0] + cells[1], cells[1] + cells[2])
                    without = 0 if given else cells[3]  # who was given the mean is not counted in the answer
                    counted = cells if "hom_alt" in table else [carriers, without]
                    assert not any(0 < cell < minimum for cell in counted)
    assert shown_rows > 0 or people < 7
