"""A 2-D network on the slices of a scan: across its thick slices once it is interpolated, or its own ones, which are
coarse, interpolated or as they are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from headsr.acquisition.measurement import Measurement, Study
from headsr.acquisition.operator import Acquisition
from headsr.devices import choose_precision
from headsr.recipes import SliceNetwork
from headsr.reconstruct.estimate import Estimate
from headsr.reconstruct.interpolate import spline_of
from headsr.volumes import Grid, Volume, spline_resample

if TYPE_CHECKING:
    from headsr.weights import TrainedModel

_BATCH = 8
_OFF = 0.1  # by how much of it a scan may be coarser or finer than what a network undoes


def slice_network(study: Study, method: SliceNetwork, models: Mapping[str, TrainedModel]) -> Estimate:
    """The estimate of a trained 2-D network (recipes.SliceNetwork)."""
    model = models[method.model]
    precision = choose_precision(model.precision, study.scans[0].data.device)
    return Estimate(upsample_slicewise(study, model.module, precision=precision))


@torch.no_grad()
def upsample_slicewise(study: Study, network: nn.Module, *, precision: torch.dtype | None) -> NDArray[np.float32]:
    """The mean over all scans, and over the planes of each, of what the network makes of their slices.

    ``network`` maps slices (N, 1, H, W) of the interpolated scans, in the planes of ``slice_orders``, or, if it makes
    slices larger (its ``scale``), the scans' own; ``precision`` None is fp32. Returns (X, Y, Z). ValueError for scans
    that are not coarse by its scale.
    """
    total, count = torch.zeros(study.head.shape, device=study.scans[0].data.device), 0
    for scan in study.scans:
        for estimate in _estimates(scan, study.head, network, precision):
            total += estimate
            count += 1
    return (total / count).cpu().numpy()


def _estimates(scan: Measurement, head: Grid, network: nn.Module, precision: torch.dtype | None) -> Iterator[Tensor]:
    """What the network makes of a scan, on the head's grid (X, Y, Z): one for each plane that its slices are seen in.

    Where it makes the scan's own slices larger, they are interpolated as far as the grids differ.
    """
    scale, device = getattr(network, "scale", 1), scan.data.device
    if scale > 1:
        order = _own_plane(scan, scale)
        finer = _in_plane(network, scan.data, order, precision).cpu().numpy()
        grid = scan.operator.scan.resized(finer.shape)
        yield torch.as_tensor(spline_resample(Volume(finer, grid), head), device=device)
        return
    interpolated = torch.as_tensor(spline_of(scan, head), device=device)
    for order in slice_orders(scan.operator):
        yield _in_plane(network, interpolated, order, precision)


def _own_plane(scan: Measurement, scale: int) -> tuple[int, int, int]:
    """The axes of a scan as (stack, rows, columns) of its own slices, whose pixels a network makes finer by ``scale``.

    ValueError where its rows or columns are not about so many times as coarse as the head's voxels.
    """
    operator = scan.operator
    steps = operator.scan.voxel_size / operator.steps
    in_plane = [i for i in range(3) if i != operator.axis]
    if operator.axis is None or any(abs(steps[i] / scale - 1) > _OFF for i in in_plane):
        coarse = " x ".join(f"{step:.3g}" for step in steps)
        raise ValueError(
            f"the {scan.view} scan has voxels {coarse} times as large as the head's, and the network makes rows and "
            f"columns {scale} times as fine. Name a model for these scans, or another degradation"
        )
    return (operator.axis, in_plane[1], in_plane[0])


def slice_orders(operator: Acquisition) -> list[tuple[int, int, int]]:
    """The axes as (stack, rows, columns) of the planes in which 2-D slices show what a scan leaves out.

    The two planes that show its thick slices edge-on, across the rows; where its own rows and columns are coarse, its
    own plane. The stack axis is also the number of the plane (networks.unet2d.PLANES).
    """
    first, second = (other for other in range(3) if other != operator.axis)
    if operator.coarse_in_plane:
        return [(operator.axis, second, first)]
    return [(first, operator.axis, second), (second, operator.axis, first)]


def _in_plane(network: nn.Module, volume: Tensor, order: tuple[int, int, int], precision: torch.dtype | None) -> Tensor:
    """What the network makes of a volume (x, y, z) slice by slice; ``order`` are its axes of stack, rows, columns."""
    slices = volume.permute(order).contiguous()
    with torch.autocast(slices.device.type, dtype=torch.bfloat16, enabled=precision is not None):
        made = torch.cat([network(batch[:, None])[:, 0].float() for batch in slices.split(_BATCH)])
    return made.permute(tuple(np.argsort(order)))
