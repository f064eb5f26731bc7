"""Compressed texts and GWAS-SSF: read block by block, and held to the standard line by line."""

from __future__ import annotations

import gzip
import re
import struct
import zlib

import numpy as np
import pytest

from fl_server.results import bgzf, gwas_ssf
from strategies.variants import CHROMOSOMES

# -- compression ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, bgzf.BLOCK - 1, bgzf.BLOCK, bgzf.BLOCK + 1, 40 * bgzf.BLOCK + 5])
@pytest.mark.parametrize("random", [True, False])
def test_blocks_hold_the_text_however_it_is_cut(size: int, random: bool) -> None:
    rng = np.random.default_rng(size)
    text = rng.bytes(size) if random else b"0.25\t17\n" * (size // 8) + b"x" * (size % 8)
    packed = bgzf.compressed(text)
    assert gzip.decompress(packed) == text
    cuts = np.sort(rng.integers(0, size + 1, 5)).tolist()
    pieces = [text[a:b] for a, b in zip([0, *cuts], [*cuts, size], strict=True)]
    assert b"".join(bgzf.blocks(pieces)) == packed
    at, seen = 0, b""
    while at < len(packed):  # block by block, by the sizes that they state
        assert packed[at : at + 4] == b"\x1f\x8b\x08\x04"
        assert packed[at + 10 : at + 16] == b"\x06\x00BC\x02\x00"
        length = struct.unpack("<H", packed[at + 16 : at + 18])[0] + 1
        block = zlib.decompress(packed[at + 18 : at + length - 8], -15)
        assert struct.unpack("<2I", packed[at + length - 8 : at + length]) == (zlib.crc32(block), len(block))
        assert len(block) <= 0x10000
        seen, at = seen + block, at + length
    assert seen == text
    assert packed.endswith(bytes.fromhex("1f8b08040000000000ff0600424302001b0003000000000000000000"))


# -- GWAS-SSF ---------------------------------------------------------------------------------------------------------

PATTERNS = {
    "chromosome": r"[1-9]|1\d|2[0-5]",
    "base_pair_location": r"[1-9]\d*",
    "effect_allele": r"[ACGT]+",
    "other_allele": r"[ACGT]+",
    "beta": r"-?\d+(\.\d+)?(e-?\d+)?",
    "standard_error": r"\d+(\.\d+)?(e-?\d+)?",
    "effect_allele_frequency": r"\d+(\.\d+)?(e-?\d+)?",
    "p_value": r"\d+(\.\d+)?(e-?\d+)?",
    "variant_id": r"([1-9]|1\d|2[0-5])_[1-9]\d*_[ACGT]+_[ACGT]+",
    "rsid": r"rs\d+|#NA",
    "ref_allele": r"EA|OA|#NA",
    "n": r"\d+",
}
"""Table 1 of the standard, as far as the columns are ours."""


def faults(text: str) -> list[str]:
    """What the standard's first table has against a file; empty if nothing."""
    lines = text.split("\n")
    header, out = lines[0].split("\t"), []
    if header[:8] != list(PATTERNS)[:8]:
        out.append("the first eight columns")
    out += [f"column {name}" for name in header if name not in PATTERNS]
    if text and not text.endswith("\n"):
        out.append("the last line has no end")
    if out:
        return out
    for number, line in enumerate(lines[1:-1], start=2):
        cells = dict(zip(header, line.split("\t"), strict=True))
        out += [
            f"line {number}, {name}: {value}"
            for name, value in cells.items()
            if not re.fullmatch(PATTERNS[name], value)
        ]
        if not 0 <= float(cells["effect_allele_frequency"]) <= 1 or not 0 <= float(cells["p_value"]) <= 1:
            out.append(f"line {number}: beyond 0 to 1")
    return out


def test_summary_statistics_keep_the_standard() -> None:
    n = len(CHROMOSOMES)
    rng = np.random.default_rng(3)
    columns = {
        "chromosome": CHROMOSOMES,
        "position": np.arange(1, n + 1) * 1_000_000,
        "id": tuple(f"rs{i}" if i % 3 else f"odd {i}" for i in range(n)),
        "ref": ("A",) * (n - 1) + ("ATT",),
        "alt": ("C",) * n,
        "beta": rng.normal(size=n) * 10.0 ** rng.integers(-9, 9, n),
        "standard_error": rng.random(n) * 10.0 ** rng.integers(-9, 9, n),
        "effect_allele_frequency": np.linspace(0, 1, n),
        "p_value": np.concatenate([[0.0, 5e-324, 1e-300, 1.0], rng.random(n - 4)]),
        "n": np.full(n, 1000.0),
    }
    columns["beta"][5] = np.nan
    rows = gwas_ssf.frame(columns)
    text = gwas_ssf.text(rows).decode()
    assert faults(text) == []
    assert len(text.splitlines()) == n
    assert gwas_ssf.is_sorted(rows)
    falling = columns | {"position": columns["position"][::-1].copy()}
    assert gwas_ssf.is_sorted(gwas_ssf.frame(falling)), "by chromosome first"
    assert not gwas_ssf.is_sorted(gwas_ssf.frame(falling | {"chromosome": ("1",) * n}))
    for change in (
        ("\t1000\n", "\t1000.0\n"),
        ("beta\tst", "BETA\tst"),
        ("OA", "A"),
        ("\trs1\t", "\trsx\t"),
        ("C\tA", "c\tA"),
    ):
        assert faults(text.replace(*change, 1)), change
