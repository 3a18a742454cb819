"""The smoke configuration: three heads of a real DataLad dataset, pinned; what test_smoke and test_slurm run."""

from pathlib import Path

from project import copy_project, delta, headsr

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
    pin = headsr(project, "pin", "demo", *CONFIG)
    assert pin.returncode == 0, pin.stdout
    return project
