"""Where do people of four European populations stand on components that were found without moving anybody?

    python -m simulations.benchmarks.ancestry FILE.bed POPULATIONS.tsv

Each population is a site. The picture shows people, so it can be drawn in a simulation alone: in a federation each
node's scores stay with it.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import polars as pl
from matplotlib.figure import Figure
from numpy.typing import NDArray

from fl_client.readers.plink import Bed
from strategies.analyses.principal_components import PrincipalComponents
from strategies.analysis import Analysis, Answer, Frame, Total
from strategies.cohort import Cohort, Genotypes
from strategies.summary import add
from strategies.variants import Panel, Variant

POPULATIONS = ("FIN", "GBR", "IBS", "TSI")
RESULT = Path("results/bench/ancestry.svg")


def components(parts: list[Cohort], frame: Frame, count: int) -> tuple[PrincipalComponents, Answer]:
    """The question and its answer over sites."""
    asked = PrincipalComponents("panel", components=count)
    question: Analysis = asked
    while True:
        sums = question.summarise(parts[0], frame)
        for part in parts[1:]:
            sums = add(sums, question.summarise(part, frame))
        following = question.conclude(Total(sums, POPULATIONS), frame)
        if isinstance(following, Answer):
            return asked, following
        question = following


def scores(bed: Path, populations: Path) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """(N, 2) scores, and (N,) the number of each person's population."""
    calls = Bed.open(bed)
    table = pl.read_csv(populations, separator="\t")
    known = dict(zip(table["IID"].to_list(), table["pop"].to_list(), strict=True))
    keys = list(calls.index)
    packed = np.zeros((len(keys), -(-len(calls.people) // 4)), dtype=np.uint8)
    calls.fill(calls.index.rows, np.zeros(len(keys), dtype=bool), None, packed)
    codes = Genotypes(packed, len(calls.people)).codes()
    frame = Frame(Panel("GRCh37", tuple(Variant(c, p, ".", r, a) for c, p, r, a in keys)))
    people = [np.flatnonzero([known.get(name) == population for name in calls.people]) for population in POPULATIONS]
    parts = [Cohort(len(at), Genotypes.pack(codes[:, at])) for at in people]
    asked, answer = components(parts, frame, 2)
    projection = asked.projection(answer, frame)
    out = []
    for part in parts:
        sums = np.zeros((len(part), 2), dtype=np.int64)
        assert part.genotypes is not None
        projection.add(sums, part.genotypes, slice(None))
        columns = projection.columns(sums)
        out.append(np.stack([columns["pc1"], columns["pc2"]], axis=1))
    return np.concatenate(out), np.repeat(np.arange(len(people)), [len(at) for at in people])


def nearest(at: NDArray[np.float64], population: NDArray[np.int64]) -> NDArray[np.bool_]:
    """(N,) whether each person is nearest to her own population's mean, computed without her."""
    right = np.empty(len(at), dtype=bool)
    for i in range(len(at)):
        others = np.arange(len(at)) != i
        centres = [at[others & (population == k)].mean(axis=0) for k in range(len(POPULATIONS))]
        right[i] = int(np.argmin([np.linalg.norm(at[i] - c) for c in centres])) == population[i]
    return right


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bed", type=Path)
    parser.add_argument("populations", type=Path)
    given = parser.parse_args()
    at, population = scores(given.bed, given.populations)
    figure = Figure(figsize=(6, 5), layout="constrained")
    axes = figure.add_subplot()
    for k, name in enumerate(POPULATIONS):
        here = population == k
        axes.scatter(*at[here].T, s=14, label=f"{name} ({int(here.sum())})", alpha=0.8)
    axes.set_xlabel("component 1")
    axes.set_ylabel("component 2")
    axes.legend(frameon=False)
    RESULT.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(RESULT)
    right = nearest(at, population)
    for k, name in enumerate(POPULATIONS):
        print(
            f"{name}: {right[population == k].mean():.1%} of {int((population == k).sum())} nearest to their own mean"
        )
    print(f"{RESULT}")


if __name__ == "__main__":
    main()
