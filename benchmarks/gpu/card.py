"""What the card is and what drives it."""

import platform
import subprocess

import numpy as np
import torch
from measured import say

PRODUCT, COPIED = 8192, 2**30


def main() -> None:
    say("python", platform.python_version())
    say("torch", torch.__version__)
    say("numpy", np.__version__)
    say("CUDA of torch", str(torch.version.cuda))
    asked = ["nvidia-smi", "--query-gpu=driver_version,memory.total", "--format=csv,noheader"]
    say("driver, memory", subprocess.run(asked, capture_output=True, text=True).stdout.strip() or "unknown")
    card = torch.cuda.get_device_properties(0)
    say("card", card.name)
    say("compute capability", f"{card.major}.{card.minor}")
    say("multiprocessors", card.multi_processor_count)
    time_yardsticks()


def time_yardsticks() -> None:
    """What nothing but matrix products and nothing but copying reach here."""
    a, b = (torch.randn(PRODUCT, PRODUCT, dtype=torch.bfloat16, device="cuda") for _ in range(2))
    say("matrix product, bf16", round(2 * PRODUCT**3 / seconds_of(lambda: a @ b) / 1e12), "TFLOP/s")
    source = torch.empty(COPIED, dtype=torch.uint8, device="cuda")
    copied = torch.empty_like(source)
    say("copy, read and written", round(2 * COPIED / seconds_of(lambda: copied.copy_(source)) / 1e9), "GB/s")


def seconds_of(work: object, repeats: int = 10) -> float:
    for _ in range(3):
        work()
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    for _ in range(repeats):
        work()
    end.record()
    torch.cuda.synchronize()
    return start.elapsed_time(end) / 1000 / repeats


if __name__ == "__main__":
    main()
