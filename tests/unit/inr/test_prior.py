from pathlib import Path

import numpy as np
import pytest
import torch

from headsr import recipes
from headsr.acquisition.measurement import Study, load_study
from headsr.fields.load import load_field
from headsr.inr import prior as prior_module
from headsr.inr.fit import fit_inr
from headsr.inr.prior import SlicePrior
from headsr.networks.build import build_network
from headsr.networks.latent_diffusion import LatentDiffusion
from headsr.recipes import Budget, Fit, Method, Model
from headsr.weights import save_model

FIELD = {"cells": [4, 1], "features": [2, 2], "hidden": 4}


def model(kind: str, network: dict) -> Model:
    return Model(kind=kind, network=network, suffixes=("T1w",), budget=Budget(1, 1, 16), learning_rate=1e-3, seed=0)


AUTOENCODER = model("autoencoder", {"architecture": "kl", "channels": [4, 4, 4], "blocks": 1, "latent_channels": 2})
LDM = model(
    "ldm",
    {"architecture": "unet2d", "channels": [32, 32], "blocks": 1, "attention": [False, True], "latent_channels": 2},
)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny untrained latent diffusion model."""
    torch.manual_seed(0)
    autoencoder = build_network("autoencoder", AUTOENCODER.network)
    module = LatentDiffusion(build_network("ldm", LDM.network), autoencoder)
    path = tmp_path_factory.mktemp("models") / "ldm" / "weights.safetensors"
    save_model(path, module, LDM, record={"autoencoder": {"network": recipes.plain(AUTOENCODER.network)}})
    return path


@pytest.fixture
def study(measure) -> Study:
    return load_study(measure(["axial", "sagittal"]))


def fit_block(**change) -> Fit:
    return Fit(**{"field": FIELD, "steps": 8, "learning_rate": 0.02, "prior_weight": 0.5, "prior_slices": 5, **change})


def test_visits_ask_about_every_slice_that_shows_the_head_once_a_round(
    study: Study, weights: Path, monkeypatch
) -> None:
    prior = SlicePrior(weights, study, fit=fit_block())
    asked = []
    monkeypatch.setattr(
        SlicePrior,
        "_change",
        lambda self, slices, condition, plane, turn: (
            asked.append((plane, slices.clone(), condition.clone()))
            or (torch.full_like(slices, 0.25), torch.ones(len(slices), 1, 1))
        ),
    )
    volume = torch.from_numpy(np.random.default_rng(0).random(study.head.shape, dtype=np.float32))
    counts = [len(family.shown) for family in prior.families]
    assert len(prior.families) == 4 and min(counts) > 5
    for _ in range(4 * -(-max(counts) // 5)):
        prior.visit(volume)
    # Every slice is asked about at least once, along its own plane and with the thick axis (z, then x) as rows.
    assert {plane for plane, _, _ in asked} == {0, 1, 2}
    axial_in_coronal = next(slices for plane, slices, _ in asked if plane == 1)
    assert axial_in_coronal.shape[1:] == (16, 18)
    seen = prior.weight > 0
    for family in prior.families:
        assert seen.permute(family.order)[family.shown].all()
    target = prior.total / prior.weight.clamp_min(1e-12)
    torch.testing.assert_close(target[seen], volume[seen] + 0.25)
    assert float(prior.penalty(target)) < 1e-6 * float(prior.penalty(volume))
    assert float(prior.penalty(volume)) == pytest.approx(0.5 * prior.strength * 0.25**2 * float(seen.sum()), rel=1e-4)


def test_the_pull_is_stronger_the_more_the_scans_leave_open(measure, weights: Path) -> None:
    def strength(views: list[str]) -> float:
        return SlicePrior(weights, load_study(measure(views)), fit=fit_block(prior_weight=0.5)).strength

    # 16 axial voxels in 4 slices: 3 unknowns more per measured number; 18 and 21 need 5 and 6 slices.
    assert strength(["axial"]) == pytest.approx(0.5 * 3)
    assert strength(["axial", "coronal", "sagittal"]) == pytest.approx(0.5 * (1 / (4 / 16 + 6 / 21 + 5 / 18) - 1))
    assert strength(["axial"] * 4) == 0


def test_a_clean_latent_that_is_the_volume_s_own_asks_for_no_change(study: Study, weights: Path, monkeypatch) -> None:
    prior = SlicePrior(weights, study, fit=fit_block())
    monkeypatch.setattr(prior_module.SCHEDULE, "add_noise", lambda latents, noise, times: latents)
    monkeypatch.setattr(prior_module, "predict_clean", lambda unet, latents, *rest: latents)
    volume = torch.rand(study.head.shape, generator=torch.Generator().manual_seed(0))
    assert prior.visit(volume) == 0.0
    assert float(prior.penalty(volume)) == pytest.approx(0, abs=1e-9)


def test_visits_depend_on_the_seed_and_on_nothing_else(study: Study, weights: Path) -> None:
    volume = torch.rand(study.head.shape, generator=torch.Generator().manual_seed(0))
    first, same, other = (SlicePrior(weights, study, fit=fit_block(seed=seed)) for seed in (0, 0, 1))
    for prior in (first, same, other):
        for _ in range(3):
            prior.visit(volume)
    assert torch.equal(first.total, same.total) and not torch.equal(first.total, other.total)
    assert torch.isfinite(first.total).all()


def test_a_fit_with_a_prior_ends_consistent_and_says_which_prior(measure, weights: Path, tmp_path: Path) -> None:
    method = Method(kind="inr", title="INR with prior", prior="ldm", fit=fit_block())
    paths = {name: tmp_path / f"out/{name}" for name in ("field.safetensors", "u.nii.gz", "h.jsonl")}
    field, unprojected, history = paths.values()
    lowres = measure(["axial"])
    fit_inr(lowres, method=method, prior=weights, field=field, unprojected=unprojected, history=history)
    fitted = load_field(field)
    assert len(fitted.record["prior_sha256"]) == 64
    assert all(entry["rms_after"] <= entry["allowed"] for entry in fitted.record["consistency"])
    assert "prior_change" in history.read_text()
    with pytest.raises(ValueError, match="if and only if"):
        fit_inr(lowres, method=method, prior=None, field=field, unprojected=unprojected, history=history)


def test_weights_of_another_kind_are_refused(study: Study, tmp_path: Path) -> None:
    path = tmp_path / "kl" / "weights.safetensors"
    save_model(path, build_network("autoencoder", AUTOENCODER.network), AUTOENCODER, record={})
    with pytest.raises(ValueError, match="kind 'autoencoder'"):
        SlicePrior(path, study, fit=fit_block())
