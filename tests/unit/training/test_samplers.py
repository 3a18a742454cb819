"""The benchmark of samplers: ours goes where diffusers' goes, noise is a place's own, and what is nearest is found."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[3] / "benchmarks"))

import samplers
from samplers import SAMPLERS, Prior, Results, nearest, nothing_shown
from unrolled import Row, measured

from headsr.networks.build import build_network
from headsr.networks.latent_diffusion import LatentDiffusion
from headsr.training.data.slices import SlicePairs
from headsr.volumes import Grid, Volume
from headsr.weights import TrainedModel

CPU = torch.device("cpu")
KL = {"architecture": "kl", "channels": [4, 4, 8], "blocks": 1, "latent_channels": 2}
UNET = {"architecture": "unet2d", "channels": [4, 8], "blocks": 1, "attention": [False, True], "head_width": 4}
ENCODER = {"architecture": "slice_encoder", "channels": [4, 8], "blocks": 1, "unshuffle": 1}


@pytest.fixture
def prior(monkeypatch):
    torch.manual_seed(0)
    model = LatentDiffusion(build_network({**UNET, "latent_channels": 2}), build_network(KL))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    found = TrainedModel("ldm", model.eval().requires_grad_(False), "fp32")
    monkeypatch.setattr(samplers, "load_model", lambda weights, device: found)
    return Prior("weights", CPU)


@pytest.fixture
def encoder():
    return build_network(ENCODER).eval()


def head_and_study(percent=1):
    """A ball with a grating in it as a head, and one thick scan of it."""
    ball = np.linalg.norm(np.indices((24, 20, 16)) - np.array([12, 10, 8])[:, None, None, None], axis=0) < 8
    grating = 0.5 + 0.2 * np.sin(np.indices(ball.shape).sum(axis=0))
    truth = Volume((grating * ball).astype(np.float32), Grid(ball.shape, np.eye(4)))
    row = Row("thick", 4, percent, "head")
    return row, truth, ball, measured(row, truth, ball)


@pytest.mark.parametrize("steps", [1, 2, 7, 32])
def test_our_own_ddim_goes_where_that_of_diffusers_goes(prior, steps):
    condition = nothing_shown(torch.arange(3), 20)
    ours, theirs = (prior.sampled(SAMPLERS[name], steps, condition, "x") for name in ("DDIM, our own", "DDIM"))
    assert ours.shape == (3, 20, 20) and ours.std() > 0.1
    torch.testing.assert_close(ours, theirs, atol=2e-5, rtol=1e-4)


def test_the_noise_of_a_slice_is_that_of_its_place_in_its_stack(prior, monkeypatch):
    condition, sampler = nothing_shown(torch.zeros(5, dtype=torch.long), 16), SAMPLERS["DDIM"]
    together = prior.sampled(sampler, 2, condition, "x")
    monkeypatch.setattr(samplers, "BATCH", 2)
    torch.testing.assert_close(prior.sampled(sampler, 2, condition, "x"), together, atol=1e-5, rtol=1e-5)
    assert (prior.sampled(sampler, 2, condition, "y") - together).abs().amax(dim=(1, 2)).min() > 1e-3
    assert (together[1:] - together[0]).abs().amax(dim=(1, 2)).min() > 1e-3


def test_a_scan_is_what_the_denoiser_is_told_and_slices_become_volumes_again(prior):
    _, truth, _, study = head_and_study()
    told = []

    def make(order, condition):
        told.append((order, condition))
        return condition.image[:, 0]

    volumes, taken = samplers.stacks_of(prior, study, make)
    assert list(volumes) == [0, 1]
    np.testing.assert_array_equal(volumes[0], volumes[1])
    assert volumes[0].shape == truth.data.shape and taken > 0
    assert [order for order, _ in told] == [(0, 2, 1), (1, 2, 0)]
    for order, condition in told:
        assert condition.plane.unique().tolist() == [order[0]] and condition.thickness_mm.unique().tolist() == [4.0]
        assert condition.shown.min() == 1 and condition.pixel_mm.unique().tolist() == [1.0]


def test_what_was_made_is_read_again_and_other_weights_are_refused(prior, encoder, tmp_path, monkeypatch):
    row, truth, ball, _ = head_and_study()
    monkeypatch.setattr(samplers, "truth_of", lambda folder, head: (truth, ball, ball))
    found = Results(tmp_path, prior, encoder, {"model": "a"})
    numbers, features = found.of(row, "scans", "DPM-Solver++ 2M", 2)
    assert set(features) == {"mean", "one", "truth of mean", "truth of one"} and numbers["seconds"] > 0
    assert len(features["one"]) == 15 and len(features["mean"]) == 15 + 15, (
        "slices that show head, of one and two planes"
    )
    monkeypatch.setattr(Prior, "sampled", None)
    again, same = found.of(row, "scans", "DPM-Solver++ 2M", 2)
    assert again == numbers and all(torch.equal(same[key], features[key]) for key in features)
    with pytest.raises(SystemExit, match="Name another folder"):
        Results(tmp_path, prior, encoder, {"model": "b"}).of(row, "scans", "DPM-Solver++ 2M", 2)


@pytest.mark.parametrize("name", samplers.WITHOUT_STEPS)
def test_beside_the_samplers_stand_the_spline_and_the_autoencoder(name, prior, encoder, tmp_path, monkeypatch):
    row, truth, ball, study = head_and_study(0)
    monkeypatch.setattr(samplers, "truth_of", lambda folder, head: (truth, ball, ball))
    monkeypatch.setattr(Prior, "through", lambda self, slices: slices + 0.1)
    numbers, _ = Results(tmp_path, prior, encoder, {}).of(row, "scans", name, 0)
    if name == "spline":
        published = samplers.made(study, samplers.Spline())[0]
        expected = samplers.scores(row, published, truth, ball)["psnr"]
    else:
        expected = 20.0
    assert numbers["mean"]["psnr"] == pytest.approx(expected, abs=1e-3) == numbers["one"]["psnr"]


def test_slices_go_through_the_autoencoder_whatever_their_size(prior):
    slices = torch.rand(9, 18, 21)
    through = prior.through(slices)
    assert through.shape == slices.shape
    torch.testing.assert_close(prior.through(slices[4:6]), through[4:6], atol=1e-5, rtol=1e-5)


def test_the_table_is_of_the_means_over_heads_and_kid_of_all_their_slices():
    torch.manual_seed(0)

    def one(psnr, offset):
        numbers = {of: {"psnr": psnr, "sharpness": 0.9} for of in ("mean", "one")}
        features = {of: torch.randn(50, 4) + offset for of in ("mean", "one")}
        return numbers | {"seconds": 0.25}, features | {f"truth of {of}": torch.randn(50, 4) for of in ("mean", "one")}

    found = {("thick", "DDIM", 4): [one(30.0, 0.0), one(31.0, 0.0)], ("thick", "spline", 0): [one(20.0, 3.0)]}
    _, ours, spline = samplers.table(found)
    assert ours.startswith("| thick | DDIM | 4 | 250 | 30.50 | 0.900 |") and "| spline |  | 250 |" in spline
    near, far = (float(line.split(" | ")[6]) for line in (ours, spline))
    assert abs(near) < 300 < 3000 < far


def test_the_nearest_slice_is_of_the_same_plane():
    torch.manual_seed(0)
    others, of_planes = torch.rand(12, 8, 8), torch.arange(12) % 3
    slices = others[[3, 7, 11]] + 0.01
    chosen, distance = nearest(slices, torch.tensor([0, 1, 2]), others, of_planes)
    assert chosen.tolist() == [3, 7, 11]
    torch.testing.assert_close(distance, torch.full((3,), 0.01), atol=1e-5, rtol=0)
    chosen, _ = nearest(slices, torch.tensor([1, 2, 0]), others, of_planes)
    assert (of_planes[chosen] == torch.tensor([1, 2, 0])).all()


def test_the_sheet_shows_every_slice_beside_its_nearest_with_the_crown_up(tmp_path):
    slices, beside = torch.full((24, 8, 8), 0.2), torch.full((24, 8, 8), 2.0)
    slices[:, -1] = 0.4  # rows run towards the crown
    samplers.draw(tmp_path / "sheet.png", slices, beside)
    with Image.open(tmp_path / "sheet.png") as picture:
        pixels = np.asarray(picture)
    assert pixels.shape == (4 * 14, 6 * 22)
    assert (pixels[3, 3:11] == 102).all() and (pixels[4:11, 3:11] == 51).all() and (pixels[:, 11:25] == 255).all()
    assert (pixels == 102).sum() == 24 * 8 and (pixels == 51).sum() == 24 * 56


def test_training_slices_are_those_of_the_first_steps(recipe_of, index):
    recipe = recipe_of("ldm", data={"degradation": "thick_slices"})
    slices, planes = samplers.drawn(recipe, index, "train", 5)
    blind = samplers.load_recipes(samplers.load_config([])).blind["thick_slices"]
    pairs = SlicePairs(recipe, index, split="train", blind=blind, device=CPU)
    assert torch.equal(slices[2:4], pairs.batch(2).clean[:, 0]) and torch.equal(planes[2:4], pairs.batch(2).planes)
    assert slices.shape == (5, 16, 16)


def test_slices_are_sampled_in_all_planes_with_nothing_shown(prior, recipe_of, index, tmp_path, monkeypatch):
    told = []
    sampled = Prior.sampled
    monkeypatch.setattr(samplers, "CANDIDATES", 20)
    monkeypatch.setattr(samplers, "SHEET_STEPS", 2)
    monkeypatch.setattr(Prior, "sampled", lambda *given: told.append(given[3]) or sampled(*given))
    recipe = recipe_of("ldm", data={"degradation": "thick_slices"})
    distance, beside = samplers.sheet(prior, recipe, index, tmp_path / "sheet.png")
    assert len(distance) == len(beside) == 24 and (tmp_path / "sheet.png").exists()
    assert told[0].plane.tolist() == [0, 1, 2] * 8 and not told[0].shown.any() and not told[0].thickness_mm.any()
    assert distance.median() > 2 * beside.median(), "an untrained model is far from any head"
