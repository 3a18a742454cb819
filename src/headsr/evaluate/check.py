"""Does a finished volume, read back from disk, hold what was promised? A volume that does not never counts as done.

It must be finite and not constant, lie on the head's grid to a hundredth of a voxel in the OME-Zarr and in the NIfTI
alike, and agree with every scan to within that scan's noise over the head: A x - y is what this module maps. Where its
projection said that it could not (the scans contradict each other, or they justify no larger change), that is stated
instead. No projection may have changed the head by more than the scans' residuals explain.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from headsr.acquisition.consistency import ROUNDING, SHORT_OF_THE_NOISE, allowed, residuals
from headsr.acquisition.measurement import Measurement, Study, head_voxels, load_study, rms_within
from headsr.evaluate.checked import residual_path
from headsr.files import sidecar_of, write_json
from headsr.render import store as stores
from headsr.render.describe import describe_residual, raw_uris
from headsr.render.pyramid import level_grids, preview_level
from headsr.typed_json import read_as
from headsr.volumes import Grid, Volume, VolumeError, load_volume, save_volume

TOLERANCE_VOXEL = 0.01
SLACK = 1.01  # the projection stops at the noise; float32 and the writing in scan units may add this much


class CheckError(ValueError):
    """A finished volume is not what was promised. The message names the file and the number."""


def check_volume(
    store: str | os.PathLike[str],
    preview: str | os.PathLike[str],
    lowres: Sequence[str | os.PathLike[str]],
    output: str | os.PathLike[str],
    *,
    unprojected: str | os.PathLike[str],
) -> None:
    """Check one volume; write the residual map of every scan (its own grid, scan units), then ``output``.

    ``store`` is the root ``zarr.json``, ``preview`` the NIfTI with its sidecar beside it, ``unprojected`` the NIfTI
    from before the projection. ``output`` is the ``_desc-check_`` JSON: per view the root mean square residual before
    and after the projection, over the head and everywhere, and what the noise allows, normalised and in scan units.
    Raises CheckError at the first thing that is wrong, and then writes nothing.
    """
    output = Path(output)
    output.unlink(missing_ok=True)
    study = load_study(lowres)
    volume = _read_store(store, study.head)
    _check_preview(store, preview, study.head)
    projected, estimate = (_normalised(data, study) for data in (volume, _read_nifti(unprojected, study.head)))
    if not study.signed:
        _refuse_negative(store, projected)
        estimate = estimate.clamp_min(0)
    maps, before = (residuals(tensor, study.scans) for tensor in (projected, estimate))
    views = {
        scan.view: _compare(scan, first, last, study.scale)
        for scan, first, last in zip(study.scans, before, maps, strict=True)
    }
    outcome = read_as(str, sidecar_of(preview), "headsr", "consistency", "outcome")
    _refuse_disagreement(store, views, outcome)
    change = rms_within(projected - estimate, head_voxels(study.scans))
    justified = float(np.sqrt(sum(numbers["rms_before"] ** 2 for numbers in views.values())))
    _refuse_unjustified(store, change, justified)
    projection = {"outcome": outcome, "change": change, "change_at_most": justified}
    for scan, source, residual in zip(study.scans, study.sources, maps, strict=True):
        path = residual_path(output, scan.view)
        views[scan.view]["map"] = path.name
        _write_map(path, residual, scan, source, study)
    write_json(output, {"headsr": {**_summary(volume, study), "projection": projection, "views": views}})


def map_residual(
    store: str | os.PathLike[str],
    lowres: Sequence[str | os.PathLike[str]],
    output: str | os.PathLike[str],
    *,
    check: str | os.PathLike[str],
) -> None:
    """Write one of the residual maps that ``check_volume`` wrote beside ``check``, and its sidecar, once more.

    Raises CheckError where ``output`` is none of them.
    """
    study = load_study(lowres)
    for scan, source in zip(study.scans, study.sources, strict=True):
        if residual_path(check, scan.view) == Path(output):
            (residual,) = residuals(_normalised(_read_store(store, study.head), study), [scan])
            _write_map(Path(output), residual, scan, source, study)
            return
    raise CheckError(f"{output}: none of its scans has this residual map. Make {check} again")


def _write_map(path: Path, residual: Tensor, scan: Measurement, source: str, study: Study) -> None:
    sidecar = describe_residual(scan.view, skull_stripped=study.skull_stripped, sources=raw_uris([source]))
    write_json(sidecar_of(path), sidecar)
    residual = residual.cpu().numpy() * np.float32(study.scale)
    save_volume(path, residual, scan.operator.scan, description=_DESCRIPTION, forms=study.forms)


_DESCRIPTION = "headsr research use only"


def _read_store(store: str | os.PathLike[str], head: Grid) -> NDArray[np.float32]:
    if not Path(store).exists():
        raise CheckError(f"{store}: does not exist, so the volume was not finished. Run the job that makes it again")
    try:
        grid, data, written = stores.read_grid(store), stores.read_level(store), stores.read_scales(store)
    except Exception as error:  # zarr, zstd and the operating system each raise their own
        raise CheckError(f"{store}: cannot be read back ({type(error).__name__}: {error}). Make it again") from error
    _refuse_other_grid(store, grid, head)
    wanted = stores.scales(level_grids(head))
    if len(written) != len(wanted):
        raise CheckError(f"{store}: has {len(written)} levels, not {len(wanted)}")
    for level, (said, expected) in enumerate(zip(written, wanted, strict=True)):
        error = max(np.abs(a - b).max() for a, b in zip(said, expected, strict=True)) / head.voxel_size.min()
        if not error <= TOLERANCE_VOXEL:
            raise CheckError(f"{store}: scale or translation of level {level} is {error:.3g} voxels off")
    _refuse_unusable(store, data)
    return data


def _check_preview(store: str | os.PathLike[str], preview: str | os.PathLike[str], head: Grid) -> None:
    """The NIfTI must be the level of the pyramid that it says it is: same grid, same values."""
    grids = level_grids(head)
    level = preview_level(grids)
    data = _read_nifti(preview, grids[level])
    worst = float(np.abs(data - stores.read_level(store, level)).max())
    if worst > 0:
        raise CheckError(f"{preview}: differs from level {level} of {store} by up to {worst:g}. Make both again")


def _read_nifti(path: str | os.PathLike[str], grid: Grid) -> NDArray[np.float32]:
    try:
        volume: Volume = load_volume(path)
    except VolumeError as error:
        raise CheckError(str(error)) from error
    _refuse_other_grid(path, volume.grid, grid)
    return volume.data


def _refuse_other_grid(path: str | os.PathLike[str], grid: Grid, wanted: Grid) -> None:
    if grid.shape != wanted.shape:
        raise CheckError(f"{path}: has {grid.shape} voxels, not {wanted.shape}")
    distance = np.abs(grid.corners - wanted.corners).max() / wanted.voxel_size.min()
    if not distance <= TOLERANCE_VOXEL:
        raise CheckError(f"{path}: its affine puts a corner {distance:.3g} voxels from where it belongs")


def _refuse_unusable(path: str | os.PathLike[str], data: NDArray[np.float32]) -> None:
    bad = int((~np.isfinite(data)).sum())
    if bad:
        raise CheckError(f"{path}: {bad} of {data.size} voxels are NaN or infinite")
    if data.min() == data.max():
        raise CheckError(f"{path}: every voxel is {data.flat[0]:g}; the reconstruction is empty")


def _normalised(volume: NDArray[np.float32], study: Study) -> Tensor:
    return torch.as_tensor((volume - np.float32(study.offset)) / np.float32(study.scale))


def _compare(scan: Measurement, before: Tensor, after: Tensor, scale: float) -> dict[str, Any]:
    """The numbers of one view: normalised intensities, and in scan units what a person reads."""
    numbers = {
        "noise": scan.noise,
        "allowed": allowed(scan),
        "rms_before": scan.rms(before),
        "rms_after": scan.rms(after),
        "rms_before_everywhere": scan.rms_everywhere(before),
        "rms_after_everywhere": scan.rms_everywhere(after),
        "largest": float((after.abs() * scan.head).max()),
    }
    return {**numbers, **{f"{key}_scan_units": value * scale for key, value in numbers.items()}}


def _refuse_negative(store: str | os.PathLike[str], projected: Tensor) -> None:
    lowest = float(projected.min())
    if lowest < -ROUNDING:
        raise CheckError(
            f"{store}: goes down to {lowest:.4g} (normalised), and its scans hold magnitudes. Make it again; if they "
            "may be negative, say 'signed: true' of the dataset in datasets.yaml"
        )


def _refuse_disagreement(store: str | os.PathLike[str], views: dict[str, dict[str, Any]], outcome: str) -> None:
    for view, numbers in views.items():
        # Written so that a NaN is refused too.
        if not numbers["rms_after"] <= numbers["allowed"] * SLACK and outcome not in SHORT_OF_THE_NOISE:
            raise CheckError(
                f"{store}: disagrees with the measured {view} slices: a root mean square residual of "
                f"{numbers['rms_after']:.4g} over the head (normalised), where their noise allows "
                f"{numbers['allowed']:.4g}, and its projection says {outcome!r}"
            )


def _refuse_unjustified(store: str | os.PathLike[str], change: float, justified: float) -> None:
    if not change <= justified * SLACK + ROUNDING:
        raise CheckError(
            f"{store}: its projection changed the head by {change:.4g} (root mean square, normalised), and the "
            f"residuals of its scans explain no more than {justified:.4g}"
        )


def _summary(volume: NDArray[np.float32], study: Study) -> dict[str, Any]:
    return {
        "degradation": study.degradation,
        "source_key": study.source_key,
        "shape": list(study.head.shape),
        "scale": study.scale,
        "offset": study.offset,
        "lowest_scan_units": float(volume.min()),
        "highest_scan_units": float(volume.max()),
        "mean_scan_units": float(volume.mean(dtype=np.float64)),
    }
