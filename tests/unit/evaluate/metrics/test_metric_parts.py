"""Every metric by its name."""

import math

import numpy as np
import pytest

from headsr.parts import METRICS

VOXELS = sorted(name for name, metric in METRICS.items() if metric.family == "voxels")


@pytest.mark.parametrize("name", VOXELS)
def test_every_voxel_metric_prefers_the_truth(name, compare, truth, mask, volumes):
    metric = METRICS[name]
    measure = metric.load()
    inside = (truth > 0.9) & mask if name == "lesion_contrast" else mask
    value, best = (measure(compare(volume, mask=inside)) for volume in (volumes["linear"], truth))
    assert (best > value) if metric.larger_is_better else (best < value)


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
