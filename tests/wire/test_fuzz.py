"""Whatever bytes arrive: one of two errors from the decoders, and one signed refusal from the gate."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import fields
from typing import Any, TypeVar

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import strategies.wire as wire
from strategies.codec import canonical, decode, parse
from strategies.errors import UsageError
from strategies.federation import Identity, verify
from strategies.marks import Mark
from strategies.privacy import Renewal
from strategies.reasons import Reason
from strategies.study import Study
from strategies.summary import Field
from strategies.wire import (
    Agree,
    Agreed,
    Answered,
    Ask,
    Close,
    Closed,
    Message,
    Open,
    Opened,
    Recover,
    Recovered,
    Refused,
    Share,
    Shared,
    Unmask,
    Unmasked,
    WireError,
    digest_of,
    open_envelope,
    pack_arrays,
    pack_parts,
    seal,
    seal_envelope,
    unpack_arrays,
    unpack_parts,
    unseal,
)
from tests.tiny import COUNTS, FREQUENCIES, LINEAR, NAMES, PANEL, TRAINING, Pen, Tiny, study

T = TypeVar("T")
HEADER = struct.calcsize(">8sH8s64s")
KEY = Identity.generate()
KNOWN = {"me": KEY.public}
MARK = Mark("DATA", 5, "ab" * 32, 0.25, ("cd" * 16, "", "ef" * 16), "11" * 64)
MESSAGES: tuple[wire.Header, ...] = (
    Open("s" * 32, "d" * 64, "0.1.0+abc", "11" * 32, 1_900_000_000, {"AT": MARK}),
    Opened(
        "r",
        "AT",
        "s",
        "d",
        "11" * 32,
        "0.1",
        5,
        20,
        3,
        "p",
        3.5,
        1e-5,
        True,
        2,
        {"counts": Reason.TOO_FEW_PEOPLE},
        Renewal.YEARLY,
        MARK,
    ),
    Share("s", "d", {"counts": 1, "linear": 2}, ("AT", "BE", "CY"), 99),
    Shared(
        "r", "AT", {"counts": "11" * 32}, {"counts": "22" * 32}, (("AT", "BE"),), {"a": ("AT", "CY")}, ("b", "c"), MARK
    ),
    Agree("s", "r", 99),
    Agreed("r", "AT", "33" * 32, MARK),
    Ask("s", "d", "counts", 1, 0, 1, 1, ("AT", "BE"), {"a": [1, 2.5, "x", None, {"b": True}]}, 99, "v"),
    Answered("r", "AT", "v", MARK),
    Unmask("s", "counts", 1, ("r1", "r2"), 99),
    Unmasked("r", "AT", MARK),
    Recover("s", "counts", 1, ("BE", "CY"), 99),
    Recovered("r", "AT", MARK),
    wire.Project("s", "d", "pca", 99),
    wire.Projected("r", "AT", MARK),
    Close("s", 99),
    Closed("r", "AT", MARK),
    Refused("r", "AT", Reason.BUDGET_EXHAUSTED, {"rho_left": 0.25}),
)
FUZZ = settings(
    deadline=None, max_examples=150, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def mutations(data: bytes, seed: int, every: int = 1) -> Iterator[bytes]:
    """One flipped bit at every offset, cuts at every offset, and extensions."""
    rng = np.random.default_rng(seed)
    for at in range(0, len(data), every):
        flipped = bytearray(data)
        flipped[at] ^= 1 << int(rng.integers(8))
        yield bytes(flipped)
        yield data[:at]
        yield data[:at] + data[at + 1 :]
    for more in (b"\0", b"}", data[:1], rng.bytes(9)):
        yield data + more
        yield more + data
    yield data + data


def signed(text: bytes, body: bytes = b"", length: int | None = None, by: Identity = KEY) -> bytes:
    """An envelope with any bytes in the place of the header, properly signed."""
    inner = struct.pack(">I", len(text) if length is None else length) + text + body
    signature = by.sign(wire._SIGNED + wire._digest(inner))
    return struct.pack(">8sH8s64s", wire.MAGIC, wire.VERSION, wire._key_id(by.public), signature) + inner


def or_malformed(decoder: Callable[..., T], *arguments: Any) -> T | None:
    """What the decoder gives, or None if it says MALFORMED. Anything else fails the test."""
    try:
        return decoder(*arguments)
    except WireError as error:
        if error.reason is not Reason.MALFORMED:
            raise
        return None


# -- round trips -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("header", MESSAGES, ids=[m.kind for m in MESSAGES])
@pytest.mark.parametrize("body", [b"", b"\0", bytes(range(256)) * 9])
def test_a_message_comes_back_as_it_was_sent(header: wire.Header, body: bytes) -> None:
    envelope = seal_envelope(header, body, KEY)
    assert open_envelope(envelope, KNOWN) == Message("me", header, body, digest_of(envelope))


def test_every_kind_of_message_is_in_this_test() -> None:
    assert {type(m) for m in MESSAGES} == set(wire._KINDS.values())


numbers = st.integers(-(2**63) + 1, 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False) | st.booleans()
text = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
plain = st.recursive(
    numbers | text | st.none(), lambda c: st.lists(c, max_size=4) | st.dictionaries(text, c, max_size=4), max_leaves=12
)


@FUZZ
@given(st.dictionaries(text, plain, max_size=5), st.lists(text, max_size=4), st.binary(max_size=50))
def test_any_parameters_come_back(parameters: dict[str, Any], roster: list[str], body: bytes) -> None:
    header = Ask("s", "d", "q", 1, 0, 1, 1, tuple(roster), parameters, 5, "v")
    message = open_envelope(seal_envelope(header, body, KEY), KNOWN)
    assert (message.header, message.body) == (header, body)


@FUZZ
@given(st.lists(st.binary(max_size=60), max_size=6))
def test_parts_come_back(parts: list[bytes]) -> None:
    assert unpack_parts(pack_parts(parts)) == parts


@FUZZ
@given(
    st.dictionaries(
        st.from_regex(r"[a-z]{1,8}", fullmatch=True),
        st.tuples(st.lists(st.integers(0, 3), max_size=3), st.integers(0, 2**32)),
        max_size=4,
    )
)
def test_arrays_come_back(shapes: dict[str, tuple[list[int], int]]) -> None:
    arrays = {
        name: np.random.default_rng(seed).integers(-(2**63), 2**63 - 1, shape) for name, (shape, seed) in shapes.items()
    }
    back = unpack_arrays(pack_arrays(arrays))
    assert back.keys() == arrays.keys()
    for name, array in arrays.items():
        assert back[name].dtype == np.int64
        assert back[name].shape == array.shape
        assert np.array_equal(back[name], array)


def test_views_that_are_not_contiguous_come_back() -> None:
    array = np.arange(24).reshape(4, 6)
    for view in (array.T, array[::2], array[:, ::-1], array[1:3, 2:5]):
        assert np.array_equal(unpack_arrays(pack_arrays({"a": view}))["a"], view)


def test_a_study_comes_back() -> None:
    asked = study(COUNTS, LINEAR, FREQUENCIES, TRAINING)
    back = Study.from_document(asked.document, {"panel": PANEL.encode()})
    assert back == asked
    assert (back.document, back.digest) == (asked.document, asked.digest)


# -- envelopes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("header", MESSAGES, ids=[m.kind for m in MESSAGES])
def test_any_change_of_an_envelope_is_refused(header: wire.Header) -> None:
    envelope = seal_envelope(header, b"body", KEY)
    for changed in mutations(envelope, seed=1):
        with pytest.raises(WireError) as error:
            open_envelope(changed, KNOWN)
        assert error.value.reason in (Reason.BAD_SIGNATURE, Reason.MALFORMED, Reason.VERSION_MISMATCH)


def test_every_single_bit_is_protected_and_by_what() -> None:
    envelope = seal_envelope(Close("s", 99), b"xy", KEY)
    for at in range(len(envelope)):
        for bit in range(8):
            changed = bytearray(envelope)
            changed[at] ^= 1 << bit
            with pytest.raises(WireError) as error:
                open_envelope(bytes(changed), KNOWN)
            want = Reason.MALFORMED if at < 8 else Reason.VERSION_MISMATCH if at < 10 else Reason.BAD_SIGNATURE
            assert error.value.reason is want, at


def test_a_signature_of_another_context_is_refused() -> None:
    """The same bytes signed without the protocol's own prefix are no envelope."""
    envelope = seal_envelope(Close("s", 99), b"", KEY)
    inner = envelope[HEADER:]
    forged = envelope[: HEADER - 64] + KEY.sign(inner) + inner
    with pytest.raises(WireError, match="BAD_SIGNATURE"):
        open_envelope(forged, KNOWN)


