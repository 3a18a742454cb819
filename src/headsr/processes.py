"""Processes that are begun and ended with the one that begins them, whatever ends it."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import connection, parent_process, resource_tracker
from types import ModuleType

_TOLD = {signal.SIGTERM, signal.SIGHUP}  # beside Ctrl-C


@contextmanager
def sigterm_as_exit() -> Iterator[None]:
    """End this process by an exception at SIGTERM, so that what it started is ended; unless others handle it."""
    ours = threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    if ours:
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        yield
    finally:
        if ours:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)


@contextmanager
def main_not_run_again() -> Iterator[None]:
    """Hide the main module while processes start: each would run it again, and a script of Snakemake has no guard.

    ``multiprocessing.spawn`` sends a process the name or the file of ``__main__``, where it has one.
    """
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


@contextmanager
def children_begin() -> Iterator[None]:
    """Be told to end only after the block, in which children begin: one that is half begun would say so in a traceback.

    They inherit what is blocked here. Ctrl-C, which a terminal sends to all, stays so in them; it is left to this
    process. The others they take again once they have begun (begin_child).
    """
    resource_tracker.ensure_running()  # it begins with the first child, and unblocks what was blocked
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, *_TOLD})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT, *_TOLD})


def begin_child(threads: int) -> None:
    """What every process does first: it ends when it is told to, and when the one does that has begun it.

    Torch gets so many threads in it.
    """
    import torch

    signal.pthread_sigmask(signal.SIG_UNBLOCK, _TOLD)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(threads)


def _end_with_parent() -> None:
    """End this process when the one that has begun it is gone, by SIGKILL too: nobody would ever give it work again."""
    connection.wait([parent_process().sentinel])
    os._exit(1)
