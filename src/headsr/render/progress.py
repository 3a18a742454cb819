"""How far a render is: voxels, voxels per second and time left, in one line on a terminal and in lines in a log."""

from __future__ import annotations

import shutil
import sys
import threading
import time

from headsr.render.plan import time_said

_SECONDS_BETWEEN_LINES = {True: 0.5, False: 10.0}  # on a terminal, in a log


class RenderProgress:
    """Counts the voxels that are rendered, from any thread; in another process its copy is silent."""

    def __init__(self, label: str, total: int, *, done: int = 0) -> None:
        self._label, self._total, self._before, self._new = label, total, done, 0
        self._begun = self._said = time.monotonic()
        self._terminal = sys.stdout.isatty()
        self._line_is_open = False
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple:
        return Silent, ()

    def add(self, voxels: int) -> None:
        """Count voxels, and say so if the last line is old enough."""
        with self._lock:
            self._new += voxels
            now = time.monotonic()
            finished = self._before + self._new >= self._total
            if voxels and (finished or now - self._said >= _SECONDS_BETWEEN_LINES[self._terminal]):
                self._said = now
                self._say(now - self._begun, finished)

    def end(self) -> None:
        """Leave the line of a terminal, so that what is said next, of a failure, has one of its own."""
        with self._lock:
            if self._line_is_open:
                print(flush=True)
                self._line_is_open = False

    def _say(self, seconds: float, finished: bool) -> None:
        done = self._before + self._new
        rate = self._new / max(seconds, 1e-9)
        line = (
            f"{self._label}: {done / self._total:.0%} of {self._total:.4g} voxels, {rate:.3g} voxels/s, "
            f"{time_said((self._total - done) / rate)} left"
        )
        if self._terminal:
            # A line that is wrapped would not be written over.
            width = shutil.get_terminal_size().columns - 1
            print(f"\r{line[:width]:<{width}}", end="\n" if finished else "", flush=True)
            self._line_is_open = not finished
        else:
            print(line, flush=True)


class Silent:
    """Progress that nobody reads."""

    def add(self, voxels: int) -> None:
        """Count nothing."""
