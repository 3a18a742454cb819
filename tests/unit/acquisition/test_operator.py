"""The forward model: exact block means, an exact transpose, constants that stay constant, wherever the scan lies."""

import numpy as np
import pytest
import torch
from scipy import ndimage
from scipy.spatial.transform import Rotation

from headsr.acquisition.operator import Acquisition
from headsr.acquisition.profile import PROFILES
from headsr.volumes import Grid

HEAD = Grid((13, 10, 17), np.diag([1.0, 1.2, 0.9, 1.0]))
PLACED = {
    "parallel": ((0, 0, 0), (0, 0, 0)),
    "shifted": ((0, 0, 0), (0.4, -1.3, 2.1)),
    "turned": ((20, -7, 11), (1, 0, -2)),
}
EXACT = [(torch.float32, 1e-6), (torch.float64, 1e-12)]


def placed(grid, degrees, shift_mm):
    """The grid turned about its middle and shifted."""
    middle = grid.corners.mean(axis=0)
    motion = np.eye(4)
    motion[:3, :3] = Rotation.from_euler("xyz", degrees, degrees=True).as_matrix()
    motion[:3, 3] = middle - motion[:3, :3] @ middle + shift_mm
    return Grid(grid.shape, motion @ grid.affine)


@pytest.mark.parametrize("placement", PLACED)
@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("axis", [0, 1, 2, None])
@pytest.mark.parametrize("factor", [2, 3.3])
@pytest.mark.parametrize(("dtype", "tolerance"), EXACT)
def test_adjoint_dot_product(placement, profile, axis, factor, dtype, tolerance):
    scan = placed(HEAD.thick(axis or 0, factor), *PLACED[placement])
    operator = Acquisition(HEAD, scan, axis=axis, profile=profile, dtype=dtype)
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(2, *HEAD.shape, generator=generator, dtype=dtype)
    y = torch.rand(2, *operator.scan.shape, generator=generator, dtype=dtype)
    forward = torch.sum(operator.forward(x).double() * y.double())
    adjoint = torch.sum(x.double() * operator.adjoint(y).double())
    assert abs(forward - adjoint) <= tolerance * abs(forward)


@pytest.mark.parametrize("placement", PLACED)
@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("factors", [(4, 4, 1), (2, 2, 3.3), (1, 2.5, 1)])
@pytest.mark.parametrize(("dtype", "tolerance"), EXACT)
def test_adjoint_dot_product_of_scans_coarse_within_their_slices(placement, profile, factors, dtype, tolerance):
    scan = HEAD
    for axis, factor in enumerate(factors):
        scan = scan.thick(axis, factor)
    coarse = [axis for axis, factor in enumerate(factors) if factor > 1]
    scan = placed(scan, *PLACED[placement])
    operator = Acquisition(HEAD, scan, axis=2, coarse=coarse, profile=profile, dtype=dtype)
    assert operator.coarse_in_plane
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(HEAD.shape, generator=generator, dtype=dtype)
    y = torch.rand(operator.scan.shape, generator=generator, dtype=dtype)
    forward = torch.sum(operator.forward(x).double() * y.double())
    adjoint = torch.sum(x.double() * operator.adjoint(y).double())
    assert abs(forward - adjoint) <= tolerance * abs(forward)
    measured = operator.forward(torch.full(HEAD.shape, 2.5, dtype=dtype))
    torch.testing.assert_close(measured, 2.5 * operator.covered.to(dtype), atol=5 * tolerance, rtol=0)


@pytest.mark.parametrize("placement", PLACED)
@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("thickness", [None, 2.0, 5.0])
@pytest.mark.parametrize(("dtype", "tolerance"), EXACT)
def test_a_constant_stays_that_constant(placement, profile, thickness, dtype, tolerance):
    """Also where a sample reaches outside the head's grid."""
    scan = placed(HEAD.thick(2, 3.7), *PLACED[placement])
    operator = Acquisition(HEAD, scan, axis=2, profile=profile, thickness=thickness, dtype=dtype)
    measured = operator.forward(torch.full(HEAD.shape, 2.5, dtype=dtype))
    assert operator.covered.float().mean() > 0.7
    torch.testing.assert_close(measured, 2.5 * operator.covered.to(dtype), atol=5 * tolerance, rtol=0)


def test_integer_factor_with_box_profile_is_the_block_mean():
    head = Grid((6, 5, 12), np.eye(4))
    x = torch.rand(head.shape)
    operator = Acquisition(head, head.thick(2, 4), axis=2)
    assert torch.allclose(operator.forward(x), x.reshape(6, 5, 3, 4).mean(-1), atol=1e-6)


def test_coarse_pixels_are_averaged_in_plane():
    head = Grid((6, 4, 12), np.eye(4))
    x = torch.rand(head.shape)
    operator = Acquisition(head, head.resized((3, 2, 3)), axis=2)
    assert torch.allclose(operator.forward(x), x.reshape(3, 2, 2, 2, 3, 4).mean((1, 3, 5)), atol=1e-6)


