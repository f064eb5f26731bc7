"""Answers on disk: tables in the field's formats, statements, one report; and how a notebook reads them back.

    results = fl_server.results.load("results/demo")
    results["frequencies"].table()

A results folder holds `report.html`, `study.json` (what was asked, by which software, under which policies),
`ro-crate-metadata.json` (every file with its digest) and for each question a folder with `answer.json`, every table as
Parquet, and the files that its kind of answer has besides.
"""

from __future__ import annotations

import datetime
import hashlib
import io
import json
import math
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from safetensors import numpy as safetensors

from fl_server.conduct import Result
from fl_server.results import beacon, bgzf, crate, gdi, gwas_ssf, model_card, populations, report, statement
from fl_server.results.attack import Attacks, MeasuredAttack
from strategies.analyses.association import LinearAssociation
from strategies.analyses.genotype_counts import GenotypeCounts
from strategies.analyses.logistic_association import LogisticAssociation
from strategies.analyses.panel_matching import WAYS
from strategies.analysis import Answer, Column
from strategies.errors import UsageError
from strategies.federation import Federation
from strategies.privacy import Regime
from strategies.study import Study
from strategies.version import package_version

FORMAT = "genosum results 1"

THREADS = 2

COUNTS = frozenset({"hom_ref", "het", "hom_alt", "hemi_ref", "hemi_alt", "missing", "ac", "an", "n", "cases"}) | {
    "found", "not_found", *WAYS,
}  # fmt: skip
"""Columns of exact answers that count: integers on disk, null where withheld."""

ROWS_AT_A_TIME = 200_000
"""Of a text: memory does not grow with it."""


def write(
    study: Study,
    federation: Federation,
    results: Sequence[Result],
    folder: Path,
    attacks: Attacks | None = None,
    *,
    today: datetime.date | None = None,
) -> None:
    """Write a results folder, whole or not at all.

    Files of equal answers and equal statements are equal byte for byte, but for `study.json`, which says how long each
    question took, and the crate, which has its digest; the day stands in both, in `report.html` and in the YAML file.

    Args:
        folder: new or empty.
        attacks: what was measured on the answers, if anything.
        today: the day that the files state; else this one.

    Raises:
        UsageError: if the folder holds something.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError("Answers are written into a new folder.", f"{folder} is not empty", "name another.")
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir(mode=0o700)  # an exact answer is for the permit holder
        day = today or datetime.date.today()
        written: list[crate.Written] = []
        for result in results:
            for name, data in _files(study, federation, result, attacks or {}, day):
                written.append(_written(partial, f"{result.question.name}/{name}", data))
        written.append(_written(partial, "study.json", [_json(_provenance(study, federation, results, day))]))
        page = report.render(study, federation, results, attacks or {}, day, [one.path for one in written])
        written.append(_written(partial, "report.html", [page.encode()]))
        about = crate.document(study, federation, results, written, package_version(), day)
        (partial / crate.NAME).write_bytes(_json(about))
        partial.replace(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _written(folder: Path, path: str, chunks: Iterable[bytes]) -> crate.Written:
    """Write a file in pieces, and say what it is."""
    place = folder / path
    place.parent.mkdir(parents=True, exist_ok=True)
    digest, size = hashlib.sha256(), 0
    with place.open("wb") as file:
        for chunk in chunks:
            digest.update(chunk)
            size += file.write(chunk)
    return crate.Written(path, size, digest.hexdigest())


def _files(
    study: Study, federation: Federation, result: Result, attacks: Attacks, today: datetime.date
) -> Iterator[tuple[str, Iterable[bytes]]]:
    """Name and content of each file of one question's folder."""
    question, answer = result.question, result.answer
    for name, table in answer.tables.items():
        rows = _frame(table, question.regime)
        yield f"{name}.parquet", [_parquet(rows)]
        if isinstance(question.analysis, GenotypeCounts):
            yield f"{name}.tsv.gz", bgzf.blocks(_text(rows))
    if isinstance(question.analysis, LinearAssociation | LogisticAssociation) and math.isfinite(
        float(answer.facts["people"])
    ):
        with ThreadPoolExecutor(THREADS) as pool:  # what takes its time, compression, runs beside the interpreter
            for files in pool.map(partial(_summary_statistics, study, federation, result, today), answer.tables):
                yield from files.items()
    if result.by_site:
        for name in _tables(result):
            yield f"{name}.by_site.parquet", [_parquet(_by_site(result.by_site, name, question.regime))]
    countries = {site: node.country for site, node in federation.nodes.items()}
    if (shared := populations.rows(result, countries)) is not None:
        yield from _exchanged(study, result, shared)
    if answer.model is not None:
        card = model_card.document(result, countries, package_version(), study.digest)
        inputs = [str(name) for name in answer.tables.get("inputs", {}).get("input", ())]
        arrays = {name: np.ascontiguousarray(array, dtype=np.float32) for name, array in answer.model.items()}
        yield "model.safetensors", [safetensors.save(arrays, metadata={"format": "pt"})]
        yield "model_card.json", [_json(card)]
        yield "model_card.md", [model_card.text(card, inputs).encode()]
    yield "answer.json", [_json(_answer(result, attacks.get(question.name, ())))]


