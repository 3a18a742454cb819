"""Grids keep their box, files are read to their end, and what cannot be used is refused by name."""

import gzip
import struct

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headsr.volumes import (
    Grid,
    Volume,
    VolumeError,
    axis_positions,
    cell_average,
    load_volume,
    save_volume,
    spline_resample,
)


@st.composite
def grids(draw):
    """Oblique, left-handed and axis-permuted grids."""
    shape = draw(st.tuples(*[st.integers(2, 40)] * 3))
    size = np.array(draw(st.tuples(*[st.floats(0.2, 6)] * 3)))
    angles = draw(st.tuples(*[st.floats(-np.pi, np.pi)] * 3))
    rotation = np.eye(3)
    for axis, angle in enumerate(angles):
        i, j = [k for k in range(3) if k != axis]
        turn = np.eye(3)
        turn[[i, i, j, j], [i, j, i, j]] = np.cos(angle), -np.sin(angle), np.sin(angle), np.cos(angle)
        rotation = rotation @ turn
    flips = np.array(draw(st.tuples(*[st.sampled_from([-1, 1])] * 3)))
    affine = np.eye(4)
    affine[:3, :3] = (rotation * size * flips)[:, draw(st.permutations(range(3)))]
    affine[:3, 3] = draw(st.tuples(*[st.floats(-200, 200)] * 3))
    return Grid(shape, affine)


@settings(max_examples=300, deadline=None)
@given(grid=grids(), shape=st.tuples(*[st.integers(1, 60)] * 3))
def test_resizing_keeps_the_box_and_comes_back(grid, shape):
    other = grid.resized(shape)
    assert np.abs(other.corners - grid.corners).max() < 1e-4
    assert other.resized(grid.shape).same_as(grid)


@settings(max_examples=100, deadline=None)
@given(grid=grids())
def test_voxel_size_is_the_length_of_a_step(grid):
    for axis in range(3):
        step = grid.affine[:3, axis]
        assert np.isclose(np.linalg.norm(step), grid.voxel_size[axis])


def test_half_voxel_of_the_convention():
    thick = Grid((8, 8, 8), np.eye(4)).thick(2, 4)
    assert thick.shape == (8, 8, 2)
    assert thick.affine[2, 3] == 1.5  # (0 + 0.5) * 4 - 0.5


@pytest.mark.parametrize("shape", [(7, 5, 9), (4, 4, 4), (3, 8, 2)])
def test_linear_ramp_survives_every_interpolator(shape):
    fine = Grid((28, 20, 36), np.diag([1, 1.5, 0.5, 1]))
    coarse = fine.resized(shape)

    def ramp(grid):
        x, y, z = np.meshgrid(*map(np.arange, grid.shape), indexing="ij")
        mm = np.einsum("ij,jxyz->ixyz", grid.affine[:3, :3], np.stack([x, y, z])) + grid.affine[:3, 3, None, None, None]
        return (0.3 * mm[0] - 0.2 * mm[1] + 0.7 * mm[2]).astype(np.float32)

    # Cells are constant inside: a fractional factor is off by a fraction of a fine cell, an integer one not at all.
    whole = all(f % c == 0 for f, c in zip(fine.shape, shape, strict=True))
    assert np.abs(cell_average(ramp(fine), shape) - ramp(coarse)).max() < (1e-4 if whole else 0.05)
    inner = tuple(
        slice(int(np.ceil(1.5 * f / c)), -int(np.ceil(1.5 * f / c))) for f, c in zip(fine.shape, shape, strict=True)
    )
    if min(shape) >= 4:
        up = spline_resample(Volume(ramp(coarse), coarse), fine)
        assert np.abs(up - ramp(fine))[inner].mean() < 0.1


def test_spline_reproduces_its_own_samples_and_a_constant():
    grid = Grid((6, 5, 7), np.eye(4))
    data = np.random.default_rng(0).random(grid.shape, dtype=np.float32)
    assert np.array_equal(spline_resample(Volume(data, grid), grid), data)
    fine = grid.resized((12, 15, 21))
    assert np.allclose(spline_resample(Volume(np.full(grid.shape, 3.5, np.float32), grid), fine), 3.5, atol=1e-5)


def test_positions_along_axes_refuse_rotated_grids():
    turned = np.eye(4)
    turned[:2, :2] = [[0.9, -0.4], [0.4, 0.9]]
    with pytest.raises(ValueError, match="rotated"):
        axis_positions(Grid((5, 5, 5), turned), Grid((5, 5, 5), np.eye(4)))