def test_the_profile_acts_along_all_axes_where_none_is_named():
    head = Grid((12, 12, 12), np.eye(4))
    scan = head.resized((4, 4, 4))
    one = [Acquisition(head, scan, axis=i, profile="gaussian") for i in range(3)]
    every = Acquisition(head, scan, axis=None, profile="gaussian")
    x = torch.rand(12, 1, 1).expand(12, 12, 12)
    assert torch.allclose(every.forward(x), one[0].forward(x), atol=1e-6)
    assert not torch.allclose(every.forward(x), one[1].forward(x), atol=1e-3)


def test_a_gap_between_slices_is_not_measured():
    head = Grid((4, 4, 12), np.eye(4))
    operator = Acquisition(head, head.thick(2, 4), axis=2, thickness=2.0)
    x = torch.zeros(head.shape)
    x[..., [0, 3, 4, 7, 8, 11]] = 100.0  # the gaps: each slice covers the middle two of its four cells
    assert operator.forward(x).abs().max() == 0


def test_overlapping_slices_share_their_cells():
    head = Grid((4, 4, 12), np.eye(4))
    operator = Acquisition(head, head.thick(2, 4), axis=2, thickness=6.0)
    x = torch.zeros(head.shape)
    x[..., 4] = 6.0  # the last cell of the first slice's neighbourhood, the first of the second's own
    assert torch.allclose(operator.forward(x)[0, 0], torch.tensor([6 / 5, 1.0, 0.0]), atol=1e-6)


@pytest.mark.parametrize("profile", ["box", "gaussian", "cubic"])
@pytest.mark.parametrize("shift", [(0, 0, 0), (1, -2, 3), (0.3, 0.6, -0.4)])
def test_a_turn_to_nothing_ends_at_the_parallel_operator(profile, shift):
    """The interpolating way and the separable way are one operator: for whole voxels, and for fractions with a box."""
    head = Grid((24, 24, 24), np.eye(4))
    x = torch.rand(head.shape, dtype=torch.float64)
    thick = head.thick(2, 4)
    turned = Acquisition(head, placed(thick, (0.06, 0, 0), shift), axis=2, profile=profile, dtype=x.dtype)
    parallel = Acquisition(head, placed(thick, (0, 0, 0), shift), axis=2, profile=profile, dtype=x.dtype)
    assert turned._interpolation is not None and parallel._interpolation is None
    inner = (slice(4, -4),) * 2 + (slice(2, -2),)
    difference = (turned.forward(x) - parallel.forward(x))[inner].abs().max()
    # 0.06 degrees move a voxel by at most 0.013 of its size; a Gaussian is sampled at the cells' centres.
    assert difference < (0.02 if profile == "box" or np.allclose(np.mod(shift, 1), 0) else 0.12)


def test_a_scan_that_reaches_outside_sees_only_what_is_inside():
    x = torch.rand(HEAD.shape)
    inside = Acquisition(HEAD, HEAD.thick(2, 4), axis=2)
    wider = HEAD.thick(2, 4).block((-3, -2, -1), (19, 14, 7))
    operator = Acquisition(HEAD, wider, axis=2)
    assert operator.covered.sum() == inside.covered.sum() == np.prod(inside.scan.shape)
    part = (slice(3, 3 + 13), slice(2, 2 + 10), slice(1, 1 + 5))
    assert torch.allclose(operator.forward(x)[part], inside.forward(x), atol=1e-6)
    assert operator.forward(x).sum() == pytest.approx(float(inside.forward(x).sum()), rel=1e-5)
    assert operator.adjoint(torch.ones(wider.shape)).sum() == pytest.approx(float(inside.covered.sum()), rel=1e-5)


def test_a_scan_wholly_outside_covers_nothing():
    operator = Acquisition(HEAD, placed(HEAD.thick(2, 4), (5, 5, 5), (100, 0, 0)), axis=2)
    assert not operator.covered.any() and operator.forward(torch.rand(HEAD.shape)).abs().max() == 0
    assert operator.adjoint(torch.rand(operator.scan.shape)).abs().max() == 0


@pytest.mark.parametrize("placement", PLACED)
def test_gradient_is_the_adjoint(placement):
    operator = Acquisition(HEAD, placed(HEAD.thick(0, 4), *PLACED[placement]), axis=0)
    x = torch.zeros(HEAD.shape, requires_grad=True)
    y = torch.rand(operator.scan.shape)
    torch.sum(operator.forward(x) * y).backward()
    assert torch.allclose(x.grad, operator.adjoint(y), atol=1e-6)
    y.requires_grad_()
    v = torch.rand(HEAD.shape)
    torch.sum(operator.adjoint(y) * v).backward()
    assert torch.allclose(y.grad, operator.forward(v), atol=1e-6)


