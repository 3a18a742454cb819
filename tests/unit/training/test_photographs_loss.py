"""A training by features of photographs: named beside its numbers, and another training with other features."""

import pytest
import torch
from published_networks import lite0_weights

from headsr.files import sha256_of
from headsr.history import read_history
from headsr.models.imported import import_model
from headsr.models.take import take_model
from headsr.recipes import Shipped
from headsr.weights import StateError, read_metadata


def test_features_of_photographs_are_compared_and_named(tmp_path, recipe_of, train, export):
    torch.save(lite0_weights(), tmp_path / "lite0.pth")
    import_model(tmp_path / "lite0.pth", name="lite0", folder=tmp_path / "out", license="Apache-2.0")
    taken = tmp_path / "photographs/weights.safetensors"
    recipe = Shipped(name="lite0", folder=str(tmp_path / "out"))
    take_model(recipe, weights=taken, history=taken.with_name("history.jsonl"))
    recipe = recipe_of("baseline", steps=10, losses={"perceptual": {"weight": 0.01, "features": "photographs"}})
    state = train(recipe, "student", companions=[taken])
    metadata = read_metadata(export(recipe, state, [taken]))
    assert metadata["recipe"]["losses"]["perceptual"] == {"features": "photographs", "weight": 0.01}
    lines = read_history(state.with_name("history.jsonl"))
    assert any(line.get("train_perceptual", 0) > 0 for line in lines)
    assert read_metadata(state)["identity"]["companions"] == {"photographs": sha256_of(taken)}
    with pytest.raises(StateError):
        export(recipe, state, [])
