"""Work on several pieces at once, and take the results in order, so that a file can be written as they come."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Piece = TypeVar("Piece")
Result = TypeVar("Result")


class StoppedError(RuntimeError):
    """The lanes were stopped before all pieces were worked on."""


class Lanes:
    """How many pieces may be in work or wait to be taken, over all that share these lanes; one in another process.

    Who writes one of many files gets fewer lanes, and who writes the last one gets them all.
    """

    def __init__(self, number: int) -> None:
        self.number = number
        self._free = threading.BoundedSemaphore(number)
        self._stopped = False

    def __reduce__(self) -> tuple:
        return Lanes, (1,)

    def stop(self) -> None:
        """End all that share these lanes, from any thread, as soon as the pieces in work are done. Does not wait."""
        self._stopped = True  # who waits for a lane gets one from those that end, sees this and hands it on

    def in_order(self, work: Callable[[Piece], Result], pieces: Iterable[Piece]) -> Generator[Result, None, None]:
        """``work`` of every piece, in order. A piece keeps its lane until the result after it is asked for.

        ``pieces`` are taken from their iterator here, one after the other. The first failure ends it. Whoever may fail
        before the last result is to close it: lanes that it keeps are nobody else's. Once the lanes are stopped it
        begins no piece and yields no result, but raises StoppedError.
        """
        waiting: deque[Future[Result]] = deque()
        with ThreadPoolExecutor(self.number) as pool:
            try:
                for piece in pieces:
                    # Only who has nothing in work waits for a lane: others free one of their own.
                    while not self._take(wait=not waiting):
                        yield from self._oldest(waiting)
                    waiting.append(pool.submit(work, piece))
                while waiting:
                    yield from self._oldest(waiting)
            finally:
                for future in waiting:
                    future.cancel()
                    self._free.release()

    def _take(self, *, wait: bool) -> bool:
        """Whether there was a lane to take."""
        taken = self._free.acquire(blocking=wait)
        if self._stopped:
            if taken:
                self._free.release()
            raise StoppedError
        return taken

    def _oldest(self, waiting: deque[Future[Result]]) -> Generator[Result, None, None]:
        future = waiting.popleft()
        try:
            result = future.result()
            if self._stopped:
                raise StoppedError
            yield result
        finally:
            self._free.release()
