"""Made-up genomes to measure on: countries as PLINK files with traits, and the same people pooled for plink2.

Data are built once into `.bench/`, which is not part of the repository, and found again by their name.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import tomli_w
from numpy.typing import NDArray

from simulations.populations import bed_of, write_table, write_variants
from strategies.catalogue import CATALOGUE
from strategies.kernels.compiled import compiled
from strategies.variants import Panel, Variant

FOLDER = Path(__file__).parents[2] / ".bench"
BLOCK = 500
"""Variants that are written at a time."""

COUNTRIES = (
    "AT", "BE", "BG", "CY", "CZ", "DE", "DK", "EE", "ES", "FI", "FR", "GR", "HR", "HU",
    "IE", "IT", "LT", "LU", "LV", "MT", "NL", "NO", "PL", "PT", "RO", "SE", "SI",
)  # fmt: skip


@dataclass(frozen=True)
class Countries:
    """Data on disk: a folder of sites, and all their people together.

    Attributes:
        folder: with `sites.toml`, `panel.tsv`, `pooled.bed` and its kin.
        sizes: site -> people.
        variants: M.
        traits, covariates: names of columns.
        binary: names of columns that are 1 for a case and 0 for a control.
    """

    folder: Path
    sizes: dict[str, int]
    variants: int
    traits: tuple[str, ...]
    covariates: tuple[str, ...]
    binary: tuple[str, ...] = ()

    @property
    def ranges(self) -> dict[str, list[float]]:
        """Public ranges of the columns: wide enough that no value is clamped."""
        spans = ((self.covariates, [-8.0, 8.0]), (self.traits, [-12.0, 12.0]), (self.binary, [0.0, 1.0]))
        return {name: span for names, span in spans for name in names}

    @property
    def pooled(self) -> Path:
        """What follows `--bfile`."""
        return self.folder / "pooled"


def demes(people: Sequence[int] = (12_000, 4_992, 2_048, 960), variants: int = 30_000) -> Countries:
    """Four countries that split from one people 400 generations ago (msprime), with 1 % of the genotypes missing.

    Covariates and traits depend on the country and on some hundred of the variants. Cases are the tenth of each
    country's people with the most of the first trait.
    """
    sizes = dict(zip(COUNTRIES, people, strict=False))
    names = tuple(f"trait_{i:02d}" for i in range(20)), tuple(f"covariate_{i:02d}" for i in range(10))
    made = Countries(FOLDER / f"demes-{sum(people)}-{variants}", sizes, variants, *names, ("case",))
    if made.folder.exists():
        return _permitted(made)
    rng, partial = np.random.default_rng(11), _fresh(made.folder)
    positions = np.zeros(variants, dtype=np.int64)
    causal = np.zeros((0, sum(people)))
    with _Beds(partial, sizes) as beds:
        for start, codes, at in _simulated(people, variants, rng):
            positions[start : start + len(codes)] = at
            rate = rng.beta(0.5, 39.5, len(codes)) * (rng.random(len(codes)) < 0.8)
            causal = np.concatenate([causal, codes[:: BLOCK // 5].astype(np.float64)])
            codes[rng.random(codes.shape) < rate[:, None]] = 3
            beds.write(codes)
    country = np.repeat(np.arange(len(people)), people)
    covariates, traits = _columns(causal, country, rng, len(names[1]), len(names[0]))
    table = dict(zip((*names[1], *names[0]), np.concatenate([covariates, traits], axis=1).T.round(6), strict=True))
    parts = np.split(table[made.traits[0]], np.cumsum(people)[:-1])
    table["case"] = np.concatenate([1.0 * (part > np.quantile(part, 0.9)) for part in parts])
    _describe(partial, made, _panel(positions), table)
    partial.rename(made.folder)
    return _permitted(made)


def million(people: int = 1_000_000, variants: int = 20_000, sites: int = 27, pooled: bool = True) -> Countries:
    """As many countries of unequal size, independent variants with frequencies of 0.005 to 0.5 that drift a little from
    country to country, 1 % missing. A person takes a 16-bit number of a counter's hash, so 5 GB take half a minute.

    Raises:
        RuntimeError: if the disk has no room.
    """
    weight = 1.0 + np.arange(sites)
    sizes = dict(zip(COUNTRIES, (4 * (people / 4 * weight / weight.sum()).astype(int)).tolist(), strict=False))
    sizes[COUNTRIES[sites - 1]] += people - sum(sizes.values())
    made = Countries(FOLDER / f"countries-{people}-{variants}-{sites}", sizes, variants, (), ("sex",))
    if made.folder.exists():
        return _permitted(made)
    FOLDER.mkdir(exist_ok=True)
    need = people * variants // 4 * (1 + pooled) + (1 << 29)
    if (free := shutil.disk_usage(FOLDER).free) < need:
        raise RuntimeError(f"{need / 1e9:.0f} GB are needed in {FOLDER.name}, {free / 1e9:.0f} GB are free")
    rng, partial = np.random.default_rng(12), _fresh(made.folder)
    frequency = np.exp(rng.uniform(np.log(0.005), np.log(0.5), variants))
    with _Beds(partial, sizes, pooled) as beds:
        for start in range(0, variants, BLOCK):
            p, blocks = frequency[start : start + BLOCK], []
            for number, size in enumerate(sizes.values()):
                local = np.clip(p + rng.normal(0, 0.05, len(p)) * np.sqrt(p * (1 - p)), 0.002, 0.998)
                shares = np.stack([0.99 * local**2, np.full(len(p), 0.01), 1.98 * local * (1 - local)], axis=1)
                edges = (np.cumsum(shares, axis=1) * 65536).astype(np.uint64)
                block = np.empty((len(p), size // 4), dtype=np.uint8)
                draw(edges, np.uint64(start * 1000 + number), block)
                blocks.append(block)
            beds.append(blocks)
    _describe(partial, made, _panel(1_000 + 10_000 * np.arange(variants)), {"sex": rng.integers(1, 3, people) * 1.0})
    partial.rename(made.folder)
    return _permitted(made)


@compiled
def draw(edges: Any, seed: int, out: Any) -> None:
    """Bytes of a .bed, (m, N / 4): codes 00, 01, 10, 11 of people by where their 16 bits lie between (m, 3) edges."""
    for j in range(len(out)):
        key = (seed * np.uint64(0x9E3779B97F4A7C15)) ^ (np.uint64(j) << np.uint64(40))
        a, b, c = edges[j, 0], edges[j, 1], edges[j, 2]
        for i in range(out.shape[1]):
            x = (key + np.uint64(i)) * np.uint64(0xBF58476D1CE4E5B9)  # splitmix64's finalizer
            x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
            x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
            x ^= x >> np.uint64(31)
            byte = np.uint64(0)
            for k in range(4):
                u = (x >> np.uint64(16 * k)) & np.uint64(0xFFFF)
                byte |= (np.uint64(u >= a) + np.uint64(u >= b) + np.uint64(u >= c)) << np.uint64(2 * k)
            out[j, i] = byte


def _simulated(
    people: Sequence[int], variants: int, rng: np.random.Generator
) -> Iterator[tuple[int, NDArray[np.uint8], NDArray[np.int64]]]:
    """Blocks of common variants: the number of the first, (m, N) alternate alleles, and positions."""
    import msprime  # noqa: PLC0415  (for building alone)

    demography: Any = msprime.Demography()
    names = [f"p{k}" for k in range(len(people))]
    for name in names:
        demography.add_population(name=name, initial_size=10_000)
    demography.add_population(name="ancestors", initial_size=12_000)
    demography.add_population_split(time=400, derived=names, ancestral="ancestors")
    tree: Any = msprime.sim_ancestry(
        samples=dict(zip(names, people, strict=True)),
        demography=demography,
        sequence_length=2e3 * variants,
        recombination_rate=1e-8,
        random_seed=7,
        model=[msprime.DiscreteTimeWrightFisher(duration=30), msprime.StandardCoalescent()],
    )
    tree = msprime.sim_mutations(
        tree, rate=1.2e-8, random_seed=8, model=msprime.BinaryMutationModel(), discrete_genome=True
    )
    start, codes, positions = 0, np.empty((BLOCK, sum(people)), dtype=np.uint8), np.empty(BLOCK, dtype=np.int64)
    filled = 0
    for variant in tree.variants(copy=False):
        haplotypes = variant.genotypes
        if not 0.005 <= haplotypes.mean() <= 0.995 or rng.random() > 0.9:
            continue
        codes[filled] = haplotypes[0::2] + haplotypes[1::2]
        positions[filled] = int(variant.site.position) + 1
        filled += 1
        if filled == min(BLOCK, variants - start):
            yield start, codes[:filled].copy(), positions[:filled].copy()
            start, filled = start + filled, 0
        if start == variants:
            return
    raise RuntimeError(f"only {start + filled} variants were simulated")


def _columns(
    causal: NDArray[np.float64], country: NDArray[np.int64], rng: np.random.Generator, covariates: int, traits: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(N, covariates) and (N, traits)."""
    g = (causal - causal.mean(axis=1, keepdims=True)) / np.maximum(causal.std(axis=1, keepdims=True), 1e-9)
    c = np.clip(rng.normal(size=(len(country), covariates)), -5, 5)
    c[:, 0] = rng.integers(0, 2, len(country))
    c[:, 1] += 0.5 * (country == 1)
    effects = rng.normal(size=(len(g), traits)) * (rng.random((len(g), traits)) < 0.3)
    genetic = g.T @ effects
    rest = 0.3 * c[:, :1] + 0.2 * c[:, 1:2] + 0.2 * country[:, None] + rng.normal(size=genetic.shape)
    return c, np.clip(0.5 * genetic / np.maximum(genetic.std(axis=0), 1e-9) + rest, -11, 11)


