import numpy as np
import pytest

from headsr.preprocess.outline import brain_of, foreground, head_of, otsu
from headsr.volumes import Volume


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


def test_a_stripped_brain_is_what_is_left_with_what_is_dark_in_it(make_head, brain_alone):
    truth = brain_alone(make_head(noise=0)).data > 0
    scan = brain_alone(make_head())
    data = scan.data.copy()
    data[22:25, 28:31, 26:29] = 0  # as a ventricle in 8 bits
    assert np.array_equal(brain_of(Volume(data, scan.grid)), truth)


def test_what_an_interpolation_left_around_a_stripped_brain_is_not_brain(make_head, brain_alone):
    scan = brain_alone(make_head())
    ringing = 1e-3 * np.random.default_rng(1).standard_normal(scan.data.shape).astype(np.float32)
    around = Volume(np.where(scan.data > 0, scan.data, np.clip(ringing, -1e-3, 1e-3)), scan.grid)
    assert dice(brain_of(around), brain_of(scan)) > 0.999
