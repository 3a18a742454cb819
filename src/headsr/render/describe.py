"""Say what a published volume and its dataset are, as BIDS derivatives do: sidecars and the dataset's description."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import headsr
from headsr.files import abandoned, read_json, whole, write_json
from headsr.recipes import VIEWS, Dataset
from headsr.volumes import Grid
from headsr.words import without_password

BIDS_VERSION = "1.11.2"
# Whatever the method, voxels between the measured ones are an estimate: nobody should take them for measured.
RESEARCH_ONLY = {"version": headsr.__version__, "SyntheticDetail": True, "IntendedUse": "research"}


def _residual_of(view: str) -> str:
    return f"The volume as the {view} scan would see it, minus that scan, in scan units"


# Every desc- label that headsr publishes, as BIDS asks for in descriptions.tsv.
DESCRIPTIONS = {
    "sr": "Super-resolved volume in the scan's own units, projected onto the measured slices",
    "unprojected": "The same volume before the projection onto the measured slices",
    "uncertainty": "Half of the interval around the volume that holds 90 % of the errors of the simulated heads that "
    "its method was calibrated on, in scan units; of those of real heads it may hold fewer",
    **{f"srresidual{view.capitalize()}": _residual_of(view) for view in VIEWS},
    **{f"srresidual{view.capitalize()}{n}": _residual_of(f"{view}{n}") for view in VIEWS[:3] for n in (2, 3)},
    "field": "Weights of the implicit neural representation that the volume was rendered from (safetensors)",
    "fit": "How the fit of that representation went, one JSON object per line",
    "report": "One page on the volume: scan and result, what was added, and where it is unsure",
    "check": "What was checked on the finished volume, with the residual of every scan",
}

_LABELS = (".bidsignore", "descriptions.tsv")
# What no BIDS rule knows.
_IGNORED = ("*_desc-field_*.safetensors", "*_desc-fit_*.jsonl", "*_desc-check_*.json", "*_desc-report_*.html")


def describe_volume(
    grid: Grid,
    *,
    preview: Grid,
    scale: float,
    offset: float,
    record: dict[str, Any],
    label: str,
) -> dict[str, Any]:
    """The JSON sidecar of a volume (BIDS derivatives, with a ``headsr`` object).

    ``preview`` is the grid of the NIfTI, ``label`` what it is: sr, unprojected or uncertainty.
    Keys of ``record`` go into the ``headsr`` object as they are; ``skull_stripped`` and ``sources`` (URIs of the scans
    that it was made from) among them are what BIDS asks for.
    """
    return {
        "Description": DESCRIPTIONS[label],
        "Sources": _sources_of(record),
        "SkullStripped": record.get("skull_stripped", False),
        "Resolution": _resolution(grid, preview),
        "headsr": {
            **{key: value for key, value in record.items() if key != "sources"},
            **RESEARCH_ONLY,
            "affine": grid.affine.tolist(),
            "shape": list(grid.shape),
            "scale": float(scale),
            "offset": float(offset),
            "projected": label == "sr",
        },
    }


def raw_uris(paths: Iterable[str]) -> list[str]:
    """What a derivative says of the scans that it was made from, each once, by where their dataset keeps them."""
    return [f"bids:raw:{path}" for path in dict.fromkeys(paths) if path]


def describe_residual(view: str, *, skull_stripped: bool, sources: Sequence[str]) -> dict[str, Any]:
    """The JSON sidecar of a residual map; ``sources`` are the URIs of its scan."""
    return {
        "Description": _residual_of(view),
        "Sources": list(sources),
        "SkullStripped": skull_stripped,
        "headsr": dict(RESEARCH_ONLY),
    }


def describe_derivatives(
    output: str | os.PathLike[str], *, dataset: Dataset, name: str, method: str, degradation: str
) -> None:
    """Write ``dataset_description.json`` (last), and ``.bidsignore`` and ``descriptions.tsv`` beside it.

    ``dataset`` is the dataset that the scans come from and ``name`` what headsr calls it; ``method`` and
    ``degradation`` are names.
    """
    _describe_labels(Path(output).parent)
    write_json(output, _dataset_description(dataset, name, method, degradation))


def describe_folder(folder: str | os.PathLike[str], *, source: str | os.PathLike[str], method: str) -> None:
    """The same of derivatives that ``headsr sr`` makes of the BIDS folder ``source``."""
    target = Path(folder) / "dataset_description.json"
    raw = os.path.relpath(source, folder)
    said = {
        "Name": f"headsr {method} of {Path(source).resolve().name} (research use only)",
        "BIDSVersion": BIDS_VERSION,
        "DatasetType": "derivative",
        "GeneratedBy": [_generated_by(f"Super-resolution by {method} of each scan by itself")],
        "SourceDatasets": [{"URL": raw}],
        "DatasetLinks": {"raw": raw},
    }
    if target.exists() and not is_by_headsr(target):
        raise ValueError(f"{folder}: holds a dataset that headsr did not make. Name an empty folder")
    for path in (target, *(Path(folder, name) for name in _LABELS)):
        for partial in abandoned(path):  # others may write into the same folder just now
            partial.unlink(missing_ok=True)
    _describe_labels(Path(folder))
    write_json(target, said)


def _describe_labels(folder: Path) -> None:
    ignored, labels = (folder / name for name in _LABELS)
    with whole(ignored) as partial:
        partial.write_text("".join(f"{pattern}\n" for pattern in _IGNORED), encoding="utf-8")
    with whole(labels) as partial:
        rows = "".join(f"{label}\t{text}\n" for label, text in DESCRIPTIONS.items())
        partial.write_text("desc_id\tdescription\n" + rows, encoding="utf-8")


def _generated_by(description: str) -> dict[str, str]:
    return {"Name": "headsr", "Version": headsr.__version__, "Description": description}


def is_by_headsr(description: Path) -> bool:
    """Whether a ``dataset_description.json`` says that headsr made its dataset. UnreadableError as ``read_json``."""
    said = read_json(description)
    makers = said.get("GeneratedBy") if isinstance(said, dict) else None
    return isinstance(makers, list) and any(isinstance(one, dict) and one.get("Name") == "headsr" for one in makers)


def _dataset_description(dataset: Dataset, name: str, method: str, degradation: str) -> dict[str, Any]:
    return {
        "Name": f"headsr {method} on {degradation} scans of {name} (research use only)",
        "BIDSVersion": BIDS_VERSION,
        "DatasetType": "derivative",
        "License": dataset.license,
        "GeneratedBy": [
            _generated_by(f"Super-resolution by {method}, from scans made low-resolution by {degradation}"),
            {
                "Name": "ANTs",
                "Version": _version_of("antspyx"),
                "Description": "Bias correction and registration, through antspyx",
            },
        ],
        "SourceDatasets": [{"URL": without_password(dataset.url), "Version": dataset.version}],
        "DatasetLinks": {"raw": without_password(dataset.url)},
        "HowToAcknowledge": dataset.citation,
    }


def _sources_of(record: dict[str, Any]) -> list[str]:
    said = record.get("sources")
    return [str(source) for source in said] if isinstance(said, list) else []


def _resolution(grid: Grid, preview: Grid) -> str:
    text = _voxels(grid)
    return text if preview is grid else f"{text} in the OME-Zarr; {_voxels(preview)} in the NIfTI beside it"


def _voxels(grid: Grid) -> str:
    size = " x ".join(f"{mm:.4g}" for mm in grid.voxel_size)
    return f"{' x '.join(map(str, grid.shape))} voxels of {size} mm"


def _version_of(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed where this file was written"
