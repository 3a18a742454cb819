"""Who may write a store: one process, or several that each write a part of it."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import socket
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from headsr.render.store import StoreError

_TRIES, _PAUSE = 20, 0.05  # seconds: another part that ends asks for a moment whether it is the last one
_HELD = re.compile(r"(process \d+ on [^\n]*)?")  # what stands in the file; nothing, just after it was made
_UNKNOWN = (errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK)


@contextmanager
def writing(store: Path, *, shared: bool = False) -> Iterator[None]:
    """Hold a store for this process alone, or ``shared`` with others that write parts of the same volume.

    ``store`` is the root ``zarr.json``. The lock is one of the system's on a file beside the store's folder: it ends
    with the process, however that ends. A file system without locks (some Lustre mounts) goes without. Raises
    StoreError where another process holds the store, and where a file of that name is no such lock.
    """
    path = store.parent.with_name(f".{store.parent.name}.lock")
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = _locked(path, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
    try:
        os.truncate(descriptor, 0)
        os.write(descriptor, f"process {os.getpid()} on {socket.gethostname()}".encode())
        yield
    finally:
        if _is_last(descriptor):
            path.unlink(missing_ok=True)
        os.close(descriptor)


def _locked(path: Path, kind: int) -> int:
    """A descriptor of the file at ``path`` with the lock on it."""
    for _ in range(_TRIES):
        descriptor = _opened(path)
        try:
            fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
            # Who held it may have removed it since it was opened here; then it keeps nobody out.
            if path.exists() and os.path.samestat(os.fstat(descriptor), path.stat()):
                return descriptor
        except OSError as error:
            if error.errno in _UNKNOWN:
                return descriptor
            if error.errno not in (errno.EWOULDBLOCK, errno.EACCES, errno.ENOENT):
                os.close(descriptor)
                raise
        os.close(descriptor)
        time.sleep(_PAUSE)
    folder = path.name.removeprefix(".").removesuffix(".lock")
    raise StoreError(
        f"{path.with_name(folder)}: is being written by {_holder(path)}. Wait until that has ended, or end it"
    )


def _opened(path: Path) -> int:
    """A descriptor of the lock's file. StoreError where what lies there is a link, or holds what no lock says."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.EISDIR):
            raise _in_the_way(path) from None
        raise
    status = os.fstat(descriptor)
    is_alone = stat.S_ISREG(status.st_mode) and status.st_nlink <= 1  # with a second name it is somebody's own file
    if is_alone and _HELD.fullmatch(os.pread(descriptor, 512, 0).decode(errors="replace")):
        return descriptor
    os.close(descriptor)
    raise _in_the_way(path)


def _in_the_way(path: Path) -> StoreError:
    return StoreError(f"{path}: is in the way: headsr's lock goes there, and this is none that it wrote. Move it away")


def _is_last(descriptor: int) -> bool:
    """Whether no other process writes a part of the same volume."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno in _UNKNOWN
    return True


def _holder(path: Path) -> str:
    with suppress(OSError):
        return path.read_text(encoding="utf-8", errors="replace") or "another process"
    return "another process"
