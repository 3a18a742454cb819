"""Scans: NIfTI files whose header, bytes, gzip stream or size is damaged, and what nibabel makes of them."""

from __future__ import annotations

import gzip
import os
import zlib
from pathlib import Path

import nibabel as nib
import numpy as np
from fuzz.damage import EDGES, damaged_bytes, pick
from fuzz.outcomes import Input
from fuzz.run import Maker
from numpy.random import Generator

from headsr.volumes import Volume, load_volume

SHAPE = (5, 6, 7)
NUMBERS = (*EDGES, 4, 5, 6, 8, 16, 512, 768, 1024, 1280, 1536, 2048, 2304, 348, 352, 540, 544)
FLOATS = (0.0, 1.0, -1.0, 2.0, 0.001, 1000.0, 1e-30, 1e30, np.nan, np.inf, -np.inf, 0.7071, 352.0)


def prepare(folder: Path) -> Maker:
    """Eight undamaged scans: types, versions, byte orders and forms that people have."""
    scans = [image.to_bytes() for image in _images()]

    def make(rng: Generator) -> Input:
        content = pick(rng, scans)
        packed = rng.random() < 0.7
        path = folder / ("scan.nii.gz" if packed else "scan.nii")
        path.unlink(missing_ok=True)
        kind = float(rng.random())
        if kind < 0.5:
            content = _other_header(content, rng)
        elif kind < 0.65:
            content = damaged_bytes(content, rng)
        elif kind < 0.7:  # more than the header says, of what packs well
            content += bytes(int(pick(rng, (1, 100, 2**20, 2**26))))
        stored = gzip.compress(content, 1, mtime=0) if packed else content
        sealed = packed and kind >= 0.7
        if sealed:
            stored = damaged_bytes(stored, rng)
        path.write_bytes(stored)
        if kind >= 0.99:
            _no_file(path, rng)
        undamaged = content if sealed else None
        return Input(lambda: load_volume(path), [path.name], lambda volume: _is_right(volume, stored, undamaged))

    return make


def _images() -> list[nib.Nifti1Image]:
    rng = np.random.default_rng(0)
    turned = nib.affines.from_matvec(nib.eulerangles.euler2mat(0.1, 0.2, 0.3) @ np.diag([-1.0, 1.0, 2.5]), [9, -20, 4])
    images = []
    for kind, image_of, affine, slope in (
        ("int16", nib.Nifti1Image, np.diag([1, 1, 1.2, 1]), (0.5, -10)),
        ("float32", nib.Nifti1Image, turned, (None, None)),
        ("uint8", nib.Nifti2Image, np.diag([-0.9, 1, 3, 1]), (2, 0)),
        ("uint16", nib.Nifti1Image, turned, (1, -1024)),
        ("float64", nib.Nifti2Image, turned, (None, None)),
    ):
        image = image_of((rng.random(SHAPE) * 200).astype(kind), affine)
        image.header.set_slope_inter(*slope)
        image.header.set_xyzt_units("mm")
        image.set_sform(affine, 1)
        image.set_qform(affine, 1 if kind != "uint16" else 0)
        images.append(image)
    swapped = nib.Nifti1Image(images[0].dataobj, images[0].affine, images[0].header.as_byteswapped(">"))
    without = nib.Nifti1Image(images[1].dataobj, None, images[1].header)
    extended = nib.Nifti1Image(images[1].dataobj, images[1].affine, images[1].header)
    extended.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"scanned"))
    return [*images, swapped, without, extended]


def _other_header(content: bytes, rng: Generator) -> bytes:
    """The file with one to three fields of its header at an edge."""
    kind = (
        nib.Nifti2Header
        if content[4:7] == b"n+2" or content[:4] in (b"\x1c\2\0\0", b"\0\0\2\x1c")
        else (nib.Nifti1Header)
    )
    size = kind.template_dtype.itemsize
    order = "<" if content[0] else ">"
    block = np.frombuffer(content[:size], kind.template_dtype.newbyteorder(order)).copy().reshape(())
    for _ in range(int(rng.integers(1, 4))):
        name = pick(rng, kind.template_dtype.names)
        values = np.atleast_1d(block[name])
        at = int(rng.integers(values.size))
        if values.dtype.kind in "iu":
            limits = np.iinfo(values.dtype)
            values[at] = min(max(int(pick(rng, NUMBERS)), limits.min), limits.max)
        elif values.dtype.kind == "f":
            values[at] = values[at] * pick(rng, (-1, 1.01, 10)) if rng.random() < 0.4 else pick(rng, FLOATS)
        else:
            values[at] = rng.bytes(values.dtype.itemsize)
        block[name] = values.reshape(block[name].shape)
    return block.tobytes() + content[size:]


def _no_file(path: Path, rng: Generator) -> None:
    path.unlink()
    kind = int(rng.integers(5))
    if kind == 0:
        os.mkfifo(path)
    elif kind == 1:
        path.symlink_to("/dev/zero")
    elif kind == 2:
        path.symlink_to(path)
    elif kind == 3:
        path.symlink_to(path.parent)


def _is_right(volume: Volume, stored: bytes, undamaged: bytes | None) -> bool:
    """The undamaged scan where a checksum vouches for it, and else what nibabel reads."""
    content = stored
    if stored[:2] == b"\x1f\x8b":
        content = zlib.decompressobj(31).decompress(stored)
    if undamaged is not None and content != undamaged:
        return False
    image = next(kind for kind in (nib.Nifti1Image, nib.Nifti2Image) if kind.header_class.may_contain_header(content))
    read = nib.as_closest_canonical(image.from_bytes(content))
    data = np.asarray(read.dataobj, dtype=np.float64).reshape(volume.data.shape)
    unit = {"meter": 1000.0, "micron": 0.001}.get(read.header.get_xyzt_units()[0], 1.0)
    affine = np.diag([unit, unit, unit, 1]) @ read.affine
    span = max(1e-30, float(np.abs(data).max()))
    return bool(
        np.allclose(volume.data, data, rtol=1e-5, atol=1e-6 * span)
        and np.allclose(volume.grid.affine, affine, atol=1e-3)
    )
