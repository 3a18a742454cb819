"""A volume as OME-Zarr 0.5 (zarr v3) on disk: begun, written shard by shard, and committed by its root ``zarr.json``.

The root metadata is written last, whole or not at all: a store without it is not finished, whatever else lies there.
Until then the folder ``.rendering`` says what the store is becoming (a fingerprint) and which shards are complete, with
their SHA-256: a shard without a line there, or whose bytes differ from it, is written again. zarr takes a shard that is
gone for fill value, so nothing is made of shards, committed or taken for finished before each of them was looked at.

OME-Zarr 0.5 knows scale and translation only, so the true affine is kept as raw NIfTI header bytes in the array
``nifti`` (the layout of NIfTI-Zarr, whose rule is that the NIfTI header wins), as the anatomical orientation of each
axis (OME-NGFF RFC-4), and in the JSON sidecar. On disk the axes are (z, y, x); here they are (x, y, z).
"""

from __future__ import annotations

import dataclasses
import errno
import glob
import hashlib
import json
import os
import shutil
import socket
import time
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.errors import ContainsArrayError

from headsr.files import parse_json, read_json, sha256_of, tree_files, tree_hash, write_json
from headsr.lock import holding
from headsr.render.ours import DESCRIPTION, WORK, foreign_in, is_leftover
from headsr.render.shard import Written, codecs
from headsr.render.tiles import Layout
from headsr.typed_json import picked
from headsr.volumes import SCANNER, Forms, Grid, Storage, place, read_header

_MOVE = "zarr.json away and say the same again to make the volume anew"
_PATIENCE = 60.0  # seconds: a node of a cluster may not see at once what another one has written (NFS)
_ORIENTATIONS = {
    "R": "left-to-right",
    "L": "right-to-left",
    "A": "posterior-to-anterior",
    "P": "anterior-to-posterior",
    "S": "inferior-to-superior",
    "I": "superior-to-inferior",
}


class StoreError(ValueError):
    """A folder cannot become, or is not, a finished store. The message names it and the way out."""


def writing(store: Path, *, shared: bool = False) -> AbstractContextManager[None]:
    """Hold a store for this process alone, or ``shared`` with others that write parts of the same volume.

    ``store`` is the root ``zarr.json``; the lock lies beside its folder, which is moved as a whole. Raises HeldError
    where another process holds the store.
    """
    return holding(store.parent.with_name(f".{store.parent.name}.lock"), what=store.parent, shared=shared)


def begin(store: Path, fingerprint: str, *, replace: bool = True) -> bool:
    """Make room for the volume that ``fingerprint`` names, and take the commit mark off; whether nothing is kept.

    Shards of the same fingerprint stay; what is of another is moved away whole and deleted: old and new never mix.
    Several processes may begin one volume at once if none is to ``replace`` another; who may replace also deletes what
    killed processes left half-written. ``store`` is the root ``zarr.json``. Raises StoreError where its folder is not
    named ``*.ome.zarr``, is a link, holds what headsr did not make, or another volume that is not to be replaced.
    """
    root = store.parent
    if root.is_symlink():
        raise StoreError(f"{root}: is a link, which cannot be replaced whole. Name the folder that it leads to")
    if root.exists() and not root.is_dir():
        raise StoreError(f"{root}: is a file, which headsr did not make and will not replace. Choose another name")
    if not root.name.endswith(".ome.zarr"):
        raise StoreError(f"{store}: a volume is stored in a folder named *.ome.zarr, which headsr may empty")
    _refuse_foreign(root)
    if replace:
        _remove_partials(root)
    anew = not holds(store, fingerprint)
    if anew:
        if replace and root.exists():
            _move_away(root)
        _create_empty(root, fingerprint)
    store.unlink(missing_ok=True)
    return anew


def holds(store: Path, fingerprint: str) -> bool:
    """Whether the folder is becoming the volume that ``fingerprint`` names."""
    return _fingerprint(store.parent) == fingerprint


def is_finished(store: Path, fingerprint: str) -> bool:
    """Whether the committed store is the volume that ``fingerprint`` names, byte for byte.

    Every file is read: a damaged shard may have the size that it was written with.
    """
    held = attributes_of(store)["headsr"] if store.exists() else {}
    if held.get("fingerprint") != fingerprint or lost_shards(store.parent, held["shards"]):
        return False
    return tree_hash(store.parent, leaving_out={WORK, store.name}) == held.get("content")