def test_slabs_make_no_difference(monkeypatch):
    scan = placed(HEAD.thick(1, 3), (30, 10, -20), (1, 2, 0))
    x, y = torch.rand(2, *HEAD.shape, dtype=torch.float64), torch.rand(2, *scan.shape, dtype=torch.float64)
    operator = Acquisition(HEAD, scan, axis=1, dtype=torch.float64)
    whole = operator.forward(x), operator.adjoint(y)
    monkeypatch.setattr("headsr.acquisition.operator._SLAB", 100)
    torch.testing.assert_close(operator.forward(x), whole[0], rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(operator.adjoint(y), whole[1], rtol=1e-12, atol=1e-12)


def test_gaussian_has_its_full_width_at_half_maximum():
    head = Grid((2, 2, 401), np.diag([1, 1, 0.05, 1.0]))
    scan = Grid((2, 2, 1), np.array([[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 20.05, 10.0], [0, 0, 0, 1.0]]))
    operator = Acquisition(head, scan, axis=2, profile="gaussian", thickness=4.0)
    response = operator.adjoint(torch.ones(2, 2, 1))[0, 0]
    width = 0.05 * int((response >= 0.5 * response.max()).sum())
    assert abs(width - 4.0) <= 0.1


def test_zoom_is_scipy_s():
    """The outermost centres stay where they are, and samples are points of the spline: as papers made their data."""
    head = Grid((13, 10, 24), np.diag([1.0, 1.2, 0.9, 1.0]))
    x = np.random.default_rng(0).random(head.shape)
    scan = head.zoomed(2, 4)
    assert scan.shape == (13, 10, 6)
    np.testing.assert_allclose(scan.affine @ [0, 0, 5, 1], head.affine @ [0, 0, 23, 1], atol=1e-9)
    operator = Acquisition(head, scan, axis=2, profile="zoom", dtype=torch.float64)
    expected = ndimage.zoom(x, (1, 1, 6 / 24), order=3, mode="mirror")
    np.testing.assert_allclose(operator.forward(torch.as_tensor(x)).numpy(), expected, atol=1e-6)


SECOND_MOMENTS = {"box": 1 / 12, "gaussian": 1 / (8 * np.log(2)), "zoom": 0.0}  # of a profile of thickness 1


@pytest.mark.parametrize("placement", PLACED)
@pytest.mark.parametrize("profile", SECOND_MOMENTS)
@pytest.mark.parametrize("thickness", [1.7, 3.5])
def test_nodes_measure_a_quadratic_field_exactly(placement, profile, thickness):
    """f = (n . p)^2 along the slices' normal n: its mean over a profile is f at the centre plus the second moment."""
    scan = placed(HEAD.thick(2, 4), *PLACED[placement])
    nodes = Acquisition(HEAD, scan, axis=2, profile=profile, thickness=thickness).nodes()
    normal = scan.affine[:3, 2] / scan.voxel_size[2]
    voxels = np.array([[0, 0, 0], [5, 3, 2], [12, 9, 4]])
    positions = nodes.positions(voxels)
    measured = nodes.measure(torch.as_tensor((positions @ normal) ** 2)).numpy()
    centres = voxels @ scan.affine[:3, :3].T + scan.affine[:3, 3]
    moment = SECOND_MOMENTS[profile] * thickness**2
    np.testing.assert_allclose(measured, (centres @ normal) ** 2 + moment, rtol=1e-9)


@pytest.mark.parametrize("placement", PLACED)
@pytest.mark.parametrize("profile", PROFILES)
def test_nodes_and_voxels_measure_the_same_field(placement, profile):
    """A smooth field, measured at the nodes and on voxels rendered from it (linear interpolation: 0.15^2/8 an axis)."""
    head = Grid((30, 30, 30), np.eye(4))
    scan = placed(head.thick(2, 4), *PLACED[placement])
    operator = Acquisition(head, scan, axis=2, profile=profile, dtype=torch.float64)

    def field(p):
        return np.sin(0.15 * p[..., 0] + 0.1) * np.cos(0.12 * p[..., 1]) + 0.5 * np.sin(0.17 * p[..., 2])

    centres = np.stack(np.meshgrid(*map(np.arange, head.shape), indexing="ij"), -1).astype(float)
    on_voxels = operator.forward(torch.as_tensor(field(centres)))
    voxels = np.argwhere(np.ones(scan.shape, bool))
    nodes = operator.nodes()
    positions = nodes.positions(voxels)
    inside = np.all((positions > 4) & (positions < 25), axis=(1, 2))
    at_nodes = nodes.measure(torch.as_tensor(field(positions[inside])))
    assert nodes.weights.sum() == pytest.approx(1) and inside.sum() > 100
    assert (at_nodes - on_voxels[tuple(voxels[inside].T)]).abs().max() < 6e-3


def test_an_unknown_profile_is_refused():
    with pytest.raises(ValueError, match=r"'sinc'.*box"):
        Acquisition(HEAD, HEAD.thick(2, 4), axis=2, profile="sinc")
