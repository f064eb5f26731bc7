"""Genotypes that lie in a file as two bits each: a .bed, or what a VCF was turned into."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cache

import numpy as np
from numpy.typing import NDArray

from fl_client.readers.held import Held
from strategies.cohort import Genotypes
from strategies.kernels.threads import THREADS

_BYTES_AT_A_TIME = 1 << 20
"""What is read at once stays in the processor's cache until it is recoded."""

_GAP = 1 << 16
"""Bytes that are read and thrown away rather than skipped by another read."""


@dataclass(frozen=True, eq=False)
class Packed:
    """M variants by N people, a row for each variant.

    Attributes:
        file: what holds them.
        start: the byte of the first row.
        people: N.
        bed: whether they are in the codes of a .bed, and not in ours.
    """

    file: Held
    start: int
    people: int
    bed: bool = field(default=False)

    def fill(
        self,
        rows: NDArray[np.int64],
        swapped: NDArray[np.bool_],
        chosen: NDArray[np.int64] | None,
        out: NDArray[np.uint8],
    ) -> None:
        """See `Calls.fill`."""
        from strategies.kernels.packing import gather, recode  # noqa: PLC0415

        width = -(-self.people // 4)
        asked = np.flatnonzero(rows >= 0)
        asked = asked[np.argsort(rows[asked], kind="stable")]
        ordered, most = rows[asked], max(1, _BYTES_AT_A_TIME // width)
        far = np.append(np.flatnonzero(np.diff(ordered) > max(1, _GAP // width)) + 1, len(ordered))
        pieces, a = list[slice](), 0
        while a < len(ordered):
            b = int(min(np.searchsorted(ordered, ordered[a] + most), far[np.searchsorted(far, a, side="right")]))
            pieces.append(slice(a, b))
            a = b

        def read(mine: Sequence[slice]) -> None:
            buffer = np.empty((max(int(np.ptp(ordered[piece])) for piece in mine) + 1, width), dtype=np.uint8)
            for piece in mine:
                first, places = ordered[piece.start], asked[piece]
                here = ordered[piece] - first
                cells = buffer[: here[-1] + 1]
                self.file.read(cells.data, self.start + int(first) * width)
                if chosen is not None:
                    some = np.empty((len(here), out.shape[1]), dtype=np.uint8)
                    gather(cells, here, some, chosen)
                    cells, here = some, np.arange(len(here))
                people = self.people if chosen is None else len(chosen)
                recode(cells, here, out, places, swapped[places], self.bed, people)

        if len(pieces) > 1:
            for _ in _readers().map(read, (pieces[k::THREADS] for k in range(THREADS))):
                pass
        elif pieces:
            read(pieces)


@cache
def _readers() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(THREADS)


def unpacked(cells: Packed, rows: NDArray[np.int64]) -> NDArray[np.int8]:
    """(K, N) genotypes of K rows, a byte each: 0, 1, 2, or 3 where missing."""
    out = np.empty((len(rows), -(-cells.people // 4)), dtype=np.uint8)
    cells.fill(rows, np.zeros(len(rows), dtype=bool), None, out)
    return Genotypes(out, cells.people).codes().view(np.int8)
