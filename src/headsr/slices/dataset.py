"""Training crops, drawn from the slices of all training scans by (seed, step) alone."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import zarr
from numpy.typing import NDArray
from torch import Tensor

from headsr.files import read_json
from headsr.seeds import seed_of
from headsr.volumes import AXES

PLANES = tuple(sorted(AXES, key=AXES.get))  # sagittal, coronal, axial: a plane's number is its array axis
_CROSSES_LEFT_RIGHT = ("axial", "coronal")


class Visit(NamedTuple):
    """Where a crop came from, and which of the visits to its slice this is.

    ``number`` counts a plane's slices in their store. Slices are drawn with replacement and there is no epoch, so a
    visit is a ``step`` that draws the slice, and ``repeat`` how often that step drew it before.
    """

    scan: str
    plane: str
    number: int
    step: int
    repeat: int


@dataclass(frozen=True, eq=False)
class SliceBatch:
    """Crops and where they come from.

    ``images`` (N, 1, c, c) in normalised intensities, rows being the direction to make thick; ``pixel_mm`` (N, 2), rows
    and columns; ``planes`` (N,) the plane as its array axis (``volumes.AXES``: sagittal 0, coronal 1, axial 2);
    ``visits`` the names of the crops, all different; ``seeds`` derived from them, for whatever is done to the crops.
    """

    images: Tensor
    pixel_mm: Tensor
    planes: Tensor
    visits: list[Visit]
    seeds: list[int]


@dataclass(frozen=True, eq=False)
class _Slices:
    name: str
    pixel_mm: dict[str, list[float]]
    planes: dict[str, NDArray[np.float32]]


class SliceSampler:
    """Draws crops: a scan, a plane and a slice, each equally likely, then a place in it.

    Every array is read once, into memory as float32. A batch is a pure function of (seed, step), so training may
    stop and go on anywhere and sees the same crops, and so does any other process that draws them.
    """

    def __init__(
        self,
        index: str | os.PathLike[str],
        *,
        root: str | os.PathLike[str],
        suffixes: Iterable[str],
        split: str,
        crop: int,
        seed: int,
    ) -> None:
        wanted = set(suffixes)
        entries = [e for e in read_json(index)["stores"] if e["split"] == split and e["suffix"] in wanted]
        if not entries:
            raise ValueError(
                f"{index}: lists no {'/'.join(sorted(wanted))} scan of split {split!r}; see the scan table"
            )
        self.crop, self.seed, self.split = crop, seed, split
        self._scans = [_read_slices(entry, Path(root)) for entry in entries]

    def __len__(self) -> int:
        """How many slices there are to draw from."""
        return sum(len(slices) for scan in self._scans for slices in scan.planes.values())

    def batch(self, step: int, size: int) -> SliceBatch:
        """The crops of one step; fewer crops of the same step are the first ones."""
        crops = [self._draw(seed_of(self.seed, self.split, "crop", step, i)) for i in range(size)]
        images, pixels, slices = zip(*crops, strict=True)
        visits = [Visit(*drawn, step, slices[:i].count(drawn)) for i, drawn in enumerate(slices)]
        return SliceBatch(
            images=torch.from_numpy(np.stack(images)[:, None]),
            pixel_mm=torch.tensor(pixels, dtype=torch.float32),
            planes=torch.tensor([AXES[visit.plane] for visit in visits]),
            visits=visits,
            seeds=[seed_of(self.seed, self.split, "degradation", *visit) for visit in visits],
        )

    def _draw(self, seed: int) -> tuple[NDArray[np.float32], list[float], tuple[str, str, int]]:
        """A crop, its pixels, and its scan, plane and slice."""
        generator = np.random.default_rng(seed)
        scan = self._scans[generator.integers(len(self._scans))]
        plane = PLANES[generator.integers(len(PLANES))]
        number = int(generator.integers(len(scan.planes[plane])))
        image, pixel_mm = scan.planes[plane][number], scan.pixel_mm[plane]
        flip, transpose = generator.random(2) < 0.5
        if flip and plane in _CROSSES_LEFT_RIGHT:
            image = image[:, ::-1]
        # Thick coronal slices make an axial image's rows thick, thick sagittal ones its columns.
        if transpose and plane == "axial":
            image, pixel_mm = image.T, pixel_mm[::-1]
        return _crop(image, self.crop, generator), pixel_mm, (scan.name, plane, number)


def _read_slices(entry: dict, root: Path) -> _Slices:
    store = root / entry["store"]
    planes = {plane: np.asarray(zarr.open_array(str(store / plane), mode="r")[:], np.float32) for plane in PLANES}
    return _Slices(entry["name"], entry["pixel_mm"], planes)


def _crop(image: NDArray[np.float32], size: int, generator: np.random.Generator) -> NDArray[np.float32]:
    """A random square of ``size`` pixels; an image that is smaller is mirrored at its borders."""
    window = []
    for axis, length in enumerate(image.shape):
        missing = max(0, size - length)
        before = int(generator.integers(missing + 1))
        if missing:
            widths = [(0, 0), (0, 0)]
            widths[axis] = (before, missing - before)
            image = np.pad(image, widths, mode="symmetric")
        start = int(generator.integers(image.shape[axis] - size + 1))
        window.append(slice(start, start + size))
    return np.ascontiguousarray(image[tuple(window)])
