"""How fast fields are evaluated, each against a yardstick that is measured in the same run, on one core.

Run: python benchmarks/render.py [--fit-seconds 60] [--side 96] [--device cuda]

A network of sines (256 x 5) against this machine's own matrix product of the same size and precision; a hash grid
(16 x 2, 2^19, 2 x 64) against the same field written plainly in eager PyTorch; the field of dense grids, and where its
time goes. Low precision is compared with full precision on a network that was fitted to a slab of a simulated head.
Times are of the processor where there is no graphics card: others that work on the machine then matter less.
"""

import argparse
import itertools
import os
import time
from dataclasses import replace

# Threads that wait must not keep a core busy that somebody else works on; to be said before torch starts them.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
import torch
from torch import nn

from headsr.fields.arithmetic import PRECISIONS
from headsr.fields.dense import DenseField
from headsr.fields.evaluators import one_thread
from headsr.fields.hash_grid import HashField
from headsr.fields.lattice import level_shape
from headsr.fields.siren import OMEGA, SirenField
from headsr.simulate.anatomy import build_anatomy
from headsr.simulate.head import simulate_head
from headsr.volumes import Grid

REPEATS = 7
HEAD = Grid((256, 256, 256), np.diag([0.8, 0.8, 0.8, 1.0]))
WIDTHS = (3, 256, 256, 256, 256, 256, 1)
ROWS = {"cpu": 512, "cuda": 131072}  # of the matrix product that a network of sines is held to
TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
PRIMES = (1, 2654435761, 805459861)  # of the hash, by axis


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fit-seconds", type=float, default=60)
    parser.add_argument("--side", type=int, default=96, help="voxels per axis of the blocks")
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    compare_siren(arguments.side, arguments.device)
    compare_hash_grid(arguments.side, arguments.device)
    time_dense_field(arguments.side)
    compare_precisions(fitted_siren(arguments.fit_seconds), arguments.device)


def compare_siren(side: int, device: str) -> None:
    """The multiply-adds that a network of sines does in a second, against those of nothing but matrix products."""
    field = random_siren()
    work = sum(weight.size for weight in field.weights)
    for precision in PRECISIONS if device != "cpu" else ("fp32",):
        low = replace(field, device=device, precision=precision)
        block = part_of(HEAD.resized((512, 512, 512)), (side, side, 8 if device == "cpu" else side))
        voxels = np.prod(block.shape)
        one, other = in_turns([lambda: low.evaluate(block), lambda: matrix_products(device, precision)], device)  # noqa: B023
        rate, own = work * voxels / one, 256 * 256 * ROWS[device] * 8 / other
        print(
            f"sines 256 x 5 on {device} in {precision}: {voxels / one:.3g} voxels/s, {2 * rate / 1e9:.1f} GFLOP/s, "
            f"{rate / own:.0%} of the {2 * own / 1e9:.1f} GFLOP/s of its matrix product; "
            f"foretold {field.seconds_per_voxel() * voxels / one:.2f} times what it took"
        )


def matrix_products(device: str, precision: str, held={}) -> None:  # noqa: B006
    """Eight products of the size of a hidden layer, in place, from what is in the cache."""
    if (device, precision) not in held:
        make = {"device": device, "dtype": TYPES[precision]}
        held[device, precision] = [torch.ones(n, 256, **make) for n in (ROWS[device], 256, ROWS[device])]
    rows, weight, out = held[device, precision]
    with one_thread():
        for _ in range(8):
            torch.mm(rows, weight, out=out)


def compare_hash_grid(side: int, device: str) -> None:
    """Rendering by tiles against eight gathers a point and level, at the head's voxels and finer ones."""
    field = replace(random_hash_grid(), device=device)
    plain = PlainHashGrid(field)
    for factor in (1, 2, 4):
        grid = HEAD.scaled(factor)
        block, few = part_of(grid, (side, side, side)), part_of(grid, (32, 32, 64))
        difference = np.abs(plain(few) - field.evaluate(few)).max()
        sides = [lambda: field.evaluate(block)]  # noqa: B023
        sides += [lambda batch=batch: plain(few, batch) for batch in (4096, 16384, 65536)]  # noqa: B023
        one, *others = in_turns(sides, device)
        rate, own = np.prod(block.shape) / one, np.prod(few.shape) / min(others)
        print(
            f"hash grid on {device}, {factor} voxels to a head's: {rate:.3g} voxels/s, {own:.3g} in plain PyTorch: "
            f"{rate / own:.1f} times as many, {difference:.1g} apart; "
            f"foretold {field.seconds_per_voxel() * rate:.2f} times what it took"
        )


