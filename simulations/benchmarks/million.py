"""One million genomes in 27 countries: `python -m simulations.benchmarks.million`.

Counts of one variant, asked of nodes that are open; counts with Hardy-Weinberg tests and a polygenic score of all
variants, beside plink2 on one file of all the people. Ours is the whole federated run, answer files written; that of
the score ends when every node has its people's standardised scores and a later question has read them. Counts have to
be plink2's exactly; p values, and the score's mean and deviation, as far as plink2 prints them.

Both read 5 GB: from a disk neither can be faster than the disk, so the files are read once before, and what is compared
is the work. As in `genotypes`, a run of plink2 that is shorter than ten seconds is compared after the start.
Figures go to the screen and to `results/bench/million.json`.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

import fl_server.results
from fl_server.conduct import Result
from simulations.benchmarks.data import Countries, million
from simulations.benchmarks.genotypes import OUT, PLINK2, SHORT_S, Run, measured
from simulations.run import conductor
from simulations.sites import prepare
from strategies.analyses.genotype_counts import GenotypeCounts
from strategies.analyses.polygenic_score import PolygenicScore
from strategies.analyses.score_distribution import ScoreDistribution
from strategies.question import Question
from strategies.study import Purpose, Study
from strategies.variants import WEIGHT, Panel

LEAST_SITES = 3
TARGET = {"counts": 0.5, "score": 0.4}
REPETITIONS = {"counts": 3, "score": 1}
START = 10
"""Variants of the study whose time is that of the start."""

PRINTED = 5e-6
"""plink2 prints six digits."""


def study(kind: str, panel: Panel) -> Study:
    """Counts of a panel, or its score."""
    asked: tuple[Question, ...] = (Question("counts", GenotypeCounts("panel")),)
    if kind == "score":
        asked = (
            Question("score", PolygenicScore("panel")),
            Question("people", ScoreDistribution("score.score")),
        )
    return Study(kind, Purpose.SCIENTIFIC_RESEARCH, panel.assembly, LEAST_SITES, {}, {"panel": panel}, asked)


def weighted(panel: Panel) -> Panel:
    """The panel with made-up weights."""
    weights = np.random.default_rng(13).normal(size=len(panel)).round(6)
    variants = tuple(v._replace(weight=float(w)) for v, w in zip(panel.variants, weights, strict=True))
    return Panel(panel.assembly, variants, states=frozenset({WEIGHT}))


def asked(data: Countries, tasks: Sequence[str], folder: Path) -> list[dict[str, Any]]:
    """Each task in turn, "counts:10" for counts of the first ten variants, over nodes that stay open.

    Returns:
        for each, wall and processor seconds, the bytes that left the sites, and seconds since the sites were described.
    """
    out, started = [], time.perf_counter()
    workspace, panel = prepare(data.folder, folder / "nodes"), weighted(_panel(data))
    for number, task in enumerate(tasks):
        kind, _, variants = task.partition(":")
        question = study(kind, panel[: int(variants)])
        begun, busy = time.perf_counter(), time.process_time()
        results = conductor(question, workspace, folder / f"run{number}").run()
        fl_server.results.write(question, workspace.federation, results, folder / f"answer{number}")
        out.append(
            {
                "task": task,
                "seconds": time.perf_counter() - begun,
                "cpu_s": time.process_time() - busy,
                "from_start_s": time.perf_counter() - started,
                "bytes": sum(sum(result.statement.bytes_left.values()) for result in results),
                "withheld": results[0].answer.withheld,
                "answer": _numbers(results[0]),
            }
        )
    return out


def _numbers(result: Result) -> dict[str, Any]:
    """What is held against plink2."""
    facts = {name: result.answer.facts[name] for name in ("mean", "standard_deviation") if name in result.answer.facts}
    table = result.answer.tables.get("frequencies", {})
    columns = ("hom_ref", "het", "hom_alt", "missing", "hwe_p")
    return {**facts, **{name: np.asarray(table[name]).tolist() for name in columns if name in table}}


def _panel(data: Countries) -> Panel:
    return Panel.read(data.folder / "panel.tsv", "GRCh38")


def _ours(data: Countries, tasks: Sequence[str]) -> tuple[Run, list[dict[str, Any]]]:
    """The tasks in a process of their own."""
    shape = [str(sum(data.sizes.values())), str(data.variants), str(len(data.sizes))]
    with tempfile.TemporaryDirectory(prefix="genosum-million-") as folder:
        path = Path(folder) / "figures.json"
        run = measured([sys.executable, "-m", __spec__.name, "--child", *shape, str(path), *tasks])
        return run, json.loads(path.read_text(encoding="utf-8"))


def _child(arguments: Sequence[str]) -> None:
    data = million(*map(int, arguments[:3]))
    with tempfile.TemporaryDirectory(prefix="genosum-million-") as folder:
        figures = asked(data, arguments[4:], Path(folder))
    Path(arguments[3]).write_text(json.dumps(figures), encoding="utf-8")


def _read_once(files: Sequence[Path]) -> None:
    buffer = bytearray(1 << 24)
    for path in files:
        with path.open("rb", buffering=0) as file:
            while file.readinto(buffer):
                pass


def _wrong(kind: str, answer: Mapping[str, Any], theirs: Path) -> int:
    """Numbers that are not plink2's."""
    if kind == "score":
        scores = pl.read_csv(theirs.with_suffix(".sscore"), separator="\t")["SCORE1_SUM"]
        pairs = ((answer["mean"], scores.mean()), (answer["standard_deviation"], scores.std(ddof=0)))
        return sum(abs(our - their) > 1e-4 * answer["standard_deviation"] for our, their in pairs)
    counts = pl.read_csv(theirs.with_suffix(".gcount"), separator="\t")
    names = ("HOM_REF_CT", "HET_REF_ALT_CTS", "TWO_ALT_GENO_CTS", "MISSING_CT")
    ours = np.array([answer[name] for name in ("hom_ref", "het", "hom_alt", "missing")], dtype=np.float64)
    shown = ~np.isnan(ours[0])  # a small cell withholds its variant
    wrong = int(np.count_nonzero(ours[:, shown] != np.array([counts[name].to_numpy()[shown] for name in names])))
    p, printed = np.array(answer["hwe_p"])[shown], pl.read_csv(theirs.with_suffix(".hardy"), separator="\t")["P"]
    return wrong + int(np.count_nonzero(~np.isclose(p, printed.to_numpy()[shown], rtol=PRINTED, atol=1e-300)))


