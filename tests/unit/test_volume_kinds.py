"""What lies where an image should, and headers as old converters wrote them: taken, or refused with its own way out."""

import gzip
import struct

import nibabel as nib
import numpy as np
import pytest

from headsr.volumes import VolumeError, load_volume

KEY = "SHA256E-s75849--" + "0" * 64 + ".nii.gz"
TEXTS = {
    "a pointer of git-annex": (f"/annex/objects/{KEY}\n", "datalad get sub-01_T1w"),
    "a link of git-annex as text": (f"../../.git/annex/objects/xX/Yy/{KEY}/{KEY}", "datalad get sub-01_T1w"),
    "a link as Windows has it": (f"..\\..\\.git\\annex\\objects\\{KEY}\\{KEY}", "datalad get sub-01_T1w"),
    "a pointer of Git LFS": (
        f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 5\n",
        "git lfs pull",
    ),
    "a page": ("\n<!DOCTYPE html>\n<html><body>Please log in</body></html>", "asks to log in"),
    "a page in capitals": ("<HTML><HEAD><TITLE>403 Forbidden", "asks to log in"),
    "an error of a store": (
        '<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>AccessDenied</Code>',
        "asks to log in",
    ),
    "an error in JSON": ('{"message": "Not Found"}', "asks to log in"),
    "nothing": ("", "is empty (0 bytes)"),
}


@pytest.fixture
def scan():
    """The bytes of a NIfTI file."""
    data = np.random.default_rng(0).integers(0, 900, (9, 8, 7)).astype(np.int16)
    return nib.Nifti1Image(data, np.diag([2.0, 2, 2, 1])).to_bytes()


@pytest.mark.parametrize("ending", ["nii", "nii.gz"])
@pytest.mark.parametrize("kind", TEXTS)
def test_what_is_no_image_is_named_with_its_own_way_out(tmp_path, kind, ending):
    content, said = TEXTS[kind]
    path = tmp_path / f"sub-01_T1w.{ending}"
    path.write_bytes(content.encode())
    with pytest.raises(VolumeError) as refusal:
        load_volume(path)
    assert str(refusal.value).startswith(f"{path}: ") and said in str(refusal.value)
    assert "damaged" not in str(refusal.value)


