"""The scores of one volume: before and after the projection onto its scan, by the asked metrics inside the asked masks.

One short process per volume: no torch here.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headsr.evaluate.metrics.comparison import Comparison
from headsr.files import sha256_of, write_json
from headsr.parts import METRICS
from headsr.preprocess.sidecar import Intensities, read_intensities
from headsr.recipes import Stack
from headsr.recipes.convert import build
from headsr.recipes.tables import VARIANTS
from headsr.seal import SealError, metadata_of
from headsr.volumes import Grid, Volume, load_volume

DATA_RANGE = 1.0  # normalised intensity: 1.0 is the 99.9th percentile inside the head mask


def score_volume(
    preview: str | os.PathLike[str],
    unprojected: str | os.PathLike[str] | None,
    truth: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    unit: Mapping[str, str],
    measures: Mapping[str, Sequence[str]],
    masks: Mapping[str, str | os.PathLike[str]],
    stacks: Sequence[Stack],
    profile: str = "",
    seed: int | None = None,
    weights: Sequence[str | os.PathLike[str]] = (),
    uncertainty: str | os.PathLike[str] | None = None,
) -> None:
    """Score a volume (NIfTI, scan units) against the preprocessed scan that its input was simulated from.

    ``preview`` is the volume as published, ``unprojected`` the one before the projection onto the scan (None: there is
    none). The truth holds normalised intensities; the JSON beside it says which scale and offset give scan units.
    ``unit`` names the volume (dataset, scan, suffix, method, degradation), ``measures`` the masks of every metric
    (``{"psnr": ["head"]}``), ``masks`` their files; an empty mask has no scores, nor has a metric that means nothing
    there (NaN). ``stacks`` say how the scans were sampled from the truth; ``weights`` are those of the models behind
    the method: what they were trained on stands beside the scores. ``uncertainty`` is the map of what the method
    foretells (scan units; None: nothing). Infinite values (of equal volumes) are written as the text "inf".
    Raises ValueError when a file lies on another grid than the truth.
    """
    reference = load_volume(truth)
    units = read_intensities(truth)
    inside = {name: aligned(path, reference, truth, constant=True).data > 0.5 for name, path in masks.items()}
    foretold = None
    if uncertainty is not None:
        foretold = aligned(uncertainty, reference, truth).data / np.float32(units.scale)
    rows = []
    for variant, path in zip(VARIANTS, (unprojected, preview), strict=True):
        if path is not None:
            volume = normalised(aligned(path, reference, truth), units)
            measured = _measured(_comparisons(volume, reference, inside, stacks, foretold), measures)
            rows += [{"variant": variant, **row} for row in measured]
    write_json(
        output,
        {
            "unit": dict(unit),
            "profile": profile,
            "source_key": units.source_key,
            "seed": seed,
            "trained_on": [trained_on(path) for path in weights],
            "data_range": DATA_RANGE,
            "intensity": "normalised: 1.0 is the 99.9th percentile inside the head mask; never clipped",
            "mask": {name: int(mask.sum()) for name, mask in inside.items()},
            "rows": rows,
        },
    )


def trained_on(weights: str | os.PathLike[str]) -> dict[str, Any]:
    """What a model was trained on: its name, the hash of its list of training keys, and the hash of its weights."""
    try:
        keys = build(str, metadata_of(weights).get("training_keys"), "training_keys")
    except (SealError, ValueError) as error:
        raise ValueError(f"{weights}: does not say what it was trained on ({error}). Train the model again") from error
    return {"model": Path(weights).parent.name, "training_keys": keys, "sha256": sha256_of(weights)}


def _comparisons(
    volume: NDArray[np.float32],
    truth: Volume,
    masks: Mapping[str, NDArray[np.bool_]],
    stacks: Sequence[Stack],
    uncertainty: NDArray[np.float32] | None = None,
) -> dict[str, Comparison]:
    """The comparison inside every mask that is not empty. The widest comes first: the others find its maps made."""
    voxel_mm, maps = tuple(truth.grid.voxel_size.tolist()), {}
    spacings, borders = zip(*(_slices_along(axis, truth.grid, stacks) for axis in range(3)), strict=True)
    widest_first = sorted((name for name, mask in masks.items() if mask.any()), key=lambda name: -masks[name].sum())
    return {
        name: Comparison(volume, truth.data, masks[name], DATA_RANGE, voxel_mm, spacings, borders, maps, uncertainty)
        for name in widest_first
    }


def _slices_along(axis: int, head: Grid, stacks: Sequence[Stack]) -> tuple[float, float]:
    """Spacing of the coarsest scan's slices along an axis, and where the first two meet, in voxels from the face."""
    stack = max(stacks, key=lambda stack: stack.along[axis])
    if (factor := stack.along[axis]) == 1:
        return 1.0, 1.0
    scan = head.zoomed(axis, factor) if stack.profile == "zoom" else head.thick(axis, factor, stack.thickness)
    index = (np.linalg.inv(head.affine) @ scan.affine)[axis].round(9)
    return float(index[axis]), float(index[3] + 0.5 + index[axis] / 2)


def _measured(
    comparisons: Mapping[str, Comparison], measures: Mapping[str, Sequence[str]]
) -> Iterator[dict[str, str | float]]:
    """Mask, metric and value of everything that was asked for and has a value."""
    for metric, masks in measures.items():
        measure = METRICS[metric].load()
        for mask, comparison in comparisons.items():
            value = measure(comparison) if mask in masks else math.nan
            if not math.isnan(value):
                yield {"mask": mask, "metric": metric, "value": value if math.isfinite(value) else str(value)}


def aligned(
    path: str | os.PathLike[str], reference: Volume, truth: str | os.PathLike[str], *, constant: bool = False
) -> Volume:
    """Read a volume, or a mask (``constant``: it may be empty); ValueError on another grid than the truth."""
    volume = load_volume(path, constant=constant)
    if not volume.grid.same_as(reference.grid):
        raise ValueError(
            f"{path}: lies on another grid than {truth} ({_describe(volume)} against {_describe(reference)}), so the "
            "two cannot be compared voxel by voxel. Reconstruct on the grid of the scan"
        )
    return volume


def _describe(volume: Volume) -> str:
    shape = "x".join(map(str, volume.grid.shape))
    return f"{shape} voxels of {'x'.join(f'{size:.3g}' for size in volume.grid.voxel_size)} mm"


def normalised(volume: Volume, units: Intensities) -> NDArray[np.float32]:
    """The normalised intensities of a volume in scan units."""
    return ((volume.data - np.float32(units.offset)) / np.float32(units.scale)).astype(np.float32)
