import dataclasses
import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from headsr.acquisition.operator import Acquisition
from headsr.degrade.pipeline import _BLURS, _NOISES, FIXED_ORDER, BlindDegradation
from headsr.recipes import Blind, BlindStage, RecipeError, build, load_config, load_recipes, plain
from headsr.recipes.data import KERNELS, NOISES, RESIZE_MODES
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
NOTHING = dataclasses.replace(STAGE, **{f"{name}_probability": 0.0 for name in FIXED_ORDER})
WIDE = dataclasses.replace(
    STAGE,
    thick_probability=0.5,
    blur_kernels=dict.fromkeys(KERNELS, 1.0),
    resize_probability=0.5,
    resize_scale=(0.4, 1.4),
    resize_modes=dict.fromkeys(RESIZE_MODES, 1.0),
    ringing_taper=(0.0, 0.5),
    noise_kinds=dict.fromkeys(NOISES, 1.0),
    jinc_probability=0.5,
)


def blind(stage=STAGE, second=0.5, order="fixed", **change):
    return BlindDegradation(Blind(first=stage, second=stage, second_probability=second, order=order, **change))


def only(**change):
    """A stage in which nothing happens but what ``change`` says, and no second one."""
    return blind(dataclasses.replace(NOTHING, **change), second=0.0)


def slices(n=8, shape=(37, 24)):
    rows, columns = (torch.linspace(-1, 1, size) for size in shape)
    disc = (rows[:, None] ** 2 + columns**2 < 0.6).float()
    return disc * (0.6 + 0.3 * torch.sin(torch.arange(n)[:, None, None, None] + 6 * columns + 9 * rows[:, None]))


def pixels(n):
    return torch.tensor([[1.0, 0.8]]).repeat(n, 1)


@pytest.mark.parametrize("order", ["fixed", "shuffled"])
@pytest.mark.parametrize("shape", [(37, 24), (8, 33), (64, 64)])
def test_same_shape_finite_and_changed(order, shape):
    images = slices(24, shape)
    degraded = blind(WIDE, order=order)(images, pixels(24), list(range(24)))
    assert degraded.images.shape == images.shape and degraded.images.dtype == torch.float32
    assert torch.isfinite(degraded.images).all() and degraded.images.abs().max() < 3
    assert (degraded.images - images).abs().amax(dim=(1, 2, 3)).min() > 1e-4


@pytest.mark.parametrize("order", ["fixed", "shuffled"])
@pytest.mark.parametrize("shape", [(37, 24), (64, 64)])
@settings(max_examples=5, derandomize=True)
@given(chosen=st.lists(st.integers(0, 19), min_size=1, max_size=20, unique=True))
def test_a_sample_does_not_depend_on_its_batch(order, shape, chosen):
    degrade, images = blind(WIDE, order=order, bias_probability=0.5), slices(20, shape)
    together = degrade(images, pixels(20), list(range(20)))
    some = degrade(images[chosen], pixels(len(chosen)), chosen)
    assert some.metadata == [together.metadata[i] for i in chosen]
    # Bit-equal on a CPU: whatever a batch shares, matrix products and transforms treat each image alike.
    assert torch.equal(some.images, together.images[chosen]) and torch.equal(some.clean, together.clean[chosen])


def test_same_seeds_same_bytes_and_other_seeds_other_images():
    images = slices(4)
    first, again = (blind()(images, pixels(4), [1, 2, 3, 4]).images for _ in range(2))
    other = blind()(images, pixels(4), [5, 6, 7, 8]).images
    assert torch.equal(first, again)
    assert (first - other).abs().amax(dim=(1, 2, 3)).min() > 1e-4


@pytest.mark.parametrize("order", ["fixed", "shuffled"])
def test_replaying_the_metadata_gives_the_same_image(order):
    images = slices(32)
    degraded = blind(WIDE, order=order, bias_probability=0.5)(images, pixels(32), list(range(32)))
    metadata = json.loads(json.dumps(degraded.metadata))
    assert {len(sample["stages"]) for sample in metadata} == {1, 2}
    stages = [stage for sample in metadata for stage in sample["stages"]]
    assert {stage["blur"]["kernel"] for stage in stages if stage["blur"]} == set(KERNELS)
    assert {stage["noise"]["kind"] for stage in stages if stage["noise"]} == set(NOISES)
    assert {stage["resize"]["mode"] for stage in stages if stage["resize"]} == set(RESIZE_MODES)
    again = blind(NOTHING).replay(images, metadata)
    assert torch.equal(again.images, degraded.images) and torch.equal(again.clean, degraded.clean)


