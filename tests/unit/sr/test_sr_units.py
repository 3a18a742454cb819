"""What a scan's numbers and its header mean stays: uniform regions, Hounsfield units, the space that it lies in."""

import nibabel as nib
import numpy as np
import pytest

from headsr import cli
from headsr.files import read_json
from headsr.volumes import Forms, load_volume, save_volume

SHAPE, SIZE = (48, 50, 12), (1, 1, 4)


def places(size):
    return np.meshgrid(*[(np.arange(n) - (n - 1) / 2) * s for n, s in zip(SHAPE, size, strict=True)], indexing="ij")


def halves(levels, noise):
    """Two halves of a ball of uniform levels, in a third."""
    x, y, z = places(SIZE)
    inside = x**2 + y**2 + z**2 < 20**2
    data = np.where(inside, np.where(x < 0, levels[0], levels[1]), levels[2])
    return (data + np.random.default_rng(0).normal(0, noise, SHAPE)).astype(np.float32)


def means(path):
    """Of each half, 5 mm and more from its border, and of the air as far from the ball."""
    volume = load_volume(path)
    index = np.stack(np.indices(volume.grid.shape).reshape(3, -1))
    at = volume.grid.affine[:3, :3] @ index + volume.grid.affine[:3, 3:]
    middle = volume.grid.corners.mean(axis=0)
    x, y, z = (at - middle[:, None]).reshape(3, *volume.grid.shape)
    deep = x**2 + y**2 + z**2 < 15**2
    regions = (deep & (x < -5), deep & (x > 5), (np.hypot(x, y) > 26))
    return np.array([volume.data[region].mean() for region in regions])


def test_large_uniform_regions_and_the_space_of_the_header_stay(scan, tmp_path):
    path, out = scan(data=np.maximum(halves((350, 800, 0), 6), 0)), tmp_path / "out.nii.gz"
    volume = load_volume(path)
    save_volume(path, volume.data, volume.grid, axes="LAS", forms=Forms(4, 2))
    assert cli.main(["sr", str(path), str(out), "--gap", "0"]) == 0
    before, after = means(path), means(out)
    assert np.abs(after[:2] / before[:2] - 1).max() < 0.01
    assert abs(after[2] - before[2]) < 0.01 * 800
    for name in ("out", "out_residual", "out_uncertainty"):
        header = nib.load(tmp_path / f"{name}.nii.gz").header
        assert (int(header["sform_code"]), int(header["qform_code"])) == (4, 2)
        assert header.get_xyzt_units()[0] == "mm" and nib.aff2axcodes(header.get_sform()) == tuple("LAS")
        assert np.allclose(header.get_sform(), header.get_qform(), atol=1e-3)


def test_of_a_large_result_too_the_header_keeps_its_space(scan, tmp_path):
    path, out = scan(), tmp_path / "out.ome.zarr"
    volume = load_volume(path)
    save_volume(path, volume.data, volume.grid, forms=Forms(4, 4))
    assert cli.main(["sr", str(path), str(out), "--gap", "0", "--method", "spline"]) == 0
    stored = nib.Nifti1Header((out / "nifti/c/0").read_bytes())
    for header in (stored, nib.load(tmp_path / "out.nii.gz").header):
        assert (int(header["sform_code"]), int(header["qform_code"])) == (4, 4)


@pytest.mark.parametrize("method", ["unrolled", "tikhonov"])
def test_a_computed_tomography_stays_in_hounsfield_units(scan, tmp_path, capsys, method):
    path, out = scan(data=halves((40, 900, -1024), 10)), tmp_path / "out.nii.gz"
    words = ["sr", str(path), str(out), "--gap", "0", "--method", method]
    if method == "unrolled":
        assert cli.main(words) == 3
        assert "a computed tomography (trained: magnetic resonance)" in capsys.readouterr().err
        words.append("--force")
    assert cli.main(words) == 0
    assert np.abs(means(out) - means(path)).max() < 0.01 * 1924
    assert read_json(tmp_path / "out.json")["headsr"]["offset"] == -1000


def test_a_tomography_in_other_units_is_known_by_its_sidecar(scan, tmp_path, capsys):
    path = scan(metadata={"Modality": "CT", "SliceThickness": 4.0})
    assert cli.main(["sr", str(path), str(tmp_path / "out.nii.gz")]) == 3
    assert "a computed tomography" in capsys.readouterr().err
