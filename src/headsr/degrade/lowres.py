"""The fixed low-resolution scans that every method starts from: simulated from a high-resolution scan, or acquired."""

from __future__ import annotations

import os

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from headsr.acquisition.measurement import Protocol, save_measurement
from headsr.acquisition.noise import estimate_noise
from headsr.acquisition.operator import Acquisition
from headsr.degrade.noise import add_rician, white_noise
from headsr.preprocess.sidecar import read_intensities, read_skull_stripped
from headsr.recipes import Degradation, RecipeError, Stack
from headsr.seeds import seed_of
from headsr.volumes import AXES, Grid, Volume, VolumeError, load_volume

ACQUIRED = "acquired"
# Without a stated thickness, slices up to this many in-plane voxels apart are taken to have no gap.
NEARLY_ISOTROPIC = 1.5
THICKNESS = (0.1, 4.0)  # of the distance of slices: what a scanner can do
# A whole number of thin slices per thick one is preferred where it is this near to the in-plane voxel.
_WHOLE_FACTOR = 0.05


def simulate_lowres(
    volume: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    view: str,
    degradation: Degradation,
    name: str,
    degradation_name: str,
    thickness: float | str | None,
    source_key: str,
    head_mask: str | os.PathLike[str],
    signed: bool = False,
    source_path: str = "",
) -> None:
    """Write one low-resolution scan (NIfTI, JSON and head mask) from a preprocessed scan, its sidecar and head mask.

    ``simulated``: the stack of this ``view``, sampled by the acquisition operator, with Rician noise. ``acquired``: the
    scan itself; ``thickness`` of its slices is in mm (None or '' where nothing says it) and ``view`` is ``acquired`` or
    the plane of its slices. ``signed``: intensities may be negative. ``source_path`` is where its dataset
    keeps the scan.

    Raises VolumeError, UnreadableError or RecipeError naming the scan, what is missing and where to give it.
    """
    source = load_volume(volume)
    head = _head_of(source, head_mask)
    if degradation.kind == "simulated":
        seed = seed_of(degradation.seed, degradation_name, name, view)
        stack = _stack_of(view, degradation, degradation_name)
        scan, data, head, protocol = _simulate(source, head, stack, degradation, seed)
    else:
        stated = float(thickness) if thickness not in (None, "") else None
        protocol = _acquired(source, view, name, stated, degradation.stacks[0] if degradation.stacks else None)
        protocol["noise"] = estimate_noise(source, head)
        scan, data = source.grid, torch.as_tensor(source.data)
    units = read_intensities(volume)
    protocol |= {"scale": units.scale, "offset": units.offset, "signed": signed}
    protocol |= {"degradation": degradation_name, "source_key": source_key}
    protocol |= {"skull_stripped": read_skull_stripped(volume), "source": source_path}
    save_measurement(output, data, scan, Protocol(**protocol), head, forms=source.forms)


def acquired_head(scan: Grid, axis: int, factor: float | None = None) -> Grid:
    """The grid to reconstruct an acquired scan on: the same box, ``factor`` times finer along ``axis``.

    ``factor`` None refines to the in-plane voxel size, by a whole number where that is near.
    """
    if factor is None:
        in_plane = float(np.sqrt(np.prod(np.delete(scan.voxel_size, axis))))
        factor = max(1.0, scan.voxel_size[axis] / in_plane)
        if abs(round(factor) / factor - 1) < _WHOLE_FACTOR:
            factor = round(factor)
    shape = list(scan.shape)
    shape[axis] = round(shape[axis] * factor)
    return scan.resized(tuple(shape))


def stack_operator(head: Grid, stack: Stack) -> Acquisition:
    """How a simulated scan samples the head: its grid and its profile, as the recipe names them.

    Slices begin at the head's first face; those of ``zoom`` keep its outermost centres instead.
    """
    axis, scan, thickness = AXES.get(stack.view), head, None
    for along in stack.coarse:
        factor = stack.along[along]
        scan = scan.zoomed(along, factor) if stack.profile == "zoom" else scan.thick(along, factor, stack.thickness)
    if axis is not None and stack.factor is not None:
        cells = stack.factor if stack.thickness is None else stack.thickness
        thickness = float(head.voxel_size[axis] * cells)
    return Acquisition(head, scan, axis=axis, profile=stack.profile, thickness=thickness, coarse=stack.coarse)


