"""Whether a model's recipe can be trained, within seconds: its first step on torch's meta device, without numbers."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from headsr.files import write_json
from headsr.losses.composite import weighted_sum
from headsr.models.card import weights_path
from headsr.networks.build import check_network
from headsr.recipes import Model, RecipeError, Shipped, plain
from headsr.training.loop import weights_of
from headsr.training.task import Setting
from headsr.weights import TrainedModel, assembled, read_metadata

_META = torch.device("meta")


def check_model(
    name: str, models: Mapping[str, Model | Shipped], output: str | os.PathLike[str], *, where: str
) -> None:
    """Go through the first step of the model ``name``, and write what it consists of: parameters and losses.

    ``models`` holds its recipe and those of all that it uses; ``where`` (file and name) begins every message.
    RecipeError for what could not be trained: arguments that a constructor does not take, sizes that do not fit,
    companions of another shape.
    """
    try:
        found = _first_step(name, models)
    except (ValueError, RuntimeError, TypeError, LookupError, ArithmeticError) as error:
        raise RecipeError(f"{where}: {error}") from error
    write_json(output, found)


@dataclass(frozen=True)
class _BlankBatches:
    """Examples of the right shapes."""

    recipe: Model

    def batch(self, step: int, size: int | None = None) -> Any:
        return self.recipe.data.part.load().blank(self.recipe, size or self.recipe.budget.batch)


def _first_step(name: str, models: Mapping[str, Model]) -> dict[str, Any]:
    recipe, blank = models[name], _BlankBatches(models[name])
    companions = {other: _companion(other, models) for other in models if other != name}
    task = recipe.part.load()(Setting(recipe, blank, blank, companions, _META, build=check_network))
    networks = task.networks()
    task.begin(networks)
    losses = {}
    for turn in task.turns:
        terms = task.terms(turn, networks, 1)
        weighted_sum(terms, weights_of(turn, recipe)).backward()
        losses[turn] = sorted(terms)
    parameters = {turn: sum(p.numel() for p in network.parameters()) for turn, network in networks.items()}
    return {"parameters": parameters, "losses": losses}


def _companion(name: str, models: Mapping[str, Model | Shipped]) -> TrainedModel:
    described = _described(name, models)
    module = assembled(described, check_network).requires_grad_(False)
    return TrainedModel(described["task"], module, described["precision"])


def _described(name: str, models: Mapping[str, Model | Shipped]) -> dict[str, Any]:
    """What the weights of a model would say that it is; what shipped ones do say."""
    model = models[name]
    if isinstance(model, Shipped):
        return read_metadata(weights_path(model.name, model.place))
    companions = {role: _described(getattr(model, role), models) for role in model.kept}
    made = {"task": model.kind, "network": plain(model.network), "companions": companions}
    return {**made, "precision": model.precision}
