"""Shipped weights in use: loaded as any trained model is, and verified for people."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from headsr.acquisition.evidence import Evidence
from headsr.acquisition.operator import Acquisition
from headsr.models.card import MOST_BYTES, PACKAGE, Card, CardError, checked_weights
from headsr.recipes import versions
from headsr.recipes.models import IMAGE_FEATURES
from headsr.recipes.shipped import card_of
from headsr.volumes import Grid
from headsr.weights import StateError, TrainedModel, load_model, made_of

_SIDE = 16  # of the zeros that a network is tried on


def load_shipped(
    name: str, device: str | torch.device = "cpu", *, folder: str | os.PathLike[str] = PACKAGE
) -> TrainedModel:
    """A shipped model, in evaluation mode, without gradients.

    StateError for weights that are not those of their card, a half that is missing, and a name that there is not.
    """
    try:
        card_of(name, folder)
        return load_model(checked_weights(name, folder), device=device)
    except CardError as error:
        raise StateError(str(error)) from error


def verify_shipped(name: str, *, folder: str | os.PathLike[str] = PACKAGE) -> str:
    """What was found good of a shipped model, in words.

    StateError for the first thing that is not: hash, size, format, what the card says that it is, the version of its
    networks, weights that are not finite, and what the network makes of zeros where its kind is quickly asked.
    """
    model, card = load_shipped(name, folder=folder), card_of(name, folder)
    path = checked_weights(name, folder)
    _refuse_other_facts(path, card)
    weights = [tensor for tensor in model.module.state_dict().values() if tensor.is_floating_point()]
    if not all(tensor.isfinite().all() for tensor in weights):
        raise StateError(f"{path}: holds numbers that are not finite. {_way_out(card)}")
    said = f"{card.bytes:,} bytes as its card says, {sum(tensor.numel() for tensor in weights):,} finite numbers"
    if card.kind not in _ASKED:
        return said
    with torch.no_grad():
        answers = _ASKED[card.kind](model.module)
    if not all(answer.isfinite().all() for answer in answers):
        raise StateError(f"{path}: makes numbers that are not finite of zeros. {_way_out(card)}")
    return f"{said}, and so is what it makes of zeros"


def _refuse_other_facts(path: str | os.PathLike[str], card: Card) -> None:
    size, made = os.path.getsize(path), made_of(path)
    said = (card.bytes, card.kind, list(card.architectures))
    if (found := (size, made.task, made.architectures)) != said:
        raise StateError(f"{path}: is {found}, its card says {said} (bytes, kind, networks). {_way_out(card)}")
    for part in (f"network.{architecture}" for architecture in card.architectures):
        now, then = versions(part)[part], made.stage.get(part)
        if then not in (None, now):  # of the networks beside its own no record says it
            raise StateError(f"{path}: is of version {then} of {part}, this is {now}. {_way_out(card)}")
    if size > MOST_BYTES and not card.imported:  # which lie in a folder of somebody's own
        raise StateError(f"{path}: has {size:,} bytes, more than {MOST_BYTES:,}. Ship a smaller model")


def _way_out(card: Card) -> str:
    return "Import the file again" if card.imported else "Train the model again, and ship it"


def _of_a_slice(network: nn.Module) -> Sequence[Tensor]:
    made = network(torch.zeros(1, 1, _SIDE, _SIDE))
    return [made] if isinstance(made, Tensor) else made


def _of_a_scan(network: nn.Module) -> Sequence[Tensor]:
    head = Grid((_SIDE,) * 3, np.eye(4))
    thick = head.thick(2, 4)
    refined = network(Evidence([Acquisition(head, thick, axis=2)], [torch.zeros(1, 1, *thick.shape)], [0.01]))
    return [refined.volume, refined.log_spread]


def _of_an_image(network: nn.Module) -> Sequence[Tensor]:
    return network.features(torch.zeros(1, 1, _SIDE, _SIDE))


# What a network makes of zeros, by its kind. Kinds that are not here take more than that.
_ASKED: dict[str, Callable[[nn.Module], Sequence[Tensor]]] = {
    "baseline": _of_a_slice,
    "adversarial": _of_a_slice,
    "slice_encoder": _of_a_slice,
    "unrolled": _of_a_scan,
    IMAGE_FEATURES: _of_an_image,
}
