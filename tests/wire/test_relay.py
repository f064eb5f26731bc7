"""What a relay can do with messages that it cannot sign: lose them, and the coordinator names who was lost."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

import strategies.analysis
from fl_server.conduct import Result
from strategies.errors import TooFewSitesError
from strategies.reasons import Reason
from strategies.version import package_version
from strategies.wire import (
    Agree,
    Agreed,
    Answered,
    Ask,
    Header,
    Open,
    Refused,
    Share,
    Shared,
    Unmask,
    digest_of,
    open_envelope,
    pack_parts,
    seal_envelope,
    unpack_parts,
)
from tests.tiny import COUNTS, FREQUENCIES, NAMES, GateLink, Tiny, genotypes, study

SITE = "CY"
Make = Callable[..., Tiny]


@pytest.fixture(autouse=True)
def small_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    """50 variants in 5 slices, so that a message carries four requests and the next one carries one."""
    monkeypatch.setattr(strategies.analysis, "VARIANTS_PER_SLICE", 12)


@pytest.fixture
def federation(make_tiny: Make) -> Tiny:
    """Everybody agreed that its own total may follow, so that a question can go on without a lost site."""
    return make_tiny(own_total=NAMES)


def header_of(tiny: Tiny, envelope: bytes) -> Header:
    return open_envelope(envelope, {"demo": tiny.workspace.identity.public}).header


def run(tiny: Tiny, folder: Path, link: GateLink) -> tuple[Result, Result]:
    counts, noised = tiny.conductor(study(COUNTS, FREQUENCIES), folder, link).run()
    return counts, noised


def check_counts(result: Result) -> None:
    codes = np.concatenate([genotypes(site) for site in result.statement.sites], axis=1)
    table = result.answer.tables["frequencies"]
    for k, column in enumerate(("hom_ref", "het", "hom_alt", "missing")):
        assert np.array_equal(np.asarray(table[column]), (codes == k).sum(axis=1)), column


Relay = Callable[[Tiny, GateLink], tuple[str, str]]


def to(kind: type[Header], tiny: Tiny, name: str, envelopes: list[bytes]) -> bool:
    return name == SITE and isinstance(header_of(tiny, envelopes[0]), kind)


def swaps_replies_between_sites(tiny: Tiny, link: GateLink) -> tuple[str, str]:
    others: list[list[bytes]] = []

    def on_reply(name: str, envelopes: list[bytes], replies: list[bytes]) -> list[bytes]:
        if name == "BE" and isinstance(header_of(tiny, envelopes[0]), Ask):
            others.append(replies)
        return others[-1] if to(Ask, tiny, name, envelopes) else replies

    link.on_reply = on_reply
    return "sent a reply that it did not sign", "counts"


def reorders_the_replies_of_a_message(tiny: Tiny, link: GateLink) -> tuple[str, str]:
    link.on_reply = lambda name, asked, replies: replies[::-1] if to(Ask, tiny, name, asked) else replies
    return "answered another request", "counts"


def reorders_the_requests_of_a_message(tiny: Tiny, link: GateLink) -> tuple[str, str]:
    link.on_request = lambda name, asked: asked[::-1] if to(Ask, tiny, name, asked) else asked
    return "answered another request", "counts"


def repeats_one_request_in_the_place_of_the_others(tiny: Tiny, link: GateLink) -> tuple[str, str]:
    link.on_request = lambda name, asked: [asked[0]] * len(asked) if to(Ask, tiny, name, asked) else asked
    return "answered another request", "counts"


def drops_a_reply_of_a_message(tiny: Tiny, link: GateLink) -> tuple[str, str]:
    link.on_reply = lambda name, asked, replies: replies[1:] if to(Ask, tiny, name, asked) else replies
    return "did not answer", "counts"


def adds_a_reply_to_a_message(tiny: Tiny, link: GateLink) -> tuple[str, str]:
    link.on_reply = lambda name, asked, replies: [*replies, b""] if to(Ask, tiny, name, asked) else replies
    return "did not answer", "counts"


def replays_an_earlier_reply(tiny: Tiny, link: GateLink) -> tuple[str, str]:
    kept: list[bytes] = []

    def on_reply(name: str, asked: list[bytes], replies: list[bytes]) -> list[bytes]:
        if to(Ask, tiny, name, asked):
            kept.extend(replies)
            return [kept[0]] * len(replies)
        return replies

    link.on_reply = on_reply
    return "answered another request", "counts"


def replays_an_earlier_refusal(tiny: Tiny, link: GateLink) -> tuple[str, str]:
    """The site once refused something; its signature on that says nothing about this request."""
    old = tiny.gates[SITE].answer(tiny.pen(study(COUNTS)).opening(expires=1))
    assert isinstance(tiny.read(SITE, old).header, Refused)
    link.on_reply = lambda name, asked, replies: [old] * len(replies) if to(Ask, tiny, name, asked) else replies
    return "answered another request", "counts"


def replays_an_earlier_refusal_to_unmask(tiny: Tiny, link: GateLink) -> tuple[str, str]:
    old = tiny.gates[SITE].answer(tiny.pen(study(COUNTS)).opening(expires=1))
    link.on_reply = lambda name, asked, replies: [old] * len(replies) if to(Unmask, tiny, name, asked) else replies
    return "answered another request", "recovered"


def loses_the_unmasking(tiny: Tiny, link: GateLink) -> tuple[str, str]:
    link.on_request = lambda name, asked: None if to(Unmask, tiny, name, asked) else asked
    return "did not answer", "recovered"


def swaps_the_seeds_of_two_sites(tiny: Tiny, link: GateLink) -> tuple[str, str]:
    others: list[list[bytes]] = []

    def on_reply(name: str, envelopes: list[bytes], replies: list[bytes]) -> list[bytes]:
        if name == "BE" and isinstance(header_of(tiny, envelopes[0]), Unmask):
            others.append(replies)
        return others[-1] if to(Unmask, tiny, name, envelopes) else replies

    link.on_reply = on_reply
    return "sent a reply that it did not sign", "recovered"


def replays_the_seeds_of_an_earlier_slice(tiny: Tiny, link: GateLink) -> tuple[str, str]:
    kept: list[bytes] = []

    def on_reply(name: str, asked: list[bytes], replies: list[bytes]) -> list[bytes]:
        if to(Unmask, tiny, name, asked):
            kept.extend(replies)
            return kept[:1]
        return replies

    link.on_reply = on_reply
    return "answered another request", "recovered"


def says_that_a_site_s_keys_did_not_come(tiny: Tiny, link: GateLink) -> tuple[str, str]:
    link.on_reply = lambda name, asked, replies: None if to(Share, tiny, name, asked) else replies
    return "did not answer", "counts"


def says_that_a_site_did_not_sign(tiny: Tiny, link: GateLink) -> tuple[str, str]:
    link.on_reply = lambda name, asked, replies: None if to(Agree, tiny, name, asked) else replies
    return "did not answer", "counts"


def swaps_the_keys_of_two_sites(tiny: Tiny, link: GateLink) -> tuple[str, str]:
    others: list[list[bytes]] = []

    def on_reply(name: str, envelopes: list[bytes], replies: list[bytes]) -> list[bytes]:
        if name == "BE" and isinstance(header_of(tiny, envelopes[0]), Share):
            others.append(replies)
        return others[-1] if to(Share, tiny, name, envelopes) else replies

    link.on_reply = on_reply
    return "sent a reply that it did not sign", "counts"


def replays_the_keys_of_an_earlier_study(tiny: Tiny, link: GateLink) -> tuple[str, str]:
    pen = tiny.pen(study(COUNTS), "earlier").open()
    old = tiny.gates[SITE].answer(pen.share({"counts": 1}))
    link.on_reply = lambda name, asked, replies: [old] if to(Share, tiny, name, asked) else replies
    return "answered another request", "counts"


def replays_the_signature_of_an_earlier_study(tiny: Tiny, link: GateLink) -> tuple[str, str]:
    pen = tiny.pen(study(COUNTS), "earlier").open()
    assert pen.join("counts") is None
    old = pen.agreed["counts", 1][NAMES.index(SITE)]
    link.on_reply = lambda name, asked, replies: [old] if to(Agree, tiny, name, asked) else replies
    return "answered another request", "counts"


def changes_a_bit_of_the_keys(tiny: Tiny, link: GateLink) -> tuple[str, str]:
    link.on_reply = lambda name, asked, replies: (
        [replies[0][:-1] + bytes([replies[0][-1] ^ 1])] if to(Share, tiny, name, asked) else replies
    )
    return "sent a reply that it did not sign", "counts"


def changes_a_bit_of_what_a_site_is_to_sign(tiny: Tiny, link: GateLink) -> tuple[str, str]:
    link.on_request = lambda name, asked: (
        [asked[0][:-1] + bytes([asked[0][-1] ^ 1])] if to(Agree, tiny, name, asked) else asked
    )
    return "answered another request", "counts"


def changes_a_bit_of_a_reply(tiny: Tiny, link: GateLink) -> tuple[str, str]:
    def flipped(reply: bytes) -> bytes:
        return reply[:-1] + bytes([reply[-1] ^ 1])

    link.on_reply = lambda name, asked, replies: [*map(flipped, replies)] if to(Ask, tiny, name, asked) else replies
    return "sent a reply that it did not sign", "counts"


def changes_a_bit_of_a_request(tiny: Tiny, link: GateLink) -> tuple[str, str]:
    link.on_request = lambda name, asked: (
        [e[:-1] + bytes([e[-1] ^ 1]) for e in asked] if to(Ask, tiny, name, asked) else asked
    )
    return "answered another request", "counts"


def answers_with_the_request(tiny: Tiny, link: GateLink) -> tuple[str, str]:
    link.on_reply = lambda name, asked, replies: asked if to(Ask, tiny, name, asked) else replies
    return "sent a reply that it did not sign", "counts"


def answers_with_garbage(tiny: Tiny, link: GateLink) -> tuple[str, str]:
    link.on_reply = lambda name, asked, replies: [b"garbage"] * len(asked) if to(Ask, tiny, name, asked) else replies
    return "sent a reply that it did not sign", "counts"


def swaps_sealed_replies_between_sites(tiny: Tiny, link: GateLink) -> tuple[str, str]:
    """The private part of another site, for the very same request: sealed to the coordinator, signed by the other."""
    others: list[list[bytes]] = []

    def on_reply(name: str, envelopes: list[bytes], replies: list[bytes]) -> list[bytes]:
        header = header_of(tiny, envelopes[0])
        if not (isinstance(header, Ask) and header.question == "frequencies"):
            return replies
        others.append(replies)
        return others[0] if name == SITE else replies

    link.on_reply = on_reply
    return "sent a reply that it did not sign", "frequencies"


RELAYS: list[Relay] = [
    swaps_replies_between_sites,
    reorders_the_replies_of_a_message,
    reorders_the_requests_of_a_message,
    repeats_one_request_in_the_place_of_the_others,
    drops_a_reply_of_a_message,
    adds_a_reply_to_a_message,
    replays_an_earlier_reply,
    replays_an_earlier_refusal,
    replays_an_earlier_refusal_to_unmask,
    loses_the_unmasking,
    swaps_the_seeds_of_two_sites,
    replays_the_seeds_of_an_earlier_slice,
    says_that_a_site_s_keys_did_not_come,
    says_that_a_site_did_not_sign,
    swaps_the_keys_of_two_sites,
    replays_the_keys_of_an_earlier_study,
    replays_the_signature_of_an_earlier_study,
    changes_a_bit_of_the_keys,
    changes_a_bit_of_what_a_site_is_to_sign,
    changes_a_bit_of_a_reply,
    changes_a_bit_of_a_request,
    answers_with_the_request,
    answers_with_garbage,
    swaps_sealed_replies_between_sites,
]


@pytest.mark.parametrize("relay", RELAYS, ids=[r.__name__ for r in RELAYS])
def test_a_relay_that_lies_loses_the_site_and_changes_no_number(
    federation: Tiny, quick_path: Path, relay: Relay
) -> None:
    """Where it lies when the sum is opened it loses not even the site: the others' shares open its masks. The report
    names the site and why either way."""
    link = federation.link()
    why, question = relay(federation, link)
    counts, noised = run(federation, quick_path / "run", link)
    if question == "recovered":
        assert (counts.statement.sites, counts.statement.recovered) == (NAMES, {SITE: why})
        assert counts.statement.absent == {}
        check_counts(counts)
        return
    result = counts if question == "counts" else noised
    assert result.statement.sites == tuple(n for n in NAMES if n != SITE)
    assert result.statement.absent == {SITE: why}
    check_counts(counts)


def replaces_a_key(tiny: Tiny, link: GateLink) -> None:
    """The coordinator itself lies: under its own key it brings one site another key than the others get."""

    def retold(name: str, envelopes: list[bytes]) -> list[bytes]:
        if not to(Agree, tiny, name, envelopes):
            return envelopes
        message = open_envelope(envelopes[0], {"demo": tiny.workspace.identity.public})
        parts = unpack_parts(message.body)
        place = NAMES.index("BE")
        other = tiny.read("BE", parts[place])
        assert isinstance(other.header, Shared)
        forged = replace(other.header, keys={q: "09" + "00" * 31 for q in other.header.keys})
        parts[place] = seal_envelope(forged, other.body, tiny.workspace.identity)
        return [seal_envelope(message.header, pack_parts(parts), tiny.workspace.identity)]

    link.on_request = retold


def test_a_coordinator_that_replaces_a_key_is_refused(federation: Tiny, quick_path: Path) -> None:
    """The key's envelope bears the site's signature, and the coordinator has not the site's key."""
    link = federation.link()
    replaces_a_key(federation, link)
    signed = {}

    def keep(name: str, asked: list[bytes], replies: list[bytes]) -> list[bytes]:
        if isinstance(header_of(federation, asked[0]), Agree):
            signed[name] = federation.read(name, replies[0]).header
        return replies

    link.on_reply = keep
    counts, _ = run(federation, quick_path / "run", link)
    refused = signed[SITE]
    assert isinstance(refused, Refused)
    assert refused.reason is Reason.KEYS_INVALID
    assert SITE not in counts.statement.sites
    check_counts(counts)


