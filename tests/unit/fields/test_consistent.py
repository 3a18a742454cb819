"""A render of any whole scale has the projected volume as its means, whatever network fills the voxels."""

from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from random_fields import consistent, dense, hash_grid, siren

from headsr.fields.consistent import ConsistentField
from headsr.fields.lattice import whole_scales
from headsr.fields.means import block_means, interpolated, places_at, places_within, set_means
from headsr.volumes import Grid

FAMILIES = {"dense": dense, "siren": siren, "hash_grid": hash_grid}
made = cache(lambda name, signed: consistent(FAMILIES[name](), signed=signed))
fields = st.builds(made, st.sampled_from(list(FAMILIES)), st.booleans())
SCALES = [(1, 1, 1), (2, 2, 2), (3, 3, 3), (4, 4, 4), (7, 7, 7), (3, 1, 2)]
EPS = np.finfo(np.float32).eps


def finer(field, scales) -> Grid:
    return field.grid.resized(tuple(n * s for n, s in zip(field.grid.shape, scales, strict=True)))


@pytest.mark.parametrize("scales", SCALES)
@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("name", FAMILIES)
def test_the_means_of_a_render_are_the_projected_volume(name, signed, scales) -> None:
    field = made(name, signed)
    values = field.evaluate(finer(field, scales))
    assert np.ptp(values) > 0.9
    worst = np.abs(block_means(values, scales) - field.projected).max()
    assert worst <= EPS * np.abs(values).max()
    if scales == (1, 1, 1):
        np.testing.assert_array_equal(values, field.projected)


@pytest.mark.parametrize("scales", [*SCALES, (1.5, 1.5, 1.5), (0.6, 2, 1)])
@pytest.mark.parametrize("name", FAMILIES)
def test_magnitudes_are_nowhere_below_zero(name, scales) -> None:
    magnitudes, signed = made(name, False), made(name, True)
    grid = magnitudes.grid.scaled(np.array(scales))
    assert magnitudes.evaluate(grid).min() >= 0 > signed.evaluate(grid).min()


@pytest.mark.parametrize("name", FAMILIES)
def test_where_nothing_is_below_zero_magnitudes_are_what_they_are_with_a_sign(name) -> None:
    network, voxels = FAMILIES[name](), 9 + np.float32(made(name, False).projected)
    pair = [ConsistentField.of(network, voxels, scale=1.0, offset=0.0, signed=signed) for signed in (False, True)]
    values, expected = (field.evaluate(finer(field, (2, 2, 2))) for field in pair)
    assert expected.min() > 0
    np.testing.assert_allclose(values, expected, rtol=1e-6)


@settings(max_examples=60, derandomize=True)
@given(field=fields, scale=st.sampled_from([1, 2, 3, 5, 1.37, 0.4]), data=st.data())
def test_a_box_anywhere_is_bit_for_bit_the_same_part_of_the_whole(field, scale, data) -> None:
    grid = field.grid.scaled(scale)
    start = tuple(data.draw(st.integers(0, n - 1)) for n in grid.shape)
    size = tuple(data.draw(st.integers(1, n - a)) for n, a in zip(grid.shape, start, strict=True))
    part = tuple(slice(a, a + n) for a, n in zip(start, size, strict=True))
    values = field.evaluate(grid.block(start, size))
    assert values.dtype == np.float32 and values.flags.writeable and values.flags.c_contiguous
    np.testing.assert_array_equal(values, field.evaluate(grid)[part])


@pytest.mark.parametrize("scale", [2, 1.3])
def test_how_many_slabs_a_box_is_cut_into_changes_no_bit(scale, monkeypatch) -> None:
    field = made("dense", False)
    values = []
    for size in (2**18, 3000, 1):
        monkeypatch.setattr("headsr.fields.consistent._SLAB", size)
        values.append(field.evaluate(field.grid.scaled(scale)))
    for other in values[1:]:
        np.testing.assert_array_equal(values[0], other)


def test_outside_the_head_the_nearest_voxel_goes_on_and_backwards_it_is_the_same_backwards() -> None:
    field = made("dense", True)
    grid = finer(field, (2, 2, 2))
    values = field.evaluate(grid)
    beyond = field.evaluate(grid.block((-3, -2, -1), tuple(n + 4 for n in grid.shape)))
    np.testing.assert_array_equal(beyond, np.pad(values, [(3, 1), (2, 2), (1, 3)], mode="edge"))
    flipped = grid.affine.copy()
    flipped[:3, 2] *= -1
    flipped[:3, 3] -= flipped[:3, 2] * (grid.shape[2] - 1)
    np.testing.assert_array_equal(field.evaluate(Grid(grid.shape, flipped)), values[:, :, ::-1])


