"""Grids keep their box, files are read to their end, and what cannot be used is refused by name."""

import gzip
import itertools
import re
import tracemalloc

import nibabel as nib
import numpy as np
import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headsr.volumes import (
    Grid,
    Storage,
    Volume,
    VolumeError,
    axis_positions,
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


@settings(max_examples=300)
@given(grid=grids(), shape=st.tuples(*[st.integers(1, 60)] * 3))
def test_resizing_keeps_the_box_and_comes_back(grid, shape):
    other = grid.resized(shape)
    assert np.abs(other.corners - grid.corners).max() < 1e-4
    assert other.resized(grid.shape).same_as(grid)


@settings(max_examples=100)
@given(grid=grids())
def test_voxel_size_is_the_length_of_a_step(grid):
    for axis in range(3):
        step = grid.affine[:3, axis]
        assert np.isclose(np.linalg.norm(step), grid.voxel_size[axis])


def test_half_voxel_of_the_convention():
    thick = Grid((8, 8, 8), np.eye(4)).thick(2, 4)
    assert thick.shape == (8, 8, 2)
    assert thick.affine[2, 3] == 1.5  # (0 + 0.5) * 4 - 0.5


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


def nifti(data, affine=None, *, kind=nib.Nifti1Image, **fields):
    """The bytes of a NIfTI file, with fields of its header as they are given, right or wrong."""
    image = kind(data, np.diag([1.0, 2, 3, 1]) if affine is None else affine)
    size = image.header.template_dtype.itemsize
    header = type(image.header)(image.to_bytes()[:size], check=False)
    for name, value in fields.items():
        header[name] = value
    return header.binaryblock + image.to_bytes()[size:]


def noise(shape=(4, 5, 6), dtype=np.float32):
    return np.random.default_rng(4).integers(0, 99, shape).astype(dtype)


def test_slope_is_applied_and_orientation_is_ras(tmp_path):
    data = np.arange(60, dtype=np.int16).reshape(3, 4, 5)
    path = tmp_path / "scan.nii"
    path.write_bytes(nifti(data, np.diag([-1.0, 1, 1, 1]), scl_slope=0.5, scl_inter=-3.0))
    volume = load_volume(path)
    assert np.allclose(volume.data, data[::-1] * 0.5 - 3)
    assert volume.grid.affine[0, 0] == 1


@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
@pytest.mark.parametrize("ending", ["nii", "nii.gz"])
@pytest.mark.parametrize("order", ["<", ">"])
def test_every_kind_of_nifti_is_read(tmp_path, kind, ending, order):
    data = noise(dtype=np.int16)
    image = kind(data, np.diag([2.0, 2, 2, 1]), kind.header_class(endianness=order))
    image.set_data_dtype(data.dtype)
    image.header.set_slope_inter(2.0, 1.0)
    content = image.to_bytes()
    assert int.from_bytes(content[:4], "little" if order == "<" else "big") in (348, 540)
    path = tmp_path / f"scan.{ending}"
    path.write_bytes(gzip.compress(content) if ending == "nii.gz" else content)
    volume = load_volume(path)
    np.testing.assert_array_equal(volume.data, data * 2 + 1)
    assert volume.storage == Storage("int16", 2, 1)
    assert np.allclose(volume.grid.voxel_size, 2)


@pytest.mark.parametrize(
    ("dtype", "slope", "intercept"),
    [
        ("int16", 1.0, -1024.0),  # a CT in HU
        ("int16", 1.0, 0.0),
        ("uint16", 1.0, -1024.0),
        ("uint8", 6.4823527336, 0.0),
        ("int16", -0.37, 12.3),
        ("uint16", 1e-4, -3e-2),
        ("int32", 0.5, 7.0),
        ("float32", 1.0, 0.0),
        ("float64", 1.0, 0.0),
    ],
)
def test_what_a_file_stores_is_written_again(tmp_path, dtype, slope, intercept):
    rng = np.random.default_rng(5)
    info = np.iinfo(dtype) if dtype.startswith(("int1", "uint")) else np.iinfo(np.int16)
    stored = rng.integers(info.min, info.max, (6, 5, 4), endpoint=True)
    stored.flat[:2] = info.min, info.max
    path = tmp_path / "ct.nii.gz"
    path.write_bytes(gzip.compress(nifti(stored.astype(dtype), scl_slope=slope, scl_inter=intercept)))
    volume = load_volume(path)
    np.testing.assert_allclose(volume.data, stored * slope + intercept, rtol=1e-6, atol=1e-6 * abs(slope) * 2**15)
    save_volume(path, volume.data, volume.grid, storage=volume.storage)
    again = nib.load(path)
    assert again.get_data_dtype() == dtype
    np.testing.assert_array_equal(again.dataobj.get_unscaled(), stored)
    assert (again.dataobj.slope, again.dataobj.inter) == (np.float32(slope), np.float32(intercept))
    np.testing.assert_array_equal(load_volume(path).data, volume.data)


def test_new_values_are_rounded_to_the_storage_and_refused_beyond_it(tmp_path):
    hu = Storage("int16", 1.0, -1024.0)
    assert hu.limits == (-33792.0, 31743.0)
    np.testing.assert_array_equal(hu.encode(np.float32([[-1000.4, 31743.4]])), [[24, 32767]])
    for value in (31744, -33793, np.nan, np.inf):
        with pytest.raises(ValueError, match=r"scan.*do not fit into int16 with slope 1 and intercept -1024.*Clip"):
            save_volume(tmp_path / "scan.nii", np.full((2, 2, 2), value, np.float32), cube(2), storage=hu)
    assert list(tmp_path.iterdir()) == []
    assert hu.encode(np.clip(np.float32([[99999.0]]), *hu.limits)) == 32767
    negative = Storage("uint8", -2.0, 0.0)
    assert negative.limits == (-510.0, 0.0)
    np.testing.assert_array_equal(negative.decode(negative.encode(np.float32([[-510, -3.1, 0]]))), [[-510, -4, 0]])


def test_integers_that_float32_cannot_tell_apart_are_not_promised_back(tmp_path):
    path = tmp_path / "large.nii"
    stored = noise(dtype=np.int32) + 2**24
    path.write_bytes(nifti(stored))
    volume = load_volume(path)
    assert np.abs(volume.data - stored.astype(np.float64)).max() == 1
    with pytest.raises(ValueError, match="cannot tell apart the steps of int32"):
        save_volume(path, volume.data, volume.grid, storage=volume.storage)
    save_volume(path, volume.data, volume.grid)
    assert load_volume(path).storage == Storage()


@pytest.mark.parametrize(
    "wrong", [("complex64", 1, 0), ("bool", 1, 0), ("int16", 0, 0), ("int16", np.nan, 0), ("int16", 1, np.inf)]
)
def test_what_cannot_store_intensities_is_refused(wrong):
    with pytest.raises(ValueError, match="store intensities"):
        Storage(*wrong)


def cube(n):
    return Grid((n, n, n), np.eye(4))


@pytest.mark.parametrize(("unit", "in_mm"), [("meter", 1000.0), ("mm", 1.0), ("micron", 0.001), ("unknown", 1.0)])
@pytest.mark.parametrize("form", ["sform", "qform"])
def test_every_unit_becomes_mm(tmp_path, unit, in_mm, form):
    affine = np.diag([0.8 / in_mm, 0.9 / in_mm, 3 / in_mm, 1])
    affine[:3, 3] = np.array([-80, 20, 7]) / in_mm
    image = nib.Nifti1Image(noise(), None)
    getattr(image, f"set_{form}")(affine, code="scanner")
    image.header.set_xyzt_units(unit)
    (tmp_path / "scan.nii").write_bytes(image.to_bytes())
    grid = load_volume(tmp_path / "scan.nii").grid
    np.testing.assert_allclose(grid.affine[:3], affine[:3] * in_mm, rtol=1e-6)
    save_volume(tmp_path / "scan.nii", noise(), grid)
    assert nib.load(tmp_path / "scan.nii").header.get_xyzt_units()[0] == "mm"


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


@pytest.mark.parametrize("ending", ["nii", "nii.gz"])
def test_cut_short_anywhere(tmp_path, ending):
    path, content = tmp_path / f"scan.{ending}", nifti(noise((9, 8, 7)))
    content = gzip.compress(content) if ending == "nii.gz" else content
    for length in [*range(0, len(content), 37), len(content) - 8, len(content) - 1]:
        path.write_bytes(content[:length])
        with pytest.raises(VolumeError, match=r"damaged|not a readable NIfTI") as refusal:
            load_volume(path)
        assert str(path) in str(refusal.value)
    path.write_bytes(content + b"and more")
    with pytest.raises(VolumeError, match="damaged"):
        load_volume(path)


@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
def test_whatever_a_header_says_it_is_read_or_refused_by_name(tmp_path, kind):
    affine = np.diag([-1.0, 2, 3, 1])
    data = noise((3, 4, 5), np.int16)
    content, path = nifti(data, affine, kind=kind, scl_slope=2.0), tmp_path / "scan.nii"
    read = 0
    for position in range(len(content) - data.nbytes):
        for value in (0, 0x7F, 0xFF):
            path.write_bytes(content[:position] + bytes([value]) + content[position + 1 :])
            try:
                volume = load_volume(path)
            except VolumeError as refusal:
                assert str(path) in str(refusal)
            else:
                read += 1
                assert np.isfinite(volume.data).all() and np.isfinite(volume.grid.affine).all()
    assert read > 600


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
        (np.ones((4, 4, 4), np.complex64), "complex64 numbers.*magnitude"),
        (np.full((4, 4, 4), 1e39), "64 of 64 voxels are NaN or infinite"),
    ],
)
def test_unusable_scans_are_refused_by_name(tmp_path, data, message):
    path = _written(tmp_path, data)
    with pytest.raises(VolumeError, match=message) as refusal:
        load_volume(path)
    assert str(path) in str(refusal.value)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"datatype": 16}, "bits per voxel"),
        ({"bitpix": 8}, "8 bits per voxel are not those of int16"),
        ({"datatype": 512, "bitpix": 8}, "bits per voxel"),
        ({"datatype": 99}, "not a readable NIfTI"),
        ({"dim": [3, 4, 5, 7, 1, 1, 1, 1]}, "header says 632"),
        ({"dim": [3, 4, 5, 5, 1, 1, 1, 1]}, "header says 552"),
        ({"dim": [3, 32767, 32767, 32767, 1, 1, 1, 1]}, "damaged or cut short"),
        ({"dim": [3, 4, -5, 6, 1, 1, 1, 1]}, "empty or flat"),
        ({"magic": b"ni1"}, r"\.hdr/\.img pair"),
        ({"vox_offset": np.nan}, "not a readable NIfTI"),
        ({"scl_slope": 1.0, "scl_inter": np.nan}, "not a readable NIfTI"),
        ({"xyzt_units": 5}, "not a readable NIfTI"),
        ({"xyzt_units": 1}, "voxels of 1000 x 2000 x 3000 mm.*meter.*set_xyzt_units"),
        ({"xyzt_units": 3}, "voxels of 0.001 x 0.002 x 0.003 mm.*micron.*set_xyzt_units"),
        ({"srow_x": [0, 0, 0, 0]}, "sform places no voxels.*invertible"),
        ({"srow_y": [0, np.nan, 0, 0]}, "sform places no voxels"),
        ({"srow_z": [0, 0, 3, np.inf]}, "sform places no voxels.*finite"),
        ({"srow_x": [0.02, 0, 0, 0], "srow_y": [0, 101, 0, 0]}, "not those of a head"),
        ({"sform_code": 6}, "sform_code is 6, which is none of 0 to 5.*set the code"),
        ({"sform_code": -1}, "sform_code is -1, which is none of 0 to 5"),
        ({"qform_code": 9}, "qform_code is 9, which is none of 0 to 5"),
        (
            {"qform_code": 1, "pixdim": [7, 1, 2, 3, 0, 0, 0, 0]},
            r"pixdim\[0\] is 7 and must be 1 or -1.*copysform2qform",
        ),
        ({"qform_code": 1, "pixdim": [np.nan, 1, 2, 3, 0, 0, 0, 0]}, r"pixdim\[0\] is nan and must be 1 or -1"),
        ({"qform_code": 1, "pixdim": [-0.99, 1, 2, 3, 0, 0, 0, 0]}, r"pixdim\[0\] is -0.99 and must be 1 or -1"),
        ({"scl_slope": np.nan}, "scl_slope is nan.*set it to 1"),
        ({"scl_slope": -np.inf}, "scl_slope is -inf.*set it to 1"),
        ({"sform_code": 0}, "neither sform nor qform.*set_sform"),
        ({"sform_code": 0, "qform_code": 1, "quatern_b": 2.0}, "qform places no voxels"),
        ({"sform_code": 0, "qform_code": 1, "pixdim": [1, 0, 2, 3, 0, 0, 0, 0]}, "voxel sizes .0. 2. 3."),
    ],
)
def test_headers_that_nothing_bears_out_are_refused_with_the_way_out(tmp_path, fields, message):
    path = tmp_path / "scan.nii"
    path.write_bytes(nifti(noise(dtype=np.int16)))
    load_volume(path)
    path.write_bytes(nifti(noise(dtype=np.int16), **fields))
    with pytest.raises(VolumeError, match=message) as refusal:
        load_volume(path)
    assert str(path) in str(refusal.value)


