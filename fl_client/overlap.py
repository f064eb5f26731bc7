"""Who was in the exact answers, so that no two of them differ by a few people.

The total over everybody minus the total over everybody but one is that one person's record. So the node remembers
whose data stood behind each exact answer: a *crowd*, as a bitmap over the persons of a register. A question whose crowd
differs from an earlier overlapping one by 1 to k - 1 persons is refused, and so is one whose crowd, added to or
subtracted from several earlier ones, would leave so few.

A question's optional columns are each told of fewer people, its *parts*: those of its crowd who have a value. A part is
held against everything that was asked about other crowds, as if it had been asked alone. It is not held against its
own crowd or its other parts: who lacks a value is a cell of that answer, which small-cell rules withhold.

Where an answer tells its people apart, by cuts of a column, groups or categories: see `fl_client.cuts`.

A person's number in the register follows from their identifier under the node's own key, so it outlives renamed and
reordered files. Identifiers are not kept; register and bitmaps lie encrypted in the ledger; neither leaves the node.

    token   = BLAKE2b(key 1, identifier), RFC 7693, 16 bytes; the number is the place of first appearance
    print   = HMAC-SHA256(key 2, bitmap): the same people have the same, whatever was asked; a part's name has its
              crowd's behind it, and that of cuts the column's in between
    at rest = ChaCha20-Poly1305(key 3), bound to the data set and to the row
"""

from __future__ import annotations

import hashlib
import hmac
import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from numpy.typing import NDArray

from fl_client.cuts import Cuts
from fl_client.ledger import Crowd, Ledger
from fl_client.splits import Split
from strategies.errors import DataError
from strategies.federation import write_secret
from strategies.wire import pack_parts

KEY_FILE = "people.key"
"""In the node's state folder, mode 0600. Without it nobody can tell who was in which answer, the node included."""

KEY_BYTES, NONCE_BYTES, TOKEN_BYTES = 32, 12, 16

PRIME = 2**31 - 1
"""Combinations are solved in integers modulo this: a product of two stays below 2^62."""

MOST_DRAWS, LEAST_DRAWS, DRAW_WORK = 256, 16, 2_000_000
ATOMS_A_CROWD, ATOMS_AT_A_TIME, BYTES_AT_A_TIME = 64, 1 << 14, 1 << 13

PART = "-"
"""Stands between the print of a part's people and its crowd's, which is the name of the crowd."""

CUT = "+"
"""Stands between the print of cuts and their column's."""

Bits = NDArray[np.uint8]
"""(B,) eight persons to a byte, or (m, B) of m crowds."""


