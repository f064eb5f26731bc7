"""`fl-client`: what the operator of a national node types.

fl-client init FOLDER --name FI ...   make keys, a node file with a strict policy, and a registration to send off
fl-client check NODE.toml             read all that the node would, and say what is wrong
fl-client dictionary NODE.toml        what may be known in public of the columns that the policy allows
fl-client explain STUDY --node NODE.toml  say in plain words who and what a study is about, and yes or no
fl-client qc NODE.toml                examine people and variants, and say whom to leave out; changes nothing
fl-client data NODE.toml              fix the data set as it lies now as a numbered version
fl-client serve NODE.toml             dial out to the coordinator's SuperLink and answer, until stopped
fl-client veto NODE.toml [--lift]     say no to everything from now on, also in mid-study
fl-client denials NODE.toml [--lift COORDINATOR]  say who was refused for people's sake, and how often; or forget it
fl-client airlock NODE.toml           write the reports of what left, one for each question, anew from the journal
fl-client ledger show NODE.toml       what was spent, by whom and when, and what it comes to as epsilon
fl-client ledger verify NODE.toml     follow the journal from its beginning, and hold the tables against it
fl-client ledger export NODE.toml     the journal as JSON Lines
fl-client ledger adopt NODE.toml      charge what a ledger that was put back has forgotten, and answer again
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path

import tomli_w

os.environ["FLWR_TELEMETRY_ENABLED"] = "0"
os.environ["FLWR_DISABLE_UPDATE_CHECK"] = "1"

from fl_client import executor, spending, versions
from fl_client.airlock import Airlock
from fl_client.checkup import checked
from fl_client.denials import MOST_DENIALS
from fl_client.enrolment import Enrolment
from fl_client.ledger import VETO_FILE, Ledger
from fl_client.policy import NodeConfig
from fl_client.qc.thresholds import Thresholds
from fl_client.readers import DatasetConfig
from fl_client.readers.lines import lines
from fl_client.serving import authority, once, own_file
from strategies.codec import canonical
from strategies.errors import GenosumError, RefusedError, UsageError, of_system
from strategies.federation import Identity, Node
from strategies.study import Study
from strategies.variants import ASSEMBLIES

RUNTIME_PORT = 19443


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `fl-client`; the value is the exit code."""
    parser = argparse.ArgumentParser("fl-client", description="A national node: people's data stay behind its gate.")
    verbs = parser.add_subparsers(required=True, metavar="VERB")
    one = verbs.add_parser("init", help="make keys, a node file with a strict policy, and a registration to send off")
    one.add_argument("folder", type=Path, help="a new or empty folder")
    one.add_argument("--name", required=True, help="the node's name in the federation, such as FI")
    one.add_argument("--country", required=True, help="two-letter ISO code")
    one.add_argument("--people", type=Path, required=True, help="the people table (.tsv or .csv)")
    one.add_argument("--genotypes", type=Path, help="a .bed, .pgen, .bgen, .vcf, .vcf.gz or .bcf")
    one.add_argument("--dataset", required=True, help="the data set's identifier, such as GDI-FI-DEMO-0001")
    one.add_argument("--assembly", required=True, choices=ASSEMBLIES)
    one.add_argument("--synthetic", action="store_true", help="no person stands behind the data")
    one.add_argument("--superlink", default="localhost:9443", help="host:port of the coordinator's fleet port")
    one.add_argument("--runtime-port", type=int, default=RUNTIME_PORT, help="a free loopback port of this machine")
    one.add_argument("--public-people", type=int, default=0, help="about how many people, as anybody may know")
    one.add_argument("--own-total", action="store_true", help="this node's own total may follow from others'")
    one.set_defaults(verb=_init)
    study = {"type": Path, "help": "a study's file: say how its panels' variants are found here"}
    out = {"type": Path, "help": "a new file, in the place of the terminal"}
    again = {"action": "store_true", "help": "answer again"}
    whom = {"metavar": "COORDINATOR", "help": "forget this year's of one, who is answered again"}
    for name, verb, text, option in (
        ("check", _check, "read all that the node would, and say what is wrong", {"--study": study}),
        (
            "dictionary",
            _dictionary,
            "what may be known in public of the columns that the policy allows",
            {"--out": out},
        ),
        ("data", _fix_data, "fix the data set as it lies now as a numbered version", {}),
        ("serve", _serve, "answer, until stopped", {}),
        ("veto", _veto, "say no to everything from now on", {"--lift": again}),
        ("denials", _denials, "say who was refused for people's sake, and how often", {"--lift": whom}),
        ("airlock", _write_airlock, "write the reports of what left anew from the journal", {}),
    ):
        one = verbs.add_parser(name, help=text)
        one.add_argument("node", type=Path, help="the node's file")
        for flag, how in option.items():
            one.add_argument(flag, **how)
        one.set_defaults(verb=verb)
    one = verbs.add_parser("explain", help="say in plain words who and what a study is about, and yes or no")
    one.add_argument("study", type=Path, help="the study's file")
    one.add_argument("--node", type=Path, required=True, help="the node's file")
    one.add_argument("--coordinator", help="who would ask; by default the first whom the policy answers")
    one.set_defaults(verb=_explain)
    one = verbs.add_parser("qc", help="examine people and variants, and say whom to leave out; changes nothing")
    one.add_argument("node", type=Path, help="the node's file")
    one.add_argument("--sex", default="sex", help="the people table's column of who is male (1) and female (2)")
    for what in fields(Thresholds):
        one.add_argument(f"--{what.name.replace('_', '-')}", type=float, default=what.default, help="%(default)s")
    one.set_defaults(verb=_qc)
    books = verbs.add_parser("ledger", help="what was spent").add_subparsers(required=True, metavar="VERB")
    for name, verb, text in (
        ("show", _show, "what was spent, by whom and when, and what it comes to as epsilon"),
        ("verify", _verify, "follow the journal from its beginning, and hold the tables against it"),
        ("export", _export, "the journal as JSON Lines"),
        ("adopt", _adopt, "charge what a ledger that was put back has forgotten, and answer again"),
    ):
        one = books.add_parser(name, help=text)
        one.add_argument("node", type=Path, help="the node's file")
        one.set_defaults(verb=verb)
        if name == "adopt":
            one.add_argument("--mark", type=Path, help="a coordinator's file of the highest mark that it saw")
    chosen = parser.parse_args(arguments)
    try:
        return int(chosen.verb(chosen))
    except GenosumError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    except OSError as error:
        print(of_system(error), file=sys.stderr)
        return UsageError.exit_code
    except KeyboardInterrupt:
        return 130


