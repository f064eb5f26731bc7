"""`fl-server plan`: what it prints and writes, how it is wrong to ask, and whether its counts are those of a run."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
import tomli_w

from fl_server import cli
from fl_server.planning import forecast, text
from fl_server.planning.sites import Site, sites
from fl_server.planning.steps import steps
from strategies.analysis import Analysis
from strategies.catalogue import CATALOGUE
from strategies.privacy import Budget, Loss, Regime
from strategies.question import Question
from tests.laws.zoo import begun, changes, cohort, first, frame_for, rounds
from tests.tiny import COUNTS, FREQUENCIES, LINEAR, NAMES, PANEL, PEOPLE, TRAINING, GateLink, Tiny, study

Said = pytest.CaptureFixture[str]

SMALL = """\
title = "Small"
purpose = "scientific_research"
assembly = "GRCh37"
[columns]
height = [100, 220]
sex = [1, 2]
[panels.two]
file = "two.tsv"
[[question]]
name = "frequencies"
analysis = "allele_frequency"
regime = "private"
epsilon = 1.0
delta = 1e-5
by_site = true
panel = "two"
[[question]]
name = "height"
analysis = "association"
regime = "exact"
panel = "two"
traits = ["height"]
covariates = ["sex"]
"""

PRINTED = """\
Small
  for scientific_research, GRCh37, from at least 3 sites, SHA-256
  15c493ddfb80ca9f9550f8546048897a2d12b67c017d14444a4331b4077d10eb

1. frequencies: allele_frequency, private
   reads   2 variants of panel two
   leaves  for each variant, one noised allele count and one noised number of missing genotypes per
           site; one noised number of people per site
           alternate, 2 x 2: alternate alleles above twice the published frequency, and missing
           genotypes by their weight; one person changes it by at most 3.36035 (L1), 2.40885 (L2);
           noise of standard deviation 10.89
           people, 1: people; one person changes it by at most 1 (L1), 1 (L2); noise of standard
           deviation 9.045
   costs   epsilon 1 at delta 1e-05 (rho 0.030557) per person at each site
   answers together and for each site, for publication at that price
   takes   1 exchange; about 1 kB from each site
   expect  a root mean square error of a variant's frequency, and in brackets the width of a 95 %
           interval, for so many people
           minor allele  variants  site 1, 2,000  total, 6,000
           to 0.05       1         0.0035 (0.01)  0.0020 (0.01)
           to 0.5        1         0.0077 (0.03)  0.0045 (0.02)

2. height: association, exact
   reads   sex [1, 2]; height [100, 220]; 2 variants of panel two
   leaves  for each variant, the sums that a linear regression needs, over the sites
           round 1: people, 1: people with traits and covariates; one person changes it by at most 1
           (L1), 1 (L2)
           round 1: sums, 2: sums of columns in units of half their range; one person changes it by
           at most 2 (L1), 1.41421 (L2)
           round 1: squares, 2: sums of squares of the same; one person changes it by at most 2
           (L1), 1.41421 (L2)
           round 1: genotypes, 2 x 3: people with 1, 2 or no observed alternate alleles; one person
           changes it by at most 2 (L1), 1.41421 (L2)
           round 1: holders, 2: sites that hold the variant; one person changes it by at most 2
           (L1), 1.41421 (L2)
           round 2: products, 6: products of intercept, covariates and traits
           round 2: genotypes, 2 x 3: people with 1, 2 or no observed alternate alleles
           round 2: scores, 2 x 2: alternate alleles times covariates and traits
           round 2: missing, 2 x 6: products of people without genotype
   costs   no epsilon: the exact total, for the permit holder, not for publication
   takes   4 exchanges in at most 2 rounds; about 3 kB from each site
   expect  for 6,000 people at p < 5e-08, in standard deviations of the trait given covariates
           minor allele  SE of beta  80 % from  variance  power 0.05  0.1   0.2   0.5   1
           0.01          0.0920      0.582      0.67 %    0.00        0.00  0.00  0.49  1.00
           0.05          0.0419      0.264      0.66 %    0.00        0.00  0.25  1.00  1.00
           0.1           0.0304      0.192      0.66 %    0.00        0.02  0.87  1.00  1.00
           0.25          0.0211      0.133      0.66 %    0.00        0.24  1.00  1.00  1.00
           0.5           0.0183      0.115      0.66 %    0.00        0.51  1.00  1.00  1.00
           for 6,000 people at p < 0.001, in standard deviations of the trait given covariates
           minor allele  SE of beta  80 % from  variance  power 0.05  0.1   0.2   0.5   1
           0.01          0.0920      0.381      0.29 %    0.00        0.01  0.13  0.98  1.00
           0.05          0.0419      0.173      0.28 %    0.02        0.18  0.93  1.00  1.00
           0.1           0.0304      0.126      0.28 %    0.05        0.50  1.00  1.00  1.00
           0.25          0.0211      0.0872     0.28 %    0.18        0.93  1.00  1.00  1.00
           0.5           0.0183      0.0755     0.28 %    0.29        0.99  1.00  1.00  1.00

