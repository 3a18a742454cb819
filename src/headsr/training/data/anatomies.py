"""Heads painted from label maps on the device of a training: what ``simulate_head`` makes, a block at a time and fast.

After SynthSeg (Billot et al. 2023, Medical Image Analysis 86:102789) and SynthSR (Iglesias et al. 2023, Science
Advances 9:eadd3607), with the looks of headsr.simulate. A voxel is the mean of samples that look their structure up at
warped positions. All that is smooth or random is made of small lattices, one matrix per axis. Numbers are drawn on the
CPU from the seed of a block, so that every device paints the same head up to rounding.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from headsr.devices import generator_of
from headsr.seeds import seed_of
from headsr.simulate.contrast import RANDOM
from headsr.simulate.look import FAT_LAYER_MM, MIXTURE_MM, VESSEL_CURVE_MM, VESSEL_MM, Look, draw_look
from headsr.simulate.store import DEPTH_STEP_MM, LESION_STEP, PERSONS, StoredAnatomy, open_anatomy
from headsr.typed_json import read_as

_VOXEL_MM, _USUAL_MM, _USUAL = (0.5, 2.0), (0.8, 1.2), 0.5  # half of the blocks have voxels of usual size
_CONTRASTS = {"T1w": 0.25, "T2w": 0.2, "PDw": 0.1, "FLAIR": 0.15, RANDOM: 0.3}
_LESIONS = {"none": 0.25, "mild": 0.15, "moderate": 0.25, "severe": 0.35}  # the milder, the rarer in a block
_TURN_DEGREES, _SIZE = 15.0, 0.1
_BEND_MM, _BEND_LENGTH_MM, _NODE_MM = (1.0, 3.0), (16.0, 35.0), 10.0
_SLOW_MM = 2.0  # the lattice of fat and muscle
_DEPTH_MM, _BRAIN = 20.0, 0.7  # a block's middle lies up to so far below the scalp or deeper, mostly in the brain's box
_WITHIN = 0.4  # of a block's edge: as near as its middle comes to where the map cuts the head
# (correlation length in mm, deviation) of texture: headsr.simulate's, as interpolation from a map of 1 mm leaves it.
_TEXTURE = ((0.73, 0.36), (2.08, 0.415))
_GAMMA, _BIAS, _BIAS_MM, _BRIGHTNESS = 0.15, 0.12, 40.0, (0.7, 1.15)
_FEW, _MANY, _MANY_FROM_MM = 2, 3, 1.3  # samples per axis of a voxel, by its size
_BLUR_MM = 0.25  # so that the steps of the stored structures do not show
# Label maps let every tissue end at a surface and be the same all through. In heads they pass into each other and vary,
# by how much differs: the share of their borders that is soft and how wide (deviation in mm), how strong their texture
# is, and a slow part of it (correlation length in mm, deviation).
_SOFT, _SOFT_MM = (0.0, 0.7), (0.5, 1.5)
_TEXTURE_GAIN, _MOST_TEXTURE, _SLOW_TEXTURE = (0.7, 2.5), 0.25, (6.0, (0.0, 0.6))
# A fine scan that is taken for the truth has noise of its own. Its thick scans show it, and what they show is to stay:
# the share of heads that have such grain, and its deviation.
_GRAINY, _GRAIN = 0.5, (0.003, 0.03)
_PERCENTILE = 0.999  # what the product divides scans by


class PaintedBatch(NamedTuple):
    """Blocks (N, 1, X, Y, Z), 1 being about the brightest of the head; the part of each voxel that is lesion, in the
    same shape; the edge of the cubic voxels (N,) in mm; the anatomies' names."""

    blocks: Tensor
    lesions: Tensor
    voxel_mm: Tensor
    names: list[str]


class Painted(NamedTuple):
    """A block (X, Y, Z), the part of each voxel that is lesion, the edge of the voxels in mm, the anatomy's name."""

    block: Tensor
    lesions: Tensor
    voxel_mm: float
    name: str


