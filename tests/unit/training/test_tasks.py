"""What each kind of model is trained on, and that it learns."""

import json
from dataclasses import replace

import pytest
import torch

from headsr.diffusion.sample import predict_clean, sample
from headsr.diffusion.schedule import SCHEDULE
from headsr.networks.autoencoder import decode, encode
from headsr.networks.condition import Condition
from headsr.training.chain import Sources, setting_of
from headsr.training.data.slices import SlicePairs
from headsr.training.loop import weights_of
from headsr.weights import load_model, read_metadata


def lines_of(weights):
    return [json.loads(line) for line in weights.with_name("history.jsonl").read_text().splitlines()]


@pytest.fixture
def task_of(index, blind):
    """The task of a recipe on the three small heads."""

    def make(recipe, companions=()):
        sources = Sources(index, companions, blind, {})
        return recipe.part.load()(setting_of(recipe, sources, torch.device("cpu")))

    return make


def test_a_baseline_beats_the_spline_that_it_starts_from(recipe_of, model):
    first, *_, last = lines_of(model(recipe_of("baseline", steps=60), "edsr"))
    assert first["val_psnr"] == pytest.approx(first["val_psnr_spline"])
    assert last["step"] == 60
    assert last["val_psnr"] > last["val_psnr_spline"] + 0.3


def test_an_unrolled_network_beats_the_least_squares_that_it_starts_from(recipe_of, model):
    recipe = recipe_of("unrolled", steps=60, optimizer={"learning_rate": 2e-3}, data={"noise": [0.0, 0.0]})
    weights = model(recipe, "unrolled")
    first, *_, last = lines_of(weights)
    assert first["val_psnr"] == pytest.approx(first["val_psnr_start"], abs=0.3)
    assert last["val_psnr"] > last["val_psnr_start"] + 0.1
    assert last["val_log_likelihood"] > first["val_log_likelihood"]
    network = load_model(weights).module
    assert (network.spreads.diff() >= 0).all() and network.spreads[-1] < 0


def test_a_study_counts_by_the_share_of_its_error_that_is_left(recipe_of, task_of):
    """A head twice as bright, or in twice as difficult a study, weighs as much."""
    task = task_of(recipe_of("unrolled", data={"noise": [0.0, 0.0]}))
    terms = task.terms("network", task.networks(), 1)
    assert sorted(terms) == ["l1", "laplace"]
    assert 0.2 < float(terms["l1"].detach()) < 1


def test_an_error_in_a_lesion_counts_sixteen_times_as_much(recipe_of, task_of, monkeypatch):
    task = task_of(recipe_of("unrolled", data={"noise": [0.0, 0.0]}))
    networks, batch = task.networks(), task.setting.train.batch(1)
    terms = {}
    for name, lesions in (
        ("unknown", None),
        ("none", torch.zeros_like(batch.heads)),
        ("all", torch.ones_like(batch.heads)),
    ):
        monkeypatch.setattr(task.setting.train, "batch", lambda step, of=lesions: replace(batch, lesions=of))
        terms[name] = {term: float(value.detach()) for term, value in task.terms("network", networks, 1).items()}
    assert terms["none"] == terms["unknown"]
    assert terms["all"]["l1"] == pytest.approx(16 * terms["none"]["l1"])
    assert terms["all"]["laplace"] == terms["none"]["laplace"], "what is foretold is how far off it is, anywhere"


def test_an_autoencoder_learns_to_reconstruct_and_its_latents_are_normal(recipe_of, model, task_of):
    recipe = recipe_of("autoencoder", steps=60, schedule={"shape": "cosine"})
    weights = model(recipe, "kl")
    first, *_, last = lines_of(weights)
    # In 60 steps of 4 channels only the clean slices gain for sure; the degraded ones must not pay for it.
    assert last["val_psnr_clean"] > first["val_psnr_clean"] + 0.05
    assert last["val_psnr_degraded"] > first["val_psnr_degraded"] - 0.1
    latents = encode(load_model(weights).module, task_of(recipe).setting.train.batch(0, 64).clean)
    assert latents.shape == (64, 4, 4, 4)
    assert latents.mean(dim=(0, 2, 3)).tolist() == pytest.approx([0] * 4, abs=0.3)
    assert latents.std(dim=(0, 2, 3)).tolist() == pytest.approx([1] * 4, abs=0.3)


