"""With what arithmetic a field's matrix products are computed, and how long they take: both said without torch.

Importing torch takes over a second, and a render's plan, which needs both, has two seconds in all.
"""

from __future__ import annotations

import itertools
import math
import platform
import re
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

Layers = tuple[NDArray[np.float32], ...]
PRECISIONS = ("fp32", "bf16", "fp16")
# Assumed, not measured: what a plan reckons with for a graphics card, whose rate nobody knows without asking torch.
_DEVICE_RATE = 2e13  # multiply-adds per second
_TIMED_ROWS = 512
# What MKL keeps per thread for its packed blocks, and torch for its own small tensors.
LIBRARY_BYTES = 16 * 2**20


def check_arithmetic(device: str, precision: str) -> None:
    """Raise ValueError unless networks can be evaluated so: ``cpu``, ``cuda`` or ``cuda:1``; fp32, bf16 or fp16."""
    if not re.fullmatch(r"cpu|cuda(:\d{1,3})?", device, re.ASCII) or precision not in PRECISIONS:
        raise ValueError(
            f"device {device!r} with precision {precision!r} is not known; "
            f"choose cpu, cuda or cuda:N and one of {', '.join(PRECISIONS)}"
        )


def check_layers(weights: Layers, biases: Layers, *, inputs: int) -> None:
    """Raise ValueError unless these are float32 layers from ``inputs`` through hidden ones to 1 output."""
    widths = (inputs, *(len(bias) for bias in biases))
    fitting = len(weights) == len(biases) >= 2 and all(
        weight.shape == (out, into) and bias.shape == (out,) and weight.dtype == bias.dtype == np.float32
        for weight, bias, into, out in zip(weights, biases, widths, widths[1:], strict=False)
    )
    if not fitting or widths[-1] != 1:
        raise ValueError(f"float32 layers from {inputs} inputs to 1 output are needed, not of {widths} units")


def layer_tensors(weights: Layers, biases: Layers) -> dict[str, NDArray[np.float32]]:
    """What a file keeps of a network, by name."""
    named = {"weight": weights, "bias": biases}
    return {f"{name}_{index}": array for name, arrays in named.items() for index, array in enumerate(arrays)}


def layers_of(tensors: Mapping[str, NDArray[np.float32]], count: int) -> tuple[Layers, Layers]:
    """Weights and biases of a network of ``count`` layers from a file's tensors; KeyError where one is missing."""
    weights, biases = (tuple(tensors[f"{name}_{index}"] for index in range(count)) for name in ("weight", "bias"))
    return weights, biases


def arithmetic_of(device: str, precision: str) -> str:
    """A short name of all that the bits of matrix products follow from: device, precision, library and its kernels.

    On a CPU the libraries choose their kernels by vendor and vector instructions. The model of a graphics card is not
    in the name, for nobody knows it without torch.
    """
    kernels = f" {_vendor()} {_vector_instructions()}" if device == "cpu" else ""
    return f"{device} {precision} torch {version('torch')}{kernels}"


def seconds_of_layers(widths: Sequence[int], device: str) -> float:
    """Seconds that the matrix products of one voxel take on one core: a network of so many inputs, units and outputs.

    The multiply-adds over the rate of NumPy's own product, timed now, in fp32.
    """
    products = sum(a * b for a, b in itertools.pairwise(widths))
    if device != "cpu":
        return products / _DEVICE_RATE
    width = max(widths[1:-1])
    rows, weight = np.ones((_TIMED_ROWS, width), np.float32), np.ones((width, width), np.float32)
    out = np.empty_like(rows)
    with threadpool_limits(limits=1, user_api="blas"):
        return products * least_seconds(lambda: np.matmul(rows, weight, out=out)) / (rows.size * width)


def least_seconds(work: Callable[[], object], *, within: float = 0.02) -> float:
    """The shortest of several times that ``work`` took, tried for about ``within`` seconds."""
    work()
    least, begun = math.inf, time.perf_counter()
    while time.perf_counter() - begun < within:
        start = time.perf_counter()
        work()
        least = min(least, time.perf_counter() - start)
    return least


def _vendor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.machine()
    said = (line.partition(":")[2].strip() for line in lines if line.startswith("vendor_id"))
    return next(said, platform.machine())


def _vector_instructions() -> str:
    found = np.show_config(mode="dicts")["SIMD Extensions"]
    return [*found.get("baseline", []), *found.get("found", [])][-1]
