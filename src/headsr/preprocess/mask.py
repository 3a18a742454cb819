"""Where the head is and where the brain is, on the scan's own grid."""

from __future__ import annotations

import os

import numpy as np
from numpy.typing import NDArray

from headsr.preprocess.outline import brain_of, head_of
from headsr.preprocess.skull import is_skull_stripped
from headsr.preprocess.transform import read_affine, resample_through
from headsr.volumes import VolumeError, load_volume, save_volume

_LEAST_OVERLAP = 0.6


def mask_head(
    scan: str | os.PathLike[str],
    transform: str | os.PathLike[str],
    template_brain: str | os.PathLike[str],
    *,
    head_mask: str | os.PathLike[str],
    brain_mask: str | os.PathLike[str],
) -> None:
    """Write the head mask and the brain mask (uint8, on the scan's grid) of a bias-corrected scan.

    The head is what is brighter than air, closed and filled; the brain is the template's, moved by ``transform`` (from
    register_to_template). Of a skull-stripped scan both are the brain that is left in it. Raises VolumeError when scan
    and template do not fit together, which is a failed registration.
    """
    volume = load_volume(scan)
    expected = resample_through(load_volume(template_brain), read_affine(transform), volume.grid) >= 0.5
    if is_skull_stripped(volume):
        head = brain = brain_of(volume)
        # A part of the brain may have been taken away with the skull.
        least = min(expected.sum(), head.sum())
    else:
        head = head_of(volume)
        brain, least = expected & head, expected.sum()
    _refuse_apart(scan, expected & head, expected, _LEAST_OVERLAP * least)
    save_volume(head_mask, head.astype(np.uint8), volume.grid, description="headsr head mask")
    save_volume(brain_mask, brain.astype(np.uint8), volume.grid, description="headsr brain mask")


def _refuse_apart(
    scan: str | os.PathLike[str], inside: NDArray[np.bool_], expected: NDArray[np.bool_], least: float
) -> None:
    if not expected.any() or inside.sum() < least:
        raise VolumeError(
            f"{scan}: only {inside.sum()} of the {expected.sum()} voxels of the template's brain fall inside the head. "
            "Is it one whole head, with the right orientation in its header?"
        )
