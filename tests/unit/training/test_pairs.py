import dataclasses

import pytest
import torch

from headsr.files import read_json, write_json
from headsr.recipes import RecipeError
from headsr.training.pairs import PairPool, Pairs, SlicePairs, training_keys


def pairs(recipe, index, split="train"):
    return SlicePairs(recipe, index, split=split, device=torch.device("cpu"))


def test_a_batch_is_a_function_of_its_step(recipe_of, index):
    first, second = pairs(recipe_of("baseline"), index), pairs(recipe_of("baseline"), index)
    second.batch(0)
    assert all(map(torch.equal, first.batch(7), second.batch(7)))
    assert not torch.equal(first.batch(7).clean, first.batch(8).clean)
    assert first.batch(7).clean.shape == (2, 1, 16, 16)


def test_degraded_slices_are_on_the_same_grid_and_worse(recipe_of, index):
    clean, degraded, planes = pairs(recipe_of("baseline"), index).batch(3, 8)
    assert degraded.shape == clean.shape
    assert planes.shape == (8,)
    assert 0.01 < (clean - degraded).abs().mean() < 0.3


def test_a_pair_is_the_same_in_any_batch_that_draws_it(recipe_of, index):
    drawer = pairs(recipe_of("baseline"), index)
    few, many = drawer.batch(3, 2), drawer.batch(3, 9)
    for one, other in zip(few, many, strict=True):
        torch.testing.assert_close(one, other[:2], rtol=0, atol=1e-6)


def with_degradation(recipe, **change):
    return dataclasses.replace(recipe, degradation=dataclasses.replace(recipe.degradation, **change))


def test_a_bias_field_on_both_is_in_the_clean_slice_too(recipe_of, index):
    recipe = recipe_of("baseline")
    plain = pairs(recipe, index).batch(3, 6)
    low, both = (
        pairs(with_degradation(recipe, bias_probability=1.0, bias_on=on), index).batch(3, 6) for on in ("low", "both")
    )
    assert torch.equal(low.clean, plain.clean) and torch.equal(low.degraded, both.degraded)
    ratio = (both.clean / plain.clean)[plain.clean > 0.05]
    assert 0.6 - 1e-5 < ratio.min() < 0.85 and 1.15 < ratio.max() < 1.4 + 1e-5


def numbered(step):
    """Pairs that say which step made them, and their place in its batch."""
    values = 100 * torch.full((3, 1, 1, 1), float(step)) + torch.arange(3.0).reshape(3, 1, 1, 1)
    return Pairs(values, -values, torch.arange(3))


def pool(pairs=12, seed=1):
    return PairPool(numbered, pairs=pairs, batch=3, seed=seed)


def test_the_pool_passes_pairs_through_until_it_is_full_and_gives_every_pair_once_more():
    mixed = pool()
    batches = [mixed.batch(step) for step in range(200)]
    assert all(torch.equal(batches[step].clean, numbered(step).clean) for step in range(4))
    given = torch.cat([batch.clean.flatten() for batch in batches[4:]]).tolist()
    assert len(set(given)) == len(given) == 3 * 196
    # Twelve are still in the pool.
    everything = {100.0 * step + i for step in range(200) for i in range(3)}
    assert len(everything - set(given)) == 12
    ages = [step - value // 100 for step in range(4, 200) for value in batches[step].clean.flatten().tolist()]
    assert min(ages) == 1 and 3 < sum(ages) / len(ages) < 5  # the mean age is pairs / batch
    assert all(torch.equal(batch.clean, -batch.degraded) for batch in batches)


@pytest.mark.parametrize("start", [0, 1, 2, 4, 7, 31])
def test_a_restarted_pool_goes_on_as_if_it_had_not_stopped(start):
    through, restarted = pool(), pool()
    for step in range(start):
        through.batch(step)
    for step in range(start, start + 6):
        assert torch.equal(through.batch(step).clean, restarted.batch(step).clean)


def test_the_pool_of_a_recipe_is_a_function_of_the_step(recipe_of, index):
    recipe = with_degradation(recipe_of("baseline"), pool=6)
    through, restarted = pairs(recipe, index), pairs(recipe, index)
    batches = [through.batch(step) for step in range(1, 9)]
    assert all(map(torch.equal, batches[7], restarted.batch(8)))
    assert not torch.equal(batches[7].clean, pairs(recipe_of("baseline"), index).batch(8).clean)
    # Batches of a given size are for validation and statistics: they are never mixed.
    assert torch.equal(through.batch(8, 2).clean, pairs(recipe_of("baseline"), index).batch(8).clean)
    with pytest.raises(RecipeError, match=r"degradation\.pool: 5 pairs must be a multiple of budget\.batch, 2"):
        pairs(with_degradation(recipe, pool=5), index)


def test_splits_do_not_share_crops(recipe_of, index):
    recipe = recipe_of("baseline")
    assert not torch.equal(pairs(recipe, index).batch(0).clean, pairs(recipe, index, "val").batch(0).clean)


def test_a_recipe_without_degradation_is_refused(recipe_of, index):
    with pytest.raises(ValueError, match="its degradation is missing"):
        pairs(dataclasses.replace(recipe_of("baseline"), degradation=None), index)


def test_training_keys_follow_the_scans_of_the_suffixes(index, tmp_path):
    content, changed = read_json(index), tmp_path / "training.json"
    content["stores"].append({**content["stores"][0], "suffix": "T2w"})
    write_json(changed, content)
    assert training_keys(changed, ["T1w"]) == training_keys(index, ["T1w"])
    assert training_keys(changed, ["T1w", "T2w"]) != training_keys(index, ["T1w"])
    content["stores"][0]["source_key"] = "ANOTHER"
    write_json(changed, content)
    assert training_keys(changed, ["T1w"]) != training_keys(index, ["T1w"])
