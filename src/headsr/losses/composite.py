"""Several losses at once, by name, each reported unweighted."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn

from headsr.parts import LOSSES


def loss_terms(
    names: Iterable[str], offered: Mapping[str, tuple[Tensor, Tensor]], companions: Mapping[str, nn.Module]
) -> dict[str, Tensor]:
    """The unweighted loss of every name that compares what is ``offered``: what (parts.Loss.of) to its two sides.

    ``companions`` are the networks whose features some losses compare, by the loss.
    """
    return {
        name: LOSSES[name].load()(*offered[LOSSES[name].of], *([companions[name]] if name in companions else []))
        for name in names
        if LOSSES[name].of in offered
    }


def weighted_sum(terms: Mapping[str, Tensor], weights: Mapping[str, float]) -> Tensor:
    """The scalar to descend on."""
    return sum(weights[name] * term for name, term in terms.items())


def gradient_shares(terms: Mapping[str, Tensor], weights: Mapping[str, float], network: nn.Module) -> dict[str, float]:
    """Each weighted term's share of what pulls at a network: the norm of its own gradient over the sum of all norms.

    It leaves gradients as they are and the terms ready for their backward pass. Nothing for a single term, which has
    all of it, and where no term pulls.
    """
    if len(terms) < 2:
        return {}
    parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
    norms = {name: _pull(weights[name] * term, parameters) for name, term in terms.items()}
    total = sum(norms.values())
    return {name: norm / total for name, norm in norms.items()} if math.isfinite(total) and total else {}


def _pull(loss: Tensor, parameters: Sequence[nn.Parameter]) -> float:
    """The norm of a loss's gradient over parameters."""
    if not loss.requires_grad:
        return 0.0
    found = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
    norms = [gradient.double().norm() for gradient in found if gradient is not None]
    return float(torch.stack(norms).norm()) if norms else 0.0
