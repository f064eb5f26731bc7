"""Allele frequencies as a Beacon v2 answers them: one response, with every variant's `frequencyInPopulations`.

Schemas: ga4gh-beacon/beacon-v2 2.1, beaconResultsetsResponse and genomicVariations. The populations of a variant stand
there twice, because GDI's readers differ: as `frequencies`, which the schema and the GDI portal ask for, and as
`populations`, which GDI's mini-node says. The counts beside each frequency are GDI's addition.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

import polars as pl

from fl_server.results.populations import COUNTS, lines, pieces

API = "v2.1.0"
ENTRY = "genomicVariant"
SCHEMA = (
    "https://raw.githubusercontent.com/ga4gh-beacon/beacon-v2/main/models/json/beacon-v2-default-model/"
    "genomicVariations/defaultSchema.json"
)

VARIANTS_AT_A_TIME = 2_000

_SAME = "NC_012920.1"  # the mitochondrial sequence of both builds
_VERSIONS = {
    "GRCh37": (10, 11, 11, 11, 9, 11, 13, 10, 11, 10, 9, 11, 10, 8, 9, 9, 10, 9, 9, 10, 8, 10, 10, 9),
    "GRCh38": (11, 12, 12, 12, 10, 12, 14, 11, 12, 11, 10, 12, 11, 9, 10, 10, 11, 10, 10, 11, 9, 11, 11, 10),
}
REFSEQ = {
    assembly: {
        name: f"NC_{n:06d}.{v}"
        for n, (name, v) in enumerate(zip([*map(str, range(1, 23)), "X", "Y"], vs, strict=True), 1)
    }
    | {"MT": _SAME}
    for assembly, vs in _VERSIONS.items()
}
"""Build -> chromosome -> accession. NCBI RefSeq, assemblies GRCh37.p13 and GRCh38.p14."""

FIELDS = {
    "AF": "alleleFrequency",
    "AC": "alleleCount",
    "AC_HOM": "alleleCountHomozygous",
    "AC_HET": "alleleCountHeterozygous",
    "AC_HEMI": "alleleCountHemizygous",
    "AN": "alleleNumber",
}


def response(
    rows: pl.DataFrame, assembly: str, dataset: str, source: str, reference: str, version: str
) -> Iterator[bytes]:
    """A response in pieces of text.

    Args:
        rows: as `populations.rows` gives them.
        assembly: GRCh37 or GRCh38.
        dataset: identifier of the set of results.
        source, reference, version: of the frequencies: what they come from, where that is described, which it is.
    """
    schemas = [{"entityType": ENTRY, "schema": SCHEMA}]
    number = int(rows["variant"][-1]) + 1
    head = {
        "meta": {
            "beaconId": "org.genosum.results",
            "apiVersion": API,
            "returnedSchemas": schemas,
            "returnedGranularity": "record",
            "receivedRequestSummary": {
                "apiVersion": API,
                "requestedSchemas": schemas,
                "pagination": {"skip": 0, "limit": 0},
                "requestedGranularity": "record",
            },
        },
        "responseSummary": {"exists": True, "numTotalResults": number},
        "response": {
            "resultSets": [{"id": dataset, "setType": "dataset", "exists": True, "resultsCount": number, "results": []}]
        },
    }
    before, after = json.dumps(head, ensure_ascii=False).split("[]", 1)
    origin = {"source": source, "sourceReference": reference, "version": version}
    yield f"{before}[\n".encode()
    comma = b""
    for piece in pieces(rows, VARIANTS_AT_A_TIME):
        yield comma
        yield lines(_variants(piece, assembly, json.dumps(origin, ensure_ascii=False)[1:-1]), ",\n")[:-2]
        comma = b",\n"
    yield f"\n]{after}\n".encode()


def _variants(rows: pl.DataFrame, assembly: str, origin: str) -> pl.DataFrame:
    """Each variant as JSON. Every text in it is a number, alleles, or a label, none of which has to be escaped."""
    there = [c for c in ("AF", *COUNTS) if rows[c].null_count() < len(rows)]
    chromosome, position, ref, alt, variant_id = map(pl.col, ("CHROM", "POS", "REF", "ALT", "ID"))
    numbers = [_text(f',"{FIELDS[c]}":', pl.col(c)) for c in there]
    own = _text('{"population":"', pl.col("POPULATION"), '"', *numbers, "}")
    each = rows.select("variant", "CHROM", "POS", "REF", "ALT", "VT", "ID", own.alias("own"), pl.lit(1).alias("of"))
    if each["variant"].n_unique() < len(each):
        place = pl.col("CHROM", "POS", "REF", "ALT", "VT", "ID").first()
        joined = pl.col("own").str.join(","), pl.col("of").sum()
        each = each.group_by("variant", maintain_order=True).agg(place, *joined)
    each = each.with_columns(chromosome.replace_strict(REFSEQ[assembly]).alias("accession"))
    accession = pl.col("accession")
    single = (ref.str.len_bytes() == 1) & (alt.str.len_bytes() == 1)
    hgvs = pl.when(single).then(_text('"genomicHGVSId":"', accession, ":g.", position, ref, ">", alt, '"'))
    known = variant_id.str.contains("^rs[0-9]+$")
    dbsnp = pl.when(known).then(_text('"variantAlternativeIds":[{"id":"dbSNP:', variant_id, '"}]'))
    return each.select(
        _text(
            '{"variantInternalId":"', chromosome, ":", position, ":", ref, ":", alt, '","identifiers":{',
            pl.concat_str(hgvs, dbsnp, separator=",", ignore_nulls=True),
            '},"variation":{"variantType":"', pl.col("VT"), '","referenceBases":"', ref, '","alternateBases":"', alt,
            '","location":{"type":"SequenceLocation","sequence_id":"refseq:', accession,
            '","interval":{"type":"SequenceInterval","start":{"type":"Number","value":', position - 1,
            '},"end":{"type":"Number","value":', position - 1 + ref.str.len_bytes(),
            '}}}},"frequencyInPopulations":[{', origin, ',"numberOfPopulations":', pl.col("of"),
            ',"frequencies":[', pl.col("own"), '],"populations":[', pl.col("own"), "]}]}",
        )
    )  # fmt: skip


def _text(*parts: str | pl.Expr) -> pl.Expr:
    """Texts and columns, one after the other."""
    return pl.concat_str([pl.lit(part) if isinstance(part, str) else part for part in parts])
