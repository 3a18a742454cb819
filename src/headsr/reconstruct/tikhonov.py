"""Regularised least squares with the scans' own operators (methods a.6): the voxel anchor that a prior has to beat."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from headsr.acquisition.consistency import allowed
from headsr.acquisition.least_squares import conjugate_gradients, roughness
from headsr.acquisition.measurement import Measurement, Study
from headsr.recipes import Tikhonov
from headsr.reconstruct.estimate import Estimate
from headsr.reconstruct.interpolate import fused_average

if TYPE_CHECKING:
    from headsr.weights import TrainedModel


def least_squares(study: Study, method: Tikhonov, models: Mapping[str, TrainedModel]) -> Estimate:
    """The estimate of Tikhonov least squares (recipes.Tikhonov)."""
    return Estimate(tikhonov(study, weight=method.weight, iterations=method.iterations))


def tikhonov(study: Study, *, weight: float, iterations: int) -> NDArray[np.float32]:
    """min_x sum_k v_k |A_k x - y_k|^2 + weight |grad x|^2 by conjugate gradients from the fused average.

    ``v_k`` is 1/noise_k^2 relative to the least noisy scan, so ``weight`` means the same at any noise. The gradient
    is per finest voxel size. Few iterations regularise too. Returns (X, Y, Z), normalised intensities.
    """
    trust = _trust(study.scans)
    steepness = ((study.head.voxel_size.min() / study.head.voxel_size) ** 2).tolist()

    def normal(x: Tensor) -> Tensor:
        measured = (v * s.operator.adjoint(s.operator.forward(x)) for v, s in zip(trust, study.scans, strict=True))
        return sum(measured) + weight * roughness(x, steepness)

    target = sum(v * scan.operator.adjoint(scan.data) for v, scan in zip(trust, study.scans, strict=True))
    start = torch.as_tensor(fused_average(study), device=target.device)
    return conjugate_gradients(normal, target, iterations=iterations, start=start).cpu().numpy()


def _trust(scans: Sequence[Measurement]) -> list[float]:
    least = min(allowed(scan) for scan in scans)
    return [(least / allowed(scan)) ** 2 for scan in scans]
