"""Allele frequencies by population, as nodes exchange them: what the GDI and Beacon files are written of."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from itertools import pairwise

import numpy as np
import polars as pl

from fl_server.conduct import Result
from strategies.analysis import Column
from strategies.privacy import Regime
from strategies.variants import CHROMOSOMES

TOTAL = "Total"

COUNTS = ("AC", "AC_HOM", "AC_HET", "AC_HEMI", "AN")
"""Alleles: alternate ones, those of them in people with two, one of two, and one of one; all that were observed."""

ORDER = {name: i for i, name in enumerate(CHROMOSOMES)}


def rows(result: Result, countries: Mapping[str, str]) -> pl.DataFrame | None:
    """One row a variant and population, in the order of chromosome, POS, REF, ALT and POPULATION.

    The populations are `Total`, the question's groups, and the country of each site, with its groups, where the answer
    is given for each site; sites of one country are added. What is withheld and what nobody was genotyped at is left
    out. Numbers with noise are made coherent: AN is rounded, AC rounded and held within 0 and AN, and AF = AC / AN.

    Args:
        result: an answer.
        countries: site -> country.

    Returns:
        A frame with `variant` (0, 1, ... in this order), CHROM (one of 1 to 22, X, Y, MT), POS (from 1), ID, REF, ALT,
        VT, POPULATION, AF and COUNTS; None where the answer is not one of allele frequencies, or shows none. With
        noise, only AC and AN are known.
    """
    if result.question.analysis.analysis != "allele_frequency":
        return None
    exact = result.question.regime is Regime.EXACT
    frames = []
    tables = [("", result.answer.tables), *((countries[site], one.tables) for site, one in result.by_site.items())]
    for country, answer in tables:
        for name, table in answer.items():
            frames.append(_rows(table, country, name == "populations", exact))
    if not frames:
        return None
    everything = pl.concat(frames)
    key = ["order", "POS", "REF", "ALT", "POPULATION"]
    if len(set(countries[site] for site in result.by_site)) < len(result.by_site):
        # A country of which one site shows nothing shows nothing: null in a sum is not zero.
        added = [pl.when(pl.col(c).null_count() == 0).then(pl.col(c).sum()).alias(c) for c in COUNTS]
        everything = everything.group_by(key, maintain_order=True).agg(pl.col("CHROM", "ID", "VT").first(), *added)
    shown = everything.filter(pl.col("AC").is_not_null() & (pl.col("AN") > 0)).sort(key)
    if not len(shown):
        return None
    variant = (shown.select(pl.struct(key[:4]).rle_id()).to_series()).alias("variant")
    frequency = (pl.col("AC") / pl.col("AN")).alias("AF")
    columns = ["CHROM", "POS", "ID", "REF", "ALT", "VT", "POPULATION", "AF", *COUNTS]
    return shown.with_columns(frequency).select(variant, *columns)


def pieces(rows: pl.DataFrame, variants: int) -> Iterator[pl.DataFrame]:
    """The same rows, with those of so many variants at a time."""
    number = rows["variant"].to_numpy()
    cuts = [*np.searchsorted(number, np.arange(number[0], number[-1] + 1, variants)).tolist(), len(rows)]
    for start, stop in pairwise(cuts):
        yield rows[start:stop]


def lines(texts: pl.DataFrame, end: str) -> bytes:
    """One column of texts as they are, each with its end."""
    out = io.BytesIO()
    texts.write_csv(out, include_header=False, quote_style="never", line_terminator=end)
    return out.getvalue()


def _rows(table: Mapping[str, Column], country: str, grouped: bool, exact: bool) -> pl.DataFrame:
    """One table's rows, with null where nothing is shown."""
    numbers = {name: np.asarray(table[name], dtype=np.float64) for name in ("ac", "an")}
    if exact:
        het, hom, hemi = (np.asarray(table[name], dtype=np.float64) for name in ("het", "hom_alt", "hemi_alt"))
        counts = {"AC": numbers["ac"], "AC_HOM": 2 * hom, "AC_HET": het, "AC_HEMI": hemi, "AN": numbers["an"]}
    else:
        an = np.maximum(np.rint(numbers["an"]), 0)
        unknown = np.full(len(an), np.nan)
        ac = np.clip(np.rint(numbers["ac"]), 0, an)
        counts = {"AC": ac, "AC_HOM": unknown, "AC_HET": unknown, "AC_HEMI": unknown, "AN": an}
    names = {"chromosome": "CHROM", "id": "ID", "ref": "REF", "alt": "ALT"}
    texts = [pl.Series(new, table[old], dtype=pl.String) for old, new in names.items()]
    if grouped:
        label = pl.Series("POPULATION", table["population"], dtype=pl.String)
    else:
        label = pl.Series("POPULATION", [country or TOTAL], dtype=pl.String).new_from_index(0, len(numbers["an"]))
    out = pl.DataFrame(
        [
            *texts,
            label,
            pl.Series("POS", np.asarray(table["position"], dtype=np.int64)),
            _kinds(table["ref"], table["alt"]),
            *(pl.Series(n, c).fill_nan(None).cast(pl.Int64) for n, c in counts.items()),
        ]
    )
    order = pl.col("CHROM").replace_strict(ORDER, return_dtype=pl.Int8).alias("order")
    whole = pl.concat_str(pl.lit(f"{country}_"), "POPULATION") if grouped and country else pl.col("POPULATION")
    return out.with_columns(order, whole.alias("POPULATION"))


def _kinds(references: Column, alternates: Column) -> pl.Series:
    """VT, as GDI's own writer of Parquet files names it: SNP, INDEL or UNKNOWN, after what both alleles share."""
    out = [
        "INDEL" if len(ref) != len(alt) else "SNP" if len(ref) == 1 or _unlike(ref, alt) == 1 else "UNKNOWN"
        for ref, alt in zip(references, alternates, strict=True)
    ]
    return pl.Series("VT", out, dtype=pl.String)


def _unlike(ref: str, alt: str) -> int:
    return sum(a != b for a, b in zip(ref, alt, strict=True))
