"""Running the tasks of a render: on threads, on processes of this machine, or on the jobs of a SLURM cluster.

A task writes one shard (``headsr.render.tiles``). All three run the same Dask graph and give the same bytes. What the
processes and the jobs are sent is code, and whoever reaches their ports could send some: they listen only with TLS,
with credentials made for the one run. On one machine they listen on loopback, which other users of it reach too.
"""

from __future__ import annotations

import asyncio
import json
import logging
import multiprocessing
import os
import queue
import shlex
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:  # distributed takes half a second to import, which threads do without
    from dask.delayed import Delayed
    from dask_jobqueue import SLURMCluster
    from dask_jobqueue.slurm import SLURMJob
    from distributed import Future
    from distributed.deploy import SpecCluster
    from distributed.security import Security

from headsr.processes import main_not_run_again, sigterm_as_exit

_log = logging.getLogger(__name__)

Done = dict[str, Any]
Work = Callable[[str], Done]
Scheduler = Literal["threads", "local", "slurm"]

# A task whose worker is killed is tried again this often. Dask's own three are soon used up where workers are killed
# for no fault of their tasks, as at the end of their wall time, and a task that waits at the worker is counted too.
ALLOWED_FAILURES = 10
# What a worker takes beside its work: Python with PyTorch (measured: 260 MiB) and, in a SLURM job, the nanny (75 MiB).
PROCESS_BYTES = 384 * 2**20
_SETTINGS = {
    # No task waits at a worker while others are free: a shard takes seconds, handing it out milliseconds.
    "distributed.scheduler.worker-saturation": 1.0,
    # Results are a few numbers: there is nothing to spill, and a worker that pauses for its memory may never go on.
    # Beyond 95 % of its memory it is ended by its nanny (Dask's default), and what it was doing is tried again.
    "distributed.worker.memory.target": False,
    "distributed.worker.memory.spill": False,
    "distributed.worker.memory.pause": False,
    # Dask has workers give every freed array back to the system, page by page: twice the work where a shard is made of
    # thousands. None leaves the allocator as it is in any Python.
    "distributed.nanny.pre-spawn-environ.MALLOC_TRIM_THRESHOLD_": None,
    # Every worker and the scheduler open a second port, for HTTP without TLS: nothing is shown there.
    "distributed.worker.http.routes": [],
    "distributed.scheduler.http.routes": [],
}
_LOOPBACK = "127.0.0.1"
_STILLBORN = 3  # jobs in a row, at least, that end before their worker comes: the next ones would too
_CLOSED_S = 10.0  # for each part of a cluster that Dask did not close as a whole
_PATIENCE_S = 1.0  # what a run may take to stop without a word
_MIB = 2**20


@dataclass(frozen=True)
class ShardTask:
    """One shard to write, and the shards that it is made from.

    ``key`` is the shard's path in the store ("0/c/3/0/1"), ``needs`` the keys of the tasks whose shards it reads: a
    shard of a pyramid reads up to eight of the level below.
    """

    key: str
    needs: tuple[str, ...] = ()


