"""The scores of one volume: before and after the projection onto its scan, inside the head and inside the brain.

One short process per volume: no torch here.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headsr.evaluate.metrics.comparison import Comparison
from headsr.files import read_json, sha256_of, sidecar_of, write_json
from headsr.parts import METRICS
from headsr.volumes import Volume, load_volume

DATA_RANGE = 1.0  # normalised intensity: 1.0 is the 99.9th percentile inside the head mask
VARIANTS = ("unprojected", "projected")
SCORED = ("psnr", "ssim", "nrmse")
UNITS = {name: METRICS[name].words for name in SCORED}


def score_volume(
    preview: str | os.PathLike[str],
    unprojected: str | os.PathLike[str] | None,
    truth: str | os.PathLike[str],
    head_mask: str | os.PathLike[str],
    brain_mask: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    method: str,
    degradation: str,
    dataset: str,
    scan: str,
    suffix: str,
    profile: str = "",
    seed: int | None = None,
    weights: str | os.PathLike[str] | None = None,
) -> None:
    """Score a volume (NIfTI, scan units) against the preprocessed scan that its input was simulated from.

    ``preview`` is the volume as published, ``unprojected`` the one before the projection onto the scan (None: there is
    none). The truth holds normalised intensities; the JSON beside it says which scale and offset give scan units.
    ``weights`` are those of the model behind the method (None where nothing was trained): what it was trained on stands
    beside the scores. Infinite values (of equal volumes) are written as the text "inf".
    Raises ValueError when a file lies on another grid than the truth.
    """
    reference = load_volume(truth)
    record = _intensities_of(truth)
    masks = {
        name: _aligned(path, reference, truth).data > 0.5 for name, path in (("head", head_mask), ("brain", brain_mask))
    }
    scores: dict[str, Any] = {}
    for variant, path in zip(VARIANTS, (unprojected, preview), strict=True):
        scores[variant] = None
        if path is not None:
            estimate = _normalised(_aligned(path, reference, truth), record)
            scores[variant] = _writable(_measure(estimate, reference, masks))
    write_json(
        output,
        {
            "method": method,
            "degradation": degradation,
            "profile": profile,
            "dataset": dataset,
            "scan": scan,
            "suffix": suffix,
            "source_key": record.get("source_key", ""),
            "seed": seed,
            "trained_on": None if weights is None else trained_on(weights),
            "data_range": DATA_RANGE,
            "intensity": "normalised: 1.0 is the 99.9th percentile inside the head mask; never clipped",
            "units": UNITS,
            "mask": {name: int(mask.sum()) for name, mask in masks.items()},
            "scores": scores,
        },
    )


def trained_on(weights: str | os.PathLike[str]) -> dict[str, Any]:
    """What a model was trained on: its name, the hash of its list of training keys, and the hash of its weights."""
    with open(weights, "rb") as stream:
        # A safetensors file begins with the length of its JSON header; torch is not needed to read that.
        header = json.loads(stream.read(int.from_bytes(stream.read(8), "little")))
    record = json.loads(header["__metadata__"]["headsr"])
    return {"model": Path(weights).parent.name, "training_keys": record["training_keys"], "sha256": sha256_of(weights)}


def _intensities_of(truth: str | os.PathLike[str]) -> dict[str, Any]:
    """What the truth's sidecar says: scale and offset, and where it came from."""
    sidecar = sidecar_of(truth)
    record = read_json(sidecar).get("headsr", {})
    scale, offset = record.get("scale"), record.get("offset")
    if not all(isinstance(number, (int, float)) and math.isfinite(number) for number in (scale, offset)) or scale <= 0:
        raise ValueError(f"{sidecar}: says no usable scale and offset. Run normalize_intensity for this scan again")
    return record


def _aligned(path: str | os.PathLike[str], reference: Volume, truth: str | os.PathLike[str]) -> Volume:
    volume = load_volume(path)
    if not volume.grid.same_as(reference.grid):
        raise ValueError(
            f"{path}: lies on another grid than {truth} ({_describe(volume)} against {_describe(reference)}), so the "
            "two cannot be compared voxel by voxel. Reconstruct on the grid of the scan"
        )
    return volume


def _describe(volume: Volume) -> str:
    shape = "x".join(map(str, volume.grid.shape))
    return f"{shape} voxels of {'x'.join(f'{size:.3g}' for size in volume.grid.voxel_size)} mm"


def _normalised(volume: Volume, record: Mapping[str, Any]) -> NDArray[np.float32]:
    return ((volume.data - np.float32(record["offset"])) / np.float32(record["scale"])).astype(np.float32)


def _measure(
    estimate: NDArray[np.float32], truth: Volume, masks: Mapping[str, NDArray[np.bool_]]
) -> dict[str, dict[str, float]]:
    """Every metric inside every mask: {mask: {metric: value}}."""
    thin = (1.0, 1.0, 1.0)  # no metric here asks for the slices
    comparison = Comparison(estimate, truth.data, masks["head"], DATA_RANGE, tuple(truth.grid.voxel_size), thin)
    return {
        name: {metric: METRICS[metric].load()(comparison.under(mask)) for metric in SCORED}
        for name, mask in masks.items()
    }


def _writable(scores: dict[str, dict[str, float]]) -> dict[str, dict[str, float | str]]:
    """JSON has no infinity; float("inf") reads this text back."""
    return {
        mask: {name: value if math.isfinite(value) else str(value) for name, value in values.items()}
        for mask, values in scores.items()
    }
