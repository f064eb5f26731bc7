"""Files for exchange: GDI's Parquet and VCF are read as its own readers read them, a Beacon response is held to its
schemas and read by a client, the RO-Crate to its standard. What is expected comes from tables made here."""

from __future__ import annotations

import gzip
import hashlib
import json
import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import cyvcf2
import jsonschema
import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet
import pytest
import referencing
from referencing.jsonschema import DRAFT202012

import fl_server.results
from fl_server.conduct import Result
from fl_server.results import populations
from strategies.analyses.allele_frequency import NoisedFrequency
from strategies.analyses.genotype_counts import GenotypeCounts
from strategies.analysis import Answer, Range
from strategies.federation import Coordinator, Federation, Identity, Node
from strategies.learning.train import PrivateTraining
from strategies.privacy import Budget, Regime
from strategies.question import Question
from strategies.study import Purpose, Study
from strategies.variants import Panel, Variant
from tests.references.test_results import TODAY, statement

BEACON = Path(__file__).parents[2].parent / "shared" / "data" / "beacon" / "beacon-v2"
SITES = {"FI1": "FI", "FI2": "FI", "SE": "SE"}
CHROMOSOMES = (*map(str, range(1, 23)), "X", "Y", "MT")


def panel() -> Panel:
    """On every chromosome; not in the genome's order; two at one place, an indel, two of several bases."""
    rows = [Variant(c, 9_999_990 + 7 * k, f"rs{k}", "A", "C") for k in range(4) for c in CHROMOSOMES]
    rows += [Variant("3", 9_999_990, "other;<name>", "A", "G"), Variant("3", 20_000_000, ".", "AT", "A")]
    rows += [Variant("3", 20_000_001, "two words", "ACA", "ACT"), Variant("3", 20_000_002, "", "AC", "TG")]
    order = np.random.default_rng(5).permutation(len(rows))
    return Panel("GRCh38", tuple(rows[i] for i in order))


PANEL = panel()
M = len(PANEL)


def numbers(seed: int, withheld: tuple[int, ...], empty: tuple[int, ...] = ()) -> dict[str, np.ndarray]:
    """Cells of a made-up answer; nobody's second copy on Y and MT."""
    rng = np.random.default_rng(seed)
    one = np.array([v.chromosome in ("Y", "MT") for v in PANEL.variants])
    half = np.array([v.chromosome == "X" for v in PANEL.variants])
    cells = {n: rng.integers(5, 500, M) * ~one for n in ("hom_ref", "het", "hom_alt")}
    cells |= {n: rng.integers(5, 500, M) * (one | half) for n in ("hemi_ref", "hemi_alt")}
    for name in cells:
        cells[name][list(empty)] = 0
    cells["missing"] = np.full(M, 7)
    ac = cells["het"] + 2 * cells["hom_alt"] + cells["hemi_alt"]
    an = 2 * (cells["hom_ref"] + cells["het"] + cells["hom_alt"]) + cells["hemi_ref"] + cells["hemi_alt"]
    out = {**cells, "ac": ac, "an": an}
    hidden = np.isin(np.arange(M), withheld)
    return {name: np.where(hidden, np.nan, values) for name, values in out.items()}


def table(cells: dict[str, np.ndarray], **labels: Any) -> dict[str, Any]:
    v = PANEL.variants
    named = {
        "chromosome": tuple(x.chromosome for x in v),
        "position": np.array([x.position for x in v]),
        "id": tuple(x.identifier for x in v),
        "ref": tuple(x.reference for x in v),
        "alt": tuple(x.alternate for x in v),
    }
    with np.errstate(invalid="ignore", divide="ignore"):
        more = {"frequency": cells["ac"] / cells["an"], "call_rate": np.ones(M), "hwe_p": np.full(M, 0.5)}
    flags = {"withheld": np.isnan(cells["ac"]), "held_by_few": np.zeros(M, dtype=bool)}
    return {**labels, **named, **cells, **more, **flags}


def grouped(parts: dict[str, dict[str, np.ndarray]]) -> dict[str, Any]:
    tables = [table(cells) for cells in parts.values()]
    out: dict[str, Any] = {"population": tuple(label for label in parts for _ in range(M))}
    for name in tables[0]:
        columns = [one[name] for one in tables]
        out[name] = sum(columns, ()) if isinstance(columns[0], tuple) else np.concatenate(columns)
    return out