@dataclass(frozen=True, kw_only=True)
class _ListedAnatomy:
    """An entry of the list that ``headsr.simulate.index`` writes."""

    name: str
    split: str
    anatomy: str
    key: str = ""


class AnatomySampler:
    """Draws blocks of ``shape`` voxels of the anatomies of one split ("train" or "val") in drawn contrasts.

    These are ``suffixes``, each as likely, or any. A pure function of (seed, split, step, number in the batch). Only
    what a block shows is read, when it is drawn.
    """

    def __init__(
        self,
        index: str | os.PathLike[str],
        *,
        split: str,
        shape: tuple[int, int, int],
        suffixes: Sequence[str] = (),
        seed: int,
        device: torch.device,
    ) -> None:
        self.shape, self.seed, self.split, self.device = shape, seed, split, device
        self.suffixes = tuple(suffixes)
        self._folder = Path(index).parent
        self._anatomies = [one for one in read_as(tuple[_ListedAnatomy, ...], index, "stores") if one.split == split]
        if not self._anatomies:
            raise ValueError(f"{index}: lists no anatomy of split {split!r}; see the scan table and the model's data")

    @torch.no_grad()
    def batch(self, step: int, size: int) -> PaintedBatch:
        """The blocks of one step; fewer blocks of the same step are the first ones."""
        drawn = [self.draw(step, number) for number in range(size)]
        blocks, lesions, voxels, names = zip(*drawn, strict=True)
        return PaintedBatch(
            torch.stack(blocks)[:, None],
            torch.stack(lesions)[:, None],
            torch.tensor(voxels, dtype=torch.float32, device=self.device),
            list(names),
        )

    @torch.no_grad()
    def draw(self, step: int, number: int) -> Painted:
        """One block of a step."""
        seed = seed_of(self.seed, self.split, "anatomy", step, number)
        generator = generator_of(seed, "anatomy")
        entry = self._anatomies[int(torch.randint(len(self._anatomies), (), generator=generator))]
        voxel_mm = _draw_voxel(generator)
        head = open_anatomy(self._folder / entry.anatomy)
        suffix = _choice(dict.fromkeys(self.suffixes, 1.0), generator) if self.suffixes else None
        block, lesions = paint(head, self.shape, voxel_mm, seed=seed, device=self.device, suffix=suffix)
        return Painted(block, lesions, voxel_mm, entry.name)


def paint(
    head: StoredAnatomy,
    shape: tuple[int, int, int],
    voxel_mm: float,
    *,
    seed: int,
    device: torch.device,
    suffix: str | None = None,
    lesions: str | None = None,
) -> tuple[Tensor, Tensor]:
    """A block (X, Y, Z) of a head and its lesions; contrast and degree of lesions are drawn where they are None."""
    generator = generator_of(seed, "scan")
    suffix = suffix or _choice(_CONTRASTS, generator)
    lesions = lesions or _choice(_LESIONS, generator)
    person, grid = int(torch.randint(PERSONS, (), generator=generator)), _Block(shape, voxel_mm, device)
    look = draw_look(head.structures, suffix, np.random.default_rng(seed_of(seed, "look")))
    tissue = _draw_tissue(generator_of(seed, "tissue"))
    nodes = _placed(head, grid, generator_of(seed, "place"))
    parts = _parts(head, look, nodes, grid, tissue)
    part = torch.zeros(shape, device=device)
    if lesions != "none":
        drawn, start, size = head.lesions(person, lesions)
        places = _along(_splines(grid.edges_mm, grid.axes(), _NODE_MM, device), nodes)
        part = _looked_up(drawn, places, start, size, edge="zeros") * LESION_STEP
        part = torch.minimum(part, parts.white).clamp_(0, 1)
    mixture = _mixture(head, nodes, grid, generator_of(seed, "mixture"))
    image = _signal(look, parts, part, mixture, grid, tissue, seed)
    image = (image / _brightest(look, head.shares)).pow_(math.exp(_GAMMA * _normal(generator)))
    image *= torch.exp(_BIAS * _noise(grid, (_BIAS_MM,) * 3, generator_of(seed, "bias"))[0])
    image.mul_(_uniform(_BRIGHTNESS, generator))
    if tissue.grain > 0:  # a magnitude, as scans are
        image = (image + tissue.grain * torch.randn(shape, generator=generator_of(seed, "grain")).to(device)).abs_()
    return image, part


