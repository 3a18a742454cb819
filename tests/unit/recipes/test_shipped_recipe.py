"""A model that ships takes the place of one that is trained, where its card says that it is of the kind."""

import pytest
from tiny_weights import shipped

from headsr import targets
from headsr.evaluate.wording import methods_text, seeds_of
from headsr.files import read_json
from headsr.recipes import (
    ModelRecipe,
    RecipeError,
    Shipped,
    architectures_of,
    build,
    load_config,
    load_recipes,
    parts_of_method,
    tracked,
)
from headsr.recipes.shipped import card_of
from headsr.scans import read_scans
from headsr.training.check import check_model


@pytest.fixture
def load(tmp_path):
    """Load the recipes with a shipped baseline ``tiny`` and whatever else is changed."""
    shipped(tmp_path)

    def run(overrides=None, **changes):
        config = load_config([])
        block = {"kind": "shipped", "name": "tiny", "folder": str(tmp_path), **changes}
        config["overrides"] = {"models": {"taken": block}, **(overrides or {})}
        return load_recipes(config)

    return run


def test_a_method_takes_a_shipped_model_of_its_kind(load):
    recipes = load({"methods": {"slice_network": {"model": "taken"}}})
    assert recipes.models_of("methods", "slice_network") == ["taken"]
    assert architectures_of(recipes.models["taken"]) == ["residual2d"]
    assert parts_of_method(recipes.methods["slice_network"], recipes) == ["method.slice_network", "network.residual2d"]
    assert "slice_network" in recipes.tables["one_thick"].methods  # whose scans show thick slices, as its data did


@pytest.mark.parametrize(
    ("overrides", "changes", "message"),
    [
        (
            {"methods": {"inr_prior": {"prior": "taken"}}},
            {},
            r"inr_prior\.prior: 'taken' is of kind baseline; it must be of kind ldm",
        ),
        ({}, {"name": "tyny"}, r"taken: .*: unknown shipped model 'tyny'; did you mean 'tiny'"),
        ({}, {"nam": "tiny"}, r"taken: unknown key 'nam'; did you mean 'name'"),
        ({}, {"sha256": "0" * 64}, r"taken: sha256: the weights 'tiny' are now of SHA-256 .*Install the headsr that"),
        ({}, {"folder": "/nowhere"}, r"taken: /nowhere: no weights ship here, so none as 'tiny'"),
        (
            {
                "methods": {"slice_network": {"model": "taken"}},
                "tables": {"one_thick": {"degradations": ["inplane_x4"], "expectations": []}},
            },
            {},
            r"'slice_network' has the model 'taken', trained on thick slices seen from the side; .*'inplane_x4'",
        ),
    ],
)
def test_a_shipped_model_that_cannot_serve_is_refused_when_recipes_are_read(load, overrides, changes, message):
    with pytest.raises(RecipeError, match=message):
        load(overrides, **changes)


def test_a_broken_pair_is_refused_when_recipes_are_read(load, tmp_path):
    (tmp_path / "tiny.safetensors").unlink()
    with pytest.raises(RecipeError, match=r"taken: .*tiny\.json: the weights beside it.* missing"):
        load()


def test_other_weights_under_the_same_name_are_another_recipe(tmp_path):
    block = {"kind": "shipped", "name": "tiny", "folder": str(tmp_path)}
    first = shipped(tmp_path)
    before = tracked(build(ModelRecipe, block, "taken"))
    assert before == {**block, "sha256": first.sha256}
    shipped(tmp_path, seed=1)
    assert tracked(build(ModelRecipe, block, "taken"))["sha256"] != before["sha256"]
    with pytest.raises(RecipeError, match="sha256: the weights 'tiny' are now"):
        build(ModelRecipe, before, "taken")


def test_a_shipped_model_is_not_trained_and_has_the_history_of_its_card(load):
    recipes = load({"methods": {"slice_network": {"model": "taken"}}})
    models = targets.models_of(["one_thick"], recipes)
    assert "taken" in models and "taken" not in targets.trained(models, recipes)
    assert targets.histories("results", models, [], recipes)["taken"] == "results/models/taken/history.jsonl"
    assert targets.histories_so_far("results", models, [], recipes)["taken"] == ["results/models/taken/history.jsonl"]
    assert "taken" not in targets.keys_of_training(models, [], recipes, read_scans("config/scans.tsv"), {})


def test_the_report_says_where_its_weights_are_from(load):
    recipes = load({"methods": {"slice_network": {"model": "taken"}}})
    sha = recipes.models["taken"].sha256[:12]
    said = next(line for line in methods_text(recipes, ["one_thick"]) if line.startswith("Model taken"))
    assert said == (
        "Model taken: baseline, network residual2d, not trained here: the weights that ship as tiny "
        f"(SHA-256 {sha}...), trained on label maps of 20 people in 20 steps."
    )
    assert ("model taken", 5) in seeds_of(recipes, ["one_thick"])


def test_a_model_can_begin_from_shipped_weights(load, tmp_path):
    discriminator = {"architecture": "patch_discriminator", "channels": 4, "layers": 1}
    trained = {
        "kind": "adversarial",
        "network": {"architecture": "residual2d", "channels": 4, "blocks": 1},
        "discriminator": discriminator,
        "generator": "taken",
        "losses": {"l1": 1.0, "vanilla": 0.01},
        "data": {"kind": "slices", "suffixes": ["T1w"], "crop": 16, "degradation": "thick_slices"},
        "budget": {"steps": 1, "batch": 2},
        "optimizer": {"learning_rate": 0.01},
        "schedule": {"shape": "constant"},
        "seed": 1,
    }
    recipes = load({"models": {"taken": {"kind": "shipped", "name": "tiny", "folder": str(tmp_path)}, "gan": trained}})
    models = {name: recipes.models[name] for name in recipes.used_by("models", ["gan"])["models"]}
    assert set(models) == {"gan", "taken"}
    check_model("gan", models, tmp_path / "check.json", where="gan")
    assert read_json(tmp_path / "check.json")["parameters"]["network"] > 0


def test_an_architecture_that_is_gone_is_named(tmp_path):
    shipped(tmp_path)
    card = tmp_path / "tiny.json"
    card.write_text(card.read_text().replace(' "residual2d"\n ],', ' "residual3d"\n ],'))
    assert list(card_of("tiny", tmp_path).architectures) == ["residual3d"]
    with pytest.raises(ValueError, match="'tiny' has an unknown architecture 'residual3d'; did you mean 'residual2d'"):
        Shipped(name="tiny", folder=str(tmp_path))


def test_the_recipe_in_a_card_is_for_people(tmp_path):
    """Its keys may have other names by now."""
    card = shipped(tmp_path)
    path = tmp_path / "tiny.json"
    path.write_text(path.read_text().replace('"learning_rate"', '"rate_of_learning"'))
    assert Shipped(name="tiny", folder=str(tmp_path)).sha256 == card.sha256
