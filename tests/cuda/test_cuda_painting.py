"""Heads painted on a graphics card are those of the CPU up to rounding."""

import pytest
import torch

from headsr.simulate.store import open_anatomy
from headsr.training.data.anatomies import AnatomySampler, paint

pytestmark = pytest.mark.cuda
SHAPE = (20, 24, 16)


def share_apart(one, other, tolerance=1e-3):
    """The share of voxels that differ by more: a sample that lies on a boundary may fall to either side of it."""
    return float(((one.cpu() - other).abs() > tolerance).float().mean())


@pytest.mark.parametrize("suffix", ["T1w", "FLAIR"])
@pytest.mark.parametrize("voxel_mm", [0.6, 1.0, 1.6])
def test_a_block_is_the_same(balls, suffix, voxel_mm):
    head = open_anatomy(balls.parent / "balls.safetensors")
    (here, lesions_here), (there, lesions_there) = (
        paint(head, SHAPE, voxel_mm, seed=5, device=torch.device(device), suffix=suffix, lesions="severe")
        for device in ("cpu", "cuda")
    )
    assert there.device.type == "cuda" and float(here.std()) > 0.01
    assert share_apart(there, here) < 0.01
    assert share_apart(lesions_there, lesions_here) < 0.01


def test_the_batch_of_a_step_is_the_same(balls):
    here, there = (
        AnatomySampler(balls, split="train", shape=SHAPE, seed=2, device=torch.device(device)).batch(3, 2)
        for device in ("cpu", "cuda")
    )
    assert torch.equal(there.voxel_mm.cpu(), here.voxel_mm) and there.names == here.names
    assert share_apart(there.blocks, here.blocks) < 0.01