class _Block(NamedTuple):
    """The voxels to paint, and where."""

    shape: tuple[int, int, int]
    voxel_mm: float
    device: torch.device

    @property
    def edges_mm(self) -> list[float]:
        """The lengths of the block's edges."""
        return [n * self.voxel_mm for n in self.shape]

    def lattice(self, spacing_mm: float) -> _Block:
        """Nodes from which splines make what is smooth on the block."""
        return _Block(tuple(len(_nodes(edge, spacing_mm)) for edge in self.edges_mm), spacing_mm, self.device)

    def axes(self, per_voxel: int = 1) -> list[NDArray[np.float64]]:
        """Positions in mm along each axis of the samples of voxels, from the block's middle."""
        return [((np.arange(n * per_voxel) + 0.5) / per_voxel - n / 2) * self.voxel_mm for n in self.shape]


class _Tissue(NamedTuple):
    """What share of its borders is soft, by which deviation; how strong its texture, the slow part of that and its
    grain are."""

    soft: float = 0.0
    soft_mm: float = 0.0
    texture: float = 1.0
    slow: float = 0.0
    grain: float = 0.0


class _Parts(NamedTuple):
    """Means over the samples of each voxel of what a look says of their structures (see Look)."""

    mean: Tensor
    texture: Tensor
    mixture: Tensor
    vessels: Tensor
    white: Tensor


def _draw_tissue(generator: torch.Generator) -> _Tissue:
    gain = math.exp(_uniform(tuple(map(math.log, _TEXTURE_GAIN)), generator))
    ranges = _SOFT, _SOFT_MM, _SLOW_TEXTURE[1]
    soft, soft_mm, slow = (_uniform(between, generator) for between in ranges)
    grain = math.exp(_uniform(tuple(map(math.log, _GRAIN)), generator))
    return _Tissue(soft, soft_mm, gain, slow, grain if _uniform((0.0, 1.0), generator) < _GRAINY else 0.0)


def _placed(head: StoredAnatomy, grid: _Block, generator: torch.Generator) -> Tensor:
    """Where in the head's box the nodes (3, X, Y, Z) of a lattice over the block lie, in mm: turned, scaled, bent."""
    lattice = grid.lattice(_NODE_MM)._replace(device=torch.device("cpu"))
    nodes = torch.from_numpy(np.stack(np.meshgrid(*lattice.axes(), indexing="ij"))).float()
    bend, length = _uniform(_BEND_MM, generator), math.exp(_uniform(tuple(map(math.log, _BEND_LENGTH_MM)), generator))
    nodes += bend * _noise(lattice, (length,) * 3, generator, channels=3, of_points=True)
    size = 1 + _SIZE * (2 * torch.rand(3, generator=generator) - 1)
    size[0] *= 1 if torch.rand((), generator=generator) < 0.5 else -1
    matrix = _rotation(generator) * size[:, None]
    return torch.einsum("ij,jxyz->ixyz", matrix, nodes) + _middle(head, grid, generator)[:, None, None, None]


def _middle(head: StoredAnatomy, grid: _Block, generator: torch.Generator) -> Tensor:
    """A place in the head, mostly deep in it, and away from where the map cuts it."""
    least, in_brain = _uniform((0.0, _DEPTH_MM), generator), torch.rand((), generator=generator) < _BRAIN
    size, voxel = head.size_mm, head.voxel_mm("depth")
    allowed = []
    for axis, cut in enumerate(head.cut):
        away = min(_WITHIN * grid.shape[axis] * grid.voxel_mm, size[axis] / 3)
        low, high = away * cut[0], size[axis] - away * cut[1]
        if in_brain:
            low, high = max(low, head.brain_mm[axis][0]), min(high, head.brain_mm[axis][1])
        start = int(low / voxel[axis])
        allowed.append(slice(start, max(start + 1, int(high / voxel[axis]))))
    depth = head.read("depth", allowed)
    found = torch.nonzero(depth.flatten() > min(least / DEPTH_STEP_MM, float(depth.max()) - 1))[:, 0]
    chosen = int(found[torch.randint(len(found), (), generator=generator)])
    place = np.unravel_index(chosen, depth.shape) + np.array([s.start for s in allowed])
    return torch.from_numpy((place + 0.5) * voxel).float()


