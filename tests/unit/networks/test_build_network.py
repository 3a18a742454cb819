import pytest
import torch

from headsr.networks.build import build_network, check_network
from headsr.networks.latent_diffusion import LatentDiffusion

BLOCKS = {
    "baseline": {"architecture": "residual2d", "channels": 4, "blocks": 1},
    "autoencoder": {"architecture": "kl", "channels": [4, 4, 4], "blocks": 1},
    "discriminator": {"architecture": "patch_discriminator", "channels": 4},
    "ldm": {"architecture": "unet2d", "channels": [4, 4], "blocks": 1, "attention": [False, True], "head_width": 4},
}


@pytest.mark.parametrize("kind", BLOCKS)
def test_every_kind_is_built_and_the_same_seed_gives_the_same_weights(kind):
    networks = []
    for _ in range(2):
        torch.manual_seed(3)
        networks.append(build_network(BLOCKS[kind]))
    first, second = (network.state_dict() for network in networks)
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize(
    ("kind", "change", "message"),
    [
        (
            "baseline",
            {"architecture": "residual2"},
            "network.architecture: 'residual2' is none; did you mean 'residual2d'",
        ),
        ("baseline", {"architecture": "hat"}, "'hat' is none; known: residual2d, "),
        ("baseline", {"channel": 4}, "network.channel: residual2d has no such setting; did you mean 'channels'"),
        ("ldm", {"attention": [True]}, "2 levels of channels but 1 of attention"),
    ],
)
def test_a_wrong_block_is_named(kind, change, message):
    with pytest.raises(ValueError, match=message):
        build_network({**BLOCKS[kind], **change})


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        ("baseline", {"channels": "many"}),
        ("baseline", {"channels": -4}),
        ("baseline", {"blocks": 1.5}),
        ("autoencoder", {"channels": 4}),
        ("ldm", {"feedforward": "mlp"}),
    ],
)
def test_what_a_constructor_cannot_take_is_refused_without_numbers(kind, change):
    with pytest.raises(ValueError, match=r"network|feedforward"):
        check_network({**BLOCKS[kind], **change})


@pytest.mark.parametrize("kind", BLOCKS)
def test_a_checked_network_has_shapes_and_no_numbers(kind):
    network, real = check_network(BLOCKS[kind]), build_network(BLOCKS[kind])
    assert all(parameter.is_meta for parameter in network.parameters())
    assert [p.shape for p in network.parameters()] == [p.shape for p in real.parameters()]


def test_a_missing_setting_is_named():
    with pytest.raises(ValueError, match=r"network\.channels: is missing; residual2d needs it"):
        build_network({"architecture": "residual2d", "blocks": 1})


def test_a_denoiser_and_an_autoencoder_of_different_factors_do_not_pair():
    autoencoder = build_network({**BLOCKS["autoencoder"], "channels": [4, 4]})
    with pytest.raises(ValueError, match="4 times smaller"):
        LatentDiffusion(build_network(BLOCKS["ldm"]), autoencoder)


def test_a_denoiser_and_an_autoencoder_of_different_latents_do_not_pair():
    autoencoder = build_network({**BLOCKS["autoencoder"], "latent_channels": 8})
    with pytest.raises(ValueError, match="expects 4 latent channels, the autoencoder makes 8"):
        LatentDiffusion(build_network(BLOCKS["ldm"]), autoencoder)
