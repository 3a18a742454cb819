"""What making a result takes, said before it is begun."""

from __future__ import annotations

import math
from dataclasses import dataclass

import psutil

from headsr.recipes import Method
from headsr.reconstruct.unrolled import HELD, LOADED, least_bytes
from headsr.volumes import Grid

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
    return int(_OF_FREE * psutil.virtual_memory().available if gigabytes is None else gigabytes * 1e9)


def refuse_without_room(cost: Cost, memory: int) -> None:
    """ResourcesError where the promised memory, or what is free, is less than the least that is needed."""
    free = psutil.virtual_memory().available
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
