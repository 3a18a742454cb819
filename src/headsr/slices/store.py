"""The list of a model's training data: which store of slices belongs to which scan and split."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from headsr.files import read_json, write_json
from headsr.scans import SPLITS, SUFFIXES


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
    attributes = read_json(mark).get("attributes", {})
    if not {"source_key", "pixel_mm", "counts", "content"} <= attributes.keys():
        raise ValueError(f"{mark}: is not a store of slices. Delete {mark.parent} and run again to make it anew")
    return {
        "name": name,
        "split": split,
        "suffix": suffix,
        "store": os.path.relpath(mark.resolve().parent, folder),
        "source_key": attributes["source_key"],
        "pixel_mm": attributes["pixel_mm"],
        "counts": attributes["counts"],
        # Trainings read this list and not the stores' marks: with other slices it must be another list.
        "content": attributes["content"],
    }
