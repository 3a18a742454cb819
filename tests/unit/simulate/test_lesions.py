import numpy as np
import pytest
from scipy import ndimage

from headsr.simulate.lesions import VOLUMES_MM3, draw_lesions

SHAPE = (90, 91, 92)


@pytest.fixture(scope="module")
def brain():
    """Masks of a ball of white matter around a ventricle, with cortex around it."""
    axes = np.ogrid[tuple(slice(-(n // 2), n - n // 2) for n in SHAPE)]
    radius = np.sqrt(sum(axis**2 for axis in axes))
    return (radius > 10) & (radius <= 38), radius <= 10, (radius > 38) & (radius <= 42), radius


def drawn(brain, degree, *, seed=0, ventricles=None):
    white, inside, cortex, _ = brain
    ventricles = inside if ventricles is None else ventricles
    rng = np.random.default_rng(seed)
    return draw_lesions(white, ventricles, cortex, voxel_mm=np.ones(3), degree=degree, rng=rng)


@pytest.mark.parametrize("degree", VOLUMES_MM3)
def test_each_degree_has_its_volume_inside_white_matter(brain, degree):
    lesions = drawn(brain, degree)
    assert lesions.shape == SHAPE and lesions.min() >= 0 and lesions.max() <= 1
    assert not lesions[~brain[0]].any()
    # The last lesion may overshoot by its own size.
    assert VOLUMES_MM3[degree] <= lesions.sum() <= VOLUMES_MM3[degree] + 1500


def test_worse_degrees_hold_the_milder_ones_and_more_lesions(brain):
    milder = np.zeros(SHAPE, dtype=np.float32)
    counts = []
    for degree in VOLUMES_MM3:
        lesions = drawn(brain, degree)
        assert np.all(lesions >= milder)
        counts.append(ndimage.label(lesions > 0.5)[1])
        milder = lesions
    assert counts == sorted(counts) and counts[0] == 0 and 2 <= counts[1] <= 12 and counts[3] > 30


def test_half_of_them_are_at_the_ventricles_and_stand_on_them(brain):
    radius = brain[3]
    labels, count = ndimage.label(drawn(brain, "moderate") > 0.5)
    places = np.array([radius[labels == n].mean() for n in range(1, count + 1)])
    assert 0.25 < np.mean(places < 22) < 0.85
    assert np.mean(places > 32) > 0.05, "some are at the cortex"
    # A finger is longer along the way out of the ventricle than across it.
    fingers = [np.argwhere(labels == n) - np.array(SHAPE) // 2 for n in 1 + np.flatnonzero(places < 20)]
    ratios = []
    for finger in fingers:
        outward = finger.mean(axis=0) / np.linalg.norm(finger.mean(axis=0))
        along = (finger @ outward).std()
        ratios.append(along / np.sqrt(((finger - finger.mean(axis=0)) ** 2).sum(axis=1).mean() / 3))
    assert np.median(ratios) > 1.05


def test_people_differ_and_are_the_same_every_time(brain):
    np.testing.assert_array_equal(drawn(brain, "mild"), drawn(brain, "mild"))
    assert (drawn(brain, "mild") != drawn(brain, "mild", seed=1)).any()


def test_a_map_without_ventricles_has_the_other_lesions(brain):
    lesions = drawn(brain, "mild", ventricles=np.zeros(SHAPE, dtype=bool))
    assert lesions.sum() >= VOLUMES_MM3["mild"]


def test_an_unknown_degree_is_refused(brain):
    with pytest.raises(ValueError, match=r"terrible is none of none, mild, moderate, severe"):
        drawn(brain, "terrible")