def compared(kind: str, data: Countries) -> dict[str, Any]:
    """Every figure of one comparison."""
    beds = [data.folder / site / "genotypes.bed" for site in data.sizes]
    tasks = [f"{kind}:{START}", f"{kind}:{START}", f"{kind}:{data.variants}"]
    ours, theirs, start, questions, wrong = list[Run](), list[Run](), list[Run](), list[list[dict[str, Any]]](), 0
    with tempfile.TemporaryDirectory(prefix="genosum-million-") as folder:
        out, weights = Path(folder) / "out", Path(folder) / "weights.txt"
        panel = weighted(_panel(data))
        weights.write_text("".join(f"{v.identifier}\t{v.alternate}\t{v.weight}\n" for v in panel.variants))
        command = [*PLINK2, "--bfile", str(data.pooled), "--out", str(out)]
        what = ["--geno-counts", "--hardy"] if kind == "counts" else ["--score", str(weights), "cols=+scoresums"]
        for _ in range(REPETITIONS[kind]):
            _read_once([data.pooled.with_suffix(".bed")])
            theirs.append(measured([*command, *what], OPENBLAS_NUM_THREADS="1"))
            start.append(measured([*command, "--write-snplist"]))
            _read_once(beds)
            run, figures = _ours(data, tasks)
            ours.append(run)
            questions.append(figures)
            wrong += _wrong(kind, figures[-1].pop("answer"), out)
    their_wall = statistics.median(r.wall_s for r in theirs)
    short = their_wall < SHORT_S
    their_time = their_wall - short * statistics.median(r.wall_s for r in start)
    whole = [q[0]["from_start_s"] - q[1]["seconds"] + q[2]["seconds"] for q in questions]
    after = [q[2]["seconds"] - q[1]["seconds"] for q in questions]
    our_time = statistics.median(after if short else whole)
    return {
        "row": kind, "target": TARGET[kind], "ratio": our_time / their_time, "after_the_start": short,
        "numbers_that_differ": wrong, "withheld": questions[-1][2]["withheld"],
        "seconds": our_time, "plink2_seconds": their_time,
        "bytes": questions[-1][2]["bytes"], "cpu_s": statistics.median(q[2]["cpu_s"] for q in questions),
        "plink2_cpu_s": statistics.median(r.cpu_s for r in theirs),
        "peak_mib": max(r.peak_mib for r in ours), "plink2_peak_mib": max(r.peak_mib for r in theirs),
        "questions": questions, "runs": {"ours": [asdict(r) for r in ours], "plink2": [asdict(r) for r in theirs]},
    }  # fmt: skip


def main() -> None:
    """Print the figures and write the file."""
    if sys.argv[1:2] == ["--child"]:
        _child(sys.argv[2:])
        return
    data = million()
    figures: dict[str, Any] = {"people": sum(data.sizes.values()), "sites": len(data.sizes), "variants": data.variants}
    _, (opening, *warm) = _ours(data, ["counts:1"] * 4)
    one = min(warm, key=lambda q: float(q["seconds"]))
    figures["one_variant"] = {"first": opening, "warm": warm}
    print(f"one variant: {opening['from_start_s']:.1f} s from the start, {one['seconds']:.2f} s warm "
          f"({one['cpu_s']:.2f} s of processor)", flush=True)  # fmt: skip
    OUT.mkdir(parents=True, exist_ok=True)
    for kind in sys.argv[1:] or TARGET:
        of = figures[kind] = compared(kind, data)
        print(f"{kind} of {data.variants:,} variants: ratio {of['ratio']:.2f} (at most {of['target']}), "
              f"{of['seconds']:.1f} s, plink2 {of['plink2_seconds']:.1f} s"
              f"{' after the start' * of['after_the_start']}; "
              f"processor {of['cpu_s']:.1f} and {of['plink2_cpu_s']:.1f} s; {of['bytes'] / 1e6:.0f} MB from all sites; "
              f"{of['peak_mib']:.0f} and {of['plink2_peak_mib']:.0f} MiB at most; "
              f"{of['withheld']} variants withheld, {of['numbers_that_differ']} numbers differ",
              flush=True)  # fmt: skip
        (OUT / "million.json").write_text(json.dumps(figures, indent=1), encoding="utf-8")
        if of["numbers_that_differ"]:
            raise SystemExit(f"{kind}: not what plink2 computes")


if __name__ == "__main__":
    main()
