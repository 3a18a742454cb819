"""The list of a model's training data: which store of slices belongs to which scan and split."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from headsr.files import UnreadableError, write_json
from headsr.scans import SPLITS, SUFFIXES
from headsr.typed_json import read_as


def list_training_data(stores: Iterable[tuple[str, str, str, str]], output: str | os.PathLike[str]) -> None:
    """Write ``training.json`` from (name, split, suffix, path of the root zarr.json) of every store of one model.

    Paths are kept relative to the list's own folder, so that results can be moved. Raises ValueError when a split has
    no scan, or a store does not hold slices.
    """
    folder = Path(output).resolve().parent
    entries = [_entry(name, split, suffix, Path(path), folder) for name, split, suffix, path in stores]
    for split in ("train", "val"):
        if split not in {entry["split"] for entry in entries}:
            raise ValueError(f"{output}: no scan of the model's data has the split {split}; change the scan table")
    write_json(output, {"stores": sorted(entries, key=lambda entry: entry["store"])})


def _entry(name: str, split: str, suffix: str, mark: Path, folder: Path) -> dict:
    if split not in SPLITS or suffix not in SUFFIXES:
        raise ValueError(f"{name}: {split!r} is not a split or {suffix!r} not a suffix of the scan table")
    try:
        said = read_as(_Said, mark, "attributes")
    except UnreadableError as error:
        raise ValueError(
            f"{mark}: is not a store of slices ({error}). Move {mark.parent} away and run again to make it anew"
        ) from error
    return {
        "name": name,
        "split": split,
        "suffix": suffix,
        "store": os.path.relpath(mark.resolve().parent, folder),
        "source_key": said.source_key,
        "pixel_mm": said.pixel_mm,
        "counts": said.counts,
        # Trainings read this list and not the stores' marks: with other slices it must be another list.
        "content": said.content,
    }


@dataclass(frozen=True, kw_only=True)
class _Said:
    """The attributes of a store of slices."""

    source_key: str
    pixel_mm: dict[str, list[float]]
    counts: dict[str, int]
    content: str
