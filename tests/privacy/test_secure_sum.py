"""Secure summing: the primitives against their RFCs, the protocol on recorded traffic, and proof that the checks bite.

What is checked on traffic stands in functions that take a recording. The same functions are run on deliberately broken
variants (streams of zeros, constant streams, reused nonces and seeds) and must fail there.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import itertools
import os
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from numpy.typing import NDArray

import strategies.analysis
from fl_client.agreements import Agreement, Peer
from fl_client.gate import Gate
from strategies.errors import TooFewSitesError
from strategies.protections import secure_sum
from strategies.reasons import Reason
from strategies.summary import MOST_INTEGER, Field, SumOverflowError, check_range, saturated
from strategies.wire import (
    Answered,
    Ask,
    Message,
    Recover,
    Recovered,
    Refused,
    Unmask,
    Unmasked,
    WireError,
    open_envelope,
    unseal,
)
from tests.tiny import COUNTS, FREQUENCIES, LINEAR, NAMES, PEOPLE, VARIANTS, GateLink, Tiny, genotypes, study

Vector = NDArray[np.uint64]
Make = Callable[..., Tiny]

# -- primitives, through the names that secure_sum itself uses ---------------------------------------------------------

RFC_7748_5_2 = [  # scalar, u-coordinate, product
    (
        "a546e36bf0527c9d3b16154b82465edd62144c0ac1fc5a18506a2244ba449ac4",
        "e6db6867583030db3594c1a424b15f7c726624ec26b3353b10a903a6d0ab1c4c",
        "c3da55379de9c6908e94ea4df28d084f32eccf03491c71f754b4075577a28552",
    ),
    (
        "4b66e9d4d1b4673c5ad22691957d6af5c11b6421e0ea01d42ca4169e7918ba0d",
        "e5210f12786811d3f4b7959d0538ae2c31dbe7106fc03c3efc4cd549c715a493",
        "95cbde9476e8907d7aade45cb4b873f88b595a68799fa152e6f8f7647aac7957",
    ),
]
ALICE = "77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a"  # RFC 7748, 6.1
ALICE_PUBLIC = "8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a"
BOB = "5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb"
BOB_PUBLIC = "de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f"
SHARED = "4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742"
RFC_5869 = [  # appendix A.1, A.2, A.3: input, salt, info, output
    (
        "0b" * 22,
        bytes(range(13)).hex(),
        bytes(range(0xF0, 0xFA)).hex(),
        "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865",
    ),
    (
        bytes(range(0x50)).hex(),
        bytes(range(0x60, 0xB0)).hex(),
        bytes(range(0xB0, 0x100)).hex(),
        "b11e398dc80327a1c8e7f78c596a49344f012eda2d4efad8a050cc4c19afa97c59045a99cac7827271cb41c65e590e09da3275600c2f09b8"
        "367793a9aca3db71cc30c58179ec3e87c14c01d5c1f3434f1d87",
    ),
    ("0b" * 22, "", "", "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a96c8"),
]
RFC_8439_A_1 = [  # appendix A.1: key, block counter, keystream; the nonce is zero, as in add_streams
    (
        "00" * 32,
        0,
        "76b8e0ada0f13d90405d6ae55386bd28bdd219b8a08ded1aa836efcc8b770dc7"
        "da41597c5157488d7724e03fb8d84a376a43b8f41518a11cc387b669b2ee6586",
    ),
    (
        "00" * 32,
        1,
        "9f07e7be5551387a98ba977c732d080dcb0f29a048e3656912c6533e32ee7aed"
        "29b721769ce64e43d57133b074d839d531ed1f28510afb45ace10a1f4b794d6f",
    ),
    (
        "00" * 31 + "01",
        1,
        "3aeb5224ecf849929b9d828db1ced4dd832025e8018b8160b82284f3c949aa5a"
        "8eca00bbb4a73bdad192b5c42f73f2fd4e273644c8b36125a64addeb006c13a0",
    ),
    (
        "00ff" + "00" * 30,
        2,
        "72d54dfbf12ec44b362692df94137f328fea8da73990265ec1bbbea1ae9af0ca"
        "13b25aa26cb4a648cb9b9d1be65b2c0924a66c54d545ec1b7374f4872e99f096",
    ),
]


def chacha20(key: bytes, counter: int, nonce: bytes) -> bytes:
    """One block, straight from RFC 8439, section 2.3."""
    start = [*struct.unpack("<4I", b"expand 32-byte k"), *struct.unpack("<8I", key), counter]
    start += struct.unpack("<3I", nonce)
    x = list(start)

    def quarter(a: int, b: int, c: int, d: int) -> None:
        for i, j, k, turn in ((a, b, d, 16), (c, d, b, 12), (a, b, d, 8), (c, d, b, 7)):
            x[i] = (x[i] + x[j]) & 0xFFFFFFFF
            x[k] ^= x[i]
            x[k] = (x[k] << turn | x[k] >> (32 - turn)) & 0xFFFFFFFF

    for _ in range(10):
        for i in range(4):
            quarter(i, i + 4, i + 8, i + 12)
        for i in range(4):
            quarter(i, (i + 1) % 4 + 4, (i + 2) % 4 + 8, (i + 3) % 4 + 12)
    return struct.pack("<16I", *((a + b) & 0xFFFFFFFF for a, b in zip(x, start, strict=True)))


def hkdf(key: bytes, salt: bytes, info: bytes, length: int) -> bytes:
    """RFC 5869, section 2, with SHA-256."""
    secret = hmac.new(salt or bytes(32), key, hashlib.sha256).digest()
    out, block = b"", b""
    for i in range(1, -(-length // 32) + 1):
        block = hmac.new(secret, block + info + bytes([i]), hashlib.sha256).digest()
        out += block
    return out[:length]


def stream(seed: bytes, words: int) -> Vector:
    """What `add_streams` adds."""
    vector = np.zeros(words, dtype=np.uint64)
    secure_sum.add_streams(vector, [(seed, 1)])
    return vector


@pytest.mark.parametrize(("scalar", "point", "product"), RFC_7748_5_2)
def test_key_agreement_is_x25519(scalar: str, point: str, product: str) -> None:
    key = secure_sum.X25519PrivateKey.from_private_bytes(bytes.fromhex(scalar))
    assert key.exchange(secure_sum.X25519PublicKey.from_public_bytes(bytes.fromhex(point))).hex() == product


def test_the_secret_of_a_pair_is_hkdf_over_x25519_and_the_same_at_both_ends() -> None:
    alice, bob = (X25519PrivateKey.from_private_bytes(bytes.fromhex(k)) for k in (ALICE, BOB))
    assert alice.public_key().public_bytes_raw().hex() == ALICE_PUBLIC
    assert bob.public_key().public_bytes_raw().hex() == BOB_PUBLIC
    one = secure_sum.pair_secret(alice, bytes.fromhex(BOB_PUBLIC), "agreement", "FI", "EE")
    other = secure_sum.pair_secret(bob, bytes.fromhex(ALICE_PUBLIC), "agreement", "EE", "FI")
    assert one == other == hkdf(bytes.fromhex(SHARED), b"", b"genosum pair v2\0agreement\0EE\0FI", 32)
    assert secure_sum.pair_seed(one, b"d" * 32) == hkdf(one, b"d" * 32, b"genosum mask v1", 32)
    assert secure_sum.self_seed(one, b"d" * 32) == hkdf(one, b"d" * 32, b"genosum self v1", 32)


@pytest.mark.parametrize(("key", "salt", "info", "output"), RFC_5869)
def test_key_derivation_is_hkdf(key: str, salt: str, info: str, output: str) -> None:
    derived = secure_sum.HKDF(
        secure_sum.hashes.SHA256(), len(output) // 2, salt=bytes.fromhex(salt) or None, info=bytes.fromhex(info)
    ).derive(bytes.fromhex(key))
    assert derived.hex() == output
    assert hkdf(bytes.fromhex(key), bytes.fromhex(salt), bytes.fromhex(info), len(output) // 2).hex() == output


@pytest.mark.parametrize(("key", "counter", "keystream"), RFC_8439_A_1)
def test_the_stream_is_chacha20(key: str, counter: int, keystream: str) -> None:
    words = stream(bytes.fromhex(key), 8 * (counter + 1))[8 * counter :]
    assert words.astype("<u8").tobytes().hex() == keystream
    assert chacha20(bytes.fromhex(key), counter, bytes(12)).hex() == keystream


def test_the_stream_goes_on_over_tiles_without_a_seam() -> None:
    seed, tile = bytes(range(32)), secure_sum._TILE // 8
    words = stream(seed, 2 * tile + 13)
    for block in (0, 1, tile // 8 - 1, tile // 8, tile // 8 + 1, 2 * tile // 8, 2 * tile // 8 + 1):
        want = np.frombuffer(chacha20(seed, block, bytes(12)), dtype="<u8")
        got = words[8 * block : 8 * block + 8]
        assert np.array_equal(got, want[: len(got)]), block
    minus = words.copy()
    secure_sum.add_streams(minus, [(seed, -1)])
    assert not minus.any()


@pytest.mark.parametrize("words", [0, 1, 777, *(n * secure_sum._TILE // 8 + d for n in (1, 2, 5) for d in (-1, 0, 1))])
def test_masks_are_the_same_whatever_the_number_of_threads(words: int) -> None:
    streams = [(bytes([n]) * 32, sign) for n, sign in ((1, 1), (2, -1), (3, 1))]
    vectors = [np.arange(words, dtype=np.uint64) for _ in range(4)]
    for threads, vector in enumerate(vectors, start=1):
        secure_sum.add_streams(vector, streams, threads)
        assert np.array_equal(vector, vectors[0]), threads
    one_by_one = np.arange(words, dtype=np.uint64)
    for seed, sign in streams:
        one_by_one = one_by_one + stream(seed, words) if sign > 0 else one_by_one - stream(seed, words)
    assert np.array_equal(vectors[0], one_by_one)


LOW_ORDER = [  # the points whose product with any scalar is zero, in all encodings below 2^255
    0,
    1,
    325606250916557431795983626356110631294008115727848805560023387167927233504,
    39382357235489614581723060781553021112529911719440698176882885853963445705823,
    2**255 - 20,
    2**255 - 19,
    2**255 - 18,
]


@pytest.mark.parametrize("point", LOW_ORDER)
@pytest.mark.parametrize("bit", [0, 255])
def test_points_of_low_order_are_refused(point: int, bit: int) -> None:
    encoded = (point | (1 << bit if bit else 0)).to_bytes(32, "little")
    with pytest.raises(ValueError, match=r".*"):
        secure_sum.pair_secret(X25519PrivateKey.generate(), encoded, "s", "A", "B")


@pytest.mark.parametrize("length", [0, 31, 33, 64])
def test_keys_of_another_length_are_refused(length: int) -> None:
    with pytest.raises(ValueError, match=r".*"):
        secure_sum.pair_secret(X25519PrivateKey.generate(), bytes(range(1, length + 1)), "s", "A", "B")


def test_every_input_of_a_seed_changes_it() -> None:
    key, other = X25519PrivateKey.generate(), X25519PrivateKey.generate()
    public, foreign = (X25519PrivateKey.generate().public_key().public_bytes_raw() for _ in range(2))
    secrets = [
        secure_sum.pair_secret(k, p, agreement, a, b)
        for k in (key, other)
        for p in (public, foreign)
        for agreement in ("s", "t")
        for a, b in (("A", "B"), ("A", "C"), ("B", "C"))
    ]
    seeds = [secure_sum.pair_seed(s, bytes([n]) * 32) for s in secrets for n in (0, 1)]
    assert len(set(secrets)) == len(secrets)
    assert len({*seeds, *secrets}) == len(seeds) + len(secrets)


# -- masks cancel, totals are exact ------------------------------------------------------------------------------------


def a_sum(sites: int, words: int) -> tuple[dict[str, dict[str, Any]], dict[str, bytes], dict[tuple[str, str], bytes]]:
    rng = np.random.default_rng([sites, words])
    names = [f"S{i}" for i in range(sites)]
    limit = MOST_INTEGER // sites
    parts = {
        n: {"x": rng.integers(-limit + 1, limit, words), "a": rng.integers(0, 9, (3, 2)), "n": np.array(7)}
        for n in names
    }
    own = {n: rng.bytes(32) for n in names}
    pairs = {(a, b): rng.bytes(32) for a, b in itertools.combinations(names, 2)}
    return parts, own, pairs


def seeds_of(site: str, pairs: Mapping[tuple[str, str], bytes]) -> dict[str, bytes]:
    return {(b if a == site else a): seed for (a, b), seed in pairs.items() if site in (a, b)}


@pytest.mark.parametrize(("sites", "words"), [(3, 1), (4, 100), (5, 40_000), (6, 33), (27, 3)])
def test_the_total_is_exact(sites: int, words: int) -> None:
    parts, own, pairs = a_sum(sites, words)
    masked = {n: secure_sum.mask(part, n, own[n], seeds_of(n, pairs)) for n, part in parts.items()}
    total = secure_sum.unmask(masked, own)
    fields = {"x": Field((words,), "", 1, 1), "a": Field((3, 2), "", 1, 1), "n": Field((), "", 1, 1)}
    sums = secure_sum.unflatten(total, fields)
    for name in fields:
        assert np.array_equal(sums[name], sum(part[name] for part in parts.values())), name


# -- shares of a root: against the field's definition, written anew ---------------------------------------------------


def times(a: int, b: int) -> int:
    """The product in the field of 2^128 elements modulo x^128 + x^7 + x^2 + x + 1."""
    out = 0
    while b:
        if b & 1:
            out ^= a
        a, b = a << 1, b >> 1
        if a >> 128:
            a ^= (1 << 128) | 0b10000111
    return out


def inverse(a: int) -> int:
    out, power = 1, a  # a^(2^128 - 2), by squaring
    for _ in range(127):
        power = times(power, power)
        out = times(out, power)
    return out


def interpolated(points: Mapping[int, int]) -> int:
    """The value at 0 of the polynomial through the points (Lagrange)."""
    total = 0
    for x, y in points.items():
        above, below = y, 1
        for other in points:
            if other != x:
                above, below = times(above, other), times(below, x ^ other)
        total ^= times(above, inverse(below))
    return total


@pytest.mark.parametrize("sites", [3, 4, 5, 15, 27])
def test_as_many_shares_as_the_threshold_give_the_root_and_fewer_do_not(sites: int) -> None:
    rng = np.random.default_rng(sites)
    root, need = rng.bytes(32), secure_sum.threshold(sites)
    shares = secure_sum.split(root, sites)
    assert len(set(shares)) == len(shares) == sites
    for _ in range(3):
        chosen = sorted(rng.permutation(sites)[:need].tolist())
        assert secure_sum.combine({place: shares[place] for place in chosen}) == root
        assert secure_sum.combine({place: shares[place] for place in chosen[1:]}) != root
    halves = [interpolated({p + 1: int.from_bytes(shares[p][at : at + 16], "big") for p in chosen}) for at in (0, 16)]
    assert b"".join(half.to_bytes(16, "big") for half in halves) == root
    assert secure_sum.commitment(root) != secure_sum.commitment(shares[0])


def test_one_share_too_few_fits_every_root_as_well() -> None:
    """With any root there is a polynomial through it and t - 1 shares: they say nothing about which it was."""
    shares = secure_sum.split(bytes(range(32)), 5)
    known = {place + 1: int.from_bytes(shares[place][:16], "big") for place in (0, 3)}
    for other_root in (0, 1, 2**128 - 1, 0xDEADBEEF):
        points = {0: other_root, **known}  # t = 3 points determine a polynomial of degree 2
        third = interpolated({x ^ 5: y for x, y in points.items()})  # its value at 5, since x + 5 is x ^ 5
        assert interpolated({**known, 5: third}) == other_root


def test_masking_does_not_touch_the_part() -> None:
    part = {"x": np.arange(5)}
    secure_sum.mask(part, "A", bytes(32), {"B": bytes([1]) * 32})
    assert part["x"].tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("sites", [3, 4, 7, 30])
def test_a_part_that_might_leave_the_ring_is_refused(sites: int) -> None:
    limit = MOST_INTEGER // sites
    for value in (limit - 1, -limit + 1, 0):
        check_range({"a": np.zeros(0, dtype=np.int64), "x": np.array([0, value])}, sites)
        assert abs(value * sites) < 2**63, "as many such parts as there are sites stay in the ring"
    for value in (limit, -limit, 2**63 - 1, -(2**63)):
        with pytest.raises(SumOverflowError, match="an entry of x reaches"):
            check_range({"a": np.array(3), "x": np.array([0, value])}, sites)


@pytest.mark.parametrize("value", [2.0**61, -(2.0**61), 1e300, np.inf, -np.inf, np.nan])
def test_a_contribution_that_does_not_fit_is_held_by_itself(value: float) -> None:
    field = Field((2,), "", 1, 1)
    held = field.integers(np.array([[0.0, 1.0], [value, 1.0]]))
    assert held.tolist() == [[0, 1], [0 if np.isnan(value) else int(np.sign(value)) * 2**57, 1]]


@pytest.mark.parametrize("sites", [3, 4, 30])
def test_saturated_sums_stay_in_the_ring_and_others_as_they_are(sites: int) -> None:
    part = {"x": np.array([0, 5, -7, 2**63 - 1, -(2**63)])}
    held = saturated(part, sites)
    check_range(held, sites)
    assert held["x"][:3].tolist() == [0, 5, -7]
    assert abs(int(held["x"][3])) > MOST_INTEGER // sites - 2


# -- recorded traffic --------------------------------------------------------------------------------------------------


@dataclass
class Recording:
    """What passed over a link in some runs, as the relay and the coordinator see it."""

    tiny: Tiny
    traffic: list[tuple[str, bytes, bytes]]
    keys: list[X25519PrivateKey]

    @cached_property
    def messages(self) -> list[tuple[str, Message, Message]]:
        coordinator = {"demo": self.tiny.workspace.identity.public}
        return [(s, open_envelope(e, coordinator), self.tiny.read(s, r)) for s, e, r in self.traffic]

    @cached_property
    def asks(self) -> dict[str, Ask]:
        """Digest -> every exact question's slice that was asked."""
        return {
            request.digest: request.header
            for _, request, reply in self.messages
            if isinstance(request.header, Ask)
            and request.header.question in ("counts", "linear")
            and isinstance(reply.header, Answered)
        }

    @cached_property
    def masked(self) -> dict[tuple[str, str], Vector]:
        """(digest, site) -> the masked part that left the site."""
        return {
            (request.digest, site): np.frombuffer(reply.body, dtype="<u8").astype(np.uint64)
            for site, request, reply in self.messages
            if request.digest in self.asks and isinstance(reply.header, Answered)
        }

    @cached_property
    def own(self) -> dict[tuple[str, str], bytes]:
        """(digest, site) -> the self-mask seed that the site revealed to the coordinator."""
        return {
            (digest, site): seed
            for site, request, reply in self.messages
            if isinstance(request.header, Unmask) and isinstance(reply.header, Unmasked)
            for digest, seed in zip(request.header.requests, self.secrets(request, reply), strict=True)
        }

    @cached_property
    def shares(self) -> dict[tuple[str, int], dict[str, bytes]]:
        """(lost site, attempt) -> who returned a share of its root, and the share."""
        out: dict[tuple[str, int], dict[str, bytes]] = {}
        for giver, request, reply in self.messages:
            if isinstance(request.header, Recover) and isinstance(reply.header, Recovered):
                for site, share in zip(request.header.sites, self.secrets(request, reply), strict=True):
                    out.setdefault((site, request.header.attempt), {})[giver] = share
        return out

    def secrets(self, request: Message, reply: Message) -> list[bytes]:
        """What was sealed to the coordinator, which has the key of one of the runs."""
        for key in self.keys:
            with contextlib.suppress(WireError):
                data = unseal(reply.body, key, request.digest)
                return [data[at : at + 32] for at in range(0, len(data), 32)]
        raise AssertionError("the coordinator cannot open it")

    def pair_part(self, digest: str, site: str) -> Vector:
        """A reply less all that the coordinator can take off it: the part under its pairwise masks."""
        vector = self.masked[digest, site].copy()
        secure_sum.add_streams(vector, [(self.own[digest, site], -1)])
        return vector


