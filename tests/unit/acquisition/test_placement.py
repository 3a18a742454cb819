import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation
from stacks_of_waves import placement_error, rigid, stack

from headsr.acquisition.placement import PlacedScan, grid_around, refine_placement, rigid_motion
from headsr.volumes import AXES, Grid

TRUE = rigid((3, -4, 5), (4, -5, 3))
NEAR = rigid((0.3, -0.4, 0.3), (0.8, -1.0, 0.9))


def thick(view, **how):
    return PlacedScan(stack(view, **how), AXES[view], "box", 8.0)


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """As the workflow runs it; on small volumes more threads only wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def axial():
    return thick("axial")


@pytest.mark.parametrize("view", ["coronal", "sagittal"])
def test_a_placement_is_found_to_a_hundredth_of_a_slice(axial, view):
    moving = thick(view, to_head=TRUE)
    start = NEAR @ TRUE
    degrees, mm = placement_error(start, TRUE)
    assert degrees > 0.5 and mm > 1.5
    found = refine_placement(moving.moved(start), axial) @ start
    degrees, mm = placement_error(found, TRUE)
    assert degrees < 0.1 and mm < 0.1, f"{degrees:.3f} degrees, {mm:.3f} mm, of slices of 8 mm"


def test_what_lies_right_stays_there_whichever_of_two_placements_is_written_down(axial):
    moving = thick("coronal", to_head=TRUE)
    elsewhere = rigid((20, 30, -10), (90, 10, -300))
    one = refine_placement(moving.moved(TRUE), axial)
    other = refine_placement(moving.moved(elsewhere @ TRUE), axial.moved(elsewhere))
    np.testing.assert_allclose(np.linalg.inv(elsewhere) @ other @ elsewhere, one, atol=2e-3)
    assert placement_error(one, np.eye(4))[1] < 0.1


def test_scans_of_two_heads_do_not_come_to_rest_where_they_were_put(axial):
    stranger = thick("coronal", person=2)
    try:
        moved = refine_placement(stranger, axial)
    except ValueError as error:
        assert "still moves" in str(error)
    else:
        assert placement_error(moved, np.eye(4))[1] > 1


def test_a_motion_is_the_rotation_vector_about_its_centre():
    centre = np.array([10.0, -20.0, 30.0])
    motion = rigid_motion((1, 2, 3), (0.1, -0.2, 0.3), centre)
    np.testing.assert_allclose(motion[:3, :3], Rotation.from_rotvec((0.1, -0.2, 0.3)).as_matrix(), atol=1e-12)
    np.testing.assert_allclose((motion @ [*centre, 1])[:3], centre + np.array([1, 2, 3]))
    np.testing.assert_allclose(rigid_motion((0, 0, 0), (0, 0, 0), centre), np.eye(4))


def test_the_grid_around_two_boxes_holds_both_and_lies_as_the_first():
    reference = Grid((20, 30, 10), rigid((0, 0, 20), (5, 6, 7)) @ np.diag([1.0, 1.0, 4.0, 1.0]))
    moving = Grid((10, 30, 20), rigid((50, 0, 0), (-40, 0, 0)) @ np.diag([3.0, 1.0, 1.0, 1.0]))
    around = grid_around(reference, moving, 2.0)
    np.testing.assert_allclose(around.voxel_size, 2)
    cosines = np.linalg.inv(reference.affine[:3, :3] / reference.voxel_size) @ around.affine[:3, :3] / 2
    np.testing.assert_allclose(cosines, np.eye(3), atol=1e-12)
    for corner in (*reference.corners, *moving.corners):
        index = (np.linalg.inv(around.affine) @ [*corner, 1])[:3]
        assert (index >= -0.5 - 1e-9).all() and (index <= np.array(around.shape) - 0.5 + 1e-9).all()


def test_a_coarse_copy_keeps_the_box_and_thickens_no_thick_slice():
    scan = PlacedScan(stack("axial", size=2.0, thickness=6.0), 2, "gaussian", 5.0)
    coarse = scan.coarsened(4.0)
    np.testing.assert_allclose(coarse.volume.grid.voxel_size, (4, 4, 6))
    np.testing.assert_allclose(coarse.volume.grid.corners, scan.volume.grid.corners)
    assert coarse.thickness == 5.0 and tuple(coarse.extents) == (4, 4, 5)
    assert coarse.coarsened(12.0).thickness == 11.0
