"""What the scans of a study say of the slices of a head, against what is known of them."""

import numpy as np
import pytest
import torch

from headsr.acquisition.evidence import Evidence
from headsr.acquisition.measurement import load_study
from headsr.acquisition.operator import Acquisition
from headsr.reconstruct.study_planes import StudyPlanes
from headsr.volumes import Grid

SHAPE, MM = (12, 16, 20), (0.5, 1.0, 2.0)
GRID = Grid(SHAPE, np.diag([*MM, 1.0]))


def planes(*scans, truth=None):
    """Of scans (axis, factor, first slice, slices; None: all of them) of a head."""
    operators = []
    for axis, factor, first, number in scans:
        grid = GRID.thick(axis, factor)
        start, shape = [0, 0, 0], list(grid.shape)
        start[axis], shape[axis] = first, number or grid.shape[axis]
        operators.append(Acquisition(GRID, grid.block(tuple(start), tuple(shape)), axis=axis))
    truth = torch.rand(1, 1, *SHAPE, generator=torch.Generator().manual_seed(5)) if truth is None else truth
    evidence = Evidence(operators, [operator.forward(truth) for operator in operators], [0.0] * len(scans))
    return StudyPlanes(evidence, MM), evidence


def test_the_image_is_least_squares_laid_out_with_the_thicker_slices_along_the_rows():
    of_study, evidence = planes((2, 4.0, 0, None), (0, 2.0, 0, None))
    assert [of_study.order(plane) for plane in range(3)] == [(0, 2, 1), (1, 2, 0), (2, 0, 1)]
    for plane, (stack, rows, columns) in enumerate(map(of_study.order, range(3))):
        condition = of_study.condition(plane)
        torch.testing.assert_close(condition.image[:, 0], evidence.start[0, 0].permute(stack, rows, columns))
        assert condition.plane.tolist() == [plane] * SHAPE[plane]
        assert torch.equal(condition.shown, torch.full_like(condition.image, 2))
        assert condition.pixel_mm.tolist() == [[MM[rows], MM[columns]]] * SHAPE[plane]
    assert [float(of_study.condition(plane).thickness_mm[0]) for plane in range(3)] == [8, 8, 1]


def test_slices_that_are_alike_have_z_or_y_as_rows():
    of_study, _ = planes((0, 4.0, 0, None), (1, 4.0, 0, None), (2, 4.0, 0, None))
    assert [of_study.order(plane) for plane in range(3)] == [(0, 2, 1), (1, 2, 0), (2, 1, 0)]


@pytest.mark.parametrize(("axis", "telling"), [(0, [1, 2]), (1, [0, 2]), (2, [0, 1])])
def test_one_scan_tells_of_the_planes_across_its_slices(axis, telling):
    assert planes((axis, 3.0, 0, None))[0].telling == telling
    assert planes((axis, 3.0, 0, None), ((axis + 1) % 3, 3.0, 0, None))[0].telling == [0, 1, 2]


def test_what_no_scan_covers_is_zero_and_how_many_cover_the_rest_is_said():
    """Of 5 axial slices 2, from the second on: z from 4 to 11; of 3 sagittal slices the first: x from 0 to 3."""
    of_study, evidence = planes((2, 4.0, 1, 2), (0, 4.0, 0, 1))
    x, _, z = np.indices(SHAPE)
    expected = torch.from_numpy(((z >= 4) & (z < 12)).astype(np.float32) + (x < 4))
    condition = of_study.condition(1)
    assert torch.equal(condition.shown[:, 0], expected.permute(of_study.order(1)))
    assert (condition.image[condition.shown == 0] == 0).all()
    assert float(evidence.start[0, 0][expected == 0].abs().max()) > 0.01, "least squares goes on there"
    seen = condition.shown > 0
    torch.testing.assert_close(condition.image[seen], evidence.start[0, 0].permute(of_study.order(1))[:, None][seen])


def test_a_slice_is_as_thick_as_the_scans_that_show_it():
    """Rows of sagittal slices are z: 8 mm thick where the axial scan lies, 2 mm where the coronal one alone does."""
    of_study, _ = planes((2, 4.0, 0, None), (1, 2.0, 0, None))
    assert of_study.condition(0).thickness_mm.tolist() == [8] * 12
    of_study, _ = planes((2, 4.0, 3, 1), (1, 4.0, 0, 2))
    axial = of_study.condition(2)  # rows are y
    assert axial.thickness_mm.tolist() == pytest.approx([4.0] * 20)
    of_study, _ = planes((0, 4.0, 0, 1), (2, 4.0, 0, 2))
    assert of_study.order(1) == (1, 2, 0)
    assert of_study.condition(0).thickness_mm.tolist() == [8] * 12
    sagittal = planes((0, 4.0, 0, 1))[0].condition(0)
    assert sagittal.thickness_mm.tolist() == pytest.approx([2.0] * 4 + [0.0] * 8), "z is fine there; nothing is shown"


def test_a_study_on_disk_is_told_of_in_its_own_voxels(measure, tiny_head):
    truth, grid = tiny_head
    study = load_study(measure(["axial", "sagittal", "coronal"]))
    of_study = StudyPlanes(Evidence.of(study), grid.voxel_size)
    condition = of_study.condition(1)
    assert condition.image.shape == (21, 1, 16, 18) and (condition.shown == 3).all()
    assert condition.thickness_mm.tolist() == pytest.approx([10.0] * 21)
    assert float((condition.image[:, 0] - torch.from_numpy(truth).permute(1, 2, 0)).square().mean().sqrt()) < 0.1
