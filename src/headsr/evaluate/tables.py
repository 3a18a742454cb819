"""The tables of the results: methods against measures or degradations, beside what was expected and what was published.

A gain is always by how much a method is better, whichever values of its metric are (parts.Metric.gain).
"""

from __future__ import annotations

import csv
import math
import os
import re
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from headsr.evaluate.collect import Score, read_scores
from headsr.files import whole
from headsr.parts import METRICS
from headsr.recipes.tables import VARIANTS, Column, Expectation, Published, Table, read_published
from headsr.words import shown

PUBLISHED = "projected"  # the volumes that are handed out
COMPARED = "unprojected"  # what is set beside published values: no paper projects its volumes onto the scans
NOTHING = "-"


class Measured:
    """The scores of some scans, to be found by what they are of."""

    def __init__(self, rows: Iterable[Score], scans: Iterable[str]) -> None:
        """``scans`` are the names of those that count (``demo/sub-06_T1w``); the table's own is that of its sets."""
        wanted = set(scans)
        self.data_ranges: set[float] = set()
        self.degradations: set[str] = set()  # where anything was measured: of acquired scans no truth is known
        self._rows: dict[tuple[str, ...], list[Score]] = {}
        for row in rows:
            if row.name in wanted:
                key = (row.method, row.degradation, row.variant, row.metric, row.mask)
                self._rows.setdefault(key, []).append(row)
                self.data_ranges.add(row.data_range)
                self.degradations.add(row.degradation)

    def of(self, method: str, degradation: str, variant: str, column: Column, suffix: str = "") -> dict[str, float]:
        """The value of every scan of one suffix ('': of any), by its name; that of a set by its table's."""
        return {row.name: row.value for row in self._found(method, degradation, variant, column, suffix)}

    def cell(self, method: str, degradation: str, variant: str, column: Column, suffix: str = "") -> Cell | None:
        """What a table says of the scans of one suffix ('': of any); None where nothing was measured."""
        rows = self._found(method, degradation, variant, column, suffix)
        if column.of_sets:
            return next((Cell(row.value, row.error, row.n) for row in rows), None)
        return cell_of(row.value for row in rows)

    def _found(self, method: str, degradation: str, variant: str, column: Column, suffix: str) -> list[Score]:
        rows = self._rows.get((method, degradation, variant, column.metric, column.mask), [])
        return [row for row in rows if row.suffix == suffix or (not suffix and not column.of_sets)]

    def gains(
        self, method: str, than: str, degradation: str, variant: str, column: Column, suffix: str = ""
    ) -> list[float]:
        """By how much ``method`` is better on each scan that both reconstructed.

        Means over different heads would say nothing about the methods.
        """
        one, other = (self.of(name, degradation, variant, column, suffix) for name in (method, than))
        gain = METRICS[column.metric].gain
        return [gain(one[name], other[name]) for name in sorted(one.keys() & other.keys())]


@dataclass(frozen=True)
class Outcome:
    """An expectation and what was measured: the mean gain per variant (None: nothing) over ``scans`` scans or sets."""

    expectation: Expectation
    measured: dict[str, float | None]
    scans: int

    @property
    def reached(self) -> bool:
        """Whether the measured number is there and is enough."""
        value = self.measured[self.expectation.variant]
        return value is not None and value >= self.expectation.at_least

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
        metric = self.expectation.metric
        return (
            f"measured {amount(self.measured[wanted], metric)} {VARIANTS[wanted]} "
            f"(required: at least {amount(self.expectation.at_least, metric)}; "
            f"{VARIANTS[other]}: {amount(self.measured[other], metric)}; "
            f"{'sets' if self.expectation.column.of_sets else 'scans'}: {self.scans})"
        )


@dataclass(frozen=True)
class Cell:
    """The mean of one metric over n scans, with the sample standard deviation (NaN for a single scan).

    Of a set of n slices: the value, with its standard error.
    """

    mean: float
    std: float
    n: int

    def text(self, metric: str) -> str:
        """The cell as people read it."""
        decimals = METRICS[metric].decimals
        spread = "" if math.isnan(self.std) else f" ± {self.std:.{decimals}f}"
        return f"{self.mean:.{decimals}f}{spread}"


