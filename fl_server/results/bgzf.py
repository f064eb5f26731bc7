"""Compressed text: blocked gzip (BGZF), which whatever reads gzip reads, and tabix and bcftools can index.

SAM/BAM Format Specification (2024), section 4.1: members of at most 64 KiB, each of which states its own size, and an
empty one at the end. A block is compressed by itself, so blocks are compressed side by side and the bytes are the same
however many threads there are.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor

BLOCK = 0xFF00
"""Bytes of text in a block, as bgzip cuts it: what cannot be made smaller still fits, since it is stored."""

LEVEL = 1
"""Of zlib. Tables of numbers get 7 % smaller at level 9 and take eleven times as long."""

THREADS, TOGETHER, AHEAD = 4, 32, 8
"""A thread compresses so many blocks at a time, and so many times as many wait to be written: memory does not grow with
the file."""

HEADER = struct.Struct("<4BI2BH2BHH")
END = bytes.fromhex("1f8b08040000000000ff0600424302001b0003000000000000000000")


def blocks(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """A text in pieces, compressed in pieces.

    >>> import gzip
    >>> gzip.decompress(b"".join(blocks([b"one ", b"text"])))
    b'one text'
    """
    with ThreadPoolExecutor(THREADS) as threads:
        waiting: list[memoryview] = []
        for piece in _cut(chunks, BLOCK * TOGETHER):
            waiting.append(piece)
            if len(waiting) == AHEAD:
                yield from threads.map(_members, waiting)
                waiting = []
        yield from threads.map(_members, waiting)
    yield END


def compressed(text: bytes) -> bytes:
    """A text in one piece, compressed."""
    return b"".join(blocks([text]))


def _cut(chunks: Iterable[bytes], length: int) -> Iterator[memoryview]:
    """The same bytes in pieces of a length; the last one may be shorter."""
    rest = b""
    for chunk in chunks:
        text = memoryview(rest + chunk if rest else chunk)
        end = len(text) - len(text) % length
        for start in range(0, end, length):
            yield text[start : start + length]
        rest = bytes(text[end:])
    if rest:
        yield memoryview(rest)


def _members(text: memoryview) -> bytes:
    return b"".join(_member(text[start : start + BLOCK]) for start in range(0, len(text), BLOCK))


def _member(block: memoryview) -> bytes:
    deflate = zlib.compressobj(LEVEL, zlib.DEFLATED, -zlib.MAX_WBITS)
    body = deflate.compress(block) + deflate.flush()
    size = HEADER.size + len(body) + 8
    head = HEADER.pack(0x1F, 0x8B, 8, 4, 0, 0, 0xFF, 6, 0x42, 0x43, 2, size - 1)
    return head + body + struct.pack("<2I", zlib.crc32(block), len(block))
