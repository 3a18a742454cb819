import math

import torch

from headsr.degrade.noise import add_rician, correlate, white_noise


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