def record(
    tiny: Tiny, folder: Path, runs: int = 3, link: GateLink | None = None, asked: Sequence[Any] = (COUNTS,)
) -> Recording:
    """Ask the same question of the same data in several studies, in five slices each."""
    link = link or tiny.link()
    for number in range(runs):
        tiny.conductor(study(*asked), folder / f"run{number}", link).run()
        for site in NAMES:
            assert [line["event"] for line in tiny.gates[site].ledger.journal()][-1] == "close"
    return Recording(tiny, link.traffic, sealing_keys(folder))


def sealing_keys(folder: Path) -> list[X25519PrivateKey]:
    return [X25519PrivateKey.from_private_bytes(file.read_bytes()) for file in folder.rglob("sealing.key")]


@pytest.fixture
def small_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(strategies.analysis, "VARIANTS_PER_SLICE", 12)


CHI_SQUARE_BOUND = 1500.0
"""256 bins: mean 255, standard deviation 23. Uniform bytes reach it with a probability below 10^-150; a stream that is
zero, constant or repeated exceeds it by orders of magnitude in the 6400 bytes and more that are tested."""


def check_uniform(vectors: Sequence[Vector]) -> None:
    data = np.frombuffer(b"".join(v.tobytes() for v in vectors), dtype=np.uint8)
    assert len(data) >= 6400, "enough bytes for the test to bite"
    expected = len(data) / 256
    statistic = float(((np.bincount(data, minlength=256) - expected) ** 2).sum() / expected)
    assert statistic < CHI_SQUARE_BOUND, f"bytes are not uniform: {statistic:.0f}"
    words = np.concatenate(vectors)
    assert len(np.unique(words)) == len(words), "a word of 64 bits does not occur twice"


