"""Send what a job says to its log: stdout, stderr, warnings, logging and tracebacks."""

from __future__ import annotations

import logging
import os
import sys


def log_to(path: str) -> None:
    """Redirect this process's output, its children's too, to the rule's log, line by line."""
    os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
    stream = open(path, "w", buffering=1, encoding="utf-8")  # noqa: SIM115 - open until the job ends
    os.dup2(stream.fileno(), 1)
    os.dup2(stream.fileno(), 2)
    sys.stdout = sys.stderr = stream
    logging.basicConfig(stream=stream, level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    logging.captureWarnings(True)