def test_two_sites_that_were_told_two_stories_open_nothing(federation: Tiny) -> None:
    """Even if BE colludes and signs two keys: those who saw one and those who saw the other sign two transcripts, and
    no site opens anything unless all transcripts are the same."""
    pen = federation.pen(study(COUNTS)).open()
    share = pen.share({"counts": 1})
    shared = [federation.gates[site].answer(share) for site in NAMES]
    original = federation.read("BE", shared[1])
    assert isinstance(original.header, Shared)
    other_keys = {"counts": X25519PrivateKey.generate().public_key().public_bytes_raw().hex()}
    second = seal_envelope(replace(original.header, keys=other_keys), original.body, federation.gates["BE"].identity)
    stories = {site: [*shared] for site in NAMES}
    stories[SITE][1] = second
    agreed = [federation.gates[site].answer(pen.agree(share, stories[site])) for site in NAMES]
    transcripts = [federation.read(site, reply).header for site, reply in zip(NAMES, agreed, strict=True)]
    assert all(isinstance(header, Agreed) for header in transcripts)
    assert len({header.transcript for header in transcripts}) == 2  # type: ignore[union-attr]
    pen.agreed["counts", 1] = agreed
    request = pen.ask("counts")
    for site in NAMES:
        assert isinstance(federation.read(site, federation.gates[site].answer(request)).header, Answered)
        refused = federation.read(site, federation.gates[site].answer(pen.unmask([request]))).header
        assert isinstance(refused, Refused)
        assert refused.reason is Reason.NOT_AGREED


