import io
import pickle
import sys
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest

from headsr.render import progress as module
from headsr.render.progress import RenderProgress


@pytest.fixture
def clock(monkeypatch):
    """The time that the progress sees: ``now``, in seconds."""
    clock = SimpleNamespace(now=100.0)
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: clock.now))
    return clock


class Terminal(io.StringIO):
    def isatty(self):
        return True


def terminal(monkeypatch):
    """Standard output, from here on; not in a fixture, after which pytest puts its own there."""
    monkeypatch.setattr(sys, "stdout", Terminal())
    return sys.stdout


def counted(progress, clock, *, seconds, voxels):
    """Count voxels once every so many seconds."""
    for number in voxels:
        clock.now += seconds
        progress.add(number)


def test_a_log_gets_a_line_every_ten_seconds_with_the_speed_and_the_time_left(clock, capsys):
    counted(RenderProgress("head", 1000), clock, seconds=4, voxels=[40] * 6)
    assert capsys.readouterr().out == (
        "head: 12% of 1000 voxels, 10 voxels/s, 88 s left\nhead: 24% of 1000 voxels, 10 voxels/s, 76 s left\n"
    )


def test_a_terminal_has_one_line_that_is_written_over_twice_a_second(clock, monkeypatch):
    screen = terminal(monkeypatch)
    counted(RenderProgress("head", 1000), clock, seconds=0.25, voxels=[100] * 5)
    _, first, second = screen.getvalue().split("\r")
    assert first.rstrip() == "head: 20% of 1000 voxels, 400 voxels/s, 2 s left"
    assert second.rstrip() == "head: 40% of 1000 voxels, 400 voxels/s, 2 s left"


def test_what_is_written_over_a_longer_line_leaves_nothing_of_it(clock, monkeypatch):
    screen = terminal(monkeypatch)
    progress = RenderProgress("head", 10**6)
    counted(progress, clock, seconds=50, voxels=[1])
    counted(progress, clock, seconds=50, voxels=[10**6 - 2])
    _, longer, shorter = screen.getvalue().split("\r")
    assert "d" in longer.split(" voxels/s, ")[1] and len(longer.rstrip()) > len(shorter.rstrip())
    assert len(shorter) >= len(longer.rstrip())


def test_the_end_is_said_at_once_in_a_log(clock, capsys):
    counted(RenderProgress("head", 1000), clock, seconds=1, voxels=[500, 500])
    assert capsys.readouterr().out == "head: 100% of 1000 voxels, 500 voxels/s, 0 s left\n"


def test_the_end_is_the_end_of_the_line_on_a_terminal(clock, monkeypatch):
    screen = terminal(monkeypatch)
    counted(RenderProgress("head", 1000), clock, seconds=1, voxels=[500, 500])
    said = screen.getvalue()
    assert said.count("\n") == 1 and said.endswith("\n")
    assert said.split("\r")[-1].rstrip() == "head: 100% of 1000 voxels, 500 voxels/s, 0 s left"


def test_what_an_earlier_render_made_counts_as_done_and_not_as_speed(clock, capsys):
    counted(RenderProgress("head", 1000, done=600), clock, seconds=10, voxels=[200])
    assert capsys.readouterr().out == "head: 80% of 1000 voxels, 20 voxels/s, 10 s left\n"


def test_chunks_of_the_pyramid_say_nothing(clock, capsys):
    counted(RenderProgress("head", 1000, done=1000), clock, seconds=60, voxels=[0, 0])
    assert capsys.readouterr().out == ""


def test_no_voxel_of_many_threads_is_lost(clock, capsys):
    progress = RenderProgress("head", 8 * 2000)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: [progress.add(1) for _ in range(2000)], range(8)))
    said = capsys.readouterr().out.splitlines()
    assert [line.split(" voxels, ")[0] for line in said] == ["head: 100% of 1.6e+04"]


def test_a_copy_in_another_process_is_silent(capsys):
    pickle.loads(pickle.dumps(RenderProgress("head", 10))).add(10)  # noqa: S301
    assert capsys.readouterr().out == ""


def test_on_a_narrow_terminal_the_line_is_cut_so_that_it_is_not_wrapped(clock, monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    screen = terminal(monkeypatch)
    counted(RenderProgress("sub-01_res-hi_desc-sr_T1w", 1000), clock, seconds=1, voxels=[100, 100])
    assert [len(line) for line in screen.getvalue().split("\r")] == [0, 39, 39]


def test_a_failure_is_said_below_the_line(clock, monkeypatch):
    screen = terminal(monkeypatch)
    progress = RenderProgress("head", 1000)
    progress.end()
    assert screen.getvalue() == ""
    counted(progress, clock, seconds=1, voxels=[100])
    progress.end()
    progress.end()
    assert screen.getvalue().count("\n") == 1 and screen.getvalue().endswith("\n")