# -- init ---------------------------------------------------------------------------------------------------------


def _init(chosen: argparse.Namespace) -> int:
    folder: Path = chosen.folder
    identity = Identity.generate()
    try:
        node = Node(chosen.country, identity.public, chosen.own_total, chosen.public_people)
        if not chosen.name.isidentifier():
            raise ValueError("name must be made of letters, digits and '_'.")
        people, genotypes = chosen.people.resolve(), chosen.genotypes.resolve() if chosen.genotypes else ""
        dataset = DatasetConfig(chosen.dataset, chosen.assembly, str(people), str(genotypes), chosen.synthetic)
    except ValueError as error:
        raise UsageError(f"fl-client init: {error}", "another value", "correct it.") from None
    enrolment = Enrolment(chosen.name, node, dataset, chosen.superlink, chosen.runtime_port)
    registration = enrolment.write(folder, identity)
    print(f"{folder}: keys, node.toml with a policy that allows nothing yet, registration.toml.")
    print("Send registration.toml, which holds public lines only, to the coordinator:\n")
    print(registration)
    print(f"Put the coordinator's federation.toml and ca.crt into {folder}, write your policy into node.toml.")
    print(f"Next: fl-client check {folder / 'node.toml'}")
    return 0


# -- check --------------------------------------------------------------------------------------------------------


def _check(chosen: argparse.Namespace) -> int:
    config = NodeConfig.read(chosen.node)
    study = Study.read(chosen.study) if chosen.study else None
    warnings: list[str] = []
    for what, text in checked(config, study, warnings):
        _say(what, text)
    for warning in warnings:
        print(f"Warning: {warning}")
    print(f"Nothing was sent. Next: fl-client serve {chosen.node}")
    return 0


