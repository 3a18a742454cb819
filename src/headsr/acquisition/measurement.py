"""A measured low-resolution scan: intensities with the operator that ties them to the head, on disk and in memory."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from headsr.acquisition.operator import Acquisition
from headsr.files import read_json, sidecar_of, write_json
from headsr.volumes import AXES, Grid, load_volume, save_volume


@dataclass(frozen=True, eq=False)
class Measurement:
    """One scan as measured: its operator A, its intensities y (x, y, z) and the standard deviation of its noise.

    ``view`` is what it is called within its study. Where the operator does not cover a sample, its intensity is zero as
    A x is: the sample says nothing of the head.
    """

    view: str
    operator: Acquisition
    data: Tensor
    noise: float

    def __post_init__(self) -> None:
        object.__setattr__(self, "data", torch.where(self.operator.covered, self.data, self.data.new_zeros(())))

    def rms(self, residual: Tensor) -> float:
        """The root mean square of a residual (x, y, z) over the covered samples."""
        return float((residual.double().square().sum() / self.operator.covered.sum()).sqrt())


@dataclass(frozen=True)
class Protocol:
    """How one low-resolution scan was made; written beside it as JSON.

    ``view`` is axial, coronal or sagittal (the plane of its slices) or isotropic (coarse along all three axes),
    ``thickness`` in mm (None: as thick as its voxels), ``noise`` a standard deviation in the scan's normalised
    intensities, ``head_shape`` and ``head_affine`` the grid to reconstruct on, and normalised intensity * ``scale`` +
    ``offset`` gives the original scan's units. ``coarse`` are the axes along which it is coarse, where it is not across
    its slices alone.
    """

    view: str
    profile: str
    thickness: float | None
    noise: float
    head_shape: tuple[int, int, int]
    head_affine: tuple[tuple[float, ...], ...]
    scale: float
    offset: float
    degradation: str
    source_key: str
    coarse: tuple[int, ...] | None = None

    @property
    def head(self) -> Grid:
        """The grid to reconstruct on."""
        return Grid(tuple(self.head_shape), self.head_affine)


@dataclass(frozen=True, eq=False)
class Study:
    """All low-resolution scans of one head, as tensors in normalised intensities, and the grid to reconstruct on."""

    head: Grid
    scans: tuple[Measurement, ...]
    scale: float
    offset: float
    degradation: str
    source_key: str


def save_measurement(path: str | os.PathLike[str], data: Tensor, scan: Grid, protocol: Protocol) -> None:
    """Write one low-resolution scan (normalised intensities) and its protocol beside it, the protocol first."""
    write_json(sidecar_of(path), {"headsr": asdict(protocol)})
    save_volume(path, data.cpu().numpy(), scan, description=f"headsr {protocol.degradation} {protocol.view}")


def load_study(paths: Sequence[str | os.PathLike[str]], *, device: torch.device | str = "cpu") -> Study:
    """Read every low-resolution scan of one head.

    Raises ValueError when the scans do not belong to one head and one intensity scale.
    """
    measurements, protocols = [], []
    for path in paths:
        protocol = Protocol(**read_json(sidecar_of(path))["headsr"])
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
        measurements.append(Measurement(name, operator, data, protocol.noise))
        protocols.append(protocol)
    first = protocols[0]
    for path, protocol in zip(paths, protocols, strict=True):
        if not protocol.head.same_as(first.head) or protocol.scale != first.scale:
            raise ValueError(f"{path}: does not belong with {paths[0]}: another head grid or intensity scale")
    return Study(first.head, tuple(measurements), first.scale, first.offset, first.degradation, first.source_key)
