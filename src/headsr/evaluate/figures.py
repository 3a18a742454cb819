"""One picture per head and degradation: scan, methods and truth in three planes, with errors and residuals below.

Everything passes through one voxel and is shown at one window. Pictures are laid out pixel by pixel (no resampling by
the plotting library), with a small palette: the report must stay below 5 MB.
"""

from __future__ import annotations

import os
import textwrap
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from headsr.evaluate.metrics import psnr
from headsr.evaluate.score import DATA_RANGE
from headsr.files import read_json, whole
from headsr.volumes import AXES, Volume, axis_positions, load_volume, sidecar_of

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


@dataclass(frozen=True, eq=False)
class Panel:
    """One image of a picture: values (rows, columns), the window that they are shown in and the colours."""

    image: NDArray[np.float32]
    low: float
    high: float
    colours: str = "gray"
    caption: str = ""


@dataclass(frozen=True, eq=False)
class _Head:
    """Where to cut: the box around the head, the voxel that all planes pass through, and voxel sizes in mm."""

    box: tuple[slice, ...]
    voxel: tuple[int, ...]
    size: NDArray[np.float64]
    rows: list[tuple[str, list[Panel | None]]] = field(default_factory=list)

    def plane(self, data: NDArray[np.float32], view: str) -> NDArray[np.float32]:
        """The plane of a view through the voxel, superior (or anterior) up, the subject's right on the right."""
        axis = AXES[view]
        cut = tuple(self.voxel[i] if i == axis else part for i, part in enumerate(self.box))
        return np.rot90(data[cut])

    def height(self, image: NDArray[np.float32], view: str, width: int) -> int:
        """The height in pixels of a plane that is ``width`` pixels wide, with the voxels' true proportions."""
        across, up = (self.size[i] for i in range(3) if i != AXES[view])
        return max(1, round(width * image.shape[0] * up / (image.shape[1] * across)))


def draw_figure(
    output: str | os.PathLike[str],
    *,
    lowres: Sequence[str | os.PathLike[str]],
    volumes: Mapping[str, str | os.PathLike[str]],
    residuals: Mapping[str, str | os.PathLike[str]],
    truth: str | os.PathLike[str] | None,
    head_mask: str | os.PathLike[str],
    title: str,
    voxel: tuple[int, int, int] | None = None,
) -> None:
    """Draw the comparison of one head under one degradation as a PNG of at most 250 kB.

    ``lowres`` are the scans that the volumes were made from (normalised; the first is shown), ``volumes`` maps each
    method's title to its published NIfTI (scan units), ``residuals`` each title to its residual map against that first
    scan (scan units), ``truth`` is the preprocessed scan (None: not known, then there are no error maps). All
    planes pass through ``voxel`` (the middle of the head when None). Raises ValueError when a volume lies on another
    grid than the mask.
    """
    mask = load_volume(head_mask)
    protocol = read_json(sidecar_of(lowres[0]))["headsr"]
    scale, offset = protocol["scale"], protocol["offset"]
    head = _cut(mask, voxel)
    methods = {name: (_on_grid(path, mask) - offset) / scale for name, path in volumes.items()}
    known = None if truth is None else _on_grid(truth, mask)
    scan = _nearest(load_volume(lowres[0]), mask)
    for view in ("axial", "coronal", "sagittal"):
        head.rows.append((view, _images(head, view, scan, methods, known)))
        if known is not None:
            head.rows.append((f"{view}\nerror", _errors(head, view, methods, known, mask.data > 0.5)))
    maps = {name: _nearest(load_volume(path), mask) / scale for name, path in residuals.items()}
    head.rows.append(("residual\nA x - y", _residuals(head, protocol, methods, maps)))
    columns = [f"scan ({protocol['view']}, 1 of {len(lowres)})", *methods, *([] if known is None else ["truth"])]
    _write_smallest(output, head, columns, title=title, foot=_foot(protocol, known is not None))


def _cut(mask: Volume, voxel: tuple[int, int, int] | None) -> _Head:
    inside = mask.data > 0.5
    box = ndimage.find_objects(inside.astype(np.uint8))[0]
    box = tuple(slice(max(0, s.start - 2), min(n, s.stop + 2)) for s, n in zip(box, inside.shape, strict=True))
    centre = voxel or tuple(round(c) for c in ndimage.center_of_mass(inside))
    if not all(0 <= c < n for c, n in zip(centre, inside.shape, strict=True)):
        raise ValueError(f"the voxel {centre} lies outside the volume of {inside.shape}")
    return _Head(box, centre, mask.grid.voxel_size)


def _on_grid(path: str | os.PathLike[str], mask: Volume) -> NDArray[np.float32]:
    volume = load_volume(path)
    if not volume.grid.same_as(mask.grid):
        raise ValueError(f"{path}: lies on another grid ({volume.grid.shape}) than the head mask ({mask.grid.shape})")
    return volume.data


