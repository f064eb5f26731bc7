"""`fl-simulate`: a study on one machine, before any real node sees it.

fl-simulate STUDY --sites DIR --out DIR      the same gate and conduct over sites in this process
fl-simulate twin federation.toml --out DIR   synthetic sites that look like a federation's
fl-simulate minimal --out DIR                synthetic sites with the fields of GDI's minimal metadata
fl-simulate attack ...                       how well answers tell who is in them
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
os.environ.setdefault("FLWR_DISABLE_UPDATE_CHECK", "1")

from fl_server import results
from fl_server.progress import shown
from fl_server.results.attack import HOW_MEASURED
from simulations import minimal
from simulations.federation import isolate
from simulations.populations import twin
from simulations.run import simulate
from simulations.sites import Sites
from strategies.errors import GenosumError, UsageError, of_system
from strategies.federation import Federation
from strategies.study import Study
from strategies.version import package_version


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `fl-simulate`; the value is the exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        if words[:1] == ["twin"]:
            return _twin(words[1:])
        if words[:1] == ["minimal"]:
            return _minimal(words[1:])
        if words[:1] == ["attack"]:
            return _attack(words[1:])
        return _study(words)
    except GenosumError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    except OSError as error:
        print(of_system(error), file=sys.stderr)
        return UsageError.exit_code


def _study(words: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        "fl-simulate",
        description="Run a study over sites on this machine. See also: fl-simulate twin --help, "
        "fl-simulate minimal --help, fl-simulate attack --help",
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
        help="put beside the answers what only a simulation can know: how well attacks tell people who took part from "
        "others in each answer, and how well the best single variant does what a trained model does",
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
    answers, attacks = outcome.results, None
    if chosen.measure:
        from simulations.baseline import beside  # noqa: PLC0415  (half a second of libraries that studies do without)
        from simulations.membership import measured  # noqa: PLC0415  (likewise)

        answers, attacks = beside(answers, study, chosen.sites), measured(study, chosen.sites)
    results.write(study, outcome.federation, answers, chosen.out, attacks)
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


def _minimal(words: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        "fl-simulate minimal",
        description="Write synthetic countries with the fields of GDI's minimal metadata, for the example studies.",
    )
    parser.add_argument("--out", type=Path, default=Path("countries"), help="a new folder (default: countries)")
    parser.add_argument("--seed", type=int, default=1)
    chosen = parser.parse_args(words)
    minimal.write(chosen.out, chosen.seed)
    print(f"Synthetic countries: {chosen.out}. Nothing in them comes from a person.")
    return 0


def _attack(words: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        "fl-simulate attack",
        description="Measure how well answers tell who is in them: a study's answers over its sites, or without a "
        "study, allele frequencies of synthetic people.",
    )
    parser.add_argument("study", type=Path, nargs="?", help="the study file (TOML); needs --sites")
    parser.add_argument("--sites", type=Path, help="a folder with sites.toml")
    parser.add_argument("--out", type=Path, help="a new file for the figures as JSON")
    made_up = parser.add_argument_group("synthetic people")
    for name, (_, what) in SETTINGS.items():
        made_up.add_argument(f"--{name}", help=what)
    chosen = parser.parse_args(words)
    if chosen.out is not None:
        _new(chosen.out)
    given = {name: text for name in SETTINGS if (text := getattr(chosen, name)) is not None}
    if (chosen.study is None) != (chosen.sites is None) or (chosen.study is not None and given):
        raise UsageError(
            "Attacks are measured on a study over its sites, or on synthetic people.",
            " ".join(words),
            "give STUDY and --sites, or neither of them and the numbers of synthetic people.",
        )
    document = _of_synthetic(given) if chosen.study is None else _of_study(Study.read(chosen.study), chosen.sites)
    if chosen.out is not None:
        text = json.dumps({"format": ATTACKS_FORMAT, "version": package_version(), **document}, indent=2)
        chosen.out.write_text(text + "\n", encoding="utf-8")
    return 0


ATTACKS_FORMAT = "genosum attacks 1"

SETTINGS: Mapping[str, tuple[Callable[[str], object], str]] = {
    "people": (int, "members, and as many others (default: 1000)"),
    "variants": (lambda text: tuple(map(int, text.split(","))), "numbers of variants (default: 500,5000,20000)"),
    "epsilon": (lambda text: tuple(map(float, text.split(","))), "one or more (default: 0.5,1,3,10)"),
    "delta": (float, "of each private release (default: 1e-6)"),
    "repeats": (int, "how often people and noise are drawn anew (default: 10)"),
    "seed": (int, "the same seed gives the same people, not the same noise (default: 1)"),
}
"""Options of synthetic people: how each is read, and what it is."""


def _of_synthetic(given: Mapping[str, str]) -> dict[str, Any]:
    from simulations.attacks.experiment import Setting, beacon_table, table  # noqa: PLC0415  (as in a study)

    read: dict[str, Any] = {}
    for name, text in given.items():
        try:
            read[name] = SETTINGS[name][0](text)
        except ValueError:
            raise UsageError(
                "An option is a number, or numbers separated by commas where several are meant.",
                f"--{name} {text!r:.60}",
                f"write it like the default; --{name}: {SETTINGS[name][1]}.",
            ) from None
    setting = Setting(**read)
    n = setting.people
    print(f"SYNTHETIC people: {n} members, {n} others, drawn {setting.repeats} times; variants are independent.\n")
    print("Frequencies. Theory: Phi(sqrt(M / 2n)) for an exact release, at most Phi(sqrt(rho)) for a private one.")
    print("variants  epsilon     AUC  95 % interval   Homer   found at 1e-2   at 1e-3   epsilon at least   theory")
    rows = []
    for row in table(setting):
        rows.append(asdict(row))
        price = "exact" if row.epsilon is None else f"{row.epsilon:g}"
        sign = " " if row.epsilon is None else "<"
        print(
            f"{row.variants:8d}  {price:>7}  {row.auc:6.3f}  {row.auc_low_95:.3f} to {row.auc_high_95:.3f}"
            f"  {row.homer_auc:6.3f}  {row.tpr_at_fpr_1e_2:14.3f}  {row.tpr_at_fpr_1e_3:8.3f}"
            f"  {row.epsilon_at_least:17.2f}  {sign}{row.theory:6.3f}",
            flush=True,
        )
    print("\nBeacon. Answers are yes or no; epsilon is what each answer costs, not all of them.")
    print(" queries  epsilon     AUC  95 % interval")
    beacons = beacon_table(setting)
    for at in beacons:
        price = "exact" if at.epsilon is None else f"{at.epsilon:g}"
        print(f"{at.queries:8d}  {price:>7}  {at.auc:6.3f}  {at.auc_low_95:.3f} to {at.auc_high_95:.3f}")
    return {
        "synthetic": True,
        "setting": asdict(setting),
        "frequencies": rows,
        "beacon": [asdict(row) for row in beacons],
    }


def _of_study(study: Study, sites: Path) -> dict[str, Any]:
    from simulations.membership import measured  # noqa: PLC0415  (as in a study)

    synthetic = sorted(name for name, site in Sites.read(sites).sites.items() if site.dataset.synthetic)
    if synthetic:
        print(f"SYNTHETIC people at {', '.join(synthetic)}.")
    attacks = measured(study, sites)
    print(f"{HOW_MEASURED}\n")
    for question in study.questions:
        price = f"private, {question.budget}" if question.budget else "exact"
        print(f"{question.name} ({question.analysis.analysis.replace('_', ' ')}, {price})")
        for a in attacks.get(question.name, ()):
            allowed = "" if a.auc_at_most is None else f"; the loss allows {a.auc_at_most:.3f}"
            print(
                f"  {a.attack}: AUC {a.auc:.3f} ({a.auc_low_95:.3f} to {a.auc_high_95:.3f}{allowed}), "
                f"found {a.tpr_at_fpr_1e_2:.2f} at 1 in 100 false and {a.tpr_at_fpr_1e_3:.2f} at 1 in 1,000, "
                f"epsilon at least {a.epsilon_at_least:.2f}; {a.members} members, {a.others} others; "
                f"compared with {a.reference}"
            )
        if question.name not in attacks:
            print("  not measured: no attack on it is known here, or half of the people are too few to answer")
    questions = {name: [asdict(a) for a in found] for name, found in attacks.items()}
    return {"synthetic": synthetic, "study": study.digest, "how": HOW_MEASURED, "questions": questions}


def _new(out: Path) -> None:
    if out.exists():
        raise UsageError("Answers are written into a new folder.", f"{out} exists", "name another, or move it away.")


if __name__ == "__main__":
    sys.exit(main())
