import numpy as np
import pytest

from headsr.simulate.imaging import add_rician_noise, bias_field, smooth_field


@pytest.mark.parametrize("shape", [(16, 17, 5), (7, 30, 12)])
def test_bias_field_reaches_its_strength_exactly_and_is_smooth(shape):
    field = bias_field(shape, strength=0.2, rng=np.random.default_rng(0))
    assert field.shape == shape
    assert field.min() == pytest.approx(0.8)
    assert field.max() == pytest.approx(1.2)
    assert max(np.abs(np.diff(field, n=2, axis=a)).max() * n for a, n in enumerate(shape)) < 0.7


def test_rician_noise_of_nothing_has_rayleigh_mean_and_of_a_strong_signal_its_own_spread():
    rng = np.random.default_rng(0)
    noise = add_rician_noise(np.zeros((60, 60, 60), dtype=np.float32), sigma=0.02, rng=rng)
    assert noise.mean() == pytest.approx(0.02 * np.sqrt(np.pi / 2), rel=0.01)
    strong = add_rician_noise(np.ones((60, 60, 60), dtype=np.float32), sigma=0.02, rng=rng)
    assert strong.std() == pytest.approx(0.02, rel=0.02)


def test_smooth_field_has_unit_spread_and_neighbours_agree():
    field = smooth_field((40, 41, 42), sigma=3.0, rng=np.random.default_rng(1))
    assert field.std() == pytest.approx(1, rel=1e-3)
    assert np.diff(field, axis=0).std() < 0.3
