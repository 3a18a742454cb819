"""What an unrolled network has to beat, and whether it does: on real heads that no training saw.

Run: python benchmarks/unrolled.py SCANS --cache FILE [--weights FILE] [--slices FILE] [--only orthogonal_x4 ...]
     [--traces] [--figure DIR]

SCANS is a BIDS folder that holds HEADS. Each is bias-corrected, has 1 at the 99.9th percentile inside the head, and is
cropped around the middle of the head: the crop is the truth. Its scans are simulated by the acquisition operator with
Rician noise drawn by the names. Volumes are those that would be published, projected; PSNR in dB inside the head, away
from the faces of the crop. What the classical methods reach is kept in the cache file by row; with --weights the
network is measured beside it, with --slices a 2-D one on the slices of the interpolated scans.
"""

import argparse
import math
import tempfile
import time
import warnings
from contextlib import redirect_stdout
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch

from headsr.acquisition.consistency import allowed
from headsr.acquisition.measurement import Measurement, Protocol, Study, save_measurement
from headsr.acquisition.operator import Acquisition
from headsr.degrade.lowres import stack_operator
from headsr.degrade.noise import add_rician, white_noise
from headsr.evaluate.figures import draw_figure
from headsr.evaluate.metrics.comparison import Comparison
from headsr.evaluate.metrics.seams import seam_ratio, stripe_peak
from headsr.evaluate.metrics.spectrum import fsc_resolution
from headsr.evaluate.metrics.voxels import psnr
from headsr.files import read_json, write_json
from headsr.preprocess.bias import bias_field_of
from headsr.preprocess.outline import head_of
from headsr.recipes import Average, SliceNetwork, Spline, Stack, Tikhonov, TotalVariation, Unrolled
from headsr.reconstruct.estimate import estimate_of
from headsr.reconstruct.projected import project_onto
from headsr.seeds import seed_of
from headsr.volumes import AXES, Grid, Volume, load_volume, save_volume
from headsr.weights import load_model

# Nearly isotropic scans of 0.9 to 1.6 mm. A 5.5 mm T2w (sub-fpg) is no truth of anything finer.
HEADS = ("sub-chris_T1w", "sub-seg3d_T1w", "sub-wide_T1w", "sub-gd_ce-gadolinium_T1w", "sub-m2208_T2w")
FLAT = "sub-wide_T2w"  # 1 x 1 x 2 mm: only axial slices have thin voxels in their plane
SIDE = 96  # voxels of a crop: whole slices at every factor
MARGIN = 6  # voxels at its faces that are not scored: slices of a turned scan reach beyond them
# The oblique row: the plane of the slices, the axis (x, y, z) that they are turned about, and by how many degrees.
TURNS = (("axial", 0, 15.0), ("coronal", 2, -12.0))
SPACING_MM, THICKNESS_MM = 5.0, 4.0

METHODS = {"spline": Spline(), "average": Average(), "tikhonov": Tikhonov(iterations=30), "tv": TotalVariation()}
LEARNED = {"slices": SliceNetwork(model="slices"), "network": Unrolled(model="network")}
TRACES = {"seam ratio": seam_ratio, "stripe peak": stripe_peak, "FSC mm": fsc_resolution}
FIGURE = ("orthogonal", 4, 1)


@dataclass(frozen=True)
class Row:
    """One head under one degradation. ``kind``: three orthogonal scans, one thick axial one, or two turned ones.

    ``flat``: one thick axial scan of a head whose voxels are flat. ``in_plane``: one axial scan whose rows and columns
    are coarse (benchmarks/slice_networks.py). ``factor`` in slices, 0 where the spacing is in mm.
    """

    kind: str
    factor: int
    percent: int  # of noise
    head: str

    @property
    def degradation(self):
        size = f"x{self.factor}_box" if self.factor else f"{SPACING_MM:g}mm_gap{SPACING_MM - THICKNESS_MM:g}mm"
        return f"{self.kind}_{size}_noise{self.percent}"

    @property
    def name(self):
        return f"{self.degradation}/{self.head}"

    @property
    def baselines(self):
        """The classical methods, without total variation of turned scans: many minutes, and no bar asks for it."""
        return {name: method for name, method in METHODS.items() if (self.kind, name) != ("oblique", "tv")}

    @property
    def views(self):
        return tuple(AXES) if self.kind == "orthogonal" else ("axial",)


