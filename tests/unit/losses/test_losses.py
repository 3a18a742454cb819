import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from headsr.losses.adversarial import relativistic_loss, vanilla_loss
from headsr.losses.composite import gradient_shares, loss_terms, weighted_sum
from headsr.losses.gradient import gradient_loss
from headsr.losses.perceptual import perceptual_loss
from headsr.losses.pixel import l1_loss, mse_loss, psnr
from headsr.losses.posterior import kl_divergence
from headsr.losses.wavelet import detail_bands_loss, low_band_loss, stationary_haar, wavelet_loss
from headsr.parts import LOSSES

IMAGE_LOSSES = [l1_loss, mse_loss, gradient_loss, wavelet_loss, low_band_loss, detail_bands_loss]
SHAPES = [(2, 1, 9, 7), (2, 1, 9, 7, 8)]


@pytest.fixture(params=SHAPES, ids=["slices", "blocks"])
def images(request):
    return torch.rand(request.param), torch.rand(request.param)


@pytest.mark.parametrize("loss", IMAGE_LOSSES)
def test_a_loss_of_equal_images_is_zero_and_its_sign_does_not_matter(loss, images):
    a, b = images
    assert loss(a, a) == 0
    assert loss(a, b) == loss(b, a) > 0


@pytest.mark.parametrize("loss", [gradient_loss, wavelet_loss, detail_bands_loss])
def test_edges_are_blind_to_an_offset(loss, images):
    a, b = images
    assert loss(a + 0.5, b) == pytest.approx(loss(a, b).item(), abs=1e-5)


@pytest.mark.parametrize("loss", IMAGE_LOSSES)
def test_no_spatial_axis_is_special(loss, images):
    a, b = images
    turned = loss(a.movedim(2, -1), b.movedim(2, -1))
    assert turned == pytest.approx(loss(a, b).item(), rel=1e-5)


def test_the_gradient_of_a_ramp_is_its_slope():
    ramp = torch.arange(5.0).expand(1, 1, 4, 5)
    assert gradient_loss(2 * ramp, torch.zeros(1, 1, 4, 5)) == 2
    assert gradient_loss((2 * ramp).expand(1, 1, 3, 4, 5), torch.zeros(1, 1, 3, 4, 5)) == 2


def in_two_dimensions(a, b):
    """Gradient and wavelet loss as they were written for slices alone."""
    error, total = a - b, a.new_zeros(())
    gradient = error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean()
    for d in (1, 2):
        w, x, y, z = error[..., :-d, :-d], error[..., :-d, d:], error[..., d:, :-d], error[..., d:, d:]
        error, details = (w + x + y + z) / 2, ((w - x + y - z) / 2, (w + x - y - z) / 2, (w - x - y + z) / 2)
        total = total + sum(band.abs().mean() for band in details)
    return gradient, total / 2


def test_losses_of_slices_are_the_same_to_the_bit_as_those_for_two_axes_alone():
    a, b = torch.rand(2, 1, 33, 20), torch.rand(2, 1, 33, 20)
    gradient, wavelet = in_two_dimensions(a, b)
    assert torch.equal(gradient_loss(a, b), gradient) and torch.equal(wavelet_loss(a, b), wavelet)


def test_psnr_of_a_known_error():
    a = torch.zeros(1, 1, 3, 3)
    assert psnr(a + 0.1, a) == pytest.approx(20, abs=1e-5)
    assert psnr(a + 0.1, a, peak=10.0) == pytest.approx(40, abs=1e-5)
    assert math.isinf(psnr(a, a))


@pytest.mark.parametrize("shape", [(1, 1, 6, 8), (1, 1, 6, 8, 4)])
def test_haar_keeps_the_energy_of_every_cell(shape):
    images = torch.rand(shape)
    every_second = (..., *[slice(None, None, 2)] * (len(shape) - 2))
    energy = sum(band[every_second].square().sum() for band in stationary_haar(images))
    assert energy == pytest.approx(images.square().sum().item(), rel=1e-5)


def test_haar_bands_of_known_patterns():
    columns = torch.tensor([[1.0, -1.0], [1.0, -1.0]])[None, None]
    assert [float(band) for band in stationary_haar(columns)] == [0, 2, 0, 0]
    assert [float(band) for band in stationary_haar(columns.mT)] == [0, 0, 2, 0]
    assert [float(band) for band in stationary_haar(torch.ones(1, 1, 2, 2))] == [2, 0, 0, 0]


@pytest.mark.parametrize("shape", [(2, 1, 6, 8), (2, 1, 6, 8, 4)])
def test_both_parts_of_the_bands_together_are_the_mean_squared_error(shape):
    """Of an error that is zero at the border, where cells of two voxels reach beyond the image."""
    error = F.pad(torch.rand(shape), [1, 1] * (len(shape) - 2))
    nothing = torch.zeros_like(error)
    cells = math.prod((n - 1) / n for n in error.shape[2:])
    together = cells * (low_band_loss(error, nothing) + detail_bands_loss(error, nothing))
    assert together == pytest.approx(mse_loss(error, nothing).item(), rel=1e-5)


