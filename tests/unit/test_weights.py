import random
from pathlib import Path

import pytest
import safetensors.torch
import torch

from headsr.evaluate.score import trained_on
from headsr.networks.build import build_network
from headsr.networks.latent_diffusion import LatentDiffusion
from headsr.recipes import Model, ModelRecipe, build
from headsr.weights import StateError, companion_of, load_model, load_tensors, read_metadata, save_model, save_tensors

OLD, OLD_SUM = Path(__file__).parent / "data" / "weights_v1.safetensors", 45.4280
BLOCKS = {
    "baseline": {"network": {"architecture": "residual2d", "channels": 4, "blocks": 1}, "losses": {"l1": 1.0}},
    "autoencoder": {"network": {"architecture": "kl", "channels": [4, 4, 8], "blocks": 1}, "losses": {"l1": 1.0}},
    "ldm": {
        "network": {
            "architecture": "unet2d",
            "channels": [4, 8],
            "blocks": 1,
            "attention": [False, True],
            "head_width": 4,
        },
        "losses": {"denoising": 1.0},
        "autoencoder": "kl",
    },
}
TRAINING = {
    "data": {"kind": "slices", "suffixes": ["T1w"], "crop": 16, "degradation": "mild"},
    "budget": {"steps": 1, "batch": 1},
    "optimizer": {"learning_rate": 0.01},
    "schedule": {"shape": "constant"},
    "seed": 5,
}


def recipe_of(kind: str) -> Model:
    return build(ModelRecipe, {"kind": kind, **TRAINING, **BLOCKS[kind]}, kind)


@pytest.mark.parametrize("damage", ["cut", "foreign", "missing"])
def test_an_unusable_file_is_named(tmp_path, damage):
    path = tmp_path / "weights.safetensors"
    if damage == "cut":
        save_tensors(path, {"a": torch.ones(100)}, {})
        path.write_bytes(path.read_bytes()[:-50])
    elif damage == "foreign":
        safetensors.torch.save_file({"a": torch.ones(3)}, path)
    with pytest.raises(StateError, match=r"weights\.safetensors: "):
        load_model(path)


@pytest.mark.parametrize("kind", ["baseline", "autoencoder", "ldm"])
def test_a_model_is_loaded_from_its_weights_alone(tmp_path, kind):
    recipe, companions = recipe_of(kind), {}
    module, record = build_network(recipe.network), {"stage": {"train_segment": 1}, "training_keys": "k"}
    if kind == "ldm":
        other = tmp_path / "kl" / "weights.safetensors"
        save_model(other, build_network(recipe_of("autoencoder").network), recipe_of("autoencoder"), record={})
        module, companions = LatentDiffusion(module, load_model(other).module), {"autoencoder": companion_of(other)}
    weights = tmp_path / "edsr" / "weights.safetensors"
    save_model(weights, module, recipe, companions=companions, record=record)
    found = load_model(weights)
    assert (found.kind, found.precision, found.module.training) == (kind, "auto", False)
    saved = module.state_dict()
    assert all(torch.equal(tensor, saved[name]) for name, tensor in found.module.state_dict().items())
    metadata = read_metadata(weights)
    assert (metadata["model"], metadata["stage"], metadata["training_keys"]) == ("edsr", {"train_segment": 1}, "k")


def test_weights_outlive_the_names_of_fields_in_recipes():
    """A file of format 1, whose recipe has a kind and fields that no version of headsr knows."""
    found = load_model(OLD)
    assert (found.kind, found.precision) == ("baseline", "fp32")
    assert read_metadata(OLD)["recipe"]["kind"] == "slice_restorer"
    assert found.module(torch.ones(1, 1, 5, 7)).sum().item() == pytest.approx(OLD_SUM, abs=1e-4)


def test_weights_of_another_format_are_refused(tmp_path):
    save_tensors(tmp_path / "w", {}, {"recipe": {}})
    with pytest.raises(StateError, match=r"is of format None, not 1. Train the model again"):
        load_model(tmp_path / "w")


def test_weights_that_do_not_fit_their_network_are_refused(tmp_path):
    other = build_network({"architecture": "residual2d", "channels": 6, "blocks": 1})
    save_model(tmp_path / "w", other, recipe_of("baseline"), record={})
    with pytest.raises(StateError, match="does not fit this version of headsr"):
        load_model(tmp_path / "w")