def _exchanged(study: Study, result: Result, rows: pl.DataFrame) -> Iterator[tuple[str, Iterable[bytes]]]:
    """Name and content of the files in which nodes exchange allele frequencies."""
    software, assembly = f"Genosum {package_version()}", study.assembly
    text = beacon.response(rows, assembly, result.question.name, study.title, f"urn:sha256:{study.digest}", software)
    yield "beacon.json.gz", bgzf.blocks(text)
    if len(rows := gdi.allowed(rows)):
        for name, data in gdi.parquet(rows):
            yield f"gdi/{assembly}/{name}", [data]
        noised = result.question.budget is not None
        yield f"gdi/allele-freq.{assembly}.vcf.gz", bgzf.blocks(gdi.vcf(rows, assembly, software, noised))


def _text(rows: pl.DataFrame) -> Iterator[bytes]:
    """A table as tab-separated lines, in pieces."""
    for start in range(0, max(1, len(rows)), ROWS_AT_A_TIME):
        out = io.BytesIO()
        rows[start : start + ROWS_AT_A_TIME].write_csv(out, separator="\t", null_value="NA", include_header=start == 0)
        yield out.getvalue()


def _summary_statistics(
    study: Study, federation: Federation, result: Result, today: datetime.date, trait: str
) -> dict[str, list[bytes]]:
    """A trait's association in the GWAS Catalog's format."""
    analysis, file_name = result.question.analysis, f"{trait}.tsv.gz"
    assert isinstance(analysis, LinearAssociation | LogisticAssociation)
    rows = gwas_ssf.frame(result.answer.tables[trait])
    data = b"".join(bgzf.blocks([gwas_ssf.text(rows)]))
    meta = gwas_ssf.sidecar(
        rows,
        data,
        file_name,
        study.assembly,
        trait,
        analysis.covariates,
        int(result.answer.facts["people"]),
        sorted({federation.nodes[site].country for site in result.statement.sites}),
        f"Genosum {package_version()}",
        today,
        bool(result.statement.synthetic),
        int(result.answer.facts["cases"]) if isinstance(analysis, LogisticAssociation) else None,
    )
    return {file_name: [data], f"{file_name}-meta.yaml": [meta]}


def _tables(result: Result) -> list[str]:
    """Names of an answer's tables; the sites' have the same."""
    return list(next((a.tables for a in (result.answer, *result.by_site.values()) if a.tables), {}))


def _answer(result: Result, attacks: Sequence[MeasuredAttack]) -> dict[str, Any]:
    return {
        "question": result.question.name,
        "analysis": result.question.analysis.analysis,
        "tables": _tables(result),
        "facts": dict(result.answer.facts),
        "by_site": {site: dict(answer.facts) for site, answer in result.by_site.items()},
        "statement": statement.document(result, attacks),
    }


def _provenance(
    study: Study, federation: Federation, results: Sequence[Result], today: datetime.date
) -> dict[str, Any]:
    nodes = {site: {"country": node.country} for site, node in federation.nodes.items()}
    return {
        "format": FORMAT,
        "version": package_version(),
        "written": today.isoformat(),
        "digest": study.digest,
        "study": json.loads(study.document),
        "federation": {"name": federation.name, "nodes": nodes},
        "questions": [r.question.name for r in results],
        "policies": {r.question.name: dict(r.statement.policies) for r in results},
        "seconds": {r.question.name: round(r.statement.seconds, 3) for r in results},
    }


def _frame(table: Mapping[str, Column], regime: Regime) -> pl.DataFrame:
    """A table with null for a number that is none, and integers where an exact answer counts."""
    series = []
    for name, column in table.items():
        if isinstance(column, tuple):
            series.append(pl.Series(name, list(column), dtype=pl.String))
            continue
        values = pl.Series(name, np.ascontiguousarray(column))
        if values.dtype.is_float():
            values = values.fill_nan(None)
            if regime is Regime.EXACT and name in COUNTS:
                values = values.cast(pl.Int64)
        series.append(values)
    return pl.DataFrame(series)


def _by_site(answers: Mapping[str, Answer], name: str, regime: Regime) -> pl.DataFrame:
    frames = {site: _frame(answer.tables[name], regime) for site, answer in answers.items()}
    return pl.concat([rows.select(pl.lit(site).alias("site"), pl.all()) for site, rows in frames.items()])


def _parquet(rows: pl.DataFrame) -> bytes:
    out = io.BytesIO()
    rows.write_parquet(out, compression="zstd")
    return out.getvalue()


