from dataclasses import replace

import numpy as np
import pytest
from random_fields import head, siren, siren_by_definition

from headsr.fields.siren import SirenField
from headsr.volumes import Grid


def test_a_siren_is_what_its_definition_says() -> None:
    field = siren()
    for grid in (field.grid, field.grid.resized((19, 14, 8)), field.grid.block((-3, 4, 9), (6, 8, 7))):
        expected = siren_by_definition(field, grid)
        assert np.ptp(expected) > 0.5
        np.testing.assert_allclose(field.evaluate(grid), expected, atol=2e-3 * np.ptp(expected))


def test_the_box_of_the_head_is_from_minus_one_to_one() -> None:
    # sin(30 W u) with 30 W u in (-pi/2, pi/2), so that u can be had back.
    weight = np.array([[0.05, 0, 0]], np.float32)
    zero, one = np.zeros(1, np.float32), np.ones((1, 1), np.float32)
    field = SirenField(head(), (weight, one), (zero, zero))
    u = np.arcsin(field.evaluate(head())[:, 0, 0]) / 1.5
    np.testing.assert_allclose(u, (2 * np.arange(11) + 1) / 11 - 1, atol=1e-5)


def test_positions_are_as_exact_in_a_large_grid_as_in_a_small_one() -> None:
    field = siren(shape=(256, 256, 256))
    far = field.grid.resized((4096, 4096, 4096)).block((4000, 3900, 4090), (6, 5, 4))
    np.testing.assert_allclose(field.evaluate(far), siren_by_definition(field, far), atol=1e-4)


def test_high_frequencies_are_as_exact_as_low_ones() -> None:
    field = siren((3, 32, 1), shape=(20, 20, 20))
    shrill = replace(field, weights=(40 * field.weights[0], field.weights[1]))
    # At the head's own voxel centres nothing is snapped. An angle of 1000 in float32 is wrong by up to 3e-5.
    assert 30 * np.abs(shrill.weights[0]).sum(axis=1).max() > 1000
    scale = np.abs(field.weights[1]).sum()
    for each in (field, shrill):
        np.testing.assert_allclose(
            each.evaluate(head((20, 20, 20))), siren_by_definition(each, each.grid), atol=1e-6 * scale
        )


@pytest.mark.parametrize(("precision", "decibels"), [("bf16", 35), ("fp16", 50)])
def test_low_precision_in_the_hidden_layers_stays_near_full_precision(precision, decibels) -> None:
    full, low = siren(), siren(precision=precision)
    grid = full.grid.resized((12, 12, 12))
    exact, near = full.evaluate(grid), low.evaluate(grid)
    assert not np.array_equal(exact, near)
    assert -10 * np.log10(np.mean((exact - near) ** 2) / np.ptp(exact) ** 2) > decibels


def test_layers_that_do_not_follow_one_another_are_refused() -> None:
    field = siren()
    for weights, biases in [
        (field.weights[1:], field.biases[1:]),
        (field.weights[:-1], field.biases[:-1]),
        (field.weights[:1] + field.weights[2:], field.biases[:1] + field.biases[2:]),
        (field.weights, field.biases[:-1]),
    ]:
        with pytest.raises(ValueError, match="layers"):
            SirenField(field.grid, weights, biases)


def test_voxels_of_any_size_are_point_samples() -> None:
    field = siren()
    coarse = field.grid.resized((3, 2, 4))
    at_point = [field.evaluate(Grid((1, 1, 1), coarse.block(i, (1, 1, 1)).affine)).item() for i in np.ndindex(3, 2, 4)]
    np.testing.assert_array_equal(field.evaluate(coarse).reshape(-1), at_point)
