import numpy as np
import pytest
import torch

from headsr.acquisition.evidence import Evidence
from headsr.acquisition.measurement import Measurement, Study, load_study
from headsr.acquisition.operator import Acquisition
from headsr.degrade.lowres import stack_operator
from headsr.inr import prior as prior_module
from headsr.inr.fit import fit_field
from headsr.inr.prior import SlicePrior
from headsr.networks.build import build_network
from headsr.networks.latent_diffusion import LatentDiffusion
from headsr.recipes import Fit, MethodRecipe, Stack, build
from headsr.reconstruct.estimate import estimate_of
from headsr.reconstruct.study_planes import StudyPlanes
from headsr.weights import TrainedModel

FIT = {
    "field": {"cells": [4, 1], "features": [2, 2], "hidden": 4},
    "steps": 8,
    "learning_rate": 0.02,
    "prior_weight": 0.5,
    "prior_slices": 5,
}
AUTOENCODER = {"architecture": "kl", "channels": [4, 4, 4], "blocks": 1, "latent_channels": 2}
UNET = {
    "architecture": "unet2d",
    "channels": [32, 32],
    "blocks": 1,
    "attention": [False, True],
    "latent_channels": 2,
}


@pytest.fixture(scope="module")
def ldm() -> TrainedModel:
    """A tiny untrained latent diffusion model."""
    torch.manual_seed(0)
    autoencoder = build_network(AUTOENCODER)
    module = LatentDiffusion(build_network(UNET), autoencoder)
    return TrainedModel("ldm", module.eval().requires_grad_(False), "fp32")


@pytest.fixture
def study(measure) -> Study:
    return load_study(measure(["axial", "sagittal"]))


def fit_block(**change) -> Fit:
    return build(Fit, {**FIT, **change}, "fit")


