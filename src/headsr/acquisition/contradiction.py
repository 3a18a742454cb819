"""How far the scans of one head contradict each other: the noise that they seem to have when one volume explains all.

The best volume for all scans leaves of true noise a known share, for most of it can be fitted; how much is tried with
noise of the stated size. What the scans leave, divided by that share, is the noise that they seem to have: its usual
estimate from what a least-squares fit leaves, with the degrees of freedom counted scan by scan. A wrong placement, gain
or profile leaves more than noise does.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import islice

import torch
from torch import Tensor

from headsr.acquisition.measurement import Measurement
from headsr.acquisition.near_head import NearHead

_ITERATIONS = 32
_PATIENCE = 4
_STEADY = 0.9  # of what it seemed to be so many iterations before
_LEAST_SHARE = 0.1  # of the noise: scans that share less of the head do not check each other
_SURE = 1.05  # noise that seems so much larger is no contradiction; Rician noise does where it is dark
_UNFITTED = 0.05  # of a residual, which the iterations may have left though it can be fitted
# Two scans tell the sum of the squares of their errors; all of it may be one's, and slices of two directions share no
# more than their blurred part. Over 108 random studies with faults, from an estimate of 34 dB, projections cost up to
# 12.3 dB with 1 here, 3.4 with 2, 1.3 with 3, 0.4 with 4, 0.3 with 6 (9.0, 1.9, 0.7, 0.2 and 0 from one of 30 dB).
# Methods that gain lose that with it: the average of stacks 0.2 mm off in a head of 2 mm gains 4.4, 4.1, 3.9 and 3.1 dB
# with 1, 2, 3 and 6. With 4 one of 180 in the tests lost 0.76 dB, with 6 none loses anything.
_UNSEEN = 6.0


def explained_by(left: list[Tensor], near: NearHead, noise: Sequence[float]) -> list[float]:
    """The root mean square residual of every scan that its noise and the scans' contradiction explain together.

    ``left`` are the residuals of some volume, of which only their size matters; ``noise`` is the standard deviation of
    every scan. One scan contradicts nothing.
    """
    if len(near.scans) == 1:
        return list(noise)
    return [_explained(*of_scan) for of_scan in zip(_seeming(left, near, noise), noise, near.rms(left), strict=True)]


def _seeming(left: list[Tensor], near: NearHead, noise: Sequence[float]) -> list[float]:
    """The noise that every scan seems to have: once it is its own, or steady."""
    history: list[list[float]] = []
    descents = zip(near.descent(left), near.descent(_noise_like(near, noise)), strict=False)
    for (_, _, of_scans), (_, _, of_noise) in islice(descents, _ITERATIONS):
        quadruples = zip(near.rms(of_scans), near.rms(of_noise), noise, near.scans, strict=True)
        history.append([_of_scan(*of_scan) for of_scan in quadruples])
        own = all(now <= _SURE * sigma for now, sigma in zip(history[-1], noise, strict=True))
        then = history[-1 - _PATIENCE] if len(history) > _PATIENCE else [math.inf]
        if own or max(history[-1]) > _STEADY * max(then):
            break
    return history[-1] if history else list(noise)


def _of_scan(irreducible: float, of_noise: float, noise: float, scan: Measurement) -> float:
    """The noise that one scan seems to have, less what chance may add: two standard deviations of both estimates."""
    share = of_noise / noise
    if share < _LEAST_SHARE:
        return noise
    free = share**2 * int(scan.head.sum())  # degrees of freedom
    return irreducible / share / (1 + 2 / max(1.0, free) ** 0.5)


def _explained(seeming: float, noise: float, before: float) -> float:
    excess = max(0.0, seeming**2 - (_SURE * noise) ** 2 - (_UNFITTED * before) ** 2)
    return (noise**2 + _UNSEEN * excess) ** 0.5


def _noise_like(near: NearHead, noise: Sequence[float]) -> list[Tensor]:
    """White noise in every scan, the same however much air lies around the head."""
    generator = torch.Generator().manual_seed(0)
    return [
        torch.zeros_like(scan.data).masked_scatter(
            samples, (sigma * torch.randn(int(samples.sum()), generator=generator)).to(scan.data)
        )
        for scan, samples, sigma in zip(near.scans, near.samples, noise, strict=True)
    ]
