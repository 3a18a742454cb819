"""Random studies of made-up heads, without faults and with, and estimates: what a projection must bear."""

from dataclasses import dataclass

import numpy as np
import torch
from scipy import ndimage
from scipy.spatial.transform import Rotation

from headsr.acquisition.measurement import Measurement, Study, head_voxels
from headsr.acquisition.operator import Acquisition
from headsr.reconstruct.interpolate import average_of
from headsr.reconstruct.tikhonov import tikhonov
from headsr.volumes import AXES, Grid

PROFILES = ("box", "gaussian", "cubic", "zoom")
# One scan turned or moved against what its affine says, its intensities, motion of single slices, another simulator
# than the operator; and what a good alignment leaves.
FAULTS = ("turned", "moved", "turned and moved", "gain", "slices", "points", "other width", "thickness", "alignment")
_VOXEL_MM = 4.5


@dataclass(frozen=True, eq=False)
class Case:
    """A study with its truth (X, Y, Z), the head in it (bool), and in words what was done to it."""

    study: Study
    truth: torch.Tensor
    head: torch.Tensor
    words: str

    def distance(self, volume):
        """Root mean square over the head from the truth."""
        return float((volume - self.truth)[self.head].double().square().mean().sqrt())

    def loss(self, estimate, projected):
        """By how many dB the projected volume is farther from the truth."""
        return 20 * np.log10(self.distance(projected) / self.distance(estimate))


def random_case(rng, fault=None, head=None):
    """Two or three stacks, one of them with a fault (None: without, of any profile; one stack or more).

    ``head`` is a truth (X, Y, Z; 0 to 1), its grid and its mask; made up where it is None.
    """
    truth, grid, mask = made_up_head(rng) if head is None else head
    factor, noise = int(rng.integers(2, 7)), float(rng.choice([0.01, 0.02, 0.03]))
    views = rng.permutation(list(AXES))[: rng.integers(1, 4) if fault is None else rng.integers(2, 4)]
    profile = "box" if fault is not None else rng.choice(PROFILES)
    turned = fault is None and rng.random() < 0.3
    amount, faulty = rng.uniform(), rng.integers(1, len(views)) if fault else 0
    truth, scans = torch.as_tensor(truth), []
    for index, view in enumerate(views):
        scan = (grid.zoomed if profile == "zoom" else grid.thick)(AXES[view], factor)
        if turned:
            scan = Grid(scan.shape, motion(grid, 12, 3, rng) @ scan.affine)
        operator = Acquisition(grid, scan, axis=AXES[view], profile=profile)
        one_of_them = index == faulty if fault not in ("points", "other width", "thickness") else True
        one_of_them = index > 0 if fault == "alignment" else one_of_them
        clean = operator.forward(truth) if not (fault and one_of_them) else wrong(fault, operator, truth, amount, rng)
        seen = operator.forward(torch.as_tensor(mask, dtype=torch.float32)) > 0.5
        scans.append(Measurement(str(view), operator, rician(clean, noise, rng), noise, seen))
    head = head_voxels(scans)
    words = f"{fault} ({amount:.2f}), {len(views)} scans x{factor}, {profile}, noise {noise:g}{', turned' * turned}"
    return Case(Study(grid, tuple(scans), 1.0, 0.0, "random", "KEY"), truth, head, words)


def wrong(fault, operator, truth, amount, rng):
    """What a scan measures that is not as its operator says; ``amount`` from 0 to 1 is how far from it."""
    axis, size = operator.axis, float(operator.scan.voxel_size[operator.axis])

    def placed(degrees, mm, **how):
        scan = Grid(operator.scan.shape, motion(operator.head, degrees, mm, rng) @ operator.scan.affine)
        return Acquisition(operator.head, scan, axis=axis, **how).forward(truth)

    if fault in ("turned", "moved", "turned and moved"):
        return placed(10 * amount**2 * ("turned" in fault), 5 * amount**2 * ("moved" in fault))
    if fault == "alignment":
        return (1 + 0.02 * amount * rng.normal()) * placed(0.5 * amount, 0.5 * amount)
    if fault == "gain":
        return (0.8 + 0.5 * amount) * operator.forward(truth)
    if fault == "points":
        return placed(0, 0, profile="zoom")
    if fault == "other width":
        return placed(0, 0, profile="gaussian", thickness=size * (0.6 + 0.9 * amount))
    if fault == "thickness":
        return placed(0, 0, thickness=size * (0.75 + 0.5 * amount))
    clean, n = operator.forward(truth), operator.scan.shape[axis]
    for index in rng.permutation(n)[: max(1, round(0.3 * amount * n))]:
        clean.select(axis, index).copy_(placed(8 * rng.uniform(), 4 * rng.uniform()).select(axis, index))
    return clean


