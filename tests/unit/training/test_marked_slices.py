"""What is known of a crop without labels."""

import pytest
import torch

from headsr.files import read_json
from headsr.training.data.marked_slices import MarkedSampler, severity

CPU = torch.device("cpu")


@pytest.fixture
def sampler(recipe_of, index, blind):
    return MarkedSampler(recipe_of("slice_encoder"), index, split="train", blind=blind, device=CPU)


def test_every_second_crop_is_degraded(sampler):
    batch = sampler.batch(3, 12)
    clean = sampler.sampler.batch(3, 12).images
    assert torch.equal(batch.images[0::2], clean[0::2])
    assert (batch.degradations[0::2] == 0).all()
    assert (batch.images[1::2] - clean[1::2]).abs().amax(dim=(1, 2, 3)).min() > 0.01
    assert (batch.degradations[1::2, 1] >= 1.5).all(), "slices are three to four pixels thick"


def test_a_batch_is_a_function_of_its_step(sampler, recipe_of, index, blind):
    again = MarkedSampler(recipe_of("slice_encoder"), index, split="train", blind=blind, device=CPU)
    assert all(torch.equal(a, b) for a, b in zip(sampler.batch(7), again.batch(7), strict=True))
    assert not torch.equal(sampler.batch(8).images, sampler.batch(7).images)


def test_positions_go_through_the_head_and_left_is_as_right(sampler, index):
    batch, drawn = sampler.batch(0, 200), sampler.sampler.batch(0, 200)
    counts = {scan["name"]: scan["counts"] for scan in read_json(index)["stores"]}
    for visit, position in zip(drawn.visits, batch.positions[:, 0].tolist(), strict=True):
        n = counts[visit.scan][visit.plane]
        if visit.plane == "sagittal":
            assert position == pytest.approx(abs(visit.number - (n - 1 - visit.number)) / n)
        else:
            assert position == pytest.approx((visit.number + 0.5) / n)
    assert batch.positions.min() >= 0
    assert batch.positions.max() <= 1


def test_a_blank_batch_has_the_shapes_of_a_batch(sampler, recipe_of):
    blank = MarkedSampler.blank(recipe_of("slice_encoder"), 4)
    real = sampler.batch(0, 4)
    assert [(one.shape, one.dtype) for one in blank] == [(one.shape, one.dtype) for one in real]


def test_the_severity_of_known_draws():
    nothing = {"blur": None, "thick": None, "noise": None}
    assert severity([nothing]) == [0.0, 0.0, 0.0]
    blurred = {**nothing, "blur": {"kernel": "isotropic", "sigma_mm": [0.6, 0.6]}}
    wider = {**nothing, "blur": {"kernel": "isotropic", "sigma_mm": [0.8, 0.8]}}
    assert severity([blurred, wider]) == pytest.approx([1.0, 0.0, 0.0]), "variances add up"
    assert severity([{**nothing, "blur": {"kernel": "jinc", "cutoff": 0.5}}])[0] == 0.0
    thick = {"blur": None, "thick": {"factor": 4.0}, "noise": {"kind": "rician", "sigma": 0.05}}
    assert severity([thick]) == pytest.approx([0.0, 2.0, 1.0])
    assert severity([{**nothing, "noise": {"kind": "poisson", "photons": 100.0}}])[2] == pytest.approx(2.0)
