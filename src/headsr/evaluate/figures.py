"""One picture per head and degradation: scan, methods and truth in three planes, with errors and residuals below.

Everything passes through one voxel and is shown at one window. Pictures are laid out pixel by pixel (no resampling by
the plotting library), with a small palette: the report must stay below 5 MB.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from headsr.acquisition.protocol import Protocol, read_protocol
from headsr.evaluate.checked import read_check
from headsr.evaluate.metrics.comparison import Comparison
from headsr.evaluate.metrics.voxels import psnr
from headsr.evaluate.picture import PLANES, Head, Panel, Rows, cut, white_of, write_smallest
from headsr.evaluate.score import DATA_RANGE
from headsr.volumes import Grid, load_volume

_ERROR_WINDOW = 0.15 * DATA_RANGE


def draw_figure(
    output: str | os.PathLike[str],
    *,
    lowres: Sequence[str | os.PathLike[str]],
    volumes: Mapping[str, str | os.PathLike[str]],
    checks: Mapping[str, str | os.PathLike[str]],
    truth: str | os.PathLike[str] | None,
    head_mask: str | os.PathLike[str],
    brain_mask: str | os.PathLike[str],
    suffix: str,
    title: str,
) -> None:
    """Draw the comparison of one head under one degradation as a PNG of at most 250 kB.

    ``lowres`` are the scans that the volumes were made from (normalised; the first is shown), ``volumes`` maps each
    method's name to its published NIfTI (scan units), ``checks`` each name to its ``_desc-check_`` JSON, beside which
    the residual maps lie; ``truth`` is the preprocessed scan (None: not known, then there are no error maps). All
    planes pass through the middle of the head, and are shown as bright as scans of that ``suffix`` are looked at.
    Raises ValueError when a volume lies on another grid than the first.
    """
    protocol = read_protocol(lowres[0])
    grid = load_volume(next(iter(volumes.values()))).grid
    head = cut(load_volume(head_mask, constant=True), grid)
    known = None if truth is None else _on_grid(truth, grid)
    scan = load_volume(lowres[0])
    white = white_of(scan, load_volume(brain_mask, constant=True), suffix)
    planes = [{view: Panel(head.coarse_plane(scan, view), 0.0, white) for view in PLANES}]
    errors: list[dict[str, Panel]] = [{}]
    for path in volumes.values():
        # One volume at a time: ten methods at full resolution would not fit into the memory of a small job.
        data = (_on_grid(path, grid) - np.float32(protocol.offset)) / np.float32(protocol.scale)
        planes.append({view: Panel(head.plane(data, view), 0.0, white) for view in PLANES})
        errors.append({} if known is None else _errors(head, data, known))
    if known is not None:
        planes.append({view: Panel(head.plane(known, view), 0.0, white) for view in PLANES})
        errors.append({})
    rows: Rows = []
    for view in PLANES:
        rows.append((view, view, [column[view] for column in planes]))
        if known is not None:
            rows.append((f"{view}\nerror", view, [column.get(view) for column in errors]))
    residuals = [_residual(head, protocol, checks.get(name)) for name in volumes]
    rows.append(("residual\nA x - y", _across(protocol.view), [None, *residuals]))
    columns = [f"scan ({protocol.view}, 1 of {len(lowres)})", *volumes, *([] if known is None else ["truth"])]
    write_smallest(output, head, rows, columns, title=title, foot=_foot(protocol, white, known is not None))


def _on_grid(path: str | os.PathLike[str], grid: Grid) -> NDArray[np.float32]:
    volume = load_volume(path)
    if not volume.grid.same_as(grid):
        raise ValueError(f"{path}: lies on another grid ({volume.grid.shape}) than the first volume ({grid.shape})")
    return volume.data


def _errors(head: Head, data: NDArray[np.float32], truth: NDArray[np.float32]) -> dict[str, Panel]:
    """|volume - truth| inside the head in every view; the first carries the PSNR of the whole head."""
    voxel_mm = tuple(head.grid.voxel_size.tolist())
    decibels = psnr(Comparison(data, truth, head.inside, DATA_RANGE, voxel_mm, spacings=(1.0, 1.0, 1.0)))
    panels = {}
    for view in PLANES:
        error = np.abs(head.plane(data, view) - head.plane(truth, view)) * head.plane(head.inside, view)
        caption = f"{decibels:.2f} dB" if view == PLANES[0] else ""
        panels[view] = Panel(error, 0.0, _ERROR_WINDOW, "inferno", caption)
    return panels


def _residual(head: Head, protocol: Protocol, check: str | os.PathLike[str] | None) -> Panel | None:
    """The residual map against the scan that is shown, across its thick slices; the window is three times the noise."""
    checked = None if check is None else read_check(check).views.get(protocol.view)
    if checked is None or not checked.map:
        return None
    residual = load_volume(Path(check).with_name(os.path.basename(checked.map)))
    high = _residual_window(protocol)
    image = head.coarse_plane(residual, _across(protocol.view)) / protocol.scale
    return Panel(image, -high, high, "RdBu_r", f"rms {checked.rms_after:.4f}")


def _across(view: str) -> str:
    """A view that cuts across the slices of another."""
    return "axial" if view == "coronal" else "coronal"


def _residual_window(protocol: Protocol) -> float:
    return max(3.0 * protocol.noise, 0.001)


def _foot(protocol: Protocol, white: float, known: bool) -> str:
    parts = [f"volumes as published, projected; grey 0 to {white:.2g}"]
    if known:
        parts.append(f"|volume - truth| 0 to {_ERROR_WINDOW:g} inside the head, dB: PSNR of the head")
    parts.append(f"residual ({_across(protocol.view)}) ±{_residual_window(protocol):.3g}, noise {protocol.noise:.4f}")
    return "; ".join(parts) + "; the subject's right is on the right"