@pytest.mark.parametrize("order", ["fixed", "shuffled"])
@pytest.mark.parametrize("value", [0.0, 0.7, -0.2])
def test_a_constant_stays_that_constant_without_noise(order, value):
    images = torch.full((32, 1, 30, 41), value)
    quiet = dataclasses.replace(WIDE, noise_probability=0.0)
    degraded = blind(quiet, second=1.0, order=order)(images, pixels(32), list(range(32)))
    torch.testing.assert_close(degraded.images, images, rtol=0, atol=5e-6)


def test_nothing_drawn_changes_nothing():
    images = slices(3)
    degraded = blind(NOTHING)(images, pixels(3), [1, 2, 3])
    assert torch.equal(degraded.images, images) and torch.equal(degraded.clean, images)


ALONE = {
    "isotropic": {"blur_probability": 1.0, "blur_kernels": {"isotropic": 1.0}},
    "generalised": {"blur_probability": 1.0, "blur_kernels": {"generalised_isotropic": 1.0}},
    "plateau": {"blur_probability": 1.0, "blur_kernels": {"plateau_anisotropic": 1.0}},
    "jinc kernel": {"blur_probability": 1.0, "blur_kernels": {"jinc": 1.0}},
    "resize": {"resize_probability": 1.0},
    "ringing": {"ringing_probability": 1.0},
    "jinc": {"jinc_probability": 1.0},
    "compression": {"compression_probability": 1.0},
    "rician": {"noise_probability": 1.0},
    "poisson": {"noise_probability": 1.0, "noise_kinds": {"poisson": 1.0}},
    "transmission": {"noise_probability": 1.0, "noise_kinds": {"transmission": 1.0}},
}


@pytest.mark.parametrize("change", ALONE.values(), ids=ALONE.keys())
def test_each_operation_alone_changes_every_image_and_keeps_its_place(change):
    images = slices(12, (48, 40))
    degraded = only(**change)(images, pixels(12), list(range(12))).images
    assert (degraded - images).abs().amax((1, 2, 3)).min() > 1e-4
    # Nothing is shifted: any shift of a pixel would fit worse.
    here = ((degraded - images) ** 2).mean((1, 2, 3))
    for shift, dims in ((1, 2), (-1, 2), (1, 3), (-1, 3)):
        assert (((degraded - images.roll(shift, dims)) ** 2).mean((1, 2, 3)) > here).all()


@pytest.mark.parametrize("mode", RESIZE_MODES)
def test_resizing_has_the_size_asked_for_and_is_undone_on_the_same_grid(mode):
    ramp = torch.linspace(0, 1, 60)[:, None].expand(60, 50) + torch.linspace(0, 1, 50)
    stage = {"resize_probability": 1.0, "resize_scale": (0.5, 0.5), "resize_modes": {mode: 1.0}}
    degraded = only(**stage)(ramp.expand(4, 1, 60, 50), pixels(4), list(range(4))).images[0, 0]
    # At half the size nearest, by cells, takes the later of two pixels that are equally near: half a pixel further on.
    shift = 0.5 / 59 + 0.5 / 49 if mode == "nearest" else 0.0
    torch.testing.assert_close(degraded[8:-8, 8:-8], ramp[8:-8, 8:-8] + shift, atol=2e-3, rtol=0)


def test_where_slices_are_thick_only_the_columns_are_resized():
    stage = {"thick_probability": 1.0, "thick_factor": (4.0, 4.0), "resize_probability": 1.0}
    stage |= {"resize_scale": (0.5, 0.5), "resize_modes": {"area": 1.0}}
    rows_only = torch.rand(1, 1, 40, 1).expand(4, 1, 40, 32)
    both = only(**stage)(rows_only, pixels(4), list(range(4))).images
    thick = only(**{**stage, "resize_probability": 0.0})(rows_only, pixels(4), list(range(4))).images
    torch.testing.assert_close(both, thick, atol=1e-5, rtol=0)


@pytest.mark.parametrize("on", ["both", "low"])
def test_a_bias_field_is_on_what_the_recipe_says(on):
    images = torch.full((6, 1, 40, 40), 0.5)
    degraded = blind(NOTHING, bias_probability=1.0, bias_strength=(0.2, 0.3), bias_on=on)(
        images, pixels(6), list(range(6))
    )
    strength = torch.tensor([sample["bias"]["strength"] for sample in degraded.metadata])
    torch.testing.assert_close(degraded.images.amax((1, 2, 3)), 0.5 * (1 + strength))
    torch.testing.assert_close(degraded.images.amin((1, 2, 3)), 0.5 * (1 - strength))
    assert torch.equal(degraded.clean, degraded.images if on == "both" else images)
    assert torch.equal(images, torch.full((6, 1, 40, 40), 0.5))


