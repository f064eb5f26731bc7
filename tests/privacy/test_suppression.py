"""Small cells stay hidden: no withheld cell follows from what is shown, by linear programming; a stricter minimum never
shows more; and what was withheld cannot be told from an answer."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from numpy.typing import NDArray
from scipy.optimize import linprog
from scipy.sparse import coo_array

import fl_server.results
from fl_client.policy import Policy
from fl_client.readers import DatasetConfig
from strategies.analysis import Analysis, Answer
from strategies.catalogue import CATALOGUE
from strategies.cohort import MISSING
from strategies.errors import RefusedError, UsageError
from strategies.privacy import Budget, Regime
from strategies.protections.suppression import (
    PROFILES,
    WITHHELD,
    dominated,
    held_by_few,
    hidden_cells,
    with_margins,
)
from strategies.question import Question
from strategies.reasons import Reason
from strategies.study import Study
from strategies.wire import Answered, Unmasked, digest_of, unpack_arrays, unseal
from tests.laws import zoo
from tests.tiny import (
    COUNTS,
    FREQUENCIES,
    LINEAR,
    NAMES,
    PANEL,
    Tiny,
    genotypes,
    study,
    write_site,
)

Tables = Mapping[tuple[str, ...], NDArray[np.int64]]
Hidden = Mapping[tuple[str, ...], NDArray[np.bool_]]
SHAPES: dict[str, tuple[dict[str, int], tuple[tuple[str, ...], ...]]] = {
    "histogram": ({"a": 7}, (("a",),)),
    "two-way": ({"a": 4, "b": 5}, (("a", "b"),)),
    "two by two": ({"a": 2, "b": 2}, (("a", "b"),)),
    "three-way": ({"a": 3, "b": 3, "c": 4}, (("a", "b", "c"),)),
    "two linked": ({"a": 4, "b": 3, "c": 3}, (("a", "b"), ("a", "c"))),
    "linked out of order": ({"a": 3, "b": 4, "c": 2}, (("b", "a"), ("c", "b", "a"))),
    "a ring of three": ({"a": 3, "b": 3, "c": 3}, (("a", "b"), ("b", "c"), ("c", "a"))),
}


def tables(kind: str, rng: np.random.Generator) -> Tables:
    """Random tables of the same people: sparse and dense, even and skewed."""
    sizes, wanted = SHAPES[kind]
    shape = tuple(sizes.values())
    weights = rng.dirichlet(np.full(math.prod(shape), rng.choice([0.1, 0.5, 5.0])))
    joint = rng.multinomial(int(rng.choice([3, 12, 40, 150, 600])), weights).reshape(shape)
    axes = list(sizes)
    return {names: np.einsum(joint, list(range(len(axes))), [axes.index(n) for n in names]) for names in wanted}


def spans(given: Tables, hidden: Hidden) -> dict[tuple[tuple[str, ...], tuple[int, ...]], tuple[float, float]]:
    """What an attacker knows about each hidden cell: its least and most value, by linear programming over all numbers
    that agree with every shown cell and margin, add up, and are not negative. Margins are summed here anew."""
    number: dict[frozenset[tuple[str, int]], int] = {}
    true: dict[int, int] = {}

    def variable(cell: Mapping[str, int]) -> int:
        return number.setdefault(frozenset(cell.items()), len(number))

    rows: list[tuple[int, int, float]] = []
    equations = 0
    for names, table in given.items():
        for size in range(len(names) + 1):
            for kept in itertools.combinations(range(len(names)), size):
                for place in itertools.product(*(range(table.shape[i]) for i in kept)):
                    cell = {names[i]: p for i, p in zip(kept, place, strict=True)}
                    at = tuple(cell.get(n, slice(None)) for n in names)
                    true[variable(cell)] = int(table[at].sum())
                    for i in set(range(len(names))) - set(kept):  # this margin is the sum of the next finer cells
                        rows.append((equations, variable(cell), -1.0))
                        rows += [(equations, variable(cell | {names[i]: p}), 1.0) for p in range(table.shape[i])]
                        equations += 1
    where = {}
    bounds: list[tuple[float, float | None]] = [(true[i], true[i]) for i in range(len(number))]
    for names, mask in hidden.items():
        for place in map(tuple, np.argwhere(mask).tolist()):
            at_variable = variable(dict(zip(names, place, strict=True)))
            where[names, place] = at_variable
            bounds[at_variable] = (0, None)
    r, c, v = zip(*rows, strict=True)
    matrix = coo_array((v, (r, c)), shape=(equations, len(number))).tocsr()
    out = {}
    for key, at_variable in where.items():
        ends = []
        for sign in (1.0, -1.0):
            objective = np.zeros(len(number))
            objective[at_variable] = sign
            solved = linprog(objective, A_eq=matrix, b_eq=np.zeros(equations), bounds=bounds, method="highs")
            ends.append(-sign * math.inf if solved.status == 3 else sign * solved.fun)
            assert solved.status in (0, 3)
        out[key] = (ends[0], ends[1])
    return out


def unsafe(given: Tables, hidden: Hidden, minimum: int) -> list[tuple[object, tuple[float, float]]]:
    return [(cell, span) for cell, span in spans(given, hidden).items() if span[1] - span[0] < minimum - 1e-6]


@pytest.mark.parametrize("kind", list(SHAPES))
def test_no_hidden_cell_is_recoverable_by_linear_programming(kind: str) -> None:
    rng = np.random.default_rng([7, *kind.encode()])
    withheld = 0
    for _ in range(6):
        given, minimum = tables(kind, rng), int(rng.choice([3, 5, 10]))
        hidden = hidden_cells(given, minimum)
        assert not unsafe(given, hidden, minimum)
        withheld += sum(int(mask.sum()) for mask in hidden.values())
    assert withheld > 0


@pytest.mark.proof
@pytest.mark.parametrize("kind", list(SHAPES))
def test_no_hidden_cell_is_recoverable_in_many_tables(kind: str) -> None:
    rng = np.random.default_rng([8, *kind.encode()])
    for _ in range(20):
        given, minimum = tables(kind, rng), int(rng.choice(PROFILES[1:]))
        assert not unsafe(given, hidden_cells(given, minimum), minimum)


def small_ones(given: Tables, minimum: int) -> Hidden:
    """Both tails and nothing else, cell by cell."""
    counts = with_margins(given)
    out = {names: np.zeros(c.shape, dtype=bool) for names, c in counts.items()}
    for names, cells in counts.items():
        for place in itertools.product(*map(range, cells.shape)):
            wholes = [counts[names[:i] + names[i + 1 :]][place[:i] + place[i + 1 :]] for i in range(len(names))]
            there = [int(cells[place]), *(int(whole - cells[place]) for whole in wholes)]
            out[names][place] = any(0 < people < minimum for people in there)
    return out


def test_the_attack_by_linear_programming_opens_small_cells_alone() -> None:
    """Without complementary cells most of such tables fall: the property above is one that can fail."""
    rng, open_ = np.random.default_rng(9), 0
    for _ in range(8):
        given = tables("two-way", rng)
        open_ += bool(unsafe(given, small_ones(given, 5), 5))
    assert open_ >= 4


@pytest.mark.parametrize("kind", list(SHAPES))
def test_every_small_cell_and_complement_is_hidden_and_more_only_with_them(kind: str) -> None:
    rng = np.random.default_rng([10, *kind.encode()])
    for _ in range(20):
        given, minimum = tables(kind, rng), int(rng.choice(PROFILES[1:]))
        hidden, must = hidden_cells(given, minimum), small_ones(given, minimum)
        assert all(hidden[names][mask].all() for names, mask in must.items())
        if not any(mask.any() for mask in must.values()):
            assert not any(mask.any() for mask in hidden.values())


@pytest.mark.parametrize("kind", list(SHAPES))
def test_a_higher_minimum_never_shows_more(kind: str) -> None:
    rng = np.random.default_rng([11, *kind.encode()])
    for _ in range(8):
        given = tables(kind, rng)
        every = [hidden_cells(given, minimum) for minimum in PROFILES]
        assert not any(mask.any() for mask in every[0].values()), "nothing is withheld of public data"
        for lower, higher in itertools.pairwise(every):
            assert all((higher[names] >= mask).all() for names, mask in lower.items())


def test_a_large_table_without_small_cells_loses_nothing() -> None:
    given = {("a", "b"): np.random.default_rng(12).integers(20, 60, (6, 9))}
    assert not any(mask.any() for mask in hidden_cells(given, 20).values())


def test_tables_of_other_people_are_not_linked() -> None:
    with pytest.raises(ValueError, match="agree on their common margins"):
        hidden_cells({("a", "b"): np.ones((2, 2), dtype=np.int64), ("a", "c"): np.ones((2, 3), dtype=np.int64)}, 5)
    with pytest.raises(ValueError, match="one of 0, 3, 5, 10, 20"):
        hidden_cells({("a",): np.ones(3, dtype=np.int64)}, 4)


def test_a_contribution_that_could_dominate_a_sum_is_seen() -> None:
    """Against a linear program over the contributions: the most that one of n people can add to the sum s."""
    rng, found = np.random.default_rng(13), []
    for _ in range(150):
        n, low = int(rng.integers(1, 8)), float(rng.choice([0.0, 2.0, 5.0]))
        high = low + float(rng.uniform(0.5, 30.0))
        total = float((low + (high - low) * rng.beta(0.3, 3.0, n)).sum())
        most = -linprog([-1.0] + [0.0] * (n - 1), A_eq=np.ones((1, n)), b_eq=[total], bounds=[(low, high)] * n).fun
        percent = float(rng.uniform(5.0, 95.0))
        if abs(most - percent * total / 100) > 1e-6:
            found.append(most > percent * total / 100)
            assert bool(dominated(np.array([total]), np.array([n]), low, high, percent)[0]) == found[-1]
    assert 0.2 < np.mean(found) < 0.9


def test_a_share_of_a_sum_that_may_cancel_means_nothing() -> None:
    with pytest.raises(ValueError, match="about magnitudes"):
        dominated(np.array([1.0]), np.array([3]), -1.0, 1.0, 50.0)


def test_a_variant_that_two_sites_hold_is_named_in_a_total_alone() -> None:
    holders = np.array([0, 1, 2, 3, 4])
    assert held_by_few(holders, 4).tolist() == [True, True, True, False, False]
    assert not held_by_few(np.array([0, 1]), 1).any()


# -- through study, gate and coordinator ------------------------------------------------------------------------------

PARTS = replace(COUNTS, by_site=True)
PARTS_TOO = replace(PARTS, name="parts")


def cells_of(site: str, codes: NDArray[np.uint8] | None = None) -> NDArray[np.int64]:
    """(M, 4) people with 0, 1, 2 and no observed alternate alleles, counted one variant at a time."""
    rows = genotypes(site) if codes is None else codes
    return np.array([[int((row == code).sum()) for code in range(4)] for row in rows])


def has_small(cells: NDArray[np.int64], minimum: int) -> NDArray[np.bool_]:
    return np.array([any(0 < n < minimum for n in row) for row in cells])


def shown_cells(answer: Answer) -> NDArray[np.float64]:
    table = answer.tables["frequencies"]
    return np.stack([np.asarray(table[c], dtype=np.float64) for c in ("hom_ref", "het", "hom_alt", "missing")], axis=1)


def test_each_site_withholds_from_its_own_part_before_it_is_sealed(
    make_tiny: Callable[..., Tiny], quick_path: Path
) -> None:
    """The strictest of policy (3), data set (10 at BE) and study (5) at the site; of all of them in the answer."""
    policies = {site: {"by_site": ["exact"], "minimum_cell": 3} for site in NAMES}
    tiny = make_tiny(policies=policies, datasets={"BE": {"minimum_cell": 10}})
    link, asked = tiny.link(), study(PARTS, minimum_cell=5)
    conductor = tiny.conductor(asked, quick_path / "run", link)
    (result,) = conductor.run()

    for site, request, reply in link.traffic:
        message = tiny.read(site, reply)
        if isinstance(message.header, Answered):
            sent = unpack_arrays(unseal(message.body, conductor._session.sealing, digest_of(request)))
            cells, minimum = cells_of(site), 10 if site == "BE" else 5
            hidden = has_small(cells, minimum)
            assert 0 < hidden.sum() < len(hidden)
            assert (sent["genotypes"][hidden] == WITHHELD).all(), "the coordinator cannot know it"
            assert np.array_equal(sent["genotypes"][~hidden], cells[~hidden])
    assert not any(isinstance(tiny.read(site, reply).header, Unmasked) for site, _, reply in link.traffic)

    assert result.statement.minimum_cell == 10
    assert (result.answer.tables, result.answer.facts) == ({}, {})
    assert set(result.by_site) == set(NAMES)
    for site, answer in result.by_site.items():
        cells = cells_of(site)
        hidden = has_small(cells, 10)
        assert np.array_equal(np.isnan(shown_cells(answer)), np.repeat(hidden[:, None], 4, axis=1))
        assert np.array_equal(shown_cells(answer)[~hidden], cells[~hidden])
        assert answer.withheld == hidden.sum()
    assert result.answer.withheld == sum(answer.withheld for answer in result.by_site.values())

    fl_server.results.write(asked, tiny.federation, [result], quick_path / "out")
    stored = fl_server.results.load(quick_path / "out")["counts"]
    assert stored.by_site().filter(pl.col("site") == "BE")["het"].null_count() == result.by_site["BE"].withheld
    with pytest.raises(UsageError, match=r"read by_site\(\)"):
        stored.table()
    assert (stored.statement["by_site"], stored.statement["honest_sites_assumed"]) == (True, 0)
    assert "the site itself withheld" in stored.statement["promise"]
    page = (quick_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "not over all of them" in page
    assert "10 people; " in page


def test_the_strictest_minimum_is_applied_to_a_total(make_tiny: Callable[..., Tiny], quick_path: Path) -> None:
    tiny = make_tiny(minimum_cell=3, datasets={"CY": {"minimum_cell": 20}})
    total = sum(cells_of(site) for site in NAMES)
    for number, (minimum, want) in enumerate([(0, 20), (5, 20)]):
        (result,) = tiny.conductor(study(COUNTS, minimum_cell=minimum), quick_path / f"{number}").run()
        assert result.statement.minimum_cell == want
        assert np.array_equal(result.answer.tables["frequencies"]["withheld"], has_small(total, want))
    plain = make_tiny()
    (result,) = plain.conductor(study(COUNTS, minimum_cell=5), quick_path / "study").run()
    assert result.statement.minimum_cell == 5, "a study may ask for more than the sites"
    assert np.array_equal(result.answer.tables["frequencies"]["withheld"], has_small(total, 5))


def test_a_node_gives_exact_parts_or_exact_totals_and_never_both(
    make_tiny: Callable[..., Tiny], quick_path: Path
) -> None:
    """Else what a site withheld would follow from the total and the parts of the others."""
    policy = {"by_site": ["exact"]}
    tiny = make_tiny(minimum_cell=5, policies={site: policy | {"minimum_cell": 5} for site in NAMES})
    with pytest.raises(RefusedError) as caught:
        tiny.conductor(study(COUNTS, PARTS_TOO), quick_path / "both").run()
    assert caught.value.code == Reason.BY_SITE_NOT_ALLOWED
    mixed = make_tiny(minimum_cell=5, policies={"AT": policy | {"minimum_cell": 5}})
    counts, *_ = mixed.conductor(study(COUNTS), quick_path / "mixed").run()
    assert counts.statement.sites == ("BE", "CY", "DK"), "a node that gives parts is in no total"
    public = make_tiny(policies=dict.fromkeys(NAMES, policy))
    counts, parts = public.conductor(study(COUNTS, PARTS_TOO), quick_path / "public").run()
    assert set(parts.by_site) == set(counts.statement.sites) == set(NAMES), "of public data nothing is withheld"


@pytest.mark.parametrize("page", [p for p in CATALOGUE if not p.by_site], ids=lambda p: p.__name__)
def test_an_analysis_that_cannot_be_given_for_each_site_says_so(page: type[Analysis], tmp_path: Path) -> None:
    budget = Budget(1.0, 1e-5) if page.regime is Regime.PRIVATE else None
    question, variants = Question("asked", zoo.first(page), budget, by_site=True), zoo.panel(23)
    columns = {name: span for name, span in zoo.RANGES.items() if "." not in name}  # the others are no study's to state
    asked = study(question, columns=columns, panels={"common": variants})
    with pytest.raises(UsageError, match=r"can be answered for each site: allele_frequency \(exact\)"):
        Study.from_document(asked.document, {"common": variants.encode()})


@pytest.mark.parametrize("minimum", [-5, 1, 4, 100])
def test_a_minimum_is_one_of_the_profiles(minimum: int) -> None:
    want = "one of 0, 3, 5, 10, 20"
    with pytest.raises(ValueError, match=want):
        Policy(("a",), (), {}, 1.0, 1e-5, minimum_cell=minimum)
    with pytest.raises(ValueError, match=want):
        DatasetConfig("X", "GRCh37", "people.tsv", minimum_cell=minimum)
    with pytest.raises(UsageError, match=want):
        Study.from_document(study(COUNTS, minimum_cell=minimum).document, {"panel": PANEL.encode()})


@pytest.mark.parametrize("by_site", [True, False])
def test_a_private_answer_is_given_for_each_site_if_it_was_asked(tiny: Tiny, quick_path: Path, by_site: bool) -> None:
    asked = study(replace(FREQUENCIES, by_site=by_site))
    (result,) = tiny.conductor(asked, quick_path / "run").run()
    assert set(result.by_site) == (set(NAMES) if by_site else set())
    fl_server.results.write(asked, tiny.federation, [result], quick_path / "out")
    assert (quick_path / "out" / "frequencies" / "frequencies.by_site.parquet").exists() == by_site
    assert (quick_path / "out" / "frequencies" / "frequencies.parquet").exists()


@pytest.mark.parametrize("sites", [1, 2])
def test_a_variant_that_few_sites_hold_is_left_out_and_named(
    make_tiny: Callable[..., Tiny], quick_path: Path, sites: int
) -> None:
    """Variant 7 is not in one site's file; variant 20 is, but nobody has a genotype at all sites but one or two."""

    def edit(data: Path) -> None:
        for number, site in enumerate(NAMES):
            codes = genotypes(site)
            codes[20] = MISSING if number >= sites else 1
            write_site(data, site, codes=codes)
        rows = (bim := data / NAMES[0] / "genotypes.bim").read_text().splitlines(keepends=True)
        rows[7] = rows[7].replace("22", "21", 1)
        bim.write_text("".join(rows))

    tiny = make_tiny(edit=edit)
    asked = study(COUNTS, LINEAR)
    counts, linear = tiny.conductor(asked, quick_path / "run").run()
    for result, table, numbers in (
        (counts, "frequencies", ("hom_ref", "het", "hom_alt", "missing", "ac", "an", "call_rate", "hwe_p")),
        (linear, "trait", ("beta", "standard_error", "t", "p_value", "effect_allele_frequency", "n")),
    ):
        columns = result.answer.tables[table]
        assert np.flatnonzero(columns["held_by_few"]).tolist() == [20]
        assert np.flatnonzero(columns["withheld"]).tolist() == [20]
        assert all(np.isnan(np.asarray(columns[name])[20]) for name in numbers), "not even how many miss it"
        assert not np.isnan(np.asarray(columns[numbers[0]])[7]), "three sites hold it"
        assert result.answer.withheld == 1
    fl_server.results.write(asked, tiny.federation, [counts, linear], quick_path / "out")
    stored = fl_server.results.load(quick_path / "out")["counts"].table()
    assert stored.filter(pl.col("held_by_few"))["position"].to_list() == [PANEL.variants[20].position]
    page = (quick_path / "out" / "report.html").read_text(encoding="utf-8")
    assert page.count("because fewer than three sites hold them") == 2


