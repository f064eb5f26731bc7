"""Secure summing: the coordinator learns the sum over the sites and nothing about any one site's part.

The two-mask protocol of Bonawitz et al. [1] in the ring of integers modulo 2^64. Site i of a roster R sends

    y_i = x_i + stream(b_i) + sum over j > i of stream(s_ij) - sum over j < i of stream(s_ij)      (mod 2^64)

where b_i is a fresh random seed and s_ij a seed that sites i and j share through X25519 keys that are fresh for the
study and signed by their long-term identities. Pairwise masks cancel in the sum. Afterwards every surviving site
returns, once and for one list of survivors, b_i and its pair seeds with the missing sites, so a reply that comes late
stays masked for ever. Every request has its own seeds: its digest goes into their derivation.

Streams are ChaCha20 (RFC 8439) under a key that is used once; seeds come from HKDF-SHA256 (RFC 5869) over X25519
(RFC 7748).

Assumes at least two honest sites that do not collude with the coordinator. A coordinator that sends two different
lists of survivors to two sites can be found out by comparing what it signed, but is not stopped by this form.

[1] Practical Secure Aggregation for Privacy-Preserving Machine Learning, CCS 2017, section 4.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction

import numpy as np
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from numpy.typing import NDArray

from strategies.summary import Field, Summary

LEAST_SITES = 3
"""With two sites in a sum, each learns the other's part."""

SEED_BYTES = 32
_TILE = 1 << 18
"""Bytes of stream made at a time: the mask stays in the processor's cache (four times faster than whole masks)."""

_ZEROS = bytes(_TILE)


def pair_secret(own: X25519PrivateKey, other: bytes, session: str, one: str, two: str) -> bytes:
    """The secret that sites `one` and `two` share for a session; the same at both ends.

    Raises:
        ValueError: if the other's public key is not a proper one (a point of low order).
    """
    first, second = sorted((one, two))
    shared = own.exchange(X25519PublicKey.from_public_bytes(other))
    info = b"\0".join((b"genosum pair v1", session.encode(), first.encode(), second.encode()))
    return HKDF(hashes.SHA256(), SEED_BYTES, salt=None, info=info).derive(shared)


def pair_seed(secret: bytes, request_digest: bytes) -> bytes:
    """The seed of a pair's mask for one request. Revealing it reveals nothing about any other request's."""
    return HKDF(hashes.SHA256(), SEED_BYTES, salt=request_digest, info=b"genosum mask v1").derive(secret)


def flatten(summary: Summary) -> NDArray[np.uint64]:
    """All arrays of a summary, by name, as one vector of ring elements (two's complement)."""
    parts = [np.ascontiguousarray(summary[name]).reshape(-1) for name in sorted(summary)]
    return np.concatenate(parts).view(np.uint64) if parts else np.zeros(0, dtype=np.uint64)


def unflatten(vector: NDArray[np.uint64], fields: Mapping[str, Field]) -> Summary:
    """The inverse of `flatten` for the declared fields.

    Raises:
        ValueError: if the vector's length differs from the fields'.
    """
    if len(vector) != sum(f.size for f in fields.values()):
        raise ValueError("The vector's length differs from what the fields declare.")
    out, at = {}, 0
    for name in sorted(fields):
        field = fields[name]
        out[name] = vector[at : at + field.size].view(np.int64).reshape(field.shape)
        at += field.size
    return out


def add_stream(vector: NDArray[np.uint64], seed: bytes, sign: int) -> None:
    """Add (sign 1) or subtract (sign -1) the seed's stream, in place. A seed is used for one vector only."""
    stream = Cipher(algorithms.ChaCha20(seed, bytes(16)), mode=None).encryptor()
    tile = bytearray(_TILE)
    for start in range(0, len(vector), _TILE // 8):
        part = vector[start : start + _TILE // 8]
        stream.update_into(_ZEROS[: part.nbytes], tile)
        words = np.frombuffer(tile, dtype="<u8", count=len(part))
        if sign > 0:
            np.add(part, words, out=part)
        else:
            np.subtract(part, words, out=part)


def mask(summary: Summary, site: str, self_seed: bytes, pair_seeds: Mapping[str, bytes]) -> NDArray[np.uint64]:
    """A site's masked part: uniform to anyone who lacks one of its seeds.

    Args:
        summary: the site's part.
        site: its name.
        self_seed: fresh random bytes, revealed only if the site survives.
        pair_seeds: the other sites of the roster and the seed shared with each for this request.
    """
    vector = flatten(summary).copy()
    add_stream(vector, self_seed, 1)
    for other, seed in pair_seeds.items():
        add_stream(vector, seed, _sign(site, other))
    return vector


def unmask(
    masked: Mapping[str, NDArray[np.uint64]],
    self_seeds: Mapping[str, bytes],
    pair_seeds: Mapping[str, Mapping[str, bytes]],
) -> NDArray[np.uint64]:
    """The sum of the survivors' parts.

    Args:
        masked: survivor -> masked part; all of one length.
        self_seeds: survivor -> its self-mask seed.
        pair_seeds: survivor -> missing site -> their pair seed for this request.
    """
    vectors = iter(masked.values())
    total = next(vectors).copy()
    for vector in vectors:
        np.add(total, vector, out=total)
    for site in masked:
        add_stream(total, self_seeds[site], -1)
        for missing, seed in pair_seeds[site].items():
            add_stream(total, seed, -_sign(site, missing))
    return total


def _sign(site: str, other: str) -> int:
    return 1 if site < other else -1


def isolated(rosters: Iterable[Sequence[str]]) -> frozenset[str]:
    """The sites whose own part follows from the totals over all these rosters, by adding and subtracting totals.

    A site is isolated if its unit vector lies in the row space of the rosters' indicator vectors, that is, if the
    reduced row echelon form has a row with that single entry.

    >>> sorted(isolated([("AT", "BE", "CY"), ("AT", "BE", "CY", "DK")]))
    ['DK']
    >>> isolated([("AT", "BE", "CY"), ("BE", "CY", "DK")])
    frozenset()
    """
    distinct = sorted({tuple(sorted(r)) for r in rosters})
    sites = sorted({s for roster in distinct for s in roster})
    rows = [[Fraction(s in roster) for s in sites] for roster in distinct]
    rank = 0
    for column in range(len(sites)):
        pivot = next((r for r in range(rank, len(rows)) if rows[r][column]), None)
        if pivot is None:
            continue
        rows[rank], rows[pivot] = rows[pivot], rows[rank]
        lead = rows[rank][column]
        rows[rank] = [x / lead for x in rows[rank]]
        for r in range(len(rows)):
            if r != rank and rows[r][column]:
                factor = rows[r][column]
                rows[r] = [x - factor * y for x, y in zip(rows[r], rows[rank], strict=True)]
        rank += 1
    alone = [row for row in rows[:rank] if sum(1 for x in row if x) == 1]
    return frozenset(sites[next(i for i, x in enumerate(row) if x)] for row in alone)
