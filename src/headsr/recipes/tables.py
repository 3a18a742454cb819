"""Recipes of tables: what is compared with what, by which measures, and what was expected."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from headsr.files import read_rows
from headsr.parts import METRICS
from headsr.recipes.convert import FOR_PEOPLE, Among, Doc, Names, RecipeError, build, plain, unknown
from headsr.recipes.data import Split, Suffix

VARIANTS = {"unprojected": "as estimated", "projected": "projected"}
MASKS = ("head", "brain", "lesion")
PLANES = ("axial", "coronal", "sagittal")  # where metrics of sets are measured: on the slices of one plane

MetricName = Annotated[str, Among(METRICS, "metric")]
MethodName = Annotated[str, Names("methods")]
DegradationName = Annotated[str, Names("degradations")]
DatasetName = Annotated[str, Names("datasets", ("scans",))]


@dataclass(frozen=True)
class Column:
    """One measure of a table inside one mask; that of a set of slices, on one plane."""

    shorthand: ClassVar[str] = "metric"
    metric: Annotated[MetricName, Doc("What is measured.")]
    mask: Annotated[Literal[*MASKS, *PLANES], Doc("Where; sets are measured by plane.")] = "head"

    def __post_init__(self) -> None:
        places = PLANES if self.of_sets else MASKS
        if self.mask not in places:
            raise ValueError(f"mask: {unknown(f'place of {self.metric}', self.mask, places)}")

    @property
    def of_sets(self) -> bool:
        """Whether it compares all slices of many volumes at once, by the features of a slice encoder."""
        return METRICS[self.metric].family == "set"


@dataclass(frozen=True, kw_only=True)
class Expectation:
    """What a table should show: ``method`` at least ``at_least`` better than ``than`` (worse, where negative).

    Better is above, below, or nearer to the ideal, as ``metric`` has it (parts.Metric.gain). It is the mean gain
    inside ``mask`` over the scans that both methods reconstructed, of one ``suffix`` ('' for all of the table's), as
    estimated or after projection (``variant``).
    """

    text: Annotated[str, Doc("What is expected, in words.")]
    degradation: Annotated[DegradationName, Doc("On which scans.")]
    method: Annotated[MethodName, Doc("What should be better.")]
    than: Annotated[MethodName, Doc("Than what.")]
    at_least: Annotated[float, Doc("By how much better, in the metric's unit.")]
    metric: Annotated[MetricName, Doc("By which measure.")] = "psnr"
    mask: Annotated[Literal[*MASKS, *PLANES], Doc("Where; sets are measured by plane.")] = "head"
    variant: Annotated[Literal[tuple(VARIANTS)], Doc("Before or after the projection.")] = "unprojected"
    suffix: Annotated[str, Doc("Of one contrast; empty is all.")] = ""

    def __post_init__(self) -> None:
        _ = self.column  # refuses what cannot be measured there

    @property
    def column(self) -> Column:
        """What it is measured by."""
        return Column(self.metric, self.mask)


_COLUMNS = (Column("psnr"), Column("ssim"), Column("nrmse"), Column("psnr", "brain"), Column("ssim", "brain"))


@dataclass(frozen=True, kw_only=True)
class Table:
    """One table or figure of results: every method on every degradation, over one split and the named suffixes.

    ``datasets`` limits it to the scans of these datasets, ``scans`` to the scans of these names; empty means all.
    """

    title: Annotated[str, FOR_PEOPLE, Doc("What people call it.")]
    methods: Annotated[tuple[MethodName, ...], Doc("Its rows.")]
    degradations: Annotated[tuple[DegradationName, ...], Doc("What the scans went through.")]
    suffixes: Annotated[tuple[Suffix, ...], Doc("Contrasts of the scans.")]
    split: Annotated[Split, Doc("Of the scans.")] = "test"
    datasets: Annotated[tuple[DatasetName, ...], Doc("Only scans of these datasets; empty is all.")] = ()
    scans: Annotated[tuple[str, ...], Doc("Only the scans of these names; empty is all.")] = ()
    columns: Annotated[tuple[Column, ...], Doc("What is measured; a name alone is measured in the head.")] = _COLUMNS
    encoder: Annotated[
        str, Names("models", ("slice_encoder",)), Doc("The model by whose features sets of slices are compared.")
    ] = ""
    across: Annotated[Literal["columns", "degradations"], Doc("What runs across the page.")] = "columns"
    published: Annotated[str, FOR_PEOPLE, Doc("CSV of a paper's values, from the project's folder.")] = ""
    expectations: Annotated[tuple[Expectation, ...], Doc("What should be found; printed as reached or not.")] = ()

    def __post_init__(self) -> None:
        for key in ("methods", "degradations", "suffixes", "columns"):
            if not getattr(self, key):
                raise ValueError(f"{key}: name at least one")
        for key in ("methods", "degradations", "suffixes", "datasets", "scans", "columns"):
            named = getattr(self, key)
            if twice := next((one for one in named if named.count(one) > 1), None):
                raise ValueError(f"{key}: {plain(twice)} is named twice")
        if (metrics := sorted({column.metric for column in self.measures if column.of_sets})) and not self.encoder:
            raise ValueError(f"encoder: name the slice encoder by whose features {metrics[0]} compares slices")
        if self.encoder and not metrics:
            raise ValueError("encoder: no column compares sets of slices; leave it out")

    @property
    def measures(self) -> frozenset[Column]:
        """Everything that has to be measured for it: what it shows, and what it expects."""
        return frozenset({*self.columns, *(expectation.column for expectation in self.expectations)})


@dataclass(frozen=True)
class Published:
    """One value of a paper, to be set beside ours: a mean in the metric's unit, and where it stands."""

    method: str
    degradation: str
    column: Column
    value: float
    source: str


_PUBLISHED = ("method", "degradation", "metric", "mask", "value", "source")  # the last may be missing


def read_published(path: str | os.PathLike[str], table: Table) -> tuple[Published, ...]:
    """The published values beside a table: a CSV with the columns method, degradation, metric, mask, value[, source].

    Methods, degradations and measures are the table's own; an empty mask is the head. Raises RecipeError naming file
    and line for a file that is not there, what the table does not have, a value that is no number, and one that comes
    twice; UnreadableError for what is no table.
    """
    try:
        columns, rows = read_rows(path, delimiter=",")
    except FileNotFoundError:
        raise RecipeError(f"{path}: does not exist; a table names it as published") from None
    if columns not in (_PUBLISHED, _PUBLISHED[:-1]):
        raise RecipeError(f"{path}: its columns must be {','.join(_PUBLISHED)}")
    found: dict[tuple[str, str, Column], Published] = {}
    for where, row in rows:
        one = _published(row, table, where)
        if found.setdefault((one.method, one.degradation, one.column), one) is not one:
            raise RecipeError(f"{where}: {one.method} on {one.degradation} has a value already")
    return tuple(found.values())


def _published(row: Mapping[str, str], table: Table, where: str) -> Published:
    for key, known in {"method": table.methods, "degradation": table.degradations}.items():
        if row[key] not in known:
            raise RecipeError(f"{where}: {unknown(f'{key} of this table', row[key], known)}")
    column = build(Column, {"metric": row["metric"], "mask": row["mask"] or "head"}, where)
    if column not in table.measures:
        raise RecipeError(
            f"{where}: this table does not measure {column.metric} in {column.mask}; add it to its columns"
        )
    return Published(row["method"], row["degradation"], column, _number(row["value"], where), row.get("source", ""))


def _number(text: str, where: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise RecipeError(f"{where}: {text!r} is no number")
    return value
