"""ESRGAN's and Real-ESRGAN's RRDBNet, by the three sets of names under which it is published."""

from __future__ import annotations

import math
from typing import NamedTuple

from headsr.models.layouts.layout import (
    Layout,
    Reading,
    Source,
    Tensors,
    both,
    colours_of,
    for_grey_input,
    for_grey_output,
    numbered,
)

_TAIL = 4  # all of them enlarge four times; those of scale 2 and 1 gather pixels in squares before


class _Names(NamedTuple):
    """What the layers are called; ``dense`` is a convolution of a dense block, with block, part and number."""

    first: str
    dense: str
    after: str
    enlarging: tuple[str, str]
    fine: str
    last: str


_REAL = _Names("conv_first", "body.{}.rdb{}.conv{}", "conv_body", ("conv_up1", "conv_up2"), "conv_hr", "conv_last")
_MIDDLE = _Names(
    "conv_first", "RRDB_trunk.{}.RDB{}.conv{}", "trunk_conv", ("upconv1", "upconv2"), "HRconv", "conv_last"
)
_OLD = _Names(
    "model.0", "model.1.sub.{}.RDB{}.conv{}.0", "model.1.sub.{}", ("model.3", "model.6"), "model.8", "model.10"
)


def _layout(name: str, names: _Names) -> Layout:
    first_of_all = names.dense.format(0, 1, 1) + ".weight"
    citation = "Wang et al., ESRGAN (2018)" if names is not _REAL else "Wang et al., Real-ESRGAN (2021)"
    return Layout(name, "baseline", citation, lambda found: first_of_all in found, lambda found: _read(found, names))


def _read(tensors: Tensors, names: _Names) -> Reading:
    blocks = numbered(tensors, names.dense.replace(".", r"\.").format(r"(\d+)", 1, 1))
    first, last = tensors[f"{names.first}.weight"], tensors[f"{names.last}.weight"]
    growth = tensors[names.dense.format(0, 1, 1) + ".weight"].shape[0]
    colours = colours_of(first, last)
    unshuffle = math.isqrt(first.shape[1] // colours)
    if unshuffle not in (1, 2, 4) or unshuffle**2 * colours != first.shape[1]:
        raise ValueError(f"{first.shape[1]} channels before the first convolution are of no scale 4, 2 or 1")
    scale, channels = _TAIL // unshuffle, first.shape[0]
    sources = {
        "first.weight": Source(f"{names.first}.weight", for_grey_input(colours)),
        "first.bias": Source(f"{names.first}.bias"),
    }
    for block in range(blocks):
        for part in range(3):
            for number in range(5):
                ours = f"body.{block}.blocks.{part}.convolutions.{number}"
                sources |= both(ours, names.dense.format(block, part + 1, number + 1))
    sources |= both("after", names.after.format(blocks))
    for number, name in enumerate(names.enlarging):
        sources |= both(f"enlarging.{number}", name)
    sources |= both("fine", names.fine) | both("last", names.last, for_grey_output(colours))
    network = {"architecture": "rrdb", "channels": channels, "blocks": blocks, "growth": growth, "scale": scale}
    words = f"scale {scale}, {colours} channel{'s' * (colours > 1)}, {blocks} blocks of {channels} features"
    return Reading({**network, "skip": False}, sources, words)


LAYOUTS = (
    _layout("RRDBNet of Real-ESRGAN", _REAL),
    _layout("RRDBNet of ESRGAN", _MIDDLE),
    _layout("RRDBNet of ESRGAN, by its first names", _OLD),
)