def test_axes_of_one_behind_the_third_are_dropped(tmp_path):
    path, data = tmp_path / "scan.nii", noise()
    path.write_bytes(nifti(data[..., None, None]))
    np.testing.assert_array_equal(load_volume(path).data, data)


def test_other_formats_are_refused_with_the_way_out(tmp_path):
    data = noise()
    nib.save(nib.Nifti1Pair(data, np.eye(4)), tmp_path / "pair.img")
    nib.save(nib.AnalyzeImage(data, np.eye(4)), tmp_path / "analyze.img")
    nib.save(nib.MGHImage(data, np.eye(4)), tmp_path / "scan.mgz")
    for name in ("pair.img", "pair.hdr", "analyze.img", "analyze.hdr", "scan.mgz"):
        with pytest.raises(VolumeError, match=rf"{name}: is not named .*nibabel\.save"):
            load_volume(tmp_path / name)
    (tmp_path / "analyze.hdr").rename(tmp_path / "analyze.nii")
    (tmp_path / "text.nii.gz").write_bytes(gzip.compress(b"no volume"))
    for name in ("analyze.nii", "text.nii.gz"):
        with pytest.raises(VolumeError, match=f"{name}: is not a readable NIfTI"):
            load_volume(tmp_path / name)
    with pytest.raises(VolumeError, match=r"does not exist.*datalad get"):
        load_volume(tmp_path / "absent.nii.gz")