def test_a_flipped_bit_is_never_another_weight(tmp_path):
    path, rng = tmp_path / "weights.safetensors", random.Random(7)
    save_model(path, build_network(recipe_of("baseline").network), recipe_of("baseline"), record={"training_keys": "k"})
    whole = path.read_bytes()
    header = 8 + int.from_bytes(whole[:8], "little")
    for place in [*range(0, header, 7), *(rng.randrange(header, len(whole)) for _ in range(150))]:
        harmed = bytearray(whole)
        harmed[place] ^= 1 << rng.randrange(8)
        path.write_bytes(harmed)
        for read in (load_model, read_metadata):
            with pytest.raises(StateError, match=r"weights\.safetensors: is damaged or not headsr's"):
                read(path)
    path.write_bytes(whole)
    load_model(path)


def test_the_same_tensors_are_the_same_bytes_and_come_back_with_their_metadata(tmp_path):
    tensors = {"b": torch.arange(6, dtype=torch.bfloat16).reshape(2, 3), "a": torch.tensor(3), "c": torch.ones(0, 2)}
    for name in ("one", "two"):
        save_tensors(tmp_path / name, tensors, {"z": [1, {"y": None}], "aaa": "é"})
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    back, metadata = load_tensors(tmp_path / "one")
    assert metadata == {"z": [1, {"y": None}], "aaa": "é"}
    assert all(torch.equal(back[name], tensor) for name, tensor in tensors.items())


@pytest.mark.parametrize(
    ("kind", "change"),
    [("baseline", {"blocks": 10**9}), ("baseline", {"channels": 10**5}), ("autoencoder", {"blocks": 10**9})],
)
def test_a_network_much_larger_than_its_tensors_is_not_built(tmp_path, kind, change):
    recipe = recipe_of(kind)
    save_model(tmp_path / "w", build_network(recipe.network), recipe, record={})
    tensors, metadata = load_tensors(tmp_path / "w")
    metadata["network"].update(change)
    save_tensors(tmp_path / "w", tensors, metadata)
    with pytest.raises(StateError, match=r"w: does not fit this .*asks for a larger network than its \d+ tensors"):
        load_model(tmp_path / "w")
    save_model(tmp_path / "w", build_network(recipe.network), recipe, record={})
    load_model(tmp_path / "w")


@pytest.mark.parametrize("network", [[], None, 5, {"architecture": []}])
def test_metadata_of_another_kind_are_refused(tmp_path, network):
    save_model(tmp_path / "w", build_network(recipe_of("baseline").network), recipe_of("baseline"), record={})
    tensors, metadata = load_tensors(tmp_path / "w")
    save_tensors(tmp_path / "w", tensors, {**metadata, "network": network})
    with pytest.raises(StateError, match="w: does not fit this version of headsr"):
        load_model(tmp_path / "w")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"task": []}, r"task: \[\] is not str"),
        ({"task": "magic"}, "unknown kind of model 'magic'"),
        ({"network": []}, "network: must be a block|network: .* is not a block of keys"),
        ({"network": {}}, "network: says no architecture"),
        ({"companions": {"autoencoder": {}}}, r"companions\.autoencoder: the key 'task' is missing"),
        ({"precision": ["fp32"]}, "unknown precision"),
        ({"network": {"architecture": "residual2d", "channels": "many", "blocks": 1}}, "no network can be built of"),
        (
            {"network": {"architecture": "residual2d", "channels": 0, "blocks": 1}},
            "does not fit|no network can be built",
        ),
    ],
)
def test_weights_that_say_something_else_are_refused_by_name(tmp_path, change, message):
    path, module = tmp_path / "edsr" / "weights.safetensors", build_network(BLOCKS["baseline"]["network"])
    save_model(path, module, recipe_of("baseline"), record={"training_keys": "k"})
    tensors, metadata = load_tensors(path)
    assert trained_on(path)["training_keys"] == "k" and load_model(path).kind == "baseline"
    save_tensors(path, tensors, {**metadata, **change, "training_keys": None})
    with pytest.raises(StateError, match=rf"weights\.safetensors: .*({message})"):
        load_model(path)
    with pytest.raises(ValueError, match=r"weights\.safetensors: does not say what it was trained on"):
        trained_on(path)


def test_a_foreign_safetensors_file_is_refused_by_name(tmp_path):
    path = tmp_path / "weights.safetensors"
    safetensors.torch.save_file({"a": torch.zeros(2)}, path)
    for read in (load_tensors, read_metadata, companion_of):
        with pytest.raises(StateError, match=r"weights\.safetensors: .*headsr wrote no metadata into it"):
            read(path)
