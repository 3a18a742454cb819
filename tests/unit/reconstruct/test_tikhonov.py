import dataclasses
from pathlib import Path

import nibabel as nib
import numpy as np
import torch

from headsr.acquisition.measurement import load_study
from headsr.recipes import Method
from headsr.reconstruct.interpolate import fused_average
from headsr.reconstruct.tikhonov import solve_volume, tikhonov
from headsr.render.publish import Outputs

ORTHOGONAL = ("axial", "coronal", "sagittal")


def test_it_beats_the_average_of_three_orthogonal_scans_by_far(measure, psnr_of) -> None:
    study = load_study(measure(ORTHOGONAL))
    assert psnr_of(tikhonov(study, weight=1e-3, iterations=20)) > psnr_of(fused_average(study)) + 2.5


def test_conjugate_gradients_reach_the_solution_of_the_normal_equations(measure) -> None:
    study, weight = load_study(measure(ORTHOGONAL)), 0.05
    x = tikhonov(study, weight=weight, iterations=200).astype(np.float64)
    gradient = sum(s.operator.adjoint(s.operator.forward(torch.from_numpy(x)) - s.data) for s in study.scans).numpy()
    for axis in range(3):
        pad = [(1, 1) if a == axis else (0, 0) for a in range(3)]
        gradient -= weight * np.diff(np.pad(np.diff(x, axis=axis), pad), axis=axis)
    assert np.abs(gradient).max() < 1e-4


def test_a_noisy_scan_counts_less(measure, psnr_of) -> None:
    paths = measure(["axial"], noise=0.005) + measure(["coronal"], noise=0.3)
    study = load_study(paths)
    equal = dataclasses.replace(study, scans=tuple(dataclasses.replace(s, noise=0.005) for s in study.scans))
    weighted, blind = (tikhonov(s, weight=1e-3, iterations=20) for s in (study, equal))
    assert psnr_of(weighted) > psnr_of(blind) + 1


def test_no_iterations_leave_the_average_and_weight_smooths(measure) -> None:
    study = load_study(measure(["axial"]))
    np.testing.assert_array_equal(tikhonov(study, weight=1e-3, iterations=0), fused_average(study))
    sharp, smooth = (np.abs(np.diff(tikhonov(study, weight=w, iterations=30), axis=0)).sum() for w in (1e-3, 10.0))
    assert smooth < 0.7 * sharp


def test_the_volume_is_published_in_scan_units(measure, tmp_path: Path) -> None:
    lowres = measure(ORTHOGONAL)
    outputs = Outputs(
        tmp_path / "sub-01_res-hi_desc-sr_T1w.ome.zarr/zarr.json",
        tmp_path / "sub-01_res-hi_desc-sr_T1w.nii.gz",
        tmp_path / "sub-01_res-hi_desc-sr_T1w.json",
        tmp_path / "sub-01_res-hi_desc-unprojected_T1w.nii.gz",
    )
    solve_volume(lowres, method=Method(kind="tikhonov", title="", weight=1e-3, iterations=5), outputs=outputs)
    study = load_study(lowres)
    unprojected = nib.load(outputs.unprojected).get_fdata()
    np.testing.assert_allclose(
        unprojected, study.scale * tikhonov(study, weight=1e-3, iterations=5), rtol=1e-4, atol=0.01
    )
