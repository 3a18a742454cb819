import copy

import pytest
import torch
from scipy.interpolate import BSpline

from headsr.networks.attention import TransformerBlock
from headsr.networks.feedforward import FEED_FORWARDS
from headsr.networks.funkan import MODES, FunKanFeedForward, MetaFunKanFeedForward
from headsr.networks.hermite import hermite_functions, reach
from headsr.networks.kan import BASIS, INTERVALS, ORDER, KanFeedForward, MetaKanFeedForward, kan_basis


def randomised(module, seed=0):
    generator = torch.Generator().manual_seed(seed)
    for parameter in module.parameters():
        with torch.no_grad():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    return module.eval()


def numbers(module):
    return sum(p.numel() for p in module.parameters())


def test_hermite_functions_are_orthonormal_and_those_of_the_formula():
    x = torch.linspace(-12, 12, 4001, dtype=torch.float64)
    functions = torch.stack(hermite_functions(x, 7)).double()
    gram = functions @ functions.T * (x[1] - x[0])
    torch.testing.assert_close(gram, torch.eye(7, dtype=torch.float64), atol=1e-5, rtol=0)
    # h_3 by its polynomial: (2 x³ - 3 x) / √(3 √pi) exp(-x² / 2).
    third = (2 * x**3 - 3 * x) / (3 * torch.pi**0.5) ** 0.5 * torch.exp(-(x**2) / 2)
    torch.testing.assert_close(functions[3], third, atol=1e-5, rtol=0)
    assert functions[6][x.abs() > reach(7) + 3].abs().max() < 0.05 * functions[6].abs().max()


def test_the_basis_of_an_edge_is_silu_and_the_uniform_cubic_splines():
    x = torch.linspace(-2.9, 2.9, 13).view(1, 1, 1, 13)
    basis = kan_basis(x)[0, :, 0]
    torch.testing.assert_close(basis[0], torch.nn.functional.silu(x[0, 0, 0]))
    step = 6 / INTERVALS
    knots = [-3 + (j - ORDER) * step for j in range(INTERVALS + 2 * ORDER + 1)]
    for k in range(BASIS):
        spline = BSpline.basis_element(knots[k : k + ORDER + 2], extrapolate=False)(x.flatten().numpy())
        torch.testing.assert_close(basis[1 + k], torch.from_numpy(spline).nan_to_num().float(), atol=1e-5, rtol=0)
    torch.testing.assert_close(basis[1:].sum(dim=0), torch.ones(13))


def test_a_layer_is_a_sum_of_functions_of_one_channel_each():
    layer, features = randomised(KanFeedForward(3)), torch.randn(2, 3, 4, 5)
    coefficients = layer.weight.view(3, BASIS + 1, 3)
    basis = kan_basis(features).view(2, BASIS + 1, 3, 4, 5)
    expected = torch.einsum("jki,nkihw->njhw", coefficients, basis)
    torch.testing.assert_close(layer(features), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("channels", [8, 64, 96])
def test_parameters_follow_the_formulas(channels):
    c = channels
    assert numbers(KanFeedForward(c)) == 9 * c**2
    for d, h in ((1, 32), (4, 16)):
        assert numbers(MetaKanFeedForward(c, prompt=d, hidden=h)) == d * c**2 + (d + 1) * h + (h + 1) * 9
        made = d * c**2 + (d + 1) * h + (h + 1) * (MODES + 1) + 20 * c + d * c + (d + 1) * h + (h + 1) * 9 + 3 * c
        assert numbers(MetaFunKanFeedForward(c, prompt=d, hidden=h)) == made
    for grid in (8, 32):
        assert numbers(FunKanFeedForward(c, grid=grid)) == grid**2 * c + 46 * c**2 + 10 * c


def test_the_published_counts():
    """FunKAN's 2.2 million for three layers; MetaFunKAN's, less a shift a channel that norms a pixel at a time lack."""
    assert 3 * (145 * 145 * 32 + 46 * 32**2 + 10 * 32) == 2_160_672 == 3 * numbers(FunKanFeedForward(32, grid=145))
    assert numbers(MetaFunKanFeedForward(64)) == 6352 - 64
    assert numbers(MetaFunKanFeedForward(256)) == 72_592 - 256


@pytest.mark.parametrize("filling", FEED_FORWARDS)
@pytest.mark.parametrize("size", [(4, 4), (3, 7), (9, 2), (1, 1)])
def test_every_filling_takes_any_map_and_starts_as_no_change(filling, size):
    features = torch.randn(2, 8, *size)
    block = TransformerBlock(8, head_width=4, feedforward=filling)
    assert torch.equal(block(features), features)
    changed = randomised(block)(features)
    assert changed.shape == features.shape and changed.isfinite().all() and (changed - features).abs().max() > 1e-3


@pytest.mark.parametrize("filling", FEED_FORWARDS)
def test_every_parameter_learns_and_low_precision_stays_near(filling):
    features = torch.randn(2, 8, 6, 5)
    block = randomised(FEED_FORWARDS[filling](8)).train()
    full = block(features)
    full.square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in block.parameters())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        coarse = block(features)
    assert (coarse.float() - full).norm() < 0.03 * full.norm()


@pytest.mark.parametrize("filling", FEED_FORWARDS)
def test_a_filling_learns_from_where_it_starts(filling):
    torch.manual_seed(0)
    block, features = FEED_FORWARDS[filling](8), torch.randn(4, 8, 6, 6)
    target = torch.sin(2 * features) * features.roll(1, dims=1)
    optimizer = torch.optim.AdamW(block.parameters(), lr=0.01)
    first = None
    for _ in range(60):
        loss = (block(features) - target).square().mean()
        first = first or loss.item()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.97 * first


def of_larger_map(block, content):
    """A block's changes in the middle of a map, and of a tile of it."""
    whole, tile = block(content), block(content[..., 16:48, 16:48])
    middle = whole[..., 24:40, 24:40]
    return (middle - tile[..., 8:24, 8:24]).norm() / middle.norm()


def test_by_content_alone_a_tile_agrees_with_the_whole_map():
    smooth = torch.nn.functional.avg_pool2d(
        torch.randn(2, 16, 70, 70, generator=torch.Generator().manual_seed(1)), 7, 1
    )
    content = smooth / smooth.std()
    with torch.no_grad():
        by_content = of_larger_map(randomised(MetaFunKanFeedForward(16)), content)
        by_place = of_larger_map(randomised(MetaFunKanFeedForward(16, coordinates=True)), content)
    assert by_content < 0.01 < 0.05 < by_place


@pytest.mark.parametrize("filling", ["metakan", "metafunkan"])
def test_what_is_evaluated_keeps_its_coefficients_until_they_change(filling, monkeypatch):
    block, features = randomised(FEED_FORWARDS[filling](8)), torch.randn(1, 8, 4, 4)
    learned = block(features)
    made = []
    forward = type(block.coefficients).forward
    monkeypatch.setattr(type(block.coefficients), "forward", lambda self, p: made.append(1) or forward(self, p))
    with torch.no_grad():
        torch.testing.assert_close(block(features), learned)
        first = len(made)
        block(features)
        assert len(made) == first > 0
        other = copy.deepcopy(block.state_dict())
        other["prompts.values"] += 1
        block.load_state_dict(other)
        changed = block(features)
        assert len(made) > first and (changed - learned).abs().max() > 1e-3
    torch.testing.assert_close(block(features), changed)
