"""Every kind of model learns, by a margin, what the small synthetic heads have to teach."""

import json

import pytest

pytestmark = pytest.mark.long
COSINE = {"shape": "cosine", "warm_up": 20}


def first_and_last(weights):
    first, *_, last = (json.loads(line) for line in weights.with_name("history.jsonl").read_text().splitlines())
    return first, last


@pytest.fixture
def learned(recipe_of, model):
    """Train a model long enough; its first and last measures, and its weights."""

    def run(kind, name, *, steps, channels, companions=(), **changes):
        block = {"steps": steps, "network": {"channels": channels}, "schedule": COSINE, **changes}
        recipe = recipe_of(kind, **block, budget={"batch": 8})
        return *first_and_last(weights := model(recipe, name, companions=companions)), weights

    return run


def test_a_baseline_learns(learned):
    _, last, _ = learned("baseline", "edsr", steps=300, channels=16)
    assert last["val_psnr"] > last["val_psnr_spline"] + 3


def test_a_generator_that_is_judged_learns_too(learned):
    _, last, _ = learned("adversarial", "gan", steps=300, channels=16, losses={"l1": 1.0, "relativistic": 0.005})
    assert last["val_psnr"] > last["val_psnr_spline"] + 2


def test_an_autoencoder_and_a_denoiser_in_its_latents_learn(learned):
    rate = {"learning_rate": 0.003}
    first, last, kl = learned("autoencoder", "kl", steps=400, channels=[16, 16, 16], optimizer=rate)
    assert last["val_psnr_clean"] > first["val_psnr_clean"] + 3
    # Before its first step the denoiser is the best linear estimate from the degraded slice and the noisy latents.
    linear, last, _ = learned("ldm", "ldm", steps=500, channels=[16, 32], optimizer=rate, companions=[kl])
    for time, decibels in (("0.1", 0.2), ("0.3", 0.4), ("0.6", 0.4)):
        assert last[f"val_psnr_at_{time}"] > linear[f"val_psnr_at_{time}"] + decibels
    assert last["val_psnr_sampled"] > last["val_psnr_spline"]
