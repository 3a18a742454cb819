"""What the named degradations leave of a head, and what interpolation makes of it: PSNR by factor and slice profile.

Run: python benchmarks/degradations.py [SCAN.nii.gz]  (a high-resolution scan of a whole head; else a simulated one)
"""

import argparse

import numpy as np
import torch

from headsr.acquisition.measurement import Measurement
from headsr.degrade.lowres import stack_operator
from headsr.preprocess.outline import head_of
from headsr.recipes import Stack
from headsr.reconstruct.interpolate import average_of
from headsr.simulate.anatomy import build_anatomy
from headsr.simulate.head import simulate_head
from headsr.volumes import AXES, Volume, load_volume, spline_resample

PROFILES = ("box", "gaussian", "cubic", "zoom")


def psnr(estimate, truth, inside):
    return -10 * np.log10(np.mean((estimate - truth)[inside].astype(np.float64) ** 2))


def normalised(volume):
    """The scan with 1 at the 99.9th percentile inside the head, and the head."""
    head = head_of(volume)
    return Volume(volume.data / np.percentile(volume.data[head], 99.9).astype(np.float32), volume.grid), head


def interpolated(truth, stacks):
    """The average of spline interpolations of the stacks, each where its own grid says that it lies."""
    scans = []
    for stack in stacks:
        operator = stack_operator(truth.grid, stack)
        scans.append(Measurement(stack.view, operator, operator.forward(torch.as_tensor(truth.data)), 0.0))
    return average_of(scans, truth.grid)


def table(title, truth, head, factors, views):
    print(f"\n{title}: PSNR in dB, whole volume / inside the head; range 1 = 99.9th percentile inside the head")
    print("| factor | " + " | ".join(PROFILES) + " |\n|---:|" + "---:|" * len(PROFILES))
    for factor in factors:
        cells = []
        for profile in PROFILES:
            estimate = interpolated(truth, [Stack(view, factor, profile) for view in views])
            cells.append(f"{psnr(estimate, truth.data, slice(None)):.2f} / {psnr(estimate, truth.data, head):.2f}")
        print(f"| {factor:g} | " + " | ".join(cells) + " |", flush=True)


def conventions(truth, head):
    """One convention down and another up: what a silent half voxel costs, along all three axes."""
    print("\nConventions mixed (along all axes), whole volume / inside the head")
    print("| factor | zoom, read where it lies | zoom, read as cells | block mean, read where it lies |")
    print("|---:|---:|---:|---:|")
    for factor in (2, 3, 4):
        cropped = truth.data[tuple(slice(0, n - n % factor) for n in truth.data.shape)]
        part = Volume(cropped, truth.grid.block((0, 0, 0), cropped.shape))
        inside, numbers = head[tuple(slice(0, n) for n in cropped.shape)], []
        for profile, wrong in (("zoom", False), ("zoom", True), ("box", False)):
            operator = stack_operator(part.grid, Stack("isotropic", factor, profile))
            low = Volume(operator.forward(torch.as_tensor(part.data)).numpy(), operator.scan)
            if wrong:
                low = Volume(low.data, part.grid.resized(low.data.shape))
            up = spline_resample(low, part.grid)
            numbers.append(f"{psnr(up, part.data, slice(None)):.2f} / {psnr(up, part.data, inside):.2f}")
        print(f"| {factor} | " + " | ".join(numbers) + " |", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("scan", nargs="?")
    scan = parser.parse_args().scan
    volume = load_volume(scan) if scan else simulate_head(build_anatomy(), suffix="T1w", voxel_mm=2.0, seed=0)
    truth, head = normalised(volume)
    print(
        f"{volume.grid.shape} voxels of {np.round(volume.grid.voxel_size, 3)} mm, head {head.mean():.0%} of the volume"
    )
    table("One thick axial scan, spline", truth, head, range(2, 8), ["axial"])
    table("Two thick scans (axial, coronal), fused average", truth, head, range(2, 8), ["axial", "coronal"])
    table("Three orthogonal thick scans, fused average", truth, head, range(2, 8), list(AXES))
    table("One scan coarse along all axes, spline", truth, head, (2, 2.5, 3, 3.5, 4), ["isotropic"])
    conventions(truth, head)


if __name__ == "__main__":
    main()
