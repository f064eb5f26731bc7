"""A new node's folder: its keys, its node file with a policy that allows nothing yet, and its registration."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tomli_w
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from fl_client.readers import DatasetConfig
from fl_client.readers.tables import Table
from strategies.catalogue import CATALOGUE
from strategies.errors import DataError, UsageError
from strategies.federation import Identity, Node, write_secret


@dataclass(frozen=True)
class Enrolment:
    """What an operator says of a node that is to be.

    Attributes:
        name: the node's, in the federation.
        node: what the coordinator is to know of it.
        dataset: its data.
        superlink: host:port of the coordinator's fleet port.
        runtime_port: a free loopback port of this machine.
    """

    name: str
    node: Node
    dataset: DatasetConfig
    superlink: str
    runtime_port: int

    def write(self, folder: Path, identity: Identity) -> str:
        """Make the folder, keys and files; the registration is returned.

        Raises:
            UsageError: if something is in the folder, or the people table has no columns.
            DataError: if the people table cannot be read.
        """
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise UsageError("A node starts in a new folder.", f"{folder} is not empty", "name another.")
        people = Path(self.dataset.people)
        person = _first_column(people)
        table = Table.open(people, person)
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        identity.write(folder / "identity.pem")
        supernode = ec.generate_private_key(ec.SECP384R1())
        write_secret(
            folder / "supernode.key",
            supernode.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
            ),
        )
        public = supernode.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
        (folder / "node.toml").write_text(self._node_file(person, tuple(table.columns)), encoding="utf-8")
        registration = self._registration(public.decode())
        (folder / "registration.toml").write_text(registration, encoding="utf-8")
        return registration

    def _node_file(self, person: str, columns: Sequence[str]) -> str:
        dataset = self.dataset
        head = {"name": self.name, "federation": "federation.toml", "identity": "identity.pem", "state": "state"}
        described = {
            "identifier": dataset.identifier,
            "assembly": dataset.assembly,
            "people": dataset.people,
            "genotypes": dataset.genotypes,
            "synthetic": dataset.synthetic,
            "person": person,
            "version": dataset.version,
            "exclude": dataset.exclude,
        }
        link = {
            "superlink": self.superlink,
            "root_certificates": "ca.crt",
            "node_key": "supernode.key",
            "runtime_port": self.runtime_port,
        }
        regimes: dict[str, list[str]] = {}
        for analysis in CATALOGUE:
            regimes.setdefault(analysis.analysis, []).append(analysis.regime.value)
        offered = "\n".join(f"# {name} = {regime!r}".replace("'", '"') for name, regime in regimes.items())
        listed = "\n".join(f"# {name} = [ , ]" for name in columns)
        return f"""# A node of a Genosum federation. Paths are relative to this file's folder.
{tomli_w.dumps(head)}
[dataset]
{tomli_w.dumps(described)}
[link]  # dials out; the port is for this machine's loopback only
{tomli_w.dumps(link)}
# What this node answers. Nothing on the wire changes it; as it stands, every question is refused.
[policy]
coordinators = []     # names in federation.toml, such as ["demo"]
purposes = []         # of Article 53(1) of Regulation (EU) 2025/327, such as ["scientific_research"]
epsilon = 1.0         # lifetime budget of the data set, per unit, over all private questions of everybody
delta = 1e-5
family = 1            # the unit: 1 is a person; 3 would be any three relatives together, at nine times the price
renewal = "never"     # or "yearly": the same budget again every calendar year, which every answer then says
minimum_people = 20   # an exact question is refused below this
minimum_sites = 3     # an exact sum covers at least this many sites
minimum_cell = 5      # fewest people in a cell of an exact answer: 3, 5, 10 or 20; 0 only for public data
by_site = ["private"] # regimes in which answers are also given for this site alone; with "exact", never in exact totals
honest_sites = 2      # the most sites that shared noise may count on; were one alone honest, so many times the loss
events = []           # domains of clinical events that cohorts may ask about, such as ["condition", "measurement"]
forbidden_codes = []  # codes that no question may name, with + for all below them, such as ["SNOMED:86406008+"]
own_total = {"true" if self.node.own_total else "false"}  # may its own total follow from totals over different rosters?

[policy.shares]       # of the budget's loss (zCDP), what may be spent
permit = 1.0          # under one permit
year = 1.0            # in one calendar year

[policy.analyses]     # analysis = regimes; installed are:
{offered}

[policy.columns]      # column = [lowest, highest]: from a code book, never from the data; values are clamped to it
{listed}
"""

    def _registration(self, supernode: str) -> str:
        node = self.node
        shape = {
            "name": self.name,
            "supernode": supernode,
            "node": {
                "country": node.country,
                "identity": node.identity,
                "own_total": node.own_total,
                "people": node.people,
            },
        }
        return (
            "# Public lines for the coordinator's federation.toml. What `fl-client dictionary` writes may be added.\n"
            f"{tomli_w.dumps(shape)}"
        )


def _first_column(people: Path) -> str:
    """The name of the table's first column: the person."""
    try:
        with people.open(encoding="utf-8") as file:
            return file.readline().rstrip("\r\n").split("," if people.suffix == ".csv" else "\t")[0].strip()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError("A people table is a readable text.", f"{people}: {error}", "correct the path.") from None
