import pytest
import torch

from headsr.slices.blocks import BlockSampler


def test_axes_of_a_block_are_x_y_z_and_only_left_and_right_are_exchanged(results):
    sampler = BlockSampler(results / "models" / "any" / "training.json", split="train", shape=(5, 6, 4), seed=1)
    batch = sampler.batch(0, 40)
    assert batch.voxel_mm[0].tolist() == [1.0, 2.0, 3.0]
    steps = [set(batch.blocks.diff(dim=axis).unique().tolist()) for axis in (2, 3, 4)]
    assert steps == [{-100.0, 100.0}, {10.0}, {1.0}]


def test_a_small_head_is_mirrored(results):
    sampler = BlockSampler(results / "models" / "any" / "training.json", split="train", shape=(40, 6, 30), seed=1)
    block = sampler.batch(0, 1).blocks[0, 0]
    assert block.shape == (40, 6, 30)
    assert set(block.diff(dim=0).abs().unique().tolist()) == {0.0, 100.0}


@pytest.mark.parametrize("shape", [(5, 6, 4), (40, 6, 30)])
def test_blocks_of_labels_are_those_of_heads_turned_and_mirrored_alike(results, shape):
    index = results / "models" / "labelled" / "training.json"
    heads, labels = (
        BlockSampler(index, split="train", shape=shape, seed=1, source=source).batch(3, 20)
        for source in ("heads", "labels")
    )
    assert labels.blocks.dtype == torch.int64 and labels.scans == heads.scans
    assert torch.equal(labels.blocks.float(), heads.blocks)


def test_an_index_without_labels_is_refused(results):
    with pytest.raises(ValueError, match="lists no labels of demo/sub-01_T1w"):
        BlockSampler(
            results / "models" / "any" / "training.json", split="train", shape=(5, 6, 4), seed=1, source="labels"
        )
