"""What this package makes of every file of the hts-specs and htslib corpora, beside bcftools, plink2 and cyvcf2.

`python -m tests.references.vcf_outcomes` writes `vcf_outcomes.tsv` anew; `test_vcf_corpus.py` asserts that it is
current. Others' columns are those of the corpus' own `baseline.tsv`.
"""

from __future__ import annotations

import csv
from pathlib import Path

from fl_client.readers.vcf import Vcf
from strategies.errors import DataError

ROOT = Path(__file__).parents[2]
CORPUS = ROOT.parent / "shared" / "data" / "vcf"
TABLE = Path(__file__).with_suffix(".tsv")
OTHERS = ("bcftools_rc", "bcftools_records", "plink2_rc", "cyvcf2_records")


def files() -> list[Path]:
    return sorted(p for p in CORPUS.rglob("*") if p.name.endswith((".vcf", ".vcf.gz", ".bcf")))


def must(name: str) -> str:
    return "fail" if "/failed/" in name else "pass" if "/passed/" in name else "-"


def outcome(path: Path) -> str:
    try:
        calls = Vcf.open(path)
    except DataError as error:
        return f"refused: {error.rule}"
    return f"read: {len(calls.index)} variants, {len(calls.people)} people"


def text() -> str:
    with (CORPUS / "baseline.tsv").open(newline="") as file:
        others = {row["file"]: row for row in csv.DictReader(file, delimiter="\t")}
    out = ["\t".join(("file", "must", "genosum", *OTHERS))]
    for path in files():
        name = path.relative_to(CORPUS).as_posix()
        row = others.get(name, {})
        out.append("\t".join((name, must(name), outcome(path), *(row.get(column, "") for column in OTHERS))))
    return "\n".join(out) + "\n"


def summary(table: str) -> str:
    """The table's counts as the lines of a table in Markdown: files that each tool takes without an error."""
    rows = list(csv.DictReader(table.splitlines(), delimiter="\t"))
    out = ["| files that | number | genosum reads | bcftools | plink2 | cyvcf2 |", "|---|---|---|---|---|---|"]
    for kind, words in (("fail", "must fail"), ("pass", "must pass"), ("-", "are htslib's own")):
        here = [row for row in rows if row["must"] == kind]
        taken = (
            sum(row["genosum"].startswith("read") for row in here),
            sum(row["bcftools_rc"] == "0" for row in here),
            sum(row["plink2_rc"] == "0" for row in here),
            sum(row["cyvcf2_records"] not in ("ERR", "") for row in here),
        )
        out.append(f"| {words} | {len(here)} | {' | '.join(map(str, taken))} |")
    return "\n".join(out)


if __name__ == "__main__":
    TABLE.write_text(text(), encoding="utf-8")
    print(summary(TABLE.read_text(encoding="utf-8")))