def _say(what: str, text: str) -> None:
    print(f"{what:<12}{text}")


# -- dictionary ---------------------------------------------------------------------------------------------------


def _dictionary(chosen: argparse.Namespace) -> int:
    config = NodeConfig.read(chosen.node)
    columns = {name: said.plain() for name, said in config.dictionary.items()}
    text = (
        f"# What may be known in public of the columns of {config.dataset.identifier}; no value or number of people.\n"
        f"{tomli_w.dumps({'node': {'columns': columns}})}"
    )
    if chosen.out is None:
        print(text, end="")
        return 0
    out: Path = chosen.out
    if out.exists():
        raise UsageError("A dictionary is written into a new file.", f"{out} exists", "name another.")
    out.write_text(text, encoding="utf-8")
    print(f"{out}: {len(columns)} columns. It may be added to registration.toml; nothing was sent.")
    return 0


# -- explain ------------------------------------------------------------------------------------------------------


def _explain(chosen: argparse.Namespace) -> int:
    from fl_client.explain import explained  # noqa: PLC0415  it loads the gate, which few verbs need
    from fl_client.gate import Gate  # noqa: PLC0415

    study, config = Study.read(chosen.study), NodeConfig.read(chosen.node)
    federation, identity = config.parties()
    coordinator = chosen.coordinator or next(iter(config.policy.coordinators), "nobody")
    with _opened(chosen.node) as (_, ledger):
        gate = Gate(config, federation, identity, config.open_dataset(), ledger)
        found = explained(gate, study, coordinator)
    _say("study", f"{study.title}, for {study.purpose.value.replace('_', ' ')}; digest {study.digest}")
    for one in found:
        print()
        for what, text in one.lines:
            _say(what, text)
    refused = [one.question for one in found if one.refused is not None]
    print(f"\nNothing was sent. {len(found) - len(refused)} of {len(found)} questions would be answered.")
    return RefusedError.exit_code if refused else 0


# -- data ---------------------------------------------------------------------------------------------------------


def _fix_data(chosen: argparse.Namespace) -> int:
    config = NodeConfig.read(chosen.node)
    data = config.open_dataset()
    ledger = config.open_ledger()
    number = versions.fix(data, ledger)
    ledger.close()
    _say("data set", f"{config.dataset.identifier}: {len(data.people):,} people, files {data.digest}, version {number}")
    if number == config.dataset.version:
        print("The node's file names this version. Restart the node if it was serving other files.")
    else:
        print(f"Next: version = {number} in the [dataset] table of {chosen.node}, then restart the node.")
    return 0


# -- qc -----------------------------------------------------------------------------------------------------------


def _qc(chosen: argparse.Namespace) -> int:
    from fl_client.qc.report import Report  # noqa: PLC0415  it loads numba and matplotlib, which no other verb needs

    try:
        thresholds = Thresholds(**{what.name: getattr(chosen, what.name) for what in fields(Thresholds)})
    except ValueError as error:
        raise UsageError(f"fl-client qc: {error}", "another value", "correct it.") from None
    config = NodeConfig.read(chosen.node)
    data, exclude = config.open_dataset().of_genotyped(), config.dataset.exclude
    before = tuple(line.strip() for line in lines(config.folder / exclude)) if exclude else ()
    ledger = config.open_ledger()
    report = Report.of(data, before, thresholds, chosen.sex, ledger.folder)
    folder = report.write(ledger.folder / "qc")
    found = report.numbers()
    ledger.note({"event": "qc"} | {key: found[key] for key in ("data", "thresholds", "left_out", "exclude_sha256")})
    ledger.close()
    for reason, said in found["reasons"].items():
        number = f"{said['people']:,}" if "people" in said else f"not judged: {said['unjudged']}"
        _say("leave out" if reason == next(iter(found["reasons"])) else "", f"{reason.replace('_', ' ')}: {number}")
    _say("report", str(folder / "report.html"))
    if report.verdict.out.any():
        _say("", f"{found['left_out']:,} of {found['people']:,} people; read it before you leave them out")
        name = (Path(config.state) / "qc" / folder.name / "exclude.txt").as_posix()
        print(f'Next: exclude = "{name}" in the [dataset] table of {chosen.node}, then fl-client data {chosen.node}')
    else:
        print("Nobody is to be left out. The data set stays as it is.")
    return 0


