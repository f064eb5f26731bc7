"""What is written can be read back, follows the field's formats, and says what was promised, no more and no less."""

from __future__ import annotations

import dataclasses
import datetime
import gzip
import hashlib
import json
import math
import re
from html.parser import HTMLParser

import numpy as np
import polars as pl
import pytest
import yaml
from safetensors.torch import load_file

import fl_server.results
from fl_server.conduct import Result, Statement
from fl_server.results import gwas_ssf
from fl_server.results.attack import MeasuredAttack
from fl_server.results.words import power
from strategies.analyses.allele_frequency import NoisedFrequency
from strategies.analyses.association import LinearAssociation
from strategies.analyses.genotype_counts import GenotypeCounts
from strategies.analysis import Answer, Range, Total
from strategies.cohort import MISSING, Cohort, Genotypes
from strategies.errors import UsageError
from strategies.federation import Coordinator, Federation, Identity, Node
from strategies.learning.train import PrivateTraining
from strategies.privacy import Budget, Loss, Regime
from strategies.protections import noise
from strategies.question import Question
from strategies.study import Purpose, Study
from strategies.variants import Panel, Variant
from tests.laws.zoo import add

SITES = ("FI", "GB", "IT")
TODAY = datetime.date(2026, 2, 3)
WITHHELD, FIXED = 3, 5
"""Rows of the panel: one with a single carrier, one without any."""


