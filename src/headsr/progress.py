"""One line every few seconds: where a long training is and how long it will still take."""

from __future__ import annotations

import time
from collections.abc import Callable


class Progress:
    """Prints ``label: step 120 of 400, loss 0.0231, 34 s left`` at most every ``every`` seconds."""

    def __init__(
        self, label: str, *, first: int, last: int, every: float = 5.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.label, self.first, self.last, self.every, self.clock = label, first, last, every, clock
        self.started = self.printed = clock()

    def due(self) -> bool:
        """Whether the next report would print: so that a loss is read from the device only when it is shown."""
        return self.clock() - self.printed >= self.every

    def report(self, step: int, loss: float) -> None:
        """Print where the training is after ``step`` steps, if a line is due."""
        if not self.due():
            return
        self.printed = self.clock()
        left = (self.printed - self.started) / max(1, step - self.first) * (self.last - step)
        print(f"{self.label}: step {step} of {self.last}, loss {loss:.4g}, {left:.0f} s left", flush=True)
