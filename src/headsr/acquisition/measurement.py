"""A measured low-resolution scan: intensities with the operator that ties them to the head, on disk and in memory."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from headsr.acquisition.operator import Acquisition
from headsr.acquisition.protocol import Protocol, read_protocol
from headsr.files import head_mask_of, sidecar_of, write_json
from headsr.volumes import AXES, SCANNER, Forms, Grid, load_volume, save_volume


@dataclass(frozen=True, eq=False)
class Measurement:
    """One scan as measured: its operator A, its intensities y (x, y, z) and the standard deviation of its noise.

    ``view`` is what it is called within its study. Where the operator does not cover a sample, its intensity is zero as
    A x is: the sample says nothing of the head. ``head`` (x, y, z; bool) are the samples that see the head, of those
    that are covered; all of these where it is None or holds none of them.
    """

    view: str
    operator: Acquisition
    data: Tensor
    noise: float
    head: Tensor | None = None

    def __post_init__(self) -> None:
        covered = self.operator.covered
        object.__setattr__(self, "data", torch.where(covered, self.data, self.data.new_zeros(())))
        head = covered if self.head is None else self.head & covered
        object.__setattr__(self, "head", head if head.any() else covered)

    def rms(self, residual: Tensor) -> float:
        """The root mean square of a residual (x, y, z) over the head: how much air is around it is no matter."""
        return rms_within(residual, self.head)

    def rms_everywhere(self, residual: Tensor) -> float:
        """The root mean square of a residual (x, y, z) over all covered samples, air too."""
        return rms_within(residual, self.operator.covered)

    def head_voxels(self) -> Tensor:
        """Which voxels of the head's grid (X, Y, Z; bool) its samples of the head see more than those of the air."""
        seen = self.operator.adjoint(self.operator.covered.to(self.data.dtype))
        return (self.operator.adjoint(self.head.to(self.data.dtype)) >= 0.5 * seen) & (seen > 0)


def head_voxels(scans: Sequence[Measurement]) -> Tensor:
    """Which voxels of the head's grid (X, Y, Z; bool) any of the scans sees as the head."""
    return torch.stack([scan.head_voxels() for scan in scans]).any(0)


def rms_within(values: Tensor, where: Tensor) -> float:
    """The root mean square of values over a mask of the same shape."""
    return float((values.double().square() * where).sum().div(where.sum()).sqrt())


@dataclass(frozen=True, eq=False)
class Study:
    """All low-resolution scans of one head, as tensors in normalised intensities, and the grid to reconstruct on.

    Without ``signed`` they are magnitudes, and so is the head: nowhere below zero. ``sources`` are where the dataset
    keeps what each scan was made from, ``forms`` the codes in the header of the first one.
    """

    head: Grid
    scans: tuple[Measurement, ...]
    scale: float
    offset: float
    degradation: str
    source_key: str
    signed: bool = False
    skull_stripped: bool = False
    sources: tuple[str, ...] = ()
    forms: Forms = SCANNER


def save_measurement(
    path: str | os.PathLike[str],
    data: Tensor,
    scan: Grid,
    protocol: Protocol,
    head: NDArray[np.bool_],
    *,
    forms: Forms = SCANNER,
) -> None:
    """Write one low-resolution scan (normalised intensities) and, beside it and first, its protocol and its head mask.

    ``head`` (x, y, z) are the samples that see the head, ``forms`` what the header says that they are in.
    """
    write_json(sidecar_of(path), {"headsr": asdict(protocol)})
    save_volume(head_mask_of(path), head.astype(np.uint8), scan, description="headsr head mask", forms=forms)
    said = f"headsr {protocol.degradation} {protocol.view}"
    save_volume(path, data.cpu().numpy(), scan, description=said, forms=forms)


def load_study(paths: Sequence[str | os.PathLike[str]], *, device: torch.device | str = "cpu") -> Study:
    """Read every low-resolution scan of one head.

    Raises ValueError when the scans do not belong to one head and one intensity scale.
    """
    measurements, protocols, forms = [], [], []
    for path in paths:
        protocol = read_protocol(path)
        volume = load_volume(path)
        operator = Acquisition(
            protocol.head,
            volume.grid,
            axis=AXES.get(protocol.view),
            profile=protocol.profile,
            thickness=protocol.thickness,
            coarse=protocol.coarse,
            device=device,
        )
        data = torch.as_tensor(volume.data, device=device)
        earlier = sum(other.view == protocol.view for other in protocols)
        name = f"{protocol.view}{earlier + 1}" if earlier else protocol.view
        head = torch.as_tensor(load_volume(head_mask_of(path), constant=True).data > 0.5, device=device)
        measurements.append(Measurement(name, operator, data, protocol.noise, head))
        protocols.append(protocol)
        forms.append(volume.forms)
    first = protocols[0]
    for path, protocol in zip(paths, protocols, strict=True):
        if not protocol.head.same_as(first.head) or protocol.scale != first.scale:
            raise ValueError(f"{path}: does not belong with {paths[0]}: another head grid or intensity scale")
    return Study(
        first.head,
        tuple(measurements),
        first.scale,
        first.offset,
        first.degradation,
        first.source_key,
        signed=any(protocol.signed for protocol in protocols),
        skull_stripped=first.skull_stripped,
        sources=tuple(protocol.source for protocol in protocols),
        forms=forms[0],
    )
