"""A lesion mask and a label map lie where their scan has them, on whatever grid."""

import nibabel as nib
import numpy as np
import pytest

from headsr.preprocess.companion import carry_labels, carry_mask
from headsr.volumes import Grid, VolumeError, load_volume, save_volume

AFFINE = np.diag([1.0, 1.5, 2.0, 1.0])
SHAPE = (20, 16, 12)


@pytest.fixture
def carried(tmp_path):
    """A function that carries a mask, or labels, to a grid and reads it back."""

    def carry(mask, grid, target, by=carry_mask):
        save_volume(tmp_path / "mask.nii.gz", mask, grid)
        save_volume(tmp_path / "scan.nii.gz", np.random.default_rng(0).random(target.shape, np.float32), target)
        by(tmp_path / "mask.nii.gz", tmp_path / "scan.nii.gz", tmp_path / "carried.nii.gz")
        result = load_volume(tmp_path / "carried.nii.gz", constant=True)
        assert result.grid.same_as(target)
        return result.data

    return carry


def block(grid, low, high):
    """A box between two corners in mm, as a mask."""
    index = np.stack(np.meshgrid(*map(np.arange, grid.shape), indexing="ij"), axis=-1)
    mm = index @ grid.affine[:3, :3].T + grid.affine[:3, 3]
    return ((mm >= low) & (mm < high)).all(axis=-1).astype(np.uint8)


def test_on_its_own_grid_it_stays_as_it_was_drawn(carried):
    grid = Grid(SHAPE, AFFINE)
    mask = (np.random.default_rng(1).random(SHAPE) > 0.8).astype(np.uint8) * 3  # people count their lesions
    assert np.array_equal(carried(mask, grid, grid), mask > 0)


@pytest.mark.parametrize("voxel_mm", [0.8, 2.0])
def test_on_another_grid_it_keeps_its_place_and_its_size(carried, voxel_mm):
    grid = Grid(SHAPE, AFFINE)
    target = grid.at_voxel_size(voxel_mm)
    low, high = (6.0, 6.0, 6.0), (14.0, 16.5, 18.0)
    result = carried(block(grid, low, high), grid, target)
    wanted = block(target, np.array(low) - 0.5 * np.diag(AFFINE)[:3], np.array(high) - 0.5 * np.diag(AFFINE)[:3])
    assert 2 * (result * wanted).sum() / (result.sum() + wanted.sum()) > 0.9


def test_a_head_without_lesions_has_an_empty_mask(carried):
    grid = Grid(SHAPE, AFFINE)
    assert not carried(np.zeros(SHAPE, np.uint8), grid, grid).any()


def test_a_lesion_that_is_too_small_for_the_grid_is_lost_and_not_elsewhere(carried, caplog):
    grid = Grid((40, 40, 40), np.eye(4))
    mask = np.zeros(grid.shape, np.uint8)
    mask[20, 20, 20] = 1
    assert not carried(mask, grid, grid.at_voxel_size(2.5)).any()
    assert "fills most of no voxel of" in caplog.text


def test_a_mask_that_was_drawn_elsewhere_is_refused(carried):
    grid, far = Grid(SHAPE, AFFINE), AFFINE.copy()
    far[:3, 3] = 200
    with pytest.raises(VolumeError, match=r"mask\.nii\.gz: nothing of it lies in .*scan\.nii\.gz"):
        carried(np.ones(SHAPE, np.uint8), Grid(SHAPE, far), grid)


def test_labels_on_their_own_grid_stay_as_they_were_drawn(carried, tmp_path):
    turn = np.deg2rad(7.0)
    oblique = np.array([[np.cos(turn), -np.sin(turn), 0, -3.3], [np.sin(turn), np.cos(turn), 0, 7.1], [0, 0, 1, 2.9]])
    grid = Grid(SHAPE, np.vstack([oblique, [0, 0, 0, 1]]) @ AFFINE)
    labels = np.random.default_rng(1).integers(0, 2036, SHAPE).astype(np.uint16)
    assert np.array_equal(carried(labels, grid, grid, by=carry_labels), labels)
    assert nib.load(tmp_path / "carried.nii.gz").get_data_dtype() == np.uint16


@pytest.mark.parametrize("voxel_mm", [0.8, 2.0])
def test_labels_on_another_grid_are_those_of_the_nearest_voxels(carried, voxel_mm):
    grid = Grid(SHAPE, AFFINE)
    target = grid.at_voxel_size(voxel_mm)
    labels = 1 + np.arange(np.prod(SHAPE)).reshape(SHAPE).astype(np.uint16)
    result = carried(labels, grid, target, by=carry_labels).astype(int)
    index = np.stack(np.meshgrid(*map(np.arange, target.shape), indexing="ij"), axis=-1)
    to_drawn = np.linalg.inv(grid.affine) @ target.affine
    places = index @ to_drawn[:3, :3].T + to_drawn[:3, 3]
    found = np.stack(np.unravel_index(np.maximum(result - 1, 0), SHAPE), axis=-1)
    inside = result > 0
    assert inside.mean() > 0.8 and np.abs(found - places)[inside].max() <= 0.5 + 1e-6


@pytest.mark.parametrize("wrong", [-1.0, 2.5, 65536.0])
def test_what_is_no_map_of_labels_is_refused(carried, wrong):
    labels = np.ones(SHAPE, np.float32)
    labels[3, 3, 3] = wrong
    with pytest.raises(VolumeError, match=r"mask\.nii\.gz: holds more than whole numbers from 0 to 65535"):
        carried(labels, Grid(SHAPE, AFFINE), Grid(SHAPE, AFFINE), by=carry_labels)


def test_labels_that_were_drawn_elsewhere_are_refused(carried):
    far = AFFINE.copy()
    far[:3, 3] = 200
    labels = np.ones(SHAPE, np.uint8)
    labels[0] = 0
    with pytest.raises(VolumeError, match=r"mask\.nii\.gz: nothing of it lies in .*scan\.nii\.gz"):
        carried(labels, Grid(SHAPE, far), Grid(SHAPE, AFFINE), by=carry_labels)
