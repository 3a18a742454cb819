"""The report: one offline HTML file with pictures, below 5 MB, that prints what was measured and not what was hoped."""

from __future__ import annotations

import base64
import os
import platform
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from html.parser import HTMLParser
from importlib import metadata
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, FileSystemLoader, StrictUndefined

import headsr
from headsr.evaluate.checked import read_check
from headsr.evaluate.collect import Score, read_scores
from headsr.evaluate.score import DATA_RANGE
from headsr.evaluate.tables import (
    Block,
    Measured,
    Outcome,
    blocks_by_scan,
    blocks_of,
    compare,
    judge,
    legend,
    unscored,
)
from headsr.evaluate.wording import methods_text, models_of, seeds_of
from headsr.files import whole
from headsr.provenance import read_record
from headsr.recipes import Recipes
from headsr.recipes.tables import read_published

REPORT_BYTES = 5_000_000
NOTICE = "Research use only, not for clinical use"
_PICTURE_BYTES = 4_400_000
_MASK_BYTES = 800_000  # of these; some 40 scans
_ROUNDING = 1.01
_WARNINGS = 100  # so many are listed
_ROWS_BY_SCAN = 500  # of all tables
_RESIDUALS = (
    "Volume", "Scan", "Before, head", "After, head", "Before, everywhere", "After, everywhere", "Noise allows",
    "Within the noise over the head",
)  # fmt: skip
_SHORT = {
    "contradictory": "the scans contradict each other; published as estimated",
    "bounded": "as far as the scans agree with each other and their residuals justify",
}
_SECTIONS = (
    "summary", "heads", "masks", "residuals", "scores", "curves", "methods", "rules", "software", "seeds", "warnings",
)  # fmt: skip
_PACKAGES = (
    "snakemake", "datalad", "git-annex", "antspyx", "nibabel", "numpy", "scipy", "scikit-image", "torch", "diffusers",
    "monai", "dask", "zarr", "safetensors", "mlflow", "matplotlib",
)  # fmt: skip


@dataclass(frozen=True)
class TableView:
    """One table of the results: its expectations, its first column for the summary, all of it, and scan by scan.

    ``unscored`` is what is said of degradations without a truth.
    """

    title: str
    outcomes: Sequence[Outcome]
    headline: Sequence[Block]
    blocks: Sequence[Block]
    by_scan: Sequence[Block]
    unscored: str


@dataclass(frozen=True)
class Residual:
    """Root mean square of A x - y of one volume against one scan, before and after the projection (normalised).

    Over the head, and ``everywhere`` in the scan's field of view; ``outcome`` is what the projection said.
    """

    volume: str
    view: str
    before: float
    after: float
    before_everywhere: float
    after_everywhere: float
    allowed: float
    outcome: str


def write_report(
    output: str | os.PathLike[str],
    *,
    title: str,
    recipes: Recipes,
    tables: Mapping[str, Sequence[str]],
    scores: str | os.PathLike[str],
    checks: Mapping[str, str | os.PathLike[str]],
    volumes: Mapping[str, str | os.PathLike[str]],
    figures: Mapping[str, str | os.PathLike[str]],
    masks: Mapping[str, str | os.PathLike[str]],
    curves: str | os.PathLike[str] | None,
    rulegraph: str | os.PathLike[str] | None,
    records: str | os.PathLike[str],
    published: Mapping[str, str | os.PathLike[str]],
    commit: str = "",
) -> None:
    """Write the report as one HTML file that loads nothing from elsewhere.

    ``tables`` maps each table's name to the scans that it is about (``demo/sub-06_T1w``), ``checks`` names each volume
    (``method degradation dataset/scan_suffix``) by its ``_desc-check_`` JSON, ``volumes`` by the NIfTI that the report
    links to, ``figures`` maps captions to PNG files, ``masks`` the names of scans to theirs,
    ``curves`` and ``rulegraph`` are PNG files, ``published`` maps a table to the CSV of its published values.
    ``records`` is the folder of the jobs' records, whose warnings are listed. Pictures that do not fit are left out and
    named. Raises ValueError if the file would still be too large or would load something.
    """
    rows = read_scores(scores)
    every = [_view(name, recipes, scans, rows, published.get(name)) for name, scans in tables.items()]
    views, rows_left_out = _fitting(every)
    masked, masks_left_out = _pictures(masks, _MASK_BYTES)
    pictures, left_out = _pictures(figures, _PICTURE_BYTES - sum(len(image) for _, image in masked))
    residuals = read_residuals(checks)
    links = {name: _link(path, output) for name, path in volumes.items()}
    html = _template().render(
        title=title,
        notice=NOTICE,
        version=headsr.__version__,
        commit=commit,
        sections=[(anchor, anchor.capitalize()) for anchor in _SECTIONS],
        ran=[*_what_ran(recipes, tables, rows, views), *_what_agrees(checks, residuals)],
        tables=views,
        pictures=pictures,
        left_out=left_out,
        masked=masked,
        masks_left_out=masks_left_out,
        residuals=_residual_grid(residuals),
        links=links,
        volumes_of=_by_picture(links),
        rows_left_out=rows_left_out,
        legend=legend(column.metric for name in tables for column in recipes.tables[name].columns),
        data_range=f"{DATA_RANGE:g}",
        curves=_embedded(curves),
        rulegraph=_embedded(rulegraph),
        methods=methods_text(recipes, tables),
        software=Block(("Package", "Version"), software_versions()),
        seeds=Block(("What", "Seed"), [(name, str(seed)) for name, seed in seeds_of(recipes, tables)]),
        warnings=warnings_of(records),
    )
    _refuse_unfit(output, html)
    with whole(output) as partial:
        partial.write_text(html, encoding="utf-8")


