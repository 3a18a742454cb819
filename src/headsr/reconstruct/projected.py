"""The end of every reconstruction: measured stays measured, and the record says what the projection changed."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from headsr.acquisition.consistency import allowed, project, residuals
from headsr.acquisition.measurement import Study
from headsr.recipes import Method, plain
from headsr.render.publish import Outputs, publish_volume


def publish_projected(
    estimate: NDArray[np.float32], study: Study, *, method: Method, outputs: Outputs, record: dict[str, Any]
) -> None:
    """Project an estimate (X, Y, Z; normalised intensities) onto the study's scans and publish it in scan units.

    The estimate as it was before the projection is published beside it. Raises FloatingPointError for an estimate that
    is not finite.
    """
    projected, agreement = project_onto(estimate, study)
    publish_volume(
        projected,
        estimate,
        study.head,
        outputs,
        scale=study.scale,
        offset=study.offset,
        record={**describe_study(study), "method": plain(method), "consistency": agreement, **record},
    )


def project_onto(estimate: NDArray[np.float32], study: Study) -> tuple[NDArray[np.float32], list[dict[str, Any]]]:
    """The projected volume, and one entry per scan: view, noise and rms residual before and after (normalised)."""
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


def describe_study(study: Study) -> dict[str, Any]:
    """What a record says of the input: source key, degradation and views."""
    return {
        "source_key": study.source_key,
        "degradation": study.degradation,
        "views": [scan.view for scan in study.scans],
    }


def _rms(volume: torch.Tensor, study: Study) -> list[float]:
    return [scan.rms(r) for scan, r in zip(study.scans, residuals(volume, study.scans), strict=True)]
