"""The bytes of wire version 1. Two releases that differ here cannot talk: whoever changes a byte raises the version,
and adds a column of new goldens."""

from __future__ import annotations

import hashlib
from dataclasses import asdict

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from strategies.federation import Identity
from strategies.protections import secure_sum
from strategies.study import Purpose, Study
from strategies.variants import Panel, Variant
from strategies.wire import (
    MEANING,
    VERSION,
    Ask,
    Close,
    Reason,
    digest_of,
    open_envelope,
    pack_arrays,
    pack_parts,
    seal_envelope,
    unseal,
)
from tests.tiny import COUNTS, FREQUENCIES, LINEAR
from tests.wire.test_fuzz import MESSAGES

KEY = Identity(Ed25519PrivateKey.from_private_bytes(bytes(range(32))))
PANEL = Panel("GRCh37", (Variant("22", 24334948, "rs1", "G", "A", 0.25), Variant("X", 5, ".", "C", "TT")))

STUDY_DOCUMENT = {}
STUDY_DIGEST = {}
PANEL_DIGEST = {}
ENVELOPE = {}
ENVELOPES = {}
FIELDS = {}
SEALED = {}
MASK = {}


def asked() -> Study:
    from strategies.analysis import Range  # noqa: PLC0415

    columns = {"trait": Range(-4.0, 4.0), "sex": Range(1.0, 2.0)}
    return Study(
        "a golden", Purpose.POLICY, "GRCh37", 3, columns, {"panel": PANEL}, (COUNTS, LINEAR, FREQUENCIES)
    )


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def mask() -> bytes:
    """A part masked under fixed keys, session and request: key agreement, derivation, stream, order and signs."""
    own, other = (X25519PrivateKey.from_private_bytes(bytes([n]) * 32) for n in (1, 2))
    secret = secure_sum.pair_secret(own, other.public_key().public_bytes_raw(), "session", "BE", "AT")
    seeds = {"AT": secure_sum.pair_seed(secret, bytes(32)), "CY": bytes([5]) * 32}
    part = {"b": np.arange(3), "a": np.array([[-1, 2], [3, -4]])}
    return secure_sum.mask(part, "BE", bytes([7]) * 32, seeds).astype("<u8").tobytes()