TOTAL = numbers(1, (3, 9), (11,))
GROUPS = {"F": numbers(2, (3, 9, 12)), "M": numbers(3, (3, 9, 12)), "elsewhere": numbers(4, (3, 9, 12))}
PARTS = {"FI1": numbers(5, (1,)), "FI2": numbers(6, (2,)), "SE": numbers(7, (1,))}
NOISED = {"ac": np.linspace(-3.0, 90.6, M), "an": np.where(np.arange(M) == 4, 0.4, 61.5 + np.arange(M) % 3)}

COUNTS = Question("counts", GenotypeCounts("p", by="group", sex="sex", labels=("F", "M", "elsewhere")))
BY_SITE = Question("parts", GenotypeCounts("p", sex="sex"), by_site=True)
PRIVATE = Question("noised", NoisedFrequency("p"), Budget(1.0, 1e-5))
STUDY = Study(
    'A "title" of <b>ours</b> & []',
    Purpose.SCIENTIFIC_RESEARCH,
    "GRCh38",
    3,
    {"group": Range(1, 3), "sex": Range(1, 2)},
    {"p": PANEL},
    (COUNTS, BY_SITE, PRIVATE),
)


def result(question: Question, tables: dict[str, Any], by_site: dict[str, Any]) -> Result:
    regime = question.regime
    said = statement(regime, {"alternate": 1.0} if regime is Regime.PRIVATE else {}, 0.0)
    facts = {"people": 900, "people_noise_sd": 1.0, "variants": M, **{f"people_{label}": 300 for label in GROUPS}}
    answer = Answer(tables, facts)
    sites = {site: Answer({"frequencies": one}, {"people": 300}) for site, one in by_site.items()}
    policies = dict.fromkeys(SITES, "0123456789abcdef")
    said = replace(said, sites=tuple(SITES), policies=policies, bytes_left=dict.fromkeys(SITES, 1), absent={})
    return Result(question, answer, sites, said)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("exchange") / "out"
    nodes = {site: Node(country, Identity.generate().public) for site, country in SITES.items()}
    federation = Federation("north", nodes, {"coordinator": Coordinator(Identity.generate().public)})
    exact = {"frequencies": table(TOTAL), "populations": grouped(GROUPS)}
    noised = {**numbers(8, ()), **NOISED}
    noisy = {"frequencies": table(noised) | {c: noised["ac"] for c in ("published_frequency", "low_95", "high_95")}}
    parts = {site: table(cells) for site, cells in PARTS.items()}
    results = [result(COUNTS, exact, {}), result(BY_SITE, {}, parts), result(PRIVATE, noisy, {})]
    fl_server.results.write(STUDY, federation, results, place, today=TODAY)
    return place


def expected(question: str) -> dict[tuple[str, int, str, str, str], tuple[Any, ...]]:
    """(chromosome, POS, REF, ALT, population) -> AC, AC_HOM, AC_HET, AC_HEMI, AN; what is withheld is not there."""
    out: dict[tuple[str, int, str, str, str], tuple[Any, ...]] = {}
    sources = {
        "counts": {"Total": [TOTAL], **{name: [cells] for name, cells in GROUPS.items()}},
        "parts": {"FI": [PARTS["FI1"], PARTS["FI2"]], "SE": [PARTS["SE"]]},
        "noised": {"Total": [NOISED]},
    }
    for label, parts in sources[question].items():
        for j, v in enumerate(PANEL.variants):
            if question == "noised":
                an = round(NOISED["an"][j])
                row: tuple[Any, ...] = (min(max(round(NOISED["ac"][j]), 0), an), None, None, None, an)
            else:
                cells = {name: sum(part[name][j] for part in parts) for name in parts[0]}
                row = (cells["ac"], 2 * cells["hom_alt"], cells["het"], cells["hemi_alt"], cells["an"])
            if row[4] > 0:  # NaN is not
                out[v.chromosome, v.position, v.reference, v.alternate, label] = row
    return out


QUESTIONS = ("counts", "parts", "noised")
GRAMMAR = re.compile(r"^(?:([A-Z]{2})(?:_([MF]))?|([MF]))$")
"""Of the portal; `Total` besides."""


