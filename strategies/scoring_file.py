"""Scoring files of the PGS Catalog, format 2.0, harmonised or not, as panels with weights [1].

A score counts the effect allele: a variant's alternate allele is the effect allele, its reference the other one. The
file does not say which of them is the genome's reference, so a site's entry stands for it either way round; one that
is palindromic (A/T, C/G) is then taken on the forward strand, as the Catalog's harmonised files give it and plink2
takes it. Where a site without an entry declares that everybody has the reference, only its genome says which that is.

A panel adds weights times copies. Lines that say anything else are set aside, each for a reason that is counted.

[1] Lambert et al.: The Polygenic Score Catalog, Nature Genetics 53 (2021); www.pgscatalog.org/downloads.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from strategies.errors import UsageError
from strategies.variants import MOST_VARIANTS, WEIGHT, Panel, Variant, chromosome, weight

STARTS = ("###PGS CATALOG SCORING FILE", "#format_version", "#pgs_id", "#pgs_name")

BUILDS = {"GRCh37": "GRCh37", "hg19": "GRCh37", "GRCh38": "GRCh38", "hg38": "GRCh38"}

NOT_ADDITIVE = {
    "is_haplotype": "haplotype",
    "is_diplotype": "diplotype",
    "is_interaction": "interaction",
    "is_dominant": "dominant",
    "is_recessive": "recessive",
}
"""Columns that say of a line that it does not add a weight for each copy."""

DOSAGES = ("dosage_0_weight", "dosage_1_weight", "dosage_2_weight")

NEEDED = ("effect_allele", "effect_weight")


class _SetAsideError(Exception):
    """Why a line is no variant of the panel."""


def is_one(text: bytes) -> bool:
    """Whether a file starts as scoring files do."""
    return text.startswith(tuple(s.encode() for s in STARTS))


def panel(text: bytes, assembly: str, where: str) -> Panel:
    """The additive autosomal variants of a scoring file.

    Raises:
        UsageError: if it is in another build, its table is malformed, or no line is left.
    """
    lines = text.decode("utf-8").splitlines()
    facts = dict(line.lstrip("#").split("=", 1) for line in lines if line.startswith("#") and "=" in line)
    rows = [line.split("\t") for line in lines if line and not line.startswith("#")]
    header = tuple(rows[0]) if rows else ()
    if not set(NEEDED) <= set(header) or len(set(header)) != len(header):
        raise UsageError(
            "A scoring file's table starts with the names of its columns, effect_allele and effect_weight among them.",
            f"{where}: {' '.join(header)[:80]!r}",
            "download the file again from www.pgscatalog.org.",
        )
    if len(rows) - 1 > MOST_VARIANTS:
        raise UsageError(f"A panel holds at most {MOST_VARIANTS} variants.", f"{where}: {len(rows) - 1}", "split it.")
    place = _place(facts, header, assembly, where)
    variants: dict[tuple[str, int, str, str], Variant] = {}
    aside: Counter[str] = Counter()
    for number, cells in enumerate(rows[1:], start=2):
        if len(cells) > len(header):
            raise UsageError(
                "A scoring file's lines have a cell for each column.",
                f"{where}, line {number} of the table: {len(cells)} cells, {len(header)} columns",
                "download the file again.",
            )
        line = dict(zip(header, (cell.strip() for cell in cells), strict=False))
        try:
            variant = _variant(line, place)
        except _SetAsideError as reason:
            aside[str(reason)] += 1
            continue
        if variant.key in variants:
            raise UsageError(
                "The variants of a scoring file are distinct.",
                f"{where}, line {number} of the table: {variant} once more",
                "remove one of the two, or add their weights up.",
            )
        variants[variant.key] = variant
    if not variants:
        raise UsageError(
            "A scoring file has lines that add a weight for each copy of an allele.",
            f"{where}: " + (", ".join(f"{n} {reason}" for reason, n in sorted(aside.items())) or "no line"),
            "take another score.",
        )
    return Panel(
        assembly,
        tuple(variants.values()),
        oriented=False,
        states=frozenset({WEIGHT}),
        set_aside=dict(sorted(aside.items())),
    )


def _place(facts: Mapping[str, str], header: tuple[str, ...], assembly: str, where: str) -> tuple[str, str]:
    """The columns that hold chromosome and position in the study's build."""
    written, harmonised = BUILDS.get(facts.get("genome_build", "")), BUILDS.get(facts.get("HmPOS_build", ""))
    for build, columns in ((harmonised, ("hm_chr", "hm_pos")), (written, ("chr_name", "chr_position"))):
        if build == assembly and set(columns) <= set(header):
            return columns
    stated = {"genome_build": facts.get("genome_build"), "HmPOS_build": facts.get("HmPOS_build")}
    raise UsageError(
        "A scoring file has positions in the study's assembly.",
        f"{where}: {', '.join(f'{k} {v}' for k, v in stated.items() if v) or 'no build'}; the study is {assembly}",
        f"download the file that is harmonised to {assembly}.",
    )


def _variant(line: Mapping[str, str], place: tuple[str, str]) -> Variant:
    for column, reason in NOT_ADDITIVE.items():
        if line.get(column, "").lower() in ("true", "1", "yes"):
            raise _SetAsideError(reason)
    if any(line.get(column) for column in DOSAGES):
        raise _SetAsideError("a weight for each dosage")
    try:
        each = weight(line["effect_weight"])
    except (KeyError, ValueError):
        raise _SetAsideError("no weight") from None
    name, position = chromosome(line.get(place[0], "")), line.get(place[1], "")
    if name is None or not (position.isascii() and position.isdigit() and 0 < int(position[:11]) < 2**31):
        raise _SetAsideError("no position")
    if not name.isdigit():
        raise _SetAsideError("not on an autosome")  # where copies depend on sex, and on the score's own convention
    effect = line.get("effect_allele", "").upper()
    other = (line.get("other_allele") or line.get("hm_inferOtherAllele", "")).upper()
    if not other:
        raise _SetAsideError("no other allele")
    if "/" in other:
        raise _SetAsideError("several other alleles")
    if not effect or effect.strip("ACGT") or other.strip("ACGT") or effect == other:
        raise _SetAsideError("alleles that are no sequences")
    frequency = None
    try:
        stated = float(line.get("allelefrequency_effect", ""))
        frequency = stated if 0 <= stated <= 1 else None
    except ValueError:
        pass
    return Variant(name, int(position), line.get("rsID") or ".", other, effect, frequency, None, each)
