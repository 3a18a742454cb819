import numpy as np
import pytest

from headsr.simulate.head import UNITS, head_warp, scan_grid, simulate_head, warped
from headsr.simulate.warp import Warp


@pytest.mark.parametrize("voxel_mm", [1.0, 1.7, 2.5, 3.0, 12.0])
def test_voxels_are_exactly_as_asked_and_cover_the_field_of_view(voxel_mm):
    grid = scan_grid(voxel_mm)
    np.testing.assert_allclose(grid.voxel_size, voxel_mm)
    size = np.array(grid.shape) * voxel_mm
    assert np.all(size >= np.array((200, 230, 190)) - 1e-6)
    assert np.all(size < np.array((200, 230, 190)) + voxel_mm)
    np.testing.assert_allclose(grid.corners.mean(axis=0), (0, -17, 8), atol=1e-9)


def test_undeformed_head_is_the_anatomy_itself(anatomy):
    grid = scan_grid(5.0)
    still = Warp(grid, np.zeros((3, *grid.shape), dtype=np.float32), np.eye(3), np.zeros(3))
    place = np.array((26.0, -25.0, 30.0))
    index = tuple(np.rint(np.linalg.inv(grid.affine)[:3, :3] @ (place - grid.affine[:3, 3])).astype(int))
    assert warped(anatomy.fractions[0], anatomy, still, grid)[index] > 0.8
    volume = warped(anatomy.brain, anatomy, still, grid).sum() * 125
    assert volume == pytest.approx(anatomy.brain.sum(), rel=0.01)


def test_a_scan_is_the_same_every_time_and_shows_head_and_air(anatomy):
    one, again = (simulate_head(anatomy, suffix="T1w", voxel_mm=7.0, seed=4) for _ in range(2))
    np.testing.assert_array_equal(one.data, again.data)
    assert one.data.min() >= 0
    assert np.percentile(one.data[0], 90) < 0.05 * UNITS, "there is air beside the head"
    brain = warped(anatomy.brain, anatomy, head_warp(one.grid, seed=4), one.grid) > 0.9
    assert 0.4 * UNITS < np.median(one.data[brain]) < 0.9 * UNITS


def test_two_contrasts_of_one_person_are_of_one_shape(anatomy):
    t1, t2 = (simulate_head(anatomy, suffix=suffix, voxel_mm=7.0, seed=4).data for suffix in ("T1w", "T2w"))
    other = simulate_head(anatomy, suffix="T1w", voxel_mm=7.0, seed=5).data
    head = [data > 0.15 * UNITS for data in (t1, t2, other)]
    assert (head[0] ^ head[1]).mean() < 0.5 * (head[0] ^ head[2]).mean()
