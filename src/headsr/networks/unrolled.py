"""The operator-aware network: what was measured and how is an input, so one set of weights serves any acquisition.

After unrolled optimisation (Adler and Oektem 2018, IEEE TMI 37:1322; Aggarwal et al. 2019, MoDL, IEEE TMI 38:394): an
estimate is corrected by a convolutional network and brought back to the scans by conjugate gradients, several times
over. The corrections share their weights and hand on what they found (Putzky and Welling 2017, recurrent inference
machines); which stage it is, the acquisition and its noise scale and shift their features (Perez et al. 2018, FiLM).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import product
from typing import TYPE_CHECKING, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from headsr.networks.blocks import in_full_precision, zeroed

if TYPE_CHECKING:
    from headsr.acquisition.evidence import Evidence

MULTIPLE = 4  # voxels that the coarser level joins along each axis
_MOVING, _FIXED, _TRAITS = 5, 7, 13
_CHANGE = 0.1  # what an output of 1 changes, in units of the grain: as much as an estimate is off by
# How far a corrected estimate is off, at first: rho is the noise's variance over this one's, times what is learned.
_OFF, _RHO_RANGE = 0.03, (1e-3, 30.0)
_LOG_SPREAD_RANGE, _KNOTS = (-9.0, 1.0), 20


class Refined(NamedTuple):
    """A head (N, 1, X, Y, Z) and the logarithm of the Laplace scale of its error, of the same shape; fp32.

    ``earlier`` are the estimates of the stages before, where they were asked for.
    """

    volume: Tensor
    log_spread: Tensor
    earlier: tuple[Tensor, ...] = ()


class Unrolled(nn.Module):
    """Evidence of N heads to Refined.

    ``stages`` times: the estimate, what the scans show and miss of it and where each voxel lies in their slices go
    through ``blocks`` of residual convolutions, ``width`` channels on 2 x 2 x 2 voxels at once and ``coarse_width`` on
    4 x 4 x 4; the corrected estimate takes ``solves`` steps of conjugate gradients towards the scans.
    """

    def __init__(
        self, *, stages: int, width: int, coarse_width: int, blocks: int, coarse_blocks: int, solves: int
    ) -> None:
        super().__init__()
        self.stages, self.solves = stages, solves
        self.correction = Correction(width, coarse_width, blocks, coarse_blocks, traits=_TRAITS + stages)
        self.trusting = zeroed(nn.Linear(width, 1))
        self.spread = nn.Sequential(
            nn.Conv3d(width, width // 2, 3, padding=1), nn.SiLU(), zeroed(nn.Conv3d(width // 2, 8, 1))
        )
        with torch.no_grad():
            self.spread[-1].bias.fill_(math.log(_CHANGE))
        # Half of the interval that holds 90 % of the errors, as logarithms over the logarithm of the spread.
        knots = torch.linspace(*_LOG_SPREAD_RANGE, _KNOTS)
        self.register_buffer("spreads", knots)
        self.register_buffer("halves", knots + math.log(math.log(10)))

    def forward(self, evidence: Evidence, *, tile: int | None = None, keep_earlier: bool = False) -> Refined:
        """The heads; corrections are made in tiles of ``tile`` voxels a side, with a halo, where it is not None."""
        device = evidence.scans[0].device
        with in_full_precision(device):
            x = evidence.start
            places = evidence.places().expand(len(x), -1, -1, -1, -1)
            fixed = torch.cat([places, evidence.shown() / evidence.grain], dim=1)
            traits = evidence.traits()
        earlier, carried = [], [to_octets(_continued(_cast(fixed)))]
        del fixed, places
        for stage in range(self.stages):
            with in_full_precision(device):
                inputs = torch.cat([x, _detail(x) / evidence.grain, evidence.misfits(x) / evidence.grain], dim=1)
                number = F.one_hot(torch.tensor(stage), self.stages).to(traits).expand(len(traits), -1)
                embedded = self.correction.embed(torch.cat([traits, number], dim=1))
                rho = evidence.variance / _OFF**2 * self.trusting(embedded).exp()
            correct = self._correcting(embedded, last=stage == self.stages - 1)
            features, change = in_tiles(correct, _cast(inputs), carried, tile=tile, halo=self.correction.halo)
            carried = [carried[0], features]
            if keep_earlier and stage:
                earlier.append(x)
            with in_full_precision(device):
                rho = rho.clamp(*_RHO_RANGE)[:, :, None, None, None]
                x = x + _CHANGE * evidence.grain * change[:, :1].float()
                x = evidence.agreeing(x, rho, iterations=self.solves)
        return Refined(x, (change[:, 1:].float() + evidence.grain.log()).clamp(*_LOG_SPREAD_RANGE), tuple(earlier))

    @torch.no_grad()
    def calibrate(self, log_spread: Tensor, error: Tensor) -> float:
        """Learn from errors with known truth, of any shape, how wide an interval must be that holds 90 % of them.

        Each twentieth of the spreads by itself. Returns what share of the errors a Laplace distribution's own interval
        holds, b ln 10 to either side.
        """
        order = log_spread.flatten().float().sort()
        magnitude = error.flatten().float().abs()[order.indices]
        held = float((magnitude <= math.log(10) * order.values.exp()).float().mean())
        for knot, (spreads, errors) in enumerate(
            zip(order.values.tensor_split(_KNOTS), magnitude.tensor_split(_KNOTS), strict=True)
        ):
            self.spreads[knot] = spreads.mean()
            self.halves[knot] = errors.sort().values[int(0.9 * (len(errors) - 1))].clamp_min(1e-6).log()
        return held

    def half_interval(self, log_spread: Tensor) -> Tensor:
        """Half the width of the interval that holds 90 % of the errors, as calibrated; beyond that b sets the scale."""
        inner = log_spread.clamp(self.spreads[0], self.spreads[-1])
        right = torch.bucketize(inner, self.spreads).clamp(1, len(self.spreads) - 1)
        low, high = self.spreads[right - 1], self.spreads[right]
        share = (inner - low) / (high - low).clamp_min(1e-6)
        return (torch.lerp(self.halves[right - 1], self.halves[right], share) + log_spread - inner).exp()

    def _correcting(self, embedded: Tensor, *, last: bool) -> Callable[..., tuple[Tensor, Tensor]]:
        """One correction as in_tiles takes it; that of the last stage gives the logarithm of the spread too."""

        def correct(inputs: Tensor, *carried: Tensor) -> tuple[Tensor, Tensor]:
            features, change = self.correction(to_octets(inputs), *carried, embedded=embedded)
            # What the network learns of a head it learns for the head's sake: the spread reads it and changes nothing.
            outputs = torch.cat([change, self.spread(features.detach())], dim=1) if last else change
            return features, from_octets(outputs)

        return correct


class Correction(nn.Module):
    """One correction: residual blocks at half and at a quarter of the resolution, and a skip between them."""

    def __init__(self, width: int, coarse_width: int, blocks: int, coarse_blocks: int, *, traits: int) -> None:
        super().__init__()
        self.embed = nn.Sequential(nn.Linear(traits, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU())
        self.moving = nn.Conv3d(8 * _MOVING, width, 1)
        self.fixed = nn.Conv3d(8 * _FIXED, width, 1)
        self.handed_on = nn.Conv3d(width, width, 1)
        self.before = nn.ModuleList([Block(width, width) for _ in range(blocks)])
        self.down = nn.Conv3d(width, coarse_width, 2, stride=2)
        self.coarse = nn.ModuleList([Block(coarse_width, width) for _ in range(coarse_blocks)])
        self.up = nn.ConvTranspose3d(coarse_width, width, 2, stride=2)
        self.after = nn.ModuleList([Block(width, width) for _ in range(blocks)])
        self.last = zeroed(nn.Conv3d(width, 8, 3, padding=1))

    @property
    def halo(self) -> int:
        """How many voxels around a tile its correction depends on: two convolutions a block, each one cell wide."""
        reach = 2 * (2 * (len(self.before) + len(self.after)) + 1) + 4 * 2 * len(self.coarse)
        return -(-reach // MULTIPLE) * MULTIPLE

    def forward(
        self, moving: Tensor, fixed: Tensor, hidden: Tensor | None = None, *, embedded: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Octets of what changes from stage to stage and of what does not, and the features of the stage before:
        new features (N, width, X/2, Y/2, Z/2), and the change of the estimate as octets."""
        features = self.moving(moving) + self.fixed(fixed)
        if hidden is not None:
            features = features + self.handed_on(hidden)
        for block in self.before:
            features = block(features, embedded)
        coarse = self.down(features)
        for block in self.coarse:
            coarse = block(coarse, embedded)
        features = features + self.up(coarse)
        for block in self.after:
            features = block(features, embedded)
        return features, self.last(features)


