"""Several losses at once, by name, each reported unweighted."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

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
