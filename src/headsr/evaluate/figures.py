"""One picture per head and degradation: scan, methods and truth in three planes, with errors and residuals below.

Everything passes through one voxel and is shown at one window. Pictures are laid out pixel by pixel (no resampling by
the plotting library), with a small palette: the report must stay below 5 MB.
"""

from __future__ import annotations

import os
import textwrap
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from headsr.acquisition.protocol import Protocol, read_protocol
from headsr.evaluate.checked import read_check
from headsr.evaluate.metrics.comparison import Comparison
from headsr.evaluate.metrics.voxels import psnr
from headsr.evaluate.score import DATA_RANGE
from headsr.files import whole
from headsr.volumes import AXES, Grid, Volume, axis_positions, load_volume

NOTICE = "Research use only, not for clinical use"
FIGURE_BYTES = 250_000
_PANEL_WIDTHS = (176, 64)  # in pixels: the widest to try, the narrowest worth looking at
_DPI = 100
_GAP, _LEFT, _TOP, _CAPTION, _FOOT = 4, 74, 40, 16, 40
_ERROR_WINDOW = 0.15 * DATA_RANGE
# Levels per palette: finer ones are noise to the eye and bytes to the file.
_LEVELS = {"gray": 64, "inferno": 32, "RdBu_r": 15}
_WHITE = _LEVELS["gray"] - 1
_WORDS_BYTES = 12_000
_VIEWS = ("axial", "coronal", "sagittal")


@dataclass(frozen=True, eq=False)
class Panel:
    """One image of a picture: values (rows, columns), the window that they are shown in and the colours."""

    image: NDArray[np.float32]
    low: float
    high: float
    colours: str = "gray"
    caption: str = ""


Rows = list[tuple[str, str, list[Panel | None]]]  # label, view, panels


@dataclass(frozen=True, eq=False)
class _Head:
    """Where to cut: the grid, the head on it, the box around it and the voxel that all planes pass through."""

    grid: Grid
    inside: NDArray[np.bool_]
    box: tuple[slice, ...]
    voxel: tuple[int, ...]

    def plane(self, data: NDArray, view: str) -> NDArray:
        """The plane of a view through the voxel, superior (or anterior) up, the subject's right on the right."""
        axis = AXES[view]
        return np.rot90(data[tuple(self.voxel[i] if i == axis else part for i, part in enumerate(self.box))])

    def coarse_plane(self, scan: Volume, view: str) -> NDArray[np.float32]:
        """The same plane of a scan on another grid by its nearest samples: thick slices stay visible as such."""
        axis = AXES[view]
        parts = [slice(self.voxel[i], self.voxel[i] + 1) if i == axis else part for i, part in enumerate(self.box)]
        nearest = _nearest(scan, self.grid)
        chosen = scan.data[np.ix_(*[index[part] for index, part in zip(nearest, parts, strict=True)])]
        return np.rot90(np.squeeze(chosen, axis))

    def height(self, view: str, width: int) -> int:
        """The height in pixels of a plane that is ``width`` pixels wide, with the voxels' true proportions."""
        extent = [(part.stop - part.start) * size for part, size in zip(self.box, self.grid.voxel_size, strict=True)]
        across, up = (extent[i] for i in range(3) if i != AXES[view])
        return max(1, round(width * up / across))