@pytest.mark.parametrize("affine", [np.zeros((4, 4)), np.diag([1, 1, 0, 1]), np.full((4, 4), np.nan), np.ones((4, 4))])
def test_a_grid_needs_an_affine_that_can_be_inverted(affine):
    with pytest.raises(ValueError, match="affine of a grid must be"):
        Grid((3, 3, 3), affine)


@pytest.mark.parametrize("wrong", [0, -1.0, np.nan, np.inf, (1.0, 0.0, 2.0)])
def test_sizes_and_factors_are_positive(wrong):
    with pytest.raises(ValueError, match="must be positive"):
        cube(4).at_voxel_size(wrong)
    with pytest.raises(ValueError, match="must be positive"):
        cube(4).scaled(wrong)


def test_scaled_multiplies_the_voxels_of_each_axis():
    grid = Grid((10, 11, 12), np.diag([1, 2, 3, 1.0]))
    assert grid.scaled(2).same_as(grid.resized((20, 22, 24)))
    assert grid.scaled((1, 2.5, 0.01)).shape == (10, 28, 1)
    assert grid.at_voxel_size((1, 1, 1)).same_as(grid.scaled((1, 2, 3)))


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


def test_forms_that_say_left_and_right_are_compared_whatever_their_codes(tmp_path):
    """A code that no standard knows once switched the comparison off, and the flipped form won."""
    path = tmp_path / "scan.nii"
    for codes in itertools.product(range(1, 6), range(1, 6)):
        image = nib.Nifti1Image(noise(), np.diag([2.0, 2, 2, 1]))
        image.set_qform(np.diag([2.0, 2, 2, 1]), code=codes[0])
        image.set_sform(np.diag([-2.0, 2, 2, 1]), code=codes[1])
        path.write_bytes(image.to_bytes())
        with pytest.raises(VolumeError, match="sform and qform disagree"):
            load_volume(path)


