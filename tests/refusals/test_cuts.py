"""Where answers cut a column: two exact answers whose cuts lie a few people apart are not both given."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fl_client.cuts import COMPUTED, Cuts
from fl_client.splits import Split
from strategies.analyses.contingency import Contingency
from strategies.analyses.cox import CoxRegression
from strategies.analyses.discrimination import Discrimination
from strategies.analyses.histogram import Histogram
from strategies.analyses.mixed_model import MixedModel
from strategies.analyses.regression import Regression
from strategies.analyses.score_distribution import ScoreDistribution
from strategies.analyses.survival import SurvivalCurves
from strategies.analysis import Analysis
from strategies.errors import RefusedError
from strategies.families import Family
from strategies.grammar import selection_of
from strategies.question import Question
from strategies.reasons import Reason
from strategies.study import Study
from tests.refusals.test_overlap import ask, lines_of, renew, write
from tests.tiny import COUNTS, NAMES, Tiny, study

Make = Callable[..., Tiny]
K = 5


@pytest.fixture
def tiny(make_tiny: Make) -> Tiny:
    return make_tiny(minimum_people=K, by_site=["exact"])


def values_of(tiny: Tiny, column: str = "trait", site: str = "AT") -> np.ndarray:
    header, *lines = (tiny.data / site / "people.tsv").read_text().splitlines()
    return np.array([float(line.split("\t")[header.split("\t").index(column)]) for line in lines])


def between(tiny: Tiny, below: int) -> float:
    """A point with so many of AT's people below it."""
    ordered = np.sort(values_of(tiny))
    return float((ordered[below - 1] + ordered[below]) / 2)


CUTTING: dict[str, Callable[[float], Analysis]] = {
    "histogram": lambda at: Histogram("trait", edges=(-4.0, at, 4.0)),
    "score": lambda at: ScoreDistribution("trait", lowest=at - 1, highest=at + 1, bins=2),
    "discrimination": lambda at: Discrimination("trait", "high", lowest=at - 1, highest=at + 1, bins=2),
    "survival": lambda at: SurvivalCurves("trait", "high", ends=(at, 4.0)),
    "cox": lambda at: CoxRegression("trait", "high", ("sex",), ends=(at, 4.0)),
    "regression": lambda at: Regression("high", f"sex + spline(trait, -3.9, {at}, 3.9)"),
    "mixed": lambda at: MixedModel("high", f"spline(trait, -3.9, {at}, 3.9)"),
}
"""A question that cuts the trait at a point, and nowhere else where people are."""

TELLS_CASES = ("discrimination", "survival", "cox")
"""Those that tell who is a case on each side."""


def asked(**analyses: Analysis) -> Study:
    return study(*(Question(name, one, by_site=isinstance(one, MixedModel)) for name, one in analyses.items()))


# -- the attack --------------------------------------------------------------------------------------------------------


