"""How much to smooth: by what an estimate would miss of a second measurement of the same head, without a second one.

Stein's unbiased risk estimate (SURE; Stein 1981): the noise of a scan is known, so how far A x is from the scan without
noise follows from the residual and from how much of the noise the estimate follows. That is the trace of its
derivative, which a twin measures: the same estimate of the same scans with a little more noise (Ramani, Blu and Unser
2008). Nothing is asked of a method but that it solves. docs/results/classical.md shows what it costs against the truth.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from headsr.acquisition.block import middle_of
from headsr.acquisition.consistency import allowed
from headsr.acquisition.measurement import Study
from headsr.devices import generator_of
from headsr.reconstruct.estimate import Estimate

_STEP, _WIDTHS = math.sqrt(10), (1.0, 0.5)
_TWIN = 0.5  # the twin's added noise, in standard deviations of the scan's own
_BLOCK = 500_000  # voxels on which weights are tried, where nothing else is said

Solve = Callable[[Study, float], NDArray[np.float32]]


@dataclass(frozen=True)
class Choice:
    """A chosen weight, and the curve that it comes from: every weight tried, rising, with its estimated error."""

    weight: float
    curve: tuple[tuple[float, float], ...]

    def record(self) -> dict[str, Any]:
        """For the sidecar."""
        criterion = "Stein's unbiased estimate of the squared prediction error over the head, in variances of the noise"
        return {"weight": self.weight, "criterion": criterion, "curve": [list(point) for point in self.curve]}


def smoothed(
    solve: Solve, study: Study, weight: float | None, *, first: float, limits: tuple[float, float]
) -> Estimate:
    """The estimate ``solve(study, weight)``; where the weight is None the best one, and the record says how found."""
    if weight is not None:
        return Estimate(solve(study, weight))
    choice = best_weight(solve, study, first=first, limits=limits)
    return Estimate(solve(study, choice.weight), {"smoothness": choice.record()})


def best_weight(
    solve: Solve, study: Study, *, first: float, limits: tuple[float, float], voxels: int = _BLOCK
) -> Choice:
    """The weight at which the estimate ``solve(study, weight)`` (X, Y, Z) has the least estimated prediction error.

    Goes down the curve from about ``first`` in half decades, then in quarters, and takes the vertex of the parabola
    through the three lowest points: wider ones lean to the flat side. No weight beyond ``limits`` is tried. Large heads
    are tried on a block in their middle.
    """
    block, curve, least = middle_of(study, voxels=voxels), {}, limits[0]
    noise, steps = _twin_noise(block), math.floor(math.log(limits[1] / least, _STEP) + 1e-9)

    def error(step: float) -> float:
        weight = _at(step, least)
        if weight not in curve:
            curve[weight] = prediction_error(solve, block, weight, noise)
            print(f"weight {weight:.3g}: estimated prediction error {curve[weight]:.4g}", flush=True)
        return curve[weight]

    start = min(max(0, round(math.log(first / least, _STEP))), steps)
    weight = _at(_lowest(error, start, steps), least)
    print(f"weight {weight:.3g} chosen: least estimated prediction error", flush=True)
    return Choice(weight, tuple(sorted(curve.items())))


def prediction_error(solve: Solve, study: Study, weight: float, noise: Sequence[Tensor]) -> float:
    """SURE of |A x - A truth|^2 / noise^2, the mean over all samples of the head.

    ``noise`` are signs (x, y, z) for every scan, zero outside the head, whose multiple a twin has added.
    """
    estimate = torch.as_tensor(solve(study, weight), device=study.scans[0].data.device)
    steps = [_TWIN * allowed(scan) for scan in study.scans]
    scans = (replace(scan, data=scan.data + step * b) for scan, step, b in zip(study.scans, steps, noise, strict=True))
    change = torch.as_tensor(solve(replace(study, scans=tuple(scans)), weight), device=estimate.device) - estimate
    total, samples = 0.0, 0
    for scan, step, b in zip(study.scans, steps, noise, strict=True):
        followed = float((scan.operator.forward(change) * b).double().sum()) / step
        misfit = (scan.rms(scan.operator.forward(estimate) - scan.data) / allowed(scan)) ** 2
        count = int(scan.head.sum())
        total, samples = total + count * (misfit - 1) + 2 * followed, samples + count
    return total / samples


def _twin_noise(study: Study) -> list[Tensor]:
    """A sign (x, y, z) for every sample of the head, drawn by the names of study and scan."""
    signs = []
    for scan in study.scans:
        generator = generator_of(study.source_key, study.degradation, scan.view, "twin")
        drawn = 2.0 * torch.randint(0, 2, scan.data.shape, generator=generator) - 1
        signs.append(drawn.to(scan.data.device) * scan.head)
    return signs


def _at(step: float, least: float) -> float:
    return float(f"{least * _STEP**step:.3g}")


def _lowest(error: Callable[[float], float], start: float, most: float) -> float:
    """Where a curve over 0 to ``most`` that falls and rises again is lowest, downhill from ``start``."""
    step = start
    for width in _WIDTHS:
        while step + width <= most and error(step + width) < error(step):
            step += width
        while step - width >= 0 and error(step - width) < error(step):
            step -= width
    if not width <= step <= most - width:
        return step
    before, here, after = error(step - width), error(step), error(step + width)
    bend = before - 2 * here + after
    return step + width * 0.5 * (before - after) / bend if bend > 0 else step
