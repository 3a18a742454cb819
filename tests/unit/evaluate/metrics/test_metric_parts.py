"""Every metric by its name."""

import math

import numpy as np
import pytest

from headsr.parts import METRICS

OF_WHAT_IS_FORETOLD = {"coverage", "uncertainty_rank"}
VOXELS = sorted({name for name, metric in METRICS.items() if metric.family == "voxels"} - OF_WHAT_IS_FORETOLD)


@pytest.mark.parametrize("name", VOXELS)
def test_every_voxel_metric_prefers_the_truth(name, compare, truth, mask, volumes):
    metric = METRICS[name]
    measure = metric.load()
    inside = (truth > 0.9) & mask if name == "lesion_contrast" else mask
    value, best = (measure(compare(volume, mask=inside)) for volume in (volumes["linear"], truth))
    assert metric.gain(best, value) > 0


@pytest.mark.parametrize(("value", "than", "gain"), [(0.9, 0.7, 0.2), (1.1, 0.7, 0.2), (1.4, 0.9, -0.3), (1.2, 0.8, 0)])
def test_where_a_metric_has_an_ideal_more_is_not_better(value, than, gain):
    assert METRICS["sharpness"].gain(value, than) == pytest.approx(gain)
    assert METRICS["sharpness"].better == "the nearer to 1 the better"
    assert METRICS["psnr"].gain(value, than) == -METRICS["nrmse"].gain(value, than) == pytest.approx(value - than)


@pytest.mark.parametrize("name", VOXELS)
def test_no_metric_changes_what_it_sees(name, compare, truth, volumes):
    seen = compare(volumes["linear"])
    before = seen.volume.copy()
    value = METRICS[name].load()(seen)
    assert isinstance(value, float)
    assert np.array_equal(seen.volume, before)
    assert METRICS[name].load()(seen) == value, "nor what others see"


def test_every_metric_says_what_it_is():
    for name, metric in METRICS.items():
        assert metric.title and metric.words and not metric.words.endswith("."), name


def test_without_thick_slices_some_have_no_meaning(compare, truth):
    thin = compare(truth, spacings=(1.0, 1.0, 1.0))
    unknown = {name for name in VOXELS if math.isnan(METRICS[name].load()(thin))}
    assert {"seam_ratio", "stripe_peak", "edge_width", "spectrum_z", "fsc_resolution", "sharpness"} <= unknown
    assert unknown.isdisjoint({"psnr", "ssim", "nrmse", "lesion_contrast"})


@pytest.mark.parametrize("name", VOXELS)
@pytest.mark.parametrize("size", [1, 2, 5])
def test_a_lesion_of_few_voxels_is_measured_or_has_no_number(name, size, compare, truth, volumes):
    small = np.zeros(truth.shape, dtype=bool)
    small[30 : 30 + size, 20 : 20 + size, 40 : 40 + size] = True
    value = METRICS[name].load()(compare(volumes["spline"], mask=small))
    assert math.isfinite(value) or math.isnan(value)


@pytest.mark.parametrize("name", VOXELS)
@pytest.mark.parametrize("volume", ["truth", "nothing", "far off"])
def test_any_volume_and_any_truth_are_measured_or_have_no_number(name, volume, compare, truth):
    volumes = {"truth": truth, "nothing": np.zeros_like(truth), "far off": 1e6 * truth}
    assert isinstance(METRICS[name].load()(compare(volumes[volume])), float)
    assert isinstance(METRICS[name].load()(compare(volumes[volume], truth=np.zeros_like(truth))), float)
