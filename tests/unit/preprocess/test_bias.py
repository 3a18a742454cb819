import tempfile

import nibabel as nib
import numpy as np
import pytest

from headsr.files import UnwritableError, sha256_of
from headsr.preprocess import bias
from headsr.preprocess.ants_process import AntsError
from headsr.preprocess.bias import _sampled, bias_field_of, coarsened, correct_bias
from headsr.simulate.imaging import bias_field
from headsr.volumes import Grid, Volume, VolumeError, load_volume, save_volume


def test_most_of_a_known_field_is_removed(make_head):
    head = make_head()
    field = bias_field(head.grid.shape, strength=0.3, rng=np.random.default_rng(2))
    brain = head.data > 0.4
    found = bias_field_of(Volume(head.data * field, head.grid), name="phantom")
    before, after = np.log(field)[brain].std(), np.log(field / found)[brain].std()
    assert after < 0.5 * before
    assert np.log(found[brain]).mean() == pytest.approx(0, abs=0.02), "the units stay"


def test_written_scan_has_the_asked_voxels_and_the_same_bytes_twice(tmp_path, make_head):
    head = make_head((4.0, 4.0, 9.0))
    save_volume(tmp_path / "scan.nii.gz", head.data, head.grid)
    for name in ("one", "two"):
        correct_bias(tmp_path / "scan.nii.gz", tmp_path / f"{name}.nii.gz", voxel_mm=8.0)
    assert sha256_of(tmp_path / "one.nii.gz") == sha256_of(tmp_path / "two.nii.gz")
    written = load_volume(tmp_path / "one.nii.gz")
    np.testing.assert_allclose(written.grid.voxel_size, (8, 8, 9), rtol=0.03)
    assert written.grid.shape[2] == head.grid.shape[2], "thick slices stay as they are"
    np.testing.assert_allclose(written.grid.corners, head.grid.corners, atol=1e-3)


@pytest.mark.parametrize(
    ("size", "voxel_mm", "expected"),
    [
        ((1, 1, 6), 2.0, (2, 2, 6)),
        ((1, 1, 6), None, (1, 1, 6)),
        ((3, 3, 3), 2.0, (3, 3, 3)),
        ((0.5, 1, 2), 2.0, (2, 2, 2)),
    ],
)
def test_only_axes_finer_than_asked_are_averaged(size, voxel_mm, expected):
    grid = Grid((24, 12, 6), np.diag([*size, 1.0]))
    data = np.random.default_rng(0).random(grid.shape, dtype=np.float32)
    result = coarsened(Volume(data, grid), voxel_mm)
    np.testing.assert_allclose(result.grid.voxel_size, expected)
    np.testing.assert_allclose(result.grid.corners, grid.corners)
    assert result.data.mean() == pytest.approx(data.mean(), rel=1e-5)


@pytest.mark.parametrize("shape", [(31, 20, 5), (8, 9, 40)])
def test_samples_are_the_volumes_own_voxels_in_place(shape):
    grid = Grid(shape, np.diag([2.5, 2.5, 2.5, 1.0]))
    ramp = np.einsum("i,j,k->ijk", *(np.arange(1, n + 1) for n in shape)).astype(np.float32)
    samples = _sampled(Volume(ramp, grid), 6.2)
    first = np.rint(np.linalg.inv(grid.affine) @ samples.grid.affine[:, 3])[:3].astype(int)
    assert samples.data[0, 0, 0] == ramp[tuple(first)]
    assert min(samples.grid.shape) >= 4
    assert samples.grid.voxel_size.max() <= 7.5


@pytest.mark.parametrize("kept", [0, 300])
def test_a_field_that_is_empty_or_cut_is_none_and_a_full_disk_the_reason(small_disk, make_head, monkeypatch, kept):
    """N4 ends as if all were well when its disk is full."""
    head = make_head((12.0, 12.0, 12.0))
    field = nib.Nifti1Image(np.ones(_sampled(head, 6.2).grid.shape, np.float32), np.eye(4)).to_bytes()
    monkeypatch.setattr(tempfile, "tempdir", str(small_disk))
    monkeypatch.setattr(bias, "run_ants", lambda *_, output, scan: output.write_bytes(field[: kept and kept + 352]))
    with pytest.raises(AntsError, match="no usable field"):
        bias_field_of(head, name="x")
    (small_disk / "other").write_bytes(bytes(3 * 2**19))
    with pytest.raises(UnwritableError, match=f"^{small_disk}: the temporary folder is full: 0.* of 2 MiB are free"):
        bias_field_of(head, name="x")


def test_a_bad_scan_and_a_crash_are_named_and_leave_nothing(tmp_path, make_head, monkeypatch):
    (tmp_path / "cut.nii.gz").write_bytes(b"\x1f\x8b\x08\x00 cut")
    with pytest.raises(VolumeError, match=r"cut\.nii\.gz"):
        correct_bias(tmp_path / "cut.nii.gz", tmp_path / "out.nii.gz", voxel_mm=2.5)
    head = make_head((12.0, 12.0, 12.0))
    save_volume(tmp_path / "scan.nii.gz", head.data, head.grid)
    monkeypatch.setattr("headsr.preprocess.ants_process._child_command", lambda: ["false"])
    with pytest.raises(AntsError, match=r"scan\.nii\.gz"):
        correct_bias(tmp_path / "scan.nii.gz", tmp_path / "out.nii.gz", voxel_mm=None)
    assert not (tmp_path / "out.nii.gz").exists()