def of_the_grammar(question: str) -> dict[tuple[str, int, str, str, str], tuple[Any, ...]]:
    return {k: v for k, v in expected(question).items() if k[4] == "Total" or GRAMMAR.match(k[4])}


# -- GDI --------------------------------------------------------------------------------------------------------------

TEXTS, ALLELES = ("REF", "ALT", "VT", "POPULATION"), ("AC", "AC_HET", "AC_HOM", "AC_HEMI", "AN")
MINI_NODE = pa.schema(
    [("POS", pa.int32()), *((n, pa.string()) for n in TEXTS), ("AF", pa.float64()), *((n, pa.int32()) for n in ALLELES)]
)
"""As the mini-node's Beacon opens the files."""


def kind(ref: str, alt: str) -> str:
    """VT by trimming what both alleles share, as GDI's writer does."""
    while ref and alt and ref[0] == alt[0]:
        ref, alt = ref[1:], alt[1:]
    while ref and alt and ref[-1] == alt[-1]:
        ref, alt = ref[:-1], alt[:-1]
    return "SNP" if len(ref) == len(alt) == 1 else "INDEL" if len(ref) != len(alt) else "UNKNOWN"


@pytest.mark.parametrize("question", QUESTIONS)
def test_a_gdi_node_reads_the_parquet_files(folder: Path, question: str) -> None:
    got = {}
    for file in (folder / question / "gdi" / "GRCh38").iterdir():
        named = re.fullmatch(r"allele-freq-chr([1-9]|1\d|2[0-2]|X|Y|M)\.(\d+)\.parquet", file.name)
        assert named
        chromosome, block = {"M": "MT"}.get(named[1], named[1]), int(named[2])
        assert pyarrow.parquet.read_schema(file).names == [
            "POS", "REF", "ALT", "VT", "POPULATION", "AF", "AC", "AC_HOM", "AC_HET", "AC_HEMI", "AN",
        ]  # fmt: skip
        rows = pyarrow.dataset.dataset(file, schema=MINI_NODE).to_table().to_pylist()
        keys = [(r["POS"], r["REF"], r["ALT"], r["POPULATION"]) for r in rows]
        assert keys == sorted(set(keys))
        for r in rows:
            assert r["POS"] // 10_000_000 == block
            assert r["AF"] == r["AC"] / r["AN"]
            assert r["POPULATION"] == "Total" or GRAMMAR.match(r["POPULATION"])
            assert r["AC_HOM"] is None or r["AC_HOM"] + r["AC_HET"] + r["AC_HEMI"] == r["AC"]
            assert r["VT"] == kind(r["REF"], r["ALT"])
            place = chromosome, r["POS"] + 1, r["REF"], r["ALT"], r["POPULATION"]
            got[place] = (r["AC"], r["AC_HOM"], r["AC_HET"], r["AC_HEMI"], r["AN"])
    assert got == of_the_grammar(question)


def info_field(name: str) -> tuple[str, str] | None:
    """Population and plain field of an INFO field, as the mini-node's Parquet writer takes names apart."""
    if name in ("AF", "AC", "AC_Het", "AC_Hom", "AC_Hemi", "AN"):
        return "Total", name
    parts = name.split("_")
    if parts[1] in ("M", "F"):
        return parts[1], "_".join([parts[0], *parts[2:]])
    if len(parts[1]) == 2 and parts[1].isupper():
        if parts[2:3] in (["M"], ["F"]):
            return f"{parts[1]}_{parts[2]}", "_".join([parts[0], *parts[3:]])
        return parts[1], "_".join([parts[0], *parts[2:]])
    return None


