"""The benchmark of fields builds fields by hand: what a field refuses must not end it halfway."""

import subprocess
import sys
from pathlib import Path

BENCHMARKS = Path(__file__).resolve().parents[3] / "benchmarks"


def test_the_parts_of_the_time_of_dense_grids_are_told_apart() -> None:
    command = [sys.executable, "-c", "import render; render.time_dense_field(16)"]
    run = subprocess.run(command, cwd=BENCHMARKS, capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stderr
    assert run.stdout.count("of the time in the network's 16 units") == 3