def work_folder(store: Path) -> Path:
    """Where what is known of an unfinished store is kept until it is committed."""
    return store.parent / WORK


def record_shard(store: Path, key: str, written: Written) -> dict[str, Any]:
    """Note that a shard is complete. Each process appends to a file of its own, so that no two lines mix."""
    note = {"key": key, **dataclasses.asdict(written)}
    with open(work_folder(store) / f"shards-{socket.gethostname()}-{os.getpid()}.jsonl", "a", encoding="utf-8") as out:
        out.write("\n" + json.dumps(note))  # on a line of its own, whatever a full disk cut short before
    return note


def recorded_shards(store: Path) -> dict[str, Written]:
    """The shards that were noted as complete, by key; a line that is no note, such as half of one, does not count."""
    shards = {}
    for path in sorted(work_folder(store).glob("shards-*.jsonl")):
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            with suppress(ValueError):
                note = picked(_Note, parse_json(line), "its note")
                shards[note.key] = Written(note.sha256, note.size)
    return shards


@dataclass(frozen=True)
class _Note:
    """A line of a worker's notes: a shard that is complete."""

    key: str
    sha256: str
    size: int


def is_intact(store: Path, key: str, written: Written) -> bool:
    """Whether the shard on disk has the size and the SHA-256 that it was written with."""
    path = store.parent / key
    return path.is_file() and path.stat().st_size == written.size and sha256_of(path) == written.sha256


def lost_shards(root: Path, sizes: Mapping[str, int]) -> list[str]:
    """The shards of a store's folder that do not lie there in their size in bytes. zarr reads them as fill."""

    def is_there(key: str, size: int) -> bool:
        try:
            return (root / key).stat().st_size == size
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
                raise
            return False

    return [key for key, size in sizes.items() if not is_there(key, size)]


def await_shards(store: Path, keys: Iterable[str]) -> None:
    """Return once all these shards can be seen. Raises StoreError where one cannot, after a minute."""
    until = time.monotonic() + _PATIENCE
    for key in keys:
        while not (store.parent / key).exists():
            if time.monotonic() > until:
                raise StoreError(f"{store.parent / key}: was written and is gone. Say the same again to write it anew")
            time.sleep(0.1)


def create_level(store: Path, level: int, layout: Layout, storage: Storage, fill: float) -> None:
    """Write the metadata of the array of one level; chunks that are absent read as ``fill`` (in scan units)."""
    path = store.parent / str(level)
    if (path / "zarr.json").exists():
        return
    with suppress(ContainsArrayError):  # another part of the same volume was faster
        zarr.create_array(
            path,
            shape=layout.shape[::-1],
            chunks=layout.chunk[::-1],
            shards=layout.shard[::-1],
            dtype=storage.dtype,
            compressors=codecs(storage),
            fill_value=storage.encode(np.full((1, 1, 1), fill, np.float32))[0, 0, 0],
            dimension_names=("z", "y", "x"),
        )


def commit(
    store: Path,
    grids: list[Grid],
    shards: Mapping[str, Written],
    *,
    name: str,
    storage: Storage,
    fingerprint: str,
    record: Mapping[str, Any],
    forms: Forms = SCANNER,
) -> None:
    """Write the NIfTI header and then the root ``zarr.json``: from now on the store is whole.

    ``shards`` are all of the store's; whatever else lies beside them, left by a kill, is removed. Raises StoreError
    where one of them is not there as it was written, and where something else came in that headsr did not make.
    """
    root, sizes = store.parent, {key: shard.size for key, shard in shards.items()}
    if lost := lost_shards(root, sizes):
        raise StoreError(
            f"{root}: {len(lost)} of {len(shards)} shards are not there as they were written, {lost[0]} among them. "
            "Say the same again to write them anew"
        )
    header = np.frombuffer(nifti_header(grids[0], storage, forms).binaryblock, dtype=np.uint8)
    _refuse_foreign(root)  # whatever came in since it was begun
    layout = {"shape": header.shape, "chunks": header.shape, "dtype": "uint8", "compressors": None}
    zarr.create_array(root / "nifti", **layout, fill_value=0, overwrite=True)[:] = header
    _remove_strays(root, len(grids), shards)
    # With the hash of what it stands for, the mark changes whenever a voxel does: Snakemake compares its bytes alone.
    held = {
        **record,
        "content": tree_hash(root, leaving_out={WORK}, known={key: shard.sha256 for key, shard in shards.items()}),
        "fingerprint": fingerprint,
        "metadata": {key: sha256_of(root / key) for key in _metadata_of(len(grids))},
        "shards": sizes,
        "storage": dataclasses.asdict(storage),
    }
    attributes = {"ome": {"version": "0.5", "multiscales": [_multiscale(grids, name)]}, "headsr": held}
    content = {"zarr_format": 3, "node_type": "group", "attributes": attributes}
    held["seal"] = _sum_of(content)
    write_json(store, content)
    shutil.rmtree(root / WORK)