def panel(size: int, chromosomes: tuple[str, ...] = ("1", "X", "MT")) -> Panel:
    variants = []
    for i in range(size):
        name = chromosomes[i * len(chromosomes) // size]
        identifier = f"rs{100 + i}" if i % 2 else f"{name}_{i}<&>$x$"
        variants.append(Variant(name, 1000 + 7 * i, identifier, "A", "CT" if i == 8 else "C", 0.3))
    return Panel("GRCh37", tuple(variants))


def statement(regime: Regime, sds: dict[str, float], rho: float) -> Statement:
    return Statement(
        regime=regime,
        sites=SITES,
        absent={"SE": "did not answer"},
        minimum_cell=5 if regime is Regime.EXACT else 0,
        minimum_people=20,
        minimum_sites=3,
        noise=sds,
        attempts=1,
        rho=rho,
        bytes_left={site: 12_345 + i for i, site in enumerate(SITES)},
        policies=dict.fromkeys(SITES, "0123456789abcdef"),
        data_versions=dict.fromkeys(SITES, 1),
        synthetic=(),
        seconds=1.5,
    )


def cohort(rng: np.random.Generator, variants: int, people: int) -> Cohort:
    codes = rng.binomial(2, 0.3, (variants, people)).astype(np.uint8)
    codes[rng.random(codes.shape) < 0.02] = MISSING
    codes[WITHHELD], codes[FIXED] = 0, 0
    codes[WITHHELD, 0] = 1
    columns = {"trait": rng.normal(size=people) + codes[10] % 3, "sex": rng.integers(1, 3, people).astype(float)}
    columns["label"] = (columns["trait"] > 0.5).astype(float)
    return Cohort(people, Genotypes.pack(codes), columns)


def exact(study: Study, question: Question, people: Cohort) -> Answer:
    frame, step = study.frame(question), question.analysis
    for _ in range(step.rounds()):
        parts = [step.summarise(people.take(np.arange(i, len(people), 3)), frame) for i in range(3)]
        step = step.conclude(Total(add(parts), SITES, {}, 5), frame)
    assert isinstance(step, Answer)
    return step


def private(study: Study, question: Question, people: Cohort, sites: int) -> tuple[Answer, dict[str, float]]:
    frame, step = study.frame(question), question.analysis
    for _ in range(question.analysis.rounds()):
        fields = step.leaves(frame)
        sds = noise.scales(fields, Loss(question.budget.loss.rho * step.fraction()))
        sums = noise.add_noise(step.summarise(people, frame), fields, sds)
        step = step.conclude(Total(sums, SITES[:sites], sds), frame)
    assert isinstance(step, Answer)
    return step, sds


@pytest.fixture(scope="module")
def study():
    budget = Budget(3.0, 1e-5)
    training = PrivateTraining("few", "label", 300, "split", ("sex",), steps=4, averaged=2, bins=4)
    return Study(
        title="Heights & <b>widths</b>",
        purpose=Purpose.SCIENTIFIC_RESEARCH,
        assembly="GRCh37",
        minimum_sites=3,
        columns={"trait": Range(-6, 6), "sex": Range(1, 2), "label": Range(0, 1)},
        panels={"all": panel(60), "few": panel(12, ("1",))},
        questions=(
            Question("counts", GenotypeCounts("all", by="sex", sex="sex")),
            Question("frequencies", NoisedFrequency("few"), budget, by_site=True),
            Question(
                "scan",
                LinearAssociation("all", ("trait",), ("sex",), minimum_minor_alleles=1, minimum_missing=1, sex="sex"),
            ),
            Question("model", training, budget),
        ),
    )


@pytest.fixture(scope="module")
def federation():
    nodes = {name: Node(name, Identity.generate().public) for name in (*SITES, "SE")}
    return Federation("north", nodes, {"coordinator": Coordinator(Identity.generate().public)})


@pytest.fixture(scope="module")
def results(study):
    rng = np.random.default_rng(3)
    everybody = cohort(rng, 60, 300)
    few = Cohort(300, everybody.genotypes[:12], everybody.columns)
    counts, frequencies, scan, model = study.questions
    rho = counts_rho = 0.0
    out = [Result(counts, exact(study, counts, everybody), {}, statement(Regime.EXACT, {}, counts_rho))]
    parts = [np.arange(i, 300, 3) for i in range(3)]
    by_site = {}
    for site, part in zip(SITES, parts, strict=True):
        by_site[site], sds = private(study, frequencies, few.take(part), 1)
    rho = frequencies.budget.loss.rho
    together, _ = private(study, frequencies, few, 3)
    out.append(Result(frequencies, together, by_site, statement(Regime.PRIVATE, sds, rho)))
    out.append(Result(scan, exact(study, scan, everybody), {}, statement(Regime.EXACT, {}, 0.0)))
    trained, sds = private(study, model, few, 3)
    facts = {**trained.facts, "simulation_only_best_variant_auc": 0.861, "simulation_only_best_variant": "1:1070 A>C"}
    out.append(Result(model, dataclasses.replace(trained, facts=facts), {}, statement(Regime.PRIVATE, sds, rho)))
    return tuple(out)


def attacked(auc, at_most=None, attack="likelihood ratio", synthetic=False):
    spread = (auc, auc - 0.054, auc + 0.046)
    return MeasuredAttack(
        attack, "everybody else", 120, 118, synthetic, *(round(v, 3) for v in spread), 0.25, 0.125, 1.5, at_most
    )


MEASURED = {
    "counts": (attacked(0.834), attacked(0.75, attack="distance")),
    "scan": (attacked(0.71, synthetic=True),),
    "frequencies": (attacked(0.53, 0.68),),
}


@pytest.fixture(scope="module")
def folder(study, federation, results, tmp_path_factory):
    folder = tmp_path_factory.mktemp("results") / "demo"
    fl_server.results.write(study, federation, results, folder, MEASURED, today=TODAY)
    return folder


@pytest.fixture(scope="module")
def page(folder):
    return (folder / "report.html").read_text(encoding="utf-8")


# -- reading back ---------------------------------------------------------------------------------------------------


def test_two_lines_read_an_answer(folder, results):
    loaded = fl_server.results.load(folder)
    table = loaded["frequencies"].table()

    want = results[1].answer.tables["frequencies"]
    assert table.columns == list(want)
    assert np.array_equal(table["frequency"].to_numpy(), want["frequency"])
    assert table.to_pandas()["id"].tolist() == list(want["id"])
    assert list(loaded) == ["counts", "frequencies", "scan", "model"]
    assert repr(loaded).startswith("Results of 'Heights & <b>widths</b>': counts (allele_frequency, exact)")


def test_tables_by_site_say_which_site(folder, results):
    table = fl_server.results.load(str(folder))["frequencies"].by_site()
    assert table["site"].unique(maintain_order=True).to_list() == list(SITES)
    for site in SITES:
        want = results[1].by_site[site].tables["frequencies"]["ac"]
        assert np.array_equal(table.filter(pl.col("site") == site)["ac"].to_numpy(), want)


def test_exact_counts_are_integers_and_null_where_withheld(folder, results):
    table = fl_server.results.load(folder)["counts"].table()
    want = results[0].answer.tables["frequencies"]
    assert [table[c].dtype for c in ("hom_ref", "ac", "frequency", "withheld")] == [
        pl.Int64,
        pl.Int64,
        pl.Float64,
        pl.Boolean,
    ]
    hidden = np.asarray(want["withheld"])
    assert hidden[WITHHELD]
    assert np.array_equal(table["hom_ref"].is_null().to_numpy(), hidden)
    assert np.array_equal(table["hom_ref"].drop_nulls().to_numpy(), want["hom_ref"][~hidden])


def test_frequencies_are_also_a_text(folder):
    rows = pl.read_csv(
        gzip.decompress((folder / "counts/frequencies.tsv.gz").read_bytes()), separator="\t", null_values="NA"
    )
    stored = fl_server.results.load(folder)["counts"].table()
    assert rows["hwe_p"].equals(stored["hwe_p"], null_equal=True)


def test_facts_and_statement_come_back(folder, results):
    loaded = fl_server.results.load(folder)
    assert loaded["counts"].facts == dict(results[0].answer.facts)
    said = loaded["frequencies"].statement
    assert (said["regime"], said["epsilon"], said["delta"], said["unit"]) == ("private", 3.0, 1e-5, "person")
    assert said["rho"] == pytest.approx(0.224249, abs=1e-6)
    assert said["absent"] == {"SE": "did not answer"}
    assert said["bytes_left"] == {"FI": 12345, "GB": 12346, "IT": 12347}
    said = loaded["counts"].statement
    assert (said["epsilon"], said["delta"], said["rho"]) == (None, None, None)
    assert said["honest_sites_assumed"] == 2
    assert said["honest_sites_in_words"] == "at least two sites that do not collude with the coordinator"
    assert said["for_whom"] == "this answer is for the permit holder, not for publication"
    assert "not be linked across countries" in said["persons_across_sites"]
    assert (said["minimum_cell"], said["minimum_people"], said["minimum_sites"]) == (5, 20, 3)
    assert said["withheld_rows"] == results[0].answer.withheld > 0
    measured = said["measured_attacks"]
    assert [a["attack"] for a in measured["attacks"]] == ["likelihood ratio", "distance"]
    assert measured["attacks"][0] == {
        "attack": "likelihood ratio",
        "reference": "everybody else",
        "members": 120,
        "others": 118,
        "synthetic": False,
        "auc": 0.834,
        "auc_low_95": 0.78,
        "auc_high_95": 0.88,
        "tpr_at_fpr_1e_2": 0.25,
        "tpr_at_fpr_1e_3": 0.125,
        "epsilon_at_least": 1.5,
        "auc_at_most": None,
    }
    assert "the held-out half are the others" in measured["how"]
    assert loaded["frequencies"].statement["measured_attacks"]["attacks"][0]["auc_at_most"] == 0.68
    assert loaded["model"].statement["measured_attacks"] is None


def test_the_study_lies_beside_its_answers(folder, study):
    stored = json.loads((folder / "study.json").read_text())
    assert stored["digest"] == study.digest
    assert stored["study"] == json.loads(study.document)
    assert stored["policies"]["counts"] == dict.fromkeys(SITES, "0123456789abcdef")
    assert stored["version"].startswith("0.")
    assert stored["written"] == "2026-02-03"


def test_every_json_is_json(folder):
    def refuse(word):
        raise AssertionError(word)

    files = sorted(folder.rglob("*.json"))
    assert len(files) == 7
    for file in files:
        json.loads(file.read_text(), parse_constant=refuse)


def test_a_number_that_is_none_becomes_null(study, federation, results, tmp_path):
    facts = {**results[0].answer.facts, "odd": math.nan, "odder": math.inf, "whole": np.int64(3)}
    changed = dataclasses.replace(results[0], answer=dataclasses.replace(results[0].answer, facts=facts))
    fl_server.results.write(study, federation, [changed], tmp_path / "out")
    facts = fl_server.results.load(tmp_path / "out")["counts"].facts
    assert (facts["odd"], facts["odder"], facts["whole"]) == (None, None, 3)


def test_equal_answers_give_equal_bytes(study, federation, results, folder, tmp_path):
    slower = [dataclasses.replace(r, statement=dataclasses.replace(r.statement, seconds=9.0)) for r in results]
    fl_server.results.write(study, federation, slower, tmp_path / "again", MEASURED, today=TODAY)
    files = sorted(p.relative_to(folder) for p in folder.rglob("*") if p.is_file())
    for name in files:
        if name.name not in ("study.json", "ro-crate-metadata.json"):  # how long it took, and the digest of that
            assert (folder / name).read_bytes() == (tmp_path / "again" / name).read_bytes(), name


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda f: fl_server.results.load(f / "nowhere"), "Answers are read from a folder that a study was run into."),
        (lambda f: fl_server.results.load(f / "counts"), "study.json: No such file"),
        (lambda f: fl_server.results.load(f)["height"], "counts, frequencies, scan, model, not 'height'"),
        (
            lambda f: fl_server.results.load(f)["counts"].table("scan"),
            "counts has frequencies, populations, not 'scan'",
        ),
        (lambda f: fl_server.results.load(f)["counts"].by_site(), "ask with by_site = true"),
        (lambda f: fl_server.results.load(f)["counts"].model(), "counts did not"),
    ],
)
def test_what_is_not_there_is_said(folder, call, words):
    with pytest.raises(UsageError) as caught:
        call(folder)
    assert words in str(caught.value)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": "genosum results 1"}'])