def test_visits_ask_about_every_slice_that_shows_the_head_once_a_round(
    study: Study, ldm: TrainedModel, monkeypatch
) -> None:
    prior = SlicePrior(ldm, study, fit=fit_block())
    asked = []
    monkeypatch.setattr(
        SlicePrior,
        "_change",
        lambda self, slices, condition, turn: (
            asked.append((int(condition.plane[0]), slices.clone(), condition))
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


def test_the_pull_is_stronger_the_more_the_scans_leave_open(measure, ldm: TrainedModel) -> None:
    def strength(views: list[str]) -> float:
        return SlicePrior(ldm, load_study(measure(views)), fit=fit_block(prior_weight=0.5)).strength

    # 16 axial voxels in 4 slices: 3 unknowns more per measured number; 18 and 21 need 5 and 6 slices.
    assert strength(["axial"]) == pytest.approx(0.5 * 3)
    assert strength(["axial", "coronal", "sagittal"]) == pytest.approx(0.5 * (1 / (4 / 16 + 6 / 21 + 5 / 18) - 1))
    assert strength(["axial"] * 4) == 0


def test_a_clean_latent_that_is_the_volume_s_own_asks_for_no_change(
    study: Study, ldm: TrainedModel, monkeypatch
) -> None:
    prior = SlicePrior(ldm, study, fit=fit_block())
    monkeypatch.setattr(prior_module.SCHEDULE, "add_noise", lambda latents, noise, times: latents)
    monkeypatch.setattr(prior_module, "predict_clean", lambda unet, latents, *rest: latents)
    volume = torch.rand(study.head.shape, generator=torch.Generator().manual_seed(0))
    assert prior.visit(volume) == 0.0
    assert float(prior.penalty(volume)) == pytest.approx(0, abs=1e-9)


def test_visits_depend_on_the_seed_and_on_nothing_else(study: Study, ldm: TrainedModel) -> None:
    volume = torch.rand(study.head.shape, generator=torch.Generator().manual_seed(0))
    first, same, other = (SlicePrior(ldm, study, fit=fit_block(seed=seed)) for seed in (0, 0, 1))
    for prior in (first, same, other):
        for _ in range(3):
            prior.visit(volume)
    assert torch.equal(first.total, same.total) and not torch.equal(first.total, other.total)
    assert torch.isfinite(first.total).all()


def test_a_prior_of_studies_is_told_least_squares_and_what_the_scans_cover(
    tiny_head, ldm: TrainedModel, monkeypatch
) -> None:
    """An axial scan of the whole head and a sagittal one of a part of it, seen in all three planes together."""
    truth, grid = tiny_head
    scans = []
    for view, axis, slices in (("axial", 2, slice(None)), ("sagittal", 0, slice(1, 3))):
        scan = grid.thick(axis, 4)
        start, shape = [0, 0, 0], list(scan.shape)
        start[axis], shape[axis] = slices.start or 0, len(range(scan.shape[axis])[slices])
        operator = Acquisition(grid, scan.block(tuple(start), tuple(shape)), axis=axis)
        scans.append(Measurement(view, operator, operator.forward(torch.from_numpy(truth)), 0.01))
    study = Study(grid, tuple(scans), 1.0, 0.0, "some", "KEY")
    prior = SlicePrior(ldm._replace(told="least_squares"), study, fit=fit_block())
    assert [family.order for family in prior.families] == [(0, 2, 1), (1, 2, 0), (2, 0, 1)]
    asked = []
    change = SlicePrior._change
    monkeypatch.setattr(
        SlicePrior, "_change", lambda self, *words: asked.append((words[1], change(self, *words))) or asked[-1][1]
    )
    volume = torch.rand(grid.shape, generator=torch.Generator().manual_seed(0))
    for _ in range(3):
        prior.visit(volume)
    planes, start = StudyPlanes(Evidence.of(study), grid.voxel_size), Evidence.of(study).start[0, 0]
    for plane, (condition, (wanted, _)) in enumerate(asked):
        whole = planes.condition(plane)
        known = [
            next(n for n in range(len(whole.image)) if torch.equal(whole.image[n], one)) for one in condition.image
        ]
        torch.testing.assert_close(condition.image[:, 0], start.permute(planes.order(plane))[known])
        assert all(torch.equal(one, other[known]) for one, other in zip(condition, whole, strict=True))
        assert wanted.shape == condition.image[:, 0].shape and wanted.isfinite().all()
    sagittal, coronal, _ = (condition for condition, _ in asked)
    assert set(coronal.shown.unique().tolist()) == {1.0, 2.0} and set(sagittal.shown.unique().tolist()) <= {1.0, 2.0}


@pytest.mark.parametrize("told", ["spline", "least_squares"])
def test_a_fit_with_a_prior_ends_consistent_and_says_what_the_prior_wanted(measure, ldm: TrainedModel, told) -> None:
    ldm = ldm._replace(told=told)
    method = build(MethodRecipe, {"kind": "inr", "prior": "ldm", "fit": FIT}, "inr_prior")
    estimate = estimate_of(load_study(measure(["axial"])), method, {"ldm": ldm})
    assert all(entry["rms_after"] <= entry["allowed"] for entry in estimate.record["consistency"]["views"])
    assert any("prior_change" in line for line in estimate.history)


def test_the_prior_pulls_the_fit(measure, ldm: TrainedModel) -> None:
    study = load_study(measure(["axial"]))
    alone, pulled = (
        fit_field(study, build(MethodRecipe, {"kind": "inr", "fit": {**FIT, **fit}, **prior}, "inr"), {"ldm": ldm})
        for fit, prior in (({"prior_weight": 0.0}, {}), ({}, {"prior": "ldm"}))
    )
    assert np.abs(alone.volume - pulled.volume).max() > 1e-4


def test_a_prior_sees_coarse_slices_as_they_are(tiny_head, ldm: TrainedModel) -> None:
    truth, grid = tiny_head
    operator = stack_operator(grid, Stack("coronal", factors=(2, 1, 2)))
    scan = Measurement("coronal", operator, operator.forward(torch.from_numpy(truth)), 0.0)
    (family,) = SlicePrior(ldm, Study(grid, (scan,), 1.0, 0.0, "some", "KEY"), fit=fit_block()).families
    assert family.order == (1, 2, 0) and family.condition.image.shape == (21, 1, 16, 18)
    condition = family.condition.of(torch.tensor([0, 20]))
    assert condition.plane.tolist() == [1, 1] and (condition.shown == 1).all()
    torch.testing.assert_close(condition.pixel_mm, torch.full((2, 2), 2.5))
    torch.testing.assert_close(condition.thickness_mm, torch.full((2,), 5.0))
