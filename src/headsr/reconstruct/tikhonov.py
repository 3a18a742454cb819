"""Regularised least squares with the scans' own operators (methods a.6): the voxel anchor that a prior has to beat."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from headsr.acquisition.consistency import allowed
from headsr.acquisition.least_squares import back, conjugate_gradients, measured, relative_trust, roughness, steepness
from headsr.acquisition.measurement import Study
from headsr.recipes import Tikhonov
from headsr.reconstruct.estimate import Estimate
from headsr.reconstruct.interpolate import fused_average
from headsr.reconstruct.weight import smoothed

if TYPE_CHECKING:
    from headsr.weights import TrainedModel

# Where the search begins, in variances of the noise: the squared gradient of a head is about a tenth of its range.
_FIRST = 10.0
_LIMITS = (1e-5, 1e3)  # below, no head's estimate changes by 0.01 dB


def least_squares(study: Study, method: Tikhonov, models: Mapping[str, TrainedModel]) -> Estimate:
    """The estimate of Tikhonov least squares (recipes.Tikhonov); its record says how the weight was chosen."""

    def solve(part: Study, weight: float) -> NDArray[np.float32]:
        return tikhonov(part, weight=weight, iterations=method.iterations)

    first = _FIRST * min(allowed(scan) for scan in study.scans) ** 2
    return smoothed(solve, study, method.weight, first=first, limits=_LIMITS)


def tikhonov(study: Study, *, weight: float, iterations: int) -> NDArray[np.float32]:
    """min_x sum_k v_k |A_k x - y_k|^2 + weight |grad x|^2 by conjugate gradients from the fused average.

    ``v_k`` is 1/noise_k^2 relative to the least noisy scan, so ``weight`` means the same at any noise. The gradient
    is per finest voxel size. After 20 iterations the weight alone regularises. Returns (X, Y, Z), normalised
    intensities.
    """
    trust, steep = relative_trust(study.scans), steepness(study.head)

    def normal(x: Tensor) -> Tensor:
        return measured(x, study.scans, trust) + weight * roughness(x, steep)

    target = back([scan.data for scan in study.scans], study.scans, trust)
    start = torch.as_tensor(fused_average(study), device=target.device)
    return conjugate_gradients(normal, target, iterations=iterations, start=start).cpu().numpy()
