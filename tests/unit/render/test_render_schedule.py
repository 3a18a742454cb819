"""A render's tasks on threads and on processes of this machine: the same bytes, whatever happens to the workers."""

import errno
import signal
import socket
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from shards_of_bytes import MEMORY, listening, run, tree, work_on

from headsr.render import schedule
from headsr.render.ahead import Lanes
from headsr.render.schedule import ShardTask, run_tasks

HERE = Path(__file__).parent
TASKS = tree(8)


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {task.key: (folder / task.key).read_bytes() for task in TASKS}


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    """The bytes of every shard, written one after the other."""
    work = work_on(TASKS, tmp_path_factory.mktemp("schedule") / "in_order")
    run(work, TASKS, "threads", 1)
    return bytes_of(work.folder)


def test_one_worker_does_the_tasks_in_their_order(tmp_path):
    work = work_on(TASKS, tmp_path / "shards")
    done = run(work, TASKS, "threads", 1)
    assert work.tries == [record["key"] for record in done] == [task.key for task in TASKS]


def test_one_worker_imports_no_dask():
    code = (
        "import sys; from headsr.render.schedule import ShardTask, run_tasks\n"
        "run_tasks(len, [ShardTask('ab')], scheduler='threads', workers=1, memory_bytes=1, on_done=print)\n"
        "print(sorted({'dask', 'distributed', 'dask_jobqueue'} & set(sys.modules)))"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "2\n[]\n"


def test_threads_write_the_same_bytes_and_tell_of_each_task_as_it_ends(tmp_path, expected):
    work = work_on(TASKS, tmp_path / "shards", seconds=0.01)
    tries_when_told: list[int] = []
    keys: list[str] = []

    def told(record: dict) -> None:
        keys.append(record["key"])
        tries_when_told.append(len(work.tries))

    run_tasks(work, TASKS, scheduler="threads", workers=3, memory_bytes=MEMORY, on_done=told)
    assert bytes_of(work.folder) == expected
    assert sorted(keys) == sorted(expected)
    assert tries_when_told[0] <= 2 * 3


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, "No space left on device", "0/c/3"), FloatingPointError("3 voxels are not finite")]
)
def test_an_error_on_a_thread_is_raised_as_itself_and_ends_the_run(tmp_path, error):
    first = tuple(ShardTask(f"0/c/{number}") for number in range(40))
    work = work_on(first, tmp_path / "shards", seconds=0.01, failing=first[3].key, error=error)
    with pytest.raises(type(error)) as raised:
        run(work, first, "threads", 2)
    assert (str(raised.value), raised.value.args) == (str(error), error.args)
    assert not any(path.name.count(".") for path in (work.folder / "0/c").iterdir())  # none was left in work
    assert len(work.tries) < 40


def test_an_error_on_a_thread_is_raised_when_the_pieces_in_work_are_done(monkeypatch, capfd):
    monkeypatch.setattr(schedule, "_PATIENCE_S", 0.01)
    lanes, begun, failed = Lanes(1), [], []

    def write(key: str) -> dict:
        begun.append(key)
        if len(begun) == 3:  # the others write, or wait for the lane
            time.sleep(0.1)
            failed.append(time.monotonic())
            raise OSError(errno.ENOSPC, "No space left on device")
        for _ in lanes.in_order(time.sleep, [0.3] * 200):  # a minute
            pass
        return {}

    tasks = [ShardTask(str(number)) for number in range(10)]
    with pytest.raises(OSError, match="No space left on device"):
        run_tasks(write, tasks, scheduler="threads", workers=3, memory_bytes=1, on_done=pytest.fail, stop=lanes.stop)
    assert time.monotonic() - failed[0] < 3
    assert capfd.readouterr() == ("", "\nstopping: waiting for what is in work\n")


