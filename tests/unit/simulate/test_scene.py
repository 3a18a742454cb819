import numpy as np
import pytest

from headsr.simulate.scene import FieldOfView


@pytest.mark.parametrize("voxel_mm", [1.0, 1.7, 2.5, 3.0, 12.0, (1.0, 1.0, 4.0), (0.9, 1.3, 5.5)])
def test_voxels_are_exactly_as_asked_and_cover_the_field_of_view(voxel_mm):
    view = FieldOfView((0.0, -17.0, 8.0), (200.0, 230.0, 190.0))
    grid = view.grid(voxel_mm)
    np.testing.assert_allclose(grid.voxel_size, voxel_mm)
    size = np.array(grid.shape) * voxel_mm
    assert np.all(size >= np.array(view.size) - 1e-6)
    assert np.all(size < np.array(view.size) + voxel_mm)
    np.testing.assert_allclose(grid.corners.mean(axis=0), view.centre, atol=1e-9)