class PlainHashGrid(nn.Module):
    """The field as one writes it: all eight corners of a point are fetched from each level's table."""

    def __init__(self, field: HashField) -> None:
        super().__init__()
        self.field = field
        self.tables, self.nodes = [], []
        for cell, level in zip(field.cells, field.levels, strict=True):
            dense = level.ndim == 4
            table = level.reshape(2, -1).T if dense else level
            self.tables.append(torch.tensor(np.ascontiguousarray(table), device=field.device))
            self.nodes.append((dense, level_shape(field.grid.shape, cell)))
        self.layers = [
            (torch.tensor(weight, device=field.device), torch.tensor(bias, device=field.device))
            for weight, bias in zip(field.weights, field.biases, strict=True)
        ]

    def forward(self, grid: Grid, batch: int = 16384) -> np.ndarray:
        index = np.linalg.inv(self.field.grid.affine) @ grid.affine
        voxels = np.stack([*np.indices(grid.shape).reshape(3, -1), np.ones(np.prod(grid.shape))])
        points = torch.tensor((index @ voxels)[:3].T, dtype=torch.float32, device=self.field.device)
        with one_thread():
            return torch.cat([self.at(part) for part in points.split(batch)]).view(grid.shape).cpu().numpy()

    def at(self, points: torch.Tensor) -> torch.Tensor:
        """The field at head indices (points, 3)."""
        features = []
        for cell, table, (dense, nodes) in zip(self.field.cells, self.tables, self.nodes, strict=True):
            beside, shares = [], []
            for axis, n in enumerate(nodes):
                place = ((points[:, axis] + 0.5) / cell - 0.5).clamp(0, n - 1)
                below = place.long()
                beside.append((below, (below + 1).clamp(max=n - 1)))
                shares.append((1 - (place - below), place - below))
            total = 0
            for i, j, k in itertools.product((0, 1), repeat=3):
                x, y, z = beside[0][i], beside[1][j], beside[2][k]
                if dense:
                    where = (x * nodes[1] + y) * nodes[2] + z
                else:
                    where = (x ^ (y * PRIMES[1]) ^ (z * PRIMES[2])) & (len(table) - 1)
                weight = shares[0][i] * shares[1][j] * shares[2][k]
                total = total + weight[:, None] * table.index_select(0, where)
            features.append(total)
        units = torch.cat(features, 1)
        for weight, bias in self.layers[:-1]:
            units = torch.relu(nn.functional.linear(units, weight, bias))
        return nn.functional.linear(units, *self.layers[-1])[:, 0]


def time_dense_field(side: int) -> None:
    """The field of dense grids and a small network in NumPy: its rate, and the parts of its time."""
    field = random_dense_field()
    network = {name: getattr(field, name)[:1] for name in ("hidden_weight", "hidden_bias", "output_weight")}
    flat = replace(field, **network)
    for factor in (1, 2, 4):
        block = part_of(HEAD.scaled(factor), (side, side, side))
        whole, one_unit = in_turns([lambda: field.evaluate(block), lambda: flat.evaluate(block)], "cpu")  # noqa: B023
        units = (whole - one_unit) / (len(field.hidden_bias) - 1) * len(field.hidden_bias)
        print(
            f"dense grids on cpu, {factor} voxels to a head's: {np.prod(block.shape) / whole:.3g} voxels/s, "
            f"{units / whole:.0%} of the time in the network's {len(field.hidden_bias)} units"
        )


def compare_precisions(field: SirenField, device: str) -> None:
    """How far low precision in the hidden layers is from full precision."""
    block = part_of(field.grid.resized((300, 300, 300)), (48, 48, 1))
    full = replace(field, device=device).evaluate(block)
    for precision in PRECISIONS[1:]:
        low = replace(field, device=device, precision=precision)
        start = clock(device)
        near = low.evaluate(block)
        took = (clock(device) - start) / block.shape[0] / block.shape[1]
        print(
            f"hidden layers in {precision} on {device}: {psnr(near, full):.1f} dB from fp32, {1 / took:.3g} voxels/s "
            f"({'no low-precision instructions are used here' if device == 'cpu' else 'one block, uncached'})"
        )


