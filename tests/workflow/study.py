"""A study of three people, two sessions, two runs and one missing contrast, in which every scan carries a number.

The number is written into the head as bright and dark cubes of 24 mm, so it survives bias correction, thick slices and
reconstruction, and can be read back from whatever was made from that scan. Some scans have lesions, of as many voxels.
"""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
from project import copy_project, delta, headsr

from headsr.annex import run_tool
from headsr.simulate.anatomy import build_anatomy
from headsr.simulate.head import simulate_head
from headsr.volumes import Volume, load_volume, save_volume

CONFIG = ("--configfile", "study.yaml")
LOCAL = ("--cores", "2", "--profile", "profiles/local", *CONFIG)
PEOPLE = ("sub-01", "sub-02", "sub-03")
T1W = [f"{p}_{s}_{r}_T1w" for p, s, r in itertools.product(PEOPLE, ("ses-a", "ses-b"), ("run-1", "run-2"))]
T2W = [f"{p}_ses-a_run-1_T2w" for p in PEOPLE[:2]]  # nobody made the third
SCANS = [*T1W, *T2W]
NUMBERS = {name: number for number, name in enumerate(SCANS, start=1)}
WITH_LESIONS = ("sub-01_ses-b_run-1_T1w", "sub-02_ses-b_run-1_T1w", "sub-03_ses-b_run-2_T1w")

_BITS = 5
_BRIGHT, _DARK = 900, 120  # in the simulated scanner's units, within the range of tissue
_SITES = [(x, y, 10.0) for y in (-50.0, -14.0, 22.0) for x in (-36.0, 0.0, 36.0)][: _BITS + 2]  # mm; two references
_HALF_MM = 12.0


def study_project(folder: Path) -> Path:
    """A copy of the project with the study beside it, pinned; everyone is a test subject."""
    project = copy_project(folder)
    make_study(project / "origin")
    configure(project, "study", version="v1")
    pin = headsr(project, "pin", "demo", *CONFIG)
    assert pin.returncode == 0, pin.stdout
    return project


def configure(project: Path, name: str, *, version: str, scans: str = "scans.tsv", **change: dict) -> str:
    """Write a configuration of the study; ``change`` is laid over its overrides. Returns its path."""
    people = {"test": list(PEOPLE)}
    source = {"url": "origin", "version": version, "license": "made", "citation": "made", "splits": people}
    table = {"title": "Study", "methods": ["spline"], "degradations": ["axial_x2"], "suffixes": ["T1w", "T2w"]}
    table["columns"] = ["psnr", "ssim", {"metric": "psnr", "mask": "lesion"}]
    thick = {"kind": "simulated", "stacks": [{"view": "axial", "factor": 2}], "noise_percent": 0.5}
    overrides = {"datasets": {"demo": source}, "tables": {"study": table}, "degradations": {"axial_x2": thick}}
    small = {"template_voxel_mm": 6.0, "render": {"chunk": 8, "shard": 16}}
    return delta(project, name, {**small, "scans": scans, "tables": ["study"], "overrides": {**overrides, **change}})


def make_study(path: Path) -> None:
    """The study as a git-annex dataset, tagged v1."""
    path.mkdir(parents=True)
    run_tool(["git", "init", "--quiet", "-b", "main", path])
    run_tool(["git", "-C", path, "annex", "init", "--quiet"])
    (path / ".gitattributes").write_text("* annex.largefiles=nothing\n*.nii.gz annex.largefiles=anything\n")
    (path / "dataset_description.json").write_text('{"Name": "study", "BIDSVersion": "1.10.0"}\n')
    anatomy = build_anatomy()
    for name in SCANS:
        person, suffix = PEOPLE.index(name.split("_")[0]), name.rsplit("_", 1)[1]
        head = simulate_head(anatomy, suffix=suffix, voxel_mm=8.0, seed=person)
        save(path, name, numbered(head, NUMBERS[name]))
        if name in WITH_LESIONS:
            save_lesion(path, name, head)
    publish(path, "v1")


def path_of(name: str) -> str:
    """Where BIDS keeps a scan: ``sub-01/ses-a/anat/sub-01_ses-a_run-1_T1w.nii.gz``."""
    folder = "/".join(part for part in name.split("_") if part.startswith(("sub-", "ses-")))
    return f"{folder}/anat/{name}.nii.gz"


def save(dataset: Path, name: str, head: Volume) -> None:
    """Write a scan into the dataset, over whatever is there."""
    path = dataset / path_of(name)
    path.unlink(missing_ok=True)  # annexed content is never written to
    save_volume(path, head.data.round().astype(np.int16), head.grid)


def save_lesion(dataset: Path, name: str, head: Volume) -> None:
    """Write a mask with as many voxels as the scan's number says."""
    suffix = name.rpartition("_")[2]
    path = dataset / "derivatives/rater" / path_of(name).replace(f"_{suffix}.", f"_label-lesion_desc-{suffix}_mask.")
    mask = np.zeros(head.data.shape, dtype=np.uint8)
    mask.flat[mask.size // 2 : mask.size // 2 + NUMBERS[name]] = 1
    path.parent.mkdir(parents=True, exist_ok=True)
    save_volume(path, mask, head.grid)


def publish(dataset: Path, tag: str) -> None:
    """Commit what is in the dataset's folder and tag it."""
    run_tool(["git", "-C", dataset, "annex", "add", "--quiet", "."])
    run_tool(["git", "-C", dataset, "add", "--all"])
    run_tool(["git", "-C", dataset, "commit", "--quiet", "-m", tag])
    run_tool(["git", "-C", dataset, "tag", tag])


def numbered(head: Volume, number: int) -> Volume:
    """A head with a number in it: the first two cubes are always bright and dark, the others are its bits."""
    bits = [1, 0, *(number >> bit & 1 for bit in range(_BITS))]
    data = head.data.copy()
    mm = np.stack(np.meshgrid(*map(np.arange, data.shape), indexing="ij"), axis=-1) @ head.grid.affine[:3, :3].T
    mm += head.grid.affine[:3, 3]
    for site, bit in zip(_SITES, bits, strict=True):
        inside = (np.abs(mm - site) < _HALF_MM).all(axis=-1)
        data[inside] = _BRIGHT if bit else _DARK
    return Volume(data, head.grid)


def number_in(path: Path) -> int:
    """The number in a volume that was made from one of the scans. AssertionError where there is none to read."""
    head = load_volume(path)
    index = np.linalg.solve(head.grid.affine[:3, :3], (np.array(_SITES) - head.grid.affine[:3, 3]).T).T
    values = np.array([head.data[tuple(np.round(i).astype(int))] for i in index])
    bright, dark = values[:2]
    assert bright > 2 * dark, f"{path}: the references are {bright:g} and {dark:g}"
    bits = values[2:] > (bright + dark) / 2
    return sum(1 << bit for bit, is_set in enumerate(bits) if is_set)