@pytest.mark.parametrize("kind", ["ldm", "ldm_studies"])
def test_a_denoiser_starts_from_the_best_linear_estimate(recipe_of, model, task_of, kind):
    task = task_of(recipe_of(kind), [model(recipe_of("autoencoder", steps=3), "kl")])
    networks = task.networks()
    task.begin(networks)
    errors = []
    for step in range(16):
        pairs = task.setting.train.batch(step, 32)
        known = networks["network"].shown(pairs.condition)[:, 0] > 0
        errors.append(
            (task.latents(pairs.clean) - networks["network"].estimate(pairs.condition)[0]).movedim(1, -1)[known]
        )
    error, deviation = torch.cat(errors), networks["network"].estimate_deviation.flatten()
    assert error.std(dim=0).tolist() == pytest.approx(deviation.tolist(), rel=1e-3)
    assert error.mean(dim=0).tolist() == pytest.approx([0] * 4, abs=1e-3)
    assert (deviation < 0.9).all(), "the latents have deviation 1"
    losses = [task.terms("network", networks, step)["denoising"].item() for step in range(30)]
    assert sum(losses) / 30 == pytest.approx(1, abs=0.25)


def test_clean_latents_count_by_signal_to_noise_up_to_five(recipe_of, model, task_of, monkeypatch):
    kl = model(recipe_of("autoencoder", steps=3), "kl")
    even, weighted = (task_of(recipe_of("ldm", weighting=one), [kl]) for one in ("even", "min_snr"))
    networks = even.networks()
    found = {}
    for time in (0, 500, 999):
        monkeypatch.setattr(torch, "randint", lambda most, size, generator, time=time: torch.full(size, time))
        signal, noise = SCHEDULE.signal_and_noise(torch.tensor([time]), torch.ones(1))
        deviation = SCHEDULE.posterior(
            torch.zeros(1, 1, 1, 1), torch.zeros(1, 1, 1, 1), torch.ones(1), torch.tensor([time])
        )[1]
        one, other = (task.terms("network", networks, 3)["denoising"].item() for task in (even, weighted))
        found[time] = other / one
        assert found[time] == pytest.approx(float(min(5.0, (signal / noise) ** 2) * deviation**2), rel=1e-4)
    assert found[999] < found[0] < found[500]


def test_some_slices_are_denoised_with_nothing_shown_of_them(recipe_of, model, task_of):
    kl = model(recipe_of("autoencoder", steps=3), "kl")
    pairs = SlicePairs.blank(recipe_of("ldm"), 400)._replace(clean=torch.ones(400, 1, 4, 4))
    pairs = pairs._replace(degraded=pairs.clean, pixel_mm=torch.ones(400, 2), thickness_mm=torch.ones(400))
    for share in (0.0, 0.2, 0.75):
        task = task_of(recipe_of("ldm", unconditional=share), [kl])
        condition = task._condition(pairs, 7)
        shown = condition.shown.mean(dim=(1, 2, 3))
        assert torch.equal(shown, condition.image.mean(dim=(1, 2, 3))) and torch.equal(shown, condition.thickness_mm)
        assert shown.mean().item() == pytest.approx(1 - share, abs=0.07)


