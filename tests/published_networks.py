"""Published networks as their papers write them, on weights by the published names: plain functions, of any size."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

Weights = dict[str, Tensor]
MEANS = torch.tensor([0.4488, 0.4371, 0.4040])[:, None, None]  # of DIV2K's red, green and blue


class Drawn:
    """Weights that are drawn as they are asked for."""

    def __init__(self, seed: int = 0) -> None:
        self.weights, self.generator = {}, torch.Generator().manual_seed(seed)

    def numbers(self, *shape: int, size: float = 1.0) -> Tensor:
        return size * torch.randn(shape, generator=self.generator)

    def layer(self, name: str, outputs: int, *inputs: int) -> None:
        """Weight (outputs, *inputs) and bias: of a convolution, a linear layer or, without inputs, a norm."""
        deviation = 1 / math.sqrt(math.prod(inputs)) if inputs else 1.0
        self.weights[f"{name}.weight"] = self.numbers(outputs, *inputs, size=deviation)
        self.weights[f"{name}.bias"] = self.numbers(outputs, size=0.1)


def rrdb_weights(*, colours: int, scale: int, channels: int = 8, growth: int = 4, blocks: int = 2) -> Weights:
    drawn, gathered = Drawn(), {4: 1, 2: 4, 1: 16}[scale]
    drawn.layer("conv_first", channels, colours * gathered, 3, 3)
    for block in range(blocks):
        for part in (1, 2, 3):
            for i in range(5):
                outputs = growth if i < 4 else channels
                drawn.layer(f"body.{block}.rdb{part}.conv{i + 1}", outputs, channels + i * growth, 3, 3)
    for name in ("conv_body", "conv_up1", "conv_up2", "conv_hr"):
        drawn.layer(name, channels, channels, 3, 3)
    drawn.layer("conv_last", colours, channels, 3, 3)
    return drawn.weights


def by_first_names(weights: Weights, blocks: int) -> Weights:
    """The weights of an RRDBNet as ESRGAN's first files call them."""
    plain = {
        "conv_first": "model.0",
        "conv_body": f"model.1.sub.{blocks}",
        "conv_up1": "model.3",
        "conv_up2": "model.6",
        "conv_hr": "model.8",
        "conv_last": "model.10",
    }
    found = {}
    for name, tensor in weights.items():
        layer, _, part = name.rpartition(".")
        dense = layer.replace("body.", "model.1.sub.").replace("rdb", "RDB") + ".0"
        found[f"{plain.get(layer, dense)}.{part}"] = tensor
    return found


def by_middle_names(weights: Weights) -> Weights:
    """The same as the files of 2019 call them."""
    plain = {"conv_body": "trunk_conv", "conv_up1": "upconv1", "conv_up2": "upconv2", "conv_hr": "HRconv"}
    found = {}
    for name, tensor in weights.items():
        layer, _, part = name.rpartition(".")
        dense = layer.replace("body.", "RRDB_trunk.").replace("rdb", "RDB")
        found[f"{plain.get(layer, dense)}.{part}"] = tensor
    return found


