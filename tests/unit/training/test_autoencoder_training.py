import json

import pytest
import torch

from headsr.networks.autoencoder import encode
from headsr.training.autoencoder import train_autoencoder
from headsr.training.pairs import SlicePairs
from headsr.weights import load_model


def test_it_learns_to_reconstruct_and_its_latents_are_normal(recipe_of, index, paths):
    recipe, out = recipe_of("autoencoder", steps=60), paths("kl")
    train_autoencoder(recipe, index, **out)
    first, *_, last = [json.loads(line) for line in out["history"].read_text().splitlines()]
    # In 60 steps of 4 channels only the clean slices gain for sure; the degraded ones must not pay for it.
    assert last["val_psnr_clean"] > first["val_psnr_clean"] + 0.05
    assert last["val_psnr_degraded"] > first["val_psnr_degraded"] - 0.1
    model = load_model(out["weights"])
    clean = SlicePairs(recipe, index, split="train", device=torch.device("cpu")).batch(0, 64).clean
    latents = encode(model.module, clean)
    assert latents.shape == (64, 4, 4, 4)
    assert latents.mean(dim=(0, 2, 3)).tolist() == pytest.approx([0] * 4, abs=0.3)
    assert latents.std(dim=(0, 2, 3)).tolist() == pytest.approx([1] * 4, abs=0.3)


def test_two_trainings_give_the_same_bytes(recipe_of, index, paths):
    first, second = paths("a/kl"), paths("b/kl")
    for out in (first, second):
        train_autoencoder(recipe_of("autoencoder", steps=2), index, **out)
    assert first["weights"].read_bytes() == second["weights"].read_bytes()
