import numpy as np
import pytest
import torch
from scipy.fft import dct

from headsr.degrade.ringing import cosine_basis, truncate_columns, truncate_rows


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


def test_rows_are_cut_like_columns_and_only_the_first_ones():
    images = torch.rand(1, 12, 8)
    cut = truncate_rows(images, 11, torch.tensor([0.5]))
    torch.testing.assert_close(cut[:, :11].mT, truncate_columns(images[:, :11].mT, torch.tensor([0.5])))
    assert torch.equal(cut[:, 11], images[:, 11])