@FUZZ
@given(st.binary(max_size=300))
def test_random_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(WireError):
        open_envelope(data, KNOWN)


NUMBERS = ["1e400", "-1e999", "1" + "0" * 400, "9" * 5000, "NaN", "Infinity", "-Infinity", "1e308", "-0", "1.5", "true"]
ODD_HEADERS = [
    b"", b"{}", b"[]", b"null", b"1", b'"open"', b"{", b"\xff\xfe", b"\xef\xbb\xbf{}", b"{\0}",
    b'{"kind":"open"}', b'{"kind":"none"}', b'{"kind":[]}', b'{"kind":{}}', b'{"kind":null}', b'{"kind":1}',
    b'{"kind":"close","kind":"close","session":"s","expires":1}',
    b'{"kind":"close","session":"s","session":"s","expires":1}',
    b'{"kind":"close","session":"\\ud800","expires":1}',
    b'{"kind":"close","session":"s","expires":1,"more":1}',
    b'{"kind":"close","session":["s"],"expires":1}', b'{"kind":"close","session":null,"expires":1}',
    b'{"kind":"close","session":"s","expires":true}', b'{"kind":"close","session":"s","expires":1.0}',
    b'{"kind":"close","session":"s","expires":9223372036854775808}',
    b'{"kind":"unmask","session":"s","question":"q","attempt":1,"requests":"abc","expires":1}',
    b'{"kind":"unmask","session":"s","question":"q","attempt":1,"requests":[[]],"expires":1}',
    b'{"kind":"share","session":"s","study":"d","questions":["q"],"roster":[],"expires":1}',
    b'{"kind":"share","session":"s","study":"d","questions":{"q":"1"},"roster":[],"expires":1}',
    b'{"kind":"ask","parameters":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    b'{"kind":"refused","request":"r","node":"n","reason":"NO_SUCH_REASON","public":{}}',
    b'{"kind":"refused","request":"r","node":"n","reason":["VETOED"],"public":{}}',
    b'{"kind":"refused","request":"r","node":"n","reason":"VETOED","public":[]}',
    *(b'{"kind":"refused","request":"r","node":"n","reason":"VETOED","public":{"x":%s}}' % n.encode()
      for n in NUMBERS[:7]),
    '{"kind":"close","session":"s","expires":1}'.encode("utf-16"),
]  # fmt: skip


