"""Whole volumes, written to disk: what writing costs beside evaluation, and that neither time nor memory grows.

Run: python benchmarks/render_volume.py [--workers 2] [--large 1024] [--folder DIR]

Each field is evaluated without being written, then its values are written without being evaluated (chunks compressed,
shards, pyramid, preview), then it is rendered, with as many workers each time. A network of sines is also held to the
machine's own matrix product, writing included. The values of the last field are then rendered as if another device
evaluated them, one block after the other, in as long as writing takes: what overlaps when the cores are not shared.
Then one field is rendered at 256 voxels a side and at ``--large``, each in a process of its own, for the time of a
voxel that is not air and for the peak of memory.
"""

import argparse
import math
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
import render as fields

from headsr.fields.consistent import ConsistentField
from headsr.fields.lattice import level_shape
from headsr.fields.load import save_field
from headsr.render.field import Manner, render
from headsr.render.publish import outputs_beside
from headsr.simulate.anatomy import build_anatomy
from headsr.simulate.head import simulate_head
from headsr.volumes import Grid

REPEATS = 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--large", type=int, default=1024)
    parser.add_argument("--folder", default=None, help="where volumes are written (default: the temporary folder)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        write_beside_evaluation(Path(folder), arguments.workers)
        grow(Path(folder), arguments.workers, arguments.large)


def write_beside_evaluation(folder: Path, workers: int) -> None:
    cases = (
        ("sines 256 x 5", fields.random_siren(), (128, 128, 128), 64, REPEATS),
        ("hash grid", fields.random_hash_grid(), (576, 576, 576), 128, 1),
        ("dense grids", fields.random_dense_field(), (576, 576, 576), 128, 2),
    )
    for name, field, shape, chunk, repeats in cases:
        grid = fields.HEAD.resized(shape)
        manner = Manner(workers=workers, chunk=chunk, shard=4 * chunk)
        values = evaluated(field, grid, chunk, workers)  # also warms up
        alone, written, both = (
            min(timed(work) for _ in range(repeats))
            for work in (
                lambda: evaluated(field, grid, chunk, workers),  # noqa: B023
                lambda: rendered(Stored(field, values), grid, manner, folder),  # noqa: B023
                lambda: rendered(field, grid, manner, folder),  # noqa: B023
            )
        )
        voxels = values.size
        print(
            f"{name}: evaluated in {alone:.2f} s, written in {written:.2f} s, rendered in {both:.2f} s, "
            f"{both / max(alone, written):.2f} times the slower: {voxels / both:.3g} voxels/s"
        )
        if name.startswith("sines"):
            work = 2 * voxels * sum(weight.size for weight in field.weights) / both
            own = workers * 2 * 256 * 256 * fields.ROWS["cpu"] * 8 / in_parallel(workers)
            print(f"  that is {work / own:.0%} of the {own / 1e9:.1f} GFLOP/s of {workers} threads of matrix products")
    elsewhere = Elsewhere(field, values, seconds=written)
    both = timed(lambda: rendered(elsewhere, grid, replace(manner, workers=2 * workers), folder))
    print(f"evaluated elsewhere in {written:.2f} s: rendered in {both:.2f} s, {both / written:.2f} times as long")


class Stored:
    """A field whose values at one grid's voxels are known: nothing is left but to write them."""

    arithmetic = "stored"

    def __init__(self, field: object, values: np.ndarray) -> None:
        self.grid, self.scale, self.offset, self.record = field.grid, field.scale, field.offset, {}
        self.forms = field.forms
        self.values, self.field = values, field

    def evaluate(self, grid: Grid) -> np.ndarray:
        whole = self.grid.resized(self.values.shape)
        if not np.allclose(grid.voxel_size, whole.voxel_size):
            return self.field.evaluate(grid)  # the few samples that the range of uint16 is taken from
        start = np.rint(np.linalg.solve(whole.affine, grid.affine)[:3, 3]).astype(int)
        return self.values[tuple(slice(a, a + n) for a, n in zip(start, grid.shape, strict=True))].copy()

    def evaluation_bytes(self, shape: tuple[int, int, int]) -> int:
        return 4 * int(np.prod(shape))

    def seconds_per_voxel(self) -> float:
        return 1e-9


class Elsewhere(Stored):
    """The same, as if another device computed it in ``seconds``, block after block, while the cores are free."""

    def __init__(self, field: object, values: np.ndarray, *, seconds: float) -> None:
        super().__init__(field, values)
        self.seconds, self.device = seconds / values.size, threading.Lock()

    def evaluate(self, grid: Grid) -> np.ndarray:
        with self.device:
            time.sleep(self.seconds * math.prod(grid.shape))
        return super().evaluate(grid)


def evaluated(field: object, grid: Grid, chunk: int, workers: int) -> np.ndarray:
    values = np.empty(grid.shape, np.float32)
    starts = [range(0, n, chunk) for n in grid.shape]

    def one(start: tuple[int, ...]) -> None:
        shape = tuple(min(chunk, n - a) for a, n in zip(start, grid.shape, strict=True))
        values[tuple(slice(a, a + n) for a, n in zip(start, shape, strict=True))] = field.evaluate(
            grid.block(start, shape)
        )

    with ThreadPoolExecutor(workers) as pool:
        list(pool.map(one, [(x, y, z) for z in starts[2] for y in starts[1] for x in starts[0]]))
    return values


def rendered(field: object, grid: Grid, manner: Manner, folder: Path) -> None:
    """Render anew, quietly; each time under another name, so that nothing is resumed and nothing deleted in between."""
    rendered.count = getattr(rendered, "count", 0) + 1
    outputs = outputs_beside(folder / f"{rendered.count}.ome.zarr")
    said, sys.stdout = sys.stdout, open(os.devnull, "w")  # noqa: SIM115
    try:
        render(field, outputs, identity="benchmark", grid=grid, manner=manner)
    finally:
        sys.stdout.close()
        sys.stdout = said


def timed(work: object) -> float:
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def in_parallel(workers: int) -> float:
    """Seconds of eight matrix products in each of so many threads at once."""

    def one(_: int) -> None:
        with fields.one_thread():
            rows, weight, out = (fields.torch.ones(n, 256) for n in (fields.ROWS["cpu"], 256, fields.ROWS["cpu"]))
            for _ in range(400):
                fields.torch.mm(rows, weight, out=out)

    def all_of_them() -> None:
        with ThreadPoolExecutor(workers) as pool:
            list(pool.map(one, range(workers)))

    return min(timed(all_of_them) for _ in range(REPEATS)) / 50


def grow(folder: Path, workers: int, large: int) -> None:
    field = folder / "field.safetensors"
    save_field(field, head_field())
    found = {}
    for side in (256, large):
        command = [sys.executable, "-m", "headsr.cli", "render", str(field), str(folder / f"side{side}.ome.zarr")]
        command += ["--shape", str(side), "--dtype", "uint16", "--workers", str(workers), "--mem-gb", "2"]
        begun = time.perf_counter()
        run = subprocess.run(["/usr/bin/time", "-f", "%M kB", *command], capture_output=True, text=True, check=True)
        seconds = time.perf_counter() - begun - start_up(field, folder)
        voxels = float(re.search(r"100% of (\S+) voxels", run.stdout)[1])
        peak = int(re.search(r"(\d+) kB", run.stderr)[1]) / 2**20
        promised = float(re.search(r"at most (\S+) GB of memory", run.stdout)[1])
        files = [path for path in (folder / f"side{side}.ome.zarr").rglob("*") if path.is_file()]
        size = sum(path.stat().st_size for path in files)
        found[side] = seconds / voxels, peak
        print(
            f"{side} a side: {seconds:.1f} s, {1e9 * seconds / voxels:.1f} ns a voxel that is not air "
            f"({voxels / side**3:.0%} are not), peak {peak:.2f} GB ({promised:.2f} promised), "
            f"{len(files)} files, {size / 1e9:.2f} GB"
        )
    (small_time, small_peak), (large_time, large_peak) = found[256], found[large]
    times, peaks = large_time / small_time, large_peak / small_peak
    print(f"{large} to 256: {times:.2f} times the time of a voxel, {peaks:.2f} times the peak")


def start_up(field: Path, folder: Path) -> float:
    """Seconds to start Python and load the field: no voxel's."""
    command = [sys.executable, "-m", "headsr.cli", "render", str(field), str(folder / "no.ome.zarr"), "--dry-run"]
    return min(timed(lambda: subprocess.run(command, capture_output=True, check=True)) for _ in range(REPEATS))


def head_field() -> ConsistentField:
    """A field that is a simulated head, with a network of the usual size that says nothing."""
    scan = simulate_head(build_anatomy(), suffix="T1w", voxel_mm=1.25, seed=1, noise=0.0)
    grid = scan.grid
    field = fields.random_dense_field()
    levels = tuple(
        np.zeros((level.shape[0], *level_shape(grid.shape, cell)), np.float32)
        for level, cell in zip(field.levels, field.cells, strict=True)
    )
    silent = replace(field, grid=grid, levels=levels, output_weight=0 * field.output_weight)
    return ConsistentField.of(silent, scan.data, scale=1.0, offset=0.0, signed=False)


if __name__ == "__main__":
    main()
