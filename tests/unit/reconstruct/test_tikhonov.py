import dataclasses

import numpy as np
import pytest
import torch
from tiny_methods import METHODS

from headsr.acquisition.measurement import load_study
from headsr.recipes import Tikhonov
from headsr.reconstruct.estimate import estimate_of
from headsr.reconstruct.interpolate import fused_average
from headsr.reconstruct.tikhonov import tikhonov

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


def test_its_recipe_decides_weight_and_iterations(measure) -> None:
    study, method = load_study(measure(ORTHOGONAL)), METHODS["tikhonov"]
    estimate = estimate_of(study, method, {})
    np.testing.assert_array_equal(estimate.volume, tikhonov(study, weight=method.weight, iterations=method.iterations))
    assert estimate.record == {}


@pytest.mark.parametrize("noise", [0.0, 0.01, 0.03, 0.1])
@pytest.mark.parametrize("views", [("axial",), ORTHOGONAL], ids=len)
@pytest.mark.parametrize("factor", [2, 4])
def test_the_chosen_weight_is_within_a_tenth_of_a_decibel_of_the_best(measure, psnr_of, factor, views, noise) -> None:
    study = load_study(measure(views, factor=factor, noise=noise))
    estimate = estimate_of(study, Tikhonov(iterations=30), {})
    swept = [psnr_of(tikhonov(study, weight=10 ** (half / 2), iterations=30)) for half in range(-10, 4)]
    assert psnr_of(estimate.volume) > max(swept) - 0.1
    assert max(swept) - min(swept) > 1
    chosen = estimate.record["smoothness"]
    np.testing.assert_array_equal(estimate.volume, tikhonov(study, weight=chosen["weight"], iterations=30))
    assert len(chosen["curve"]) >= 2


def test_unequal_noise_is_weighed_and_the_weight_is_near_the_best(measure, psnr_of) -> None:
    study = load_study(measure(["axial"], noise=0.01) + measure(["coronal", "sagittal"], noise=0.05))
    swept = [psnr_of(tikhonov(study, weight=10 ** (half / 2), iterations=30)) for half in range(-10, 4)]
    assert psnr_of(estimate_of(study, Tikhonov(iterations=30), {}).volume) > max(swept) - 0.1
