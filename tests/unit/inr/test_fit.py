import numpy as np
import pytest
import torch

from headsr.acquisition.consistency import allowed, residuals
from headsr.acquisition.measurement import Measurement, Study, load_study
from headsr.acquisition.operator import Acquisition
from headsr.inr.fit import FitError, fit_field
from headsr.recipes import Inr, MethodRecipe, RecipeError, build
from headsr.reconstruct.estimate import FieldEstimate
from headsr.reconstruct.interpolate import fused_average
from headsr.simulate.anatomy import build_anatomy
from headsr.simulate.head import simulate_head
from headsr.volumes import AXES, Grid

ORTHOGONAL = ("axial", "coronal", "sagittal")
FIELD = {"cells": [4, 2, 1], "features": [2, 2, 2], "hidden": 8}


def recipe(**change) -> Inr:
    fit = {"field": FIELD, "steps": 60, "learning_rate": 0.02, "smoothness": 1e-3}
    return build(MethodRecipe, {"kind": "inr", "fit": {**fit, **change}}, "inr")


def fitted(study: Study, **change) -> FieldEstimate:
    return fit_field(study, recipe(**change), {})


def test_three_thick_scans_give_more_than_their_average_and_what_was_measured_stays(measure, psnr_of) -> None:
    study = load_study(measure(ORTHOGONAL))
    estimate = fitted(study)
    volume = estimate.field.evaluate(study.head)
    assert psnr_of(volume) > psnr_of(fused_average(study)) + 2.5
    for scan, residual in zip(study.scans, residuals(torch.from_numpy(volume), study.scans), strict=True):
        assert float(residual.square().mean().sqrt()) <= allowed(scan)
    assert psnr_of(estimate.volume) > psnr_of(fused_average(study)) + 2.5
    assert [entry["view"] for entry in estimate.record["consistency"]["views"]] == list(ORTHOGONAL)
    assert (estimate.field.scale, estimate.field.offset) == (study.scale, study.offset)
    lines = estimate.history
    assert lines[-1]["step"] == 60 and lines[-1]["data"] < lines[0]["data"]


@pytest.mark.parametrize("views", [("axial",), ORTHOGONAL], ids=len)
def test_the_smoothness_is_chosen_within_a_tenth_of_a_decibel_of_the_best(views) -> None:
    head = simulate_head(build_anatomy(), suffix="T1w", voxel_mm=8.0, seed=0, noise=0.0)
    truth = torch.as_tensor(head.data / 1000)
    study, inside = measured(truth, head.grid, views, noise=0.02), truth.numpy() > 0.05
    chosen = fitted(study, smoothness=None)
    weights = [1e-4, 3e-4, 1e-3, 3e-3, 1e-2]
    errors = [np.square(fitted(study, smoothness=w).volume - truth.numpy())[inside].mean() for w in weights]
    error = np.square(chosen.volume - truth.numpy())[inside].mean()
    assert 10 * np.log10(error / min(errors)) < 0.1 < 10 * np.log10(max(errors) / min(errors))
    again = fitted(study, smoothness=chosen.record["smoothness"]["weight"])
    np.testing.assert_array_equal(chosen.volume, again.volume)


def measured(truth: torch.Tensor, head: Grid, views: tuple[str, ...], *, noise: float) -> Study:
    """Scans four times as thick as the head's voxels."""
    generator, scans = torch.Generator().manual_seed(3), []
    for view in views:
        operator = Acquisition(head, head.thick(AXES[view], 4), axis=AXES[view])
        clean = operator.forward(truth)
        data = clean + noise * torch.randn(clean.shape, generator=generator)
        scans.append(Measurement(view, operator, data, noise, clean > 0.05))
    return Study(head, tuple(scans), 1.0, 0.0, "tiny", "KEY")


def test_one_thick_scan_is_no_worse_than_its_spline(measure, psnr_of) -> None:
    study = load_study(measure(["axial"]))
    assert psnr_of(fitted(study).field.evaluate(study.head)) > psnr_of(fused_average(study)) - 0.1


def test_the_same_fit_gives_the_same_field_and_another_seed_does_not(measure) -> None:
    study = load_study(measure(["axial", "coronal"]))
    first, same, other = (fitted(study, steps=5, seed=seed) for seed in (0, 0, 1))
    tensors, others = first.field.tensors, other.field.tensors
    assert all(np.array_equal(tensor, same.field.tensors[name]) for name, tensor in tensors.items())
    assert not all(np.array_equal(tensor, others[name]) for name, tensor in tensors.items())
    assert first.history == same.history != other.history


def test_a_field_can_start_from_nothing(measure, psnr_of) -> None:
    study = load_study(measure(ORTHOGONAL))
    estimate = fitted(study, field={**FIELD, "start": "none"}, steps=120)
    assert psnr_of(estimate.field.evaluate(study.head)) > psnr_of(fused_average(study)) + 1


def test_a_diverging_fit_says_so(measure) -> None:
    with pytest.raises(FitError, match="learning_rate"):
        fitted(load_study(measure(["axial"])), learning_rate=1.0, smoothness=1e38)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"field": {"levels": [2, 1]}}, "unknown key 'levels'"),
        ({"field": {"cells": [2, 1], "features": [2]}}, "must pair up"),
        ({"field": {"cells": [], "features": []}}, "must pair up"),
        ({"field": {"hidden": 0}}, "hidden: 0 is out of range"),
        ({"field": {"start": "zero"}}, "unknown start 'zero'"),
        ({"prior_weight": 0.1}, "weighs a prior, and none is named"),
    ],
)
def test_recipes_that_do_not_work_are_refused(change: dict, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        recipe(**change)
