"""What a node's operator allows, as versioned data. Read from the node's own file; nothing on the wire changes it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from fl_client.database import checked
from fl_client.ledger import Ledger
from fl_client.ranges import fits
from fl_client.readers import Dataset, DatasetConfig
from fl_client.reservations import Bounds
from strategies.analysis import Range
from strategies.catalogue import CATALOGUE
from strategies.codec import canonical, decode, read_toml
from strategies.dictionary import Described
from strategies.errors import UsageError
from strategies.events import Code, Domain
from strategies.federation import Federation, Identity
from strategies.grammar import code_of
from strategies.privacy import Budget, Loss, Regime, Renewal, Unit
from strategies.protections.secure_sum import LEAST_SITES
from strategies.protections.suppression import check_profile
from strategies.question import HONEST_SITES
from strategies.study import Purpose


@dataclass(frozen=True)
class Shares:
    """The parts of the data set's loss (zCDP) that one permit and one calendar year may spend."""

    permit: float = 1.0
    year: float = 1.0

    def __post_init__(self) -> None:
        if not (0 < self.permit <= 1 and 0 < self.year <= 1):
            raise ValueError("shares must be above 0 and at most 1.")


@dataclass(frozen=True)
class Policy:
    """The rules of a node.

    Attributes:
        coordinators: names (in the federation file) that are answered.
        purposes: purposes that are served.
        analyses: analysis -> regimes in which it runs.
        epsilon, delta: the lifetime budget of the data set, per unit, over all private questions of everybody.
        family: the unit: 1 for a person, k for any k relatives together. A question may promise another unit: what it
            costs each person is set against what this budget allows each person.
        renewal: whether that budget is renewed every calendar year; every answer's statement says so.
        shares: how much of it one permit and one year may spend.
        columns: column -> public range or categories. A study's range must lie within it; values are clamped to the
            study's. A derived column that an exact question reads must stand here just as it is derived there, its
            index put in the place of the word.
        events: domains of clinical events that cohorts and derived columns may read. Dates of people (birth, death, the
            days on which events were recorded) may be read where there is one at all.
        forbidden_codes: codes such as "SNOMED:86406008+" that no question may name, nor, with a +, any below them.
        minimum_people: fewest people behind an exact sum at this site; below, the question is refused. A public number.
        minimum_sites: a sum covers at least this many sites.
        minimum_cell: fewest people in a cell that an exact answer shows: 3, 5, 10 or 20; 0 only for public data.
        by_site: regimes in which answers are also given for this site alone. With "exact", this node withholds small
            cells from its own part, and refuses exact totals while there is a minimum: what it withheld would follow
            from a total and the other sites' parts.
        honest_sites: the most sites whose noise a private total may count on. With so many in a roster that keep theirs
            to themselves a question costs what it says; with one alone, so many times that.
        own_total: whether this node's own total may follow from totals over different rosters; the federation file
            must say so too.
    """

    coordinators: tuple[str, ...]
    purposes: tuple[Purpose, ...]
    analyses: Mapping[str, tuple[Regime, ...]]
    epsilon: float
    delta: float
    columns: Mapping[str, Range] = field(default_factory=dict)
    minimum_people: int = 20
    minimum_sites: int = 3
    minimum_cell: int = 5
    by_site: tuple[Regime, ...] = (Regime.PRIVATE,)
    honest_sites: int = HONEST_SITES
    own_total: bool = False
    family: int = 1
    renewal: Renewal = Renewal.NEVER
    shares: Shares = field(default_factory=Shares)
    events: tuple[Domain, ...] = ()
    forbidden_codes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        Budget(self.epsilon, self.delta, Unit(self.family))
        known = {a.analysis for a in CATALOGUE}
        for name in self.analyses:
            if name not in known:
                raise ValueError(f"analyses must name installed ones ({', '.join(sorted(known))}), got {name!r:.40}.")
        if self.minimum_sites < LEAST_SITES:
            raise ValueError(f"minimum_sites must be at least {LEAST_SITES}: with two, each learns the other's part.")
        if not 1 <= self.honest_sites <= 100:
            raise ValueError("honest_sites must be from 1 to 100.")
        if self.minimum_people < 1:
            raise ValueError("minimum_people must be at least 1.")
        check_profile(self.minimum_cell)
        assert len(self.forbidden) == len(self.forbidden_codes)

    @property
    def forbidden(self) -> tuple[Code, ...]:
        """The codes that no question may name."""
        return tuple(code_of(text, "forbidden_codes") for text in self.forbidden_codes)

    @property
    def budget(self) -> Budget:
        return Budget(self.epsilon, self.delta, Unit(self.family))

    @property
    def bounds(self) -> Bounds:
        whole = self.budget.loss
        return Bounds(whole, Loss(whole.rho * self.shares.permit), Loss(whole.rho * self.shares.year), self.renewal)

    def plain(self) -> dict[str, Any]:
        """What the node's file would say."""
        return asdict(self) | {"columns": {name: column.plain() for name, column in self.columns.items()}}

    @cached_property
    def identifier(self) -> str:
        """A digest of the rules, named in every report, so that two versions of a policy are told apart."""
        return hashlib.sha256(canonical(self.plain())).hexdigest()[:16]


