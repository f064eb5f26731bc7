"""Cox regression over a million people in 27 countries: `python -m simulations.benchmarks.survival [PEOPLE [SITES]]`.

Five covariates, one of them of three categories, and months until an event, on a grid of 100 intervals. Ours is the
whole federated run over nodes that are open, answer files written; lifelines fits the pooled table, whose times are
rounded to the same joined intervals beforehand. Each runs in a process of its own, alternately; lifelines' seconds are
those of its fit alone, and memory is the process' peak. The two have to agree to 1e-7 in coefficients and errors.
Figures go to the screen and to `results/bench/survival.json`.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import tomli_w
from numpy.typing import NDArray

import fl_server.results
from simulations.benchmarks.genotypes import OUT, Run, measured
from simulations.populations import write_table
from simulations.run import conductor
from simulations.sites import prepare
from strategies.analyses.cox import CoxRegression
from strategies.analysis import Range
from strategies.question import Question
from strategies.study import Purpose, Study
from strategies.time_grid import Joined, TimeGrid, coarsened, counted

PEOPLE, SITES, REPETITIONS = 1_000_000, 27, 3
COVARIATES = ("age", "sex", "smoking", "marker", "dose")
COLUMNS = {
    "months": Range(0.0, 120.0, "mo"), "death": Range(0.0, 1.0), "age": Range(18.0, 100.0), "sex": Range(1.0, 2.0),
    "smoking": Range.of("0", "1", "2"), "marker": Range(-6.0, 6.0), "dose": Range(0.0, 50.0),
}  # fmt: skip
AGREE = 1e-7


def people(number: int) -> dict[str, NDArray[np.float64]]:
    """Made-up people: hazards go with the covariates, follow-up ends for a third before the event."""
    rng = np.random.default_rng(20260401)
    table = {
        "age": rng.normal(62, 12, number).clip(18, 100).round(1),
        "sex": rng.integers(1, 3, number).astype(np.float64),
        "smoking": rng.choice(3, number, p=[0.5, 0.3, 0.2]).astype(np.float64),
        "marker": rng.normal(0, 1, number).clip(-6, 6).round(3),
        "dose": rng.gamma(2.0, 5.0, number).clip(0, 50).round(2),
    }
    log = 0.04 * (table["age"] - 62) + 0.3 * (table["sex"] - 1) + 0.25 * table["smoking"]
    log += 0.2 * table["marker"] - 0.02 * table["dose"]
    event, left = rng.exponential(90 * np.exp(-log)), rng.exponential(150, number)
    table["months"] = np.minimum(np.minimum(event, left), 120).round(2)
    table["death"] = ((event <= left) & (event < 120)).astype(np.float64)
    return table


def study() -> Study:
    """One question."""
    asked = Question("hazards", CoxRegression("months", "death", COVARIATES))
    return Study("hazards", Purpose.SCIENTIFIC_RESEARCH, "GRCh38", 3, COLUMNS, {}, (asked,))


def write(folder: Path, number: int, sites: int) -> None:
    """A folder of sites of unequal size, and the pooled table with rounded times."""
    table, described, start = people(number), {}, 0
    sizes = (number * (1 + np.arange(sites)) / (sites * (sites + 1) / 2)).astype(int)
    sizes[-1] += number - sizes.sum()
    for place, size in enumerate(sizes.tolist()):
        site, mine = f"S{place:02d}", slice(start, start := start + size)
        (folder / site).mkdir()
        write_table(
            folder / site / "people.tsv", [f"{site}-{i}" for i in range(size)], {n: v[mine] for n, v in table.items()}
        )
        files = {"identifier": f"BENCH-{site}", "assembly": "GRCh38", "synthetic": True, "people": f"{site}/people.tsv"}
        described[site] = {"country": "A" + chr(65 + place % 26), "people": size, "dataset": files}
    policy = {
        "coordinators": ["demo"], "purposes": ["scientific_research"], "epsilon": 10.0, "delta": 1e-5,
        "analyses": {"cox": ["exact"]}, "columns": {name: span.plain() for name, span in COLUMNS.items()},
        "minimum_cell": 5,
    }  # fmt: skip
    (folder / "sites.toml").write_text(tomli_w.dumps({"policy": policy, "sites": described}), encoding="utf-8")
    grid = TimeGrid.of("months", COLUMNS["months"], 100, None, ())
    (at, _), died = grid.places(table["months"]), table["death"] > 0
    nobody = np.zeros_like(at)
    counts = coarsened(counted((nobody, nobody, at, died.astype(np.int64)), (1, 1, len(grid), 2)), 5)
    joined = Joined.of(counts)
    table["months"] = grid.ends[joined.ends][joined.rounded(at, died)]
    np.savez(folder / "pooled.npz", **table)


def ours(folder: Path, out: Path) -> None:
    """The federated run, in this process."""
    with tempfile.TemporaryDirectory(prefix="genosum-survival-") as scratch:
        started = time.perf_counter()
        workspace = prepare(folder, Path(scratch) / "nodes")
        asked = conductor(study(), workspace, Path(scratch) / "run")
        opened, busy = time.perf_counter(), time.process_time()
        (result,) = results = asked.run()
        fl_server.results.write(study(), workspace.federation, results, Path(scratch) / "answer")
        figures: dict[str, Any] = {"seconds": time.perf_counter() - opened, "cpu_s": time.process_time() - busy}
        table = result.answer.tables["coefficients"]
        figures |= {
            "opening_s": opened - started,
            "rounds": result.answer.facts["rounds"],
            "intervals": result.answer.facts["intervals_shown"],
            "bytes": sum(result.statement.bytes_left.values()),
            "numbers": [np.asarray(table[name]).tolist() for name in ("coefficient", "standard_error")],
        }
    out.write_text(json.dumps(figures), encoding="utf-8")


def theirs(folder: Path, out: Path) -> None:
    """lifelines' fit of the pooled table, in this process."""
    import pandas as pd  # noqa: PLC0415  (of this process alone)
    from lifelines import CoxPHFitter  # noqa: PLC0415  (likewise)

    with np.load(folder / "pooled.npz") as pooled:
        table = {name: pooled[name] for name in pooled}
    smoking = table.pop("smoking")
    columns = {"age": table["age"], "sex": table["sex"], "former": smoking == 1, "current": smoking == 2}
    columns |= {name: table[name] for name in ("marker", "dose", "months", "death")}
    frame = pd.DataFrame({name: np.asarray(values, dtype=np.float64) for name, values in columns.items()})
    started, busy = time.perf_counter(), time.process_time()
    fit = CoxPHFitter().fit(frame, "months", "death", fit_options={"precision": 1e-10})
    figures = {"seconds": time.perf_counter() - started, "cpu_s": time.process_time() - busy}
    numbers = [fit.summary[name].tolist() for name in ("coef", "se(coef)")]
    out.write_text(json.dumps(figures | {"numbers": numbers}), encoding="utf-8")


