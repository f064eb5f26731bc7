"""What counts of every variant cost against people, variants and sites: `python -m simulations.benchmarks.curves`.

Each is varied alone, over nodes that are open; seconds are of the processor, of all sites and the coordinator together.
The picture is `simulations/benchmarks/curves.svg`. A slope is that of the logarithms over the upper half; where what is
fixed weighs as much as what grows it is below one, so what each further unit costs is printed, too.
"""

from __future__ import annotations

import json
import tempfile
import time
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from simulations.benchmarks.data import million
from simulations.benchmarks.genotypes import OUT
from simulations.run import conductor
from simulations.sites import prepare
from strategies.analyses.genotype_counts import GenotypeCounts
from strategies.question import Question
from strategies.study import Purpose, Study
from strategies.variants import Panel

PICTURE = Path(__file__).with_name("curves.svg")
REPETITIONS = 2
AT = {"people": 200_000, "variants": 4_000, "sites": 6}
VARIED = {
    "people": (50_000, 200_000, 400_000, 800_000),
    "variants": (1_000, 4_000, 8_000, 16_000),
    "sites": (3, 6, 12, 24),
}


def seconds(people: int, variants: int, sites: int) -> float:
    """The least processor time of some repetitions, after one that opens the nodes."""
    data = million(people, variants, sites, pooled=False)
    panel = Panel.read(data.folder / "panel.tsv", "GRCh38")
    asked = Study(
        "counts", Purpose.SCIENTIFIC_RESEARCH, "GRCh38", 3, {}, {"panel": panel},
        (Question("counts", GenotypeCounts("panel")),),
    )  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="genosum-curves-") as folder:
        workspace, taken = prepare(data.folder, Path(folder) / "nodes"), []
        for number in range(REPETITIONS + 1):
            start = time.process_time()
            conductor(replace(asked, title=f"counts {number}"), workspace, Path(folder) / f"run{number}").run()
            taken.append(time.process_time() - start)
    return min(taken[1:])


def slope(sizes: NDArray[np.float64], taken: NDArray[np.float64]) -> float:
    """Of log seconds against log size, over the upper half."""
    half = len(sizes) // 2
    return float(np.polyfit(np.log(sizes[half:]), np.log(taken[half:]), 1)[0])


def main() -> None:
    """Print the curves and draw them."""
    at = cache(seconds)
    figures = {name: [at(*{**AT, name: size}.values()) for size in sizes] for name, sizes in VARIED.items()}
    canvas = Figure(figsize=(10, 3), layout="constrained")
    for axes, (name, sizes) in zip(canvas.subplots(1, 3, sharey=True), VARIED.items(), strict=True):
        x, y = np.array(sizes, dtype=np.float64), np.array(figures[name])
        axes.loglog(x, y, "o-", color="#2a7ab9")
        axes.set_xlabel(f"{name}, slope {slope(x, y):.2f}")
        axes.set_xticks(sizes, [f"{size:,}" for size in sizes])
        axes.set_yticks([0.25, 0.5, 1, 2, 4], ["0.25", "0.5", "1", "2", "4"])
        axes.minorticks_off()
        axes.grid(True, linewidth=0.3)
        each = (y[-1] - y[0]) / (x[-1] - x[0])
        print(name, {size: round(s, 2) for size, s in zip(sizes, figures[name], strict=True)},
              f"slope {slope(x, y):.2f}, each further one {each:.2g} s")  # fmt: skip
        if name == "people":
            axes.set_ylabel("seconds of processor")
    canvas.savefig(PICTURE, metadata={"Date": None})
    OUT.mkdir(parents=True, exist_ok=True)
    (OUT / "curves.json").write_text(json.dumps({"at": AT, "sizes": VARIED, "seconds": figures}, indent=1), "utf-8")


if __name__ == "__main__":
    main()
