"""A disk that is too small for a render, or full: said before where samples tell, and else without losing anything."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from headsr.fields.field import Field
from headsr.files import UnwritableError
from headsr.render import store as stores
from headsr.render.plan import PlannedVolume
from headsr.render.publish import Outputs
from headsr.render.shard import compress
from headsr.render.source import intensities
from headsr.render.tiles import Tile

_SAMPLES, _SIDE = 8, 32  # blocks, and voxels a side, that tell how well the volume compresses


class DiskFullError(UnwritableError):
    """The disk is full. What was rendered so far is kept."""


def refuse_small_disk(field: Field, outputs: Outputs, volume: PlannedVolume, tiles: list[tuple[int, Tile]]) -> None:
    """DiskFullError where the tiles that are left cannot fit: where samples of them say that half would not."""
    left = [(level, block) for level, tile in tiles for block in tile.blocks(volume.layouts[level].chunk)]
    left = [block for level, block in left if level == 0 and not volume.is_empty(level, block)]
    size, free = np.dtype(volume.storage.dtype).itemsize, shutil.disk_usage(outputs.store.parent).free
    raw = size * sum(block.voxels for block in left)
    if raw <= free or len(left) < 8 * _SAMPLES:
        return
    ratios = []
    for block in left[:: len(left) // _SAMPLES][:_SAMPLES]:
        shape = tuple(min(n, _SIDE) for n in block.shape)
        values = intensities(field, volume.grids[0].block(block.start, shape))
        ratios.append(len(compress(values, shape, volume.storage, volume.fill)) / (size * values.size))
    expected = raw * float(np.mean(ratios))
    if free < expected / 2:
        raise DiskFullError(
            errno.ENOSPC,
            f"what is left to render takes about {expected / 1e9:.3g} GB and {free / 1e9:.3g} GB are free. Make room, "
            "or render fewer voxels or another type",
            str(outputs.store.parent),
        )


@contextmanager
def kept_when_full(outputs: Outputs) -> Iterator[None]:
    """Say of a disk that fills up inside what is kept and how to go on: DiskFullError."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT) or isinstance(error, DiskFullError):
            raise
        there = len(stores.recorded_shards(outputs.store))
        free = shutil.disk_usage(next(folder for folder in outputs.store.parents if folder.exists())).free
        raise DiskFullError(
            error.errno,
            f"the disk is full ({free / 2**20:.0f} MB left). {there} shards are complete and stay; "
            "make room and say the same again to go on",
            str(outputs.store.parent),
        ) from error
