"""What the next step of a training depends on, and its file."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from headsr.recipes.models import Optimizer
from headsr.training.ema import averaged_copy
from headsr.weights import StateError, load_tensors, save_tensors


@dataclass(eq=False)
class Learner:
    """One network that is trained: its weights, their average, and its optimiser."""

    module: nn.Module
    averaged: nn.Module
    optimizer: torch.optim.AdamW


@dataclass(eq=False)
class TrainingState:
    """Everything that the next step depends on: the learners by name, the step, and the history.

    ``sums`` and ``count`` accumulate the losses since the last line of ``history``.
    """

    learners: dict[str, Learner]
    step: int = 0
    history: list[dict[str, float]] = field(default_factory=list)
    sums: dict[str, float | Tensor] = field(default_factory=dict)
    count: int = 0


def new_state(networks: Mapping[str, nn.Module], recipe: Optimizer) -> TrainingState:
    """The state before the first step."""
    return TrainingState(
        {
            name: Learner(module, averaged_copy(module), _optimizer_of(module, recipe))
            for name, module in networks.items()
        }
    )


def save_state(path: str | os.PathLike[str], state: TrainingState, *, identity: Mapping[str, Any]) -> None:
    """Write the state whole or not at all. ``identity`` says what was trained; equal trainings give equal bytes."""
    progress = {"step": state.step, "history": state.history, "sums": _numbers(state.sums), "count": state.count}
    save_tensors(path, dict(_tensors_of(state)), {"identity": dict(identity), **progress})


def load_state(path: str | os.PathLike[str], state: TrainingState, *, identity: Mapping[str, Any]) -> None:
    """Read a saved state into ``state``. StateError if it belongs to another recipe, other data or another stage."""
    tensors, metadata = load_tensors(path)
    refuse_other(path, metadata.get("identity", {}), identity)
    for name, learner in state.learners.items():
        learner.module.load_state_dict(_part(tensors, f"{name}.module."))
        learner.averaged.load_state_dict(_part(tensors, f"{name}.average."))
        _set_moments(learner, _part(tensors, f"{name}.optimizer."))
    for name in ("step", "history", "sums", "count"):
        setattr(state, name, metadata[name])


def load_average(path: str | os.PathLike[str], name: str, network: nn.Module) -> nn.Module:
    """``network`` with the averaged weights of the learner ``name`` of a saved state."""
    tensors, _ = load_tensors(path)
    network.load_state_dict(_part(tensors, f"{name}.average."))
    return network


def refuse_other(path: str | os.PathLike[str], found: Mapping[str, Any], identity: Mapping[str, Any]) -> None:
    """StateError that says in what the training of a state differs from the one that is asked for."""
    wanted = json.loads(json.dumps(dict(identity)))
    if found != wanted:
        changed = sorted(key for key in {*found, *wanted} if found.get(key) != wanted.get(key))
        raise StateError(f"{path}: is the state of another training (different: {', '.join(changed)}). Delete it")


def _optimizer_of(module: nn.Module, recipe: Optimizer) -> torch.optim.AdamW:
    """AdamW in which only weights of several dimensions decay, not gains and biases; the loop sets its rate."""
    parameters = list(module.parameters())
    weights, others = ([p for p in parameters if (p.ndim > 1) == decays] for decays in (True, False))
    groups = [{"params": weights, "weight_decay": recipe.weight_decay}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW([group for group in groups if group["params"]], betas=recipe.betas)


def _tensors_of(state: TrainingState) -> Iterator[tuple[str, Tensor]]:
    for name, learner in state.learners.items():
        for key, tensor in learner.module.state_dict().items():
            yield f"{name}.module.{key}", tensor
        for key, tensor in learner.averaged.state_dict().items():
            yield f"{name}.average.{key}", tensor
        for key, tensor in _moments_of(learner):
            yield f"{name}.optimizer.{key}", tensor


def _moments_of(learner: Learner) -> Iterator[tuple[str, Tensor]]:
    """What the optimiser knows of each parameter, by the parameter's name; nothing before the first step."""
    known = learner.optimizer.state
    for name, parameter in learner.module.named_parameters():
        if parameter in known:
            yield from ((f"{name}.{kind}", tensor) for kind, tensor in known[parameter].items())


def _set_moments(learner: Learner, moments: Mapping[str, Tensor]) -> None:
    parameters = dict(learner.module.named_parameters())
    for name, moment in moments.items():
        parameter, kind = name.rsplit(".", 1)
        # The step counter stays on the CPU, where torch keeps it.
        device = parameters[parameter].device if kind != "step" else "cpu"
        learner.optimizer.state[parameters[parameter]][kind] = moment.to(device)


def _numbers(sums: Mapping[str, float | Tensor]) -> dict[str, float]:
    return {name: float(value) for name, value in sums.items()}


def _part(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
