import math

import pytest
import torch

from headsr.losses.composite import image_terms, refuse_unknown_terms, weighted_sum
from headsr.losses.gradient import gradient_loss
from headsr.losses.pixel import l1_loss, psnr
from headsr.losses.wavelet import stationary_haar, wavelet_loss


@pytest.fixture
def images():
    return torch.rand(2, 1, 9, 7), torch.rand(2, 1, 9, 7)


@pytest.mark.parametrize("loss", [l1_loss, gradient_loss, wavelet_loss])
def test_a_loss_of_equal_images_is_zero_and_its_sign_does_not_matter(loss, images):
    a, b = images
    assert loss(a, a) == 0
    assert loss(a, b) == loss(b, a) > 0


@pytest.mark.parametrize("loss", [gradient_loss, wavelet_loss])
def test_edges_are_blind_to_an_offset(loss, images):
    a, b = images
    assert loss(a + 0.5, b) == pytest.approx(loss(a, b).item(), abs=1e-5)


def test_the_gradient_of_a_ramp_is_its_slope():
    ramp = torch.arange(5.0).expand(1, 1, 4, 5)
    assert gradient_loss(2 * ramp, torch.zeros(1, 1, 4, 5)) == 2


def test_psnr_of_a_known_error():
    a = torch.zeros(1, 1, 3, 3)
    assert psnr(a + 0.1, a) == pytest.approx(20, abs=1e-5)
    assert psnr(a + 0.1, a, peak=10.0) == pytest.approx(40, abs=1e-5)
    assert math.isinf(psnr(a, a))


def test_haar_keeps_the_energy_of_every_two_by_two_block():
    images = torch.rand(1, 1, 6, 8)
    bands = stationary_haar(images)
    energy = sum(band[..., ::2, ::2].square().sum() for band in bands)
    assert energy == pytest.approx(images.square().sum().item(), rel=1e-5)


def test_haar_bands_of_known_patterns():
    columns = torch.tensor([[1.0, -1.0], [1.0, -1.0]])[None, None]
    assert [float(band) for band in stationary_haar(columns)] == [0, 2, 0, 0]
    assert [float(band) for band in stationary_haar(columns.mT)] == [0, 0, 2, 0]
    assert [float(band) for band in stationary_haar(torch.ones(1, 1, 2, 2))] == [2, 0, 0, 0]


def test_the_wavelet_loss_favours_no_shift():
    edge = torch.zeros(1, 1, 16, 16)
    edge[..., 8:] = 1
    nothing = torch.zeros_like(edge)
    assert wavelet_loss(edge, nothing) == pytest.approx(
        wavelet_loss(edge.roll(1, -1)[..., 1:], nothing[..., 1:]).item(), rel=0.1
    )


def test_terms_are_unweighted_and_the_sum_is_weighted(images):
    terms = image_terms({"l1": 2.0, "gradient": 0.5, "kl": 1.0}, *images)
    assert set(terms) == {"l1", "gradient"}
    weights = {"l1": 2.0, "gradient": 0.5}
    assert weighted_sum(terms, weights) == 2 * l1_loss(*images) + 0.5 * gradient_loss(*images)


def test_an_unknown_loss_or_none_is_refused():
    with pytest.raises(ValueError, match=r"losses\.l2 is not a loss of this training; known: l1, kl"):
        refuse_unknown_terms({"l2": 1.0}, ("l1", "kl"))
    with pytest.raises(ValueError, match="at least one weight"):
        refuse_unknown_terms({"l1": 0.0}, ("l1",))
