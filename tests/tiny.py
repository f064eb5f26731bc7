"""Four made-up countries, small enough to be asked in milliseconds: sites, gates, a link that can be tampered with, and
a pen with which a test writes the coordinator's messages itself."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import tomli_w
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from numpy.typing import NDArray

from fl_client.gate import Gate
from fl_client.policy import NodeConfig
from fl_server.conduct import Conductor
from fl_server.marks import SeenMarks
from fl_server.session import Checkpoint
from simulations.populations import write_bed, write_table
from simulations.sites import COORDINATOR, Workspace, prepare
from strategies.analyses.allele_frequency import NoisedFrequency
from strategies.analyses.association import LinearAssociation
from strategies.analyses.genotype_counts import GenotypeCounts
from strategies.analyses.principal_components import PrincipalComponents
from strategies.analysis import Analysis, Range, carried, parameters
from strategies.federation import Federation, Identity
from strategies.learning.train import PrivateTraining
from strategies.privacy import Budget
from strategies.projection import Projection
from strategies.question import Question
from strategies.reasons import Reason
from strategies.study import Purpose, Study
from strategies.summary import Summary
from strategies.variants import Panel, Variant
from strategies.version import package_version
from strategies.wire import (
    Agree,
    Ask,
    Close,
    Header,
    Message,
    Open,
    Opened,
    Project,
    Recover,
    Refused,
    Share,
    Unmask,
    WireError,
    digest_of,
    open_envelope,
    pack_arrays,
    pack_parts,
    seal_envelope,
    unseal,
)

NAMES = ("AT", "BE", "CY", "DK")
PEOPLE, VARIANTS = 30, 50
COLUMNS = {"trait": (-4.0, 4.0), "sex": (1.0, 2.0), "high": (0.0, 1.0)}
PANEL = Panel(
    "GRCh37",
    tuple(
        Variant("22", 1000 + 10 * j, f"v{j}", "A", "C", round(0.05 + 0.9 * j / VARIANTS, 3)) for j in range(VARIANTS)
    ),
)
POLICY: dict[str, Any] = {
    "coordinators": [COORDINATOR],
    "purposes": ["scientific_research"],
    "analyses": {
        "allele_frequency": ["exact", "private"],
        "association": ["exact"],
        "association_binary": ["exact"],
        "pca": ["exact"],
        "linkage": ["exact"],
        "match_rates": ["exact"],
        "meta_analysis": ["exact"],
        "panel_matching": ["exact"],
        "polygenic_score": ["exact"],
        "score_distribution": ["exact"],
        "explained_variance": ["exact"],
        "discrimination": ["exact"],
        "attrition": ["exact", "private"],
        "rare_variants": ["exact"],
        "table_one": ["exact", "private"],
        "histogram": ["exact", "private"],
        "contingency": ["exact", "private"],
        "correlation": ["exact", "private"],
        "missingness": ["exact"],
        "carriers": ["exact"],
        "genotype_table": ["exact"],
        "phewas": ["exact"],
        "survival": ["exact", "private"],
        "cox": ["exact"],
        "boosted_trees": ["exact"],
        "competing_risks": ["exact"],
        "mixed_model": ["exact"],
        "regression": ["exact", "private"],
        "train": ["private"],
        "whole_genome_regression": ["exact"],
    },
    "epsilon": 10.0,
    "delta": 1e-5,
    "minimum_people": 20,
    "minimum_sites": 3,
    "minimum_cell": 0,
    "columns": {name: list(span) for name, span in COLUMNS.items()},
}

COUNTS = Question("counts", GenotypeCounts("panel"))
COMPONENTS = Question("pca", PrincipalComponents("panel", components=2, iterations=3))
LINEAR = Question(
    "linear", LinearAssociation("panel", ("trait",), ("sex",), minimum_minor_alleles=1, minimum_missing=1)
)
ADJUSTED = replace(
    LINEAR,
    name="adjusted",
    analysis=replace(LINEAR.analysis, covariates=("sex", "pca.pc1", "pca.pc2")),  # type: ignore[type-var]
)
FREQUENCIES = Question("frequencies", NoisedFrequency("panel"), Budget(1.0, 1e-5), by_site=True)
TOGETHER = replace(FREQUENCIES, by_site=False)
TRAINING = Question(
    "training", PrivateTraining("panel", "high", 120, "salt", ("sex",), steps=2, averaged=1), Budget(3.0, 1e-5)
)


def study(*questions: Question, **change: Any) -> Study:
    """A study of these questions over the tiny panel and columns."""
    columns = {name: Range(*span) for name, span in COLUMNS.items()}
    made = Study("tiny", Purpose.SCIENTIFIC_RESEARCH, "GRCh37", 3, columns, {"panel": PANEL}, questions)
    return replace(made, **change)


def people_of(site: str, people: int = PEOPLE) -> list[str]:
    return [f"{site}-person-{i:03d}" for i in range(people)]


def genotypes(site: str, people: int = PEOPLE) -> NDArray[np.uint8]:
    """(M, N) alternate allele counts, 3 where missing; the same in every run."""
    rng = np.random.default_rng([*site.encode()])
    codes = rng.binomial(2, PANEL.frequencies[:, None], (VARIANTS, people)).astype(np.uint8)
    codes[rng.random(codes.shape) < 0.03] = 3
    return codes


def write_site(
    folder: Path, site: str, people: int = PEOPLE, codes: NDArray[np.uint8] | None = None, in_table: int | None = None
) -> None:
    """A site's files: .bed, .bim, .fam and the people table, which may name the first `in_table` people only."""
    home = folder / site
    home.mkdir(parents=True, exist_ok=True)
    write_bed(home / "genotypes", PANEL, genotypes(site, people) if codes is None else codes, people_of(site, people))
    rng = np.random.default_rng([1, *site.encode()])
    n = people if in_table is None else in_table
    columns = {
        "trait": np.round(rng.normal(0, 1, people), 4)[:n],
        "sex": rng.integers(1, 3, people).astype(np.float64)[:n],
        "high": rng.integers(0, 2, people).astype(np.float64)[:n],
    }
    write_table(home / "people.tsv", people_of(site, n), columns)


