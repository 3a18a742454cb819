"""The noise of a scan is estimated within 25 %, whatever was done to its air."""

import logging

import numpy as np
import pytest
from noisy_heads import TREATMENTS, noisy_head

from headsr.acquisition.noise import estimate_noise
from headsr.volumes import Grid, Volume


def scan_of(data, size=(1.0, 1.0, 1.0)):
    return Volume(np.asarray(data, np.float32), Grid(np.shape(data), np.diag([*size, 1.0])))


@pytest.mark.parametrize("treatment", TREATMENTS)
@pytest.mark.parametrize("number", range(5))
def test_known_noise_of_random_heads(treatment, number):
    scan = noisy_head(1000 * number + sorted(TREATMENTS).index(treatment), treatment)
    assert estimate_noise(scan.volume, scan.head) == pytest.approx(scan.noise, rel=0.25)


def test_units_are_the_scans_own():
    scan = noisy_head(7, "as acquired")
    grid = scan.volume.grid
    scales = (1.0, 512.0, 2.0**100, 2.0**-100)  # squares of the last two are no float32
    with np.errstate(over="raise"):
        said = [estimate_noise(Volume(np.float32(k) * scan.volume.data, grid), scan.head) for k in scales]
    assert said == [k * said[0] for k in scales]


@pytest.mark.parametrize("axis", range(3))
def test_thick_slices_may_lie_across_any_axis(axis):
    """Slices that differ by ten times the noise: across them there is no flat spot."""
    rng = np.random.default_rng(axis)
    shape, size = np.full(3, 60), np.ones(3)
    shape[axis], size[axis] = 12, 5.0
    data = 100 + 40 * np.arange(12).reshape([-1 if a == axis else 1 for a in range(3)]) + rng.normal(0, 4, shape)
    assert estimate_noise(scan_of(data, size), np.ones(shape, bool)) == pytest.approx(4, rel=0.1)


@pytest.mark.parametrize("shape", [(2, 40, 40), (40, 2, 40), (60, 60, 1), (3, 12, 60)])
def test_few_samples_along_an_axis(shape):
    data = 100 + np.random.default_rng(0).normal(0, 4, shape)
    assert estimate_noise(scan_of(data), np.ones(shape, bool)) == pytest.approx(4, rel=0.25)


@pytest.mark.parametrize("shape", [(2, 2, 2), (4, 4, 4), (3, 4, 30)])
def test_too_few_samples_are_taken_to_have_no_noise(shape, caplog):
    data = 100 + np.random.default_rng(0).normal(0, 4, shape)
    with caplog.at_level(logging.WARNING):
        assert estimate_noise(scan_of(data), np.ones(shape, bool)) == 0
    assert "too few samples" in caplog.text


def test_a_head_everywhere():
    """Its dark parts are left out, the air among them."""
    scan = noisy_head(3, "as acquired")
    assert estimate_noise(scan.volume, np.ones_like(scan.head)) == pytest.approx(scan.noise, rel=0.25)


def test_no_head_leaves_the_air():
    rng = np.random.default_rng(0)
    air = np.hypot(*rng.normal(0, 4, (2, 40, 40, 20)))
    assert estimate_noise(scan_of(air), np.zeros(air.shape, bool)) == pytest.approx(4, rel=0.1)


def test_without_noise():
    scan = noisy_head(5, "as acquired")
    clean = Volume(scan.clean.astype(np.float32), scan.volume.grid)
    assert estimate_noise(clean, scan.head) < 0.002
