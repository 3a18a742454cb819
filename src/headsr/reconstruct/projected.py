"""The end of every reconstruction: measured stays measured, and it is said what the projection changed."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from headsr.acquisition.consistency import allowed, project, residuals
from headsr.acquisition.measurement import Study


def project_onto(estimate: NDArray[np.float32], study: Study) -> tuple[NDArray[np.float32], list[dict[str, Any]]]:
    """The projected volume, and one entry per scan: view, noise and rms residual before and after (normalised).

    Raises FloatingPointError for an estimate that is not finite.
    """
    if not np.isfinite(estimate).all():
        raise FloatingPointError("the reconstruction holds NaN or infinite values; nothing was written")
    before = torch.as_tensor(estimate, dtype=torch.float32, device=study.scans[0].data.device)
    after = project(before, study.scans)
    pairs = zip(study.scans, _rms(before, study), _rms(after, study), strict=True)
    agreement = [
        {"view": scan.view, "noise": scan.noise, "allowed": allowed(scan), "rms_before": first, "rms_after": last}
        for scan, first, last in pairs
    ]
    return after.cpu().numpy(), agreement


def _rms(volume: torch.Tensor, study: Study) -> list[float]:
    return [scan.rms(r) for scan, r in zip(study.scans, residuals(volume, study.scans), strict=True)]
