"""Secure summing: the coordinator learns the sum over the sites and nothing about any one site's part.

The two-mask protocol of Bonawitz et al. [1] in the ring of integers modulo 2^64. Site i of a roster R sends

    y_i = x_i + stream(b_i) + sum over j > i of stream(s_ij) - sum over j < i of stream(s_ij)      (mod 2^64)

where s_ij is a seed that sites i and j share through X25519 keys that are fresh for each question and attempt, and b_i
a seed of its own. Pairwise masks cancel in the sum over the whole roster and in no other; their seeds never leave a
site. A self mask is opened only after every site of R has signed the same agreement: the roster, all keys, all sealed
shares. Every request has its own seeds: its digest goes into their derivation.

The root of a site's self masks is shared among the others, t of n (Shamir [2], t = max(3, n // 2 + 1)). If a site falls
silent after it agreed and answered, t others who have opened their own self masks return their shares of its root, and
the total still contains the site, exact. With fewer than t the attempt is given up and nothing can be opened.

Assumes that of the sites of a roster at most t - 2 collude with the coordinator. A coordinator that tells some sites to
open an attempt and the others to go on to a later one needs t openers for the roots that the others deleted. With c
colluding sites among them at least t - c are honest, and they are in the first total and not in the second: the
difference is over at least t - c >= 2 honest sites.

Streams are ChaCha20 (RFC 8439) under a key that is used once; seeds come from HKDF-SHA256 (RFC 5869) over X25519
(RFC 7748).

[1] Practical Secure Aggregation for Privacy-Preserving Machine Learning, CCS 2017, section 4.
[2] How to share a secret, Communications of the ACM 22 (1979).
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction

import numpy as np
from Crypto.Protocol.SecretSharing import Shamir
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from numpy.typing import NDArray

from strategies.summary import Field, Summary

LEAST_SITES = 3
"""With two sites in a sum, each learns the other's part."""

SEED_BYTES = 32
_HALF = 16
"""Shamir's scheme as pycryptodome has it shares 16 bytes at a time, in the field of 2^128 elements."""

_TILE = 1 << 18
"""Bytes of stream made at a time: the mask stays in the processor's cache (four times faster than whole masks)."""

_BLOCK = 64
"""Bytes of one block of ChaCha20: a stream can be entered at any of them."""

_ZEROS = bytes(_TILE)

Vector = NDArray[np.uint64]


