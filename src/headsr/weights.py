"""Trained models as files: tensors and JSON in safetensors files, nothing that has to be unpickled.

The metadata are one JSON text under one key: safetensors writes several keys in random order, and then equal trainings
would not give equal bytes.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
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
        recipe = recipes.build(recipes.ModelRecipe, metadata["recipe"], str(weights))
        module = build_network(recipe.kind, recipe.network)
        if recipe.kind == "ldm":
            module = LatentDiffusion(module, build_network("autoencoder", metadata["autoencoder"]["network"]))
        module.load_state_dict(tensors)
    except (KeyError, ValueError, RuntimeError) as error:
        raise StateError(f"{weights}: does not fit this version of headsr ({error}). Train the model again") from error
    return TrainedModel(recipe, module.to(device).eval().requires_grad_(False))


def read_metadata(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Only the metadata: model, recipe, training_keys, stage (and autoencoder for an ldm) of a weights file."""
    with _opened(path) as (_, metadata):
        return metadata


def save_tensors(path: str | os.PathLike[str], tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> None:
    """Write tensors and JSON metadata whole or not at all, the same bytes for the same content."""
    stored = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with whole(path) as partial:
        safetensors.torch.save_file(stored, partial, {_KEY: json.dumps(metadata, sort_keys=True, allow_nan=False)})


def load_tensors(path: str | os.PathLike[str]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and metadata of a file that save_tensors wrote; StateError names a damaged or foreign one."""
    with _opened(path) as (stream, metadata):
        return {name: stream.get_tensor(name) for name in stream.keys()}, metadata  # noqa: SIM118


@contextmanager
def _opened(path: str | os.PathLike[str]) -> Iterator[tuple[Any, dict[str, Any]]]:
    try:
        with safetensors.safe_open(path, framework="pt") as stream:
            yield stream, json.loads((stream.metadata() or {})[_KEY])
    except FileNotFoundError:
        raise StateError(f"{path}: does not exist. Run the training that makes it") from None
    except (safetensors.SafetensorError, OSError, KeyError, json.JSONDecodeError) as error:
        raise StateError(f"{path}: is damaged or not headsr's ({error!r}). Delete it and train again") from error
