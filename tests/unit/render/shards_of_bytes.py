"""Work for the schedulers: each task writes a few bytes that follow from its key and the shards that it needs.

Run as a program (``main``), it is what a command of headsr is to the schedulers: a process that may be interrupted.
"""

import contextlib
import hashlib
import json
import os
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from headsr.render.schedule import ShardTask, run_tasks

MEMORY = 2 * 2**30


def tree(leaves: int) -> list[ShardTask]:
    """A pyramid's tasks: each shard of a level right after the (up to) four of the level below."""
    tasks, level = [], {0: [f"0/c/{number}" for number in range(leaves)]}
    while len(level[max(level)]) > 1:
        below = level[max(level)]
        level[max(level) + 1] = [f"{max(level) + 1}/c/{number}" for number in range(-(-len(below) // 4))]

    def add(depth: int, number: int) -> None:
        key = level[depth][number]
        needs = level[depth - 1][4 * number : 4 * number + 4] if depth else []
        for need in needs:
            add(depth - 1, int(need.rsplit("/", 1)[1]))
        tasks.append(ShardTask(key, tuple(needs)))

    add(max(level), 0)
    return tasks


@dataclass(frozen=True)
class WriteShard:
    """Write one shard below ``folder``; the first ``deaths`` tries of the keys in ``killed`` end their process.

    Tries are counted in ``folder/tries``. The record says the bytes' hash, the process and its settings.
    """

    folder: Path
    needs: dict[str, tuple[str, ...]]
    seconds: float = 0.0
    killed: frozenset[str] = frozenset()
    deaths: int = 1
    failing: str = ""
    error: Exception | None = None

    def __call__(self, key: str) -> dict[str, object]:
        with (self.folder / "tries").open("a") as tries:
            tries.write(f"{key}\n")
        time.sleep(self.seconds)
        if key == self.failing:
            raise self.error
        if key in self.killed and (self.folder / "tries").read_text().split("\n").count(key) <= self.deaths:
            os.kill(os.getpid(), signal.SIGKILL)
        path = self.folder / key
        path.parent.mkdir(parents=True, exist_ok=True)
        below = [(self.folder / need).read_bytes() for need in self.needs[key]]  # fails where one is not there
        content = hashlib.sha256(b"".join([key.encode(), *below])).digest()
        partial = path.with_name(f"{path.name}.{os.getpid()}")
        partial.write_bytes(content)
        partial.replace(path)
        read = [os.environ.get(name) for name in ("OMP_NUM_THREADS", "MALLOC_TRIM_THRESHOLD_")]
        return {"key": key, "sha256": content.hex(), "pid": os.getpid(), "environment": read}

    @property
    def tries(self) -> list[str]:
        """The key of every try so far."""
        path = self.folder / "tries"
        return path.read_text().split() if path.exists() else []


def work_on(tasks: Sequence[ShardTask], folder: Path, **how: object) -> WriteShard:
    """The work for some tasks in an empty folder."""
    folder.mkdir()
    return WriteShard(folder, {task.key: task.needs for task in tasks}, **how)


def run(work: WriteShard, tasks: Sequence[ShardTask], scheduler: str, workers: int) -> list[dict]:
    """Run the tasks; returns the records in the order in which they came."""
    done: list[dict] = []
    run_tasks(work, tasks, scheduler=scheduler, workers=workers, memory_bytes=MEMORY, on_done=done.append)
    return done


def listening(process: psutil.Process) -> set[tuple[str, int]]:
    """The addresses and ports that a process and those below it listen on."""
    found = set()
    for one in [process, *process.children(recursive=True)]:
        with contextlib.suppress(psutil.NoSuchProcess):
            sockets = one.net_connections("inet")
            found |= {tuple(each.laddr) for each in sockets if each.status == psutil.CONN_LISTEN}
    return found


def main() -> None:
    """``main`` with the arguments FOLDER SCHEDULER WORKERS LEAVES SECONDS: write the shards, print the records."""
    folder, scheduler, workers, leaves, seconds = sys.argv[1:]
    tasks = tree(int(leaves))
    work = work_on(tasks, Path(folder), seconds=float(seconds))
    print(json.dumps(run(work, tasks, scheduler, int(workers))))
