"""The RRDB generator: its published size, its equation, and what it starts from."""

import pytest
import torch
import torch.nn.functional as F

from headsr.networks.build import check_network
from headsr.networks.rrdb import DenseBlock, ResidualDenseNetwork


@pytest.mark.parametrize(("scale", "parameters"), [(4, 16_695_681), (2, 16_697_409), (1, 16_704_321)])
def test_it_has_the_published_number_of_parameters(scale, parameters):
    network = check_network({"architecture": "rrdb", "scale": scale, "skip": False})
    assert sum(p.numel() for p in network.parameters()) == parameters


@pytest.mark.parametrize(("scale", "shape"), [(1, (17, 22)), (2, (9, 14)), (4, (7, 5))])
def test_odd_slices_come_out_larger_and_training_starts_from_the_interpolated_ones(scale, shape):
    network, images = ResidualDenseNetwork(channels=8, blocks=1, growth=4, scale=scale), torch.rand(2, 1, *shape)
    made = network(images)
    assert made.shape == (2, 1, *(scale * n for n in shape))
    assert torch.equal(made, images if scale == 1 else F.interpolate(images, scale_factor=scale, mode="bicubic"))


def test_without_the_skip_it_is_the_network_of_the_papers():
    network, images = ResidualDenseNetwork(channels=8, blocks=1, growth=4, scale=4, skip=False), torch.rand(1, 1, 8, 8)
    assert network.last.weight.abs().sum() > 0
    assert (network(images + 1) - network(images)).mean().abs() < 1, "nothing carries the input around the network"


def test_a_dense_block_adds_a_fifth_of_what_five_convolutions_make_of_all_before_them():
    block, features = DenseBlock(4, 2), torch.randn(1, 4, 6, 6)
    first, second, third, fourth, last = block.convolutions
    a = F.leaky_relu(first(features), 0.2)
    b = F.leaky_relu(second(torch.cat([features, a], 1)), 0.2)
    c = F.leaky_relu(third(torch.cat([features, a, b], 1)), 0.2)
    d = F.leaky_relu(fourth(torch.cat([features, a, b, c], 1)), 0.2)
    assert torch.allclose(block(features), features + 0.2 * last(torch.cat([features, a, b, c, d], 1)))
    assert first.weight.std() < 0.1 * (2 / (9 * 4)) ** 0.5 * 1.5, "begins small"


def test_a_part_of_a_slice_gives_what_the_whole_gives_there():
    torch.manual_seed(0)
    network, images = (
        ResidualDenseNetwork(channels=8, blocks=1, growth=4, scale=4, skip=False),
        torch.rand(1, 1, 64, 64),
    )
    with torch.no_grad():
        whole, part = network(images), network(images[..., 8:56, 8:56])
    assert torch.allclose(whole[..., 128:-128, 128:-128], part[..., 96:-96, 96:-96], atol=1e-5)


def test_it_makes_no_other_scale():
    with pytest.raises(ValueError, match="scale 3"):
        ResidualDenseNetwork(scale=3)