# -- files ------------------------------------------------------------------------------------------------------------


class _Beds:
    """The .bed of every site and, unless it has no room, of all people together, written block by block."""

    def __init__(self, folder: Path, sizes: dict[str, int], pooled: bool = True) -> None:
        self._sizes = sizes
        for site in sizes:
            (folder / site).mkdir()
        self._files = [(folder / site / "genotypes.bed").open("wb") for site in sizes]
        self._pooled = (folder / "pooled.bed").open("wb") if pooled else None
        for file in self._all():
            file.write(b"\x6c\x1b\x01")

    def _all(self) -> list[IO[bytes]]:
        return self._files + ([] if self._pooled is None else [self._pooled])

    def __enter__(self) -> _Beds:
        return self

    def __exit__(self, *_: object) -> None:
        for file in self._all():
            file.close()

    def write(self, codes: NDArray[np.uint8]) -> None:
        """Append (m, N) codes of all people, site after site; each site but the last has a multiple of four."""
        cuts = np.cumsum(list(self._sizes.values()))[:-1]
        self.append([bed_of(part) for part in np.split(codes, cuts, axis=1)])

    def append(self, blocks: Sequence[NDArray[np.uint8]]) -> None:
        """Append the bytes of each site's people."""
        for file, block in zip(self._files, blocks, strict=True):
            file.write(block.tobytes())
        if self._pooled is not None:
            self._pooled.write(np.concatenate(blocks, axis=1).tobytes())


