"""The operator-aware network and one step of its training on a graphics card."""

import numpy as np
import pytest
import torch
from torch import nn

from headsr.acquisition.evidence import Evidence
from headsr.acquisition.operator import Acquisition
from headsr.networks.unrolled import Unrolled
from headsr.volumes import Grid

pytestmark = pytest.mark.cuda
GRID = Grid((28, 32, 24), np.eye(4))


def network():
    """Whose every part does something."""
    torch.manual_seed(0)
    built = Unrolled(stages=2, widths=(16, 24), blocks=(1, 1, 1), solves=3)
    for parameter in built.parameters():
        nn.init.normal_(parameter, std=0.05)
    return built


def study(device):
    """Evidence of two scans, and the heads (2, 1, X, Y, Z) that they are of."""
    head = torch.rand(2, 1, *GRID.shape, generator=torch.Generator().manual_seed(3)).to(device)
    operators = [Acquisition(GRID, GRID.thick(axis, 3.0), axis=axis, device=device) for axis in (0, 2)]
    return Evidence(operators, [operator.forward(head) for operator in operators], [0.01, 0.01]), head


@pytest.mark.parametrize("at_once", [None, 0])
@torch.no_grad()
def test_in_full_precision_it_is_the_network_of_the_cpu(at_once):
    here = network()(study("cpu")[0])
    there = network().cuda()(study("cuda")[0], at_once=at_once)
    assert float(here.volume.std()) > 0.05
    for one, other in zip(there, here, strict=True):
        assert float((one.cpu() - other).abs().max()) < 1e-3 * float(other.abs().max())


@torch.no_grad()
def test_in_low_precision_it_stays_near():
    evidence, _ = study("cuda")
    full = network().cuda()(evidence)
    with torch.autocast("cuda", dtype=torch.bfloat16):
        low = network().cuda()(evidence)
    assert low.volume.dtype == low.log_spread.dtype == torch.float32
    assert float((low.volume - full.volume).abs().mean()) < 0.05 * float(full.volume.std())


def test_a_step_in_low_precision_has_finite_gradients_and_descends():
    evidence, head = study("cuda")
    trained = network().cuda()
    optimizer, losses = torch.optim.AdamW(trained.parameters(), lr=1e-3), []
    for _ in range(5):
        with torch.autocast("cuda", dtype=torch.bfloat16):
            loss = (trained(evidence).volume - head).abs().mean()
        optimizer.zero_grad()
        loss.backward()
        given = [parameter.grad for parameter in trained.parameters() if parameter.grad is not None]
        assert given and all(torch.isfinite(gradient).all() for gradient in given)
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0]