def test_a_folder_of_something_else_is_no_result(tmp_path, text):
    (tmp_path / "study.json").write_text(text)
    with pytest.raises(UsageError, match="Answers are read from a folder that a study was run into"):
        fl_server.results.load(tmp_path)


def test_nothing_is_overwritten_or_half_written(study, federation, results, folder, tmp_path):
    with pytest.raises(UsageError, match="Answers are written into a new folder"):
        fl_server.results.write(study, federation, results, folder)
    broken = dataclasses.replace(results[0], answer=Answer({"frequencies": {}}, {}))
    with pytest.raises(KeyError):
        fl_server.results.write(study, federation, [*results[1:], broken], tmp_path / "out")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "empty").mkdir()
    fl_server.results.write(study, federation, results[:1], tmp_path / "empty")
    assert (tmp_path / "empty/report.html").exists()


# -- GWAS-SSF ---------------------------------------------------------------------------------------------------------


def test_gwas_ssf_has_the_mandatory_columns_in_order(folder, results):
    lines = gzip.decompress((folder / "scan/trait.tsv.gz").read_bytes()).decode().splitlines()
    header = lines[0].split("\t")
    assert header[:8] == [
        "chromosome",
        "base_pair_location",
        "effect_allele",
        "other_allele",
        "beta",
        "standard_error",
        "effect_allele_frequency",
        "p_value",
    ]
    assert header[8:] == ["variant_id", "rsid", "ref_allele", "n"]
    rows = [dict(zip(header, line.split("\t"), strict=True)) for line in lines[1:]]
    table = results[2].answer.tables["trait"]
    assert 0 < len(rows) == int(np.isfinite(table["beta"]).sum()) < 60
    assert {row["chromosome"] for row in rows} == {"1", "23", "25"}
    at = {int(p): i for i, p in enumerate(table["position"])}
    shown = {at[int(row["base_pair_location"])] for row in rows}
    assert shown.isdisjoint({WITHHELD, FIXED})
    for row in rows:
        i = at[int(row["base_pair_location"])]
        assert (row["effect_allele"], row["other_allele"], row["ref_allele"]) == (
            table["alt"][i],
            table["ref"][i],
            "OA",
        )
        for name in ("beta", "standard_error", "effect_allele_frequency", "p_value"):
            assert float(row[name]) == table[name][i]  # bit for bit
        assert 0 <= float(row["p_value"]) <= 1
        assert (
            row["variant_id"] == f"{row['chromosome']}_{row['base_pair_location']}_{table['ref'][i]}_{table['alt'][i]}"
        )
        assert re.fullmatch(r"\w+", row["variant_id"])
        assert re.fullmatch(r"rs[0-9]+|#NA", row["rsid"])
        assert int(row["n"]) == table["n"][i]
    assert {row["rsid"] == "#NA" for row in rows} == {True, False}


