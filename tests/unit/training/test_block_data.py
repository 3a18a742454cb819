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
STUDIES = {"kind": "studies", "suffixes": ["T1w"], "block": [12, 14, 10], "factor": [2.0, 3.0]}


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


def test_a_study_is_what_its_operators_measure_of_the_heads(index):
    batch, again = (sampler(index, noise=[0.0, 0.0]).batch(7) for _ in range(2))
    evidence = batch.evidence
    assert batch.heads.shape == (3, 1, 12, 14, 10) and batch.voxel_mm.tolist() == [[2.0] * 3] * 3
    assert all(map(torch.equal, evidence.scans, again.evidence.scans))
    assert evidence.operators[0].head.shape == tuple(batch.heads.shape[2:])
    for operator, scan in zip(evidence.operators, evidence.scans, strict=True):
        assert torch.allclose(scan, operator.forward(batch.heads), atol=1e-6)


def test_noise_is_as_strong_as_it_says(index):
    found = []
    for step in range(1, 30):
        batch = sampler(index, noise=[0.02, 0.02], tilt_degrees=0).batch(step, 2)
        for a, y, said in zip(batch.evidence.operators, batch.evidence.scans, batch.evidence.noise, strict=True):
            found.append(float((y - a.forward(batch.heads)).std()) / said)
            assert 0.018 <= said <= 0.022
    assert np.mean(found) == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize("tilt", [0.0, 12.0])
def test_every_voxel_is_seen_by_every_scan(tilt):
    data = recipe(**{**STUDIES, "scans": [2, 4], "tilt_degrees": tilt}).data
    for seed in range(30):
        operators, noise = draw_acquisitions(data, np.random.default_rng(seed), CPU)
        assert 2 <= len(operators) == len(noise) <= 4
        assert len({operator.axis for operator in operators[:3]}) == min(3, len(operators))
        for operator in operators:
            seen = operator.adjoint(torch.ones(operator.scan.shape))[4:-4, 4:-4, 4:-4]
            assert seen.min() > 0.05 or operator.thickness < 0.95 * operator.scan.voxel_size[operator.axis]


def test_acquisitions_are_of_every_kind():
    """Alike and not, with gaps and overlaps, whole factors and others, box and Gaussian, turned and not."""
    data = recipe(**{**STUDIES, "scans": [1, 3], "factor": [1.5, 8], "noise": [0.0, 0.05], "tilt_degrees": 10}).data
    drawn = [draw_acquisitions(data, np.random.default_rng(seed), CPU) for seed in range(120)]
    first = [operators[0] for operators, _ in drawn]
    factors = [float(operator.scan.voxel_size[operator.axis]) for operator in first]
    assert min(factors) < 2 and max(factors) > 6.5
    assert 0.3 < np.mean([abs(f - round(f)) < 1e-6 for f in factors]) < 0.6
    assert {operator.profile for operator in first} == {"box", "gaussian"}
    gaps = [operator.thickness / f for operator, f in zip(first, factors, strict=True) if operator.thickness]
    assert min(gaps) < 0.8 and max(gaps) > 1.3 and 0.1 < len(gaps) / len(first) < 0.6
    turned = [np.abs(np.sort(np.abs(operator.scan.affine[:3, :3]), axis=1)[:, :2]).max() > 1e-6 for operator in first]
    noise = [max(said) for _, said in drawn]
    assert 0.1 < np.mean([n == 0 for n in noise]) < 0.4 and max(noise) > 0.03
    assert 0.01 < np.mean(turned) < 0.15


def test_some_scans_end_within_the_head():
    data, short = (recipe(**{**STUDIES, "short": share}).data for share in (0.0, 0.5))
    found = []
    for seed in range(60):
        for operator in draw_acquisitions(short, np.random.default_rng(seed), CPU)[0]:
            seen = operator.adjoint(torch.ones(operator.scan.shape)).movedim(operator.axis, 0).flatten(1).amax(1) > 0
            found.append(float(seen.float().mean()))
            ends = seen.diff().sum()
            assert ends <= 2 or operator.thickness is not None, "a run of slices"
    assert 0.2 < np.mean(np.array(found) < 0.85) < 0.6 and min(found) < 0.6
    whole = draw_acquisitions(data, np.random.default_rng(3), CPU)
    assert whole[1] == draw_acquisitions(recipe(**STUDIES).data, np.random.default_rng(3), CPU)[1]


def test_blank_batches_have_the_shapes_of_batches(index):
    real, blank = sampler(index, scans=[1, 1]).batch(1), StudySampler.blank(recipe(**STUDIES), 3)
    assert real.heads.shape[1:] == blank.heads.shape[1:] and blank.heads.is_meta
    assert blank.evidence.start.shape == blank.heads.shape