@dataclass(frozen=True)
class Bar:
    """By how many dB the mean of some rows shall lie above another method; ``percent`` None: at every noise."""

    kind: str
    factor: int
    percent: int | None
    over: str
    decibels: float

    def holds(self, row):
        return (row.kind, row.factor) == (self.kind, self.factor) and self.percent in (None, row.percent)

    @property
    def words(self):
        noise = "" if self.percent is None else f", noise {self.percent} %"
        return f"{self.kind}{f' x{self.factor}' if self.factor else ''}{noise}: over {self.over}"


BARS = (
    Bar("orthogonal", 4, 0, "tikhonov", 1.5),
    Bar("orthogonal", 4, 1, "tikhonov", 1.0),
    Bar("orthogonal", 4, 3, "tikhonov", 0.5),
    Bar("thick", 4, None, "spline", 1.2),
    Bar("thick", 6, None, "spline", 0.8),
    Bar("oblique", 0, None, "tikhonov", 0.0),
)
FLOOR = -0.1  # against the better classical method, in every row


def rows():
    """What the bars are about comes first, head by head."""
    first = (("orthogonal", 4, (0, 1, 3)), ("thick", 4, (0, 1, 3)))
    second = (("thick", 6, (0, 1, 3)), ("oblique", 0, (1,)))
    third = (("orthogonal", 2, (0, 1, 3)), ("orthogonal", 6, (0, 1, 3)), ("thick", 2, (0, 1, 3)))
    groups = [(first, HEADS), (second, HEADS), (third, HEADS), ((("flat", 2, (0, 1)), ("flat", 4, (0, 1))), (FLAT,))]
    for kinds, heads in groups:
        for head in heads:
            yield from (Row(kind, factor, percent, head) for kind, factor, noises in kinds for percent in noises)


@cache
def truth_of(folder, head):
    """The crop of a head (a Volume), the head in it, and where that is scored (X, Y, Z; bool)."""
    path = Path(folder, head.split("_")[0], "anat", f"{head}.nii.gz")
    scan = load_volume(path)
    corrected = Volume(scan.data / bias_field_of(scan, name=str(path)), scan.grid)
    inside = head_of(corrected)
    data = corrected.data / np.percentile(corrected.data[inside], 99.9).astype(np.float32)
    return cropped(Volume(data, scan.grid), inside)


def cropped(volume, inside):
    """The crop around the middle of the head, the head in it, and the same without the faces of the crop."""
    shape = tuple(min(SIDE, n - n % 12) for n in volume.grid.shape)
    middle = np.argwhere(inside).mean(0) + 0.5
    start = tuple(np.clip(np.rint(middle - np.array(shape) / 2), 0, np.subtract(inside.shape, shape)).astype(int))
    box = tuple(slice(a, a + size) for a, size in zip(start, shape, strict=True))
    away = np.pad(np.ones(np.subtract(shape, 2 * MARGIN), dtype=bool), MARGIN)
    truth = Volume(np.ascontiguousarray(volume.data[box]), volume.grid.block(start, shape))
    return truth, inside[box], inside[box] & away


def operators_of(row, head):
    """The operator of every scan of a row, by its view."""
    if row.kind == "in_plane":
        return {"axial": stack_operator(head, Stack("axial", factors=(row.factor, row.factor, 1)))}
    if row.kind != "oblique":
        return {view: stack_operator(head, Stack(view, row.factor)) for view in row.views}
    return {view: turned_operator(head, view, about, degrees) for view, about, degrees in TURNS}


