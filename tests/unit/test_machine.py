"""What a process may use: of the machine, and of what its SLURM job or container leaves it."""

import os

import psutil
import pytest

from headsr import cli, demo, machine

GB = 10**9


@pytest.fixture
def free(tmp_path, monkeypatch):
    """What is free on a machine with 100 GB free whose root holds these files."""

    def say(files):
        for name, text in files.items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(f"{text}\n")
        return machine.free_memory()

    monkeypatch.setattr(machine, "_ROOT", tmp_path)
    available = psutil.virtual_memory()._replace(available=100 * GB)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: available)
    return say


def group(limit, taken, cache=0, *, at="sys/fs/cgroup/slurm/job"):
    return {
        f"{at}/memory.max": limit,
        f"{at}/memory.current": taken,
        f"{at}/memory.stat": f"anon 1\ninactive_file {cache}",
    }


def test_a_machine_without_groups_is_as_it_is(free):
    assert free({}) == 100 * GB


@pytest.mark.parametrize(
    ("groups", "left"),
    [
        (group(8 * GB, 3 * GB), 5 * GB),
        (group(8 * GB, 7 * GB, cache=4 * GB), 5 * GB),  # the cache of files is given back
        (group("max", 3 * GB), 100 * GB),
        (group(500 * GB, 3 * GB), 100 * GB),
        (group(8 * GB, 9 * GB), 0),
        (group("max", 3 * GB) | group(6 * GB, 2 * GB, at="sys/fs/cgroup/slurm"), 4 * GB),  # the limit of a job's parent
        (group(4 * GB, 1 * GB, at="sys/fs/cgroup"), 3 * GB),  # in a container its own group is the top
    ],
)
def test_the_limit_of_a_job_or_a_container_counts(free, groups, left):
    """giampaolo/psutil#2100: the memory of the host, however little the container had."""
    assert free({"proc/self/cgroup": "0::/slurm/job/step", **groups}) == left


def test_so_does_that_of_the_older_groups(free):
    at = "sys/fs/cgroup/memory/docker/abc"
    files = {
        "proc/self/cgroup": "5:cpu,cpuacct:/docker/abc\n4:memory:/docker/abc\n0::/",
        f"{at}/memory.limit_in_bytes": 8 * GB,
        f"{at}/memory.usage_in_bytes": 3 * GB,
        f"{at}/memory.stat": f"inactive_file 1\ntotal_inactive_file {1 * GB}",
        "sys/fs/cgroup/memory/memory.limit_in_bytes": 2**63 - 4096,
    }
    assert free(files) == 6 * GB


def test_cores_are_those_that_it_may_use(monkeypatch):
    """freesurfer/freesurfer#1446: all cores of a node, of which a job had one."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {3, 5})
    monkeypatch.setattr(os, "cpu_count", lambda: 96)
    asked = []
    monkeypatch.setattr(demo, "run_demo", lambda *, cores: asked.append(cores) or 0)
    assert cli.main(["demo"]) == 0 and cli.main(["demo", "--cores", "7"]) == 0
    assert asked == [2, 7]
