import threading

import numpy as np
import pytest

from headsr.render.tiles import Layout, Tile, TileError, lay_out, refuse_shared_shards, run_tiles, workers_within


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


def test_a_plan_whose_tiles_share_a_shard_is_refused_before_any_work():
    layout = lay_out((16, 16, 16), chunk=4, shard=8)
    halves = [Tile((x, 0, 0), (4, 8, 8)) for x in (0, 4)]
    work = []
    with pytest.raises(TileError, match="two tasks"):
        run_tiles(work.append, halves, layout)
    with pytest.raises(TileError, match="two tasks"):
        refuse_shared_shards([*layout.tiles, layout.tiles[0]], layout)
    assert work == []


@pytest.mark.parametrize("workers", [1, 3])
def test_every_tile_is_worked_once_and_at_most_so_many_at_a_time(workers):
    layout = lay_out((16, 16, 16), chunk=4, shard=8)
    done, now, most, lock = [], 0, 0, threading.Lock()

    def work(tile):
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
        np.linalg.svd(np.ones((60, 60)))
        with lock:
            now -= 1
            done.append(tile)

    run_tiles(work, layout.tiles, layout, workers=workers)
    assert sorted(done, key=lambda tile: tile.start) == layout.tiles
    assert most <= workers


def test_a_failing_tile_fails_the_run():
    layout = lay_out((16, 8, 8), chunk=4, shard=8)

    def work(tile):
        raise FloatingPointError(tile.start)

    with pytest.raises(FloatingPointError):
        run_tiles(work, layout.tiles, layout, workers=2)


def test_workers_follow_the_memory_and_too_little_is_refused():
    layout = lay_out((1024, 1024, 1024))
    gib = 2**30
    assert workers_within(layout, 16, None) == 8
    assert workers_within(layout, 16, 4 * gib) == 2
    assert workers_within(layout, 1, 64 * gib) == 1
    with pytest.raises(TileError, match=r"1664 MiB.*512 MiB"):
        workers_within(layout, 16, gib // 2)


def test_progress_lines_end_with_the_last_tile(capsys):
    layout = lay_out((16, 8, 8), chunk=4, shard=8)
    run_tiles(lambda tile: None, layout.tiles, layout, label="sub-01")
    assert capsys.readouterr().out.splitlines() == ["sub-01: 2 of 2 tiles, 0 s left"]
