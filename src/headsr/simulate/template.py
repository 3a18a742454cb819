"""The whole-head template that scans are registered to: the anatomy itself as a T1w scan in MNI152 space shows it."""

from __future__ import annotations

import os
from collections.abc import Mapping

import numpy as np

from headsr.simulate.anatomy import build_anatomy
from headsr.volumes import cell_average, save_volume


def make_template(outputs: Mapping[str, str | os.PathLike[str]], *, voxel_mm: float) -> None:
    """Write the template as NIfTI volumes of about ``voxel_mm`` (mm), in MNI152 space.

    ``outputs`` names the files: ``head`` (T1w-like signal, whole head) and ``brain`` (mask, uint8).
    """
    anatomy = build_anatomy()
    grid = anatomy.grid.at_voxel_size(max(voxel_mm, 1.0))
    head = cell_average(anatomy.signal("T1w"), grid.shape)
    brain = cell_average(anatomy.brain.astype(np.float32), grid.shape) >= 0.5
    for name, data in {"head": head, "brain": brain.astype(np.uint8)}.items():
        save_volume(outputs[name], data, grid, description=f"headsr template {name}")