def check_what_leaves_is_uniform(recording: Recording) -> None:
    check_uniform(list(recording.masked.values()))


def check_what_remains_after_unmasking_is_uniform(recording: Recording) -> None:
    """Though the coordinator takes every self mask off, each part is still under its masks with the other sites."""
    check_uniform([recording.pair_part(digest, site) for digest, site in recording.own])


def check_the_same_input_differs_by_uniform_bytes(recording: Recording) -> None:
    """Each slice was asked in several studies over the same data: masks of two requests have nothing in common."""
    places: dict[tuple[str, int, str], list[str]] = {}
    for digest, site in recording.own:
        ask = recording.asks[digest]
        places.setdefault((ask.question, ask.slice, site), []).append(digest)
    assert all(len(digests) >= 2 for digests in places.values())
    differences, under_masks = [], []
    for (_, _, site), digests in places.items():
        for one, other in itertools.combinations(digests, 2):
            differences.append(recording.masked[one, site] - recording.masked[other, site])
            under_masks.append(recording.pair_part(one, site) - recording.pair_part(other, site))
    check_uniform(differences)
    check_uniform(under_masks)


def check_slices_do_not_share_masks(recording: Recording) -> None:
    """Within one study and key: slices of one length, subtracted, show the difference of two parts if masks repeat."""
    by_place: dict[tuple[str, str, int], list[Vector]] = {}
    for digest, site in recording.own:
        vector = recording.pair_part(digest, site)
        by_place.setdefault((recording.asks[digest].session, site, len(vector)), []).append(vector)
    check_uniform([a - b for group in by_place.values() for a, b in itertools.combinations(group, 2)])