def test_two_histograms_find_one_person_where_nothing_holds_their_edges_apart(
    make_tiny: Make, quick_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Edges on both sides of one person: the totals differ by her, in the cell of her sex."""
    for number, checked in enumerate((False, True)):
        tiny = make_tiny(minimum_people=K)
        everybody = np.sort(np.concatenate([values_of(tiny, site=site) for site in NAMES]))
        her = 15 + int(np.argmax(np.diff(everybody)[15:40]))  # with room about her
        person = everybody[her]
        low, high = ((everybody[at - 1] + everybody[at]) / 2 for at in (her, her + 1))
        sexes = np.concatenate([values_of(tiny, "sex", site) for site in NAMES])
        values = np.concatenate([values_of(tiny, site=site) for site in NAMES])
        answers = []
        with monkeypatch.context() as patch:
            if not checked:
                patch.setattr(Cuts, "singles_out", lambda *_: False)
            for edge in (low, high):
                question = asked(one=Histogram("trait", "sex", edges=(-4.0, edge, 4.0)))
                conductor = tiny.conductor(question, quick_path / f"{number} {edge}")
                if checked and edge == high:
                    with pytest.raises(RefusedError, match="refused: OVERLAP"):
                        conductor.run()
                    continue
                (result,) = conductor.run()
                answers.append(np.asarray(result.answer.tables["histogram"]["people"]).reshape(2, 2))
        if not checked:
            found = (answers[1] - answers[0])[:, 0]
            assert found.sum() == 1
            assert np.flatnonzero(found)[0] + 1 == sexes[values == person][0], "her sex, from two lawful answers"


@pytest.mark.parametrize("name", CUTTING)
def test_a_cut_moves_past_nobody_or_past_k_people(tiny: Tiny, name: str) -> None:
    make, ordered = CUTTING[name], np.sort(values_of(tiny))
    at = 24 if name in TELLS_CASES else 14  # past 24 lie controls alone
    moved = {f"past {n}": between(tiny, at + n) for n in (1, K - 1, -2, -(K - 1), K)}
    moved |= {"first": between(tiny, at), "nobody": float(ordered[at - 1] + (ordered[at] - ordered[at - 1]) / 3)}
    questions = asked(**{name.replace(" ", "_"): make(at) for name, at in moved.items()})
    order = ["first", "nobody", "past 1", "past 4", "past -2", "past -4", "past 5", "first"]
    said = [ask(tiny, name.replace(" ", "_"), questions) for name in order]
    assert said == [None, None, *[Reason.OVERLAP] * 4, None, None]


def test_cuts_of_different_analyses_are_held_against_each_other(tiny: Tiny) -> None:
    at, beside = between(tiny, 14), between(tiny, 15)
    names = [name for name in CUTTING if name != "histogram"]
    there = {f"other_{name}": CUTTING[name](beside) for name in names} | {name: CUTTING[name](at) for name in names}
    questions = asked(one=CUTTING["histogram"](at), **there)
    assert ask(tiny, "one", questions) is None
    assert [ask(tiny, f"other_{name}", questions) for name in names] == [Reason.OVERLAP] * len(names)
    assert [ask(tiny, name, questions) for name in names] == [None] * len(names)


def test_coarser_edges_of_the_same_are_answered_and_what_lies_between_two_such_is_not(tiny: Tiny) -> None:
    a, b, c = (between(tiny, n) for n in (10, 12, 20))
    questions = asked(
        fine=Histogram("trait", edges=(-4.0, a, b, c, 4.0)),
        first=Histogram("trait", edges=(-4.0, a, c, 4.0)),
        second=Histogram("trait", edges=(-4.0, b, c, 4.0)),
        finest=Histogram("trait", edges=(-4.0, between(tiny, 3), a, b, c, 4.0)),
    )
    assert ask(tiny, "fine", questions) is None, "its own small cell is withheld"
    assert ask(tiny, "first", questions) is None
    assert ask(tiny, "second", questions) is Reason.OVERLAP, "with the first it tells of the two in between"
    assert ask(tiny, "finest", questions) is None, "all edges so far are among these"


def test_the_ends_of_a_grid_and_the_edges_of_a_histogram_differ_by_who_is_on_them(make_tiny: Make) -> None:
    """A time on an end belongs to what ends there; a value on an edge to what begins there."""
    for on, answered in ((0, True), (2, False)):

        def edit(data: Path, on: int = on) -> None:
            table = data / "AT" / "people.tsv"
            header, *lines = table.read_text().splitlines()
            cells = [line.split("\t") for line in lines]
            for number, row in enumerate(cells):
                row[header.split("\t").index("trait")] = str(number // 10 + (0.5 if number % 10 >= on else 0.0))
            table.write_text("\n".join([header, *("\t".join(row) for row in cells)]) + "\n")

        tiny = make_tiny(minimum_people=K, edit=edit)
        questions = asked(histogram=CUTTING["histogram"](1.0), survival=CUTTING["survival"](1.0))
        assert ask(tiny, "histogram", questions) is None
        assert ask(tiny, "survival", questions) is (None if answered else Reason.OVERLAP)


# -- cohorts and other people ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", [("edges", "cohort"), ("cohort", "edges")])
@pytest.mark.parametrize("side", [">=", "<"])
def test_a_cohort_whose_threshold_lies_beside_an_edge(tiny: Tiny, side: str, order: tuple[str, str]) -> None:
    at = between(tiny, 14)
    cohorts = {
        name: selection_of({"where": f"trait {side} {between(tiny, below):.6f}"}, name)
        for name, below in (("same", 14), ("beside", 15), ("far", 14 + K))
    }
    for cohort, answered in (("same", True), ("beside", False), ("far", True)):
        questions = study(
            Question("edges", CUTTING["histogram"](at)), replace(COUNTS, name="cohort", cohort=cohort), cohorts=cohorts
        )
        ledger = tiny.gates["AT"].ledger
        with ledger._engine.begin() as connection:
            connection.exec_driver_sql("DELETE FROM crowds")
        tiny.restart("AT")
        assert ask(tiny, order[0], questions) is None
        assert ask(tiny, order[1], questions) is (None if answered else Reason.OVERLAP)


def test_a_run_of_a_cohort_beside_one_of_everybody(tiny: Tiny) -> None:
    """Above and below both the cohorts are far apart; between their edges they are not."""
    ordered = [between(tiny, n) for n in (4, 10, 16, 17, 24)]
    low, first, second, beside, high = ordered
    cohorts = {"middle": selection_of({"where": f"trait >= {low:.6f} and trait < {high:.6f}"}, "middle")}
    questions = study(
        Question("one", Histogram("trait", edges=(-4.0, first, second, 4.0))),
        Question("other", Histogram("trait", edges=(-4.0, first, beside, 4.0)), cohort="middle"),
        Question("same", Histogram("trait", edges=(-4.0, first, second, 4.0)), cohort="middle"),
        cohorts=cohorts,
    )
    assert [ask(tiny, name, questions) for name in ("one", "other", "same")] == [None, Reason.OVERLAP, None]


# -- groups ------------------------------------------------------------------------------------------------------------


GROUPED: dict[str, tuple[Analysis, float]] = {
    "histogram": (Histogram("sex", by="trait", edges=(0.5, 1.5, 2.5)), -0.5),
    "contingency": (Contingency("sex", "trait"), -0.5),
    "survival": (SurvivalCurves("high", "sex", by="trait", ends=(0.5, 1.0)), -0.5),
    "cases": (Regression("trait", "sex", distribution=Family.BINOMIAL), 0.0),
    "events": (SurvivalCurves("high", "trait", ends=(0.5, 1.0)), 0.0),
}
"""A question that takes numbers for groups or for cases, and a point between two of them."""


@pytest.mark.parametrize("name", GROUPED)
def test_numbers_taken_for_groups_or_cases_are_cut_between_them(tiny: Tiny, name: str) -> None:
    grouped, border = GROUPED[name]
    below = int((values_of(tiny) < border).sum())
    questions = asked(
        grouped=grouped,
        same=CUTTING["histogram"](between(tiny, below)),
        beside=CUTTING["histogram"](between(tiny, below + 1)),
    )
    assert [ask(tiny, q, questions) for q in ("grouped", "beside", "same")] == [None, Reason.OVERLAP, None]


def test_a_cut_that_moves_past_few_of_a_group(tiny: Tiny) -> None:
    sexes = values_of(tiny, "sex")[np.argsort(values_of(tiny))].astype(np.int64)
    few = next(
        n for n in range(8 + K, 30) if np.bincount(sexes[8:n]).max() > 0 and min(np.bincount(sexes[8:n])[1:]) < K
    )
    questions = asked(
        one=Histogram("trait", "sex", edges=(-4.0, between(tiny, 8), 4.0)),
        other=Histogram("trait", "sex", edges=(-4.0, between(tiny, few), 4.0)),
        alone=Histogram("trait", edges=(-4.0, between(tiny, few), 4.0)),
    )
    assert ask(tiny, "one", questions) is None
    assert ask(tiny, "other", questions) is Reason.OVERLAP, "few of one sex lie between"
    assert ask(tiny, "alone", questions) is None, "at least k people do"


def test_edges_are_held_apart_where_the_people_themselves_are_far_apart(tiny: Tiny) -> None:
    """Without the ten lowest nobody's edges above them would need to be the same ones, had they not to be."""
    cohorts = {"most": selection_of({"where": f"trait >= {between(tiny, 10):.6f}"}, "most")}
    questions = study(
        Question("one", CUTTING["histogram"](between(tiny, 18))),
        Question("other", CUTTING["histogram"](between(tiny, 19)), cohort="most"),
        Question("same", CUTTING["histogram"](between(tiny, 18)), cohort="most"),
        cohorts=cohorts,
    )
    assert ask(tiny, "one", questions) is None
    assert ask(tiny, "other", questions) is Reason.OVERLAP
    assert ask(tiny, "same", questions) is None


def test_cuts_outlive_process_and_version(tiny: Tiny) -> None:
    questions = asked(one=CUTTING["histogram"](between(tiny, 14)), other=CUTTING["survival"](between(tiny, 15)))
    assert ask(tiny, "one", questions) is None
    header, *people = lines_of(tiny)
    write(tiny, [header, *reversed(people)])
    renew(tiny)
    assert ask(tiny, "other", questions) is Reason.OVERLAP
    assert ask(tiny, "one", questions) is None


def test_all_rounds_of_a_question_cut_alike_and_what_is_kept_names_nobody(tiny: Tiny, quick_path: Path) -> None:
    tiny.conductor(asked(cox=CUTTING["cox"](between(tiny, 14))), quick_path / "run").run()
    ledger = tiny.gates["AT"].ledger
    crowd, *cuts = sorted(ledger.crowds(), key=len)
    assert len(cuts) == 2, "of the time, and of who has the event"
    for cut in cuts:
        assert cut.endswith(f"-{crowd}")
        assert cut.count("+") == 1
        assert b"trait" not in ledger.crowd(cut).sealed
    assert (tiny.gates["AT"].ledger.folder / "people.key").exists()


# -- what is compared --------------------------------------------------------------------------------------------------


def made(
    column: str,
    points: tuple[float, ...],
    values: np.ndarray,
    crowd: str = "crowd",
    ucum: str = "",
    derivation: str = "",
    groups: tuple[tuple[str, int], ...] = (),
    group: np.ndarray | None = None,
) -> Cuts:
    inside = np.flatnonzero(~np.isnan(values))
    cells = np.searchsorted(points, values[inside], side="right")
    group = np.zeros(len(inside), dtype=np.int64) if group is None else group[inside]
    return Cuts.of(crowd, Split(column, ucum, derivation, points, cells, groups, group), inside)


Run = tuple[int, int]


def runs(places: np.ndarray, points: tuple[float, ...]) -> dict[Run, set[int]]:
    """Who lies in each run of cells, by its borders."""
    borders = len(points) + 2
    return {
        (i, j): {
            int(n) for n in np.flatnonzero(~np.isnan(places)) if i <= np.searchsorted(points, places[n], "right") < j
        }
        for i in range(borders - 1)
        for j in range(i + 1, borders)
    }


def told_apart(
    mine: dict[Run, set[int]],
    theirs: dict[Run, set[int]],
    same: tuple[set[int], set[int]],
    least: int,
    nested: bool = False,
    crowd: set[int] | None = None,
) -> bool:
    """As the room's words have it. `same`: my borders that are also theirs, and theirs that are mine; `nested`: whether
    of one crowd; `crowd`: of whom somebody must be in neither run."""
    for (i, j), one in mine.items():
        for (k, m), other in theirs.items():
            if not one & other or not 0 < len(one ^ other) < least or (crowd is not None and not crowd - one - other):
                continue
            known = {i, j} <= same[0], {k, m} <= same[1]
            if not (any(known) if nested else all(known)):
                return True
    return False


def among(told: dict[Run, set[int]], people: set[int]) -> dict[Run, set[int]]:
    return {run: inside & people for run, inside in told.items()}


def test_cuts_are_compared_as_sets_of_people_would_be() -> None:
    rng, told = np.random.default_rng(8), np.zeros(4, dtype=int)
    for _ in range(500):
        values, axes = np.round(rng.normal(0, 2, 40), 1), rng.random() < 0.8
        other = values if axes else np.round(rng.normal(0, 2, 40), 1)
        out = rng.random((2, 40)) < (0.3 if rng.random() < 0.5 else 0.0)
        left, right = (np.where(gone, np.nan, row) for gone, row in zip(out, (values, other), strict=True))
        crowds = "one", "one" if np.array_equal(*out) else "other"
        points = [tuple(sorted({round(float(p), 1) for p in rng.normal(0, 2, rng.integers(1, 4))})) for _ in range(2)]
        mine, theirs = (runs(row, some) for row, some in zip((left, right), points, strict=True))
        least, end = int(rng.integers(2, 9)), (len(points[0]) + 1, len(points[1]) + 1)
        nested = crowds[1] == "one"
        if nested:  # a border past which the same people lie is the same
            ends = zip((mine, theirs), end, strict=True)
            below = [[one[0, i] if i else set[int]() for i in range(n + 1)] for one, n in ends]
            mine_too = {i for i, people in enumerate(below[0]) if people in below[1]}
            same = mine_too, {i for i, people in enumerate(below[1]) if people in below[0]}
        else:
            common = set(points[0]) & set(points[1]) if axes else set()
            own = [{i + 1 for i, p in enumerate(some) if p in common} for some in points]
            same = own[0] | {0, end[0]}, own[1] | {0, end[1]}
        expected = told_apart(mine, theirs, same, least, nested, mine[0, end[0]] if nested else None)
        column, names = "x" if axes else "a.x", (("sex ", 2),)
        one, two = (made(column, p, v, c) for p, v, c in zip(points, (left, right), crowds, strict=True))
        assert one.singles_out(two, least) is expected
        beside = np.flatnonzero(~np.isnan(right))
        held, whole = np.isin(np.arange(beside.max() + 1), beside), {(0, 1): set(beside.tolist())}
        nearby = told_apart(mine, whole, ({0, end[0]}, {0, 1}), least)
        assert one.singles_out_beside(held, least) is nearby

        sex = rng.integers(0, 2, 40)
        parted = [set(np.flatnonzero(sex == code).tolist()) for code in (0, 1)]
        one, two = (
            made(column, p, v, c, groups=names, group=sex)
            for p, v, c in zip(points, (left, right), crowds, strict=True)
        )
        within = expected
        for group in parted:
            a, b = among(mine, group), among(theirs, group)
            within |= told_apart(a, b, same, least, nested, a[0, end[0]] if nested else None)
            within |= told_apart(a, theirs, same, least, nested) or told_apart(mine, b, same, least, nested)
        assert one.singles_out(two, least) is within
        assert one.singles_out_beside(held, least) is (
            nearby or any(told_apart(among(mine, group), whole, (set(), {0, 1}), least) for group in parted)
        )
        alone = made(column, points[1], right, crowds[1])
        mixed = (told_apart(among(mine, group), theirs, same, least, nested) for group in parted)
        assert one.singles_out(alone, least) is (expected or any(mixed))
        told += expected, nearby, not axes and expected, within and not expected
    assert 50 < told[0] < 450, "both happen"
    assert min(told[1:]) > 5


def test_points_in_another_unit_and_columns_that_nodes_compute() -> None:
    values = np.arange(40.0)
    left, right = np.where(values < 20, np.nan, values), np.where(values == 30, np.nan, values)
    kilograms, others = made("weight", (25.0,), left, "one", "kg"), made("weight", (25.0,), right, "other", "kg")
    assert not kilograms.singles_out(others, 5), "the same point"
    assert replace(kilograms, ucum="g").singles_out(others, 5), "25 g are not 25 kg"
    assert made("pca.pc1", (25.0,), left).column == made("other.pc2", (1.0,), left).column == COMPUTED
    again = Cuts.unpack(kilograms.pack())
    assert (again.crowd, again.column, again.ucum, again.points) == ("one", "weight", "kg", (25.0,))
    assert np.array_equal(again.cells, kilograms.cells)
