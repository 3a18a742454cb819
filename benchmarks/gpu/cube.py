"""A hash grid that is noise, the worst to compress, rendered to disk: at 512 voxels a side, then at 2048."""

import os
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from measured import say

sys.path.insert(0, str(Path(__file__).parents[1]))

import render as fields

from headsr.render.field import Manner, render
from headsr.render.publish import outputs_beside

SIDES = (512, 2048)


def main() -> None:
    device = sys.argv[1] if len(sys.argv) > 1 else "cuda"
    field = replace(fields.random_hash_grid(), device=device)
    manner = Manner(dtype="uint16", workers=os.cpu_count())
    for side in SIDES:
        with tempfile.TemporaryDirectory() as folder:
            grid, outputs = field.grid.resized((side,) * 3), outputs_beside(Path(folder) / "cube.ome.zarr")
            begun = time.perf_counter()
            render(field, outputs, identity="benchmark", grid=grid, manner=manner)
            seconds = time.perf_counter() - begun
            written = sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file())
        say(f"hash grid at {side} a side, rendered", round(seconds, 1), "s")
        say(f"hash grid at {side} a side, rate", float(f"{side**3 / seconds:.3g}"), "voxels/s")
        say(f"hash grid at {side} a side, on disk", round(written / 1e9, 2), "GB")


if __name__ == "__main__":
    main()
