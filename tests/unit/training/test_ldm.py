import json

import pytest
import torch

from headsr.diffusion.sample import predict_clean, sample
from headsr.diffusion.schedule import SCHEDULE
from headsr.networks.autoencoder import decode, encode
from headsr.networks.build import build_network
from headsr.training import loop
from headsr.training.autoencoder import train_autoencoder
from headsr.training.ldm import DenoisingTask, denoising_task, export_ldm, measure_estimate, train_ldm_segment
from headsr.weights import StateError, load_model, read_metadata, save_model


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


def export(recipe, state, autoencoder, folder):
    files = {"weights": "weights.safetensors", "history": "history.jsonl", "recipe_copy": "recipe.yaml"}
    out = {key: folder / name for key, name in files.items()}
    histories = [state.with_name(f"segment-{segment}.jsonl") for segment in range(recipe.budget.segments)]
    export_ldm(recipe, state, autoencoder=autoencoder, histories=histories, **out)
    return out


def test_segments_are_one_training(recipe_of, train):
    whole = train(recipe_of("ldm", steps=12), "whole")
    parts = train(recipe_of("ldm", steps=4, segments=3), "parts")
    assert parts.read_bytes() == whole.read_bytes()


def test_training_starts_from_the_best_linear_estimate(recipe_of, index, autoencoder):
    recipe = recipe_of("ldm")
    task = denoising_task(recipe, index, load_model(autoencoder), torch.device("cpu"))
    unet = build_network("ldm", recipe.network)
    measure_estimate(unet, task)
    clean, degraded, _ = task.pairs.batch(3, 32)
    estimate, deviation = unet.estimate(degraded)
    error = task.latents(clean) - estimate
    assert error.std(dim=(0, 2, 3)).tolist() == pytest.approx(deviation.flatten().tolist(), rel=0.15)
    assert error.mean(dim=(0, 2, 3)).tolist() == pytest.approx([0] * 4, abs=0.1)
    assert (deviation < 0.9).all(), "the latents have deviation 1"
    losses = [task.terms(unet, step)["denoising"].item() for step in range(30)]
    assert sum(losses) / 30 == pytest.approx(1, abs=0.25)


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
    recipe = recipe_of("ldm", segments=2)
    out = export(recipe, train(recipe), autoencoder, tmp_path / "ldm")
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
    lines = [json.loads(line) for line in out["history"].read_text().splitlines()]
    assert [line["step"] for line in lines] == [0, 4, 8]
    assert {"val_psnr_sampled", "val_psnr_spline", "val_psnr_autoencoder", "val_psnr_at_0.3"} <= lines[-1].keys()


def test_what_does_not_belong_together_is_not_exported(recipe_of, train, autoencoder, tmp_path):
    recipe = recipe_of("ldm")
    state = train(recipe)
    with pytest.raises(StateError, match=r"another training \(different: recipe\)"):
        export(recipe_of("ldm", seed=6), state, autoencoder, tmp_path / "ldm")
    other = tmp_path / "other.safetensors"
    trained = load_model(autoencoder)
    save_model(other, trained.module, trained.recipe, record={})
    with pytest.raises(StateError, match=r"another training \(different: autoencoder\)"):
        export(recipe, state, other, tmp_path / "ldm")
    assert not (tmp_path / "ldm").exists()


def test_weights_that_are_no_autoencoder_are_refused(recipe_of, train, index, tmp_path, autoencoder):
    recipe = recipe_of("ldm")
    out = export(recipe, train(recipe), autoencoder, tmp_path / "ldm")
    files = {"state": tmp_path / "state", "history": tmp_path / "history", "scratch": tmp_path / "scratch"}
    with pytest.raises(StateError, match="is a ldm, not an autoencoder"):
        train_ldm_segment(recipe, index, autoencoder=out["weights"], previous=None, segment=0, **files)
