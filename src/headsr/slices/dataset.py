"""Training crops, drawn from the slices of all training scans by (seed, step) alone."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import zarr
from numpy.typing import NDArray
from torch import Tensor

from headsr.seeds import seed_of
from headsr.typed_json import read_as
from headsr.volumes import AXES

PLANES = tuple(sorted(AXES, key=AXES.get))  # sagittal, coronal, axial: a plane's number is its array axis
_CROSSES_LEFT_RIGHT = ("axial", "coronal")
_OPEN_PLANES = 256
# A crop shows head where so much of it is brighter than that, of the range; a place is drawn so often at most.
HEAD_LEVEL, HEAD_SHARE, _PLACES = 0.1, 0.25, 8


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


class SliceSampler:
    """Draws crops: a scan, a plane and a slice, each equally likely, then a place in it that shows head.

    A slice is read when it is drawn, so that thousands of scans take no more memory than one. A batch is a pure
    function of (seed, step): training may stop and go on anywhere and sees the same crops, and so does any other
    process that draws them.
    """

    def __init__(self, index: str | os.PathLike[str], *, split: str, crop: int, seed: int) -> None:
        self.crop, self.seed, self.split = crop, seed, split
        self._scans = scans_in(index, split)
        self._folder = Path(index).parent

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
        number = int(generator.integers(scan["counts"][plane]))
        image, pixel_mm = open_plane(self._folder / scan["store"] / plane)[number], scan["pixel_mm"][plane]
        flip, transpose = generator.random(2) < 0.5
        if flip and plane in _CROSSES_LEFT_RIGHT:
            image = image[:, ::-1]
        # Thick coronal slices make an axial image's rows thick, thick sagittal ones its columns.
        if transpose and plane == "axial":
            image, pixel_mm = image.T, pixel_mm[::-1]
        return _crop(image, self.crop, generator), pixel_mm, (scan["name"], plane, number)


@dataclass(frozen=True, kw_only=True)
class _ListedScan:
    """An entry of the list that ``headsr.slices.store`` writes."""

    name: str
    split: str
    store: str
    pixel_mm: dict[str, tuple[float, float]]
    counts: dict[str, int]
    suffix: str = ""
    source_key: str = ""
    content: str = ""


def scans_in(index: str | os.PathLike[str], split: str) -> list[dict[str, Any]]:
    """What the list of a model's training data says of every scan of a split; ValueError where there is none.

    UnreadableError names a file that is no such list.
    """
    listed = read_as(tuple[_ListedScan, ...], index, "stores")
    entries = [asdict(entry) for entry in listed if entry.split == split]
    if not entries:
        raise ValueError(f"{index}: lists no scan of split {split!r}; see the scan table and the model's data")
    return entries


@lru_cache(maxsize=_OPEN_PLANES)
def open_plane(path: Path) -> zarr.Array:
    """The slices of one plane of one scan, to be read one by one."""
    return zarr.open_array(str(path), mode="r")


def _crop(image: NDArray[np.float32], size: int, generator: np.random.Generator) -> NDArray[np.float32]:
    """A random square of ``size`` pixels, of a few the first that is not mostly air; else the one that shows most.

    An image that is smaller is mirrored at its borders.
    """
    best, most = None, -1.0
    for _ in range(_PLACES):
        crop = _square(image, size, generator)
        share = float((crop > HEAD_LEVEL).mean())
        if share >= HEAD_SHARE:
            return crop
        if share > most:
            best, most = crop, share
    return best


def _square(image: NDArray[np.float32], size: int, generator: np.random.Generator) -> NDArray[np.float32]:
    """A random square of ``size`` pixels."""
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
