"""Told to end, or killed: one line and no child; nothing claims to be whole, and the next run makes the same bytes."""

import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

from headsr import cli
from headsr.files import read_json

COMMAND = [sys.executable, "-m", "headsr.cli", "sr"]
# Kills itself instead of putting the file of this number, from 0, in its place.
KILLED = """
import os, pathlib, signal, sys
from headsr import cli
left, replace = int(sys.argv[1]), pathlib.Path.replace
def counted(path, target):
    global left
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    left -= 1
    return replace(path, target)
pathlib.Path.replace = counted
sys.exit(cli.main(sys.argv[2:]))
"""


@pytest.fixture
def folder(scan, tmp_path):
    for name in ("01", "02", "03"):
        scan(f"bids/sub-{name}/anat/sub-{name}_T1w.nii.gz", metadata={"SliceThickness": 4.0})
    return [str(tmp_path / "bids"), str(tmp_path / "out"), "--method", "spline", "--workers", "2"]


def workers_of(process):
    """The processes that work for one, once all have begun."""
    until = time.monotonic() + 300  # they import torch, on a machine that may be busy
    while time.monotonic() < until:
        children = [child for child in psutil.Process(process.pid).children() if "spawn_main" in str(child.cmdline())]
        if len(children) == 2:
            return children
        time.sleep(0.05)
    raise AssertionError("no workers have begun")


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_folder_that_is_told_to_end_says_one_line_and_leaves_no_child(folder, started, number):
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = started([*COMMAND, *folder], **pipes, start_new_session=True)
    children = workers_of(process)
    if number == signal.SIGINT:
        os.killpg(process.pid, number)  # as a terminal does it
    else:
        process.send_signal(number)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 75
    assert said == "headsr: interrupted; run the same command again to go on\n"
    assert psutil.wait_procs(children, timeout=60)[1] == []


def test_children_end_with_one_that_is_killed(folder, started):
    process = started([*COMMAND, *folder], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    children = workers_of(process)
    process.kill()
    process.wait(60)
    assert psutil.wait_procs(children, timeout=120)[1] == []


def test_wherever_it_is_killed_nothing_claims_to_be_whole_and_the_next_run_makes_the_same_bytes(scan, tmp_path, capsys):
    path, aside = str(scan()), tmp_path / "aside"
    options = ["--gap", "0", "--method", "spline"]
    assert cli.main(["sr", path, str(aside / "out.nii.gz"), *options]) == 0
    expected = contents(aside)
    assert len(expected) == 4
    for number in range(4):  # what lies beside the volume, the volume, the sidecar
        place = tmp_path / str(number)
        command = [sys.executable, "-c", KILLED, str(number), "sr", path, str(place / "out.nii.gz"), *options]
        assert subprocess.run(command, stdout=subprocess.DEVNULL).returncode == -signal.SIGKILL
        assert len(list(place.glob(".*.partial.*"))) == 1 and not (place / "out.json").exists()
        assert cli.main(["verify", str(place / "out.nii.gz")]) == 1
        assert f"MISSING {place}/out.json" in capsys.readouterr().out
        assert cli.main(["sr", path, str(place / "out.nii.gz"), *options]) == 0
        assert contents(place) == expected
        assert cli.main(["verify", str(place)]) == 0
        assert "4 outputs as they should be" in capsys.readouterr().out


def test_several_workers_make_the_bytes_of_one(folder, tmp_path):
    source, out, *options = folder
    assert cli.main(["sr", source, out, *options]) == 0
    assert cli.main(["sr", source, str(tmp_path / "one" / "out"), *options[:2]]) == 0
    made, by_one = contents(tmp_path / "out"), contents(tmp_path / "one" / "out")
    description = next(path for path in made if path.name == "dataset_description.json")
    assert made.pop(description) != by_one.pop(description)  # the way to the scans is another
    assert made == by_one and len(made) == 2 + 3 * 4
    assert read_json(tmp_path / "out" / description)["DatasetLinks"] == {"raw": "../bids"}