KINDS = {
    "bzip2": (b"BZh91AY&SY", "packed by bzip2.*bunzip2"),
    "zip": (b"PK\x03\x04\x14", "a zip archive.*unzip"),
    "xz": (b"\xfd7zXZ\0", "packed by xz.*unxz"),
    "zstd": (b"\x28\xb5\x2f\xfd", "packed by zstd.*unzstd"),
    "NRRD": (b"NRRD0004\ntype: short", "an NRRD file.*Convert"),
    "MINC 2": (b"\x89HDF\r\n\x1a\n", "an HDF5 file.*Convert"),
    "a picture": (b"\x89PNG\r\n\x1a\n", "a picture"),
    "packed twice": (gzip.compress(b"x" * 600), "packed twice by gzip.*gunzip"),
    "a page": (b"<!DOCTYPE html><html>", "asks to log in"),
    "DICOM": (b"\0" * 128 + b"DICM", "a DICOM file"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_another_kind_of_file_is_named_packed_and_unpacked(tmp_path, kind):
    content, said = KINDS[kind]
    for number, begin in enumerate((content, gzip.compress(content + bytes(600)))):
        path = tmp_path / f"{number}.nii.gz"
        path.write_bytes(begin if kind != "packed twice" else gzip.compress(content))
        with pytest.raises(VolumeError, match=rf"{number}\.nii\.gz: is .*{said}"):
            load_volume(path)


def test_how_a_file_is_packed_is_read_from_its_content(tmp_path, scan):
    expected = None
    for name, content in (("a.nii", scan), ("b.nii.gz", scan), ("c.nii", gzip.compress(scan))):
        (tmp_path / name).write_bytes(content)
        data = load_volume(tmp_path / name).data
        expected = data if expected is None else expected
        np.testing.assert_array_equal(data, expected)
    (tmp_path / "c.nii").write_bytes(gzip.compress(scan)[:-9])
    with pytest.raises(VolumeError, match=r"c\.nii: is damaged or cut short"):
        load_volume(tmp_path / "c.nii")


def test_a_name_in_capitals_is_to_be_changed(tmp_path, scan):
    (tmp_path / "A.NII.GZ").write_bytes(gzip.compress(scan))
    with pytest.raises(VolumeError, match=r"A\.NII\.GZ: .*Rename it: A\.nii\.gz"):
        load_volume(tmp_path / "A.NII.GZ")


def half_turned(excess, *, order="<"):
    """An LAS image tilted by a degree whose quaternion is longer than 1, its square by ``excess``; a right sform."""
    tilt = np.deg2rad(0.5)
    unit = np.array([0.0, np.cos(tilt), np.sin(tilt)])
    turn = nib.quaternions.quat2mat([0.0, *unit]) @ np.diag([4, 4, -4.0])
    image = nib.Nifti1Image(np.arange(64, dtype=np.int16).reshape(4, 4, 4), nib.affines.from_matvec(turn, [5, 6, 7]))
    image.set_sform(image.affine, code=1)
    image.set_qform(image.affine, code=1)
    content = bytearray(image.to_bytes())
    content[256:268] = struct.pack("<3f", *(unit * np.sqrt(1 + excess)))
    return image, bytes(content)


@pytest.mark.parametrize("excess", [0, 3e-7, 4.2e-7, 1e-6, 1e-5, 9e-5])
def test_a_quaternion_a_little_longer_than_1_is_a_half_turn(tmp_path, excess):
    image, content = half_turned(excess)
    for name, form in (("both.nii", 1), ("qform.nii", 0)):
        (tmp_path / name).write_bytes(content[:254] + struct.pack("<h", form) + content[256:])
        ends = np.abs(load_volume(tmp_path / name).grid.corners).max(axis=0)
        index = np.array(np.meshgrid(*[(-0.5, 3.5)] * 3)).reshape(3, -1).T
        np.testing.assert_allclose(ends, np.abs(nib.affines.apply_affine(image.affine, index)).max(axis=0), atol=1e-3)


def test_a_quaternion_that_is_none_is_refused(tmp_path):
    (tmp_path / "a.nii").write_bytes(half_turned(0.01)[1])
    with pytest.raises(VolumeError, match=r"a\.nii: its qform places no voxels"):
        load_volume(tmp_path / "a.nii")


def with_header(content, **fields):
    """A NIfTI file whose header says something else of the same voxels."""
    header = nib.Nifti1Header(content[:348], check=False)
    for name, value in fields.items():
        header[name] = value
    return header.binaryblock + content[348:]


@pytest.mark.parametrize("beyond", [[0, 0, 0, 0], [1, 0, 1, 0], [0, 1, 1, 1]])
@pytest.mark.parametrize("said", [4, 5, 7])
def test_one_volume_may_have_further_axes_of_0_or_1(tmp_path, scan, said, beyond):
    (tmp_path / "a.nii").write_bytes(scan)
    (tmp_path / "b.nii").write_bytes(with_header(scan, dim=[said, 9, 8, 7, *beyond]))
    first, second = (load_volume(tmp_path / name) for name in ("a.nii", "b.nii"))
    np.testing.assert_array_equal(first.data, second.data)
    assert first.grid.same_as(second.grid)
    (tmp_path / "b.nii").write_bytes((tmp_path / "b.nii").read_bytes()[:400])  # and it must be there
    with pytest.raises(VolumeError, match=r"b\.nii: is damaged or cut short"):
        load_volume(tmp_path / "b.nii")


@pytest.mark.parametrize(
    ("dim", "said"),
    [
        ([4, 9, 8, 7, 2, 1, 1, 1], r"is 4-D \(9x8x7x2\).*Keep one volume"),
        ([4, 1, 9, 8, 7, 1, 1, 1], r"is 4-D \(1x9x8x7\).*Take its axis of one voxel out.*affine"),
        ([4, 9, 8, 1, 7, 1, 1, 1], r"is 4-D \(9x8x1x7\).*Take its axis of one voxel out"),
        ([5, 9, 8, 7, 0, 3, 1, 1], r"is 5-D \(9x8x7x0x3\).*Keep one volume"),
        ([2, 63, 8, 1, 1, 1, 1, 1], r"is 2-D \(63x8\).*Fetch or convert it again"),
        ([0, 9, 8, 7, 1, 1, 1, 1], r"is 1-D \(0\).*Fetch or convert it again"),
    ],
)
def test_what_is_no_one_volume_is_refused_with_the_way_out_that_fits_it(tmp_path, scan, dim, said):
    (tmp_path / "a.nii").write_bytes(with_header(scan, dim=dim))
    with pytest.raises(VolumeError, match=said):
        load_volume(tmp_path / "a.nii")


def test_voxel_sizes_below_zero_are_no_place_where_nothing_else_says_it(tmp_path, scan, caplog):
    fields = {"pixdim": [1, -2, 2, 2, 0, 0, 0, 0], "qform_code": 1}
    affine = np.array([[2.0, 0, 0, 0], [0, 2, 0, 0], [0, 0, 2, 0]])
    rows = {f"srow_{axis}": row for axis, row in zip("xyz", affine, strict=True)}
    (tmp_path / "a.nii").write_bytes(with_header(scan, **fields, **rows, sform_code=1))
    load_volume(tmp_path / "a.nii")
    (tmp_path / "a.nii").write_bytes(with_header(scan, **fields, sform_code=0))
    with pytest.raises(VolumeError, match=r"a\.nii: its voxel sizes are -2 x 2 x 2 mm.*set_sform"):
        load_volume(tmp_path / "a.nii")
    assert not caplog.records  # nibabel says what it repairs, and not of which file
