"""Whether an unrolled network knows how far off it is, and what becomes of lesions: on painted heads, the truth known.

Run: python benchmarks/unrolled_simulated.py INDEX --weights FILE [--studies 40] [--heads 8]

INDEX lists anatomies (rule list_anatomies: results/models/unrolled/training.json); heads of those of split val are
painted, in shapes, contrasts and lesions that neither training nor calibration drew. Intervals: studies as in training,
blocks of 64 voxels. Lesions: heads of 1 mm, 112 x 112 x 96 voxels, thick scans x4 with 1 % of noise (one, or three
orthogonal ones), projected as published, and the same heads without lesions, scanned with the same noise.
"""

import argparse
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from scipy import ndimage
from scipy.stats import spearmanr
from unrolled import METHODS, made, networks

from headsr.acquisition.measurement import Measurement, Study
from headsr.degrade.lowres import stack_operator
from headsr.degrade.noise import add_rician, white_noise
from headsr.files import read_json
from headsr.recipes import ModelRecipe, Stack, build, load_config, load_recipes, merged, plain
from headsr.seeds import seed_of
from headsr.simulate.store import open_anatomy
from headsr.training.data.anatomies import paint
from headsr.training.data.studies import StudySampler
from headsr.volumes import AXES, Grid
from headsr.weights import load_model

CPU = torch.device("cpu")
BLOCK = (64, 64, 64)
EDGE = 0.9  # edges: the steepest tenth of a block's voxels
SHAPE, FACTOR, NOISE, MARGIN = (112, 112, 96), 4, 0.01, 8
SUFFIXES, DEGREES = ("T1w", "T2w", "FLAIR"), ("none", "mild", "moderate", "severe")
LEAST_VOXELS, LEAST_CONTRAST, RING = 14, 0.05, 3  # of a lesion that is scored; 3 mm across, visible, its ring in mm
SIZES = ((0, 1), (1, 2), (2, 4), (4, math.inf))  # how far lesions extend along z, in slices
COMPARED = {name: METHODS[name] for name in ("spline", "tikhonov")}


@dataclass(frozen=True, eq=False)
class Errors:
    """Voxels of some studies: logarithm of the predicted spread, size of the error, half of the interval, and where."""

    anatomy: str
    log_spread: torch.Tensor
    error: torch.Tensor
    half: torch.Tensor
    head: torch.Tensor
    edge: torch.Tensor
    lesion: torch.Tensor


@torch.no_grad()
def errors_of(index, model, studies) -> Iterator[Errors]:
    """What the network makes of studies as in training, of a seed of their own."""
    recipe = load_recipes(load_config([])).models["unrolled"]
    changes = {"data": {"block": list(BLOCK)}, "budget": {"batch": 1}, "seed": seed_of("held out") % 2**31}
    recipe = build(ModelRecipe, merged(plain(recipe), changes), "unrolled")
    sampler = StudySampler(recipe, index, split="val", blind=None, device=CPU)
    for step in range(studies):
        painted, batch = sampler.sampler.draw(step, 0), sampler.batch(step)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=model.precision == "bf16"):
            refined = model.module(batch.evidence)
        truth = batch.heads[0, 0]
        slope = sum(part.square() for part in torch.gradient(truth)).sqrt()
        yield Errors(
            painted.name,
            refined.log_spread.flatten(),
            (refined.volume - batch.heads).abs().flatten(),
            model.module.half_interval(refined.log_spread).flatten(),
            (truth > 0.05).flatten(),
            (slope > slope.flatten().quantile(EDGE)).flatten(),
            (painted.lesions > 0.5).flatten(),
        )


def together(parts: list[Errors]) -> Errors:
    fields = ("log_spread", "error", "half", "head", "edge", "lesion")
    return Errors("", *(torch.cat([getattr(part, field) for part in parts]) for field in fields))


def coverage(held: torch.Tensor) -> str:
    return f"{held.float().mean():.1%}" if len(held) else "none"


