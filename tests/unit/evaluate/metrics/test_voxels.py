"""PSNR, SSIM and NRMSE against known answers and against the libraries."""

import dataclasses

import numpy as np
import pytest
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from headsr.evaluate.metrics import voxels
from headsr.evaluate.metrics.comparison import Comparison
from headsr.evaluate.metrics.voxels import nrmse, psnr, ssim, ssim_map


def volumes(shape=(17, 23, 14), noise=0.1, seed=0):
    rng = np.random.default_rng(seed)
    truth = rng.random(shape, dtype=np.float32)
    return truth, (truth + noise * rng.standard_normal(shape)).astype(np.float32)


def compare(estimate, truth, mask=None, data_range=1.0):
    mask = np.ones(truth.shape, dtype=bool) if mask is None else mask
    return Comparison(estimate, truth, mask, data_range, (1.0, 1.0, 1.0), (1.0, 1.0, 1.0))


def test_psnr_of_a_known_error():
    truth = np.zeros((12, 11, 13), dtype=np.float32)
    assert psnr(compare(truth + 0.1, truth)) == pytest.approx(20.0, abs=1e-4)
    assert psnr(compare(truth + 0.1, truth, data_range=10.0)) == pytest.approx(40.0, abs=1e-4)
    assert psnr(compare(truth, truth)) == float("inf")


def test_only_the_mask_counts():
    truth, estimate = volumes()
    mask = np.zeros(truth.shape, dtype=bool)
    mask[3:9, 4:, :7] = True
    spoilt = np.where(mask, estimate, 1000.0).astype(np.float32)
    assert psnr(compare(spoilt, truth, mask)) == psnr(compare(estimate, truth, mask))
    assert nrmse(compare(spoilt, truth, mask)) == nrmse(compare(estimate, truth, mask))


def test_values_outside_the_range_are_not_clipped():
    truth = np.full((11, 11, 11), 1.5, dtype=np.float32)
    assert psnr(compare(truth + 0.5, truth)) == pytest.approx(20 * np.log10(2), abs=1e-5)
    assert nrmse(compare(truth + 0.5, truth)) == pytest.approx(1 / 3)


def test_whole_volume_agrees_with_the_library():
    truth, estimate = volumes()
    whole = compare(estimate, truth)
    assert psnr(whole) == pytest.approx(peak_signal_noise_ratio(truth, estimate, data_range=1.0), abs=1e-4)
    _, similarity = structural_similarity(
        truth, estimate, data_range=1.0, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, full=True
    )
    # The mean of the whole map, where the library crops the border.
    assert ssim(whole) == pytest.approx(similarity.mean(), abs=1e-5)


def test_the_box_around_the_mask_changes_nothing():
    truth, estimate = volumes((41, 37, 29))
    mask = np.zeros(truth.shape, dtype=bool)
    mask[14:20, 16:21, :6] = True
    whole = ssim_map(estimate, truth, data_range=1.0)[mask].mean(dtype=np.float64)
    assert ssim(compare(estimate, truth, mask)) == pytest.approx(whole, abs=1e-6)


def test_masks_share_the_map_and_each_has_its_own_value(monkeypatch):
    made = []
    monkeypatch.setattr(voxels, "ssim_map", lambda *a, **k: made.append(a[0].shape) or ssim_map(*a, **k))
    truth, estimate = volumes((41, 37, 29))
    head, brain, far = (np.zeros(truth.shape, dtype=bool) for _ in range(3))
    head[4:14, 3:15, 5:16] = brain[6:12, 4:11, 8:13] = far[30:, 30:, 20:] = True
    whole, one = ssim_map(estimate, truth, data_range=1.0), compare(estimate, truth, head)
    for mask, times in ((head, 1), (brain, 1), (far, 2)):
        assert ssim(dataclasses.replace(one, mask=mask)) == pytest.approx(whole[mask].mean(dtype=np.float64), abs=1e-6)
        assert len(made) == times
    assert ssim(compare(truth, truth, brain)) == pytest.approx(1.0), "another volume has a map of its own"


def test_equal_volumes_are_perfect():
    truth, _ = volumes()
    same = compare(truth, truth, truth > 0.5)
    assert (psnr(same), ssim(same), nrmse(same)) == (float("inf"), pytest.approx(1.0), 0.0)


def test_too_small_for_the_window():
    tiny = np.zeros((10, 20, 20), dtype=np.float32)
    with pytest.raises(ValueError, match="at least 11 voxels"):
        ssim_map(tiny, tiny, data_range=1.0)


def test_what_cannot_be_compared_is_refused():
    truth, estimate = volumes()
    with pytest.raises(ValueError, match="empty"):
        compare(estimate, truth, np.zeros(truth.shape, dtype=bool))
    with pytest.raises(ValueError, match="differ"):
        compare(estimate[1:], truth)


def test_ssim_is_that_of_monai():
    import torch
    from monai.metrics import SSIMMetric

    rng = np.random.default_rng(0)
    truth = rng.random((20, 18, 22), dtype=np.float32)
    estimate = (truth + rng.normal(0, 0.1, truth.shape)).astype(np.float32)
    reference = SSIMMetric(spatial_dims=3, data_range=1.0, kernel_type="gaussian", win_size=11, kernel_sigma=1.5)
    theirs = float(reference(torch.as_tensor(estimate)[None, None], torch.as_tensor(truth)[None, None]))
    # MONAI leaves out the border that its window does not fill.
    inside = ssim_map(estimate, truth, data_range=1.0)[5:-5, 5:-5, 5:-5]
    assert inside.mean() == pytest.approx(theirs, abs=1e-4)
