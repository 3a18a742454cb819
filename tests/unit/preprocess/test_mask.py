import numpy as np
import pytest
from scipy import io

from headsr.preprocess.mask import foreground, head_of, mask_head, otsu
from headsr.volumes import Grid, Volume, VolumeError, load_volume, save_volume


def dice(one, other):
    return 2 * (one & other).sum() / (one.sum() + other.sum())


@pytest.mark.parametrize("size", [(3.0, 3.0, 3.0), (2.5, 2.5, 6.0), (5.0, 5.0, 5.0)])
def test_head_is_filled_out_to_its_scalp_and_no_further(make_head, size):
    head = make_head(size)
    truth = make_head(size, noise=0).data > 0
    assert dice(head_of(head), truth) > 0.97


def test_a_head_cut_by_the_field_of_view_is_filled_to_the_cut(make_head):
    box, origin = (180.0, 220.0, 100.0), (-90.0, -110.0, -30.0)
    truth = make_head((4.0, 4.0, 4.0), noise=0, box=box, origin=origin).data > 0
    found = head_of(make_head((4.0, 4.0, 4.0), box=box, origin=origin))
    assert dice(found, truth) > 0.97
    assert dice(found[:, :, 0], truth[:, :, 0]) > 0.95


def test_a_bright_spot_beside_the_head_is_not_head(make_head):
    head = make_head()
    data = head.data.copy()
    data[1:4, 1:4, 1:4] = 1
    assert not head_of(Volume(data, head.grid))[:4, :4, :4].any()


def test_otsu_lies_between_two_classes():
    rng = np.random.default_rng(0)
    data = np.concatenate([rng.normal(10, 2, 9000), rng.normal(50, 4, 3000)])
    assert 17 < otsu(data) < 40


def test_foreground_is_tissue_without_bone_and_air(make_head):
    head = make_head(noise=0)
    found = foreground(head)
    assert found[head.data > 0.7].all()
    assert not found[head.data < 0.1].any()


def test_a_brain_that_misses_the_head_is_a_failed_registration(tmp_path, make_head):
    head = make_head((8.0, 8.0, 8.0))
    save_volume(tmp_path / "scan.nii.gz", head.data, head.grid)
    save_volume(tmp_path / "brain.nii.gz", (head.data > 0.5).astype(np.uint8), head.grid)
    far = np.concatenate([np.eye(3).ravel(), [150.0, 0, 0]])[:, None]
    io.savemat(tmp_path / "far.mat", {"AffineTransform_float_3_3": far, "fixed": np.zeros((3, 1))}, format="4")
    outputs = {"head_mask": tmp_path / "head.nii.gz", "brain_mask": tmp_path / "found.nii.gz"}
    with pytest.raises(VolumeError, match=r"scan\.nii\.gz.*orientation"):
        mask_head(tmp_path / "scan.nii.gz", tmp_path / "far.mat", tmp_path / "brain.nii.gz", **outputs)
    assert not any(path.exists() for path in outputs.values())


def test_masks_are_on_the_scans_grid(tmp_path, make_head):
    scan, template = make_head((8.0, 7.0, 6.0)), make_head((5.0, 5.0, 5.0), noise=0)
    save_volume(tmp_path / "scan.nii.gz", scan.data, scan.grid)
    save_volume(tmp_path / "brain.nii.gz", (template.data > 0).astype(np.uint8), template.grid)
    still = np.concatenate([np.eye(3).ravel(), np.zeros(3)])[:, None]
    io.savemat(tmp_path / "still.mat", {"AffineTransform_float_3_3": still, "fixed": np.ones((3, 1))}, format="4")
    outputs = {"head_mask": tmp_path / "head.nii.gz", "brain_mask": tmp_path / "found.nii.gz"}
    mask_head(tmp_path / "scan.nii.gz", tmp_path / "still.mat", tmp_path / "brain.nii.gz", **outputs)
    head, brain = (load_volume(path) for path in outputs.values())
    assert isinstance(head.grid, Grid)
    assert head.grid.same_as(scan.grid)
    assert brain.grid.same_as(scan.grid)
    assert not (brain.data > head.data).any()
    assert dice(head.data > 0, brain.data > 0) > 0.95
