import dataclasses
import json

import numpy as np
import pytest
import torch

from headsr.acquisition.operator import Acquisition
from headsr.degrade.pipeline import BlindDegradation
from headsr.recipes import Blind, BlindStage, RecipeError
from headsr.volumes import Grid, Volume, spline_resample

STAGE = BlindStage(
    blur_probability=0.8,
    blur_sigma_mm=(0.2, 1.5),
    thick_factor=(2.0, 6.0),
    thick_probability=0.8,
    noise_probability=0.8,
    noise_sigma=(0.002, 0.05),
    correlated_noise_probability=0.5,
    ringing_probability=0.5,
    ringing_cutoff=(0.5, 0.95),
    compression_probability=0.5,
    compression_quality=(50.0, 95.0),
)
QUIET = dataclasses.replace(STAGE, noise_probability=0.0)
NOTHING = dataclasses.replace(
    STAGE, **{f"{name}_probability": 0.0 for name in ("blur", "thick", "noise", "ringing", "compression")}
)


def blind(stage=STAGE, second=0.5, order="fixed"):
    return BlindDegradation(Blind(first=stage, second=stage, second_probability=second, order=order))


def slices(n=8, shape=(37, 24)):
    rows, columns = (torch.linspace(-1, 1, size) for size in shape)
    disc = (rows[:, None] ** 2 + columns**2 < 0.6).float()
    return disc * (0.6 + 0.3 * torch.sin(torch.arange(n)[:, None, None, None] + 6 * columns + 9 * rows[:, None]))


def pixels(n):
    return torch.tensor([[1.0, 0.8]]).repeat(n, 1)


@pytest.mark.parametrize("order", ["fixed", "shuffled"])
@pytest.mark.parametrize("shape", [(37, 24), (8, 33), (64, 64)])
def test_same_shape_finite_and_changed(order, shape):
    images = slices(8, shape)
    degraded = blind(order=order)(images, pixels(8), list(range(8)))
    assert degraded.images.shape == images.shape and degraded.images.dtype == torch.float32
    assert torch.isfinite(degraded.images).all()
    assert (degraded.images - images).abs().amax(dim=(1, 2, 3)).min() > 1e-4


@pytest.mark.parametrize("order", ["fixed", "shuffled"])
def test_a_sample_does_not_depend_on_its_batch(order):
    degrade, images, seeds = blind(order=order), slices(8), [11, 5, 3, 8, 9, 1, 2, 4]
    together = degrade(images, pixels(8), seeds)
    for i in (0, 3, 7):
        alone = degrade(images[i : i + 1], pixels(1), seeds[i : i + 1])
        assert alone.metadata[0] == together.metadata[i]
        torch.testing.assert_close(alone.images[0], together.images[i], rtol=0, atol=2e-6)
    back = degrade(images.flip(0), pixels(8), seeds[::-1])
    torch.testing.assert_close(back.images.flip(0), together.images, rtol=0, atol=2e-6)


def test_same_seeds_same_bytes_and_other_seeds_other_images():
    images = slices(4)
    first, again = (blind()(images, pixels(4), [1, 2, 3, 4]).images for _ in range(2))
    other = blind()(images, pixels(4), [5, 6, 7, 8]).images
    assert torch.equal(first, again)
    assert (first - other).abs().amax(dim=(1, 2, 3)).min() > 1e-4


@pytest.mark.parametrize("order", ["fixed", "shuffled"])
def test_replaying_the_metadata_gives_the_same_image(order):
    images = slices(16)
    degraded = blind(order=order)(images, pixels(16), list(range(16)))
    metadata = json.loads(json.dumps(degraded.metadata))
    assert {len(sample["stages"]) for sample in metadata} == {1, 2}
    assert torch.equal(blind(NOTHING).replay(images, metadata), degraded.images)


