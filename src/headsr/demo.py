"""The embedded demo: make the dataset, pin it like any other, run everything, say where the results are."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from headsr.annex import leaving_when_told
from headsr.files import read_json
from headsr.lock import holding_results
from headsr.recipes import Recipes, config_files, load_config, load_recipes

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
    """Run the demo to its end; returns Snakemake's exit code. Run again, it finds nothing to do.

    Raises HeldError where another demo runs.
    """
    began = time.monotonic()
    config = load_config([DELTA])
    recipes = load_recipes(config, config_files([DELTA]))
    dataset = Path(recipes.datasets["demo"].url)
    with holding_results(config["results"]):  # for the dataset; Snakemake takes it over for its own run
        if not dataset.exists():
            print(_PLAN, flush=True)
            _make_dataset(dataset)
        _pin(config, recipes)
    code = _run_workflow(cores)
    _say_where(config, code, time.monotonic() - began)
    return code


def _run_workflow(cores: int) -> int:
    """Run Snakemake, which prints a line per finished job; returns its exit code."""
    profile = [
        "--profile",
        "profiles/local",
        "--cores",
        str(cores),
        "--resources",
        "mem_mb=5500",
        f"gpu={_gpus(cores)}",
    ]
    # Networks this small gain nothing from a second thread: two trainings side by side do.
    threads = ["--set-threads", "train_segment=1"]
    command = [sys.executable, "-m", "snakemake", *profile, *threads, "--configfile", DELTA]
    with leaving_when_told(), subprocess.Popen(command) as process:
        try:
            return process.wait()
        except KeyboardInterrupt:  # which has reached it, too: it says so, and ends its jobs
            process.wait()
            raise
        except SystemExit:
            process.terminate()  # it ends once the jobs that run have ended
            raise


def _gpus(cores: int) -> int:
    """How many jobs that ask for a GPU may run at one time: one per GPU, or one per core where there is none."""
    return len(list(Path("/proc/driver/nvidia/gpus").glob("*"))) or cores


def _make_dataset(dataset: Path) -> None:
    from headsr.simulate.demo import make_demo_dataset

    began = time.monotonic()
    print("Making the dataset ...", flush=True)
    make_demo_dataset(dataset, voxel_mm=VOXEL_MM)
    print(f"Made {dataset} in {time.monotonic() - began:.0f} s", flush=True)


def _pin(config: dict, recipes: Recipes) -> None:
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
    if read_json(f"{results}/mlflow.json")["synced"] is None:
        print(f"  MLflow   was not updated ({results}/logs/sync_mlflow.log says why): the next run tries again")
    else:
        print(f"  MLflow   mlflow ui --backend-store-uri sqlite:///{config['mlflow']}")