def _head_of(source: Volume, head_mask: str | os.PathLike[str]) -> NDArray[np.bool_]:
    mask = load_volume(head_mask, constant=True)
    if not mask.grid.same_as(source.grid):
        raise VolumeError(f"{head_mask}: is not on the grid of the scan that it belongs to. Make both again")
    return mask.data > 0.5


def _simulate(
    source: Volume, head: NDArray[np.bool_], stack: Stack, degradation: Degradation, seed: int
) -> tuple[Grid, Tensor, NDArray[np.bool_], dict]:
    """The scan's grid, its intensities, which of them see the head, most of each sample, and what is known of it."""
    operator = stack_operator(source.grid, stack)
    data = operator.forward(torch.as_tensor(source.data))
    seen = operator.forward(torch.as_tensor(head, dtype=torch.float32)).numpy() >= 0.5
    sigma = degradation.noise_percent / 100
    if sigma > 0:
        data = add_rician(data[None], sigma * white_noise([seed], tuple(data.shape), "cpu"))[0]
    protocol = _protocol(stack.view, stack.profile, operator.thickness, source.grid)
    if stack.factors is not None:
        protocol["coarse"] = operator.coarse
    return operator.scan, data, seen, protocol | {"noise": sigma}


def _acquired(source: Volume, view: str, name: str, thickness: float | None, finer: Stack | None) -> dict:
    """What is known of an acquired scan; ``finer`` says along which view its volume is refined, and how much."""
    sizes = source.grid.voxel_size
    axis = AXES.get(view if finer is None else finer.view, int(np.argmax(sizes)))
    if view not in AXES and view != ACQUIRED:
        raise RecipeError(f"{name}: unknown view {view!r}; choose {ACQUIRED} or one of {', '.join(AXES)}")
    if finer is None and sizes[axis] < 0.99 * sizes.max():
        coarsest = next(plane for plane in AXES if AXES[plane] == int(np.argmax(sizes)))
        raise VolumeError(
            f"{name}: its thick slices are {coarsest}, not {view}. Name the view {coarsest} or {ACQUIRED}"
        )
    plane = next(plane for plane in AXES if AXES[plane] == axis)
    profile, factor = ("box", None) if finer is None else (finer.profile, finer.factor)
    thickness = thickness_of_slices(source.grid, axis, name, thickness)
    return _protocol(plane, profile, thickness, acquired_head(source.grid, axis, factor))


def thickness_of_slices(scan: Grid, axis: int, name: str, thickness: float | None) -> float:
    """The thickness in mm of an acquired scan's slices along ``axis``; None where nothing says it.

    Raises VolumeError for slices whose thickness must be known, and for one that cannot be, with where to give it.
    """
    sizes = scan.voxel_size
    spacing, in_plane = float(sizes[axis]), float(np.delete(sizes, axis).max())
    where = "'SliceThickness' of its JSON sidecar, or the column 'thickness' of the scan table"
    if thickness is None and spacing > NEARLY_ISOTROPIC * in_plane:
        raise VolumeError(
            f"{name}: the thickness of its slices is not known; they are {spacing:.2f} mm apart, and there may be "
            f"gaps or overlaps between them. Give it in mm in {where}"
        )
    if thickness is not None and not THICKNESS[0] * spacing <= thickness <= THICKNESS[1] * spacing:
        raise VolumeError(f"{name}: {thickness:g} mm thick slices cannot be {spacing:.2f} mm apart. Correct {where}")
    return spacing if thickness is None else thickness


def _protocol(view: str, profile: str, thickness: float | None, head: Grid) -> dict:
    affine = tuple(tuple(row) for row in head.affine.tolist())
    return {
        "view": view,
        "profile": profile,
        "thickness": thickness,
        "head_shape": head.shape,
        "head_affine": affine,
    }


def _stack_of(view: str, degradation: Degradation, degradation_name: str) -> Stack:
    for stack in degradation.stacks:
        if stack.view == view:
            return stack
    known = ", ".join(stack.view for stack in degradation.stacks) or "none"
    raise RecipeError(f"{degradation_name}.stacks: no stack of view {view!r}; it has {known}")
