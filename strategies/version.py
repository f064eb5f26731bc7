"""What code runs here: the version and a digest of the shared language, which both ends must have in common."""

from __future__ import annotations

import hashlib
from functools import cache
from importlib import metadata
from pathlib import Path


@cache
def package_version() -> str:
    """The installed version, and the first 16 hexadecimal digits of the digest of every source file of `strategies`."""
    root = Path(__file__).parent
    digest = hashlib.sha256()
    for file in sorted(root.rglob("*.py")):
        digest.update(file.relative_to(root).as_posix().encode() + b"\0" + hashlib.sha256(file.read_bytes()).digest())
    return f"{metadata.version('genosum')}+{digest.hexdigest()[:16]}"
