"""What was measured stays measured: project a volume onto its scans, and map what is left."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

import torch
from torch import Tensor

from headsr.acquisition.contradiction import explained_by
from headsr.acquisition.measurement import Measurement
from headsr.acquisition.near_head import NearHead, dot, near_head

# How a projection ends: the estimate agreed already; the projected volume does, to within the noise; the change was
# stopped where the residuals do not justify more; no one volume meets the scans, so it is as estimated.
OUTCOMES = ("agreed", "met", "bounded", "contradictory")
SHORT_OF_THE_NOISE = OUTCOMES[2:]

# Without noise a residual of this share of the intensity range is float32 rounding, not disagreement.
ROUNDING = 1e-4
_AIM = 0.9  # of what is explained: what a projection aims at, so that it need not be fitted exactly
_ROUNDED = 0.999  # of a limit: what float sums and volumes in scan units may add
_ROUNDS = 20
_ITERATIONS = 100
_PEAK = 3.0  # standard deviations that single values of noise rarely exceed


def residuals(volume: Tensor, scans: Sequence[Measurement]) -> list[Tensor]:
    """A x - y on each scan's own grid."""
    return [scan.operator.forward(volume) - scan.data for scan in scans]


def allowed(scan: Measurement) -> float:
    """The root mean square residual that the scan's noise explains."""
    return max(scan.noise, ROUNDING)


@dataclass(frozen=True, eq=False)
class Projection:
    """A volume (X, Y, Z) made to agree with its scans as far as they allow, and how that ended.

    ``outcome`` is one of OUTCOMES. ``change`` is the root mean square, over the head, of what the projection added, and
    ``change_at_most`` what the residuals justify: the root of the sum of their mean squares. ``explained`` is the root
    mean square residual of every scan that its noise explains, together with what the scans contradict each other.
    """

    volume: Tensor
    outcome: str
    change: float
    change_at_most: float
    explained: tuple[float, ...]


def project(volume: Tensor, scans: Sequence[Measurement], *, signed: bool = False) -> Projection:
    """The nearest volume that takes from each scan's residual what its noise cannot explain.

    Noise explains residuals of one size everywhere, the largest at which their root mean square over the head is the
    noise: what is larger, in its surroundings or alone, is reduced to it (the discrepancy principle, place by place:
    noise is not fitted). Air far from the head is as estimated. The smallest change c with A c = what is too much comes
    from conjugate gradients, again and again on what is left; for one scan with a box profile and an integer factor
    their first iteration is the closed form.

    A change is never larger than the residuals justify: over the head its root mean square is at most the root of the
    sum of theirs squared, which box profiles without overlap need, if all of a residual is taken. Where the scans
    contradict each other, that counts as noise (headsr.acquisition.contradiction): no volume comes nearer to all of
    them, and what is fitted beyond is error. Unless ``signed`` the volume is never below zero: it is first set to zero
    where it is, and stays so.
    """
    start = volume if signed else volume.clamp_min(0.0)
    near, noise = near_head(scans), [allowed(scan) for scan in scans]
    left = near.left_by(start)
    at_most = _total(near.rms(left))
    if _within(near.rms(left), noise):
        return Projection(start, "agreed", 0.0, at_most, tuple(noise))
    explained = explained_by(left, near, noise)
    paid = sum(max(0.0, rms**2 - bound**2) for rms, bound in zip(near.rms(left), explained, strict=True)) ** 0.5
    change = _change(start, near, _Limits(explained, at_most, paid), signed)
    after = start + change
    outcome = _outcome(near.rms(left), near.rms(near.left_by(after)), noise, explained)
    return Projection(after, outcome, near.size(change), at_most, tuple(explained))


def _outcome(
    before: Sequence[float], after: Sequence[float], noise: Sequence[float], explained: Sequence[float]
) -> str:
    if _within(after, noise):
        return "met"
    return "contradictory" if _within(before, explained) else "bounded"


def _within(rms: Sequence[float], bounds: Sequence[float]) -> bool:
    return all(value <= bound for value, bound in zip(rms, bounds, strict=True))


@dataclass(frozen=True)
class _Limits:
    """How small the root mean square residual of every scan has to get, and how large that of the change may.

    ``paid`` is the root of what is then taken from the residuals' mean squares.
    """

    residuals: Sequence[float]
    change: float
    paid: float


def _change(start: Tensor, near: NearHead, limits: _Limits, signed: bool) -> Tensor:
    """What to add to ``start``: place by place; or as a whole, where that suffices and the other is not paid for.

    Where scans determine much of the head badly, what is wanted in places is mostly noise, and costs more than it takes
    away: up to 7.3 dB of an estimate as good as the scans, which gains 6.1 as a whole. Else places do better.
    """
    placed = _place_by_place(start, near, limits, signed)
    if near.size(placed) <= limits.paid:
        return placed
    whole = _as_a_whole(start, near, limits, signed)
    if _within(near.rms(near.left_by(start + whole)), limits.residuals):
        return whole
    # What may not fall below zero can leave a residual that is hardly more than rounding larger than it was.
    return placed if _total(near.rms(near.left_by(start + placed))) < limits.change else torch.zeros_like(start)


def _total(rms: Sequence[float]) -> float:
    return sum(value**2 for value in rms) ** 0.5


