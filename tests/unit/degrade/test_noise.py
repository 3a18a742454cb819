import math

import pytest
import torch

from headsr.degrade.noise import add_poisson, add_rician, add_transmission, correlate, white_noise


def test_air_is_rayleigh_and_tissue_nearly_gaussian():
    noise = white_noise([3], (300, 300), "cpu") * 0.05
    air, tissue = (add_rician(torch.full((1, 300, 300), value), noise) for value in (0.0, 1.0))
    assert abs(float(air.mean()) / 0.05 - math.sqrt(math.pi / 2)) < 0.02
    assert abs(float(tissue.std()) / 0.05 - 1) < 0.02
    assert abs(float(tissue.mean()) - (1 + 0.05**2 / 2)) < 1e-3


def test_each_sample_has_its_own_seed():
    noise = white_noise([5, 6, 5], (9, 7), "cpu")
    assert torch.equal(noise[0], noise[2]) and not torch.equal(noise[0], noise[1])
    assert torch.equal(white_noise([6], (9, 7), "cpu")[0], noise[1])


def test_correlation_keeps_the_variance_and_correlates_neighbours():
    noise = white_noise(range(8), (65, 64), "cpu")
    smooth = correlate(noise, torch.tensor([[0.0, 1.2]]).repeat(8, 1))
    assert abs(float(smooth.std()) - 1) < 0.03
    columns = float((smooth[..., 1:] * smooth[..., :-1]).mean())
    rows = float((smooth[..., 1:, :] * smooth[..., :-1, :]).mean())
    # Neighbours of white noise through a Gaussian of width s have the correlation exp(-1 / (4 s^2)).
    assert abs(columns - math.exp(-1 / (4 * 1.2**2))) < 0.03
    assert abs(rows) < 0.03


def test_no_width_leaves_noise_white():
    noise = white_noise([1, 2], (15, 20), "cpu")
    torch.testing.assert_close(correlate(noise, torch.zeros(2, 2)), noise, atol=1e-5, rtol=0)


@pytest.mark.parametrize("photons", [30.0, 2e4])
def test_counting_has_the_variance_x_over_photons_and_leaves_the_mean(photons):
    images = torch.tensor([0.2, 1.0])[:, None, None].expand(2, 300, 300)
    noisy = add_poisson(images, torch.full((2,), photons), [1, 2])
    for image, value in zip(noisy, (0.2, 1.0), strict=True):
        assert abs(float(image.var()) / (value / photons) - 1) < 0.02
        assert abs(float(image.mean()) - value) < 4 * math.sqrt(value / photons) / 300


def test_counting_leaves_what_is_below_zero_and_the_seed_decides():
    images = torch.tensor([-0.3, 0.5])[:, None, None].expand(2, 20, 20)
    first, again, other = (add_poisson(images, torch.full((2,), 100.0), seeds) for seeds in ([5, 6], [5, 6], [6, 5]))
    torch.testing.assert_close(first[0], images[0])
    assert torch.equal(first, again) and not torch.equal(first[1], other[1])
    assert torch.equal(add_poisson(images[1:], torch.tensor([100.0]), [6])[0], first[1])


def test_photons_that_pass_make_the_dense_noisy():
    images = torch.tensor([0.1, 0.9])[:, None, None].expand(2, 300, 300)
    noisy = add_transmission(images, torch.full((2,), 1e5), torch.full((2,), 4.0), [3, 4])
    for image, value in zip(noisy, (0.1, 0.9), strict=True):
        assert abs(float(image.var()) / (math.exp(4 * value) / (1e5 * 16)) - 1) < 0.03
        assert abs(float(image.mean()) - value) < 1e-4
    dark = add_transmission(torch.full((1, 50, 50), 2.0), torch.tensor([50.0]), torch.tensor([6.0]), [1])
    assert torch.isfinite(dark).all()
