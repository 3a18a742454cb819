"""A 2-D network on the slices of an interpolated scan, along both planes that show its thick slices edge-on."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from headsr.acquisition.measurement import Study, load_study
from headsr.devices import choose_device, choose_precision
from headsr.files import sha256_of
from headsr.recipes import Method
from headsr.reconstruct.interpolate import spline_of
from headsr.reconstruct.projected import publish_projected
from headsr.render.publish import Outputs
from headsr.weights import load_model

_BATCH = 8


def upsample_volume(
    lowres: Sequence[str | os.PathLike[str]],
    *,
    method: Method,
    weights: str | os.PathLike[str],
    outputs: Outputs,
) -> None:
    """Reconstruct with a trained slice network, project and publish. ValueError if the weights are of another kind."""
    device = choose_device()
    trained = load_model(weights, device=device)
    if trained.kind != "baseline":
        raise ValueError(
            f"{weights}: holds a model of kind {trained.kind!r}; slice-wise reconstruction needs a baseline"
        )
    study = load_study(lowres, device=device)
    estimate = upsample_slicewise(study, trained.module, precision=choose_precision(trained.recipe.precision, device))
    record = {"model": method.model, "weights_sha256": sha256_of(weights)}
    publish_projected(estimate, study, method=method, outputs=outputs, record=record)


@torch.no_grad()
def upsample_slicewise(study: Study, network: nn.Module, *, precision: torch.dtype | None) -> NDArray[np.float32]:
    """The mean over all scans, and over both planes of each, of what the network makes of the interpolated slices.

    ``network`` maps slices (N, 1, H, W) whose thick axis is the rows; ``precision`` None is fp32. Returns (X, Y, Z).
    """
    device = study.scans[0].data.device
    total, count = torch.zeros(study.head.shape, device=device), 0
    for scan in study.scans:
        interpolated = torch.as_tensor(spline_of(scan, study.head), device=device)
        for order in edge_on_orders(scan.operator.axis):
            slices = interpolated.permute(order).contiguous()
            total.permute(order).add_(_in_batches(network, slices, precision))
            count += 1
    return (total / count).cpu().numpy()


def edge_on_orders(axis: int) -> list[tuple[int, int, int]]:
    """The orders of axes (stack, rows, columns) of the two planes that contain ``axis``, with ``axis`` as the rows.

    The stack axis is also the number of the plane (networks.unet2d.PLANES).
    """
    first, second = (other for other in range(3) if other != axis)
    return [(first, axis, second), (second, axis, first)]


def _in_batches(network: nn.Module, slices: Tensor, precision: torch.dtype | None) -> Tensor:
    with torch.autocast(slices.device.type, dtype=torch.bfloat16, enabled=precision is not None):
        return torch.cat([network(batch[:, None])[:, 0].float() for batch in slices.split(_BATCH)])
