"""Who may write in a folder: one process, or several that each write a part of it. Standard library only."""

from __future__ import annotations

import atexit
import errno
import fcntl
import os
import re
import socket
import stat
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from pathlib import Path

from headsr.files import unwritable

_TRIES, _PAUSE = 20, 0.05  # seconds: another part that ends asks for a moment whether it is the last one
_HELD = re.compile(r"(?:process (?P<pid>\d{1,9}) on (?P<host>[^\n]*?)(?P<since> since [^\n]*)?)?")  # or nothing yet
_UNKNOWN = (errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK)


class HeldError(ValueError):
    """Another process writes there, or what lies where the lock goes is none. The message names the way out."""


def holding_results(results: str | os.PathLike[str]) -> AbstractContextManager[None]:
    """Hold a results folder. Its lock lies in it, where whoever reaches the folder, by whatever path, finds it."""
    return holding(Path(results, ".headsr.lock"), what=results, by_note=True)


def hold_results(results: str | os.PathLike[str]) -> None:
    """Hold a results folder until this process ends, however it ends. HeldError where another one holds it."""
    stack = ExitStack()
    stack.enter_context(holding_results(results))
    atexit.register(stack.close)


@contextmanager
def holding(lock: Path, *, what: str | os.PathLike[str], shared: bool = False, by_note: bool = False) -> Iterator[None]:
    """Hold what a lock is for (``what``, as messages name it), or hold it ``shared`` with others that write a part.

    The lock is one of the system's on the file ``lock``: it ends with its process, however that ends, on whichever
    node. A file system without locks (some Lustre mounts) goes without, or ``by_note``: then what stands in the file
    counts, unless its process has ended on this machine. Raises HeldError where another process holds the lock, and
    where a file of that name is no such lock; UnwritableError where the disk is full or not to be written on.
    """
    lock.parent.mkdir(parents=True, exist_ok=True)
    descriptor, is_known = _locked(lock, fcntl.LOCK_SH if shared else fcntl.LOCK_EX, what)
    if by_note and not is_known and not _is_free(note := _note(lock)):
        os.close(descriptor)
        raise HeldError(
            f"{what}: is being written by {note}, if that still runs: this file system has no locks. If it does not, "
            f"delete {lock}"
        )
    try:
        _write_note(lock, descriptor)
        yield
    finally:
        if _is_last(descriptor):
            lock.unlink(missing_ok=True)
        os.close(descriptor)


def _write_note(lock: Path, descriptor: int) -> None:
    since = time.strftime("%Y-%m-%d %H:%M:%S")
    try:
        os.truncate(descriptor, 0)
        os.write(descriptor, f"process {os.getpid()} on {socket.gethostname()} since {since}".encode())
    except OSError as error:  # it names no file
        raise unwritable(error, lock) or error from None


def _locked(lock: Path, kind: int, what: str | os.PathLike[str]) -> tuple[int, bool]:
    """A descriptor of the file with the lock on it, and whether the file system knows locks."""
    for _ in range(_TRIES):
        descriptor = _opened(lock)
        try:
            fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
            # Who held it may have removed it since it was opened here; then it keeps nobody out.
            if lock.exists() and os.path.samestat(os.fstat(descriptor), lock.stat()):
                return descriptor, True
        except OSError as error:
            if error.errno in _UNKNOWN:
                return descriptor, False
            if error.errno not in (errno.EWOULDBLOCK, errno.EACCES, errno.ENOENT):
                os.close(descriptor)
                raise
        os.close(descriptor)
        time.sleep(_PAUSE)
    raise HeldError(f"{what}: is being written by {_note(lock)}. Wait until that has ended, or end it")


def _opened(lock: Path) -> int:
    """A descriptor of the lock's file. HeldError where what lies there is a link, or holds what no lock says."""
    try:
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.EISDIR):
            raise _in_the_way(lock) from None
        raise
    status = os.fstat(descriptor)
    is_alone = stat.S_ISREG(status.st_mode) and status.st_nlink <= 1  # with a second name it is somebody's own file
    if is_alone and _HELD.fullmatch(os.pread(descriptor, 512, 0).decode(errors="replace")):
        return descriptor
    os.close(descriptor)
    raise _in_the_way(lock)


def _in_the_way(lock: Path) -> HeldError:
    return HeldError(f"{lock}: is in the way: headsr's lock goes there, and this is none that it wrote. Move it away")


def _is_last(descriptor: int) -> bool:
    """Whether no other process writes a part of the same."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno in _UNKNOWN
    return True


def _is_free(note: str) -> bool:
    """Whether the process that a note names has ended, as far as this machine can tell."""
    held = _HELD.fullmatch(note)
    if held is None or held["pid"] is None:
        return True
    return held["host"] == socket.gethostname() and not Path("/proc", held["pid"]).exists()


def _note(lock: Path) -> str:
    with suppress(OSError):
        return lock.read_text(encoding="utf-8", errors="replace") or "another process"
    return "another process"