@pytest.mark.parametrize("number", range(len(ODD_HEADERS)))
def test_a_signed_header_that_is_none_is_malformed(number: int) -> None:
    text = ODD_HEADERS[number]
    with pytest.raises(WireError, match="MALFORMED"):
        open_envelope(signed(text), KNOWN)


def test_a_header_s_length_must_fit() -> None:
    text = canonical({"kind": "close", "session": "s", "expires": 1})
    for length in (len(text) + 1, 2**31, 2**32 - 1, len(text) - 1, 0):
        with pytest.raises(WireError, match="MALFORMED"):
            open_envelope(signed(text, length=length), KNOWN)
    long = canonical({"kind": "close", "session": "s" * wire.MOST_HEADER, "expires": 1})
    with pytest.raises(WireError, match="MALFORMED"):
        open_envelope(signed(long), KNOWN)


@FUZZ
@given(st.sampled_from(MESSAGES), st.data())
def test_signed_headers_with_values_of_any_type_open_or_are_malformed(header: wire.Header, data: st.DataObject) -> None:
    document: dict[str, Any] = json.loads(seal_envelope(header, b"", KEY)[HEADER + 4 :])
    key = data.draw(st.sampled_from(sorted(document)))
    document[key] = data.draw(plain)
    message = or_malformed(open_envelope, signed(json.dumps(document).encode()), KNOWN)
    if message is not None:
        for f in fields(message.header):
            value = getattr(message.header, f.name)
            assert isinstance(value, str | int | float | bool | tuple | Mapping | Mark | None)


