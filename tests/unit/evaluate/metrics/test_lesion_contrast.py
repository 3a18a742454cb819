"""Lesions that were dimmed, lost or moved."""

import math

import numpy as np
import pytest
from scipy import ndimage

from headsr.evaluate.metrics.comparison import Comparison
from headsr.evaluate.metrics.lesions import lesion_contrast

SHAPE = (40, 36, 32)


def ball(centre, radius):
    return sum((x - c) ** 2 for x, c in zip(np.ogrid[tuple(map(slice, SHAPE))], centre, strict=True)) <= radius**2


SMALL, LARGE = ball((10, 10, 10), 1.5), ball((26, 24, 20), 5)


def head(small=0.3, large=0.3):
    return np.float32(0.5 + small * SMALL + large * LARGE)


def contrast(volume, truth, mask, voxel_mm=(1.0, 1.0, 1.0)):
    return lesion_contrast(Comparison(volume, truth, mask, 1.0, voxel_mm, (1.0, 1.0, 1.0)))


def test_halved_is_a_half():
    assert contrast(head(), head(), SMALL | LARGE) == pytest.approx(1.0)
    assert contrast(head(0.15, 0.15), head(), SMALL | LARGE) == pytest.approx(0.5, rel=1e-5)
    assert contrast(head(0.0, 0.0), head(), SMALL | LARGE) == pytest.approx(0.0, abs=1e-6)
    assert contrast(head(-0.3, -0.3), head(), SMALL | LARGE) == pytest.approx(-1.0, rel=1e-5)


def test_a_lost_small_lesion_counts_as_much_as_a_large_one():
    assert contrast(head(small=0.0), head(), SMALL | LARGE) == pytest.approx(0.5, rel=1e-5)


def test_dark_and_bright_lesions_do_not_cancel():
    assert contrast(head(-0.15, 0.15), head(-0.3, 0.3), SMALL | LARGE) == pytest.approx(0.5, rel=1e-5)


def test_an_offset_changes_nothing_and_a_blur_does():
    assert contrast(head() + np.float32(0.2), head(), SMALL) == pytest.approx(1.0, rel=1e-5)
    blurred = [contrast(ndimage.gaussian_filter1d(head(), s, axis=2), head(), SMALL) for s in (0.5, 1.0, 2.0)]
    assert 1.0 > blurred[0] > blurred[1] > blurred[2] > 0.0


def test_the_ring_is_three_millimetres_without_other_lesions():
    near, far = (np.float32(0.4) * ball((10, 10, z), 1) for z in (14, 18))
    assert contrast(head() + near, head(), SMALL) < 0.98, "what lies in the ring counts"
    both = SMALL | (near > 0)
    assert contrast(head() + 2 * near, head() + near, both) == pytest.approx((0.3 + 0.8) / (0.3 + 0.4), rel=1e-5)
    assert contrast(head() + far, head(), SMALL) == pytest.approx(1.0, rel=1e-5)
    assert contrast(head() + far, head(), SMALL, (1.0, 1.0, 0.3)) < 0.995


def test_at_the_border_of_the_volume():
    corner = ball((0, 0, 0), 2)
    truth = np.float32(0.5 + 0.3 * corner)
    assert contrast(np.float32(0.5 + 0.15 * corner), truth, corner) == pytest.approx(0.5, rel=1e-5)


def test_no_contrast_in_the_truth_no_number():
    assert math.isnan(contrast(head(), np.full(SHAPE, 0.5, dtype=np.float32), SMALL))
    assert math.isnan(contrast(head(), head(), np.ones(SHAPE, dtype=bool))), "nothing lies around it"
