"""Seeds derived from names, never from order: the same unit draws the same numbers wherever and whenever it runs."""

from __future__ import annotations

import hashlib


def seed_of(*names: str | int) -> int:
    """A 63-bit seed from the names that identify a unit, for example (recipe seed, degradation, scan, view)."""
    digest = hashlib.sha256("\x1f".join(str(name) for name in names).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
