"""What quality control found, for the operator: a page, the same as numbers, and tables with the identifiers.

All of it stays at the node, in a new folder of the operator's own. Identifiers stand in the tables alone.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from markupsafe import Markup

from fl_client.qc.figures import Figure, figures
from fl_client.qc.genotypes import Place, Variants
from fl_client.qc.kinship import DEGREES, Relatives, relatives
from fl_client.qc.measures import Measures, measure, sex_of
from fl_client.qc.thresholds import Thresholds
from fl_client.qc.verdict import Reason, Verdict, judge, unjudged
from fl_client.readers import Dataset
from strategies.federation import write_secret
from strategies.ploidy import FEMALE, MALE
from strategies.version import package_version

DEGREE_WORDS = ("duplicates or identical twins", "first degree", "second degree", "third degree", "strangers")
SEXES = {MALE: "male", FEMALE: "female", 0: ""}


@dataclass(frozen=True, eq=False)
class Report:
    """A data set, examined.

    Attributes:
        data: what was looked at.
        before: identifiers that its exclusions named already.
        thresholds: what it was held against.
        measures, relatives, verdict: what was found; no relatives where they are not judged.
    """

    data: Dataset = field(repr=False)
    before: tuple[str, ...] = field(repr=False)
    thresholds: Thresholds
    measures: Measures = field(repr=False)
    relatives: Relatives | None = field(repr=False)
    verdict: Verdict

    @staticmethod
    def of(data: Dataset, before: tuple[str, ...], thresholds: Thresholds, sex_column: str, scratch: Path) -> Report:
        """Examine a data set: two passes over its genotypes.

        Args:
            sex_column: the column of the people table that says who is male (1) and who female (2).
            scratch: a folder of the node's own, for a file without a name while relatives are looked for.

        Raises:
            DataError: if the data set has no genotypes, or a file changed since it was opened.
        """
        measures = measure(data, Variants.of(data), sex_of(data, sex_column), thresholds.variant_call_rate)
        pairs = None
        if Reason.RELATED not in unjudged(measures):
            autosomal = measures.used & (measures.variants.places == Place.AUTOSOME)
            pairs = relatives(data, measures.variants.rows[autosomal], thresholds.kinship, scratch)
        data.assert_unchanged()
        return Report(data, before, thresholds, measures, pairs, judge(data.people, measures, pairs, thresholds))

    @property
    def exclude(self) -> bytes:
        """The `exclude` file to fix a version with: who was left out before, then who is to be; empty for nobody."""
        new = sorted(self.data.people[i] for i in np.flatnonzero(self.verdict.out))
        return "".join(f"{person}\n" for person in (*self.before, *new)).encode()

    def numbers(self) -> dict[str, Any]:
        """The report without a person, as plain data."""
        verdict, pairs = self.verdict, self.relatives
        config = self.data.config
        reasons = {
            reason.value: {"unjudged": verdict.unjudged[reason]}
            if reason in verdict.unjudged
            else {"people": int(verdict.reasons[reason].sum())}
            for reason in Reason
        }
        return {
            "software": package_version(),
            "data_set": config.identifier,
            "data": self.data.digest,
            "version": config.version,
            "assembly": config.assembly,
            "synthetic": config.synthetic,
            "thresholds": asdict(self.thresholds),
            "people": len(self.data.people),
            "variants": len(self.measures.variants),
            "variants_called_too_rarely": int(
                (self.measures.variant_call_rates < self.thresholds.variant_call_rate).sum()
            ),
            "reasons": reasons,
            "heterozygosity": None if np.isnan(verdict.mean) else {"mean": verdict.mean, "sd": verdict.sd},
            "pairs": None if pairs is None else dict(zip(DEGREE_WORDS, pairs.degrees.tolist(), strict=True)),
            "relatives": None if pairs is None else len(pairs),
            "families": None if pairs is None else list(verdict.families),
            "left_out_before": len(self.before),
            "left_out": int(verdict.out.sum()),
            "exclude_sha256": hashlib.sha256(self.exclude).hexdigest(),
        }

    def write(self, home: Path) -> Path:
        """Write it as the next numbered folder of `home`, for its owner alone; a written one is never touched again."""
        numbers = self.numbers()
        page = _page(numbers, figures(self.measures, self.relatives, self.verdict, self.thresholds))
        home.mkdir(mode=0o700, exist_ok=True)
        folder = home / str(1 + max((int(f.name) for f in home.iterdir() if f.name.isdecimal()), default=0))
        folder.mkdir(mode=0o700)
        write_secret(folder / "report.html", page.encode())
        write_secret(folder / "report.json", json.dumps(numbers, indent=1).encode())
        write_secret(folder / "people.tsv", self._people())
        write_secret(folder / "variants.tsv", self._variants())
        if self.relatives is not None:
            write_secret(folder / "relatives.tsv", self._relatives(self.relatives))
        if self.exclude:
            write_secret(folder / "exclude.txt", self.exclude)
        return folder

    def _people(self) -> bytes:
        measures = self.measures
        columns = (measures.call_rates, measures.autosomes.rate, measures.autosomes.coefficient, measures.x.coefficient)
        rows: list[tuple[str, ...]] = [("person", "call_rate", "heterozygosity", "f", "x_f", "sex", "leave_out_for")]
        for i, person in enumerate(self.data.people):
            why = ",".join(reason for reason in Reason if self.verdict.reasons[reason][i])
            rows.append((person, *(_cell(values[i]) for values in columns), SEXES[int(measures.sex[i])], why))
        return _table(rows)

    def _variants(self) -> bytes:
        counts, rates = self.measures.counts.tolist(), self.measures.variant_call_rates.tolist()
        rows: list[tuple[str, ...]] = [
            ("chromosome", "position", "reference", "alternate", "call_rate", "0", "1", "2", "missing")
        ]
        for key, rate, four in zip(self.measures.variants, rates, counts, strict=True):
            rows.append((key[0], str(key[1]), key[2], key[3], _cell(rate), *map(str, four)))
        return _table(rows)

    def _relatives(self, pairs: Relatives) -> bytes:
        people = self.data.people
        rows: list[tuple[str, ...]] = [
            ("person_1", "person_2", "variants", "both_heterozygous", "opposite", "kinship", "degree")
        ]
        for k, (i, j) in enumerate(zip(pairs.first, pairs.second, strict=True)):
            kinship = pairs.kinship[k]
            degree = DEGREE_WORDS[sum(bool(kinship <= least) for least in DEGREES)]
            three = (pairs.observed[k], pairs.both_heterozygous[k], pairs.opposite[k])
            rows.append((people[i], people[j], *map(str, three), _cell(kinship), degree))
        return _table(rows)


def _cell(value: float) -> str:
    return "NA" if np.isnan(value) else f"{value:.6g}"


def _table(rows: Iterable[tuple[str, ...]]) -> bytes:
    return "".join("\t".join(row) + "\n" for row in rows).encode()


def _page(numbers: Mapping[str, Any], drawings: Sequence[Figure]) -> str:
    """The numbers as one self-contained page."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("fl_client", "."), autoescape=True, undefined=jinja2.StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    environment.filters["markup"] = Markup  # for drawings alone: matplotlib has escaped their texts
    return environment.get_template("qc/report.html.jinja").render(**numbers, figures=drawings)