@pytest.fixture
def scan(tmp_path):
    path = tmp_path / "sub-01_T1w.nii.gz"
    data = np.random.default_rng(1).random((9, 8, 7), dtype=np.float32)
    save_volume(path, data, Grid(data.shape, np.diag([2, 1, 3, 1.0])))
    return path


def test_round_trip_keeps_values_and_geometry_and_bytes(scan, tmp_path):
    volume = load_volume(scan)
    again = tmp_path / "again.nii.gz"
    save_volume(again, volume.data, volume.grid)
    assert again.read_bytes() == scan.read_bytes()
    assert np.allclose(volume.grid.voxel_size, [2, 1, 3])


def test_slope_is_applied_and_orientation_is_ras(tmp_path):
    data = np.arange(60, dtype=np.int16).reshape(3, 4, 5)
    image = nib.Nifti1Image(data, np.diag([-1.0, 1, 1, 1]))
    content = bytearray(image.to_bytes())
    content[112:120] = struct.pack("<ff", 0.5, -3.0)  # scl_slope and scl_inter of the NIfTI-1 header
    path = tmp_path / "scan.nii"
    path.write_bytes(content)
    volume = load_volume(path)
    assert np.allclose(volume.data, data[::-1] * 0.5 - 3)
    assert volume.grid.affine[0, 0] == 1


def test_every_flipped_bit_is_caught(scan):
    content = bytearray(scan.read_bytes())
    original = load_volume(scan).data
    for position in np.random.default_rng(2).integers(80, len(content), 40):
        damaged = bytearray(content)
        damaged[position] ^= 1 << int(position) % 8
        scan.write_bytes(damaged)
        try:
            assert np.array_equal(load_volume(scan).data, original), "a damaged file gave other intensities"
        except VolumeError as error:
            assert str(scan) in str(error)


def test_cut_short(scan):
    scan.write_bytes(scan.read_bytes()[:-5])
    with pytest.raises(VolumeError, match="damaged or cut short"):
        load_volume(scan)


def _written(tmp_path, data, sform=None, qform=None):
    image = nib.Nifti1Image(data, np.eye(4))
    if sform is not None:
        image.set_sform(sform, code=1)
        image.set_qform(qform, code=1)
    path = tmp_path / "scan.nii.gz"
    path.write_bytes(gzip.compress(image.to_bytes()))
    return path


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (np.random.rand(4, 4, 4, 3).astype(np.float32), "4-D"),
        (np.ones((4, 4, 4), np.float32), "every voxel is 1"),
        (np.full((4, 4, 4), np.nan, np.float32), "NaN"),
        (np.zeros((4, 4, 1), np.float32), "empty or flat"),
        (np.zeros((4, 4, 4), dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")]), "RGB"),
    ],
)
def test_unusable_scans_are_refused_by_name(tmp_path, data, message):
    path = _written(tmp_path, data)
    with pytest.raises(VolumeError, match=message) as refusal:
        load_volume(path)
    assert str(path) in str(refusal.value)


def test_conflicting_forms_are_refused(tmp_path):
    data = np.random.rand(4, 5, 6).astype(np.float32)
    with pytest.raises(VolumeError, match="sform and qform disagree"):
        load_volume(_written(tmp_path, data, sform=np.diag([1.0, 1, 1, 1]), qform=np.diag([-1.0, 1, 1, 1])))
    assert load_volume(_written(tmp_path, data, sform=np.eye(4), qform=np.eye(4))).data.shape == (4, 5, 6)


def test_a_failed_write_leaves_nothing(tmp_path):
    with pytest.raises(ValueError, match="do not fit"):
        save_volume(tmp_path / "x.nii.gz", np.zeros((2, 2, 2)), Grid((3, 3, 3), np.eye(4)))
    assert list(tmp_path.iterdir()) == []


def test_a_sheared_affine_survives_its_own_file(tmp_path):
    tilted = np.array([[1.0, 0, 0, 3], [0, 1, 0.3, -2], [0, 0, 2, 5], [0, 0, 0, 1]])
    data = np.random.default_rng(3).random((5, 6, 7), dtype=np.float32)
    save_volume(tmp_path / "tilted.nii.gz", data, Grid(data.shape, tilted))
    assert np.allclose(load_volume(tmp_path / "tilted.nii.gz").grid.affine, tilted)
