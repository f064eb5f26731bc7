"""How sites match a panel: sums of sites without a number of one or two, and what a site says of itself alone."""

from __future__ import annotations

from collections import Counter
from itertools import combinations_with_replacement
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import fl_server.results
from fl_server.conduct import Result
from simulations.populations import write_bed
from strategies.analyses.match_rates import LEAST_VARIANTS, MatchRates, rates
from strategies.analyses.panel_matching import WAYS, PanelMatching
from strategies.analysis import Answer, Frame, Total
from strategies.cohort import Cohort, Genotypes
from strategies.errors import RefusedError, UsageError
from strategies.question import Question
from strategies.reasons import Reason
from strategies.study import Study
from strategies.variants import How, Panel, Variant
from tests.tiny import NAMES, PANEL, PEOPLE, Tiny, people_of, study

FOUND = ("as_written", "swapped", "flipped", "flipped_and_swapped")
MISSED = ("absent", "several", "no_position")


def panel(size: int) -> Panel:
    return Panel("GRCh37", tuple(Variant("22", 1000 + 10 * j, f"v{j}", "A", "C") for j in range(size)))


def concluded(ways: NDArray[np.uint8]) -> tuple[Answer, dict[str, NDArray[np.int64]]]:
    """The answer of (S, M) ways of S sites, and the sums that it is concluded from."""
    asked, frame = PanelMatching("panel"), Frame(panel(ways.shape[1]))
    parts = [asked.summarise(Cohort(30, matched=site), frame) for site in ways]
    sums = {name: np.sum([part[name] for part in parts], axis=0) for name in parts[0]}
    answer = asked.conclude(Total(sums, tuple(f"s{i}" for i in range(len(ways))), {}, 5), frame)
    assert isinstance(answer, Answer)
    return answer, sums


def shown(answer: Answer, row: int) -> tuple[float | None, ...]:
    """Everything that a row tells: each number, or None where it is withheld."""
    table = answer.tables["matches"]
    numbers = [float(np.asarray(table[name])[row]) for name in ("found", "not_found", *WAYS)]
    return tuple(None if np.isnan(n) else n for n in numbers)


@pytest.mark.parametrize("sites", [3, 4, 5, 7])
def test_no_number_of_one_or_two_sites_is_shown_or_follows(sites: int) -> None:
    """By brute force over all that sites can be: whoever knows the rule cannot tell a number that is withheld from all
    others that look the same, and none that is shown is 1 or 2."""
    every = np.array(list(combinations_with_replacement(range(len(How)), sites)), dtype=np.uint8).T
    answer, sums = concluded(every)
    looks = [shown(answer, row) for row in range(every.shape[1])]
    assert not {1.0, 2.0} & {n for look in looks for n in look}
    tables = np.concatenate([sums["found"][:, ::-1], sums["ways"]], axis=1)
    for look in set(looks):
        alike = tables[[row for row, other in enumerate(looks) if other == look]]
        for column, number in enumerate(look):
            possible = set(alike[:, column].tolist())
            if number is None:  # where no site found it, that none found it swapped may follow
                assert len(possible) > 1 or possible == {0}, (look, column)
            else:
                assert possible == {int(number)}
    assert sum(look[0] is None for look in looks) > 0
    assert sum(look[0] is not None and look[2] is None for look in looks) > 0


def test_the_sums_are_those_of_a_count_by_hand() -> None:
    ways = (
        np.random.default_rng(4).choice(len(How), (9, 200), p=(0.3, 0.5, 0.1, 0.03, 0.03, 0.02, 0.02)).astype(np.uint8)
    )
    answer, _ = concluded(ways)
    table = answer.tables["matches"]
    for row in range(200):
        counted = Counter(How(way).name.lower() for way in ways[:, row])
        found = sum(counted[way] for way in FOUND)
        whole = {"found": found, "not_found": sum(counted[way] for way in MISSED)}
        hidden = any(0 < n < 3 for n in whole.values())
        assert bool(table["withheld"][row]) == bool(table["held_by_few"][row]) == hidden
        fine = hidden or any(0 < n < 3 for n in counted.values())
        assert bool(table["ways_withheld"][row]) == fine
        for name, number in [*whole.items(), *((way, counted[way]) for way in WAYS)]:
            value = float(table[name][row])
            assert np.isnan(value) if (hidden if name in whole else fine) else value == number
    assert 0 < answer.withheld < 200


def test_a_site_without_people_says_nothing_of_its_variants() -> None:
    ways = np.ones(50, dtype=np.uint8)
    for page, name in ((PanelMatching("panel"), "ways"), (MatchRates("panel"), "sites")):
        assert not page.summarise(Cohort(0, matched=ways), Frame(panel(50)))[name].any()
        assert page.summarise(Cohort(1, matched=ways), Frame(panel(50)))[name].any()


