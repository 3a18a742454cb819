"""The acquisition operator A of one scan: a separable, normalised, linear map from the head's grid to the scan's."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from headsr.acquisition.profile import profile_matrix
from headsr.volumes import Grid, axis_positions


class Acquisition:
    """A = Wx (x) Wy (x) Wz for a scan whose axes are parallel to the head's grid.

    ``forward`` maps tensors (..., X, Y, Z) on ``head`` to (..., x, y, z) on ``scan``; ``adjoint`` is its transpose.
    ``thickness`` is the slice thickness in mm along ``axis`` (the scan's own voxel size there when None: no gap); along
    the other axes a sample is the mean over its pixel. Rows sum to one: a constant stays that constant, and an integer
    factor with a box profile is the exact block mean.
    """

    def __init__(
        self,
        head: Grid,
        scan: Grid,
        *,
        axis: int,
        profile: str = "box",
        thickness: float | None = None,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> None:
        self.head, self.scan = head, scan
        self.axis = axis
        self._matrices: list[Tensor | None] = []
        for i, centres in enumerate(axis_positions(scan, head)):
            extent = scan.voxel_size[i] if i != axis or thickness is None else thickness
            weights = profile_matrix(
                head.shape[i], centres, extent / head.voxel_size[i], profile if i == axis else "box"
            )
            identity = weights.shape[0] == weights.shape[1] and np.allclose(weights, np.eye(len(weights)), atol=1e-6)
            self._matrices.append(None if identity else torch.as_tensor(weights, dtype=dtype, device=device))

    def forward(self, head: Tensor) -> Tensor:
        """Sample the head: (..., X, Y, Z) on the head's grid -> (..., x, y, z) on the scan's grid."""
        return self._apply(head, transpose=False)

    def adjoint(self, scan: Tensor) -> Tensor:
        """The transpose of ``forward``: (..., x, y, z) -> (..., X, Y, Z)."""
        return self._apply(scan, transpose=True)

    def _apply(self, data: Tensor, *, transpose: bool) -> Tensor:
        for i, matrix in enumerate(self._matrices):
            if matrix is not None:
                weights = (matrix.T if transpose else matrix).to(data.dtype)
                data = torch.movedim(torch.movedim(data, i - 3, -1) @ weights.T, -1, i - 3)
        return data
