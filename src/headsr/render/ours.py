"""What headsr wrote, told from what a person keeps: by marks that the files carry, wherever they are copied to.

A sidecar holds a ``headsr`` object, a NIfTI says it in its header's description, a store in its root metadata, in the
notes of an unfinished render or in the NIfTI header inside it. What carries no such mark, and what is a link, is never
overwritten, deleted, truncated or followed. A list of what was written would be a second record, and lost with a copy.
"""

from __future__ import annotations

import gzip
import os
import re
import stat
import zlib
from collections.abc import Iterator
from pathlib import Path

from headsr.files import read_json

DESCRIPTION = "headsr research use only"  # in the header of every NIfTI that is published
GENERATOR = "headsr (research use only)"  # what every page says that it was made by
WORK = ".rendering"  # the folder in a store of what is known of an unfinished render

_PAGE_BEGINS = 1000  # bytes
_DESCRIPTION_AT = slice(148, 228)  # of a NIfTI-1 header: its field descrip
_SHARD = r"\d+/c/\d+/\d+/\d+"
_FILES = re.compile(
    rf"zarr\.json|nifti/zarr\.json|nifti/c/0|\d+/zarr\.json|{_SHARD}"
    rf"|{re.escape(WORK)}/(fingerprint\.json|air\.json|shards-[^/]+\.jsonl)"
    # What a kill leaves half-written (``files.whole``, ``write_shard``, zarr), and what NFS keeps of deleted files.
    r"|(.+/)?(\.[^/]+\.\d+\.partial\.(zarr|fingerprint|air)\.json|\.[^/]+\.\d+\.\d+\.\d+\.partial)"
    r"|(.+/)?((zarr|\d+)\.[0-9a-f]{32}\.partial|\.nfs[^/]+)"
)
_FOLDERS = re.compile(rf"nifti(/c)?|\d+(/c(/\d+){{0,2}})?|{re.escape(WORK)}")


def is_ours(path: Path) -> bool:
    """Whether headsr published the file: a sidecar, a NIfTI or a page that says so, and no link."""
    if not stat.S_ISREG(path.lstat().st_mode):
        return False
    return {".json": _says_sidecar, ".html": _says_page}.get(path.suffix, _says_nifti)(path)


def foreign_in(root: Path) -> str | None:
    """What lies in a store's folder that headsr did not make, by its path in it; None where all is headsr's.

    A folder whose every name could be headsr's, but which says nowhere that it is, is foreign by the first of them.
    """
    found, first = False, None
    for path, is_folder, is_plain in _walk(root):
        name = path.relative_to(root).as_posix()
        if not is_plain or not (_FOLDERS if is_folder else _FILES).fullmatch(name):
            return name
        first = first or name
        found = found or not path.name.startswith(".nfs")
    return first if found and not says_store(root) else None


def says_store(root: Path) -> bool:
    """Whether something in a store's folder says that headsr wrote it, or began to."""
    with_key = {root / "zarr.json": ("attributes", "headsr"), root / WORK / "fingerprint.json": ("fingerprint",)}
    return any(_holds(path, keys) for path, keys in with_key.items()) or _says_nifti(root / "nifti" / "c" / "0")


def is_leftover(folder: Path) -> bool:
    """Whether a folder that is named as headsr names a store on its way in or out is one."""
    named = re.fullmatch(r"\..+\.\d+\.(fresh|stale)\..+\.ome\.zarr", folder.name)
    if not named or folder.is_symlink() or not folder.is_dir():
        return False
    # A kill while it is deleted takes its marks first, so here its names alone must tell.
    parts = ((path.relative_to(folder).as_posix(), *kind) for path, *kind in _walk(folder))
    return all(plain and (_FOLDERS if inner else _FILES).fullmatch(name) for name, inner, plain in parts)


def _walk(root: Path) -> Iterator[tuple[Path, bool, bool]]:
    """Everything below a folder, by name: its path, whether it is a folder, and whether it is a folder or a file."""
    for entry in sorted(os.scandir(root), key=lambda entry: entry.name):
        is_folder = entry.is_dir(follow_symlinks=False)
        yield Path(entry.path), is_folder, is_folder or entry.is_file(follow_symlinks=False)
        if is_folder:
            yield from _walk(Path(entry.path))


def _says_sidecar(path: Path) -> bool:
    return _holds(path, ("headsr", "SyntheticDetail"))


def _holds(path: Path, keys: tuple[str, ...]) -> bool:
    """Whether a JSON file has a key in a key."""
    try:
        content = read_json(path)
    except (OSError, ValueError, RecursionError):
        return False
    for key in keys:
        if not isinstance(content, dict) or key not in content:
            return False
        content = content[key]
    return True


def _says_page(path: Path) -> bool:
    with open(path, "rb") as stream:
        return f'content="{GENERATOR}"'.encode() in stream.read(_PAGE_BEGINS)


def _says_nifti(path: Path) -> bool:
    reading = gzip.open if path.suffix == ".gz" else open
    try:
        with reading(path, "rb") as stream:
            return stream.read(_DESCRIPTION_AT.stop)[_DESCRIPTION_AT].startswith(DESCRIPTION.encode())
    except (OSError, EOFError, zlib.error):
        return False
