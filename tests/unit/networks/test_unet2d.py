import pytest
import torch

from headsr.networks.unet2d import LatentUnet, sinusoids


def unet(**changes):
    settings = {"channels": (4, 8), "blocks": 1, "attention": (False, True), "head_width": 4}
    return LatentUnet(**{**settings, **changes})


def randomised(network):
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return network.eval()


@pytest.mark.parametrize("size", [(4, 4), (3, 5), (1, 7)])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"blocks": 2},
        {"channels": (4, 4, 8), "attention": (True, False, True)},
        {"channels": (4,), "attention": (False,)},
    ],
)
def test_the_output_has_the_shape_of_the_latents(size, changes):
    latents, condition = torch.randn(2, 4, *size), torch.rand(2, 1, 4 * size[0], 4 * size[1])
    output = randomised(unet(**changes))(latents, torch.tensor([0, 999]), condition, torch.tensor([0, 2]))
    assert output.shape == latents.shape
    assert output.isfinite().all()


def test_it_starts_at_zero():
    output = unet()(torch.randn(1, 4, 4, 4), torch.tensor([3]), torch.rand(1, 1, 16, 16), torch.tensor([1]))
    assert torch.equal(output, torch.zeros(1, 4, 4, 4))


def test_time_condition_and_plane_all_matter():
    network, latents, condition = randomised(unet()), torch.randn(1, 4, 4, 4), torch.rand(1, 1, 16, 16)
    time, plane = torch.tensor([100]), torch.tensor([1])
    base = network(latents, time, condition, plane)
    for other in (
        network(latents, torch.tensor([500]), condition, plane),
        network(latents, time, condition.flip(-1), plane),
        network(latents, time, condition, torch.tensor([2])),
    ):
        assert (base - other).abs().max() > 1e-4


def test_the_estimate_is_a_convolution_of_the_gathered_pixels():
    network = unet()
    assert network.estimate(torch.rand(1, 1, 8, 12))[0].abs().max() == 0
    network.estimate_weight[1, 5, 1, 1] = 2.0  # pixel (1, 1) of every square of four by four
    network.estimate_bias[2] = 3.0
    condition = torch.rand(1, 1, 8, 12)
    mean, deviation = network.estimate(condition)
    assert torch.allclose(mean[0, 1], 2 * condition[0, 0, 1::4, 1::4])
    assert torch.equal(mean[0, 2], torch.full((2, 3), 3.0))
    assert deviation.shape == (4, 1, 1)


def test_every_parameter_gets_a_gradient():
    network = randomised(unet(channels=(4, 8, 8), blocks=2, attention=(True, True, True)))
    network(
        torch.randn(2, 4, 4, 4), torch.tensor([1, 2]), torch.rand(2, 1, 16, 16), torch.tensor([0, 1])
    ).sum().backward()
    missing = [name for name, p in network.named_parameters() if p.grad is None]
    assert missing == []


def test_a_condition_of_another_size_is_refused():
    with pytest.raises(ValueError, match="4 times as large"):
        unet()(torch.randn(1, 4, 4, 4), torch.tensor([0]), torch.rand(1, 1, 8, 8), torch.tensor([0]))


def test_the_time_embedding_at_zero_is_known():
    assert sinusoids(torch.tensor([0]), 5).tolist() == [[0, 0, 1, 1, 0]]
    assert sinusoids(torch.tensor([1]), 4)[0, 0] == pytest.approx(torch.sin(torch.tensor(1.0)).item())