def warnings_of(records: str | os.PathLike[str]) -> list[str]:
    """What jobs warned of, by their records below a folder: each text once, with the first job and how many did."""
    jobs: dict[str, list[str]] = {}
    for path in sorted(Path(records).rglob("*.json")):
        for text in read_record(path).warnings:
            jobs.setdefault(text, []).append(path.relative_to(records).with_suffix("").as_posix())
    lines = [f"{text} ({names[0]}; jobs: {len(names)})" for text, names in jobs.items()]
    rest = len(lines) - _WARNINGS
    return [*lines[:_WARNINGS], *([f"and {rest} more, in the logs"] if rest > 0 else [])]


def software_versions() -> list[tuple[str, str]]:
    """The installed version of everything that results depend on, without importing it."""
    versions = [("headsr", headsr.__version__), ("Python", platform.python_version())]
    versions.append(("system", f"{platform.system()} {platform.machine()}"))
    for name in _PACKAGES:
        try:
            versions.append((name, metadata.version(name)))
        except metadata.PackageNotFoundError:
            versions.append((name, "not installed"))
    return versions


def _template() -> Any:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    return environment.get_template("report.html.j2")


def _what_ran(
    recipes: Recipes, tables: Mapping[str, Sequence[str]], rows: Sequence[Score], views: Sequence[TableView]
) -> list[str]:
    scans = sorted({scan for names in tables.values() for scan in names})
    used = recipes.used_by("tables", tables)
    methods, degradations = sorted(used["methods"]), sorted(used["degradations"])
    outcomes = [outcome for view in views for outcome in view.outcomes]
    scored = len({(row.method, row.degradation, row.name) for row in rows if row.dataset})
    return [
        f"scans ({len(scans)}): {', '.join(scans)}",
        f"degradations ({len(degradations)}): {', '.join(degradations)}",
        f"methods ({len(methods)}): {', '.join(methods)}",
        f"trained models: {', '.join(models_of(recipes, tables)) or 'none'}",
        f"volumes scored against the truth: {scored}",
        *(
            [f"expectations reached: {sum(outcome.reached for outcome in outcomes)} of {len(outcomes)}"]
            if outcomes
            else []
        ),
    ]


def _view(
    name: str,
    recipes: Recipes,
    scans: Sequence[str],
    rows: Sequence[Score],
    published: str | os.PathLike[str] | None,
) -> TableView:
    table, measured, titles = recipes.tables[name], Measured(rows, [*scans, name]), recipes.titles_in(name)
    blocks = blocks_of(table, measured, titles)
    if published is not None:
        blocks.append(compare(table, read_published(published, table), measured, titles))
    return TableView(
        table.title,
        judge(table, measured),
        headline=blocks_of(table, measured, titles, table.columns[:1]),
        blocks=blocks,
        by_scan=blocks_by_scan(table, measured, titles),
        unscored=unscored(table, measured),
    )


def _fitting(views: Sequence[TableView]) -> tuple[list[TableView], int]:
    """The tables with as many rows of single scans as a page has room for, and how many were left out."""
    room, left_out, fitting = _ROWS_BY_SCAN, 0, []
    for view in views:
        blocks = []
        for block in view.by_scan:
            rows = block.rows[:room]
            room, left_out = room - len(rows), left_out + len(block.rows) - len(rows)
            blocks += [replace(block, rows=rows)] if rows else []
        fitting.append(replace(view, by_scan=blocks))
    return fitting, left_out