def test_the_export_of_a_denoiser_is_all_that_a_prior_needs(recipe_of, model):
    kl = model(recipe_of("autoencoder", steps=3), "kl")
    weights = model(recipe_of("ldm", segments=2), "ldm", companions=[kl])
    prior = load_model(weights)
    assert (prior.kind, read_metadata(weights)["companions"]["autoencoder"]["task"]) == ("ldm", "autoencoder")
    for name, tensor in load_model(kl).module.state_dict().items():
        assert torch.equal(prior.module.autoencoder.state_dict()[name], tensor)
    slices, plane, time = torch.rand(2, 1, 16, 20), torch.tensor([0, 2]), torch.tensor([100, 300])
    condition = Condition.of_one_scan(slices, plane, torch.ones(2, 2), torch.full((2,), 4.0))
    latents = encode(prior.module.autoencoder, slices)
    noisy = SCHEDULE.add_noise(latents, torch.randn_like(latents), time)
    clean = decode(prior.module.autoencoder, predict_clean(prior.module.unet, noisy, time, condition))
    assert clean.shape == slices.shape
    assert clean.isfinite().all()
    assert sample(prior.module.unet, noisy, condition, steps=2).shape == latents.shape
    last = lines_of(weights)[-1]
    assert {"val_psnr_sampled", "val_psnr_spline", "val_psnr_autoencoder", "val_psnr_at_0.3"} <= last.keys()


def test_weights_say_what_their_denoiser_is_told(recipe_of, model):
    """Those of one thick scan as they always did, without a word."""
    kl = [model(recipe_of("autoencoder", steps=3), "kl")]
    for kind, told, said in (("ldm", "spline", None), ("ldm_studies", "least_squares", "least_squares")):
        weights = model(recipe_of(kind, steps=2), kind, companions=kl)
        assert load_model(weights).told == told and read_metadata(weights).get("told") == said
        assert f"val_psnr_{told}" in lines_of(weights)[0]


def test_a_denoiser_learns_more_than_its_linear_estimate_whatever_its_seed(recipe_of, model):
    """In 120 steps it gains 0.12 to 0.24 dB (five seeds). Where it is to find other slices of the batch, which nothing
    tells it, it ends between 0.05 dB below and 0.01 above (four seeds): luck is no match for the margin.

    The autoencoder has learned nothing: its latents are cosines of blocks, as many as pixels, in which nothing is lost.
    """
    sixteen = {"latent_channels": 16}
    kl = model(recipe_of("autoencoder", steps=1, network=sixteen, optimizer={"learning_rate": 1e-9}), "kl")
    training = {"budget": {"batch": 8}, "optimizer": {"learning_rate": 0.006}, "ema_decay": 0.98}
    training |= {"schedule": {"shape": "cosine", "warm_up": 10}, "losses": {"wavelet": 0.0}}
    for seed in (1, 2, 3):
        recipe = recipe_of("ldm", steps=120, seed=seed, network={"channels": [16, 32], **sixteen}, **training)
        linear, *_, last = lines_of(model(recipe, f"ldm_{seed}", companions=[kl]))
        for time in ("0.1", "0.3"):
            assert last[f"val_psnr_at_{time}"] > linear[f"val_psnr_at_{time}"] + 0.08


def test_a_discriminator_s_turn_leaves_the_generator_alone(recipe_of, task_of):
    task = task_of(recipe_of("adversarial"))
    networks = task.networks()
    sum(task.terms("discriminator", networks, 1).values()).backward()
    assert all(parameter.grad is None for parameter in networks["network"].parameters())
    assert any(parameter.grad.abs().sum() > 0 for parameter in networks["discriminator"].parameters())


def test_both_turns_of_a_step_see_the_same_batches_and_each_is_drawn_once(recipe_of, train, monkeypatch):
    drawn, batch = [], SlicePairs.batch

    def counted(self, step, size=None):
        drawn.extend([] if size else [step])
        return batch(self, step, size)

    monkeypatch.setattr(SlicePairs, "batch", counted)
    train(recipe_of("adversarial", steps=3, optimizer={"accumulation": 2}))
    assert drawn == [1, 2, 3, 4, 5, 6]
    drawn.clear()
    train(recipe_of("autoencoder", steps=2, **JUDGED), "judged")
    assert drawn == [1, 2]


JUDGED = {
    "discriminator": {"architecture": "patch_discriminator", "channels": 4, "layers": 1},
    "losses": {"vanilla": 0.01},
}