class Register:
    """The persons of a data set by number, and the crowds of its exact answers."""

    def __init__(self, ledger: Ledger, people: Sequence[str]) -> None:
        """Enter those of the people who are new.

        Raises:
            DataError: if the key is missing, open to others or another one than register and crowds were sealed with.
        """
        self._ledger = ledger
        token, print_, rest = _keys(ledger)
        self._print, self._sealing = print_, ChaCha20Poly1305(rest)
        known = b"".join(self._open(sealed, f"persons {start}") for start, sealed in ledger.persons())
        numbers = {known[at : at + TOKEN_BYTES]: at // TOKEN_BYTES for at in range(0, len(known), TOKEN_BYTES)}
        self._cleared: tuple[Crowd, tuple[str, ...], int] | None = None  # a question's slices come one after another
        before = len(numbers)
        hashed = partial(hashlib.blake2b, key=token, digest_size=TOKEN_BYTES)  # three times as fast as HMAC-SHA256
        tokens = [hashed(person.encode()).digest() for person in people]
        self.numbers = np.array([numbers.setdefault(t, len(numbers)) for t in tokens], dtype=np.int64)
        new = list(numbers)[before:]
        if new:
            ledger.enrol(before, self._seal(b"".join(new), f"persons {before}"))

    def crowd(self, inside: NDArray[np.int64], least: int, version: int) -> Crowd | None:
        """The crowd of an exact answer, to be recorded with it; None if a few people would be singled out.

        Args:
            inside: places of its people among those that the register was opened with.
            least: k, a public number.
            version: the data set's version.
        """
        now = self._bitmap(inside)
        name = self._named(now)
        known = self._ledger.crowds()
        others = tuple(one for one in known if one != name and _crowd_of(one) != name)
        if self._cleared is None or (self._cleared[0].name, *self._cleared[1:]) != (name, others, least):
            people = [n for n in others if not _column_of(n)]
            whole, parts = (
                self._bits(now, [n for n in people if bool(_crowd_of(n)) == part]) for part in (False, True)
            )
            if singles_out(whole[0], whole[1:], least, new=name not in known):
                return None
            if len(parts) > 1 and singles_out(parts[0], parts[1:], least, new=False):
                return None
            if self._lies_beside(now, others, least):
                return None
            crowd = self._ledger.crowd(name) if name in known else self._made(name, now, version)
            self._cleared = crowd, others, least
        return self._cleared[0]

    def parts(
        self, crowd: Crowd, having: Sequence[NDArray[np.int64]], least: int, steps: bool = False
    ) -> tuple[Crowd, ...] | None:
        """The parts of a crowd about which its optional columns tell, to be recorded with it; None if a few people
        would be singled out.

        Args:
            crowd: as `crowd` gave it.
            having: places of those who have a value, for each column; or of those who passed, for each step.
            least: k, a public number.
            steps: whether they are steps. Two cohorts that end alike may have taken other steps, so those are held
                against each other, too; an answer's own steps are its cells.
        """
        known, out = self._ledger.crowds(), dict[str, Crowd]()
        maps = [self._bitmap(inside) for inside in having if len(inside)]
        names = [f"{self._named(now)}{PART}{crowd.name}" for now in maps]
        own = {crowd.name, *names} if steps else {n for n in known if crowd.name in (n, _crowd_of(n))}
        people = [n for n in known if n not in own and not _column_of(n)]
        cut = [n for n in known if _crowd_of(n) != crowd.name]
        for now, name in zip(maps, names, strict=True):
            if name in out or name == f"{crowd.name}{PART}{crowd.name}":
                continue
            if name not in known:
                bits = self._bits(now, people)
                if singles_out(bits[0], bits[1:], least, new=False) or self._lies_beside(now, cut, least):
                    return None
            out[name] = self._ledger.crowd(name) if name in known else self._made(name, now, crowd.version)
        return tuple(out.values())

    def cut(
        self, crowd: Crowd, inside: NDArray[np.int64], splits: Sequence[Split], least: int
    ) -> tuple[Crowd, ...] | None:
        """Where a crowd's answer tells its people apart, to be recorded with it; None if a few of them would be
        singled out.

        Args:
            crowd: as `crowd` gave it.
            inside: places of its people.
            splits: how it tells them apart.
            least: k, a public number.
        """
        known, out = self._ledger.crowds(), dict[str, Crowd]()
        others = [name for name in known if crowd.name not in (name, _crowd_of(name)) and not _column_of(name)]
        for split in splits:
            one = Cuts.of(crowd.name, split, self.numbers[inside])
            print_ = self._named(one.column.encode())
            name = f"{self._named(pack_parts(one.plain()))}{CUT}{print_}{PART}{crowd.name}"
            if name in known:
                out[name] = self._ledger.crowd(name)
                continue
            same = (other for other in known if _column_of(other) == print_)
            if any(one.singles_out(Cuts.unpack(self._opened(other)), least) for other in same):
                return None
            if any(one.singles_out_beside(_unpacked(self._opened(other)), least) for other in others):
                return None
            out[name] = self._made(name, one.pack(), crowd.version)
        return tuple(out.values())

    def _lies_beside(self, now: bytes, names: Sequence[str], least: int) -> bool:
        """Whether a bitmap's people differ by a few from those beyond one of the cuts among recorded names."""
        held, cut = _unpacked(now), (name for name in names if _column_of(name))
        return any(Cuts.unpack(self._opened(name)).singles_out_beside(held, least) for name in cut)

    def _named(self, data: bytes) -> str:
        return hmac.digest(self._print, data, "sha256").hex()

    def _opened(self, name: str) -> bytes:
        return self._open(self._ledger.crowd(name).sealed, f"crowd {name}")

    def _bitmap(self, inside: NDArray[np.int64]) -> bytes:
        held = np.zeros(int(self.numbers[inside].max(initial=-1)) + 1, dtype=bool)
        held[self.numbers[inside]] = True
        return np.packbits(held).tobytes()

    def _bits(self, now: bytes, others: Sequence[str]) -> Bits:
        """Bitmaps of a crowd, in the first row, and of recorded ones."""
        return _even([now, *map(self._opened, others)])

    def _made(self, name: str, bitmap: bytes, version: int) -> Crowd:
        return Crowd(name, version, self._seal(bitmap, f"crowd {name}"))

    def _seal(self, data: bytes, row: str) -> bytes:
        nonce = os.urandom(NONCE_BYTES)
        return nonce + self._sealing.encrypt(nonce, data, f"{self._ledger.dataset} {row}".encode())

    def _open(self, sealed: bytes, row: str) -> bytes:
        try:
            return self._sealing.decrypt(
                sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], f"{self._ledger.dataset} {row}".encode()
            )
        except InvalidTag:
            raise DataError(
                "What a node remembers of exact answers is as it wrote it, under its own key.",
                f"the register of persons and {KEY_FILE} do not belong together",
                "restore both from one copy of the state folder; a register is read by versions that made it alone.",
            ) from None