# -- serve --------------------------------------------------------------------------------------------------------


def _serve(chosen: argparse.Namespace) -> int:
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s [%(name)s] %(message)s", stream=sys.stdout
    )
    config = NodeConfig.read(chosen.node)
    link = executor.link_of(config)
    config.parties()
    own_file(config.folder / link.node_key, "supernode key")
    authority(config.folder / link.root_certificates)
    with once(config):
        executor.check_port(config)
        return executor.serve(config, chosen.node.resolve())


# -- veto, denials, ledger ----------------------------------------------------------------------------------------


def _veto(chosen: argparse.Namespace) -> int:
    config = NodeConfig.read(chosen.node)
    ledger = config.open_ledger()
    veto = config.folder / config.state / VETO_FILE
    if chosen.lift:
        veto.unlink(missing_ok=True)
        print(f"{config.name} answers again, within its policy.")
    else:
        veto.write_text(time.strftime("%Y-%m-%dT%H:%M:%SZ\n", time.gmtime()), encoding="ascii")
        print(f"{config.name} refuses every request from now on. `fl-client veto {chosen.node} --lift` ends it.")
    ledger.note({"event": "lift" if chosen.lift else "veto"})
    ledger.close()
    return 0


@contextmanager
def _opened(node: Path) -> Iterator[tuple[NodeConfig, Ledger]]:
    config = NodeConfig.read(node)
    ledger = config.open_ledger()
    try:
        yield config, ledger
    finally:
        ledger.close()


def _denials(chosen: argparse.Namespace) -> int:
    with _opened(chosen.node) as (config, ledger):
        if chosen.lift is not None:
            with ledger.exclusive():
                count = ledger.denials.lift(chosen.lift)
            if not count:
                raise UsageError(
                    "What is lifted was refused to that coordinator in this calendar year (UTC).",
                    f"{config.name} refused {chosen.lift!r:.60} nothing for people's sake",
                    "see the names with `fl-client denials` alone.",
                )
            print(f"{count} refusals are forgotten: {config.name} answers {chosen.lift} again, within its policy.")
            return 0
        counts = ledger.denials.counts()
    for (coordinator, year), count in counts.items():
        more = "" if count < MOST_DENIALS else "; all exact questions are refused in that year"
        print(f"{coordinator}, {year}: {count} of {MOST_DENIALS} refusals that told of people{more}")
    if not counts:
        print("Nobody was refused anything for people's sake.")
    return 0


def _write_airlock(chosen: argparse.Namespace) -> int:
    with _opened(chosen.node) as (config, ledger):
        spending.verified(ledger)
        airlock = Airlock(ledger.folder, config.name)
        count = airlock.rewrite(ledger.journal())
    print(f"{airlock.folder}: {count} reports, a page and a JSON file for each question that was asked here.")
    return 0


def _show(chosen: argparse.Namespace) -> int:
    with _opened(chosen.node) as (config, ledger):
        for what, text in spending.rows(config, ledger, time.gmtime().tm_year):
            _say(what, text)
        spending.behind(config, ledger)
    return 0


def _verify(chosen: argparse.Namespace) -> int:
    with _opened(chosen.node) as (config, ledger):
        told = spending.verified(ledger)
        spending.behind(config, ledger)
        _say("journal", f"{sum(told.entries.values())} entries, verified: each follows from the one before")
        _say("spent", f"rho {told.spent(ledger.dataset):.6f}, as the tables say")
    return 0


def _export(chosen: argparse.Namespace) -> int:
    with _opened(chosen.node) as (_, ledger):
        spending.verified(ledger)
        for line in ledger.export():
            print(canonical(line).decode())
    return 0


def _adopt(chosen: argparse.Namespace) -> int:
    with _opened(chosen.node) as (config, ledger):
        adopted = spending.adopt(config, ledger, chosen.mark)
        for mark, gap in adopted:
            _say("adopted", f"entry {mark.sequence} of {mark.dataset}: rho {gap.rho:.6f} was lost and is charged")
        if not adopted:
            print("Nothing is missing: the ledger knows every mark that it was shown.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
