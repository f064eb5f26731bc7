"""Numbered versions of a data set: what its files were, people left out included, when its operator fixed the number.

Whoever looks at several people to decide about one (relatives, outliers), or strikes off somebody who withdrew, changes
who is in every later answer. That happens here, by the operator, once, under a new number; never inside a question.
"""

from __future__ import annotations

from collections.abc import Mapping

from fl_client.ledger import Ledger
from fl_client.readers import Dataset
from strategies.errors import DataError


def settle(dataset: Dataset, ledger: Ledger) -> None:
    """Assert that a data set is the version that its configuration names. What a node first opens becomes version 1.

    Raises:
        DataError: if that version was never fixed, or as something else.
    """
    with ledger.exclusive():
        fixed = ledger.versions()
        if not fixed and dataset.config.version == 1:
            ledger.fix_version(1, dataset.digest, len(dataset.people))
        else:
            confirm(dataset, fixed)


def confirm(dataset: Dataset, fixed: Mapping[int, str]) -> None:
    """Assert that a data set is one of the `fixed` versions, number -> digest, under the number that it names.

    Raises:
        DataError: if it is not.
    """
    number = dataset.config.version
    if number not in fixed:
        raise DataError(
            "A data set has a version that was fixed.",
            f"{dataset.config.identifier} names version {number}; fixed are {', '.join(map(str, fixed)) or 'none'}",
            "name one of those in the [dataset] table, or fix another with `fl-client data`.",
        )
    if fixed[number] != dataset.digest:
        raise DataError(
            "A version of a data set stays as it was fixed.",
            f"{dataset.config.identifier} was {fixed[number]} when version {number} was fixed, and is {dataset.digest}",
            "restore the files, or fix the next version with `fl-client data` and name it in the [dataset] table.",
        )


def fix(dataset: Dataset, ledger: Ledger) -> int:
    """The number of the data set as it lies now: the one that it has, or else the next."""
    with ledger.exclusive():
        fixed = ledger.versions()
        for number, digest in fixed.items():
            if digest == dataset.digest:
                return number
        number = max(fixed, default=0) + 1
        ledger.fix_version(number, dataset.digest, len(dataset.people))
        return number