def open_level(store: str | os.PathLike[str], level: int = 0) -> zarr.Array:
    """The array (z, y, x) of one level as it is stored, to read; its store may still be unfinished."""
    return zarr.open_array(Path(store).parent / str(level), mode="r")


def read_level(store: str | os.PathLike[str], level: int = 0) -> NDArray[np.float32]:
    """One level of a finished store as (x, y, z) float32, in scan units. StoreError where a shard of it is lost."""
    sizes = {key: size for key, size in read_record(store)["shards"].items() if key.startswith(f"{level}/")}
    if lost := lost_shards(Path(store).parent, sizes):
        raise StoreError(f"{Path(store).parent / lost[0]}: is gone or cut short. Move the store's {_MOVE}")
    return np.ascontiguousarray(read_storage(store).decode(open_level(store, level)[:].T))


def read_storage(store: str | os.PathLike[str]) -> Storage:
    """How a finished store keeps its intensities."""
    return Storage(**read_record(store)["storage"])


def read_record(store: str | os.PathLike[str]) -> dict[str, Any]:
    """What a finished store says of itself beyond OME-Zarr: how it was rendered, its storage and its content's hash."""
    return attributes_of(store)["headsr"]


def read_grid(store: str | os.PathLike[str]) -> Grid:
    """The grid of a finished store, from the NIfTI header in it."""
    attributes_of(store)
    shape = open_level(store).shape[::-1]
    place = Path(store).parent / "nifti"
    header = read_header(place, zarr.open_array(place, mode="r")[:].tobytes())
    return Grid(shape, header.get_best_affine())


