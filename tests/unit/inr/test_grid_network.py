import numpy as np
import pytest
import torch

from headsr.inr import grid_network
from headsr.inr.grid_network import GridNetwork
from headsr.recipes import GridField
from headsr.volumes import Grid


def network(shape: tuple[int, int, int], design: GridField, seed: int = 0) -> GridNetwork:
    return GridNetwork(shape, design, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("shape", [(8, 8, 8), (11, 9, 13), (5, 1, 3)])
def test_it_starts_at_nothing_and_is_the_field_that_it_exports(shape: tuple[int, int, int]) -> None:
    trained = network(shape, GridField(cells=(4, 2, 1), features=(2, 3, 1), hidden=5))
    assert trained().abs().max() < 1e-3
    with torch.no_grad():
        for parameter in trained.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    grid = Grid(shape, np.diag([2.0, 2.0, 2.0, 1.0]))
    np.testing.assert_allclose(trained.as_field(grid).evaluate(grid), trained().detach().numpy(), atol=1e-4)


def test_every_parameter_is_in_one_group_and_gets_a_gradient() -> None:
    trained = network((6, 7, 5), GridField(cells=(2, 1), features=(2, 2), hidden=4))
    trained().square().sum().backward()
    grouped = [parameter for group in trained.parameter_groups(0.02) for parameter in group["params"]]
    assert {id(parameter) for parameter in grouped} == {id(parameter) for parameter in trained.parameters()}
    assert len(grouped) == len(set(map(id, grouped))) and all(p.grad is not None for p in grouped)


def test_a_seed_decides_the_weights() -> None:
    design = GridField()
    first, same, other = (network((9, 9, 9), design, seed).hidden_weight for seed in (0, 0, 1))
    assert torch.equal(first, same) and not torch.equal(first, other)


@pytest.mark.parametrize("chunk", [7, 30, 1000])
def test_values_and_gradients_in_chunks_are_those_of_autograd(monkeypatch: pytest.MonkeyPatch, chunk: int) -> None:
    monkeypatch.setitem(grid_network._CHUNK, "cpu", chunk)
    generator = torch.Generator().manual_seed(5)
    sizes = [(3, 30), (4, 3), (4, 1), (1, 4), (1, 1)]
    inputs = [torch.randn(size, generator=generator, requires_grad=True) for size in sizes]
    slope = torch.randn(1, 30, generator=generator)
    features, w1, b1, w2, b2 = inputs
    expected = w2 @ torch.relu(w1 @ features + b1) + b2
    found = grid_network._PointwiseNetwork.apply(*inputs)
    torch.testing.assert_close(found, expected)
    for mine, theirs in zip(
        torch.autograd.grad(found, inputs, slope), torch.autograd.grad(expected, inputs, slope), strict=True
    ):
        torch.testing.assert_close(mine, theirs)
