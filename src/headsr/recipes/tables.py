"""Recipes of tables: what is compared with what, by which measures, and what was expected."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from headsr.parts import METRICS
from headsr.recipes.convert import FOR_PEOPLE, Among, Doc, Names
from headsr.recipes.data import Split, Suffix

VARIANTS = {"unprojected": "as estimated", "projected": "projected"}
MASKS = ("head", "brain", "lesion")

MetricName = Annotated[str, Among(METRICS, "metric")]
MethodName = Annotated[str, Names("methods")]
DegradationName = Annotated[str, Names("degradations")]
DatasetName = Annotated[str, Names("datasets")]


@dataclass(frozen=True)
class Column:
    """One measure of a table inside one mask."""

    shorthand: ClassVar[str] = "metric"
    metric: Annotated[MetricName, Doc("What is measured.")]
    mask: Annotated[Literal[MASKS], Doc("Where.")] = "head"


@dataclass(frozen=True, kw_only=True)
class Expectation:
    """What a table should show: ``method`` at least ``at_least`` above ``than`` (below, where negative).

    The difference is that of the means of ``metric`` inside ``mask`` over the scans that both methods reconstructed, of
    one ``suffix`` ('' for all of the table's), as estimated or after projection (``variant``).
    """

    text: Annotated[str, Doc("What is expected, in words.")]
    degradation: Annotated[DegradationName, Doc("On which scans.")]
    method: Annotated[MethodName, Doc("What should be better.")]
    than: Annotated[MethodName, Doc("Than what.")]
    at_least: Annotated[float, Doc("By how much, in the metric's unit.")]
    metric: Annotated[MetricName, Doc("By which measure.")] = "psnr"
    mask: Annotated[Literal[MASKS], Doc("Where.")] = "head"
    variant: Annotated[Literal[tuple(VARIANTS)], Doc("Before or after the projection.")] = "unprojected"
    suffix: Annotated[str, Doc("Of one contrast; empty is all.")] = ""


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
    across: Annotated[Literal["columns", "degradations"], Doc("What runs across the page.")] = "columns"
    published: Annotated[str, FOR_PEOPLE, Doc("CSV of the paper's values, printed beside ours.")] = ""
    expectations: Annotated[tuple[Expectation, ...], Doc("What should be found; printed as reached or not.")] = ()

    def __post_init__(self) -> None:
        for key in ("methods", "degradations", "suffixes", "columns"):
            if not getattr(self, key):
                raise ValueError(f"{key}: name at least one")