def _parts(head: StoredAnatomy, look: Look, nodes: Tensor, grid: _Block, tissue: _Tissue) -> _Parts:
    per_voxel = _FEW if grid.voxel_mm < _MANY_FROM_MM else _MANY
    structures = _structures_at(head, nodes, grid, per_voxel)
    # What varies strongly already, such as skin, stays as it is: it would reach down to the signal of air.
    most = np.maximum(np.abs(look.texture), _MOST_TEXTURE * look.mean)
    texture = np.clip(tissue.texture * look.texture, -most, most)
    table = np.stack([look.mean, texture, look.mixture, look.has_vessels, look.is_white], axis=1)
    table = torch.from_numpy(table / per_voxel**3).to(grid.device)
    bags = torch.arange(0, structures.numel(), per_voxel**2, dtype=torch.int32, device=grid.device)
    sums = functional.embedding_bag(structures, table, bags, mode="sum")
    x, y, z = grid.shape
    sums = sums.view(x, per_voxel, y * z, table.shape[1]).sum(dim=1)
    parts = sums.view(x, y, z, -1).permute(3, 0, 1, 2).contiguous()
    parts = _diffused(parts, (_BLUR_MM / grid.voxel_mm) ** 2)
    if tissue.soft > 0:
        parts.lerp_(_diffused(parts.clone(), (tissue.soft_mm / grid.voxel_mm) ** 2), tissue.soft)
    return _Parts(*parts)


