"""A block of a head with its scans: a smaller study, for what need not be tried on the whole."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from headsr.acquisition.measurement import Measurement, Study, head_voxels


def middle_of(study: Study, *, voxels: int) -> Study:
    """The study of a block of at most ``voxels`` in the middle of the head, in the proportions of the head's own box.

    Its scans keep the samples that lie wholly inside. A study that is no larger stays as it is.
    """
    if np.prod(study.head.shape) <= voxels:
        return study
    start, shape = _middle_box(head_voxels(study.scans).cpu().numpy(), voxels)
    scans = [_cropped(scan, start, shape) for scan in study.scans]
    kept = tuple(scan for scan in scans if scan is not None)
    return replace(study, head=study.head.block(start, shape), scans=kept) if kept else study


def _middle_box(head: NDArray[np.bool_], voxels: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Start and shape of a box about the middle of the box around ``head`` (X, Y, Z)."""
    where = [np.flatnonzero(head.any(axis=tuple({0, 1, 2} - {axis}))) for axis in range(3)]
    first, last = np.array([w[0] for w in where]), np.array([w[-1] + 1 for w in where])
    share = min(1.0, (voxels / np.prod(last - first)) ** (1 / 3))
    shape = np.maximum(1, np.floor(share * (last - first)).astype(int))
    return tuple(((first + last - shape) // 2).tolist()), tuple(shape.tolist())


def _cropped(scan: Measurement, start: tuple[int, ...], shape: tuple[int, ...]) -> Measurement | None:
    within = scan.operator.within(start, shape)
    if within is None:
        return None
    operator, samples = within
    return replace(scan, operator=operator, data=scan.data[samples], head=scan.head[samples])
