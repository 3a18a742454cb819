import numpy as np
import pytest

from headsr.simulate.head import NOISE, UNITS, _blocks, averaged, head_warp, samples_per_voxel, simulate_head
from headsr.simulate.warp import Warp
from headsr.volumes import cell_average


def test_undeformed_head_is_the_anatomy_itself(anatomy):
    grid = anatomy.field_of_view.grid(5.0)
    still = Warp(grid, np.zeros((3, *grid.shape), dtype=np.float32), np.eye(3), np.zeros(3))
    place = np.array((26.0, -25.0, 30.0))
    index = tuple(np.rint(np.linalg.inv(grid.affine)[:3, :3] @ (place - grid.affine[:3, 3])).astype(int))
    fine = samples_per_voxel(anatomy, grid)
    assert averaged(anatomy.sampler(anatomy.fractions[0]), still, grid, fine)[index] > 0.8
    volume = averaged(anatomy.sampler(anatomy.brain), still, grid, fine).sum() * 125
    assert volume == pytest.approx(anatomy.brain.sum(), rel=0.01)


def test_a_scan_is_the_same_every_time_and_shows_head_and_air(anatomy):
    one, again = (simulate_head(anatomy, suffix="T1w", voxel_mm=7.0, seed=4) for _ in range(2))
    np.testing.assert_array_equal(one.data, again.data)
    assert one.data.min() >= 0
    assert np.percentile(one.data[0], 90) < 0.05 * UNITS, "there is air beside the head"
    warp, fine = head_warp(anatomy, seed=4), samples_per_voxel(anatomy, one.grid)
    brain = averaged(anatomy.sampler(anatomy.brain), warp, one.grid, fine) > 0.9
    assert 0.4 * UNITS < np.median(one.data[brain]) < 0.9 * UNITS


def test_two_contrasts_of_one_person_are_of_one_shape(anatomy):
    t1, t2 = (simulate_head(anatomy, suffix=suffix, voxel_mm=7.0, seed=4).data for suffix in ("T1w", "T2w"))
    other = simulate_head(anatomy, suffix="T1w", voxel_mm=7.0, seed=5).data
    head = [data > 0.15 * UNITS for data in (t1, t2, other)]
    assert (head[0] ^ head[1]).mean() < 0.5 * (head[0] ^ head[2]).mean()


@pytest.mark.parametrize(("fine", "coarse"), [(5.0, 10.0), ((5.0, 5.0, 5.0), (5.0, 10.0, 10.0))])
def test_one_person_at_two_voxel_sizes_is_one_head(anatomy, fine, coarse):
    small, large = (simulate_head(anatomy, suffix="T1w", voxel_mm=mm, seed=1, noise=0) for mm in (fine, coarse))
    other = simulate_head(anatomy, suffix="T1w", voxel_mm=coarse, seed=2, noise=0).data
    averages = cell_average(small.data, large.data.shape)
    assert np.abs(large.data - averages).mean() < 0.01 * np.abs(other - averages).mean()


@pytest.mark.parametrize("suffix", ["PDw", "FLAIR", "random"])
def test_the_template_has_the_other_contrasts_too(anatomy, suffix):
    scan = simulate_head(anatomy, suffix=suffix, voxel_mm=8.0, seed=1)
    assert scan.data.max() > 10 * NOISE * UNITS


def test_lesions_need_a_label_map(anatomy):
    with pytest.raises(ValueError, match="mild can be drawn into label maps only"):
        simulate_head(anatomy, suffix="FLAIR", voxel_mm=8.0, seed=1, lesions="mild")


@pytest.mark.parametrize(
    ("shape", "fine"), [((7, 5, 3), (2, 2, 2)), ((200, 301, 150), (2, 2, 2)), ((90, 90, 40), (2, 3, 8))]
)
def test_blocks_tile_the_volume_and_bound_the_samples(shape, fine):
    seen = np.zeros(shape, dtype=np.uint8)
    for box in _blocks(shape, np.array(fine)):
        seen[box] += 1
        assert seen[box].size * np.prod(fine) <= 6.1e6
    assert np.all(seen == 1)


def test_a_head_in_blocks_is_the_head_in_one(anatomy, monkeypatch):
    whole = simulate_head(anatomy, suffix="T1w", voxel_mm=8.0, seed=1).data
    monkeypatch.setattr("headsr.simulate.head._BLOCK_SAMPLES", 2e4)
    np.testing.assert_allclose(simulate_head(anatomy, suffix="T1w", voxel_mm=8.0, seed=1).data, whole, atol=0.02)
