"""Fixtures shared by all tests."""

import gzip
import json
import random
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from headsr.annex import run_tool
from headsr.clones import sync_clone

# What an example takes depends on what else the machine does.
settings.register_profile("headsr", deadline=None)
settings.load_profile("headsr")

# Images are annexed but for sub-03, which git itself holds; sidecars are plain git but for that of sub-04.
ATTRIBUTES = """\
* annex.backend=SHA256E
* annex.largefiles=nothing
*.nii.gz annex.largefiles=anything
sub-03/**/*.nii.gz annex.largefiles=nothing
sub-04/**/*.json annex.largefiles=anything
"""
FILES = {
    "dataset_description.json": {"Name": "tiny", "BIDSVersion": "1.10.0"},
    "T1w.json": {"SliceThickness": 1},
    "sub-01/anat/sub-01_T1w.json": {"SliceThickness": 2.5, "EchoTime": 0.003},
    "sub-01/anat/sub-01_T1w.nii.gz": 1,
    "sub-01/anat/sub-01_T2w.nii.gz": 2,
    "sub-01/func/sub-01_task-rest_bold.nii.gz": 3,
    "sub-02/sub-02_T1w.json": {"SliceThickness": 6},
    "sub-02/ses-a/anat/sub-02_ses-a_run-1_T1w.json": {"EchoTime": 0.003},
    "sub-02/ses-a/anat/sub-02_ses-a_run-1_T1w.nii.gz": 4,
    "sub-03/anat/sub-03_T1w.nii.gz": 5,
    "sub-04/anat/sub-04_T1w.json": {"SliceThickness": 3},
    "sub-04/anat/sub-04_T1w.nii.gz": 6,
    "derivatives/sub-01/anat/sub-01_T1w.nii.gz": 7,
}
# The files that use the finished pipeline runs, which take minutes: in one process they run once.
PIPELINE = {"test_degradations", "test_provenance", "test_rerun", "test_sets", "test_slurm", "test_smoke", "test_study"}
RUNS = {"finished_project", "finished_study"}
UNLOCKED = "sub-01/anat/sub-01_T2w.nii.gz"


def pytest_configure() -> None:
    # A shell without job control starts what it puts into the background with SIGINT ignored, and children inherit
    # that: the programs that tests interrupt would never end.
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Under ``pytest -n``, a file's tests share a process, and so do those of PIPELINE."""
    from xdist.scheduler import LoadScopeScheduling

    class ByFile(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            path = nodeid.partition("::")[0]
            return "pipeline" if Path(path).stem in PIPELINE else path

    return ByFile(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Refuse a file that would have the pipeline run a second time, unnoticed."""
    for item in items:
        if RUNS.intersection(item.fixturenames) and item.path.stem not in PIPELINE:
            raise pytest.UsageError(f"{item.path.name} uses a finished pipeline run: name it in PIPELINE, {__file__}")


@pytest.fixture
def started() -> Iterator[Callable[..., subprocess.Popen]]:
    """``subprocess.Popen`` whose processes are killed when the test ends, also where it has waited in vain."""
    with ExitStack() as stack:

        def start(command: list[str], **options: object) -> subprocess.Popen:
            process = stack.enter_context(subprocess.Popen(command, **options))
            stack.callback(process.kill)
            return process

        yield start


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A real disk of 2 MiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", disk], capture_output=True, text=True)
    if mount.returncode != 0:
        pytest.skip(f"no disk can be mounted here: {mount.stderr.strip()}")
    yield disk
    subprocess.run(["umount", disk], check=True)


def gzipped(seed: int) -> bytes:
    """About 2 kB of gzip that is the same for the same seed: enough of an image for git-annex, which opens none."""
    return gzip.compress(random.Random(seed).randbytes(2000), mtime=0)


def save(dataset: Path, tag: str) -> None:
    """Commit everything, by DataLad, with a version tag."""
    run_tool(["datalad", "save", "-d", dataset, "-m", f"version {tag}", "--version-tag", tag])


@pytest.fixture(scope="session")
def pristine_dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real DataLad dataset of four heads, tagged v1, made once: copy it, do not change it."""
    dataset = tmp_path_factory.mktemp("pristine") / "tiny"
    run_tool(["datalad", "create", dataset])
    (dataset / ".gitattributes").write_text(ATTRIBUTES)
    for name, content in FILES.items():
        path = dataset / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(gzipped(content) if isinstance(content, int) else json.dumps(content).encode())
    run_tool(["datalad", "save", "-d", dataset, "-m", "scans"])
    run_tool(["git", "-C", dataset, "annex", "unlock", UNLOCKED])
    save(dataset, "v1")
    return dataset


@pytest.fixture
def tiny_dataset(pristine_dataset: Path, tmp_path: Path) -> Path:
    """A copy of the DataLad dataset that a test may change."""
    return Path(shutil.copytree(pristine_dataset, tmp_path / "tiny", symlinks=True))


@pytest.fixture(scope="session")
def pristine_clone(pristine_dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clone of the pristine dataset, without content."""
    clone = tmp_path_factory.mktemp("pristine-clone") / "tiny"
    sync_clone(str(pristine_dataset), clone)
    return clone


@pytest.fixture
def tiny_clone(pristine_clone: Path, tiny_dataset: Path, tmp_path: Path) -> Path:
    """A clone of ``tiny_dataset``, without content."""
    clone = Path(shutil.copytree(pristine_clone, tmp_path / "clone", symlinks=True))
    run_tool(["git", "-C", clone, "remote", "set-url", "origin", tiny_dataset])
    return clone