def read_scales(store: str | os.PathLike[str]) -> list[tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """Scale and translation (each x, y, z in mm) of every level, as viewers read them."""
    datasets = attributes_of(store)["ome"]["multiscales"][0]["datasets"]
    steps = [dataset["coordinateTransformations"] for dataset in datasets]
    return [(np.array(s["scale"][::-1]), np.array(t["translation"][::-1])) for s, t in steps]


def scales(grids: list[Grid]) -> list[tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """Scale and translation (x, y, z in mm) that OME-Zarr can say about each level.

    For a grid along the scanner's axes this is its affine; an oblique one is turned about the scanner's origin.
    """
    directions = grids[0].affine[:3, :3] / grids[0].voxel_size
    return [(grid.voxel_size, np.linalg.solve(directions, grid.affine[:3, 3])) for grid in grids]


def nifti_header(grid: Grid, storage: Storage, forms: Forms = SCANNER) -> nib.Nifti1Header:
    """The header of a single-file NIfTI-1 of this grid that holds the numbers of ``storage``."""
    header = nib.Nifti1Header()
    header.set_data_shape(grid.shape)
    header.set_data_dtype("float32" if storage.dtype == "float16" else storage.dtype)  # NIfTI has no float16
    header.set_slope_inter(storage.slope, storage.intercept)
    place(header, grid, forms)
    header["descrip"] = DESCRIPTION.encode()
    header["vox_offset"] = 352
    return header


def attributes_of(store: str | os.PathLike[str]) -> dict[str, Any]:
    """What the root ``zarr.json`` of a finished store says: ``ome`` and ``headsr``.

    Raises StoreError where that is not what was written, nor what the metadata of its arrays are. Shards are not looked
    at: their sizes are in it (``lost_shards``), and each of their chunks has its CRC.
    """
    try:
        content = read_json(store)
        attributes, held = content["attributes"], content["attributes"]["headsr"]
        seal, metadata = held.pop("seal", None), held.get("metadata")
    except (IsADirectoryError, ValueError, RecursionError, KeyError, TypeError, AttributeError) as error:
        raise StoreError(
            f"{store}: is not a volume that headsr wrote, or is damaged ({error!r:.200}). If it was headsr's, move its "
            f"{_MOVE}"
        ) from error
    if seal is None and metadata is None:  # from before there were seals
        return attributes
    if seal != _sum_of(content):
        raise StoreError(f"{store}: is not as it was written (SHA-256). Move {_MOVE}")
    root = Path(store).parent
    for key, known in metadata.items():
        if not (root / key).is_file() or sha256_of(root / key) != known:
            raise StoreError(f"{root / key}: is gone or not as it was written (SHA-256). Move the store's {_MOVE}")
    return attributes


def _metadata_of(levels: int) -> list[str]:
    """What a store of so many levels holds beside its shards and its root."""
    return ["nifti/zarr.json", "nifti/c/0", *(f"{level}/zarr.json" for level in range(levels))]


def _sum_of(root: Mapping[str, Any]) -> str:
    """The SHA-256 of what a root ``zarr.json`` says beside its seal, however it is laid out."""
    return hashlib.sha256(json.dumps(root, sort_keys=True).encode()).hexdigest()


def _fingerprint(root: Path) -> str | None:
    try:
        return read_json(root / WORK / "fingerprint.json")["fingerprint"]
    except (FileNotFoundError, NotADirectoryError, ValueError, RecursionError, KeyError, TypeError):
        return None


def _refuse_foreign(root: Path) -> None:
    foreign = foreign_in(root) if root.exists() else None
    if foreign is not None:
        raise StoreError(
            f"{root}: holds {foreign}, which headsr did not make and will not replace or write through. Choose another "
            "name, or move it away"
        )


def _move_away(root: Path) -> None:
    stale = root.with_name(f".{socket.gethostname()}.{os.getpid()}.stale.{root.name}")
    root.rename(stale)
    shutil.rmtree(stale)


def _remove_partials(root: Path) -> None:
    """Delete what killed processes left: shards half-written, and stores on their way in or out."""
    for partial in root.rglob("*.partial"):
        partial.unlink(missing_ok=True)
    for kind in ("fresh", "stale"):
        for left in root.parent.glob(f".*.{kind}.{glob.escape(root.name)}"):
            _remove_leftover(left)


def _remove_leftover(folder: Path) -> None:
    if is_leftover(folder):
        shutil.rmtree(folder, ignore_errors=True)


def _create_empty(root: Path, fingerprint: str) -> None:
    """An empty store appears with its fingerprint in it, by one rename; where another process was faster, its own."""
    fresh = root.with_name(f".{socket.gethostname()}.{os.getpid()}.fresh.{root.name}")
    _remove_leftover(fresh)  # of an earlier process of this number
    root.parent.mkdir(parents=True, exist_ok=True)
    fresh.mkdir()
    try:
        write_json(fresh / WORK / "fingerprint.json", {"fingerprint": fingerprint})
        fresh.rename(root)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
        if _fingerprint(root) != fingerprint:
            raise StoreError(
                f"{root}: holds another volume. Move it away, or render once without parts to replace it"
            ) from None
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def _remove_strays(root: Path, levels: int, shards: Mapping[str, Written]) -> None:
    """Delete what a kill left behind: files half-written, and a shard that has no line yet."""
    kept = {*shards, *_metadata_of(levels)}
    for path in tree_files(root, leaving_out={WORK}):
        if path.relative_to(root).as_posix() not in kept:
            path.unlink()


def _multiscale(grids: list[Grid], name: str) -> dict[str, Any]:
    toward = nib.aff2axcodes(grids[0].affine)
    axes = [
        {
            "name": axis,
            "type": "space",
            "unit": "millimeter",
            "orientation": {"type": "anatomical", "value": _ORIENTATIONS[code]},
        }
        for axis, code in zip("xyz", toward, strict=True)
    ]
    datasets = [
        {
            "path": str(level),
            "coordinateTransformations": [
                {"type": "scale", "scale": scale[::-1].tolist()},
                {"type": "translation", "translation": translation[::-1].tolist()},
            ],
        }
        for level, (scale, translation) in enumerate(scales(grids))
    ]
    return {"name": name, "type": "mean", "axes": axes[::-1], "datasets": datasets}
