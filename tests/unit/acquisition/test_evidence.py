"""What an unrolled network is told of the scans, against what is known of them."""

import numpy as np
import pytest
import torch

from headsr.acquisition.evidence import Evidence
from headsr.acquisition.operator import Acquisition
from headsr.acquisition.placement import rigid_motion
from headsr.volumes import Grid

SHAPE = (12, 16, 20)
GRID = Grid(SHAPE, np.diag([0.5, 1.0, 2.0, 1.0]))


def head(heads=1):
    return torch.rand(heads, 1, *SHAPE, generator=torch.Generator().manual_seed(5))


def scanned(*scans, noise=None, heads=1):
    """Evidence of scans (axis, factor, thickness as part of the factor)."""
    operators = []
    for axis, factor, part in scans:
        grid = GRID.thick(axis, factor)
        thickness = None if part == 1 else part * factor * float(GRID.voxel_size[axis])
        operators.append(Acquisition(GRID, grid, axis=axis, thickness=thickness))
    x = head(heads)
    return Evidence(operators, [a.forward(x) for a in operators], noise or [0.0] * len(scans)), x


@pytest.mark.parametrize("factor", [1.25, 2.0, 2.5, 4.0, 10.0])
def test_the_normal_matrix_has_about_the_norm_one(factor):
    evidence, x = scanned((2, factor, 1))
    for _ in range(30):
        x = evidence.normal(x)
        norm = float(x.norm())
        x = x / norm
    assert 0.8 < norm < 1.3


def test_the_normal_matrix_is_symmetric():
    evidence, x = scanned((0, 3.0, 1), (2, 2.5, 0.8), noise=[0.01, 0.02])
    y = torch.rand(x.shape)
    assert float((y * evidence.normal(x)).sum()) == pytest.approx(float((x * evidence.normal(y)).sum()), rel=1e-5)


def test_the_noisier_scan_counts_less():
    evidence, _ = scanned((0, 3.0, 1), (1, 3.0, 1), noise=[0.01, 0.02])
    assert evidence.trust == [1.0, 0.25]


def test_what_fits_has_no_misfit_and_stays():
    evidence, x = scanned((0, 4.0, 1), (2, 4.0, 1))
    assert float(evidence.misfits(x).abs().max()) < 1e-6
    kept = evidence.agreeing(x, torch.full((1, 1, 1, 1, 1), 0.1), iterations=4)
    assert float((kept - x).abs().max()) < 1e-5


def test_agreeing_solves_its_equations():
    evidence, x = scanned((0, 4.0, 1), (2, 2.0, 1), heads=2)
    rho, z = torch.tensor([0.3, 0.1]).reshape(2, 1, 1, 1, 1), torch.zeros_like(x)
    found = evidence.agreeing(z, rho, iterations=60)
    left = evidence.normal(found) + rho * (found - z) - evidence.normal(x)
    assert float(left.abs().max()) < 1e-4


def test_misfits_and_what_is_shown_come_from_the_scans_along_each_axis():
    evidence, x = scanned((0, 4.0, 1), (2, 4.0, 1))
    shown, zero = evidence.shown(), torch.zeros_like(x)
    assert not shown[:, 1].any()
    assert torch.allclose(shown[:, ::2], evidence.misfits(zero)[:, ::2] - evidence.start, atol=1e-6)
    blocks = x.reshape(3, 4, 16, 20).mean(1).repeat_interleave(4, dim=0)
    assert torch.allclose(shown[0, 0] + evidence.start[0, 0], blocks, atol=1e-6)


def test_places_are_distances_from_the_middle_of_the_slices():
    evidence, _ = scanned((2, 4.0, 1))
    places = evidence.places()
    assert places.shape == (1, 4, *SHAPE)
    assert not places[0, :2].any() and (places[0, 3] == 1).all()
    assert torch.allclose(places[0, 2, 3, 3], torch.tensor([-0.375, -0.125, 0.125, 0.375]).repeat(5), atol=1e-5)


def test_traits_say_how_it_was_measured():
    evidence, _ = scanned((0, 4.0, 0.5), (2, 2.0, 1), noise=[0.01, 0.02])
    found = dict(zip(("x", "y", "z"), evidence.traits()[0, :9].reshape(3, 3).tolist(), strict=True))
    assert found["x"] == pytest.approx([1, 2, 1]) and found["y"] == [0, 0, 0] and found["z"] == pytest.approx([1, 1, 1])
    noise, scans, size, against = evidence.traits()[0, 9:].tolist()
    assert (noise, scans, size) == pytest.approx((0, 2 / 3, 0), abs=1e-6)
    assert against == pytest.approx(np.log2(0.01 / float(evidence.grain)) / 3, abs=1e-5)


def test_heads_of_one_batch_have_voxels_and_detail_of_their_own():
    evidence, _ = scanned((2, 2.0, 1), heads=2)
    doubled = [torch.cat([scan[:1], 2 * scan[:1]]) for scan in evidence.scans]
    sized = Evidence(evidence.operators, doubled, [0.01], voxel_mm=torch.tensor([0.5, 2.0]))
    assert sized.traits()[:, 11].tolist() == [-1, 1]
    assert float(sized.grain[1] / sized.grain[0]) == pytest.approx(2, rel=1e-4)


def test_air_around_a_head_does_not_change_its_grain():
    small, large = (Grid((16, 16, n), np.eye(4)) for n in (16, 32))
    x = torch.zeros(1, 1, 16, 16, 32)
    x[..., 8:24] = torch.rand(1, 1, 16, 16, 16, generator=torch.Generator().manual_seed(1))
    grains = []
    for grid, head in ((small, x[..., 8:24]), (large, x)):
        operator = Acquisition(grid, grid.thick(0, 2.0), axis=0)
        grains.append(float(Evidence([operator], [operator.forward(head)], [0.0]).grain))
    assert grains[1] == pytest.approx(grains[0], rel=0.1)


def test_a_turned_scan_is_told_by_the_nearest_axis():
    grid = Grid((24, 24, 24), np.eye(4))
    slices = grid.thick(1, 4.0)
    motion = rigid_motion(np.zeros(3), np.deg2rad([12, 0, 5]), np.full(3, 11.5))
    operator = Acquisition(grid, Grid(slices.shape, motion @ slices.affine), axis=1)
    x = torch.rand(1, 1, 24, 24, 24, generator=torch.Generator().manual_seed(2))
    evidence = Evidence([operator], [operator.forward(x)], [0.0])
    assert evidence.traits()[0, [0, 3, 6]].tolist() == [0, 1, 0]
    inner = evidence.places()[0, :, 8:16, 8:16, 8:16]
    assert 0.3 < float(inner[1].abs().max()) < 0.8 and not inner[0].any()


def test_start_is_near_the_head_it_was_measured_from():
    evidence, x = scanned((0, 2.0, 1), (1, 2.0, 1), (2, 2.0, 1))
    mean = evidence.shown().mean(1, keepdim=True)
    assert float((evidence.start - x).square().mean()) < 0.5 * float((mean - x).square().mean())
