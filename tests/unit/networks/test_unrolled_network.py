"""The operator-aware network: tiles, sizes, calibration, and that it starts from least squares."""

import math

import numpy as np
import pytest
import torch

from headsr.acquisition.evidence import Evidence
from headsr.acquisition.operator import Acquisition
from headsr.networks.unrolled import Unrolled, from_octets, in_tiles, to_octets
from headsr.volumes import Grid

SMALL = dict(stages=2, width=8, coarse_width=12, blocks=1, coarse_blocks=1, solves=3)


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


def test_octets_hold_the_voxels_of_each_cell():
    volume = torch.arange(2 * 3 * 4 * 6 * 8.0).reshape(2, 3, 4, 6, 8)
    cells = to_octets(volume)
    assert cells.shape == (2, 24, 2, 3, 4)
    assert cells.is_contiguous(memory_format=torch.channels_last_3d)
    assert sorted(cells[1, 8:16, 1, 2, 3].tolist()) == sorted(volume[1, 1, 2:4, 4:6, 6:8].flatten().tolist())
    assert torch.equal(from_octets(cells), volume)


@pytest.mark.parametrize("shape", [(21, 34, 50), (64, 9, 30)])
@pytest.mark.parametrize("tile", [8, 20])
def test_tiled_equals_whole(network, shape, tile):
    evidence = evidence_of(shape, axes=(0, 2))
    whole, tiled = network(evidence), network(evidence, tile=tile)
    assert whole.volume.shape == tiled.volume.shape == (1, 1, *shape)
    assert float(whole.volume.std()) > 0.05
    for one, other in zip(whole[:2], tiled[:2], strict=True):
        assert float((one - other).abs().max()) < 1e-4


def test_a_smaller_halo_would_show(network):
    """The halo is not larger than it must be."""
    inputs, fixed = torch.rand(1, 5, 48, 8, 8), torch.rand(1, 56, 24, 4, 4)
    embedded = torch.rand(1, 8)

    def correct(inputs, fixed):
        features, change = network.correction(to_octets(inputs), fixed, embedded=embedded)
        return features, from_octets(change)

    halo = network.correction.halo
    whole, *others = (
        in_tiles(correct, inputs, [fixed], tile=tile, halo=around)[1]
        for tile, around in ((None, 0), (8, halo), (8, halo - 8))
    )
    assert torch.allclose(whole, others[0], atol=1e-5)
    assert not torch.allclose(whole, others[1], atol=1e-5)


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
    expected = torch.full_like(refined.log_spread, math.log(0.1 * float(evidence.grain)))
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