@dataclass(frozen=True)
class Block:
    """A table as it is printed."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str = ""


def make_table(
    name: str,
    table: Table,
    scores: str | os.PathLike[str],
    *,
    titles: Mapping[str, str],
    scans: Sequence[str],
    published: str | os.PathLike[str] | None,
    tsv: str | os.PathLike[str],
    markdown: str | os.PathLike[str],
) -> None:
    """Write one table as TSV and Markdown, every expectation as reached or not reached; it never fails for a number.

    ``titles`` maps a method to what people call it, ``scans`` names the scans that the table is about
    (``demo/sub-06_T1w``), ``published`` is the CSV of the values to set beside it. Raises RecipeError as
    ``read_published``.
    """
    measured = Measured(read_scores(scores), [*scans, name])
    theirs = read_published(published, table) if published else ()
    with whole(tsv) as partial, open(partial, "w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, delimiter="\t", lineterminator="\n")
        writer.writerows(_tsv_rows(table, measured))
    with whole(markdown) as partial:
        lines = _markdown(table, measured, titles, scans, theirs)
        partial.write_text("\n".join(lines) + "\n", encoding="utf-8")


def cell_of(values: Iterable[float]) -> Cell | None:
    """Mean, standard deviation and number of the values; None where there are none."""
    values = list(values)
    if not values:
        return None
    finite = len(values) > 1 and all(map(math.isfinite, values))
    return Cell(statistics.fmean(values), statistics.stdev(values) if finite else math.nan, len(values))


def judge(table: Table, measured: Measured) -> list[Outcome]:
    """Measure every expectation of a table."""
    return [_judge_one(table, expectation, measured) for expectation in table.expectations]


def blocks_of(
    table: Table, measured: Measured, titles: Mapping[str, str], columns: Sequence[Column] | None = None
) -> list[Block]:
    """The table as people read it, or some columns of it: a block per degradation, or per column if those run across.

    Where nothing was measured on a degradation it is left out. Contrasts are not comparable, so of several suffixes
    each has a block of its own. The last column is the number of scans; a cell over fewer says so, and one of a set how
    many slices it has.
    """
    return [
        Block(
            ("Method", *(f"{head}, {words}" for head, *_ in places for words in VARIANTS.values()), "Scans"),
            [_row(method, places, measured, titles, suffix) for method in table.methods],
            caption + (f", {suffix}" if suffix else ""),
        )
        for caption, places in _layout(table, measured, table.columns if columns is None else columns)
        for suffix in _suffixes(table)
    ]


def blocks_by_scan(table: Table, measured: Measured, titles: Mapping[str, str]) -> list[Block]:
    """The published volumes of every scan: a block per degradation and column, a row per scan, a column per method."""
    blocks = []
    for degradation in scored(table, measured):
        for column in (column for column in table.columns if not column.of_sets):
            values = [measured.of(method, degradation, PUBLISHED, column) for method in table.methods]
            decimals = METRICS[column.metric].decimals
            rows = [
                (name, *(f"{of[name]:.{decimals}f}" if name in of else NOTHING for of in values))
                for name in sorted(set().union(*values))
            ]
            heads = ("Scan", *(titles[method] for method in table.methods))
            blocks += [Block(heads, rows, f"{degradation}: {heading(column)}, {VARIANTS[PUBLISHED]}")] if rows else []
    return blocks


def scored(table: Table, measured: Measured) -> list[str]:
    """The degradations of a table on which anything was measured."""
    return [degradation for degradation in table.degradations if degradation in measured.degradations]


def unscored(table: Table, measured: Measured) -> str:
    """What there is to read of the others, in words; '' where there are none."""
    without = [name for name in table.degradations if name not in measured.degradations]
    if not without:
        return ""
    return (
        f"Not scored: {', '.join(without)}. The truth of a scan is not known where nothing was simulated from it. The "
        "residuals say how well each volume agrees with what was measured, and the pictures show what it adds."
    )


def compare(table: Table, published: Sequence[Published], measured: Measured, titles: Mapping[str, str]) -> Block:
    """Ours, as estimated, beside the published values; and how their gains over the table's first method differ."""
    theirs = {(one.method, one.degradation, one.column): one.value for one in published}
    rows = []
    for one in published:
        metric, first = one.column.metric, table.methods[0]
        ours = measured.cell(one.method, one.degradation, COMPARED, one.column)
        gain = _mean(measured.gains(one.method, first, one.degradation, COMPARED, one.column))
        base = theirs.get((first, one.degradation, one.column))
        their_gain = None if base is None else METRICS[metric].gain(one.value, base)
        difference = None if gain is None or their_gain is None else gain - their_gain
        numbers = [amount(value, metric) for value in (gain, their_gain, difference)]
        cells = (NOTHING if ours is None else ours.text(metric), f"{one.value:.{METRICS[metric].decimals}f}", *numbers)
        rows.append((titles[one.method], one.degradation, heading(one.column), *cells, one.source))
    over = f"gain over {titles[table.methods[0]]}"
    columns = ("Method", "Scans", "Measure", f"Ours, {VARIANTS[COMPARED]}", "Published", f"Our {over}", f"Their {over}")
    return Block((*columns, "Difference of gains", "Source"), rows, "Beside the published values")


def heading(column: Column) -> str:
    """What a column is called: ``PSNR (dB) head``."""
    metric = METRICS[column.metric]
    return f"{metric.title}{f' ({metric.unit})' if metric.unit else ''} {column.mask}"


def legend(metrics: Iterable[str]) -> list[str]:
    """What each metric is, in words, and which values of it are better."""
    return [
        f"{METRICS[name].title}: {METRICS[name].words + '; ' if METRICS[name].words else ''}{METRICS[name].better}"
        for name in dict.fromkeys(metrics)
    ]


