import numpy as np
import pytest
import torch
from scipy.fft import dct, dctn, idctn

from headsr.degrade.ringing import cosine_basis, truncate_both, truncate_columns


@pytest.mark.parametrize("n", [1, 7, 8, 33])
def test_the_basis_is_the_orthonormal_cosine_transform(n):
    np.testing.assert_allclose(cosine_basis(n).numpy(), dct(np.eye(n), axis=0, norm="ortho"), atol=1e-6)


def test_an_edge_rings_and_a_constant_does_not():
    edge = torch.zeros(1, 5, 64)
    edge[..., 32:] = 1
    cut = truncate_columns(edge, torch.tensor([0.27]))
    # Gibbs: the overshoot of a truncated step is about 9 % of its height.
    assert 0.07 < float(cut.max()) - 1 < 0.16 and float(cut.min()) < -0.07
    constant = torch.full((1, 5, 64), 0.4)
    torch.testing.assert_close(truncate_columns(constant, torch.tensor([0.3])), constant, atol=1e-6, rtol=0)


def test_the_whole_width_changes_nothing_and_each_image_has_its_own_cut():
    images = torch.rand(2, 9, 21)
    cut = truncate_columns(images, torch.tensor([1.0, 0.5]))
    torch.testing.assert_close(cut[0], images[0], atol=1e-5, rtol=0)
    assert (cut[1] - images[1]).abs().max() > 0.05


@pytest.mark.parametrize("shape", [(12, 8), (7, 33)])
def test_rows_are_cut_like_columns_and_as_the_cosine_transform_says(shape):
    image, share = np.random.default_rng(0).random(shape), 0.4
    coefficients = dctn(image, norm="ortho")
    for axis, size in enumerate(shape):
        np.moveaxis(coefficients, axis, 0)[np.arange(size) >= share * size] = 0
    cut = truncate_both(torch.as_tensor(image, dtype=torch.float32)[None], torch.tensor([share]))[0]
    np.testing.assert_allclose(cut.numpy(), idctn(coefficients, norm="ortho"), atol=1e-5)


def test_a_taper_rings_less_and_keeps_the_mean():
    edge = torch.zeros(3, 1, 128)
    edge[..., 64:] = 1
    cut = truncate_columns(edge, torch.full((3,), 0.3), torch.tensor([0.0, 0.5, 1.0]))
    overshoot = cut.amax((1, 2)) - 1
    assert overshoot[0] > 0.08 and overshoot[1] < 0.95 * overshoot[0] and overshoot[2] < 0.02
    torch.testing.assert_close(cut.mean((1, 2)), edge.mean((1, 2)), atol=1e-6, rtol=0)
