import numpy as np
import pytest
from stacks_of_waves import BOX_MM, rigid, stack

from headsr.acquisition.intensity import compare
from headsr.acquisition.placement import PlacedScan
from headsr.volumes import AXES, Volume

TRUE = rigid((3, -4, 5), (4, -5, 3))


def thick(view, **how):
    return PlacedScan(stack(view, **how), AXES[view], "box", 8.0)


@pytest.fixture(scope="module")
def axial():
    return thick("axial")


@pytest.mark.parametrize("gain", [0.5, 1.0, 2.0])
def test_the_gain_is_found_to_half_a_percent(axial, gain):
    found = compare(thick("coronal", to_head=TRUE, gain=gain).moved(TRUE), axial)
    assert found.gain == pytest.approx(gain, rel=0.005)
    assert found.correlation > 0.95 and found.overlap > 0.95


def test_the_gain_does_not_depend_on_which_scan_is_the_reference(axial):
    moving = thick("coronal", to_head=TRUE, gain=1.7).moved(TRUE)
    assert compare(moving, axial).gain * compare(axial, moving).gain == pytest.approx(1, rel=0.003)


def test_neither_a_cut_scan_nor_bright_outliers_change_the_gain(axial):
    half = thick("coronal", to_head=TRUE, gain=2.0, box=BOX_MM * (1, 1, 0.5)).moved(TRUE)
    data = half.volume.data.copy()
    data[8:14, 4:8, 4:12] = 20
    spoilt = PlacedScan(Volume(data, half.volume.grid), half.axis, half.profile, half.thickness)
    assert compare(half, axial).gain == pytest.approx(2, rel=0.01)
    assert compare(spoilt, axial).gain == pytest.approx(2, rel=0.01)


def test_two_heads_and_a_wrong_placement_agree_less_and_scans_apart_not_at_all(axial):
    coronal = thick("coronal", to_head=TRUE)
    right, wrong = compare(coronal.moved(TRUE), axial), compare(coronal, axial)
    other = compare(thick("coronal", person=2), axial)
    assert right.correlation > 0.95 > 0.7 > max(wrong.correlation, other.correlation)
    assert right.residual < 0.5 * min(wrong.residual, other.residual)
    apart = compare(coronal.moved(rigid((0, 0, 0), (500, 0, 0))), axial)
    assert apart.overlap == apart.correlation == apart.gain == 0


def test_a_hair_of_overlap_is_no_error(axial):
    reached = compare(axial.moved(rigid((0, 0, 0), (0, 0, BOX_MM[2] - 12))), axial)
    assert np.isfinite([reached.gain, reached.correlation, reached.residual, reached.overlap]).all()
    assert reached.overlap < 0.1
