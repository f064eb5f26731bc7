"""The studies that coordinators opened at a node, each in a session of its own."""

from __future__ import annotations

import numpy as np
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from numpy.typing import NDArray

from fl_client.ledger import Ledger, Session
from fl_client.refusal import RefusalError
from strategies.analysis import PASSED, Needs
from strategies.errors import UsageError
from strategies.federation import Identity
from strategies.question import is_name
from strategies.reasons import Reason
from strategies.study import Study
from strategies.wire import Message, Open, Opened, open_envelope, unpack_columns, unpack_parts

RAW = serialization.Encoding.Raw, serialization.PublicFormat.Raw


class Sessions:
    """Those in a node's ledger; the latest's study and what the node said to it are kept decoded, since its slices come
    one after another."""

    def __init__(self, ledger: Ledger, name: str, identity: Identity) -> None:
        self._ledger, self._name, self._identity = ledger, name, identity
        self._study: tuple[str, Study] | None = None
        self._said: tuple[bytes, Opened] | None = None

    def of(self, message: Message, name: str) -> Session:
        """The open session of this coordinator.

        Raises:
            RefusalError: if there is none of that name, or it is another's.
        """
        session = self._ledger.session(name)
        if session is None or session.document is None:
            raise RefusalError(Reason.NOT_OPENED)
        self.same_coordinator(message, session)
        return session

    def same_coordinator(self, message: Message, session: Session | None) -> None:
        """A session belongs to whoever opened it: another coordinator can sign the very same request.

        Raises:
            RefusalError: if it is another's.
        """
        if session is not None and session.coordinator != message.signer:
            raise RefusalError(Reason.SESSION_CONFLICT)

    def said(self, session: Session) -> Opened:
        """What this node said when it opened the session."""
        if self._said is None or self._said[0] != session.reply:
            opened = open_envelope(session.reply, {self._name: self._identity.public}).header
            assert isinstance(opened, Opened)
            self._said = session.reply, opened
        return self._said[1]

    def study(self, session: Session) -> Study:
        """The session's study."""
        if self._study is None or self._study[0] != session.session:
            assert session.document is not None
            self._study = (
                session.session,
                Study.from_document(session.document, self._ledger.panels.read(session.session)),
            )
        return self._study[1]

    def read(self, message: Message, opening: Open) -> tuple[Study, bytes, dict[str, bytes]]:
        """The study that a request opens, its document, and its panels' texts by name.

        Raises:
            RefusalError: if it is not a study, or not the one that was announced.
        """
        document, panels = _parts(message.body)
        try:
            study = Study.from_document(document, panels)
        except UsageError:
            raise RefusalError(Reason.STUDY_INVALID) from None
        if study.digest != opening.study:
            raise RefusalError(Reason.STUDY_INVALID)
        self._study = opening.session, study
        return study, document, panels

    def columns(self, session: Session, needs: Needs) -> dict[str, NDArray[np.float64]]:
        """The computed ones of the columns that a round reads, by the names under which it reads them.

        Raises:
            RefusalError: if they were not computed yet.
        """
        out: dict[str, NDArray[np.float64]] = {}
        for source in _sources(needs):
            kept = self._ledger.panels.columns(session.session, source)
            if kept is None:
                raise RefusalError(Reason.OUT_OF_ORDER)
            out |= {f"{source}.{name}": values for name, values in unpack_columns(kept).items()}
        return out

    def projections(self, session: Session, needs: Needs) -> dict[str, str]:
        """The digest of the numbers that came with each answer from which those columns were computed."""
        return {source: self._ledger.projection(session.session, source) for source in _sources(needs)}


def new_key() -> tuple[bytes, str]:
    """A session's X25519 key: the private one's 32 bytes, and the public one's as hexadecimal digits."""
    key = X25519PrivateKey.generate()
    plain = serialization.PrivateFormat.Raw, serialization.NoEncryption()
    return key.private_bytes(serialization.Encoding.Raw, *plain), key.public_key().public_bytes(*RAW).hex()


def _sources(needs: Needs) -> set[str]:
    """The questions whose offered columns a round reads."""
    return {name.split(".")[0] for name in needs.opened if "." in name and name != PASSED}


def _parts(body: bytes) -> tuple[bytes, dict[str, bytes]]:
    parts = unpack_parts(body)
    if len(parts) % 2 != 1:
        raise RefusalError(Reason.MALFORMED)
    try:
        names = [p.decode("ascii") for p in parts[1::2]]
    except UnicodeDecodeError:
        raise RefusalError(Reason.MALFORMED) from None
    if len(set(names)) != len(names) or not all(map(is_name, names)):
        raise RefusalError(Reason.MALFORMED)
    return parts[0], dict(zip(names, parts[2::2], strict=True))