def threshold(sites: int) -> int:
    """How many sites of a roster of this size together open the self masks of one that fell silent.

    >>> [threshold(n) for n in (3, 4, 5, 6, 15, 27)]
    [3, 3, 3, 4, 8, 14]
    """
    return max(LEAST_SITES, sites // 2 + 1)


def pair_secret(own: X25519PrivateKey, other: bytes, agreement: str, one: str, two: str) -> bytes:
    """The secret that sites `one` and `two` share under an agreement; the same at both ends.

    Raises:
        ValueError: if the other's public key is not a proper one (a point of low order).
    """
    first, second = sorted((one, two))
    shared = own.exchange(X25519PublicKey.from_public_bytes(other))
    info = b"\0".join((b"genosum pair v2", agreement.encode(), first.encode(), second.encode()))
    return HKDF(hashes.SHA256(), SEED_BYTES, salt=None, info=info).derive(shared)


def pair_seed(secret: bytes, request_digest: bytes) -> bytes:
    """The seed of a pair's mask for one request."""
    return HKDF(hashes.SHA256(), SEED_BYTES, salt=request_digest, info=b"genosum mask v1").derive(secret)


def self_seed(root: bytes, request_digest: bytes) -> bytes:
    """The seed of a site's self mask for one request. Revealing it reveals nothing about any other request's."""
    return HKDF(hashes.SHA256(), SEED_BYTES, salt=request_digest, info=b"genosum self v1").derive(root)


def commitment(root: bytes) -> str:
    """A digest by which a root is known again after it was put together from shares; it tells nothing of the root."""
    return hashlib.sha256(b"genosum root v1\0" + root).hexdigest()


def split(root: bytes, sites: int) -> tuple[bytes, ...]:
    """Shares of a root, one a site; any `threshold(sites)` of them give it back and fewer say nothing."""
    halves = [Shamir.split(threshold(sites), sites, root[at : at + _HALF], ssss=False) for at in (0, _HALF)]
    return tuple(low + high for (_, low), (_, high) in zip(*halves, strict=True))


def combine(shares: Mapping[int, bytes]) -> bytes:
    """The root from exactly as many shares as the threshold asks.

    Args:
        shares: place of the site in the sorted roster, from 0 -> its share.
    """
    return b"".join(
        Shamir.combine([(place + 1, share[at : at + _HALF]) for place, share in shares.items()], ssss=False)
        for at in (0, _HALF)
    )


def flatten(summary: Summary) -> NDArray[np.uint64]:
    """All arrays of a summary, by name, as one new vector of ring elements (two's complement)."""
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


def add_streams(vector: Vector, streams: Sequence[tuple[bytes, int]], threads: int = 2) -> None:
    """Add (sign 1) or subtract (sign -1) each seed's stream, in place; the same bytes whatever the number of threads.

    A seed is used for one vector only.
    """
    tiles = -(-vector.nbytes // _TILE)
    workers = min(threads, tiles)
    if workers <= 1:
        _add_from(vector, streams, 0)
        return
    step = -(-tiles // workers) * _TILE
    parts = [(vector[at // 8 : (at + step) // 8], streams, at) for at in range(0, vector.nbytes, step)]
    with ThreadPoolExecutor(workers) as pool:
        list(pool.map(lambda part: _add_from(*part), parts))


def _add_from(vector: Vector, streams: Sequence[tuple[bytes, int]], start: int) -> None:
    """The streams from byte `start` on, a whole number of tiles."""
    counter = (start // _BLOCK).to_bytes(16, "little")
    sources = [(Cipher(algorithms.ChaCha20(seed, counter), mode=None).encryptor(), sign) for seed, sign in streams]
    tile = bytearray(_TILE)
    for at in range(0, len(vector), _TILE // 8):
        part = vector[at : at + _TILE // 8]
        words = np.frombuffer(tile, dtype="<u8", count=len(part))
        zeros = _ZEROS if part.nbytes == _TILE else _ZEROS[: part.nbytes]
        for stream, sign in sources:
            stream.update_into(zeros, tile)
            (np.add if sign > 0 else np.subtract)(part, words, out=part)


def mask(summary: Summary, site: str, self_seed: bytes, pair_seeds: Mapping[str, bytes]) -> Vector:
    """A site's masked part: uniform to anyone who lacks one of its seeds.

    Args:
        summary: the site's part.
        site: its name.
        self_seed: the seed of its self mask for this request.
        pair_seeds: the other sites of the roster and the seed shared with each for this request.
    """
    vector = flatten(summary)
    add_streams(vector, [(self_seed, 1), *((seed, _sign(site, other)) for other, seed in pair_seeds.items())])
    return vector


def unmask(masked: Mapping[str, Vector], self_seeds: Mapping[str, bytes]) -> Vector:
    """The sum of all parts of a roster.

    Args:
        masked: site -> masked part; all of one length.
        self_seeds: site -> the seed of its self mask for this request.
    """
    vectors = iter(masked.values())
    total = next(vectors).copy()
    for vector in vectors:
        np.add(total, vector, out=total)
    add_streams(total, [(self_seeds[site], -1) for site in masked])
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
    rows = _reduced([[Fraction(s in roster) for s in sites] for roster in distinct])
    alone = [row for row in rows if sum(1 for x in row if x) == 1]
    return frozenset(sites[next(i for i, x in enumerate(row) if x)] for row in alone)


def exposed(roster: Collection[str], known: Iterable[Collection[str]], nodes: Iterable[str]) -> frozenset[str]:
    """The sites whose own part might follow if a total over `roster` were opened.

    A majority of the nodes is judged by what it knows: whom the known rosters and this one isolate. A minority is
    judged as if every part outside it were known, because rosters outside it may exist of which it knows nothing: it
    exposes whom the known rosters, cut down to its own sites, and it itself isolate; and all outside it, if it is new
    and a combination of those cut rosters.

    Why that is enough. Take the rosters that every member signed in the order in which signing began. Each site signs
    one after the other and lists what it knows, which is all it signed before and all that those agreements listed;
    so a roster knows every earlier one that it meets, and whoever knows a roster knows what that roster knew. Suppose
    that no combination of the totals so far isolates a site, and one with R does.

    * R is a minority. Cut to R's sites, the combination is one of known rosters, since unknown ones do not meet R. If
      the isolated site is in R, the first condition refuses R. If not, the cut combination is zero, so R's is a
      combination of the others', and the second condition refuses it.
    * R is a majority, so every majority is known to it. Let D be the last unknown roster in the combination: a
      minority, and no later roster in it meets D, or who knows that one would know D. Cut to D's sites, the combination
      is one of rosters that D knew and of D. So D was refused, by one of the two conditions. Hence no unknown roster is
      in the combination, and the rank test over the known ones finds it.

    Args:
        roster: the sites of the new total.
        known: the rosters that its sites know, by their signed lists.
        nodes: all nodes of the federation file.

    >>> sorted(exposed("ABC", [], "ABCDEFG"))
    []
    >>> sorted(exposed("ABC", ["ABCDEFG"], "ABCDEFG"))  # with DEF, of which it would not know, it leaves G's part
    ['D', 'E', 'F', 'G']
    """
    members, rosters = set(roster), {tuple(sorted(k)) for k in known}
    everybody = {*nodes, *(site for k in rosters for site in k), *members}
    alone = isolated([*rosters, tuple(members)])
    if 2 * len(members) > len(everybody):
        return alone
    inside = [tuple(s for s in k if s in members) for k in rosters]
    alone |= isolated([*inside, tuple(members)])
    if tuple(sorted(members)) not in rosters and _rank([*inside, tuple(members)]) == _rank(inside):
        alone |= everybody - members
    return alone


def _rank(rosters: Iterable[Sequence[str]]) -> int:
    distinct = list(rosters)
    sites = sorted({s for roster in distinct for s in roster})
    return len(_reduced([[Fraction(s in roster) for s in sites] for roster in distinct]))


def _reduced(rows: list[list[Fraction]]) -> list[list[Fraction]]:
    """The rows that are not zero of the reduced row echelon form."""
    rank = 0
    for column in range(len(rows[0]) if rows else 0):
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
    return rows[:rank]