def _fresh(folder: Path) -> Path:
    partial = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    return partial


def _panel(positions: NDArray[np.int64]) -> Panel:
    return Panel("GRCh38", tuple(Variant("1", int(p), f"v{j}", "A", "C") for j, p in enumerate(positions)))


def _describe(folder: Path, made: Countries, panel: Panel, table: dict[str, NDArray[np.float64]]) -> None:
    """Everything beside the genotypes but `sites.toml`: variants and people of each .bed, columns, plink2's files."""
    (folder / "panel.tsv").write_bytes(panel.encode())
    (folder / "ten.tsv").write_bytes(panel[:10].encode())
    start, everybody = 0, list[str]()
    for number, (site, size) in enumerate(made.sizes.items()):
        people = [f"P{number:02d}{i:07d}" for i in range(size)]
        write_variants(folder / site / "genotypes", panel, people)
        write_table(folder / site / "people.tsv", people, {n: v[start : start + size] for n, v in table.items()})
        start += size
        everybody += people
    write_variants(folder / "pooled", panel, everybody)
    for name, columns in (("traits", made.traits), ("trait", made.traits[:1]), ("covariates", made.covariates)):
        _plink_table(folder / f"{name}.txt", everybody, {c: table[c] for c in columns if c in table})
    if made.binary:
        _plink_table(folder / "cases.txt", everybody, {c: 1 + table[c] for c in made.binary})


def _permitted(made: Countries) -> Countries:
    """The same with a `sites.toml` that permits what the catalogue has today."""
    policy = {
        "coordinators": ["demo"], "purposes": ["scientific_research"], "epsilon": 10.0, "delta": 1e-5,
        "analyses": {a.analysis: [b.regime.value for b in CATALOGUE if b.analysis == a.analysis] for a in CATALOGUE},
        "columns": made.ranges, "minimum_cell": 5,
    }  # fmt: skip
    sites = {
        site: {
            "country": site, "people": size,
            "dataset": {
                "identifier": f"BENCH-{site}", "assembly": "GRCh38", "synthetic": True,
                "people": f"{site}/people.tsv", "genotypes": f"{site}/genotypes.bed",
            },
        }
        for site, size in made.sizes.items()
    }  # fmt: skip
    text = tomli_w.dumps({"policy": policy, "sites": sites})
    (made.folder / "sites.toml").write_text(f"# Made-up people.\n{text}", encoding="utf-8")
    return made


def _plink_table(path: Path, people: Sequence[str], columns: dict[str, NDArray[np.float64]]) -> None:
    lines = ["\t".join(["#IID", *columns])]
    lines += ["\t".join([p, *(f"{v[i]:.10g}" for v in columns.values())]) for i, p in enumerate(people)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
