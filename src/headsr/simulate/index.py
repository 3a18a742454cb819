"""The list of the anatomies that a model is trained on: which file belongs to which split."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from pathlib import Path

from headsr.files import write_json


def list_anatomies(
    anatomies: Iterable[tuple[str, str, str, *tuple[object, ...]]], output: str | os.PathLike[str]
) -> None:
    """Write ``training.json`` from (name, split, path, what it follows from ...) of every anatomy of one model.

    What an anatomy follows from (its label map's key, the labels' table, the code) becomes the entry's ``key``, a
    SHA-256: trainings read the list, so with other anatomies it must be another list. Paths are kept relative to the
    list's own folder, so that results can be moved. Raises ValueError when a split has no anatomy.
    """
    folder = Path(output).resolve().parent
    entries = [
        {
            "name": name,
            "split": split,
            "anatomy": os.path.relpath(Path(path).resolve(), folder),
            "key": hashlib.sha256(json.dumps(source, sort_keys=True).encode()).hexdigest(),
        }
        for name, split, path, *source in anatomies
    ]
    for split in ("train", "val"):
        if split not in {entry["split"] for entry in entries}:
            raise ValueError(f"{output}: no anatomy of the model has the split {split}; change the table of label maps")
    write_json(output, {"stores": sorted(entries, key=lambda entry: entry["anatomy"])})