def _json(value: Any) -> bytes:
    return (json.dumps(_finite(value), indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()


def _finite(value: Any) -> Any:
    """Plain data with None for every number that JSON cannot say."""
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


# -- reading back ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class StoredAnswer:
    """One question's answer as it lies on disk.

    Attributes:
        name: the question's.
        analysis: what was asked for.
        tables: names of its tables; the first is the main one.
        facts: name -> number, text, or None where a number is not known.
        facts_by_site: site -> the same, where the answer is given for each site.
        statement: the privacy statement, with the attacks measured on the answer.
        folder: where its files are.
    """

    name: str
    analysis: str
    tables: tuple[str, ...]
    facts: Mapping[str, Any]
    facts_by_site: Mapping[str, Mapping[str, Any]]
    statement: Mapping[str, Any]
    folder: Path

    def table(self, name: str | None = None) -> pl.DataFrame:
        """A table over all sites together, the main one if none is named. `.to_pandas()` makes it a pandas one.

        Raises:
            UsageError: if there is no such table, or the answer is given for each site only.
        """
        return self._read(name, "")

    def by_site(self, name: str | None = None) -> pl.DataFrame:
        """The same for each site, with the site in the first column.

        Raises:
            UsageError: if there is no such table, or the answer is not given for each site.
        """
        return self._read(name, ".by_site")

    def model(self) -> dict[str, NDArray[np.float32]]:
        """The trained model's parameters by name; `safetensors.torch.load_file` reads the same file for torch.

        Raises:
            UsageError: if the question trained none.
        """
        path = self.folder / "model.safetensors"
        if not path.exists():
            raise UsageError("A model belongs to a question that trained one.", f"{self.name} did not", "name another.")
        return dict(safetensors.load_file(path))

    def _read(self, name: str | None, suffix: str) -> pl.DataFrame:
        name = self.tables[0] if name is None and self.tables else name
        path = self.folder / f"{name}{suffix}.parquet"
        if name not in self.tables:
            known = ", ".join(self.tables) or "none"
            found = f"{self.name} has {known}, not {name!r:.60}"
            raise UsageError("A table is read by its name.", found, "name one of these.")
        if not path.exists():
            raise UsageError(
                "A table is read as its question was asked: over all sites, for each of them, or both.",
                f"{path.name} is not in {self.folder}",
                "read table(), or ask with by_site = true." if suffix else "read by_site(), or ask without by_site.",
            )
        return pl.read_parquet(path)


@dataclass(frozen=True, repr=False)
class Results(Mapping[str, StoredAnswer]):
    """A results folder: question -> answer, in the study's order.

    Attributes:
        folder: where it lies.
        study: the content of `study.json`.
    """

    folder: Path
    study: Mapping[str, Any]
    _answers: Mapping[str, StoredAnswer]

    def __getitem__(self, question: str) -> StoredAnswer:
        if question not in self._answers:
            raise UsageError(
                "An answer is read by its question's name.",
                f"{self.folder} has {', '.join(self._answers) or 'none'}, not {question!r:.60}",
                "name one of these.",
            )
        return self._answers[question]

    def __iter__(self) -> Iterator[str]:
        return iter(self._answers)

    def __len__(self) -> int:
        return len(self._answers)

    def __contains__(self, question: object) -> bool:
        return question in self._answers

    def __repr__(self) -> str:
        kinds = ", ".join(f"{a.name} ({a.analysis}, {a.statement['regime']})" for a in self._answers.values())
        return f"Results of {self.study['study']['title']!r}: {kinds}"


def load(folder: str | Path) -> Results:
    """Open a results folder.

    Raises:
        UsageError: if it is none.
    """
    folder = Path(folder)
    study = _read_json(folder, folder / "study.json")
    if study.get("format") != FORMAT:
        raise _no_results(folder, f"study.json is not of the format {FORMAT!r}")
    answers = {}
    try:
        for name in study["questions"]:
            place = folder / name
            raw = _read_json(folder, place / "answer.json")
            answers[name] = StoredAnswer(
                name,
                raw["analysis"],
                tuple(raw["tables"]),
                raw["facts"],
                raw["by_site"],
                raw["statement"],
                place,
            )
    except (KeyError, TypeError) as error:
        raise _no_results(folder, f"{type(error).__name__} {error}") from None
    return Results(folder, study, answers)


def _read_json(folder: Path, path: Path) -> dict[str, Any]:
    try:
        raw = json.loads(path.read_bytes())
    except OSError as error:
        raise _no_results(folder, f"{path.relative_to(folder)}: {error.strerror}") from None
    except ValueError:
        raise _no_results(folder, f"{path.relative_to(folder)} is not JSON") from None
    if not isinstance(raw, dict):
        raise _no_results(folder, f"{path.relative_to(folder)} is not a table")
    return raw


def _no_results(folder: Path, found: str) -> UsageError:
    return UsageError(
        "Answers are read from a folder that a study was run into.",
        f"{folder}: {found}",
        "name the folder after --out, which holds report.html and study.json.",
    )
