"""What stands beside a preprocessed scan, as others read it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Annotated

from headsr.files import sidecar_of
from headsr.recipes.convert import Range
from headsr.typed_json import read_as


@dataclass(frozen=True, kw_only=True)
class Intensities:
    """Normalised intensity * ``scale`` + ``offset`` is in the scan's own units; ``source_key`` says whose they are."""

    scale: Annotated[float, Range(0, above=True)]
    offset: float
    source_key: str = ""


def read_intensities(scan: str | os.PathLike[str]) -> Intensities:
    """What leads back to the units of a preprocessed scan. UnreadableError names a sidecar that does not say it."""
    return read_as(Intensities, sidecar_of(scan), "headsr")


def read_skull_stripped(scan: str | os.PathLike[str]) -> bool:
    """Whether a preprocessed scan shows the brain alone; a sidecar that says nothing is of a whole head.

    UnreadableError names one that says something else.
    """
    return read_as(_Sidecar, sidecar_of(scan)).SkullStripped


@dataclass(frozen=True)
class _Sidecar:
    SkullStripped: bool = False
