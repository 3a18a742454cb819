"""A disk that is full or not to be written on: one sentence that names the file, and nothing half-written."""

import contextlib
import errno
import os
import subprocess
import sys

import numpy as np
import pytest

from headsr import cli
from headsr.files import UnwritableError, unwritable, whole, write_json
from headsr.lock import holding_results
from headsr.scans import write_scans

# The kernel itself refuses: no file may be larger than 4 kB. In a process of its own, since it holds for all of it.
LIMITED = """
import resource, sys
import numpy as np
from pathlib import Path
from headsr.files import UnwritableError
{imports}
noise, out = np.random.default_rng(0).random((32, 32, 32), dtype=np.float32), Path("out")
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
try:
    {write}
except UnwritableError as error:
    print(error)
"""
WRITERS = {
    "json": ("from headsr.files import write_json", 'write_json("out/a", noise.ravel().tolist())'),
    "history": (
        "from headsr.history import write_history",
        'write_history("out/a", [{"loss": float(value)} for value in noise.ravel()])',
    ),
    "nifti": (
        "from headsr.volumes import Grid, save_volume",
        'save_volume("out/a.nii.gz", noise, Grid(noise.shape, np.eye(4)))',
    ),
    "weights": (
        "import torch; from headsr.weights import save_tensors",
        'save_tensors("out/a.safetensors", {"a": torch.from_numpy(noise)}, {})',
    ),
    "slices": (
        "from headsr.slices.extract import _write_store",
        '_write_store(out / "a.zarr/zarr.json", {"axial": noise}, {})',
    ),
}


@pytest.mark.parametrize("writer", WRITERS)
def test_every_writer_names_the_file_and_leaves_none_of_it(tmp_path, writer):
    imports, write = WRITERS[writer]
    command = [sys.executable, "-c", LIMITED.format(imports=imports, write=write)]
    said = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert said.stdout.startswith("out/a") and said.stdout.count("\n") == 1, said
    assert said.stdout.endswith(
        ": it would be larger than a file of yours may be (ulimit -f). Raise that and run the same again\n"
    )
    assert ".partial." not in said.stdout
    assert [path for path in (tmp_path / "out").rglob("*") if path.is_file()] == []


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (errno.ENOSPC, "the disk is full. Make room"),
        (errno.EDQUOT, "your quota on this disk is used up"),
        (errno.EROFS, "the disk may only be read"),
        (errno.EACCES, "permission denied"),
    ],
)
def test_each_reason_in_words(tmp_path, number, said):
    with pytest.raises(UnwritableError, match=f"^{tmp_path}/a: {said}"), whole(tmp_path / "a") as partial:
        partial.write_text("half")
        raise OSError(number, os.strerror(number))
    assert list(tmp_path.iterdir()) == []


def test_an_error_of_another_kind_is_what_it_was(tmp_path):
    assert unwritable(ValueError("no"), "a") is None and unwritable(FileNotFoundError(2, "no", "b"), "a") is None
    with pytest.raises(FileNotFoundError), whole(tmp_path / "a"):
        open(tmp_path / "b").close()


def test_the_file_is_the_one_that_the_error_names(tmp_path):
    with pytest.raises(UnwritableError, match=r"^/scratch/b: the disk is full"), whole(tmp_path / "a"):
        raise OSError(errno.ENOSPC, "full", "/scratch/b")


def test_a_small_disk_is_full_and_nothing_is_left_on_it(small_disk):
    with pytest.raises(UnwritableError, match=f"^{small_disk}/a.json: the disk is full"):
        write_json(small_disk / "a.json", np.arange(400_000).tolist())
    assert list(small_disk.iterdir()) == []


def fill(disk):
    """Leave no room at all on a disk."""
    with (disk / "filling").open("ab", buffering=0) as stream, contextlib.suppress(OSError):
        while stream.write(bytes(4096)):
            pass


def test_a_run_that_has_no_room_for_its_lock_says_so_and_leaves_none(small_disk):
    (small_disk / "results").mkdir()
    fill(small_disk)
    lock = small_disk / "results/.headsr.lock"
    with pytest.raises(UnwritableError, match=f"^{lock}: the disk is full"), holding_results(lock.parent):
        pass
    assert not lock.exists()


def test_the_table_of_scans_is_whole_or_as_it_was(tmp_path, monkeypatch):
    write_scans(tmp_path / "scans.tsv", [])
    before = (tmp_path / "scans.tsv").read_bytes()

    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("pathlib.Path.write_text", full)
    with pytest.raises(UnwritableError, match=r"scans\.tsv: the disk is full"):
        write_scans(tmp_path / "scans.tsv", [])
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"scans.tsv": before}


def test_a_command_says_it_without_a_traceback(monkeypatch, capsys):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device", "out/a.nii.gz")

    monkeypatch.setattr(cli, "_check", full)
    assert cli.main(["check", "a.nii.gz"]) == cli.FAILED
    assert capsys.readouterr().err == "headsr: out/a.nii.gz: the disk is full. Make room on it and run the same again\n"


# A whole job on a full disk: its log cannot be written either.
JOB = """
import sys
from types import SimpleNamespace
from headsr.files import write_json
from headsr.jobs import job
from headsr.sourcedata import SourceDataError
results = sys.argv[1]
with job(SimpleNamespace(
    rule="fit_field", log=[f"{results}/logs/x.log"], config={"results": results}, params={"stage": 3}, input=[],
    output=[f"{results}/a.json"],
)):
    if sys.argv[2] == "output":
        write_json(f"{results}/a.json", list(range(400_000)))
    elif sys.argv[2] == "log":
        for _ in range(10_000):
            print("step " * 100)
    else:
        try:
            open(f"{results}/b", "wb").write(bytes(4_000_000))
        except OSError as error:
            raise SourceDataError("demo/sub-01: could not be fetched: the disk is full") from error
"""


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("output", "results/a.json: the disk is full. Make room on it and run the same again"),
        ("log", "results/logs/x.log: the disk is full. Make room on it and run the same again"),
        ("fetch", "demo/sub-01: could not be fetched: the disk is full"),
    ],
)
def test_a_job_says_to_its_run_what_its_log_has_no_room_for(small_disk, what, said, full):
    if full:
        (small_disk / "results/logs").mkdir(parents=True)
        fill(small_disk)
    run = subprocess.run([sys.executable, "-c", JOB, "results", what], cwd=small_disk, capture_output=True, text=True)
    assert run.returncode != 0
    assert f"Error in fit_field: {said}\n" == run.stderr
    kept = {path.relative_to(small_disk).as_posix() for path in small_disk.rglob("*") if path.is_file()}
    assert kept - {"filling", "results/b"} <= {"results/logs/x.log"}
