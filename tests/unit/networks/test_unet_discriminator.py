"""The discriminator that judges every pixel."""

import torch

from headsr.networks.build import check_network
from headsr.networks.unet_discriminator import UnetDiscriminator


def test_it_has_the_published_number_of_parameters():
    network = check_network({"architecture": "unet_discriminator"})
    assert sum(p.numel() for p in network.parameters()) == 4_375_745


def test_every_pixel_of_odd_images_has_a_verdict():
    assert UnetDiscriminator(channels=4)(torch.rand(2, 1, 21, 30)).shape == (2, 1, 21, 30)


def test_convolutions_between_the_first_and_the_last_stretch_nothing():
    network = UnetDiscriminator(channels=4)
    for _ in range(100):  # power iterations
        network(torch.rand(1, 1, 16, 16))
    inner = [*network.down, *network.up, *network.fine]
    assert len(inner) == 8
    for convolution in inner:
        assert abs(torch.linalg.matrix_norm(convolution.weight.flatten(1), ord=2) - 1) < 0.02


def test_verdicts_are_of_the_image_alone():
    network, images = UnetDiscriminator(channels=4).eval(), torch.rand(3, 1, 16, 16)
    assert torch.allclose(network(images)[1], network(images[1:2])[0], atol=1e-5)
