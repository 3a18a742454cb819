"""Slices of blocks, with what least squares makes of the scans simulated from these."""

import pytest
import torch

from headsr.training.data import studies
from headsr.training.data.studies import StudySampler
from headsr.training.data.study_slices import StudySlicePairs

CPU = torch.device("cpu")


@pytest.fixture
def pairs(recipe_of, index):
    """Make the sampler of a recipe, with changes to its data."""

    def make(split="train", **change):
        return StudySlicePairs(recipe_of("ldm_studies", data=change), index, split=split, blind=None, device=CPU)

    return make


def tensors_of(batch):
    return [batch.clean, *batch.condition]


def test_a_batch_is_a_function_of_its_step(pairs):
    batch, again = (pairs().batch(7, 10) for _ in range(2))
    assert batch.clean.shape == batch.condition.image.shape == (10, 1, 16, 16)
    assert all(map(torch.equal, tensors_of(batch), tensors_of(again)))
    few = pairs().batch(7, 6)
    assert all(torch.equal(one, other[:6]) for one, other in zip(tensors_of(few), tensors_of(batch), strict=True))
    for other in (pairs().batch(8, 10), pairs("val").batch(7, 10)):
        assert not torch.equal(other.clean, batch.clean)


def test_what_is_told_of_a_slice_is_least_squares_of_the_scans_of_its_block(pairs, monkeypatch):
    seen = []
    study = StudySampler.batch
    monkeypatch.setattr(StudySampler, "batch", lambda *words: seen.append(study(*words)) or seen[-1])
    batch = pairs(short=0.0).batch(3, 8)
    assert len(seen) == 2, "a block for every four slices"
    for number in range(8):
        block, plane = seen[number // 4], int(batch.condition.plane[number])
        found = 0
        for way in ((0, 2, 1), (0, 1, 2), (1, 2, 0), (1, 0, 2), (2, 1, 0), (2, 0, 1)):
            if way[0] == plane:
                heads, start = (volume[0, 0].permute(way) for volume in (block.heads, block.evidence.start))
                at = (heads == batch.clean[number, 0]).all(-1).all(-1)
                found += any(torch.equal(one, batch.condition.image[number, 0]) for one in start[at])
        assert found == 1
        assert (batch.condition.shown[number] == len(block.evidence.operators)).all()


def test_all_planes_are_drawn_and_no_slice_twice(pairs):
    batch = pairs(per_block=30).batch(1, 30)
    assert set(batch.condition.plane.tolist()) == {0, 1, 2}
    assert len({one.numpy().tobytes() for one in batch.clean}) == 30


def test_slices_that_show_head_come_first(pairs, monkeypatch):
    """Of a block that shows some in three sagittal slices alone: these."""

    def flat(self, step, size=None):
        study = batch(self, step, size)
        study.heads.zero_()[:, :, 3:6, :8] = 1.0
        return study

    batch = StudySampler.batch
    monkeypatch.setattr(StudySampler, "batch", flat)
    drawn = pairs(per_block=8).batch(2, 8)
    full = drawn.clean.mean(dim=(1, 2, 3)) >= 0.25
    assert full.tolist() == [True] * 3 + [False] * 5 and drawn.condition.plane[:3].tolist() == [0] * 3


def test_a_part_of_a_slice_may_be_shown_by_fewer_scans_or_by_none(pairs):
    shown = torch.cat([pairs(short=0.7).batch(step, 4).condition.shown for step in range(12)])
    image = torch.cat([pairs(short=0.7).batch(step, 4).condition.image for step in range(12)])
    assert set(shown.unique().tolist()) == {0.0, 1.0, 2.0, 3.0}
    assert (image[shown == 0] == 0).all() and (image[shown > 0] != 0).any()
    assert any(len(one.unique()) > 1 for one in shown), "within a slice"


def test_blank_slices_have_the_shapes_of_slices(pairs, recipe_of):
    real, blank = pairs().batch(1, 5), StudySlicePairs.blank(recipe_of("ldm_studies"), 5)
    for one, other in zip(tensors_of(real), tensors_of(blank), strict=True):
        assert one.shape == other.shape and one.dtype == other.dtype and other.is_meta


def test_lengths_are_those_of_the_heads(pairs):
    condition = pairs(short=0.0).batch(5, 8).condition
    assert condition.pixel_mm.tolist() == [[2.0, 2.0]] * 8
    thick = condition.thickness_mm
    assert ((thick >= 2 - 1e-5) & (thick <= studies._THICKNESS[1] * 4 * 2.0)).all() and thick.max() > 3