site    people  left of its budget
site 1  2,000   unknown until it is asked
site 2  2,000   unknown until it is asked
site 3  2,000   unknown until it is asked

All questions: 9 exchanges; epsilon 1 at delta 1e-05 (rho 0.030557) per person at each site.
About 9 seconds besides the sites' own computing, as measured over four nodes on one machine; slower
  networks take longer.
"""


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A study of two questions."""
    (tmp_path / "two.tsv").write_text(
        "#CHROM\tPOS\tID\tREF\tALT\tFREQUENCY\n22\t100\trs1\tA\tC\t0.3\n22\t200\trs2\tG\tT\t0.98\n"
    )
    (tmp_path / "small.toml").write_text(SMALL)
    return tmp_path / "small.toml"


@pytest.fixture(scope="module")
def made() -> forecast.Plan:
    """The plan of all four kinds of question over the tiny sites."""
    there = {name: Site(PEOPLE) for name in NAMES}
    questions = (COUNTS, LINEAR, replace(FREQUENCIES, by_site=True), TRAINING)
    return forecast.plan(study(*questions), there, forecast.Assumed(threshold=1e-3))


def test_the_whole_plan_as_it_is_printed(small: Path, capsys: Said) -> None:
    assert cli.main(["plan", str(small), "--people", "2000", "--threshold", "0.001"]) == 0
    assert capsys.readouterr().out == PRINTED + f"Nothing was sent. Next: fl-server run {small}\n"


def test_a_plan_fits_into_a_hundred_columns_and_names_every_question(made: forecast.Plan) -> None:
    printed = text.lines(made)
    assert max(map(len, printed)) <= 100
    assert [line for line in printed if re.match(r"\d\. ", line)] == [
        "1. counts: allele_frequency, exact", "2. linear: association, exact",
        "3. frequencies: allele_frequency, private", "4. training: train, private",
    ]  # fmt: skip
    assert sum(line.startswith("   expect  ") for line in printed) == 4


@dataclass
class CountingLink(GateLink):
    """A link that counts how often the sites are asked."""

    exchanges: int = field(default=0)

    def exchange(self, messages: Mapping[int, Sequence[bytes]], timeout_s: float) -> Mapping[int, Sequence[bytes]]:
        self.exchanges += 1
        return super().exchange(messages, timeout_s)


def test_exchanges_and_bytes_are_those_of_a_run(made: forecast.Plan, tiny: Tiny, tmp_path: Path) -> None:
    link = CountingLink(tiny.gates)
    results = tiny.conductor(made.study, tmp_path / "run", link).run()
    assert made.exchanges == link.exchanges
    for site in NAMES:
        assert sum(r.statement.bytes_left[site] for r in results) == pytest.approx(made.bytes, rel=0.2), site
    for result, planned in zip(results, made.forecasts, strict=True):
        assert dict(planned.steps[-1].noise) == dict(result.statement.noise)


@pytest.mark.parametrize("page", CATALOGUE, ids=[p.__name__ for p in CATALOGUE])
def test_every_array_that_a_round_sends_is_in_the_plan(page: type[Analysis]) -> None:
    """The numbers of rounds and of a test's hits are those of made-up people; which arrays leave is not."""
    for change in changes(page):
        frame = frame_for(change, 23)
        analysis = begun(first(page, change), frame)
        budget = None if page.regime is Regime.EXACT else Budget(3.0, 1e-5)
        asked = Question("q", analysis, budget)
        made = replace(study(asked), columns=frame.columns, panels={"common": frame.panel, "panel": frame.panel})
        foretold = {name for step in steps(made, asked) for name in step.fields}
        for later in rounds(page, cohort(300, 23, 9), frame, change):
            assert set(later.leaves(frame)) <= foretold, f"{page.__name__} {change}"


def test_what_is_left_at_a_node(tiny: Tiny) -> None:
    budgets, asked = {"AT": Budget(10.0, 1e-5), "BE": Budget(1.0, 1e-5)}, study(FREQUENCIES)
    known = {"AT": 0.1, "CY": 0.2}
    there = sites(tiny.federation, 3, None, budgets, known)
    made = forecast.plan(asked, there, forecast.Assumed())
    assert there["AT"].left() == Loss(Budget(10.0, 1e-5).loss.rho - 0.1)
    assert there["BE"].left() is None
    assert there["CY"].left() is None
    printed = "\n".join(text.lines(made))
    assert re.search(r"^AT +30 +epsilon 9\.\d+ at delta 1e-05 \(rho 1\.\d+\); lifetime epsilon 10", printed, re.M)
    assert re.search(r"^BE +30 +lifetime epsilon 1 .*; what is spent is unknown", printed, re.M)
    assert re.search(r"^CY +30 +unknown until it is asked", printed, re.M)
    poor = {**there, "AT": Site(30, False, Budget(1.0, 1e-5), Loss(0.02))}
    (warning,) = [w for w in forecast.plan(asked, poor, forecast.Assumed()).warnings if "refuse" in w]
    assert warning.startswith("AT has rho 0.010557 left of the 0.030557 that the study costs")


