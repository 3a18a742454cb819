"""headsr's autoencoder beside diffusers' of equal size and steps, and beside block PCA of equal rate.

Run: python benchmarks/autoencoders.py INDEX --scans SCANS --labelmaps FOLDER --results FOLDER [--steps 3000]
     [--model NAME=WEIGHTS ...]

Both are trained by the committed recipe at the size of SMALL, on slices painted from the anatomies that INDEX lists,
and kept in the folder of results with the simulated heads; what was stopped goes on. diffusers' is as wide as comes
nearest to the parameters of headsr's. Other weights are measured beside them with --model.

PSNR of reconstructions in dB (peak 1.0), inside the head, over slices in three planes: of heads simulated without noise
from the label maps in FOLDER that no training sees, and of real heads (benchmarks/slice_networks.py, whose crops they
are). A real slice has noise, and as many numbers as a code has hold that part of it at most: the rest of the noise that
is measured in the scan is the ceiling. A tile is cut from the middle of simulated slices and compared with the whole
slice as far from its edges as EDGE. Time is of the processor, for one slice there and back, in turns.
"""

import argparse
import bisect
import math
import statistics
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from slice_networks import HEADS
from torch import nn
from unrolled import truth_of

from headsr.acquisition.noise import estimate_noise
from headsr.devices import choose_device
from headsr.files import read_json, write_json
from headsr.networks.autoencoder import decode, encode
from headsr.networks.build import build_network
from headsr.preprocess.outline import head_of
from headsr.recipes import ModelRecipe, build, load_config, load_recipes, merged, plain
from headsr.seeds import seed_of
from headsr.simulate.head import simulate_head
from headsr.simulate.labelmap import load_label_map
from headsr.simulate.labels import find_label_maps
from headsr.training.chain import Sources, export_model, fingerprint_of, train_segment
from headsr.training.data.slices import SlicePairs
from headsr.volumes import Volume, load_volume, save_volume
from headsr.weights import load_model

RECIPE = "kl_f4"
SMALL = {
    "network": {"channels": [32, 64, 128], "blocks": 1, "latent_channels": 8},
    "data": {"source": "labels", "datasets": ["synthseg"], "crop": 64, "visits": 4},
    "budget": {"batch": 8, "segments": 1},
    "optimizer": {"learning_rate": 7e-4},
    "schedule": {"warm_up": 100},
    "ema_decay": 0.998,
}
FACTOR = 4
PCA_BATCHES, PCA_BATCH = 32, 32  # of training crops, behind the principal components
EVERY = {"simulated": 12, "real": 6}  # slices of a head: every so many of each plane
SHOWN = 0.25  # of a slice is head at least
TILE, EDGE = 160, 72  # beyond which no layer of headsr's sees, of the committed recipe either
ROUNDS = 5


@dataclass(frozen=True)
class Head:
    """Slices (N, 1, H, W) of one plane each, where they are head, and the noise of the scan that they are of."""

    name: str
    slices: list[torch.Tensor]
    inside: list[torch.Tensor]
    noise: float


