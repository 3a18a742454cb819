import numpy as np
import pytest

from headsr.files import read_json, sha256_of
from headsr.preprocess.intensity import normalize_intensity
from headsr.volumes import Grid, VolumeError, load_volume, save_volume


@pytest.fixture
def scan(tmp_path):
    grid = Grid((20, 21, 22), np.diag([2.0, 2.0, 3.0, 1.0]))
    data = np.random.default_rng(0).random(grid.shape, dtype=np.float32) * 800
    mask = np.zeros(grid.shape, dtype=np.uint8)
    mask[4:16, 4:16, 4:16] = 1
    data[0, 0, 0] = 5000  # outside the head: it must not count
    save_volume(tmp_path / "scan.nii.gz", data, grid)
    save_volume(tmp_path / "mask.nii.gz", mask, grid)
    return tmp_path, data, mask, grid


def test_one_is_the_percentile_inside_the_head_and_nothing_is_clipped(scan):
    folder, data, mask, _ = scan
    output = folder / "sub-01_desc-preproc_T1w.nii.gz"
    normalize_intensity(folder / "scan.nii.gz", folder / "mask.nii.gz", output, source_key="KEY")
    record = read_json(folder / "sub-01_desc-preproc_T1w.json")["headsr"]
    written = load_volume(output).data
    assert record["scale"] == pytest.approx(np.percentile(data[mask == 1], 99.9), rel=1e-6)
    assert record["offset"] == 0
    assert record["source_key"] == "KEY"
    assert "99.9" in record["reference"]
    np.testing.assert_allclose(written * record["scale"] + record["offset"], data, rtol=1e-5)
    assert written.max() > 5


def test_the_sidecar_says_whether_the_skull_was_stripped(tmp_path, make_head, brain_alone):
    head = make_head()
    for scan, stripped in ((head, False), (brain_alone(head), True)):
        save_volume(tmp_path / "scan.nii.gz", scan.data, scan.grid)
        save_volume(tmp_path / "mask.nii.gz", (scan.data > 0.1).astype(np.uint8), scan.grid)
        normalize_intensity(tmp_path / "scan.nii.gz", tmp_path / "mask.nii.gz", tmp_path / "x.nii.gz", source_key="KEY")
        assert read_json(tmp_path / "x.json")["SkullStripped"] is stripped


def test_same_bytes_twice(scan):
    folder, *_ = scan
    for name in ("one", "two"):
        normalize_intensity(folder / "scan.nii.gz", folder / "mask.nii.gz", folder / f"{name}.nii.gz", source_key="KEY")
    assert sha256_of(folder / "one.nii.gz") == sha256_of(folder / "two.nii.gz")
    assert sha256_of(folder / "one.json") == sha256_of(folder / "two.json")


def test_a_mask_of_another_grid_or_without_signal_is_refused(scan):
    folder, data, mask, grid = scan
    save_volume(folder / "other.nii.gz", mask[:-1], Grid((19, 21, 22), grid.affine))
    with pytest.raises(VolumeError, match=r"other\.nii\.gz: is not on the grid"):
        normalize_intensity(folder / "scan.nii.gz", folder / "other.nii.gz", folder / "out.nii.gz", source_key="KEY")
    save_volume(folder / "dark.nii.gz", np.where(mask, -1, data).astype(np.float32), grid)
    with pytest.raises(VolumeError, match="no signal inside the head"):
        normalize_intensity(folder / "dark.nii.gz", folder / "mask.nii.gz", folder / "out.nii.gz", source_key="KEY")
    assert not (folder / "out.json").exists()
