"""What is rendered: a field, in this process or in a file that every process that evaluates it opens."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from headsr.fields.field import Field
from headsr.fields.load import FieldError, load_field
from headsr.files import sha256_of
from headsr.volumes import Grid

_M_ARENA_MAX = -8  # of malloc.h


@dataclass(frozen=True)
class FieldFile:
    """A field in its safetensors file, opened once in every process that evaluates it.

    With ``sha256`` it is that content: processes that open the file later than others must not get another field.
    """

    path: str
    device: str = "cpu"
    precision: str = "fp32"
    sha256: str | None = None

    def open(self) -> Field:
        """The field; FieldError names a damaged or foreign file, or one that is another by now."""
        return _opened(self)


def opened(source: Field | FieldFile) -> Field:
    """The field itself."""
    return source.open() if isinstance(source, FieldFile) else source


def intensities(field: Field, grid: Grid) -> NDArray[np.float32]:
    """The field in scan units (X, Y, Z) at the voxel centres of ``grid``."""
    return in_scan_units(field, field.evaluate(grid))


def in_scan_units(field: Field, values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Normalised intensities of a field in scan units, in place."""
    values *= np.float32(field.scale)
    values += np.float32(field.offset)
    return values


def share_one_heap() -> None:
    """Have the C library (glibc) serve all threads from one heap: one for each keeps a third more, and is no faster."""
    library = ctypes.CDLL(None)
    if hasattr(library, "mallopt"):
        library.mallopt(_M_ARENA_MAX, 1)


@lru_cache(maxsize=1)
def _opened(file: FieldFile) -> Field:
    share_one_heap()  # in every process that evaluates
    field = load_field(file.path, device=file.device, precision=file.precision)
    if file.sha256 is not None and sha256_of(file.path) != file.sha256:
        raise FieldError(f"{file.path}: has changed since this render began. Say the same again")
    return field
