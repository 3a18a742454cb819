"""SwinIR as its authors publish it (the names are those of KAIR, too): classical and lightweight super-resolution."""

from __future__ import annotations

import math
import re

import torch
from torch import Tensor

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
from headsr.networks.swinir import offsets_of

_MEANS = (0.4488, 0.4371, 0.4040)  # of DIV2K's colours: taken off before networks of three channels, and added after
_GROUP, _BLOCK = "layers.{}.residual_group.blocks", "layers.{}.residual_group.blocks.{}"
# What is computed anew for every size of an image; which of them a file holds depends on the patches of its training.
_BUFFER = re.compile(r"layers\.\d+\.residual_group\.blocks\.\d+\.(attn_mask|attn\.relative_position_index)")


def _read(tensors: Tensors) -> Reading:
    _refuse_other_tasks(tensors)
    table, first = tensors[f"{_BLOCK.format(0, 0)}.attn.relative_position_bias_table"], tensors["conv_first.weight"]
    window, channels = (math.isqrt(table.shape[0]) + 1) // 2, first.shape[0]
    _refuse_other_offsets(tensors, window)
    depths = [
        numbered(tensors, _GROUP.format(number).replace(".", r"\.") + r"\.(\d+)\.")
        for number in range(numbered(tensors, r"layers\.(\d+)\."))
    ]
    stepwise = "conv_before_upsample.0.weight" in tensors
    colours, scale, tail, sizes = _stepwise(tensors) if stepwise else _direct(tensors)
    sources = {
        "first.weight": Source("conv_first.weight", for_grey_input(colours) if colours == 1 else _with_means),
        "first.bias": Source("conv_first.bias"),
        **both("embedding", "patch_embed.norm"),
        **both("norm", "norm"),
        **both("after", "conv_after_body"),
        **tail,
    }
    for number, depth in enumerate(depths):
        sources |= both(f"blocks.{number}.conv", f"layers.{number}.conv")
        for layer in range(depth):
            sources |= _layer(f"blocks.{number}.layers.{layer}", _BLOCK.format(number, layer))
    network = {
        "architecture": "swinir",
        "channels": channels,
        "depths": depths,
        "heads": table.shape[1],
        "window": window,
        **sizes,
        "scale": scale,
        "skip": False,
        "ones": colours > 1,
    }
    kind = "classical" if stepwise else "lightweight"
    words = f"{kind}, scale {scale}, {colours} channel{'s' * (colours > 1)}, depths {depths} of {channels} features"
    return Reading(network, sources, words, unused=lambda name: _BUFFER.fullmatch(name) is not None)


def _layer(ours: str, theirs: str) -> dict[str, Source]:
    return {
        **both(f"{ours}.norm1", f"{theirs}.norm1"),
        **both(f"{ours}.attention.queries_keys_values", f"{theirs}.attn.qkv"),
        **both(f"{ours}.attention.out", f"{theirs}.attn.proj"),
        f"{ours}.attention.bias": Source(f"{theirs}.attn.relative_position_bias_table"),
        **both(f"{ours}.norm2", f"{theirs}.norm2"),
        **both(f"{ours}.wide", f"{theirs}.mlp.fc1"),
        **both(f"{ours}.narrow", f"{theirs}.mlp.fc2"),
    }


def _stepwise(tensors: Tensors) -> tuple[int, int, dict[str, Source], dict[str, object]]:
    """Colours, scale, tail and its settings of a classical network, which enlarges twice at a time."""
    steps, fine = numbered(tensors, r"upsample\.(\d+)\.weight"), tensors["conv_before_upsample.0.weight"].shape[0]
    if tensors["upsample.0.weight"].shape[0] != 4 * fine:
        raise ValueError(f"it enlarges {_root(tensors['upsample.0.weight'].shape[0], fine)} times at once. {_SCALES}")
    colours = colours_of(tensors["conv_first.weight"], tensors["conv_last.weight"])
    tail = both("tail.0", "conv_before_upsample.0")
    for step in range(steps):
        tail |= both(f"tail.{2 + step}.0", f"upsample.{2 * step}")
    tail |= _last(f"tail.{2 + steps}", "conv_last", colours)
    return colours, 2**steps, tail, {"enlarging": "stepwise", "fine": fine}


def _direct(tensors: Tensors) -> tuple[int, int, dict[str, Source], dict[str, object]]:
    """The same of a lightweight network: one convolution, whose outputs become pixels."""
    first, last = tensors["conv_first.weight"], tensors["upsample.0.weight"]
    scale = _root(last.shape[0], first.shape[1])
    colours = colours_of(first, last, each=scale**2)
    if scale < 2 or scale & (scale - 1):
        raise ValueError(f"it enlarges {scale} times. {_SCALES}")
    return colours, scale, _last("tail.0", "upsample.0", colours), {"enlarging": "direct"}


def _root(outputs: int, each: int) -> int:
    return math.isqrt(outputs // each)


def _last(ours: str, theirs: str, colours: int) -> dict[str, Source]:
    """The layer that gives colours, whose means are added to what it gives."""
    grey = for_grey_output(colours)
    sources = both(ours, theirs, grey)
    if colours > 1:
        sources[f"{ours}.bias"] = Source(f"{theirs}.bias", lambda bias: grey(bias) + sum(_MEANS) / len(_MEANS))
    return sources


def _with_means(weight: Tensor) -> Tensor:
    """A first convolution of a grey image and of a channel of ones, which takes the mean off every colour.

    Where that is folded into a bias, the zeros beyond the border are no longer those that the network was trained with.
    """
    means = torch.tensor(_MEANS, dtype=weight.dtype)[:, None, None]
    return torch.stack([weight.sum(dim=1), -(weight * means).sum(dim=1)], dim=1)


def _refuse_other_tasks(tensors: Tensors) -> None:
    if "conv_up1.weight" in tensors:
        raise ValueError(f"it is of the real-world networks (nearest neighbours, then convolutions). {_TASKS}")
    if not any(name.startswith("upsample.") for name in tensors):
        raise ValueError(f"it enlarges nothing: it takes away noise or traces of JPEG. {_TASKS}")
    if "layers.0.conv.0.weight" in tensors:
        raise ValueError(f"its blocks end in three convolutions (3conv). {_TASKS}")


def _refuse_other_offsets(tensors: Tensors, window: int) -> None:
    """The biases of attention are in the order in which headsr looks them up."""
    for name, tensor in tensors.items():
        if name.endswith("attn.relative_position_index"):
            fits = tensor.shape == (window**2, window**2) and torch.equal(tensor, offsets_of(window))
            if not fits:
                raise ValueError(f"{name} is not the order of biases of SwinIR's windows of {window} pixels")


_SCALES = "Networks of scale 2, 4 and 8 are taken"
_TASKS = "Classical and lightweight super-resolution are taken"
LAYOUTS = (
    Layout(
        "SwinIR",
        "baseline",
        "Liang et al., SwinIR (2021)",
        lambda found: any(name.startswith("layers.0.residual_group.blocks.0.attn.") for name in found),
        _read,
    ),
)
