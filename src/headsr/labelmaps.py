"""A pinned label map of a head, and the table that pins it (``config/labelmaps.tsv``). Models learn anatomy from them.

A label map is no scan of a person: it has a table of its own, so that nothing that is about scans ever sees one.
Standard library only: Snakemake reads this module again inside every cluster job.
"""

from __future__ import annotations

import csv
import io
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, fields
from pathlib import Path

from headsr.files import UnreadableError, read_rows, whole
from headsr.scans import BYTES_PATTERN, DATASET_PATTERN

SPLITS = ("train", "val", "unused")
SUBJECT_PATTERN = r"sub-[A-Za-z0-9]+"
FILE_PATTERN = rf"{SUBJECT_PATTERN}_dseg"  # of a fetched map, without its ending


class LabelMapsError(UnreadableError):
    """The table of label maps is not what headsr needs. The message names the file and the way out."""


@dataclass(frozen=True)
class PinnedMap:
    """One label map of a dataset: whose head it is (``sub-01``), where the dataset keeps it, and what pins its content.

    ``key`` is an annex key, or ``GIT-s<bytes>--<blob hash>`` where git itself holds it; ``split`` one of SPLITS.
    """

    dataset: str
    subject: str
    path: str
    key: str
    bytes: int
    split: str

    @property
    def name(self) -> str:
        """What people call it in messages: ``synthseg/sub-01``."""
        return f"{self.dataset}/{self.subject}"

    @property
    def place(self) -> str:
        """Its place in the tree of fetched files, without its ending: ``synthseg/sub-01/sub-01_dseg``."""
        return f"{self.name}/{self.subject}_dseg"


COLUMNS = tuple(field.name for field in fields(PinnedMap))


def synthseg_labels() -> Path:
    """The table that ships: what the numbers in SynthSeg's label maps mean, and how bright that is."""
    return Path(__file__).parent / "simulate" / "tables" / "synthseg.tsv"


def read_maps(path: str | os.PathLike[str]) -> tuple[PinnedMap, ...]:
    """Read and check the table of label maps. LabelMapsError or UnreadableError names file, line and way out."""
    try:
        columns, rows = read_rows(path)
    except FileNotFoundError:
        raise LabelMapsError(f"{path}: the table of label maps does not exist. Write it with: headsr pin") from None
    if columns != COLUMNS:
        raise LabelMapsError(f"{path}: its columns must be {' '.join(COLUMNS)}. Write it again with: headsr pin")
    maps = tuple(_read_row(where, row) for where, row in rows)
    seen: dict[str, PinnedMap] = {}
    for one in maps:
        if (first := seen.setdefault(one.name, one)) is not one:
            raise LabelMapsError(f"{path}: {one.name} is listed twice, as {first.path} and {one.path}. Remove one row")
    return maps


def write_maps(path: str | os.PathLike[str], maps: Iterable[PinnedMap]) -> None:
    """Write the table whole or not at all, sorted by name: a diff shows what changed and nothing else."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, delimiter="\t", lineterminator="\n")
    writer.writerow(COLUMNS)
    for one in sorted(maps, key=lambda one: one.name):
        writer.writerow([getattr(one, column) for column in COLUMNS])
    with whole(path) as partial:
        partial.write_text(buffer.getvalue(), encoding="utf-8")


def _read_row(where: str, row: dict[str, str]) -> PinnedMap:
    for column, pattern in (("dataset", DATASET_PATTERN), ("subject", SUBJECT_PATTERN)):
        if re.fullmatch(pattern, row[column]) is None:
            raise LabelMapsError(f"{where}: {row[column]!r} is no {column}; it must be of the form {pattern}")
    if row["split"] not in SPLITS:
        raise LabelMapsError(f"{where}: split {row['split']!r} must be one of {', '.join(SPLITS)}")
    if not row["key"] or not re.fullmatch(BYTES_PATTERN, row["bytes"]):
        raise LabelMapsError(
            f"{where}: key or bytes is missing. Repair that line from git, or move the table away and run: headsr pin"
        )
    return PinnedMap(**{**row, "bytes": int(row["bytes"])})