def check_seeds_are_fresh(recording: Recording) -> None:
    seeds = [*recording.own.values()]
    assert len(set(seeds)) == len(seeds), "a seed does not occur twice"


CHECKS = [
    check_what_leaves_is_uniform,
    check_what_remains_after_unmasking_is_uniform,
    check_the_same_input_differs_by_uniform_bytes,
    check_slices_do_not_share_masks,
    check_seeds_are_fresh,
]


def test_traffic_passes_every_check(tiny: Tiny, quick_path: Path, small_slices: None) -> None:
    recording = record(tiny, quick_path)
    assert len(recording.masked) == len(recording.own) == 3 * 5 * len(NAMES)
    for check in CHECKS:
        check(recording)


Streams = Sequence[tuple[bytes, int]]


def zeros(vector: Vector, streams: Streams) -> None:
    pass


def constant(vector: Vector, streams: Streams) -> None:
    for _, sign in streams:
        vector += np.uint64(0x9E3779B97F4A7C15 if sign > 0 else 2**64 - 0x9E3779B97F4A7C15)


def constant_by_seed(vector: Vector, streams: Streams) -> None:
    for seed, sign in streams:
        (word,) = struct.unpack("<Q", hashlib.sha256(seed).digest()[:8])
        vector += np.uint64(word if sign > 0 else (2**64 - word) % 2**64)