@pytest.mark.parametrize("order", ["fixed", "shuffled"])
@pytest.mark.parametrize("value", [0.0, 0.7, -0.2])
def test_a_constant_stays_that_constant_without_noise(order, value):
    images = torch.full((16, 1, 30, 41), value)
    degraded = blind(QUIET, second=1.0, order=order)(images, pixels(16), list(range(16)))
    torch.testing.assert_close(degraded.images, images, rtol=0, atol=5e-6)


def test_nothing_drawn_changes_nothing():
    images = slices(3)
    assert torch.equal(blind(NOTHING)(images, pixels(3), [1, 2, 3]).images, images)


@pytest.mark.parametrize("size", [32, 37])
def test_box_factor_4_is_the_acquisition_and_spline_interpolation_of_a_real_thick_scan(size):
    stage = dataclasses.replace(NOTHING, thick_probability=1.0, thick_factor=(4.0, 4.0))
    images = slices(24, (size, 20))
    degraded = blind(stage, second=0.0)(images, pixels(24), list(range(24)))
    seen = set()
    for image, result, sample in zip(images, degraded.images, degraded.metadata, strict=True):
        draw = sample["stages"][0]["thick"]
        assert draw["factor"] == 4.0
        if draw["profile"] != "box":
            continue
        seen.add(draw["phase"])
        # The slice as a head: its columns along x, one voxel along y, its rows along z.
        head = Grid((20, 1, size), np.diag([0.8, 1.0, 1.0, 1.0]))
        affine = np.diag([0.8, 1.0, 4.0, 1.0])
        affine[2, 3] = 1.5 - 4 * draw["phase"]
        scan = Grid((20, 1, int(np.ceil(size / 4 + draw["phase"]))), affine)
        assert draw["phase"] != 0 or scan.same_as(head.thick(2, 4))
        thick = Acquisition(head, scan, axis=2).forward(image.mT[0, :, None, :])
        expected = spline_resample(Volume(thick.numpy(), scan), head)[:, 0, :].T
        np.testing.assert_allclose(result[0].numpy(), expected, rtol=0, atol=2e-6)
    assert len(seen) > 2


def test_noise_is_added_at_the_low_resolution():
    stage = dataclasses.replace(
        NOTHING, thick_probability=1.0, thick_factor=(4.0, 4.0), noise_probability=1.0, noise_sigma=(0.05, 0.05),
        correlated_noise_probability=0.0,
    )  # fmt: skip
    degraded = blind(stage, second=0.0)(torch.full((8, 1, 64, 64), 1.0), pixels(8), list(range(8))).images
    along_rows, along_columns = degraded.diff(dim=2).std(), degraded.diff(dim=3).std()
    assert along_columns > 2 * along_rows
    assert abs(float(degraded.mean()) - 1.0) < 0.005


def test_noise_stays_after_the_thick_slices_in_any_order():
    degraded = blind(order="shuffled")(slices(40), pixels(40), list(range(40)))
    orders = [stage["order"] for sample in degraded.metadata for stage in sample["stages"]]
    assert all(order.index("thick") < order.index("noise") for order in orders)
    assert len({tuple(order) for order in orders}) > 10


def test_the_second_stage_comes_with_its_probability():
    degraded = blind(NOTHING, second=0.25)(torch.zeros(400, 1, 8, 8), pixels(400), list(range(400)))
    assert 70 < sum(len(sample["stages"]) == 2 for sample in degraded.metadata) < 130


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"thick_factor": (0.5, 4.0)}, "thick_factor"),
        ({"noise_sigma": (0.2, 0.1)}, "noise_sigma"),
        ({"ringing_cutoff": (0.5, 1.5)}, "ringing_cutoff"),
        ({"compression_quality": (50.0, 100.0)}, "compression_quality"),
        ({"blur_probability": 1.2}, "blur_probability"),
    ],
)
def test_impossible_ranges_are_refused_by_name(change, key):
    with pytest.raises(RecipeError, match=rf"degradation\.first\.{key}"):
        blind(dataclasses.replace(STAGE, **change))


def test_unknown_order_is_refused():
    with pytest.raises(RecipeError, match="order"):
        blind(order="random")
