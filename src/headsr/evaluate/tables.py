"""The tables of the results: methods against degradations, and what was expected beside what was measured."""

from __future__ import annotations

import csv
import math
import os
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from headsr.evaluate.collect import Score, read_scores, select
from headsr.files import whole
from headsr.recipes import RecipeError, Table, build

VARIANTS = {"unprojected": "as estimated", "projected": "projected"}
# What a table shows, in the order of its columns.
SHOWN = (("head", "psnr"), ("head", "ssim"), ("head", "nrmse"), ("brain", "psnr"), ("brain", "ssim"))
_DECIMALS = {"psnr": 2, "ssim": 4, "nrmse": 4}
_NAMES = {"psnr": "PSNR (dB)", "ssim": "SSIM", "nrmse": "NRMSE"}


@dataclass(frozen=True)
class Expectation:
    """What a table should show: ``method`` at least ``at_least_db`` above ``than`` (below, where negative).

    The difference is that of the mean PSNR inside the head mask over the scans that both methods reconstructed, of one
    ``suffix`` ('' for all of the table's), as estimated or after projection (``variant``: unprojected or projected).
    """

    text: str
    degradation: str
    method: str
    than: str
    at_least_db: float
    variant: str = "unprojected"
    suffix: str = ""


@dataclass(frozen=True)
class Outcome:
    """An expectation and what was measured: the difference in dB per variant (None: nothing) over ``scans`` scans."""

    expectation: Expectation
    measured: dict[str, float | None]
    scans: int

    @property
    def reached(self) -> bool:
        """Whether the measured number is there and is enough."""
        value = self.measured[self.expectation.variant]
        return value is not None and value >= self.expectation.at_least_db

    @property
    def verdict(self) -> str:
        """The word for it."""
        if self.measured[self.expectation.variant] is None:
            return "NOT measured"
        return "reached" if self.reached else "NOT reached"

    @property
    def sentence(self) -> str:
        """What was measured, beside what was required."""
        wanted, other = self.expectation.variant, next(v for v in VARIANTS if v != self.expectation.variant)
        return (
            f"measured {_decibel(self.measured[wanted])} {VARIANTS[wanted]} "
            f"(required: at least {_decibel(self.expectation.at_least_db)}; "
            f"{VARIANTS[other]}: {_decibel(self.measured[other])}; scans: {self.scans})"
        )


@dataclass(frozen=True)
class Cell:
    """The mean of one metric over n scans, with the sample standard deviation (NaN for a single scan)."""

    mean: float
    std: float
    n: int

    def text(self, metric: str) -> str:
        """The cell as people read it."""
        decimals = _DECIMALS[metric]
        spread = "" if math.isnan(self.std) else f" ± {self.std:.{decimals}f}"
        return f"{self.mean:.{decimals}f}{spread}"


