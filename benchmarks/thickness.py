"""How well the thickness of slices is estimated: on painted heads, fine real scans made thick, and thick real scans.

Run: python benchmarks/thickness.py [--anatomies INDEX] [--fine SCAN ...] [--thick SCAN ...]

INDEX lists anatomies (rule list_anatomies: results/models/unrolled/training.json). Every head is scanned with random
slices: axis, spacing, thickness over spacing, profile and noise. A scan of --thick has its thickness in its sidecar.
"""

import argparse
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from headsr.acquisition.operator import Acquisition
from headsr.acquisition.thickness import ThicknessEstimate, estimate_thickness
from headsr.files import read_json, sidecar_of
from headsr.preprocess.outline import head_of
from headsr.seeds import seed_of
from headsr.simulate.imaging import add_rician_noise
from headsr.simulate.store import open_anatomy
from headsr.training.data.anatomies import paint
from headsr.volumes import Grid, Volume, load_volume

SHAPE, VOXEL_MM = (128, 152, 120), 1.1
CONTRASTS = ("T1w", "T2w", "PDw", "FLAIR", "random")
SPACINGS_MM, RATIOS, NOISES = (2, 3, 4, 5, 6, 7), (0.6, 0.8, 1.0, 1.2), (0.0, 0.01, 0.03)
LEAST = 2.2  # voxels of a fine scan from slice to slice
WITHIN = 0.15


@dataclass(frozen=True)
class Case:
    """A simulated scan and what is estimated of it."""

    contrast: str
    ratio: float
    noise: float
    profile: str
    slices: int
    thickness: float
    told: ThicknessEstimate
    seconds: float

    @property
    def error(self) -> float:
        return abs(self.told.thickness_mm / self.thickness - 1)

    @property
    def covered(self) -> bool:
        low, high = self.told.interval_mm
        return low <= self.thickness <= high


def painted_heads(index: str) -> Iterator[tuple[str, Volume]]:
    """One head of every anatomy, none of those that the constants were chosen on."""
    for number, entry in enumerate(read_json(index)["stores"]):
        contrast, seed = CONTRASTS[number % len(CONTRASTS)], seed_of("benchmark of thickness", entry["name"])
        anatomy = open_anatomy(Path(index).parent / entry["anatomy"])
        with torch.no_grad():
            block, _ = paint(anatomy, SHAPE, VOXEL_MM, seed=seed, device=torch.device("cpu"), suffix=contrast)
        yield contrast, Volume(block.numpy(), Grid(SHAPE, np.diag([VOXEL_MM, VOXEL_MM, VOXEL_MM, 1.0])))


def fine_heads(scans: list[str]) -> Iterator[tuple[str, Volume]]:
    for path in scans:
        scan = load_volume(path)
        bright = np.percentile(scan.data[head_of(scan)], 99.9)
        yield Path(path).name.split(".")[0], Volume((scan.data / bright).astype(np.float32), scan.grid)


def cases_of(contrast: str, fine: Volume, name: str, scans: int) -> Iterator[Case]:
    """Random scans of a head."""
    rng = np.random.default_rng(seed_of("scans for thickness", name))
    head = torch.as_tensor(head_of(fine), dtype=torch.float32)
    for _ in range(scans):
        axis, ratio, noise = int(rng.integers(3)), float(rng.choice(RATIOS)), float(rng.choice(NOISES))
        profile = "gaussian" if rng.random() < 0.25 else "box"
        voxel = float(fine.grid.voxel_size[axis])
        spacing = max(float(rng.choice(SPACINGS_MM)), LEAST * float(fine.grid.voxel_size.max()))
        thickness = ratio * spacing
        slices = fine.grid.thick(axis, spacing / voxel, thickness / voxel)
        operator = Acquisition(fine.grid, slices, axis=axis, profile=profile, thickness=thickness)
        data = add_rician_noise(operator.forward(torch.as_tensor(fine.data)).numpy(), sigma=noise, rng=rng)
        seen = operator.forward(head).numpy() >= 0.5
        start = time.process_time()
        told = estimate_thickness(Volume(data, slices), axis, seen, profile=profile)
        seconds = time.process_time() - start
        yield Case(contrast, ratio, noise, profile, slices.shape[axis], thickness, told, seconds)


def table(title: str, cases: list[Case]) -> None:
    print(f"\n| {title} | scans | told | median error | 90 % below | within 15 % | truth in the interval |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    many = [(0, 25), (25, 40), (40, 1000)]
    groups = {"all": cases}
    groups |= {case.contrast: [c for c in cases if c.contrast == case.contrast] for case in cases}
    groups |= {f"T/S {ratio:g}": [c for c in cases if c.ratio == ratio] for ratio in RATIOS}
    groups |= {f"{100 * noise:g} % noise": [c for c in cases if c.noise == noise] for noise in NOISES}
    groups |= {profile: [c for c in cases if c.profile == profile] for profile in ("box", "gaussian")}
    groups |= {f"{a} to {b - 1} slices": [c for c in cases if a <= c.slices < b] for a, b in many}
    for name, group in groups.items():
        if group:
            print(f"| {name} | {line(group)} |", flush=True)
    seconds = [case.seconds for case in cases]
    print(f"\n{np.median(seconds):.1f} s of the processor for a scan, at most {max(seconds):.1f}")


def line(cases: list[Case]) -> str:
    told = np.array([case.error for case in cases if case.told.thickness_mm is not None])
    covered = f"{np.mean([case.covered for case in cases]):.0%}"
    if not len(told):
        return f"{len(cases)} | 0 | - | - | - | {covered}"
    errors = f"{np.median(told):.1%} | {np.quantile(told, 0.9):.1%} | {np.mean(told <= WITHIN):.0%}"
    return f"{len(cases)} | {len(told)} | {errors} | {covered}"


def thick_table(scans: list[str]) -> None:
    print("\n| thick scan | slices | spacing | sidecar | estimate | interval |\n|---|---:|---:|---:|---:|---:|")
    for path in scans:
        scan = load_volume(path)
        axis = int(np.argmax(scan.grid.voxel_size))
        told = estimate_thickness(scan, axis, head_of(scan))
        estimate = "cannot tell" if told.thickness_mm is None else f"{told.thickness_mm:.2f}"
        low, high = told.interval_mm
        stated, spacing = read_json(sidecar_of(path))["SliceThickness"], scan.grid.voxel_size[axis]
        name = Path(path).name.split(".")[0]
        print(
            f"| {name} | {scan.grid.shape[axis]} | {spacing:.2f} | {stated:g} | {estimate} | {low:.1f} to {high:.1f} |"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--anatomies")
    parser.add_argument("--fine", nargs="*", default=[])
    parser.add_argument("--thick", nargs="*", default=[])
    parser.add_argument("--scans", type=int, default=4, help="of every head")
    arguments = parser.parse_args()
    sources = {"painted heads": painted_heads(arguments.anatomies)} if arguments.anatomies else {}
    sources |= {"fine scans made thick": fine_heads(arguments.fine)} if arguments.fine else {}
    for title, heads in sources.items():
        named = ((*head, f"{title} {number}") for number, head in enumerate(heads))
        table(title, [case for head in named for case in cases_of(*head, arguments.scans)])
    if arguments.thick:
        thick_table(arguments.thick)


if __name__ == "__main__":
    main()
