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
