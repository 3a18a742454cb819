"""A study in 2-D: least squares over all its scans, slice by slice, as a denoiser of slices is told of it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from headsr.acquisition.evidence import Evidence
from headsr.networks.condition import Condition
from headsr.reconstruct.interpolate import in_view


class StudyPlanes:
    """What the scans of one head say of its slices in every plane, in the training of a denoiser and where it is used.

    ``evidence`` are the scans of that head, ``voxel_mm`` its voxels along x, y and z. The image of a slice is the
    smooth least squares that the operator-aware network begins with too. ``telling`` are the planes that show what the
    scans leave out: some scan is coarse within them.
    """

    def __init__(self, evidence: Evidence, voxel_mm: Sequence[float]) -> None:
        views = np.stack([in_view(operator.scan, evidence.head) for operator in evidence.operators])
        self._views = torch.from_numpy(views).to(evidence.start.device)
        self._shown = self._views.sum(0).to(evidence.start)
        self._image = evidence.start[0, 0] * (self._shown > 0)
        self._voxel_mm, self._reaches = np.asarray(voxel_mm, dtype=float), evidence.reaches()
        self.telling = [plane for plane in range(3) if evidence.axes() - {plane}]

    def order(self, plane: int) -> tuple[int, int, int]:
        """The axes as (stack, rows, columns) of the slices of a plane: slices are the thicker along the rows.

        Where they are alike, rows are z, or y.
        """
        first, second = (axis for axis in range(3) if axis != plane)
        thickest = self._reaches.max(0)
        rows, columns = (first, second) if thickest[first] > thickest[second] else (second, first)
        return plane, rows, columns

    def condition(self, plane: int) -> Condition:
        """What the scans say of all slices of a plane, laid out as ``order`` says."""
        order = self.order(plane)
        image, shown = (volume.permute(order)[:, None] for volume in (self._image, self._shown))
        numbers, size = image.new_ones(len(image)), self._voxel_mm
        seen = self._views.permute(0, *(axis + 1 for axis in order)).any(-1).any(-1)
        thick_mm = torch.from_numpy(self._reaches[:, order[1]] * size[order[1]]).to(image)
        return Condition(
            image,
            shown,
            torch.full((len(image),), plane, device=image.device),
            numbers[:, None] * torch.from_numpy(size[list(order[1:])]).to(image),
            (seen * thick_mm[:, None]).amax(0),
        )