@pytest.mark.parametrize("question", QUESTIONS)
def test_the_vcf_parses_by_gdis_grammar(folder: Path, question: str) -> None:
    path = folder / question / "gdi" / "allele-freq.GRCh38.vcf.gz"
    text = gzip.decompress(path.read_bytes()).decode().splitlines()
    assert ("##privacy=" in "\n".join(text)) == (question == "noised")
    fields = dict(re.findall(r"##INFO=<ID=(\w+),Number=(\w)", "\n".join(text)))
    assert all(fields[name] == ("1" if name.startswith("AN") else "A") for name in fields)
    got: dict[tuple[str, int, str, str, str], dict[str, float]] = {}
    body = [line.split("\t") for line in text if not line.startswith("#")]
    for chrom, pos, name, ref, alt, qual, passed, info in body:
        assert (qual, passed) == (".", ".")
        assert re.fullmatch(r"[^\s;,]+", name)
        for entry in info.split(";"):
            field, value = entry.split("=")
            assert field in fields
            population, plain = info_field(field) or ("", "")
            chromosome = chrom.removeprefix("chr").replace("M", "MT")
            got.setdefault((chromosome, int(pos), ref, alt, population), {})[plain] = float(value)
    for values in got.values():
        assert values["AF"] == values["AC"] / values["AN"]
    columns = ("AC", "AC_Hom", "AC_Het", "AC_Hemi", "AN")
    assert {k: tuple(v.get(c) for c in columns) for k, v in got.items()} == of_the_grammar(question)
    at = [(CHROMOSOMES.index(c.removeprefix("chr").replace("M", "MT")), int(p)) for c, p, *_ in body]
    assert at == sorted(at)
    reader = cyvcf2.VCF(str(path))
    records = list(reader)
    assert len(records) == len(body)
    assert [r.ID or "." for r in records] == [line[2] for line in body]
    assert all(
        np.float32(r.INFO["AF"]) == np.float32(r.INFO["AC"] / r.INFO["AN"]) for r in records if "AF" in dict(r.INFO)
    )


# -- Beacon -----------------------------------------------------------------------------------------------------------


def answers_of_a_client(
    response: dict[str, Any], spelling: str
) -> dict[tuple[str, int, str, str, str], dict[str, Any]]:
    """A minimal client: the portal looks into `frequencies`, callers of a mini-node into `populations`."""
    assert response["responseSummary"]["exists"] is True
    out = {}
    for results in response["response"]["resultSets"]:
        assert results["resultsCount"] == len(results["results"])
        for variant in results["results"]:
            chromosome = variant["variantInternalId"].split(":")[0]
            variation = variant["variation"]
            place = variation["location"]["interval"]["start"]["value"]
            for study in variant["frequencyInPopulations"]:
                for one in study[spelling]:
                    key = (
                        chromosome,
                        place + 1,
                        variation["referenceBases"],
                        variation["alternateBases"],
                        one["population"],
                    )
                    out[key] = one
    return out


def read_response(folder: Path, question: str) -> dict[str, Any]:
    response: dict[str, Any] = json.loads(gzip.decompress((folder / question / "beacon.json.gz").read_bytes()))
    return response


@pytest.mark.parametrize("question", QUESTIONS)
@pytest.mark.parametrize("spelling", ["frequencies", "populations"])
def test_a_beacon_client_finds_every_frequency(folder: Path, question: str, spelling: str) -> None:
    got = answers_of_a_client(read_response(folder, question), spelling)
    want = expected(question)
    assert got.keys() == want.keys()
    names = ("alleleCount", "alleleCountHomozygous", "alleleCountHeterozygous", "alleleCountHemizygous", "alleleNumber")
    for key, values in got.items():
        assert tuple(values.get(name) for name in names) == want[key]
        assert values["alleleFrequency"] == want[key][0] / want[key][4]


def test_a_beacon_variant_says_which_it_is(folder: Path) -> None:
    response = read_response(folder, "counts")
    assert response["response"]["resultSets"][0]["results"][0]["frequencyInPopulations"][0]["source"] == STUDY.title
    by_name = {v["variantInternalId"]: v for v in response["response"]["resultSets"][0]["results"]}
    simple = by_name["MT:9999990:A:C"]
    assert simple["identifiers"]["genomicHGVSId"] == "NC_012920.1:g.9999990A>C"
    assert simple["identifiers"]["variantAlternativeIds"] == [{"id": "dbSNP:rs0"}]
    assert simple["variation"]["location"]["sequence_id"] == "refseq:NC_012920.1"
    assert by_name["X:9999990:A:C"]["identifiers"]["genomicHGVSId"].startswith("NC_000023.11:")
    assert by_name["3:9999990:A:G"]["identifiers"] == {"genomicHGVSId": "NC_000003.12:g.9999990A>G"}
    assert by_name["3:20000000:AT:A"]["identifiers"] == {}
    assert by_name["3:20000000:AT:A"]["variation"]["location"]["interval"]["end"]["value"] == 20_000_001


