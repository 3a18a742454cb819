"""The picture of simulated heads beside a real one: ``python -m headsr.simulate.picture SCAN DSEG_FOLDER OUT.png``."""

from __future__ import annotations

import os
import sys
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from headsr.files import whole
from headsr.simulate.contrast import RANDOM
from headsr.simulate.head import simulate_head
from headsr.simulate.labelmap import LabelMap, load_label_map
from headsr.simulate.labels import find_label_maps
from headsr.simulate.lesions import VOLUMES_MM3
from headsr.volumes import Grid, load_volume

_BELOW_TOP_MM = 78.0  # an axial plane through the lateral ventricles
_SLAB_MM = 16.0
_WINDOW = 99.5  # percentile of the slice that is shown white; 0 is black
_MAP, _SEED, _VOXEL_MM = 2, 6, 1.0
_PANELS = [("T1w", "none"), ("T2w", "none"), (RANDOM, "none"), *(("FLAIR", degree) for degree in VOLUMES_MM3)]


def draw_heads(
    scan: str | os.PathLike[str], label_maps: str | os.PathLike[str], picture: str | os.PathLike[str]
) -> None:
    """Draw one axial slice of a real T1w, and of one simulated person in every contrast and degree of lesions (PNG)."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot
    from PIL import Image

    real = load_volume(scan)
    top = np.flatnonzero((real.data > 0.2 * real.data.max()).any(axis=(0, 1)))[-1]
    plane = int(top - _BELOW_TOP_MM / real.grid.voxel_size[2])
    shown = [("real T1w", real.data[:, :, plane], real.grid)]
    head = _slab(load_label_map(*find_label_maps(label_maps)[_MAP]))
    for suffix, lesions in _PANELS:
        made = simulate_head(head, suffix=suffix, voxel_mm=_VOXEL_MM, seed=_SEED, lesions=lesions)
        title = f"{suffix}, lesions: {lesions}" if suffix == "FLAIR" else f"simulated {suffix}"
        shown.append((title, made.data[:, :, made.data.shape[2] // 2], made.grid))
    figure, axes = pyplot.subplots(2, 4, figsize=(9.2, 5.9), dpi=90)
    for axis, (title, data, grid) in zip(axes.flat, shown, strict=True):
        _show(axis, title, data, grid)
    figure.subplots_adjust(0.005, 0.005, 0.995, 0.955, 0.02, 0.1)
    figure.canvas.draw()
    pixels = np.asarray(figure.canvas.buffer_rgba())[..., 0]
    pyplot.close(figure)
    with whole(picture) as partial:
        Image.fromarray(pixels).save(partial, optimize=True)  # one channel: there is no colour in it


def _slab(head: LabelMap) -> LabelMap:
    """The head, of which only a slab around the plane is imaged."""
    view = head.field_of_view
    crown = np.flatnonzero(head.labels.any(axis=(0, 1)))[-1] * head.grid.voxel_size[2] + head.grid.affine[2, 3]
    centre = (*view.centre[:2], float(np.rint(crown - _BELOW_TOP_MM)))
    return replace(head, field_of_view=view._replace(centre=centre, size=(*view.size[:2], _SLAB_MM)))


def _show(axis: object, title: str, data: NDArray[np.float32], grid: Grid) -> None:
    aspect = grid.voxel_size[1] / grid.voxel_size[0]
    white = np.percentile(data, _WINDOW)
    axis.imshow(data.T[::-1], cmap="gray", vmin=0, vmax=white, aspect=aspect, interpolation="bilinear")
    axis.set_title(title, fontsize=9)
    axis.axis("off")


if __name__ == "__main__":
    draw_heads(*sys.argv[1:])