def test_gwas_ssf_is_described(folder, study):
    data = (folder / "scan/trait.tsv.gz").read_bytes()
    meta = yaml.safe_load((folder / "scan/trait.tsv.gz-meta.yaml").read_text())
    assert meta["data_file_name"] == "trait.tsv.gz"
    assert meta["data_file_md5sum"] == hashlib.md5(data).hexdigest()
    assert meta["genome_assembly"] == "GRCh37"
    assert meta["coordinate_system"] == "1-based"
    assert meta["trait_description"] == ["trait"]
    assert meta["adjusted_covariates"] == ["sex"]
    assert meta["samples"][0]["sample_size"] == 300
    assert meta["samples"][0]["sample_ancestry_category"] == ["NR"]
    assert meta["genotyping_technology"] == ["NR"]
    assert (meta["is_harmonised"], meta["is_sorted"]) == (False, True)
    assert re.fullmatch(r"GWAS-SSF v\d+(\.\d+)*", meta["file_type"])
    assert meta["date_metadata_last_modified"] == TODAY
    assert "FI, GB, IT" in meta["author_notes"]


def test_an_unsorted_panel_is_called_unsorted(results):
    table = {name: column[::-1] for name, column in results[2].answer.tables["trait"].items()}
    assert gwas_ssf.is_sorted(gwas_ssf.frame(results[2].answer.tables["trait"]))
    assert not gwas_ssf.is_sorted(gwas_ssf.frame(table))