@dataclass(frozen=True)
class Link:
    """Where the node's SuperNode finds its SuperLink.

    Attributes:
        superlink: host:port of the fleet port.
        root_certificates: file of the authority that signed its certificate.
        node_key: file of the key by which the SuperNode is registered.
        runtime_port: loopback port on which the node's own executor takes its work.
    """

    superlink: str
    root_certificates: str
    node_key: str
    runtime_port: int

    def __post_init__(self) -> None:
        host, _, port = self.superlink.rpartition(":")
        if not host or not port.isdecimal() or not 0 < int(port) < 2**16:
            raise ValueError("superlink must be host:port, such as superlink.example.org:9443.")
        if not 0 < self.runtime_port < 2**16:
            raise ValueError("runtime_port must be from 1 to 65535.")


@dataclass(frozen=True)
class NodeConfig:
    """A node's file, with all its paths relative to the file's folder.

    Attributes:
        state: folder of what the node remembers.
        ledger: URL of a PostgreSQL database for the ledger; empty for a SQLite file in `state`.
    """

    name: str
    federation: str
    identity: str
    state: str
    dataset: DatasetConfig
    policy: Policy
    link: Link | None = None
    ledger: str = ""
    folder: Path = Path()

    @property
    def minimum_cell(self) -> int:
        """The stricter of the policy's and the data set's own."""
        return max(self.policy.minimum_cell, self.dataset.minimum_cell)

    @property
    def dictionary(self) -> dict[str, Described]:
        """What the node says in public of the columns that its policy allows: name -> shape and meaning."""
        said = {}
        for name, shape in self.policy.columns.items():
            known = self.dataset.declared.get(name)
            said[name] = Described(shape) if known is None else replace(known.described, shape=shape)
        return said

    @staticmethod
    def read(path: Path) -> NodeConfig:
        """Read a node's file strictly.

        Raises:
            UsageError: if it is missing or not as it must be.
        """
        raw = read_toml(path, "A node's file", "A node's file is readable.", "correct the path.")
        config = decode(NodeConfig, raw, path.name, leave_out=frozenset({"folder"}))
        if config.ledger:
            checked(config.ledger)
        if config.dataset.served:
            checked(config.dataset.omop, "omop")
        for name, variable in config.dataset.declared.items():
            allowed = config.policy.columns.get(name)
            if allowed is not None and not fits(allowed, variable):
                raise UsageError(
                    "The policy's range of a declared variable is in a unit that its own converts to, and its "
                    "categories are among the variable's.",
                    f"{name!r:.60} is {variable.shape!s:.80}, and the policy allows {allowed!s:.80}",
                    "correct one of the two.",
                )
        return NodeConfig(**{**config.__dict__, "folder": path.parent.resolve()})

    def open_dataset(self) -> Dataset:
        """The node's data set.

        Raises:
            DataError: if a file of it is missing or malformed.
        """
        state = self.folder / self.state
        state.mkdir(mode=0o700, parents=True, exist_ok=True)
        return Dataset.open(self.dataset, self.folder, state)

    def open_ledger(self) -> Ledger:
        """The node's ledger, wherever it is kept.

        Raises:
            DataError: if it cannot be opened.
        """
        return Ledger(self.folder / self.state, self.dataset.identifier, self.ledger or None)

    def parties(self) -> tuple[Federation, Identity]:
        """The federation that the node pins, and the key by which that federation knows the node.

        Raises:
            UsageError: if federation file or key are not as they must be.
        """
        federation = Federation.read(self.folder / self.federation)
        identity = Identity.read(self.folder / self.identity)
        known = federation.nodes.get(self.name)
        if known is None or known.identity != identity.public:
            raise UsageError(
                "A node is known to the federation by its name and key.",
                f"{self.name} with this key is not in {self.federation}",
                "have the coordinator add it and pin the new file.",
            )
        return federation, identity
