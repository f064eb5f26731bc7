"""What holds for every analysis of the catalogue, in every round: a new analysis is under these laws at once."""

from __future__ import annotations

import numpy as np
import pytest

from strategies.analysis import Analysis, Answer, Total, parameters
from strategies.catalogue import CATALOGUE, find
from strategies.codec import canonical, parse
from strategies.cohort import Cohort
from strategies.privacy import Budget, Loss, Regime, stacked
from strategies.protections import noise
from strategies.protections.secure_sum import flatten, unflatten
from strategies.summary import check, join
from strategies.wire import pack_arrays, unpack_arrays
from tests.laws.zoo import Case, add, cases, cohort, cohorts, rounds

CASES = cases()
VARIANTS = 23
every_case = pytest.mark.parametrize("case", CASES, ids=[c.name for c in CASES])
PRIVATE = [c for c in CASES if c.analysis.regime is Regime.PRIVATE]
EXACT = [c for c in CASES if c.analysis.regime is Regime.EXACT]
CUT = [c for c in CASES if any(f.per_variant for f in c.analysis.leaves(c.frame).values())]
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
    for field in whole:
        assert np.array_equal(whole[field], total[field]), field


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

    A genotype that is missing at single variants changes nothing of this; it is a cell of that variant.
    """
    whole = cohorts(VARIANTS)[name]
    columns = {column: whole.columns[column] for column in case.analysis.needs().columns}  # what the gate opens
    people = Cohort(len(whole), whole.genotypes, columns)
    everybody = case.analysis.summarise(people, case.frame)
    changes = []
    for person in range(len(people)):
        rest = case.analysis.summarise(people.take(np.delete(np.arange(len(people)), person)), case.frame)
        changes.append(any(not np.array_equal(everybody[field], rest[field]) for field in everybody))
    assert changes == people.complete.tolist()


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
        cut = type(people)(people.people, people.genotypes[span], people.columns)
        parts.append(case.analysis.summarise(cut, case.frame[span]))
    joined = join(parts, case.analysis.leaves(case.frame))
    assert all(np.array_equal(whole[f], joined[f]) for f in whole)


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
    other = case.analysis.conclude(Total(total, ("d",), {}, 0), case.frame)
    if isinstance(one, Analysis):
        assert isinstance(other, Analysis)
        assert parameters(one) == parameters(other), "the next round must be derivable by a node"


@every_case
def test_parameters_survive_json(case: Case) -> None:
    assert parse(canonical(parameters(case.analysis))) == parameters(case.analysis)


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


@every_page
def test_only_private_answers_are_given_by_site(page: type[Analysis]) -> None:
    assert page.regime is Regime.PRIVATE or not page.by_site