@pytest.mark.parametrize("ending", ["nii", "nii.gz"])
def test_a_qfac_of_0_is_1_as_the_standard_says(tmp_path, ending):
    path, affine = tmp_path / f"scan.{ending}", np.diag([2.0, 2, 2, 1])
    image = nib.Nifti1Image(noise(), affine)
    image.set_qform(affine, code=1)
    image.set_sform(None, code=0)
    content = bytearray(image.to_bytes())
    content[76:80] = bytes(4)  # pixdim[0]
    path.write_bytes(gzip.compress(content) if ending == "nii.gz" else content)
    np.testing.assert_array_equal(load_volume(path).grid.affine, affine)


def test_what_a_qform_that_holds_not_has_of_qfac_is_no_matter(tmp_path):
    (tmp_path / "scan.nii").write_bytes(nifti(noise(), qform_code=0, pixdim=[4, 1, 2, 3, 0, 0, 0, 0]))
    load_volume(tmp_path / "scan.nii")


def in_little_memory(call, most):
    tracemalloc.start()
    try:
        with pytest.raises(VolumeError) as refused:
            call()
        assert tracemalloc.get_traced_memory()[1] < most
    finally:
        tracemalloc.stop()
    return str(refused.value)


def test_gzip_that_holds_more_than_its_header_says_is_not_unpacked(tmp_path):
    bomb = tmp_path / "scan.nii.gz"
    bomb.write_bytes(gzip.compress(nifti(noise()) + bytes(2**26), compresslevel=9))
    assert re.search(
        r"scan\.nii\.gz: is damaged .*header says \d+ bytes, and it holds more",
        in_little_memory(lambda: load_volume(bomb), 2**20),
    )


