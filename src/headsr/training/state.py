"""What a training leaves on disk: tensors and JSON in safetensors files, nothing that has to be unpickled.

The metadata are one JSON text under one key: safetensors writes several keys in random order, and then equal trainings
would not give equal bytes.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from headsr import recipes
from headsr.files import whole
from headsr.networks.build import build_network
from headsr.networks.latent_diffusion import LatentDiffusion
from headsr.training.ema import averaged_copy

_KEY = "headsr"


class StateError(ValueError):
    """A file of weights or training state cannot be used. The message names the file and the way out."""


class TrainedModel(NamedTuple):
    """A model as its users see it: its recipe and its network in evaluation mode.

    ``module`` is a ResidualSliceNetwork (baseline), a KLAutoencoder (autoencoder) or a LatentDiffusion (ldm), which has
    ``.unet`` and ``.autoencoder``.
    """

    recipe: recipes.Model
    module: nn.Module

    @property
    def kind(self) -> str:
        """baseline, autoencoder or ldm."""
        return self.recipe.kind


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


def save_tensors(path: str | os.PathLike[str], tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> None:
    """Write tensors and JSON metadata whole or not at all, the same bytes for the same content."""
    stored = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with whole(path) as partial:
        safetensors.torch.save_file(stored, partial, {_KEY: json.dumps(metadata, sort_keys=True, allow_nan=False)})


def load_tensors(path: str | os.PathLike[str]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and metadata of a file that save_tensors wrote; StateError names a damaged or foreign one."""
    with _opened(path) as (stream, metadata):
        return {name: stream.get_tensor(name) for name in stream.keys()}, metadata  # noqa: SIM118


def read_metadata(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Only the metadata: model, recipe, training_keys, stage (and autoencoder for an ldm) of a weights file."""
    with _opened(path) as (_, metadata):
        return metadata


@contextmanager
def _opened(path: str | os.PathLike[str]) -> Iterator[tuple[Any, dict[str, Any]]]:
    try:
        with safetensors.safe_open(path, framework="pt") as stream:
            yield stream, json.loads((stream.metadata() or {})[_KEY])
    except FileNotFoundError:
        raise StateError(f"{path}: does not exist. Run the training that makes it") from None
    except (safetensors.SafetensorError, OSError, KeyError, json.JSONDecodeError) as error:
        raise StateError(f"{path}: is damaged or not headsr's ({error!r}). Delete it and train again") from error


def save_model(
    path: str | os.PathLike[str], module: nn.Module, recipe: recipes.Model, *, record: Mapping[str, Any]
) -> None:
    """Write the weights of a trained model with its recipe and ``record`` (training_keys, stage, ...)."""
    metadata = {**record, "model": Path(path).parent.name, "recipe": recipes.plain(recipe)}
    save_tensors(path, module.state_dict(), metadata)


def load_model(weights: str | os.PathLike[str], *, device: str | torch.device = "cpu") -> TrainedModel:
    """A trained model from its weights file alone, in evaluation mode, without gradients."""
    tensors, metadata = load_tensors(weights)
    try:
        recipe = recipes.build(recipes.Model, metadata["recipe"], str(weights))
        module = build_network(recipe.kind, recipe.network)
        if recipe.kind == "ldm":
            module = LatentDiffusion(module, build_network("autoencoder", metadata["autoencoder"]["network"]))
        module.load_state_dict(tensors)
    except (KeyError, ValueError, RuntimeError) as error:
        raise StateError(f"{weights}: does not fit this version of headsr ({error}). Train the model again") from error
    return TrainedModel(recipe, module.to(device).eval().requires_grad_(False))


def write_history(path: str | os.PathLike[str], history: list[dict[str, float]]) -> None:
    """Write the history as JSON lines, one object a line: step and the measured values by name."""
    with whole(path) as partial:
        partial.write_text("".join(json.dumps(line, allow_nan=False) + "\n" for line in history), encoding="utf-8")


def read_history(path: str | os.PathLike[str]) -> list[dict[str, float]]:
    """The lines of a history that write_history wrote."""
    return [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines()]


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
