"""Fields evaluated on a graphics card, against the CPU."""

from dataclasses import replace

import numpy as np
import pytest
import random_fields

pytestmark = pytest.mark.cuda


@pytest.mark.parametrize("make", [random_fields.siren, random_fields.hash_grid], ids=lambda make: make.__name__)
@pytest.mark.parametrize("factor", [1, 3])
def test_a_field_has_the_values_of_the_cpu(make, factor):
    field = make()
    grid = field.grid.scaled(factor)
    here, there = field.evaluate(grid), replace(field, device="cuda").evaluate(grid)
    assert np.abs(there - here).max() < 1e-3 * np.abs(here).max()


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_hidden_layers_in_low_precision_stay_near(precision):
    field = random_fields.siren()
    here = field.evaluate(field.grid)
    low = replace(field, device="cuda", precision=precision).evaluate(field.grid)
    assert 0 < np.abs(low - here).mean() < 0.2 * here.std()
