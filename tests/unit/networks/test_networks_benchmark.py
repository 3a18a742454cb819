"""The benchmark of the 2-D networks: what a step adds to the memory, on a CPU."""

import os
import subprocess
import sys
from pathlib import Path

BENCHMARKS = Path(__file__).resolve().parents[3] / "benchmarks"
MEASURED = """
import argparse, torch
from networks_2d import peak_mib

torch.zeros(2000, 2000).add_(1)  # begins torch's threads
def step():
    held = torch.ones(16, 1024, 1024)
    held.mul_(2)
def first():  # of a process: torch imports some 100 MiB
    layer = torch.nn.Linear(4, 4)
    layer(torch.zeros(1, 4)).sum().backward()
    torch.optim.AdamW(layer.parameters()).step()
def variant(of):
    held = torch.ones(8, 1024, 1024)
    return argparse.Namespace(step=of, held=held)
options = argparse.Namespace(device=torch.device("cpu"))
print(peak_mib(lambda: variant(step), options), peak_mib(lambda: variant(first), options))
"""


def test_a_step_adds_what_it_holds_and_not_what_was_there_or_is_imported() -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "2", "OMP_WAIT_POLICY": "passive"}
    command = [sys.executable, "-c", MEASURED]
    run = subprocess.run(command, cwd=BENCHMARKS, env=environment, capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stderr
    step, first = map(float, run.stdout.split())
    assert 63 < step < 72 and first < 6