def estimates_of(case, rng):
    """What methods may make of it, by name: classical ones, and as good as networks are or better.

    The sharp one, the truth with a smooth error, is off by 28 to 34 dB, and by no less than the scans' noise. No method
    makes it of the scans, and it can only lose where these contradict each other too little to be seen.
    """
    study, truth = case.study, case.truth.numpy()
    noise = max(scan.noise for scan in study.scans)
    tissue = truth > 0.05

    def error(size, width):
        waves = ndimage.gaussian_filter(rng.standard_normal(truth.shape), width)
        return (size / waves.std() * waves * tissue).astype(np.float32)

    volumes = {
        "spline": average_of(study.scans[:1], study.head),
        "average": average_of(study.scans, study.head),
        "tikhonov": tikhonov(study, weight=0.03, iterations=10),
        "network": ndimage.gaussian_filter(truth, 0.6) + error(0.02, 0.8),
        "sharp": truth + error(max(noise, rng.uniform(0.02, 0.04)), 1.5),
    }
    return {name: torch.as_tensor(volume, dtype=torch.float32) for name, volume in volumes.items()}


def made_up_head(rng):
    """A head of ellipsoids (X, Y, Z; 0 to 1) with folds and a smooth bias, its grid and where it is (bool)."""
    shape = np.array([36, 42, 36])
    places = [(np.arange(n) - (n - 1) / 2) * _VOXEL_MM for n in shape]
    around = np.stack(np.meshgrid(*places, indexing="ij"), axis=-1)
    around = around @ Rotation.random(random_state=rng).as_matrix() if rng.random() < 0.5 else around
    radius = np.linalg.norm(around / (np.array([68, 84, 70]) * rng.uniform(0.9, 1.05, 3)), axis=-1)
    folds = ndimage.gaussian_filter(rng.standard_normal(shape), rng.uniform(0.8, 2.0))
    brain = np.where(folds > rng.uniform(-0.05, 0.05), *rng.uniform(0.3, 1.0, 2))
    layers = [(0.8, brain), (0.86, rng.uniform(0.1, 1.0)), (0.93, rng.uniform(0, 0.15)), (1.0, rng.uniform(0.5, 1.0))]
    truth = np.zeros(shape)
    for outside, signal in reversed(layers):
        truth = np.where(radius < outside, signal, truth)
    bias = ndimage.gaussian_filter(rng.standard_normal(shape), 8)
    truth = ndimage.gaussian_filter(truth * (1 + 0.1 * bias / bias.std()), 0.4).astype(np.float32)
    affine = np.diag([_VOXEL_MM] * 3 + [1.0])
    affine[:3, 3] = -_VOXEL_MM * (shape - 1) / 2
    return truth / truth.max(), Grid(tuple(map(int, shape)), affine), radius < 1


def motion(grid, degrees, mm, rng):
    """A turn (4, 4; mm) about a random axis through the middle of a grid, and a shift along another."""
    axis, shift = (direction / np.linalg.norm(direction) for direction in rng.standard_normal((2, 3)))
    middle, moved = grid.corners.mean(axis=0), np.eye(4)
    moved[:3, :3] = Rotation.from_rotvec(degrees * axis, degrees=True).as_matrix()
    moved[:3, 3] = middle - moved[:3, :3] @ middle + mm * shift
    return moved


def rician(clean, noise, rng):
    """The magnitude of a signal with complex noise."""
    real, imaginary = (torch.as_tensor(noise * rng.standard_normal(clean.shape), dtype=torch.float32) for _ in range(2))
    return torch.hypot(clean + real, imaginary)
