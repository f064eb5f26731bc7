"""One million genomes in 27 countries: `python -m simulations.benchmarks.million`.

A count of one variant, asked of nodes that are open; then counts of all variants, beside plink2 on one file of all.
Figures go to the screen and to `results/bench/million.json`.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from simulations.benchmarks.data import Countries, million
from simulations.benchmarks.genotypes import OUT, PLINK2, measured
from simulations.run import conductor
from simulations.sites import prepare
from strategies.analyses.genotype_counts import GenotypeCounts
from strategies.study import Purpose, Question, Study
from strategies.variants import Panel

LEAST_SITES = 3


def study(panel: Panel) -> Study:
    """Counts of a panel."""
    asked = (Question("counts", GenotypeCounts("panel")),)
    return Study("counts", Purpose.SCIENTIFIC_RESEARCH, panel.assembly, LEAST_SITES, {}, {"panel": panel}, asked)


def counted(data: Countries, panels: Sequence[Panel]) -> list[dict[str, float]]:
    """Each panel's counts in turn, over nodes that stay open: seconds, and bytes that left the sites."""
    out = []
    with tempfile.TemporaryDirectory(prefix="genosum-million-") as folder:
        started = time.perf_counter()
        workspace = prepare(data.folder, Path(folder) / "nodes")
        for number, panel in enumerate(panels):
            begun, busy = time.perf_counter(), time.process_time()
            (result,) = conductor(study(panel), workspace, Path(folder) / f"run{number}").run()
            seconds, cpu = time.perf_counter() - begun, time.process_time() - busy
            sent = sum(result.statement.bytes_left.values())
            out.append(
                {
                    "variants": len(panel),
                    "seconds": seconds,
                    "cpu_s": cpu,
                    "bytes": sent,
                    "from_start_s": begun - started,
                }
            )
    return out


def _panel(data: Countries) -> Panel:
    return Panel.read(data.folder / "panel.tsv", "GRCh38")


def _one_process(data: Countries, variants: Sequence[int]) -> dict[str, Any]:
    """The counts of the first so many variants, each in turn, in one process of its own: with its memory."""
    shape = [str(sum(data.sizes.values())), str(data.variants), str(len(data.sizes))]
    with tempfile.TemporaryDirectory(prefix="genosum-million-") as folder:
        path = Path(folder) / "figures.json"
        command = [sys.executable, "-m", "simulations.benchmarks.million", "--child", *shape, str(path)]
        run = measured([*command, *map(str, variants)])
        return {"runs": json.loads(path.read_text()), "cpu_s": run.cpu_s, "peak_mib": run.peak_mib}


def _child(arguments: Sequence[str]) -> None:
    people, variants, sites = map(int, arguments[:3])
    data = million(people, variants, sites)
    panel = _panel(data)
    figures = counted(data, [panel[: int(n)] for n in arguments[4:]])
    Path(arguments[3]).write_text(json.dumps(figures), encoding="utf-8")


def main() -> None:
    """Print the figures and write the file."""
    if sys.argv[1:2] == ["--child"]:
        _child(sys.argv[2:])
        return
    data = million()
    figures: dict[str, Any] = {"people": sum(data.sizes.values()), "sites": len(data.sizes)}
    ours = _one_process(data, [1, 2, data.variants])
    opening, one, all_of_them = ours["runs"]
    with tempfile.TemporaryDirectory(prefix="genosum-million-") as folder:
        theirs = measured([*PLINK2, "--bfile", str(data.pooled), "--geno-counts", "--hardy", "--out", f"{folder}/out"])
    figures |= {"one_variant_warm": one, "first_question": opening, "all_variants": all_of_them}
    figures |= {"peak_mib": ours["peak_mib"], "plink2_wall_s": theirs.wall_s, "plink2_peak_mib": theirs.peak_mib}
    print(f"one variant, warm: {one['seconds']:.2f} s; {data.variants:,} variants: {all_of_them['seconds']:.1f} s, "
          f"{all_of_them['bytes'] / 1e6:.0f} MB from all sites, {ours['peak_mib']:.0f} MiB at most; "
          f"plink2 {theirs.wall_s:.1f} s")  # fmt: skip
    OUT.mkdir(parents=True, exist_ok=True)
    (OUT / "million.json").write_text(json.dumps(figures, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
