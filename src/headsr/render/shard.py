"""One shard of a zarr v3 array, written chunk by chunk: only the chunks in work are in memory, never the shard.

zarr-python writes a shard from an array of its size, which it holds up to three times: 1.6 GB for 512 x 512 x 512
float32, and as much again for every task beside it. The file is simple enough to be written as a stream (zarr v3 core
codec ``sharding_indexed``): the compressed chunks one after the other, then for every chunk, z, y, x in C order, where
it starts and how long it is (uint64; all bits set where there is no chunk), then the CRC-32C of that index.
"""

from __future__ import annotations

import hashlib
import os
import socket
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import google_crc32c
import numpy as np
from numcodecs import blosc
from numpy.typing import NDArray
from zarr.codecs import BloscCodec, Crc32cCodec

from headsr.render.tiles import Layout, Tile
from headsr.volumes import Storage

# Bits of one weight beside each other compress best, and level 1 is within a twentieth of level 5 at twice the speed.
# Blocks of half a MiB are compressed in half to two thirds of the time of the 16 to 64 KiB that blosc would choose, and
# take 4 to 5 % less room; larger ones gain no more and leave the processor's cache.
_BLOSC = {"cname": "zstd", "clevel": 1, "blocksize": 512 * 2**10}
_NO_CHUNK = np.uint64(2**64 - 1)


@dataclass(frozen=True)
class Written:
    """A shard that lies on disk: its SHA-256 and its size in bytes."""

    sha256: str
    size: int


def codecs(storage: Storage) -> list[BloscCodec | Crc32cCodec]:
    """What zarr says of the chunks that ``compress`` makes.

    With a checksum of its own, a flipped bit in a chunk is an error when it is read, not another voxel.
    """
    typesize = np.dtype(storage.dtype).itemsize
    return [BloscCodec(**_BLOSC, shuffle="bitshuffle", typesize=typesize), Crc32cCodec()]


def compress(values: NDArray[np.float32], chunk: tuple[int, int, int], storage: Storage, fill: float) -> bytes:
    """One chunk from its intensities (X, Y, Z); beyond the volume's edge a chunk is filled with ``fill``.

    Raises FloatingPointError for intensities that are not finite or that the storage cannot hold.
    """
    if not np.isfinite(values).all():
        raise FloatingPointError("not all intensities are finite")
    stored = _stored(values, storage)
    if values.shape != chunk:
        padded = np.full(chunk, _stored(np.full((1, 1, 1), fill, np.float32), storage)[0, 0, 0], order="F")
        padded[tuple(slice(n) for n in values.shape)] = stored
        stored = padded
    # In the order of the file, x fastest, an (x, y, z) array that lies in Fortran order is itself.
    content = stored.T.reshape(-1).view(np.uint8)
    settings = _BLOSC | {"cname": _BLOSC["cname"].encode()}
    squeezed = blosc.compress(content, **settings, shuffle=blosc.BITSHUFFLE, typesize=stored.itemsize)
    return squeezed + google_crc32c.value(squeezed).to_bytes(4, "little")


def write_shard(path: Path, tile: Tile, layout: Layout, chunks: Iterable[bytes | None]) -> Written:
    """Write the shard of ``tile`` from its compressed chunks, in the order of ``tile.blocks(layout.chunk)``.

    None is a chunk that is all fill value. The file appears whole or not at all; a failure leaves nothing.
    """
    grid = tuple(shard // chunk for shard, chunk in zip(layout.shard, layout.chunk, strict=True))
    index = np.full((*grid[::-1], 2), _NO_CHUNK, dtype="<u8")
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{socket.gethostname()}.{os.getpid()}.{threading.get_ident()}.{path.name}.partial")
    digest, offset = hashlib.sha256(), 0
    try:
        partial.unlink(missing_ok=True)  # of an earlier process of this number, or a link: never written through
        with open(partial, "xb") as stream:
            for block, content in zip(tile.blocks(layout.chunk), chunks, strict=True):
                if content is None:
                    continue
                x, y, z = ((a - o) // n for a, o, n in zip(block.start, tile.start, layout.chunk, strict=True))
                index[z, y, x] = offset, len(content)
                stream.write(content)
                digest.update(content)
                offset += len(content)
            end = index.tobytes()
            end += google_crc32c.value(end).to_bytes(4, "little")
            stream.write(end)
            digest.update(end)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    return Written(digest.hexdigest(), offset + len(end))


def _stored(values: NDArray[np.float32], storage: Storage) -> NDArray:
    try:
        with np.errstate(over="raise"):
            return storage.encode(values)
    except (ValueError, FloatingPointError):
        raise FloatingPointError(
            f"intensities from {values.min():g} to {values.max():g} are beyond what {storage.dtype} with slope "
            f"{storage.slope:g} and intercept {storage.intercept:g} holds. Render as float32"
        ) from None