def turned_operator(head, view, about, degrees):
    """Slices with gaps, turned about an axis through the middle of the head's grid, which they cover whole."""
    axis, angle = AXES[view], np.deg2rad(degrees)
    around = math.ceil(max(head.shape) / 2 * abs(np.sin(angle)))
    voxel = head.voxel_size[axis]
    wide = head.block((-around,) * 3, tuple(n + 2 * around for n in head.shape))
    slices = wide.thick(axis, SPACING_MM / voxel, THICKNESS_MM / voxel)
    turn = np.eye(4)
    first, second = (i for i in range(3) if i != about)
    turn[[first, first, second, second], [first, second, first, second]] = (
        np.cos(angle), -np.sin(angle), np.sin(angle), np.cos(angle),
    )  # fmt: skip
    middle = head.corners.mean(0)
    turn[:3, 3] = middle - turn[:3, :3] @ middle
    scan = Grid(slices.shape, turn @ slices.affine)
    return Acquisition(head, scan, axis=axis, thickness=THICKNESS_MM)


def measured(row, truth, head):
    """The study of one row."""
    scans, noise = [], row.percent / 100
    for view, operator in operators_of(row, truth.grid).items():
        data = operator.forward(torch.as_tensor(truth.data))
        if noise > 0:
            seed = seed_of("unrolled", row.degradation, row.head, view)
            data = add_rician(data[None], noise * white_noise([seed], tuple(data.shape), "cpu"))[0]
        seen = operator.forward(torch.as_tensor(head, dtype=torch.float32)) >= 0.5
        scans.append(Measurement(view, operator, data, noise, seen))
    return Study(truth.grid, tuple(scans), 1.0, 0.0, row.degradation, row.head)


def made(study, method, models=None):
    """A method's volume as it would be published (X, Y, Z), its foretold uncertainty, and how its projection ended."""
    start = time.process_time()
    with redirect_stdout(None), warnings.catch_warnings(action="ignore"):  # the logs; the outcome says what was warned
        estimate = estimate_of(study, method, models or {})
        volume, projection = project_onto(estimate.volume, study)
    record = {"outcome": projection["outcome"], "seconds": time.process_time() - start}
    if "smoothness" in estimate.record:
        record["weight"] = estimate.record["smoothness"]["weight"]
    return volume, estimate.uncertainty, record


def scores(row, volume, truth, inside):
    """PSNR in dB and, where slices are parallel to the voxels', their traces along z (None: not defined)."""
    voxel_mm = tuple(truth.grid.voxel_size.tolist())
    comparison = Comparison(volume, truth.data, inside, 1.0, voxel_mm, spacings=(1.0, 1.0, float(row.factor or 1)))
    traces = {name: trace(comparison) for name, trace in TRACES.items()}
    return {"psnr": psnr(comparison)} | {name: None if math.isnan(v) else v for name, v in traces.items()}


def measure(row, folder, methods, models=None):
    """What every method reaches on one row: a record by its name."""
    truth, head, inside = truth_of(folder, row.head)
    study, found = measured(row, truth, head), {}
    for name, method in methods.items():
        volume, uncertainty, record = made(study, method, models)
        found[name] = record | scores(row, volume, truth, inside)
        if uncertainty is not None:
            found[name]["held"] = float((np.abs(volume - truth.data) <= uncertainty)[inside].mean())
    return found


class Baselines:
    """What the classical methods reach, by row and method, in a file that each new row is written to at once."""

    def __init__(self, path):
        self.path, self.setting = Path(path), {"side": SIDE, "margin": MARGIN, "turns": [list(turn) for turn in TURNS]}
        stored = read_json(path) if self.path.exists() else {"setting": self.setting, "rows": {}}
        if stored["setting"] != self.setting:
            raise SystemExit(f"{path}: was made with {stored['setting']}, not {self.setting}. Name another file")
        self.rows = stored["rows"]

    def of(self, row, folder, without=()):
        """The records of a row; methods that are missing are measured first, all but those ``without``."""
        known = self.rows.setdefault(row.name, {})
        missing = {name: row.baselines[name] for name in row.baselines if name not in {*known, *without}}
        if missing:
            known |= measure(row, folder, missing)
            write_json(self.path, {"setting": self.setting, "rows": self.rows})
        return {name: known[name] for name in METHODS if name in known}


