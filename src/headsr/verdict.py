"""What the workflow and ``headsr sr`` will do with a scan file, and what it shows: their own first steps, one by one.

What needs ANTs or a whole reconstruction (registration, agreement) is not tried: minutes for each scan.
"""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from headsr.degrade.lowres import thickness_of_slices
from headsr.files import sidecar_of
from headsr.jobs import Warnings
from headsr.preprocess.appearance import oddities_of, shown_in
from headsr.preprocess.load import load_scan
from headsr.recipes import Unrolled
from headsr.scans import IMAGES
from headsr.sr.dataset import Found, scans_in
from headsr.sr.given import GivenScan, Slices, metadata_of, read_given, stated_thickness
from headsr.sr.run import OutsideTrainingError, method_named, outside_training, refuse_outside
from headsr.sr.study import prepare
from headsr.sr.target import Size, target_of
from headsr.volumes import AXES, Volume, VolumeError
from headsr.words import shown


@dataclass(frozen=True)
class Verdict:
    """What becomes of one scan file: why none, or not all, will take it, and what else a person should know of it.

    ``refused`` is why nothing can use it; ``workflow`` and ``sr`` are why the workflow, as an acquired scan, and
    ``headsr sr`` refuse it; each '' where they take it.
    """

    path: Path
    facts: tuple[str, ...] = ()
    refused: str = ""
    workflow: str = ""
    sr: str = ""

    def text(self) -> str:
        """For people: one line that begins with OK or REJECTED, and where it is OK lines of what was found."""
        if self.refused:
            return f"REJECTED {shown(self.refused)}"
        first, *more = self.facts
        taken = "the workflow: takes it", "headsr sr: takes it"
        if self.workflow:
            taken = f"the workflow: simulates from it, and refuses it as acquired: {self.workflow}", taken[1]
        if self.sr:
            taken = taken[0], f"headsr sr: refuses it: {self.sr}"
        return "\n    ".join(map(shown, [f"OK {self.path}: {first}", *more, *taken]))


def scans_at(path: str | os.PathLike[str]) -> Found:
    """The scans that a file or a folder stands for.

    Of a folder that is none of BIDS every image in it and below. ValueError for a folder without any.
    """
    place = Path(path)
    if not place.is_dir():
        return Found((place,), ())
    if any(place.glob("sub-*")):
        return scans_in(place)
    images = tuple(sorted(_images_below(place)))
    if not images:
        raise ValueError(
            f"{place}: holds no .nii or .nii.gz. DICOM is converted with dcm2niix; name a scan or its folder"
        )
    return Found(images, ())


def judge(path: str | os.PathLike[str]) -> Verdict:
    """Look at one scan file. Never raises for what is in it."""
    path = Path(path)
    try:
        scan = load_scan(path)
    except VolumeError as error:
        return Verdict(path, refused=str(error))
    stated = None  # as `headsr pin` takes what cannot be read; of `headsr sr` it is the verdict
    with suppress(VolumeError):
        stated = stated_thickness(path, metadata_of(path))
    with _told() as told:
        given, sr = _by_sr(path)
    facts = (_grid_of(scan), _slices_of(path, scan, stated, given), f"shows {shown_in(scan)}", *oddities_of(scan))
    return Verdict(path, (*facts, *told), workflow=_by_workflow(path, scan, stated), sr=sr)


@contextmanager
def _told() -> Iterator[dict[str, None]]:
    """What is warned of in the block, each text once: of many scans it would not be known of which."""
    told = Warnings()
    logging.getLogger().addHandler(told)
    try:
        with warnings.catch_warnings():
            warnings.showwarning = lambda message, *_, **__: told.said.setdefault(str(message))
            yield told.said
    finally:
        logging.getLogger().removeHandler(told)


def _by_workflow(path: Path, scan: Volume, stated: float | None) -> str:
    """Why the workflow refuses a scan as an acquired one; '' where it takes it."""
    axis = int(np.argmax(scan.grid.voxel_size))
    try:
        thickness_of_slices(scan.grid, axis, str(path), stated)
    except VolumeError as error:
        return str(error)
    return ""


def _by_sr(path: Path) -> tuple[GivenScan | None, str]:
    """The scan as ``headsr sr`` reads it, as far as it does, and why it refuses it; '' where it takes it."""
    given = None
    try:
        given = read_given(path, Slices())
        prepared = prepare([given], target_of(given, Size()), torch.device("cpu"))
        refuse_outside([given], outside_training([given], method_named(Unrolled.kind), prepared))
    except (VolumeError, OutsideTrainingError) as error:
        return given, str(error)
    return given, ""


def _grid_of(scan: Volume) -> str:
    size = " x ".join(f"{mm:.3g}" for mm in scan.grid.voxel_size)
    shape = " x ".join(map(str, scan.grid.shape))
    return f"{shape} voxels of {size} mm, intensities {scan.data.min():g} to {scan.data.max():g}"


def _slices_of(path: Path, scan: Volume, stated: float | None, given: GivenScan | None) -> str:
    axis = int(np.argmax(scan.grid.voxel_size))
    plane = next(plane for plane in AXES if AXES[plane] == axis)
    spacing = float(scan.grid.voxel_size[axis])
    sidecar = f"sidecar {sidecar_of(path).name}" if sidecar_of(path).exists() else "no sidecar beside it"
    if given is not None:
        thick, by = given.thickness, given.thickness_from
    elif stated is not None:
        thick, by = stated, "as its sidecar says"
    else:
        return f"{plane} slices {spacing:.3g} mm apart, how thick is not known; {sidecar}"
    gap = spacing - thick
    between = (
        f"a gap of {gap:.2g} mm"
        if gap > 0.01 * spacing
        else f"an overlap of {-gap:.2g} mm"
        if gap < -0.01 * spacing
        else "no gap"
    )
    return f"{plane} slices {spacing:.3g} mm apart, {thick:.3g} mm thick ({by}): {between}; {sidecar}"


def _images_below(folder: Path) -> Iterator[Path]:
    for place, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from (Path(place, name) for name in names if name.lower().endswith(IMAGES) and not name.startswith("."))