def amount(value: float | None, metric: str) -> str:
    """A gain with its sign and unit."""
    if value is None:
        return "nothing"
    return f"{value:+.{METRICS[metric].decimals}f} {METRICS[metric].unit}".rstrip()


def _suffixes(table: Table) -> tuple[str, ...]:
    """The suffixes that are told apart; where there is one, it is all ('') of the table."""
    return table.suffixes if len(table.suffixes) > 1 else ("",)


def _groups(table: Table) -> tuple[str, ...]:
    """The groups of scans of which there are means: all ('') and, where there are several, those of each suffix."""
    return tuple(dict.fromkeys(("", *_suffixes(table))))


def _layout(
    table: Table, measured: Measured, columns: Sequence[Column]
) -> Iterator[tuple[str, list[tuple[str, str, Column]]]]:
    """The caption of every block, and what runs across it: heading, degradation, column."""
    degradations = scored(table, measured)
    if table.across == "degradations":
        for column in columns if degradations else ():
            yield heading(column), [(degradation, degradation, column) for degradation in degradations]
    else:
        for degradation in degradations:
            yield degradation, [(heading(column), degradation, column) for column in columns]


def _row(
    method: str,
    places: Sequence[tuple[str, str, Column]],
    measured: Measured,
    titles: Mapping[str, str],
    suffix: str,
) -> tuple[str, ...]:
    cells = [
        (measured.cell(method, degradation, variant, column, suffix), column)
        for _, degradation, column in places
        for variant in VARIANTS
    ]
    n = max((cell.n for cell, column in cells if cell and not column.of_sets), default=0)
    return titles[method], *(_text(cell, column, n) for cell, column in cells), str(n or NOTHING)


def _text(cell: Cell | None, column: Column, n: int) -> str:
    if cell is None:
        return NOTHING
    if column.of_sets:
        return f"{cell.text(column.metric)} (N {cell.n})"
    return cell.text(column.metric) + (f" (of {cell.n})" if cell.n < n else "")


def _judge_one(table: Table, expectation: Expectation, measured: Measured) -> Outcome:
    column, suffix = expectation.column, expectation.suffix if expectation.suffix in _groups(table) else ""
    gains = {
        variant: measured.gains(expectation.method, expectation.than, expectation.degradation, variant, column, suffix)
        for variant in VARIANTS
    }
    means = {variant: _mean(values) for variant, values in gains.items()}
    return Outcome(expectation, means, len(gains[expectation.variant]))


def _mean(values: Sequence[float]) -> float | None:
    return statistics.fmean(values) if values and all(map(math.isfinite, values)) else None


def _tsv_rows(table: Table, measured: Measured) -> Iterator[list[str]]:
    """One row per method and group of scans; three columns (mean, std, n) per degradation, mask, metric and variant."""
    keys = [(d, column, v) for d in table.degradations for column in table.columns for v in VARIANTS]
    names = [f"{d}.{column.mask}.{column.metric}.{v}.{part}" for d, column, v in keys for part in ("mean", "std", "n")]
    yield ["method", "suffix", *names]
    for suffix in _groups(table):
        for method in table.methods:
            line = [method, suffix or "all"]
            for degradation, column, variant in keys:
                cell = measured.cell(method, degradation, variant, column, suffix)
                line += ("n/a", "n/a", "0") if cell is None else (_number(cell.mean), _number(cell.std), str(cell.n))
            yield line


def _markdown(
    table: Table,
    measured: Measured,
    titles: Mapping[str, str],
    scans: Sequence[str],
    published: Sequence[Published],
) -> Iterator[str]:
    yield f"# {_plain(table.title)}"
    yield ""
    ranges = ", ".join(f"{one:g}" for one in sorted(measured.data_ranges)) or "unknown"
    yield f"Mean ± standard deviation over the {table.split} scans: {_plain(', '.join(scans))}. Data range {ranges}."
    yield ""
    yield from (f"- {line}" for line in legend(column.metric for column in table.columns))
    if words := unscored(table, measured):
        yield ""
        yield words
    blocks = blocks_of(table, measured, titles)
    for block in [*blocks, compare(table, published, measured, titles)] if published else blocks:
        yield from _markdown_block(block)
    yield ""
    yield "## Expectations"
    yield ""
    for outcome in judge(table, measured):
        yield f"- **{outcome.verdict}**: {_plain(outcome.expectation.text)}: {outcome.sentence}"
    if not table.expectations:
        yield "None stated."


def _markdown_block(block: Block) -> Iterator[str]:
    yield ""
    yield f"## {_plain(block.caption)}"
    yield ""
    yield "| " + " | ".join(map(_plain, block.columns)) + " |"
    yield "|---" * len(block.columns) + "|"
    yield from ("| " + " | ".join(map(_plain, row)) + " |" for row in block.rows)


def _plain(text: str) -> str:
    """Text as Markdown shows it, in one line and one cell: no column, tag, link or code of its own."""
    return re.sub(r"([\\`|<>&\[\]])", r"\\\1", " ".join(shown(text, keep="\n\t").split()))


def _number(value: float) -> str:
    return "n/a" if math.isnan(value) else f"{value:.6g}"
