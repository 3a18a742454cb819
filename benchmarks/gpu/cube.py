"""A hash grid that is noise, the worst to compress, rendered to disk: at 512 voxels a side, then at 2048."""

import argparse
import os
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
from measured import say

sys.path.insert(0, str(Path(__file__).parents[1]))

import render as fields

from headsr.fields.consistent import ConsistentField
from headsr.render.field import Manner, render
from headsr.render.publish import outputs_beside


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--sides", type=int, nargs="+", default=[512, 2048])
    arguments = parser.parse_args()
    field = consistent(replace(fields.random_hash_grid(), device=arguments.device))
    manner = Manner(dtype="float16", workers=os.cpu_count())
    for side in arguments.sides:
        with tempfile.TemporaryDirectory() as folder:
            grid, outputs = field.grid.resized((side,) * 3), outputs_beside(Path(folder) / "cube.ome.zarr")
            begun = time.perf_counter()
            render(field, outputs, identity="benchmark", grid=grid, manner=manner)
            seconds = time.perf_counter() - begun
            written = sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file())
        say(f"hash grid at {side} a side, rendered", round(seconds, 1), "s")
        say(f"hash grid at {side} a side, rate", float(f"{side**3 / seconds:.3g}"), "voxels/s")
        say(f"hash grid at {side} a side, on disk", round(written / 1e9, 2), "GB")


def consistent(network: object) -> ConsistentField:
    """The field that is rendered, where no scan has anything to add to the network."""
    values = network.evaluate(network.grid)
    return ConsistentField(network, values, np.zeros_like(values), scale=1.0, offset=0.0, signed=True, record={})


if __name__ == "__main__":
    main()
