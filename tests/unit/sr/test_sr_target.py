"""The voxels of the result, in the box of the scan."""

import numpy as np
import pytest

from headsr.sr.given import Slices, read_given
from headsr.sr.target import Size, as_fine_as, default_voxel, target_of
from headsr.volumes import VolumeError


def given_of(scan, **how):
    return read_given(scan(**how), Slices(gap_mm=0))


@pytest.mark.parametrize(
    ("size", "edge"),
    [((1, 1, 4), 1.0), ((0.9, 1.1, 5), 0.9), ((0.45, 0.45, 6), 0.75), ((0.4, 0.4, 2), 0.5), ((1, 3, 1), 1.0)],
)
def test_the_voxels_are_the_largest_of_the_finest_pixel_an_eighth_of_a_slice_and_half_a_millimetre(scan, size, edge):
    given = given_of(scan, size=size)
    grid = target_of(given, Size())
    assert default_voxel(given) == pytest.approx(edge, rel=1e-6)
    assert np.allclose(grid.voxel_size, edge, rtol=0.03)
    assert np.abs(grid.corners - given.volume.grid.corners).max() < 1e-4


@pytest.mark.parametrize("size", [Size(voxel_mm=[2]), Size(scale=[0.5, 0.5, 2]), Size(shape=[24, 25, 24])])
def test_other_voxels_are_made_as_asked(scan, size):
    given = given_of(scan)
    grid = target_of(given, size)
    assert grid.shape == (24, 25, 24)
    assert np.abs(grid.corners - given.volume.grid.corners).max() < 1e-4


def test_one_way_to_say_it_and_one_or_three_numbers():
    with pytest.raises(ValueError, match="one way"):
        Size(voxel_mm=[1], shape=[10])
    with pytest.raises(ValueError, match="one number or three, not 2"):
        Size(scale=[1, 2])


def test_a_scan_without_thick_slices_is_refused_with_the_way_out(scan):
    given = read_given(scan(size=(1, 1, 1)), Slices())
    with pytest.raises(VolumeError, match=r"no thick slices.*--scale 2 --force"):
        target_of(given, Size())
    assert target_of(given, Size(scale=[2])).shape == (96, 100, 24)


def test_pixels_finer_than_the_result_are_averaged_and_slices_stay(scan):
    given = given_of(scan, shape=(60, 64, 10), size=(0.45, 0.45, 6))
    target = target_of(given, Size())
    coarse = as_fine_as(given.volume, given.axis, target)
    assert coarse.grid.shape == (target.shape[0], target.shape[1], 10)
    assert np.abs(coarse.grid.corners - given.volume.grid.corners).max() < 1e-4
    assert coarse.data.mean() == pytest.approx(given.volume.data.mean(), rel=1e-4)
    same = given_of(scan)
    assert as_fine_as(same.volume, same.axis, target_of(same, Size())) is same.volume
