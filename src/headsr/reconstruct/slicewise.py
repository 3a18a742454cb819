"""A 2-D network on the slices of an interpolated scan: across its thick slices, or its own where these are coarse."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from headsr.acquisition.measurement import Study
from headsr.acquisition.operator import Acquisition
from headsr.devices import choose_precision
from headsr.recipes import SliceNetwork
from headsr.reconstruct.estimate import Estimate
from headsr.reconstruct.interpolate import spline_of

if TYPE_CHECKING:
    from headsr.weights import TrainedModel

_BATCH = 8


def slice_network(study: Study, method: SliceNetwork, models: Mapping[str, TrainedModel]) -> Estimate:
    """The estimate of a trained 2-D network (recipes.SliceNetwork)."""
    model = models[method.model]
    precision = choose_precision(model.precision, study.scans[0].data.device)
    return Estimate(upsample_slicewise(study, model.module, precision=precision))


@torch.no_grad()
def upsample_slicewise(study: Study, network: nn.Module, *, precision: torch.dtype | None) -> NDArray[np.float32]:
    """The mean over all scans, and over the planes of each, of what the network makes of the interpolated slices.

    ``network`` maps slices (N, 1, H, W), in the planes of ``slice_orders``; ``precision`` None is fp32. Returns
    (X, Y, Z).
    """
    device = study.scans[0].data.device
    total, count = torch.zeros(study.head.shape, device=device), 0
    for scan in study.scans:
        interpolated = torch.as_tensor(spline_of(scan, study.head), device=device)
        for order in slice_orders(scan.operator):
            slices = interpolated.permute(order).contiguous()
            total.permute(order).add_(_in_batches(network, slices, precision))
            count += 1
    return (total / count).cpu().numpy()


def slice_orders(operator: Acquisition) -> list[tuple[int, int, int]]:
    """The axes as (stack, rows, columns) of the planes in which 2-D slices show what a scan leaves out.

    The two planes that show its thick slices edge-on, across the rows; where its own rows and columns are coarse, its
    own plane. The stack axis is also the number of the plane (networks.unet2d.PLANES).
    """
    first, second = (other for other in range(3) if other != operator.axis)
    if operator.coarse_in_plane:
        return [(operator.axis, second, first)]
    return [(first, operator.axis, second), (second, operator.axis, first)]


def _in_batches(network: nn.Module, slices: Tensor, precision: torch.dtype | None) -> Tensor:
    with torch.autocast(slices.device.type, dtype=torch.bfloat16, enabled=precision is not None):
        return torch.cat([network(batch[:, None])[:, 0].float() for batch in slices.split(_BATCH)])
