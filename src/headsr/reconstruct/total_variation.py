"""Edge-preserving least squares: isotropic total variation with the scans' own operators (Rudin, Osher, Fatemi 1992).

Solved by the alternating direction method of multipliers (ADMM; Boyd et al. 2011, sections 3 and 6), which converges
for every weight; what conjugate gradients leave of each step they take up in the next.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from headsr.acquisition.consistency import allowed
from headsr.acquisition.least_squares import (
    back,
    conjugate_gradients,
    gradient,
    gradient_adjoint,
    measured,
    relative_trust,
    roughness,
    steepness,
)
from headsr.acquisition.measurement import Study
from headsr.recipes import TotalVariation
from headsr.reconstruct.estimate import Estimate
from headsr.reconstruct.interpolate import fused_average
from headsr.reconstruct.weight import smoothed

if TYPE_CHECKING:
    from headsr.weights import TrainedModel

_FIRST = 0.08  # where the search begins, in standard deviations of the noise
_LIMITS = (1e-4, 10.0)  # below, no head's estimate changes by 0.02 dB, and steps converge slowly
_SPLIT = 0.1  # the largest multiplier: edges of a head are about as steep, in its range per voxel
_RELAXATION = 1.7
_INNER = 5  # conjugate-gradient steps in each
_CONVERGED = 1e-4


def total_variation(study: Study, method: TotalVariation, models: Mapping[str, TrainedModel]) -> Estimate:
    """The estimate of total variation (recipes.TotalVariation); its record says how the weight was chosen."""

    def solve(part: Study, weight: float) -> NDArray[np.float32]:
        return least_variation(part, weight=weight, iterations=method.iterations)

    first = _FIRST * min(allowed(scan) for scan in study.scans)
    return smoothed(solve, study, method.weight, first=first, limits=_LIMITS)


def least_variation(study: Study, *, weight: float, iterations: int) -> NDArray[np.float32]:
    """min_x 1/2 sum_k v_k |A_k x - y_k|^2 + weight sum |grad x| by ADMM from least squares.

    ``v_k`` and the gradient are those of Tikhonov least squares; |grad x| is its length at a voxel. Ends when a step
    changes x by less than 1e-4 of its norm (docs/results/classical.md: within 0.01 dB of where it converges), after
    ``iterations`` at the latest. Returns (X, Y, Z), normalised intensities.
    """
    trust, steep, penalty = relative_trust(study.scans), steepness(study.head), weight / _SPLIT

    def normal(x: Tensor) -> Tensor:
        return measured(x, study.scans, trust) + penalty * roughness(x, steep)

    target = back([scan.data for scan in study.scans], study.scans, trust)
    x = torch.as_tensor(fused_average(study), device=target.device)
    split, multiplier = (x.new_zeros(3, *x.shape) for _ in range(2))
    for _ in range(iterations if weight > 0 else 0):
        before = x
        wanted = target + penalty * gradient_adjoint(split - multiplier, steep)
        x = conjugate_gradients(normal, wanted, iterations=_INNER, start=x)
        split = split.mul_(1 - _RELAXATION).add_(multiplier).add_(gradient(x, steep), alpha=_RELAXATION)
        multiplier = _within_ball(split, _SPLIT)
        split -= multiplier
        if torch.dist(x, before) <= _CONVERGED * x.norm():
            break
    return x.cpu().numpy()


def _within_ball(vectors: Tensor, radius: float) -> Tensor:
    """Vectors (3, X, Y, Z), those longer than ``radius`` shortened to it."""
    return vectors / vectors.norm(dim=0).div_(radius).clamp_min_(1)