def print_intervals(found: list[Errors], module) -> None:
    """Coverage everywhere, where it is hard and by predicted spread; and of intervals calibrated on other anatomies."""
    whole = together(found)
    held = whole.error <= whole.half
    print("| where | voxels | errors in their intervals for 90 % |\n|---|---:|---:|")
    places = {"everywhere": torch.ones_like(held), "head": whole.head, "edges": whole.edge, "lesions": whole.lesion}
    for name, mask in places.items():
        print(f"| {name} | {int(mask.sum())} | {coverage(held[mask])} |")
    order = whole.log_spread.argsort()
    tenths = [coverage(held[tenth]) for tenth in order.tensor_split(10)]
    print(f"\nby tenths of the predicted spread: {', '.join(tenths)}")
    by_study = [100 * float((one.error <= one.half).float().mean()) for one in found]
    print(f"by study: {min(by_study):.0f} to {max(by_study):.0f} %, median {np.median(by_study):.0f} %")
    some = np.random.default_rng(seed_of("voxels")).integers(len(held), size=200_000)
    ranks = {name: spearmanr(whole.log_spread[some][mask[some]], whole.error[some][mask[some]]).statistic
             for name, mask in places.items() if name != "lesions"}  # fmt: skip
    print("rank correlation of predicted spread and error:", ", ".join(f"{k} {v:.2f}" for k, v in ranks.items()))
    for name in sorted({one.anatomy for one in found}):
        own, other = ([one for one in found if (one.anatomy == name) is same] for same in (True, False))
        if own and other:
            learned, measured = together(other), together(own)
            module.calibrate(learned.log_spread, learned.error)
            holds = measured.error <= module.half_interval(measured.log_spread)
            print(f"calibrated on the other anatomies alone, {name} ({len(own)} studies): {coverage(holds)}")


def scanned(truth: np.ndarray, views: tuple[str, ...], name: str) -> Study:
    """Thick scans of a head; of the same name, the same noise."""
    grid, scans = Grid(truth.shape, np.eye(4)), []
    for view in views:
        operator = stack_operator(grid, Stack(view, FACTOR))
        data = operator.forward(torch.from_numpy(truth))
        noise = white_noise([seed_of("lesions", name, view)], tuple(data.shape), "cpu")
        data = add_rician(data[None], NOISE * noise)[0]
        seen = operator.forward(torch.from_numpy((truth > 0.05).astype(np.float32))) >= 0.5
        scans.append(Measurement(view, operator, data, NOISE, seen))
    return Study(grid, tuple(scans), 1.0, 0.0, f"x{FACTOR}", name)


@dataclass(frozen=True)
class Lesion:
    """One lesion by one method: contrasts against its ring, what the widened region gained over the head without it,
    and how far that head is off in its place, in deviations of the truth there. ``slices`` it extends along z."""

    degree: str
    suffix: str
    slices: float
    truth: float
    thick: float
    made: float
    gained: float
    gained_truth: float
    empty: float


def lesions_of(heads: dict, volumes: dict, part: np.ndarray, thick: dict, degree: str, suffix: str) -> Iterator[Lesion]:
    """The lesions of a head that are large, visible and away from its faces."""
    labels, _ = ndimage.label(part > 0.5, np.ones((3, 3, 3)))
    for label, box in enumerate(ndimage.find_objects(labels), start=1):
        if any(edge.start < MARGIN or edge.stop > n - MARGIN for edge, n in zip(box, part.shape, strict=True)):
            continue
        wide = tuple(slice(edge.start - MARGIN, edge.stop + MARGIN) for edge in box)
        lesion = labels[wide] == label
        ring = (ndimage.distance_transform_edt(~lesion) <= RING) & (labels[wide] == 0)
        if lesion.sum() < LEAST_VOXELS or not ring.any():
            continue

        def contrast(volume, wide=wide, lesion=lesion, ring=ring):
            return float(volume[wide][lesion].mean() - volume[wide][ring].mean())

        truth = contrast(heads["ill"])
        if abs(truth) < LEAST_CONTRAST:
            continue
        widened = ndimage.binary_dilation(lesion, np.ones((1, 1, 2 * FACTOR + 1)))
        gained = {
            name: float((pair["ill"][wide] - pair["well"][wide])[widened].sum())
            for name, pair in (("truth", heads), ("made", volumes))
        }
        healthy = heads["well"][wide][lesion]
        off = float((volumes["well"][wide][lesion] - healthy).mean()) / max(float(healthy.std()), 1e-6)
        yield Lesion(
            degree, suffix, (box[2].stop - box[2].start) / FACTOR, truth, contrast(thick["ill"]),
            contrast(volumes["ill"]), gained["made"], gained["truth"], off,
        )  # fmt: skip


