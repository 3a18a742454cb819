import dataclasses

import pytest
import torch

from headsr.degrade import pipeline
from headsr.recipes import RecipeError
from headsr.training.data.slices import PairPool, Pairs, SlicePairs


@pytest.fixture
def pairs(recipe_of, index, blind):
    """Make the pairs of a recipe, with changes to the blind degradation and to the data."""

    def make(split="train", *, view="edge_on", crop=16, network=None, **change):
        recipe = recipe_of("baseline", data={"view": view, "crop": crop}, network=network or {})
        blinded = dataclasses.replace(blind, **change)
        return SlicePairs(recipe, index, split=split, blind=blinded, device=torch.device("cpu"))

    return make


def test_a_batch_is_a_function_of_its_step(pairs):
    first, second = pairs(), pairs()
    second.batch(0)
    assert all(map(torch.equal, first.batch(7), second.batch(7)))
    assert not torch.equal(first.batch(7).clean, first.batch(8).clean)
    assert first.batch(7).clean.shape == (2, 1, 16, 16)


def test_degraded_slices_are_on_the_same_grid_and_worse(pairs):
    clean, degraded, planes = pairs().batch(3, 8)
    assert degraded.shape == clean.shape
    assert planes.shape == (8,)
    assert 0.01 < (clean - degraded).abs().mean() < 0.3


def test_a_pair_is_the_same_in_any_batch_that_draws_it(pairs):
    drawer = pairs()
    few, many = drawer.batch(3, 2), drawer.batch(3, 9)
    for one, other in zip(few, many, strict=True):
        torch.testing.assert_close(one, other[:2], rtol=0, atol=1e-6)


def test_a_bias_field_on_both_is_in_the_clean_slice_too(pairs):
    plain = pairs().batch(3, 6)
    low, both = (pairs(bias_probability=1.0, bias_on=on).batch(3, 6) for on in ("low", "both"))
    assert torch.equal(low.clean, plain.clean) and torch.equal(low.degraded, both.degraded)
    ratio = (both.clean / plain.clean)[plain.clean > 0.05]
    assert 0.6 - 1e-5 < ratio.min() < 0.85 and 1.15 < ratio.max() < 1.4 + 1e-5


def of_white_noise(drawer):
    drawn = drawer.sampler.batch
    noise = torch.randn(64, 1, 48, 48, generator=torch.Generator().manual_seed(1))
    drawer.sampler.batch = lambda step, size: dataclasses.replace(drawn(step, size), images=noise)
    return drawer


def roughness(images, axis):
    return images.diff(dim=axis).square().mean().item()


def test_in_plane_rows_and_columns_are_coarse_alike(pairs):
    quiet = dataclasses.replace(pairs().degradation.recipe.first, noise_probability=0.0)
    edge_on, in_plane = (of_white_noise(pairs(view=view, first=quiet)).batch(3, 64) for view in ("edge_on", "in_plane"))
    assert torch.equal(edge_on.clean, in_plane.clean)
    spread = in_plane.degraded.var() / edge_on.degraded.var()
    assert 1 / 5 < spread < 1 / 2, "a second mean over three to four pixels, less what splines and borders leave"
    assert roughness(in_plane.degraded, -2) == pytest.approx(roughness(in_plane.degraded, -1), rel=0.3)
    assert roughness(edge_on.degraded, -2) < 0.3 * roughness(edge_on.degraded, -1)


@pytest.mark.parametrize("order", ["fixed", "shuffled"])
def test_in_plane_every_operation_still_has_its_turn(pairs, order, monkeypatch):
    seen = []
    drawer = pairs(view="in_plane", order=order)
    replay = drawer.degradation.replay
    monkeypatch.setattr(drawer.degradation, "replay", lambda images, draws: seen.extend(draws) or replay(images, draws))
    drawer.batch(1, 16)
    for stage in (stage for sample in seen for stage in sample["stages"] if stage["thick"]):
        assert sorted(stage["order"]) == sorted(pipeline.FIXED_ORDER)
        assert stage["order"].index("thick") + 1 == stage["order"].index("resize") < stage["order"].index("noise")


LARGER = {"architecture": "rrdb", "channels": 4, "growth": 2, "blocks": 1, "scale": 4}


