"""The sites of a simulation: one file describes them all, and becomes a node file, a key and a federation for each."""

from __future__ import annotations

import csv
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import tomli_w

from fl_client.policy import NodeConfig, Policy
from fl_client.readers import DatasetConfig
from strategies.codec import decode
from strategies.errors import UsageError
from strategies.federation import Coordinator, Federation, Identity, Node

COORDINATOR = "demo"
PATHS = ("people", "events", "omop", "phenopackets", "link", "genotypes", "exclude", "callable", "reference")
"""Of a `[dataset]` table."""


@dataclass(frozen=True)
class Site:
    """One simulated node; `policy` is the shared one unless the site has its own."""

    country: str
    dataset: DatasetConfig
    own_total: bool = False
    people: int = 0
    policy: Policy | None = None


@dataclass(frozen=True)
class Sites:
    """All sites of a simulation and the policy that they share."""

    policy: Policy
    sites: Mapping[str, Site]

    @staticmethod
    def read(folder: Path) -> Sites:
        """Read `sites.toml` of a folder.

        Raises:
            UsageError: if it is missing or not as it must be.
        """
        path = folder / "sites.toml"
        try:
            raw = tomllib.loads(path.read_text(encoding="utf-8"))
        except OSError:
            raise UsageError(
                "A folder of sites holds a sites.toml that describes them.",
                f"{path} is not readable",
                "see simulations/data/europe1000g/sites.toml for an example, or make sites with `fl-simulate twin`.",
            ) from None
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise UsageError("A sites.toml is written in TOML.", f"{path.name}: {error}", "correct the line.") from None
        return decode(Sites, raw, path.name)


@dataclass(frozen=True)
class Workspace:
    """A federation on one machine: its file, its coordinator's key, and one node file a site."""

    federation: Federation
    identity: Identity
    node_files: Mapping[str, Path]


def prepare(data: Path, folder: Path, keep: Callable[[str], bool] | None = None) -> Workspace:
    """Make a federation of a folder of sites.

    Args:
        data: the folder with `sites.toml`.
        folder: where keys, ledgers and node files go.
        keep: if given, only the people for whose identifier it is true belong to the data sets.

    Raises:
        UsageError: if `sites.toml` is not as it must be, or a site has an `exclude` file and `keep` is given.
    """
    sites = Sites.read(data)
    identity = Identity.generate()
    nodes, files = {}, {}
    for name, site in sites.sites.items():
        home = folder / name
        home.mkdir(parents=True)
        key = Identity.generate()
        key.write(home / "identity.pem")
        named = {key: getattr(site.dataset, key) for key in PATHS}
        if site.dataset.served:
            named.pop("omop")
        resolved = {key: str((data / file).resolve()) if file else "" for key, file in named.items()}
        if keep is not None and not site.dataset.people.endswith((".tsv", ".csv")):
            raise UsageError("People are chosen from a text.", f"{name} has none", "name a .tsv or .csv as `people`.")
        if keep is not None and resolved["exclude"]:
            raise UsageError(
                "People are chosen in one way.", f"{name} has an `exclude` file", "remove those people from its table."
            )
        if keep is not None:
            people = Path(resolved["people"])
            resolved["people"] = str(_kept(people, home / people.name, keep))
        dataset = asdict(site.dataset) | resolved
        policy = (site.policy or sites.policy).plain() | {"own_total": site.own_total}
        document = {
            "name": name, "federation": "../federation.toml", "identity": "identity.pem", "state": "state",
            "dataset": dataset, "policy": policy,
        }  # fmt: skip
        files[name] = home / "node.toml"
        files[name].write_text(tomli_w.dumps(document), encoding="utf-8")
        said = NodeConfig.read(files[name]).dictionary
        nodes[name] = Node(site.country, key.public, site.own_total, site.people, said)
    federation = Federation("simulation", nodes, {COORDINATOR: Coordinator(identity.public)})
    (folder / "federation.toml").write_text(tomli_w.dumps(federation.plain()), encoding="utf-8")
    return Workspace(federation, identity, files)


def _kept(table: Path, target: Path, keep: Callable[[str], bool]) -> Path:
    separator = "," if table.suffix == ".csv" else "\t"
    with table.open(newline="", encoding="utf-8") as source, target.open("w", newline="", encoding="utf-8") as out:
        rows = csv.reader(source, delimiter=separator)
        writer = csv.writer(out, delimiter=separator, lineterminator="\n")
        writer.writerow(next(rows))
        writer.writerows(row for row in rows if keep(row[0]))
    return target
