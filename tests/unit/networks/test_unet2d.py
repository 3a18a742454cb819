import pytest
import torch

from headsr.networks.condition import Condition
from headsr.networks.unet2d import LatentUnet, sinusoids


def unet(**changes):
    settings = {"channels": (4, 8), "blocks": 1, "attention": (False, True), "head_width": 4}
    return LatentUnet(**{**settings, **changes})


def told(size, plane=(0,), *, generator=None, mm=1.0, thick=4.0):
    """The condition of slices of size (H, W), one for each plane."""
    n = len(plane)
    image = torch.rand(n, 1, *size, generator=generator)
    return Condition.of_one_scan(image, torch.tensor(plane), torch.full((n, 2), mm), torch.full((n,), thick))


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
    latents, condition = torch.randn(2, 4, *size), told((4 * size[0], 4 * size[1]), (0, 2))
    output = randomised(unet(**changes))(latents, torch.tensor([0, 999]), condition)
    assert output.shape == latents.shape
    assert output.isfinite().all()


def test_it_starts_at_zero():
    output = unet()(torch.randn(1, 4, 4, 4), torch.tensor([3]), told((16, 16), (1,)))
    assert torch.equal(output, torch.zeros(1, 4, 4, 4))


def test_time_and_all_of_the_condition_matter():
    network, latents, condition = randomised(unet()), torch.randn(1, 4, 4, 4), told((16, 16), (1,))
    time = torch.tensor([100])
    base = network(latents, time, condition)
    others = [
        condition._replace(image=condition.image.flip(-1)),
        condition._replace(shown=2 * condition.shown),
        condition._replace(plane=torch.tensor([2])),
        condition._replace(pixel_mm=torch.tensor([[1.0, 2.0]])),
        condition._replace(thickness_mm=torch.tensor([8.0])),
        condition.without(torch.tensor([True])),
    ]
    outputs = [network(latents, torch.tensor([500]), condition), *(network(latents, time, other) for other in others)]
    for other in outputs:
        assert (base - other).abs().max() > 1e-4


def test_what_is_not_shown_says_nothing():
    network, latents, time = randomised(unet()), torch.randn(2, 4, 4, 4), torch.tensor([100, 100])
    both = told((16, 16), (1, 1))
    latents[1] = latents[0]
    nothing = both.without(torch.tensor([True, True]))
    one, other = network(latents, time, nothing)
    assert torch.equal(one, other)
    mean, deviation = network.estimate(nothing)
    assert (mean == 0).all() and (deviation == 1).all(), "the latents of all slices have mean 0 and deviation 1"


def test_the_estimate_is_a_convolution_of_the_gathered_pixels():
    network, condition = unet(), told((8, 12))
    assert network.estimate(condition)[0].abs().max() == 0
    network.estimate_weight[1, 5, 1, 1] = 2.0  # pixel (1, 1) of every square of four by four
    network.estimate_bias[2] = 3.0
    network.estimate_deviation[:] = 0.5
    mean, deviation = network.estimate(condition)
    assert torch.allclose(mean[0, 1], 2 * condition.image[0, 0, 1::4, 1::4])
    assert torch.equal(mean[0, 2], torch.full((2, 3), 3.0))
    assert torch.equal(deviation, torch.full((1, 4, 2, 3), 0.5))
    condition.shown[..., 4:8, :4] = 0
    mean, deviation = network.estimate(condition)
    assert mean[0, 2].tolist() == [[3, 3, 3], [0, 3, 3]] and deviation[0, 0].tolist() == [[0.5] * 3, [1, 0.5, 0.5]]


def test_every_parameter_gets_a_gradient():
    network = randomised(unet(channels=(4, 8, 8), blocks=2, attention=(True, True, True)))
    network(torch.randn(2, 4, 4, 4), torch.tensor([1, 2]), told((16, 16), (0, 1))).sum().backward()
    missing = [name for name, p in network.named_parameters() if p.grad is None]
    assert missing == []


def test_a_condition_of_another_size_is_refused():
    with pytest.raises(ValueError, match="4 times as large"):
        unet()(torch.randn(1, 4, 4, 4), torch.tensor([0]), told((8, 8)))


def test_the_time_embedding_at_zero_is_known():
    assert sinusoids(torch.tensor([0]), 5).tolist() == [[0, 0, 1, 1, 0]]
    assert sinusoids(torch.tensor([1]), 4)[0, 0] == pytest.approx(torch.sin(torch.tensor(1.0)).item())
