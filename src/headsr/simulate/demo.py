"""The embedded demo: simulated heads as a real DataLad (git-annex) BIDS dataset, published like any other."""

from __future__ import annotations

import os
import shutil
import stat
from pathlib import Path

from headsr import __version__
from headsr.annex import run_tool
from headsr.files import read_json, write_json
from headsr.seeds import seed_of
from headsr.simulate.anatomy import Anatomy, build_anatomy
from headsr.simulate.head import simulate_head
from headsr.volumes import Volume, save_volume

VERSION_TAG = "v1"
_TIMEOUT_S = 300
# The last heads are the test heads; they have a second contrast.
_HEADS_WITH_T2W = 2
# Images are annexed and named by their content; what people read and edit is plain git.
_ATTRIBUTES = "* annex.backend=SHA256E\n* annex.largefiles=nothing\n*.nii.gz annex.largefiles=anything\n"
_TIMES_S = {
    "T1w": {"RepetitionTime": 2.3, "EchoTime": 0.003, "InversionTime": 0.9, "FlipAngle": 9},
    "T2w": {"RepetitionTime": 3.2, "EchoTime": 0.4, "FlipAngle": 120},
}


class DemoError(RuntimeError):
    """The place of the demo dataset is taken. The message says by what and what to do."""


def make_demo_dataset(path: str | os.PathLike[str], *, voxel_mm: float, heads: int = 7, seed: int = 0) -> None:
    """Make a BIDS dataset of simulated heads at ``path``, tagged v1, unless it is there already.

    Every head has a T1w, the last two a T2w as well, with cubic voxels of ``voxel_mm`` mm. The images have the same
    bytes every time. The dataset is complete or absent: it is built beside ``path`` and renamed.
    Raises DemoError when ``path`` holds something else and AnnexError when DataLad is missing or fails.
    """
    target = Path(path).absolute()
    made_from = f"headsr simulate: {heads} heads at {voxel_mm:g} mm, seed {seed}"
    if _is_made(target, made_from):
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.partial-{os.getpid()}")
    _remove_stale(target)
    try:
        run_tool(["datalad", "create", "--description", "headsr demo", partial], timeout_s=_TIMEOUT_S)
        (partial / ".gitattributes").write_text(
            (partial / ".gitattributes").read_text() + _ATTRIBUTES, encoding="utf-8"
        )
        _write_images(partial, voxel_mm=voxel_mm, heads=heads, seed=seed)
        _write_descriptions(partial, made_from=made_from, heads=heads)
        save = ["datalad", "save", "-d", partial, "-m", "Simulate heads with known truth", "--version-tag", VERSION_TAG]
        run_tool(save, timeout_s=_TIMEOUT_S)
        partial.rename(target)
    finally:
        _remove(partial)


def _is_made(target: Path, made_from: str) -> bool:
    if not target.exists() or (target.is_dir() and not any(target.iterdir())):
        return False
    description = target / "dataset_description.json"
    found = (
        read_json(description)["GeneratedBy"][0].get("Description", "") if description.is_file() else "something else"
    )
    if found != made_from:
        raise DemoError(f"{target}: holds {found!r}, not {made_from!r}. Move or remove it, or choose another folder")
    return True


def _write_images(dataset: Path, *, voxel_mm: float, heads: int, seed: int) -> None:
    anatomy = build_anatomy()
    for number in range(1, heads + 1):
        for suffix in ("T1w", "T2w") if number > heads - _HEADS_WITH_T2W else ("T1w",):
            print(f"simulating sub-{number:02d} {suffix} ({number} of {heads})", flush=True)
            _write_scan(dataset, anatomy, number=number, suffix=suffix, voxel_mm=voxel_mm, seed=seed)


def _write_scan(dataset: Path, anatomy: Anatomy, *, number: int, suffix: str, voxel_mm: float, seed: int) -> None:
    scan = simulate_head(anatomy, suffix=suffix, voxel_mm=voxel_mm, seed=seed_of(seed, number))
    stem = dataset / f"sub-{number:02d}" / "anat" / f"sub-{number:02d}_{suffix}"
    # Scanners store whole numbers, and rounding makes the bytes insensitive to the last bit of a float.
    scan = Volume(scan.data.round().astype("int16"), scan.grid)
    save_volume(f"{stem}.nii.gz", scan.data, scan.grid, description=f"headsr simulated {suffix}")
    sidecar = {
        "Modality": "MR",
        "Manufacturer": "headsr simulate",
        "MagneticFieldStrength": 3,
        "MRAcquisitionType": "3D",
        "SliceThickness": voxel_mm,
        **_TIMES_S[suffix],
    }
    write_json(f"{stem}.json", sidecar)


def _write_descriptions(dataset: Path, *, made_from: str, heads: int) -> None:
    description = {
        "Name": "headsr demo: simulated heads with known truth",
        "BIDSVersion": "1.10.0",
        "DatasetType": "raw",
        "License": "ICBM 2009 templates: free to use, copy, modify and distribute with their copyright notice",
        "Authors": ["headsr simulate"],
        "GeneratedBy": [{"Name": "headsr", "Version": __version__, "Description": made_from}],
        "ReferencesAndLinks": ["Fonov et al. 2011, Unbiased average age-appropriate atlases for pediatric studies"],
    }
    write_json(dataset / "dataset_description.json", description)
    columns = {"participant_id": {"Description": "Simulated person: one smooth deformation of the MNI152 template"}}
    write_json(dataset / "participants.json", columns)
    rows = [f"sub-{number:02d}" for number in range(1, heads + 1)]
    (dataset / "participants.tsv").write_text("\n".join(["participant_id", *rows]) + "\n", encoding="utf-8")
    (dataset / "README").write_text(_README.format(made_from=made_from), encoding="utf-8")
    (dataset / "CHANGES").write_text("1.0.0 2026-01-01\n  - First version.\n", encoding="utf-8")


def _remove_stale(target: Path) -> None:
    """Remove what killed runs left: partial datasets whose process is gone."""
    for partial in target.parent.glob(f".{target.name}.partial-*"):
        owner = int(partial.name.rpartition("-")[2])
        if owner == os.getpid() or not _is_running(owner):
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
    """Remove a partial dataset, whose annexed files and their folders are write-protected."""
    if folder.exists():
        for parent, _, _ in os.walk(folder):
            os.chmod(parent, stat.S_IRWXU)
        shutil.rmtree(folder)


_README = """# Simulated heads with known truth

{made_from}

Each head is another smooth invertible deformation of the MNI152 template (ICBM 2009a, as nilearn ships it) with a
skull, a scalp, a face block and a neck added, imaged as T1w (and T2w for the last two heads) with a bias field of
+-20 % and 1 % Rician noise. No person is in these data. For tests and demonstrations only.
"""
