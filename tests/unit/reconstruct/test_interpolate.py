import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation
from tiny_methods import METHODS

from headsr.acquisition.measurement import Measurement, load_study
from headsr.acquisition.operator import Acquisition
from headsr.reconstruct.estimate import estimate_of
from headsr.reconstruct.interpolate import average_of, fused_average, in_view, spline_of
from headsr.volumes import Grid


def test_the_average_uses_all_scans_and_the_spline_the_first(measure, psnr_of) -> None:
    study = load_study(measure(["coronal", "axial", "sagittal"]))
    splines = [spline_of(scan, study.head) for scan in study.scans]
    np.testing.assert_array_equal(estimate_of(study, METHODS["spline"], {}).volume, splines[0])
    np.testing.assert_array_equal(estimate_of(study, METHODS["average"], {}).volume, fused_average(study))
    assert all(volume.shape == study.head.shape for volume in splines)
    np.testing.assert_allclose(fused_average(study), sum(splines) / 3, atol=1e-6)
    assert psnr_of(fused_average(study)) > max(map(psnr_of, splines))


@pytest.mark.parametrize("factor", [2, 3, 4.5])
def test_a_constant_stays_that_constant(measure, factor: float) -> None:
    study = load_study(measure(["axial", "sagittal"], factor=factor))
    for scan in study.scans:
        scan.data.fill_(0.7)
    np.testing.assert_allclose(fused_average(study), 0.7, atol=1e-6)


def test_the_average_is_over_the_scans_that_saw_a_place(measure) -> None:
    study = load_study(measure(["axial", "coronal"]))
    first, second = study.scans
    lower = Grid((*second.operator.scan.shape[:2], second.operator.scan.shape[2] // 2), second.operator.scan.affine)
    operator = Acquisition(study.head, lower, axis=1)
    partial = Measurement("coronal", operator, second.data[..., : lower.shape[2]], second.noise)
    fused = average_of([first, partial], study.head)
    below = in_view(lower, study.head)
    assert 0.4 < below.mean() < 0.6
    np.testing.assert_allclose(fused[~below], spline_of(first, study.head)[~below], atol=1e-6)
    both = (spline_of(first, study.head) + spline_of(partial, study.head)) / 2
    np.testing.assert_allclose(fused[below], both[below], atol=1e-6)


def test_a_turned_scan_is_interpolated_where_it_lies(measure) -> None:
    study = load_study(measure(["axial"], factor=2))
    (scan,) = study.scans
    middle, turn = study.head.corners.mean(axis=0), np.eye(4)
    turn[:3, :3] = Rotation.from_euler("z", 20, degrees=True).as_matrix()
    turn[:3, 3] = middle - turn[:3, :3] @ middle
    placed = Grid(scan.operator.scan.shape, turn @ scan.operator.scan.affine)
    operator = Acquisition(study.head, placed, axis=2, thickness=float(placed.voxel_size[2]))
    turned = Measurement("axial", operator, operator.forward(torch.as_tensor(spline_of(scan, study.head))), 0.0)
    inside = in_view(placed, study.head)
    assert 0.6 < inside.mean() < 1.0
    error = (spline_of(turned, study.head) - spline_of(scan, study.head))[inside]
    assert np.sqrt(np.mean(error**2)) < 0.25 * spline_of(scan, study.head)[inside].std()
