"""The discriminator that judges every pixel."""

import torch

from headsr.networks.build import check_network
from headsr.networks.spectral_norm import iterate_spectral_norms
from headsr.networks.unet_discriminator import UnetDiscriminator


def test_it_has_the_published_number_of_parameters():
    network = check_network({"architecture": "unet_discriminator"})
    assert sum(p.numel() for p in network.parameters()) == 4_375_745


def test_every_pixel_of_odd_images_has_a_verdict():
    assert UnetDiscriminator(channels=4)(torch.rand(2, 1, 21, 30)).shape == (2, 1, 21, 30)


def test_convolutions_between_the_first_and_the_last_stretch_nothing():
    network = UnetDiscriminator(channels=4)
    for _ in range(100):
        iterate_spectral_norms(network)
    inner = [*network.down, *network.up, *network.fine]
    assert len(inner) == 8
    for convolution in inner:
        assert abs(torch.linalg.matrix_norm(convolution.weight.flatten(1), ord=2) - 1) < 0.02


def test_a_forward_pass_changes_nothing_and_an_iteration_no_weight():
    network = UnetDiscriminator(channels=4)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    network(torch.rand(2, 1, 16, 16)).mean().backward()
    assert all(map(torch.equal, before.values(), network.state_dict().values()))
    iterate_spectral_norms(network)
    changed = {
        name.split(".")[-1] for name, tensor in network.state_dict().items() if not torch.equal(tensor, before[name])
    }
    assert changed == {"left", "right"}


def test_its_gradients_are_those_of_weights_over_their_singular_value():
    network = UnetDiscriminator(channels=4).double()
    for _ in range(300):
        iterate_spectral_norms(network)
    layer = network.fine[0]
    original, direction = layer.parametrizations.weight.original, torch.rand(4, 4, 3, 3).double()
    (ours,) = torch.autograd.grad((layer.weight * direction).sum(), original)
    exact = original / torch.linalg.matrix_norm(original.flatten(1), ord=2)
    (theirs,) = torch.autograd.grad((exact * direction).sum(), original)
    assert torch.allclose(ours, theirs, atol=1e-6)


def test_verdicts_are_of_the_image_alone():
    network, images = UnetDiscriminator(channels=4).eval(), torch.rand(3, 1, 16, 16)
    assert torch.allclose(network(images)[1], network(images[1:2])[0], atol=1e-5)