def run_tasks(
    work: Work,
    tasks: Sequence[ShardTask],
    *,
    scheduler: Scheduler,
    workers: int,
    memory_bytes: int,
    on_done: Callable[[Done], None],
    stop: Callable[[], None] = lambda: None,
) -> None:
    """Call ``work(task.key)`` for every task, ``workers`` at a time, each after those that it needs.

    ``work`` is an instance of a class of a module that can be imported (processes and jobs are sent its name), and
    returns a small dict of JSON values. It must do no harm twice: where a worker is killed, what it was doing is done
    again. ``on_done`` is called here, once per task, as they end. Tasks begin in their order as far as their needs let
    them; the threads take Dask's own order, which is as near. ``memory_bytes`` is what all workers may take together,
    their Python included: each process or job gets an equal part, and never less than PROCESS_BYTES.

    A task's exception ends the run and is raised as itself once the tasks in work have ended or their workers are
    stopped. Processes and jobs are ended with the run, also by an interrupt or SIGTERM; threads can only be waited for,
    and ``stop`` is called before, after which ``work`` is to end soon, by whatever exception. SLURM's jobs can be
    submitted from the main thread alone, which dask-jobqueue needs when it is imported.
    Raises ValueError before any work when two tasks have one key or a task does not come after all that it needs;
    RuntimeError when a task's worker was killed more than ALLOWED_FAILURES times, or SLURM takes no jobs or ends them
    before they work.
    """
    _refuse_disorder(tasks)
    if not tasks:
        return
    workers = min(workers, len(tasks))
    worker_bytes = max(memory_bytes // workers, PROCESS_BYTES)
    if scheduler == "slurm":
        _run_on_slurm(work, tasks, workers, worker_bytes, on_done)
    elif scheduler == "local":
        _run_on_processes(work, tasks, workers, worker_bytes, on_done)
    else:
        _run_on_threads(work, tasks, workers, on_done, stop)


def _refuse_disorder(tasks: Sequence[ShardTask]) -> None:
    seen: set[str] = set()
    for task in tasks:
        if task.key in seen:
            raise ValueError(f"two tasks would write {task.key}")
        lacking = [key for key in task.needs if key not in seen]
        if lacking:
            raise ValueError(f"{task.key} needs {', '.join(lacking)}, which no task before it writes")
        seen.add(task.key)


def _graph(step: Callable[..., Done], work: Work, tasks: Sequence[ShardTask]) -> list[Delayed]:
    """One node per task, the earlier the more urgent: a shard of a pyramid comes soon after those that it reads."""
    import dask

    nodes: dict[str, Delayed] = {}
    delayed = dask.delayed(step, pure=False, traverse=False)
    for place, task in enumerate(tasks):
        needed = [nodes[key] for key in task.needs]
        with dask.annotate(priority=-place):
            nodes[task.key] = delayed(work, task.key, *needed, dask_key_name=_name(task))
    return list(nodes.values())


def _name(task: ShardTask) -> str:
    """The node's name. Dask takes what is before the dash for one kind of task.

    It keeps back a kind that is many and needs nothing until a worker is free. Any other it hands out at once, and with
    a worker that is killed hundreds of tasks would count as having killed it.
    """
    return f"{'above' if task.needs else 'ground'}-{task.key}"


def _step(work: Work, key: str, *_needed: Done) -> Done:
    return work(key)


def _step_once(work: Work, key: str, *_needed: Done) -> Done:
    """Do a task whose record outlives this process.

    Records are in the memory of the worker that made them, and with a worker that is killed Dask makes those again
    that are still needed: below a shard of a pyramid that is the whole tree. The scheduler, which is in the process
    that called, keeps a copy.
    """
    from distributed import get_worker
    from distributed.utils import sync

    worker = get_worker()
    kept = sync(worker.loop, worker.scheduler.get_metadata, keys=[key], default=None)
    if kept is not None:
        return json.loads(kept)
    record = work(key)
    sync(worker.loop, worker.scheduler.set_metadata, keys=[key], value=json.dumps(record))
    return record


def _run_on_threads(
    work: Work, tasks: Sequence[ShardTask], workers: int, on_done: Callable[[Done], None], stop: Callable[[], None]
) -> None:
    """Run the tasks on threads of their own, one worker's too: an interrupt comes to this one, which only waits."""
    pool = ThreadPoolExecutor(workers)
    try:
        if workers == 1:
            for task in tasks:  # without Dask, whose import takes longer than many small volumes
                on_done(pool.submit(work, task.key).result())
        else:
            _compute_on_threads(pool, work, tasks, on_done)
    except BaseException:
        stop()
        _wait_for_what_is_in_work(pool)
        raise
    pool.shutdown()


def _compute_on_threads(
    pool: ThreadPoolExecutor, work: Work, tasks: Sequence[ShardTask], on_done: Callable[[Done], None]
) -> None:
    import dask
    from dask.callbacks import Callback

    names = {_name(task) for task in tasks}

    def after(name: object, record: Done, *_: object) -> None:
        if name in names:
            on_done(record)

    with Callback(posttask=after):
        dask.compute(*_graph(_step, work, tasks), scheduler="threads", pool=pool, optimize_graph=False)


def _wait_for_what_is_in_work(pool: ThreadPoolExecutor) -> None:
    """Begin nothing else on the threads, and say that there is something to wait for where it takes a while."""
    said = threading.Timer(_PATIENCE_S, print, ["\nstopping: waiting for what is in work"], {"file": sys.stderr})
    said.daemon = True
    said.start()
    try:
        pool.shutdown(cancel_futures=True)
    finally:
        said.cancel()


def _run_on_processes(
    work: Work, tasks: Sequence[ShardTask], workers: int, worker_bytes: int, on_done: Callable[[Done], None]
) -> None:
    import dask
    from distributed import LocalCluster
    from distributed.security import Security

    with ExitStack() as stack:
        stack.enter_context(sigterm_as_exit())
        stack.enter_context(main_not_run_again())
        stack.enter_context(dask.config.set(_SETTINGS))
        cluster = LocalCluster(
            n_workers=workers,
            threads_per_worker=1,
            processes=True,
            host=_LOOPBACK,
            memory_limit=worker_bytes,
            protocol="tls://",
            security=Security.temporary(),
            dashboard_address=f"{_LOOPBACK}:0",
            scheduler_kwargs={"allowed_failures": ALLOWED_FAILURES, "dashboard": False},
            silence_logs=logging.CRITICAL,  # what is an error for Dask, such as a killed worker, is none here
        )
        stack.enter_context(_closing(cluster))
        cluster.adapt(minimum=workers, maximum=workers)  # replaces a worker whose nanny is lost too
        _compute(cluster, work, tasks, on_done)


def _run_on_slurm(
    work: Work, tasks: Sequence[ShardTask], workers: int, worker_bytes: int, on_done: Callable[[Done], None]
) -> None:
    import dask

    _import_jobqueue()
    with ExitStack() as stack:
        stack.enter_context(sigterm_as_exit())
        stack.enter_context(dask.config.set(_SETTINGS))
        folder = Path(stack.enter_context(_shared_folder()))
        logs = Path(_site("log-directory") or folder)
        cluster = _slurm_cluster(folder, logs, worker_bytes)
        stack.enter_context(_closing(cluster))
        _submit_first(cluster)
        cluster.adapt(minimum=1, maximum=workers, target_duration="1ms")  # a worker per task, however short
        watch = _JobWatch(cluster, most_stillborn=max(_STILLBORN, workers), logs=logs)
        _compute(cluster, work, tasks, on_done, watch=watch)


def _compute(
    cluster: SpecCluster,
    work: Work,
    tasks: Sequence[ShardTask],
    on_done: Callable[[Done], None],
    *,
    watch: Callable[[], None] = lambda: None,
) -> None:
    """Run the graph on a cluster, calling ``watch`` now and then in the meantime."""
    from distributed import Client
    from distributed.scheduler import KilledWorker

    with Client(cluster, set_as_default=False) as client:
        futures = client.compute(_graph(_step_once, work, tasks), optimize_graph=False)
        for future in _as_they_end(futures, watch):
            try:
                record = future.result()
            except KilledWorker as error:
                key = future.key.partition("-")[2]
                raise RuntimeError(
                    f"the worker that wrote {key} was killed {ALLOWED_FAILURES + 1} times: it may need more memory or, "
                    "on SLURM, a longer wall time"
                ) from error
            on_done(record)


def _as_they_end(futures: Sequence[Future], watch: Callable[[], None]) -> Iterator[Future]:
    import dask
    from dask.utils import parse_timedelta

    ended: queue.SimpleQueue[Future] = queue.SimpleQueue()
    for future in futures:
        future.add_done_callback(ended.put)
    pause = parse_timedelta(dask.config.get("distributed.deploy.lost-worker-timeout"))  # Dask's own, 15 s
    left, next_look = len(futures), time.monotonic() + pause
    while left:
        try:
            future = ended.get(timeout=max(0.0, next_look - time.monotonic()))
        except queue.Empty:
            next_look = time.monotonic() + pause
            watch()
            continue
        left -= 1
        yield future


@contextmanager
def _closing(cluster: SpecCluster) -> Iterator[None]:
    """Close a cluster when the block ends, whatever Dask says while it closes: what the block raised is what is told.

    Dask's own close stops at the first worker that cannot be closed, such as one that was killed and is just starting
    anew, with the others running and every port open; called again it waits for itself for ever.
    """
    try:
        yield
    finally:
        try:
            cluster.close()
        except Exception as error:
            _log.debug("Dask did not close its cluster: %r", error)
            _close_parts(cluster)
        _end_workers()


def _close_parts(cluster: SpecCluster) -> None:
    """Close the workers of a cluster, its scheduler and what is left of it, each whatever becomes of the others."""
    from distributed.core import Server
    from distributed.deploy.cluster import Cluster

    async def closed() -> None:
        servers = [part for part in (*cluster._created, cluster.scheduler) if isinstance(part, Server)]
        ends = [part.close for part in (*cluster._created, cluster.scheduler)]
        ends += [partial(Server.close, server) for server in servers]  # its ports, where its own close does not come to
        for end in [*ends, partial(Cluster._close, cluster)]:
            with suppress(Exception):
                await asyncio.wait_for(end(), _CLOSED_S)

    with suppress(Exception):
        cluster.sync(closed)
    cluster._loop_runner.stop()


def _end_workers() -> None:
    """End the processes of this machine's workers that a nanny closed without them."""
    for process in multiprocessing.active_children():
        if process.name.startswith("Dask Worker"):
            process.kill()
            process.join()


def _import_jobqueue() -> None:
    """Import dask_jobqueue, with its part of Dask's configuration, and leave Ctrl-C what it is.

    dask-jobqueue 0.9.0 makes it an exit with status 0: whoever started the render would take it for finished.
    """
    handler = signal.getsignal(signal.SIGINT)
    import dask_jobqueue  # noqa: F401

    signal.signal(signal.SIGINT, handler)


def _shared_folder() -> tempfile.TemporaryDirectory:
    """A folder for the jobs' credentials and logs: the site's ``shared-temp-directory``, else the current folder.

    Raises ValueError where its name cannot stand in dask-jobqueue's job script, which quotes nothing.
    """
    parent = os.path.expanduser(os.path.expandvars(_site("shared-temp-directory") or os.getcwd()))
    if shlex.quote(parent) != parent:
        raise ValueError(
            f"the jobs' credentials cannot be kept in {parent!r}: name a folder without spaces that all nodes see as "
            "shared-temp-directory under jobqueue.slurm in Dask's configuration"
        )
    # On NFS a job's log may be held a little longer than the job.
    return tempfile.TemporaryDirectory(prefix=".headsr-render.", dir=parent, ignore_cleanup_errors=True)


def _site(name: str) -> Any:
    """What the site's ``jobqueue.slurm`` in Dask's configuration says."""
    import dask

    return dask.config.get(f"jobqueue.slurm.{name}")


def _slurm_cluster(folder: Path, logs: Path, worker_bytes: int) -> SLURMCluster:
    """A cluster without jobs as yet. What the site calls its own comes from Dask's configuration."""
    import dask
    from dask_jobqueue import SLURMCluster

    settings = shlex.quote(dask.config.serialize(_SETTINGS))
    options = {"dashboard": False, "dashboard_address": f"{_LOOPBACK}:0", "allowed_failures": ALLOWED_FAILURES}
    return SLURMCluster(
        cores=1,
        processes=1,
        memory=f"{worker_bytes}B",
        job_mem=f"{-(-worker_bytes // _MIB)}M",  # dask-jobqueue rounds up to whole GiB
        job_name="headsr-render",
        python=shlex.quote(sys.executable),
        job_script_prologue=[*_site("job-script-prologue"), f"export DASK_INTERNAL_INHERIT_CONFIG={settings}"],
        worker_extra_args=["--no-dashboard", "--dashboard-address", f"{_LOOPBACK}:0", *_site("worker-extra-args")],
        scheduler_options={**options, **_site("scheduler-options")},
        log_directory=str(logs),
        security=_credentials(folder),
        silence_logs=logging.CRITICAL,
    )


def _credentials(folder: Path) -> Security:
    """Credentials for one run in files that only this user can read: where jobs read them."""
    from distributed.security import Security

    made, paths = Security.temporary(), {"cert": str(folder / "cert.pem"), "key": str(folder / "key.pem")}
    for name, path in paths.items():
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as stream:
            stream.write(getattr(made, f"tls_worker_{name}"))
    each = {f"tls_{role}_{name}": path for role in ("client", "scheduler", "worker") for name, path in paths.items()}
    return Security(require_encryption=True, tls_ca_file=paths["cert"], **each)


def _submit_first(cluster: SLURMCluster) -> None:
    """Submit one job. Raises RuntimeError where SLURM does not take it: it would take no other."""

    async def submitted() -> None:
        await cluster

    cluster.worker_spec.update(cluster.new_worker_spec())
    try:
        cluster.sync(submitted)
    except (OSError, RuntimeError) as error:
        _mark_failed(cluster.workers.values())
        raise RuntimeError(f"SLURM takes no job from here: {error}") from error


def _mark_failed(jobs: Iterable[SLURMJob]) -> None:
    """A cluster fails to close while a job is neither closed nor failed, which dask-jobqueue itself never says."""
    from distributed.core import Status

    for job in jobs:
        job.status = Status.failed


class _JobWatch:
    """Has jobs submitted again that SLURM refused, or that ended before their worker came.

    dask-jobqueue waits for those for ever. Workers that came and were lost, Dask itself replaces (``adapt``).
    """

    def __init__(self, cluster: SLURMCluster, *, most_stillborn: int, logs: Path) -> None:
        self._cluster, self._most, self._logs = cluster, most_stillborn, logs
        self._came: set[str] = set()
        self._stillborn = 0

    def __call__(self) -> None:
        """Look once. Raises RuntimeError where job after job ends without having worked."""
        awaited = self._cluster.sync(self._awaited)  # before the queue is asked: a job submitted since is not in it
        queued = _queued_jobs()
        if queued is None:
            return
        gone = awaited - queued
        self._cluster.sync(self._forget, gone)
        # What SLURM refuses while it keeps another job is beyond the number that it lets a user have: that one works.
        self._stillborn += len(gone - {None}) if awaited & queued else len(gone)
        if self._stillborn >= self._most:
            raise RuntimeError(
                f"SLURM refused or ended {self._stillborn} jobs before they could work, the last with the log:\n"
                f"{_last_log(self._logs)}"
            )

    async def _awaited(self) -> set[str | None]:
        """The ids of the jobs whose worker has not come; None for those that SLURM refused."""
        here = self._cluster.observed
        if here:
            self._stillborn = 0
        jobs = {name: job.job_id for name, job in self._cluster.workers.items()}
        self._came |= {job for name, job in jobs.items() if name in here}
        return set(jobs.values()) - self._came

    async def _forget(self, gone: set[str | None]) -> None:
        """Forget jobs; ``adapt`` sees that workers are lacking and submits new ones."""
        names = [name for name, job in self._cluster.workers.items() if job.job_id in gone]
        _mark_failed(self._cluster.workers.pop(name) for name in names)


def _queued_jobs() -> set[str] | None:
    """The ids of this user's jobs that wait or run; None where SLURM gives no answer just now."""
    command = ["squeue", "--noheader", "--format=%A", f"--user={os.getuid()}"]
    asked = subprocess.run(command, capture_output=True, text=True, check=False)
    return None if asked.returncode else set(asked.stdout.split())


def _last_log(folder: Path) -> str:
    logs = sorted(folder.glob("headsr-render-*.err"), key=lambda path: path.stat().st_mtime)
    return logs[-1].read_text(errors="replace")[-2000:].strip() if logs else "(no log)"
