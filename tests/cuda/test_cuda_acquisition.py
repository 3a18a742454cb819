"""Operators and evidence on a graphics card, against the CPU."""

import numpy as np
import pytest
import torch

from headsr.acquisition.evidence import Evidence
from headsr.acquisition.operator import Acquisition
from headsr.acquisition.placement import rigid_motion
from headsr.volumes import Grid

pytestmark = pytest.mark.cuda
GRID = Grid((24, 30, 28), np.eye(4))
TURN = rigid_motion(np.zeros(3), np.deg2rad([8, -3, 5]), np.array([11.5, 14.5, 13.5]))
SCANS = [(0, 3.0, None), (1, 2.5, None), (2, 4.0, None), (2, 3.0, TURN)]


def acquisition(scan, device):
    axis, factor, turn = scan
    slices = GRID.thick(axis, factor)
    placed = slices if turn is None else Grid(slices.shape, turn @ slices.affine)
    return Acquisition(GRID, placed, axis=axis, device=device)


def draw(*shape):
    return torch.rand(shape, generator=torch.Generator().manual_seed(7))


def apart(one, other):
    return float((one.cpu() - other).abs().max() / other.abs().max())


@pytest.mark.parametrize("scan", SCANS, ids=["x", "y", "z", "turned"])
def test_an_operator_and_its_adjoint_round_as_on_the_cpu(scan):
    here, there = acquisition(scan, "cpu"), acquisition(scan, "cuda")
    head, data = draw(2, 1, *GRID.shape), draw(2, 1, *here.scan.shape)
    assert torch.equal(there.covered.cpu(), here.covered)
    assert apart(there.forward(head.cuda()), here.forward(head)) < 1e-5
    assert apart(there.adjoint(data.cuda()), here.adjoint(data)) < 1e-5


@pytest.mark.parametrize("scan", SCANS, ids=["x", "y", "z", "turned"])
def test_the_adjoint_is_the_transpose(scan):
    there = acquisition(scan, "cuda")
    head, data = draw(*GRID.shape).cuda(), draw(*there.scan.shape).cuda()
    one = (there.forward(head).double() * data.double()).sum()
    assert float(one) == pytest.approx(float((head.double() * there.adjoint(data).double()).sum()), rel=1e-5)


def test_gradients_pass_through_an_operator_as_on_the_cpu():
    gradients = []
    for device in ("cpu", "cuda"):
        head = draw(1, 1, *GRID.shape).to(device).requires_grad_()
        acquisition(SCANS[3], device).forward(head).square().sum().backward()
        gradients.append(head.grad)
    assert apart(gradients[1], gradients[0]) < 1e-5


@pytest.mark.parametrize("scans", [SCANS[2:3], SCANS[:3], SCANS], ids=len)
def test_evidence_says_the_same(scans):
    here, there = (evidence(scans, device) for device in ("cpu", "cuda"))
    x, rho = draw(2, 1, *GRID.shape).square(), torch.tensor([0.3, 0.1]).reshape(2, 1, 1, 1, 1)
    assert apart(there.start, here.start) < 1e-4
    assert apart(there.shown(), here.shown()) < 1e-4
    assert apart(there.misfits(x.cuda()), here.misfits(x)) < 1e-4
    assert apart(there.traits(), here.traits()) < 1e-4
    assert float((there.places().cpu() - here.places()).abs().max()) < 1e-3
    found = there.agreeing(x.cuda(), rho.cuda(), iterations=4)
    assert apart(found, here.agreeing(x, rho, iterations=4)) < 1e-4


def evidence(scans, device):
    operators = [acquisition(scan, device) for scan in scans]
    head = draw(2, 1, *GRID.shape).to(device)
    return Evidence(operators, [operator.forward(head) for operator in operators], [0.01] * len(operators))