def make_table(
    name: str,
    table: Table,
    scores: str | os.PathLike[str],
    *,
    titles: Mapping[str, str],
    scans: Sequence[str],
    tsv: str | os.PathLike[str],
    markdown: str | os.PathLike[str],
) -> None:
    """Write one table as TSV and Markdown, every expectation as reached or not reached; it never fails for a number.

    ``titles`` maps a method to what people call it, ``scans`` names the scans that the table is about
    (``demo/sub-06_T1w``). Raises RecipeError for an expectation with an unknown or missing key, or an unknown name.
    """
    rows = [row for row in read_scores(scores) if row.name in set(scans)]
    outcomes = judge(name, table, rows)
    with whole(tsv) as partial, open(partial, "w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, delimiter="\t", lineterminator="\n")
        writer.writerows(_tsv_rows(table, rows))
    with whole(markdown) as partial:
        partial.write_text("\n".join(_markdown(table, rows, outcomes, titles, scans)) + "\n", encoding="utf-8")


def cell_of(rows: Iterable[Score], metric: str) -> Cell | None:
    """Mean, standard deviation and number of one metric; None where nothing was measured."""
    values = [getattr(row, metric) for row in rows]
    if not values:
        return None
    finite = len(values) > 1 and all(map(math.isfinite, values))
    return Cell(statistics.fmean(values), statistics.stdev(values) if finite else math.nan, len(values))


def judge(name: str, table: Table, rows: Sequence[Score]) -> list[Outcome]:
    """Measure every expectation of a table."""
    return [_judge_one(read_expectation(name, table, block), rows) for block in table.expectations]


def read_expectation(name: str, table: Table, block: Mapping) -> Expectation:
    """One expectation of a table; RecipeError for an unknown key, method, degradation, suffix or variant."""
    where = f"table {name}: expectation {block.get('text', block)!r}" if isinstance(block, Mapping) else f"table {name}"
    expectation = build(Expectation, block, where)
    choices = {
        "method": table.methods,
        "than": table.methods,
        "degradation": table.degradations,
        "suffix": ("", *table.suffixes),
        "variant": tuple(VARIANTS),
    }
    for key, known in choices.items():
        if getattr(expectation, key) not in known:
            raise RecipeError(
                f"{where}.{key}: {getattr(expectation, key)!r} is not in this table; choose one of {', '.join(known)}"
            )
    return expectation


def groups_of(table: Table) -> tuple[str, ...]:
    """The groups of scans that have rows of their own: all ('') and, where there are several, each suffix."""
    return ("", *table.suffixes) if len(table.suffixes) > 1 else ("",)


def body_of(table: Table, rows: Sequence[Score], degradation: str, suffix: str) -> list[tuple[str, list[str], int]]:
    """The rows of one degradation as people read them: (method, cells in the order of ``columns``, number of scans)."""
    result = []
    for method in table.methods:
        mine = select(rows, method=method, degradation=degradation, suffix=suffix)
        cells, counts = [], {0}
        for mask, metric in SHOWN:
            for variant in VARIANTS:
                cell = cell_of(select(mine, mask=mask, variant=variant), metric)
                cells.append("-" if cell is None else cell.text(metric))
                counts.add(0 if cell is None else cell.n)
        result.append((method, cells, max(counts)))
    return result


def columns() -> list[str]:
    """The columns of ``body_of``."""
    return [f"{_NAMES[metric]} {mask}, {words}" for mask, metric in SHOWN for words in VARIANTS.values()]


def _judge_one(expectation: Expectation, rows: Sequence[Score]) -> Outcome:
    measured: dict[str, float | None] = {}
    counted = 0
    for variant in VARIANTS:
        values = {
            method: {row.name: row.psnr for row in _compared(rows, expectation, method, variant)}
            for method in (expectation.method, expectation.than)
        }
        # Only scans that both reconstructed: means over different heads say nothing about the methods.
        both = sorted(values[expectation.method].keys() & values[expectation.than].keys())
        gains = [values[expectation.method][name] - values[expectation.than][name] for name in both]
        measured[variant] = statistics.fmean(gains) if gains and all(map(math.isfinite, gains)) else None
        counted = len(gains) if variant == expectation.variant else counted
    return Outcome(expectation, measured, counted)


def _compared(rows: Sequence[Score], expectation: Expectation, method: str, variant: str) -> list[Score]:
    return select(
        rows,
        method=method,
        variant=variant,
        mask="head",
        degradation=expectation.degradation,
        suffix=expectation.suffix,
    )


def _tsv_rows(table: Table, rows: Sequence[Score]) -> Iterable[list[str]]:
    """One row per method and group of scans; three columns (mean, std, n) per degradation, mask, metric and variant."""
    keys = [(d, mask, metric, v) for d in table.degradations for mask, metric in SHOWN for v in VARIANTS]
    yield ["method", "suffix", *(".".join((*key, part)) for key in keys for part in ("mean", "std", "n"))]
    for suffix in groups_of(table):
        for method in table.methods:
            line = [method, suffix or "all"]
            for degradation, mask, metric, variant in keys:
                chosen = select(rows, method=method, degradation=degradation, mask=mask, variant=variant, suffix=suffix)
                cell = cell_of(chosen, metric)
                numbers = ("n/a", "n/a", "0") if cell is None else (_number(cell.mean), _number(cell.std), str(cell.n))
                line.extend(numbers)
            yield line


def _markdown(
    table: Table, rows: Sequence[Score], outcomes: Sequence[Outcome], titles: Mapping[str, str], scans: Sequence[str]
) -> Iterable[str]:
    yield f"# {table.title}"
    yield ""
    yield f"Mean ± standard deviation over the {table.split} scans: {', '.join(scans)}. Data range {_ranges(rows)}."
    for degradation in table.degradations:
        for suffix in groups_of(table):
            yield ""
            yield f"## {degradation}" + (f", {suffix}" if suffix else "")
            yield ""
            yield "| method | " + " | ".join(columns()) + " | scans |"
            yield "|---" * (len(columns()) + 2) + "|"
            for method, cells, n in body_of(table, rows, degradation, suffix):
                yield f"| {titles.get(method, method)} | " + " | ".join(cells) + f" | {n} |"
    yield ""
    yield "## Expectations"
    yield ""
    for outcome in outcomes:
        yield f"- **{outcome.verdict}**: {outcome.expectation.text}: {outcome.sentence}"
    if not outcomes:
        yield "None stated."


def _ranges(rows: Sequence[Score]) -> str:
    return ", ".join(sorted({f"{row.data_range:g}" for row in rows})) or "unknown"


def _number(value: float) -> str:
    return "n/a" if math.isnan(value) else f"{value:.6g}"


def _decibel(value: float | None) -> str:
    return "nothing" if value is None else f"{value:+.2f} dB"
