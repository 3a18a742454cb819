"""Trained models as files: tensors and JSON in safetensors files, nothing that has to be unpickled.

The metadata are one JSON text under one key: safetensors writes several keys in random order, and then equal trainings
would not give equal bytes. In it is the file's seal.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn
from torch.nn.modules.module import (
    register_module_buffer_registration_hook,
    register_module_module_registration_hook,
    register_module_parameter_registration_hook,
)

from headsr import recipes
from headsr.files import NotAFileError, sha256_of, whole
from headsr.networks.build import build_network
from headsr.recipes.convert import Among
from headsr.recipes.models import IMAGE_FEATURES, PRECISIONS
from headsr.seal import SealError, refuse_broken_seal, seal, sealable, unsealed
from headsr.typed_json import picked

FORMAT = 1


class StateError(ValueError):
    """A file of weights or training state cannot be used. The message names the file and the way out."""


class TrainedModel(NamedTuple):
    """A model as its users see it: its kind, its network in evaluation mode, and the precision that it asks for.

    ``module`` is the network of a baseline or an autoencoder, a LatentDiffusion of an ldm, which has ``.unet`` and
    ``.autoencoder``. ``told`` is what an ldm is told of slices: the spline of one scan, or least squares over all.
    """

    kind: str
    module: nn.Module
    precision: str
    told: recipes.Told = "spline"


@dataclass(frozen=True, kw_only=True)
class Made:
    """What weights say of how their model is made; the same of the companions in them, by role."""

    task: Annotated[str, Among({**recipes.MODELS, IMAGE_FEATURES: None}, "kind of model")]
    network: dict[str, Any]
    companions: dict[str, dict[str, Any]]
    precision: Literal[PRECISIONS] = "fp32"
    told: recipes.Told = "spline"
    stage: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not isinstance(self.network.get("architecture"), str):
            raise ValueError("network: says no architecture")
        for role, companion in self.companions.items():
            picked(Made, companion, f"companions.{role}")

    @property
    def architectures(self) -> list[str]:
        """Its network, then those of the models beside it."""
        beside = (picked(Made, self.companions[role], role).architectures for role in sorted(self.companions))
        return [self.network["architecture"], *(name for names in beside for name in names)]


def save_model(
    path: str | os.PathLike[str],
    module: nn.Module,
    recipe: recipes.Model,
    *,
    companions: Mapping[str, Mapping[str, Any]] | None = None,
    record: Mapping[str, Any],
) -> None:
    """Write the weights of a trained model, all that load_model needs, and ``record`` (training_keys, stage, ...).

    ``companions`` says what the models are that ``module`` holds beside its network, by role (``companion_of``).
    """
    made = {"task": recipe.kind, "network": recipes.plain(recipe.network), "companions": dict(companions or {})}
    for_reading = {"model": Path(path).parent.name, "recipe": recipes.plain(recipe)}
    use = {"precision": recipe.precision} | ({} if recipe.data.told == "spline" else {"told": recipe.data.told})
    save_tensors(path, module.state_dict(), {**record, **for_reading, **made, **use, "format": FORMAT})


def load_model(weights: str | os.PathLike[str], *, device: str | torch.device = "cpu") -> TrainedModel:
    """A trained model from its weights file alone, in evaluation mode, without gradients.

    The recipe in the file is for people: renamed fields of recipes leave old weights as good as they were.
    """
    tensors, metadata = load_tensors(weights)
    if metadata.get("format") != FORMAT:
        raise StateError(f"{weights}: is of format {metadata.get('format')}, not {FORMAT}. Train the model again")
    try:
        said = picked(Made, metadata, "its metadata")
        with _built_of(tensors):
            module = assembled(metadata)
        module.load_state_dict(tensors)
    except (LookupError, ArithmeticError, TypeError, AttributeError) as error:
        said = f"{metadata.get('network')}"[:200]
        raise StateError(
            f"{weights}: no network can be built of what it says ({said}). Train the model again"
        ) from error
    except (ValueError, RuntimeError) as error:
        raise StateError(f"{weights}: does not fit this version of headsr ({error}). Train the model again") from error
    module = module.to(device).eval().requires_grad_(False)
    return TrainedModel(said.task, module, said.precision, said.told)


def assembled(model: Mapping[str, Any], build: Callable[[Mapping[str, Any]], nn.Module] = build_network) -> nn.Module:
    """The network of plain data (``task``, ``network``, ``companions``), in one piece with those it is used with."""
    network = build(model["network"])
    companions = {role: assembled(one, build) for role, one in model["companions"].items()}
    return recipes.MODELS[model["task"]].assembly.load()(network, **companions) if companions else network


def companion_of(weights: str | os.PathLike[str]) -> dict[str, Any]:
    """What a model's weights say that it is, as another model's weights keep it, with the hash of the file."""
    said = made_of(weights)
    return {"task": said.task, "network": said.network, "companions": said.companions, "sha256": sha256_of(weights)}


def made_of(weights: str | os.PathLike[str]) -> Made:
    """What a model's weights say that it is. StateError names a file that does not say it."""
    try:
        return picked(Made, read_metadata(weights), "its metadata")
    except recipes.RecipeError as error:
        raise StateError(f"{weights}: are no weights of a model ({error}). Train the model again") from error


