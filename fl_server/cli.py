"""`fl-server`: what a coordinator types.

fl-server init FOLDER --name NAME          make federation.toml, keys, certificates and server.toml
fl-server admit FOLDER registration.toml   add a node to the federation
fl-server serve server.toml                run the SuperLink, until stopped
fl-server plan STUDY                       what a study reads, sends, costs, takes and will be worth; no network
fl-server run STUDY --server server.toml   ask it, and write the answers
"""

from __future__ import annotations

import argparse
import fcntl
import ipaddress
import os
import re
import secrets
import shutil
import signal
import sys
import tomllib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import tomli_w
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

os.environ["FLWR_TELEMETRY_ENABLED"] = "0"
os.environ["FLWR_DISABLE_UPDATE_CHECK"] = "1"

from fl_server import superlink
from fl_server.app import AWAY_S, GridLink
from fl_server.conduct import Conductor, Result
from fl_server.config import ServerConfig
from fl_server.marks import SeenMarks
from fl_server.progress import shown
from fl_server.session import Checkpoint
from strategies.codec import decode
from strategies.errors import GenosumError, UsageError, of_system
from strategies.federation import Federation, Identity, Node, write_secret
from strategies.study import Study

AUTHORITY_DAYS, CERTIFICATE_DAYS = 3650, 825
FLEET_PORT, API_PORT = 9443, 9442


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `fl-server`; the value is the exit code."""
    parser = argparse.ArgumentParser("fl-server", description="A coordinator: asks studies of national nodes.")
    verbs = parser.add_subparsers(required=True, metavar="VERB")
    one = verbs.add_parser("init", help="make federation.toml, keys, certificates and server.toml")
    one.add_argument("folder", type=Path, help="a new or empty folder")
    one.add_argument("--name", required=True, help="the coordinator's name in the federation")
    one.add_argument("--federation", help="the federation's name (default: the coordinator's)")
    one.add_argument("--host", default="localhost", help="name or address by which nodes reach this machine")
    one.add_argument("--listen", default="127.0.0.1", help="address of the nodes' port; loopback unless told otherwise")
    one.add_argument("--fleet-port", type=int, default=FLEET_PORT, help="the nodes' port")
    one.add_argument("--api-port", type=int, default=API_PORT, help="the coordinator's own port, on loopback")
    one.set_defaults(verb=_init)
    one = verbs.add_parser("admit", help="add a node to the federation")
    one.add_argument("folder", type=Path, help="the folder that `init` made")
    one.add_argument("registration", type=Path, help="the node's registration.toml")
    one.set_defaults(verb=_admit)
    one = verbs.add_parser("serve", help="run the SuperLink, until stopped")
    one.add_argument("server", type=Path, help="the server.toml that `init` made")
    one.set_defaults(verb=_serve)
    one = verbs.add_parser("plan", help="what a study reads, sends, costs, takes and will be worth; no network")
    one.add_argument("study", type=Path)
    one.add_argument("--federation", type=Path, help="federation.toml, for the sites' public numbers of people")
    one.add_argument("--people", type=int, metavar="N", help="people at each site, in the place of these numbers")
    one.add_argument("--known", type=Path, metavar="RUN", help="folder of a run under way, where nodes stated budgets")
    one.add_argument("--threshold", type=float, metavar="P", help="a level of significance besides 5e-8")
    one.add_argument("--auc", type=float, default=0.75, help="assumed area under the curve of the best model there is")
    one.add_argument("--cases", type=float, default=0.5, help="assumed share of people with a model's label")
    one.add_argument("--out", type=Path, help="a new folder for plan.html, with figures, and plan.json")
    one.set_defaults(verb=_plan)
    one = verbs.add_parser("run", help="ask a study, and write the answers")
    one.add_argument("study", type=Path)
    one.add_argument("--server", type=Path, required=True, help="the server.toml that `init` made")
    one.add_argument("--out", type=Path, help="a new folder for report and answers (default: results/STUDY)")
    one.add_argument("--resume", action="store_true", help="go on with a run that was begun")
    one.add_argument("--timeout", type=float, default=600.0, metavar="S", help="the longest wait for one exchange")
    one.add_argument("--away", type=float, default=AWAY_S, metavar="S", help="the longest wait for a node to be back")
    one.add_argument("--wait", type=float, default=20.0, metavar="S", help="the longest wait for nodes to be up")
    one.set_defaults(verb=_run)
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
        print("Stopped. What is done is kept: run again with --resume.", file=sys.stderr)
        return 130


# -- init, admit --------------------------------------------------------------------------------------------------


def _init(chosen: argparse.Namespace) -> int:
    folder: Path = chosen.folder
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError("A federation starts in a new folder.", f"{folder} is not empty", "name another.")
    if not chosen.name.isidentifier():
        raise UsageError("A name is made of letters, digits and '_'.", repr(chosen.name)[:80], "choose another.")
    if not (re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,62}[A-Za-z0-9])?", chosen.host) or _is_address(chosen.host)):
        raise UsageError(
            "A host is a name of letters, digits, '.' and '-', or an address.",
            repr(chosen.host)[:80],
            "name it as nodes will dial it, in ASCII (xn--... for other letters).",
        )
    document: dict[str, Any] = {
        "name": chosen.name,
        "federation": "federation.toml",
        "identity": "identity.pem",
        "superlink": {
            "listen": f"{chosen.listen}:{chosen.fleet_port}",
            "api": f"127.0.0.1:{chosen.api_port}",
            "certificate": "server.crt",
            "key": "server.key",
            "secret": "superexec.secret",
            "database": "state/superlink.sqlite",
            "supernodes": "supernodes",
        },
    }
    decode(ServerConfig, document, "fl-server init", leave_out=frozenset({"folder"}))
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    identity = Identity.generate()
    identity.write(folder / "identity.pem")
    write_secret(folder / "superexec.secret", secrets.token_bytes(32))
    _certificates(folder, chosen.name, chosen.host)
    (folder / "supernodes").mkdir()
    head = tomli_w.dumps({"name": chosen.federation or chosen.name})
    coordinator = tomli_w.dumps({"coordinators": {chosen.name: {"identity": identity.public}}})
    (folder / "federation.toml").write_text(
        "# The root of trust: every party pins this file, and no key comes from anywhere else.\n"
        f"# Compare its SHA-256 over another channel whenever it changes.\n{head}\n{coordinator}\n[nodes]\n",
        encoding="utf-8",
    )
    (folder / "server.toml").write_text(
        "# A coordinator of a Genosum federation. Paths are relative to this file's folder.\n"
        "# Only `listen` may be reached by others; whoever reaches `api` can register nodes and stop runs.\n"
        f"{tomli_w.dumps(document)}",
        encoding="utf-8",
    )
    print(f"{folder}: federation.toml, server.toml, keys, a certificate for {chosen.host}.")
    print(f"Nodes dial {chosen.host}:{chosen.fleet_port}. Give them federation.toml and ca.crt once all are admitted.")
    print(f"Next: fl-server admit {folder} registration.toml, for each node")
    return 0


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _certificates(folder: Path, name: str, host: str) -> None:
    """An authority of the federation's own, and the server's certificate by it."""
    now = datetime.now(UTC)
    authority, server = ec.generate_private_key(ec.SECP384R1()), ec.generate_private_key(ec.SECP384R1())
    issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"Genosum federation {name}")])
    hosts = dict.fromkeys(("localhost", "127.0.0.1", host))
    named: list[x509.GeneralName] = []
    for one in hosts:
        try:
            named.append(x509.IPAddress(ipaddress.ip_address(one)))
        except ValueError:
            named.append(x509.DNSName(one))

    def begun(subject: x509.Name, key: ec.EllipticCurvePublicKey, days: int) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(hours=1))  # clocks differ
            .not_valid_after(now + timedelta(days=days))
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.public_key()), critical=False)
        )

    def usage(authority: bool) -> x509.KeyUsage:
        return x509.KeyUsage(not authority, False, False, False, False, authority, authority, False, False)

    root = (
        begun(issuer, authority.public_key(), AUTHORITY_DAYS)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage(True), critical=True)
        .sign(authority, hashes.SHA384())
    )
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)])
    leaf = (
        begun(subject, server.public_key(), CERTIFICATE_DAYS)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(usage(False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName(named), critical=False)
        .sign(authority, hashes.SHA384())
    )
    for file, key in (("ca.key", authority), ("server.key", server)):
        write_secret(
            folder / file,
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            ),
        )
    for file, certificate in (("ca.crt", root), ("server.crt", leaf)):
        (folder / file).write_bytes(certificate.public_bytes(serialization.Encoding.PEM))


@dataclass(frozen=True)
class Registration:
    """What a node's operator sends: its name, its SuperNode's public key, and its entry of the federation file."""

    name: str
    supernode: str
    node: Node


def _admit(chosen: argparse.Namespace) -> int:
    folder: Path = chosen.folder
    config = ServerConfig.read(folder / "server.toml")
    path = config.folder / config.federation
    federation = Federation.read(path)
    try:
        raw = tomllib.loads(chosen.registration.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(
            "A registration is a readable file.", f"{chosen.registration}: {error.strerror}", "correct the path."
        ) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(
            "A registration is written in TOML.", f"{chosen.registration}: {error}", "ask for it again."
        ) from None
    one = decode(Registration, raw, chosen.registration.name)
    superlink.public_key(one.name, one.supernode.encode())
    keys = config.folder / config.superlink.supernodes
    taken = {file.read_text(encoding="utf-8").split()[1]: file.stem for file in keys.glob("*.pub")}
    if one.name in federation.nodes:
        raise UsageError("A node is admitted once.", f"{one.name} is in {path.name}", "remove its entry first.")
    if (owner := taken.get(one.supernode.split()[1])) is not None:
        raise UsageError("Every node has keys of its own.", f"{one.name} sent the key of {owner}", "make new ones.")
    entry = {name: value for name, value in one.node.plain().items() if value or name == "own_total"}
    text = path.read_text(encoding="utf-8").rstrip() + "\n\n" + tomli_w.dumps({"nodes": {one.name: entry}})
    decode(Federation, tomllib.loads(text), path.name)  # also refuses an identity or a name that is not as it must be
    partial = path.with_name(f"{path.name}.partial")
    partial.write_text(text, encoding="utf-8")
    (keys / f"{one.name}.pub").write_text(one.supernode.strip() + "\n", encoding="utf-8")
    partial.replace(path)
    print(f"{one.name} ({one.node.country}) is admitted; a running SuperLink lets it join at once.")
    print(f"Give the new {path} to every node: those that pin the old one do not know {one.name}.")
    return 0


# -- serve --------------------------------------------------------------------------------------------------------


def _serve(chosen: argparse.Namespace) -> int:
    config = ServerConfig.read(chosen.server)
    federation = Federation.read(config.folder / config.federation)
    superlink.check(config)
    print(
        f"{federation.name}: nodes at {config.superlink.listen} (TLS, fleet API only); "
        f"coordinator at {config.superlink.api}",
        flush=True,
    )
    # Flower reads its switches when it is imported, so the SuperLink starts as a program of its own in this process.
    environment = {**os.environ, "FLWR_HOME": str(config.folder / "state" / "flwr")}
    os.execve(sys.executable, [sys.executable, "-m", "fl_server.superlink", str(chosen.server)], environment)  # noqa: S606  (our own module)


# -- plan ---------------------------------------------------------------------------------------------------------


def _plan(chosen: argparse.Namespace) -> int:
    # Importing scipy's distributions and the curves takes a second that no other verb should wait for.
    from fl_server.planning import forecast, text  # noqa: PLC0415
    from fl_server.planning.sites import sites, stated_budgets  # noqa: PLC0415

    out: Path | None = chosen.out
    if out is not None and out.exists():
        raise UsageError("A plan is written into a new folder.", f"{out} exists", "name another with --out.")
    study = Study.read(chosen.study)
    federation = Federation.read(chosen.federation) if chosen.federation else None
    budgets = {}
    if chosen.known is not None:
        if federation is None:
            raise UsageError(
                "A node's statement is verified with the federation file.", "--known alone", "add --federation."
            )
        budgets = stated_budgets(chosen.known, federation)
    there = sites(federation, study.minimum_sites, chosen.people, budgets)
    made = forecast.plan(study, there, forecast.Assumed(chosen.auc, chosen.cases, chosen.threshold))
    print("\n".join(text.lines(made)))
    if out is not None:
        from fl_server.planning import page  # noqa: PLC0415

        page.write(made, out)
        print(f"Written: {out / 'plan.html'} and plan.json.")
    print(f"Nothing was sent. Next: fl-server run {chosen.study}")
    return 0


# -- run ----------------------------------------------------------------------------------------------------------


def _run(chosen: argparse.Namespace) -> int:
    study = Study.read(chosen.study)
    config = ServerConfig.read(chosen.server)
    federation = Federation.read(config.folder / config.federation)
    identity = Identity.read(config.folder / config.identity)
    out: Path = chosen.out or Path("results") / chosen.study.stem
    folder = out.with_name(f"{out.name}.run")
    if not _needed(out, folder, chosen.resume):
        print(f"{out} is complete.")
        return 0
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with _alone(folder):
        with (
            superlink.Run(config.superlink.api, config.secret, study.digest, folder / "superlink.run") as run,
            shown(f"{study.title}: {len(study.questions)} questions") as step,
        ):
            answered = Conductor(
                study, federation, config.name, identity, GridLink(run.grid, chosen.away), Checkpoint(folder),
                SeenMarks(config.folder / "state" / "marks.json"),
                timeout_s=chosen.timeout, wait_s=chosen.wait, progress=step,
            ).run()  # fmt: skip
        _write(study, federation, answered, out)
        shutil.rmtree(folder)  # keys, signed requests and totals: the answers are all that is needed from now on
    for result in answered:
        for site, why in result.statement.absent.items():
            print(f"Warning: {result.question.name} is answered without {site}, which {_clause(why)}.", file=sys.stderr)
    print(f"{len(answered)} questions answered. Open {out / 'report.html'}")
    return 0


def _needed(out: Path, folder: Path, resume: bool) -> bool:
    """Whether there is anything to ask.

    Raises:
        UsageError: if answers or a run of that name are there and nobody said to resume, or there is nothing to resume.
    """
    if out.exists():
        if not resume:
            raise UsageError("Answers are written into a new folder.", f"{out} exists", "name another with --out.")
        shutil.rmtree(folder, ignore_errors=True)  # killed between the answers and this
        return False
    if folder.exists() and not resume:
        raise UsageError(
            "A run that was begun is gone on with.", f"{folder} exists", "add --resume, or name another with --out."
        )
    if resume and not folder.exists():
        raise UsageError("A run is resumed from its folder.", f"{folder} does not exist", "run without --resume.")
    return True


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Hold the run's folder, which a process loses however it ends."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with (folder / "running").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise UsageError("A run has one process.", f"{folder} is being run", "wait for it, or stop it.") from None
        yield


def _write(study: Study, federation: Federation, answered: Sequence[Result], out: Path) -> None:
    """Write the answers so that their folder appears whole or not at all."""
    from fl_server import results  # noqa: PLC0415  (takes seconds to import, and only this needs it)

    partial = out.with_name(f".{out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir(parents=True)
        results.write(study, federation, answered, partial)
        partial.rename(out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _clause(why: str) -> str:
    return f"refused ({why.removeprefix('refused: ')})" if why.startswith("refused: ") else why


if __name__ == "__main__":
    sys.exit(main())
