"""A node's no, on its way from the step that says it to the reply."""

from __future__ import annotations

import time

from strategies.reasons import Reason


class RefusalError(Exception):
    """A reason to say no. `public` may hold numbers of the policy or of the request, nothing else."""

    def __init__(self, reason: Reason, **public: float) -> None:
        super().__init__(reason.value)
        self.reason, self.public = reason, public


def not_expired(expires: int) -> None:
    """Raises:
    RefusalError: EXPIRED, if the time (seconds since 1970) is over.
    """
    if expires < time.time():
        raise RefusalError(Reason.EXPIRED)