def _nearest(scan: Volume, mask: Volume) -> NDArray[np.float32]:
    """A scan on the head's grid by its nearest sample: thick slices stay visible as what they are."""
    positions = axis_positions(mask.grid, scan.grid)
    nearest = [np.clip(np.rint(p), 0, n - 1).astype(int) for p, n in zip(positions, scan.data.shape, strict=True)]
    return scan.data[np.ix_(*nearest)]


def _images(
    head: _Head, view: str, scan: NDArray, methods: Mapping[str, NDArray], truth: NDArray | None
) -> list[Panel | None]:
    shown = [scan, *methods.values(), *([] if truth is None else [truth])]
    return [Panel(head.plane(data, view), 0.0, DATA_RANGE) for data in shown]


def _errors(
    head: _Head, view: str, methods: Mapping[str, NDArray], truth: NDArray, inside: NDArray[np.bool_]
) -> list[Panel | None]:
    panels: list[Panel | None] = [None]
    for data in methods.values():
        error = np.where(inside, np.abs(data - truth), 0.0)
        caption = f"{psnr(data, truth, inside, data_range=DATA_RANGE):.2f} dB" if view == "axial" else ""
        panels.append(Panel(head.plane(error, view), 0.0, _ERROR_WINDOW, "inferno", caption))
    return [*panels, None]


def _residuals(
    head: _Head, protocol: Mapping, methods: Mapping[str, NDArray], maps: Mapping[str, NDArray]
) -> list[Panel | None]:
    """The residual maps in a plane that cuts across the thick slices; their window is three times the noise."""
    view = "coronal" if protocol["view"] != "coronal" else "axial"
    high = _residual_window(protocol)
    panels: list[Panel | None] = [None]
    for name in methods:
        data = maps.get(name)
        caption = "" if data is None else f"rms {np.sqrt(np.mean(data.astype(np.float64) ** 2)):.4f}"
        panels.append(None if data is None else Panel(head.plane(data, view), -high, high, "RdBu_r", caption))
    return panels


def _residual_window(protocol: Mapping) -> float:
    return max(3.0 * protocol["noise"], 0.001)


def _foot(protocol: Mapping, known: bool) -> str:
    parts = ["normalised intensity 0 to 1 in grey"]
    if known:
        parts.append(f"|volume - truth| 0 to {_ERROR_WINDOW:g} inside the head, dB: PSNR of the head")
    parts.append(f"residual ±{_residual_window(protocol):g}, noise {protocol['noise']:.4f}")
    return "; ".join(parts) + "; the subject's right is on the right"


def _write_smallest(
    output: str | os.PathLike[str], head: _Head, columns: Sequence[str], *, title: str, foot: str
) -> None:
    """Write the widest picture that is small enough."""
    width, narrowest = _PANEL_WIDTHS
    while width >= narrowest:
        canvas, words = _lay_out(head, columns, width, title=title, foot=foot)
        size = len(zlib.compress(canvas.tobytes(), 6)) + _WORDS_BYTES
        if size <= FIGURE_BYTES:
            with whole(output) as partial:
                _with_words(canvas, words).save(partial, format="PNG", optimize=True)
            return
        width = min(width - 8, int(width * (FIGURE_BYTES / size) ** 0.5))
    raise ValueError(f"{output}: {len(columns)} columns do not fit into {FIGURE_BYTES} bytes. Compare fewer methods")


def _lay_out(
    head: _Head, columns: Sequence[str], width: int, *, title: str, foot: str
) -> tuple[NDArray[np.uint8], list[tuple]]:
    """Paste every panel at its pixel (indices into the palette); list the words around them with their places."""
    heights = [_row_height(head, panels, label, width) for label, panels in head.rows]
    down = _TOP + _CAPTION + sum(h + _GAP + _CAPTION * _has_caption(r) for h, r in zip(heights, head.rows, strict=True))
    canvas = np.full((down + _FOOT, _LEFT + len(columns) * (width + _GAP)), _WHITE, dtype=np.uint8)
    words = [(6, 14, title, 10, "left"), (6, down + 14, foot, 7, "left"), (6, down + 30, NOTICE, 9, "left")]
    for column, name in enumerate(columns):
        words.append((_LEFT + column * (width + _GAP) + width / 2, _TOP, _fit(name, width), 7, "center"))
    top = _TOP + _CAPTION
    for (label, panels), height in zip(head.rows, heights, strict=True):
        words.append((_LEFT - 8, top + height / 2, label, 8, "right"))
        for column, panel in enumerate(panels):
            if panel is None:
                continue
            left = _LEFT + column * (width + _GAP)
            canvas[top : top + height, left : left + width] = _indexed(panel, (width, height))
            words.append((left + width / 2, top + height + 8, panel.caption, 7, "center"))
        top += height + _GAP + _CAPTION * _has_caption((label, panels))
    return canvas, words


def _has_caption(row: tuple[str, Sequence[Panel | None]]) -> bool:
    return any(panel is not None and panel.caption for panel in row[1])


def _row_height(head: _Head, panels: Sequence[Panel | None], label: str, width: int) -> int:
    panel = next((panel for panel in panels if panel is not None), None)
    if panel is None:
        return 12
    view = next((view for view in AXES if label.startswith(view)), "coronal")
    return head.height(panel.image, view, width)


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
