"""Arrays of zarr's second format, of one chunk that Blosc packed with LZ4: as much as the golden files need."""

from __future__ import annotations

import json
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


def read(path: Path, name: str) -> NDArray[Any]:
    """An array of a zipped zarr."""
    with zipfile.ZipFile(path) as file:
        head = json.loads(file.read(f"{name}/.zarray"))
        assert head["chunks"] == head["shape"]
        chunk = file.read("/".join([name, ".".join("0" for _ in head["shape"])]))
    return np.frombuffer(_unpacked(chunk), head["dtype"]).reshape(head["shape"])


def _unpacked(chunk: bytes) -> bytes:
    """Blosc 1: a header, the places of the blocks, and in each the bytes of all numbers, first bytes first."""
    flags, width = chunk[2:4]
    size, block = struct.unpack("<II", chunk[4:12])
    assert flags & 1
    assert not flags & 2
    out = b""
    for number in range(-(-size // block)):
        length = min(block, size - number * block)
        streams = width if not flags & 16 and length == block else 1
        (at,), packed = struct.unpack_from("<I", chunk, 16 + 4 * number), b""
        for _ in range(streams):
            (taken,) = struct.unpack_from("<i", chunk, at)
            stream = chunk[at + 4 : at + 4 + taken]
            packed += stream if taken == length // streams else _lz4(stream)
            at += 4 + taken
        assert len(packed) == length
        out += np.frombuffer(packed, np.uint8).reshape(width, -1).T.tobytes()
    return out


def _lz4(packed: bytes) -> bytes:
    """A block of LZ4: runs of bytes, each followed by a copy of earlier ones."""
    out, at = bytearray(), 0

    def more(count: int) -> int:
        nonlocal at
        while count >= 15:
            count += packed[at]
            at += 1
            if packed[at - 1] < 255:
                break
        return count

    while True:
        token = packed[at]
        at += 1
        run = more(token >> 4)
        out += packed[at : at + run]
        at += run
        if at == len(packed):
            return bytes(out)
        back = packed[at] | packed[at + 1] << 8
        at += 2
        for _ in range(more(token & 15) + 4):
            out.append(out[-back])