def test_a_network_that_makes_slices_larger_is_given_coarse_ones_of_whole_blocks_of_pixels(pairs):
    quiet = dataclasses.replace(
        pairs().degradation.recipe.first,
        **{f"{name}_probability": 0.0 for name in ("blur", "noise", "ringing", "jinc", "compression", "resize")},
    )
    drawer = pairs(view="in_plane", crop=32, network=LARGER, first=quiet, second_probability=0.0)
    draws = []
    replay = drawer.degradation.replay
    drawer.degradation.replay = lambda images, drawn: draws.extend(drawn) or replay(images, drawn)
    clean, degraded, _ = drawer.batch(3, 32)
    assert clean.shape == (32, 1, 32, 32) and degraded.shape == (32, 1, 8, 8)
    boxes = [i for i, sample in enumerate(draws) if sample["stages"][0]["thick"]["profile"] == "box"]
    assert 0 < len(boxes) < 32
    means = torch.nn.functional.avg_pool2d(clean, 4)
    torch.testing.assert_close(degraded[boxes], means[boxes], rtol=0, atol=1e-6)
    assert (degraded - means).abs().mean() < 0.1


def test_a_second_stage_sees_coarse_slices_in_their_own_pixels(pairs):
    second = dataclasses.replace(pairs().degradation.recipe.second, thick_probability=1.0, blur_probability=1.0)
    drawer = pairs(view="in_plane", crop=32, network=LARGER, second=second, second_probability=1.0)
    seen = []
    blur = pipeline._BLURS["isotropic"]
    with pytest.MonkeyPatch.context() as patch:
        for kernel in pipeline._BLURS:
            patch.setitem(pipeline._BLURS, kernel, lambda samples: seen.extend(samples) or blur(samples))
        degraded = drawer.batch(1, 8).degraded
    assert degraded.shape == (8, 1, 8, 8)
    coarse = [sample for sample in seen if sample.fine[0] == 8]
    assert len(coarse) == 8
    (coarse_mm,) = {round(mm, 6) for mm in coarse[0].pixel_mm}
    assert coarse_mm in {4 * round(mm, 6) for mm in drawer.sampler.batch(1, 8).pixel_mm.flatten().tolist()}


def numbered(step):
    """Pairs that say which step made them, and their place in its batch."""
    values = 100 * torch.full((3, 1, 1, 1), float(step)) + torch.arange(3.0).reshape(3, 1, 1, 1)
    return Pairs(values, -values, torch.arange(3))


def pool(pairs=12, seed=1):
    return PairPool(numbered, pairs=pairs, batch=3, seed=seed)


def test_the_pool_passes_pairs_through_until_it_is_full_and_gives_every_pair_once_more():
    mixed = pool()
    batches = [mixed.batch(step) for step in range(200)]
    assert all(torch.equal(batches[step].clean, numbered(step).clean) for step in range(4))
    given = torch.cat([batch.clean.flatten() for batch in batches[4:]]).tolist()
    assert len(set(given)) == len(given) == 3 * 196
    # Twelve are still in the pool.
    everything = {100.0 * step + i for step in range(200) for i in range(3)}
    assert len(everything - set(given)) == 12
    ages = [step - value // 100 for step in range(4, 200) for value in batches[step].clean.flatten().tolist()]
    assert min(ages) == 1 and 3 < sum(ages) / len(ages) < 5  # the mean age is pairs / batch
    assert all(torch.equal(batch.clean, -batch.degraded) for batch in batches)


@pytest.mark.parametrize("start", [0, 1, 2, 4, 7, 31])
def test_a_restarted_pool_goes_on_as_if_it_had_not_stopped(start):
    through, restarted = pool(), pool()
    for step in range(start):
        through.batch(step)
    for step in range(start, start + 6):
        assert torch.equal(through.batch(step).clean, restarted.batch(step).clean)


def test_the_pool_of_a_recipe_is_a_function_of_the_step(pairs):
    through, restarted = pairs(pool=6), pairs(pool=6)
    batches = [through.batch(step) for step in range(1, 9)]
    assert all(map(torch.equal, batches[7], restarted.batch(8)))
    assert not torch.equal(batches[7].clean, pairs().batch(8).clean)
    # Batches of a given size are for validation and statistics: they are never mixed.
    assert torch.equal(through.batch(8, 2).clean, pairs().batch(8).clean)
    with pytest.raises(RecipeError, match=r"pool: 5 pairs must be a multiple of budget\.batch, 2"):
        pairs(pool=5)


def test_splits_do_not_share_crops(pairs):
    assert not torch.equal(pairs().batch(0).clean, pairs("val").batch(0).clean)


def test_a_blank_batch_has_the_shapes_of_a_batch(pairs, recipe_of):
    real, blank = pairs().batch(1), SlicePairs.blank(recipe_of("baseline"), 2)
    assert all(tensor.is_meta for tensor in blank)
    assert [tensor.shape for tensor in real] == [tensor.shape for tensor in blank]
    assert [tensor.dtype for tensor in real] == [tensor.dtype for tensor in blank]
