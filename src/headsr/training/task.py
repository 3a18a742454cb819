"""What differs between the kinds of model: their networks, the losses of a step, and what is measured."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from headsr.losses.composite import loss_terms
from headsr.networks.build import build_network
from headsr.recipes import Model
from headsr.weights import TrainedModel

_VALIDATION_SIZE = 32


class Task(Protocol):
    """A training. Its class is built from a Setting, and named by the recipe's class (``Model.part``).

    ``turns`` are the names of the networks that are trained, in the order in which each step trains them. The first is
    ``network``, whose average is the model.
    """

    turns: tuple[str, ...]

    def networks(self) -> dict[str, nn.Module]:
        """Every network with its random weights, by its turn."""

    def begin(self, networks: Mapping[str, nn.Module]) -> None:
        """Set, in place and on the device, what is known or measured before the first step."""

    def terms(self, turn: str, networks: Mapping[str, nn.Module], step: int) -> dict[str, Tensor]:
        """Unweighted losses of a turn by name: a pure function of the weights and of which batch it is, from 1."""

    def validate(self, network: nn.Module) -> dict[str, float]:
        """Measures of an averaged network on fixed examples of the validation scans."""

    def finish(self, network: nn.Module) -> dict[str, float]:
        """Set, in place, what an averaged network needs for its use, and measure what takes too long for validate."""


class Batches(Protocol):
    """The examples of one split: of ``budget.batch`` a step, or of another size. A pure function of both."""

    def batch(self, step: int, size: int | None = None) -> Any:
        """The examples of a step, on the device."""


@dataclass(frozen=True, eq=False)
class Setting:
    """What a task works with: recipe, examples to train on and to validate by, and the frozen models that it names.

    ``build`` makes a network of its block; the key of the block, where it is not ``network``, is for its errors.
    """

    recipe: Model
    train: Batches
    held_out: Batches
    companions: Mapping[str, TrainedModel]
    device: torch.device
    build: Callable[..., nn.Module] = build_network

    @cached_property
    def validation(self) -> Any:
        """The fixed examples of the validation scans."""
        return self.held_out.batch(0, _VALIDATION_SIZE)

    @cached_property
    def batch(self) -> Callable[[int], Any]:
        """The examples of a step to train on, drawn once for all its turns."""
        return lru_cache(maxsize=self.recipe.optimizer.accumulation)(self.train.batch)

    def losses(self, offered: Mapping[str, tuple[Tensor, Tensor]]) -> dict[str, Tensor]:
        """Every loss of the recipe that compares what is offered (losses.composite.loss_terms)."""
        used = {name: term for name, term in self.recipe.losses.items() if term.weight > 0}
        makers = {name: self.companions[term.features].module for name, term in used.items() if term.features}
        return loss_terms(used, offered, makers)


class OneNetwork:
    """What trainings of a single network share: it is the model, and needs nothing before its steps and after them."""

    turns: tuple[str, ...] = ("network",)

    def __init__(self, setting: Setting) -> None:
        self.setting = setting

    def networks(self) -> dict[str, nn.Module]:
        """The network of the recipe alone."""
        return {"network": self.setting.build(self.setting.recipe.network)}

    def begin(self, networks: Mapping[str, nn.Module]) -> None:
        """Nothing is known before the first step."""

    def finish(self, network: nn.Module) -> dict[str, float]:
        """The network is used as it is."""
        return {}
