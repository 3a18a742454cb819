"""Distances of sets of features against closed forms."""

import math

import numpy as np
import pytest

from headsr.evaluate.metrics import sets
from headsr.evaluate.metrics.sets import fid, kid


def exactly(mean, covariance, n, rng):
    """n rows whose mean and covariance are these, to rounding (n > D)."""
    rows = rng.standard_normal((n, len(mean)))
    rows -= rows.mean(axis=0)
    rows = rows @ np.linalg.inv(np.linalg.cholesky(np.cov(rows.T))).T
    values, vectors = np.linalg.eigh(covariance)
    return mean + rows @ (vectors * np.sqrt(np.maximum(values, 0))).T


def closed_form(mean, covariance, other_mean, other_covariance):
    """Through the eigenvalues of a symmetric matrix: no root of a product that is none."""
    values, vectors = np.linalg.eigh(covariance)
    root = (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
    common = np.sqrt(np.maximum(np.linalg.eigvalsh(root @ other_covariance @ root), 0)).sum()
    return ((mean - other_mean) ** 2).sum() + np.trace(covariance + other_covariance) - 2 * common


def drawn(n=60, d=8):
    return [np.random.default_rng(seed).standard_normal((2, n, d)) for seed in range(40)]


def of_samples(x, y):
    return closed_form(x.mean(axis=0), np.cov(x.T), y.mean(axis=0), np.cov(y.T))


def covariance(d, rank, rng):
    factor = rng.standard_normal((d, rank)) / np.sqrt(rank)
    return factor @ factor.T


@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e4])
@pytest.mark.parametrize("rank", [12, 5, 1])
def test_frechet_distance_of_known_gaussians(rank, scale):
    rng = np.random.default_rng(0)
    mean, other = rng.standard_normal((2, 12)) * scale
    one, two = (covariance(12, r, rng) * scale**2 for r in (rank, 12))
    distance = fid(exactly(mean, one, 60, rng), exactly(other, two, 45, rng))
    assert distance.value == pytest.approx(closed_form(mean, one, other, two), rel=1e-6)
    assert distance.n == 45 and math.isnan(distance.error)


@pytest.mark.parametrize("scale", [0.01, 1.0, 100.0])
def test_fewer_rows_than_features(scale):
    """MONAI alone raises here for features 30 times as large."""
    rng = np.random.default_rng(0)
    x, y = scale * rng.standard_normal((2, 40, 128))
    assert fid(x, y).value == pytest.approx(of_samples(x, y), rel=1e-6)
    assert fid(x, x).value == pytest.approx(0.0, abs=1e-6 * scale**2 * 128)


def test_distances_of_what_does_not_vary():
    ones = np.ones((5, 4))
    assert fid(ones, 3 * ones).value == pytest.approx(16.0)
    assert fid(ones, ones).value == 0.0
    assert kid(ones, ones).value == pytest.approx(0.0, abs=1e-12)


def test_distances_do_not_depend_on_order_or_side():
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((50, 6)), rng.standard_normal((70, 6)) + 0.3
    assert fid(x, y).value == pytest.approx(fid(y[::-1], x).value, rel=1e-9)
    assert kid(x, y).value == pytest.approx(kid(y[::-1], x).value, rel=1e-9)


def test_kernel_distance_of_one_distribution_is_around_zero():
    distances = np.array([kid(x, y).value for x, y in drawn()])
    assert abs(distances.mean()) < 3 * distances.std() / math.sqrt(len(distances))
    assert distances.min() < 0 < distances.max()


@pytest.mark.parametrize(("shift", "most"), [(0.0, 3.0), (0.5, 1.5)])
def test_error_of_the_kernel_distance(shift, most):
    """The jackknife's is too large where the sets are alike, and about right where they are not."""
    values = [kid(x + shift, y) for x, y in drawn()]
    assert 0.7 < np.mean([v.error for v in values]) / np.std([v.value for v in values]) < most


def test_kernel_distance_by_hand():
    x, y = np.array([[1.0], [2.0]]), np.array([[0.0], [1.0], [-1.0]])
    pairs = (1 * 2 + 1) ** 3 - 2 * np.mean([1, 8, 0, 1, 27, -1]) + np.mean([1, 1, 0])
    distance = kid(x, y)
    assert distance.value == pytest.approx(pairs)
    assert distance.n == 2 and math.isnan(distance.error)


def test_distances_grow_with_the_shift():
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((2, 200, 8))
    for measure in (fid, kid):
        values = [measure(x, y + shift).value for shift in (0.0, 0.3, 1.0)]
        assert values == sorted(values), measure
    assert kid(x, y + 1.0).value > 5 * kid(x, y + 1.0).error


@pytest.mark.parametrize("measure", [fid, kid])
def test_what_are_no_sets_is_refused(measure):
    with pytest.raises(ValueError, match="same D"):
        measure(np.ones((4, 3)), np.ones((4, 2)))
    with pytest.raises(ValueError, match="two rows"):
        measure(np.ones((1, 3)), np.ones((4, 3)))


def test_a_kernel_of_many_rows_is_never_whole_in_memory(monkeypatch):
    rng = np.random.default_rng(7)
    x, y = rng.standard_normal((50, 4)), rng.standard_normal((37, 4)) + 0.1
    whole = sets.kid(x, y)
    monkeypatch.setattr(sets, "_NUMBERS", 300)
    parts = sets.kid(x, y)
    assert (parts.value, parts.error) == pytest.approx((whole.value, whole.error))
