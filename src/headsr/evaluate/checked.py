"""What the check of a finished volume said of it (``_desc-check_`` JSON), as others read it."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headsr.files import UnreadableError, sidecar_of
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


def residual_path(check: str | os.PathLike[str], view: str) -> Path:
    """Where the residual map of a view lies, beside the ``_desc-check_`` JSON."""
    check = Path(check)
    if "_desc-check_" not in check.name:
        raise ValueError(f"{check}: the name of a check must hold _desc-check_")
    name = check.name.replace("_desc-check_", f"_desc-srresidual{view.capitalize()}_")
    return check.with_name(name.removesuffix(".json") + ".nii.gz")


def lost_maps(checks: Iterable[str]) -> list[str]:
    """What lies no more beside checks of the residual maps, and their sidecars, that they wrote."""
    lost = []
    for check in checks:
        with suppress(FileNotFoundError, UnreadableError):  # a check that is to be made writes its maps
            maps = [residual_path(check, view) for view in read_check(check).views]
            lost += [str(path) for each in maps for path in (each, sidecar_of(each)) if not path.exists()]
    return lost
