"""The U-Net on slices."""

import pytest
import torch

from headsr.networks.slice_unet import SliceUnet


@pytest.mark.parametrize("shape", [(17, 22), (8, 8), (5, 3)])
def test_training_starts_from_the_interpolated_slice(shape):
    images = torch.rand(2, 1, *shape)
    assert torch.equal(SliceUnet(channels=[4, 6, 8])(images), images)


def test_it_has_the_number_of_parameters_that_its_layers_have():
    a, b = 4, 6
    block, convolution = (lambda c: 2 * (9 * c * c + c)), (lambda i, o: 9 * i * o + o)
    expected = convolution(1, a) + block(a) + convolution(a, b) + block(b)
    expected += convolution(b, a) + convolution(2 * a, a) + block(a) + convolution(a, 1)
    assert sum(p.numel() for p in SliceUnet(channels=[a, b]).parameters()) == expected


def test_every_level_has_a_say():
    network, images = SliceUnet(channels=[4, 6, 8], blocks=2), torch.rand(1, 1, 16, 16)
    torch.nn.init.normal_(network.last.weight)
    network(images).square().sum().backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in network.parameters())