def test_budgets_of_a_run_under_way_are_known(tiny: Tiny, tmp_path: Path, capsys: Said) -> None:
    run = tmp_path / "study.run"
    asked = study(FREQUENCIES)
    tiny.conductor(asked, run)._session.open()
    (tmp_path / "p.tsv").write_bytes(PANEL.encode())
    (tmp_path / "s.toml").write_text(
        'title = "s"\npurpose = "scientific_research"\nassembly = "GRCh37"\n[panels.panel]\nfile = "p.tsv"\n'
        '[[question]]\nname = "q"\nanalysis = "allele_frequency"\nregime = "private"\nepsilon = 1.0\ndelta = 1e-5\n'
        'panel = "panel"\n'
    )
    pinned = tmp_path / "federation.toml"
    nodes = {name: {"country": n.country, "identity": n.identity} for name, n in tiny.federation.nodes.items()}
    keys = {name: {"identity": c.identity} for name, c in tiny.federation.coordinators.items()}
    pinned.write_text(tomli_w.dumps({"name": "tiny", "nodes": nodes, "coordinators": keys}))
    words = ["plan", str(tmp_path / "s.toml"), "--federation", str(pinned), "--known", str(run)]
    assert cli.main(words) == 0
    assert capsys.readouterr().out.count("lifetime epsilon 10 at delta 1e-05") == len(NAMES)
    (run / "AT.opened").write_bytes((run / "AT.opened").read_bytes()[:-1] + b"!")
    assert cli.main(words) == 2
    assert "A node's statement is signed" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "rule"),
    [
        (["--people", "0"], "A site has 1 to 1000000000 people."),
        (["--auc", "1.0"], "The best model's area is assumed from 0.51 to 0.99."),
        (["--auc", "nan"], "The best model's area is assumed from 0.51 to 0.99."),
        (["--cases", "0"], "The share of people with a label is assumed from 0.001 to 0.999."),
        (["--threshold", "0.9"], "A level of significance lies from 1e-30 to 0.5."),
        (["--known", "here"], "A node's statement is verified with the federation file."),
        (["--out", "."], "A plan is written into a new folder."),
        (["--federation", "nowhere"], "A federation file is readable."),
    ],
)
def test_words_that_break_a_rule(words: list[str], rule: str, small: Path, capsys: Said) -> None:
    assert cli.main(["plan", str(small), *words]) == 2
    assert re.fullmatch(rf"(?s){re.escape(rule)}\n  Found:  .+\n  Remedy: [^\n]+\n", capsys.readouterr().err)


def test_a_run_that_is_not_there_is_named(small: Path, tiny: Tiny, capsys: Said) -> None:
    pinned = small.parent / "federation.toml"
    pinned.write_text('name = "none"\n[nodes]\n[coordinators]\n')
    assert cli.main(["plan", str(small), "--federation", str(pinned), "--known", str(small.parent / "x.run")]) == 2
    assert "A run under way has a folder." in capsys.readouterr().err


class Page(HTMLParser):
    """What a page asks of the network, and how many drawings it has."""

    def __init__(self) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.drawings: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = dict(attrs)
        if tag in ("script", "link", "iframe", "img"):
            self.fetched.append(tag)
        if tag == "svg":
            self.drawings.append(named["aria-label"] or "")


def test_what_a_plan_writes(made: forecast.Plan, tmp_path: Path) -> None:
    from fl_server.planning import page  # noqa: PLC0415

    page.write(made, tmp_path / "plan")
    assert sorted(file.name for file in (tmp_path / "plan").iterdir()) == ["plan.html", "plan.json"]
    seen = Page()
    seen.feed((tmp_path / "plan" / "plan.html").read_text(encoding="utf-8"))
    assert seen.fetched == []
    assert len(seen.drawings) == 8  # two of the frequencies, four of two levels, two of the model
    assert all(seen.drawings)
    assert "mathdefault" not in (tmp_path / "plan" / "plan.html").read_text(encoding="utf-8")
    told = json.loads((tmp_path / "plan" / "plan.json").read_text(encoding="utf-8"), parse_constant=pytest.fail)
    assert told == json.loads(json.dumps(forecast.document(made)))
    assert list(told["questions"]) == ["counts", "linear", "frequencies", "training"]
    assert told["sites"]["AT"] == {
        "people": 30, "people_assumed": False, "budget_rho": None, "spent_rho": None, "left_rho": None,
    }  # fmt: skip
    assert told["questions"]["frequencies"]["rho"] == Budget(1.0, 1e-5).loss.rho
    assert set(told["questions"]["linear"]["expected"]["levels"]) == {"5e-08", "0.001"}


def test_the_noise_costs_what_the_budget_says() -> None:
    """By another package's accounting."""
    from dp_accounting import GaussianDpEvent, SelfComposedDpEvent  # noqa: PLC0415
    from dp_accounting.pld import PLDAccountant  # noqa: PLC0415

    (step,) = steps(study(FREQUENCIES), FREQUENCIES)
    accountant = PLDAccountant()
    for name, one in step.fields.items():
        accountant.compose(SelfComposedDpEvent(GaussianDpEvent(step.noise[name] / one.l2), 1))
    assert 0.85 < accountant.get_epsilon(1e-5) <= 1.0
