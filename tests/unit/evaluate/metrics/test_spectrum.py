"""Spectra of volumes that were filtered in known ways."""

import math

import numpy as np
import pytest
from scipy import fft, ndimage
from turned import at_every_axis

from headsr.evaluate.metrics.spectrum import fsc_resolution, powers_along, shell_correlation, spectrum_z


def test_blur_has_the_transfer_function_of_its_gaussian(compare, truth):
    sigma = 1.0
    blurred = ndimage.gaussian_filter1d(truth, sigma, axis=2)
    frequencies, volume, true = powers_along(compare(blurred, voxel_mm=(1.0, 1.0, 0.5)), axis=2)
    seen = frequencies * 0.5 < 0.25  # cycles per voxel
    expected = np.exp(-4 * (np.pi * sigma * 0.5 * frequencies[seen]) ** 2)
    assert 10 * np.log10(volume[seen] / true[seen]) == pytest.approx(10 * np.log10(expected), abs=0.8)


def test_power_of_a_known_gain_and_of_added_noise(compare, truth):
    assert spectrum_z(compare(truth)) == 0.0
    assert spectrum_z(compare(0.5 * truth + 0.3)) == pytest.approx(20 * np.log10(0.5), abs=1e-3)
    assert spectrum_z(compare(truth + 0.1 * np.random.default_rng(0).standard_normal(truth.shape))) > 1.0
    assert spectrum_z(compare(np.zeros_like(truth))) == -math.inf


def test_only_what_the_slices_cannot_hold_counts(compare, truth):
    along = fft.rfftfreq(truth.shape[2])
    for cut, least, most in ((0.30, -3.0, 0.0), (0.125, -60.0, -8.0), (0.08, -60.0, -12.0)):
        low = fft.irfft(fft.rfft(truth, axis=2) * (along <= cut), n=truth.shape[2], axis=2)
        assert least < spectrum_z(compare(low)) < most, cut


@pytest.mark.parametrize("resolution", [3.0, 4.5, 7.0])
def test_resolution_of_a_volume_cut_off_at_a_known_frequency(compare, resolution):
    rng = np.random.default_rng(0)
    truth = rng.standard_normal((48, 48, 64)).astype(np.float32)
    radius = np.sqrt(sum(f**2 for f in np.meshgrid(*map(fft.fftfreq, truth.shape), indexing="ij", sparse=True)))
    low = fft.ifftn(fft.fftn(truth) * (radius * resolution <= 1.0)).real + 0.05 * rng.standard_normal(truth.shape)
    both = compare(low, truth=truth, mask=np.ones(truth.shape, dtype=bool))
    assert fsc_resolution(both) == pytest.approx(resolution, rel=0.05)
    frequencies, correlation = shell_correlation(both, axis=2)
    assert correlation[(frequencies > 0.05) & (frequencies < 0.9 / resolution)].min() > 0.9
    assert np.abs(correlation[frequencies > 1.2 / resolution]).mean() < 0.1


def test_resolution_is_where_signal_and_noise_are_equal(compare):
    """With noise of the signal's power times r, the correlation is 1 / sqrt(1 + r): a half at r = 3."""
    rng = np.random.default_rng(0)
    truth, noise = rng.standard_normal((2, 64, 64, 64)).astype(np.float32)
    radius = np.sqrt(sum(f**2 for f in np.meshgrid(*map(fft.fftfreq, truth.shape), indexing="ij", sparse=True)))
    grown = fft.ifftn(fft.fftn(noise) * np.sqrt(3.0) * np.minimum(radius / 0.2, 1.5) ** 4).real
    both = compare(truth + grown, truth=truth, mask=np.ones(truth.shape, dtype=bool), voxel_mm=(0.7, 0.7, 0.7))
    assert fsc_resolution(both) == pytest.approx(0.7 / 0.2, rel=0.05)


def test_the_finest_and_the_worst_resolution(compare, truth):
    assert fsc_resolution(compare(truth, voxel_mm=(0.9, 0.8, 0.7))) == pytest.approx(1.4)
    assert fsc_resolution(compare(np.random.default_rng(0).standard_normal(truth.shape))) > 20.0
    assert fsc_resolution(compare(np.zeros_like(truth))) > 20.0


def test_interpolated_slices_resolve_what_slices_hold(compare, volumes):
    resolutions = {name: fsc_resolution(compare(volume)) for name, volume in volumes.items()}
    assert resolutions["noisy"] < 4.0
    for name in ("spline", "linear", "nearest"):
        assert 5.0 < resolutions[name] < 8.5, "two spacings are eight voxels"
    powers = [spectrum_z(compare(volumes[name])) for name in ("nearest", "linear", "spline")]
    assert powers == sorted(powers, reverse=True)


@pytest.mark.parametrize("measure", [spectrum_z, fsc_resolution])
def test_axes_and_air_change_nothing(compare, truth, mask, volumes, measure):
    sizes = {"voxel_mm": (0.9, 1.1, 0.8)}
    value = measure(compare(volumes["spline"], **sizes))
    assert at_every_axis(measure, compare(volumes["spline"], **sizes)) == pytest.approx([value] * 3, rel=1e-3)
    air = [(4, 3), (2, 5), (8, 7)]
    padded = compare(np.pad(volumes["spline"], air), truth=np.pad(truth, air), mask=np.pad(mask, air), **sizes)
    assert measure(padded) == pytest.approx(value, rel=1e-3)


def test_correlation_knows_no_gain(compare, volumes):
    value = fsc_resolution(compare(volumes["linear"]))
    assert fsc_resolution(compare(0.3 * volumes["linear"] + 0.5)) == pytest.approx(value, rel=1e-3)


@pytest.mark.parametrize(("measure", "worst"), [(spectrum_z, min), (fsc_resolution, max)])
def test_the_worst_axis_counts(compare, volumes, measure, worst):
    each = [measure(compare(volumes["linear"], spacings=s)) for s in ((1.0, 4.0, 1.0), (1.0, 1.0, 4.0))]
    assert measure(compare(volumes["linear"], spacings=(1.0, 4.0, 4.0))) == worst(each)
    assert math.isnan(measure(compare(volumes["linear"], spacings=(1.0, 1.0, 1.0))))
