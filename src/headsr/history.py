"""What a training or a fit measured at its steps, as JSON lines."""

from __future__ import annotations

import json
import os
from pathlib import Path

from headsr.files import whole


def write_history(path: str | os.PathLike[str], history: list[dict[str, float]]) -> None:
    """Write the history as JSON lines, one object a line: step and the measured values by name."""
    with whole(path) as partial:
        partial.write_text("".join(json.dumps(line, allow_nan=False) + "\n" for line in history), encoding="utf-8")


def read_history(path: str | os.PathLike[str]) -> list[dict[str, float]]:
    """The lines of a history that write_history wrote."""
    return [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines()]
