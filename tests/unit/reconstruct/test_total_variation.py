"""Total variation: another solver's solution, constants, edges, and the chosen weight."""

import dataclasses

import numpy as np
import pytest
import torch
from tiny_methods import METHODS

from headsr.acquisition.least_squares import gradient
from headsr.acquisition.measurement import Study, load_study
from headsr.recipes import TotalVariation
from headsr.reconstruct.estimate import estimate_of
from headsr.reconstruct.interpolate import fused_average
from headsr.reconstruct.tikhonov import tikhonov
from headsr.reconstruct.total_variation import least_variation

ORTHOGONAL = ("axial", "coronal", "sagittal")


def objective(study: Study, x: torch.Tensor, weight: float, edge: float = 0.0) -> torch.Tensor:
    """What is minimised for equal noise; a little ``edge`` makes it smooth."""
    misfit = sum((s.operator.forward(x) - s.data).double().square().sum() for s in study.scans)
    return 0.5 * misfit + weight * (gradient(x).double().square().sum(0) + edge**2).sqrt().sum()


def by_descent(study: Study, weight: float) -> torch.Tensor:
    """The minimum by quasi-Newton descent, with edges rounded ever less."""
    x = torch.as_tensor(fused_average(study)).double().requires_grad_()
    for edge in (1e-2, 1e-3, 1e-4, 1e-5):
        descent = torch.optim.LBFGS([x], max_iter=300, history_size=30, line_search_fn="strong_wolfe")

        def slope(edge: float = edge, descent: torch.optim.Optimizer = descent) -> torch.Tensor:
            descent.zero_grad()
            value = objective(study, x, weight, edge)
            value.backward()
            return value

        descent.step(slope)
    return x.detach()


@pytest.mark.parametrize("weight", [1e-3, 0.03])
@pytest.mark.parametrize("views", [("axial",), ORTHOGONAL], ids=len)
def test_it_ends_at_the_minimum_that_another_solver_finds(measure, views, weight) -> None:
    study = load_study(measure(views))
    x, least = torch.as_tensor(least_variation(study, weight=weight, iterations=300)), by_descent(study, weight)
    at_start = float(objective(study, torch.as_tensor(fused_average(study)), weight))
    reached, expected = float(objective(study, x, weight)), float(objective(study, least, weight))
    assert abs(reached - expected) < 2e-3 * (at_start - expected)


def test_a_constant_head_stays_constant(measure) -> None:
    study = load_study(measure(ORTHOGONAL))
    flat = (dataclasses.replace(s, data=torch.full_like(s.data, 0.7)) for s in study.scans)
    x = least_variation(dataclasses.replace(study, scans=tuple(flat)), weight=0.1, iterations=30)
    np.testing.assert_allclose(x, 0.7, atol=1e-5)


def test_it_keeps_an_edge_that_least_squares_blurs(measure, tiny_head) -> None:
    study = load_study(measure(ORTHOGONAL, noise=0.0))
    step = torch.zeros(tiny_head[0].shape)
    step[7:] = 1.0
    noise = 0.1 * torch.randn(step.shape, generator=torch.Generator().manual_seed(2))
    scans = tuple(dataclasses.replace(s, data=s.operator.forward(step + noise), noise=0.05) for s in study.scans)
    study = dataclasses.replace(study, scans=scans)
    sharp = estimate_of(study, TotalVariation(), {}).volume
    blurred = [tikhonov(study, weight=weight, iterations=30) for weight in (0.01, 0.1, 1.0)]
    assert np.abs(sharp - step.numpy()).mean() < 0.5 * min(np.abs(x - step.numpy()).mean() for x in blurred)


def test_its_recipe_decides_weight_and_steps(measure) -> None:
    study, method = load_study(measure(ORTHOGONAL)), METHODS["tv"]
    estimate = estimate_of(study, method, {})
    expected = least_variation(study, weight=method.weight, iterations=method.iterations)
    np.testing.assert_array_equal(estimate.volume, expected)
    assert estimate.record == {}
    np.testing.assert_array_equal(least_variation(study, weight=0.0, iterations=9), fused_average(study))


@pytest.mark.parametrize("noise", [0.0, 0.01, 0.03, 0.1])
@pytest.mark.parametrize("views", [("axial",), ORTHOGONAL], ids=len)
def test_the_chosen_weight_is_within_a_tenth_of_a_decibel_of_the_best(measure, psnr_of, views, noise) -> None:
    study = load_study(measure(views, noise=noise))
    estimate = estimate_of(study, TotalVariation(), {})
    swept = [psnr_of(least_variation(study, weight=10 ** (half / 2), iterations=100)) for half in range(-8, 2)]
    assert psnr_of(estimate.volume) > max(swept) - 0.1
    assert max(swept) - min(swept) > 1
    chosen = estimate.record["smoothness"]["weight"]
    np.testing.assert_array_equal(estimate.volume, least_variation(study, weight=chosen, iterations=100))