def test_weights_decide_how_often_a_kind_is_drawn():
    stage = dataclasses.replace(NOTHING, blur_probability=1.0, blur_kernels={"isotropic": 3.0, "jinc": 1.0})
    drawn = blind(stage, second=0.0)(torch.zeros(400, 1, 8, 8), pixels(400), list(range(400))).metadata
    share = sum(sample["stages"][0]["blur"]["kernel"] == "jinc" for sample in drawn) / 400
    assert 0.18 < share < 0.32


def test_photons_are_drawn_alike_in_every_decade():
    stage = dataclasses.replace(NOTHING, noise_probability=1.0, noise_kinds={"poisson": 1.0}, noise_photons=(10.0, 1e5))
    drawn = blind(stage, second=0.0)(torch.zeros(400, 1, 8, 8), pixels(400), list(range(400))).metadata
    photons = torch.tensor([sample["stages"][0]["noise"]["photons"] for sample in drawn])
    assert photons.min() >= 10 and photons.max() <= 1e5 and 800 < photons.median() < 1250


def test_the_last_two_change_places_in_half_of_the_samples_of_the_fixed_order():
    stage = dataclasses.replace(STAGE, jinc_probability=0.5, compression_probability=0.5)
    drawn = blind(stage)(torch.zeros(200, 1, 8, 8), pixels(200), list(range(200))).metadata
    swapped = [
        stage["order"] == [*FIXED_ORDER[:-2], "compression", "jinc"]
        for sample in drawn
        for stage in sample["stages"]
        if stage["jinc"] and stage["compression"]
    ]
    assert 0.3 < sum(swapped) / len(swapped) < 0.7
    others = [s["order"] for sample in drawn for s in sample["stages"] if not (s["jinc"] and s["compression"])]
    assert all(order == list(FIXED_ORDER) for order in others)


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


@pytest.mark.parametrize("deltas", [[], ["config/demo.yaml"]])
def test_the_shipped_recipes_are_possible_and_the_demo_is_narrow(deltas):
    for name, recipe in load_recipes(load_config(deltas)).blind.items():
        degraded = BlindDegradation(recipe)(slices(24), pixels(24), list(range(24)))
        kernels = {s["blur"]["kernel"] for m in degraded.metadata for s in m["stages"] if s["blur"]}
        assert torch.isfinite(degraded.images).all()
        # What the demo trains on is thick_slices.
        assert (kernels <= {"isotropic", "anisotropic"}) == (bool(deltas) and name == "thick_slices")


STAGE_BLOCK, SECOND = plain(STAGE), {"second_probability": 0.5}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"thick_factor": [0.5, 4.0]}, "thick_factor"),
        ({"noise_sigma": [0.2, 0.1]}, "noise_sigma"),
        ({"ringing_cutoff": [0.5, 1.5]}, "ringing_cutoff"),
        ({"compression_quality": [50.0, 100.0]}, "compression_quality"),
        ({"blur_probability": 1.2}, "blur_probability"),
        ({"jinc_probability": -0.1}, "jinc_probability"),
        ({"jinc_cutoff": [0.0, 1.0]}, "jinc_cutoff"),
        ({"resize_scale": [0.0, 1.0]}, "resize_scale"),
        ({"ringing_taper": [0.0, 1.1]}, "ringing_taper"),
        ({"noise_photons": [0.0, 10.0]}, "noise_photons"),
        ({"blur_kernels": {"gauss": 1.0}}, "blur_kernels: unknown blur_kernels 'gauss'"),
        ({"resize_modes": {"area": -1.0}}, "resize_modes.area"),
        ({"noise_kinds": {"rician": 0.0}}, "noise_kinds: at least one weight"),
    ],
)
def test_impossible_ranges_are_refused_by_name(change, message):
    with pytest.raises(RecipeError, match=rf"mild\.first\.{message}"):
        build(Blind, {"first": {**STAGE_BLOCK, **change}, "second": STAGE_BLOCK, **SECOND}, "mild")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"order": "random"}, "order: unknown order 'random'; known: fixed, shuffled"),
        ({"bias_on": "high"}, "bias_on: unknown bias_on 'high'; known: both, low"),
        ({"bias_probability": 2.0}, "bias_probability"),
        ({"bias_strength": [0.2, 1.5]}, "bias_strength"),
        ({"pool": -1}, "pool"),
    ],
)
def test_other_impossible_keys_are_refused_by_name(change, message):
    with pytest.raises(RecipeError, match=rf"mild\.{message}"):
        build(Blind, {"first": STAGE_BLOCK, "second": STAGE_BLOCK, **SECOND, **change}, "mild")


def test_every_name_of_a_recipe_is_implemented_and_no_other():
    assert set(_BLURS) == set(KERNELS)
    assert {kind for kind, _ in _NOISES} == set(NOISES)
