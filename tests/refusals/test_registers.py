"""A register of persons that another version of the code wrote, rebuilt here from its published parts: it is read as it
is meant or not at all. Taken for one's own, it would number everybody anew, and nobody would be found in an earlier
answer."""

from __future__ import annotations

import hashlib
import hmac
import logging
import os
import time
from collections.abc import Callable

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from fl_client.ledger import Crowd, Ledger, Slot
from fl_client.overlap import KEY_FILE, Register
from strategies.errors import DataError
from strategies.federation import write_secret
from strategies.reasons import Reason
from tests.refusals.test_overlap import PEOPLE, SITE, ask
from tests.tiny import COUNTS, FREQUENCIES, Tiny, study

Make = Callable[..., Tiny]
Token = Callable[[bytes, bytes], bytes]
K = 5
ASKED = study(COUNTS, FREQUENCIES)


def by_blake2b(key: bytes, person: bytes) -> bytes:
    return hashlib.blake2b(person, key=key, digest_size=16).digest()


def by_hmac(key: bytes, person: bytes) -> bytes:
    return hmac.digest(key, person, "sha256")[:16]


def written(ledger: Ledger, version: str, token: Token) -> None:
    """All of AT's people as a register of that version has them, and an exact answer about them, in a new ledger."""
    write_secret(ledger.folder / KEY_FILE, key := os.urandom(32))
    wide = HKDF(SHA256(), 96, salt=None, info=f"genosum register of persons {version}".encode()).derive(key)
    sealing = ChaCha20Poly1305(wide[64:])

    def sealed(data: bytes, row: str) -> bytes:
        nonce = os.urandom(12)
        return nonce + sealing.encrypt(nonce, data, f"{ledger.dataset} {row}".encode())

    bitmap = np.packbits(np.ones(len(PEOPLE), dtype=bool)).tobytes()
    name = hmac.digest(wide[32:64], bitmap, "sha256").hex()
    ledger.enrol(0, sealed(b"".join(token(wide[:32], person.encode()) for person in PEOPLE), "persons 0"))
    line = {"question": "earlier", "time": time.time()}
    crowd = Crowd(name, 1, sealed(bitmap, f"crowd {name}"))
    ledger.record("0" * 64, Slot("earlier", "earlier", 1, 0, 1), lambda _: b"reply", line, True, [crowd])


@pytest.fixture
def ledger(make_tiny: Make) -> Ledger:
    return make_tiny(minimum_people=K).gates[SITE].ledger


def test_its_own_is_read(ledger: Ledger) -> None:
    """Or what follows would be refused for something else."""
    written(ledger, "v2", by_blake2b)
    register = Register(ledger, PEOPLE)
    assert register.numbers.tolist() == list(range(len(PEOPLE)))
    assert register.crowd(np.arange(len(PEOPLE)), K, 1) is not None, "the same people"
    assert register.crowd(np.arange(len(PEOPLE) - 1), K, 1) is None, "one fewer"


@pytest.mark.parametrize("token", [by_hmac, by_blake2b])
def test_an_older_one_is_not_opened(ledger: Ledger, token: Token) -> None:
    """The key is the same, and what is derived from it is not: its tokens were HMAC's before they were BLAKE2b's."""
    written(ledger, "v1", token)
    persons, crowds = ledger.persons(), ledger.crowds()
    for people in (PEOPLE, []):
        with pytest.raises(DataError) as error:
            Register(ledger, people)
        assert error.value.rule == "What a node remembers of exact answers is as it wrote it, under its own key."
        assert error.value.found
        assert error.value.remedy
        assert error.value.__suppress_context__
        assert not any(person in str(error.value) for person in PEOPLE)
    assert (ledger.persons(), ledger.crowds()) == (persons, crowds), "nobody was entered anew"


def test_a_node_with_an_older_one_answers_nothing_exact(make_tiny: Make, caplog: pytest.LogCaptureFixture) -> None:
    tiny = make_tiny(minimum_people=K)
    written(tiny.gates[SITE].ledger, "v1", by_hmac)
    gate = tiny.restart(SITE)
    key, persons = (gate.ledger.folder / KEY_FILE).read_bytes(), gate.ledger.persons()
    with caplog.at_level(logging.ERROR):
        for asked in (ASKED, study(COUNTS)):
            assert ask(tiny, "counts", asked) is Reason.DATASET_UNAVAILABLE
    assert "What a node remembers of exact answers is as it wrote it" in caplog.text
    assert ask(tiny, "frequencies", ASKED) is None, "a private question needs no register"
    assert gate.ledger.persons() == persons
    assert (gate.ledger.folder / KEY_FILE).read_bytes() == key
