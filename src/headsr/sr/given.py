"""A scan as a person gives it: its intensities, how its slices were made, and what says so."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from headsr.acquisition.thickness import estimate_thickness
from headsr.degrade.lowres import NEARLY_ISOTROPIC, THICKNESS
from headsr.files import MOST_BYTES, NotAFileError, open_file, parse_metadata, sha256_of, sidecar_of
from headsr.preprocess.load import load_scan
from headsr.preprocess.outline import brain_of, head_of
from headsr.preprocess.skull import is_skull_stripped
from headsr.scans import IMAGES, parse_name
from headsr.sidecars import about, size_in_mm
from headsr.volumes import AXES, Volume, VolumeError

_DICOM_AT, _DICOM = 128, b"DICM"
_OR_SAY = "or say yourself how thick the slices are: --thickness MM"


@dataclass(frozen=True)
class Slices:
    """What a person says of a scan's slices: ``thickness_mm`` or the ``gap_mm`` between them, and their ``profile``.

    None is not said. A gap below zero is an overlap.
    """

    thickness_mm: float | None = None
    gap_mm: float | None = None
    profile: str = "box"

    @property
    def are_said(self) -> bool:
        """Whether a person says how thick they are: what a sidecar says, and whether it can be read, is no matter."""
        return self.thickness_mm is not None or self.gap_mm is not None

    def __post_init__(self) -> None:
        if self.thickness_mm is not None and self.gap_mm is not None:
            raise ValueError("thickness and gap of the slices say the same thing twice. Give one of them")


@dataclass(frozen=True, eq=False)
class GivenScan:
    """One scan: ``axis`` (RAS) is that of its slices, ``thickness`` theirs in mm; ``thickness_from`` says who says so.

    ``metadata`` is its JSON sidecar, empty where there is none.
    """

    path: Path
    volume: Volume
    axis: int
    thickness: float
    thickness_from: str
    profile: str
    metadata: dict[str, Any]
    sha256: str

    @property
    def spacing(self) -> float:
        """How far its slices are apart, in mm."""
        return float(self.volume.grid.voxel_size[self.axis])

    @property
    def plane(self) -> str:
        """The plane of its slices: axial, coronal or sagittal."""
        return next(plane for plane in AXES if AXES[plane] == self.axis)

    @property
    def is_thick(self) -> bool:
        """Whether its slices are further apart than its pixels."""
        in_plane = float(np.delete(self.volume.grid.voxel_size, self.axis).max())
        return self.spacing > NEARLY_ISOTROPIC * in_plane

    def words(self) -> str:
        """For people, in a line."""
        size = " x ".join(f"{mm:.4g}" for mm in self.volume.grid.voxel_size)
        shape = " x ".join(map(str, self.volume.grid.shape))
        slices = f"{self.plane} slices {self.thickness:.3g} mm thick ({self.thickness_from})"
        return f"{self.path}: {shape} voxels of {size} mm, {slices}"


def views_of(scans: Sequence[GivenScan]) -> list[str]:
    """What the scans of a study are called in it: the planes of their slices, numbered where one comes again."""
    planes = [scan.plane for scan in scans]
    earlier = [planes[:number].count(plane) for number, plane in enumerate(planes)]
    return [f"{plane}{count + 1}" if count else plane for plane, count in zip(planes, earlier, strict=True)]


def read_given(path: str | os.PathLike[str], slices: Slices) -> GivenScan:
    """Read one scan and what its sidecar and ``slices`` say of it.

    Where neither says how thick its slices are, the scan is asked. Raises VolumeError for what is no scan of a head
    (``load_scan``), DICOM, slices whose thickness nobody tells, and a thickness that cannot be.
    """
    path = Path(path)
    _refuse_dicom(path)
    volume = load_scan(path)
    metadata = {} if slices.are_said else metadata_of(path)
    axis = int(np.argmax(volume.grid.voxel_size))
    thickness, said_by = _thickness_of(path, volume, axis, slices, metadata)
    return GivenScan(path, volume, axis, thickness, said_by, slices.profile, metadata, sha256_of(path))


def refuse_twins(scans: Sequence[GivenScan]) -> None:
    """ValueError where two scans are one measurement: it would count twice, and the result look surer than it is."""
    for first, second in combinations(scans, 2):
        if np.array_equal(first.volume.data, second.volume.data):
            raise ValueError(f"{second.path}: holds the same measurement as {first.path}. Give it once")


def _refuse_dicom(path: Path) -> None:
    if path.is_dir():
        raise VolumeError(
            f"{path}: is a folder, and no BIDS folder, which has folders sub-*. If it holds DICOM files, convert them "
            f"first: {_dcm2niix(path)}"
        )
    if path.name.endswith(IMAGES) or not path.is_file():
        return
    with open_file(path) as stream:
        begin = stream.read(_DICOM_AT + len(_DICOM))
    if begin[_DICOM_AT:] == _DICOM:
        raise VolumeError(f"{path}: is a DICOM file. Convert its whole folder first: {_dcm2niix(path.parent)}")


def _dcm2niix(folder: Path) -> str:
    return f"dcm2niix -b y -z y -f %p_%s -o nifti '{folder}'"


def metadata_of(path: Path) -> dict[str, Any]:
    """What a scan's sidecars say: that beside it and those it inherits from, of which the nearest counts most.

    VolumeError for one that cannot be read.
    """
    metadata: dict[str, Any] = {}
    for sidecar in reversed(_sidecars_of(path)):
        metadata |= _read_sidecar(sidecar)
    return metadata


def _sidecars_of(path: Path) -> list[Path]:
    """The sidecars of a scan that there are, the nearest first; it inherits where it lies as BIDS has it."""
    own = sidecar_of(path)
    parsed = parse_name(own.stem)
    if parsed is None:
        return [own] if os.path.lexists(own) else []
    folders = _dataset_folders(path, parsed[1].split("_"))
    return [folder / name for folder in folders for name in about(own.stem, sorted(os.listdir(folder)))]


def _dataset_folders(path: Path, entities: Sequence[str]) -> list[Path]:
    """The folders from a scan's to its dataset's; its own alone where it does not lie as BIDS has it."""
    people = [entity for entity in entities if entity.startswith(("sub-", "ses-"))]
    here = Path(os.path.abspath(path)).parent
    above = [here, *here.parents]
    lies_as_bids_has_it = [folder.name for folder in above[: len(people) + 1]] == ["anat", *reversed(people)]
    return above[: len(people) + 2] if lies_as_bids_has_it else [path.parent]


def _read_sidecar(sidecar: Path) -> dict[str, Any]:
    try:
        with open_file(sidecar) as stream:
            return parse_metadata(stream.read(MOST_BYTES))
    except FileNotFoundError:
        raise VolumeError(f"{sidecar}: its content is not here. Get it with datalad get, {_OR_SAY}") from None
    except NotAFileError as error:
        raise VolumeError(str(error)) from None
    except OSError as error:
        raise VolumeError(f"{sidecar}: cannot be read ({error.strerror}). Have it made readable, {_OR_SAY}") from None
    except ValueError as error:
        raise VolumeError(f"{sidecar}: is not valid JSON ({error}). Repair it, {_OR_SAY}") from None


def _thickness_of(path: Path, volume: Volume, axis: int, slices: Slices, metadata: dict[str, Any]) -> tuple[float, str]:
    """The thickness of the slices in mm, and what says so."""
    spacing = float(volume.grid.voxel_size[axis])
    if slices.thickness_mm is not None:
        found = slices.thickness_mm, "as you say"
    elif slices.gap_mm is not None:
        found = spacing - slices.gap_mm, "from the gap that you say"
    elif (stated := stated_thickness(path, metadata)) is not None:
        found = stated, "as its sidecar says"
    elif spacing <= NEARLY_ISOTROPIC * float(np.delete(volume.grid.voxel_size, axis).max()):
        return spacing, "as far as they are apart, for they are nearly as fine as its pixels"
    else:
        found = _estimated(path, volume, axis, slices.profile)
    thickness, said_by = found
    low, high = (share * spacing for share in THICKNESS)
    if not low <= thickness <= high:
        raise VolumeError(
            f"{path}: slices {thickness:g} mm thick ({said_by}) cannot be {spacing:.3g} mm apart. "
            "Say what is right: --thickness MM"
        )
    return thickness, said_by


def _estimated(path: Path, volume: Volume, axis: int, profile: str) -> tuple[float, str]:
    """What the scan itself tells of the thickness of its slices."""
    head = brain_of(volume) if is_skull_stripped(volume) else head_of(volume)
    found = estimate_thickness(volume, axis, head, profile=profile)
    if found.thickness_mm is None:
        raise VolumeError(
            f"{path}: nothing says how thick its slices are, which are {float(volume.grid.voxel_size[axis]):.3g} mm "
            f"apart, and the scan does not tell it: {found.why_not}. Say it: --thickness MM or --gap MM (0 if there is "
            "none)"
        )
    low, high = found.interval_mm
    said_by = f"estimated from the scan, {low:.2g} to {high:.2g} mm; if you know better, say --thickness MM"
    return found.thickness_mm, said_by


def stated_thickness(path: Path, metadata: dict[str, Any]) -> float | None:
    """The thickness in mm that a scan's sidecar says, if any. VolumeError for one that is no number."""
    stated = metadata.get("SliceThickness")
    if stated is None:
        return None
    size = size_in_mm(stated)
    if size is None:
        said_in = next(sidecar for sidecar in _sidecars_of(path) if "SliceThickness" in _read_sidecar(sidecar))
        raise VolumeError(
            f"{said_in}: SliceThickness {str(stated)[:40]!r} is no number of mm. Say what is right: --thickness MM"
        )
    return size
