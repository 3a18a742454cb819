import pytest
import torch

from headsr.degrade.bias import WAVES, bias_field


def fields(shape, n=4, seed=0):
    weights = torch.randn(n, WAVES, WAVES, generator=torch.Generator().manual_seed(seed))
    return bias_field(shape, weights=weights, strength=torch.linspace(0.1, 0.4, n))


@pytest.mark.parametrize("shape", [(48, 48), (33, 70), (5, 8)])
def test_a_field_reaches_both_extremes_and_nothing_beyond(shape):
    strength = torch.linspace(0.1, 0.4, 4)
    made = fields(shape)
    assert made.shape == (4, *shape)
    torch.testing.assert_close(made.amax((1, 2)), 1 + strength)
    torch.testing.assert_close(made.amin((1, 2)), 1 - strength)


def test_a_field_is_smooth():
    made = fields((64, 64))
    steps = torch.maximum(made.diff(dim=1).abs().amax((1, 2)), made.diff(dim=2).abs().amax((1, 2)))
    # Three half periods over 64 pixels: the steepest step of the full range is pi * 3 / 64 of half of it.
    assert (steps < 1.1 * torch.pi * 3 / 64 * torch.linspace(0.1, 0.4, 4)).all()


def test_only_smooth_waves_count():
    weights = torch.zeros(1, WAVES, WAVES)
    weights[0, 1, 0] = 1.0
    rough = weights.clone()
    rough[0, 3, 3] = rough[0, 0, 0] = 9.0
    first, second = (bias_field((20, 30), weights=w, strength=torch.tensor([0.3])) for w in (weights, rough))
    assert torch.equal(first, second)
    assert torch.equal(first, first[:, :, :1].expand_as(first))
