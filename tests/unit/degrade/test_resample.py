import numpy as np
import pytest
import torch

from headsr.degrade.resample import STEPS, ThickSlices, interpolate_rows, matrices, mirrored, sample_thick
from headsr.volumes import Grid


@pytest.mark.parametrize("n", [8, 33, 64])
@pytest.mark.parametrize("profile", ["box", "gaussian"])
def test_thick_slices_cover_every_row_and_fit_one_row_more(n, profile):
    for factor in (1.0, 1.125, 2.0, 3.875, 6.0):
        for phase in np.arange(STEPS) / STEPS:
            thick = ThickSlices(factor, phase, profile)
            first, last = thick.centres(n)[[0, -1]]
            assert first - factor / 2 <= -0.5 + 1e-9 and last + factor / 2 >= n - 0.5 - 1e-9
            assert thick.rows(n) <= n + 1
            down, up = matrices(n, thick)
            torch.testing.assert_close(down.sum(1), torch.ones(len(down)))
            torch.testing.assert_close(up.sum(1), torch.ones(n))


def test_without_a_phase_they_are_the_slices_of_a_thick_grid():
    head = Grid((1, 1, 30), np.eye(4))
    scan = head.thick(2, 3.5)
    thick = ThickSlices(3.5, 0.0, "box")
    assert thick.rows(30) == scan.shape[2]
    np.testing.assert_allclose(thick.centres(30), [(scan.affine @ [0, 0, k, 1])[2] for k in range(scan.shape[2])])


def test_box_slices_are_block_means():
    image = torch.rand(1, 25, 5)
    thick = sample_thick(image, 24, [ThickSlices(4.0, 0.0, "box")])
    torch.testing.assert_close(thick[0, :6], image[0, :24].reshape(6, 4, 5).mean(1))
    assert not thick[0, 6:].any()


def test_splines_carry_a_ramp_through():
    image = torch.arange(41.0)[None, :, None].expand(1, 41, 3)
    slices = [ThickSlices(2.5, 0.25, "box")]
    # A box edge inside a cell moves a mean by at most a few hundredths; a wrong convention would by half a row.
    back = interpolate_rows(sample_thick(image, 40, slices), 40, slices)[0, :40]
    torch.testing.assert_close(back[10:30], image[0, 10:30], atol=0.05, rtol=0)


def test_every_image_has_its_own_slices():
    images = torch.rand(1, 33, 4).repeat(2, 1, 1)
    slices = [ThickSlices(2.0, 0.0, "box"), ThickSlices(4.0, 0.5, "gaussian")]
    together = sample_thick(images, 32, slices)
    for i in (0, 1):
        torch.testing.assert_close(together[i : i + 1], sample_thick(images[i : i + 1], 32, slices[i : i + 1]))


def test_mirrored_indices():
    index = mirrored(torch.arange(-4, 7), 3).tolist()
    assert index == [np.pad(np.arange(3), 6, mode="symmetric")[6 + i] for i in range(-4, 7)]