def better(found):
    """The PSNR of the better of Tikhonov and TV, of those that were measured."""
    return max(found[name]["psnr"] for name in ("tikhonov", "tv") if name in found)


def gain(found, over):
    return found["network"]["psnr"] - found[over]["psnr"]


HEADER = """\
| scans | head | spline | average | Tikhonov | TV | 2-D | network | over spline | over the better | outcomes | s |
|---|---|---:|---:|---:|---:|---:|---:|---:|---:|---|---|"""


def line(row, found):
    """One line of the table: PSNR of every method, gains of the network over two of them, how projections ended."""
    decibels = [f"{found[name]['psnr']:.2f}" if name in found else "" for name in (*METHODS, *LEARNED)]
    gains = ["", ""]
    if "network" in found:
        gains = [f"{gain(found, 'spline'):+.2f}", f"{found['network']['psnr'] - better(found):+.2f}"]
    outcomes = ", ".join(record["outcome"] for record in found.values())
    seconds = ", ".join(f"{record['seconds']:.0f}" for record in found.values())
    return f"| {' | '.join([row.degradation, row.head, *decibels, *gains, outcomes, seconds])} |"


def trace_lines(row, found):
    """One line for every method of a row: what its slices left along z."""
    for name, record in found.items():
        numbers = ["" if record[trace] is None else f"{record[trace]:.2f}" for trace in TRACES]
        yield f"| {' | '.join([row.degradation, row.head, name, *numbers])} |"


def means(results):
    """Mean PSNR of every method over the heads of each degradation."""
    groups = {}
    for row, found in results.items():
        groups.setdefault(row.degradation, []).append(found)
    yield f"| scans | heads | {' | '.join([*METHODS, *LEARNED])} |\n|---|---:|{'---:|' * len([*METHODS, *LEARNED])}"
    for degradation, group in groups.items():
        cells = [
            f"{np.mean([found[name]['psnr'] for found in group]):.2f}" if all(name in found for found in group) else ""
            for name in (*METHODS, *LEARNED)
        ]
        yield f"| {degradation} | {len(group)} | {' | '.join(cells)} |"


def verdicts(results):
    """Whether the network's mean gains reach the bars, and its least over the better classical method the floor."""
    networked = {row: found for row, found in results.items() if "network" in found}
    yield "| bar | dB | rows | mean | least | |\n|---|---:|---:|---:|---:|---|"
    for bar in BARS:
        gains = [gain(found, bar.over) for row, found in networked.items() if bar.holds(row)]
        yield verdict(bar.words, bar.decibels, gains, np.mean)
    gains = [found["network"]["psnr"] - better(found) for found in networked.values()]
    yield verdict("every row: over the better of Tikhonov and, where measured, TV", FLOOR, gains, min)


def intervals(results):
    """How much of the errors the intervals hold that are to hold 90 % of them."""
    held = [found["network"]["held"] for found in results.values() if "network" in found]
    if held:
        yield f"Intervals for 90 % of the errors hold {np.mean(held):.1%} ({min(held):.1%} to {max(held):.1%} by row)"


def verdict(words, decibels, gains, of):
    if not gains:
        return f"| {words} | {decibels:+.1f} | 0 | | | not measured |"
    reached = "reached" if of(gains) >= decibels else "MISSED"
    return f"| {words} | {decibels:+.1f} | {len(gains)} | {np.mean(gains):+.2f} | {min(gains):+.2f} | {reached} |"


def draw(output, row, folder, methods, models):
    """The picture of one head as the product draws it, from files as it writes them."""
    truth, head, inside = truth_of(folder, row.head)
    study = measured(row, truth, head)
    with tempfile.TemporaryDirectory(prefix="headsr-unrolled-") as place:
        place = Path(place)
        save_volume(place / "truth.nii.gz", truth.data, truth.grid)
        save_volume(place / "head.nii.gz", inside.astype(np.uint8), truth.grid)
        lowres = [save_scan(place, scan, study) for scan in study.scans]
        volumes, checks = {}, {}
        for name, method in methods.items():
            volume, _, _ = made(study, method, models)
            volumes[name], checks[name] = save_estimate(place, name, volume, study)
        draw_figure(
            output,
            lowres=lowres,
            volumes=volumes,
            checks=checks,
            truth=place / "truth.nii.gz",
            head_mask=place / "head.nii.gz",
            brain_mask=place / "head.nii.gz",
            suffix=row.head.rsplit("_", 1)[1],
            title=row.name,
        )