def _link(path: str | os.PathLike[str], output: str | os.PathLike[str]) -> str:
    """The way from the report to a file beside it."""
    return quote(Path(os.path.relpath(path, Path(output).parent)).as_posix())


def read_residuals(checks: Mapping[str, str | os.PathLike[str]]) -> list[Residual]:
    """Every volume's agreement with every one of its scans, from the checks."""
    found = []
    for name, path in checks.items():
        check = read_check(path)
        for view, of in sorted(check.views.items()):
            everywhere = (of.rms_before_everywhere, of.rms_after_everywhere)
            found.append(Residual(name, view, of.rms_before, of.rms_after, *everywhere, of.allowed, check.outcome))
    return found


def _what_agrees(checks: Mapping, residuals: Sequence[Residual]) -> list[str]:
    before = [r for r in residuals if within(r.before, r.allowed)]
    after = [r for r in residuals if within(r.after, r.allowed)]
    counts = f"{len(after)} of {len(residuals)} after the projection, {len(before)} before it"
    contradicted = sorted({r.volume for r in residuals if r.outcome == "contradictory"})
    return [
        f"volumes made and checked: {len(checks)}",
        f"residuals over the head against the measured slices within the noise: {counts}",
        *(
            [f"published as estimated, for their scans contradict each other: {', '.join(contradicted)}"]
            if contradicted
            else []
        ),
    ]


def _residual_grid(residuals: Sequence[Residual]) -> Block:
    rows = []
    for r in residuals:
        numbers = (r.before, r.after, r.before_everywhere, r.after_everywhere, r.allowed)
        verdict = "yes" if within(r.after, r.allowed) else f"NO: {_SHORT.get(r.outcome, r.outcome)}"
        rows.append((r.volume, r.view, *(f"{number:.5f}" for number in numbers), verdict))
    return Block(_RESIDUALS, rows)


def within(residual: float, allowed: float) -> bool:
    """Whether a residual is explained by the noise, to the same rounding that the check of a volume grants."""
    return residual <= _ROUNDING * allowed


def _pictures(figures: Mapping[str, str | os.PathLike[str]], most: int) -> tuple[list[tuple[str, str]], list[str]]:
    """Pictures as data, as many as fit into ``most`` bytes; and the captions of the others."""
    shown, left_out, total = [], [], 0
    for caption, path in figures.items():
        image = _embedded(path)
        if total + len(image) > most:
            left_out.append(caption)
            continue
        total += len(image)
        shown.append((caption, image))
    return shown, left_out


def _embedded(path: str | os.PathLike[str] | None) -> str:
    return "" if path is None else f"data:image/png;base64,{base64.b64encode(Path(path).read_bytes()).decode()}"


def _by_picture(links: Mapping[str, str]) -> dict[str, list[tuple[str, str]]]:
    """The methods and links of the volumes that each picture shows, by its caption."""
    found: dict[str, list[tuple[str, str]]] = {}
    for name, link in links.items():
        method, degradation, scan = name.split()
        found.setdefault(f"{scan}, {degradation}", []).append((method, link))
    return found


class _Loads(HTMLParser):
    """Collects what a page would load, or lead to elsewhere: every source or style that does not stay inside the file.

    A link (``a``) may lead to a file beside it.
    """

    def __init__(self) -> None:
        super().__init__()
        self.external: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Look at one tag. Text needs no look: it is escaped."""
        for name, value in attrs:
            beside = tag == "a" and re.match(r"(?:\.\./)*[\w%]", value or "") and ":" not in (value or "")
            inside = beside or (value or "").startswith(("#", "data:image/"))
            if (name in ("src", "href", "srcset", "action", "data") and not inside) or "url(" in (value or ""):
                self.external.append(f"<{tag} {name}={value!r}>")
        if tag in ("script", "link", "iframe", "object", "embed", "base"):
            self.external.append(f"<{tag}>")


def _refuse_unfit(output: str | os.PathLike[str], html: str) -> None:
    """Offline and small is a promise, so it is checked on the very text that is written."""
    page = _Loads()
    page.feed(html)
    if page.external:
        raise ValueError(f"{output}: the report would load something from elsewhere: {page.external[0][:80]}")
    if len(html.encode()) >= REPORT_BYTES:
        raise ValueError(f"{output}: the report would be {len(html.encode())} bytes; below {REPORT_BYTES} is promised")
