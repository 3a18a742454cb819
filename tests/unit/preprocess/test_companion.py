"""A lesion mask lies where its scan has it, on whatever grid."""

import numpy as np
import pytest

from headsr.preprocess.companion import carry_mask
from headsr.volumes import Grid, VolumeError, load_volume, save_volume

AFFINE = np.diag([1.0, 1.5, 2.0, 1.0])
SHAPE = (20, 16, 12)


@pytest.fixture
def carried(tmp_path):
    """A function that carries a mask to a grid and reads it back."""

    def carry(mask, grid, target):
        save_volume(tmp_path / "mask.nii.gz", mask, grid)
        save_volume(tmp_path / "scan.nii.gz", np.random.default_rng(0).random(target.shape, np.float32), target)
        carry_mask(tmp_path / "mask.nii.gz", tmp_path / "scan.nii.gz", tmp_path / "carried.nii.gz")
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
