"""How long the blind degradation of a training batch takes, and what degrading many slices at once saves.

Run: python benchmarks/degrade.py [--device cuda] [--crop 64] [--batch 16]
"""

import argparse
import statistics
import time

import torch

from headsr.degrade.pipeline import BlindDegradation
from headsr.recipes import Blind, BlindStage

FIRST = BlindStage(0.8, (0.2, 1.5), (2.0, 6.0), 0.8, 0.8, (0.002, 0.05), 0.3, 0.5, (0.5, 0.95), 0.2, (50.0, 95.0))
SECOND = BlindStage(0.5, (0.2, 0.8), (1.0, 1.5), 0.3, 0.5, (0.002, 0.02), 0.3, 0.3, (0.7, 0.95), 0.2, (70.0, 95.0))
WARM_UP, REPEATS = 40, 40


def milliseconds(call, device) -> float:
    times = []
    for repeat in range(WARM_UP + REPEATS):
        start = time.perf_counter()
        call(repeat)
        if device.startswith("cuda"):
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return 1000 * statistics.median(times[WARM_UP:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--crop", type=int, default=64)
    parser.add_argument("--batch", type=int, default=16)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    n = arguments.batch
    images = torch.rand(n, 1, arguments.crop, arguments.crop, device=arguments.device)
    pixel_mm = torch.ones(n, 2)
    for order in ("fixed", "shuffled"):
        degrade = BlindDegradation(Blind(FIRST, SECOND, 0.5, order), device=arguments.device)

        def together(step, degrade=degrade):
            degrade(images, pixel_mm, [step * n + i for i in range(n)])

        def one_by_one(step, degrade=degrade):
            for i in range(n):
                degrade(images[i : i + 1], pixel_mm[i : i + 1], [step * n + i])

        batched = milliseconds(together, arguments.device)
        single = milliseconds(one_by_one, arguments.device)
        print(
            f"{order}: {batched:.1f} ms for {n} slices of {arguments.crop}^2; one by one takes {single / batched:.1f}x"
        )


if __name__ == "__main__":
    main()
