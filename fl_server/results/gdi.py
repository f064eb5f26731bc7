"""Allele frequencies as GDI nodes exchange them: Parquet files of eleven columns, and an aggregated VCF.

Formats: GenomicDataInfrastructure/gdi-mini-node (parquet-writer, data/README) and gdi-node-standalone (docs: package
format, INFO field naming). Only populations of their grammar are written: `Total`, a country, a sex, or both (FI_M).
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Sequence

import polars as pl
import pyarrow as pa
import pyarrow.parquet

from fl_server.results.populations import COUNTS, TOTAL, lines, pieces
from strategies.variants import CHROMOSOMES

POPULATION = re.compile(r"Total|[A-Z]{2}(?:_[MF])?|[MF]")

SCHEMA = pa.schema(
    [
        ("POS", pa.int32()),
        ("REF", pa.string()),
        ("ALT", pa.string()),
        ("VT", pa.string()),
        ("POPULATION", pa.string()),
        ("AF", pa.float64()),
        ("AC", pa.int32()),
        ("AC_HOM", pa.int32()),
        ("AC_HET", pa.int32()),
        ("AC_HEMI", pa.int32()),
        ("AN", pa.int32()),
    ]
)
"""POS counts from 0 here, unlike in a VCF."""

BLOCK = 10_000_000
"""Positions in one Parquet file."""

INFO = (
    ("AF", "", "A", "Float", "AF", "Frequency of the alternate allele: AC / AN"),
    ("AC", "", "A", "Integer", "AC", "Number of alternate alleles"),
    ("AC", "_Hom", "A", "Integer", "AC_HOM", "Number of alternate alleles in people with two of them"),
    ("AC", "_Het", "A", "Integer", "AC_HET", "Number of alternate alleles in people with one of two"),
    ("AC", "_Hemi", "A", "Integer", "AC_HEMI", "Number of alternate alleles in people with one copy"),
    ("AN", "", "1", "Integer", "AN", "Number of alleles observed"),
)
"""Metric, qualifier, Number, Type, column and meaning; a population's name stands between metric and qualifier."""

VARIANTS_AT_A_TIME = 5_000

NOISED = (
    "AC and AN carry calibrated noise: AN is rounded, AC rounded and held from 0 to AN, and AF is their quotient; "
    "how many alleles lie in homozygous people is not known"
)


def allowed(rows: pl.DataFrame) -> pl.DataFrame:
    """Those rows whose population the grammar knows."""
    known = [name for name in rows["POPULATION"].unique().to_list() if POPULATION.fullmatch(name)]
    return rows.filter(pl.col("POPULATION").is_in(known))


def parquet(rows: pl.DataFrame) -> Iterator[tuple[str, bytes]]:
    """Name and content of each Parquet file: one for every 10 Mb of a chromosome that holds a variant.

    Args:
        rows: as `populations.rows` gives them, of allowed populations.
    """
    rows = rows.with_columns(pl.col("POS") - 1)
    cut = rows.select(pl.struct("CHROM", pl.col("POS") // BLOCK).rle().struct.unnest()).unnest("value")
    start = 0
    order = pyarrow.parquet.SortingColumn.from_ordering(SCHEMA, [("POS", "ascending")])
    for length, chromosome, block in cut.select("len", "CHROM", "POS").iter_rows():
        table = rows[start : start + length].select(SCHEMA.names).to_arrow().cast(SCHEMA)
        out = io.BytesIO()
        pyarrow.parquet.write_table(
            table, out, compression="zstd", sorting_columns=order, write_page_index=True, write_page_checksum=True
        )
        name = {"MT": "M"}.get(chromosome, chromosome)
        yield f"allele-freq-chr{name}.{block}.parquet", out.getvalue()
        start += length


def vcf(rows: pl.DataFrame, assembly: str, source: str, noised: bool) -> Iterator[bytes]:
    """An aggregated VCF, in pieces of text.

    Args:
        rows: as `populations.rows` gives them, of allowed populations.
        assembly: GRCh37, whose chromosomes are 1 and MT, or GRCh38, where they are chr1 and chrM.
        source: what made it.
        noised: whether AC and AN carry noise.
    """
    labels = sorted(rows["POPULATION"].unique().to_list(), key=lambda name: (name != TOTAL, name))
    there = {c for c in COUNTS if rows[c].null_count() < len(rows)} | {"AF"}
    metrics = [metric for metric in INFO if metric[4] in there]
    contigs = set(rows["CHROM"].unique().to_list())
    yield "\n".join(
        [
            "##fileformat=VCFv4.3",
            f"##source={source}",
            f"##reference={assembly}",
            *(f"##contig=<ID={_contig(c, assembly)},assembly={assembly}>" for c in CHROMOSOMES if c in contigs),
            *(
                f'##INFO=<ID={_field(metric, mark, label)},Number={number},Type={type_},Description="{words}'
                f'{_of(label)}">'
                for label in labels
                for metric, mark, number, type_, _, words in metrics
            ),
            *([f"##privacy={NOISED}"] if noised else []),
            "#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\n",
        ]
    ).encode()
    for piece in pieces(rows, VARIANTS_AT_A_TIME):
        yield _lines(piece, labels, metrics, assembly)


def _lines(rows: pl.DataFrame, labels: list[str], metrics: Sequence[tuple[str, ...]], assembly: str) -> bytes:
    named = pl.col("ID").str.contains(r"^[^\s;,]+$")
    contig = pl.col("CHROM").replace_strict({c: _contig(c, assembly) for c in CHROMOSOMES})
    out = rows.unique("variant", keep="first", maintain_order=True).select(
        "variant", contig, "POS", pl.when(named).then("ID").otherwise(pl.lit(".")).alias("ID"), "REF", "ALT"
    )
    for label in labels:
        values = [
            pl.concat_str(pl.lit(f"{_field(metric, mark, label)}="), pl.col(column))
            for metric, mark, _, _, column, _ in metrics
        ]
        own = rows.filter(pl.col("POPULATION") == label)
        text = own.select("variant", pl.concat_str(values, separator=";", ignore_nulls=True).alias(label))
        if len(own) == len(out):
            out = out.with_columns(text[label])
        else:
            out = out.join(text, on="variant", how="left", maintain_order="left")
    info = pl.concat_str(labels, separator=";", ignore_nulls=True)
    columns = ["CHROM", "POS", "ID", "REF", "ALT", pl.lit(".").alias("QUAL"), pl.lit(".").alias("FILTER"), info]
    return lines(out.select(pl.concat_str(columns, separator="\t")), "\n")


def _contig(chromosome: str, assembly: str) -> str:
    if assembly == "GRCh37":
        return chromosome
    return "chrM" if chromosome == "MT" else f"chr{chromosome}"


def _field(metric: str, qualifier: str, label: str) -> str:
    """An INFO field's name: AC, AC_Hom, AC_FI_M, AC_FI_M_Hom."""
    return metric + ("" if label == TOTAL else f"_{label}") + qualifier


def _of(label: str) -> str:
    return "" if label == TOTAL else f", in {label}"
