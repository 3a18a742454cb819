"""A label map made ready for trainings: its structures, finer than the map, in a file that is read where asked.

Lengths are in mm from the corner of the store's box, which holds the head and is cut where the map cuts the head.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property, lru_cache
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import safetensors
import safetensors.torch
import torch
from numpy.typing import NDArray
from torch import Tensor

from headsr.files import sha256_of, whole
from headsr.seal import refuse_broken_seal, seal, sealable, unsealed
from headsr.seeds import seed_of
from headsr.simulate.labels import LabelMapError, Structure
from headsr.typed_json import picked

if TYPE_CHECKING:
    from headsr.simulate.labelmap import LabelMap

FORMAT = 1
PERSONS, DEGREES = 2, ("mild", "moderate", "severe")
_MOST_STRUCTURES = 256  # that a byte can tell apart
DEPTH_STEP_MM, LESION_STEP = 0.1, 1 / 255  # what one of a stored byte is
_BRAIN = ("white", "grey")
_DEPTH_MM, _BLOCK = 2.0, 48
_DRAWING = 0  # the lesions of a map are drawn once
_AIR = 1  # voxels of the map around the head
_OPEN = 64

Window = Sequence[slice]


class StoreError(ValueError):
    """A stored anatomy cannot be used. The message names the file and the way out."""


def prepare_anatomy(
    dseg: str | os.PathLike[str], table: str | os.PathLike[str], output: str | os.PathLike[str]
) -> None:
    """Write what ``open_anatomy`` reads of a segmentation and its table of labels, whole or not at all.

    uint8 tensors (X, Y, Z): ``winners``, the structure at every voxel of half the map's voxel size; ``depth`` below
    the scalp, on voxels of about 2 mm; and ``lesions`` of two persons in three degrees, on the map's voxels
    around them. Same input, same bytes. Raises LabelMapError and VolumeError as ``load_label_map`` does.
    """
    # A training opens what this writes, and has no need of SciPy for that.
    from headsr.simulate.labelmap import load_label_map

    head = load_label_map(dseg, table)
    if len(head.structures) > _MOST_STRUCTURES:
        raise LabelMapError(
            f"{table}: has {len(head.structures)} structures, and an anatomy to train on holds {_MOST_STRUCTURES}. "
            "Leave out the rows that no map has, or give several structures one row"
        )
    box, cut = _box_of(head)
    winners = _winners_in(head, box)
    tensors = {"winners": winners, "depth": _depth_in(head, box)}
    starts = {}
    for person, degree in product(range(PERSONS), DEGREES):
        name = _lesions_name(person, degree)
        starts[name], tensors[name] = _lesions_of(head, box, seed_of("anatomy", _DRAWING, person), degree)
    size = [n * float(mm) for n, mm in zip(_shape(box), head.grid.voxel_size, strict=True)]
    metadata = {
        "format": FORMAT,
        "key": source_key(dseg, table),
        "size_mm": size,
        "cut": cut,
        "brain_mm": _brain_of(head, box),
        "structures": [structure._asdict() for structure in head.structures],
        "counts": np.bincount(winners.reshape(-1), minlength=len(head.structures)).tolist(),
        "lesion_mm": head.grid.voxel_size.tolist(),
        "lesion_starts": starts,
    }
    with whole(output) as partial:
        stored = {name: torch.from_numpy(np.ascontiguousarray(data)) for name, data in tensors.items()}
        safetensors.torch.save_file(stored, partial, sealable(metadata))
        seal(partial)


def source_key(dseg: str | os.PathLike[str], table: str | os.PathLike[str]) -> str:
    """Hex SHA-256 of what a stored anatomy is made of: a segmentation and its table."""
    return hashlib.sha256("".join(sha256_of(path) for path in (dseg, table)).encode()).hexdigest()


@lru_cache(maxsize=_OPEN)
def open_anatomy(path: str | os.PathLike[str]) -> StoredAnatomy:
    """Open what ``prepare_anatomy`` wrote; StoreError names a file that is missing, damaged or of another format."""
    try:
        _refuse_broken_seal_once(os.fspath(path), os.stat(path).st_mtime_ns)
        stream = safetensors.safe_open(path, framework="pt")
        metadata = unsealed(stream.metadata())
        known = metadata.get("format") == FORMAT
        if known:
            _refuse_other_tensors(stream, picked(_Said, metadata, "its metadata"))
    except FileNotFoundError:
        raise StoreError(f"{path}: does not exist. Prepare the label map that it is of") from None
    except OSError as error:
        raise StoreError(f"{path}: cannot be read: {error.strerror or error}") from error
    except (safetensors.SafetensorError, ValueError) as error:
        raise StoreError(f"{path}: is damaged or no anatomy ({error}). Move it away and prepare it again") from error
    if not known:
        raise StoreError(f"{path}: is of format {metadata.get('format')}, not {FORMAT}. Prepare it again")
    return StoredAnatomy(Path(path), stream, metadata)


@dataclass(frozen=True, kw_only=True)
class _Row:
    """A structure, as the metadata have it."""

    label: int
    name: str
    tissue: str
    group: str
    prior: tuple[float, float, float, float] | None


@dataclass(frozen=True, kw_only=True)
class _Said:
    """What the metadata of an anatomy say beside its format and key."""

    size_mm: tuple[float, float, float]
    cut: tuple[tuple[bool, bool], tuple[bool, bool], tuple[bool, bool]]
    brain_mm: tuple[tuple[float, float], tuple[float, float], tuple[float, float]]
    structures: tuple[_Row, ...]
    counts: tuple[int, ...]
    lesion_mm: tuple[float, float, float]
    lesion_starts: dict[str, tuple[int, int, int]]

    def __post_init__(self) -> None:
        if len(self.counts) != len(self.structures) or min(self.counts, default=0) < 0 or not any(self.counts[1:]):
            raise ValueError(f"counts: {len(self.counts)} numbers are not those of {len(self.structures)} structures")
        if min(*self.size_mm, *self.lesion_mm) <= 0:
            raise ValueError("size_mm and lesion_mm must be above 0")


def _refuse_other_tensors(stream: Any, said: _Said) -> None:
    """ValueError where a tensor that the metadata are about is not there, or is none of bytes along three axes."""
    for name in ("winners", "depth", *said.lesion_starts):
        if name not in stream.keys():  # noqa: SIM118 - a file's, which can do no more
            raise ValueError(f"it lacks {name}")
        tensor = stream.get_slice(name)
        if tensor.get_dtype() != "U8" or len(tensor.get_shape()) != 3:
            raise ValueError(f"{name} is no volume of bytes")


@cache
def _refuse_broken_seal_once(path: str, changed_ns: int) -> None:
    """Read a file whole no more than once in a process: a training opens anatomies again and again."""
    refuse_broken_seal(path)


@dataclass(frozen=True, eq=False)
class StoredAnatomy:
    """A head as ``prepare_anatomy`` stores it; windows are slices of a tensor's three axes."""

    path: Path
    stream: Any
    metadata: dict[str, Any]

    @cached_property
    def structures(self) -> tuple[Structure, ...]:
        """What the numbers of ``winners`` stand for; the first one is air."""
        rows = [{**row, "prior": row["prior"] and tuple(row["prior"])} for row in self.metadata["structures"]]
        return tuple(Structure(**row) for row in rows)

    @cached_property
    def shares(self) -> NDArray[np.float64]:
        """The part of the head that each structure is (S,); nothing of it is air."""
        counts = np.array(self.metadata["counts"], dtype=np.float64)
        counts[0] = 0
        return counts / counts.sum()

    @property
    def size_mm(self) -> NDArray[np.float64]:
        """The edges of the box."""
        return np.array(self.metadata["size_mm"])

    @property
    def cut(self) -> list[list[bool]]:
        """For the two ends of every axis, whether the map cuts the head there."""
        return self.metadata["cut"]

    @property
    def brain_mm(self) -> list[list[float]]:
        """Where the brain starts and ends along every axis; all of the box if there is none."""
        return self.metadata["brain_mm"]

    def shape(self, name: str) -> tuple[int, int, int]:
        """Of ``winners`` or ``depth``, whose voxels fill the box."""
        return tuple(self.stream.get_slice(name).get_shape())

    def voxel_mm(self, name: str) -> NDArray[np.float64]:
        """Of ``winners`` or ``depth``."""
        return self.size_mm / np.array(self.shape(name))

    def read(self, name: str, window: Window) -> Tensor:
        """A part of ``winners`` or ``depth`` (uint8)."""
        return self.stream.get_slice(name)[tuple(window)]

    def lesions(self, person: int, degree: str) -> tuple[Tensor, NDArray[np.float64], NDArray[np.float64]]:
        """All lesions of a person (uint8) in the box around them, and that box's start and voxel size in mm."""
        name, size = _lesions_name(person, degree), np.array(self.metadata["lesion_mm"])
        return self.stream.get_tensor(name), np.array(self.metadata["lesion_starts"][name]) * size, size