def write_sites(
    folder: Path,
    names: Sequence[str] = NAMES,
    own_total: Iterable[str] = (),
    policies: Mapping[str, Mapping[str, Any]] | None = None,
    datasets: Mapping[str, Mapping[str, Any]] | None = None,
    **policy: Any,
) -> Path:
    """A folder of sites as `simulations.sites.prepare` reads it.

    Args:
        own_total: sites whose own total may follow.
        policies, datasets: site -> what is different there.
        policy: what is different in everybody's policy.
    """
    sites = {}
    for site in names:
        if not (folder / site).exists():
            write_site(folder, site)
        dataset = {
            "identifier": f"TINY-{site}", "assembly": "GRCh37", "synthetic": True,
            "people": f"{site}/people.tsv", "genotypes": f"{site}/genotypes.bed",
        }  # fmt: skip
        sites[site] = {
            "country": site,
            "own_total": site in own_total,
            "people": PEOPLE,
            "dataset": dataset | dict((datasets or {}).get(site, {})),
        }
        if policies and site in policies:
            sites[site]["policy"] = POLICY | policy | dict(policies[site])
    text = tomli_w.dumps({"policy": POLICY | policy, "sites": sites})
    (folder / "sites.toml").write_text(text, encoding="utf-8")
    return folder