def draw_figure(
    output: str | os.PathLike[str],
    *,
    lowres: Sequence[str | os.PathLike[str]],
    volumes: Mapping[str, str | os.PathLike[str]],
    checks: Mapping[str, str | os.PathLike[str]],
    truth: str | os.PathLike[str] | None,
    head_mask: str | os.PathLike[str],
    title: str,
) -> None:
    """Draw the comparison of one head under one degradation as a PNG of at most 250 kB.

    ``lowres`` are the scans that the volumes were made from (normalised; the first is shown), ``volumes`` maps each
    method's name to its published NIfTI (scan units), ``checks`` each name to its ``_desc-check_`` JSON, beside which
    the residual maps lie; ``truth`` is the preprocessed scan (None: not known, then there are no error maps). All
    planes pass through the middle of the head. Raises ValueError when a volume lies on another grid than the first.
    """
    protocol = read_protocol(lowres[0])
    grid = load_volume(next(iter(volumes.values()))).grid
    head = _cut(load_volume(head_mask), grid)
    known = None if truth is None else _on_grid(truth, grid)
    scan = load_volume(lowres[0])
    planes = [{view: Panel(head.coarse_plane(scan, view), 0.0, DATA_RANGE) for view in _VIEWS}]
    errors: list[dict[str, Panel]] = [{}]
    for path in volumes.values():
        # One volume at a time: ten methods at full resolution would not fit into the memory of a small job.
        data = (_on_grid(path, grid) - np.float32(protocol.offset)) / np.float32(protocol.scale)
        planes.append({view: Panel(head.plane(data, view), 0.0, DATA_RANGE) for view in _VIEWS})
        errors.append({} if known is None else _errors(head, data, known))
    if known is not None:
        planes.append({view: Panel(head.plane(known, view), 0.0, DATA_RANGE) for view in _VIEWS})
        errors.append({})
    rows: Rows = []
    for view in _VIEWS:
        rows.append((view, view, [column[view] for column in planes]))
        if known is not None:
            rows.append((f"{view}\nerror", view, [column.get(view) for column in errors]))
    residuals = [_residual(head, protocol, checks.get(name)) for name in volumes]
    rows.append(("residual\nA x - y", _across(protocol.view), [None, *residuals]))
    columns = [f"scan ({protocol.view}, 1 of {len(lowres)})", *volumes, *([] if known is None else ["truth"])]
    _write_smallest(output, head, rows, columns, title=title, foot=_foot(protocol, known is not None))


def _cut(mask: Volume, grid: Grid) -> _Head:
    """Where to cut; a mask on a coarser grid (that of a thick scan) is brought to the volumes' grid."""
    inside = mask.data[np.ix_(*_nearest(mask, grid))] > 0.5
    found = ndimage.find_objects(inside.astype(np.uint8))
    if not found:
        raise ValueError(f"no part of the head mask lies on the grid of the volumes ({grid.shape} voxels)")
    box = tuple(slice(max(0, s.start - 2), min(n, s.stop + 2)) for s, n in zip(found[0], inside.shape, strict=True))
    return _Head(grid, inside, box, tuple(round(c) for c in ndimage.center_of_mass(inside)))


def _nearest(scan: Volume, grid: Grid) -> list[NDArray[np.int_]]:
    """Per axis, the nearest sample of a scan to every voxel of a grid."""
    positions = axis_positions(grid, scan.grid)
    return [np.clip(np.rint(p), 0, n - 1).astype(int) for p, n in zip(positions, scan.data.shape, strict=True)]


def _on_grid(path: str | os.PathLike[str], grid: Grid) -> NDArray[np.float32]:
    volume = load_volume(path)
    if not volume.grid.same_as(grid):
        raise ValueError(f"{path}: lies on another grid ({volume.grid.shape}) than the first volume ({grid.shape})")
    return volume.data


def _errors(head: _Head, data: NDArray[np.float32], truth: NDArray[np.float32]) -> dict[str, Panel]:
    """|volume - truth| inside the head in every view; the first carries the PSNR of the whole head."""
    voxel_mm = tuple(head.grid.voxel_size.tolist())
    decibels = psnr(Comparison(data, truth, head.inside, DATA_RANGE, voxel_mm, spacings=(1.0, 1.0, 1.0)))
    panels = {}
    for view in _VIEWS:
        error = np.abs(head.plane(data, view) - head.plane(truth, view)) * head.plane(head.inside, view)
        caption = f"{decibels:.2f} dB" if view == _VIEWS[0] else ""
        panels[view] = Panel(error, 0.0, _ERROR_WINDOW, "inferno", caption)
    return panels


def _residual(head: _Head, protocol: Protocol, check: str | os.PathLike[str] | None) -> Panel | None:
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


def _foot(protocol: Protocol, known: bool) -> str:
    parts = ["volumes as published, projected; grey 0 to 1"]
    if known:
        parts.append(f"|volume - truth| 0 to {_ERROR_WINDOW:g} inside the head, dB: PSNR of the head")
    parts.append(f"residual ({_across(protocol.view)}) ±{_residual_window(protocol):.3g}, noise {protocol.noise:.4f}")
    return "; ".join(parts) + "; the subject's right is on the right"


