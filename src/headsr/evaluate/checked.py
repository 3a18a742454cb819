"""What the check of a finished volume said of it (``_desc-check_`` JSON), as others read it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from headsr.typed_json import read_as


@dataclass(frozen=True, kw_only=True)
class CheckedView:
    """Root mean squares of A x - y of one scan, before and after the projection, and what the noise allows.

    Over the head, and everywhere in the scan's field of view (normalised intensities); ``map`` is the name of the
    residual's map beside the check.
    """

    rms_before: float
    rms_after: float
    rms_before_everywhere: float
    rms_after_everywhere: float
    allowed: float
    map: str = ""


@dataclass(frozen=True)
class Checked:
    """The views of a check by their names, and what came of the projection."""

    views: Mapping[str, CheckedView]
    outcome: str


def read_check(path: str | os.PathLike[str]) -> Checked:
    """Read a check. UnreadableError names a file that is none."""
    names = read_as(dict[str, Any], path, "headsr", "views")
    views = {name: read_as(CheckedView, path, "headsr", "views", name) for name in names}
    return Checked(views, read_as(str, path, "headsr", "projection", "outcome"))
