import json

import pytest
import torch

from headsr.diffusion.sample import predict_clean, sample
from headsr.diffusion.schedule import SCHEDULE
from headsr.networks.autoencoder import decode, encode
from headsr.training import loop
from headsr.training.autoencoder import train_autoencoder
from headsr.training.ldm import DenoisingTask, export_ldm, train_ldm_segment
from headsr.training.state import StateError, load_model, read_metadata


@pytest.fixture(scope="module")
def autoencoder(tmp_path_factory, recipe_of, index):
    folder = tmp_path_factory.mktemp("kl")
    names = {"weights": "weights.safetensors", "history": "history.jsonl", "recipe_copy": "recipe.yaml", "scratch": "s"}
    out = {key: folder / name for key, name in names.items()}
    train_autoencoder(recipe_of("autoencoder", steps=3), index, **out)
    return out["weights"]


@pytest.fixture
def train(tmp_path, index, autoencoder):
    """Train all segments of a recipe in a folder; returns the last state."""

    def run(recipe, name="a", first=0):
        folder, state = tmp_path / name, None
        for segment in range(recipe.budget.segments):
            previous, state = state, folder / f"segment-{segment}.safetensors"
            if segment < first:
                continue
            train_ldm_segment(
                recipe,
                index,
                autoencoder=autoencoder,
                previous=previous,
                segment=segment,
                state=state,
                history=folder / f"segment-{segment}.jsonl",
                scratch=folder / f"scratch-{segment}",
            )
        return state

    return run


def test_segments_are_one_training(recipe_of, train):
    whole = train(recipe_of("ldm", steps=12), "whole")
    parts = train(recipe_of("ldm", steps=4, segments=3), "parts")
    assert parts.read_bytes() == whole.read_bytes()


def test_segments_can_be_added(recipe_of, train):
    train(recipe_of("ldm", steps=2, segments=2))
    longer = train(recipe_of("ldm", steps=2, segments=3), first=2)
    assert longer.read_bytes() == train(recipe_of("ldm", steps=6), "whole").read_bytes()


def test_a_segment_killed_in_the_middle_ends_in_the_same_bytes(recipe_of, train, monkeypatch, capsys):
    recipe = recipe_of("ldm", steps=4, segments=2)
    whole = train(recipe, "whole")
    monkeypatch.setattr(loop, "ROLLING_SECONDS", 0.0)
    terms = DenoisingTask.terms

    def dies(self, module, step):
        if step == 7:
            raise KeyboardInterrupt
        return terms(self, module, step)

    with monkeypatch.context() as patch:
        patch.setattr(DenoisingTask, "terms", dies)
        with pytest.raises(KeyboardInterrupt):
            train(recipe, "killed")
    killed = train(recipe, "killed", first=1)
    assert "goes on from step 6" in capsys.readouterr().out
    assert killed.read_bytes() == whole.read_bytes()


def test_a_state_of_another_recipe_is_not_continued(recipe_of, train):
    train(recipe_of("ldm", steps=2, segments=2))
    with pytest.raises(StateError, match=r"segment-0.*another training \(different: recipe\)"):
        train(recipe_of("ldm", steps=2, segments=2, learning_rate=0.5), first=1)


def test_the_export_is_all_that_a_prior_needs(recipe_of, train, index, autoencoder, tmp_path):
    recipe = recipe_of("ldm")
    files = {"weights": "weights.safetensors", "history": "history.jsonl", "recipe_copy": "recipe.yaml"}
    out = {key: tmp_path / "ldm" / name for key, name in files.items()}
    export_ldm(recipe, index, autoencoder=autoencoder, state=train(recipe), **out)
    model = load_model(out["weights"])
    assert (model.kind, read_metadata(out["weights"])["model"]) == ("ldm", "ldm")
    for name, tensor in load_model(autoencoder).module.state_dict().items():
        assert torch.equal(model.module.autoencoder.state_dict()[name], tensor)
    slices, plane = torch.rand(2, 1, 16, 20), torch.tensor([0, 2])
    latents = encode(model.module.autoencoder, slices)
    time = torch.tensor([100, 300])
    noisy = SCHEDULE.add_noise(latents, torch.randn_like(latents), time)
    clean = decode(model.module.autoencoder, predict_clean(model.module.unet, noisy, time, slices, plane))
    assert clean.shape == slices.shape
    assert clean.isfinite().all()
    assert sample(model.module.unet, noisy, slices, plane, steps=2).shape == latents.shape
    last = json.loads(out["history"].read_text().splitlines()[-1])
    assert {"val_psnr_sampled", "val_psnr_spline", "val_psnr_autoencoder", "val_psnr_at_0.3"} <= last.keys()


def test_weights_that_are_no_autoencoder_are_refused(recipe_of, train, index, tmp_path, autoencoder):
    recipe = recipe_of("ldm")
    files = {"weights": "weights.safetensors", "history": "history.jsonl", "recipe_copy": "recipe.yaml"}
    out = {key: tmp_path / name for key, name in files.items()}
    state = train(recipe)
    export_ldm(recipe, index, autoencoder=autoencoder, state=state, **out)
    with pytest.raises(StateError, match="is a ldm, not an autoencoder"):
        export_ldm(recipe, index, autoencoder=out["weights"], state=state, **out)
