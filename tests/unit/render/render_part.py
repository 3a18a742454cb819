"""Render a part of a ball beside others: ``FOLDER I N`` says that it is ready, and begins when it is sent a line."""

import dataclasses
import sys
from pathlib import Path

from known_fields import Ball

from headsr.render.field import Manner, render
from headsr.render.publish import outputs_beside

SHAPE = (100, 70, 70)
MANNER = Manner(chunk=16, shard=32, skip_air=True)


def rendered(folder, manner=MANNER):
    """Render into a folder; the ball, which counts its evaluations."""
    ball = Ball(SHAPE)
    render(ball, outputs_beside(folder / "ball.ome.zarr"), identity="ball", manner=manner)
    return ball


def main():
    """Render the part named in the folder named."""
    folder, index, number = Path(sys.argv[1]), *map(int, sys.argv[2:])
    print("ready", flush=True)
    sys.stdin.readline()
    rendered(folder, dataclasses.replace(MANNER, part=(index, number)))


if __name__ == "__main__":
    main()
