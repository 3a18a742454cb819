"""Seams and stripes of known strength."""

import math

import numpy as np
import pytest
from scipy import ndimage
from turned import at_every_axis

from headsr.evaluate.metrics.comparison import Comparison
from headsr.evaluate.metrics.seams import seam_ratio, stripe_peak


def stripes(truth, period, size=0.05):
    return truth + size * np.cos(2 * np.pi * np.arange(truth.shape[2]) / period + 0.4)


def test_nothing_that_ignores_the_slices_has_seams(compare, truth, volumes):
    for same in (volumes["noisy"], ndimage.gaussian_filter1d(truth, 1.0, axis=2), 3.0 * truth - 1.0):
        assert seam_ratio(compare(same)) == pytest.approx(1.0, abs=0.02)
        assert stripe_peak(compare(same)) == pytest.approx(1.0, abs=0.15)
    assert seam_ratio(compare(truth)) == stripe_peak(compare(truth)) == 1.0


def test_white_noise_has_none():
    rng = np.random.default_rng(0)
    noise, truth = rng.standard_normal((2, 40, 40, 48)).astype(np.float32)
    both = Comparison(noise, truth, np.ones(noise.shape, dtype=bool), 1.0, (1.0, 1.0, 1.0), (1.0, 1.0, 4.0))
    assert seam_ratio(both) == pytest.approx(1.0, abs=0.02)
    assert stripe_peak(both) == pytest.approx(1.0, abs=0.15)


def test_steps_at_the_borders_alone_are_the_spacing(compare, volumes):
    assert seam_ratio(compare(volumes["nearest"])) == pytest.approx(4.0, abs=0.1)
    assert stripe_peak(compare(volumes["nearest"])) > 3.0


def test_a_known_seam(compare, truth):
    at_border = np.arange(1, truth.shape[2]) % 4 == 0
    steps = np.diff(truth, axis=2) * np.where(at_border, 1.5, 1.0)
    seamed = np.cumsum(np.concatenate([truth[..., :1], steps], axis=2), axis=2)
    # Steps at borders are half as large again, so the mean of all steps is (3 + 1.5) / 4.
    assert seam_ratio(compare(seamed)) == pytest.approx(1.5 / (4.5 / 4), rel=0.01)


def test_better_interpolation_has_fewer_traces(compare, volumes):
    ratios = [seam_ratio(compare(volumes[name])) for name in ("noisy", "spline", "linear", "nearest")]
    assert ratios == sorted(ratios)
    peaks = [stripe_peak(compare(volumes[name])) for name in ("noisy", "spline", "linear", "nearest")]
    assert peaks == sorted(peaks)


@pytest.mark.parametrize("period", [3.0, 4.0, 6.0])
def test_stripes_count_at_their_spacing(compare, truth, period):
    striped = stripes(truth, period)
    peaks = {s: stripe_peak(compare(striped, spacings=(1.0, 1.0, s))) for s in (3.0, 4.0, 6.0)}
    assert peaks[period] > 3.0
    assert max(peak for spacing, peak in peaks.items() if spacing != period) < 0.6 * peaks[period]


def test_stripes_count_wherever_the_slices_begin(compare, truth, mask, volumes):
    moved = {key: np.roll(value, 1, axis=2) for key, value in (("truth", truth), ("mask", mask))}
    peak = stripe_peak(compare(volumes["nearest"]))
    assert stripe_peak(compare(np.roll(volumes["nearest"], 1, axis=2), **moved)) == pytest.approx(peak, rel=1e-4)


@pytest.mark.parametrize("measure", [seam_ratio, stripe_peak])
def test_axes_gain_and_air_change_nothing(compare, truth, mask, volumes, measure):
    value = measure(compare(volumes["linear"]))
    assert at_every_axis(measure, compare(volumes["linear"])) == pytest.approx([value] * 3, rel=1e-4)
    assert measure(compare(0.5 * volumes["linear"] + 0.2)) == pytest.approx(value, rel=1e-4)
    air = [(4, 3), (2, 5), (8, 7)]
    padded = compare(np.pad(volumes["linear"], air), truth=np.pad(truth, air), mask=np.pad(mask, air))
    assert measure(padded) == pytest.approx(value, rel=1e-4)


@pytest.mark.parametrize("measure", [seam_ratio, stripe_peak])
def test_the_worst_axis_counts(compare, volumes, measure):
    one, other = (measure(compare(volumes["nearest"], spacings=s)) for s in ((1.0, 1.0, 4.0), (1.0, 3.0, 1.0)))
    assert measure(compare(volumes["nearest"], spacings=(1.0, 3.0, 4.0))) == max(one, other)


def test_a_spacing_that_is_no_whole_number(compare, truth):
    at = np.floor((np.floor((np.arange(truth.shape[2]) + 0.5) / 3.3) + 0.5) * 3.3).astype(int)
    nearest = truth[..., np.clip(at, 0, truth.shape[2] - 1)]
    assert seam_ratio(compare(nearest, spacings=(1.0, 1.0, 3.3))) > 2.5
    assert seam_ratio(compare(truth + 0.0, spacings=(1.0, 1.0, 3.3))) == 1.0


@pytest.mark.parametrize("measure", [seam_ratio, stripe_peak])
def test_no_thick_axis_no_number(compare, truth, measure):
    assert math.isnan(measure(compare(truth, spacings=(1.0, 1.0, 1.0))))
    assert math.isnan(measure(compare(np.zeros_like(truth))))