def test_what_is_even_is_in_the_low_band_and_what_changes_sign_from_pixel_to_pixel_in_the_details():
    even, nothing = torch.full((1, 2, 8, 10), 0.5), torch.zeros(1, 2, 8, 10)
    rows, columns = torch.arange(8.0)[:, None], torch.arange(10.0)
    for odd in (rows + 0 * columns, 0 * rows + columns, rows + columns):
        assert detail_bands_loss(even * (1 - 2 * (odd % 2)), nothing) == pytest.approx(0.25)
        assert low_band_loss(even * (1 - 2 * (odd % 2)), nothing) == 0
    assert low_band_loss(even, nothing) == pytest.approx(0.25) and detail_bands_loss(even, nothing) == 0


def test_the_wavelet_loss_favours_no_shift():
    edge = torch.zeros(1, 1, 16, 16)
    edge[..., 8:] = 1
    nothing = torch.zeros_like(edge)
    assert wavelet_loss(edge, nothing) == pytest.approx(
        wavelet_loss(edge.roll(1, -1)[..., 1:], nothing[..., 1:]).item(), rel=0.1
    )


@pytest.mark.parametrize(
    ("mean", "log_variance", "expected"), [(0.0, 0.0, 0.0), (2.0, 0.0, 2.0), (0.0, 1.0, 0.5 * (2.718282 - 2))]
)
def test_the_divergence_from_the_standard_normal_is_known(mean, log_variance, expected):
    shape = (2, 4, 3, 3)
    loss = kl_divergence(torch.full(shape, mean), torch.full(shape, log_variance))
    assert loss.item() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("loss", [vanilla_loss, relativistic_loss])
def test_a_discriminator_that_knows_nothing_costs_twice_log_two(loss):
    undecided = torch.full((2, 1, 3, 3), 0.7 if loss is relativistic_loss else 0.0)
    assert loss(undecided, undecided).item() == pytest.approx(2 * math.log(2), abs=1e-6)
    sure = torch.full((2, 1, 3, 3), 20.0)
    assert loss(sure, -sure) < 1e-6 < 20 < loss(-sure, sure)


def test_a_relativistic_verdict_is_beside_the_other_side_s_mean():
    real, made = torch.tensor([2.0, 0.0]), torch.tensor([-1.0, 1.0])
    expected = sum(math.log1p(math.exp(-x)) for x in (2, 0)) / 2 + sum(math.log1p(math.exp(x)) for x in (-2, 0)) / 2
    assert relativistic_loss(real, made).item() == pytest.approx(expected, abs=1e-6)
    assert relativistic_loss(real + 5, made + 5).item() == pytest.approx(expected, abs=1e-5)


class Doubled(nn.Module):
    def features(self, images):
        return [2 * images, images.mean(dim=(2, 3))]


def test_a_perceptual_loss_is_the_mean_difference_of_features():
    a, b = torch.rand(SHAPES[0]), torch.rand(SHAPES[0])
    expected = (2 * (a - b).abs().mean() + (a.mean(dim=(2, 3)) - b.mean(dim=(2, 3))).abs().mean()) / 2
    assert perceptual_loss(a, b, Doubled()).item() == pytest.approx(expected.item(), rel=1e-6)


def test_terms_are_those_of_what_is_offered_and_the_sum_is_weighted():
    a, b = torch.rand(SHAPES[0]), torch.rand(SHAPES[0])
    names = ("l1", "gradient", "kl", "perceptual")
    terms = loss_terms(names, {"images": (a, b)}, {"perceptual": Doubled()})
    assert set(terms) == {"l1", "gradient", "perceptual"}
    assert set(loss_terms(names, {"posterior": (a, b)}, {})) == {"kl"}
    weights = {"l1": 2.0, "gradient": 0.5, "perceptual": 0.0, "kl": 9.0}
    assert weighted_sum(terms, weights) == 2 * l1_loss(a, b) + 0.5 * gradient_loss(a, b)


def test_every_loss_of_the_table_is_there():
    assert all(callable(part.load()) for part in LOSSES.values())


def test_shares_of_the_gradient_are_those_of_each_weighted_term_alone():
    network = torch.nn.Linear(2, 1)
    torch.nn.init.constant_(network.weight, 3.0)
    terms = {"pulls": network.weight.square().sum() / 2, "less": (network.weight - 1).square().sum() / 2}
    shares = gradient_shares(
        {**terms, "constant": torch.tensor(1.0)}, {"pulls": 1.0, "less": 0.5, "constant": 9.0}, network
    )
    assert shares == pytest.approx({"pulls": 0.75, "less": 0.25, "constant": 0.0})  # 3 and 2 times a half per weight
    assert network.weight.grad is None
    (terms["pulls"] + terms["less"]).backward()
    assert network.weight.grad.tolist() == [[5.0, 5.0]]


def test_one_term_has_no_share_and_neither_have_terms_that_do_not_pull():
    network = torch.nn.Linear(2, 1)
    assert gradient_shares({"l1": network.weight.sum()}, {"l1": 1.0}, network) == {}
    assert gradient_shares({"a": 0 * network.weight.sum(), "b": torch.tensor(1.0)}, {"a": 1.0, "b": 1.0}, network) == {}
