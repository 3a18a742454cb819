"""Cubic B-spline interpolation of one scan, and the fused average of all scans (CubeAvg, methods a.2)."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from headsr.acquisition.measurement import Measurement, Study, load_study
from headsr.recipes import Method
from headsr.reconstruct.projected import publish_projected
from headsr.render.publish import Outputs
from headsr.volumes import Grid, Volume, spline_resample


def interpolate_volume(lowres: Sequence[str | os.PathLike[str]], *, method: Method, outputs: Outputs) -> None:
    """Reconstruct by interpolation: kind ``spline`` uses the first scan only, ``average`` the mean over all scans.

    Whatever the kind, the volume is projected onto every scan. Raises ValueError for another kind.
    """
    study = load_study(lowres)
    if method.kind not in ("spline", "average"):
        raise ValueError(f"interpolate_volume cannot make a {method.kind!r} volume; the kinds are spline and average")
    used = study.scans[:1] if method.kind == "spline" else study.scans
    estimate = np.mean([spline_of(scan, study.head) for scan in used], axis=0, dtype=np.float32)
    publish_projected(estimate, study, method=method, outputs=outputs, record={"interpolated_scans": len(used)})


def fused_average(study: Study) -> NDArray[np.float32]:
    """The mean over all scans of their spline interpolations: (X, Y, Z) on the head's grid, normalised intensities."""
    return np.mean([spline_of(scan, study.head) for scan in study.scans], axis=0, dtype=np.float32)


def spline_of(scan: Measurement, head: Grid) -> NDArray[np.float32]:
    """One scan interpolated onto the head's grid (X, Y, Z), along its thick axis and wherever else the grids differ."""
    return spline_resample(Volume(scan.data.cpu().numpy(), scan.operator.scan), head)