def _structures_at(head: StoredAnatomy, nodes: Tensor, grid: _Block, per_voxel: int) -> Tensor:
    """The structure at every sample, int32: of one voxel and place along x those along y and z come in a row."""
    voxel, most = head.voxel_mm("winners"), head.shape("winners")
    index = nodes / torch.from_numpy(voxel).float()[:, None, None, None]
    window = [
        slice(min(max(0, math.floor(low)), n - 1), max(1, min(n, math.floor(high) + 1)))
        for low, high, n in zip(*torch.aminmax(index.flatten(1), dim=1), most, strict=True)
    ]
    seen = head.read("winners", window).to(grid.device)
    start = torch.tensor([s.start for s in window], dtype=torch.float32)[:, None, None, None]
    x, y, z = _splines(grid.edges_mm, grid.axes(per_voxel), _NODE_MM, grid.device)
    planes = torch.matmul(y, torch.matmul((index - start).to(grid.device), z.T))
    rows, columns = planes.shape[-2:]
    planes = planes.view(3, -1, rows // per_voxel, per_voxel, columns // per_voxel, per_voxel)
    planes = planes.transpose(3, 4).reshape(3, -1, rows * columns)
    flat = None
    for one, length in zip(planes, seen.shape, strict=True):
        place = torch.matmul(x, one).clamp_(0, length - 1).to(torch.int32)
        flat = place if flat is None else flat.mul_(length).add_(place)
    return seen.flatten().index_select(0, flat.flatten()).to(torch.int32)


def _looked_up(
    data: Tensor, places: Tensor, start: NDArray[np.float64], size: NDArray[np.float64], *, edge: str
) -> Tensor:
    """A stored field (x, y, z) at places (3, X, Y, Z) in mm, linear between its voxels; ``start`` is its corner."""
    shape = np.array(data.shape)
    scale = torch.from_numpy(2 / (size * shape)).to(places)
    shift = torch.from_numpy(2 * start / (size * shape) + 1).to(places)
    points = (places * scale[:, None, None, None] - shift[:, None, None, None]).flip(0).permute(1, 2, 3, 0)
    field = data.to(places)[None, None]
    return functional.grid_sample(field, points[None], padding_mode=edge, align_corners=False)[0, 0]


def _mixture(head: StoredAnatomy, nodes: Tensor, grid: _Block, generator: torch.Generator) -> Tensor:
    """Strands of fat (1) and muscle (-1), fat below the skin; on a lattice of 2 mm, as headsr.simulate has them."""
    slow = grid.lattice(_SLOW_MM)
    places = _along(_splines(grid.edges_mm, slow.axes(), _NODE_MM, grid.device), nodes)
    depth = _looked_up(
        head.read("depth", [slice(None)] * 3), places, np.zeros(3), head.voxel_mm("depth"), edge="border"
    )
    strands = _noise(slow, MIXTURE_MM, generator, of_points=True)[0]
    layer = (1.5 - depth * (DEPTH_STEP_MM / FAT_LAYER_MM)).clamp_(0, 1)
    mixture = torch.tanh(1.5 * (strands - 0.3) + 3 * layer)
    return _along(_splines(grid.edges_mm, grid.axes(), _SLOW_MM, grid.device), mixture[None])[0]


def _signal(
    look: Look, parts: _Parts, lesions: Tensor, mixture: Tensor, grid: _Block, tissue: _Tissue, seed: int
) -> Tensor:
    generator = generator_of(seed, "texture")
    lengths = (*_TEXTURE, (_SLOW_TEXTURE[0], tissue.slow))
    texture = sum(size * _noise(grid, (length,) * 3, generator)[0] for length, size in lengths)
    image = parts.mean + parts.texture * texture + parts.mixture * mixture
    image += parts.vessels * _tubes(grid, generator_of(seed, "vessels")) * (float(look.vessel) - image)
    if look.is_white.any():
        white, uneven = (float(of[look.is_white > 0].mean()) for of in (look.mean, look.texture))
        image += lesions * (float(look.lesion) - white + (float(look.lesion_texture) - uneven) * texture)
    return image.clamp_(min=0)


def _tubes(grid: _Block, generator: torch.Generator) -> Tensor:
    """The part of vessel: a Gaussian around the curves on which two smooth random fields are both zero.

    It has the area of the vessel, and the variances of its disc, the voxel's cube and the blur.
    """
    variance = VESSEL_MM**2 / 4 + grid.voxel_mm**2 / 12 + _BLUR_MM**2
    squares = (_noise(grid, (VESSEL_CURVE_MM,) * 3, generator, channels=2) ** 2).sum(dim=0)
    slope = 1.5 / VESSEL_CURVE_MM**2
    return (torch.exp(squares / (-2 * variance * slope)) * (VESSEL_MM**2 / (2 * variance))).clamp_(max=1)


def _brightest(look: Look, shares: NDArray[np.float64]) -> float:
    """The 99.9th percentile of a head's signal, if structures are normally distributed and half fat, half muscle."""
    levels = torch.linspace(0, 2, 2001, dtype=torch.float64)
    mean, texture, mixture = (torch.from_numpy(of).double()[:, None] for of in (look.mean, look.texture, look.mixture))
    spread = math.hypot(*(size for _, size in _TEXTURE)) * texture.abs().clamp(min=1e-6)
    fat, muscle = (torch.special.ndtr((levels - mean - side * mixture) / spread) for side in (1, -1))
    below = torch.from_numpy(shares) @ (fat + muscle) / 2
    return float(levels[int((below < _PERCENTILE).sum().clamp(1, len(levels) - 1))])


def _noise(
    grid: _Block,
    lengths_mm: Sequence[float],
    generator: torch.Generator,
    *,
    channels: int = 1,
    of_points: bool = False,
) -> Tensor:
    """Random fields (channels, X, Y, Z) of unit deviation that a Gaussian of some length per axis smoothed.

    Voxels average them, as if the Gaussian were wider, unless they are ``of_points``.
    """
    weights, gain = [], 1.0
    for places, length in zip(grid.axes(), lengths_mm, strict=True):
        wide = length if of_points else math.sqrt(length**2 + grid.voxel_mm**2 / 12)
        spacing = max(grid.voxel_mm, wide)
        reach = math.ceil((len(places) * grid.voxel_mm / 2 + 3 * wide) / spacing)
        lattice = spacing * (np.arange(-reach, reach) + 0.5)
        weights.append(torch.from_numpy(_gaussian(places[:, None] - lattice, wide)).float())
        gain *= math.sqrt(length / wide)
    white = torch.randn(channels, *(w.shape[1] for w in weights), generator=generator).mul_(gain)
    return _along([w.to(grid.device) for w in weights], white)


def _splines(
    edges_mm: Sequence[float], axes: Sequence[NDArray[np.float64]], spacing_mm: float, device: torch.device
) -> list[Tensor]:
    """For every axis the weights (places, nodes) of cubic B-splines as kernels, on a lattice over a block's edges."""
    weights = []
    for edge, places in zip(edges_mm, axes, strict=True):
        away = np.abs(places[:, None] / spacing_mm - _nodes(edge, spacing_mm))
        near, far = 2 / 3 - away**2 + away**3 / 2, (2 - np.minimum(away, 2)) ** 3 / 6
        weights.append(torch.from_numpy(np.where(away < 1, near, far)).float().to(device))
    return weights


def _nodes(edge_mm: float, spacing_mm: float) -> NDArray[np.float64]:
    """The nodes of a lattice along an edge of a block, from its middle: what splines need, and a little more."""
    reach = math.ceil(edge_mm / 2 / spacing_mm) + 2
    return np.arange(-reach, reach + 1.0)


def _diffused(fields: Tensor, variance: float) -> Tensor:
    """Blur fields (C, X, Y, Z) in place by a variance (voxels squared); what they sum to stays."""
    steps = max(1, math.ceil(2 * variance))  # each by up to half a voxel squared
    for axis in [1, 2, 3] * steps:
        flow, n = torch.diff(fields, dim=axis), fields.shape[axis]
        fields.narrow(axis, 0, n - 1).add_(flow, alpha=variance / steps / 2)
        fields.narrow(axis, 1, n - 1).sub_(flow, alpha=variance / steps / 2)
    return fields


def _gaussian(away: NDArray[np.float64], deviation: float) -> NDArray[np.float64]:
    """Weights (rows, columns) of a Gaussian, cut where they are nothing; the squares of a row sum to 1."""
    # What is cut would be subnormal numbers, with which processors are slow.
    weights = np.where(np.abs(away) < 4 * deviation, np.exp(-0.5 * (away / deviation) ** 2), 0)
    return weights / np.linalg.norm(weights, axis=1, keepdims=True)


def _along(weights: Sequence[Tensor], data: Tensor) -> Tensor:
    """Apply one matrix per axis to fields (C, x, y, z)."""
    x, y, z = weights
    data = torch.matmul(y, torch.matmul(data.to(z.device), z.T))
    return torch.matmul(x, data.flatten(2)).view(len(data), len(x), *data.shape[2:])


def _rotation(generator: torch.Generator) -> Tensor:
    """A turn (3, 3) by up to _TURN_DEGREES about a random axis."""
    axis = functional.normalize(torch.randn(3, generator=generator), dim=0)
    x, y, z = axis.tolist()
    angle = math.radians(_TURN_DEGREES) * _uniform((0.0, 1.0), generator)
    cross = torch.tensor([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return torch.eye(3) + math.sin(angle) * cross + (1 - math.cos(angle)) * cross @ cross


def _draw_voxel(generator: torch.Generator) -> float:
    usual = torch.rand((), generator=generator) < _USUAL
    low, high = _USUAL_MM if usual else _VOXEL_MM
    return math.exp(_uniform((math.log(low), math.log(high)), generator))


def _choice(shares: dict[str, float], generator: torch.Generator) -> str:
    return list(shares)[int(torch.multinomial(torch.tensor(list(shares.values())), 1, generator=generator))]


def _uniform(between: tuple[float, float], generator: torch.Generator) -> float:
    low, high = between
    return low + (high - low) * torch.rand((), generator=generator).item()


def _normal(generator: torch.Generator) -> float:
    return torch.randn((), generator=generator).item()
