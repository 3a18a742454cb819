from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from torch import nn

from headsr.acquisition.measurement import load_study
from headsr.networks.build import build_network
from headsr.recipes import Budget, Method, Model
from headsr.reconstruct.interpolate import fused_average, spline_of
from headsr.reconstruct.slicewise import edge_on_orders, upsample_slicewise, upsample_volume
from headsr.render.publish import Outputs
from headsr.weights import save_model


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_both_planes_show_the_thick_axis_as_rows(axis: int) -> None:
    orders = edge_on_orders(axis)
    assert {order[0] for order in orders} == {0, 1, 2} - {axis}
    assert all(order[1] == axis and sorted(order) == [0, 1, 2] for order in orders)


@pytest.mark.parametrize("views", [("axial",), ("sagittal", "coronal"), ("axial", "coronal", "sagittal")])
def test_a_network_that_changes_nothing_gives_the_fused_average(measure, views: tuple[str, ...]) -> None:
    study = load_study(measure(views))
    estimate = upsample_slicewise(study, nn.Identity(), precision=None)
    np.testing.assert_allclose(estimate, fused_average(study), atol=1e-6)


def test_the_network_sees_rows_along_the_thick_axis_in_both_planes(measure) -> None:
    study = load_study(measure(["axial"]))

    class Shift(nn.Module):
        """Moves every slice down by one row."""

        def forward(self, slices: torch.Tensor) -> torch.Tensor:
            assert slices.ndim == 4 and slices.shape[1:3] == (1, 16)
            return slices.roll(1, dims=2)

    expected = np.roll(spline_of(study.scans[0], study.head), 1, axis=2)
    np.testing.assert_allclose(upsample_slicewise(study, Shift(), precision=None), expected, atol=1e-6)


def model(kind: str, network: dict) -> Model:
    return Model(kind=kind, network=network, suffixes=("T1w",), budget=Budget(1, 1, 16), learning_rate=1e-3, seed=0)


def test_weights_are_loaded_used_and_recorded(measure, tmp_path: Path) -> None:
    outputs = Outputs(
        tmp_path / "sub-01_res-hi_desc-sr_T1w.ome.zarr/zarr.json",
        tmp_path / "sub-01_res-hi_desc-sr_T1w.nii.gz",
        tmp_path / "sub-01_res-hi_desc-sr_T1w.json",
        tmp_path / "sub-01_res-hi_desc-unprojected_T1w.nii.gz",
    )
    recipe = model("baseline", {"architecture": "residual2d", "channels": 4, "blocks": 1})
    network = build_network("baseline", recipe.network)
    with torch.no_grad():
        network.last.bias.fill_(0.125)
    weights = tmp_path / "edsr" / "weights.safetensors"
    save_model(weights, network, recipe, record={})
    lowres = measure(["axial", "coronal"])
    method = Method(kind="slice_network", title="", model="edsr")
    upsample_volume(lowres, method=method, weights=weights, outputs=outputs)
    study = load_study(lowres)
    unprojected = nib.load(outputs.unprojected).get_fdata() / study.scale
    np.testing.assert_allclose(unprojected, fused_average(study) + 0.125, atol=1e-4)
    assert '"weights_sha256"' in outputs.sidecar.read_text()


def test_weights_of_another_kind_are_refused(measure, tmp_path: Path) -> None:
    recipe = model("autoencoder", {"architecture": "kl", "channels": [4, 4], "blocks": 1, "latent_channels": 2})
    weights = tmp_path / "kl" / "weights.safetensors"
    save_model(weights, build_network("autoencoder", recipe.network), recipe, record={})
    with pytest.raises(ValueError, match="autoencoder"):
        upsample_volume(
            measure(["axial"]), method=Method(kind="slice_network", title=""), weights=weights, outputs=None
        )
