import errno
import fcntl
import multiprocessing
import os
import re
import signal
import socket
import subprocess
import sys
import time

import pytest

from headsr.lock import HeldError, holding_results
from headsr.render.store import writing

HOLD = """
import sys, time
from pathlib import Path
from headsr.render.store import writing
with writing(Path(sys.argv[1]), shared=len(sys.argv) > 2):
    print("held", flush=True)
    time.sleep(100)
"""


@pytest.fixture
def store(tmp_path):
    return tmp_path / "a.ome.zarr" / "zarr.json"


@pytest.fixture
def hold(store):
    """Hold the store in a process of its own, until it is killed."""
    started = []

    def held(*shared):
        command = [sys.executable, "-c", HOLD, str(store), *shared]
        started.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
        assert started[-1].stdout.readline() == "held\n"
        return started[-1]

    yield held
    for process in started:
        process.kill()
        process.communicate()


@pytest.mark.parametrize(("theirs", "ours"), [((), False), ((), True), (("shared",), False)])
def test_who_writes_a_store_keeps_others_out(store, hold, theirs, ours):
    process = hold(*theirs)
    others = pytest.raises(HeldError, match=f"a.ome.zarr: is being written by process {process.pid} on ")
    with others, writing(store, shared=ours):
        pass


def test_parts_are_written_side_by_side(store, hold):
    hold("shared")
    with writing(store, shared=True):
        hold("shared")


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_a_lock_ends_with_its_process(store, hold, how):
    process = hold()
    process.send_signal(how)
    process.wait()
    with writing(store):
        pass
    assert list(store.parent.parent.iterdir()) == []


def test_nothing_is_left_once_the_last_part_has_ended(store):
    with writing(store, shared=True):
        with writing(store, shared=True):
            pass
        assert [path.name for path in store.parent.parent.iterdir()] == [".a.ome.zarr.lock"]
    assert list(store.parent.parent.iterdir()) == []


def test_a_failure_lets_go(store):
    with pytest.raises(KeyError), writing(store):
        raise KeyError
    with writing(store):
        pass


def take_and_let_go(store, log):
    """How often this process was inside."""
    mine, entered = str(os.getpid()), 0
    for _ in range(30):
        try:
            with writing(store):
                log.write_text(mine)  # would be replaced by another who is inside
                time.sleep(0.002)
                assert log.read_text() == mine
                log.unlink()
                entered += 1
        except HeldError:  # too many others, for a second
            pass
    return entered


def test_everyone_gets_in_and_two_are_never_inside(store):
    log = store.parent.parent / "log"
    store.parent.mkdir()
    with multiprocessing.get_context("fork").Pool(4) as pool:
        entered = pool.starmap(take_and_let_go, [(store, log)] * 4, chunksize=1)
    assert all(entered), entered


def test_a_file_system_without_locks_goes_without(store, monkeypatch):
    def no_locks(*_):
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    with writing(store), writing(store):
        pass
    assert list(store.parent.parent.iterdir()) == []


def plant(lock, how):
    target = lock.with_name("thesis.txt")
    target.write_text("my own")
    if how == "link":
        lock.symlink_to(target)
    elif how == "second name":
        os.link(target, lock)
    elif how == "pipe":
        os.mkfifo(lock)
    elif how == "folder":
        lock.mkdir()
    else:
        lock.write_text("my own")
    return target


@pytest.mark.parametrize("how", ["link", "second name", "pipe", "folder", "file"])
def test_what_is_no_lock_of_headsr_is_neither_truncated_nor_deleted(store, how):
    lock = store.parent.with_name(".a.ome.zarr.lock")
    target = plant(lock, how)
    with pytest.raises(HeldError, match=r"\.a\.ome\.zarr\.lock: is in the way.*Move it away"), writing(store):
        pass
    assert os.path.lexists(lock) and target.read_text() == "my own"


def test_a_lock_that_a_killed_process_left_is_taken(store, hold):
    lock = store.parent.with_name(".a.ome.zarr.lock")
    lock.write_text("process 12 on node-3.cluster")
    with writing(store):
        assert lock.read_text().startswith(f"process {os.getpid()} on ")


def no_locks(*_):
    raise OSError(errno.ENOLCK, "No locks available")


NO_PROCESS = 2**22 + 1  # above the kernel's largest
HOST = socket.gethostname()


def test_the_results_folder_of_a_process_that_ended_is_taken(tmp_path):
    (tmp_path / ".headsr.lock").write_text(f"process {NO_PROCESS} on {HOST} since 2026-01-01 00:00:00")
    with holding_results(tmp_path):
        own = rf"process {os.getpid()} on {HOST} since \d{{4}}-\d\d-\d\d \d\d:\d\d:\d\d"
        assert re.fullmatch(own, (tmp_path / ".headsr.lock").read_text())
        others = pytest.raises(HeldError, match=f"{tmp_path}: is being written by {own}. Wait until that has ended")
        with others, holding_results(tmp_path):
            pass
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("pid", "host"), [(os.getpid(), HOST), (12, "node-3.cluster")], ids=["here", "elsewhere"])
def test_without_locks_what_stands_in_the_file_keeps_others_out_of_a_results_folder(tmp_path, monkeypatch, pid, host):
    monkeypatch.setattr(fcntl, "flock", no_locks)
    note = f"process {pid} on {host} since 2026-01-01 00:00:00"
    (tmp_path / ".headsr.lock").write_text(note)
    with (
        pytest.raises(HeldError, match=f"written by {note}, if that still runs.*delete .*lock"),
        holding_results(tmp_path),
    ):
        pass
    assert (tmp_path / ".headsr.lock").read_text() == note


def test_without_locks_too_a_process_that_ended_here_holds_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(fcntl, "flock", no_locks)
    (tmp_path / ".headsr.lock").write_text(f"process {NO_PROCESS} on {HOST} since 2026-01-01 00:00:00")
    with holding_results(tmp_path):
        assert f"process {os.getpid()} on" in (tmp_path / ".headsr.lock").read_text()
    assert list(tmp_path.iterdir()) == []
