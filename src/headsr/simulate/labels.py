"""Label maps as BIDS keeps them: a segmentation (``_dseg.nii.gz``) and a table that says what its numbers mean."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from headsr.files import UnreadableError, read_rows
from headsr.scans import image_stem
from headsr.sidecars import about
from headsr.simulate.contrast import TISSUES, tissue_of


class LabelMapError(ValueError):
    """A label map or its table cannot be used. The message names the file, what is missing and how to give it."""


class Structure(NamedTuple):
    """One row of a table of labels: the number in the map, name, tissue, and the group whose brightness it shares.

    ``prior``: of the T1w signal of the group (0 to 255), the mean and its spread between heads, and the spread within
    one head and that spread's spread; None where the table does not say.
    """

    label: int
    name: str
    tissue: str
    group: str
    prior: tuple[float, float, float, float] | None


_log = logging.getLogger(__name__)
_PRIOR = ("t1_mean", "t1_mean_sd", "t1_sd", "t1_sd_sd")
_LAST_LABEL = 2**31 - 1
_TABLES = ("labels.tsv", "dseg.tsv")
_COLUMNS = (
    "It needs the columns label (or index, as BIDS has it) and name; tissue, class and t1_mean, t1_mean_sd, t1_sd,"
    " t1_sd_sd are optional"
)


def find_label_maps(
    folder: str | os.PathLike[str], *, leaving_out: str | os.PathLike[str] | None = None
) -> list[tuple[Path, Path]]:
    """Every segmentation below a folder with its table: of its own name, or labels.tsv or dseg.tsv at or above it.

    By BIDS' inheritance a table may be about some maps alone: desc-aseg_dseg.tsv is none of sub-01_dseg.nii.gz. A map
    without a table is left out with a warning, and so is, without a word, all in hidden folders and in ``leaving_out``.
    Raises LabelMapError when there is no map with a table.
    """
    root = Path(folder)
    if not root.is_dir():
        what = "is a file" if root.exists() else "does not exist"
        raise LabelMapError(f"{root}: {what}. Name a folder of label maps (files that end in _dseg.nii.gz)")
    maps = [path for ending in ("dseg.nii.gz", "dseg.nii") for path in _visible(root.rglob(f"*{ending}"), root)]
    if leaving_out is not None:
        maps = [path for path in maps if Path(leaving_out).resolve() not in path.resolve().parents]
    if not maps:
        raise LabelMapError(f"{root}: holds no label map. headsr looks for files that end in _dseg.nii.gz (BIDS)")
    tables = {path: _table_of(path, root) for path in sorted(maps)}
    lacking = [path for path, table in tables.items() if table is None]
    if len(lacking) == len(tables):
        raise LabelMapError(_without_table(lacking[0], root))
    for path in lacking:
        _log.warning("left out: %s", _without_table(path, root))
    return [(path, table) for path, table in tables.items() if table is not None]


def _visible(paths: Iterable[Path], root: Path) -> Iterator[Path]:
    return (path for path in paths if not any(part.startswith(".") for part in path.relative_to(root).parts))


def _table_of(path: Path, root: Path) -> Path | None:
    own = _own_table(path)
    if own.is_file():
        return own
    for folder in [place for place in path.parents if place == root or root in place.parents]:
        found = [folder / name for name in _TABLES if (folder / name).is_file()] or _tables_about(path, folder)
        if len(found) > 1:
            raise LabelMapError(f"{path}: {' and '.join(map(str, found))} could both be its table. Keep one, or {own}")
        if found:
            return found[0]
    return None


def _tables_about(path: Path, folder: Path) -> list[Path]:
    """The tables of a folder that are about a map by BIDS' inheritance: those that say most of it."""
    found = about(image_stem(path.name), sorted(os.listdir(folder)), ending=".tsv")
    return [folder / name for name in found if name.count("_") == found[0].count("_")]


def _own_table(path: Path) -> Path:
    return path.with_name(f"{image_stem(path.name)}.tsv")


def _without_table(path: Path, root: Path) -> str:
    return (
        f"{path}: no table says what its numbers mean. Put {_own_table(path).name} beside it, or labels.tsv into "
        f"{root}. {_COLUMNS}"
    )


def read_structures(table: str | os.PathLike[str], *, used: Collection[int] | None = None) -> tuple[Structure, ...]:
    """Read a table of labels (tab separated). The tissue is the column of that name, or follows from the name.

    With ``used``, the labels of a map, a row of another label whose tissue nothing says is left out. Raises
    LabelMapError naming the row and the way out.
    """
    try:
        columns, rows = read_rows(table, stripped=True)
    except (OSError, UnreadableError) as error:
        raise LabelMapError(f"{table}: cannot be read as a table of labels ({error})") from error
    number = "label" if "label" in columns else "index"
    if not rows or not {number, "name"} <= set(columns):
        raise LabelMapError(f"{table}: is no table of labels. {_COLUMNS}, separated by tabs")
    read = (_structure(row, number, table, used) for _, row in rows)
    structures = tuple(structure for structure in read if structure is not None)
    if len({structure.label for structure in structures}) < len(structures):
        raise LabelMapError(f"{table}: a label stands in more than one row. Keep one row per label")
    return structures


def _structure(
    row: dict[str, str], number: str, table: str | os.PathLike[str], used: Collection[int] | None
) -> Structure | None:
    where = f"{table}: label {row[number]} ({row['name']})"
    label = int(_number(row[number], where, most=_LAST_LABEL, whole=True))
    given = [row.get(name) not in (None, "", "n/a") for name in _PRIOR]
    prior = tuple(_number(row[name], where) for name in _PRIOR) if all(given) else None
    named = row.get("tissue") or tissue_of(row["name"]) or tissue_of(row.get("abbreviation") or "")
    tissue = "air" if label == 0 else named
    if tissue not in TISSUES and used is not None and label not in used:
        return None
    if tissue not in TISSUES:
        raise LabelMapError(
            f"{where}: {tissue or 'its name'} is no tissue that headsr knows. Add a column tissue to the table with"
            f" one of: {', '.join(TISSUES)}"
        )
    return Structure(label, row["name"], tissue, row.get("class") or tissue, prior)


def _number(text: str, where: str, *, most: float = math.inf, whole: bool = False) -> float:
    """The number of a cell, from 0 on; LabelMapError for anything else."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not (0 <= number <= most) or math.isinf(number) or (whole and number % 1):
        kind = "a whole number" if whole else "a number"
        raise LabelMapError(f"{where}: {text[:40]!r} stands where {kind} of at least 0 is needed. Repair that row")
    return number


def whole_numbers(data: NDArray[np.float32], path: str | os.PathLike[str]) -> NDArray[np.int32]:
    """The labels of a map as integers; LabelMapError when they are not."""
    numbers = np.rint(data).astype(np.int32)
    if np.abs(numbers - data).max() > 1e-3:
        raise LabelMapError(f"{path}: holds fractions, not labels. A label map has one whole number per voxel (_dseg)")
    return numbers
