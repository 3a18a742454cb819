"""The operator-aware network on a whole head at 1 mm: three scans of slices of 4 mm, painted from a label map.

Run: python benchmarks/gpu/inference.py INDEX WEIGHTS [--shape 192 256 256]

Without weights at WEIGHTS those of a network that was never trained are taken: it is as slow.
"""

import argparse
import time
from pathlib import Path

import torch
from measured import say
from training import read_recipe

from headsr.acquisition.measurement import Measurement, Study
from headsr.acquisition.operator import Acquisition
from headsr.devices import choose_device, generator_of
from headsr.files import read_json
from headsr.losses.pixel import psnr
from headsr.networks.build import build_network
from headsr.reconstruct.unrolled import refine
from headsr.simulate.store import open_anatomy
from headsr.training.data.anatomies import paint
from headsr.volumes import Grid
from headsr.weights import TrainedModel, load_model

FACTOR, NOISE, AT_ONCE = 4, 0.01, (None, 4_000_000)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("index", type=Path)
    parser.add_argument("weights", type=Path)
    parser.add_argument("--shape", type=int, nargs=3, default=(192, 256, 256))
    arguments = parser.parse_args()
    device = choose_device()
    model = model_of(arguments.weights, device)
    head, study = painted_study(arguments.index, tuple(arguments.shape), device)
    for at_once in AT_ONCE:
        measure(model, study, head, at_once)


def model_of(weights: Path, device: torch.device) -> TrainedModel:
    if weights.exists():
        say("weights", "as trained")
        return load_model(weights, device=device)
    recipe = read_recipe()
    say("weights", "random")
    network = build_network(recipe.network).to(device).eval().requires_grad_(False)
    return TrainedModel(recipe.kind, network, recipe.precision)


def painted_study(index: Path, shape: tuple[int, int, int], device: torch.device) -> tuple[torch.Tensor, Study]:
    """A head (X, Y, Z) of the validation split, and its axial, coronal and sagittal scans."""
    entry = next(one for one in read_json(index)["stores"] if one["split"] == "val")
    anatomy = open_anatomy(index.parent / entry["anatomy"])
    head, _ = paint(anatomy, shape, 1.0, seed=1, device=device, suffix="T1w", lesions="moderate")
    grid, scans = Grid(shape, torch.eye(4, dtype=torch.float64).numpy()), []
    for axis, view in enumerate(("sagittal", "coronal", "axial")):
        operator = Acquisition(grid, grid.thick(axis, FACTOR), axis=axis, device=device)
        clean = operator.forward(head)
        noise = torch.randn(clean.shape, generator=generator_of("inference", axis)).to(device)
        scans.append(Measurement(view, operator, clean + NOISE * noise, NOISE))
    return head, Study(grid, tuple(scans), 1.0, 0.0, "thick", "painted")


def measure(model: TrainedModel, study: Study, head: torch.Tensor, at_once: int | None) -> None:
    """The second of two runs: kernels are chosen in the first."""
    how, device = "whole" if at_once is None else f"{at_once} voxels at once", head.device
    refine(study, model, at_once=at_once)
    if device.type == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
    begun = time.perf_counter()
    volume = refine(study, model, at_once=at_once).volume[0, 0]
    quality = psnr(volume[None, None], head[None, None])  # read from the device: it has finished
    say(f"{tuple(head.shape)} voxels, {how}", round(time.perf_counter() - begun, 3), "s")
    say(f"PSNR, {how}", round(float(quality), 2), "dB")
    if device.type == "cuda":
        say(f"peak memory, {how}", round(torch.cuda.max_memory_allocated() / 2**30, 2), "GiB")


if __name__ == "__main__":
    main()
