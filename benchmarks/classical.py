"""What choosing the weight of least squares and of total variation costs: the chosen weight against a sweep of weights.

Run: python benchmarks/classical.py [--voxel-mm 6] [--method tikhonov] [SCAN.nii.gz ...]  (simulated heads, and these)

A scan is averaged to voxels of about that size and is the truth; one axial scan of it, or three orthogonal ones, are
simulated. PSNR over the head in dB, range 1 = 99.9th percentile inside the head, as estimated: before the projection.
"""

import argparse
from contextlib import redirect_stdout
from itertools import product
from pathlib import Path

import numpy as np
import torch

from headsr.acquisition.measurement import Measurement, Study
from headsr.degrade.lowres import stack_operator
from headsr.degrade.noise import add_rician, white_noise
from headsr.preprocess.mask import head_of
from headsr.recipes import Stack, Tikhonov, TotalVariation
from headsr.reconstruct.estimate import estimate_of
from headsr.reconstruct.tikhonov import tikhonov
from headsr.reconstruct.total_variation import least_variation
from headsr.seeds import seed_of
from headsr.simulate.anatomy import build_anatomy
from headsr.simulate.head import simulate_head
from headsr.volumes import AXES, Volume, cell_average, load_volume

VIEWS = {1: ("axial",), 3: tuple(AXES)}
FACTORS, NOISES = (2, 4, 6), (0.0, 0.01, 0.03)
METHODS = {
    "tikhonov": (Tikhonov(iterations=30), lambda study, w: tikhonov(study, weight=w, iterations=30), range(-10, 2)),
    "tv": (TotalVariation(), lambda study, w: least_variation(study, weight=w, iterations=100), range(-8, -3)),
}


def heads(paths, voxel_mm):
    """Name, truth with 1 at the 99.9th percentile inside the head, and the head."""
    for seed, suffix in enumerate(("T1w", "T2w")):
        scan = simulate_head(build_anatomy(), suffix=suffix, voxel_mm=voxel_mm, seed=seed, noise=0.0)
        yield f"simulated {suffix}", *normalised(scan)
    for path in paths:
        yield Path(path).name.removesuffix(".nii.gz"), *normalised(coarser(load_volume(path), voxel_mm))


def coarser(volume, voxel_mm):
    grid = volume.grid.at_voxel_size(np.maximum(voxel_mm, volume.grid.voxel_size))
    return Volume(cell_average(volume.data, grid.shape), grid)


def normalised(volume):
    head = head_of(volume)
    return Volume(volume.data / np.percentile(volume.data[head], 99.9).astype(np.float32), volume.grid), head


def measured(name, truth, head, factor, views, noise):
    """The study of one head, noise drawn by the names."""
    scans = []
    for view in views:
        operator = stack_operator(truth.grid, Stack(view, factor))
        data = operator.forward(torch.as_tensor(truth.data))
        if noise > 0:
            data = add_rician(data[None], noise * white_noise([seed_of(name, view)], tuple(data.shape), "cpu"))[0]
        seen = operator.forward(torch.as_tensor(head, dtype=torch.float32)) >= 0.5
        scans.append(Measurement(view, operator, data, noise, seen))
    return Study(truth.grid, tuple(scans), 1.0, 0.0, "benchmark", name)


def compared(method, study, truth, head):
    """PSNR with the chosen weight and the best of a sweep in half decades, and the weights."""
    recipe, solve, halves = METHODS[method]
    chosen = estimate_of(study, recipe, {})
    swept = {10 ** (half / 2): psnr(solve(study, 10 ** (half / 2)), truth, head) for half in halves}
    best = max(swept, key=swept.get)
    return psnr(chosen.volume, truth, head), swept[best], chosen.record["smoothness"]["weight"], best


def psnr(estimate, truth, head):
    return float(-10 * np.log10(np.mean((estimate - truth.data)[head].astype(np.float64) ** 2)))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("scans", nargs="*")
    parser.add_argument("--voxel-mm", type=float, default=6.0)
    parser.add_argument("--method", choices=METHODS, action="append")
    arguments = parser.parse_args()
    regrets = {method: [] for method in arguments.method or METHODS}
    print("| head | method | scans | factor | noise | chosen | dB | best | dB | regret |")
    print("|---|---|---:|---:|---:|---:|---:|---:|---:|---:|")
    for name, truth, head in heads(arguments.scans, arguments.voxel_mm):
        for method, count, factor, noise in product(regrets, VIEWS, FACTORS, NOISES):
            with redirect_stdout(None):  # the log of the choice
                study = measured(name, truth, head, factor, VIEWS[count], noise)
                chosen, best, weight, best_weight = compared(method, study, truth, head)
            regrets[method].append(best - chosen)
            numbers = f"{weight:.2g} | {chosen:.2f} | {best_weight:.2g} | {best:.2f} | {best - chosen:.2f}"
            print(f"| {name} | {method} | {count} | x{factor} | {noise:.0%} | {numbers} |", flush=True)
    for method, values in regrets.items():
        print(f"{method}: regret at most {max(values):.3f} dB, mean {np.mean(values):.3f}, of {len(values)} studies")


if __name__ == "__main__":
    main()
