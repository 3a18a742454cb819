"""Known answers of the solver: a small dense system, its start, and the smoothness of ramps."""

import numpy as np
import pytest
import torch

from headsr.acquisition.least_squares import conjugate_gradients, gradient, gradient_adjoint, roughness


@pytest.mark.parametrize("start", [None, torch.ones(5, dtype=torch.float64)])
def test_a_small_system_is_solved_in_as_many_steps_as_it_has_unknowns(start):
    rng = np.random.default_rng(0)
    factor = torch.as_tensor(rng.standard_normal((5, 5)))
    matrix, x = factor @ factor.T + torch.eye(5), torch.as_tensor(rng.standard_normal(5))
    found = conjugate_gradients(lambda v: matrix @ v, matrix @ x, iterations=5, start=start)
    torch.testing.assert_close(found, x, atol=1e-9, rtol=0)


def test_nothing_to_do_leaves_the_start_alone():
    start = torch.rand(4, 3, 2)
    found = conjugate_gradients(lambda v: 2 * v, 2 * start, iterations=9, start=start)
    assert torch.equal(found, start) and found is not start


def test_roughness_is_the_gradient_of_half_the_squared_differences():
    x = torch.rand(4, 5, 3, dtype=torch.float64, requires_grad=True)
    steepness = (1.0, 0.25, 4.0)
    half = sum(0.5 * weight * x.diff(dim=axis).square().sum() for axis, weight in enumerate(steepness))
    half.backward()
    torch.testing.assert_close(roughness(x.detach(), steepness), x.grad)
    assert roughness(torch.full((3, 3, 3), 2.0)).abs().max() == 0


def test_the_gradient_has_its_transpose_and_makes_roughness():
    x, p = torch.rand(4, 5, 3, dtype=torch.float64), torch.rand(3, 4, 5, 3, dtype=torch.float64)
    steep = (1.0, 0.25, 4.0)
    torch.testing.assert_close((gradient(x, steep) * p).sum(), (x * gradient_adjoint(p, steep)).sum())
    torch.testing.assert_close(gradient_adjoint(gradient(x, steep), steep), roughness(x, steep))