def read_metadata(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Only the metadata: format, task, network, companions, training_keys, stage ... of a weights file."""
    with _opened(path) as (_, metadata):
        return metadata


def save_tensors(path: str | os.PathLike[str], tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> None:
    """Write tensors and JSON metadata whole or not at all, the same bytes for the same content."""
    stored = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with whole(path) as partial:
        safetensors.torch.save_file(stored, partial, sealable(metadata))
        seal(partial)


def load_tensors(path: str | os.PathLike[str]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and metadata of a file that save_tensors wrote; StateError names a damaged or foreign one."""
    with _opened(path) as (stream, metadata):
        return {name: stream.get_tensor(name) for name in stream.keys()}, metadata  # noqa: SIM118


@contextmanager
def _built_of(tensors: Mapping[str, Tensor]) -> Iterator[None]:
    """Have no network built in this thread that is much larger than these tensors: a recipe of 2 kB may ask for any.

    ValueError at the first part too many, before it is filled with numbers. Twice as much may be built as stays.
    """
    thread, left = threading.get_ident(), {"parts": 2 * len(tensors) + 16, "modules": 32 * len(tensors) + 256}
    left["numbers"] = 2 * sum(tensor.numel() for tensor in tensors.values()) + 2**16

    def count(**built: int) -> None:
        for what, number in built.items():
            left[what] -= number
        if min(left.values()) < 0:
            raise ValueError(f"its recipe asks for a larger network than its {len(tensors)} tensors")

    def count_tensor(module: nn.Module, name: str, tensor: Tensor | None) -> None:
        if tensor is not None and threading.get_ident() == thread:
            count(parts=1, numbers=tensor.numel())

    def count_module(module: nn.Module, name: str, part: nn.Module | None) -> None:
        if part is not None and threading.get_ident() == thread:
            count(modules=1)

    hooks = [
        register_module_parameter_registration_hook(count_tensor),
        register_module_buffer_registration_hook(count_tensor),
        register_module_module_registration_hook(count_module),
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


@contextmanager
def _opened(path: str | os.PathLike[str]) -> Iterator[tuple[Any, dict[str, Any]]]:
    try:
        refuse_broken_seal(path)
        with safetensors.safe_open(path, framework="pt") as stream:
            yield stream, unsealed(stream.metadata())
    except FileNotFoundError:
        raise StateError(f"{path}: does not exist. Run the training that makes it") from None
    except NotAFileError as error:
        raise StateError(str(error)) from None
    except OSError as error:
        raise StateError(f"{path}: cannot be read: {error.strerror or error}") from error
    except (safetensors.SafetensorError, SealError, ValueError) as error:
        raise StateError(f"{path}: is damaged or not headsr's ({error}). Move it away and train again") from error
