"""All scores in one long table: one row per volume, variant, mask and metric."""

from __future__ import annotations

import csv
import math
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

from headsr.files import read_rows, whole
from headsr.typed_json import read_as


@dataclass(frozen=True)
class Score:
    """One metric of one volume inside one mask, before or after the projection (``variant``).

    Of a set of slices (dataset: empty; scan: its table; suffix: empty for all) ``mask`` is the plane, ``n`` the number
    of slices of a side and ``error`` the standard error of the value, NaN where the metric has none.
    """

    dataset: str
    scan: str
    suffix: str
    method: str
    degradation: str
    variant: str
    mask: str
    metric: str
    value: float
    data_range: float
    profile: str
    seed: str
    trained_on: str
    source_key: str
    n: int = 1
    error: float = math.nan

    @property
    def name(self) -> str:
        """The scan as people call it, ``demo/sub-06_T1w``; of a set of slices, the table."""
        return f"{self.dataset}/{self.scan}_{self.suffix}" if self.dataset else self.scan


@dataclass(frozen=True, kw_only=True)
class ScoredUnit:
    """What was scored: a volume, or (dataset: empty) the sets of slices of a table."""

    dataset: str
    scan: str
    suffix: str
    method: str
    degradation: str


@dataclass(frozen=True, kw_only=True)
class ScoredRow:
    """One metric in one mask. A value that JSON has no number for stands as text: inf, -inf."""

    variant: str
    mask: str
    metric: str
    value: Any
    n: int = 1
    error: Any = math.nan

    def __post_init__(self) -> None:
        for key in ("value", "error"):
            number = getattr(self, key)
            if type(number) not in (int, float) and number not in ("inf", "-inf", "nan"):
                raise ValueError(f"{key}: {number!r} is no number, nor inf or -inf")


@dataclass(frozen=True, kw_only=True)
class TrainedOn:
    """A model behind a method: its name, and the hashes of what it was trained on and of its weights."""

    model: str
    training_keys: str
    sha256: str


@dataclass(frozen=True, kw_only=True)
class ScoreFile:
    """The scores of one unit, of one family of metrics."""

    unit: ScoredUnit
    rows: tuple[ScoredRow, ...]
    data_range: float
    profile: str
    seed: int | None
    trained_on: tuple[TrainedOn, ...]
    source_key: str


COLUMNS = tuple(field.name for field in fields(Score))
_NUMBERS = {"value": float, "data_range": float, "n": int, "error": float}


def collect_scores(scores: Iterable[str | os.PathLike[str]], output: str | os.PathLike[str]) -> None:
    """Write the scores of many files as one table, sorted: equal scores give equal bytes in whatever order they come.

    A file is the JSON of ``headsr.evaluate.score``, of whichever family of metrics. Raises ValueError when two rows
    score the same by the same metric, or when they were measured over different data ranges.
    """
    rows = sorted((row for path in scores for row in _rows_of(path)), key=_identity)
    if len({_identity(row) for row in rows}) != len(rows):
        raise ValueError(f"{output}: a volume is scored twice. Move stale files below scores/ away")
    if len({row.data_range for row in rows}) > 1:
        raise ValueError(f"{output}: the scores were measured over different data ranges and cannot be compared")
    with whole(output) as partial, open(partial, "w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, delimiter="\t", lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows([_text(getattr(row, column)) for column in COLUMNS] for row in rows)


def read_scores(path: str | os.PathLike[str]) -> list[Score]:
    """Read the table of all scores. ValueError names the file, and a line that ``collect_scores`` did not write."""
    columns, rows = read_rows(path)
    if columns != COLUMNS:
        raise ValueError(f"{path}: its columns must be {' '.join(COLUMNS)}. {_AGAIN}")
    return [_read_row(where, row) for where, row in rows]


def _read_row(where: str, row: dict[str, str]) -> Score:
    try:
        return Score(**{**row, **{name: of(row[name]) for name, of in _NUMBERS.items()}})
    except ValueError:
        numbers = ", ".join(f"{name} {row[name][:40]!r}" for name in _NUMBERS)
        raise ValueError(f"{where}: holds something else than numbers ({numbers}). {_AGAIN}") from None


_AGAIN = "Run collect_scores again"


def read_score_file(path: str | os.PathLike[str]) -> ScoreFile:
    """Read the JSON of ``headsr.evaluate.score`` or ``sets``. UnreadableError names a file that is none."""
    return read_as(ScoreFile, path)


def _rows_of(path: str | os.PathLike[str]) -> Iterator[Score]:
    said = read_score_file(path)
    for row in said.rows:
        yield Score(
            **asdict(said.unit),
            variant=row.variant,
            mask=row.mask,
            metric=row.metric,
            value=float(row.value),
            data_range=said.data_range,
            profile=said.profile,
            seed="" if said.seed is None else str(said.seed),
            trained_on=", ".join(map(_short, said.trained_on)),
            source_key=said.source_key,
            n=row.n,
            error=float(row.error),
        )


def _short(trained_on: TrainedOn) -> str:
    """Enough to find the model again: its name and the hash of the list of its training keys."""
    return f"{trained_on.model} {trained_on.training_keys}"


def _identity(row: Score) -> Sequence[str]:
    return row.dataset, row.scan, row.suffix, row.degradation, row.method, row.variant, row.mask, row.metric


def _text(value: str | float) -> str:
    return f"{value:.6g}" if isinstance(value, float) else value
