"""The smoke configuration: three heads of a real DataLad dataset, pinned; what test_smoke and test_slurm run."""

import subprocess
import sys
from pathlib import Path

from project import copy_project, delta, environment

from headsr.simulate.demo import make_demo_dataset

CONFIG = ("--configfile", "tests/config/smoke/config.yaml", "made.yaml")
LOCAL = ("--cores", "2", "--profile", "profiles/local", *CONFIG)
VOLUME = "results/reconstructions/demo/headsr-{method}-{degradation}/sub-03/anat/sub-03"
DATASETS = {
    "demo": {
        "url": "origin",
        "version": "v1",
        "license": "made",
        "citation": "made",
        "splits": {"train": ["sub-01"], "val": ["sub-02"], "test": ["sub-03"]},
    }
}


def smoke_project(folder: Path) -> Path:
    """Make a copy of the project, a dataset beside it, and pin that."""
    project = copy_project(folder)
    make_demo_dataset(project / "origin", voxel_mm=8.0, heads=3)
    delta(project, "made", {"scans": "scans.tsv", "overrides": {"datasets": DATASETS}})
    pin = subprocess.run(
        [sys.executable, "-m", "headsr.cli", "pin", "demo", *CONFIG],
        cwd=project,
        env=environment(),
        capture_output=True,
        text=True,
    )
    assert pin.returncode == 0, pin.stderr
    return project