def _lesions_name(person: int, degree: str) -> str:
    return f"lesions.{person}.{degree}"


def _box_of(head: LabelMap) -> tuple[list[slice], list[list[bool]]]:
    """The head's box in voxels of the map with air around it, and for both ends of every axis whether it is cut there.

    Behind a cut the map goes on with its last plane: that is no head that anybody has.
    """
    view, size = head.field_of_view, head.grid.voxel_size
    start = (np.array(view.centre) - np.array(view.size) / 2 - head.grid.corners.min(axis=0)) / size
    stop = start + np.array(view.size) / size
    box, cut = [], []
    for axis in range(3):
        used = np.flatnonzero(head.labels.any(axis=tuple({0, 1, 2} - {axis})))
        low, high = max(0, round(start[axis])), min(head.labels.shape[axis], round(stop[axis]))
        cut.append([bool(used[0] < low), bool(used[-1] >= high)])
        box.append(slice(max(low, used[0] - _AIR), min(high, used[-1] + 1 + _AIR)))
    return box, cut


def _brain_of(head: LabelMap, box: Sequence[slice]) -> list[list[float]]:
    brain = np.array([structure.tissue in _BRAIN for structure in head.structures])[head.labels[tuple(box)]]
    extent = []
    for axis, (n, mm) in enumerate(zip(brain.shape, head.grid.voxel_size, strict=True)):
        used = np.flatnonzero(brain.any(axis=tuple({0, 1, 2} - {axis})))
        extent.append([float(mm * used[0]), float(mm * (used[-1] + 1))] if len(used) else [0.0, float(mm * n)])
    return extent


