import pytest
import torch

from headsr.networks.residual2d import ResidualSliceNetwork


@pytest.mark.parametrize("unshuffle", [1, 2])
@pytest.mark.parametrize("size", [(8, 8), (7, 13), (1, 5)])
def test_it_starts_as_the_interpolated_slice_at_any_size(unshuffle, size):
    images = torch.rand(2, 1, *size)
    assert torch.equal(ResidualSliceNetwork(channels=4, blocks=2, unshuffle=unshuffle)(images), images)


@pytest.mark.parametrize("unshuffle", [1, 2])
def test_a_first_step_changes_it(unshuffle):
    network = ResidualSliceNetwork(channels=4, blocks=1, unshuffle=unshuffle)
    images = torch.rand(2, 1, 8, 8)
    (network(images) - 1).square().mean().backward()
    assert network.last.weight.grad.abs().sum() > 0


def test_the_residual_of_shuffled_pixels_lands_on_its_own_pixel():
    network = ResidualSliceNetwork(channels=4, blocks=0, unshuffle=2)
    torch.nn.init.zeros_(network.first.weight)
    network.last.bias.data = torch.tensor([1.0, 2.0, 3.0, 4.0])
    residual = network(torch.zeros(1, 1, 3, 4))[0, 0]
    assert residual.tolist() == [[1, 2, 1, 2], [3, 4, 3, 4], [1, 2, 1, 2]]