def _write_smallest(
    output: str | os.PathLike[str], head: _Head, rows: Rows, columns: Sequence[str], *, title: str, foot: str
) -> None:
    """Write the widest picture that is small enough."""
    width, narrowest = _PANEL_WIDTHS
    while width >= narrowest:
        canvas, words = _lay_out(head, rows, columns, width, title=title, foot=foot)
        size = len(zlib.compress(canvas.tobytes(), 6)) + _WORDS_BYTES
        if size <= FIGURE_BYTES:
            with whole(output) as partial:
                _with_words(canvas, words).save(partial, format="PNG", optimize=True)
            return
        width = min(width - 8, int(width * (FIGURE_BYTES / size) ** 0.5))
    raise ValueError(f"{output}: {len(columns)} columns do not fit into {FIGURE_BYTES} bytes. Compare fewer methods")


def _lay_out(
    head: _Head, rows: Rows, columns: Sequence[str], width: int, *, title: str, foot: str
) -> tuple[NDArray[np.uint8], list[tuple]]:
    """Paste every panel at its pixel (indices into the palette); list the words around them with their places."""
    heights = [head.height(view, width) for _, view, _ in rows]
    gaps = [_GAP + _CAPTION * any(panel is not None and panel.caption for panel in panels) for _, _, panels in rows]
    down = _TOP + _CAPTION + sum(heights) + sum(gaps)
    canvas = np.full((down + _FOOT, _LEFT + len(columns) * (width + _GAP)), _WHITE, dtype=np.uint8)
    words = [(6, 14, title, 10, "left"), (6, down + 14, foot, 7, "left"), (6, down + 30, NOTICE, 9, "left")]
    for column, name in enumerate(columns):
        words.append((_LEFT + column * (width + _GAP) + width / 2, _TOP, _fit(name, width), 7, "center"))
    top = _TOP + _CAPTION
    for (label, _, panels), height, gap in zip(rows, heights, gaps, strict=True):
        words.append((_LEFT - 8, top + height / 2, label, 8, "right"))
        for column, panel in enumerate(panels):
            if panel is None:
                continue
            left = _LEFT + column * (width + _GAP)
            canvas[top : top + height, left : left + width] = _indexed(panel, (width, height))
            words.append((left + width / 2, top + height + 8, panel.caption, 7, "center"))
        top += height + gap
    return canvas, words


def _indexed(panel: Panel, size: tuple[int, int]) -> NDArray[np.uint8]:
    """Palette indices of a panel: its own voxels where there is room, their mean where there is not."""
    image = Image.fromarray(np.ascontiguousarray(panel.image, dtype=np.float32))
    enough = size[0] >= image.width and size[1] >= image.height
    data = np.asarray(image.resize(size, Image.Resampling.NEAREST if enough else Image.Resampling.BOX))
    level = np.clip((data - panel.low) / (panel.high - panel.low), 0, 1)
    first = sum(list(_LEVELS.values())[: list(_LEVELS).index(panel.colours)])
    return (first + np.rint(level * (_LEVELS[panel.colours] - 1))).astype(np.uint8)


def _palette() -> bytes:
    """RGB of every level of every colour map, one after the other."""
    colours = [matplotlib.colormaps[name](np.linspace(0, 1, n))[:, :3] for name, n in _LEVELS.items()]
    return (np.concatenate(colours) * 255).round().astype(np.uint8).tobytes()


def _fit(text: str, width: int) -> str:
    """A title in at most two lines above its column: about 5 pixels a letter."""
    return "\n".join(textwrap.wrap(text, max(8, int(width / 5)), max_lines=2, placeholder="…"))


def _with_words(canvas: NDArray[np.uint8], words: Sequence[tuple]) -> Image.Image:
    """Write the words, in grey levels, over the white of the canvas."""
    height, width = canvas.shape
    figure = Figure(figsize=(width / _DPI, height / _DPI), dpi=_DPI)
    drawn = FigureCanvasAgg(figure)
    for x, y, text, size, side in words:
        figure.text(x / width, 1 - y / height, text, fontsize=size, ha=side, va="center")
    drawn.draw()
    ink = np.asarray(drawn.buffer_rgba())[..., 0]
    grey = np.rint(ink / 255 * _WHITE).astype(np.uint8)
    picture = Image.fromarray(np.where(grey < _WHITE, grey, canvas))
    picture.putpalette(_palette())
    return picture
