"""The airlock: for every question, what left this node, as numbers that a data-access committee can check and as one
page that it can read.

A report holds what the journal holds and nothing more: no identifier, genotype, variant or parameter. It is written
after the reply was recorded and before it leaves, and can be written again from the journal at any time.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

import jinja2

from fl_client.database import write
from strategies.catalogue import find
from strategies.privacy import Regime
from strategies.question import is_name


class Airlock:
    """The folder of reports, beside the ledger."""

    def __init__(self, folder: Path, node: str) -> None:
        self.folder, self.node = folder / "airlock", node

    def write(self, lines: Iterable[Mapping[str, Any]]) -> None:
        """Add decisions, as the journal holds them, to their questions' reports."""
        self._put(lines, lambda place: json.loads(place.read_bytes()) if place.exists() else None)

    def rewrite(self, journal: Iterable[Mapping[str, Any]]) -> int:
        """Write all reports anew from the journal; returns how many there are."""
        return self._put(journal, lambda _: None)

    def _put(self, lines: Iterable[Mapping[str, Any]], before: Callable[[Path], dict[str, Any] | None]) -> int:
        reports: dict[Path, dict[str, Any]] = {}
        for line in lines:
            if (place := self._place(line)) is not None:
                known = reports.get(place) or before(place.with_suffix(".json")) or self._empty(line)
                reports[place] = _added(known, line)
        for place, report in reports.items():
            self.folder.mkdir(mode=0o700, exist_ok=True)  # not synced: the journal is, and a question has many replies
            write(place.with_suffix(".json"), json.dumps(report).encode(), synced=False)
            write(place.with_suffix(".html"), page(report).encode(), synced=False)
        return len(reports)

    def _place(self, line: Mapping[str, Any]) -> Path | None:
        """Where a line's report lies; None for a line that is about no question of a study."""
        names = [str(line.get(key, "")) for key in ("session", "question")]
        if line.get("event") not in ("answer", "refuse") or not all(map(is_name, names)):
            return None  # the names of a refused request may be anything
        return self.folder / "+".join(names)  # + is in no name: no two questions share a report

    def _empty(self, line: Mapping[str, Any]) -> dict[str, Any]:
        place = {key: line[key] for key in ("study", "session", "question")}
        return {"node": self.node, **place, "replies": 0, "numbers": 0, "bytes": 0, "released": [], "refused": {}}


def page(report: Mapping[str, Any]) -> str:
    """A report as one self-contained page in plain words."""
    last = report["released"][-1] if report["released"] else None
    asked = find(last["analysis"], Regime(last["regime"])) if last else None
    words = asked.summary_in_words if asked else ""
    return _template().render(**report, last=last, words=words[:1].upper() + words[1:])


@lru_cache(maxsize=1)
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("fl_client", "."), autoescape=True, undefined=jinja2.StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    return environment.get_template("airlock.html.jinja")


def _added(report: dict[str, Any], line: Mapping[str, Any]) -> dict[str, Any]:
    """The report with one more decision. Releases are listed one by one, refusals counted by their code."""
    if line["event"] == "refuse":
        times = report["refused"].get(line["reason"], 0)
        return {**report, "refused": {**report["refused"], line["reason"]: times + 1}}
    moment = datetime.fromtimestamp(line["time"], UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    release = {"time": moment, **{key: value for key, value in line.items() if key not in ("event", "time", "spent")}}
    return {
        **report,
        "replies": report["replies"] + 1,
        "numbers": report["numbers"] + sum(math.prod(a["shape"]) for a in line["arrays"].values()),
        "bytes": report["bytes"] + line["bytes"],
        "released": [*report["released"], release],
    }
