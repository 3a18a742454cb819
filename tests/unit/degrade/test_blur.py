import math

import pytest
import torch

from headsr.degrade.blur import covariance, gaussian_blur


def second_moments(image, pixel):
    rows, columns = (torch.arange(size) * p for size, p in zip(image.shape, pixel, strict=True))
    mass = image / image.sum()
    rows = rows[:, None] - (mass * rows[:, None]).sum()
    columns = columns - (mass * columns).sum()
    return torch.tensor([(mass * a * b).sum() for a, b in ((rows, rows), (rows, columns), (columns, columns))])


@pytest.mark.parametrize("pixel", [(1.0, 1.0), (0.5, 1.25)])
@pytest.mark.parametrize("angle", [0.0, 0.6, math.pi / 2])
def test_a_point_becomes_a_gaussian_with_the_covariance_in_mm(pixel, angle):
    image = torch.zeros(1, 61, 47)
    image[0, 30, 23] = 1
    spread = covariance(torch.tensor([[2.5, 1.5]]), torch.tensor([angle]))
    blurred = gaussian_blur(image, torch.tensor([61]), pixel_mm=torch.tensor([pixel]), covariance_mm=spread)[0]
    expected = torch.stack([spread[0, 0, 0], spread[0, 0, 1], spread[0, 1, 1]])
    torch.testing.assert_close(second_moments(blurred, pixel), expected, rtol=0.01, atol=0.02)
    assert abs(float(blurred.sum()) - 1) < 1e-4


def test_the_turned_kernel_is_the_transposed_one():
    turned = covariance(torch.tensor([[2.0, 0.7]]), torch.tensor([math.pi / 2]))
    torch.testing.assert_close(turned, covariance(torch.tensor([[0.7, 2.0]]), torch.tensor([0.0])), atol=1e-6, rtol=0)


def test_rows_beyond_the_image_are_not_looked_at():
    image, spread = torch.rand(1, 33, 20), covariance(torch.tensor([[1.5, 1.5]]), torch.zeros(1))
    other = image.clone()
    other[:, 9:] = 1e6
    pixel = torch.ones(1, 2)
    first, second = (
        gaussian_blur(x, torch.tensor([9]), pixel_mm=pixel, covariance_mm=spread)[:, :9] for x in (image, other)
    )
    assert torch.equal(first, second)


def test_a_vanishing_width_changes_nothing():
    image = torch.rand(2, 15, 22)
    none = covariance(torch.full((2, 2), 1e-3), torch.zeros(2))
    blurred = gaussian_blur(image, torch.tensor([15, 15]), pixel_mm=torch.ones(2, 2), covariance_mm=none)
    torch.testing.assert_close(blurred, image, atol=1e-4, rtol=0)
