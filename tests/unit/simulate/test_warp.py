import numpy as np
import pytest
from scipy import ndimage

from headsr.simulate.scene import FieldOfView
from headsr.simulate.warp import exponential, random_warp
from headsr.volumes import Grid

VIEW = FieldOfView((0.0, -17.0, 8.0), (200.0, 230.0, 190.0))
SCALES_MM = ((35.0, 3.5), (9.0, 1.3))


def person(grid, seed):
    return random_warp(grid, scales_mm=SCALES_MM, rng=np.random.default_rng(seed))


def test_exponential_of_a_constant_velocity_is_that_translation():
    grid = Grid((9, 10, 11), np.diag([4.0, 4, 4, 1]))
    velocity = np.broadcast_to(np.array([2.0, -1.0, 0.5])[:, None, None, None], (3, *grid.shape)).astype(np.float32)
    np.testing.assert_allclose(exponential(velocity, grid), velocity, atol=1e-5)


def test_the_way_there_and_back_is_no_way():
    grid = Grid((24, 25, 26), np.diag([4.0, 4, 4, 1]))
    noise = np.random.default_rng(0).standard_normal((3, *grid.shape))
    velocity = np.stack([ndimage.gaussian_filter(v, 3) for v in noise]).astype(np.float32)
    velocity *= 4 / velocity.std()
    there, back = exponential(velocity, grid), exponential(-velocity, grid)
    index = np.indices(grid.shape) + there / 4
    returned = there + np.stack([ndimage.map_coordinates(u, index, order=1, mode="nearest") for u in back])
    inner = (slice(None), *(slice(5, -5),) * 3)
    assert np.abs(returned[inner]).mean() < 0.03 * np.abs(there[inner]).mean()


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_person_is_a_smooth_invertible_deformation_of_a_few_mm(seed):
    grid = VIEW.grid(5.0)
    positions = person(grid, seed).positions(grid).astype(np.float64)
    jacobian = np.stack([np.stack(np.gradient(component, 5.0)) for component in positions])
    determinant = np.linalg.det(np.moveaxis(jacobian, (0, 1), (-2, -1)))
    assert determinant.min() > 0.2
    assert determinant.max() < 3
    centres = np.stack(
        np.meshgrid(*(grid.affine[a, 3] + 5 * np.arange(n) for a, n in enumerate(grid.shape)), indexing="ij")
    )
    moved = np.linalg.norm(positions - centres, axis=0)
    assert 2 < moved.mean() < 20


def test_persons_differ_and_are_the_same_every_time():
    grid = VIEW.grid(10.0)
    one, again, other = (person(grid, seed).positions(grid) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, again)
    assert np.abs(one - other).mean() > 1


def test_a_small_box_is_deformed_not_moved_away():
    positions = person(FieldOfView((0.0, 0.0, 0.0), (80.0, 60.0, 70.0)).grid(5.0), 1).positions(
        FieldOfView((0.0, 0.0, 0.0), (80.0, 60.0, 70.0)).grid(5.0)
    )
    assert np.abs(positions.reshape(3, -1).mean(axis=1)).max() < 15
