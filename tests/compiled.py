"""Compile every loop once, before several processes each would: `python -m tests.compiled`."""

from __future__ import annotations

from strategies.catalogue import CATALOGUE
from tests.laws.zoo import changes, cohort, frame_for, rounds

if __name__ == "__main__":
    for page in CATALOGUE:
        for change in changes(page):
            for _ in rounds(page, cohort(300, 23, 9), frame_for(change, 23), change):
                pass
