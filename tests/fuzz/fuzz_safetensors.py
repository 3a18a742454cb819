"""Weights, training states, fields and anatomies: damaged bytes, and what a stranger writes into metadata and seals."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import stored_balls
import tiny_weights
import torch
from fuzz.damage import damaged_bytes, damaged_tree, pick
from fuzz.outcomes import Input
from fuzz.run import Maker
from fuzz.tiny_fields import tiny_field
from numpy.random import Generator

from headsr import seal
from headsr.evaluate.score import trained_on
from headsr.fields.load import load_field, save_field
from headsr.models.shipped import load_shipped
from headsr.render.describe import describe_volume
from headsr.simulate.store import open_anatomy
from headsr.volumes import Grid
from headsr.weights import companion_of, load_model, made_of

HEAD = Grid((8, 9, 10), np.diag([1.0, 1.1, 1.2, 1.0]))


class _Sort(NamedTuple):
    path: Path
    content: bytes
    read: Callable[[], Any]


def prepare(folder: Path) -> Maker:
    """One sealed file of every sort."""
    sorts = [*_fields(folder), *_weights(folder), _anatomy(folder)]
    for sort in sorts:
        sort.read()

    def make(rng: Generator) -> Input:
        sort = pick(rng, sorts)
        sealed = rng.random() < 0.5
        content = damaged_bytes(sort.content, rng) if sealed else _other_header(sort.content, rng)
        sort.path.write_bytes(content)
        if not sealed:
            _seal(sort.path)

        def read() -> Any:
            try:
                return sort.read()
            finally:
                sort.path.write_bytes(sort.content)

        # A stranger's file has a seal of its own. A damaged one has not, whatever is said of it.
        return Input(read, [sort.path.name], lambda _: not sealed or content == sort.content)

    return make


def _fields(folder: Path) -> list[_Sort]:
    sorts = []
    for kind in ("dense", "siren", "hash_grid"):
        path = folder / f"{kind}.safetensors"
        save_field(path, tiny_field(HEAD, kind))

        def read(path: Path = path) -> None:
            """What a render does: some voxels, and the sidecar at its end."""
            field = load_field(path)
            grid = field.grid.block((1, 1, 1), (2, 2, 2))
            field.evaluate(grid)
            said = {"preview": grid, "scale": field.scale, "offset": field.offset, "record": field.record}
            json.dumps(describe_volume(grid, label="sr", **said), allow_nan=False)

        sorts.append(_Sort(path, path.read_bytes(), read))
    return sorts


def _weights(folder: Path) -> list[_Sort]:
    torch.set_num_threads(1)
    sorts = []
    for name, block in (("baseline", tiny_weights.BASELINE), ("unrolled", tiny_weights.UNROLLED)):
        path = tiny_weights.finished_training(folder / name, block=block) / "weights.safetensors"

        def read(path: Path = path) -> None:
            load_model(path)
            companion_of(path)
            made_of(path)
            trained_on(path)

        sorts.append(_Sort(path, path.read_bytes(), read))
    tiny_weights.shipped(folder)
    path = folder / "tiny.safetensors"
    return [*sorts, _Sort(path, path.read_bytes(), lambda: load_shipped("tiny", folder=folder))]


def _anatomy(folder: Path) -> _Sort:
    path = stored_balls.store_balls(folder).parent / "balls.safetensors"

    def read() -> None:
        open_anatomy.cache_clear()
        head = open_anatomy(path)
        head.read("winners", (slice(0, 2),) * 3)
        assert len(head.shares) == len(head.structures)
        head.voxel_mm("depth")

    return _Sort(path, path.read_bytes(), read)


def _other_header(content: bytes, rng: Generator) -> bytes:
    """Other names, shapes or places of tensors, or other metadata, around the same numbers."""
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    if rng.random() < 0.25:
        said = header.pop("__metadata__")
        header = {"__metadata__": said, **_block(damaged_tree(header, rng))}
    else:
        text = header["__metadata__"][seal.KEY]
        metadata = json.loads(text)
        first = {"file_sha256": metadata.pop("file_sha256")}
        changed = damaged_tree(metadata, rng)
        header["__metadata__"][seal.KEY] = json.dumps({**first, **changed} if isinstance(changed, dict) else changed)
    written = json.dumps(header, separators=(",", ":")).encode()
    return len(written).to_bytes(8, "little") + written + content[8 + length :]


def _block(tree: Any) -> dict[str, Any]:
    return tree if isinstance(tree, dict) else {"x": tree}


def _seal(path: Path) -> None:
    with contextlib.suppress(seal.SealError):  # its metadata are no block of keys, in which there would be a seal
        seal.seal(path)
