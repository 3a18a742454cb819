"""The list of a model's training data: which store of slices belongs to which scan and split."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from headsr.files import read_json, write_json
from headsr.scans import SPLITS, SUFFIXES


def list_training_data(
    stores: Iterable[tuple[str, str, str, str, *tuple[str, ...]]], output: str | os.PathLike[str]
) -> None:
    """Write ``training.json`` from (name, split, suffix, path of the root zarr.json) of every store of one model,
    and of its labels' store where the model sees labels.

    Paths are kept relative to the list's own folder, so that results can be moved. Raises ValueError when a split has
    no scan, or a store does not hold slices.
    """
    folder = Path(output).resolve().parent
    entries = [_entry(*store, folder=folder) for store in stores]
    for split in ("train", "val"):
        if split not in {entry["split"] for entry in entries}:
            raise ValueError(f"{output}: no scan of the model's data has the split {split}; change the scan table")
    write_json(output, {"stores": sorted(entries, key=lambda entry: entry["store"])})


def _entry(name: str, split: str, suffix: str, mark: str, labels: str = "", *, folder: Path) -> dict:
    if split not in SPLITS or suffix not in SUFFIXES:
        raise ValueError(f"{name}: {split!r} is not a split or {suffix!r} not a suffix of the scan table")
    attributes = _attributes(mark, "source_key", "pixel_mm", "counts", "content")
    entry = {"name": name, "split": split, "suffix": suffix, "store": _store(mark, folder), **attributes}
    if labels:
        entry |= {"labels": _store(labels, folder), "labels_content": _attributes(labels, "content")["content"]}
    return entry


def _attributes(mark: str, *names: str) -> dict:
    """What a store says of itself. Trainings read the list and not this: with other slices it must be another list."""
    attributes = read_json(mark).get("attributes", {})
    if not attributes.keys() >= set(names):
        raise ValueError(f"{mark}: is not a store of slices. Delete {Path(mark).parent} and run again to make it anew")
    return {name: attributes[name] for name in names}


def _store(mark: str, folder: Path) -> str:
    return os.path.relpath(Path(mark).resolve().parent, folder)
