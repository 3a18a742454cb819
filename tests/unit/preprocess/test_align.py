import numpy as np
import pytest
from stacks_of_waves import placement_error, rigid, stack

from headsr.preprocess.align import mutual_information, rigid_placement
from headsr.volumes import Grid, Volume

TRUE = rigid((6, -5, 8), (7, -4, 5))


def of_another_contrast(volume):
    """Dark where the head was bright, and not in proportion; air stays dark."""
    return Volume(np.where(volume.data < 0.06, volume.data, 1.1 - volume.data**2).astype(np.float32), volume.grid)


@pytest.fixture(scope="module")
def axial():
    return stack("axial", size=3.0, thickness=6.0)


def test_orthogonal_thick_stacks_of_two_contrasts_are_placed_within_half_a_voxel_and_the_same_twice(axial):
    moving = of_another_contrast(stack("coronal", to_head=TRUE, size=3.0, thickness=6.0))
    found = rigid_placement(moving, axial, name="sub-01_T2w")
    degrees, mm = placement_error(found, TRUE)
    assert degrees < 1 and mm < 1.5, f"{degrees:.2f} degrees, {mm:.2f} mm, of voxels of 3 x 6 x 3 mm"
    assert (rigid_placement(moving, axial, name="sub-01_T2w") == found).all()
    right, wrong = (mutual_information(moving, axial, motion) for motion in (TRUE, rigid((0, 0, 9), (4, 0, 0)) @ TRUE))
    assert right > 1.2 * wrong


def test_a_scan_in_coordinates_of_its_own_is_found_by_its_centre(axial):
    away = rigid((0, 0, 0), (300, -200, 150))
    moving = stack("sagittal", to_head=TRUE, size=3.0, thickness=6.0)
    moved = Volume(moving.data, Grid(moving.grid.shape, away @ moving.grid.affine))
    found = rigid_placement(moved, axial, name="sub-01_T1w")
    degrees, mm = placement_error(found @ away, TRUE)
    assert degrees < 1 and mm < 1.5