INTERRUPTED = """\
import sys, time
from headsr.render.ahead import Lanes
from headsr.render.schedule import ShardTask, run_tasks

lanes, workers = Lanes(2), int(sys.argv[1])

def write(key):
    for _ in lanes.in_order(time.sleep, [0.3] * 200):
        print(key, flush=True)

tasks = [ShardTask(str(number)) for number in range(10)]
run_tasks(write, tasks, scheduler="threads", workers=workers, memory_bytes=1, on_done=print, stop=lanes.stop)
"""


@pytest.mark.parametrize("workers", [1, 2])
def test_an_interrupt_waits_for_the_pieces_in_work_alone(workers, started):
    command = [sys.executable, "-c", INTERRUPTED, str(workers)]
    process = started(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout.readline()
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=20)
    assert process.returncode == -signal.SIGINT
    assert errors.endswith("\nKeyboardInterrupt\n") and errors.count("Traceback") == 1


def test_killed_workers_are_replaced_and_only_what_they_were_doing_is_done_again(tmp_path, expected, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    killed = frozenset(task.key for task in TASKS[::3])  # a third: leaves and shards of the pyramid
    work = work_on(TASKS, tmp_path / "shards", killed=killed)
    done = run(work, TASKS, "local", 2)
    assert bytes_of(work.folder) == expected
    assert sorted(record["key"] for record in done) == sorted(expected)
    assert sorted(work.tries) == sorted([*expected, *killed])
    assert all(record["environment"] == ["1", None] for record in done)
    pids = {record["pid"] for record in done}
    assert len(pids) > 2
    assert not any(psutil.pid_exists(pid) for pid in pids)


def test_a_task_that_always_kills_its_worker_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(schedule, "ALLOWED_FAILURES", 1)
    work = work_on(TASKS, tmp_path / "shards", killed=frozenset({"0/c/0"}), deaths=1000)
    with pytest.raises(RuntimeError, match=r"wrote 0/c/0 was killed 2 times: it may need more memory"):
        run(work, TASKS, "local", 1)


def test_an_error_in_a_process_is_raised_as_itself_and_strangers_are_not_let_in(tmp_path):
    error = OSError(errno.ENOSPC, "No space left on device", "1/c/0")
    work = work_on(TASKS, tmp_path / "shards", failing="1/c/0", error=error)
    me, addresses, answers = psutil.Process(), [], []

    def told(record: dict) -> None:
        if not addresses:
            addresses.extend(listening(me))
            answers.extend(answer(port) for _, port in addresses)

    with pytest.raises(OSError) as raised:
        run_tasks(work, TASKS, scheduler="local", workers=1, memory_bytes=MEMORY, on_done=told)
    assert (raised.value.errno, raised.value.filename) == (errno.ENOSPC, "1/c/0")
    assert {host for host, _ in addresses} == {"127.0.0.1"}
    assert set(answers) == {"no page", "no certificate"}
    assert not listening(me)


async def refuses(*_: object, **__: object) -> None:
    raise AssertionError("can only join a started process")


@pytest.mark.parametrize(
    "place", ["nanny.WorkerProcess.kill", "nanny.Nanny.close", "deploy.spec.SpecCluster._correct_state_internal"]
)
def test_whatever_dask_says_while_it_closes_the_error_is_the_runs_and_nothing_stays(tmp_path, monkeypatch, place):
    """Dask's nanny cannot be closed while the worker that was killed starts anew."""
    work = work_on(TASKS, tmp_path / "shards", failing="1/c/0", error=OSError(errno.ENOSPC, "full", "1/c/0"))
    me, children = psutil.Process(), []

    def told(record: dict) -> None:
        if not children:
            children.extend(me.children(recursive=True))
            monkeypatch.setattr(f"distributed.{place}", refuses)

    with pytest.raises(OSError, match="full"):
        run_tasks(work, TASKS, scheduler="local", workers=2, memory_bytes=MEMORY, on_done=told)
    workers = [child for child in children if child.is_running() and "spawn_main" in " ".join(child.cmdline())]
    assert not workers and not listening(me)


def answer(port: int) -> str:
    """What a program of another user gets from a port of this machine."""
    try:
        urllib.request.urlopen(f"http://127.0.0.1:{port}/info/main/workers.html", timeout=5)
    except urllib.error.HTTPError as error:
        return "no page" if error.code == 404 else str(error)
    except OSError:
        pass
    else:
        return "a page"
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with socket.create_connection(("127.0.0.1", port), timeout=5) as plain:
        try:
            with context.wrap_socket(plain) as stream:
                return str(stream.recv(100))
        except OSError as error:
            return "no certificate" if "ALERT_CERTIFICATE_REQUIRED" in str(error) else str(error)


# As Snakemake runs the rules' scripts: a program without a guard that would start itself again.
SCRIPT = """\
import sys
sys.path.insert(0, {here!r})
open({runs!r}, "a").write("x")
from shards_of_bytes import main
main()
"""


def test_interrupted_scripts_leave_no_process_and_are_not_run_by_their_workers(tmp_path, started):
    expected = {signal.SIGTERM: 128 + signal.SIGTERM, signal.SIGINT: -signal.SIGINT}
    processes = {sent: start_script(started, tmp_path / sent.name) for sent in expected}
    children = []
    for sent, process in processes.items():
        end = time.monotonic() + 60
        while not (tmp_path / sent.name / "shards/0/c/0").exists():
            assert time.monotonic() < end and process.poll() is None, process.communicate()
            time.sleep(0.05)
        children += psutil.Process(process.pid).children(recursive=True)
    assert len(children) >= 2
    for sent, process in processes.items():
        process.send_signal(sent)
        process.communicate(timeout=60)
    assert {sent: process.returncode for sent, process in processes.items()} == expected
    assert psutil.wait_procs(children, timeout=20)[1] == []
    assert [(tmp_path / sent.name / "runs").read_text() for sent in expected] == ["x", "x"]


def start_script(started: Callable[..., subprocess.Popen], folder: Path) -> subprocess.Popen:
    """Start a script that writes shards for half a minute."""
    folder.mkdir()
    script = folder / "script.py"
    script.write_text(SCRIPT.format(here=str(HERE), runs=str(folder / "runs")))
    command = [sys.executable, str(script), str(folder / "shards"), "local", "1", "64", "0.5"]
    return started(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


@pytest.mark.parametrize(
    ("tasks", "message"),
    [
        ([ShardTask("0/c/0"), ShardTask("0/c/0")], "two tasks would write 0/c/0"),
        ([ShardTask("1/c/0", ("0/c/0",))], "1/c/0 needs 0/c/0, which no task before it writes"),
        ([ShardTask("1/c/0", ("0/c/0",)), ShardTask("0/c/0")], "1/c/0 needs 0/c/0, which no task before it writes"),
    ],
)
def test_tasks_in_disorder_are_refused_before_any_work(tasks, message):
    with pytest.raises(ValueError, match=message):
        run_tasks(pytest.fail, tasks, scheduler="threads", workers=1, memory_bytes=MEMORY, on_done=pytest.fail)


@pytest.mark.parametrize("scheduler", ["threads", "local", "slurm"])
def test_nothing_is_started_where_nothing_is_left_to_do(scheduler, monkeypatch):
    monkeypatch.setattr("subprocess.Popen", pytest.fail)
    monkeypatch.setattr("threading.Thread.start", pytest.fail)
    run_tasks(pytest.fail, [], scheduler=scheduler, workers=2, memory_bytes=MEMORY, on_done=pytest.fail)


def test_a_folder_that_a_job_script_cannot_name_is_refused(tmp_path, monkeypatch):
    folder = tmp_path / "two words"
    folder.mkdir()
    monkeypatch.chdir(folder)
    with pytest.raises(ValueError, match=r"two words'.*shared-temp-directory"):
        run_tasks(pytest.fail, [ShardTask("0")], scheduler="slurm", workers=1, memory_bytes=MEMORY, on_done=pytest.fail)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
