"""Segments, kills and exports, whatever is trained."""

import json

import pytest
import torch
import torch.nn.functional as F
import yaml
from torch.utils.checkpoint import checkpoint

from headsr.models.card import checked_weights, read_card
from headsr.networks import blocks
from headsr.networks.residual2d import ResidualSliceNetwork
from headsr.recipes import plain
from headsr.training import loop
from headsr.training.chain import fingerprint_of, with_last_line
from headsr.weights import StateError, load_model, read_metadata


def lines_of(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture
def companions_of(recipe_of, model):
    """The weights of the companions that a kind of model needs."""

    def make(kind):
        return [model(recipe_of("autoencoder", steps=3), "kl")] if kind.startswith("ldm") else []

    return make


@pytest.mark.parametrize(
    ("kind", "shape"),
    [
        ("baseline", "cosine"),
        ("adversarial", "constant"),
        ("autoencoder", "cosine"),
        ("ldm", "constant"),
        ("ldm_studies", "constant"),
    ],
)
def test_segments_are_one_training(recipe_of, train, companions_of, kind, shape):
    companions = companions_of(kind)
    whole = train(recipe_of(kind, steps=6, schedule={"shape": shape}), "whole", companions=companions)
    parts = train(recipe_of(kind, steps=2, segments=3, schedule={"shape": shape}), "parts", companions=companions)
    assert parts.read_bytes() == whole.read_bytes()


def test_a_network_that_draws_numbers_draws_the_same_in_every_segment(recipe_of, train, monkeypatch):
    monkeypatch.setattr(ResidualSliceNetwork, "forward", lambda self, images: images + F.dropout(self.first(images)))
    block = {"channels": 1, "blocks": 0}
    whole = train(recipe_of("baseline", steps=4, network=block), "whole")
    parts = train(recipe_of("baseline", steps=2, segments=2, network=block), "parts")
    assert parts.read_bytes() == whole.read_bytes()


@pytest.mark.parametrize("kind", ["adversarial", "autoencoder"])
def test_checkpointing_changes_no_byte(recipe_of, train, monkeypatch, kind):
    called = []
    monkeypatch.setattr(
        blocks, "checkpoint", lambda *inputs, **how: called.append(inputs) or checkpoint(*inputs, **how)
    )
    whole = train(recipe_of(kind, steps=2, segments=2), "whole")
    assert not called
    frugal = recipe_of(kind, steps=2, segments=2, checkpointing=True)
    assert train(frugal, "whole", first=1).read_bytes() == whole.read_bytes(), "it goes on from a state without"
    assert train(frugal, "frugal").read_bytes() == whole.read_bytes()
    assert called


def test_segments_can_be_added(recipe_of, train):
    train(recipe_of("baseline", steps=2, segments=2))
    longer = train(recipe_of("baseline", steps=2, segments=3), first=2)
    assert longer.read_bytes() == train(recipe_of("baseline", steps=6), "whole").read_bytes()


def test_a_decay_goes_on_through_its_segments(recipe_of, train):
    recipe = recipe_of("baseline", steps=1, segments=6, schedule={"shape": "decay"})
    at_once = train(recipe).read_bytes()
    assert train(recipe, first=5).read_bytes() == at_once
    with pytest.raises(StateError, match=r"segment-5.*another training"):
        train(recipe_of("baseline", steps=1, segments=7, schedule={"shape": "decay"}), first=6)


def test_prolonging_a_decay_redoes_its_segments_only(recipe_of, train):
    schedule = {"shape": "decay"}
    short = train(recipe_of("baseline", steps=2, segments=2, schedule=schedule))
    with pytest.raises(StateError, match=r"segment-1.*another training \(different: falls, of\)"):
        train(recipe_of("baseline", steps=2, segments=3, schedule=schedule), first=2)
    first = short.with_name("segment-0.safetensors").read_bytes()
    longer = train(recipe_of("baseline", steps=2, segments=3, schedule=schedule), first=1)
    assert longer.read_bytes() == train(recipe_of("baseline", steps=2, segments=3, schedule=schedule), "b").read_bytes()
    assert short.with_name("segment-0.safetensors").read_bytes() == first


def dying_at(batch, terms):
    def dies(self, turn, networks, step):
        if step == batch:
            raise KeyboardInterrupt
        return terms(self, turn, networks, step)

    return dies


@pytest.mark.parametrize("kind", ["adversarial", "ldm", "ldm_studies"])
def test_a_segment_killed_in_the_middle_ends_in_the_same_bytes(
    recipe_of, train, companions_of, monkeypatch, capsys, kind
):
    recipe, companions = recipe_of(kind, steps=4, segments=2), companions_of(kind)
    whole = train(recipe, "whole", companions=companions)
    monkeypatch.setattr(loop, "ROLLING_SECONDS", 0.0)
    task = recipe.part.load()
    with monkeypatch.context() as patch:
        patch.setattr(task, "terms", dying_at(7, task.terms))
        with pytest.raises(KeyboardInterrupt):
            train(recipe, "killed", companions=companions)
    running = lines_of(whole.parents[1] / "killed" / "scratch" / "rolling.jsonl")
    assert all(line["step"] > 4 for line in running), "what has run is there to be read, of this segment alone"
    killed = train(recipe, "killed", companions=companions, first=1)
    assert "goes on from step 6" in capsys.readouterr().out
    assert killed.read_bytes() == whole.read_bytes()
    assert not list((killed.parent / "scratch").iterdir())
    assert killed.with_suffix(".jsonl").read_bytes() == whole.with_suffix(".jsonl").read_bytes()


def test_a_state_of_another_recipe_is_not_continued(recipe_of, train):
    train(recipe_of("baseline", steps=2, segments=2))
    with pytest.raises(StateError, match=r"segment-0.*another training \(different: recipe\)"):
        train(recipe_of("baseline", steps=2, segments=2, seed=6), first=1)
    with pytest.raises(StateError, match=r"segment-0.*another training \(different: stage\)"):
        train(recipe_of("baseline", steps=2, segments=2), first=1, stage=2)
    train(recipe_of("baseline", steps=2, segments=2, title="Another"), first=1)


def test_an_export_has_weights_history_and_recipe(recipe_of, model):
    recipe = recipe_of("baseline", steps=3, segments=2)
    weights = model(recipe, "edsr")
    trained, metadata = load_model(weights), read_metadata(weights)
    assert (trained.kind, trained.precision, metadata["model"]) == ("baseline", "auto", "edsr")
    assert trained.module(torch.rand(1, 1, 7, 9)).shape == (1, 1, 7, 9)
    assert [line["step"] for line in lines_of(weights.with_name("history.jsonl"))] == [0, 3, 6]
    assert metadata["validation"]["step"] == 6 and metadata["stage"] == {"train_segment": 1}
    assert yaml.safe_load(weights.with_name("recipe.yaml").read_text()) == plain(recipe)


def test_what_does_not_belong_together_is_not_exported(recipe_of, train, export, model):
    companions = [model(recipe_of("autoencoder", steps=2), "kl")]
    state = train(recipe_of("ldm"), companions=companions)
    with pytest.raises(StateError, match=r"another training \(different: recipe\)"):
        export(recipe_of("ldm", seed=6), state, companions)
    other = [model(recipe_of("autoencoder", steps=2, seed=6), "other/kl")]
    with pytest.raises(StateError, match=r"another training \(different: companions\)"):
        export(recipe_of("ldm"), state, other)
    assert not state.with_name("weights.safetensors").exists()


def test_the_last_line_is_added_or_completed():
    assert with_last_line([], 5, {"a": 1.0}) == [{"step": 5, "a": 1.0}]
    assert with_last_line([{"step": 4}], 5, {"a": 1.0}) == [{"step": 4}, {"step": 5, "a": 1.0}]
    history = [{"step": 5, "b": 2.0}]
    assert with_last_line(history, 5, {"a": 1.0}) == [{"step": 5, "b": 2.0, "a": 1.0}]
    assert history == [{"step": 5, "b": 2.0}]


def test_a_fingerprint_follows_content_not_order():
    assert fingerprint_of({"a": 1, "b": (2, 3)}) == fingerprint_of({"b": [2, 3], "a": 1})
    assert fingerprint_of({"a": 1}) != fingerprint_of({"a": 2})


@pytest.mark.parametrize("kind", ["baseline", "adversarial"])
def test_a_card_lies_beside_the_weights_of_every_model(recipe_of, model, kind):
    weights = model(recipe_of(kind, steps=10), "new")
    card = read_card("weights", weights.parent)
    assert checked_weights("weights", weights.parent) == weights
    assert (card.kind, card.architectures, card.seed, card.steps) == (kind, ["residual2d"], 5, 10)
    assert (card.trained_on, card.citation, card.datasets["demo"]["license"]) == (
        "T1w slices",
        "Somebody (2026)",
        "CC0",
    )
    assert [line["step"] for line in card.curve] == [0, 10] and "val_psnr" in card.curve[-1]
    assert not any(name.startswith(("train_", "share_")) for line in card.curve for name in line)
    assert (card.minutes, card.scores) == (None, []), "what no file of a training says"
