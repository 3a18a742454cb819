"""What making a result takes, said before it is begun."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

import numpy as np
import torch

from headsr.acquisition.measurement import Measurement, Study
from headsr.acquisition.operator import Acquisition
from headsr.machine import free_memory
from headsr.recipes import Method
from headsr.reconstruct.unrolled import HELD, LOADED, fitting, least_bytes, refine, tiles_of
from headsr.volumes import Grid
from headsr.weights import TrainedModel

_PILOT = 48  # voxels a side
NETWORK_SHARE = 0.6  # of all that one tile takes: the head is looked for, and the result projected and written
_OF_FREE = 0.8  # of the memory that is free: the rest is for what else runs


class ResourcesError(ValueError):
    """What a result takes is not there. The message says what is needed and the way out."""


@dataclass(frozen=True)
class Cost:
    """Bytes that making a result takes: at ``least``, in small tiles, and at ``most``, at once."""

    least: int
    most: int

    def within(self, memory: int) -> int:
        """What it takes where so much is allowed."""
        return min(self.most, max(self.least, memory))


def cost_of(target: Grid, method: Method) -> Cost:
    """What a method takes for a result on a grid."""
    most = LOADED + math.prod(target.shape) * max(HELD, method.bytes_per_voxel)
    return Cost(least_bytes(target) if method.tiled else most, most)


def memory_for(gigabytes: float | None) -> int:
    """The bytes that may be taken: what is said, or most of what is free."""
    return int(_OF_FREE * free_memory() if gigabytes is None else gigabytes * 1e9)


def seconds_of(target: Grid, model: TrainedModel, memory: int) -> float:
    """How long a result of the network takes on a grid in so much memory, from what a small part of it takes here.

    What the network corrects counts with the halos of its tiles, all else by the voxels of the result.
    """
    grid = Grid((_PILOT,) * 3, np.eye(4))
    operator = Acquisition(grid, grid.thick(2, 4), axis=2, device=next(model.module.parameters()).device)
    data = torch.zeros(operator.scan.shape, device=operator.covered.device)
    study = Study(grid, (Measurement("axial", operator, data, 0.01),), 1.0, 0.0, "pilot", "pilot")
    for _ in range(2):  # the first time kernels are chosen
        begun = time.perf_counter()
        refine(study, model, at_once=None).volume.sum().item()
        taken = time.perf_counter() - begun
    voxels = math.prod(target.shape)
    corrected = sum(tiles_of(target, model.module, fitting(target, model, memory)))
    return taken / _PILOT**3 * (corrected + voxels * (1 / NETWORK_SHARE - 1))


def refuse_without_room(cost: Cost, memory: int) -> None:
    """ResourcesError where the promised memory, or what is free, is less than the least that is needed."""
    free = free_memory()
    if cost.least > memory:
        raise ResourcesError(
            f"the result takes at least {cost.least / 1e9:.2g} GB of memory, and {memory / 1e9:.2g} GB are allowed. "
            f"Allow more: --mem-gb {math.ceil(cost.least / 1e8) / 10:.1f}; or ask for larger voxels: --voxel MM"
        )
    if cost.least > free:
        raise ResourcesError(
            f"the result takes at least {cost.least / 1e9:.2g} GB of memory, and {free / 1e9:.2g} GB are free. Close "
            "other programs, or ask for larger voxels: --voxel MM"
        )
