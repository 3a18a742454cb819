"""What the operator-aware network costs: multiplications a voxel, seconds and memory of whole heads, in bf16 and fp32.

Run: python benchmarks/unrolled_speed.py [--shape 128 128 128] [--shape 256 256 160] [--scans 3] [--at-once 4000000]

Weights are random: they cost the same. Every size and type is a process of its own, whose peak memory is measured. The
rate is that of the network's own products over the whole time, beside what a matrix product of 2048 reaches here.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import torch
import yaml

from headsr.acquisition.measurement import Measurement, Study
from headsr.acquisition.operator import Acquisition
from headsr.networks.build import build_network
from headsr.reconstruct.unrolled import refine
from headsr.volumes import Grid
from headsr.weights import TrainedModel

RECIPE = Path(__file__).parents[1] / "config/models/unrolled.yaml"
FACTOR, NOISE = 4.0, 0.01


def network_of():
    return build_network(yaml.safe_load(RECIPE.read_text())["network"]).eval().requires_grad_(False)


def study_of(shape, scans):
    """A head of noise with one to three orthogonal scans."""
    grid = Grid(tuple(shape), np.eye(4))
    head = torch.rand(grid.shape, generator=torch.Generator().manual_seed(0))
    measurements = []
    for axis in (2, 1, 0)[:scans]:
        operator = Acquisition(grid, grid.thick(axis, FACTOR), axis=axis)
        measurements.append(Measurement(f"scan{axis}", operator, operator.forward(head), NOISE))
    return Study(grid, tuple(measurements), 1.0, 0.0, "speed", "noise")


def products_per_voxel(network):
    """Multiplications of all convolutions, all stages together, for each voxel of the head."""
    counted = []

    def count(module, inputs, output):
        cells = output[0, 0].numel() if not isinstance(module, torch.nn.ConvTranspose3d) else inputs[0][0, 0].numel()
        counted.append(module.weight.numel() * cells)

    hooks = [
        module.register_forward_hook(count)
        for module in network.modules()
        if isinstance(module, (torch.nn.Conv3d, torch.nn.ConvTranspose3d))
    ]
    size = 32
    refine(study_of((size,) * 3, 1), TrainedModel("unrolled", network, "fp32"), at_once=None)
    for hook in hooks:
        hook.remove()
    return sum(counted) / size**3


def matrix_rate(dtype):
    a = torch.rand(2048, 2048).to(dtype)
    (a @ a).sum()
    start = time.perf_counter()
    for _ in range(5):
        a @ a
    return 5 * 2 * 2048**3 / (time.perf_counter() - start)


def once(shape, scans, at_once, precision):
    """One head in this process, as JSON."""
    study, network = study_of(shape, scans), network_of()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.perf_counter()
    refine(study, TrainedModel("unrolled", network, precision), at_once=at_once or None)
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(json.dumps({"seconds": seconds, "added": 1024 * (peak - before), "peak": 1024 * peak}))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", type=int, nargs=3, action="append", help="voxels of a head")
    parser.add_argument("--scans", type=int, default=3, choices=(1, 2, 3))
    parser.add_argument("--at-once", type=int, default=0, help="voxels that are corrected at once; 0: all")
    parser.add_argument("--once", choices=("bf16", "fp32"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.once:
        once(arguments.shape[0], arguments.scans, arguments.at_once, arguments.once)
        return
    products = products_per_voxel(network_of())
    print(f"{products / 1e6:.3f} MMAC a voxel, {torch.get_num_threads()} threads")
    print("| voxels | type | seconds | GFLOP/s | of a matrix product | bytes a voxel | GB at its peak |")
    print("|---|---|---:|---:|---:|---:|---:|")
    for shape in arguments.shape or [(96, 96, 96)]:
        for precision, dtype in (("bf16", torch.bfloat16), ("fp32", torch.float32)):
            size = ["--shape", *map(str, shape), "--scans", str(arguments.scans), "--at-once", str(arguments.at_once)]
            command = [sys.executable, __file__, *size, "--once", precision]
            found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
            voxels = float(np.prod(shape))
            rate = 2 * products * voxels / found["seconds"]
            print(
                f"| {' x '.join(map(str, shape))} | {precision} | {found['seconds']:.1f} | {rate / 1e9:.0f} | "
                f"{rate / matrix_rate(dtype):.2f} | {found['added'] / voxels:.0f} | {found['peak'] / 1e9:.2f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
