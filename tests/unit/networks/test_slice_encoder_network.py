import pytest
import torch

from headsr.losses.answers import cross_entropy, smooth_l1
from headsr.networks.build import build_network

BLOCK = {"architecture": "slice_encoder", "channels": [8, 16, 24], "blocks": 1, "unshuffle": 2}


@pytest.fixture(scope="module")
def encoder():
    torch.manual_seed(0)
    network = build_network(BLOCK)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape))  # residual branches start at zero
    return network.eval().requires_grad_(False)


@pytest.mark.parametrize("size", [(16, 16), (33, 47), (8, 100)])
def test_slices_of_any_size_have_answers(encoder, size):
    answers = encoder(torch.rand(5, 1, *size))
    assert [tuple(answer.shape) for answer in answers] == [(5, 3), (5, 1), (5, 3)]
    assert encoder.embedding(torch.rand(5, 1, *size)).shape == (5, 24)


def test_features_are_maps_that_get_coarser(encoder):
    maps = encoder.features(torch.rand(2, 1, 32, 40))
    assert [tuple(level.shape) for level in maps] == [(2, 8, 16, 20), (2, 16, 8, 10), (2, 24, 4, 5)]


def test_what_lies_far_away_changes_no_feature(encoder):
    """Every layer is local, so that a crop has the features that its place in the slice has."""
    slices = torch.rand(1, 1, 160, 160)
    crop = encoder.features(slices[..., 24:136, 24:136])[-1]
    whole = encoder.features(slices)[-1]
    assert torch.allclose(crop[..., 6:8, 6:8], whole[..., 9:11, 9:11], atol=1e-6)


def test_a_slice_has_the_features_that_it_has_alone(encoder):
    slices = torch.rand(3, 1, 24, 24)
    alone = torch.cat([encoder.embedding(one[None]) for one in slices])
    assert torch.allclose(encoder.embedding(slices), alone, atol=1e-6)


def test_the_network_of_the_recipe_has_half_a_million_parameters():
    network = build_network({"architecture": "slice_encoder", "channels": [32, 64, 128], "blocks": 1})
    assert 300_000 < sum(parameter.numel() for parameter in network.parameters()) < 1_000_000


def test_losses_of_answers():
    scores = torch.tensor([[0.0, 0.0, 0.0], [100.0, 0.0, 0.0]])
    assert cross_entropy(scores, torch.tensor([1, 0])).item() == pytest.approx(0.5 * 1.0986, abs=1e-4)
    assert smooth_l1(torch.tensor([0.0, 0.0]), torch.tensor([1.0, 0.05])).item() == pytest.approx((0.95 + 0.0125) / 2)