def _shape(box: Sequence[slice]) -> tuple[int, ...]:
    return tuple(s.stop - s.start for s in box)


def _winners_in(head: LabelMap, box: Sequence[slice]) -> NDArray[np.uint8]:
    """The structures of a box at half the map's voxel size, made block by block."""
    winners = np.empty([2 * n for n in _shape(box)], dtype=np.uint8)
    for start in product(*(range(0, n, _BLOCK) for n in _shape(box))):
        stop = np.minimum(np.array(start) + _BLOCK, _shape(box))
        part = head.halved([slice(s.start + a, s.start + b) for s, a, b in zip(box, start, stop, strict=True)])
        winners[tuple(slice(2 * a, 2 * b) for a, b in zip(start, stop, strict=True))] = part
    return winners


def _depth_in(head: LabelMap, box: Sequence[slice]) -> NDArray[np.uint8]:
    depth = head.depth(box, _DEPTH_MM)
    return np.rint(np.minimum(depth / DEPTH_STEP_MM, 255)).astype(np.uint8)


def _lesions_of(head: LabelMap, box: Sequence[slice], seed: int, degree: str) -> tuple[list[int], NDArray[np.uint8]]:
    """Where in the box the lesions of a person begin, in voxels of the map, and the box around them."""
    drawn = head.lesions(seed=seed, degree=degree)
    part = np.rint(drawn.data / LESION_STEP).astype(np.uint8)
    within = [np.flatnonzero(part.any(axis=tuple({0, 1, 2} - {axis}))) for axis in range(3)]
    tight = [slice(used[0], used[-1] + 1) if len(used) else slice(0, 1) for used in within]
    corner = (drawn.grid.corners.min(axis=0) - head.grid.corners.min(axis=0)) / head.grid.voxel_size
    start = np.rint(corner).astype(int) + [s.start for s in tight] - [s.start for s in box]
    return start.tolist(), part[tuple(tight)]
