import pytest
import torch

from headsr.networks.build import build_network
from headsr.networks.latent_diffusion import LatentDiffusion

BLOCKS = {
    "baseline": {"architecture": "residual2d", "channels": 4, "blocks": 1},
    "autoencoder": {"architecture": "kl", "channels": [4, 4, 4], "blocks": 1},
    "ldm": {"architecture": "unet2d", "channels": [4, 4], "blocks": 1, "attention": [False, True], "head_width": 4},
}


@pytest.mark.parametrize("kind", BLOCKS)
def test_every_kind_is_built_and_the_same_seed_gives_the_same_weights(kind):
    networks = []
    for _ in range(2):
        torch.manual_seed(3)
        networks.append(build_network(kind, BLOCKS[kind]))
    first, second = (network.state_dict() for network in networks)
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize(
    ("kind", "change", "message"),
    [
        ("gan", {}, "unknown kind of model 'gan'"),
        ("baseline", {"architecture": "swin"}, "'swin' is not one of a baseline: residual2d"),
        ("baseline", {"chanels": 4}, "network.chanels is not a setting of residual2d"),
        ("ldm", {"attention": [True]}, "2 levels of channels but 1 of attention"),
    ],
)
def test_a_wrong_block_is_named(kind, change, message):
    with pytest.raises(ValueError, match=message):
        build_network(kind, {**BLOCKS.get(kind, {}), **change})


def test_a_missing_setting_is_named():
    with pytest.raises(ValueError, match=r"network\.channels of residual2d is missing"):
        build_network("baseline", {"architecture": "residual2d", "blocks": 1})


def test_a_denoiser_and_an_autoencoder_of_different_factors_do_not_pair():
    autoencoder = build_network("autoencoder", {**BLOCKS["autoencoder"], "channels": [4, 4]})
    with pytest.raises(ValueError, match="4 times smaller"):
        LatentDiffusion(build_network("ldm", BLOCKS["ldm"]), autoencoder)


def test_a_denoiser_and_an_autoencoder_of_different_latents_do_not_pair():
    autoencoder = build_network("autoencoder", {**BLOCKS["autoencoder"], "latent_channels": 8})
    with pytest.raises(ValueError, match="expects 4 latent channels, the autoencoder makes 8"):
        LatentDiffusion(build_network("ldm", BLOCKS["ldm"]), autoencoder)
