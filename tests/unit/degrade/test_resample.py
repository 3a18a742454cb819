import numpy as np
import pytest
import torch

from headsr.degrade.resample import (
    STEPS,
    ThickSlices,
    interpolate_rows,
    matrices,
    mirrored,
    resize_columns,
    resize_matrix,
    resize_rows,
    sample_thick,
)
from headsr.recipes.data import RESIZE_MODES
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
    image = torch.rand(1, 24, 5)
    thick = sample_thick(image, 8, [ThickSlices(4.0, 0.0, "box")])
    torch.testing.assert_close(thick[0, :6], image[0].reshape(6, 4, 5).mean(1))
    assert not thick[0, 6:].any()


def test_splines_carry_a_ramp_through():
    image = torch.arange(40.0)[None, :, None].expand(1, 40, 3)
    slices = [ThickSlices(2.5, 0.25, "box")]
    # A box edge inside a cell moves a mean by at most a few hundredths; a wrong convention would by half a row.
    back = interpolate_rows(sample_thick(image, 17, slices), 40, slices)[0]
    torch.testing.assert_close(back[10:30], image[0, 10:30], atol=0.05, rtol=0)


def test_every_image_has_its_own_slices():
    images = torch.rand(1, 32, 4).repeat(2, 1, 1)
    slices = [ThickSlices(2.0, 0.0, "box"), ThickSlices(4.0, 0.5, "gaussian")]
    together = sample_thick(images, 20, slices)
    for i in (0, 1):
        torch.testing.assert_close(together[i : i + 1], sample_thick(images[i : i + 1], 20, slices[i : i + 1]))


@pytest.mark.parametrize("mode", [*RESIZE_MODES, "spline"])
@pytest.mark.parametrize(("n", "m"), [(40, 40), (40, 10), (40, 23), (33, 47), (8, 9)])
def test_resizing_keeps_the_field_of_view_and_a_constant(mode, n, m):
    weights = resize_matrix(n, m, mode)
    assert weights.shape == (m, n)
    torch.testing.assert_close(weights.sum(1), torch.ones(m))
    if n == m:
        torch.testing.assert_close(weights, torch.eye(n), atol=1e-5, rtol=0)


@pytest.mark.parametrize("mode", ["area", "bilinear", "bicubic", "spline"])
@pytest.mark.parametrize(("n", "m"), [(40, 10), (40, 23), (33, 47)])
def test_a_ramp_stays_that_ramp(mode, n, m):
    # Pixels are cells, so the ramp is read at (i + 0.5) n / m - 0.5; "area" means over whole cells of a larger pixel.
    if mode == "area" and n % m:
        n, m = 3 * m, m
    expected = (torch.arange(m) + 0.5) * n / m - 0.5
    images = torch.arange(float(n)).expand(1, 5, n)
    inside = slice(4, -4) if mode == "spline" else slice(2, -2)
    columns = resize_columns(images, m, [mode])[0, 0, inside]
    torch.testing.assert_close(columns, expected[inside], atol=0.02 if mode == "spline" else 1e-4, rtol=0)
    torch.testing.assert_close(resize_rows(images.mT, m, [mode]).mT, resize_columns(images, m, [mode]))


@pytest.mark.parametrize("mode", ["bilinear", "bicubic", "nearest"])
@pytest.mark.parametrize(("n", "m"), [(40, 10), (40, 23), (33, 47)])
def test_resizing_is_what_torch_interpolates(mode, n, m):
    image = torch.rand(1, 1, 1, n)
    ours = resize_columns(image[0], m, [mode])[0, 0]
    if mode == "bicubic":  # torch takes a = -0.75, Keys and we -0.5
        positions = ((torch.arange(m) + 0.5) * n / m - 0.5)[2:-2]
        near = positions.floor().long()[:, None] + torch.arange(-1, 3)
        x = (near - positions[:, None]).abs()
        keys = torch.where(x <= 1, 1.5 * x**3 - 2.5 * x**2 + 1, -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2)
        inside = (near >= 0).all(1) & (near < n).all(1)
        torch.testing.assert_close(ours[2:-2][inside], (keys * image[0, 0, 0][near.clamp(0, n - 1)]).sum(1)[inside])
        return
    theirs = torch.nn.functional.interpolate(image, (1, m), mode="nearest-exact" if mode == "nearest" else mode)
    torch.testing.assert_close(ours, theirs[0, 0, 0])


def test_area_is_the_mean_over_the_cell():
    image = torch.rand(1, 1, 30)
    torch.testing.assert_close(resize_columns(image, 10, ["area"])[0, 0], image.reshape(10, 3).mean(1))
    # Cells of 1.5 pixels: one whole pixel and half of the next.
    thirds = resize_columns(image, 20, ["area"])[0, 0]
    torch.testing.assert_close(thirds[0], (image[0, 0, 0] + image[0, 0, 1] / 2) / 1.5)


def test_an_unknown_mode_is_refused():
    with pytest.raises(ValueError, match="'cubic'; choose one of area, bilinear, bicubic, nearest"):
        resize_matrix(4, 2, "cubic")


def test_mirrored_indices():
    index = mirrored(torch.arange(-4, 7), 3).tolist()
    assert index == [np.pad(np.arange(3), 6, mode="symmetric")[6 + i] for i in range(-4, 7)]