def all_lesions(index, methods, models, heads, views) -> dict[str, list[Lesion]]:
    """The lesions of heads of every contrast and degree, by method."""
    entries = [entry for entry in read_json(index)["stores"] if entry["split"] == "val"]
    found = {name: [] for name in methods}
    for number in range(heads):
        anatomy = open_anatomy(Path(index).parent / entries[number % len(entries)]["anatomy"])
        for suffix in SUFFIXES:
            seed, name = seed_of("lesions", number, suffix), f"{number} {suffix}"
            painted = {d: paint(anatomy, SHAPE, 1.0, seed=seed, device=CPU, suffix=suffix, lesions=d) for d in DEGREES}
            made_of = {
                degree: {
                    method: made(scanned(block.numpy(), views, name), recipe, models)[0]
                    for method, recipe in methods.items()
                }
                for degree, (block, _) in painted.items()
            }
            for degree in DEGREES[1:]:
                truths = {"ill": painted[degree][0].numpy(), "well": painted["none"][0].numpy()}
                pairs = {m: {"ill": made_of[degree][m], "well": made_of["none"][m]} for m in methods}
                for method in methods:
                    part = painted[degree][1].numpy()
                    found[method] += lesions_of(truths, pairs[method], part, pairs["spline"], degree, suffix)
    return found


def print_lesions(found: dict[str, list[Lesion]]) -> None:
    print("| lesions | number | method | contrast kept | of what the spline lost, regained | mean contrast within 10 % "
          "| integrated contrast | within 10 % | empty: within 2 deviations |")  # fmt: skip
    print("|---|---:|---|---:|---:|---:|---:|---:|---:|")
    groups = {f"{d}": lambda one, d=d: one.degree == d for d in DEGREES[1:]}
    groups |= {f"{s}": lambda one, s=s: one.suffix == s for s in SUFFIXES}
    groups |= {
        f"{low:g} to {high:g} slices" if high < math.inf else f"{low:g} slices and more": lambda one, a=low, b=high: (
            a <= one.slices < b
        )
        for low, high in SIZES
    }
    groups["all"] = lambda one: True
    for group, belongs in groups.items():
        for method, lesions in found.items():
            if some := [one for one in lesions if belongs(one)]:
                print(lesion_line(group, method, some))


def lesion_line(group: str, method: str, some: list[Lesion]) -> str:
    sign = np.sign([one.truth for one in some])
    truth, thick, made_ = (np.array([getattr(one, of) for one in some]) * sign for of in ("truth", "thick", "made"))
    gained, there = (np.array([getattr(one, of) for one in some]) for of in ("gained", "gained_truth"))
    lost = (truth - thick).sum()
    regained = (made_ - thick).sum() / lost if abs(lost) > 1e-6 else math.nan
    sums = np.abs(there) > 1e-6
    whole = gained[sums] / there[sums]
    empty = np.mean([abs(one.empty) <= 2 for one in some])
    near = np.mean(np.abs(made_ / truth - 1) <= 0.1)
    return (
        f"| {group} | {len(some)} | {method} | {made_.sum() / truth.sum():.2f} | {regained:.2f} | {near:.0%} "
        f"| {gained.sum() / there.sum():.3f} | {np.mean(np.abs(whole - 1) <= 0.1):.0%} | {empty:.0%} |"
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("index", nargs="?", help="list of anatomies")
    parser.add_argument("--weights", help="of the network")
    parser.add_argument("--studies", type=int, default=40, help="for the intervals; 0 leaves them out")
    parser.add_argument(
        "--heads", type=int, default=8, help="for the lesions, each in every contrast; 0 leaves them out"
    )
    arguments = parser.parse_args()
    if arguments.index is None or arguments.weights is None:
        print("Nothing measured: name a list of anatomies and weights")
        return
    if arguments.studies:
        model = load_model(arguments.weights)
        print_intervals(list(errors_of(arguments.index, model, arguments.studies)), model.module)
        print()
    if arguments.heads:
        learned, models = networks(network=arguments.weights)
        for title, views in (("one thick axial scan", ("axial",)), ("three orthogonal scans", tuple(AXES))):
            print(f"\n{title} x{FACTOR}, {NOISE:.0%} of noise\n")
            print_lesions(all_lesions(arguments.index, COMPARED | learned, models, arguments.heads, views))


if __name__ == "__main__":
    main()
