"""Recipes that parse and still cannot be trained are refused within seconds, before anything is read."""

import time

import pytest

from headsr.files import read_json
from headsr.recipes import RecipeError
from headsr.training.check import check_model


@pytest.fixture
def check(recipe_of, tmp_path):
    """Check a recipe of a kind, with the recipes of its companions beside it."""

    def run(kind, others=None, **changes):
        models = {"model": recipe_of(kind, **changes), "kl": recipe_of("autoencoder"), **(others or {})}
        check_model("model", models, tmp_path / "check.json", where="models/model.yaml: model")
        return read_json(tmp_path / "check.json")

    return run


def test_a_check_says_what_the_first_step_consists_of(check):
    assert check("baseline")["losses"] == {"network": ["gradient", "l1", "wavelet"]}
    assert check("autoencoder")["losses"] == {"network": ["kl", "l1"]}
    found = check("adversarial")
    assert found["losses"] == {"network": ["l1", "relativistic"], "discriminator": ["relativistic"]}
    assert set(found["parameters"]) == {"network", "discriminator"}
    assert check("ldm_studies")["losses"] == {"network": ["denoising", "wavelet"]}


def test_a_check_takes_seconds_and_no_data_whatever_the_size(check):
    began = time.monotonic()
    big = {"channels": [256, 512, 1024, 1024], "blocks": 3, "attention": [False, True, True, True]}
    assert check("ldm", network=big, data={"crop": 512})["parameters"]["network"] > 3e8
    assert time.monotonic() - began < 20


@pytest.mark.parametrize(
    ("kind", "changes", "message"),
    [
        (
            "baseline",
            {"network": {"chanels": 4}},
            r"models/model\.yaml: model: network\.chanels: .* no such setting.*'channels'",
        ),
        ("baseline", {"network": {"channels": "many"}}, "residual2d cannot be built so"),
        ("baseline", {"network": {"unshuffle": 0}}, r"models/model\.yaml: model: "),
        ("baseline", {"network": {"blocks": -1}}, r"model: network\.blocks: -1 is negative"),
        ("autoencoder", {"network": {"channels": [4, -8]}}, r"model: network\.channels: \[4, -8\] is negative"),
        ("adversarial", {"discriminator": {"layers": -1}}, r"model: discriminator\.layers: -1 is negative"),
        ("slice_encoder", {"network": {"unshuffle": 0}}, r"models/model\.yaml: model: "),
        ("adversarial", {"discriminator": {"chanels": 4}}, r"model: discriminator\.chanels: .* no such setting"),
        ("adversarial", {"discriminator": {"layers": "two"}}, "patch_discriminator cannot be built so"),
        ("adversarial", {"data": {"crop": 8}, "discriminator": {"layers": 5}}, r"models/model\.yaml: model: "),
        ("autoencoder", {"data": {"crop": 18}}, r"slices of \(18, 18\) pixels: both sizes must be multiples of 4"),
        ("ldm", {"data": {"crop": 18}}, "both sizes must be multiples of 4"),
        ("ldm_studies", {"data": {"crop": 18}}, "both sizes must be multiples of 4"),
        ("ldm", {"network": {"latent_channels": 8}}, "expects 8 latent channels, the autoencoder makes 4"),
        ("ldm", {"network": {"condition_factor": 8}}, "8 times smaller than the slice, the autoencoder makes them 4"),
        ("ldm", {"network": {"head_width": 3}}, r"models/model\.yaml: model: "),
    ],
)
def test_what_cannot_be_trained_is_refused(check, kind, changes, message):
    with pytest.raises(RecipeError, match=message):
        check(kind, **changes)


def test_a_generator_that_starts_from_another_network_is_refused(check, recipe_of):
    start = {"edsr": recipe_of("baseline", network={"channels": 8})}
    with pytest.raises(RecipeError, match="size mismatch"):
        check("adversarial", start, generator="edsr")
    check("adversarial", {"edsr": recipe_of("baseline")}, generator="edsr")


def test_a_denoiser_that_starts_from_another_network_is_refused(check, recipe_of):
    with pytest.raises(RecipeError, match="size mismatch"):
        check("ldm", {"ldm": recipe_of("ldm", network={"channels": [8, 8]})}, denoiser="ldm")
    found = check("ldm", {"ldm": recipe_of("ldm_studies")}, denoiser="ldm", losses={"detail_bands": 1.0})
    assert found["losses"] == {"network": ["denoising", "detail_bands", "wavelet"]}


def test_the_features_of_an_autoencoder_can_be_compared(check):
    found = check("baseline", losses={"perceptual": {"weight": 1.0, "features": "kl"}})
    assert "perceptual" in found["losses"]["network"]
    with pytest.raises(ValueError, match=r"losses\.perceptual\.features: name the model"):
        check("baseline", losses={"perceptual": 1.0})
    with pytest.raises(ValueError, match=r"losses\.l1\.features: this loss compares no features"):
        check("baseline", losses={"l1": {"weight": 1.0, "features": "kl"}})


def test_an_autoencoder_has_a_discriminator_and_a_loss_on_its_verdicts_or_neither(check):
    judge = {"architecture": "patch_discriminator", "channels": 4, "layers": 1}
    found = check("autoencoder", discriminator=judge, losses={"vanilla": 0.1})
    assert found["losses"] == {"network": ["kl", "l1", "vanilla"], "discriminator": ["vanilla"]}
    with pytest.raises(RecipeError, match="losses: one on the discriminator's verdicts must have a weight above 0"):
        check("autoencoder", discriminator=judge)
    with pytest.raises(
        RecipeError, match=r"losses\.vanilla: is of a discriminator's verdicts, and the recipe has none"
    ):
        check("autoencoder", losses={"vanilla": 0.1})
    with pytest.raises(RecipeError, match=r"discriminator\.architecture: .*'residual2d'"):
        check("autoencoder", discriminator={"architecture": "residual2d"}, losses={"vanilla": 0.1})


def test_an_adversarial_training_needs_a_loss_on_verdicts(check):
    with pytest.raises(ValueError, match="one on the discriminator's verdicts must have a weight above 0: vanilla"):
        check("adversarial", losses={"relativistic": 0.0})
