"""A further acquired scan of a head, placed and scaled as the first one is: together they are one study."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass, replace
from typing import Any

import nibabel as nib
import numpy as np
import torch
from numpy.typing import NDArray

from headsr.acquisition.intensity import Agreement, compare
from headsr.acquisition.measurement import save_measurement
from headsr.acquisition.placement import PlacedScan, refine_placement
from headsr.acquisition.protocol import Protocol, read_protocol
from headsr.files import head_mask_of, read_json, sidecar_of, write_json
from headsr.preprocess.align import rigid_placement
from headsr.volumes import AXES, Grid, Volume, VolumeError, load_volume

_LEAST_OVERLAP = 0.3
# Scans of one head that differ in slices and noise alone reach 0.97 and more, those of two heads 0.4 to 0.6.
_LEAST_CORRELATION = 0.8


def align_scan(
    moving: str | os.PathLike[str],
    reference: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    moving_name: str,
    reference_name: str,
) -> None:
    """Write a low-resolution scan anew as a measurement of the study of another one, of the same head and contrast.

    ``moving`` and ``reference`` are low-resolution scans with their protocols and head masks. The rigid placement is
    found by mutual information and refined through both scans' operators; it goes into the affine, and nothing is
    interpolated. The intensities are divided by the gain between the scans, and the noise with them. The sidecar says
    under ``alignment`` what was done (``motion``: 4 x 4, mm, from the moving scan's points to the reference's) and how
    well the scans agree before and after.

    Raises VolumeError naming both scans when they are not of one head, or do not share enough of it.
    """
    scan, protocol = _load(moving)
    fixed, study = _load(reference)
    head = load_volume(head_mask_of(moving), constant=True).data > 0.5
    found = align(scan, fixed, moving_name=moving_name, reference_name=reference_name)
    matched, head, view = _as_read(scan.moved(found.motion).divided(found.after.gain), head, protocol.view)
    same_study = replace(
        study,
        view=view,
        profile=protocol.profile,
        thickness=protocol.thickness,
        noise=protocol.noise / found.after.gain,
        signed=protocol.signed,
        source=protocol.source,
    )
    data = torch.as_tensor(matched.data)
    save_measurement(output, data, matched.grid, same_study, head, forms=fixed.volume.forms)
    named = {"moving": moving_name, "moving_source_key": protocol.source_key, "reference": reference_name}
    write_json(sidecar_of(output), read_json(sidecar_of(output)) | {"alignment": named | found.record()})


@dataclass(frozen=True, eq=False)
class Alignment:
    """How a scan lies against another one of the same head: the rigid ``motion`` (4, 4; mm) that takes its points to
    the other's, and how well the two agree before it and after."""

    motion: NDArray[np.float64]
    before: Agreement
    after: Agreement

    def record(self) -> dict[str, Any]:
        """For the sidecar."""
        return {"motion": self.motion.tolist(), "before": asdict(self.before), "after": asdict(self.after)}


def align(moving: PlacedScan, reference: PlacedScan, *, moving_name: str, reference_name: str) -> Alignment:
    """Place one scan against another of the same head and contrast, and compare their intensities.

    Raises VolumeError naming both when they are not of one head, or do not share enough of it.
    """
    pair = f"{moving_name} cannot be aligned to {reference_name}"
    before = compare(moving, reference)
    motion = rigid_placement(moving.volume, reference.volume, name=moving_name)
    placed = moving.moved(motion)
    roughly = _same_head(compare(placed, reference), pair)
    try:
        motion = refine_placement(placed.divided(roughly.gain), reference) @ motion
    except ValueError as error:
        raise VolumeError(f"{pair}: {error}. {_WAY_OUT}") from error
    return Alignment(motion, before, _same_head(compare(moving.moved(motion), reference), pair))


_WAY_OUT = (
    "Look at both: are they of one person and one contrast, with the head in both? If not, leave one of them out (in "
    "the scan table its split becomes 'unused'), or reconstruct each by itself"
)


def _load(path: str | os.PathLike[str]) -> tuple[PlacedScan, Protocol]:
    protocol = read_protocol(path)
    return PlacedScan(load_volume(path), AXES.get(protocol.view), protocol.profile, protocol.thickness), protocol


def _same_head(agreement: Agreement, pair: str) -> Agreement:
    """The agreement as it is, or an error where it is that of two heads, or of too little of one."""
    if agreement.overlap < _LEAST_OVERLAP:
        raise VolumeError(f"{pair}: they share only {agreement.overlap:.0%} of the head. {_WAY_OUT}")
    if agreement.correlation < _LEAST_CORRELATION:
        raise VolumeError(
            f"{pair}: laid on each other their intensities correlate by {agreement.correlation:.2f}, those of one head "
            f"by {_LEAST_CORRELATION} or more. {_WAY_OUT}"
        )
    return agreement


def _as_read(scan: PlacedScan, head: NDArray[np.bool_], view: str) -> tuple[Volume, NDArray[np.bool_], str]:
    """The scan and its head mask in the axes order in which they will be read back, and the view of its slices in it.

    A motion may take an oblique scan beyond 45 degrees, where another order of the axes is the nearest to RAS.
    """
    grid = scan.volume.grid
    turn = nib.io_orientation(grid.affine)
    data, head = (np.ascontiguousarray(nib.apply_orientation(array, turn)) for array in (scan.volume.data, head))
    affine = grid.affine @ nib.orientations.inv_ornt_aff(turn, grid.shape)
    if scan.axis is not None:
        view = next(plane for plane in AXES if AXES[plane] == int(turn[scan.axis, 0]))
    return Volume(data, Grid(data.shape, affine)), head, view
