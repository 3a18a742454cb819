"""Networks that others published, on the slices of scans that are coarse by their scale."""

import numpy as np
import pytest
import torch
from published_networks import rrdb, rrdb_weights, swinir, swinir_weights

from headsr.acquisition.measurement import load_study
from headsr.models.imported import import_model
from headsr.models.shipped import load_shipped
from headsr.recipes import SliceNetwork, Stack
from headsr.reconstruct.slicewise import slice_network


@pytest.mark.parametrize(
    ("weights", "forward", "settings"),
    [
        (rrdb_weights(colours=3, scale=4), rrdb, {"scale": 4}),
        (swinir_weights(colours=3, scale=4, classical=False), swinir, {"scale": 4, "heads": 3, "window": 4}),
    ],
)
def test_an_imported_network_enlarges_the_slices_of_a_scan(simulate, tmp_path, weights, forward, settings) -> None:
    torch.save({"params": weights}, tmp_path / "published.pth")
    import_model(tmp_path / "published.pth", name="published", folder=tmp_path / "weights", license="Apache-2.0")
    models = {"published": load_shipped("published", folder=tmp_path / "weights")}
    study = load_study(simulate(Stack("axial", factors=(4, 4, 1))))
    made = slice_network(study, SliceNetwork(model="published"), models).volume
    in_rows = study.scans[0].data.permute(2, 1, 0)[:, None].expand(-1, 3, -1, -1)
    x, y, z = study.head.shape
    expected = forward(weights, in_rows, **settings).mean(1).permute(2, 1, 0)[:x, :y, :z]
    np.testing.assert_allclose(made, expected, atol=1e-4)
