"""`fl-simulate`: a study on one machine, before any real node sees it.

fl-simulate STUDY --sites DIR --out DIR      the same gate and conduct over sites in this process
fl-simulate twin federation.toml --out DIR   synthetic sites that look like a federation's
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
os.environ.setdefault("FLWR_DISABLE_UPDATE_CHECK", "1")

from fl_server import results
from fl_server.progress import shown
from simulations.baseline import beside
from simulations.federation import isolate
from simulations.membership import measured
from simulations.populations import twin
from simulations.run import simulate
from simulations.sites import Sites
from strategies.errors import GenosumError, UsageError, of_system
from strategies.federation import Federation
from strategies.study import Study


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `fl-simulate`; the value is the exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        if words[:1] == ["twin"]:
            return _twin(words[1:])
        return _study(words)
    except GenosumError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    except OSError as error:
        print(of_system(error), file=sys.stderr)
        return UsageError.exit_code


def _study(words: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        "fl-simulate", description="Run a study over sites on this machine. See also: fl-simulate twin --help"
    )
    parser.add_argument("study", type=Path, help="the study file (TOML)")
    parser.add_argument("--sites", type=Path, required=True, help="a folder with sites.toml")
    parser.add_argument("--out", type=Path, required=True, help="a new folder for report and answers")
    parser.add_argument(
        "--engine", choices=("local", "ray"), default="local", help="one process, or Flower's simulation engine"
    )
    parser.add_argument(
        "--allow-open-ports",
        action="store_true",
        help="let Ray listen on all interfaces where no network namespace of its own can be made",
    )
    parser.add_argument(
        "--measure",
        action="store_true",
        help="put beside the answers what only a simulation can know: how well people who took part are told from "
        "others in each exact answer, and how well the best single variant does what a trained model does",
    )
    chosen = parser.parse_args(words)
    if chosen.engine == "ray" and (code := isolate(words, chosen.allow_open_ports)) is not None:
        return code
    _new(chosen.out)
    study = Study.read(chosen.study)
    Sites.read(chosen.sites)
    started = time.monotonic()
    with shown(f"{study.title}: {len(study.questions)} questions") as step:
        outcome = simulate(study, chosen.sites, step, ray=chosen.engine == "ray")
    seconds = time.monotonic() - started
    answers, membership = outcome.results, None
    if chosen.measure:
        answers, membership = beside(answers, study, chosen.sites), measured(study, chosen.sites)
    results.write(study, outcome.federation, answers, chosen.out, membership)
    print(f"{len(outcome.results)} questions answered in {seconds:.1f} s. Open {chosen.out / 'report.html'}")
    return 0


def _twin(words: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        "fl-simulate twin", description="Write synthetic sites with a federation's columns."
    )
    parser.add_argument("federation", type=Path, help="the federation file that the nodes pin")
    parser.add_argument("--out", type=Path, default=Path("twin"), help="a new folder (default: twin)")
    parser.add_argument("--study", type=Path, help="take the variants of this study's panels")
    parser.add_argument("--seed", type=int, default=1, help="the same seed gives the same people (default: 1)")
    chosen = parser.parse_args(words)
    study = Study.read(chosen.study) if chosen.study else None
    twin(Federation.read(chosen.federation), chosen.out, study, chosen.seed)
    print(f"Synthetic sites written. Next: fl-simulate STUDY --sites {chosen.out} --out results/NAME")
    return 0


def _new(out: Path) -> None:
    if out.exists():
        raise UsageError("Answers are written into a new folder.", f"{out} exists", "name another, or move it away.")


if __name__ == "__main__":
    sys.exit(main())
