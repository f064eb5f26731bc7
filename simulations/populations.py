"""Synthetic countries: made-up people with the shape of the real sites, to develop a study against.

Allele frequencies drift between countries by the Balding-Nichols model [1]; genotypes are in Hardy-Weinberg proportions
and independent of each other; columns are drawn within their public ranges, independent of genotypes. Nothing in them
comes from a person, and nothing can be learnt from them but whether a study runs.

[1] Balding, Nichols: A method for quantifying differentiation between populations, Genetica 96 (1995).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tomli_w
from numpy.typing import NDArray

from strategies.analysis import Range
from strategies.catalogue import CATALOGUE
from strategies.cohort import Genotypes
from strategies.errors import UsageError
from strategies.federation import Federation
from strategies.study import Study
from strategies.variants import Panel, Variant

DRIFT = 0.01
"""Fst between the synthetic countries; that between European populations is about this."""

PLAIN_VARIANTS = 1000
MOST_STEPS = 2
"""A range of whole numbers this short is taken for categories, such as sex 1 or 2."""

_BED_OF_ALTERNATES = np.array([0b11, 0b10, 0b00, 0b01], dtype=np.uint8)
"""PLINK 1 code of 0, 1, 2 and no observed copies of A1, which is written as the alternate allele."""


def twin(federation: Federation, folder: Path, study: Study | None, seed: int) -> None:
    """Write a folder of synthetic sites that has the federation's names, sizes and columns.

    Args:
        federation: whose nodes are imitated; each states its public number of people and its public columns.
        folder: a new folder; gets `sites.toml`, a panel, and one folder a site.
        study: if given, its panels are the variants; otherwise a made-up panel is.
        seed: the same seed gives the same people.

    Raises:
        UsageError: if the folder exists.
    """
    if folder.exists():
        raise UsageError("Synthetic sites are written into a new folder.", f"{folder} exists", "name another.")
    panel = _panel(study, np.random.default_rng([seed, 0]))
    folder.mkdir(parents=True)
    (folder / "panel.tsv").write_bytes(panel.encode())
    columns: dict[str, Any] = {}
    sites = {}
    for number, (name, node) in enumerate(sorted(federation.nodes.items()), start=1):
        rng = np.random.default_rng([seed, number])
        home = folder / name
        home.mkdir()
        people = node.people or 200
        write_bed(home / "genotypes", panel, genotypes(panel, people, rng), _identifiers(people))
        write_table(
            home / "people.tsv",
            _identifiers(people),
            {c: values(d.shape, people, rng) for c, d in node.columns.items()},
        )
        columns |= {c: d.shape.plain() for c, d in node.columns.items()}
        sites[name] = {
            "country": node.country, "own_total": node.own_total, "people": people,
            "dataset": {
                "identifier": f"GDI-{node.country}-TWIN-{number:04d}", "assembly": panel.assembly, "synthetic": True,
                "people": f"{name}/people.tsv", "genotypes": f"{name}/genotypes.bed",
            },
        }  # fmt: skip
    policy = {
        "coordinators": ["demo"], "purposes": ["scientific_research"], "epsilon": 10.0, "delta": 1e-5,
        "analyses": {a.analysis: [b.regime.value for b in CATALOGUE if b.analysis == a.analysis] for a in CATALOGUE},
        "columns": columns,
    }  # fmt: skip
    (folder / "sites.toml").write_text(
        "# Synthetic people; nothing here comes from a person.\n" + tomli_w.dumps({"policy": policy, "sites": sites}),
        encoding="utf-8",
    )


def _panel(study: Study | None, rng: np.random.Generator) -> Panel:
    if study is None:
        letters = [("A", "G"), ("C", "T"), ("G", "A"), ("T", "C")]
        variants = [Variant("22", 16_000_000 + 10_000 * i, f"sim{i}", *letters[i % 4]) for i in range(PLAIN_VARIANTS)]
        return Panel("GRCh37", tuple(variants))
    distinct = {v.key: v for panel in study.panels.values() for v in panel.variants}
    ordered = sorted(distinct.values(), key=lambda v: (v.chromosome, v.position, v.alternate))
    return Panel(study.assembly, tuple(ordered))


def genotypes(panel: Panel, people: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    """(M, N) alternate allele counts of one synthetic country, 1 in 200 of them missing (3)."""
    known = np.array([np.nan if v.frequency is None else v.frequency for v in panel.variants])
    shared = np.random.default_rng(len(panel)).uniform(0.05, 0.95, len(panel))  # the same in every country
    ancestral = np.clip(np.where(np.isnan(known), shared, known), 0.01, 0.99)
    spread = (1 - DRIFT) / DRIFT
    local = rng.beta(ancestral * spread, (1 - ancestral) * spread)
    codes = rng.binomial(2, local[:, None], size=(len(panel), people)).astype(np.uint8)
    codes[rng.random(codes.shape) < 0.005] = 3
    return codes


def values(span: Range, people: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """(N,) values of a column: whole numbers where the range is a short one of whole numbers, else bell-shaped."""
    low, high = span.minimum, span.maximum
    if low == int(low) and high == int(high) and high - low <= MOST_STEPS:
        return rng.integers(int(low), int(high) + 1, people).astype(np.float64)
    drawn = rng.normal((low + high) / 2, (high - low) / 8, people)
    return np.clip(np.round(drawn, 4), low, high)


def _identifiers(people: int) -> list[str]:
    return [f"SYN{i:07d}" for i in range(people)]


def write_table(path: Path, identifiers: list[str], columns: Mapping[str, NDArray[np.float64]]) -> None:
    """A people table: identifiers and numeric columns, empty where NaN."""
    lines = ["\t".join(["person", *columns])]
    for i, person in enumerate(identifiers):
        lines.append("\t".join([person, *("" if np.isnan(v[i]) else f"{v[i]:.10g}" for v in columns.values())]))
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def write_bed(stem: Path, panel: Panel, codes: NDArray[np.uint8], identifiers: list[str]) -> None:
    """PLINK 1 files (.bed, .bim, .fam) of (M, N) alternate allele counts; A1 is the alternate allele."""
    stem.with_suffix(".bed").write_bytes(b"\x6c\x1b\x01" + bed_of(codes).tobytes())
    write_variants(stem, panel, identifiers)


def bed_of(codes: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(M, ceil(N / 4)) bytes of a .bed of (M, N) alternate allele counts."""
    return Genotypes.pack(_BED_OF_ALTERNATES[codes]).packed


def write_variants(stem: Path, panel: Panel, identifiers: list[str]) -> None:
    """The .bim and .fam that belong to a .bed."""
    bim = [f"{v.chromosome}\t{v.identifier}\t0\t{v.position}\t{v.alternate}\t{v.reference}\n" for v in panel.variants]
    stem.with_suffix(".bim").write_text("".join(bim), encoding="utf-8")
    stem.with_suffix(".fam").write_text("".join(f"0\t{p}\t0\t0\t0\t-9\n" for p in identifiers), encoding="utf-8")