def save_scan(place, scan, study):
    operator, head = scan.operator, study.head
    protocol = Protocol(
        view=scan.view,
        profile=operator.profile,
        thickness=operator.thickness,
        noise=scan.noise,
        head_shape=head.shape,
        head_affine=tuple(map(tuple, head.affine.tolist())),
        scale=study.scale,
        offset=study.offset,
        degradation=study.degradation,
        source_key=study.source_key,
    )
    path = place / f"scan_desc-{scan.view}_MR.nii.gz"
    save_measurement(path, scan.data, operator.scan, protocol, scan.head.numpy())
    return path


def save_estimate(place, name, volume, study):
    """The volume, and the residual against the first scan where the picture looks for it."""
    scan, volume_path, check = study.scans[0], place / f"{name}.nii.gz", place / f"{name}.json"
    residual = scan.operator.forward(torch.as_tensor(volume)) - scan.data
    save_volume(place / f"{name}-residual.nii.gz", residual.numpy(), scan.operator.scan)
    save_volume(volume_path, volume, study.head)
    over_head, everywhere = scan.rms(residual), scan.rms_everywhere(residual)
    numbers = {"map": f"{name}-residual.nii.gz", "allowed": allowed(scan)}
    numbers |= {"rms_before": over_head, "rms_after": over_head}
    numbers |= {"rms_before_everywhere": everywhere, "rms_after_everywhere": everywhere}
    write_json(check, {"headsr": {"views": {scan.view: numbers}, "projection": {"outcome": "met"}}})
    return volume_path, check


def networks(**weights):
    """The learned methods whose weights are given, and the models that they name."""
    models = {name: load_model(path) for name, path in weights.items() if path}
    return {name: LEARNED[name] for name in models}, models


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scans", nargs="?", help="BIDS folder that holds the heads")
    parser.add_argument("--cache", help="JSON file that keeps what the classical methods reach")
    parser.add_argument("--weights", help="of the network; without them the classical methods alone are measured")
    parser.add_argument("--slices", help="weights of a 2-D network")
    parser.add_argument("--only", nargs="+", default=[""], help="rows whose name has one of these in it: scans/head")
    parser.add_argument("--without", choices=METHODS, action="append", default=[], help="what the cache may lack")
    parser.add_argument("--traces", action="store_true", help="what the slices left along z, too")
    parser.add_argument("--figure", help="folder for a picture of every head")
    arguments = parser.parse_args()
    if arguments.scans is None or arguments.cache is None:
        print("Nothing measured: name a folder of scans and a cache file")
        return
    learned, models = networks(slices=arguments.slices, network=arguments.weights)
    baselines, results = Baselines(arguments.cache), {}
    print(HEADER)
    for row in rows():
        if not any(part in row.name for part in arguments.only):
            continue
        found = baselines.of(row, arguments.scans, arguments.without)
        results[row] = found | measure(row, arguments.scans, learned, models)
        print(line(row, results[row]), flush=True)
    print("", *means(results), "", *verdicts(results), "", *intervals(results), sep="\n")
    if arguments.traces:
        print(f"\n| scans | head | method | {' | '.join(TRACES)} |\n|---|---|---|{'---:|' * len(TRACES)}")
        print(*(one for row, found in results.items() for one in trace_lines(row, found)), sep="\n")
    if arguments.figure:
        shown = {name: METHODS[name] for name in ("spline", "tikhonov")} | learned
        for head in HEADS:
            row = Row(*FIGURE, head)
            draw(Path(arguments.figure, f"{head}.png"), row, arguments.scans, shown, models)


if __name__ == "__main__":
    main()
