import pytest
import torch

from headsr.networks.autoencoder import KLAutoencoder, decode, encode
from headsr.networks.build import build_network


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return build_network({"architecture": "diffusers_kl", "channels": [8, 8, 16], "blocks": 1}).eval()


@torch.no_grad()
def test_it_is_used_as_headsr_s_own(network):
    images, own = torch.rand(2, 1, 16, 24), KLAutoencoder(channels=(8, 8, 16), blocks=1).eval()
    assert (network.factor, network.latent_channels) == (own.factor, own.latent_channels)
    latents = encode(network, images)
    assert latents.shape == encode(own, images).shape
    assert decode(network, latents).shape == images.shape
    assert [m.shape for m in network.features(images)] == [m.shape for m in own.features(images)]
    reconstructed, posterior = network(images, torch.zeros_like(latents))
    assert torch.equal(reconstructed, network.images(posterior.mean))
    network.latent_mean.fill_(2.0)
    assert torch.allclose(encode(network, images), latents - 2, atol=1e-6)
    network.latent_mean.zero_()


@torch.no_grad()
def test_a_tile_of_it_differs_from_the_slice(network):
    images = torch.rand(1, 1, 128, 128) * torch.linspace(0, 1, 128)
    own = KLAutoencoder(channels=(8, 8, 16), blocks=1).eval()
    gaps = []
    for autoencoder in (network, own):
        whole, tile = encode(autoencoder, images), encode(autoencoder, images[..., 32:96, 32:96])
        gaps.append((whole[..., 14:18, 14:18] - tile[..., 6:10, 6:10]).norm() / whole[..., 14:18, 14:18].norm())
    assert gaps[0] > 1e-2 > 1e-5 > gaps[1]


def test_sizes_that_do_not_divide_are_refused(network):
    with pytest.raises(ValueError, match="multiples of 4"):
        encode(network, torch.rand(1, 1, 8, 10))
    with pytest.raises(ValueError, match=r"channels 6: must be a multiple of 4"):
        build_network({"architecture": "diffusers_kl", "channels": [8, 6], "blocks": 1})