def rrdb(w: Weights, images: Tensor, *, scale: int) -> Tensor:
    """Images (N, colours, H, W) enlarged ``scale`` times; their sides are multiples of 4 / scale."""

    def conv(x: Tensor, name: str) -> Tensor:
        return F.conv2d(x, w[f"{name}.weight"], w[f"{name}.bias"], padding=1)

    def dense(x: Tensor, name: str) -> Tensor:
        seen = x
        for i in range(1, 5):
            seen = torch.cat([seen, F.leaky_relu(conv(seen, f"{name}.conv{i}"), 0.2)], 1)
        return x + 0.2 * conv(seen, f"{name}.conv5")

    first = conv(gathered(images, 4 // scale), "conv_first")
    x, block = first, 0
    while f"body.{block}.rdb1.conv1.weight" in w:
        inner = x
        for part in (1, 2, 3):
            inner = dense(inner, f"body.{block}.rdb{part}")
        x, block = x + 0.2 * inner, block + 1
    x = first + conv(x, "conv_body")
    for name in ("conv_up1", "conv_up2"):
        x = F.leaky_relu(conv(x.repeat_interleave(2, 2).repeat_interleave(2, 3), name), 0.2)
    return conv(F.leaky_relu(conv(x, "conv_hr"), 0.2), "conv_last")


def gathered(images: Tensor, side: int) -> Tensor:
    """Squares of pixels as channels: all of the first colour, row by row, then those of the next."""
    parts = [
        images[:, colour, row::side, column::side]
        for colour in range(images.shape[1])
        for row in range(side)
        for column in range(side)
    ]
    return torch.stack(parts, 1)


def spread(features: Tensor, side: int) -> Tensor:
    """Channels as squares of pixels: the inverse of ``gathered``."""
    n, channels, height, width = features.shape
    made = features.new_zeros(n, channels // side**2, side * height, side * width)
    for colour in range(made.shape[1]):
        for row in range(side):
            for column in range(side):
                made[:, colour, row::side, column::side] = features[:, (colour * side + row) * side + column]
    return made


def swinir_weights(
    *,
    colours: int,
    scale: int,
    classical: bool,
    channels: int = 12,
    depths: tuple[int, ...] = (2, 3),
    heads: int = 3,
    window: int = 4,
    fine: int = 10,
    patch: int = 16,
) -> Weights:
    """With the buffers of a training on patches of ``patch`` pixels, as the published files have them."""
    drawn = Drawn(1)
    drawn.layer("conv_first", channels, colours, 3, 3)
    drawn.layer("patch_embed.norm", channels)
    for number, depth in enumerate(depths):
        for layer in range(depth):
            name = f"layers.{number}.residual_group.blocks.{layer}"
            drawn.layer(f"{name}.norm1", channels)
            drawn.layer(f"{name}.attn.qkv", 3 * channels, channels)
            drawn.layer(f"{name}.attn.proj", channels, channels)
            drawn.layer(f"{name}.norm2", channels)
            drawn.layer(f"{name}.mlp.fc1", 2 * channels, channels)
            drawn.layer(f"{name}.mlp.fc2", channels, 2 * channels)
            table = drawn.numbers((2 * window - 1) ** 2, heads)
            drawn.weights[f"{name}.attn.relative_position_bias_table"] = table
            drawn.weights[f"{name}.attn.relative_position_index"] = bias_indices(window)
            if layer % 2:
                pixels = window**2
                drawn.weights[f"{name}.attn_mask"] = torch.zeros((patch // window) ** 2, pixels, pixels)
        drawn.layer(f"layers.{number}.conv", channels, channels, 3, 3)
    drawn.layer("norm", channels)
    drawn.layer("conv_after_body", channels, channels, 3, 3)
    if classical:
        drawn.layer("conv_before_upsample.0", fine, channels, 3, 3)
        for step in range(int(math.log2(scale))):
            drawn.layer(f"upsample.{2 * step}", 4 * fine, fine, 3, 3)
        drawn.layer("conv_last", colours, fine, 3, 3)
    else:
        drawn.layer("upsample.0", colours * scale**2, channels, 3, 3)
    return drawn.weights


def bias_indices(window: int) -> Tensor:
    """(M * M, M * M): where in the table of (2 M - 1)^2 biases that of two pixels of a window stands."""
    places = [(row, column) for row in range(window) for column in range(window)]
    return torch.tensor(
        [[(a[0] - b[0] + window - 1) * (2 * window - 1) + a[1] - b[1] + window - 1 for b in places] for a in places]
    )


def swinir(w: Weights, images: Tensor, *, scale: int, heads: int, window: int) -> Tensor:
    """Images (N, colours, H, W) enlarged ``scale`` times, each window and each pair of its pixels by itself."""
    height, width = images.shape[-2:]
    below, right = -height % window, -width % window
    mean = MEANS if images.shape[1] == 3 else torch.zeros(1, 1, 1)
    x = F.pad(images, (0, right, 0, below), mode="reflect") - mean

    def conv(x: Tensor, name: str) -> Tensor:
        return F.conv2d(x, w[f"{name}.weight"], w[f"{name}.bias"], padding=1)

    def linear(x: Tensor, name: str) -> Tensor:
        return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]

    def norm(x: Tensor, name: str) -> Tensor:
        spread_out = (x - x.mean(-1, keepdim=True)) / (x.var(-1, keepdim=True, unbiased=False) + 1e-5).sqrt()
        return spread_out * w[f"{name}.weight"] + w[f"{name}.bias"]

    def attended(x: Tensor, name: str, shift: int) -> Tensor:
        """(N, H, W, C): in windows that begin ``shift`` pixels before those of the whole image, cut at its rim."""
        n, rows, columns, channels = x.shape
        made, width = torch.zeros_like(x), channels // heads
        table, index = w[f"{name}.relative_position_bias_table"], bias_indices(window)
        for top in range(-shift, rows, window):
            for left in range(-shift, columns, window):
                r, c = slice(max(0, top), min(top + window, rows)), slice(max(0, left), min(left + window, columns))
                if r.start >= r.stop or c.start >= c.stop:
                    continue
                tokens = x[:, r, c].reshape(n, -1, channels)
                inside = torch.arange(window**2).view(window, window)
                inside = inside[r.start - top : r.stop - top, c.start - left : c.stop - left].flatten()
                bias = table[index[inside][:, inside]]
                q, k, v = linear(tokens, f"{name}.qkv").split(channels, dim=-1)
                parts = []
                for head in range(heads):
                    one = slice(head * width, (head + 1) * width)
                    scores = q[..., one] @ k[..., one].transpose(1, 2) / math.sqrt(width) + bias[..., head]
                    parts.append(scores.softmax(-1) @ v[..., one])
                mixed = linear(torch.cat(parts, -1), f"{name}.proj")
                made[:, r, c] = mixed.view(n, r.stop - r.start, c.stop - c.start, channels)
        return made

    first = conv(x, "conv_first")
    tokens, number = norm(first.permute(0, 2, 3, 1), "patch_embed.norm"), 0
    while f"layers.{number}.conv.weight" in w:
        before, layer = tokens, 0
        while f"layers.{number}.residual_group.blocks.{layer}.norm1.weight" in w:
            name = f"layers.{number}.residual_group.blocks.{layer}"
            shift = window - window // 2 if layer % 2 else 0
            tokens = tokens + attended(norm(tokens, f"{name}.norm1"), f"{name}.attn", shift)
            wide = F.gelu(linear(norm(tokens, f"{name}.norm2"), f"{name}.mlp.fc1"))
            tokens, layer = tokens + linear(wide, f"{name}.mlp.fc2"), layer + 1
        tokens = before + conv(tokens.permute(0, 3, 1, 2), f"layers.{number}.conv").permute(0, 2, 3, 1)
        number += 1
    x = first + conv(norm(tokens, "norm").permute(0, 3, 1, 2), "conv_after_body")
    if "conv_last.weight" in w:
        x = F.leaky_relu(conv(x, "conv_before_upsample.0"), 0.01)
        for step in range(int(math.log2(scale))):
            x = spread(conv(x, f"upsample.{2 * step}"), 2)
        x = conv(x, "conv_last")
    else:
        x = spread(conv(x, "upsample.0"), scale)
    return (x + mean)[..., : scale * height, : scale * width]


VGG19 = (64, 64, 0, 128, 128, 0, 256, 256, 256, 256, 0, 512, 512, 512, 512, 0, 512, 512, 512, 512)  # 0 is a pooling
VGG19_LEVELS = {2: 0.1, 7: 0.1, 16: 1.0, 25: 1.0, 34: 1.0}  # the convolutions that are compared, and their weights


def vgg_weights() -> Weights:
    """As torchvision numbers the parts of a row of convolutions, ReLUs and poolings; with a small classifier."""
    drawn, place, inputs = Drawn(2), 0, 3
    for width in VGG19:
        if width:
            drawn.layer(f"features.{place}", width, inputs, 3, 3)
            inputs = width
        place += 2 if width else 1
    drawn.layer("classifier.0", 4, 8)
    return drawn.weights


def vgg_features(w: Weights, images: Tensor) -> list[Tensor]:
    """Of images (N, 3, H, W) in [0, 1], before the ReLUs."""
    x = (images - torch.tensor([0.485, 0.456, 0.406])[:, None, None]) / torch.tensor([0.229, 0.224, 0.225])[
        :, None, None
    ]
    place, maps = 0, []
    for width in VGG19:
        if width:
            x = F.conv2d(x, w[f"features.{place}.weight"], w[f"features.{place}.bias"], padding=1)
            maps += [x.clone()] if place in VGG19_LEVELS else []
            x = x.clamp(min=0)
        else:
            x = F.max_pool2d(x, 2, 2)
        place += 2 if width else 1
    return maps


# Inputs, outputs, expansion, side and stride of each block.
LITE0 = (
    (32, 16, 1, 3, 1),
    (16, 24, 6, 3, 2),
    (24, 24, 6, 3, 1),
    (24, 40, 6, 5, 2),
    (40, 40, 6, 5, 1),
    (40, 80, 6, 3, 2),
    (80, 80, 6, 3, 1),
    (80, 80, 6, 3, 1),
    (80, 112, 6, 5, 1),
    (112, 112, 6, 5, 1),
    (112, 112, 6, 5, 1),
    (112, 192, 6, 5, 2),
    (192, 192, 6, 5, 1),
    (192, 192, 6, 5, 1),
    (192, 192, 6, 5, 1),
    (192, 320, 6, 3, 1),
)


def lite0_weights() -> Weights:
    """With a head and a small classifier."""
    drawn = Drawn(3)

    def normed(convolution: str, norm: str, outputs: int, inputs: int, side: int = 1) -> None:
        drawn.layer(convolution, outputs, inputs, side, side)
        del drawn.weights[f"{convolution}.bias"]
        drawn.layer(norm, outputs)
        drawn.weights[f"{norm}.running_mean"] = drawn.numbers(outputs, size=0.3)
        drawn.weights[f"{norm}.running_var"] = 0.5 + drawn.numbers(outputs).square()
        drawn.weights[f"{norm}.num_batches_tracked"] = torch.tensor(7)

    normed("_conv_stem", "_bn0", 32, 3, 3)
    for i, (inputs, outputs, expansion, side, _) in enumerate(LITE0):
        if expansion > 1:
            normed(f"_blocks.{i}._expand_conv", f"_blocks.{i}._bn0", expansion * inputs, inputs)
        normed(f"_blocks.{i}._depthwise_conv", f"_blocks.{i}._bn1", expansion * inputs, 1, side)
        normed(f"_blocks.{i}._project_conv", f"_blocks.{i}._bn2", outputs, expansion * inputs)
    normed("_conv_head", "_bn1", 8, 320)
    drawn.layer("_fc", 5, 8)
    return drawn.weights


def lite0_features(w: Weights, images: Tensor) -> list[Tensor]:
    """Of images (N, 3, H, W) in [0, 1]: the outputs of the last block of every size."""

    def normed(x: Tensor, convolution: str, norm: str, stride: int = 1, groups: int = 1) -> Tensor:
        weight = w[f"{convolution}.weight"]
        side = weight.shape[-1]
        more = [max((math.ceil(n / stride) - 1) * stride + side - n, 0) for n in x.shape[-2:]]
        (height, width) = more
        x = F.pad(x, (width // 2, width - width // 2, height // 2, height - height // 2))
        x = F.conv2d(x, weight, stride=stride, groups=groups).movedim(1, -1)
        mean, variance = w[f"{norm}.running_mean"], w[f"{norm}.running_var"]
        return ((x - mean) / (variance + 1e-3).sqrt() * w[f"{norm}.weight"] + w[f"{norm}.bias"]).movedim(-1, 1)

    x = normed((255 * images - 127) / 128, "_conv_stem", "_bn0", 2).clamp(0, 6)
    outputs = []
    for i, (inputs, width, expansion, _, stride) in enumerate(LITE0):
        name, inner = f"_blocks.{i}", x
        if expansion > 1:
            inner = normed(inner, f"{name}._expand_conv", f"{name}._bn0").clamp(0, 6)
        inner = normed(inner, f"{name}._depthwise_conv", f"{name}._bn1", stride, expansion * inputs).clamp(0, 6)
        inner = normed(inner, f"{name}._project_conv", f"{name}._bn2")
        x = x + inner if stride == 1 and inputs == width else inner
        outputs.append(x)
    return [outputs[i] for i in (0, 2, 4, 10, 15)]