# -- the model --------------------------------------------------------------------------------------------------------


def test_the_model_comes_back_bit_for_bit(folder, results):
    stored, want = fl_server.results.load(folder)["model"].model(), results[3].answer.model
    assert stored.keys() == want.keys()
    tensors = load_file(folder / "model/model.safetensors")
    for name, array in want.items():
        assert stored[name].dtype == np.float32
        assert np.array_equal(stored[name], array)
        assert np.array_equal(tensors[name].numpy(), array)


def test_the_card_says_whose_data_at_what_price(folder, study):
    card = json.loads((folder / "model/model_card.json").read_text())
    assert card["data_sites"] == {"FI": "FI", "GB": "GB", "IT": "IT"}
    assert {k: card["privacy"][k] for k in ("epsilon", "delta", "unit")} == {
        "epsilon": 3.0,
        "delta": 1e-5,
        "unit": "person",
    }
    assert (card["training_share"], card["held_out_share"]) == (0.7, 0.3)
    assert "auc" in card["metrics"]
    assert card["metrics"]["simulation_only_best_variant_auc"] == 0.861
    assert card["study"] == study.digest
    text = (folder / "model/model_card.md").read_text()
    for words in (
        "# Model card: model",
        "FI (FI), GB (GB), IT (IT)",
        "epsilon 3, delta 1e-05, per person",
        "## Limits",
    ):
        assert words in text
    assert "Held out for evaluation: 30 %" in text
    assert "`1:1000:A:C`" in text


# -- the report -------------------------------------------------------------------------------------------------------


