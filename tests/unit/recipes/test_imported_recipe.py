"""Weights that others published, where recipes name them: as a method's network, a start, and features of a loss."""

import pytest
import torch
from published_networks import lite0_weights, rrdb_weights, swinir_weights

from headsr import targets
from headsr.acquisition.measurement import load_study
from headsr.evaluate.score import trained_on
from headsr.evaluate.wording import methods_text, seeds_of
from headsr.files import read_json
from headsr.models.imported import import_model
from headsr.models.take import take_model
from headsr.recipes import (
    ModelRecipe,
    RecipeError,
    SliceNetwork,
    build,
    load_config,
    load_recipes,
    parts_of_method,
    tracked,
)
from headsr.reconstruct.slicewise import slice_network
from headsr.training.check import check_model
from headsr.weights import load_model

NETWORK = {"architecture": "rrdb", "channels": 8, "blocks": 2, "growth": 4, "scale": 1, "skip": False}
TRAINED = {
    "kind": "baseline",
    "network": {"architecture": "residual2d", "channels": 4, "blocks": 1},
    "losses": {"l1": 1.0, "perceptual": {"weight": 0.1, "features": "photographs"}},
    "data": {"kind": "slices", "suffixes": ["T1w"], "crop": 32, "degradation": "thick_slices"},
    "budget": {"steps": 1, "batch": 2},
    "optimizer": {"learning_rate": 0.01},
    "schedule": {"shape": "constant"},
    "seed": 1,
}


@pytest.fixture
def load(tmp_path):
    """Load the recipes with an imported network on one grid, imported features, and whatever else is changed."""
    blocks = {}
    for name, weights in (("published", rrdb_weights(colours=3, scale=1)), ("photographs", lite0_weights())):
        torch.save(weights, tmp_path / f"{name}.pth")
        import_model(tmp_path / f"{name}.pth", name=name, folder=tmp_path / "weights", license="BSD-3-Clause")
        blocks[name] = {"kind": "shipped", "name": name, "folder": str(tmp_path / "weights")}

    def run(models=None, **others):
        config = load_config([])
        config["overrides"] = {"models": {**blocks, **(models or {})}, **others}
        return load_recipes(config)

    return run


TAKEN = {"methods": {"slice_network": {"model": "published"}}}


def test_a_method_takes_an_imported_network_on_either_kind_of_slices(load):
    table = {"methods": ["slice_network"], "degradations": ["axial_x4", "inplane_x4"], "expectations": []}
    recipes = load(**TAKEN, tables={"one_thick": table})
    assert parts_of_method(recipes.methods["slice_network"], recipes) == ["method.slice_network", "network.rrdb"]
    models = targets.models_of(["one_thick"], recipes)
    assert "published" in models and "published" not in targets.trained(models, recipes)
    assert recipes.models["published"].card.recipe["network"] == NETWORK


def test_an_imported_network_of_a_scale_serves_scans_that_are_coarse_by_it(load, tmp_path):
    torch.save(swinir_weights(colours=1, scale=4, classical=True), tmp_path / "x4.pth")
    import_model(tmp_path / "x4.pth", name="x4", folder=tmp_path / "weights", license="Apache-2.0")
    models = {"x4": {"kind": "shipped", "name": "x4", "folder": str(tmp_path / "weights")}}
    methods = {"larger": {"kind": "slice_network", "model": "x4"}}
    table = {"methods": ["larger"], "degradations": ["inplane_x4"], "expectations": []}
    recipes = load(models, methods=methods, tables={"one_thick": table})
    assert parts_of_method(recipes.methods["larger"], recipes) == ["method.slice_network", "network.swinir"]
    with pytest.raises(RecipeError, match=r"'x4', which makes rows and columns 4 times as fine"):
        load(models, methods=methods, tables={"one_thick": {**table, "degradations": ["axial_x4"]}})


def test_the_report_says_what_was_imported_and_lists_no_seed_that_nobody_knows(load):
    recipes = load(**TAKEN)
    said = next(line for line in methods_text(recipes, ["one_thick"]) if line.startswith("Model published"))
    sha = recipes.models["published"].card.imported["sha256"][:12]
    assert said == (
        "Model published: baseline, network rrdb, not trained here: the weights published, imported from published.pth "
        f"(SHA-256 {sha}...), RRDBNet of Real-ESRGAN: scale 1, 3 channels, 2 blocks of 8 features; trained on: not "
        "known."
    )
    assert all(name != "model published" for name, _ in seeds_of(recipes, ["one_thick"]))


def test_an_imported_network_makes_a_head(load, measure, tmp_path):
    recipe = load().models["published"]
    taken = tmp_path / "results/models/published"
    take_model(recipe, weights=taken / "weights.safetensors", history=taken / "history.jsonl")
    assert (taken / "history.jsonl").read_text() == ""
    assert trained_on(taken / "weights.safetensors")["training_keys"] == "not known"
    study = load_study(measure(("axial",)))
    estimate = slice_network(
        study, SliceNetwork(model="published"), {"published": load_model(taken / "weights.safetensors")}
    )
    assert estimate.volume.shape == study.head.shape


def test_photographs_are_a_loss_by_the_name_of_their_network(load, tmp_path):
    recipes = load({"student": TRAINED})
    used = {name: recipes.models[name] for name in recipes.used_by("models", ["student"])["models"]}
    assert set(used) == {"student", "photographs"}
    check_model("student", used, tmp_path / "check.json", where="student")
    assert read_json(tmp_path / "check.json")["losses"] == {"network": ["l1", "perceptual"]}
    said = tracked(recipes.models["student"])["losses"]["perceptual"]
    assert said["features"] == "photographs"


def test_a_training_can_begin_from_an_imported_network(load, tmp_path):
    adversarial = {
        **TRAINED,
        "kind": "adversarial",
        "network": NETWORK,
        "discriminator": {"architecture": "patch_discriminator", "channels": 4, "layers": 1},
        "generator": "published",
        "losses": {**TRAINED["losses"], "vanilla": 0.1},
    }
    recipes = load({"gan": adversarial})
    used = {name: recipes.models[name] for name in recipes.used_by("models", ["gan"])["models"]}
    assert set(used) == {"gan", "published", "photographs"}
    check_model("gan", used, tmp_path / "check.json", where="gan")
    assert read_json(tmp_path / "check.json")["losses"]["network"] == ["l1", "perceptual", "vanilla"]


def test_an_imported_kind_serves_where_it_fits_and_no_recipe_trains_features(load):
    with pytest.raises(
        RecipeError, match=r"model: 'photographs' is of kind image_features; it must be of kind baseline"
    ):
        load(methods={"slice_network": {"model": "photographs"}})
    losses = {"losses": {"l1": 1.0, "perceptual": {"weight": 0.1, "features": "published"}}}
    with pytest.raises(
        RecipeError, match=r"features: 'published' is of kind baseline; it must be of kind slice_encoder"
    ):
        load({"student": {**TRAINED, **losses}})
    with pytest.raises(RecipeError, match="unknown kind 'image_features'"):
        build(ModelRecipe, {**TRAINED, "kind": "image_features"}, "features")
