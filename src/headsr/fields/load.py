"""The files of fields: one safetensors file each, that says of which kind its network is.

A file without a kind holds dense grids.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, BinaryIO

import numpy as np
import safetensors
from numpy.typing import NDArray
from safetensors.numpy import save_file

from headsr.fields.arithmetic import check_arithmetic
from headsr.fields.consistent import ConsistentField
from headsr.fields.dense import DenseField
from headsr.fields.hash_grid import HashField
from headsr.fields.siren import SirenField
from headsr.files import NotAFileError, whole
from headsr.recipes.convert import Range
from headsr.seal import refuse_broken_seal, seal, sealable, unsealed
from headsr.typed_json import picked
from headsr.volumes import SCANNER, Forms, Grid

KINDS = {None: DenseField, "siren": SirenField, "hash_grid": HashField}  # the network of each kind that a file may say
# A safetensors file begins with the header's length in bytes; of the header's names this one is no tensor's.
_LENGTH_BYTES, _METADATA = 8, "__metadata__"


class FieldError(ValueError):
    """A file does not hold a field. The message names the file and the way out."""


_Form = Annotated[int, Range(1, 5)]


@dataclass(frozen=True, kw_only=True)
class _Said:
    """What a file says of a field: ``cells`` and ``layers`` where the kind of its network has such."""

    shape: tuple[int, int, int]
    affine: tuple[tuple[float, float, float, float], ...]
    scale: Annotated[float, Range(0, above=True)]
    offset: float
    signed: bool
    record: dict[str, Any]
    forms: tuple[_Form, _Form] = SCANNER
    kind: str | None = None
    cells: tuple[Annotated[float, Range(0, above=True)], ...] = ()
    layers: Annotated[int, Range(1)] = 1


def save_field(path: str | os.PathLike[str], field: ConsistentField) -> None:
    """Write a field as safetensors, whole or not at all; all that is no tensor is one JSON text inside."""
    content = {
        "shape": list(field.grid.shape),
        "affine": field.grid.affine.tolist(),
        "scale": field.scale,
        "offset": field.offset,
        "signed": field.signed,
        "record": field.record,
        "forms": list(field.forms),
        **field.network.description,
    }
    tensors = {name: np.ascontiguousarray(tensor) for name, tensor in field.tensors.items()}
    with whole(path) as partial:
        save_file(tensors, partial, sealable(content))
        seal(partial)


def load_field(path: str | os.PathLike[str], *, device: str = "cpu", precision: str = "fp32") -> ConsistentField:
    """Read a field that save_field wrote, to be evaluated on a device in a precision. Imports no torch.

    FieldError names a file that is missing, cannot be read, is damaged, foreign or of an earlier version; ValueError a
    device or precision that there is not for such a field.
    """
    check_arithmetic(device, precision)
    try:
        content, tensors = _read(path)
        earlier = "projected" not in tensors and "record" in content
        said = None if earlier else picked(_Said, content, "its metadata")
        grid = Grid(said.shape, said.affine) if said else None
        network = _kind(said.kind).from_file(grid, content, tensors) if said else None
        loaded = _with_its_voxels(network, said, tensors) if said else None
    except FileNotFoundError:
        raise FieldError(f"{path}: does not exist. Fit the field first") from None
    except NotAFileError as error:
        raise FieldError(str(error)) from None
    except OSError as error:
        raise FieldError(f"{path}: cannot be read: {error.strerror or error}") from error
    except (safetensors.SafetensorError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise FieldError(
            f"{path}: is damaged, or no field, which headsr fits and names .safetensors ({error}). Name a field, or "
            "fit this one again"
        ) from error
    if loaded is None:
        raise FieldError(
            f"{path}: was fitted by a version of headsr whose renders were another volume at every size. Fit it again"
        )
    if not isinstance(network, DenseField):
        return replace(loaded, network=replace(network, device=device, precision=precision))
    if (device, precision) != ("cpu", "fp32"):
        raise ValueError(
            f"{path}: a field of dense grids is evaluated on the cpu in fp32 alone, not on {device} in {precision}"
        )
    return loaded


def _with_its_voxels(
    network: DenseField | SirenField | HashField, said: _Said, tensors: dict[str, NDArray[np.float32]]
) -> ConsistentField:
    voxels = (tensors["projected"], tensors["carried"])
    return ConsistentField(network, *voxels, said.scale, said.offset, said.signed, said.record, Forms(*said.forms))


def _read(path: str | os.PathLike[str]) -> tuple[dict[str, Any], dict[str, NDArray[np.float32]]]:
    """What a file says of its field, and its tensors.

    safetensors checks the header against the file, but it would map the whole file and copy the tensors from there:
    a process would hold the field twice while it reads.
    """
    refuse_broken_seal(path)
    with open(path, "rb") as stream:
        with safetensors.safe_open(path, framework="numpy") as checked:
            content = unsealed(checked.metadata())
        length = int.from_bytes(stream.read(_LENGTH_BYTES), "little")
        header = json.loads(stream.read(length))
        start = _LENGTH_BYTES + length
        tensors = {name: said for name, said in header.items() if name != _METADATA}
        if odd := [name for name, said in tensors.items() if said.keys() != {"dtype", "shape", "data_offsets"}]:
            raise ValueError(f"its header says of {odd[0]!r} something else than type, shape and place")
        return content, {name: _tensor(stream, start, **said) for name, said in tensors.items()}


def _tensor(
    stream: BinaryIO, start: int, *, dtype: str, shape: Sequence[int], data_offsets: Sequence[int]
) -> NDArray[np.float32]:
    """One tensor of a safetensors file whose tensors begin at byte ``start``, as its header describes it."""
    if dtype != "F32":
        raise ValueError(f"a field's tensors are float32, not {dtype}")
    tensor = np.empty(math.prod(shape), "<f4")
    stream.seek(start + data_offsets[0])
    if stream.readinto(tensor) != tensor.nbytes:
        raise ValueError("it ends too early")
    return tensor.reshape(shape)


def _kind(name: str | None) -> type[DenseField | SirenField | HashField]:
    """The class of the fields whose files say this kind."""
    if name not in KINDS:
        raise ValueError(f"its kind {name!r} is not known to this version of headsr")
    return KINDS[name]
