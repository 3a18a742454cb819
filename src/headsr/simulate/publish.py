"""Simulated scans as a real DataLad (git-annex) BIDS dataset, published like any other: complete or absent."""

from __future__ import annotations

import glob
import os
import shutil
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

from threadpoolctl import threadpool_limits

from headsr import __version__
from headsr.annex import run_tool
from headsr.files import UnreadableError, set_mode, write_json
from headsr.typed_json import read_as
from headsr.volumes import Volume, save_volume

VERSION_TAG = "v1"
_TIMEOUT_S = 300
# Images are annexed and named by their content; what people read and edit is plain git.
_ATTRIBUTES = "* annex.backend=SHA256E\n* annex.largefiles=nothing\n*.nii.gz annex.largefiles=anything\n"
_TIMES_S = {
    "T1w": {"RepetitionTime": 2.3, "EchoTime": 0.003, "InversionTime": 0.9, "FlipAngle": 9},
    "T2w": {"RepetitionTime": 3.2, "EchoTime": 0.4, "FlipAngle": 120},
    "PDw": {"RepetitionTime": 3.0, "EchoTime": 0.015, "FlipAngle": 180},
    "FLAIR": {"RepetitionTime": 9.0, "EchoTime": 0.09, "InversionTime": 2.5, "FlipAngle": 180},
}


class DatasetError(ValueError):
    """The place of the dataset is taken. The message says by what and what to do."""


def publish_dataset(path: str | os.PathLike[str], *, name: str, made_from: str, write: Callable[[Path], None]) -> None:
    """Make the dataset at ``path``, tagged v1, unless it is there already; ``write`` puts the files into a folder.

    ``made_from`` says of what the dataset is made; it stands in dataset_description.json (see ``generated_by``), by
    which the dataset is known again. It is built beside ``path`` and renamed, so it is complete or absent.
    Raises DatasetError when ``path`` holds something else and AnnexError when DataLad is missing or fails.
    """
    target = Path(path).absolute()
    if _is_made(target, made_from):
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.partial-{os.getpid()}")
    _remove_stale(target)
    try:
        run_tool(["datalad", "create", "--description", name, partial], timeout_s=_TIMEOUT_S)
        (partial / ".gitattributes").write_text(
            (partial / ".gitattributes").read_text() + _ATTRIBUTES, encoding="utf-8"
        )
        with threadpool_limits(limits=1):  # matrix products round differently with another number of threads
            write(partial)
        save = ["datalad", "save", "-d", partial, "-m", "Simulate heads with known truth", "--version-tag", VERSION_TAG]
        run_tool(save, timeout_s=_TIMEOUT_S)
        partial.rename(target)
    finally:
        _remove(partial)


def generated_by(made_from: str) -> list[dict[str, str]]:
    """The GeneratedBy of the dataset's description."""
    return [{"Name": "headsr", "Version": __version__, "Description": made_from}]


def write_scan(stem: Path, scan: Volume, *, suffix: str) -> None:
    """Write one scan and its sidecar, ``stem`` being the BIDS name without suffix (``.../anat/sub-01``)."""
    # Scanners store whole numbers, and rounding makes the bytes insensitive to the last bit of a float.
    data = scan.data.round().astype("int16")
    save_volume(f"{stem}_{suffix}.nii.gz", data, scan.grid, description=f"headsr simulated {suffix}")
    sidecar = {
        "Modality": "MR",
        "Manufacturer": "headsr simulate",
        "MagneticFieldStrength": 3,
        "MRAcquisitionType": "3D",
        "SliceThickness": float(scan.grid.voxel_size[2]),
        **_TIMES_S[suffix],
    }
    write_json(f"{stem}_{suffix}.json", sidecar)


def write_participants(dataset: Path, rows: list[dict[str, str]], columns: dict[str, str]) -> None:
    """Write participants.tsv and what its columns mean."""
    lines = ["\t".join(columns), *("\t".join(row[name] for name in columns) for row in rows)]
    (dataset / "participants.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    write_json(dataset / "participants.json", {name: {"Description": text} for name, text in columns.items()})


def write_readme(dataset: Path, text: str) -> None:
    """Write README and CHANGES."""
    (dataset / "README").write_text(text, encoding="utf-8")
    (dataset / "CHANGES").write_text("1.0.0 2026-01-01\n  - First version.\n", encoding="utf-8")


def _is_made(target: Path, made_from: str) -> bool:
    if not target.exists() or (target.is_dir() and not any(target.iterdir())):
        return False
    description = target / "dataset_description.json"
    found = _made_by(description) if description.is_file() else "something else"
    if found != made_from:
        raise DatasetError(f"{target}: holds {found!r}, not {made_from!r}. Move it away, or choose another folder")
    return True


def _made_by(description: Path) -> str:
    """What a dataset says that it was made from; '' where it says nothing, as one that is somebody else's."""
    try:
        makers = read_as(list[dict[str, Any]], description, "GeneratedBy")
    except UnreadableError:
        return ""
    return str(makers[0].get("Description", "")) if makers else ""


def _remove_stale(target: Path) -> None:
    """Remove what killed runs left: partial datasets whose process is gone."""
    for partial in target.parent.glob(f".{glob.escape(target.name)}.partial-*"):
        owner = partial.name.rpartition("-")[2]
        if owner.isdecimal() and (int(owner) == os.getpid() or not _is_running(int(owner))):
            _remove(partial)


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


def _remove(folder: Path) -> None:
    """Remove a partial dataset, whose annexed files and their folders are write-protected.

    DatasetError for a link and for a folder that is no dataset: not headsr's to remove, nor to change the modes of.
    """
    began = not folder.is_symlink() and folder.is_dir() and ((folder / ".git").exists() or not any(folder.iterdir()))
    if os.path.lexists(folder) and not began:
        raise DatasetError(f"{folder}: is in the way: it is no dataset that headsr began. Move it away")
    if folder.exists():
        for parent, _, _ in os.walk(folder):
            set_mode(parent, stat.S_IRWXU)
        shutil.rmtree(folder)
