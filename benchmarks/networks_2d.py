"""What the 2-D networks cost in training: steps a second and memory, each beside its yardstick, in one run.

Run: python benchmarks/networks_2d.py [--batch 8] [--crop 96] [--rounds 3] [--network rrdb ...]

A step is forward, L1, backward and AdamW on random slices, under bf16 autocast where the precision ``auto`` is that.
The variants of a network take turns, so what else the machine does slows all of them; rates are medians over the rounds
and ratios are to the network as it is (channels last, but for SwinIR). Yardsticks: the networks written out in plain
PyTorch, SwinIR with torch's own attention; MONAI has none of them (its UNet halves the slice in its first layer).
Memory is what a step adds at its peak: on a GPU torch's count, on a CPU the peak of a process of its own.
"""

import argparse
import contextlib
import os
import resource
import statistics
import time
from functools import partial
from itertools import pairwise
from pathlib import Path
from unittest import mock

import torch
import torch.nn.functional as F
from torch import nn

from headsr.devices import choose_device, choose_precision
from headsr.networks.blocks import ResidualBlock, checkpoint_blocks
from headsr.networks.build import build_network
from headsr.networks.swinir import WindowAttention

NETWORKS = {
    "residual2d": {"architecture": "residual2d", "channels": 64, "blocks": 8, "unshuffle": 2},
    "rrdb": {"architecture": "rrdb", "channels": 32, "growth": 16, "blocks": 6},
    "slice_unet": {"architecture": "slice_unet", "channels": [24, 48, 96]},
    "swinir": {"architecture": "swinir"},
}


class PlainDense(nn.Module):
    def __init__(self, channels, growth):
        super().__init__()
        self.convs = nn.ModuleList(
            nn.Conv2d(channels + i * growth, growth if i < 4 else channels, 3, padding=1) for i in range(5)
        )

    def forward(self, x):
        seen = x
        for conv in self.convs[:-1]:
            seen = torch.cat([seen, F.leaky_relu(conv(seen), 0.2)], dim=1)
        return x + 0.2 * self.convs[-1](seen)


class PlainRRDB(nn.Module):
    """RRDB on one grid as its papers draw it: the same layers, nothing else."""

    def __init__(self, channels, growth, blocks):
        super().__init__()
        self.first = nn.Conv2d(16, channels, 3, padding=1)
        dense = [nn.Sequential(*[PlainDense(channels, growth) for _ in range(3)]) for _ in range(blocks)]
        self.blocks = nn.ModuleList(dense)
        self.after, self.up1, self.up2, self.fine = (nn.Conv2d(channels, channels, 3, padding=1) for _ in range(4))
        self.last = nn.Conv2d(channels, 1, 3, padding=1)

    def forward(self, images):
        features = first = self.first(F.pixel_unshuffle(images, 4))
        for block in self.blocks:
            features = features + 0.2 * block(features)
        features = first + self.after(features)
        for conv in (self.up1, self.up2):
            features = F.leaky_relu(conv(F.interpolate(features, scale_factor=2.0, mode="nearest")), 0.2)
        return images + self.last(F.leaky_relu(self.fine(features), 0.2))


class PlainResidualNet(nn.Module):
    """The residual network of slices: the same layers, nothing else."""

    def __init__(self, channels, blocks, unshuffle):
        super().__init__()
        self.unshuffle = unshuffle
        self.first = nn.Conv2d(unshuffle**2, channels, 3, padding=1)
        self.body = nn.Sequential(*[PlainResidual(channels) for _ in range(blocks)])
        self.last = nn.Conv2d(channels, unshuffle**2, 3, padding=1)

    def forward(self, images):
        features = self.body(F.relu(self.first(F.pixel_unshuffle(images, self.unshuffle))))
        return images + F.pixel_shuffle(self.last(features), self.unshuffle)


