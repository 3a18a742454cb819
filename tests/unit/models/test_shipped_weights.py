"""Weights and card belong together, and every way in which they do not is an error with a way out."""

import fnmatch
import json
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_weights import DATASETS, FACTS, HISTORY, UNROLLED, finished_training, shipped

import headsr.models
from headsr.files import sha256_of
from headsr.history import read_history, write_history
from headsr.models.card import PACKAGE, CardError, checked_weights, read_card, shipped_models, table_of
from headsr.models.ship import read_facts, ship
from headsr.models.shipped import load_shipped, verify_shipped
from headsr.models.take import take_model
from headsr.models.trained import curve_of
from headsr.recipes import RecipeError, Shipped
from headsr.seal import refuse_broken_seal
from headsr.weights import StateError, load_tensors, save_tensors


def test_a_pair_says_what_was_trained_and_loads_as_it_was(tmp_path):
    card = shipped(tmp_path)
    assert (card.kind, card.architectures, card.seed, card.steps) == ("baseline", ["residual2d"], 5, 20)
    assert card.curve == [{"step": 0, "psnr": 20.0}, {"step": 20, "psnr": 25.5}]
    assert card.datasets == {"maps": {"version": "v1", "license": "CC0", "citation": "Somebody (2026)"}}
    assert card.recipe["network"] == {"architecture": "residual2d", "blocks": 1, "channels": 4}
    assert shipped_models(tmp_path) == {"tiny": card}
    model, was = load_shipped("tiny", folder=tmp_path), load_file(tmp_path / "trained/tiny/weights.safetensors")
    assert (model.kind, model.module.training) == ("baseline", False)
    assert all(torch.equal(tensor, was[name]) for name, tensor in model.module.state_dict().items())
    assert verify_shipped("tiny", folder=tmp_path).endswith("and so is what it makes of zeros")


def test_a_network_of_scans_is_asked_too(tmp_path):
    model = finished_training(tmp_path / "trained", block=UNROLLED)
    card = ship(model, FACTS, name="deep", datasets=DATASETS, folder=tmp_path)
    assert (card.kind, card.architectures) == ("unrolled", ["unrolled"])
    assert verify_shipped("deep", folder=tmp_path).endswith("and so is what it makes of zeros")


def test_the_same_training_and_facts_give_the_same_bytes(tmp_path):
    files = []
    for place in (tmp_path / "a", tmp_path / "elsewhere"):
        shipped(place)
        files.append([(place / name).read_bytes() for name in ("tiny.json", "tiny.safetensors")])
    assert files[0] == files[1]
    assert str(tmp_path) not in files[0][0].decode()


def test_weights_from_before_there_were_seals_are_shipped_with_one(tmp_path):
    model = finished_training(tmp_path / "trained" / "tiny")
    tensors, metadata = load_tensors(model / "weights.safetensors")
    save_file(tensors, model / "weights.safetensors", {"headsr": json.dumps(metadata, sort_keys=True)})
    card = ship(model, FACTS, name="tiny", datasets=DATASETS, folder=tmp_path)
    assert b"file_sha256" in (tmp_path / "tiny.safetensors").read_bytes()[:100]
    assert card.sha256 == sha256_of(tmp_path / "tiny.safetensors")
    assert load_shipped("tiny", folder=tmp_path) and load_tensors(tmp_path / "tiny.safetensors")[1] == metadata
    refuse_broken_seal(tmp_path / "tiny.safetensors")


def test_shipping_again_replaces_the_pair(tmp_path):
    first, second = shipped(tmp_path), shipped(tmp_path, seed=1)
    assert first.sha256 != second.sha256 == sha256_of(tmp_path / "tiny.safetensors")
    assert load_shipped("tiny", folder=tmp_path)


@pytest.mark.parametrize("name", ["tiny.safetensors", "tiny.json"])
@pytest.mark.parametrize("how", ["file", "link"])
def test_what_headsr_did_not_write_is_not_shipped_over(tmp_path, name, how):
    if how == "link":
        shipped(tmp_path)
        (tmp_path / name).rename(tmp_path / "own")
        (tmp_path / name).symlink_to(tmp_path / "own")
    else:
        (tmp_path / name).write_text('{"sha256": "of my own"}')
    before = (tmp_path / name).read_bytes()
    with pytest.raises(StateError, match=rf"{name}: is in the way: headsr did not write it.*Move it away"):
        shipped(tmp_path, seed=1)
    assert (tmp_path / name).read_bytes() == before and (tmp_path / name).is_symlink() == (how == "link")


