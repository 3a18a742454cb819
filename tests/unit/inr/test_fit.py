import numpy as np
import pytest
import torch

from headsr.acquisition.consistency import allowed, residuals
from headsr.acquisition.measurement import Study, load_study
from headsr.inr.fit import FitError, fit_field
from headsr.recipes import Inr, MethodRecipe, RecipeError, build
from headsr.reconstruct.estimate import FieldEstimate
from headsr.reconstruct.interpolate import fused_average

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
