"""What `fl-client check` reads and says: all that a node would read, and nothing is sent."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator

import numpy as np

from fl_client import executor, versions
from fl_client.ledger import VETO_FILE
from fl_client.overlap import CUT, Register
from fl_client.policy import NodeConfig
from fl_client.readers import Dataset
from fl_client.readers.matching import shown
from fl_client.serving import authority, own_file, served
from strategies.federation import Federation
from strategies.study import Study

Rows = Iterator[tuple[str, str]]
"""What a row is about, and what is said; nothing where it is about the same as the one before."""


def checked(config: NodeConfig, study: Study | None, warnings: list[str]) -> Rows:
    """What is found, row by row; what an operator should look at is added to `warnings`.

    Args:
        study: whose panels' variants are looked for, too.

    Raises:
        GenosumError: at the first thing without which the node cannot serve.
    """
    link = executor.link_of(config)
    federation, _ = config.parties()
    pinned = hashlib.sha256((config.folder / config.federation).read_bytes()).hexdigest()
    yield "node", f"{config.name} ({federation.nodes[config.name].country}), known to the federation by this key"
    yield (
        "federation",
        f"{federation.name}: {', '.join(federation.nodes)}; coordinators {_list(federation.coordinators)}",
    )
    yield "", f"SHA-256 {pinned}; compare it with the others'"
    own_file(config.folder / link.node_key, "supernode key")
    until = authority(config.folder / link.root_certificates)
    yield "link", f"{link.superlink}, certificate authority valid until {until}"
    if served(config):
        yield "", f"being served now; port {link.runtime_port}"
    else:
        executor.check_port(config)
        yield "", f"port {link.runtime_port} is free"
    yield from _policy(config, federation, warnings)
    yield from _data(config, study, warnings)


def _policy(config: NodeConfig, federation: Federation, warnings: list[str]) -> Rows:
    policy, ledger = config.policy, config.open_ledger()
    spent = ledger.spent()
    missing = ledger.missing()
    ledger.close()
    left = max(0.0, policy.budget.loss.rho - spent.rho)
    allowed = ", ".join(f"{name} ({', '.join(regimes)})" for name, regimes in policy.analyses.items())
    yield ("policy", f"{policy.identifier}: {allowed or 'no analysis'}")
    yield ("", f"for {_list(policy.purposes)}, asked by {_list(policy.coordinators)}")
    yield ("", f"exact: {policy.minimum_people} people, {policy.minimum_sites} sites, cells of {config.minimum_cell}")
    yield ("", f"private totals: noise shared by at most {policy.honest_sites} sites that keep theirs to themselves")
    yield ("", f"for this site alone: {', '.join(policy.by_site) or 'nothing'}")
    yield ("budget", f"{policy.budget}: rho {policy.budget.loss.rho:.6f}, spent {spent.rho:.6f}, left {left:.6f}")
    unknown = [name for name in policy.coordinators if name not in federation.coordinators]
    warnings += [f"the policy answers {name}, who is not in {config.federation}." for name in unknown]
    if (config.folder / config.state / VETO_FILE).exists():
        warnings.append("a veto is in force: every request is refused. `fl-client veto --lift` ends it.")
    if missing:
        warnings.append("the ledger was put back to an older copy: every question is refused until `ledger adopt`.")
    if not (policy.analyses and policy.coordinators and policy.purposes):
        warnings.append("the policy allows nothing yet: it names no analysis, coordinator or purpose.")


def _data(config: NodeConfig, study: Study | None, warnings: list[str]) -> Rows:
    data = config.open_dataset()
    ranges = {name: limits for name, limits in config.policy.columns.items() if limits.value is None}
    variants = f"{len(data.calls.index):,} variants" if data.calls else "no genotypes"
    if data.calls and not data.genotyped.all():
        variants += f", genotypes of {np.count_nonzero(data.genotyped):,}"
    if data.clinical is not None:
        variants += ", dated events"
    yield ("data set", f"{config.dataset.identifier}, {config.dataset.assembly}, files {data.digest}")
    yield ("", f"{len(data.people):,} people, {variants}" + (", synthetic" if config.dataset.synthetic else ""))
    yield ("version", _version(config, data))
    found = {name: data.matched(panel) for name, panel in study.panels.items()} if study else {}
    for name, match in found.items():
        yield ("panel", f"{name}, {len(match.rows):,} variants: {shown(match)}")
    absent = data.missing_columns(ranges)
    here = {name: limits for name, limits in ranges.items() if name not in absent}
    outside = data.out_of_range(here)
    for name, limits in here.items():
        missing = int(np.isnan(data.table.values(name, limits)).sum())
        yield (
            "column" if name == next(iter(here)) else "",
            f"{name} {limits}: {missing} missing, {outside[name]} outside",
        )
    warnings += [
        f"{name}: {count} values lie outside {ranges[name]}; the gate clamps them."
        for name, count in outside.items()
        if count
    ]
    warnings += [f"{name}: the policy allows it, but the people table has no such numeric column." for name in absent]
    warnings += [
        f"{name}: {count} cells are none of the declared categories, and count as missing."
        for name, count in data.table.unlisted.items()
        if count
    ]
    warnings += [
        f"{name}: variants lie on the other strand; of A/T and C/G ones that are swapped, too, nobody can tell."
        for name, match in found.items()
        if match.flipped.any()
    ]
    if data.clinical is None and config.policy.events:
        warnings.append("the policy allows questions about events, but the data set has no clinical source.")
    if len(data.people) < config.policy.minimum_people:
        warnings.append(f"{len(data.people)} people are fewer than minimum_people: exact questions are refused.")


def _version(config: NodeConfig, data: Dataset) -> str:
    """Which version the files are; its register of persons is opened, if there is one."""
    ledger = config.open_ledger()
    try:
        fixed = ledger.versions()
        if fixed or config.dataset.version != 1:
            versions.confirm(data, fixed)
        if not fixed:
            return "1, fixed when it is first served"
        if not ledger.persons():
            return f"{config.dataset.version}; no exact answer yet"
        Register(ledger, ())
        people = sum(CUT not in name for name in ledger.crowds())
        return f"{config.dataset.version}; exact answers so far: about {people} different sets of people"
    finally:
        ledger.close()


def _list(names: Iterable[str]) -> str:
    return ", ".join(names) or "nobody"
