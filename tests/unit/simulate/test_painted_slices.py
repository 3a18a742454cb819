"""Crops painted from stored anatomies, in place of slices cut from heads."""

import numpy as np
import pytest
import torch

from headsr.recipes import ModelRecipe, build, load_config, load_recipes, merged, plain
from headsr.recipes.models import DataRecipe
from headsr.training.data import anatomies, painted_slices
from headsr.training.data.anatomies import Painted
from headsr.training.data.painted_slices import PaintedSliceSampler
from headsr.training.data.slices import SlicePairs
from headsr.training.data.study_slices import StudySlicePairs

CPU = torch.device("cpu")


def sampler(index, split="train", seed=5):
    return PaintedSliceSampler(index, split=split, crop=18, seed=seed, device=CPU)


def test_a_batch_is_a_function_of_seed_split_and_step(index):
    batch, again = (sampler(index).batch(7, 6) for _ in range(2))
    assert batch.images.shape == (6, 1, 18, 18) and batch.pixel_mm.shape == (6, 2) and batch.planes.shape == (6,)
    assert torch.equal(batch.images, again.images) and batch.seeds == again.seeds and len(set(batch.seeds)) == 6
    few = sampler(index).batch(7, 2)
    assert torch.equal(few.images, batch.images[:2]) and few.seeds == batch.seeds[:2]
    for other in (sampler(index).batch(8, 6), sampler(index, seed=6).batch(7, 6), sampler(index, "val").batch(7, 6)):
        assert not torch.equal(other.images, batch.images)


def test_every_plane_is_drawn_and_its_rows_are_what_is_made_thick(index, monkeypatch):
    """Rows of coronal and sagittal crops are z; those of axial ones y or, for thick sagittal slices, x."""

    def positions(head, shape, voxel_mm, **_):
        """Which axis a voxel's number runs along: hundreds are x, tens y, ones z."""
        x, y, z = np.ogrid[tuple(slice(n) for n in shape)]
        block = torch.from_numpy((10000 * x + 100 * y + z).astype(np.float32))
        return block, torch.zeros(shape)

    monkeypatch.setattr(anatomies, "paint", positions)
    batch, seen = sampler(index).batch(0, 40), set()
    for image, plane in zip(batch.images[:, 0], batch.planes.tolist(), strict=True):
        down, across = (image[1, 0] - image[0, 0]).item(), (image[0, 1] - image[0, 0]).item()
        seen.add((plane, down, across))
    assert seen == {(0, 1, 100), (1, 1, 10000), (2, 100, 10000), (2, 10000, 100)}


def test_a_crop_has_the_pixels_of_its_block_and_its_own_head(index, monkeypatch):
    drawn = []
    draw = painted_slices.AnatomySampler.draw

    def recorded(self, step, number):
        drawn.append(draw(self, step, number))
        return drawn[-1]

    monkeypatch.setattr(painted_slices.AnatomySampler, "draw", recorded)
    batch = sampler(index).batch(2, 12)
    assert all(isinstance(one, Painted) and one.block.numel() == 18 * 18 for one in drawn)
    assert batch.pixel_mm[:, 0].tolist() == pytest.approx([one.voxel_mm for one in drawn])
    assert torch.equal(batch.pixel_mm[:, 0], batch.pixel_mm[:, 1])
    assert {one.name for one in drawn} == {"a", "c"}


