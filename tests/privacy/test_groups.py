"""Groups of an exact answer: no small cell of one is shown, and none follows from the total, by linear programming."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from strategies.analyses.genotype_counts import GenotypeCounts
from strategies.analysis import Answer, Frame, Total
from strategies.cohort import MISSING, Cohort
from strategies.protections.suppression import WITHHELD
from strategies.wire import Answered, digest_of, unpack_arrays, unseal
from tests.laws.zoo import PLACES, RANGES, add, cohort, panel
from tests.privacy.test_suppression import Hidden, Tables, spans
from tests.tiny import COUNTS, NAMES, Tiny, genotypes, study

MINIMUM = 5
LABELS = ("0", "1")
QUESTION = GenotypeCounts("p", by="high", sex="sex")
FRAME = Frame(panel(24, PLACES), RANGES)
CELLS = ("hom_ref", "het", "hom_alt", "hemi_ref", "hemi_alt", "missing")


def asked(people: Cohort, minimum: int = MINIMUM, sites: int = 4, question: GenotypeCounts = QUESTION) -> Answer:
    parts = [question.summarise(people.take(np.arange(len(people))[s::sites]), FRAME) for s in range(sites)]
    answer = question.conclude(Total(add(parts), tuple("abcdefgh"[:sites]), {}, minimum), FRAME)
    assert isinstance(answer, Answer)
    return answer


def shown(answer: Answer, label: str | None = None) -> NDArray[np.float64]:
    """(M, 6) cells of a group or of all, NaN where withheld."""
    table = answer.tables["frequencies" if label is None else "populations"]
    cells = np.stack([np.asarray(table[c], dtype=np.float64) for c in CELLS], axis=1)
    return cells if label is None else cells[np.array(table["population"]) == label]


def by_hand(people: Cohort, label: str | None = None) -> NDArray[np.int64]:
    """(M, 8) people in each of seven cells, those with two copies first, and in none: one person at a time."""
    assert people.genotypes is not None
    codes, out = people.genotypes.codes(), np.zeros((24, 8), dtype=np.int64)
    for i in np.flatnonzero(people.complete):
        if label is not None and people.columns["high"][i] != float(label):
            continue
        male = people.columns["sex"][i] == 1
        for j, (place, position) in enumerate(PLACES[j % len(PLACES)] for j in range(24)):
            one = place == "MT" or (male and (place == "Y" or (place == "X" and position > 2_699_520)))
            code = int(codes[j, i])
            cell = 7 if place == "Y" and not male else {0: 4, 2: 5}.get(code, 6) if one else code
            out[j, cell] += 1
    return out


def crowds() -> Iterator[Cohort]:
    for seed in range(10):
        size = (30, 60, 120, 240, 400)[seed % 5]
        yield cohort(size, 24, 300 + seed, missing=(0.0, 0.05, 0.2)[seed % 3])


def opened(people: Cohort) -> Cohort:
    """What a node opens for the question, to be written into."""
    return Cohort(len(people), people.genotypes, {name: people.columns[name].copy() for name in ("high", "sex")})


def test_no_group_with_a_small_cell_is_shown() -> None:
    seen = collapsed = 0
    for people in map(opened, crowds()):
        answer = asked(people)
        total, groups = by_hand(people), [by_hand(people, label) for label in LABELS]
        sites = [people.take(np.arange(len(people))[s::4]) for s in range(4)]
        observed = [[by_hand(site, label)[:, [0, 1, 2, 4, 5]].any(axis=1) for site in sites] for label in LABELS]
        holders = np.sum(observed, axis=1)
        for j in range(24):
            tiny = [any(0 < n < MINIMUM for n in cells[j]) for cells in groups]
            tiny += [cells[j, :7].any() and holders[g, j] < 3 for g, cells in enumerate(groups)]
            for label, cells in zip(LABELS, groups, strict=True):
                row = shown(answer, label)[j]
                assert np.isnan(row).all() == any(tiny), "all groups or none"
                if not any(tiny):
                    seen += 1
                    assert row.tolist() == [*cells[j][[0, 1, 2, 4, 5]], cells[j][3] + cells[j][6]]
            whole = shown(answer)[j]
            few = sum(site[j] for site in np.any(observed, axis=0)) < 3
            assert np.isnan(whole).all() == (few or any(0 < n < MINIMUM for n in total[j]))
            collapsed += any(tiny) and not np.isnan(whole).any()
    assert seen > 50
    assert collapsed > 50


def test_no_withheld_cell_of_a_group_follows_from_totals_and_sizes() -> None:
    """An attacker knows the total's cells, everybody's number in each group by copies, and that cells are not negative:
    each cell of a group that may hold somebody may then hold any number in a span of at least the minimum."""
    tried = 0
    for people in map(opened, crowds()):
        answer = asked(people)
        if any(np.isnan(float(answer.facts[f"people_{label}"])) for label in LABELS):
            continue  # sizes are withheld: the attacker knows less
        groups = np.stack([by_hand(people, label) for label in LABELS])  # (2, M, 8)
        for j in range(24):
            if not np.isnan(shown(answer, "0")[j]).all() or np.isnan(shown(answer)[j]).any():
                continue
            for copies in (slice(0, 4), slice(4, 7)):
                table = groups[:, j, copies]
                if not table.any() or any(0 < n < MINIMUM for n in table.sum(axis=1)):
                    continue  # nobody, or the sizes by copies are nowhere shown
                given: Tables = {("group", "cell"): table}
                margins = {(): False, ("cell",): False, ("group",): False, ("cell", "group"): True}
                shapes = {(): (), ("cell",): table.shape[1:], ("group",): (2,), ("cell", "group"): table.T.shape}
                hidden: Hidden = {axes: np.full(shapes[axes], mask) for axes, mask in margins.items()}
                for (_, place), (low, high) in spans(given, hidden).items():
                    possible = table[:, place[0]].sum() > 0 and table[place[1]].sum() > 0
                    alone = table.sum() in (table[:, place[0]].sum(), table[place[1]].sum())
                    if possible and not alone:
                        tried += 1
                        assert high - low >= MINIMUM - 1e-6, (j, table, place)
    assert tried > 30


def test_the_attack_opens_groups_of_which_one_alone_is_withheld() -> None:
    """What the rule is for: beside the total, the group that is left would be the difference."""
    table = np.array([[3, 40, 30, 0], [30, 50, 20, 0]])
    hidden = {(): np.array(False), ("cell",): np.zeros(4, dtype=bool), ("group",): np.zeros(2, dtype=bool),
              ("cell", "group"): np.array([[True, False], [False, False], [False, False], [False, False]])}  # fmt: skip
    ((low, high),) = spans({("group", "cell"): table}, hidden).values()
    assert high - low < 1e-6


def test_few_females_are_hidden_by_hiding_how_many_males_carry_y() -> None:
    """On Y they are in no cell, and follow from the number of people: so no row of Y is shown."""
    people = opened(cohort(300, 24, 11, missing=0.0))
    people.columns["sex"][:] = 1.0
    females = np.flatnonzero(people.columns["high"] == 1.0)[:4]
    on_y = np.array([PLACES[j % len(PLACES)][0] == "Y" for j in range(24)])
    assert np.isfinite(shown(asked(people))[on_y]).any()
    people.columns["sex"][females] = 2.0
    answer = asked(people)
    assert np.isnan(shown(answer)[on_y]).all()
    assert np.isnan(shown(answer, "0")[on_y]).all()
    people.columns["sex"][np.flatnonzero(people.columns["high"] == 0.0)[:30]] = 2.0  # many, of them four in group 1
    answer = asked(people)
    assert np.isfinite(shown(answer)[on_y]).any()
    assert np.isnan(shown(answer, "0")[on_y]).all()


def test_sizes_of_groups_are_shown_all_or_not_at_all() -> None:
    people = opened(cohort(200, 24, 7, missing=0.0))
    people.columns["high"][:] = 0.0
    people.columns["high"][:4] = 1.0
    sealed = QUESTION.withhold(QUESTION.summarise(people, FRAME), MINIMUM)
    assert (sealed["group_people"] == WITHHELD).all(), "one follows from the other and everybody"
    assert sealed["people"] == 200
    answer = asked(people)
    assert all(np.isnan(float(answer.facts[f"people_{label}"])) for label in LABELS)
    assert answer.facts["people"] == 200
    assert all(np.isnan(shown(answer, label)).all() for label in LABELS)
    assert not np.isnan(shown(answer)).all()
    people.columns["high"][:40] = 1.0
    answer = asked(people)
    assert (answer.facts["people_0"], answer.facts["people_1"]) == (160, 40)


def test_a_group_that_few_sites_hold_is_shown_nowhere() -> None:
    people = opened(cohort(400, 24, 9, missing=0.0))
    people.columns["high"][:] = np.arange(400) % 4 < 2  # two sites of four hold all of group 1
    answer = asked(people, minimum=0)
    assert not np.isnan(shown(answer)).any()
    assert all(np.isnan(shown(answer, label)).all() for label in LABELS)
    assert all(np.isnan(float(answer.facts[f"people_{label}"])) for label in LABELS)
    assert answer.facts["variants_without_groups"] == 24
    people.columns["high"][:] = np.arange(400) % 4 < 3
    shuffled = people.take(np.random.default_rng(1).permutation(400))
    assert not np.isnan(shown(asked(shuffled, minimum=0), "1")).any()


def test_a_site_withholds_its_groups_before_they_are_sealed(make_tiny: Callable[..., Tiny], quick_path: Path) -> None:
    policies = {site: {"by_site": ["exact"], "minimum_cell": 5} for site in NAMES}
    tiny = make_tiny(policies=policies)
    link, question = (
        tiny.link(),
        replace(COUNTS, analysis=GenotypeCounts("panel", by="sex", labels=("M", "F")), by_site=True),
    )
    conductor = tiny.conductor(study(question), quick_path / "run", link)
    (result,) = conductor.run()
    sealed = 0
    for site, request, reply in link.traffic:
        message = tiny.read(site, reply)
        if not isinstance(message.header, Answered):
            continue
        sent = unpack_arrays(unseal(message.body, conductor._session.sealing, digest_of(request)))
        codes, sex = genotypes(site), sexes(tiny, site)
        for j, row in enumerate(codes):
            cells = np.array([[int((row[sex == s] == code).sum()) for code in (0, 1, 2, MISSING)] for s in (1, 2)])
            hidden = any(0 < n < 5 for n in [*cells.ravel(), *cells.sum(axis=0)])
            sealed += hidden
            assert (sent["groups"][j] == WITHHELD).all() == hidden
            assert hidden or np.array_equal(sent["groups"][j], cells)
    assert 0 < sealed < 4 * 50
    assert set(result.by_site) == set(NAMES)
    assert "populations" in result.by_site["AT"].tables


def sexes(tiny: Tiny, site: str) -> NDArray[np.float64]:
    header, *lines = (tiny.data / site / "people.tsv").read_text().splitlines()
    at = header.split("\t").index("sex")
    return np.array([float(line.split("\t")[at]) for line in lines])
