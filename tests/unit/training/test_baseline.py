import json

import pytest
import torch
import yaml

from headsr.recipes import plain
from headsr.training import loop
from headsr.training.baseline import BaselineTask, train_baseline
from headsr.weights import load_model


def lines_of(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_it_beats_the_spline_that_it_starts_from(recipe_of, index, paths):
    recipe, out = recipe_of("baseline", steps=60), paths("edsr")
    train_baseline(recipe, index, **out)
    first, *_, last = lines_of(out["history"])
    assert first["val_psnr"] == pytest.approx(first["val_psnr_spline"])
    assert last["step"] == 60
    assert last["val_psnr"] > last["val_psnr_spline"] + 0.3
    assert yaml.safe_load(out["recipe_copy"].read_text()) == plain(recipe)
    model = load_model(out["weights"])
    assert model.recipe == recipe
    assert model.module(torch.rand(1, 1, 7, 9)).shape == (1, 1, 7, 9)


def test_killed_in_the_middle_it_ends_in_the_same_bytes(recipe_of, index, paths, monkeypatch):
    recipe, whole, killed = recipe_of("baseline"), paths("a/edsr"), paths("b/edsr")
    train_baseline(recipe, index, **whole)
    monkeypatch.setattr(loop, "ROLLING_SECONDS", 0.0)
    with monkeypatch.context() as patch:
        patch.setattr(BaselineTask, "terms", dying_at(3, BaselineTask.terms))
        with pytest.raises(KeyboardInterrupt):
            train_baseline(recipe, index, **killed)
    assert not killed["weights"].exists()
    train_baseline(recipe, index, **killed)
    assert not list(killed["scratch"].iterdir())
    for name in ("weights", "history", "recipe_copy"):
        assert killed[name].read_bytes() == whole[name].read_bytes()


def dying_at(last, terms):
    def dies(self, module, step):
        if step == last:
            raise KeyboardInterrupt
        return terms(self, module, step)

    return dies


def test_bf16_trains_too(recipe_of, index, paths, capsys):
    train_baseline(recipe_of("baseline", precision="bf16"), index, **paths())
    assert "torch.bfloat16" in capsys.readouterr().out


def test_a_misspelt_loss_is_refused(recipe_of, index, paths):
    with pytest.raises(ValueError, match=r"losses\.denoising is not a loss of this training"):
        train_baseline(recipe_of("baseline", losses={"denoising": 1.0}), index, **paths())
