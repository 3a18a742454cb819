"""How fast the card evaluates fields, each against its yardstick of the same run (benchmarks/render.py)."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import render

SIDE, FIT_SECONDS = 192, 10


def main() -> None:
    render.compare_siren(SIDE, "cuda")
    render.compare_hash_grid(SIDE, "cuda")
    render.compare_precisions(render.fitted_siren(FIT_SECONDS), "cuda")


if __name__ == "__main__":
    main()
