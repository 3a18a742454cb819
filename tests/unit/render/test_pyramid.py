import numpy as np
import pytest

from headsr.render.pyramid import halve, level_grids, mean_of_below, preview_level
from headsr.render.tiles import lay_out
from headsr.volumes import Grid

OBLIQUE = np.array([[0.9, -0.1, 0.0, -40.0], [0.1, 1.1, 0.2, -50.0], [0.0, -0.2, 1.3, 7.0], [0, 0, 0, 1]])


def test_levels_go_down_to_64_a_side():
    shapes = [grid.shape for grid in level_grids(Grid((130, 96, 1), np.eye(4)))]
    assert shapes == [(130, 96, 1), (65, 48, 1), (33, 24, 1)]
    assert len(level_grids(Grid((64, 64, 64), np.eye(4)))) == 1


def test_the_preview_is_the_first_level_of_at_most_512():
    assert preview_level(level_grids(Grid((512, 20, 20), np.eye(4)))) == 0
    assert preview_level(level_grids(Grid((4096, 20, 20), np.eye(4)))) == 3


def test_a_fiducial_stays_where_it_is_on_every_level():
    grids = level_grids(Grid((160, 130, 131), OBLIQUE))
    for level, grid in enumerate(grids[1:], start=1):
        first_corner = (OBLIQUE @ [-0.5, -0.5, -0.5, 1])[:3]
        np.testing.assert_allclose((grid.affine @ [-0.5, -0.5, -0.5, 1])[:3], first_corner, atol=1e-9)
        fine = (np.array([3, 4, 5]) + 0.5) * 2**level - 0.5
        np.testing.assert_allclose(grid.affine @ [3, 4, 5, 1], OBLIQUE @ [*fine, 1], atol=1e-9)


@pytest.mark.parametrize("shape", [(4, 4, 4), (5, 3, 7), (1, 6, 2), (1, 1, 1)])
def test_each_voxel_is_the_mean_of_what_lies_inside(shape):
    data = np.random.default_rng(1).random(shape, dtype=np.float32)
    coarse = halve(data)
    assert coarse.shape == tuple(-(-n // 2) for n in shape)
    for index in np.ndindex(coarse.shape):
        inside = data[tuple(slice(2 * i, 2 * i + 2) for i in index)]
        assert coarse[index] == pytest.approx(inside.mean(), rel=1e-6)


def test_halving_leaves_its_input_alone():
    data = np.ones((4, 4, 4), np.float32)
    data[0, 0, 0] = 3
    halve(data)
    assert data.sum() == 66


@pytest.mark.parametrize("shape", [(16, 16, 16), (19, 1, 23), (1, 2, 65), (5, 4, 225)])
@pytest.mark.parametrize("piece", [2, 6, 66])
def test_a_level_built_by_pieces_is_the_level_built_at_once(shape, piece):
    data = np.random.default_rng(2).random(shape, dtype=np.float32)
    whole = halve(data)
    chunk = max(3, piece // 2)
    layout = lay_out(whole.shape, chunk=chunk, shard=2 * chunk)
    for block in layout.whole.blocks(layout.chunk):
        mean = mean_of_below(block, shape, (piece,) * 3, lambda part: data[part.slices], np.copy)
        np.testing.assert_array_equal(mean, whole[block.slices])
