"""The bytes of wire version 3. Two releases that differ here cannot talk: whoever changes a byte raises the version,
and adds a column of new goldens."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from strategies.federation import Identity
from strategies.protections import secure_sum
from strategies.reasons import Reason
from strategies.study import Purpose, Study
from strategies.variants import Panel, Variant
from strategies.wire import (
    VERSION,
    Close,
    Header,
    agreement_of,
    digest_of,
    open_envelope,
    pack_arrays,
    pack_parts,
    seal_envelope,
    transcript_of,
    unseal,
)
from tests.tiny import COUNTS, LINEAR, TOGETHER
from tests.wire.test_fuzz import MESSAGES

KEY = Identity(Ed25519PrivateKey.from_private_bytes(bytes(range(32))))
PANEL = Panel("GRCh37", (Variant("22", 24334948, "rs1", "G", "A", 0.25), Variant("9", 5, ".", "C", "TT")))

VERSION_OF_THESE = 3
STUDY_DOCUMENT = (
    b'{"assembly":"GRCh37","columns":{"sex":[1.0,2.0],"trait":[-4.0,4.0]},"minimum_cell":0,"minimum_sites":3,'
    b'"panels":{"panel":{"sha256":"bb92b2013fc3e36de289e48825d2340d3d9731b4b0cbee25add7233fe2a29746"}},'
    b'"purpose":"policy","question":[{"analysis":"allele_frequency","by":null,"by_site":false,"labels":[],'
    b'"name":"counts","panel":"panel","regime":"exact","sex":null},{"analysis":"association","by_site":false,'
    b'"covariates":["sex"],"dosages":false,"minimum_minor_alleles":1,"minimum_missing":1,"missing":"complete_case",'
    b'"name":"linear","offset":null,"panel":"panel","regime":"exact","sex":null,'
    b'"site_effects":false,"standardise":"pooled","traits":["trait"]},'
    b'{"analysis":"allele_frequency","by_site":false,"clip":null,'
    b'"delta":1e-05,"epsilon":1.0,"family":1,"honest_sites":2,"name":"frequencies","panel":"panel",'
    b'"regime":"private"}],"title":"a golden"}'
)
COHORT_DOCUMENT = (
    b'{"assembly":"GRCh37","cohorts":{"old":{"where":["age >= 70.5","not sex = female"]},"sick":{"index":"first'
    b' condition SNOMED:44054006+","where":["age at index >= 18 and no drug ATC:A10A+|ATC:A10B before index","a'
    b't least 2 measurement LOINC:4548-4 >= 48 mmol/mol within 365 days after index or has genotypes"]}},"colum'
    b'ns":{"age":[0.0,110.0],"hba1c":{"range":[20.0,200.0],"unit":"mmol/mol","value":"last of measurement LOINC'
    b':4548-4 before index"},"sex":{"categories":["male","female"]},"treated":{"value":"whether any drug ATC:A1'
    b'0+ after index"}},"minimum_cell":0,"minimum_sites":3,"panels":{},"purpose":"policy","question":[{"analysi'
    b's":"attrition","by_site":false,"cohort":"sick","name":"flow","regime":"exact"},{"analysis":"score_distrib'
    b'ution","bins":40,"by":"treated","by_site":false,"cohort":"sick","highest":4.0,"lowest":-4.0,"name":"sugar'
    b'","predictor":"hba1c","regime":"exact"}],"title":"a golden cohort"}'
)
COHORT_DIGEST = "825b255e3d8baf87d150adddc79a977288de92f69d959bb5599741f4956a7f69"
STUDY_DIGEST = "29d01ab8e256f415db4245d0177754126ef24e69dfd1028c74a57f41f4e711ac"
PANEL_DIGEST = "bb92b2013fc3e36de289e48825d2340d3d9731b4b0cbee25add7233fe2a29746"
ENVELOPE = (  # magic, version, signer, signature, length, header, body
    b"GENOSUM\0" + bytes.fromhex("0003 56475aa75463474c")
    + bytes.fromhex("831b1fd139bb1526f6e0333244cfd13cde49571fc071917db931894df9ca046e"
                    "ceb11d188b9a4fa76764a5720e62bddb05c2f8ea90039672faf0a06cc52b1c01")
    + bytes.fromhex("00000038") + b'{"expires":1900000000,"kind":"close","session":"golden"}' + b"body"
)  # fmt: skip
ENVELOPE_DIGEST = "c3b8593bdc277da1711ceeac6b2b506bbeb238655cea6764f6c78e8bb2709d3d"
ENVELOPES = {  # the first 16 hexadecimal digits of SHA-256
    "open": "c696ba93ddac32e9",
    "opened": "d7261e6df89c7e2d",
    "share": "1057c1b52671a13b",
    "shared": "a73ea2e170bf8517",
    "agree": "11df1a2311d01b23",
    "agreed": "56e715087c7d5b6c",
    "ask": "7af00cee7f37a775",
    "answered": "13e29e3f627e24b2",
    "unmask": "285a8f95f5bd35bc",
    "unmasked": "4d0da13a3803a6e8",
    "recover": "1940215917be16cf",
    "recovered": "f36a3600fb83e1a7",
    "project": "825ede9d0613a8d8",
    "projected": "49e3a6121d607ccd",
    "close": "75fd44678000d1f9",
    "closed": "e3ebe2fad0bddb3a",
    "refused": "1c00c9e84977dfc7",
}
PARTS_DIGEST = "34a06481785205abe26256b6201cbdb0d133503f7a90b46d41205621d64aa5da"
SEALED = bytes.fromhex(
    "1e463b0f1ea0fd37fbeb751ca1e14bfd833041bd232eafeae514cc1b98be4b0c2a89e29a965000da05f28517b687800f8cbe5524eb993066"
    "8f60208d31fc"
)
AGREEMENT = "60303f75bf0e6a3f2b42da9b15bb01fd473683fe8d516bf7238a0c987a60fe0c"
TRANSCRIPT = "bab263e082d635bb98ad9292efc7f3015ecaf147d57976412236784dc40663bc"
MASK = bytes.fromhex(
    "f409fedabfa271e4ee6fcaa5924845aca609e1a491d74eedd451d0cb9d0d77ffd8e58a83a211da4d511759bdbc61b8fa1b05b0340fc824c6"
)


def asked() -> Study:
    from strategies.analysis import Range  # noqa: PLC0415

    columns = {"trait": Range(-4.0, 4.0), "sex": Range(1.0, 2.0)}
    return Study("a golden", Purpose.POLICY, "GRCh37", 3, columns, {"panel": PANEL}, (COUNTS, LINEAR, TOGETHER))


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def mask() -> bytes:
    """A part masked under fixed keys, agreement and request: key agreement, derivation, stream, order and signs."""
    own, other = (X25519PrivateKey.from_private_bytes(bytes([n]) * 32) for n in (1, 2))
    secret = secure_sum.pair_secret(own, other.public_key().public_bytes_raw(), AGREEMENT, "BE", "AT")
    seeds = {"AT": secure_sum.pair_seed(secret, bytes(32)), "CY": bytes([5]) * 32}
    part = {"b": np.arange(3), "a": np.array([[-1, 2], [3, -4]])}
    return secure_sum.mask(part, "BE", secure_sum.self_seed(bytes([7]) * 32, bytes(32)), seeds).astype("<u8").tobytes()


def test_the_version_is_the_one_of_these_goldens() -> None:
    assert VERSION == VERSION_OF_THESE


def test_a_study_s_document_and_digest() -> None:
    assert asked().document == STUDY_DOCUMENT
    assert asked().digest == STUDY_DIGEST == sha(STUDY_DOCUMENT)
    assert sha(PANEL.encode()) == PANEL_DIGEST
    assert Study.from_document(STUDY_DOCUMENT, {"panel": PANEL.encode()}) == asked()


def test_a_study_s_document_with_cohorts_and_derived_columns() -> None:
    made = Study.from_document(COHORT_DOCUMENT, {})
    assert made.document == COHORT_DOCUMENT
    assert made.digest == COHORT_DIGEST == sha(COHORT_DOCUMENT)
    assert len(made.cohorts["sick"].steps) == 2


def test_one_envelope_byte_for_byte() -> None:
    header = Close("golden", 1_900_000_000)
    assert seal_envelope(header, b"body", KEY) == ENVELOPE
    assert digest_of(ENVELOPE) == ENVELOPE_DIGEST
    message = open_envelope(ENVELOPE, {"golden": KEY.public})
    assert (message.signer, message.header, message.body, message.digest) == (
        "golden",
        header,
        b"body",
        ENVELOPE_DIGEST,
    )


@pytest.mark.parametrize("header", MESSAGES, ids=[m.kind for m in MESSAGES])
def test_every_kind_of_envelope(header: Header) -> None:
    assert sha(seal_envelope(header, b"body", KEY))[:16] == ENVELOPES[header.kind]


def test_arrays_and_parts() -> None:
    arrays = pack_arrays({"b": np.arange(3), "a": np.array(-1)})
    assert sha(pack_parts([b"one", arrays])) == PARTS_DIGEST


def test_a_sealed_part_of_an_earlier_release_opens() -> None:
    key = X25519PrivateKey.from_private_bytes(bytes([9]) * 32)
    assert unseal(SEALED, key, "request") == b"a private part"


def test_a_masked_part() -> None:
    assert mask() == MASK


def test_the_names_of_what_is_signed() -> None:
    assert agreement_of("golden", "counts", 1, ("BE", "AT", "CY")) == AGREEMENT
    assert agreement_of("golden", "counts", 1, ("AT", "BE", "CY")) == AGREEMENT, "a roster is a set"
    assert transcript_of("00" * 32, [ENVELOPE, ENVELOPE]) == TRANSCRIPT


def test_the_reasons_are_a_closed_set() -> None:
    assert len(Reason) == 38
    assert sha(" ".join(sorted(Reason)).encode())[:16] == "d3c84f57470762c4"
