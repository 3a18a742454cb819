"""The thickness of slices is told from what they show, within 15 %, or it is said that and why it cannot be."""

from functools import cache

import numpy as np
import pytest
import torch
from scipy import ndimage

from headsr.acquisition.operator import Acquisition
from headsr.acquisition.thickness import estimate_thickness
from headsr.simulate.imaging import add_rician_noise
from headsr.volumes import Grid, Volume

SHAPE = (80, 96, 88)


@cache
def textured(seed, stretch=1.0, shape=SHAPE):
    """A head (X, Y, Z) of 1 mm in which tissue is the sign of smooth noise, ``stretch`` times longer along z."""
    rng = np.random.default_rng(seed)
    signal = np.full(shape, 0.6, np.float32)
    for size, amount in ((6.0, 0.12), (3.0, 0.1), (1.5, 0.06)):
        field = ndimage.gaussian_filter(
            rng.standard_normal(shape, dtype=np.float32), (size, size, stretch * size), mode="wrap", truncate=3
        )
        signal += amount * np.sign(field)
    signal = ndimage.gaussian_filter(signal, (0.7, 0.7, 0.7 * stretch))
    places = np.meshgrid(*[np.linspace(-1, 1, n) for n in shape], indexing="ij", sparse=True)
    head = sum(p**2 for p in places) < 0.9
    return signal * head, head


def thick(signal, head, axis, spacing, thickness, *, noise=0.01, profile="box", voxel=1.0, seed=0):
    """A scan with slices along an axis and Rician noise, and where its head is."""
    grid = Grid(signal.shape, np.diag([voxel, voxel, voxel, 1.0]))
    scan = grid.thick(axis, spacing / voxel, thickness / voxel)
    operator = Acquisition(grid, scan, axis=axis, profile=profile, thickness=thickness)
    seen = operator.forward(torch.as_tensor(head, dtype=torch.float32)).numpy() > 0.5
    data = operator.forward(torch.as_tensor(signal)).numpy()
    return Volume(add_rician_noise(data, sigma=noise, rng=np.random.default_rng(seed)), scan), seen


@pytest.mark.parametrize(
    ("axis", "spacing", "thickness", "noise"),
    [(2, 4, 4, 0.01), (1, 4, 4.8, 0.03), (0, 4, 4.8, 0.0)],
)
def test_known_thickness(axis, spacing, thickness, noise):
    scan, head = thick(*textured(1), axis, spacing, thickness, noise=noise)
    told = estimate_thickness(scan, axis, head)
    assert told.thickness_mm == pytest.approx(thickness, rel=0.15)
    assert told.interval_mm[0] <= thickness <= told.interval_mm[1]
    assert told.why_not == ""


def test_a_full_width_at_half_maximum():
    scan, head = thick(*textured(1), 2, 4, 4, profile="gaussian")
    told = estimate_thickness(scan, 2, head, profile="gaussian")
    assert told.thickness_mm == pytest.approx(4, rel=0.15)


@pytest.mark.parametrize("stretch", [0.75, 1.25])
def test_a_head_that_is_longer_or_shorter_along_the_slices(stretch):
    """Taken for isotropic, it would seem to have other slices."""
    scan, head = thick(*textured(1, stretch), 2, 4, 4)
    told = estimate_thickness(scan, 2, head)
    assert told.interval_mm[0] <= 4 <= told.interval_mm[1]
    assert told.thickness_mm is None or told.thickness_mm == pytest.approx(4, rel=0.15)


def test_units_are_of_no_account():
    scan, head = thick(*textured(1), 2, 4, 4)
    said = [estimate_thickness(Volume(k * scan.data, scan.grid), 2, head) for k in (1, 512)]
    assert said[0].thickness_mm == pytest.approx(said[1].thickness_mm, rel=1e-3)


def test_the_field_of_view_may_be_flipped_and_oblique():
    scan, head = thick(*textured(1), 2, 4, 4)
    turn = np.eye(4)
    turn[:3, :3] = [[0.8, 0.6, 0], [-0.6, 0.8, 0], [0, 0, 1]]
    turned = Volume(scan.data[..., ::-1], Grid(scan.grid.shape, turn @ scan.grid.affine))
    told = estimate_thickness(turned, 2, head[..., ::-1])
    assert told.thickness_mm == pytest.approx(estimate_thickness(scan, 2, head).thickness_mm, rel=0.02)


def test_gaps_are_seen_though_the_thickness_is_not():
    scan, head = thick(*textured(1), 2, 4, 2)
    told = estimate_thickness(scan, 2, head)
    assert told.thickness_mm is None
    assert told.interval_mm[0] <= 2 <= told.interval_mm[1] < 4
    assert "explain it alike, and being 4.0 mm apart they have gaps" in told.why_not


def untold(scan, axis, head):
    told = estimate_thickness(scan, axis, head)
    assert told.thickness_mm is None
    low, high = told.interval_mm
    spacing = scan.grid.voxel_size[axis]
    assert low < spacing < high
    return told.why_not


def test_few_slices_do_not_tell():
    scan, head = thick(*textured(1), 2, 4, 4)
    few = scan.grid.block((0, 0, 6), (*scan.grid.shape[:2], 8))
    assert "only 8 slices show the head" in untold(Volume(scan.data[..., 6:14], few), 2, head[..., 6:14])


def test_a_scan_that_is_about_isotropic_does_not_tell():
    signal, head = textured(1)
    assert "hardly more than its pixels" in untold(Volume(signal, Grid(SHAPE, np.eye(4))), 2, head)


def test_no_head_does_not_tell():
    scan, head = thick(*textured(1), 2, 4, 4)
    assert "only 0 slices show the head" in untold(scan, 2, np.zeros_like(head))


def test_a_corner_of_a_head_does_not_tell():
    scan, head = thick(*textured(1), 2, 4, 4)
    corner = np.zeros_like(head)
    corner[40:43, 40:42] = head[40:43, 40:42]
    assert "too little of the head" in untold(scan, 2, corner)


def test_noise_alone_does_not_tell():
    rng = np.random.default_rng(0)
    grid = Grid((60, 60, 24), np.diag([1.0, 1.0, 5.0, 1.0]))
    noise = Volume((10 + rng.standard_normal(grid.shape)).astype(np.float32), grid)
    assert "lost in noise" in untold(noise, 2, np.ones(grid.shape, bool))


def test_points_of_a_spline_have_no_thickness():
    scan, head = thick(*textured(1), 2, 4, 4)
    with pytest.raises(ValueError, match="'zoom' have no thickness to estimate; choose box or gaussian"):
        estimate_thickness(scan, 2, head, profile="zoom")


def test_a_head_on_another_grid_is_refused():
    scan, head = thick(*textured(1), 2, 4, 4)
    with pytest.raises(ValueError, match="does not fit"):
        estimate_thickness(scan, 2, head[1:])