def test_a_site_whose_code_changed_in_mid_study_is_left_out(federation: Tiny, quick_path: Path) -> None:
    link = federation.link()

    def other(name: str, envelopes: list[bytes], replies: list[bytes]) -> list[bytes]:
        if not to(Ask, federation, name, envelopes):
            return replies
        old = [federation.read(name, reply) for reply in replies]
        new = [replace(m.header, version="0.0.1+0123456789abcdef") for m in old]  # type: ignore[call-arg]
        return [seal_envelope(h, m.body, federation.gates[SITE].identity) for h, m in zip(new, old, strict=True)]

    link.on_reply = other
    counts, noised = run(federation, quick_path / "run", link)
    assert counts.statement.absent == noised.statement.absent == {SITE: "runs another version"}
    check_counts(counts)


def test_the_last_relay_would_be_noticed_even_if_both_replies_were_signed_by_one_site(
    federation: Tiny, quick_path: Path
) -> None:
    """A sealed part opens for the request that it answers only: the site itself cannot sell an old one as new."""
    link, kept = federation.link(), list[bytes]()
    asked = study(FREQUENCIES)

    def keep(name: str, envelopes: list[bytes], replies: list[bytes]) -> list[bytes]:
        if to(Ask, federation, name, envelopes):
            kept.extend(replies)
        return replies

    link.on_reply = keep
    federation.conductor(asked, quick_path / "one", link).run()

    def again(name: str, envelopes: list[bytes], replies: list[bytes]) -> list[bytes]:
        if not to(Ask, federation, name, envelopes):
            return replies
        old = federation.read(SITE, kept[0])
        mark = federation.gates[SITE].ledger.mark().signed(federation.gates[SITE].identity)
        new = replace(old.header, request=digest_of(envelopes[0]), mark=mark)  # type: ignore[call-arg]
        return [seal_envelope(new, old.body, federation.gates[SITE].identity)]

    link.on_reply = again
    (result,) = federation.conductor(asked, quick_path / "two", link).run()
    assert result.statement.absent == {SITE: "sent another shape than declared"}


