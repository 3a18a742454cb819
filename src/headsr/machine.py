"""What of this machine a process may use: a SLURM job or a container has less than the machine has."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import psutil

_ROOT = Path("/")
# Of both versions of control groups: where they lie, and where a group says its limit, and what it has taken so far.
# The cache of files counts as taken, and what of it nobody has looked at lately is given back when it is asked for.
_GROUPS = {
    "": ("sys/fs/cgroup", "memory.max", "memory.current", "inactive_file"),
    "memory": ("sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
}


def cores() -> int:
    """The processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def free_memory() -> int:
    """The bytes of memory that this process may still take: what is free, and what its control groups leave of it."""
    return max(0, min([psutil.virtual_memory().available, *_left_by_groups()]))


def _left_by_groups() -> Iterator[int]:
    """What each of the groups that this process is in leaves, its own and those above it; nothing for no limit."""
    for line in _text(_ROOT / "proc/self/cgroup").splitlines():
        _, kind, place = line.split(":", 2)
        if kind not in _GROUPS:
            continue
        folder, limit, taken, unused = _GROUPS[kind]
        top = _ROOT / folder
        group = top / place.lstrip("/")  # in a container it may be hidden, and the container's own is then the top
        for here in (group, *(above for above in group.parents if above.is_relative_to(top))):
            if (most := _text(here / limit).strip()).isdecimal():
                cache = dict(line.split() for line in _text(here / "memory.stat").splitlines()).get(unused, "0")
                yield int(most) - int(_text(here / taken).strip() or 0) + int(cache)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError:
        return ""
