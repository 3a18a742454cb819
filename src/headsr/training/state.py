"""What the next step of a training depends on, and its file."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from headsr import recipes
from headsr.training.ema import averaged_copy
from headsr.weights import StateError, load_tensors, save_tensors


@dataclass
class TrainingState:
    """Everything that the next step depends on: weights, their average, the optimiser, the step, and the history.

    ``sums`` and ``count`` accumulate the losses since the last line of ``history``.
    """

    module: nn.Module
    averaged: nn.Module
    optimizer: torch.optim.AdamW
    step: int = 0
    history: list[dict[str, float]] = field(default_factory=list)
    sums: dict[str, float | Tensor] = field(default_factory=dict)
    count: int = 0


def new_state(module: nn.Module) -> TrainingState:
    """The state before the first step."""
    return TrainingState(module, averaged_copy(module), _optimizer_of(module))


def save_state(path: str | os.PathLike[str], state: TrainingState, *, identity: Mapping[str, Any]) -> None:
    """Write the state whole or not at all. ``identity`` says what was trained; equal trainings give equal bytes."""
    tensors = {f"module.{name}": t for name, t in state.module.state_dict().items()}
    tensors |= {f"average.{name}": t for name, t in state.averaged.state_dict().items()}
    tensors |= {f"optimizer.{name}": t for name, t in _moments_of(state).items()}
    progress = {"step": state.step, "history": state.history, "sums": _numbers(state.sums), "count": state.count}
    save_tensors(path, tensors, {"identity": dict(identity), **progress})


def load_state(path: str | os.PathLike[str], state: TrainingState, *, identity: Mapping[str, Any]) -> None:
    """Read a saved state into ``state``. StateError if it belongs to another recipe, other slices or another stage."""
    tensors, metadata = load_tensors(path)
    found, wanted = metadata.get("identity", {}), json.loads(json.dumps(dict(identity)))
    if found != wanted:
        changed = sorted(key for key in {*found, *wanted} if found.get(key) != wanted.get(key))
        raise StateError(f"{path}: is the state of another training (different: {', '.join(changed)}). Delete it")
    state.module.load_state_dict(_part(tensors, "module."))
    state.averaged.load_state_dict(_part(tensors, "average."))
    _set_moments(state, _part(tensors, "optimizer."))
    for name in ("step", "history", "sums", "count"):
        setattr(state, name, metadata[name])


def _optimizer_of(module: nn.Module) -> torch.optim.AdamW:
    """AdamW in which only the weights of layers decay, not gains and biases; the loop sets its rate at each step."""
    weights = [p for p in module.parameters() if p.ndim in (2, 4)]  # of linear layers and convolutions
    others = [p for p in module.parameters() if p.ndim not in (2, 4)]
    groups = [{"params": weights, "weight_decay": 1e-2}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW([group for group in groups if group["params"]], betas=(0.9, 0.99))


def _moments_of(state: TrainingState) -> dict[str, Tensor]:
    """What the optimiser knows of each parameter, by the parameter's name; nothing before the first step."""
    known = state.optimizer.state
    named = state.module.named_parameters()
    return {f"{name}.{kind}": t for name, p in named if p in known for kind, t in known[p].items()}


def _set_moments(state: TrainingState, moments: Mapping[str, Tensor]) -> None:
    parameters = dict(state.module.named_parameters())
    for name, moment in moments.items():
        parameter, kind = name.rsplit(".", 1)
        # The step counter stays on the CPU, where torch keeps it.
        device = parameters[parameter].device if kind != "step" else "cpu"
        state.optimizer.state[parameters[parameter]][kind] = moment.to(device)


def fingerprint_of(content: Any) -> str:
    """Hex SHA-256 of plain data or a recipe, whatever the order of its keys."""
    return hashlib.sha256(json.dumps(recipes.plain(content), sort_keys=True).encode()).hexdigest()


def without_length(recipe: recipes.Model) -> recipes.Model:
    """The recipe with the length of its training left out: what must agree between segments."""
    return dataclasses.replace(recipe, budget=dataclasses.replace(recipe.budget, steps=0, segments=0))


def _numbers(sums: Mapping[str, float | Tensor]) -> dict[str, float]:
    return {name: float(value) for name, value in sums.items()}


def _part(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