def test_an_autoencoder_learns_against_a_discriminator_where_its_recipe_has_one(recipe_of, task_of, model):
    recipe = recipe_of("autoencoder", steps=10, **JUDGED)
    task = task_of(recipe)
    networks = task.networks()
    assert set(task.terms("network", networks, 1)) == {"l1", "kl", "vanilla"}
    verdicts = task.terms("discriminator", networks, 1)
    assert set(verdicts) == {"vanilla"}
    verdicts["vanilla"].backward()
    assert all(parameter.grad is None for parameter in networks["network"].parameters())
    line = lines_of(model(recipe, "judged"))[-1]
    assert {"train_kl", "train_vanilla", "train_discriminator_vanilla", "val_psnr_clean"} <= line.keys()
    assert task_of(recipe_of("autoencoder")).turns == ("network",)


def test_generator_and_discriminator_pull_opposite_ways(recipe_of, task_of):
    task = task_of(recipe_of("adversarial"))
    networks = task.networks()
    ours, theirs = (task.terms(turn, networks, 1)["relativistic"] for turn in task.turns)
    (with_ours,) = torch.autograd.grad(ours, networks["discriminator"].patches.final_conv.conv.bias, allow_unused=True)
    assert ours.item() + theirs.item() >= 4 * 0.6931 - 1e-4, "both cannot be content"
    assert with_ours is not None


def test_the_turns_of_a_history_have_names_and_the_weight_is_the_generator_s(recipe_of, model):
    recipe = recipe_of("adversarial", steps=10)
    lines = lines_of(model(recipe, "gan"))
    assert {"train_l1", "train_relativistic", "train_loss"} <= lines[-1].keys()
    assert {"train_discriminator_relativistic", "train_discriminator_loss"} <= lines[-1].keys()
    assert lines[-1]["train_discriminator_loss"] == pytest.approx(lines[-1]["train_discriminator_relativistic"])
    assert (weights_of("network", recipe)["relativistic"], weights_of("discriminator", recipe)["relativistic"]) == (
        0.01,
        1,
    )


def test_a_generator_starts_from_the_baseline_that_it_names(recipe_of, model, task_of):
    edsr = model(recipe_of("baseline", steps=2), "edsr")
    task = task_of(recipe_of("adversarial", generator="edsr"), [edsr])
    networks = task.networks()
    task.begin(networks)
    start = load_model(edsr).module.state_dict()
    assert all(torch.equal(tensor, start[name]) for name, tensor in networks["network"].state_dict().items())


BANDS = {"denoising": 0.0, "wavelet": 0.0, "low_band": 0.5, "detail_bands": 2.0}


def test_a_denoiser_starts_from_the_one_that_it_names(recipe_of, model, task_of):
    kl = model(recipe_of("autoencoder", steps=3), "kl")
    ldm = model(recipe_of("ldm", steps=2), "ldm", companions=[kl])
    task = task_of(recipe_of("ldm", denoiser="ldm", losses=BANDS), [kl, ldm])
    networks = task.networks()
    task.begin(networks)
    start = load_model(ldm).module.unet.state_dict()
    assert all(torch.equal(tensor, start[name]) for name, tensor in networks["network"].state_dict().items())
    assert start["estimate_weight"].abs().sum() > 0, "the linear estimate is of the weights"
    assert set(task.terms("network", networks, 1)) == {"low_band", "detail_bands"}
    first, *_ = lines_of(model(task.setting.recipe, "tuned", companions=[kl, ldm]))
    assert first["val_psnr_at_0.3"] == lines_of(ldm)[-1]["val_psnr_at_0.3"]
    other = model(recipe_of("autoencoder", steps=2), "other/kl")
    with pytest.raises(ValueError, match=r"denoiser: 'ldm' lives in the latents of another autoencoder than 'kl'"):
        (task := task_of(task.setting.recipe, [other, ldm])).begin(task.networks())


def test_batches_can_be_accumulated(recipe_of, train):
    """Two batches of two make the step of one batch of four, but for the crops that each step draws."""
    once = train(recipe_of("baseline", steps=2, optimizer={"accumulation": 2}), "a")
    again = train(recipe_of("baseline", steps=1, segments=2, optimizer={"accumulation": 2}), "b")
    assert once.read_bytes() == again.read_bytes()
