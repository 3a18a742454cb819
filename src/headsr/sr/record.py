"""What the sidecar of a result says of it: what it follows from, what lies beside it, and a seal over all that it says.

While that holds the result is whole. ``headsr sr`` asks before it makes a result anew, ``headsr verify`` whenever it is
told to.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import headsr
from headsr.files import UnreadableError, read_json
from headsr.models.card import PACKAGE
from headsr.provenance import Content
from headsr.recipes import Unrolled, versions
from headsr.recipes.convert import RecipeError
from headsr.recipes.shipped import card_of
from headsr.typed_json import picked
from headsr.verify import damage_of

WEIGHTS = "unrolled"  # that ship in the package


@dataclass(frozen=True)
class Said:
    """``follows_from`` is all that the result follows from, ``outputs`` what lies beside its sidecar, by relative path.

    The root ``zarr.json`` of a store stands for the store.
    """

    follows_from: dict[str, Any]
    outputs: dict[str, Content]


def of_the_code(method: str) -> dict[str, Any]:
    """What a result by a method of this kind follows from beside the scans and the options."""
    return {
        "weights": card_of(WEIGHTS, PACKAGE).sha256 if method == Unrolled.kind else "",
        "versions": versions("reconstruct_volume", [f"method.{method}"]),
        "headsr": headsr.__version__,
    }


def sealed(sidecar: Mapping[str, Any]) -> dict[str, Any]:
    """The sidecar with the SHA-256 of all that it says in its ``headsr`` object."""
    return {**sidecar, "headsr": {**sidecar["headsr"], "seal": _sum_of(sidecar)}}


def read_said(sidecar: Path) -> Said:
    """What the sidecar of a result says. UnreadableError where it is none, or not as it was written."""
    content = read_json(sidecar)
    held = content.get("headsr") if isinstance(content, dict) else None
    if not isinstance(held, dict) or held.get("seal") != _sum_of(content):
        raise UnreadableError(f"{sidecar}: its content is not what was made (SHA-256)")
    try:
        return picked(Said, held, f"{sidecar}: headsr")
    except RecipeError as error:
        raise UnreadableError(str(error)) from None


def damages_of(sidecar: Path, said: Said) -> dict[Path, str]:
    """What of a result is not as it was made, every byte looked at: why, by its path."""
    found = {}
    for name, content in said.outputs.items():
        path = sidecar.parent / name
        try:
            damage = damage_of(path, content, deep=True) if os.path.lexists(path) else "it is gone"
        except (OSError, UnreadableError) as error:
            damage = str(error)
        if damage:
            found[path] = damage
    return found


def is_done(sidecar: Path, follows_from: Mapping[str, Any]) -> bool:
    """Whether a result lies there that follows from just this, whole."""
    try:
        said = read_said(sidecar)
    except (OSError, UnreadableError):
        return False
    return said.follows_from == follows_from and not damages_of(sidecar, said)


def _sum_of(sidecar: Mapping[str, Any]) -> str:
    """The SHA-256 of what a sidecar says beside its seal, however it is laid out."""
    held = {key: value for key, value in sidecar["headsr"].items() if key != "seal"}
    return hashlib.sha256(json.dumps({**sidecar, "headsr": held}, sort_keys=True).encode()).hexdigest()
