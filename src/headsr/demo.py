"""The embedded demo: make the dataset, pin it like any other, run everything, say where the results are."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from headsr.cli import load_config

DELTA = "config/demo.yaml"
VOXEL_MM = 2.5
_PLAN = f"""\
headsr demo: the whole pipeline on 7 simulated heads at {VOXEL_MM} mm, about 8 minutes on 2 cores, under 6 GB of memory.
  1. make a DataLad dataset of heads from the MNI152 maps in nilearn's wheel (4 train, 1 validation, 2 test)
  2. pin every scan by its git-annex key, fetch by key, correct bias, register, mask, normalise
  3. train a 2-D network, an autoencoder and a small latent diffusion model on the training heads' slices
  4. simulate thick scans of the test heads and super-resolve them by every method
  5. check, score, compare with the truth, write tables, figures, a report and MLflow runs
Nothing is downloaded. Interrupt it when you like: the same command goes on.
"""


def run_demo(*, cores: int) -> int:
    """Run the demo to its end; returns Snakemake's exit code. Run again, it finds nothing to do."""
    from headsr.recipes import load_recipes

    began = time.monotonic()
    config = load_config([DELTA])
    recipes = load_recipes(config)
    dataset = Path(recipes.datasets["demo"].url)
    if not dataset.exists():
        print(_PLAN, flush=True)
        _make_dataset(dataset)
    _pin(config, recipes)
    code = subprocess.call(
        [
            sys.executable,
            "-m",
            "snakemake",
            "--profile",
            "profiles/local",
            "--configfile",
            DELTA,
            "--cores",
            str(cores),
        ]
    )
    _say_where(config, code, time.monotonic() - began)
    return code


def _make_dataset(dataset: Path) -> None:
    from headsr.simulate.demo import make_demo_dataset

    began = time.monotonic()
    print("Making the dataset ...", flush=True)
    make_demo_dataset(dataset, voxel_mm=VOXEL_MM)
    print(f"Made {dataset} in {time.monotonic() - began:.0f} s", flush=True)


def _pin(config: dict, recipes: object) -> None:
    from headsr.sourcedata import pin_datasets

    demo = {"demo": recipes.datasets["demo"]}
    print(pin_datasets(demo, clones=config["clones"], table=config["scans"]).text(), flush=True)


def _say_where(config: dict, code: int, seconds: float) -> None:
    results = config["results"]
    if code:
        print(f"headsr demo: failed after {seconds:.0f} s; the logs are in {results}/logs. Run it again to go on.")
        return
    tables = sorted(Path(results, "tables").glob("*.md"))
    print("\n" + "\n".join(table.read_text(encoding="utf-8") for table in tables))
    print(f"Done in {seconds:.0f} s.")
    print(f"  report   {results}/report/report.html")
    print(f"  volumes  {results}/reconstructions/demo/")
    print(f"  MLflow   mlflow ui --backend-store-uri sqlite:///{config['mlflow']}")
