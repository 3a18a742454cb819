"""2-D networks beside the best classical method, on real heads that no training saw.

Run: python benchmarks/slice_networks.py SCANS --cache FILE [--model NAME=WEIGHTS ...] [--encoder WEIGHTS]
     [--only in_plane ...] [--figure DIR]

SCANS is a BIDS folder that holds HEADS; crops, simulated scans, projection and PSNR are those of benchmarks/unrolled.
Least squares is measured at every one of WEIGHTS and counts with the best of them, head by head, by the truth itself:
no network is given as much. What the classical methods reach is kept in the cache file by row. Names of models are of
config/models; one for coarse slices is measured on these alone, one for thick slices on thick ones. Sharpness is the
share of the truth's gradients (1: as sharp); KID compares the features that an encoder (weights of a slice encoder) has
of all heads' slices with those of the truths'.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from unrolled import Row, draw, made, measured, truth_of

from headsr.evaluate.features import embedded
from headsr.evaluate.metrics.comparison import Comparison
from headsr.evaluate.metrics.edges import sharpness
from headsr.evaluate.metrics.sets import kid
from headsr.evaluate.metrics.voxels import psnr
from headsr.files import read_json, write_json
from headsr.recipes import SliceNetwork, Spline, Tikhonov, load_config, load_recipes
from headsr.weights import load_model

HEADS = ("sub-chris_T1w", "sub-seg3d_T1w", "sub-m2208_T2w")  # the last in a contrast that no training saw
KINDS = {"in_plane": "in_plane", "thick": "edge_on"}  # the slices that the networks for them were trained on
FACTOR, NOISES = 4, (0, 1, 3)
WEIGHTS = tuple(float(weight) for weight in np.geomspace(1e-4, 0.3, 15))
CLASSICAL = ("spline", "least squares")
PLANES = {"in_plane": (2,), "thick": (0, 1)}  # the axes across the slices whose features are compared
FIGURE_NOISE = 1


def rows():
    """Every head under every degradation."""
    for kind in KINDS:
        for percent in NOISES:
            yield from (Row(kind, FACTOR, percent, head) for head in HEADS)


def scores(row, volume, truth, inside):
    """PSNR in dB inside the head and sharpness along the coarse axes, the worst of them."""
    spacings = (FACTOR, FACTOR, 1.0) if row.kind == "in_plane" else (1.0, 1.0, FACTOR)
    voxel_mm = tuple(truth.grid.voxel_size.tolist())
    comparison = Comparison(volume, truth.data, inside, 1.0, voxel_mm, spacings=tuple(map(float, spacings)))
    return {"psnr": psnr(comparison), "sharpness": sharpness(comparison)}


def classical(row, folder):
    """What the spline reaches, and least squares with the best of its weights."""
    truth, head, inside = truth_of(folder, row.head)
    study = measured(row, truth, head)
    found = {"spline": scores(row, made(study, Spline())[0], truth, inside)}
    tried = {
        weight: scores(row, made(study, Tikhonov(weight=weight, iterations=30))[0], truth, inside) for weight in WEIGHTS
    }
    best = max(tried, key=lambda weight: tried[weight]["psnr"])
    return found | {"least squares": tried[best] | {"weight": best}}


def volumes_of(row, folder, methods, models):
    """The volumes of a row by name, projected; the truth and where it is scored."""
    truth, head, inside = truth_of(folder, row.head)
    study = measured(row, truth, head)
    return {name: made(study, method, models)[0] for name, method in methods.items()}, truth, inside


class Cache:
    """What the classical methods reach, by row, in a file that each new row is written to at once."""

    def __init__(self, path):
        self.path = Path(path)
        self.rows = read_json(self.path) if self.path.exists() else {}

    def of(self, row, folder):
        if row.name not in self.rows:
            self.rows[row.name] = classical(row, folder)
            write_json(self.path, self.rows)
        return self.rows[row.name]


def features_of(encoder, volume, inside, axes):
    """The features of the slices that show head, across some axes."""
    parts = []
    for axis in axes:
        shown = np.moveaxis(inside, axis, 0).mean(axis=(1, 2)) >= 0.05
        slices = np.ascontiguousarray(np.moveaxis(volume, axis, 0)[shown], dtype=np.float32)
        parts.append(embedded(encoder, slices, torch.device("cpu")))
    return torch.cat(parts)


class Sets:
    """The features of all heads' slices, by degradation and by what made them."""

    def __init__(self, encoder):
        self.encoder, self.features = encoder, {}

    def add(self, row, name, volume, inside):
        found = features_of(self.encoder, volume, inside, PLANES[row.kind]).numpy()
        self.features.setdefault(row.degradation, {}).setdefault(name, []).append(found)

    def lines(self):
        yield "| scans | of | KID x 1000 | standard error | slices |\n|---|---|---:|---:|---:|"
        for degradation, by_name in self.features.items():
            sets = {name: np.concatenate(parts) for name, parts in by_name.items()}
            for name in (name for name in sets if name != "truth"):
                distance = kid(sets[name], sets["truth"])
                numbers = [f"{1000 * distance.value:.3f}", f"{1000 * distance.error:.3f}", str(distance.n)]
                yield f"| {' | '.join([degradation, name, *numbers])} |"


