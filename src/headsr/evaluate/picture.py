"""Pictures of heads in three planes, laid out pixel by pixel (no resampling by the plotting library).

Everything passes through one voxel. A small palette keeps a picture small.
"""

from __future__ import annotations

import os
import textwrap
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from headsr.files import whole
from headsr.volumes import AXES, Grid, Volume, axis_positions

NOTICE = "Research use only, not for clinical use"
FIGURE_BYTES = 250_000
_PANEL_WIDTHS = (176, 64)  # in pixels: the widest to try, the narrowest worth looking at
_DPI = 100
_GAP, _LEFT, _TOP, _CAPTION, _FOOT = 4, 74, 40, 16, 40
# Levels per palette: finer ones are noise to the eye and bytes to the file.
_LEVELS = {"gray": 64, "inferno": 32, "RdBu_r": 15}
_WHITE = _LEVELS["gray"] - 1
_WORDS_BYTES = 12_000
# How bright the middle of the brain is shown, of white: scalp, fluid and vessels, which are brighter, may be white.
_BRAIN_GREY = {"T1w": 0.6, "T2w": 0.42, "PDw": 0.6, "FLAIR": 0.5}
PLANES = ("axial", "coronal", "sagittal")


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
class Head:
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


def cut(mask: Volume, grid: Grid) -> Head:
    """Where to cut; a mask on a coarser grid (that of a thick scan) is brought to the volumes' grid."""
    inside = mask.data[np.ix_(*_nearest(mask, grid))] > 0.5
    found = ndimage.find_objects(inside.astype(np.uint8))
    if not found:
        raise ValueError(f"no part of the head mask lies on the grid of the volumes ({grid.shape} voxels)")
    box = tuple(slice(max(0, s.start - 2), min(n, s.stop + 2)) for s, n in zip(found[0], inside.shape, strict=True))
    return Head(grid, inside, box, tuple(round(c) for c in ndimage.center_of_mass(inside)))


def white_of(scan: Volume, brain: Volume, suffix: str) -> float:
    """The intensity of a scan that is shown as white: half of its brain is below the grey that its contrast asks for.

    At most 1, which is the head's brightest in normalised intensities. The mask may lie on another grid.
    """
    inside = brain.data[np.ix_(*_nearest(brain, scan.grid))] > 0.5
    middle = float(np.median(scan.data[inside])) if inside.any() else 0.0
    return min(middle / _BRAIN_GREY[suffix], 1.0) if middle > 0 else 1.0


def _nearest(scan: Volume, grid: Grid) -> list[NDArray[np.int_]]:
    """Per axis, the nearest sample of a scan to every voxel of a grid."""
    positions = axis_positions(grid, scan.grid)
    return [np.clip(np.rint(p), 0, n - 1).astype(int) for p, n in zip(positions, scan.data.shape, strict=True)]


def write_smallest(
    output: str | os.PathLike[str], head: Head, rows: Rows, columns: Sequence[str], *, title: str, foot: str
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
    head: Head, rows: Rows, columns: Sequence[str], width: int, *, title: str, foot: str
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
