"""All scores in one long table: one row per volume, variant, mask and metric."""

from __future__ import annotations

import csv
import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from headsr.files import read_json, whole


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


COLUMNS = tuple(field.name for field in fields(Score))
_NUMBERS = {"value": float, "data_range": float, "n": int, "error": float}


def collect_scores(scores: Iterable[str | os.PathLike[str]], output: str | os.PathLike[str]) -> None:
    """Write the scores of many files as one table, sorted: equal scores give equal bytes in whatever order they come.

    A file is the JSON of ``headsr.evaluate.score``, of whichever family of metrics. Raises ValueError when two rows
    score the same by the same metric, or when they were measured over different data ranges.
    """
    rows = sorted((row for path in scores for row in _rows_of(path)), key=_identity)
    if len({_identity(row) for row in rows}) != len(rows):
        raise ValueError(f"{output}: a volume is scored twice. Remove stale files below scores/")
    if len({row.data_range for row in rows}) > 1:
        raise ValueError(f"{output}: the scores were measured over different data ranges and cannot be compared")
    with whole(output) as partial, open(partial, "w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, delimiter="\t", lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows([_text(getattr(row, column)) for column in COLUMNS] for row in rows)


def read_scores(path: str | os.PathLike[str]) -> list[Score]:
    """Read the table of all scores."""
    with open(path, encoding="utf-8", newline="") as stream:
        rows = csv.DictReader(stream, delimiter="\t")
        if tuple(rows.fieldnames or ()) != COLUMNS:
            raise ValueError(f"{path}: its columns must be {' '.join(COLUMNS)}. Run collect_scores again")
        return [Score(**{**row, **{name: of(row[name]) for name, of in _NUMBERS.items()}}) for row in rows]


def _rows_of(path: str | os.PathLike[str]) -> Iterator[Score]:
    content = read_json(path)
    try:
        for row in content["rows"]:
            yield Score(
                **content["unit"],
                variant=row["variant"],
                mask=row["mask"],
                metric=row["metric"],
                value=float(row["value"]),
                data_range=float(content["data_range"]),
                profile=content["profile"],
                seed="" if content["seed"] is None else str(content["seed"]),
                trained_on=", ".join(map(_short, content["trained_on"])),
                source_key=content["source_key"],
                n=row.get("n", 1),
                error=row.get("error", math.nan),
            )
    except (KeyError, TypeError) as error:
        raise ValueError(f"{path}: is not a score ({error!r}). Delete it and run again to make it anew") from error


def _short(trained_on: Mapping[str, Any]) -> str:
    """Enough to find the model again: its name and the hash of the list of its training keys."""
    return f"{trained_on['model']} {trained_on['training_keys']}"


def _identity(row: Score) -> Sequence[str]:
    return row.dataset, row.scan, row.suffix, row.degradation, row.method, row.variant, row.mask, row.metric


def _text(value: str | float) -> str:
    return f"{value:.6g}" if isinstance(value, float) else value
