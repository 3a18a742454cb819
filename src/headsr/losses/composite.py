"""Several terms of image loss at once, by name, each reported unweighted."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from torch import Tensor

from headsr.losses.gradient import gradient_loss
from headsr.losses.pixel import l1_loss
from headsr.losses.wavelet import wavelet_loss

IMAGE_LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "l1": l1_loss,
    "gradient": gradient_loss,
    "wavelet": wavelet_loss,
}


def image_terms(names: Iterable[str], predicted: Tensor, target: Tensor) -> dict[str, Tensor]:
    """The unweighted loss of every name that is an image loss, for slices (N, 1, H, W)."""
    return {name: IMAGE_LOSSES[name](predicted, target) for name in names if name in IMAGE_LOSSES}


def refuse_unknown_terms(weights: Mapping[str, float], known: Iterable[str]) -> None:
    """Raise ValueError for a loss that the training does not have, or when no loss is left."""
    known = tuple(known)
    for name in weights:
        if name not in known:
            raise ValueError(f"losses.{name} is not a loss of this training; known: {', '.join(known)}")
    if not any(weight > 0 for weight in weights.values()):
        raise ValueError(f"losses: at least one weight must be positive; known: {', '.join(known)}")


def weighted_sum(terms: Mapping[str, Tensor], weights: Mapping[str, float]) -> Tensor:
    """The scalar to descend on."""
    return sum(weights[name] * terms[name] for name in weights)
