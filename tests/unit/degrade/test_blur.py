import math

import numpy as np
import pytest
import torch

from headsr.degrade.blur import (
    REACH,
    covariance,
    gaussian_blur,
    generalised_profiles,
    jinc_profiles,
    low_pass,
    plateau_profiles,
    radial_blur,
    radial_spectra,
)


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


def radial(image, profile, sigma, angle, pixel):
    return radial_blur(
        image,
        torch.full((len(image),), image.shape[1]),
        pixel_mm=torch.tensor([pixel]),
        covariance_mm=REACH**2 * covariance(torch.tensor([sigma]), torch.tensor([angle])),
        spectra=radial_spectra(profile),
    )


def test_the_generalised_kernel_of_exponent_1_is_the_gaussian():
    image = torch.rand(1, 41, 38)
    spread = covariance(torch.tensor([[1.5, 0.6]]), torch.tensor([0.4]))
    expected = gaussian_blur(image, torch.tensor([41]), pixel_mm=torch.ones(1, 2), covariance_mm=spread)
    torch.testing.assert_close(
        radial(image, generalised_profiles(torch.tensor([1.0])), (1.5, 0.6), 0.4, (1.0, 1.0)),
        expected,
        atol=5e-4,
        rtol=0,
    )


@pytest.mark.parametrize("pixel", [(1.0, 1.0), (0.5, 0.8)])
@pytest.mark.parametrize(
    ("profile", "density"),
    [
        (generalised_profiles(torch.tensor([0.6])), lambda r: np.exp(-0.5 * r**1.2)),
        (generalised_profiles(torch.tensor([3.0])), lambda r: np.exp(-0.5 * r**6)),
        (plateau_profiles(torch.tensor([1.0])), lambda r: 1 / (1 + r**2)),
        (plateau_profiles(torch.tensor([1.8])), lambda r: 1 / (1 + r**3.6)),
    ],
)
def test_kernels_sum_to_one_and_have_the_second_moments_of_their_profile(profile, density, pixel):
    sigma, angle = (2.4, 1.8), 0.5
    image = torch.zeros(1, 95, 91)
    image[0, 47, 45] = 1
    blurred = radial(image, profile, sigma, angle, pixel)[0]
    radius = np.linspace(0, REACH, 100_001)[1:]
    # A radial density has half its mean square radius along either axis.
    share = (density(radius) * radius**3).sum() / (density(radius) * radius).sum() / 2
    spread = share * covariance(torch.tensor([sigma]), torch.tensor([angle]))[0]
    expected = torch.stack([spread[0, 0], spread[0, 1], spread[1, 1]])
    torch.testing.assert_close(second_moments(blurred, pixel), expected, rtol=0.03, atol=0.02)
    assert abs(float(blurred.sum()) - 1) < 1e-3


def test_a_spectrum_is_the_hankel_transform():
    radius = np.linspace(0, 1, 200_001)[1:]
    mass = np.exp(-0.5 * (REACH * radius) ** 1.4) * radius
    spectrum = radial_spectra(generalised_profiles(torch.tensor([0.7])))[0]
    for cycles in (0.0, 0.5, 3.25):
        # Along one direction, averaged over the circle.
        turns = np.cos(2 * np.pi * cycles * radius[::50, None] * np.cos(np.linspace(0, 2 * np.pi, 257)[:-1])).mean(1)
        expected = (mass[::50] * turns).sum() / mass[::50].sum()
        assert abs(float(spectrum[int(cycles * 64)]) - expected) < 1e-3


@pytest.mark.parametrize("axis", [1, 2])
def test_the_low_pass_removes_what_is_above_and_keeps_what_is_below_and_constants(axis):
    place = torch.arange(96.0)
    place = (place[:, None] if axis == 1 else place[None, :]).expand(96, 96)
    high, low = (torch.cos(torch.pi * share * (place + 0.5)) for share in (0.75, 0.2))
    images = torch.stack([high, low, torch.full((96, 96), 0.7)])
    passed = low_pass(images, torch.full((3,), 96), cutoff=torch.full((3,), 0.5), radius_px=torch.full((3,), 10.0))
    assert passed[0].abs().max() < 0.02 and (passed[1] - low).abs().max() < 0.05
    torch.testing.assert_close(passed[2], images[2], atol=1e-5, rtol=0)


@pytest.mark.parametrize("reach", [3.3, 5.0, 6.6, 10.0, 20.0, 31.0])
def test_the_low_pass_raises_nothing_by_more_than_a_tenth(reach):
    spectrum = radial_spectra(jinc_profiles(torch.tensor([reach])))[0]
    assert spectrum[0] == 1 and spectrum.max() < 1.1 and spectrum.min() > -0.1


def test_the_low_pass_rings_at_an_edge_alike_in_all_directions():
    rows, columns = torch.arange(96.0)[:, None] - 47.5, torch.arange(96.0) - 47.5
    disc = (rows**2 + columns**2 < 20**2).float()[None]
    passed = low_pass(disc, torch.tensor([96]), cutoff=torch.tensor([0.4]), radius_px=torch.tensor([10.0]))[0]
    assert 1.03 < passed.max() < 1.3 and passed.min() < -0.03
    torch.testing.assert_close(passed, passed.T, atol=1e-5, rtol=0)


def test_a_jinc_has_its_first_zero_where_bessel_says():
    profile = jinc_profiles(torch.tensor([5.0]))[0]
    first = int((profile < 0).nonzero()[0])
    assert abs(5.0 * (first + 0.5) / len(profile) - 3.8317) < 0.02


@pytest.mark.parametrize("shape", [(3, 5), (9, 13), (40, 17)])
def test_kernels_wider_than_the_image_leave_a_constant(shape):
    image = torch.full((1, *shape), 0.4)
    torch.testing.assert_close(radial(image, plateau_profiles(torch.tensor([1.0])), (3.0, 3.0), 0.0, (0.5, 0.5)), image)