def test_a_volume_that_memory_cannot_take_is_not_unpacked(tmp_path, monkeypatch):
    honest = tmp_path / "scan.nii.gz"
    image = nib.Nifti1Image(np.zeros((256, 256, 128), np.int16), np.eye(4))
    honest.write_bytes(gzip.compress(image.to_bytes(), compresslevel=9))
    free = psutil.virtual_memory()._replace(available=10 * 2**20)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: free)
    said = in_little_memory(lambda: load_volume(honest), 2**20)
    assert re.search(r"scan\.nii\.gz: takes 0\.0839 GB of memory by its header, and 0\.0105 GB are free\. Use", said)


@pytest.mark.parametrize("ending", ["nii", "nii.gz"])
@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
def test_a_header_that_says_more_than_its_file_can_hold_takes_no_memory(tmp_path, ending, kind):
    path, content = tmp_path / f"scan.{ending}", nifti(noise(), kind=kind, dim=[3, 32767, 32767, 32767, 1, 1, 1, 1])
    path.write_bytes(gzip.compress(content) if ending == "nii.gz" else content)
    assert "is damaged or cut short (its header says 140" in in_little_memory(lambda: load_volume(path), 2**20)


@pytest.mark.parametrize("ending", ["nii", "nii.gz"])
def test_what_is_no_file_is_refused_at_once(endless, ending):
    path = endless(f"scan.{ending}")
    with pytest.raises(VolumeError, match=r"scan\.nii(\.gz)?: is a pipe or a device, not a file"):
        load_volume(path)


def test_voxels_of_no_size_are_refused_before_the_forms_are_compared(tmp_path):
    header = nib.Nifti2Header()
    header.set_qform(np.diag([-0.9, 1, 3, 1]), 1)
    header.set_sform(np.diag([-0.9, 1, 3, 1]), 1)
    header["srow_z"] = [0, -8.5e-160, -1.6e-299, 3e-312]  # what no rotation is near to: nibabel cannot compare
    image = nib.Nifti2Image(np.arange(60, dtype=np.int16).reshape(3, 4, 5), None, header)
    image.to_filename(tmp_path / "a.nii")
    with pytest.raises(VolumeError, match=r"a\.nii: voxels of 0\.9 x 1 x 0 mm .* are not those of a head"):
        load_volume(tmp_path / "a.nii")


@pytest.mark.parametrize(
    ("codes", "kept"), [((4, 1), (4, 1)), ((2, 0), (2, 2)), ((0, 3), (3, 3)), ((1, 1), (1, 1)), ((5, 4), (5, 4))]
)
def test_what_a_header_places_its_voxels_in_is_kept(tmp_path, codes, kept):
    affine = np.diag([1.0, 1.5, 2.0, 1.0])
    image = nib.Nifti1Image(np.random.default_rng(0).random((4, 5, 6), np.float32), None)
    image.header.set_sform(affine, code=codes[0])
    image.header.set_qform(affine, code=codes[1])
    nib.save(image, tmp_path / "in.nii")
    volume = load_volume(tmp_path / "in.nii")
    save_volume(tmp_path / "out.nii.gz", volume.data, volume.grid, axes=volume.axes, forms=volume.forms)
    header = nib.load(tmp_path / "out.nii.gz").header
    assert (int(header["sform_code"]), int(header["qform_code"])) == kept
    assert np.allclose(header.get_sform(), affine) and np.allclose(header.get_qform(), affine)
    assert header.get_xyzt_units() == ("mm", "unknown")
