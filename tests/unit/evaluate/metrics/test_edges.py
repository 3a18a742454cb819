"""Edges of known width, and how much of a gradient is left."""

import math

import numpy as np
import pytest
from scipy import ndimage, special
from turned import at_every_axis

from headsr.evaluate.metrics.comparison import Comparison
from headsr.evaluate.metrics.edges import edge_width, sharpness

RISE = 2.5631  # 10 to 90 % of an error function of sigma 1


def edge(sigma, tilt=0.13, shape=(30, 28, 40)):
    """An edge of known sigma in voxels along the last axis, at another place in every line."""
    x, y, z = np.meshgrid(*map(np.arange, shape), indexing="ij", sparse=True)
    middle = shape[2] / 2 + tilt * (x - shape[0] / 2) + 0.07 * (y - shape[1] / 2)
    return special.ndtr((z - middle) / sigma).astype(np.float32)


def beside(volume, truth, spacing=4.0, voxel_mm=(1.0, 1.0, 1.0)):
    return Comparison(volume, truth, np.ones(truth.shape, dtype=bool), 1.0, voxel_mm, (1.0, 1.0, spacing))


@pytest.mark.parametrize("sigma", [0.7, 1.0, 1.5, 2.0, 2.5])
@pytest.mark.parametrize("true_sigma", [0.5, 0.7])
def test_width_of_a_known_edge(sigma, true_sigma):
    width = edge_width(beside(edge(sigma), edge(true_sigma), voxel_mm=(1.0, 1.0, 0.8)))
    assert width == pytest.approx(RISE * sigma * 0.8, rel=0.05)


def test_width_in_noise_and_of_falling_edges():
    rng = np.random.default_rng(0)
    noisy = 5.0 - 2.0 * edge(2.0) + 0.05 * rng.standard_normal((30, 28, 40)).astype(np.float32)
    assert edge_width(beside(noisy, 1.0 - edge(0.7))) == pytest.approx(RISE * 2.0, rel=0.05)


def test_an_edge_in_the_wrong_place_is_wide():
    sharp, rng = edge(0.5), np.random.default_rng(0)
    moved = np.stack([np.roll(plane, rng.integers(-2, 3), axis=-1) for plane in sharp.reshape(-1, 40)])
    assert edge_width(beside(moved.reshape(sharp.shape), sharp)) > 1.5 * edge_width(beside(sharp, sharp))


def test_width_of_what_has_no_edges_is_unknown():
    sharp = edge(0.5)
    assert math.isnan(edge_width(beside(np.full_like(sharp, 0.4), sharp)))
    assert math.isnan(edge_width(beside(sharp, np.full_like(sharp, 0.4))))
    assert math.isnan(edge_width(beside(sharp[:, :, :8], sharp[:, :, :8])))
    assert math.isnan(edge_width(beside(edge(0.5, shape=(3, 3, 40)), edge(0.5, shape=(3, 3, 40)))))


def test_sharpness_is_the_gain_of_the_gradients(compare, truth, volumes):
    assert sharpness(compare(truth)) == 1.0
    assert sharpness(compare(0.25 * truth + 0.4)) == pytest.approx(0.25, rel=1e-5)
    assert sharpness(compare(volumes["noisy"])) == pytest.approx(1.0, abs=0.01)
    along = np.arange(truth.shape[2])
    assert sharpness(compare(truth + 0.05 * np.cos(np.pi * along / 2))) == pytest.approx(1.0, abs=0.02)


def test_sharpness_of_a_blurred_wave():
    wave = np.broadcast_to(np.sin(2 * np.pi * np.arange(96) / 12), (4, 4, 96)).astype(np.float32)
    blurred = ndimage.gaussian_filter1d(wave, 2.0, axis=2, mode="wrap")
    assert sharpness(beside(blurred, wave)) == pytest.approx(np.exp(-2 * (np.pi * 2.0 / 12) ** 2), rel=0.01)


def test_blur_in_order(compare, truth, volumes):
    blurred = [ndimage.gaussian_filter1d(truth, sigma, axis=2) for sigma in (0.5, 1.0, 2.0)]
    widths, gains = ([m(compare(v)) for v in (truth, *blurred)] for m in (edge_width, sharpness))
    assert widths == sorted(widths) and gains == sorted(gains, reverse=True)
    widths, gains = ([m(compare(volumes[n])) for n in ("noisy", "spline", "linear")] for m in (edge_width, sharpness))
    assert widths == sorted(widths) and gains == sorted(gains, reverse=True)
    assert edge_width(compare(volumes["nearest"])) > 1.5 * widths[0]


@pytest.mark.parametrize("measure", [edge_width, sharpness])
def test_axes_and_air_change_nothing(compare, truth, mask, volumes, measure):
    value = measure(compare(volumes["spline"], voxel_mm=(0.9, 1.1, 0.8)))
    turned = at_every_axis(measure, compare(volumes["spline"], voxel_mm=(0.9, 1.1, 0.8)))
    assert turned == pytest.approx([value] * 3, rel=1e-4)
    air = [(4, 3), (2, 5), (8, 7)]
    padded = {key: np.pad(each, air, mode="edge") for key, each in (("truth", truth), ("mask", mask & (truth > 0)))}
    spline = compare(np.pad(volumes["spline"], air, mode="edge"), voxel_mm=(0.9, 1.1, 0.8), **padded)
    assert measure(spline) == pytest.approx(value, rel=0.01)


@pytest.mark.parametrize(("measure", "worst"), [(edge_width, max), (sharpness, min)])
def test_the_worst_axis_counts(compare, volumes, measure, worst):
    each = [measure(compare(volumes["linear"], spacings=s)) for s in ((1.0, 4.0, 1.0), (1.0, 1.0, 4.0))]
    assert measure(compare(volumes["linear"], spacings=(1.0, 4.0, 4.0))) == worst(each)
    assert math.isnan(measure(compare(volumes["linear"], spacings=(1.0, 1.0, 1.0))))