class PlainResidual(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.conv1, self.conv2 = (nn.Conv2d(channels, channels, 3, padding=1) for _ in range(2))

    def forward(self, x):
        return x + self.conv2(F.relu(self.conv1(x)))


class PlainUnet(nn.Module):
    """The U-Net of slices: the same layers, nothing else."""

    def __init__(self, channels):
        super().__init__()
        self.first, self.last = nn.Conv2d(1, channels[0], 3, padding=1), nn.Conv2d(channels[0], 1, 3, padding=1)
        self.encoders = nn.ModuleList(PlainResidual(c) for c in channels)
        self.decoders = nn.ModuleList(PlainResidual(c) for c in channels[:-1])
        self.down = nn.ModuleList(nn.Conv2d(a, b, 3, stride=2, padding=1) for a, b in pairwise(channels))
        self.up = nn.ModuleList(nn.Conv2d(b, a, 3, padding=1) for a, b in pairwise(channels))
        self.merge = nn.ModuleList(nn.Conv2d(2 * a, a, 3, padding=1) for a in channels[:-1])

    def forward(self, images):
        features, skips = F.relu(self.first(images)), []
        for encoder, down in zip(self.encoders, self.down, strict=False):
            skips.append(encoder(features))
            features = F.relu(down(skips[-1]))
        features = self.encoders[-1](features)
        for up, merge, decoder in reversed(list(zip(self.up, self.merge, self.decoders, strict=True))):
            features = F.relu(up(F.interpolate(features, scale_factor=2.0, mode="nearest")))
            features = decoder(F.relu(merge(torch.cat([features, skips.pop()], dim=1))))
        return images + self.last(features)


def fused(attention, tokens, apart):
    """Window attention by torch's own function, which a learned bias sends down its plain way."""
    n, windows, pixels, _ = tokens.shape
    split = attention.queries_keys_values(tokens).view(n, windows, pixels, 3, attention.heads, -1)
    queries, keys, values = split.permute(3, 0, 1, 4, 2, 5)
    bias = attention.bias[attention.offsets].permute(2, 0, 1)
    bias = bias if apart is None else bias - 100.0 * apart[:, None].to(bias.dtype)
    mixed = F.scaled_dot_product_attention(queries, keys, values, attn_mask=bias.to(queries.dtype))
    return attention.out(mixed.transpose(2, 3).reshape(tokens.shape))


def yardstick(name):
    """The name of what a network is measured beside, that network, and what holds while it runs."""
    if name == "swinir":
        around = partial(mock.patch.object, WindowAttention, "forward", fused)
        return "torch's attention", build_network(NETWORKS[name]), around
    sizes = {key: value for key, value in NETWORKS[name].items() if key != "architecture"}
    plain = {"residual2d": PlainResidualNet, "rrdb": PlainRRDB, "slice_unet": PlainUnet}[name]
    return "plain PyTorch", plain(**sizes), contextlib.nullcontext


class Variant:
    """One network as it is trained, and its batch."""

    def __init__(self, network, name, options, around=contextlib.nullcontext):
        self.name, self.around = name, around
        self.network = network.train().to(options.device)
        self.optimizer = torch.optim.AdamW(self.network.parameters(), lr=1e-4)
        self.precision = choose_precision("auto", options.device)
        shape = (options.batch, 1, options.crop, options.crop)
        self.images = torch.rand(shape, device=options.device)

    def step(self):
        with self.around():
            with torch.autocast(self.images.device.type, torch.bfloat16, enabled=self.precision is not None):
                loss = F.l1_loss(self.network(self.images), self.images.flip(0))
            loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if self.images.is_cuda:
            torch.cuda.synchronize()

    def seconds(self):
        start = time.perf_counter()
        self.step()
        return time.perf_counter() - start


def variants_of(name, options):
    """Makers of the variants: the network as it is comes first."""
    block, (beside, other, around) = NETWORKS[name], yardstick(name)

    def checkpointed():
        network = build_network(block)
        checkpoint_blocks(network)
        return network

    makers = [
        lambda: Variant(build_network(block), "as it is", options),
        lambda: Variant(checkpointed(), "checkpointed", options),
        lambda: Variant(other, beside, options, around),
    ]
    if name != "swinir":  # which has hardly any convolutions
        as_made = mock.patch(f"headsr.networks.{name}.channels_last", lambda features: features)
        makers.append(lambda: Variant(build_network(block), "contiguous", options, lambda: as_made))
    return makers


def peak_mib(make, options):
    """What a step adds to the memory at its peak, in MiB."""
    if options.device.type == "cuda":
        variant = make()
        variant.step()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        variant.step()
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    read, write = os.pipe()
    if not os.fork():
        torch.set_num_threads(1)  # others do not live on in a fork: it would wait for them for ever
        take_first_step()
        variant = make()
        before = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        variant.step()
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        os.write(write, str((peak - before) / 2**20).encode())
        os._exit(0)
    os.close(write)
    os.wait()
    with os.fdopen(read) as said:
        return float(said.read())


def take_first_step():
    """Have torch import what it imports at the first step of a process: that is no network's memory."""
    block = ResidualBlock(4, 4)
    checkpoint_blocks(block)
    with torch.autocast("cpu", torch.bfloat16):
        block(torch.zeros(1, 4, 4, 4)).sum().backward()
    torch.optim.AdamW(block.parameters()).step()


def report(name, makers, memory, options):
    variants = [make() for make in makers]
    for variant in variants:
        variant.step()
    rounds = [[variant.seconds() for variant in variants] for _ in range(options.rounds)]
    for place, variant in enumerate(variants):
        seconds = statistics.median(times[place] for times in rounds)
        ratio = statistics.median(times[0] / times[place] for times in rounds)
        parameters = sum(p.numel() for p in variant.network.parameters())
        row = f"{name:11} {variant.name:18} {parameters:9,} {1 / seconds:8.2f} {ratio:8.2f} {memory[place]:8.0f}"
        print(row, flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--crop", type=int, default=96, help="pixels a side; a multiple of 8")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--network", nargs="*", choices=NETWORKS, default=list(NETWORKS))
    options = parser.parse_args()
    options.device = choose_device()
    precision = choose_precision("auto", options.device) or torch.float32
    print(f"{options.device}, {precision}, {torch.get_num_threads()} threads, {options.batch} slices of {options.crop}")
    print(f"{'network':11} {'variant':18} {'weights':>9} {'steps/s':>8} {'ratio':>8} {'MiB':>8}")
    makers = {name: variants_of(name, options) for name in options.network}
    memory = {name: [peak_mib(make, options) for make in makers[name]] for name in options.network}
    for name in options.network:
        report(name, makers[name], memory[name], options)


if __name__ == "__main__":
    main()
