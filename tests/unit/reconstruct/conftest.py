"""What the tests of methods share: outputs, weights, and scans of the tiny head as recipes describe them."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_methods import EDSR, UNROLLED
from torch import nn

from headsr.degrade.lowres import simulate_lowres
from headsr.files import write_json
from headsr.networks.build import build_network
from headsr.recipes import Degradation, Stack
from headsr.render.publish import Outputs
from headsr.volumes import SCANNER, Forms, Grid, save_volume
from headsr.weights import TrainedModel, save_model


@pytest.fixture
def brighter() -> nn.Module:
    """A 2-D network that adds 0.125 to every slice."""
    network = build_network(EDSR.network)
    with torch.no_grad():
        network.last.bias.fill_(0.125)
    return network


@pytest.fixture
def models(brighter: nn.Module) -> dict[str, TrainedModel]:
    torch.manual_seed(0)
    unrolled = build_network(UNROLLED.network).eval().requires_grad_(False)
    return {
        "edsr": TrainedModel("baseline", brighter.eval(), "fp32"),
        "unrolled": TrainedModel("unrolled", unrolled, "fp32"),
    }


@pytest.fixture
def weights(brighter: nn.Module, models: dict[str, TrainedModel], tmp_path: Path) -> dict[str, Path]:
    """The files of the same models."""
    made = {"edsr": (brighter, EDSR), "unrolled": (models["unrolled"].module, UNROLLED)}
    paths = {name: tmp_path / name / "weights.safetensors" for name in made}
    for name, (module, recipe) in made.items():
        save_model(paths[name], module, recipe, record={})
    return paths


@pytest.fixture
def outputs(tmp_path: Path) -> Outputs:
    stem = tmp_path / "out" / "sub-01_res-hi_desc"
    endings = ("-sr_T1w.ome.zarr/zarr.json", "-sr_T1w.nii.gz", "-sr_T1w.json", "-unprojected_T1w.nii.gz")
    return Outputs(*(f"{stem}{ending}" for ending in endings))


@pytest.fixture
def simulate(tiny_head: tuple[np.ndarray, Grid], tmp_path: Path) -> Callable[..., list[Path]]:
    """A function that writes scans of the tiny head, one a stack, and returns their paths."""
    truth, grid = tiny_head
    save_volume(tmp_path / "mask.nii.gz", (truth > 0.1).astype(np.uint8), grid)
    write_json(tmp_path / "truth_T1w.json", {"headsr": {"scale": 800.0, "offset": 3.0}})

    def write(*stacks: Stack, noise_percent: float = 1.0, forms: Forms = SCANNER) -> list[Path]:
        save_volume(tmp_path / "truth_T1w.nii.gz", truth, grid, forms=forms)
        degradation = Degradation("simulated", stacks, noise_percent)
        paths = [tmp_path / f"sub-01_desc-{stack.view}_T1w.nii.gz" for stack in stacks]
        for stack, path in zip(stacks, paths, strict=True):
            simulate_lowres(
                tmp_path / "truth_T1w.nii.gz", path, view=stack.view, degradation=degradation, name="demo/sub-01_T1w",
                degradation_name="some", thickness=None, source_key="KEY", source_path="sub-01/anat/sub-01_T1w.nii",
                head_mask=tmp_path / "mask.nii.gz",
            )  # fmt: skip
        return paths

    return write
