"""One small picture per scan: where its masks say that the head and the brain are, and how large."""

from __future__ import annotations

import os

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

from headsr.evaluate.picture import NOTICE, white_of
from headsr.files import whole
from headsr.preprocess.sidecar import read_skull_stripped
from headsr.volumes import AXES, Volume, load_volume

_LONGEST = 150  # side of a plane, in pixels
_GAP, _LINE, _LETTERS = 4, 15, 11
_HEAD, _BRAIN = (0, 190, 255), (255, 170, 0)
_GREYS = 30  # 10 to 20 kB a picture: the report must stay below 5 MB


def draw_masks(
    output: str | os.PathLike[str],
    *,
    scan: str | os.PathLike[str],
    head_mask: str | os.PathLike[str],
    brain_mask: str | os.PathLike[str],
    suffix: str,
    title: str,
) -> None:
    """Draw the outlines of both masks on three planes through the middle of the head (PNG), with their volumes in ml.

    ``scan`` is preprocessed, and shown as bright as scans of its ``suffix`` are looked at; whether it is skull-stripped
    stands in its sidecar. The masks are on its grid.
    """
    volume, head, brain = (
        load_volume(scan),
        load_volume(head_mask, constant=True),
        load_volume(brain_mask, constant=True),
    )
    size = f"head {_millilitres(head):.0f} ml, brain {_millilitres(brain):.0f} ml"
    stripped = ", skull-stripped" if read_skull_stripped(scan) else ""
    white = white_of(volume, brain, suffix)
    picture = _lay_out([_plane(volume, head, brain, AXES[view], white) for view in ("axial", "coronal", "sagittal")])
    pen, font = ImageDraw.Draw(picture), ImageFont.load_default(_LETTERS)
    pen.text((_GAP, 0), title, fill="black", font=font)
    pen.text((_GAP, picture.height - 2 * _LINE), size + stripped, fill="black", font=font)
    pen.text((_GAP, picture.height - _LINE), NOTICE, fill="black", font=font)
    with whole(output) as partial:
        shades = picture.quantize(palette=_palette(), dither=Image.Dither.NONE)
        shades.save(partial, format="PNG", optimize=True)


def _millilitres(mask: Volume) -> float:
    return float(mask.data.sum() * abs(np.linalg.det(mask.grid.affine[:3, :3])) / 1000)


def _plane(volume: Volume, head: Volume, brain: Volume, axis: int, white: float) -> Image.Image:
    """One plane with both outlines, superior (or anterior) up, with the voxels' true proportions."""
    found = ndimage.find_objects(head.data.astype(np.uint8))[0]
    box = tuple(slice(max(0, s.start - 1), min(n, s.stop + 1)) for s, n in zip(found, head.data.shape, strict=True))
    extent = np.array([(part.stop - part.start) * mm for part, mm in zip(box, volume.grid.voxel_size, strict=True)])
    across, up = np.maximum(1, np.rint(np.delete(extent, axis) * _LONGEST / extent.max()).astype(int))
    middle = round(ndimage.center_of_mass(head.data)[axis])
    cut = tuple(middle if i == axis else part for i, part in enumerate(box))
    grey = np.clip(_sized(volume.data[cut], (across, up)) / white, 0, 1)
    shown = np.repeat((255 * grey)[..., None], 3, axis=-1).astype(np.uint8)
    for mask, colour in ((head, _HEAD), (brain, _BRAIN)):
        inside = _sized(mask.data[cut], (across, up)) > 0.5
        shown[inside & ~ndimage.binary_erosion(inside, border_value=1)] = colour
    return Image.fromarray(shown)


def _sized(plane: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.float32]:
    upright = np.ascontiguousarray(np.rot90(plane))
    return np.asarray(Image.fromarray(upright).resize(size, Image.Resampling.BOX))


def _lay_out(planes: list[Image.Image]) -> Image.Image:
    """Planes side by side, with room for a line above and two below."""
    width = sum(plane.width + _GAP for plane in planes) + _GAP
    picture = Image.new("RGB", (width, max(plane.height for plane in planes) + 3 * _LINE), "white")
    left = _GAP
    for plane in planes:
        picture.paste(plane, (left, _LINE))
        left += plane.width + _GAP
    return picture


def _palette() -> Image.Image:
    greys = np.linspace(0, 255, _GREYS).round().astype(np.uint8)
    palette = Image.new("P", (1, 1))
    palette.putpalette(bytes([*np.repeat(greys, 3), *_HEAD, *_BRAIN]))
    return palette
