"""From given scans to the study that every method takes: intensities that begin at 0, the head, noise and placement."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from headsr.acquisition.measurement import Measurement, Study
from headsr.acquisition.noise import estimate_noise
from headsr.acquisition.operator import Acquisition
from headsr.acquisition.placement import PlacedScan
from headsr.degrade.together import align
from headsr.preprocess.appearance import is_computed
from headsr.preprocess.intensity import PERCENTILE
from headsr.preprocess.outline import brain_of, head_of
from headsr.preprocess.skull import is_skull_stripped
from headsr.sr.given import GivenScan, views_of
from headsr.sr.target import as_fine_as
from headsr.volumes import Grid, Volume, VolumeError

_AIR_HU = -1000.0
_BELOW_ZERO = -0.02  # of the percentile: less is what an interpolation leaves


@dataclass(frozen=True, eq=False)
class Prepared:
    """A study, what its scans look like on the way there, and how the others were placed against the first.

    ``seen`` are the scans as they enter, in their own units; ``alignments`` plain JSON, one for every scan but the
    first.
    """

    study: Study
    seen: tuple[Volume, ...]
    alignments: tuple[dict[str, Any], ...]


def prepare(scans: Sequence[GivenScan], target: Grid, device: torch.device) -> Prepared:
    """The study of the scans of one head on the grid of the result, its tensors on a device.

    The first scan gives the unit of intensities and stays where it is. Raises VolumeError for scans without signal, and
    for those that are not of one head and contrast.
    """
    seen = [as_fine_as(scan.volume, scan.axis, target) for scan in scans]
    offset = _AIR_HU if is_computed(seen[0]) else 0.0
    shifted = [Volume(volume.data - np.float32(offset), volume.grid) for volume in seen]
    stripped = is_skull_stripped(shifted[0])
    heads = [_head_of(volume, stripped) for volume in shifted]
    scale = _scale_of(scans[0], shifted[0], heads[0])
    placed = [_placed(scan, volume) for scan, volume in zip(scans, shifted, strict=True)]
    found = [
        align(moving, placed[0], moving_name=str(scan.path), reference_name=str(scans[0].path))
        for scan, moving in zip(scans[1:], placed[1:], strict=True)
    ]
    motions = [np.eye(4), *(alignment.motion for alignment in found)]
    gains = [1.0, *(alignment.after.gain for alignment in found)]
    measurements = [
        _measured(view, scan.moved(motion), target, head, gain * scale, device)
        for view, scan, motion, head, gain in zip(views_of(scans), placed, motions, heads, gains, strict=True)
    ]
    study = Study(
        target,
        tuple(measurements),
        scale,
        offset,
        degradation="as given",
        source_key=scans[0].sha256,
        signed=offset != 0 or any(float(volume.data.min()) < _BELOW_ZERO * scale for volume in shifted),
        skull_stripped=stripped,
    )
    return Prepared(study, tuple(seen), tuple(alignment.record() for alignment in found))


def _head_of(volume: Volume, stripped: bool) -> NDArray[np.bool_]:
    return brain_of(volume) if stripped else head_of(volume)


def _scale_of(scan: GivenScan, volume: Volume, head: NDArray[np.bool_]) -> float:
    scale = float(np.percentile(volume.data[head], PERCENTILE)) if head.any() else 0.0
    if not scale > 0:
        raise VolumeError(f"{scan.path}: no signal where the head should be. Is it a scan of a head?")
    return scale


def _placed(scan: GivenScan, volume: Volume) -> PlacedScan:
    return PlacedScan(volume, scan.axis, scan.profile, scan.thickness)


def _measured(
    view: str, scan: PlacedScan, target: Grid, head: NDArray[np.bool_], unit: float, device: torch.device
) -> Measurement:
    """What the operator-based methods take; ``unit`` is what becomes 1."""
    grid = scan.volume.grid
    operator = Acquisition(target, grid, axis=scan.axis, profile=scan.profile, thickness=scan.thickness, device=device)
    data = torch.as_tensor(scan.volume.data / np.float32(unit), device=device)
    noise = estimate_noise(scan.volume, head) / unit
    return Measurement(view, operator, data, noise, torch.as_tensor(head, device=device))