class Block(nn.Module):
    """Convolution, FiLM, SiLU, convolution, and a skip: no norm, which would wash out intensities."""

    def __init__(self, width: int, embedding: int) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv3d(width, width, 3, padding=1), nn.Conv3d(width, width, 3, padding=1)
        self.film = zeroed(nn.Linear(embedding, 2 * width))
        with torch.no_grad():
            self.conv2.weight.mul_(0.3)  # many blocks in a row begin near to no change

    def forward(self, features: Tensor, embedded: Tensor) -> Tensor:
        """Features of the same shape."""
        scale, shift = self.film(embedded)[:, :, None, None, None].chunk(2, dim=1)
        hidden = self.conv1(features)
        return features + self.conv2(F.silu(hidden * (1 + scale).to(hidden.dtype) + shift.to(hidden.dtype)))


def _detail(volume: Tensor) -> Tensor:
    """What is finer than 4 x 4 x 4 voxels: in bf16 a bright voxel has no room for it."""
    whole = _continued(volume)
    coarse = F.interpolate(F.avg_pool3d(whole, 4), size=whole.shape[2:], mode="trilinear")
    return volume - _cut(coarse, volume.shape[2:])


def to_octets(volume: Tensor) -> Tensor:
    """(N, C, X, Y, Z) to (N, 8 C, X/2, Y/2, Z/2), channels last in memory: the voxels of each cell as channels."""
    n, c, x, y, z = volume.shape
    cells = volume.reshape(n, c, x // 2, 2, y // 2, 2, z // 2, 2).permute(0, 2, 4, 6, 1, 3, 5, 7)
    return cells.reshape(n, x // 2, y // 2, z // 2, 8 * c).permute(0, 4, 1, 2, 3)


def from_octets(cells: Tensor) -> Tensor:
    """The inverse of ``to_octets``: (N, 8 C, x, y, z) to (N, C, 2x, 2y, 2z)."""
    n, c, x, y, z = cells.shape
    volume = cells.permute(0, 2, 3, 4, 1).reshape(n, x, y, z, c // 8, 2, 2, 2)
    return volume.permute(0, 1, 5, 2, 6, 3, 7, 4).reshape(n, 2 * x, 2 * y, 2 * z, c // 8).permute(0, 4, 1, 2, 3)


def in_tiles(
    correct: Callable[..., tuple[Tensor, Tensor]],
    inputs: Tensor,
    carried: Sequence[Tensor],
    *,
    tile: int | None,
    halo: int,
) -> tuple[Tensor, Tensor]:
    """What ``correct(inputs, *carried)`` gives of the whole, made tile by tile with ``halo`` voxels around each.

    ``carried`` and the first result have half the resolution. Sizes of ``inputs`` that are no multiple of MULTIPLE are
    continued by their edge values, and so are these.
    """
    shape, inputs = inputs.shape[2:], _continued(inputs)
    if tile is None:
        features, outputs = correct(inputs, *carried)
        return features, _cut(outputs, shape)
    wholes = None
    for box, around in _tiles(inputs.shape[2:], tile, halo):
        parts = correct(inputs[(..., *around)], *(half[(..., *_scaled(around, 2))] for half in carried))
        if wholes is None:
            sizes = ([n // 2 for n in inputs.shape[2:]], inputs.shape[2:])
            wholes = [part.new_empty(*part.shape[:2], *size) for part, size in zip(parts, sizes, strict=True)]
        inner = [slice(b.start - a.start, b.stop - a.start) for b, a in zip(box, around, strict=True)]
        for whole, part, step in zip(wholes, parts, (2, 1), strict=True):
            whole[(..., *_scaled(box, step))] = part[(..., *_scaled(inner, step))]
    return wholes[0], _cut(wholes[1], shape)


def _scaled(box: Sequence[slice], step: int) -> tuple[slice, ...]:
    return tuple(slice(part.start // step, part.stop // step) for part in box)


def _cut(volume: Tensor, shape: Sequence[int]) -> Tensor:
    return volume[(..., *(slice(0, n) for n in shape))]


def _cast(volume: Tensor) -> Tensor:
    """In the type of the convolutions, before it is copied about."""
    kind = volume.device.type
    casts = torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)
    return volume.to(torch.get_autocast_dtype(kind)) if casts else volume


def _continued(volume: Tensor) -> Tensor:
    missing = [-n % MULTIPLE for n in volume.shape[2:]]
    x, y, z = missing
    return F.pad(volume, (0, z, 0, y, 0, x), mode="replicate") if any(missing) else volume


def _tiles(shape: torch.Size, tile: int, halo: int) -> Iterator[tuple[tuple[slice, ...], tuple[slice, ...]]]:
    """Boxes of at most ``tile`` voxels a side that make up a volume, and each with ``halo`` around it, inside of it."""
    tile = max(MULTIPLE, tile // MULTIPLE * MULTIPLE)
    for start in product(*(range(0, n, tile) for n in shape)):
        box = tuple(slice(a, min(a + tile, n)) for a, n in zip(start, shape, strict=True))
        yield box, tuple(slice(max(0, b.start - halo), min(n, b.stop + halo)) for b, n in zip(box, shape, strict=True))