def _crowd_of(name: str) -> str:
    """The name of the crowd that a recorded one is a part of; nothing for one that is none."""
    return name.partition(PART)[2]


def _column_of(name: str) -> str:
    """The print of the column that recorded cuts are of; nothing for people."""
    return name.partition(CUT)[2].partition(PART)[0]


def _unpacked(bitmap: bytes) -> NDArray[np.bool_]:
    return np.unpackbits(np.frombuffer(bitmap, dtype=np.uint8)).astype(bool)


def _keys(ledger: Ledger) -> tuple[bytes, bytes, bytes]:
    path = ledger.folder / KEY_FILE
    if not path.exists():
        if ledger.persons():
            raise DataError(
                "A node keeps the key of its register of persons.",
                f"{path.name} is not in the state folder",
                "restore it from a copy; without it no exact question can be compared with earlier ones.",
            )
        write_secret(path, os.urandom(KEY_BYTES))
    key = _own(path)
    wide = HKDF(SHA256(), 3 * KEY_BYTES, salt=None, info=b"genosum register of persons v2").derive(key)
    return wide[:KEY_BYTES], wide[KEY_BYTES : 2 * KEY_BYTES], wide[2 * KEY_BYTES :]


def _own(path: Path) -> bytes:
    if path.stat().st_mode & 0o077:
        raise DataError("A key may be read by its owner alone.", f"{path.name} is open to others", f"chmod 600 {path}")
    key = path.read_bytes()
    if len(key) != KEY_BYTES:
        raise DataError("A register's key has 32 bytes.", f"{path.name} has {len(key)}", "restore it from a copy.")
    return key


def _even(crowds: Sequence[bytes]) -> Bits:
    out = np.zeros((len(crowds), max(len(c) for c in crowds)), dtype=np.uint8)
    for row, crowd in zip(out, crowds, strict=True):
        row[: len(crowd)] = np.frombuffer(crowd, dtype=np.uint8)
    return out