def test_a_slice_is_painted_for_some_steps_in_a_row(index, monkeypatch):
    painted = []

    def numbered(head, shape, voxel_mm, *, seed, **_):
        """Every pixel has a value of its own, and no slice one of another."""
        painted.append(seed)
        return torch.arange(np.prod(shape)).reshape(shape) + 1000.0 * len(painted), torch.zeros(shape)

    monkeypatch.setattr(anatomies, "paint", numbered)
    visited = PaintedSliceSampler(index, split="train", crop=18, visits=4, seed=5, device=CPU)
    batches = [visited.batch(step, 8) for step in range(4)]
    # At step 0 all are painted; then a quarter of the batch, in turns, at every step.
    assert len(painted) == len(set(painted)) == 8 + 2 * 3
    for number in range(8):
        slices = [int(batch.images[number].min() // 1000) for batch in batches]
        corners = [batch.images[number, 0, 0, 0].item() % 1000 for batch in batches]
        assert len(set(slices)) == (1 if number % 4 == 0 else 2)
        assert len(set(corners)) > 1
        for batch in batches:
            image = batch.images[number, 0]
            assert image.shape == (18, 18) and image.unique().numel() == 18 * 18
            assert image.max() - image.min() < 27 * 27
    assert len({seed for batch in batches for seed in batch.seeds}) == 32


def test_visits_are_a_function_of_the_step(index):
    def batch(step, *earlier):
        visited = PaintedSliceSampler(index, split="train", crop=18, visits=3, seed=5, device=CPU)
        for one in earlier:
            visited.batch(one, 6)
        return visited.batch(step, 6)

    after, alone = batch(7, 4, 5, 6), batch(7)
    assert torch.equal(after.images, alone.images) and torch.equal(after.pixel_mm, alone.pixel_mm)
    assert torch.equal(after.planes, alone.planes) and after.seeds == alone.seeds


def test_a_denoiser_trains_on_slices_of_painted_studies_of_many_voxel_sizes(index):
    model = load_recipes(load_config([])).models["ldm_studies"]
    changes = {"data": {"crop": 24, "per_block": 4}, "budget": {"batch": 12}}
    model = build(ModelRecipe, merged(plain(model), changes), "model")
    batch, again = (StudySlicePairs(model, index, split="train", blind=None, device=CPU).batch(3) for _ in range(2))
    assert torch.equal(batch.clean, again.clean) and torch.equal(batch.condition.image, again.condition.image)
    assert batch.clean.shape == batch.condition.image.shape == (12, 1, 24, 24)
    assert (batch.clean - batch.condition.image).square().mean() < 0.1 * batch.clean.square().mean()
    sizes = batch.condition.pixel_mm.reshape(3, 8)
    assert torch.equal(sizes, sizes[:, :1].expand(-1, 8)) and len(set(sizes[:, 0].tolist())) == 3


@pytest.mark.parametrize("view", ["edge_on", "in_plane"])
def test_2d_networks_train_on_painted_pairs(index, view):
    recipes = load_recipes(load_config([]))
    model = recipes.models["edsr_labels"]
    changes = {"data": {"crop": 24, "view": view}, "budget": {"batch": 4}}
    model, blind = build(ModelRecipe, merged(plain(model), changes), "model"), recipes.blind[model.data.degradation]
    batch, again = (SlicePairs(model, index, split="train", blind=blind, device=CPU).batch(3) for _ in range(2))
    assert batch.clean.shape == batch.degraded.shape == (4, 1, 24, 24)
    assert 0.005 < (batch.clean - batch.degraded).abs().mean() < 0.3
    assert all(map(torch.equal, batch, again))
    # A training asks for its batches in the precision of its network.
    with torch.autocast("cpu", dtype=torch.bfloat16):
        asked = SlicePairs(model, index, split="train", blind=blind, device=CPU).batch(3)
    assert all(map(torch.equal, batch, asked))


def test_slices_of_label_maps_name_datasets():
    slices = {"kind": "slices", "crop": 24, "degradation": "thick_slices", "source": "labels", "datasets": ["synthseg"]}
    assert build(DataRecipe, slices, "data").drawn_from == "labelmaps"
    with pytest.raises(ValueError, match="name the label maps"):
        build(DataRecipe, slices | {"datasets": []}, "data")


def test_only_painted_slices_are_visited_more_than_once():
    slices = {"kind": "slices", "crop": 24, "degradation": "thick_slices", "suffixes": ["T1w"], "visits": 2}
    with pytest.raises(ValueError, match="visits: only painted slices"):
        build(DataRecipe, slices, "data")
    assert build(DataRecipe, slices | {"source": "labels", "datasets": ["synthseg"]}, "data").visits == 2


def test_slices_are_painted_in_the_contrasts_that_are_named(index):
    def painted(*suffixes):
        sampler = PaintedSliceSampler(index, split="train", crop=24, suffixes=suffixes, seed=1, device=CPU)
        return sampler.batch(1, 12).images

    with_any, of_two, of_one = painted(), painted("T1w", "T2w"), painted("T1w")
    alike = [float(torch.equal(one, other)) for one, other in zip(of_two, of_one, strict=True)]
    assert 0 < sum(alike) < 12, "each head is painted in one of the two"
    assert not torch.equal(with_any, of_one)
    assert torch.equal(of_one, painted("T1w"))
