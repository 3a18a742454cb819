"""Render noise in a process of its own, whose memory is measured: ``FOLDER SHAPE CHUNK SHARD WORKERS [BYTES]``.

Prints as JSON what was announced (bytes), and the most that the process ever had in memory.
"""

import json
import re
import sys
import time
from pathlib import Path

import numpy as np
from known_fields import Waves

from headsr.render import field as rendering
from headsr.render.field import Manner, render
from headsr.render.publish import Outputs

HEAD = (64, 64, 264)


class Hashed(Waves):
    """White noise, as fast as it can be made: it hardly shrinks when compressed."""

    def evaluate(self, grid):
        first = np.rint(np.linalg.inv(self.grid.affine) @ grid.affine[:, 3]).astype(np.int64)
        primes = (0x9E3779B1, 0x85EBCA77, 0xC2B2AE3D)
        x, y, z = np.ogrid[tuple(slice(a, a + n) for a, n in zip(first[:3], grid.shape, strict=True))]
        x, y, z = (a.astype(np.uint32) * np.uint32(prime) for a, prime in zip((x, y, z), primes, strict=True))
        mixed = (x ^ y) ^ z
        mixed ^= mixed >> np.uint32(15)
        mixed *= np.uint32(0x2C1B3C6D)
        mixed ^= mixed >> np.uint32(12)
        noise = (mixed >> np.uint32(8)).astype(np.float32)
        time.sleep(1e-8 * noise.size)  # so that all workers hold what they need for a chunk at the same time
        return noise

    @property
    def projected(self):
        return np.zeros(self.grid.shape, np.float32)

    def evaluation_bytes(self, grid):
        return 3 * 4 * int(np.prod(grid.shape))


def main():
    """Render, and say what that took."""
    folder, shape, (chunk, shard, workers) = Path(sys.argv[1]), json.loads(sys.argv[2]), map(int, sys.argv[3:6])
    allowed = int(sys.argv[6]) if len(sys.argv) > 6 else None
    plans, estimate = [], rendering.estimate
    rendering.estimate = lambda *args, **how: plans.append(estimate(*args, **how)) or plans[-1]
    outputs = Outputs(folder / "a.ome.zarr" / "zarr.json", folder / "a.nii.gz", folder / "a.json")
    manner = Manner(chunk=chunk, shard=shard, workers=workers, memory_bytes=allowed)
    field = Hashed(HEAD)
    render(field, outputs, identity="noise", grid=field.grid.resized(shape), manner=manner)
    status = Path("/proc/self/status").read_text()
    peak = 1024 * int(re.search(r"VmHWM:\s+(\d+) kB", status)[1])
    print(json.dumps({"workers": plans[-1].workers, "announced": plans[-1].memory_bytes, "peak": peak}))


if __name__ == "__main__":
    main()