def test_a_sites_own_percentages_are_whole_ones() -> None:
    ways = np.repeat(np.arange(len(How)), (994, 31, 300, 4, 6, 665, 0)).astype(np.uint8)  # of 2,000
    asked, frame = MatchRates("panel"), Frame(panel(len(ways)))
    one = asked.conclude(Total(asked.summarise(Cohort(30, matched=ways), frame), ("a",), {}, 5), frame)
    assert isinstance(one, Answer)
    assert rates({"a": one})["a"] == dict(zip(WAYS, (50.0, 2.0, 15.0, 0.0, 0.0, 33.0, 0.0), strict=True))
    few = asked.conclude(Total(asked.summarise(Cohort(4, matched=ways), frame), ("a",), {}, 5), frame)
    assert isinstance(few, Answer)
    assert np.isnan(list(rates({"a": few})["a"].values())).all()


def other_spellings(folder: Path) -> None:
    """BE has the first ten variants swapped, CY the second ten on the other strand and swapped, DK lacks the last."""
    lists: dict[str, list[Variant]] = {site: list(PANEL.variants) for site in NAMES}
    for j in range(10):
        lists["BE"][j] = PANEL.variants[j]._replace(reference="C", alternate="A")
        lists["CY"][10 + j] = PANEL.variants[10 + j]._replace(reference="G", alternate="T")
    lists["DK"][-1] = PANEL.variants[-1]._replace(position=5)
    for site in NAMES[1:]:
        codes = np.zeros((len(PANEL), PEOPLE), dtype=np.uint8)
        write_bed(folder / site / "genotypes", Panel("GRCh37", tuple(lists[site])), codes, people_of(site))


def test_a_study_asks_how_sites_match(make_tiny: Any, quick_path: Path) -> None:
    tiny: Tiny = make_tiny(edit=other_spellings)
    (result,) = tiny.conductor(study(Question("matches", PanelMatching("panel"))), quick_path / "run").run()
    table = result.answer.tables["matches"]
    assert np.asarray(table["found"])[:-1].tolist() == [4] * 49
    assert np.isnan(table["found"][-1])
    assert table["ways_withheld"].tolist() == [True] * 20 + [False] * 29 + [True]
    assert np.asarray(table["as_written"])[20:49].tolist() == [4] * 29
    assert (result.answer.facts["people"], result.answer.withheld) == (4 * PEOPLE, 1)
    fl_server.results.write(study(result.question), tiny.federation, [result], quick_path / "out")
    read = fl_server.results.load(quick_path / "out")["matches"].table()
    assert read["found"].to_list() == [4] * 49 + [None]


def long_study(by_site: bool = True, size: int = LEAST_VARIANTS) -> Study:
    variants = (*PANEL.variants, *(Variant("21", 10 + j, f"w{j}", "A", "G") for j in range(size - len(PANEL))))
    asked = study(Question("rates", MatchRates("panel"), by_site=by_site))
    return Study(**{**asked.__dict__, "panels": {"panel": Panel("GRCh37", variants)}})


def test_a_site_gives_its_percentages_where_policy_allows(make_tiny: Any, quick_path: Path) -> None:
    tiny: Tiny = make_tiny(edit=other_spellings, policies={site: {"by_site": ["exact"]} for site in NAMES[1:]})
    (result,) = tiny.conductor(long_study(), quick_path / "run").run()
    assert isinstance(result, Result)
    assert result.statement.absent == {"AT": "refused: BY_SITE_NOT_ALLOWED"}
    got = rates(result.by_site)
    assert {site: (ways["as_written"], ways["swapped"], ways["absent"]) for site, ways in got.items()} == {
        "BE": (4.0, 1.0, 95.0), "CY": (4.0, 0.0, 95.0), "DK": (5.0, 0.0, 95.0),
    }  # fmt: skip


def test_no_site_gives_percentages_of_a_short_panel(make_tiny: Any, quick_path: Path) -> None:
    asked = long_study(size=LEAST_VARIANTS - 1)
    panels = {name: one.encode() for name, one in asked.panels.items()}
    with pytest.raises(UsageError, match=r"match_rates is about a panel of at least 1,000 variants\."):
        Study.from_document(asked.document, panels)
    tiny: Tiny = make_tiny(by_site=["exact"])
    with pytest.raises(RefusedError) as refused:
        tiny.conductor(asked, quick_path / "run").run()
    assert refused.value.code == Reason.STUDY_INVALID


def test_an_analysis_that_counts_matches_opens_no_genotypes(tiny: Tiny) -> None:
    dataset = tiny.gates["AT"].dataset
    assert dataset is not None
    for page in (PanelMatching("panel"), MatchRates("panel")):
        cohort = dataset.cohort(page.needs(), Frame(PANEL))
        assert cohort.genotypes is None
        assert cohort.matched is not None
        assert not isinstance(cohort.matched, Genotypes)
        assert cohort.matched.tolist() == [How.AS_WRITTEN] * len(PANEL)
