"""What a training or a fit measured at its steps, as JSON lines."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path

from headsr.files import UnreadableError, parse_json, read_text, whole


def write_history(path: str | os.PathLike[str], history: list[dict[str, float]]) -> None:
    """Write the history as JSON lines, one object a line: step and the measured values by name."""
    with whole(path) as partial:
        partial.write_text("".join(json.dumps(line, allow_nan=False) + "\n" for line in history), encoding="utf-8")


def read_history(path: str | os.PathLike[str]) -> list[dict[str, float]]:
    """The lines of a history; one that is still being written does not count yet.

    UnreadableError names a line that is none: no block of numbers, or one without its step.
    """
    whole_lines, _, _ = read_text(path).rpartition("\n")
    return [_line(text, f"{path}, line {number}") for number, text in enumerate(whole_lines.split("\n"), 1) if text]


def _line(text: str, where: str) -> dict[str, float]:
    try:
        line = parse_json(text)
    except ValueError as error:
        raise UnreadableError(f"{where}: is no line of a history ({error}). {_WAY_OUT}") from error
    values = isinstance(line, dict) and all(type(value) in (int, float, str) for value in line.values())
    if not (values and type(line.get("step")) is int):
        raise UnreadableError(f"{where}: is no line of a history: numbers by name, with their step. {_WAY_OUT}")
    return line


_WAY_OUT = "Move the file away and run again to make it anew"


def history_so_far(paths: Iterable[str | os.PathLike[str]]) -> list[dict[str, float]]:
    """The history of a training that may still be running, from those of its files that are there, in their order.

    Where a file begins at a step that an earlier one has gone beyond, that part was trained anew, and the later counts.
    """
    history: list[dict[str, float]] = []
    for lines in (read_history(path) for path in paths if Path(path).exists()):
        first = min((line["step"] for line in lines), default=float("inf"))
        history = [*(line for line in history if line["step"] < first), *lines]
    return history
