"""A node's side of secure summing: agree on a roster, mask, and open what the whole roster agreed to open.

    share    draw keys and roots for each question; send the others, sealed, their shares of the roots
    agree    check what everybody sent and the roster rule; from then on the total may be opened, so the roster counts
    mask     a part, under the agreement's keys
    unmask   the seeds of the self masks, once everybody's signature under the same agreement is there
    recover  the shares of sites that fell silent, of an attempt that this node opened itself

`gate.py` calls these; what they need to remember is in `agreements.py`.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from fl_client.agreements import Agreement, Agreements, Known, Peer, Stage
from fl_client.ledger import Ledger, Session, Slot
from fl_client.policy import Policy
from fl_client.refusal import RefusalError, not_expired
from strategies.federation import Federation, Identity
from strategies.protections import secure_sum
from strategies.reasons import Reason
from strategies.summary import Summary
from strategies.wire import (
    Agree,
    Agreed,
    Ask,
    Message,
    Opened,
    Recover,
    Recovered,
    Share,
    Shared,
    Unmask,
    Unmasked,
    WireError,
    agreement_of,
    open_envelope,
    pack_parts,
    seal,
    seal_envelope,
    transcript_of,
    unpack_parts,
    unseal,
)

H = TypeVar("H", Opened, Shared, Agreed)


@dataclass(frozen=True)
class Summing:
    """What a node needs for it: who it is, whom it knows, what its operator allows, what it remembers."""

    name: str
    policy: Policy
    federation: Federation
    identity: Identity
    ledger: Ledger

    def _sealed(self, reply: Shared | Agreed | Unmasked | Recovered, body: bytes) -> bytes:
        """A reply with the mark of the ledger as it stands."""
        return seal_envelope(replace(reply, mark=self.ledger.mark().signed(self.identity)), body, self.identity)

    @property
    def _agreements(self) -> Agreements:
        return self.ledger.agreements

    def admit_roster(self, roster: Sequence[str], attempt: int, least: int) -> None:
        """Refuse a roster without this node, or of fewer sites than policy and question ask.

        Raises:
            RefusalError: NOT_IN_ROSTER, TOO_FEW_SITES or OUT_OF_ORDER.
        """
        nodes = self.federation.nodes
        if self.name not in roster or len(set(roster)) != len(roster) or any(site not in nodes for site in roster):
            raise RefusalError(Reason.NOT_IN_ROSTER)
        least = max(secure_sum.LEAST_SITES, self.policy.minimum_sites, least)
        if len(roster) < least:
            raise RefusalError(Reason.TOO_FEW_SITES, minimum_sites=least)
        if not 1 <= attempt <= most_attempts(len(nodes)):
            raise RefusalError(Reason.OUT_OF_ORDER)

    # -- share ----------------------------------------------------------------------------------------------------

    def share(self, message: Message, share: Share, session: Session, exact: Collection[str]) -> bytes:
        """Begin an attempt of each question; earlier attempts of them end here, for good. The totals of those named in
        `exact` carry no noise."""
        for question, attempt in share.questions.items():
            if any(known.attempt >= attempt for known in self._agreements.of(share.session, question=question)):
                raise RefusalError(Reason.ALREADY_ANSWERED)
        others = self._session_keys(message.body, share, session)
        begun = [self._begin(message, share, question, question in exact) for question in sorted(share.questions)]
        places = {site: place for place, site in enumerate(sorted(share.roster))}
        shares = [secure_sum.split(one.root, len(share.roster)) for one in begun if one.root]
        try:
            parts = [
                seal(b"".join(s[places[site]] for s in shares), key, _bound(message.digest, self.name, site))
                for site, key in others.items()
            ]
        except ValueError:
            raise RefusalError(Reason.KEYS_INVALID) from None
        self._agreements.withdraw(share.session, share.questions)
        known = self._agreements.known()
        header = Shared(
            request=message.digest,
            node=self.name,
            keys={one.question: _key(one).public_key().public_bytes_raw().hex() for one in begun},
            roots={one.question: secure_sum.commitment(one.root) for one in begun if one.root},
            opened=tuple(sorted(known.opened)),
            pending=known.pending,
            withdrawn=tuple(sorted(known.withdrawn)),
        )
        reply = self._sealed(header, pack_parts(parts))
        self._agreements.share(message.digest, begun, reply)
        return reply

    def _begin(self, message: Message, share: Share, question: str, exact: bool) -> Agreement:
        attempt = share.questions[question]
        return Agreement(
            session=share.session,
            question=question,
            attempt=attempt,
            agreement=agreement_of(share.session, question, attempt, share.roster),
            roster=tuple(sorted(share.roster)),
            share=message.digest,
            stage=Stage.SHARED,
            key=X25519PrivateKey.generate().private_bytes_raw(),
            root=os.urandom(secure_sum.SEED_BYTES),
            exact=exact,
        )

    def _session_keys(self, body: bytes, share: Share, session: Session) -> dict[str, str]:
        """The other sites' keys for the session, each from an envelope that the site itself signed for it."""
        keys = {}
        for site, (header, _, envelope) in self._signed(body, share.roster, Opened).items():
            if (header.session, header.study) != (share.session, share.study):
                raise RefusalError(Reason.KEYS_INVALID)
            if site != self.name:
                keys[site] = header.key
            elif envelope != session.reply:
                raise RefusalError(Reason.KEYS_INVALID)
        return keys

    def _signed(self, body: bytes, roster: Sequence[str], kind: type[H]) -> dict[str, tuple[H, bytes, bytes]]:
        """Header, body and envelope of each site of a roster, in its order, signed by that site about itself."""
        envelopes = unpack_parts(body)
        if len(envelopes) != len(roster):
            raise RefusalError(Reason.KEYS_INVALID)
        signed = {}
        for site, envelope in zip(roster, envelopes, strict=True):
            try:
                opened = open_envelope(envelope, {site: self.federation.nodes[site].identity})
            except WireError:
                raise RefusalError(Reason.KEYS_INVALID) from None
            if not isinstance(opened.header, kind) or opened.header.node != site:
                raise RefusalError(Reason.KEYS_INVALID)
            signed[site] = opened.header, opened.body, envelope
        return signed

    # -- agree ----------------------------------------------------------------------------------------------------

    def agree(self, message: Message, agree: Agree, session: Session) -> bytes:
        """Sign what everybody sent, if it is in order and the roster too."""
        begun = self._agreements.of(agree.session, share=agree.share)
        if not begun:
            raise RefusalError(Reason.NOT_AGREED)
        if any(one.stage is not Stage.SHARED for one in begun):
            raise RefusalError(Reason.AGREEMENT_STALE)
        roster = begun[0].roster
        signed = self._signed(message.body, roster, Shared)
        if signed[self.name][2] != self._agreements.exchanged(agree.share):
            raise RefusalError(Reason.KEYS_INVALID)
        headers = {site: header for site, (header, _, _) in signed.items()}
        questions = {one.question for one in begun}
        if any(h.request != agree.share or set(h.keys) != questions for h in headers.values()):
            raise RefusalError(Reason.KEYS_INVALID)
        peers = self._peers(signed, begun, session)
        own = self._agreements.known()
        if not _listed(own, headers[self.name], roster):
            raise RefusalError(Reason.AGREEMENT_STALE)
        learned = _together(headers)
        if any(one.exact for one in begun):
            self._not_exposing(roster, learned)
        transcript = transcript_of(agree.share, (envelope for _, _, envelope in signed.values()))
        line = {
            "coordinator": message.signer,
            "session": agree.session,
            "study": session.study,
            "questions": sorted(questions),
            "roster": list(roster),
        }
        reply = self._sealed(Agreed(message.digest, self.name, transcript), b"")
        agreements = [replace(one, transcript=transcript) for one in begun]
        self._agreements.agree(message.digest, agreements, peers, learned, reply, line)
        return reply

    def _peers(
        self, signed: Mapping[str, tuple[Shared, bytes, bytes]], begun: Sequence[Agreement], session: Session
    ) -> dict[str, list[Peer]]:
        """Agreement -> of each other site, the secret of the masks with it, and its root's share for this node."""
        if session.key is None:
            raise RefusalError(Reason.NOT_OPENED)
        key, own = X25519PrivateKey.from_private_bytes(session.key), [_key(one) for one in begun]
        peers: dict[str, list[Peer]] = {one.agreement: [] for one in begun}
        for site, (header, body, _) in signed.items():
            if site == self.name:
                continue
            takers = [other for other in signed if other != site]
            try:
                sealed = unpack_parts(body)
                shares = unseal(sealed[takers.index(self.name)], key, _bound(header.request, site, self.name))
                keys = [bytes.fromhex(header.keys[one.question]) for one in begun]
                secrets = [
                    secure_sum.pair_secret(mine, public, one.agreement, self.name, site)
                    for one, mine, public in zip(begun, own, keys, strict=True)
                ]
            except (WireError, ValueError, IndexError):
                raise RefusalError(Reason.KEYS_INVALID) from None
            if len(sealed) != len(takers) or len(shares) != len(begun) * secure_sum.SEED_BYTES:
                raise RefusalError(Reason.KEYS_INVALID)
            for number, (one, secret) in enumerate(zip(begun, secrets, strict=True)):
                mine = shares[number * secure_sum.SEED_BYTES :][: secure_sum.SEED_BYTES]
                peers[one.agreement].append(Peer(site, secret, mine))
        return peers

    def _not_exposing(self, roster: Sequence[str], known: Known) -> None:
        nodes = self.federation.nodes
        alone = secure_sum.exposed(roster, {*known.opened, *known.pending.values()}, nodes)
        if any(site not in nodes or not nodes[site].own_total for site in alone):
            raise RefusalError(Reason.ROSTER_ISOLATES)
        if self.name in alone and not self.policy.own_total:  # for itself, a node believes its own file alone
            raise RefusalError(Reason.ROSTER_ISOLATES)

    # -- mask, unmask, recover ------------------------------------------------------------------------------------

    def agreed(self, ask: Ask) -> Agreement:
        """The agreement under which a question is asked.

        Raises:
            RefusalError: NOT_AGREED or AGREEMENT_STALE.
        """
        return self._signed_here(ask.session, ask.question, ask.attempt, ask.roster)

    def _signed_here(self, session: str, question: str, attempt: int, roster: Sequence[str] | None = None) -> Agreement:
        found = self._agreements.of(session, question=question, attempt=attempt)
        if not found or found[0].stage is Stage.SHARED or (roster and sorted(roster) != list(found[0].roster)):
            raise RefusalError(Reason.NOT_AGREED)
        if found[0].root is None:
            raise RefusalError(Reason.AGREEMENT_STALE)
        return found[0]

    def mask(self, request: str, agreement: Agreement, summary: Summary) -> bytes:
        """A part under its masks; the same bytes for the same request."""
        digest, peers = bytes.fromhex(request), self._agreements.peers(agreement.agreement)
        seeds = {site: secure_sum.pair_seed(peer.key, digest) for site, peer in peers.items()}
        assert agreement.root is not None
        vector = secure_sum.mask(summary, self.name, secure_sum.self_seed(agreement.root, digest), seeds)
        return vector.astype("<u8", copy=False).tobytes()

    def unmask(self, message: Message, unmask: Unmask, session: Session) -> bytes:
        """The seeds of the self masks of requests that this node answered under an agreement that everybody signed."""
        agreement = self._signed_here(unmask.session, unmask.question, unmask.attempt)
        for request in unmask.requests:
            stored = self.ledger.stored(request)
            if stored is None or not stored.masked or not _within(stored.slot, agreement):
                raise RefusalError(Reason.NOT_ANSWERED)
        if agreement.stage is not Stage.OPENED:
            not_expired(unmask.expires)
            self._everybody_signed(message.body, agreement)
            line = {
                "coordinator": message.signer,
                "session": unmask.session,
                "study": session.study,
                "question": unmask.question,
                "roster": list(agreement.roster),
            }
            self._agreements.open(agreement, line)
        assert agreement.root is not None
        seeds = [secure_sum.self_seed(agreement.root, bytes.fromhex(request)) for request in unmask.requests]
        return self._to_coordinator(Unmasked(message.digest, self.name), seeds, message, session)

    def _everybody_signed(self, body: bytes, agreement: Agreement) -> None:
        try:
            signed = self._signed(body, agreement.roster, Agreed)
        except RefusalError:
            raise RefusalError(Reason.NOT_AGREED) from None
        if any(header.transcript != agreement.transcript for header, _, _ in signed.values()):
            raise RefusalError(Reason.NOT_AGREED)

    def recover(self, message: Message, recover: Recover, session: Session) -> bytes:
        """The shares of the roots of sites that fell silent, of an attempt that this node itself has opened."""
        agreement = self._signed_here(recover.session, recover.question, recover.attempt)
        if agreement.stage is not Stage.OPENED:
            raise RefusalError(Reason.NOT_AGREED)
        peers = self._agreements.peers(agreement.agreement)
        if not set(recover.sites) <= set(peers) or len(set(recover.sites)) != len(recover.sites):
            raise RefusalError(Reason.NOT_IN_ROSTER)
        not_expired(recover.expires)
        self.ledger.note(
            {
                "event": "recover",
                "coordinator": message.signer,
                "session": recover.session,
                "study": session.study,
                "question": recover.question,
                "sites": list(recover.sites),
            }
        )
        shares = [peers[site].share for site in recover.sites]
        return self._to_coordinator(Recovered(message.digest, self.name), shares, message, session)

    def _to_coordinator(
        self, header: Unmasked | Recovered, secrets: Sequence[bytes], message: Message, session: Session
    ) -> bytes:
        reply = self._sealed(header, seal(b"".join(secrets), session.sealing, message.digest))
        self._agreements.remember(message.digest, session.session, reply)
        return reply