def singles_out(now: Bits, earlier: Bits, least: int, new: bool = True) -> bool:
    """Whether an answer about `now`, beside those about `earlier`, would tell about 1 to `least` - 1 persons.

    Each pair is compared, and any number of earlier answers together if `now` is `new`; of people who were asked about
    already, sums and differences tell nothing that they did not. Pairs are compared exactly; together, what is found
    is true, and `_combined` says what may be missed.

    >>> everybody = np.packbits(np.arange(16) < 12)
    >>> [singles_out(np.packbits(np.arange(16) < n), everybody[None], 5) for n in (12, 11, 8, 7)]
    [False, True, True, False]
    """
    apart = np.bitwise_count(earlier ^ now).sum(axis=1, dtype=np.int64)
    overlapping = (earlier & now).any(axis=1)
    if np.any(overlapping & (apart > 0) & (apart < least)):
        return True
    return new and len(earlier) > 1 and least > 1 and _combined(now, earlier, least)


def _combined(now: Bits, earlier: Bits, least: int) -> bool:
    """Whether sums and differences of totals over `now` and several of `earlier` are found that leave few people.

    People who were in the same crowds form an atom. A combination gives each atom a weight, and the people of weight
    not 0 are those that it tells about. Information set decoding [1]: draw people at random until their atoms decide
    the combination that vanishes on all of them. One that tells about few people vanishes on nearly everybody, so it is
    drawn soon. Draws have a fixed seed: the same history is judged alike. A combination can be missed where those that
    it tells about are most of an atom's neighbourhood; one that is found is always real.

    [1] Prange: The use of information sets in decoding cyclic codes, IRE Transactions on Information Theory 8 (1962).
    """
    patterns, sizes = _atoms(np.concatenate([earlier, now[None]]))
    crowds, draw = len(earlier), np.random.default_rng(0)
    for _ in range(min(MOST_DRAWS, max(LEAST_DRAWS, DRAW_WORK // crowds**3))):
        order = np.argsort(draw.exponential(size=len(sizes)) / sizes)[: ATOMS_A_CROWD * crowds]
        weights = _vanishing(patterns[:, order].astype(np.int64))
        told = 0
        for start in range(0, len(sizes), ATOMS_AT_A_TIME):
            span = slice(start, start + ATOMS_AT_A_TIME)
            told += int(sizes[span][weights @ patterns[:, span].astype(np.int64) % PRIME != 0].sum())
            if told >= least:
                break
        if told == 0:  # the new crowd follows from the earlier ones: nobody is told about who was not before
            return False
        if told < least:
            return True
    return False


def _atoms(crowds: Bits) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """(m, A) which crowds hold an atom's people, 0 or 1, and (A,) how many they are; people in none are left out."""
    count: dict[bytes, int] = {}
    width = -(-len(crowds) // 8)
    for start in range(0, crowds.shape[1], BYTES_AT_A_TIME):
        bits = np.unpackbits(crowds[:, start : start + BYTES_AT_A_TIME], axis=1)
        keys = np.ascontiguousarray(np.packbits(bits, axis=0).T).view(f"S{width}")[:, 0]
        for key, size in zip(*np.unique(keys, return_counts=True), strict=True):
            whole = bytes(key).ljust(width, b"\0")
            count[whole] = count.get(whole, 0) + int(size)
    count.pop(bytes(width), None)
    packed = np.frombuffer(b"".join(count), dtype=np.uint8).reshape(-1, width)
    return np.unpackbits(packed.T, axis=0)[: len(crowds)], np.array(list(count.values()), dtype=np.int64)


def _vanishing(columns: NDArray[np.int64]) -> NDArray[np.int64]:
    """(m,) weights, 1 for the last crowd, whose combination is 0 on the first columns that decide it, modulo PRIME."""
    crowds, wide = columns.shape
    rows = np.concatenate([columns, np.eye(crowds, dtype=np.int64)], axis=1)
    pivots: dict[int, NDArray[np.int64]] = {}
    for number, row in enumerate(rows):
        reduced = row
        for at in sorted(pivots):
            if reduced[at]:
                reduced = (reduced - reduced[at] * pivots[at]) % PRIME
        leading = np.flatnonzero(reduced[:wide])
        if len(leading) and number < crowds - 1:
            pivots[int(leading[0])] = reduced * pow(int(reduced[leading[0]]), -1, PRIME) % PRIME
    weights: NDArray[np.int64] = reduced[wide:]
    return weights