def test_an_opening_of_an_earlier_session_is_not_taken_for_this_one(tiny: Tiny, quick_path: Path) -> None:
    link, kept = tiny.link(), list[bytes]()

    def keep(name: str, asked: list[bytes], replies: list[bytes]) -> list[bytes]:
        if to(Open, tiny, name, asked):
            kept.extend(replies)
        return replies

    link.on_reply = keep
    tiny.conductor(study(COUNTS), quick_path / "one", link).run()
    link.on_reply = lambda name, asked, replies: kept if to(Open, tiny, name, asked) else replies
    (result,) = tiny.conductor(study(FREQUENCIES), quick_path / "two", link).run()
    assert result.statement.absent == {SITE: "did not answer"}


def test_one_site_s_reply_under_another_s_address_counts_once(tiny: Tiny, quick_path: Path) -> None:
    link, kept = tiny.link(), list[bytes]()

    def twin(name: str, asked: list[bytes], replies: list[bytes]) -> list[bytes]:
        if name == "BE" and isinstance(header_of(tiny, asked[0]), Open):
            kept.extend(replies)
        return kept if to(Open, tiny, name, asked) else replies

    link.on_reply = twin
    # BE was last heard at CY's address, where nobody can sign for it; with CY unheard, two sites are too few.
    with pytest.raises(TooFewSitesError) as error:
        tiny.conductor(study(COUNTS), quick_path / "run", link).run()
    assert error.value.found.startswith("2 of 4 answer")
    assert "CY did not answer" in error.value.found