def the_same_for_every_seed(vector: Vector, streams: Streams) -> None:
    ADD_STREAMS(vector, [(bytes(32), sign) for _, sign in streams])


ADD_STREAMS = secure_sum.add_streams
BROKEN: dict[str, tuple[Any, str, Any, list[Callable[[Recording], None]]]] = {
    # name: where, what, instead, and the checks that must fail
    "stream of zeros": (secure_sum, "add_streams", zeros, CHECKS[:4]),
    "constant stream": (secure_sum, "add_streams", constant, CHECKS[:4]),
    "constant stream by seed": (secure_sum, "add_streams", constant_by_seed, CHECKS[:4]),
    "one stream for all seeds": (secure_sum, "add_streams", the_same_for_every_seed, CHECKS[1:4]),
    "nonce reused within a study": (secure_sum, "pair_seed", lambda secret, _: secret, [CHECKS[3]]),
    "seeds reused over studies": (
        secure_sum,
        "pair_seed",
        lambda secret, _: bytes(32),
        [CHECKS[2], CHECKS[3]],
    ),
    "self mask reused": (secure_sum, "self_seed", lambda root, _: root, [CHECKS[4]]),
}


@pytest.mark.parametrize("name", BROKEN)
def test_the_checks_fail_on_a_broken_variant(
    tiny: Tiny, quick_path: Path, small_slices: None, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    place, what, instead, checks = BROKEN[name]
    monkeypatch.setattr(place, what, instead)
    recording = record(tiny, quick_path)  # totals still come out right: nothing but these checks would notice
    for check in checks:
        with pytest.raises(AssertionError, match=r"not uniform|does not occur twice"):
            check(recording)


def pair_masks(recording: Recording, held: Mapping[tuple[str, str], Held]) -> dict[Any, Vector]:
    """(digest, site, other) -> their pairwise mask, from the keys that the sites held."""
    out = {}
    for (digest, site), vector in recording.masked.items():
        ask = recording.asks[digest]
        agreement, peers = held[ask.session, site]
        own = X25519PrivateKey.from_private_bytes(agreement.key or b"")
        for other, peer in peers.items():
            theirs = X25519PrivateKey.from_private_bytes(held[ask.session, other][0].key or b"").public_key()
            secret = secure_sum.pair_secret(own, theirs.public_bytes_raw(), agreement.agreement, site, other)
            assert secret == peer.key
            out[digest, site, other] = stream(secure_sum.pair_seed(secret, bytes.fromhex(digest)), len(vector))
    return out


Held = tuple[Agreement, dict[str, Peer]]


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> dict[tuple[str, str], Held]:
    """(session, site) -> what the site held of a study of one exact question, just before it forgot."""
    out: dict[tuple[str, str], Held] = {}
    close = Gate._close

    def remember(gate: Gate, message: Message, closing: Any) -> bytes:
        *_, agreement = gate.ledger.agreements.of(closing.session)
        out[closing.session, gate.name] = agreement, gate.ledger.agreements.peers(agreement.agreement)
        return close(gate, message, closing)

    monkeypatch.setattr(Gate, "_close", remember)
    return out


def test_every_part_is_under_a_one_time_pad_that_any_other_data_fit_as_well(
    tiny: Tiny, quick_path: Path, held: dict[tuple[str, str], Held]
) -> None:
    """The recorded bytes are part + self mask + pairwise masks, entry by entry. So for every site and partner, other
    data with another mask of that one pair give the identical bytes of all sites, seeds revealed and total included:
    who knows everything but that pair's mask learns their parts' sum and nothing else."""
    recording = record(tiny, quick_path, runs=1)
    masks = pair_masks(recording, held)
    rng = np.random.default_rng(5)
    for digest in recording.asks:
        parts = {site: part_of(site) for site in NAMES}

        def sent(site: str, part: Vector, masks: Mapping[Any, Vector], digest: str = digest) -> bytes:
            vector = part + stream(recording.own[digest, site], len(part))
            for other in set(NAMES) - {site}:
                mask = masks[digest, site, other]
                vector = vector + mask if site < other else vector - mask
            return vector.tobytes()

        for site in NAMES:
            assert sent(site, parts[site], masks) == recording.masked[digest, site].tobytes()
        for site, partner in itertools.permutations(NAMES, 2):
            change = rng.integers(0, 2**64, len(parts[site]), dtype=np.uint64)
            other_parts = {**parts, site: parts[site] + change, partner: parts[partner] - change}
            shifted = masks[digest, site, partner] + (-change if site < partner else change)
            other_masks = {**masks, (digest, site, partner): shifted, (digest, partner, site): shifted}
            assert not np.array_equal(other_parts[site], parts[site])
            for name in NAMES:
                assert sent(name, other_parts[name], other_masks) == recording.masked[digest, name].tobytes()
        both_ends = itertools.combinations(NAMES, 2)
        assert all(np.array_equal(masks[digest, a, b], masks[digest, b, a]) for a, b in both_ends)
        check_uniform([masks[digest, a, b] for a, b in itertools.combinations(NAMES, 2)])


WORDS = (4 + 1) * VARIANTS + 1
"""Ring elements of a site's part of the counts: four cells and a holder for each variant, and the people."""


def part_of(site: str) -> Vector:
    """A site's part of the counts, as ring elements."""
    codes = genotypes(site)
    cells = np.stack([(codes == k).sum(axis=1) for k in range(4)], axis=1)
    holds = (codes < 3).any(axis=1)
    return np.concatenate([cells.ravel(), holds, [PEOPLE]]).astype(np.int64).view(np.uint64)


def test_no_secret_is_in_any_message_in_the_clear(
    tiny: Tiny, quick_path: Path, monkeypatch: pytest.MonkeyPatch, held: dict[tuple[str, str], Held]
) -> None:
    """Not even those that are revealed to the coordinator, nor parts; and to it no others than those are revealed."""
    secrets: dict[str, bytes] = {}
    summaries: list[bytes] = []

    def kept(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            value = real(*arguments)
            secrets[f"{name} {len(secrets)}"] = value
            return value

        return call

    mask = secure_sum.mask

    def masked(summary: Any, *arguments: Any) -> Any:
        summaries.append(secure_sum.flatten(summary).tobytes())
        return mask(summary, *arguments)

    for name in ("pair_secret", "pair_seed", "self_seed"):
        monkeypatch.setattr(secure_sum, name, kept(name, getattr(secure_sum, name)))
    monkeypatch.setattr(secure_sum, "mask", masked)
    link = tiny.link()
    open_session = type(tiny.gates["AT"].ledger).open_session

    def opened(ledger: Any, session: Any, *rest: Any) -> bytes:
        secrets[f"study key {len(secrets)}"] = session.key
        return open_session(ledger, session, *rest)  # type: ignore[no-any-return]

    monkeypatch.setattr(type(tiny.gates["AT"].ledger), "open_session", opened)

    def lose(name: str, asked: list[bytes], replies: list[bytes]) -> list[bytes] | None:
        header = open_envelope(asked[0], {"demo": tiny.workspace.identity.public}).header
        return None if name == "DK" and isinstance(header, Unmask) else replies

    link.on_reply = lose  # so that the others return their shares of DK's root
    recording = record(tiny, quick_path, runs=1, link=link, asked=(COUNTS, FREQUENCIES))
    for site, gate in tiny.gates.items():
        secrets[f"identity of {site}"] = gate.identity._key.private_bytes_raw()
    secrets["identity of the coordinator"] = tiny.workspace.identity._key.private_bytes_raw()
    secrets["sealing key"] = (quick_path / "run0" / "sealing.key").read_bytes()
    for (_, site), (agreement, peers) in held.items():
        assert agreement.key
        assert agreement.root
        secrets |= {f"mask key of {site}": agreement.key, f"root of {site}": agreement.root}
        secrets |= {f"share of {peer.site}'s root for {site}": peer.share for peer in peers.values()}
        secrets |= {f"secret of {site} and {peer.site}": peer.key for peer in peers.values()}

    shares = recording.shares["DK", 1]
    assert set(shares) == {"AT", "BE", "CY"}
    assert {site for _, site in recording.own} == set(NAMES), "DK opened as well; its reply was lost"
    revealed = {*recording.own.values(), *shares.values()}
    hidden = {name: s for name, s in secrets.items() if s not in revealed}
    assert len([n for n in secrets if n.startswith("pair_seed")]) == 4 * 3, "of six pairs, at both ends"
    assert len([n for n in hidden if n.startswith("pair_seed")]) == 4 * 3
    assert len([n for n in hidden if n.startswith("root")]) == 4
    assert len([n for n in hidden if n.startswith("share")]) == 4 * 3 - 3
    traffic = [envelope for _, *both in recording.traffic for envelope in both]
    for name, secret in secrets.items():
        assert len(secret) == 32
        for form in (secret, secret.hex().encode(), base64.b64encode(secret)[:43]):
            assert not any(form in envelope for envelope in traffic), name
    for summary in summaries:
        assert len(summary) == 8 * WORDS
        assert not any(summary[at : at + 64] in e for e in traffic for at in range(0, len(summary) - 63, 8))


# -- an attempt that was given up, roots that too few shares open ------------------------------------------------------


def silent(tiny: Tiny, link: GateLink, kind: type, sites: Sequence[str], attempt: int = 1) -> None:
    """These sites' replies to messages of a kind are lost; the sites themselves did all that they were asked."""

    def lose(name: str, asked: list[bytes], replies: list[bytes]) -> list[bytes] | None:
        header = open_envelope(asked[0], {"demo": tiny.workspace.identity.public}).header
        lost = isinstance(header, kind) and getattr(header, "attempt", attempt) == attempt
        return None if name in sites and lost else replies

    link.on_reply = lose


def late(tiny: Tiny, folder: Path) -> Recording:
    link = tiny.link()
    silent(tiny, link, Ask, ["DK"])
    return record(tiny, folder, runs=4, link=link)


def check_a_given_up_attempt_stays_masked(recording: Recording) -> None:
    """The coordinator has every part of the first attempt, the late one too, and all seeds of the second. Pairwise
    masks cancel in the sum of the first attempt's parts; the self masks of all sites remain."""
    first = {digest for digest, ask in recording.asks.items() if ask.attempt == 1}
    assert len(first) == 4
    assert not [digest for digest, _ in recording.own if digest in first], "no seed of it was ever revealed"
    check_uniform([v for (digest, _), v in recording.masked.items() if digest in first])
    sums = [sum((recording.masked[d, s] for s in NAMES), np.zeros(WORDS, dtype=np.uint64)) for d in sorted(first)]
    check_uniform(sums)
    again: dict[tuple[str, str], Vector] = {
        (recording.asks[d].session, s): v for (d, s), v in recording.masked.items() if d not in first
    }
    both = [recording.masked[d, s] - again[recording.asks[d].session, s] for d in first for s in ("AT", "BE", "CY")]
    check_uniform(both)


def test_an_attempt_that_was_given_up_stays_masked_though_a_late_reply_comes(make_tiny: Make, quick_path: Path) -> None:
    recording = late(make_tiny(own_total=NAMES), quick_path)  # so that each study may ask DK anew
    second = {site for digest, site in recording.own if recording.asks[digest].attempt == 2}
    assert second == {"AT", "BE", "CY"}
    check_a_given_up_attempt_stays_masked(recording)


@pytest.mark.parametrize("name", ["stream of zeros", "constant stream", "one stream for all seeds", "no self masks"])
def test_that_check_fails_on_a_broken_variant(
    make_tiny: Make, quick_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    if name == "no self masks":
        monkeypatch.setattr(secure_sum, "self_seed", lambda root, digest: bytes(32))

        def without(vector: Vector, streams: Streams) -> None:
            ADD_STREAMS(vector, [(seed, sign) for seed, sign in streams if any(seed)])

        place, what, instead = secure_sum, "add_streams", without
    else:
        place, what, instead, _ = BROKEN[name]
    monkeypatch.setattr(place, what, instead)
    recording = late(make_tiny(own_total=NAMES), quick_path)
    with pytest.raises(AssertionError, match=r"not uniform|does not occur twice"):
        check_a_given_up_attempt_stays_masked(recording)


FIVE = ("AT", "BE", "CY", "DK", "EE")


def abandoned(tiny: Tiny, folder: Path) -> Recording:
    """Two of five sites fall silent before they open, a third before it returns its shares: two shares, not three."""
    link = tiny.link()

    def gone(name: str, asked: list[bytes]) -> list[bytes] | None:
        header = open_envelope(asked[0], {"demo": tiny.workspace.identity.public}).header
        if (isinstance(header, Unmask) and name in ("DK", "EE")) or (isinstance(header, Recover) and name == "CY"):
            return None
        return asked

    link.on_request = gone
    for number in range(4):
        with pytest.raises(TooFewSitesError) as error:
            tiny.conductor(study(COUNTS), folder / f"run{number}", link).run()
        assert error.value.found.startswith("2 of 5 answer")
    return Recording(tiny, link.traffic, sealing_keys(folder))


def test_with_a_share_too_few_the_round_aborts_and_nothing_can_be_unmasked(make_tiny: Make, quick_path: Path) -> None:
    """The adversary holds all traffic, the coordinator's key, and whatever was revealed to it. What it can take off the
    sum of all parts leaves the self masks of the two silent sites, and two shares of their roots fit every root. The
    share that was not returned would have opened everything: so this test can fail."""
    tiny = make_tiny(names=FIVE)
    recording = abandoned(tiny, quick_path)
    assert set(recording.asks) == {digest for digest, site in recording.own if site == "CY"}
    sums, opened = [], []
    for digest, ask in sorted(recording.asks.items()):
        left = sum((recording.masked[digest, s] for s in FIVE), np.zeros(WORDS, dtype=np.uint64))
        secure_sum.add_streams(left, [(recording.own[digest, s], -1) for s in ("AT", "BE", "CY")])
        assert not {(digest, "DK"), (digest, "EE")} & set(recording.own)
        sums.append(left)
        opened.append(left.copy())
        (agreement,) = tiny.gates["CY"].ledger.agreements.of(ask.session)
        withheld = tiny.gates["CY"].ledger.agreements.peers(agreement.agreement)
        for lost in ("DK", "EE"):
            others = {}
            for giver, request, reply in recording.messages:
                header = request.header
                if (
                    isinstance(reply.header, Recovered)
                    and isinstance(header, Recover)
                    and header.session == ask.session
                ):
                    others[FIVE.index(giver)] = recording.secrets(request, reply)[header.sites.index(lost)]
            assert sorted(others) == [0, 1], "two shares came"
            for missing in (bytes(32), os.urandom(32)):  # with any third share they give a root: another one each time
                wrong = secure_sum.self_seed(secure_sum.combine({**others, 2: missing}), bytes.fromhex(digest))
                trial = left.copy()
                secure_sum.add_streams(trial, [(wrong, -1)])
                sums.append(trial)
            root = secure_sum.combine({**others, FIVE.index("CY"): withheld[lost].share})
            secure_sum.add_streams(opened[-1], [(secure_sum.self_seed(root, bytes.fromhex(digest)), -1)])
    check_uniform(sums)
    total = sum((part_of(s) for s in FIVE), np.zeros(WORDS, dtype=np.uint64))
    assert all(np.array_equal(vector, total) for vector in opened), "with one share more it would have opened"


def reply_of(tiny: Tiny, site: str, envelope: bytes) -> Message:
    return tiny.read(site, tiny.gates[site].answer(envelope))


def reason(message: Message) -> Reason | None:
    return message.header.reason if isinstance(message.header, Refused) else None


def test_the_same_unmasking_gives_the_same_seeds_until_the_study_is_closed(tiny: Tiny) -> None:
    pen = tiny.pen(study(COUNTS)).open()
    request = pen.ask("counts")
    reply_of(tiny, "AT", request)
    unmask = pen.unmask([request])
    first = pen.opened(unmask, tiny.gates["AT"].answer(unmask))
    tiny.restart("AT")
    again = pen.unmask([request], expires=1)
    assert pen.opened(again, tiny.gates["AT"].answer(again)) == first
    reply_of(tiny, "AT", pen.closing())
    assert reason(reply_of(tiny, "AT", unmask)) is Reason.NOT_OPENED


def test_one_refused_request_keeps_back_the_seeds_of_all(tiny: Tiny) -> None:
    pen = tiny.pen(study(COUNTS, LINEAR)).open()
    known, unknown = pen.ask("counts"), pen.ask("linear")
    reply_of(tiny, "AT", known)
    reply_of(tiny, "AT", unknown)
    for others in ([known, unknown], [known, pen.ask("counts", number=1)]):
        assert reason(reply_of(tiny, "AT", pen.unmask(others))) is Reason.NOT_ANSWERED
    assert tiny.gates["AT"].ledger.agreements.known().opened == frozenset(), "nothing was returned, nothing is recorded"


def test_a_later_attempt_ends_the_earlier_one_for_good(tiny: Tiny) -> None:
    """Sites that share keys for a second attempt have deleted the first one's before a byte of theirs leaves."""
    pen = tiny.pen(study(COUNTS)).open()
    request = pen.ask("counts")
    for site in NAMES:
        assert reason(reply_of(tiny, site, request)) is None
    (held,) = tiny.gates["AT"].ledger.agreements.of(pen.session)
    peers = tiny.gates["AT"].ledger.agreements.peers(held.agreement)
    secrets = [held.key, held.root, *(secret for peer in peers.values() for secret in (peer.key, peer.share))]
    assert reason(reply_of(tiny, "AT", pen.share({"counts": 2}, ("AT", "BE", "CY")))) is None
    for late in (request, pen.unmask([request]), pen.recover(["DK"])):
        assert reason(reply_of(tiny, "AT", late)) in (None if late == request else Reason.AGREEMENT_STALE,)
    assert reason(reply_of(tiny, "AT", pen.ask("counts", expires=2**40))) is Reason.AGREEMENT_STALE
    rows = tiny.gates["AT"].ledger.agreements.of(pen.session)
    assert [(row.attempt, row.key is None, row.root is None) for row in rows] == [(1, True, True), (2, False, False)]
    assert tiny.gates["AT"].ledger.agreements.peers(held.agreement) == {}
    assert all(len(secret or b"") == 32 for secret in secrets)


def test_nobody_returns_shares_of_what_it_did_not_open_itself(tiny: Tiny) -> None:
    pen = tiny.pen(study(COUNTS)).open()
    request = pen.ask("counts")
    for site in NAMES:
        reply_of(tiny, site, request)
    assert reason(reply_of(tiny, "AT", pen.recover(["DK"]))) is Reason.NOT_AGREED
    assert reason(reply_of(tiny, "AT", pen.unmask([request]))) is None
    assert reason(reply_of(tiny, "AT", pen.recover(["DK"]))) is None
    for others in (["AT"], ["EE"], ["DK", "DK"]):
        assert reason(reply_of(tiny, "AT", pen.recover(others))) is Reason.NOT_IN_ROSTER


def test_a_node_masks_once_under_one_digest(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    mask = secure_sum.mask

    def counted(*arguments: Any) -> Any:
        calls.append(arguments[1])
        return mask(*arguments)

    monkeypatch.setattr(secure_sum, "mask", counted)
    pen = tiny.pen(study(COUNTS)).open()
    request = pen.ask("counts")
    first = tiny.gates["AT"].answer(request)
    assert tiny.gates["AT"].answer(request) == first
    assert tiny.restart("AT").answer(request) == first
    assert calls == ["AT"]


def test_a_masked_part_whose_record_failed_never_left(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only then is a request masked a second time; of the first time nothing but a refusal was seen."""
    pen = tiny.pen(study(COUNTS)).open()
    request = pen.ask("counts")

    def full(*_: object) -> None:
        raise OSError(28, "no space")

    with monkeypatch.context() as patch:
        patch.setattr(tiny.gates["AT"].ledger, "record", full)
        failed = tiny.gates["AT"].answer(request)
    assert reason(tiny.read("AT", failed)) is Reason.INTERNAL
    assert len(failed) < 1200, "200 ring elements would not fit"
    assert isinstance(reply_of(tiny, "AT", request).header, Answered)


# -- the roster rule's rank test ---------------------------------------------------------------------------------------

SITES = "ABCD"
ROSTERS = [c for k in range(1, 5) for c in itertools.combinations(SITES, k)]


def isolated_by_search() -> Callable[[Sequence[int]], frozenset[str]]:
    """A site's value follows from the totals exactly if no change of the sites' values keeps all totals and moves it.

    Changes that keep 0-1 totals over four sites have a basis of integers of size at most 3 (Cramer's rule: minors of
    0-1 matrices of size 3 are at most 2), so trying all 7^4 small ones is a proof.
    """
    changes = np.array(list(itertools.product(range(-3, 4), repeat=4)))
    keeps = [(changes[:, [SITES.index(s) for s in roster]].sum(axis=1) == 0) for roster in ROSTERS]
    moves = changes != 0

    def search(family: Sequence[int]) -> frozenset[str]:
        kept = np.logical_and.reduce([keeps[i] for i in family]) if len(family) else np.ones(len(changes), dtype=bool)
        return frozenset(s for k, s in enumerate(SITES) if not moves[kept, k].any())

    return search


def test_isolation_is_right_for_every_family_of_rosters_of_four_sites() -> None:
    """All families of up to four rosters, which span whatever larger ones can, and every 11th of all 32,768."""
    search = isolated_by_search()
    families = [f for k in range(5) for f in itertools.combinations(range(15), k)]
    families += [tuple(i for i in range(15) if number >> i & 1) for number in range(0, 2**15, 11)]
    seen = set()
    for family in families:
        want = search(family)
        seen.add(len(want))
        assert secure_sum.isolated([ROSTERS[i] for i in family]) == want, [ROSTERS[i] for i in family]
    assert seen == {0, 1, 2, 3, 4}, "families of every kind were among them"


def test_isolation_looks_at_sets_not_at_order_or_repetition() -> None:
    assert secure_sum.isolated([("A", "B", "C"), ("C", "B", "A")]) == frozenset()
    assert secure_sum.isolated([("A", "B", "C"), ("D", "C", "B", "A")]) == {"D"}
    assert secure_sum.isolated([]) == frozenset()