@pytest.mark.parametrize(("each", "withheld"), [(1, True), (10, False)])
def test_few_people_with_the_trait_are_not_asked_about(
    make_tiny: Callable[..., Tiny], quick_path: Path, each: int, withheld: bool
) -> None:
    """Four sites with one such person each: the second round would be four people's genotypes."""

    def edit(data: Path) -> None:
        for site in NAMES:
            table = data / site / "people.tsv"
            header, *lines = table.read_text().splitlines()
            at = header.split("\t").index("trait")
            rows = [line.split("\t") for line in lines]
            for row in rows[each:]:
                row[at] = ""
            table.write_text("\n".join([header, *("\t".join(row) for row in rows)]) + "\n")

    tiny = make_tiny(edit=edit, minimum_cell=5, minimum_people=1)
    link, asked = tiny.link(), study(LINEAR)
    (result,) = tiny.conductor(asked, quick_path / "run", link).run()
    table, answer = result.answer.tables["trait"], result.answer
    assert np.asarray(table["withheld"]).all() == withheld
    assert np.isnan(np.asarray(table["beta"])).all() == withheld
    assert math.isnan(float(answer.facts["people"])) == withheld
    answered = [site for site, _, reply in link.traffic if isinstance(tiny.read(site, reply).header, Answered)]
    assert len(answered) == len(NAMES) * (1 if withheld else 2), "round 2 is not even asked"
    fl_server.results.write(asked, tiny.federation, [result], quick_path / "out")
    stored = fl_server.results.load(quick_path / "out")["linear"]
    assert (stored.facts["people"] is None) == withheld
    assert (quick_path / "out" / "linear" / "trait.tsv.gz").exists() != withheld
