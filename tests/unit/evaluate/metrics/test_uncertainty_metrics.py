"""Known answers of what measures a foretold uncertainty."""

import math

import numpy as np
import pytest

from headsr.evaluate.metrics.uncertainty import coverage, uncertainty_rank


@pytest.fixture
def spread(truth):
    """A deviation for every voxel, from 0.01 to 0.1."""
    return (0.01 * 10 ** np.random.default_rng(1).random(truth.shape)).astype(np.float32)


def test_intervals_of_a_known_distribution_hold_what_they_are_to_hold(compare, truth, spread):
    volume = truth + spread * np.random.default_rng(2).laplace(size=truth.shape)
    seen = compare(volume, uncertainty=(spread * math.log(10)).astype(np.float32))
    assert coverage(seen) == pytest.approx(0.9, abs=0.005)
    assert coverage(compare(volume, uncertainty=spread)) == pytest.approx(1 - math.exp(-1), abs=0.005)
    assert 0.3 < uncertainty_rank(seen) < 0.6


def test_only_the_mask_counts(compare, truth, mask):
    volume, uncertainty = truth.copy(), np.full(truth.shape, 0.1, dtype=np.float32)
    volume[~mask] += 1.0
    assert coverage(compare(volume, uncertainty=uncertainty)) == 1.0
    volume[mask] += 0.2
    assert coverage(compare(volume, uncertainty=uncertainty)) == 0.0


def test_ranks_are_of_the_size_of_errors(compare, truth, spread):
    signs = np.where(np.random.default_rng(3).random(truth.shape) < 0.5, -1, 1)
    assert uncertainty_rank(compare(truth + signs * spread, uncertainty=spread)) == pytest.approx(1, abs=1e-3)
    assert uncertainty_rank(compare(truth + signs * (0.2 - spread), uncertainty=spread)) == pytest.approx(-1, abs=1e-3)


@pytest.mark.parametrize("measure", [coverage, uncertainty_rank])
def test_nothing_foretold_has_no_number(measure, compare, truth):
    assert math.isnan(measure(compare(truth)))


def test_the_same_everywhere_has_no_rank(compare, truth, spread):
    assert math.isnan(uncertainty_rank(compare(truth + spread, uncertainty=np.full_like(truth, 0.1))))
    assert math.isnan(uncertainty_rank(compare(truth, uncertainty=spread)))