class BlockPca(nn.Module):
    """The best linear code of blocks of FACTOR x FACTOR pixels in ``kept`` numbers, measured on slices."""

    def __init__(self, batches, kept):
        super().__init__()
        blocks = torch.cat([self._blocks(images) for images in batches]).double()
        mean = blocks.mean(dim=0)
        _, vectors = torch.linalg.eigh((blocks - mean).mT @ (blocks - mean))
        self.mean, self.patterns = (nn.Parameter(found, requires_grad=False) for found in (mean, vectors[:, -kept:]))

    @staticmethod
    def _blocks(images):
        return F.pixel_unshuffle(images, FACTOR).permute(0, 2, 3, 1).reshape(-1, FACTOR**2)

    def forward(self, images):
        blocks = self._blocks(images).double() - self.mean
        again = blocks @ self.patterns @ self.patterns.mT + self.mean
        height, width = (size // FACTOR for size in images.shape[-2:])
        again = again.view(len(images), height, width, -1).permute(0, 3, 1, 2).to(images.dtype)
        return F.pixel_shuffle(again, FACTOR)


class Through(nn.Module):
    """Slices through the latents of an autoencoder."""

    def __init__(self, autoencoder):
        super().__init__()
        self.autoencoder = autoencoder

    def forward(self, images):
        return decode(self.autoencoder, encode(self.autoencoder, images))


def numbers(module):
    return sum(parameter.numel() for parameter in module.parameters())


def networks():
    """The ``network`` blocks that are compared; diffusers' widths are those that come nearest in size."""
    ours, levels = {"architecture": "kl", **SMALL["network"]}, len(SMALL["network"]["channels"])

    def of_width(width):
        return {**ours, "architecture": "diffusers_kl", "channels": [width * 2**level for level in range(levels)]}

    with torch.device("meta"):
        wanted, widths = numbers(build_network(ours)), range(4, 1024, 4)
        above = bisect.bisect_left(widths, wanted, key=lambda width: numbers(build_network(of_width(width))))
        near = {width: numbers(build_network(of_width(width))) for width in widths[max(0, above - 1) : above + 1]}
    return {"headsr": ours, "diffusers": of_width(min(near, key=lambda width: abs(near[width] - wanted)))}


def recipe_of(network, steps):
    """The committed recipe at the size of the benchmark, for one of the networks."""
    committed = plain(load_recipes(load_config([])).models[RECIPE])
    block = merged({**committed, "network": network}, {**SMALL, "network": {}})
    return build(ModelRecipe, merged(block, {"budget": {"steps": steps}}), RECIPE)


def trained(recipe, blind, index, folder):
    """The weights of an autoencoder in a folder; trained where they are not there, on from where that was stopped."""
    state, history = folder / "state.safetensors", folder / "segment.jsonl"
    weights = folder / "weights.safetensors"
    if not weights.exists():
        sources = Sources(Path(index), [], blind, {"train_segment": 1})
        places = {"previous": None, "state": state, "history": history, "scratch": folder}
        folder.mkdir(parents=True, exist_ok=True)
        if not state.exists():
            train_segment(recipe, sources, segment=0, course=recipe.course(0), **places)
        files = {"weights": weights, "history": folder / "history.jsonl", "recipe_copy": folder / "recipe.yaml"}
        export_model(recipe, state, companions=[], histories=[history], datasets={}, citation="", **files)
    return weights


def held_out(index, labelmaps):
    """The label maps of the anatomies that no training sees, with their tables, by name."""
    names = [entry["name"] for entry in read_json(index)["stores"] if entry["split"] == "val"]
    maps = {path.name.split("_")[0]: (path, table) for path, table in find_label_maps(labelmaps)}
    if missing := [name for name in names if name not in maps]:
        raise SystemExit(f"{labelmaps}: has no label map of {missing[0]}, which {index} holds out")
    return {name: maps[name] for name in names}


def simulated(name, dseg, table, folder):
    """A T1w head without noise, brightest at 1, and where it is head; kept in a folder."""
    path = folder / f"{name}.nii.gz"
    if not path.exists():
        print(f"simulating {name}", flush=True)
        scan = simulate_head(
            load_label_map(dseg, table), suffix="T1w", voxel_mm=1.0, seed=seed_of("autoencoders", name), noise=0.0
        )
        save_volume(path, (scan.data / np.percentile(scan.data[head_of(scan)], 99.9)).astype(np.float32), scan.grid)
    volume = load_volume(path)
    return volume, head_of(volume)


def sliced(name, volume, inside, every, noise=0.0):
    """Every so many slices of each plane that show head, cut to whole blocks."""
    planes, masks = [], []
    for axis in range(3):
        stack, mask = (np.moveaxis(data, axis, 0)[every // 2 :: every] for data in (volume, inside))
        shown = mask.mean(axis=(1, 2)) >= SHOWN
        if shown.any():
            height, width = (size - size % FACTOR for size in stack.shape[1:])
            planes.append(torch.from_numpy(np.ascontiguousarray(stack[shown, None, :height, :width], np.float32)))
            masks.append(torch.from_numpy(np.ascontiguousarray(mask[shown, None, :height, :width])))
    return Head(name, planes, masks, noise)


def real(folder, name):
    """The slices of a real head, and the noise inside it."""
    truth, head, inside = truth_of(folder, name)
    return sliced(name, truth.data, inside, EVERY["real"], estimate_noise(Volume(truth.data, truth.grid), head))


@torch.no_grad()
def psnr_of(model, head):
    """PSNR in dB inside a head of all its slices together."""
    errors = [
        (torch.cat([model(batch) for batch in slices.split(8)]) - slices)[inside].double().square()
        for slices, inside in zip(head.slices, head.inside, strict=True)
    ]
    return -10 * math.log10(float(torch.cat(errors).mean()))


def ceiling(noise, rate):
    """PSNR in dB of what loses nothing but the noise that its numbers, a part ``rate`` of the pixels', cannot hold."""
    return -10 * math.log10((1 - rate) * noise**2) if noise > 0 else math.nan


@torch.no_grad()
def tile_error(model, head):
    """How far a tile's reconstruction is from the whole slice's, of the slices' deviation there: root mean square."""
    errors, values = [], []
    for slices in head.slices:
        for whole in slices.split(1):
            row, column = ((size - TILE) // 2 // FACTOR * FACTOR for size in whole.shape[-2:])
            if min(row, column) < 0:
                continue
            part = (..., slice(row, row + TILE), slice(column, column + TILE))
            middle = (..., slice(EDGE, TILE - EDGE), slice(EDGE, TILE - EDGE))
            errors.append((model(whole[part]) - model(whole)[part])[middle].flatten())
            values.append(whole[part][middle].flatten())
    return float(torch.cat(errors).square().mean().sqrt() / torch.cat(values).std()) if errors else math.nan


@torch.no_grad()
def seconds(models, image):
    """The time of every model for a slice, in turns."""
    rounds = {name: [] for name in models}
    for _ in range(ROUNDS):
        for name, model in models.items():
            start = time.process_time()
            model(image)
            rounds[name].append(time.process_time() - start)
    return {name: statistics.median(taken) for name, taken in rounds.items()}


def table(models, made_up, heads, rate):
    """One line a model, and the ceiling of the heads' own noise."""
    image = made_up[0].slices[-1][:1]
    size, taken = " x ".join(map(str, image.shape[-2:])), seconds(models, image)
    names = ["simulated, no noise", *(head.name for head in heads)]
    yield f"| code | parameters | ms, {size} | tile against whole | {' | '.join(names)} |"
    yield f"|---|{'---:|' * (3 + len(names))}"
    for name, model in models.items():
        whole = statistics.mean(psnr_of(model, head) for head in made_up)
        off = statistics.mean(tile_error(model, head) for head in made_up)
        found = [f"{value:.2f}" for value in (whole, *(psnr_of(model, head) for head in heads))]
        yield f"| {name} | {numbers(model):,} | {1000 * taken[name]:.0f} | {off:.1e} | {' | '.join(found)} |"
    limits = " | ".join(f"{ceiling(head.noise, rate):.2f}" for head in heads)
    yield f"| ceiling of the noise | | | | | {limits} |"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("index", nargs="?", help="list of anatomies")
    parser.add_argument("--scans", help="BIDS folder that holds the heads")
    parser.add_argument("--labelmaps", help="folder of the label maps that the anatomies are of")
    parser.add_argument("--results", help="folder that keeps the trainings and the simulated heads")
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--model", action="append", default=[], help="NAME=WEIGHTS of another autoencoder, f = 4")
    options = parser.parse_args()
    if None in (options.index, options.scans, options.labelmaps, options.results):
        print("Nothing measured: name a list of anatomies, scans, label maps and a folder for the results")
        return
    folder, device = Path(options.results), choose_device()
    setting = {"small": SMALL, "steps": options.steps, "index": fingerprint_of(read_json(options.index)["stores"])}
    if (folder / "setting.json").exists() and read_json(folder / "setting.json") != setting:
        raise SystemExit(f"{folder}: holds what was trained otherwise. Name another folder")
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "setting.json", setting)
    recipes = {name: recipe_of(network, options.steps) for name, network in networks().items()}
    blind = load_recipes(load_config([])).blind[recipes["headsr"].data.degradation]
    files = {name: trained(recipe, blind, options.index, folder / name) for name, recipe in recipes.items()}
    files |= dict(pair.split("=", 1) for pair in options.model)
    pairs = SlicePairs(recipes["headsr"], options.index, split="train", blind=blind, device=torch.device("cpu"))
    kept = SMALL["network"]["latent_channels"]
    models = {"block PCA": BlockPca([pairs.clean(step, PCA_BATCH) for step in range(PCA_BATCHES)], kept)}
    models |= {name: Through(load_model(weights).module) for name, weights in files.items()}
    made_up = [
        sliced(name, volume.data, inside, EVERY["simulated"])
        for name, pair in held_out(options.index, options.labelmaps).items()
        for volume, inside in [simulated(name, *pair, folder)]
    ]
    heads = [real(options.scans, name) for name in HEADS]
    print(f"trained on {device}, measured on a CPU with {torch.get_num_threads()} threads; {options.steps} steps", "")
    print(*table(models, made_up, heads, kept / FACTOR**2), sep="\n")


if __name__ == "__main__":
    main()
