"""A run as an RO-Crate: what was asked, by which software, under which policies, and every file with its digest.

RO-Crate 1.1, and Process Run Crate 0.5 for the questions: each is an action with the software as its instrument, the
study as its object, and its files as its result. What a site withheld or noised before anything left it is an action of
its own, a disclosure check in the sense of the Safe Haven Provenance terms that Five Safes RO-Crate uses.
"""

from __future__ import annotations

import datetime
import mimetypes
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

from fl_server.conduct import Result
from fl_server.results import statement
from strategies.federation import Federation
from strategies.study import Study

NAME = "ro-crate-metadata.json"
SPECIFICATION = "https://w3id.org/ro/crate/1.1"
PROCESS_RUN = "https://w3id.org/ro/wfrun/process/0.5"
CONTEXT = [f"{SPECIFICATION}/context", {"sha256": "https://w3id.org/ro/terms/workflow-run#sha256"}]
DISCLOSURE_CHECK = "https://w3id.org/shp#DisclosureCheck"
COMPLETED = "http://schema.org/CompletedActionStatus"
LICENCE = "#terms-of-use"

LIBRARIES = ("flwr", "numpy", "scipy", "polars", "pyarrow")
"""Those on which the numbers and files depend."""

FORMATS = {
    ".parquet": "application/vnd.apache.parquet",
    ".safetensors": "application/octet-stream",
    ".yaml": "application/yaml",
    ".md": "text/markdown",
    ".gz": "application/gzip",
}


@dataclass(frozen=True)
class Written:
    """A file of the folder: its place, size in bytes, and SHA-256 as hexadecimal digits."""

    path: str
    size: int
    sha256: str


def document(
    study: Study,
    federation: Federation,
    results: Sequence[Result],
    files: Sequence[Written],
    software: str,
    today: datetime.date,
) -> dict[str, Any]:
    """The crate's metadata as JSON-LD.

    Args:
        files: all of the folder but the metadata themselves.
        software: Genosum's version.
        today: the day on which it was written.
    """
    parts = [_file(one, today) for one in files]
    actions = [_action(result, files, today) for result in results]
    checks = [_check(result, files) for result in results]
    nodes = {site for r in results for site in r.statement.sites}
    policies = sorted({(site, digest) for r in results for site, digest in r.statement.policies.items()})
    root = {
        "@id": "./",
        "@type": "Dataset",
        "name": study.title,
        "description": "Answers of a federated study: only sums left the sites.",
        "identifier": f"sha256:{study.digest}",
        "datePublished": today.isoformat(),
        "license": _refers(LICENCE),
        "conformsTo": _refers(PROCESS_RUN),
        "hasPart": [_refers(one["@id"]) for one in parts],
        "mentions": [_refers(one["@id"]) for one in (*actions, *checks)],
        "author": _refers("#federation"),
        "publisher": _refers("#federation"),
        "contributor": [_refers(f"#node-{site}") for site in sorted(nodes)],
    }
    graph: list[dict[str, Any]] = [
        {
            "@id": NAME,
            "@type": "CreativeWork",
            "conformsTo": [_refers(SPECIFICATION), _refers(PROCESS_RUN)],
            "about": _refers("./"),
        },
        root,
        {"@id": PROCESS_RUN, "@type": "CreativeWork", "name": "Process Run Crate", "version": "0.5"},
        {
            "@id": LICENCE,
            "@type": "CreativeWork",
            "name": "Terms of use",
            "description": " ".join(
                f"{r.question.name} ({r.question.regime.value}): {statement.FOR_WHOM[r.question.regime]}."
                for r in results
            ),
        },
        {"@id": "#purpose", "@type": "DefinedTerm", "name": study.purpose.value, "description": _PURPOSE},
        *parts,
        *actions,
        *checks,
        *_software(software),
        {"@id": "#federation", "@type": "Organization", "name": federation.name},
        *(
            {"@id": f"#node-{site}", "@type": "Organization", "name": site, "location": federation.nodes[site].country}
            for site in sorted(nodes)
        ),
        *(
            {
                "@id": _policy(site, digest),
                "@type": "CreativeWork",
                "name": f"Policy of {site}",
                "identifier": digest,
                "author": _refers(f"#node-{site}"),
            }
            for site, digest in policies
        ),
    ]
    root["about"] = _refers("#purpose")
    return {"@context": CONTEXT, "@graph": graph}


_PURPOSE = "Purpose of secondary use, as named in Article 53(1) of Regulation (EU) 2025/327"


def _refers(identifier: str) -> dict[str, str]:
    return {"@id": identifier}


def _policy(site: str, digest: str) -> str:
    return f"#policy-{site}-{digest}"


def _file(one: Written, today: datetime.date) -> dict[str, Any]:
    suffix = f".{one.path.rsplit('.', 1)[-1]}"
    return {
        "@id": one.path,
        "@type": "File",
        "name": one.path,
        "contentSize": str(one.size),
        "encodingFormat": FORMATS.get(suffix) or mimetypes.types_map[suffix],
        "dateModified": today.isoformat(),
        "sha256": one.sha256,
    }


def _files_of(result: Result, files: Sequence[Written]) -> list[dict[str, str]]:
    return [_refers(one.path) for one in files if one.path.startswith(f"{result.question.name}/")]


def _action(result: Result, files: Sequence[Written], today: datetime.date) -> dict[str, Any]:
    question = result.question
    return {
        "@id": f"#question-{question.name}",
        "@type": "CreateAction",
        "name": f"Question {question.name}: {question.analysis.analysis}, {question.regime.value}",
        "description": question.analysis.summary_in_words,
        "instrument": _refers("#genosum"),
        "agent": [_refers(f"#node-{site}") for site in result.statement.sites],
        "object": [_refers("study.json"), *(_refers(_policy(*p)) for p in sorted(result.statement.policies.items()))],
        "result": _files_of(result, files),
        "endTime": today.isoformat(),
        "actionStatus": COMPLETED,
    }


def _check(result: Result, files: Sequence[Written]) -> dict[str, Any]:
    said = result.statement
    if result.question.budget is not None:
        budget = result.question.budget
        words = f"noise for epsilon {budget.epsilon:g} and delta {budget.delta:g} per {budget.unit}"
    elif said.minimum_cell > 1:
        words = f"cells of fewer than {said.minimum_cell} people withheld"
    else:
        words = "no minimum: the sites' policies set none"
    return {
        "@id": f"#check-{result.question.name}",
        "@type": "AssessAction",
        "additionalType": _refers(DISCLOSURE_CHECK),
        "name": f"Disclosure check of {result.question.name}, automatic: {words}",
        "instrument": _refers("#genosum"),
        "object": _files_of(result, files),
        "actionStatus": COMPLETED,
    }


def _software(own: str) -> list[dict[str, Any]]:
    libraries = [("python", platform.python_version()), *((name, version(name)) for name in LIBRARIES)]
    genosum = {
        "@id": "#genosum",
        "@type": "SoftwareApplication",
        "name": "Genosum",
        "version": own,
        "softwareRequirements": [_refers(_home(name)) for name, _ in libraries],
    }
    return [
        genosum,
        *(
            {"@id": _home(name), "@type": "SoftwareApplication", "name": name, "version": v, "url": _home(name)}
            for name, v in libraries
        ),
    ]


def _home(name: str) -> str:
    return "https://www.python.org/" if name == "python" else f"https://pypi.org/project/{name}/"
