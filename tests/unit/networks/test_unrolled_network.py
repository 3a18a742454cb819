"""The operator-aware network: tiles, sizes, calibration, and that it starts from least squares."""

import math

import numpy as np
import pytest
import torch

from headsr.acquisition.evidence import Evidence
from headsr.acquisition.operator import Acquisition
from headsr.networks.unrolled import Correction, Unrolled, in_tiles
from headsr.volumes import Grid

SMALL = dict(stages=2, widths=(8, 12, 12), blocks=(1, 1, 1, 1, 1), solves=3)


@pytest.fixture
def network():
    """A network whose every part does something."""
    torch.manual_seed(0)
    built = Unrolled(**SMALL)
    for parameter in built.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return built.requires_grad_(False)


def evidence_of(shape, axes=(2,), factor=3.0, noise=0.01, heads=1):
    grid = Grid(shape, np.eye(4))
    operators = [Acquisition(grid, grid.thick(axis, factor), axis=axis) for axis in axes]
    head = torch.rand(heads, 1, *shape, generator=torch.Generator().manual_seed(3))
    return Evidence(operators, [operator.forward(head) for operator in operators], [noise] * len(axes))


@pytest.mark.parametrize("shape", [(21, 34, 90), (102, 9, 30)])
@pytest.mark.parametrize("share", [0.0, 0.75])
def test_tiled_equals_whole(network, shape, share):
    evidence = evidence_of(shape, axes=(0, 2))
    whole, tiled = network(evidence), network(evidence, at_once=int(share * math.prod(shape)))
    assert whole.volume.shape == tiled.volume.shape == (1, 1, *shape)
    assert float(whole.volume.std()) > 0.05
    for one, other in zip(whole[:2], tiled[:2], strict=True):
        assert float((one - other).abs().max()) < 1e-4


@pytest.mark.parametrize("blocks", [(0, 1, 0), (1, 1, 1), (1, 2, 2)])
def test_the_halo_is_as_wide_as_it_must_be(blocks):
    torch.manual_seed(1)
    correction = Correction((4, 6), blocks).double().requires_grad_(False)
    for parameter in correction.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    inputs, traits = torch.rand(1, 12, 96, 8, 8, dtype=torch.float64), torch.rand(1, 13, dtype=torch.float64)

    def correct(part):
        return correction(part, traits)[1]

    halo = correction.halo
    whole, *others = (
        in_tiles(correct, [inputs[:, :5], inputs[:, 5:]], at_once=at_once, halo=around)
        for at_once, around in ((None, 0), (0, halo), (0, halo // 8 * 4))
    )
    assert torch.allclose(whole, others[0], atol=1e-10)
    assert not torch.allclose(whole, others[1], atol=1e-10)


@pytest.mark.parametrize("shape", [(256, 256, 160), (60, 12, 700), (33, 35, 37)])
def test_no_more_voxels_are_corrected_at_once_than_is_said(shape):
    sizes, inputs, at_once = [], torch.arange(math.prod(shape), dtype=torch.float32).view(1, 1, *shape), 4_000_000

    def correct(part):
        sizes.append(part.numel())
        return part

    assert torch.equal(in_tiles(correct, [inputs], at_once=at_once, halo=36), inputs)
    assert max(sizes) <= at_once and sum(sizes) < 2.5 * inputs.numel()


def test_as_many_blocks_as_there_are_ways_down_and_up_are_asked_for():
    with pytest.raises(ValueError, match="2 widths need 3 numbers, not 2"):
        Unrolled(stages=1, widths=(4, 8), blocks=(1, 1), solves=1)


def test_more_resolutions_than_volumes_are_continued_for_are_refused():
    with pytest.raises(ValueError, match="4 resolutions"):
        Unrolled(stages=1, widths=(4, 4, 4, 4), blocks=(1,) * 7, solves=1)


def test_what_least_squares_is_off_by_is_learned_from_the_traits():
    network, generator = Unrolled(**SMALL), torch.Generator().manual_seed(0)
    traits = torch.randn(300, 13, generator=generator)
    slopes = torch.linspace(-0.5, 0.5, 13)
    left = network.expect(traits, traits @ slopes - 1.5 + 0.1 * torch.randn(300, generator=generator))
    assert 0.08 < float(left) < 0.12
    assert torch.allclose(network.expected[:-1], slopes, atol=0.03) and abs(float(network.expected[-1]) + 1.5) < 0.03


def test_heads_of_a_batch_do_not_mix(network):
    together = evidence_of((16, 16, 16), heads=3)
    alone = Evidence(together.operators, [scan[1:2] for scan in together.scans], [0.01])
    assert torch.allclose(network(together).volume[1], network(alone).volume[0], atol=1e-4)


def test_untrained_it_is_least_squares_closer_to_the_scans():
    evidence = evidence_of((20, 20, 18), axes=(0, 1, 2), noise=0.0)
    refined = Unrolled(**SMALL).requires_grad_(False)(evidence)
    start, end = (
        sum(float((a.forward(x) - y).square().sum()) for a, y in zip(evidence.operators, evidence.scans, strict=True))
        for x in (evidence.start, refined.volume)
    )
    assert 0 < end < start
    expected = torch.full_like(refined.log_spread, math.log(0.6 * float(evidence.grain)))
    assert torch.allclose(refined.log_spread, expected)


def test_one_set_of_weights_takes_any_scans(network):
    for axes, factor in (((2,), 1.5), ((0, 1), 2.7), ((0, 1, 2, 2), 8.0)):
        assert torch.isfinite(network(evidence_of((16, 17, 18), axes, factor)).volume).all()


def test_the_calibrated_interval_holds_nine_tenths_at_every_spread():
    """Errors that are normal, twice as wide as was foretold where they are least and half as wide where greatest."""
    generator, network = torch.Generator().manual_seed(1), Unrolled(**SMALL)
    spread = -6 + 4 * torch.rand(400_000, generator=generator)
    deviation = spread.exp() * (-0.35 * (spread + 4)).exp()
    error = deviation * torch.randn(len(spread), generator=generator)
    held = network.calibrate(spread[::2], error[::2])
    assert 0.8 < held < 1
    inside = error[1::2].abs() <= network.half_interval(spread[1::2])
    for tenth in inside[spread[1::2].argsort()].tensor_split(10):
        assert 0.87 < float(tenth.float().mean()) < 0.93


def test_uncalibrated_the_interval_is_laplace(network):
    spread = torch.tensor([-12.0, -5.0, 0.0, 3.0])
    assert torch.allclose(network.half_interval(spread), math.log(10) * spread.exp(), rtol=1e-4)
