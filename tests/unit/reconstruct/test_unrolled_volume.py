"""The operator-aware network on studies from disk."""

import dataclasses
import json
import math

import numpy as np
import pytest
import torch
from tiny_methods import METHODS, UNROLLED

from headsr.acquisition.measurement import load_study
from headsr.networks.build import build_network
from headsr.networks.unrolled import Correction
from headsr.recipes import Stack
from headsr.reconstruct import unrolled
from headsr.reconstruct.estimate import estimate_of
from headsr.reconstruct.publish import reconstruct_volume
from headsr.reconstruct.tikhonov import tikhonov
from headsr.reconstruct.unrolled import refine, tiles_of
from headsr.render import progress
from headsr.volumes import load_volume
from headsr.weights import TrainedModel, save_model

ORTHOGONAL = ("axial", "coronal", "sagittal")


@pytest.fixture
def network():
    """One whose every part does a little."""
    torch.manual_seed(0)
    built = build_network(UNROLLED.network)
    for parameter in built.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    return built.eval().requires_grad_(False)


@pytest.fixture
def models(network):
    return {"unrolled": TrainedModel("unrolled", network, "fp32")}


@pytest.mark.parametrize("stacks", [
    [Stack("axial", 4)],
    [Stack(view, 3.3, profile="gaussian") for view in ORTHOGONAL],
    [Stack("sagittal", 4, thickness=3), Stack("coronal", 2, thickness=2.5)],
    [Stack("axial", factors=(2, 2, 3.3))],
    [Stack("isotropic", 2)],
], ids=str)  # fmt: skip
def test_any_scans_give_a_head_and_how_far_it_may_be_off(simulate, models, stacks) -> None:
    study = load_study(simulate(*stacks))
    estimate = estimate_of(study, METHODS["unrolled"], models)
    assert estimate.volume.shape == estimate.uncertainty.shape == study.head.shape
    assert np.isfinite(estimate.volume).all() and (estimate.uncertainty > 0).all()


def test_without_corrections_it_is_near_to_least_squares(measure, psnr_of) -> None:
    study = load_study(measure(ORTHOGONAL))
    untrained = TrainedModel("unrolled", build_network(UNROLLED.network).requires_grad_(False), "fp32")
    estimate = estimate_of(study, METHODS["unrolled"], {"unrolled": untrained})
    assert psnr_of(estimate.volume) > psnr_of(tikhonov(study, weight=1e-3, iterations=20)) - 0.5


def test_tiles_change_nothing(measure, models) -> None:
    study = load_study(measure(ORTHOGONAL))
    whole, tiled = (refine(study, models["unrolled"], at_once=voxels) for voxels in (None, 0))
    for one, other in zip(whole[:2], tiled[:2], strict=True):
        assert float((one - other).abs().max()) < 1e-4


def test_every_voxel_that_is_corrected_is_counted_and_shown(measure, network, models, monkeypatch, capsys) -> None:
    study, corrected = load_study(measure(ORTHOGONAL)), []
    monkeypatch.setattr(unrolled, "_LEAST_AT_ONCE", 0)
    monkeypatch.setattr(Correction, "halo", 4)  # its own is larger than this head
    monkeypatch.setattr(progress, "_SECONDS_BETWEEN_LINES", {True: 0, False: 0})
    hooks = [
        stage.register_forward_hook(lambda _, inputs, __: corrected.append(math.prod(inputs[0].shape[2:])))
        for stage in network.corrections
    ]
    estimate_of(study, METHODS["unrolled"], models, memory=0, label="head")
    for hook in hooks:
        hook.remove()
    tiles = tiles_of(study.head, network, 0)
    assert corrected == tiles * len(network.corrections) and sum(tiles) > math.prod(study.head.shape)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(corrected) > 2 and lines[-1].endswith(" 0 s left")
    assert all(line.startswith(f"head, {len(network.corrections)} stages of {len(tiles)} tiles: ") for line in lines)
    estimate_of(study, METHODS["unrolled"], models)
    assert capsys.readouterr().out == "" and not network.corrections[0]._forward_hooks


def test_brighter_scans_give_a_brighter_head(measure, network) -> None:
    """But for the absolute brightness, which it also sees, it works in units of the head's own detail."""
    for correction in network.corrections:
        torch.nn.init.zeros_(correction.first.weight[:, :1])
    study = load_study(measure(["axial"], noise=0.0))
    scans = tuple(dataclasses.replace(scan, data=2 * scan.data) for scan in study.scans)
    one, other = (
        refine(part, TrainedModel("unrolled", network, "fp32"), at_once=None).volume
        for part in (dataclasses.replace(study, scans=study.scans), dataclasses.replace(study, scans=scans))
    )
    # Noise counts for less in a brighter scan: no more than a few percent of the detail.
    assert float((other - 2 * one).abs().max()) < 0.1 * float(one.max())


def test_the_uncertainty_is_published_beside_the_volume(measure, network, outputs, tmp_path) -> None:
    weights = tmp_path / "unrolled" / "weights.safetensors"
    save_model(weights, network, UNROLLED, record={})
    label = outputs.preview.with_name("sub-01_res-hi_desc-uncertainty_T1w.nii.gz")
    kept = dataclasses.replace(outputs, uncertainty=label)
    reconstruct_volume(measure(["axial"]), method=METHODS["unrolled"], weights={"unrolled": weights}, outputs=kept)
    half = load_volume(label)
    assert half.data.shape == load_volume(outputs.preview).data.shape and half.data.min() > 0
    said = json.loads(label.with_name("sub-01_res-hi_desc-uncertainty_T1w.json").read_text())
    assert "90 %" in said["Description"] and said["headsr"]["method"]["kind"] == "unrolled"