def _one(kind: str, folder: Path, out: Path) -> tuple[Run, dict[str, Any]]:
    run = measured([sys.executable, "-m", __spec__.name, "--child", kind, str(folder), str(out)])
    return run, json.loads(out.read_text(encoding="utf-8"))


def main() -> None:
    """Print the figures and write the file.

    Raises:
        RuntimeError: if the two do not agree.
    """
    if sys.argv[1:2] == ["--child"]:
        {"ours": ours, "lifelines": theirs}[sys.argv[2]](Path(sys.argv[3]), Path(sys.argv[4]))
        return
    number, sites = [*map(int, sys.argv[1:]), *(PEOPLE, SITES)[len(sys.argv) - 1 :]]
    runs: dict[str, list[tuple[Run, dict[str, Any]]]] = {"ours": [], "lifelines": []}
    with tempfile.TemporaryDirectory(prefix="genosum-survival-") as place:
        write(Path(place), number, sites)
        for _ in range(REPETITIONS):
            for kind, taken in runs.items():
                taken.append(_one(kind, Path(place), Path(place) / "figures.json"))
    mine, other = (np.array(taken[-1][1]["numbers"]) for taken in runs.values())
    apart = float(np.abs(mine / other - 1).max())
    print(f"{number:,} people, {sites} sites: coefficients and errors are {apart:.1e} apart")
    for kind, taken in runs.items():
        seconds, busy = (statistics.median(f[name] for _, f in taken) for name in ("seconds", "cpu_s"))
        peak = max(run.peak_mib for run, _ in taken)
        print(f"{kind:10} median {seconds:6.1f} s ({busy:.1f} s of processor), peak {peak:.0f} MiB")
    first = runs["ours"][0][1]
    sent, opening = first["bytes"] / 1e6, first["opening_s"]
    print(f"ours: {first['rounds']} rounds, {first['intervals']} intervals, {sent:.1f} MB left the sites, "
          f"nodes opened in {opening:.1f} s before")  # fmt: skip
    OUT.mkdir(parents=True, exist_ok=True)
    told = {kind: [asdict(run) | figures for run, figures in taken] for kind, taken in runs.items()}
    figures = {"people": number, "sites": sites, "apart": apart, **told}
    (OUT / "survival.json").write_text(json.dumps(figures, indent=1), encoding="utf-8")
    if not apart < AGREE:
        raise RuntimeError(f"ours and lifelines' numbers are {apart:.1e} apart")


if __name__ == "__main__":
    main()