def better(found):
    return max(found[name]["psnr"] for name in CLASSICAL)


def table(results, measure, decimals):
    """One line a row: a measure of every method; of PSNR also by how much the best network is above the classical."""
    names = list(dict.fromkeys(name for found in results.values() for name in found))
    yield f"| scans | head | {' | '.join(names)} |\n|---|---|{'---:|' * len(names)}"
    for row, found in results.items():
        cells = [f"{found[name][measure]:.{decimals}f}" if name in found else "" for name in names]
        yield f"| {' | '.join([row.degradation, row.head, *cells])} |"


def gains(results):
    """By how much every network is above the better classical method, each head and noise, and the mean of T1w."""
    names = list(dict.fromkeys(n for found in results.values() for n in found if n not in CLASSICAL))
    yield f"| over the better classical method | {' | '.join(HEADS)} | mean of T1w |\n|---|---:|---:|---:|---:|"
    for kind in KINDS:
        for percent in NOISES:
            for name in names:
                of = {row.head: found for row, found in results.items() if (row.kind, row.percent) == (kind, percent)}
                gain = {head: found[name]["psnr"] - better(found) for head, found in of.items() if name in found}
                if gain:
                    t1w = [value for head, value in gain.items() if head.endswith("T1w")]
                    cells = [f"{gain[head]:+.2f}" if head in gain else "" for head in HEADS]
                    yield f"| {kind} x{FACTOR}, {percent} %: {name} | {' | '.join(cells)} | {np.mean(t1w):+.2f} |"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scans", nargs="?", help="BIDS folder that holds the heads")
    parser.add_argument("--cache", help="JSON file that keeps what the classical methods reach")
    parser.add_argument("--model", action="append", default=[], help="NAME=WEIGHTS of a network of config/models")
    parser.add_argument("--encoder", help="weights of a slice encoder, for KID")
    parser.add_argument("--only", nargs="+", default=[""], help="rows whose name has one of these in it: scans/head")
    parser.add_argument("--figure", help="folder for a picture of every head and kind")
    arguments = parser.parse_args()
    if arguments.scans is None or arguments.cache is None:
        print("Nothing measured: name a folder of scans and a cache file")
        return
    recipes = load_recipes(load_config([]))
    models = {name: load_model(path) for name, path in (pair.split("=", 1) for pair in arguments.model)}
    sets = Sets(load_model(arguments.encoder).module) if arguments.encoder else None
    cache, results = Cache(arguments.cache), {}
    for row in rows():
        if not any(part in row.name for part in arguments.only):
            continue
        of_kind = {
            name: SliceNetwork(model=name) for name in models if recipes.models[name].data.view == KINDS[row.kind]
        }
        found = dict(cache.of(row, arguments.scans))
        shown = {"spline": Spline(), "least squares": Tikhonov(weight=found["least squares"]["weight"], iterations=30)}
        volumes, truth, inside = volumes_of(row, arguments.scans, (shown if sets else {}) | of_kind, models)
        found |= {name: scores(row, volumes[name], truth, inside) for name in of_kind}
        if sets:
            for name, volume in {"truth": truth.data, **volumes}.items():
                sets.add(row, name, volume, inside)
        results[row] = found
        print(row.name, *(f"{name} {one['psnr']:.2f}" for name, one in found.items()), flush=True)
        if arguments.figure and row.percent == FIGURE_NOISE:
            draw(Path(arguments.figure, f"{row.kind}_{row.head}.png"), row, arguments.scans, shown | of_kind, models)
    print("", "PSNR, dB", *table(results, "psnr", 2), sep="\n")
    print("", "Sharpness", *table(results, "sharpness", 3), "", *gains(results), sep="\n")
    if sets:
        print("", *sets.lines(), sep="\n")


if __name__ == "__main__":
    main()