NUMBER = {
    "type": "object",
    "properties": {"type": {"const": "Number"}, "value": {"type": "integer"}},
    "required": ["type", "value"],
    "additionalProperties": False,
}
INTERVAL = {
    "type": "object",
    "properties": {"type": {"const": "SequenceInterval"}, "start": NUMBER, "end": NUMBER},
    "required": ["type", "start", "end"],
    "additionalProperties": False,
}
LOCATION = {
    "type": "object",
    "properties": {
        "type": {"const": "SequenceLocation"},
        "sequence_id": {"type": "string", "pattern": r"^\w[^:]*:.+$"},
        "interval": INTERVAL,
    },
    "required": ["type", "sequence_id", "interval"],
}
VRS = {
    "$id": "https://w3id.org/ga4gh/schema/vrs/1.3/vrs.json",
    "definitions": {
        "Location": LOCATION,
        "MolecularVariation": {"type": "object", "required": ["type", "location", "state"]},
        "SystemicVariation": {"type": "object", "required": ["type", "subject"]},
    },
}
"""Of VRS 1.3, which the Beacon's schemas name and do not hold: a location, and what the other variations need."""


@pytest.mark.skipif(not BEACON.is_dir(), reason="no shared/data/beacon beside the repository: schemas not asked")
@pytest.mark.parametrize("question", QUESTIONS)
def test_the_response_is_valid_by_beacons_schemas(folder: Path, question: str) -> None:
    raw = "https://raw.githubusercontent.com/ga4gh-beacon/beacon-v2/main/"

    def retrieve(uri: str) -> Any:
        path = BEACON / uri.removeprefix(raw) if uri.startswith(raw) else Path(uri.removeprefix("file://"))
        return referencing.Resource.from_contents(json.loads(path.read_text()), default_specification=DRAFT202012)

    vrs = referencing.Resource.from_contents(VRS, default_specification=DRAFT202012)
    registry = referencing.Registry(retrieve=retrieve).with_resource(VRS["$id"], vrs)

    def validator(path: str) -> Any:
        return jsonschema.Draft202012Validator({"$ref": (BEACON / path).as_uri()}, registry=registry)

    response = read_response(folder, question)
    validator("framework/json/responses/beaconResultsetsResponse.json").validate(response)
    entry = validator("models/json/beacon-v2-default-model/genomicVariations/defaultSchema.json")
    for variant in response["response"]["resultSets"][0]["results"]:
        entry.validate(variant)
    broken = json.loads(json.dumps(response["response"]["resultSets"][0]["results"][0]))
    del broken["frequencyInPopulations"][0]["frequencies"]
    assert list(entry.iter_errors(broken)), "the schema asks for the spelling `frequencies`"


# -- populations ------------------------------------------------------------------------------------------------------


def test_an_answer_that_shows_nothing_has_no_files_for_exchange() -> None:
    nothing = {name: np.full(M, np.nan) for name in TOTAL}
    assert populations.rows(result(COUNTS, {"frequencies": table(nothing)}, {}), {}) is None
    model = Question("model", PrivateTraining("p", "label", 300, "split"), Budget(1.0, 1e-5))
    assert populations.rows(result(model, {"roc": table(TOTAL)}, {}), {}) is None


def test_groups_of_sites_are_named_by_country_and_group() -> None:
    made = result(BY_SITE, {}, {})
    parts = {"SE": Answer({"frequencies": table(TOTAL), "populations": grouped(GROUPS)}, {})}
    rows = populations.rows(Result(made.question, made.answer, parts, made.statement), SITES)
    assert rows is not None
    assert set(rows["POPULATION"]) == {"SE", "SE_F", "SE_M", "SE_elsewhere"}


def test_a_country_of_which_one_site_withholds_shows_nothing(folder: Path) -> None:
    rows = pl.read_parquet(folder / "parts" / "gdi" / "GRCh38" / "*.parquet")
    finland = rows.filter(pl.col("POPULATION") == "FI")
    assert len(finland) == M - 2
    assert len(rows.filter(pl.col("POPULATION") == "SE")) == M - 1


# -- RO-Crate ---------------------------------------------------------------------------------------------------------

