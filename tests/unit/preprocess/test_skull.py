from pathlib import Path

import numpy as np
import pytest

from headsr.preprocess.outline import head_of
from headsr.preprocess.skull import is_skull_stripped
from headsr.volumes import Volume, load_volume

SCANS = Path(__file__).parents[3].parent / "shared/data/scans"
STRIPPED = {"sub-gd_ce-gadolinium_T1w", "sub-m2208_T2w"}
VOXELS = [(3.0, 3.0, 3.0), (2.0, 2.0, 6.0), (6.0, 2.0, 2.0), (2.0, 6.0, 2.0)]
CHILD = np.diag([0.85, 0.85, 0.85, 1.0])  # whose head is as large as an adult's brain


def without_air(head):
    """The head with zeros for air, as a scanner, or who takes faces away, leaves it."""
    return Volume(head.data * head_of(head), head.grid)


def part(volume, *where):
    """A block of a volume, on its own grid."""
    start = tuple(s.indices(n)[0] for s, n in zip(where, volume.data.shape, strict=True))
    data = np.ascontiguousarray(volume.data[where])
    return Volume(data, volume.grid.block(start, data.shape))


@pytest.mark.parametrize("size", VOXELS)
@pytest.mark.parametrize("to_scan", [np.eye(4), CHILD], ids=["adult", "child"])
def test_a_head_is_not_stripped_whatever_became_of_its_air(make_head, size, to_scan):
    head = make_head(size, to_scan=to_scan)
    assert not is_skull_stripped(head)
    assert not is_skull_stripped(without_air(head))
    dark = head.data > 0.1  # what zeroes the air often zeroes the bone
    assert not is_skull_stripped(Volume(head.data * dark, head.grid))
    faceless = without_air(head).data.copy()
    faceless[:, -faceless.shape[1] // 3 :, : faceless.shape[2] // 3] = 0
    assert not is_skull_stripped(Volume(faceless, head.grid))


@pytest.mark.parametrize("size", VOXELS)
@pytest.mark.parametrize("to_scan", [np.eye(4), CHILD], ids=["adult", "child"])
@pytest.mark.parametrize("left_mm", [(58.0, 76.0, 64.0), (64.0, 82.0, 70.0), (68.0, 86.0, 74.0)])
def test_a_brain_is_stripped_whether_too_much_or_too_little_was_taken(make_head, brain_alone, size, to_scan, left_mm):
    assert is_skull_stripped(brain_alone(make_head(size, to_scan=to_scan), to_scan, left_mm))


def test_grey_matter_between_bright_fluids_is_no_bone(make_head, brain_alone):
    brain = brain_alone(make_head((3.0, 3.0, 3.0), noise=0))
    data = 0.5 * (brain.data > 0)
    shells = ((64, 82, 70), (59, 77, 65)), ((50, 68, 56), (45, 63, 51))
    for outer, inner in shells:  # of fluid, as T2w shows an old brain
        within = [brain_alone(brain, left_mm=radii).data > 0 for radii in (outer, inner)]
        data[within[0] & ~within[1]] = 1.0
    assert is_skull_stripped(Volume(data.astype(np.float32), brain.grid))


def test_parts_of_a_brain_are_stripped_and_parts_of_a_head_are_not(make_head, brain_alone):
    everything = slice(None)
    head = make_head((3.0, 3.0, 3.0))
    brain, masked = brain_alone(head), without_air(head)
    half = Volume(brain.data * (np.arange(60) < 30)[:, None, None], brain.grid)
    assert is_skull_stripped(half)
    for where in ((everything, everything, slice(30, 46)), (everything, slice(30, 46), everything)):
        assert is_skull_stripped(part(brain, *where))
        assert not is_skull_stripped(part(masked, *where))


def test_a_scan_that_shows_no_air_is_not_stripped(make_head):
    inside = part(make_head((3.0, 3.0, 3.0)), slice(20, 40), slice(25, 50), slice(20, 40))
    assert not is_skull_stripped(inside)


def test_how_much_air_is_around_it_is_no_matter(make_head, brain_alone):
    head = make_head((3.0, 3.0, 3.0), to_scan=CHILD)
    for scan, stripped in ((brain_alone(head, CHILD), True), (without_air(head), False)):
        wide = np.pad(scan.data, 30)
        assert is_skull_stripped(Volume(wide, scan.grid.block((-30, -30, -30), wide.shape))) is stripped
        low, high = np.argwhere(scan.data).min(axis=0), np.argwhere(scan.data).max(axis=0) + 1
        assert is_skull_stripped(part(scan, *map(slice, low, high))) is stripped


@pytest.mark.parametrize("unit", [1e-3, 1.0, 4e3])
def test_the_unit_of_the_intensities_is_no_matter(make_head, brain_alone, unit):
    head = make_head()
    assert is_skull_stripped(Volume(unit * brain_alone(head).data, head.grid))
    assert not is_skull_stripped(Volume(unit * without_air(head).data, head.grid))


@pytest.mark.shared
@pytest.mark.skipif(not SCANS.is_dir(), reason="the test data (../shared/data) are not beside this checkout")
def test_real_heads_and_real_brains_are_told_apart():
    for path in sorted(SCANS.glob("sub-*/anat/*.nii.gz")):
        scan, name = load_volume(path), path.name.removesuffix(".nii.gz")
        assert is_skull_stripped(scan) is (name in STRIPPED), name
        assert is_skull_stripped(without_air(scan)) is (name in STRIPPED), f"{name} without air"