def test_a_request_replayed_to_a_node_gives_the_stored_bytes_and_no_second_reading(
    tiny: Tiny, quick_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = tiny.link()
    tiny.conductor(study(FREQUENCIES), quick_path / "run", link).run()
    before = tiny.gates[SITE].ledger.spent()

    def never(*_: object) -> None:
        raise AssertionError("data were read")

    monkeypatch.setattr(type(tiny.gates[SITE].dataset), "cohort", never)
    for name, envelope, reply in link.traffic:
        if name == SITE and isinstance(header_of(tiny, envelope), Ask):
            assert tiny.gates[SITE].answer(envelope) == reply
    assert tiny.gates[SITE].ledger.spent() == before


def test_requests_are_not_taken_to_another_node(tiny: Tiny) -> None:
    """A reply names its node and is signed by it, so the same request at two nodes gives two replies."""
    pen = tiny.pen(study(COUNTS)).open()
    request = pen.ask("counts")
    replies = {site: tiny.read(site, tiny.gates[site].answer(request)) for site in NAMES}
    for site, message in replies.items():
        assert isinstance(message.header, Answered)
        assert replace(message.header, mark=None) == Answered(digest_of(request), site, package_version())
    assert len({m.body for m in replies.values()}) == len(NAMES)


def test_an_unsigned_reason_does_not_become_the_coordinator_s(federation: Tiny, quick_path: Path) -> None:
    """A refusal that the relay makes up itself, in the site's name, is no refusal."""
    link = federation.link()
    forger = federation.workspace.identity  # even the coordinator's own key does not speak for a site

    def forge(name: str, asked: list[bytes], replies: list[bytes]) -> list[bytes]:
        if not to(Ask, federation, name, asked):
            return replies
        return [seal_envelope(Refused(digest_of(e), SITE, Reason.VETOED), b"", forger) for e in asked]

    link.on_reply = forge
    counts, _ = run(federation, quick_path / "run", link)
    assert counts.statement.absent == {SITE: "sent a reply that it did not sign"}


def test_a_node_that_states_an_unknown_reason_is_not_admitted(tiny: Tiny, quick_path: Path) -> None:
    """A node under its own signature may say nonsense; the coordinator neither breaks nor believes it."""
    link = tiny.link()

    def nonsense(name: str, asked: list[bytes], replies: list[bytes]) -> list[bytes]:
        if not to(Open, tiny, name, asked):
            return replies
        header = replace(tiny.read(SITE, replies[0]).header, refuses={"counts": "BECAUSE"})  # type: ignore[type-var]
        return [seal_envelope(header, b"", tiny.gates[SITE].identity)]

    link.on_reply = nonsense
    (result,) = tiny.conductor(study(COUNTS), quick_path / "run", link).run()
    assert result.statement.absent == {SITE: "did not answer"}
