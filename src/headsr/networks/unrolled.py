"""The operator-aware network: what was measured and how is an input, so one set of weights serves any acquisition.

After unrolled optimisation (Adler and Oektem 2018, IEEE TMI 37:1322; Aggarwal et al. 2019, MoDL, IEEE TMI 38:394): an
estimate is corrected by a convolutional network and brought back to the scans by conjugate gradients, several times
over. The acquisition and its noise scale and shift the network's features (Perez et al. 2018, FiLM).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import pairwise, product
from typing import TYPE_CHECKING, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from headsr.networks.blocks import Checkpointed, channels_last, in_full_precision, zeroed

if TYPE_CHECKING:
    from headsr.acquisition.evidence import Evidence

MULTIPLE = 4  # voxels that the coarsest level joins along each axis, at most
_MOVING, _FIXED, _TRAITS, _EMBEDDING = 5, 7, 13, 64
_EXPECTED_RANGE = (1e-3, 3.0)  # of the grain
_RIDGE = 1.0  # against 200 studies
_LAPLACE = 0.6  # the scale of errors over their root mean square
_RHO_RANGE = (1e-3, 30.0)
_LOG_SPREAD_RANGE, _KNOTS = (-9.0, 1.0), 20
_MOST_CUTS = 16  # of an axis into tiles

_Cut = list[tuple[slice, slice]]


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
    through a convolutional network (Correction); the corrected estimate takes ``solves`` steps of conjugate gradients
    towards the scans. ``widths`` are the channels at the full resolution, at half of it ..., ``blocks`` the residual
    blocks on the way down, at the bottom and on the way up again.
    """

    def __init__(self, *, stages: int, widths: Sequence[int], blocks: Sequence[int], solves: int) -> None:
        super().__init__()
        if len(blocks) != 2 * len(widths) - 1:
            raise ValueError(f"blocks: {len(widths)} widths need {2 * len(widths) - 1} numbers, not {len(blocks)}")
        if 2 ** (len(widths) - 1) > MULTIPLE:
            raise ValueError(f"widths: {len(widths)} resolutions; volumes are continued for three at most")
        self.solves = solves
        self.corrections = nn.ModuleList([Correction(widths, blocks) for _ in range(stages)])
        self.trusting = nn.ModuleList([zeroed(nn.Linear(_TRAITS, 1)) for _ in range(stages)])
        self.spread = nn.Sequential(
            nn.Conv3d(widths[0], widths[0], 3, padding=1), nn.SiLU(), zeroed(nn.Conv3d(widths[0], 1, 1))
        )
        with torch.no_grad():
            self.spread[-1].bias.fill_(math.log(_LAPLACE))
        # How far least squares is off: the logarithm of its root mean square error over the grain, by the traits.
        self.register_buffer("expected", torch.zeros(_TRAITS + 1))
        # Half of the interval that holds 90 % of the errors, as logarithms over the logarithm of the spread.
        knots = torch.linspace(*_LOG_SPREAD_RANGE, _KNOTS)
        self.register_buffer("spreads", knots)
        self.register_buffer("halves", knots + math.log(math.log(10)))

    def forward(self, evidence: Evidence, *, at_once: int | None = None, keep_earlier: bool = False) -> Refined:
        """The heads; corrections are made of ``at_once`` voxels at most at a time where it is not None."""
        device = evidence.scans[0].device
        with in_full_precision(device):
            x, traits, unit = evidence.start, evidence.traits(), self.expected_error(evidence)
            places = evidence.places().expand(len(x), -1, -1, -1, -1)
            fixed = torch.cat([places, evidence.shown() / evidence.grain], dim=1)
            del places
        earlier, last = [], len(self.corrections) - 1
        for stage, (correction, trusting) in enumerate(zip(self.corrections, self.trusting, strict=True)):
            with in_full_precision(device):
                moving = torch.cat([x, _detail(x) / evidence.grain, evidence.misfits(x) / unit], dim=1)
                # The noise's variance over that of the estimate's error, times what is learned.
                learned = trusting(traits).exp()[:, :, None, None, None]
                rho = (evidence.variance / unit.square() * learned).clamp(*_RHO_RANGE)
            correct = partial(self._change, correction, traits, foretell=stage == last)
            change = in_tiles(correct, [moving, fixed], at_once=at_once, halo=correction.halo)
            del moving
            if keep_earlier and stage:
                earlier.append(x)
            with in_full_precision(device):
                x = evidence.agreeing(x + unit * change[:, :1].float(), rho, iterations=self.solves)
        return Refined(x, (change[:, 1:].float() + unit.log()).clamp(*_LOG_SPREAD_RANGE), tuple(earlier))

    def _change(self, correction: Correction, traits: Tensor, inputs: Tensor, *, foretell: bool) -> Tensor:
        """What a correction adds to the estimate (N, 1, X, Y, Z); to foretell, the logarithm of its spread too."""
        features, change = correction(inputs, traits)
        # What the network learns of a head it learns for the head's sake: the spread reads it and changes nothing.
        return torch.cat([change, self.spread(features.detach())], dim=1) if foretell else change

    @torch.no_grad()
    def expect(self, traits: Tensor, log_error: Tensor) -> Tensor:
        """Learn from M studies with known truth how far least squares is off, by their traits (M, 13).

        ``log_error`` (M,) is the logarithm of its root mean square error over the grain. Outputs of about 1 are then
        right for every acquisition, which differ by two orders of magnitude. Returns the deviation of what is left.
        """
        known = torch.cat([traits, torch.ones_like(traits[:, :1])], dim=1).double()
        normal = known.T @ known + _RIDGE * torch.eye(known.shape[1], dtype=known.dtype, device=known.device)
        self.expected.copy_(torch.linalg.solve(normal, known.T @ log_error.double()))
        return (known @ self.expected.double() - log_error).std()

    def expected_error(self, evidence: Evidence) -> Tensor:
        """How far the start is expected to be off from the head, root mean square, (N, 1, 1, 1, 1)."""
        log_error = evidence.traits() @ self.expected[:-1] + self.expected[-1]
        return evidence.grain * log_error.exp().clamp(*_EXPECTED_RANGE)[:, None, None, None, None]

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