def _as_a_whole(start: Tensor, near: NearHead, limits: _Limits, signed: bool) -> Tensor:
    """Conjugate gradients on the residuals themselves, until all are within their limits; of the last step a part."""
    change, left = torch.zeros_like(start), near.left_by(start)
    for direction, step, rest in islice(near.descent(left), _ITERATIONS):
        enough = _within(near.rms(rest), limits.residuals)
        part = _part_of_step(left, rest, near, limits) if enough else 1.0
        further = change + part * step * direction
        if near.size(further) > limits.change:
            break
        change, left = further, rest
        if enough:
            break
    return change if signed else torch.maximum(change, -start)


def _part_of_step(before: list[Tensor], after: list[Tensor], near: NearHead, limits: _Limits) -> float:
    """Which part of a step brings all residuals within their limits, float rounding aside; by bisection."""
    low, high, limit = 0.0, 1.0, [_ROUNDED * bound for bound in limits.residuals]
    for _ in range(12):
        part = (low + high) / 2
        between = [torch.lerp(a, b, part) for a, b in zip(before, after, strict=True)]
        low, high = (low, part) if _within(near.rms(between), limit) else (part, high)
    return high


def _place_by_place(start: Tensor, near: NearHead, limits: _Limits, signed: bool) -> Tensor:
    """Round by round what each place has too much, until the residuals or the change come to their limits."""
    change, stopped = torch.zeros_like(start), False
    for _ in range(_ROUNDS):
        left = near.left_by(start + change)
        if stopped or _within(near.rms(left), limits.residuals):
            break
        quadruples = zip(left, near.scans, near.samples, limits.residuals, strict=True)
        kept = [_kept(*of_scan) for of_scan in quadruples]
        wanted = [r - k for r, k in zip(left, kept, strict=True)]
        free = near if signed or not change.any() else near.only(_may_change(start + change, wanted, near))
        change, stopped = _towards(wanted, kept, change, free, limits)
        change = change if signed else torch.maximum(change, -start)
    return change


def _may_change(volume: Tensor, wanted: list[Tensor], near: NearHead) -> Tensor:
    """The voxels that are above zero or rise: what those set to zero cannot give, the others have to."""
    return (volume > 0) | (near.adjoint(wanted) > 0)


def _towards(
    wanted: list[Tensor], kept: list[Tensor], change: Tensor, near: NearHead, limits: _Limits
) -> tuple[Tensor, bool]:
    """``change`` and what the scans see as ``wanted``, so far that with ``kept`` the residuals come to their limits.

    Conjugate gradients begin with what the scans determine best. What they determine badly would cost more noise than
    it takes away, so they stop as soon as they may; and the step that would leave the ball of the allowed changes is
    cut where it does (Steihaug 1983), which the second value says.
    """
    for direction, step, left in islice(near.descent(wanted), _ITERATIONS):
        further = change + step * direction
        if near.size(further) > limits.change:
            return change + _step_to_sphere(change, direction, near, limits.change) * direction, True
        change = further
        if _within(near.rms([k + w for k, w in zip(kept, left, strict=True)]), limits.residuals):
            break
    return change, False


def _step_to_sphere(change: Tensor, direction: Tensor, near: NearHead, radius: float) -> float:
    """The positive t with |change + t direction| = radius, root mean squares over the head."""
    a = near.size(direction) ** 2
    b = dot([change * near.voxels], [direction]) / max(1, int(near.voxels.sum()))
    c = min(0.0, near.size(change) ** 2 - radius**2)
    return ((b**2 - a * c) ** 0.5 - b) / a


def _kept(residual: Tensor, scan: Measurement, near: Tensor, explained: float) -> Tensor:
    """What is left of a residual (x, y, z) once of each value as much is taken as ``explained`` explains.

    A value r of size s keeps r / sqrt(1 + (s / level)^2): nearly all where it is small, the level where it is large.
    """
    if scan.rms(residual) <= explained:
        return residual
    squared_size = _squared_size(residual, near)
    steepness = _steepness(residual[scan.head], squared_size[scan.head], _AIM * explained)
    return residual * (1 + steepness * squared_size).rsqrt()


def _steepness(residual: Tensor, squared_size: Tensor, rms: float) -> float:
    """1 / level^2 at which the root mean square of what is kept is ``rms``; by bisection."""
    squared = residual.double().square()
    low, high = 0.0, (_PEAK / rms) ** 2  # no size is smaller than its value / _PEAK
    for _ in range(40):
        middle = (low + high) / 2
        kept = float((squared / (1 + middle * squared_size)).mean())
        low, high = (middle, high) if kept > rms**2 else (low, middle)
    return high


def _squared_size(residual: Tensor, near: Tensor) -> Tensor:
    """The mean square of a residual over 3 x 3 x 3 samples, or what a single value says that noise does not reach."""
    widths = [3 if n >= 3 else 1 for n in residual.shape]

    def mean(values: Tensor) -> Tensor:
        padding = [width // 2 for width in widths]
        return torch.nn.functional.avg_pool3d(values[None, None], widths, stride=1, padding=padding)[0, 0]

    inside = near.to(residual.dtype)
    around = mean(residual.square() * inside) / mean(inside).clamp_min(1e-6)
    return torch.maximum(around, (residual / _PEAK).square())
