import numpy as np
import pytest
from scipy import io

from headsr.preprocess.mask import mask_head
from headsr.volumes import Grid, VolumeError, load_volume, save_volume


def dice(one, other):
    return 2 * (one & other).sum() / (one.sum() + other.sum())


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


def test_of_a_stripped_scan_both_masks_are_the_brain_that_is_left_even_half_of_it(tmp_path, make_head, brain_alone):
    template = brain_alone(make_head((5.0, 5.0, 5.0), noise=0))
    save_volume(tmp_path / "brain.nii.gz", (template.data > 0).astype(np.uint8), template.grid)
    still = np.concatenate([np.eye(3).ravel(), np.zeros(3)])[:, None]
    io.savemat(tmp_path / "still.mat", {"AffineTransform_float_3_3": still, "fixed": np.ones((3, 1))}, format="4")
    scan = brain_alone(make_head((3.0, 3.0, 3.0)))
    half = scan.data * (np.arange(scan.data.shape[0]) > 30)[:, None, None]
    outputs = {"head_mask": tmp_path / "head.nii.gz", "brain_mask": tmp_path / "found.nii.gz"}
    for left in (scan.data, half):
        save_volume(tmp_path / "scan.nii.gz", left, scan.grid)
        mask_head(tmp_path / "scan.nii.gz", tmp_path / "still.mat", tmp_path / "brain.nii.gz", **outputs)
        for path in outputs.values():
            assert np.array_equal(load_volume(path).data > 0, left > 0)


def test_a_stripped_brain_far_from_the_templates_is_a_failed_registration(tmp_path, make_head, brain_alone):
    scan = brain_alone(make_head())
    save_volume(tmp_path / "scan.nii.gz", scan.data, scan.grid)
    save_volume(tmp_path / "brain.nii.gz", (scan.data > 0).astype(np.uint8), scan.grid)
    off = np.concatenate([np.eye(3).ravel(), [60.0, 0, 0]])[:, None]
    io.savemat(tmp_path / "off.mat", {"AffineTransform_float_3_3": off, "fixed": np.zeros((3, 1))}, format="4")
    with pytest.raises(VolumeError, match=r"scan\.nii\.gz.*orientation"):
        mask_head(
            tmp_path / "scan.nii.gz", tmp_path / "off.mat", tmp_path / "brain.nii.gz",
            head_mask=tmp_path / "head.nii.gz", brain_mask=tmp_path / "found.nii.gz",
        )  # fmt: skip
