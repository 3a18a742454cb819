import json

import pytest
import safetensors.torch
import torch

from headsr.networks.build import build_network
from headsr.networks.latent_diffusion import LatentDiffusion
from headsr.training import state as states


def trained(seed, steps=3):
    torch.manual_seed(seed)
    state = states.new_state(build_network("baseline", {"architecture": "residual2d", "channels": 4, "blocks": 1}))
    for step in range(1, steps + 1):
        state.module(torch.rand(1, 1, 6, 6)).square().mean().backward()
        state.optimizer.step()
        state.optimizer.zero_grad()
        state.step = step
    state.history, state.sums, state.count = [{"step": 0, "val_psnr": 0.1 + 0.2}], {"l1": 1 / 3}, 2
    return state


def test_a_state_comes_back_whole_and_saves_to_the_same_bytes(tmp_path):
    first, second = trained(1), trained(2)
    states.save_state(tmp_path / "a", first, identity={"recipe": {"seed": 1}, "stage": 1})
    states.load_state(tmp_path / "a", second, identity={"stage": 1, "recipe": {"seed": 1}})
    assert (second.step, second.history, second.sums, second.count) == (3, first.history, first.sums, 2)
    states.save_state(tmp_path / "b", second, identity={"recipe": {"seed": 1}, "stage": 1})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_restored_state_steps_as_the_original(tmp_path):
    first, second = trained(1), trained(2)
    states.save_state(tmp_path / "a", first, identity={})
    states.load_state(tmp_path / "a", second, identity={})
    for state in (first, second):
        state.module(torch.ones(1, 1, 6, 6)).square().mean().backward()
        state.optimizer.step()
    assert all(map(torch.equal, first.module.parameters(), second.module.parameters()))


def test_the_state_of_another_training_is_refused_and_changes_nothing(tmp_path):
    first, second = trained(1), trained(2)
    states.save_state(tmp_path / "a", first, identity={"recipe": 1, "stage": 1})
    before = [p.clone() for p in second.module.parameters()]
    with pytest.raises(states.StateError, match=r"a: is the state of another training \(different: recipe\)"):
        states.load_state(tmp_path / "a", second, identity={"recipe": 2, "stage": 1})
    assert all(map(torch.equal, before, second.module.parameters()))


@pytest.mark.parametrize("damage", ["cut", "foreign", "missing"])
def test_an_unusable_file_is_named(tmp_path, damage):
    path = tmp_path / "weights.safetensors"
    if damage == "cut":
        states.save_tensors(path, {"a": torch.ones(100)}, {})
        path.write_bytes(path.read_bytes()[:-50])
    elif damage == "foreign":
        safetensors.torch.save_file({"a": torch.ones(3)}, path)
    with pytest.raises(states.StateError, match=r"weights\.safetensors: "):
        states.load_model(path)


@pytest.mark.parametrize("kind", ["baseline", "autoencoder", "ldm"])
def test_a_model_is_loaded_from_its_weights_alone(tmp_path, recipe_of, kind):
    recipe = recipe_of(kind)
    module, record = build_network(kind, recipe.network), {"stage": 1, "training_keys": "k"}
    if kind == "ldm":
        other = recipe_of("autoencoder").network
        module = LatentDiffusion(module, build_network("autoencoder", other))
        record["autoencoder"] = {"network": other}
    states.save_model(tmp_path / "edsr" / "weights.safetensors", module, recipe, record=record)
    found = states.load_model(tmp_path / "edsr" / "weights.safetensors")
    assert (found.recipe, found.kind, found.module.training) == (recipe, kind, False)
    saved = module.state_dict()
    assert all(torch.equal(tensor, saved[name]) for name, tensor in found.module.state_dict().items())
    metadata = states.read_metadata(tmp_path / "edsr" / "weights.safetensors")
    assert (metadata["model"], metadata["stage"], metadata["training_keys"]) == ("edsr", 1, "k")


def test_weights_that_do_not_fit_their_recipe_are_refused(tmp_path, recipe_of):
    other = build_network("baseline", {"architecture": "residual2d", "channels": 6, "blocks": 1})
    states.save_model(tmp_path / "w", other, recipe_of("baseline"), record={})
    with pytest.raises(states.StateError, match="does not fit this version of headsr"):
        states.load_model(tmp_path / "w")


def test_history_is_one_object_a_line(tmp_path):
    states.write_history(tmp_path / "history.jsonl", [{"step": 0, "a": 1.5}, {"step": 10}])
    lines = (tmp_path / "history.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [{"step": 0, "a": 1.5}, {"step": 10}]


def test_a_fingerprint_follows_content_not_order(recipe_of):
    assert states.fingerprint_of({"a": 1, "b": (2, 3)}) == states.fingerprint_of({"b": [2, 3], "a": 1})
    assert states.fingerprint_of({"a": 1}) != states.fingerprint_of({"a": 2})


def test_the_length_of_a_training_is_not_part_of_what_segments_share(recipe_of):
    assert states.without_length(recipe_of("ldm", steps=2)) == states.without_length(recipe_of("ldm", segments=9))
    assert states.without_length(recipe_of("ldm")) != states.without_length(recipe_of("ldm", learning_rate=0.5))