def test_other_weights_than_those_of_the_card_are_refused(tmp_path):
    shipped(tmp_path)
    shipped(tmp_path, "other", seed=1)
    (tmp_path / "other.safetensors").replace(tmp_path / "tiny.safetensors")
    with pytest.raises(StateError, match=r"tiny\.safetensors: has the SHA-256 .*headsr models ship"):
        load_shipped("tiny", folder=tmp_path)
    with pytest.raises(CardError, match="SHA-256"):
        checked_weights("tiny", tmp_path)


@pytest.mark.parametrize(
    ("lost", "message"),
    [
        ("tiny.json", r"tiny\.safetensors: the card beside it, tiny\.json, is missing.*headsr models ship"),
        ("tiny.safetensors", r"tiny\.json: the weights beside it, tiny\.safetensors, is missing.*headsr models ship"),
    ],
)
def test_a_half_without_the_other_is_refused(tmp_path, lost, message):
    shipped(tmp_path)
    (tmp_path / lost).unlink()
    with pytest.raises(CardError, match=message):
        shipped_models(tmp_path)
    with pytest.raises(StateError, match=message):
        load_shipped("tiny", folder=tmp_path)


def test_a_name_that_does_not_ship_is_refused_with_the_nearest(tmp_path):
    with pytest.raises(StateError, match="no weights ship here, so none as 'tiny'"):
        load_shipped("tiny", folder=tmp_path)
    shipped(tmp_path)
    with pytest.raises(StateError, match="unknown shipped model 'tyny'; did you mean 'tiny'"):
        load_shipped("tyny", folder=tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda card: {**card, "colour": "red"}, r"tiny\.json: is no card of this version of headsr \(colour\)"),
        (lambda card: {key: card[key] for key in card if key != "license"}, r"no card .* \(license\)"),
        (lambda card: [card], r"no card .* \(no block of keys\)"),
    ],
)
def test_a_card_of_other_keys_is_refused(tmp_path, change, message):
    shipped(tmp_path)
    path = tmp_path / "tiny.json"
    path.write_text(json.dumps(change(json.loads(path.read_text()))))
    with pytest.raises(CardError, match=message):
        read_card("tiny", tmp_path)
    path.write_text("{")
    with pytest.raises(CardError, match=r"tiny\.json: is no JSON"):
        read_card("tiny", tmp_path)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda tensors, _: tensors["last.bias"].fill_(float("nan")), "holds numbers that are not finite"),
        (lambda tensors, _: tensors["first.weight"].fill_(3e38), "makes numbers that are not finite of zeros"),
        (lambda _, metadata: metadata.update(format=9), "is of format 9, not 1"),
        (lambda _, metadata: metadata.update(task="adversarial"), r"'adversarial', .* its card says .*'baseline'"),
        (lambda _, metadata: metadata["stage"].update({"network.residual2d": 99}), "version 99 of network.residual2d"),
    ],
)
def test_weights_that_cannot_be_used_are_found(tmp_path, damage, message):
    """With a card that is right about them."""
    shipped(tmp_path)
    path, card = tmp_path / "tiny.safetensors", json.loads((tmp_path / "tiny.json").read_text())
    tensors, metadata = load_tensors(path)
    if "zeros" in message:
        tensors["first.bias"].fill_(3e38)
    damage(tensors, metadata)
    save_tensors(path, tensors, metadata)
    card |= {"sha256": sha256_of(path), "bytes": path.stat().st_size}
    (tmp_path / "tiny.json").write_text(json.dumps(card))
    with pytest.raises(StateError, match=message):
        verify_shipped("tiny", folder=tmp_path)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda model: (model / "recipe.yaml").unlink(), r"recipe\.yaml: is missing beside the weights. Export"),
        (lambda model: (model / "history.jsonl").unlink(), r"history\.jsonl: is missing beside the weights. Export"),
        (lambda model: write_history(model / "history.jsonl", HISTORY[:-1]), "are of another training"),
        (lambda model: write_history(model / "history.jsonl", []), "are of another training"),
        (
            lambda model: (
                finished_training(model.parent / "b", {"seed": 6})
                .joinpath("recipe.yaml")
                .replace(model / "recipe.yaml")
            ),
            "are of another training",
        ),
    ],
)
def test_files_of_different_trainings_are_not_shipped(tmp_path, damage, message):
    model = finished_training(tmp_path / "a")
    damage(model)
    with pytest.raises(StateError, match=message):
        ship(model, FACTS, name="a", datasets=DATASETS, folder=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_what_cannot_ship_is_refused(tmp_path):
    model = finished_training(tmp_path / "a")
    with pytest.raises(ValueError, match="'a b' is no name"):
        ship(model, FACTS, name="a b", datasets=DATASETS, folder=tmp_path)
    with pytest.raises(ValueError, match="datasets: unknown dataset 'mops'; did you mean 'maps'"):
        ship(model, replace(FACTS, datasets=("mops",)), name="a", datasets=DATASETS, folder=tmp_path)
    large = finished_training(tmp_path / "large", {"network": {"channels": 256, "blocks": 4}})
    with pytest.raises(StateError, match=r"large/weights\.safetensors: has 1\d,...,... bytes, at most 16,777,216 ship"):
        ship(large, FACTS, name="a", datasets=DATASETS, folder=tmp_path)


def test_facts_are_read_and_a_slip_in_them_is_named(tmp_path):
    path = tmp_path / "facts.yaml"
    text = """
trained_on: label maps of 20 people
datasets: [maps]
device: CPU
minutes: 1.5
machine: two cores
license: CC-BY-4.0
citation: headsr
scores: [{measure: PSNR, value: 31.25, unit: dB, scans: two test heads, others: {spline: 28.5}}]
"""
    path.write_text(text)
    assert read_facts(path) == FACTS
    path.write_text(text.replace("license", "licence"))
    with pytest.raises(RecipeError, match=r"facts\.yaml: facts: unknown key 'licence'; did you mean 'license'"):
        read_facts(path)
    with pytest.raises(RecipeError, match=r"absent\.yaml: does not exist\. docs/models\.md says"):
        read_facts(tmp_path / "absent.yaml")


def test_a_curve_is_what_was_validated():
    assert curve_of([*HISTORY, {"step": 30, "train_loss": 1.0}]) == [
        {"step": 0, "psnr": 20.0},
        {"step": 20, "psnr": 25.5},
    ]


def test_a_table_has_a_line_a_model(tmp_path):
    shipped(tmp_path)
    header, line = table_of(shipped_models(tmp_path)).splitlines()
    assert header.split() == ["name", "kind", "trained", "on", "steps", "size", "license", "headline"]
    assert "tiny  baseline  label maps of 20 people  20     " in line
    assert line.endswith("MiB  CC-BY-4.0  PSNR 31.25 dB (spline 28.5), two test heads")


def test_taken_weights_are_the_file_that_ships_and_the_curve_of_its_card(tmp_path):
    card = shipped(tmp_path)
    recipe = Shipped(name="tiny", folder=str(tmp_path))
    take_model(recipe, weights=tmp_path / "taken/weights.safetensors", history=tmp_path / "taken/history.jsonl")
    assert sha256_of(tmp_path / "taken/weights.safetensors") == card.sha256
    assert read_history(tmp_path / "taken/history.jsonl") == card.curve
    assert read_card("weights", tmp_path / "taken") == card
    (tmp_path / "tiny.safetensors").write_bytes(b"")
    with pytest.raises(CardError, match="SHA-256"):
        take_model(recipe, weights=tmp_path / "b/weights.safetensors", history=tmp_path / "b/history.jsonl")


def test_everything_that_ships_is_whole_and_goes_into_a_wheel():
    root = Path(__file__).parents[3]
    patterns = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]["headsr"]
    for name, card in shipped_models().items():
        assert verify_shipped(name), name
        assert card.license and card.scores and card.datasets, name
    for path in ("models/unrolled.safetensors", "models/unrolled.json"):
        assert any(fnmatch.fnmatch(path, pattern) for pattern in patterns)
    assert Path(headsr.models.__file__).parent == PACKAGE
