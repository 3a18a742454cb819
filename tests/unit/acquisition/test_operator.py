"""The forward model: exact block means, an exact transpose, and constants that stay constant."""

import numpy as np
import pytest
import torch

from headsr.acquisition.operator import Acquisition
from headsr.volumes import Grid

HEAD = Grid((13, 10, 17), np.diag([1.0, 1.2, 0.9, 1.0]))


@pytest.mark.parametrize("profile", ["box", "gaussian", "cubic"])
@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("factor", [2, 4, 3.3])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.float64, 1e-12)])
def test_adjoint_dot_product(profile, axis, factor, dtype, tolerance):
    operator = Acquisition(HEAD, HEAD.thick(axis, factor), axis=axis, profile=profile, dtype=dtype)
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(2, *HEAD.shape, generator=generator, dtype=dtype)
    y = torch.rand(2, *operator.scan.shape, generator=generator, dtype=dtype)
    forward = torch.sum(operator.forward(x).double() * y.double())
    adjoint = torch.sum(x.double() * operator.adjoint(y).double())
    assert abs(forward - adjoint) <= tolerance * abs(forward)


@pytest.mark.parametrize("profile", ["box", "gaussian", "cubic"])
def test_a_constant_stays_that_constant(profile):
    operator = Acquisition(HEAD, HEAD.thick(2, 3.7), axis=2, profile=profile, thickness=5.0)
    assert torch.allclose(operator.forward(torch.full(HEAD.shape, 2.5)), torch.tensor(2.5), atol=1e-5)


def test_integer_factor_with_box_profile_is_the_block_mean():
    head = Grid((6, 5, 12), np.eye(4))
    x = torch.rand(head.shape)
    operator = Acquisition(head, head.thick(2, 4), axis=2)
    assert torch.allclose(operator.forward(x), x.reshape(6, 5, 3, 4).mean(-1), atol=1e-6)


def test_a_gap_between_slices_is_not_measured():
    head = Grid((4, 4, 12), np.eye(4))
    operator = Acquisition(head, head.thick(2, 4), axis=2, thickness=2.0)
    x = torch.zeros(head.shape)
    x[..., [0, 3, 4, 7, 8, 11]] = 100.0  # the gaps: each slice covers the middle two of its four cells
    assert operator.forward(x).abs().max() == 0


def test_gradient_is_the_adjoint():
    operator = Acquisition(HEAD, HEAD.thick(0, 4), axis=0)
    x = torch.zeros(HEAD.shape, requires_grad=True)
    y = torch.rand(operator.scan.shape)
    torch.sum(operator.forward(x) * y).backward()
    assert torch.allclose(x.grad, operator.adjoint(y), atol=1e-6)


def test_gaussian_has_its_full_width_at_half_maximum():
    head = Grid((2, 2, 401), np.diag([1, 1, 0.05, 1.0]))
    scan = Grid((2, 2, 1), np.array([[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 20.05, 10.0], [0, 0, 0, 1.0]]))
    operator = Acquisition(head, scan, axis=2, profile="gaussian", thickness=4.0)
    response = operator.adjoint(torch.ones(2, 2, 1))[0, 0]
    width = 0.05 * int((response >= 0.5 * response.max()).sum())
    assert abs(width - 4.0) <= 0.1
