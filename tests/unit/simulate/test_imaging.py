import numpy as np
import pytest

from headsr.simulate.anatomy import TISSUES, Anatomy
from headsr.simulate.imaging import SIGNAL, add_rician_noise, bias_field, smooth_field, tissue_signal
from headsr.volumes import Grid


@pytest.fixture
def pure():
    """One voxel of each tissue, and one of air."""
    fractions = np.zeros((len(TISSUES), len(TISSUES) + 1, 1, 1), dtype=np.float32)
    for tissue in range(len(TISSUES)):
        fractions[tissue, tissue] = 1
    grid = Grid(fractions.shape[1:], np.eye(4))
    return Anatomy(grid, fractions, np.zeros(grid.shape, dtype=bool), np.zeros(grid.shape, dtype=np.float32))


def test_t1w_orders_white_grey_csf_and_t2w_the_other_way(pure):
    t1, t2 = (dict(zip(TISSUES, tissue_signal(pure, suffix=s).ravel(), strict=False)) for s in ("T1w", "T2w"))
    assert t1["white"] > t1["grey"] > t1["csf"] > t1["bone"]
    assert t2["csf"] > t2["grey"] > t2["white"] > t2["bone"]
    assert max(t1.values()) == t1["fat"]


def test_air_gives_no_signal_and_people_differ_a_little(pure):
    plain = tissue_signal(pure, suffix="T1w")
    person = tissue_signal(pure, suffix="T1w", rng=np.random.default_rng(3))
    assert plain[-1] == person[-1] == 0
    ratio = person[:-1] / plain[:-1]
    assert 0 < np.abs(ratio - 1).max() <= 0.0801
    np.testing.assert_allclose(plain.ravel()[:-1], [SIGNAL["T1w"][t] for t in TISSUES], rtol=1e-6)


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