class Correction(nn.Module):
    """Residual blocks at several resolutions, each half of the one before, and skips between the ways down and up."""

    def __init__(self, widths: Sequence[int], blocks: Sequence[int]) -> None:
        super().__init__()
        levels, down, up = len(widths), blocks[: len(widths)], blocks[len(widths) :]
        self.embed = nn.Sequential(
            nn.Linear(_TRAITS, _EMBEDDING), nn.SiLU(), nn.Linear(_EMBEDDING, _EMBEDDING), nn.SiLU()
        )
        self.first = nn.Conv3d(_MOVING + _FIXED, widths[0], 3, padding=1)
        self.down = nn.ModuleList([Blocks(width, number) for width, number in zip(widths, down, strict=True)])
        self.coarser = nn.ModuleList([nn.Conv3d(*pair, 2, stride=2) for pair in pairwise(widths)])
        self.finer = nn.ModuleList([nn.ConvTranspose3d(*pair, 2, stride=2) for pair in pairwise(widths[::-1])])
        self.up = nn.ModuleList([Blocks(width, number) for width, number in zip(widths[-2::-1], up, strict=True)])
        self.last = zeroed(nn.Conv3d(widths[0], 1, 3, padding=1))
        self.multiple = 2 ** (levels - 1)

    @property
    def halo(self) -> int:
        """How many voxels around a tile its change depends on: two convolutions a block, each one cell of its level.

        And what is left of the coarsest cell that a voxel lies in.
        """
        levels = [*range(len(self.down)), *range(len(self.down) - 2, -1, -1)]
        reach = 2 + sum(
            2 * len(blocks) * 2**level for level, blocks in zip(levels, [*self.down, *self.up], strict=True)
        )
        return -(-(reach + self.multiple - 1) // self.multiple) * self.multiple

    def forward(self, inputs: Tensor, traits: Tensor) -> tuple[Tensor, Tensor]:
        """Inputs (N, 12, X, Y, Z) and traits (N, 13) to features (N, widths[0], X, Y, Z) and change (N, 1, X, Y, Z)."""
        embedded, features, skips = self.embed(traits), self.first(channels_last(inputs)), []
        for level, blocks in enumerate(self.down):
            features = blocks(self.coarser[level - 1](features) if level else features, embedded)
            skips.append(features)
        skips.pop()
        for finer, blocks in zip(self.finer, self.up, strict=True):
            features = blocks(skips.pop() + finer(features), embedded)
        return features, self.last(features)


class Blocks(nn.ModuleList):
    """Residual blocks in a row."""

    def __init__(self, width: int, number: int) -> None:
        super().__init__([Block(width) for _ in range(number)])

    def forward(self, features: Tensor, embedded: Tensor) -> Tensor:
        """Features of the same shape."""
        for block in self:
            features = block(features, embedded)
        return features


class Block(Checkpointed):
    """Convolution, FiLM, SiLU, convolution, and a skip: no norm, which would wash out intensities."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv3d(width, width, 3, padding=1), nn.Conv3d(width, width, 3, padding=1)
        self.film = zeroed(nn.Linear(_EMBEDDING, 2 * width))
        with torch.no_grad():
            self.conv2.weight.mul_(0.3)  # many blocks in a row begin near to no change

    def forward(self, features: Tensor, embedded: Tensor) -> Tensor:
        """Features of the same shape."""
        scale, shift = self.film(embedded)[:, :, None, None, None].chunk(2, dim=1)
        hidden = self.conv1(features)
        return features + self.conv2(F.silu(hidden * (1 + scale).to(hidden.dtype) + shift.to(hidden.dtype)))


def in_tiles(
    correct: Callable[[Tensor], Tensor], inputs: Sequence[Tensor], *, at_once: int | None, halo: int
) -> Tensor:
    """``correct`` of the channels of all ``inputs``, tile by tile with ``halo`` voxels around each, ``at_once`` in all.

    Sizes that are no multiple of MULTIPLE are continued by their edge values.
    """
    shape = inputs[0].shape[2:]
    if at_once is None or math.prod(shape) <= at_once:
        return _cut(correct(_joined(inputs, [slice(None)] * 3)), shape)
    whole = None
    for box, around in _tiles([n + -n % MULTIPLE for n in shape], at_once, halo):
        part = correct(_joined(inputs, around))
        if whole is None:
            whole = part.new_empty(*part.shape[:2], *shape)
        inner = [slice(b.start - a.start, min(b.stop, n) - a.start) for b, a, n in zip(box, around, shape, strict=True)]
        whole[(..., *box)] = part[(..., *inner)]
    return whole


def _joined(inputs: Sequence[Tensor], part: Sequence[slice]) -> Tensor:
    """The channels of all inputs in a part of the volume, continued where the volume ends."""
    return _continued(torch.cat([one[(..., *part)] for one in inputs], dim=1))


def _detail(volume: Tensor) -> Tensor:
    """What is finer than 4 x 4 x 4 voxels: in bf16 a bright voxel has no room for it."""
    whole = _continued(volume)
    coarse = F.interpolate(F.avg_pool3d(whole, 4), size=whole.shape[2:], mode="trilinear")
    return volume - _cut(coarse, volume.shape[2:])


def _cut(volume: Tensor, shape: Sequence[int]) -> Tensor:
    return volume[(..., *(slice(0, n) for n in shape))]


def _continued(volume: Tensor) -> Tensor:
    missing = [-n % MULTIPLE for n in volume.shape[2:]]
    x, y, z = missing
    return F.pad(volume, (0, z, 0, y, 0, x), mode="replicate") if any(missing) else volume


def _tiles(shape: Sequence[int], at_once: int, halo: int) -> Iterator[tuple[tuple[slice, ...], tuple[slice, ...]]]:
    """Boxes that make up a volume, and each with ``halo`` around it, inside of it: of at most ``at_once`` voxels.

    Of all such ways the one with the least to compute; where there is none, that of the smallest tiles.
    """
    ways = product(*(_cuts(n, halo) for n in shape))
    least = min(ways, key=lambda way: (max(at_once, math.prod(map(_longest, way))), math.prod(map(_total, way))))
    for parts in product(*least):
        yield tuple(zip(*parts, strict=True))


def _cuts(n: int, halo: int) -> list[_Cut]:
    """The ways to cut an axis into up to _MOST_CUTS parts: each part, and the same with the halo around it."""
    sizes = sorted({-(-n // (number * MULTIPLE)) * MULTIPLE for number in range(1, _MOST_CUTS + 1)})
    halo = -(-halo // MULTIPLE) * MULTIPLE  # a tile begins where a cell of the coarsest level does
    return [
        [(slice(a, min(a + size, n)), slice(max(0, a - halo), min(n, a + size + halo))) for a in range(0, n, size)]
        for size in sizes
    ]


def _longest(cut: _Cut) -> int:
    return max(around.stop - around.start for _, around in cut)


def _total(cut: _Cut) -> int:
    return sum(around.stop - around.start for _, around in cut)
