"""Which tests come first, and a tiny federation for any: four sites of 30 made-up people, 50 variants, .bed files."""

from __future__ import annotations

import gc
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.postgresql import PROGRAMS, Server, serving
from tests.tiny import NAMES, Tiny, write_site, write_sites

LONGEST = ("deployment/test_federation", "test_simulate", "laws/test_laws", "laws/test_bounds", "test_demo",
           "test_use_cases", "refusals/test_rosters", "refusals/test_every_code", "test_report")  # fmt: skip
"""Files that take longest. A worker takes a file as a whole, so they come first: none is left to run alone at the end,
and the two that wait most for other processes do so while others compute."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first; all others keep their places."""
    folder = Path(__file__).parent
    places = {folder / f"{name}.py": number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.path, len(places)))


def pytest_collection_finish() -> None:
    """Thousands of tests and modules live to the end: no collection of garbage need look at them again."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def tiny_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The four sites' files, written once; a test that changes one copies it first."""
    folder = tmp_path_factory.mktemp("tiny-files")
    for site in NAMES:
        write_site(folder, site)
    return folder


@contextmanager
def in_memory() -> Iterator[Path]:
    """A folder that is gone afterwards, in memory where the system has such a place: a ledger syncs at every step."""
    memory = "/dev/shm"
    with tempfile.TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None) as folder:
        yield Path(folder)


@pytest.fixture
def quick_path() -> Iterator[Path]:
    """A folder like `tmp_path`, in memory."""
    with in_memory() as folder:
        yield folder


@pytest.fixture
def make_tiny(tiny_files: Path, quick_path: Path) -> Iterator[Callable[..., Tiny]]:
    """Make a federation over a copy of the files; arguments as of `tests.tiny.write_sites`, and `edit`, which is
    called on the folder of files before anything opens them."""
    made: list[Tiny] = []

    def make(edit: Callable[[Path], object] = lambda _: None, **change: Any) -> Tiny:
        data = quick_path / f"data{len(made)}"
        shutil.copytree(tiny_files, data)
        edit(data)
        made.append(Tiny.of(write_sites(data, **change), quick_path / f"nodes{len(made)}"))
        return made[-1]

    yield make
    for tiny in made:
        tiny.close()


@pytest.fixture
def tiny(make_tiny: Callable[..., Tiny]) -> Tiny:
    """The plain federation."""
    return make_tiny()


@pytest.fixture(scope="session")
def postgresql() -> Iterator[Server]:
    """A PostgreSQL server, started when the first test needs it."""
    if PROGRAMS is None:
        pytest.skip("PostgreSQL's server is not installed; .ci/run installs it")
    with serving() as server:
        yield server


@pytest.fixture(params=["sqlite", "postgresql"])
def ledger_url(request: pytest.FixtureRequest) -> str | None:
    """Where a ledger is kept: None for its own file, or the URL of an empty database."""
    return None if request.param == "sqlite" else request.getfixturevalue("postgresql").emptied()