def test_nothing_is_parsed_before_the_signature_was_verified(monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []

    def watched(name: str, real: Any) -> Any:
        def call(*arguments: Any) -> Any:
            order.append(name)
            return real(*arguments)

        return call

    monkeypatch.setattr(wire, "parse", watched("parse", parse))
    monkeypatch.setattr(wire, "decode", watched("decode", decode))
    monkeypatch.setattr(wire, "verify", watched("verify", verify))
    envelope = seal_envelope(Close("s", 99), b"", KEY)
    open_envelope(envelope, KNOWN)
    assert order == ["verify", "parse", "decode"]
    order.clear()
    for changed in mutations(envelope, seed=3):
        with pytest.raises(WireError):
            open_envelope(changed, KNOWN)
    assert set(order) == {"verify"}


def test_nothing_of_a_body_is_parsed_before_its_signature_was_verified(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fl_client import rounds, sessions  # noqa: PLC0415

    def never(*_: object) -> None:
        raise AssertionError("parsed")

    envelope = tiny.pen(study(COUNTS)).opening()
    for room, name in ((sessions, "unpack_parts"), (rounds, "unpack_parts"), (rounds, "unpack_arrays")):
        monkeypatch.setattr(room, name, never)
    monkeypatch.setattr(wire, "parse", never)
    changed = envelope[:-1] + bytes([envelope[-1] ^ 1])
    reply = tiny.gates["AT"].answer(changed)
    monkeypatch.undo()
    refused = tiny.read("AT", reply).header
    assert isinstance(refused, Refused)
    assert refused.reason is Reason.BAD_SIGNATURE


# -- parts, arrays, sealed bytes, studies ------------------------------------------------------------------------------


def test_changed_parts_are_parts_or_malformed() -> None:
    data = pack_parts([b"one", b"", b"three" * 5])
    refused = 0
    for changed in mutations(data, seed=4):
        parts = or_malformed(unpack_parts, changed)
        refused += parts is None
        assert parts is None or pack_parts(parts) == changed, "one text, one meaning"
    assert refused > len(data)


@FUZZ
@given(st.binary(max_size=200))
def test_random_bytes_are_parts_or_malformed(data: bytes) -> None:
    parts = or_malformed(unpack_parts, data)
    assert parts is None or pack_parts(parts) == data


@pytest.mark.parametrize(
    "data",
    [
        struct.pack(">I", 2**32 - 1),
        struct.pack(">IQ", 1, 2**64 - 1),
        struct.pack(">IQ", 1, 2**63),
        struct.pack(">IQ", 2, 0),
    ],
)
def test_parts_that_promise_more_than_there_is_are_malformed(data: bytes) -> None:
    with pytest.raises(WireError, match="MALFORMED"):
        unpack_parts(data)


def test_changed_arrays_are_int64_arrays_or_malformed() -> None:
    data = pack_arrays({"one": np.arange(6).reshape(2, 3), "two": np.array(7)})
    refused = 0
    for changed in mutations(data, seed=5):
        arrays = or_malformed(unpack_arrays, changed)
        refused += arrays is None
        assert arrays is None or all(a.dtype == np.int64 for a in arrays.values())
    assert refused > 100


def tensors(header: str, data: bytes = b"") -> bytes:
    text = header.encode()
    return struct.pack("<Q", len(text)) + text + data


KINDS = ["BOOL", "U8", "I8", "F8_E5M2", "F8_E4M3", "F8_E8M0", "F4", "F6_E2M3", "U16", "I16", "F16", "BF16", "U32",
         "I32", "F32", "U64", "F64", "C64", "I128", "", "int64"]  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [0, 1, 8, 16])
def test_arrays_of_other_types_are_malformed(kind: str, size: int) -> None:
    header = {"a": {"dtype": kind, "shape": [size // 8 or size], "data_offsets": [0, size]}}
    with pytest.raises(WireError, match="MALFORMED"):
        unpack_arrays(tensors(json.dumps(header), bytes(size)))


@pytest.mark.parametrize(
    "data",
    [
        b"\0",
        b"\xff" * 8,
        tensors("{"),
        tensors("[]"),
        tensors('{"a":{"dtype":"I64","shape":[2],"data_offsets":[0,8]}}', bytes(8)),
        tensors('{"a":{"dtype":"I64","shape":[-1],"data_offsets":[0,8]}}', bytes(8)),
        tensors('{"a":{"dtype":"I64","shape":[18446744073709551616],"data_offsets":[0,8]}}', bytes(8)),
        tensors('{"a":{"dtype":"I64","shape":[4611686018427387904,4],"data_offsets":[0,8]}}', bytes(8)),
        tensors('{"a":{"dtype":"I64","shape":[1],"data_offsets":[8,0]}}', bytes(8)),
        tensors('{"a":{"dtype":"I64","shape":[1],"data_offsets":[0,8]}}', bytes(16)),
        tensors('{"a":{"dtype":"I64","shape":%s,"data_offsets":[0,8]}}' % ([1] * 100), bytes(8)),
        tensors('{"a":{"dtype":"I64","shape":[0,9223372036854775807],"data_offsets":[0,0]}}'),
    ],
)
def test_arrays_that_are_none_are_malformed(data: bytes) -> None:
    with pytest.raises(WireError, match="MALFORMED"):
        unpack_arrays(data)


def test_sealed_bytes_open_for_one_key_and_one_request_only() -> None:
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey  # noqa: PLC0415

    key, other = X25519PrivateKey.generate(), X25519PrivateKey.generate()
    public = key.public_key().public_bytes_raw().hex()
    sealed = seal(b"a private part", public, "request")
    assert unseal(sealed, key, "request") == b"a private part"
    for wrong in (lambda: unseal(sealed, other, "request"), lambda: unseal(sealed, key, "another")):
        with pytest.raises(WireError, match="MALFORMED"):
            wrong()
    for changed in mutations(sealed, seed=6):
        with pytest.raises(WireError, match="MALFORMED"):
            unseal(changed, key, "request")
    assert seal(b"a private part", public, "request") != sealed, "every sealing has a key of its own"
    assert b"private" not in sealed


@pytest.mark.parametrize("key", ["", "00", "zz" * 32, "00" * 32, "01" + "00" * 31, "11" * 31, "11" * 33, "é" * 32])
def test_nothing_is_sealed_to_a_key_that_is_none(key: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        seal(b"x", key, "request")


STUDY = study(COUNTS, LINEAR, FREQUENCIES, TRAINING)
PANELS = {"panel": PANEL.encode()}


def test_a_changed_study_is_a_study_or_a_usage_error() -> None:
    for changed in mutations(STUDY.document, seed=7):
        with suppress(UsageError):
            other = Study.from_document(changed, PANELS)
            assert other.digest != STUDY.digest or other == STUDY


def test_a_changed_panel_has_another_digest() -> None:
    for changed in mutations(PANELS["panel"], seed=8, every=17):
        with pytest.raises(UsageError):
            Study.from_document(STUDY.document, {"panel": changed})


@FUZZ
@given(st.data())
def test_a_study_with_any_value_anywhere_is_a_study_or_a_usage_error(data: st.DataObject) -> None:
    document = json.loads(STUDY.document)
    at: Any = document
    while True:
        key = data.draw(st.sampled_from(sorted(at) if isinstance(at, dict) else range(len(at))))
        inner = at[key]
        if not isinstance(inner, dict | list) or not inner or data.draw(st.booleans()):
            at[key] = data.draw(plain)
            break
        at = inner
    with suppress(UsageError):
        Study.from_document(json.dumps(document).encode(), PANELS)


@pytest.mark.parametrize("number", NUMBERS)
@pytest.mark.parametrize("old", [b"[-4.0,4.0]", b'"minimum_sites":3', b'"epsilon":1.0', b'"steps":2', b'"salt"'])
def test_a_study_with_a_number_beyond_all_bounds_is_a_usage_error_or_a_study(number: str, old: bytes) -> None:
    assert old in STUDY.document
    name, colon, _ = old.rpartition(b":")
    new = b"[0,%s]" % number.encode() if old.startswith(b"[") else name + colon + number.encode()
    try:
        other = Study.from_document(STUDY.document.replace(old, new), PANELS)
    except UsageError:
        pass
    else:
        assert math.isfinite(other.columns["trait"].maximum)


@pytest.mark.parametrize(
    "document",
    [
        b"",
        b"\xff",
        b"[" * 100_000,
        b'{"a":' * 100_000,
        STUDY.document.replace(b'"salt"', b'"\\udc00"'),
        STUDY.document.replace(b'"tiny"', b'"\\ud83d"'),
        STUDY.document.replace(b'"counts"', b'"../../etc"'),
        STUDY.document.replace(b'"counts"', b'"frequencies"', 1),
        STUDY.document.replace(b'"panel":"panel"', b'"panel":"none"'),
        STUDY.document.replace(b'"panel":"panel"', b'"panel":["panel"]'),
        STUDY.document.replace(b'"taken"', b'"taken"').replace(b'"steps":2', b'"steps":2,"taken":1'),
        STUDY.document.replace(b'"regime":"exact"', b'"regime":"exact","epsilon":1.0'),
    ],
)
def test_documents_that_are_no_study(document: bytes) -> None:
    with pytest.raises(UsageError):
        Study.from_document(document, PANELS)


@pytest.mark.parametrize(
    "line",
    [
        "22\t" + "1" * 5000 + "\tx\tA\tC\t0.5",
        "22\t1\tx\tA\tC\tnan",
        "22\t1\tx\tA\tC\tinf",
        "22\t1\tx\tA\tC\t1" + "0" * 400,
        "22\t-1\tx\tA\tC\t0.5",
        "22\t²\tx\tA\tC\t0.5",
        "22\t1\tx\tA\tA\t0.5",
        "22\t1\tx\tA\tC",
        "22\t1\tx\tA\tC\t0.5\n22\t1\ty\tA\tC\t0.5",
    ],
)
def test_panels_that_are_none(line: str) -> None:
    from hashlib import sha256  # noqa: PLC0415

    panel = ("#CHROM\tPOS\tID\tREF\tALT\tFREQUENCY\n" + line + "\n").encode()
    old, new = (sha256(p).hexdigest().encode() for p in (PANELS["panel"], panel))
    assert STUDY.document.count(old) == 1
    with pytest.raises(UsageError, match="panel"):
        Study.from_document(STUDY.document.replace(old, new), {"panel": panel})


@FUZZ
@given(st.binary(max_size=100) | plain.map(lambda value: json.dumps(value).encode()))
def test_parse_gives_an_object_or_a_value_error(data: bytes) -> None:
    with suppress(ValueError):
        assert isinstance(parse(data), dict)


@FUZZ
@given(plain, st.sampled_from([Ask, Open, Opened, Share, Shared, Unmask, Recover, Refused, Field]))
def test_decode_gives_the_class_or_a_usage_error(value: Any, page: type) -> None:
    with suppress(UsageError):
        assert isinstance(decode(page, value if isinstance(value, dict) else {"shape": value}, "here"), page)


# -- the gate ----------------------------------------------------------------------------------------------------------


def refusal(tiny: Tiny, envelope: bytes) -> Refused | None:
    message = tiny.read("AT", tiny.gates["AT"].answer(envelope))
    if isinstance(message.header, Refused):
        assert message.header.request == digest_of(envelope)
        assert message.body == b""
        return message.header
    return None


def test_the_gate_answers_every_changed_envelope_with_a_signed_refusal(tiny: Tiny) -> None:
    pen = tiny.pen(study(COUNTS)).open()
    close = pen.closing()
    for envelope in (close, pen.unmask([close])):
        for changed in mutations(envelope, seed=9, every=7):
            refused = refusal(tiny, changed)
            assert refused is not None
            assert refused.reason in (Reason.BAD_SIGNATURE, Reason.MALFORMED, Reason.VERSION_MISMATCH)
    assert refusal(tiny, close) is None


def test_the_gate_never_raises_on_signed_nonsense(tiny: Tiny) -> None:
    """The coordinator itself is broken: anything under its signature is answered, and answered by a closed code."""
    pen: Pen = tiny.pen(STUDY).open()
    asked, share = pen.ask("counts"), pen.share({"counts": 2})
    valid = {
        "open": pen.opening(), "ask": pen.ask("linear"), "unmask": pen.unmask([asked]), "share": share,
        "agree": pen.agree(share, [tiny.gates[site].answer(share) for site in NAMES]), "recover": pen.recover(["DK"]),
    }  # fmt: skip
    identity, reached = tiny.workspace.identity, set[Reason | None]()
    odd = st.sampled_from(["", "x" * 3000, "\0", "../..", "'; drop table sessions;--", 2**62, -(2**62), [], {}, [[]]])

    @settings(FUZZ, max_examples=200)
    @given(st.data())
    def answer(data: st.DataObject) -> None:
        envelope = valid[data.draw(st.sampled_from(sorted(valid)))]
        body = open_envelope(envelope, {"demo": identity.public}).body
        document: dict[str, Any] = json.loads(envelope[HEADER + 4 : len(envelope) - len(body)])
        key = data.draw(st.sampled_from(sorted(set(document) - {"kind"})))
        document[key] = data.draw(odd | plain)
        text = json.dumps(document).encode()
        other = data.draw(st.sampled_from([body, b"", b"\0", body[:-1], b"\0\0\0\0"]))
        refused = refusal(tiny, signed(text, other, by=identity))
        reached.add(refused.reason if refused else None)
        assert refused is None or refused.reason is not Reason.INTERNAL, (key, document[key])

    answer()
    assert len(reached) >= 6, "nonsense of many kinds came as far as the steps behind the decoder"
