"""What can go wrong, as one small tree, and the exit code of each.

GenosumError          1   a rule, what was found, and the remedy; also when a SuperLink cannot be reached
├── UsageError        2   a study, a policy or a command line that breaks a rule; nothing was sent
├── RefusedError      3   a node said no, with a closed reason code
├── DataError         4   a site's files cannot be read as what they claim to be
└── TooFewSitesError  5   fewer sites answered than the question needs
"""

from __future__ import annotations

from typing import ClassVar


class GenosumError(Exception):
    """A broken rule. The three parts are printed in this order: rule, what was found, remedy."""

    exit_code: ClassVar[int] = 1

    def __init__(self, rule: str, found: str, remedy: str) -> None:
        super().__init__(f"{rule}\n  Found:  {found}\n  Remedy: {remedy}")
        self.rule, self.found, self.remedy = rule, found, remedy


class UsageError(GenosumError):
    """Raised for a study, policy, federation file or command line that breaks a rule."""

    exit_code = 2


def of_system(error: OSError) -> UsageError:
    """What the operating system said about a file or folder, as an error for people."""
    return UsageError(
        "Files and folders named on the command line can be read and written.",
        f"{error.filename or 'a file'}: {error.strerror or type(error).__name__}",
        "correct the path or its permissions.",
    )


class RefusedError(GenosumError):
    """Raised when a node refuses; `code` is one of `strategies.reasons.Reason`."""

    exit_code = 3

    def __init__(self, code: str, rule: str, found: str, remedy: str) -> None:
        super().__init__(rule, found, remedy)
        self.code = code


class DataError(GenosumError):
    """Raised when files at a site cannot be read as what they claim to be."""

    exit_code = 4


class TooFewSitesError(GenosumError):
    """Raised when fewer sites answered than a question needs."""

    exit_code = 5