@dataclass
class GateLink:
    """A conductor's link to gates in this process. Everything that passes is kept; a test may play the relay."""

    gates: Mapping[str, Gate]
    down: set[str] = field(default_factory=set)
    traffic: list[tuple[str, bytes, bytes]] = field(default_factory=list)
    on_request: Callable[[str, list[bytes]], list[bytes] | None] = lambda _, envelopes: envelopes
    on_reply: Callable[[str, list[bytes], list[bytes]], list[bytes] | None] = lambda _, __, replies: replies

    def addresses(self) -> Sequence[int]:
        return [i for i, name in enumerate(self.gates) if name not in self.down]

    def exchange(self, messages: Mapping[int, Sequence[bytes]], timeout_s: float) -> Mapping[int, Sequence[bytes]]:
        names, out = list(self.gates), {}
        for address, envelopes in messages.items():
            name = names[address]
            arrived = None if name in self.down else self.on_request(name, list(envelopes))
            if arrived is None or name in self.down:
                continue
            replies = [self.gates[name].answer(e) for e in arrived]
            self.traffic += [(name, e, r) for e, r in zip(arrived, replies, strict=True)]
            relayed = self.on_reply(name, arrived, replies)
            if relayed is not None:
                out[address] = relayed
        return out


@dataclass
class Tiny:
    """A federation of tiny sites in a folder, with one gate a site."""

    folder: Path
    workspace: Workspace
    gates: dict[str, Gate]
    data: Path

    @staticmethod
    def of(data: Path, folder: Path) -> Tiny:
        workspace = prepare(data, folder)
        gates = {name: Gate.build(NodeConfig.read(file)) for name, file in workspace.node_files.items()}
        return Tiny(folder, workspace, gates, data)

    @property
    def federation(self) -> Federation:
        return self.workspace.federation

    def restart(self, site: str) -> Gate:
        """A new process' gate over the same files, in the place of the old one."""
        self.gates[site].ledger.close()
        self.gates[site] = Gate.build(NodeConfig.read(self.workspace.node_files[site]))
        return self.gates[site]

    def close(self) -> None:
        for gate in self.gates.values():
            gate.ledger.close()

    def link(self) -> GateLink:
        return GateLink(self.gates)

    def conductor(self, asked: Study, run: Path, link: GateLink | None = None, **change: Any) -> Conductor:
        return Conductor(
            asked,
            self.federation,
            COORDINATOR,
            self.workspace.identity,
            link or self.link(),
            Checkpoint(run),
            SeenMarks(self.folder / "seen" / "marks.json"),
            wait_s=0.0,
            **change,
        )

    def pen(self, asked: Study, session: str = "session-1") -> Pen:
        return Pen(self, asked, session)

    def read(self, site: str, reply: bytes) -> Message:
        """A node's reply, its signature verified."""
        return open_envelope(reply, {site: self.federation.nodes[site].identity})


