import inspect

import numpy as np
import pytest
import torch
from tiny_methods import METHODS

from headsr import recipes
from headsr.acquisition.measurement import load_study
from headsr.recipes import Stack
from headsr.reconstruct.estimate import FieldEstimate, estimate_of
from headsr.weights import TrainedModel


@pytest.mark.parametrize("method", recipes.METHODS.values())
def test_every_method_is_one_function_of_study_recipe_and_models(method):
    asked = ["study", "method", "models"] + ["memory", "label"] * method.tiled
    assert list(inspect.signature(method.part.load()).parameters) == asked


def test_every_method_is_tried_here():
    assert METHODS.keys() == recipes.METHODS.keys()


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_every_method_makes_a_finite_volume_on_the_head_s_grid(measure, models, method):
    study = load_study(measure(["axial", "coronal"]))
    estimate = estimate_of(study, method, models)
    assert estimate.volume.shape == study.head.shape and estimate.volume.dtype == np.float32
    assert np.isfinite(estimate.volume).all() and estimate.volume.std() > 0.1
    assert isinstance(estimate, FieldEstimate) == (method.makes == "field")


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_the_same_study_gives_the_same_volume(measure, models, method):
    paths = measure(["axial", "sagittal"])
    first, again = (estimate_of(load_study(paths), method, models).volume for _ in range(2))
    np.testing.assert_array_equal(first, again)


@pytest.mark.parametrize(
    ("view", "factors", "profile"),
    [
        ("axial", (4, 4, 1), "box"),
        ("coronal", (4, 1, 4), "zoom"),
        ("axial", (2, 2, 3.3), "gaussian"),
        ("sagittal", (2, 2, 3.3), "zoom"),
        ("coronal", (1, 1, 2.5), "box"),
    ],
)
@pytest.mark.parametrize("name", ["spline", "average", "tikhonov", "tv", "slice_network"])
def test_a_scan_that_is_coarse_within_its_slices_gives_a_volume(
    simulate, models, psnr_of, view, factors, profile, name
):
    study = load_study(simulate(Stack(view, profile=profile, factors=factors)))
    volume = estimate_of(study, METHODS[name], models).volume
    assert volume.shape == study.head.shape and np.isfinite(volume).all()
    spikes = name == "tv" and profile == "zoom"  # at a lone point a spike has less total variation than a hill
    assert psnr_of(volume - 0.125 * (name == "slice_network")) > (11.5 if spikes else 12.5)


def test_a_field_is_fitted_to_a_scan_that_is_coarse_within_its_slices(simulate, psnr_of):
    study = load_study(simulate(Stack("axial", factors=(2, 2, 1))))
    estimate = estimate_of(study, METHODS["inr"], {})
    assert psnr_of(estimate.field.evaluate(study.head)) > 15


def test_a_model_that_is_missing_or_of_another_kind_is_refused(measure, models):
    study = load_study(measure(["axial"]))
    with pytest.raises(ValueError, match="slice_network needs the model 'edsr', and it was not given"):
        estimate_of(study, METHODS["slice_network"], {})
    other = TrainedModel("autoencoder", torch.nn.Identity(), "fp32")
    with pytest.raises(ValueError, match=r"'edsr' is a model of kind autoencoder; .* baseline or adversarial"):
        estimate_of(study, METHODS["slice_network"], {"edsr": other})