def test_voxels_that_do_not_fit_the_head_are_refused() -> None:
    field = made("dense", False)
    for wrong in (field.projected[1:], field.projected.astype(np.float64)):
        with pytest.raises(ValueError, match="projected voxels are"):
            ConsistentField(field.network, wrong, field.carried, 1.0, 0.0)


class TestAWholeScale:
    head = Grid((40, 60, 8192), np.diag([1.5, 1.0, 0.05, 1.0]))

    @pytest.mark.parametrize(("how", "scales"), [(1, (1, 1, 1)), (3, (3, 3, 3)), (np.array([2, 1.5, 1]), (2, None, 1))])
    def test_is_that_of_every_block_of_the_grid(self, how, scales):
        grid = self.head.scaled(how)
        for start in [(0, 0, 0), (7, 11, 13), tuple(n - 1 for n in grid.shape)]:
            assert whole_scales(self.head, grid.block(start, (1, 1, 1))) == scales

    def test_is_none_of_a_grid_that_is_nearly_one_not_even_where_its_blocks_would_pass(self):
        grid = self.head.resized((80, 120, 16385))
        assert whole_scales(self.head, grid.block((0, 0, 0), (2, 2, 2))) == (2, 2, None)

    def test_is_none_of_a_grid_that_lies_between_the_voxels_or_is_coarser(self):
        moved = self.head.affine.copy()
        moved[0, 3] += 0.3
        assert whole_scales(self.head, Grid(self.head.shape, moved))[0] is None
        assert whole_scales(self.head, self.head.scaled(0.5)) == (None, None, None)


class TestTheInterpolation:
    def means_of(self, edges):
        """Cell means of x^2 between integers, from its integral."""
        return np.diff(edges**3) / 3

    @pytest.mark.parametrize("scale", [1, 2, 3, 8])
    def test_keeps_means_for_any_voxels(self, scale):
        voxels = np.random.default_rng(0).standard_normal((9, 7, 8)).astype(np.float32)
        values = interpolated(voxels, [places_within(slice(0, n), scale) for n in voxels.shape])
        np.testing.assert_allclose(block_means(values, (scale,) * 3), voxels, atol=2e-6)

    def test_is_exact_for_a_parabola_away_from_the_ends(self):
        edges = np.arange(21) - 10.0
        voxels = np.ones((20, 20, 20)) * self.means_of(edges)[:, None, None]
        at = np.linspace(4, 15, 40)
        values = interpolated(voxels.astype(np.float32), [places_at(at, None), *[places_at(np.arange(3.0), None)] * 2])
        np.testing.assert_allclose(values[:, 1, 2], (at - 9.5) ** 2, atol=1e-4)

    @pytest.mark.parametrize("axis", range(3))
    def test_has_no_edge_between_voxels(self, axis):
        """Of rendered noise the steps across faces shrink with the voxels, as those within do."""
        voxels = np.random.default_rng(1).random((8, 8, 8)).astype(np.float32)
        for scale in (8, 32):
            places = [places_within(slice(2, 6), scale if i == axis else 1) for i in range(3)]
            steps = np.abs(np.diff(interpolated(voxels, places), axis=axis))
            across = np.take(steps, np.arange(scale - 1, steps.shape[axis], scale), axis=axis)
            assert across.max() <= steps.max() <= 8 / scale

    def test_depends_on_two_voxels_to_either_side(self):
        voxels = np.zeros((11, 1, 1), np.float32)
        voxels[5] = 1
        places = [places_within(slice(0, 11), 4), *[places_within(slice(0, 1), 1)] * 2]
        touched = interpolated(voxels, places)[:, 0, 0].reshape(11, 4).any(axis=1)
        assert list(np.flatnonzero(touched)) == [3, 4, 5, 6, 7]


@pytest.mark.parametrize("signed", [False, True])
def test_set_means_are_met_and_a_voxel_of_nothing_stays_nothing(signed) -> None:
    rng = np.random.default_rng(2)
    values = rng.standard_normal((12, 9, 8)).astype(np.float32)
    means = rng.random((4, 3, 2)).astype(np.float32)
    means[0, 0, 0], means[1, 1, 1] = 0, 1e-9
    set_means(values, means, (3, 3, 4), signed=signed)
    np.testing.assert_allclose(block_means(values, (3, 3, 4)), means, atol=4e-7)
    assert (values.min() < 0) == signed and (signed or not values[:3, :3, :4].any())


def test_what_the_means_lack_is_nothing_on_a_voxel_s_faces() -> None:
    values = np.zeros((64, 2, 2), np.float32)
    set_means(values, np.ones((1, 1, 1), np.float32), (64, 2, 2), signed=True)
    assert values[[0, -1]].max() < 0.05 and values[31].max() == pytest.approx(1.5, abs=0.01)
