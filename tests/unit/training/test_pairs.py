import dataclasses

import pytest
import torch

from headsr.files import read_json, write_json
from headsr.training.pairs import SlicePairs, training_keys


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
