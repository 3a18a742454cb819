"""What `headsr sr` takes, start to end: seconds and memory against what it promised, for scans of several sizes.

Run: python benchmarks/sr.py [--shape 256 256 40] [--spacing 4] [--mem-gb 4] [--threads 2]

Each scan is a phantom with a rim, detail and noise, pixels of 1 mm; the command is a process of its own, its memory the
greatest that it held. Importing is measured by itself.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from scipy import ndimage

from headsr.volumes import Grid, save_volume

SHAPES = [(128, 128, 32), (192, 192, 40), (256, 256, 40)]
COMMAND = "import sys; from headsr.cli import main; sys.exit(main())"


def phantom(shape, spacing):
    places = [(np.arange(n) - (n - 1) / 2) * s for n, s in zip(shape, (1, 1, spacing), strict=True)]
    x, y, z = np.meshgrid(*places, indexing="ij")
    radius = np.sqrt((2 * x / shape[0]) ** 2 + (2 * y / shape[1]) ** 2 + (2 * z / (shape[2] * spacing)) ** 2)
    data = np.where(radius < 0.8, 500 + 150 * np.sin(x / 5) * np.sin(y / 6 + 1) * np.sin(z / 7), 0)
    data[(radius > 0.85) & (radius < 0.92)] = 900
    noise = np.random.default_rng(0).normal(0, 8, (2, *shape))
    return np.hypot(ndimage.gaussian_filter(data, 0.5) + noise[0], noise[1]).astype(np.float32)


def run(arguments, threads):
    """Seconds, and the most bytes that the process held."""
    environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
    begun = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-c", *arguments], env=environment, stdout=subprocess.PIPE, text=True)
    words = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{arguments}: failed\n{words}")
    return time.perf_counter() - begun, usage.ru_maxrss * 1024, words


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", type=int, nargs=3, action="append", help="voxels of a scan")
    parser.add_argument("--spacing", type=float, default=4.0, help="of its slices in mm")
    parser.add_argument("--mem-gb", type=float, default=4.0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--method", default="unrolled")
    options = parser.parse_args()
    seconds, _, _ = run(["import headsr.sr.run"], options.threads)
    print(f"importing: {seconds:.1f} s, {options.threads} threads, {options.mem_gb:g} GB allowed\n")
    print("| scan | result | seconds | foretold | GB | promised |\n|---|---|---:|---|---:|---:|")
    for shape in options.shape or SHAPES:
        with tempfile.TemporaryDirectory(prefix="headsr-sr-") as folder:
            scan, out = Path(folder, "scan.nii.gz"), Path(folder, "out.nii.gz")
            save_volume(scan, phantom(shape, options.spacing), Grid(shape, np.diag([1, 1, options.spacing, 1])))
            how = ["--gap", "0", "--mem-gb", str(options.mem_gb), "--method", options.method]
            seconds, peak, words = run([COMMAND, "sr", str(scan), str(out), *how], options.threads)
        takes = next(line for line in words.splitlines() if line.startswith("takes"))
        result = next(line for line in words.splitlines() if "out.nii.gz:" in line).split(": ")[1].split(" voxels")[0]
        foretold = takes.partition("about ")[2] or "-"
        print(
            f"| {' x '.join(map(str, shape))} | {result} | {seconds:.0f} | {foretold} | {peak / 1e9:.2f} | "
            f"{takes.split()[3]} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
