"""The end of every reconstruction: measured stays measured, and it is said what the projection changed."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from headsr.acquisition.consistency import Projection, allowed, project, residuals
from headsr.acquisition.measurement import Study


def project_onto(estimate: NDArray[np.float32], study: Study) -> tuple[NDArray[np.float32], dict[str, Any]]:
    """The projected volume (X, Y, Z), and what the projection did: plain JSON, normalised intensities.

    ``outcome``, ``change`` and ``change_at_most`` are the projection's (acquisition.consistency); ``views`` has one
    entry per scan: its noise, the root mean square residual that this allows and, with what the scans contradict each
    other, explains, and that of the volume before and after, over the head and everywhere. Warns where the volume was
    not made to agree with its scans. Raises FloatingPointError for an estimate that is not finite.
    """
    if not np.isfinite(estimate).all():
        raise FloatingPointError("the reconstruction holds NaN or infinite values; nothing was written")
    before = torch.as_tensor(estimate, dtype=torch.float32, device=study.scans[0].data.device)
    projection = project(before, study.scans, signed=study.signed)
    record = {
        "outcome": projection.outcome,
        "change": projection.change,
        "change_at_most": projection.change_at_most,
        "views": _views(before, projection, study),
    }
    _say(record)
    return projection.volume.cpu().numpy(), record


def _views(before: Tensor, projection: Projection, study: Study) -> list[dict[str, Any]]:
    first, last = (residuals(volume, study.scans) for volume in (before, projection.volume))
    return [
        {
            "view": scan.view,
            "noise": scan.noise,
            "allowed": allowed(scan),
            "explained": explained,
            "rms_before": scan.rms(r),
            "rms_after": scan.rms(s),
            "rms_before_everywhere": scan.rms_everywhere(r),
            "rms_after_everywhere": scan.rms_everywhere(s),
        }
        for scan, explained, r, s in zip(study.scans, projection.explained, first, last, strict=True)
    ]


def _say(record: dict[str, Any]) -> None:
    """Print how the projection ended; warn where the volume does not agree with its scans."""
    amount = f"changed by {record['change']:.3g} of at most {record['change_at_most']:.3g} (rms over the head)"
    print(f"projection: {record['outcome']}, {amount}")
    if record["outcome"] in ("bounded", "contradictory"):
        left = ", ".join(f"{v['view']} {v['rms_after'] / v['allowed']:.1f}" for v in record["views"])
        warnings.warn(f"{_reason(record)} Residuals over the head in times the noise: {left}. {_ASK}", stacklevel=3)


def _reason(record: dict[str, Any]) -> str:
    if record["outcome"] == "contradictory":
        return "The scans contradict each other as much as the volume contradicts them: it is published as estimated."
    if any(view["explained"] > view["allowed"] for view in record["views"]):
        return "The scans contradict each other: the volume agrees with them only as far as they do among themselves."
    return "The volume was changed by the most that its residuals justify, and does not agree with its scans yet."


_ASK = "Are placements, intensities and slice thicknesses right, and did the head keep still?"