class Page(HTMLParser):
    """Tags with their attributes, and the text outside style."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self._inside: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag == "style":
            self._inside.append(tag)

    def handle_endtag(self, tag):
        if tag == "style":
            self._inside.pop()

    def handle_data(self, data):
        if not self._inside:
            self.text.append(data)


def test_the_page_asks_nothing_of_anybody(page, folder):
    parsed = Page(page)
    names = {tag for tag, _ in parsed.tags}
    assert names.isdisjoint({"script", "link", "iframe", "img", "object", "embed", "base", "form"})
    for tag, attributes in parsed.tags:
        for name in ("src", "href", "xlink:href", "srcset", "data", "poster"):
            value = attributes.get(name)
            beside = tag == "a" and value is not None and (folder / value).is_file()
            assert beside or value is None or value.startswith(("#", "data:image/png;base64,")), (tag, name, value[:60])
        assert not any(name.startswith("on") for name in attributes)
    assert "@import" not in page
    assert re.findall(r"url\((?!#)", page) == []
    assert re.findall(r"https?://", page) == []
    assert "default-src 'none'" in page
    assert len(page.encode()) < 3_000_000


def test_the_page_links_the_files_of_every_answer(page, folder):
    linked = {attributes["href"] for tag, attributes in Page(page).tags if tag == "a"}
    for name in (
        "counts/frequencies.tsv.gz",
        "counts/beacon.json.gz",
        "counts/gdi/allele-freq.GRCh37.vcf.gz",
        "scan/trait.tsv.gz",
        "model/model.safetensors",
    ):
        assert name in linked
        assert (folder / name).is_file()


def test_every_figure_is_there_in_words_too(page):
    drawings = [attributes for tag, attributes in Page(page).tags if tag == "svg"]
    # Spectrum, Hardy-Weinberg, groups twice, intervals twice, Manhattan twice, QQ, ROC, training.
    assert len(drawings) == 11
    for attributes in drawings:
        assert attributes["role"] == "img"
        assert len(attributes["aria-label"]) > 40
    assert (
        sum(tag == "figure" for tag, _ in Page(page).tags)
        == sum(tag == "figcaption" for tag, _ in Page(page).tags)
        == 8
    )
    assert len(re.findall(r"<table", page)) == len(re.findall(r"<caption", page))
    identifiers = [attributes["id"] for _, attributes in Page(page).tags if attributes.get("id")]
    assert len(identifiers) == len(set(identifiers))


def test_sections_stand_in_order(page):
    titles = re.findall(r'<h2 id="[\w-]+">([^<]+)</h2>', page)
    assert titles == ["What was asked", "Who answered", "The answers", "Privacy statements"]
    answers = re.findall(r'<h3 id="answer-([\w-]+)">', page)
    assert answers == re.findall(r'<h3 id="privacy-([\w-]+)">', page) == ["counts", "frequencies", "scan", "model"]


def test_exact_answers_carry_their_warning_and_what_was_measured(page):
    articles = dict(re.findall(r'<article aria-labelledby="answer-([\w-]+)">(.*?)</article>', page, re.DOTALL))
    for name, area in (("counts", "0.83"), ("scan", "0.71")):
        assert "this answer is for the permit holder, not for publication" in articles[name]
        assert f"Measured membership AUC: <strong>{area}</strong>" in articles[name]
        assert "the held-out half are the others" in articles[name]
    for name in ("frequencies", "model"):
        assert "not for publication" not in articles[name]
    assert "0.861" in articles["model"]


def test_every_measured_attack_stands_beside_its_statement(page):
    said = dict(re.findall(r'<article aria-labelledby="privacy-([\w-]+)">(.*?)</article>', page, re.DOTALL))
    assert "Measured attacks: 120 people who took part, 118 who did not" in said["counts"]
    assert "Measured attacks: 120 synthetic people who took part" in said["scan"]
    row = re.findall(r'<tr><th scope="row">likelihood ratio</th>(.*?)</tr>', said["frequencies"], re.DOTALL)
    cells = re.findall(r"<td[^>]*>(.*?)</td>", row[0], re.DOTALL)
    assert cells == ["0.530\n0.476–0.576", "0.25", "0.12", "1.50", "0.680", "everybody else"]
    assert "Measured attacks" not in said["model"]


def test_an_unmeasured_membership_is_called_so(study, federation, results, tmp_path):
    fl_server.results.write(study, federation, results, tmp_path / "out")
    assert "Its membership AUC was not measured in this run." in (tmp_path / "out/report.html").read_text()


def test_statements_say_all_of_it(page):
    said = dict(re.findall(r'<article aria-labelledby="privacy-([\w-]+)">(.*?)</article>', page, re.DOTALL))
    for name, article in said.items():
        for words in (
            "<dt>regime</dt>",
            "<dt>epsilon</dt>",
            "<dt>delta</dt>",
            "<dt>unit</dt><dd>person",
            "12\u202f345",
            "SE did not answer",
        ):
            assert words in article, (name, words)
    assert "at least two sites that do not collude with the coordinator" in said["counts"]
    assert "5 people" in said["counts"]
    assert "<dt>epsilon</dt><dd>3</dd>" in said["frequencies"]
    assert "<dt>delta</dt><dd>10⁻⁵</dd>" in said["model"]
    assert "SE did not answer: not in any answer." in page


def test_the_page_promises_no_more_than_it_may(page, folder):
    for text in (" ".join(Page(page).text), (folder / "model/model_card.md").read_text()):
        assert re.findall(r"anonym|complian|approv|certif", text, re.IGNORECASE) == []
    assert "Designed to support" in page


def test_synthetic_people_are_called_so_everywhere(study, federation, results, folder, page, tmp_path):
    made_up = [dataclasses.replace(r, statement=dataclasses.replace(r.statement, synthetic=SITES)) for r in results]
    fl_server.results.write(study, federation, made_up, tmp_path / "out")
    for name, words in (
        ("report.html", "<strong>Synthetic data.</strong>"),
        ("model/model_card.md", "People: synthetic"),
        ("scan/trait.tsv.gz-meta.yaml", "Synthetic data"),
    ):
        assert words in (tmp_path / "out" / name).read_text()
        assert words not in (folder / name).read_text()
    assert fl_server.results.load(tmp_path / "out")["counts"].statement["synthetic"] == list(SITES)


def test_texts_of_others_are_texts(page):
    assert "<b>widths</b>" not in page
    assert "Heights &amp; &lt;b&gt;widths&lt;/b&gt;" in page


def test_numbers_are_set_as_people_write_them():
    assert [power(v) for v in (2.5e-83, 1e-5, 0.04, 0.0, math.nan)] == [
        "2.5 × 10⁻⁸³",
        "10⁻⁵",
        "0.04",
        "below 10⁻³⁰⁰",
        "–",
    ]
