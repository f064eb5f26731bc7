"""Association tables in the GWAS Catalog's format: GWAS-SSF 1.x, a gzipped TSV and a YAML file about it.

Specification: EBISPOT, GWAS-SSF: A GWAS Summary Statistics Format, versions 1.0.2 and 1.1.0, tables 1 and 2. What both
versions ask for is written here; variants without an estimate, among them all that were withheld, are left out.
"""

from __future__ import annotations

import datetime
import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl
import yaml

from strategies.analysis import Column

MANDATORY = (
    "chromosome",
    "base_pair_location",
    "effect_allele",
    "other_allele",
    "beta",
    "standard_error",
    "effect_allele_frequency",
    "p_value",
)
"""In this order, before any other column."""

CODES: Mapping[str, int] = {**{str(c): c for c in range(1, 23)}, "X": 23, "Y": 24, "MT": 25}
MISSING = "#NA"
RS_NUMBER = "^rs[0-9]+$"
NAMED = ("chromosome", "position", "id", "ref", "alt")


def frame(table: Mapping[str, Column]) -> pl.DataFrame:
    """The association table (M rows) in the format's columns, without the rows that have no estimate.

    The effect allele is the alternate one. `variant_id` is chromosome, position, reference and alternate allele, joined
    by underscores; `rsid` is null where the panel's identifier is no rs number.
    """
    rows = pl.DataFrame([_series(name, table[name]) for name in (*NAMED, *MANDATORY[4:], "n")])
    rows = rows.filter(pl.all_horizontal(pl.col(*MANDATORY[4:], "n").is_finite()))
    code = pl.col("chromosome").replace_strict(CODES, return_dtype=pl.Int64)
    return rows.select(
        code,
        pl.col("position").alias("base_pair_location"),
        pl.col("alt").alias("effect_allele"),
        pl.col("ref").alias("other_allele"),
        *MANDATORY[4:],
        pl.concat_str(code, "position", "ref", "alt", separator="_").alias("variant_id"),
        pl.when(pl.col("id").str.contains(RS_NUMBER)).then("id").alias("rsid"),
        pl.lit("OA").alias("ref_allele"),
        pl.col("n").cast(pl.Int64),
    )


def _series(name: str, column: Column) -> pl.Series:
    if isinstance(column, tuple):
        return pl.Series(name, column, dtype=pl.String)
    return pl.Series(name, column.astype(np.int64 if name == "position" else np.float64))


def text(rows: pl.DataFrame) -> bytes:
    """The rows as tab-separated lines; a missing value is `#NA`, a float has as many digits as make it exact."""
    return rows.write_csv(separator="\t", null_value=MISSING).encode()


def is_sorted(rows: pl.DataFrame) -> bool:
    """Whether the rows are in the genome's order."""
    return (rows["chromosome"] * 2**31 + rows["base_pair_location"]).is_sorted()


def sidecar(
    rows: pl.DataFrame,
    data: bytes,
    file_name: str,
    assembly: str,
    trait: str,
    covariates: Sequence[str],
    people: int,
    countries: Sequence[str],
    software: str,
    today: datetime.date,
    synthetic: bool = False,
    cases: int | None = None,
) -> bytes:
    """The YAML file about a data file.

    Args:
        rows: what the data file holds.
        data: its bytes, as they lie on disk.
        file_name: its name.
        assembly: GRCh37 or GRCh38.
        trait, covariates: what was regressed on what.
        people: those with trait and covariates.
        countries: of the sites that answered.
        software: name and version.
        today: the day on which this is written.
        synthetic: whether the people are made up.
        cases: of a binary trait.

    Ancestry and genotyping technology are not known to a coordinator: they are `NR`, the Catalog's "not reported".
    """
    kind = "Linear" if cases is None else "Logistic"
    notes = f"{kind} regression over sites in {', '.join(countries)} together; only sums left a site."
    if synthetic:
        notes += " Synthetic data: nobody stands behind them."
    sample: dict[str, Any] = {"sample_size": people, "sample_ancestry_category": ["NR"]}
    sample["case_control_study"] = cases is not None
    if cases is not None:
        sample |= {"case_count": cases, "control_count": people - cases}
    document: dict[str, Any] = {
        "date_metadata_last_modified": today,
        "author_notes": notes,
        "trait_description": [trait],
        "genome_assembly": assembly,
        "coordinate_system": "1-based",
        "genotyping_technology": ["NR"],
        "samples": [sample],
        "sex": "NR",
        "data_file_name": file_name,
        "file_type": "GWAS-SSF v1.0",
        "data_file_md5sum": hashlib.md5(data, usedforsecurity=False).hexdigest(),
        "analysis_software": software,
        "adjusted_covariates": list(covariates),
        "is_harmonised": False,
        "is_sorted": is_sorted(rows),
    }
    if not covariates:
        del document["adjusted_covariates"]
    return yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=120).encode()