def fitted_siren(seconds: float, *, slices: int = 4, points: int = 1024) -> SirenField:
    """A network of sines fitted to a slab of a simulated head for so long (Adam at 1e-4, all cores)."""
    scan = simulate_head(build_anatomy(), suffix="T1w", voxel_mm=2, seed=1, noise=0.0)
    middle = scan.data.shape[2] // 2
    slab = scan.data[:, :, middle : middle + slices] / np.percentile(scan.data, 99.9)
    grid = scan.grid.block((0, 0, middle), slab.shape)
    torch.manual_seed(0)
    start = random_siren()
    layers = [
        [torch.tensor(array, requires_grad=True) for array in layer]
        for layer in zip(start.weights, start.biases, strict=True)
    ]
    values = torch.tensor(slab.reshape(-1), dtype=torch.float32)
    axes = [(2 * torch.arange(n) + 1) / n - 1 for n in slab.shape]
    places = torch.stack(torch.meshgrid(*axes, indexing="ij"), -1).view(-1, 3)
    optimiser = torch.optim.Adam([array for layer in layers for array in layer], lr=1e-4)
    steps, begun = 0, time.monotonic()
    while time.monotonic() - begun < seconds:
        chosen = torch.randint(len(values), (points,))
        units = places[chosen]
        for weight, bias in layers[:-1]:
            units = torch.sin(OMEGA * nn.functional.linear(units, weight, bias))
        loss = (nn.functional.linear(units, *layers[-1])[:, 0] - values[chosen]).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        steps += 1
    arrays = [tuple(layer[i].detach().numpy().copy() for layer in layers) for i in range(2)]
    field = SirenField(grid, *arrays)
    fit = psnr(field.evaluate(grid), slab)
    print(f"a slab of {slices} slices of a simulated head, fitted in {steps} steps of {points} points: {fit:.1f} dB")
    return field


def random_siren() -> SirenField:
    """A network of sines as it is before a fit (methods e.7)."""
    rng = np.random.default_rng(0)

    def draw(n, m, *shape):
        reach = 1 / n if n == 3 else np.sqrt(6 / n) / OMEGA
        return rng.uniform(-reach, reach, shape or (m, n)).astype(np.float32)

    pairs = list(itertools.pairwise(WIDTHS))
    return SirenField(HEAD, tuple(draw(n, m) for n, m in pairs), tuple(draw(n, m, m) for n, m in pairs))


def random_hash_grid(levels: int = 16, table: int = 2**19) -> HashField:
    """Cells from 16 head voxels to one."""
    rng = np.random.default_rng(0)
    cells = tuple(map(float, np.geomspace(16, 1, levels)))
    nodes = [level_shape(HEAD.shape, cell) for cell in cells]
    sizes = [(2, *n) if np.prod(n) <= table else (table, 2) for n in nodes]
    pairs = list(itertools.pairwise((2 * levels, 64, 64, 1)))
    return HashField(
        HEAD,
        cells,
        tuple(rng.standard_normal(size, dtype=np.float32) for size in sizes),
        tuple(rng.standard_normal((m, n), dtype=np.float32) * np.float32(n**-0.5) for n, m in pairs),
        tuple(rng.standard_normal(m, dtype=np.float32) for _, m in pairs),
    )


def random_dense_field() -> DenseField:
    """The grids and the network of the recipes."""
    rng = np.random.default_rng(0)
    cells, features, hidden = (8, 4, 2, 1), (2, 2, 2, 2), 16
    return DenseField(
        HEAD,
        cells,
        tuple(
            rng.standard_normal((n, *level_shape(HEAD.shape, cell)), dtype=np.float32)
            for n, cell in zip(features, cells, strict=True)
        ),
        hidden_weight=rng.standard_normal((hidden, sum(features)), dtype=np.float32),
        hidden_bias=rng.standard_normal(hidden, dtype=np.float32),
        output_weight=rng.standard_normal(hidden, dtype=np.float32),
        output_bias=np.float32(0),
    )


def part_of(grid: Grid, shape: tuple[int, int, int]) -> Grid:
    """A block from the middle of a grid."""
    return grid.block(tuple((n - s) // 2 for n, s in zip(grid.shape, shape, strict=True)), shape)


def in_turns(sides, device: str) -> list[float]:
    """The shortest time in seconds of each of several calls, all of them timed in turns after a first round."""
    for side in sides:
        side()
    times = [[seconds(side, device) for side in sides] for _ in range(REPEATS)]
    return [min(side) for side in zip(*times, strict=True)]


def seconds(call, device: str) -> float:
    start = clock(device)
    call()
    return clock(device) - start


def clock(device: str) -> float:
    """Seconds of this thread on the processor, or of the wall where a graphics card does the work."""
    if device == "cpu":
        return time.thread_time()
    torch.cuda.synchronize()
    return time.perf_counter()


def psnr(image: np.ndarray, other: np.ndarray) -> float:
    """For intensities whose range is 1."""
    return float(-10 * np.log10(np.mean((image.astype(np.float64) - other) ** 2) + 1e-20))


if __name__ == "__main__":
    main()
