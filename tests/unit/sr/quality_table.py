"""The table of docs/sr.md that says how good the network is by contrast and thickness, from docs/results/unrolled.md.

Run as a script it writes the table anew: after every change of those results.
"""

import re
from collections import defaultdict
from pathlib import Path
from statistics import fmean

DOCS = Path(__file__).parents[3] / "docs"
PAGE, RESULTS = DOCS / "sr.md", DOCS / "results" / "unrolled.md"
BEGIN, END = "<!-- by tests/unit/sr/quality_table.py -->\n", "<!-- until here -->\n"
SCANS = {
    "thick_x{}_box_noise1": "one scan, slices {} times as thick as wide",
    "orthogonal_x{}_box_noise1": "three orthogonal scans, {} times",
}
CONTRASTS = ("T1w", "T2w")


def rows_of(text):
    """The rows of the table of single heads, by column."""
    table = re.search(r"^\| scans \| head \|.*\n\|[-:|]+\|\n((?:\|.*\n)+)", text, re.MULTILINE)
    columns = [name.strip() for name in table[0].splitlines()[0].strip("|").split("|")]
    return [
        dict(zip(columns, (cell.strip() for cell in row.strip("|").split("|")), strict=True))
        for row in table[1].splitlines()
    ]


def table_of(text):
    """By scans and contrast: the mean gain over the spline and over least squares in dB, and of how many heads."""
    gains = defaultdict(list)
    for row in rows_of(text):
        network = float(row["network"])
        contrast = row["head"].rsplit("_", 1)[-1]
        gains[row["scans"], contrast].append([network - float(row[other]) for other in ("spline", "least squares")])
    lines = [f"| scans, 1 % noise | {' | '.join(CONTRASTS)} |", f"|---|{'---:|' * len(CONTRASTS)}"]
    for pattern, words in SCANS.items():
        for factor in (2, 4, 6):
            found = [gains[pattern.format(factor), contrast] for contrast in CONTRASTS]
            if any(found):
                lines.append(f"| {words.format(factor)} | {' | '.join(map(_cell, found))} |")
    return "\n".join(lines) + "\n"


def _cell(heads):
    if not heads:
        return ""
    spline, least = (fmean(values) for values in zip(*heads, strict=True))
    return f"{spline:+.1f} / {least:+.1f} ({len(heads)})"


def page_with(table):
    """The page with another table."""
    before, rest = PAGE.read_text(encoding="utf-8").split(BEGIN)
    return before + BEGIN + table + END + rest.split(END)[1]


if __name__ == "__main__":
    PAGE.write_text(page_with(table_of(RESULTS.read_text(encoding="utf-8"))), encoding="utf-8")