TERMS = frozenset(
    {
        "about", "actionStatus", "additionalType", "agent", "author", "conformsTo", "contentSize", "contributor",
        "dateModified", "datePublished", "description", "encodingFormat", "endTime", "hasPart", "identifier",
        "instrument", "license", "location", "mentions", "name", "object", "publisher", "result",
        "softwareRequirements", "url", "version",
    }
)  # fmt: skip
TYPES = frozenset(
    {
        "AssessAction", "CreateAction", "CreativeWork", "Dataset", "DefinedTerm", "File", "Organization",
        "SoftwareApplication",
    }
)  # fmt: skip
"""Those of the context of RO-Crate 1.1 that a crate of ours uses."""


def test_the_crate_is_one(folder: Path) -> None:
    crate = json.loads((folder / "ro-crate-metadata.json").read_text())
    context, graph = crate["@context"], crate["@graph"]
    assert context[0] == "https://w3id.org/ro/crate/1.1/context"
    entities = {one["@id"]: one for one in graph}
    assert len(entities) == len(graph)
    known = TERMS | {"@id", "@type", *context[1]}
    for one in graph:
        assert set(one) <= known, set(one) - known
        assert one["@type"] in TYPES
        for value in one.values():
            for item in value if isinstance(value, list) else [value]:
                if isinstance(item, dict):
                    assert set(item) == {"@id"}
                    assert item["@id"] in entities or item["@id"].startswith("https://"), item
    descriptor, root = entities["ro-crate-metadata.json"], entities["./"]
    assert descriptor["about"] == {"@id": "./"}
    assert {"@id": "https://w3id.org/ro/crate/1.1"} in descriptor["conformsTo"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", root["datePublished"])
    assert root["license"]["@id"] in entities
    assert root["name"] == STUDY.title
    assert root["identifier"] == f"sha256:{STUDY.digest}"


def test_the_crate_holds_every_file_with_its_digest(folder: Path) -> None:
    graph = json.loads((folder / "ro-crate-metadata.json").read_text())["@graph"]
    entities = {one["@id"]: one for one in graph}
    there = {p.relative_to(folder).as_posix(): p for p in folder.rglob("*") if p.is_file()}
    del there["ro-crate-metadata.json"]
    assert {one["@id"] for one in entities["./"]["hasPart"]} == set(there)
    assert {one["@id"] for one in graph if one["@type"] == "File"} == set(there)
    for name, path in there.items():
        data, one = path.read_bytes(), entities[name]
        assert (one["sha256"], one["contentSize"]) == (hashlib.sha256(data).hexdigest(), str(len(data)))
        assert "/" in one["encodingFormat"]


def test_the_crate_says_who_did_what_with_what(folder: Path) -> None:
    graph = json.loads((folder / "ro-crate-metadata.json").read_text())["@graph"]
    entities = {one["@id"]: one for one in graph}
    actions = [one for one in graph if one["@type"] == "CreateAction"]
    assert [one["@id"] for one in actions] == [f"#question-{name}" for name in QUESTIONS]
    for one, name in zip(actions, QUESTIONS, strict=True):
        software = entities[one["instrument"]["@id"]]
        assert software["@type"] == "SoftwareApplication"
        assert software["version"]
        assert {f["@id"].split("/")[0] for f in one["result"]} == {name}
        assert {"@id": "study.json"} in one["object"]
        policies = [entities[p["@id"]] for p in one["object"] if p["@id"].startswith("#policy-")]
        assert {p["identifier"] for p in policies} == {"0123456789abcdef"}
    checks = [one for one in graph if one["@type"] == "AssessAction"]
    assert len(checks) == len(QUESTIONS)
    assert all(one["additionalType"] == {"@id": "https://w3id.org/shp#DisclosureCheck"} for one in checks)
    assert "epsilon 1 and delta 1e-05 per person" in checks[2]["name"]
    assert "fewer than 5 people" in checks[0]["name"]
    countries = {one["name"]: one["location"] for one in graph if one["@id"].startswith("#node-")}
    assert countries == SITES
    requirements = {entities[r["@id"]]["name"] for r in entities["#genosum"]["softwareRequirements"]}
    assert requirements == {"python", "flwr", "numpy", "scipy", "polars", "pyarrow"}
    assert math.isfinite(sum(int(one["contentSize"]) for one in graph if one["@type"] == "File"))
