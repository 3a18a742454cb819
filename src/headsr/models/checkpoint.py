"""Files of weights that others wrote: PyTorch's, without running what is pickled in them, and safetensors."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import torch
from torch import Tensor

from headsr.files import open_file
from headsr.seal import KEY
from headsr.weights import StateError

_AROUND = ("params_ema", "params")  # what BasicSR saves weights under, the average first: that is what it uses
_OF_TRAINING = ({"optimizers", "schedulers"}, {"state", "param_groups"}, {"optimizer"})
_ZIP, _PICKLE = b"PK\x03\x04", b"\x80"  # how PyTorch's files begin, since 1.6 and before


def read_checkpoint(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """The tensors of a checkpoint by the names that its author gave them, on the CPU.

    StateError says what the file is where it is none: a folder, a text, a training's state, a pickle of more than
    tensors, weights that headsr wrote.
    """
    content = _content_of(Path(path))
    for key in _AROUND:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
            break
    if not isinstance(content, Mapping):
        raise StateError(f"{path}: holds a {type(content).__name__}, no weights by name. {_TAKEN}")
    if any(keys <= content.keys() for keys in _OF_TRAINING):
        raise StateError(f"{path}: is the state of a training or an optimizer, not a network's weights. {_TAKEN}")
    others = [str(name) for name, tensor in content.items() if not isinstance(tensor, Tensor)]
    if others or not content:
        held = (
            f"{', '.join(others[:5])} in it {'is' if len(others) == 1 else 'are'} no tensor" if others else "is empty"
        )
        raise StateError(f"{path}: holds more than weights, or none: {held}. {_TAKEN}")
    return {str(name): tensor for name, tensor in content.items()}


def _content_of(path: Path) -> Any:
    if path.is_dir():
        raise StateError(f"{path}: is {_folder_of(path)}. {_TAKEN}")
    with open_file(path) as stream:
        begins = stream.read(9)
    if begins.startswith((_ZIP, _PICKLE)):
        return _unpickled(path)
    if begins[8:] == b"{":
        return _from_safetensors(path)
    raise StateError(f"{path}: is neither PyTorch's nor safetensors, to go by how it begins ({begins!r}). {_TAKEN}")


def _folder_of(path: Path) -> str:
    if (path / "model_index.json").exists() or (path / "config.json").exists():
        return "a folder of diffusers or transformers, whose networks headsr does not have"
    return "a folder; name the file of weights in it"


def _unpickled(path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except MemoryError:
        raise
    except Exception as error:  # damaged files end in errors of many kinds, a file that is cut off in one of the system
        first = next(iter(f"{error}".splitlines()), "")[:200]
        raise StateError(
            f"{path}: is damaged, or holds more than weights, which is not unpickled since that may run any code "
            f"({first}). {_TAKEN}"
        ) from error


def _from_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        with safetensors.safe_open(path, framework="pt") as stream:
            if KEY in (stream.metadata() or {}):
                raise StateError(f"{path}: is headsr's own and needs no import. docs/models.md says how it is used")
            return {name: stream.get_tensor(name) for name in stream.keys()}  # noqa: SIM118
    except safetensors.SafetensorError as error:
        raise StateError(f"{path}: is damaged ({error}). {_TAKEN}") from error


_TAKEN = "Taken are files of weights as their authors publish them (docs/models.md lists the networks)"
