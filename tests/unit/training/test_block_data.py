"""Blocks of heads, and the studies that are simulated from them."""

from types import SimpleNamespace
from typing import Annotated, Any

import numpy as np
import pytest
import torch

from headsr.recipes import DATA, build
from headsr.recipes.convert import Kinds
from headsr.training.data.patches import PatchSampler
from headsr.training.data.studies import StudySampler, draw_acquisitions

CPU = torch.device("cpu")
STUDIES = {"kind": "studies", "suffixes": ["T1w"], "block": [8, 10, 6], "margin": 2, "factor": [2.0, 3.0]}


def recipe(**data):
    """As much of a model's recipe as data read."""
    block = build(Annotated[Any, Kinds(DATA)], data, "data")
    return SimpleNamespace(data=block, seed=5, kind="any", budget=SimpleNamespace(batch=3))


def test_a_block_is_a_function_of_its_step_and_a_part_of_its_head(index):
    sampler = PatchSampler(
        recipe(kind="patches", suffixes=["T1w"], block=[8, 10, 6]), index, split="train", blind=None, device=CPU
    )
    batch = sampler.batch(4)
    assert batch.blocks.shape == (3, 1, 8, 10, 6) and batch.voxel_mm.tolist() == [[2.0] * 3] * 3
    assert torch.equal(batch.blocks, sampler.batch(4).blocks)
    assert torch.equal(batch.blocks[:2], sampler.batch(4, 2).blocks)
    assert not torch.equal(batch.blocks, sampler.batch(5).blocks)


def sampler(index, **change):
    return StudySampler(recipe(**STUDIES | change), index, split="train", blind=None, device=CPU)


def test_a_study_is_what_its_operators_measure_of_the_blocks(index):
    study = sampler(index, noise=[0.0, 0.0]).batch(7)
    assert study.blocks.shape == (3, 1, 12, 14, 10) and study.blocks[study.inside].shape == (3, 1, 8, 10, 6)
    for operator, scan in zip(study.operators, study.scans, strict=True):
        assert torch.equal(operator.forward(study.blocks), scan)
        assert scan.shape == (3, 1, *operator.scan.shape)
    again = sampler(index, noise=[0.0, 0.0]).batch(7)
    assert all(map(torch.equal, study.scans, again.scans))


def test_noise_is_as_strong_as_it_says(index):
    quiet, noisy = (sampler(index, noise=[level, level]).batch(3, 20) for level in (0.0, 0.02))
    assert noisy.noise == 0.02
    for clean, scan in zip(quiet.scans, noisy.scans, strict=True):
        assert (scan - clean).std().item() == pytest.approx(0.02, rel=0.1)


@pytest.mark.parametrize("tilt", [0.0, 12.0])
def test_every_voxel_that_counts_is_seen_by_every_scan(tilt):
    data = recipe(**STUDIES | {"tilt_degrees": tilt, "scans": [2, 4], "margin": 4}).data
    for seed in range(8):
        operators, _ = draw_acquisitions(data, np.random.default_rng(seed), CPU)
        assert 2 <= len(operators) <= 4 and len({operator.axis for operator in operators[:3]}) == min(3, len(operators))
        for operator in operators:
            seen = operator.adjoint(torch.ones(operator.scan.shape))[4:-4, 4:-4, 4:-4]
            assert seen.min() > 0.05


def test_blank_batches_have_the_shapes_of_batches(index):
    real, blank = sampler(index, scans=[1, 1]).batch(1), StudySampler.blank(recipe(**STUDIES), 3)
    assert real.blocks.shape == blank.blocks.shape and blank.blocks.is_meta
    assert blank.operators[0].forward(blank.blocks).shape == blank.scans[0].shape
