"""Fit a field to the scans of one head, with their own acquisition operators and, if wanted, a frozen slice prior."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from headsr.acquisition.consistency import allowed
from headsr.acquisition.least_squares import relative_trust, steepness
from headsr.acquisition.measurement import Study
from headsr.devices import generator_of
from headsr.fields.consistent import ConsistentField
from headsr.inr.grid_network import GridNetwork
from headsr.inr.prior import SlicePrior
from headsr.progress import Progress
from headsr.recipes import Fit, Inr
from headsr.reconstruct.estimate import FieldEstimate
from headsr.reconstruct.interpolate import fused_average
from headsr.reconstruct.projected import project_onto
from headsr.reconstruct.weight import best_weight
from headsr.weights import TrainedModel

_EDGE = 0.02  # second differences above this (normalised intensity) count as edges, which smoothing spares
_FIRST = 0.03  # where the search for the smoothness begins, in standard deviations of the noise
_LIMITS = (3e-4, 10.0)  # below, the steps of a fit end before what the scans leave open is smooth
_BLOCK = 125_000  # voxels on which it is searched: what six to ten whole fits would cost is too much
_LOG_EVERY = 10


class FitError(RuntimeError):
    """A fit cannot go on. The message says at which step and what to try."""


def fit_field(study: Study, method: Inr, models: Mapping[str, TrainedModel]) -> FieldEstimate:
    """The field of a fit (recipes.Inr), which agrees with the scans at every whole scale, to within their noise.

    Its record says how the smoothness was chosen. Raises FitError if the loss stops being finite.
    """
    fit, chosen = _with_smoothness(study, method.fit)
    start = _start(study, fit)
    prior = SlicePrior(models[method.prior], study, fit=fit) if method.prior else None
    network, history = fit_network(study, start, fit=fit, prior=prior)
    field, volume, projection = consistent_field(network, start, study)
    return FieldEstimate(volume, {"consistency": projection, **chosen}, field=field, history=history)


def fit_network(
    study: Study, start: NDArray[np.float32], *, fit: Fit, prior: SlicePrior | None = None
) -> tuple[GridNetwork, list[dict[str, float]]]:
    """Minimise, over the field f on the head's voxels, with Adam and a cosine rate:

    sum_k v_k/2 |A_k f - y_k|^2 + smoothness sum rho(second differences of f) + the prior's penalty,

    v_k = 1/noise_k^2 relative to the least noisy scan, rho the pseudo-Huber function that spares edges. f is ``start``
    (X, Y, Z) plus the network. Returns the network and the lines of its history.
    """
    device = study.scans[0].data.device
    generator = generator_of(fit.seed, study.source_key, "field")
    network = GridNetwork(study.head.shape, fit.field, generator=generator).to(device)
    optimizer = torch.optim.Adam(network.parameter_groups(fit.learning_rate), betas=(0.9, 0.99), eps=1e-15, fused=True)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _cosine(step / fit.steps))
    carried, lines = torch.as_tensor(start, device=device), []
    print(f"fitting {'x'.join(map(str, study.head.shape))} voxels to {len(study.scans)} scans on {device}")
    progress = Progress("fit", first=0, last=fit.steps)
    for step in range(1, fit.steps + 1):
        volume = carried + network()
        measures = _ask(prior, volume.detach(), step, fit)
        terms = _terms(volume, study, fit, prior)
        optimizer.zero_grad(set_to_none=True)
        sum(terms.values()).backward()
        optimizer.step()
        schedule.step()
        if step % _LOG_EVERY == 0 or step == fit.steps or measures:
            lines.append(_line(step, terms, measures))
        if progress.due():
            progress.report(step, float(sum(terms.values()).detach()))
    return network, lines


def consistent_field(
    network: GridNetwork, start: NDArray[np.float32], study: Study
) -> tuple[ConsistentField, NDArray[np.float32], dict[str, Any]]:
    """The field that agrees with the scans, its voxels (X, Y, Z) before it did, and what the projection did."""
    raw = network.as_field(study.head)
    volume = start + raw.evaluate(study.head)
    projected, projection = project_onto(volume, study)
    in_scan_units = {"scale": study.scale, "offset": study.offset, "signed": study.signed}
    return ConsistentField.of(raw, projected, **in_scan_units), volume, projection


def _with_smoothness(study: Study, fit: Fit) -> tuple[Fit, dict[str, Any]]:
    """The fit with its smoothness, and what the sidecar says of it. It is chosen for the data term alone."""
    if fit.smoothness is not None:
        return fit, {}

    def solve(block: Study, weight: float) -> NDArray[np.float32]:
        start = _start(block, fit)
        network, _ = fit_network(block, start, fit=replace(fit, smoothness=weight))
        with torch.no_grad():
            return start + network().cpu().numpy()

    first = _FIRST * min(allowed(scan) for scan in study.scans)
    choice = best_weight(solve, study, first=first, limits=_LIMITS, voxels=_BLOCK)
    return replace(fit, smoothness=choice.weight), {"smoothness": choice.record()}


def _start(study: Study, fit: Fit) -> NDArray[np.float32]:
    if fit.field.start == "average":
        return fused_average(study)
    return np.zeros(study.head.shape, dtype=np.float32)


def _ask(prior: SlicePrior | None, volume: Tensor, step: int, fit: Fit) -> dict[str, float]:
    """Let the prior see the volume where it is due; what it wants to change, for the history."""
    done = step - 1 - math.ceil(fit.prior_from * fit.steps)
    if prior is None or done < 0 or done % fit.prior_every:
        return {}
    return {"prior_change": prior.visit(volume)}


def _terms(volume: Tensor, study: Study, fit: Fit, prior: SlicePrior | None) -> dict[str, Tensor]:
    terms = {"data": _misfit(volume, study), "smoothness": fit.smoothness * _roughness(volume, study)}
    if prior is not None and prior.visits:
        terms["prior"] = prior.penalty(volume)
    return terms


def _misfit(volume: Tensor, study: Study) -> Tensor:
    misfits = [
        v * (scan.operator.forward(volume) - scan.data).square().sum()
        for v, scan in zip(relative_trust(study.scans), study.scans, strict=True)
    ]
    return 0.5 * sum(misfits)


def _roughness(volume: Tensor, study: Study) -> Tensor:
    """sum sqrt(d^2 + edge^2) - edge over the second differences d along each axis, per finest voxel size.

    Second, not first: what the scans leave open between thick slices should bend little, not step (measured: 0.2 to 0.3
    dB more from one thick scan than smoothing first differences, and no less from three).
    """
    bends = (steep * volume.diff(dim=axis, n=2) for axis, steep in enumerate(steepness(study.head)))
    return sum((torch.sqrt(bend**2 + _EDGE**2) - _EDGE).sum() for bend in bends)


def _cosine(done: float) -> float:
    return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * done))


def _line(step: int, terms: dict[str, Tensor], measures: dict[str, float]) -> dict[str, float]:
    line = {"step": step, **{name: float(term.detach()) for name, term in terms.items()}, **measures}
    if not all(math.isfinite(value) for value in line.values()):
        raise FitError(f"the fit diverged by step {step} ({line}). Lower fit.learning_rate in the method's recipe")
    return line
