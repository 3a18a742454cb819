import pytest
import torch

from headsr.networks.autoencoder import KLAutoencoder, block_cosines, decode, encode


def autoencoder(channels=(4, 4, 8), blocks=1, unshuffle=1):
    network = KLAutoencoder(channels=channels, blocks=blocks, latent_channels=4, unshuffle=unshuffle)
    for parameter in network.parameters():
        if parameter.ndim == 4:
            torch.nn.init.normal_(parameter, std=0.2)
    return network.eval().requires_grad_(False)


@pytest.mark.parametrize(
    ("channels", "size", "latent"), [((4, 4, 8), (8, 12), (2, 3)), ((4, 8), (6, 2), (3, 1)), ((4,), (3, 5), (3, 5))]
)
def test_shapes_there_and_back(channels, size, latent):
    network, images = autoencoder(channels), torch.rand(2, 1, *size)
    latents = encode(network, images)
    assert latents.shape == (2, 4, *latent)
    assert decode(network, latents).shape == images.shape


def test_sizes_that_do_not_divide_are_refused():
    with pytest.raises(ValueError, match="multiples of 4"):
        encode(autoencoder(), torch.rand(1, 1, 8, 10))


def test_normalising_the_latents_changes_no_image():
    network, images = autoencoder(), torch.rand(1, 1, 8, 8)
    plain = decode(network, encode(network, images))
    latents = encode(network, images)
    network.latent_mean.fill_(3.0)
    network.latent_deviation.fill_(2.0)
    assert torch.allclose(encode(network, images), (latents - 3) / 2)
    assert torch.allclose(decode(network, encode(network, images)), plain, atol=1e-5)


def test_a_tile_is_encoded_and_decoded_as_the_slice_it_was_cut_from():
    network, images = autoencoder(), torch.rand(1, 1, 128, 128)
    latents, tile = encode(network, images), encode(network, images[..., 32:96, 32:96])
    assert torch.allclose(latents[..., 14:18, 14:18], tile[..., 6:10, 6:10], atol=1e-5)
    full, part = decode(network, latents), decode(network, latents[..., 8:24, 8:24])
    assert torch.allclose(full[..., 60:68, 60:68], part[..., 28:36, 28:36], atol=1e-5)


def test_noise_moves_the_reconstruction_within_the_posterior():
    network, images = autoencoder(), torch.rand(1, 1, 8, 8)
    quiet, posterior = network(images, torch.zeros(1, 4, 2, 2))
    assert torch.equal(quiet, network.images(posterior.mean))
    assert not torch.equal(network(images, torch.ones(1, 4, 2, 2))[0], quiet)


@pytest.mark.parametrize("unshuffle", [1, 2])
def test_features_are_one_map_a_level_and_see_a_difference(unshuffle):
    network = autoencoder(channels=(4, 6, 8), unshuffle=unshuffle)
    maps = network.features(torch.rand(2, 1, 16, 24))
    finest = 16 // unshuffle, 24 // unshuffle
    assert [tuple(m.shape[1:]) for m in maps] == [(c, finest[0] >> i, finest[1] >> i) for i, c in enumerate((4, 6, 8))]


@pytest.mark.parametrize(("channels", "unshuffle"), [((4, 4, 8), 1), ((4, 8), 2), ((4,), 4)])
def test_it_starts_as_a_cosine_transform_of_blocks(channels, unshuffle):
    network = KLAutoencoder(channels=channels, blocks=1, latent_channels=16, unshuffle=unshuffle)
    images = torch.rand(2, 1, 8, 12)
    assert network.factor == 4
    assert torch.allclose(decode(network, encode(network, images)), images, atol=1e-5)
    few = KLAutoencoder(channels=channels, blocks=1, latent_channels=1, unshuffle=unshuffle)
    blocks = torch.nn.functional.avg_pool2d(images, 4)
    assert torch.allclose(
        decode(few, encode(few, images)), blocks.repeat_interleave(4, -1).repeat_interleave(4, -2), atol=1e-5
    )


def test_cosine_patterns_are_orthonormal_and_low_frequencies_come_first():
    waves = block_cosines(4, 16)
    assert torch.allclose(waves @ waves.T, torch.eye(16), atol=1e-5)
    assert torch.allclose(waves[0], torch.full((16,), 0.25))
    ramp = torch.arange(4.0).repeat(4)
    assert (waves[:3] @ (ramp - ramp.mean())).abs().max() > (waves[3:] @ (ramp - ramp.mean())).abs().max()
