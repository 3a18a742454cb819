import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headsr.render.tiles import Layout, Tile, TileError, lay_out, refuse_shared_shards


@pytest.mark.parametrize(
    ("shape", "chunk", "shard"),
    [
        ((80, 96, 80), (80, 96, 80), (80, 96, 80)),
        ((200, 260, 128), (128, 128, 128), (256, 384, 128)),
        ((512, 512, 512), (128, 128, 128), (512, 512, 512)),
        ((600, 1, 4096), (128, 1, 128), (384, 1, 512)),
    ],
)
def test_chunks_and_shards_follow_the_shape(shape, chunk, shard):
    assert lay_out(shape) == Layout(shape, chunk, shard)


def test_a_volume_of_4096_a_side_is_hundreds_of_files():
    sizes = [4096 // 2**level for level in range(7)]
    assert sum(len(lay_out((n, n, n)).tiles) for n in sizes) == 588


@pytest.mark.parametrize("shape", [(7, 5, 3), (16, 33, 17), (1, 1, 40)])
def test_tiles_cover_every_voxel_once(shape):
    layout = lay_out(shape, chunk=4, shard=8)
    seen = np.zeros(shape, int)
    for tile in layout.tiles:
        for block in tile.blocks(layout.chunk):
            seen[block.slices] += 1
    assert (seen == 1).all()


def test_blocks_come_in_the_order_of_the_file():
    starts = [block.start for block in Tile((0, 0, 0), (3, 2, 2)).blocks((2, 1, 1))]
    assert starts == [(x, y, z) for z, y, x in itertools.product((0, 1), (0, 1), (0, 2))]


sides = st.tuples(*[st.integers(1, 16)] * 3)


@settings(max_examples=50)
@given(shape=sides, chunk=st.integers(1, 9), shard=st.integers(1, 12))
def test_every_shard_has_a_key_of_its_own_and_is_whole_chunks(shape, chunk, shard):
    layout = lay_out(shape, chunk=chunk, shard=max(chunk, shard))
    keys = [layout.key(2, tile) for tile in layout.tiles]
    assert len(set(keys)) == len(keys) and all(key.startswith("2/c/") for key in keys)
    assert all(n % c == 0 for n, c in zip(layout.shard, layout.chunk, strict=True))


@settings(max_examples=50)
@given(shape=sides, start=sides, size=sides)
def test_cells_are_those_that_a_box_touches(shape, start, size):
    cells = Tile(start, shape).cells(size)
    for a, b, n, first, last in zip(start, Tile(start, shape).stop, size, cells.start, cells.stop, strict=True):
        touched = [i for i in range(last + 2) if i * n < b and (i + 1) * n > a]
        assert touched == list(range(first, last))


def test_a_plan_whose_tiles_share_a_shard_is_refused():
    layout = lay_out((16, 16, 16), chunk=4, shard=8)
    halves = [Tile((x, 0, 0), (4, 8, 8)) for x in (0, 4)]
    with pytest.raises(TileError, match="two tasks"):
        refuse_shared_shards(halves, layout)
    with pytest.raises(TileError, match="two tasks"):
        refuse_shared_shards([*layout.tiles, layout.tiles[0]], layout)
