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