def most_attempts(nodes: int) -> int:
    """How often a question may be begun: again when a site is lost, or another study's roster was signed meanwhile."""
    return 2 * nodes


def _key(agreement: Agreement) -> X25519PrivateKey:
    assert agreement.key is not None
    return X25519PrivateKey.from_private_bytes(agreement.key)


def _bound(share: str, giver: str, taker: str) -> str:
    """What shares are sealed for: the request, which names session, questions, attempts and roster, and both sites."""
    return f"{share} {giver} {taker}"


def _within(slot: Slot, agreement: Agreement) -> bool:
    place = (agreement.session, agreement.question, agreement.attempt)
    return (slot.session, slot.question, slot.attempt) == place


def _listed(known: Known, header: Shared, roster: tuple[str, ...]) -> bool:
    """Whether a list that a node sent still names all that it knows; the same roster once more changes nothing."""
    same, opened = {roster}, set(header.opened)
    pending = {r for name, r in known.pending.items() if name not in header.pending}
    return known.opened - same <= opened and pending - same <= opened


def _together(headers: Mapping[str, Shared]) -> Known:
    """What the sites of a roster know together. An agreement that enough of its sites have withdrawn is dead: those who
    are left have too few shares of the withdrawn roots."""
    opened = {tuple(sorted(set(roster))) for header in headers.values() for roster in header.opened}
    pending: dict[str, tuple[str, ...]] = {}
    for name, roster in ((n, r) for header in headers.values() for n, r in header.pending.items()):
        members = tuple(sorted(set(roster)))
        gone = sum(name in headers[site].withdrawn for site in members if site in headers)
        if members not in opened and len(members) - gone >= secure_sum.threshold(len(members)):
            pending[name] = members
    return Known(frozenset(opened), pending, frozenset())