@dataclass
class Pen:
    """The coordinator's hand: signed messages of one session, each with whatever a test wants to be different. Asked
    for the same message again, it writes the same bytes."""

    tiny: Tiny
    study: Study
    session: str
    certificates: dict[str, bytes] = field(default_factory=dict)
    agreed: dict[tuple[str, int], list[bytes]] = field(default_factory=dict)
    sealing: X25519PrivateKey = field(default_factory=X25519PrivateKey.generate)
    expires: int = field(default_factory=lambda: int(time.time()) + 3600)

    def sign(self, header: Header, body: bytes = b"", by: Identity | None = None) -> bytes:
        return seal_envelope(header, body, by or self.tiny.workspace.identity)

    def opening(self, body: bytes | None = None, by: Identity | None = None, **change: Any) -> bytes:
        public = self.sealing.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
        header = Open(self.session, self.study.digest, package_version(), public.hex(), self.expires)
        if body is None:
            panels = [part for name, p in self.study.panels.items() for part in (name.encode(), p.encode())]
            body = pack_parts([self.study.document, *panels])
        return self.sign(replace(header, **change), body, by)

    def open(self, sites: Iterable[str] = NAMES) -> Pen:
        """Open the session at these sites."""
        envelope = self.opening()
        for site in sites:
            reply = self.tiny.gates[site].answer(envelope)
            assert isinstance(self.tiny.read(site, reply).header, Opened), self.tiny.read(site, reply).header
            self.certificates[site] = reply
        return self

    def share(self, questions: Mapping[str, int], roster: Sequence[str] = NAMES, **change: Any) -> bytes:
        header = Share(self.session, self.study.digest, dict(questions), tuple(roster), self.expires)
        body = change.pop("body", None)
        if body is None:
            body = pack_parts(self.certificates[site] for site in roster)
        return self.sign(replace(header, **change), body)

    def agree(self, share: bytes, shared: Sequence[bytes], **change: Any) -> bytes:
        return self.sign(replace(Agree(self.session, digest_of(share), self.expires), **change), pack_parts(shared))

    def join(self, question: str = "counts", attempt: int = 1, roster: Sequence[str] = NAMES) -> Reason | None:
        """Have a roster agree; None, or the first refusal."""
        share = self.share({question: attempt}, roster)
        shared = [self.tiny.gates[site].answer(share) for site in roster]
        agree = self.agree(share, shared)
        replies = [self.tiny.gates[site].answer(agree) for site in roster]
        for site, reply in (*zip(roster, shared, strict=True), *zip(roster, replies, strict=True)):
            if isinstance(refused := self.tiny.read(site, reply).header, Refused):
                return refused.reason
        self.agreed[question, attempt] = replies
        return None

    def ask(
        self,
        question: str,
        number: int = 0,
        analysis: Analysis | None = None,
        earlier: Sequence[Summary] = (),
        roster: Sequence[str] = NAMES,
        body: bytes | None = None,
        by: Identity | None = None,
        agree: bool = True,
        **change: Any,
    ) -> bytes:
        """Slice `number` of a question's first round, or of `analysis`' round after the `earlier` totals. Unless they
        did, and if they can, the roster's sites agree first."""
        asked, attempt = self.study.question(question), change.get("attempt", 1)
        known = (question, attempt) in self.agreed or not set(roster) <= set(self.certificates)
        if agree and asked and asked.summed and not known:
            self.join(question, attempt, roster)
        page = analysis or (asked.analysis if asked else None)
        frame = self.study.frame(asked) if asked else None
        header = Ask(
            session=self.session,
            study=self.study.digest,
            question=question,
            round=len(earlier) + 1,
            slice=number,
            slices=len(page.slices(frame)) if page and frame else 1,
            attempt=1,
            roster=tuple(roster),
            parameters=parameters(page) if page else {},
            expires=self.expires,
            version=package_version(),
        )
        if body is None:
            arrays = carried(page) if page and earlier else {}
            body = pack_parts([pack_arrays(a) for a in ([arrays] if arrays else earlier)])
        return self.sign(replace(header, **change), body, by)

    def project(self, question: str, weights: Projection, **change: Any) -> bytes:
        """Weights for the columns that a question offers."""
        header = Project(self.session, self.study.digest, question, self.expires)
        body = change.pop("body", None)
        return self.sign(replace(header, **change), pack_arrays(weights.arrays()) if body is None else body)

    def unmask(self, requests: Sequence[bytes], question: str = "counts", attempt: int = 1, **change: Any) -> bytes:
        body = change.pop("body", None)
        if body is None:
            body = pack_parts(self.agreed.get((question, attempt), []))
        digests = tuple(digest_of(r) for r in requests)
        return self.sign(replace(Unmask(self.session, question, attempt, digests, self.expires), **change), body)

    def recover(self, sites: Sequence[str], question: str = "counts", attempt: int = 1, **change: Any) -> bytes:
        return self.sign(replace(Recover(self.session, question, attempt, tuple(sites), self.expires), **change))

    def opened(self, request: bytes, reply: bytes) -> list[bytes]:
        """The seeds or shares that a reply brings to the coordinator."""
        for site in self.certificates:
            try:
                data = unseal(self.tiny.read(site, reply).body, self.sealing, digest_of(request))
            except WireError:
                continue
            return [data[at : at + 32] for at in range(0, len(data), 32)]
        raise AssertionError("a refusal")

    def closing(self, by: Identity | None = None, **change: Any) -> bytes:
        return self.sign(replace(Close(self.session, self.expires), **change), by=by)
