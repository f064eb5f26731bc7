"""The genotype engine beside plink2: `python -m simulations.benchmarks.genotypes [ROW ...]`.

Ours is `fl-simulate`, the whole federated run over the sites of a folder: gate, masks, encoding, answer files written.
plink2 (Debian's, OpenBLAS with one thread for each of its own) has the same people in one file. They run alternately.
Where plink2 takes less than ten seconds, a ratio is of the time after both have started: plink2's less that of
`--write-snplist`, ours less that of the same study over ten variants. Medians of repetitions go to the screen, and with
every single figure to `results/bench/genotypes.json`; `--table` prints that as the README has it.

Components are compared with plink2's randomised method (`approx`), which it advises from 5,000 people on, and which is
the nearer match: its exact one multiplies all pairs of people, and needs gigabytes for 20,000.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import tomli_w

from simulations.benchmarks.data import Countries, demes

REPETITIONS = 3
SHORT_S = 10.0
"""plink2 runs shorter than this are compared after the start."""

OUT = Path(__file__).parents[2] / "results" / "bench"
PLINK2 = ("plink2", "--threads", "2", "--memory", "4000")


@dataclass(frozen=True)
class Row:
    """One comparison.

    Attributes:
        name: on the command line and in the table.
        target: the largest ratio, ours over plink2's, that is aimed at.
        data: builds or finds the data.
        question: the study's question, without name and panel.
        plink2: what plink2 is asked.
    """

    name: str
    target: float
    data: Callable[[], Countries]
    question: Callable[[Countries], dict[str, Any]]
    plink2: Callable[[Countries], Sequence[str]]


def _linear(traits: int) -> Callable[[Countries], dict[str, Any]]:
    return lambda data: {
        "analysis": "association", "regime": "exact",
        "traits": list(data.traits[:traits]), "covariates": list(data.covariates),
    }  # fmt: skip


def _binary(data: Countries) -> dict[str, Any]:
    return {
        "analysis": "association_binary", "regime": "exact",
        "trait": data.binary[0], "covariates": list(data.covariates), "second_stage": 1e-3,
    }  # fmt: skip


def _glm(traits: str) -> Callable[[Countries], Sequence[str]]:
    return lambda data: (
        "--glm", "hide-covar", "--covar-variance-standardize",
        "--pheno", str(data.folder / traits), "--covar", str(data.folder / "covariates.txt"),
    )  # fmt: skip


ROWS = (
    Row("linear-1", 0.35, demes, _linear(1), _glm("trait.txt")),
    Row("linear-20", 0.12, demes, _linear(20), _glm("traits.txt")),
    Row("binary", 0.3, demes, _binary, _glm("cases.txt")),
    Row(
        "pca",
        0.6,
        demes,
        lambda _: {"analysis": "pca", "regime": "exact", "components": 10},
        lambda _: ("--pca", "approx", "10"),
    ),
)


@dataclass(frozen=True)
class Run:
    """One process: wall and processor time in seconds, and the most memory that it held, in MiB."""

    wall_s: float
    cpu_s: float
    peak_mib: float


def measured(command: Sequence[str], **environment: str) -> Run:
    """Run a command to its end.

    Raises:
        RuntimeError: if it fails.
    """
    started = time.perf_counter()
    child = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env={**os.environ, **environment}
    )
    assert child.stderr is not None
    said = child.stderr.read()
    _, status, used = os.wait4(child.pid, 0)
    wall = time.perf_counter() - started
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise RuntimeError(f"{command[0]} failed: {said.decode(errors='replace')[-2000:]}")
    return Run(wall, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024)


def study(row: Row, panel: str, folder: Path) -> Path:
    """The study file of a row over a panel of its data."""
    data = row.data()
    document = {
        "title": row.name, "purpose": "scientific_research", "assembly": "GRCh38",
        "columns": data.ranges, "panels": {"panel": {"file": str(data.folder / panel)}},
        "question": [{"name": "question", "panel": "panel", **row.question(data)}],
    }  # fmt: skip
    path = folder / f"{row.name}-{Path(panel).stem}.toml"
    path.write_text(tomli_w.dumps(document), encoding="utf-8")
    return path


def ours(study: Path, data: Countries) -> Run:
    """`fl-simulate`, from the first to the last instruction."""
    with tempfile.TemporaryDirectory(prefix="genosum-bench-") as folder:
        simulated = [sys.executable, "-m", "simulations.cli", str(study)]
        return measured([*simulated, "--sites", str(data.folder), "--out", f"{folder}/out"])


def compared(row: Row) -> dict[str, Any]:
    """Every figure of one comparison."""
    data = row.data()
    runs: dict[str, list[Run]] = {"ours": [], "plink2": [], "ours_start": [], "plink2_start": []}
    with tempfile.TemporaryDirectory(prefix="genosum-bench-") as folder:
        whole, ten = (study(row, panel, Path(folder)) for panel in ("panel.tsv", "ten.tsv"))
        ours(ten, data)  # loops that are not compiled yet are compiled once
        pooled = [*PLINK2, "--bfile", str(data.pooled), "--out", f"{folder}/out"]
        for _ in range(REPETITIONS):
            runs["ours"].append(ours(whole, data))
            runs["plink2"].append(measured([*pooled, *row.plink2(data)], OPENBLAS_NUM_THREADS="1"))
            runs["ours_start"].append(ours(ten, data))
            runs["plink2_start"].append(measured([*pooled, "--write-snplist"]))
    wall = {name: statistics.median(r.wall_s for r in some) for name, some in runs.items()}
    short = wall["plink2"] < SHORT_S
    after = {name: wall[name] - wall[f"{name}_start"] * short for name in ("ours", "plink2")}
    return {
        "row": row.name,
        "people": sum(data.sizes.values()),
        "sites": len(data.sizes),
        "variants": data.variants,
        "target": row.target,
        "ratio": after["ours"] / after["plink2"],
        "after_the_start": short,
        "wall_s": wall,
        "cpu_s": {name: statistics.median(r.cpu_s for r in some) for name, some in runs.items()},
        "peak_mib": {name: max(r.peak_mib for r in some) for name, some in runs.items()},
        "runs": {name: [asdict(r) for r in some] for name, some in runs.items()},
    }


def _line(of: dict[str, Any]) -> str:
    wall, peak = of["wall_s"], of["peak_mib"]
    return (
        f"{of['row']:12}{of['ratio']:8.3f}{of['target']:8.2f}{wall['ours']:9.2f}{wall['plink2']:9.2f}"
        f"{wall['ours_start']:9.2f}{wall['plink2_start']:9.2f}{of['cpu_s']['ours']:9.2f}{of['cpu_s']['plink2']:9.2f}"
        f"{peak['ours']:8.0f}{peak['plink2']:8.0f}"
    )


def table(figures: Sequence[dict[str, Any]]) -> str:
    """The README's table: medians of repetitions, seconds and MiB, ours beside plink2's."""
    lines = ["| | ratio | aimed at | wall s | processor s | MiB |", "|---|---:|---:|---:|---:|---:|"]
    for of in figures:
        pairs = [f"{of[key]['ours']:.1f} / {of[key]['plink2']:.1f}" for key in ("wall_s", "cpu_s")]
        memory = f"{of['peak_mib']['ours']:.0f} / {of['peak_mib']['plink2']:.0f}"
        lines.append(f"| {of['row']} | {of['ratio']:.2f} | {of['target']:.2f} | {' | '.join(pairs)} | {memory} |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Print a line for each row, and write the file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("rows", nargs="*", metavar="ROW", help=", ".join(row.name for row in ROWS))
    parser.add_argument("--table", action="store_true", help="measure nothing, and print the file as Markdown")
    given = parser.parse_args(arguments)
    known = {row.name: row for row in ROWS}
    path = OUT / "genotypes.json"
    before = json.loads(path.read_text()) if path.exists() else []
    if given.table:
        print(table(before))
        return
    print(f"{'':12}{'ratio':>8}{'target':>8}{'ours s':>9}{'plink2':>9}{'start':>9}{'start':>9}{'cpu':>9}{'cpu':>9}"
          f"{'MiB':>8}{'MiB':>8}")  # fmt: skip
    OUT.mkdir(parents=True, exist_ok=True)
    figures = {one["row"]: one for one in before}
    for name in given.rows or known:
        figures[name] = compared(known[name])
        print(_line(figures[name]), flush=True)
        path.write_text(json.dumps([figures[n] for n in known if n in figures], indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
