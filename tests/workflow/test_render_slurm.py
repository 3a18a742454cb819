"""A render's tasks as SLURM jobs, on a real SLURM: the bytes of this machine, and no job left, whatever is killed."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
from slurm_cluster import Cluster, missing_programs, running_cluster

from headsr.cli import main
from headsr.fields.load import save_field
from headsr.files import sha256_of

UNIT_TESTS = Path(__file__).resolve().parents[1] / "unit" / "render"
MAIN = "import shards_of_bytes; shards_of_bytes.main()"
FIELDS = Path(__file__).resolve().parents[1] / "unit" / "fields"
SIZE = ("--shape", "1100", "20", "20", "--mem-gb", "2")  # three shards, two of the next level, then one each

# What a site says in ~/.config/dask, in Dask's own words; here all is on loopback, and lost jobs are soon given up.
SITE = """\
jobqueue:
  slurm:
    queue: {queue}
    interface: lo
    walltime: "00:04:00"
    job-script-prologue: {prologue}
    job-extra-directives: ["--comment=from-the-site"]
distributed:
  deploy:
    lost-worker-timeout: 1s
"""

pytestmark = pytest.mark.slurm


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """A running cluster; skips where SLURM is not installed, but not in CI."""
    missing = missing_programs()
    if missing and os.environ.get("CI", "").lower() not in ("", "0", "false"):
        pytest.fail(f"SLURM must be tested in CI, and {', '.join(missing)} are missing: install Debian's slurm-wlm")
    if missing:
        pytest.skip(f"{', '.join(missing)} not found: install Debian's slurm-wlm")
    with running_cluster(tmp_path_factory.mktemp("slurm")) as cluster:
        yield cluster


@contextmanager
def rendering(
    cluster: Cluster, folder: Path, *arguments: str, queue: str = "cpu", prologue: str = "[]"
) -> Iterator[subprocess.Popen]:
    """A program that writes shards through SLURM, with its site's configuration; killed at the end if it still runs."""
    process = subprocess.Popen(
        [sys.executable, "-c", MAIN, str(folder / "shards"), *arguments],
        **at_site(cluster, folder, queue=queue, prologue=prologue),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def at_site(cluster: Cluster, folder: Path, *, queue: str = "cpu", prologue: str = "[]") -> dict[str, Any]:
    """Where and with which environment a program finds the cluster and its site's configuration."""
    (folder / "dask").mkdir()
    (folder / "dask" / "jobqueue.yaml").write_text(SITE.format(queue=queue, prologue=prologue))
    (folder / "here").mkdir()
    environment = {**cluster.environment, "DASK_CONFIG": str(folder / "dask"), "PYTHONPATH": str(UNIT_TESTS)}
    return {"env": environment, "cwd": folder / "here"}


def tries(folder: Path) -> list[str]:
    path = folder / "shards" / "tries"
    return path.read_text().split() if path.exists() else []


def jobs_since(cluster: Cluster, before: list[dict[str, str]]) -> list[dict[str, str]]:
    known = {job["JobId"] for job in before}
    return [job for job in cluster.jobs() if job["JobId"] not in known]


def wait_until(condition: Callable[[], object], process: subprocess.Popen | None = None) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert process is None or process.poll() is None, process.stderr.read()
        assert time.monotonic() < end
        time.sleep(0.1)


def test_lost_jobs_are_replaced_and_the_bytes_are_those_of_this_machine(cluster, tmp_path):
    before = cluster.jobs()
    with rendering(cluster, tmp_path, "slurm", "2", "8", "0.5") as process:
        wait_until(lambda: jobs_since(cluster, before), process)
        never_came = jobs_since(cluster, before)[0]
        cluster.run("scancel", never_came["JobId"])
        wait_until(lambda: len(tries(tmp_path)) > 2, process)
        worked = next(job for job in jobs_since(cluster, before) if job["JobState"] == "RUNNING")
        sockets = [
            one.laddr.ip
            for each in psutil.process_iter(["cmdline"])
            if "distributed" in " ".join(each.info["cmdline"] or []) or each.pid == process.pid
            for one in each.net_connections("inet")
            if one.status == psutil.CONN_LISTEN
        ]
        credentials = next((tmp_path / "here").glob(".headsr-render.*"))
        modes = {path.stat().st_mode & 0o077 for path in (credentials, *credentials.glob("*.pem"))}
        cluster.run("scancel", worked["JobId"])
        output, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    records = {record["key"]: record for record in json.loads(output)}
    assert len(records) == len(json.loads(output)) == 11
    in_order = [sys.executable, "-c", MAIN, str(tmp_path / "in_order"), "threads", "1", "8", "0"]
    subprocess.run(in_order, env={**os.environ, "PYTHONPATH": str(UNIT_TESTS)}, check=True, capture_output=True)
    for key, record in records.items():
        content = (tmp_path / "shards" / key).read_bytes()
        assert content == (tmp_path / "in_order" / key).read_bytes()
        assert (record["sha256"], record["environment"]) == (content.hex(), ["1", None])
    assert len(tries(tmp_path)) <= 11 + 1
    assert set(sockets) == {"127.0.0.1"} and len(sockets) >= 4
    assert modes == {0}
    jobs = jobs_since(cluster, before)
    assert len(jobs) >= 3
    for job in jobs:
        assert (job["Partition"], job["TimeLimit"], job["Comment"]) == ("cpu", "00:04:00", "from-the-site")
        assert "cpu=1,mem=1G" in job["TRES"]
    nothing_is_left(cluster, tmp_path)


def nothing_is_left(cluster: Cluster, folder: Path) -> None:
    """No job, no process and none of the credentials."""
    wait_until(lambda: not cluster.run("squeue", "--noheader").strip())
    assert list((folder / "here").iterdir()) == []
    commands = [" ".join(process.info["cmdline"] or []) for process in psutil.process_iter(["cmdline"])]
    assert not [command for command in commands if str(folder / "here") in command]


def test_an_interrupted_render_cancels_its_jobs(cluster, tmp_path):
    expected = {signal.SIGTERM: 128 + signal.SIGTERM, signal.SIGINT: -signal.SIGINT}
    folders = {sent: tmp_path / sent.name for sent in expected}
    with ExitStack() as stack:
        for folder in folders.values():
            folder.mkdir()
        processes = {
            sent: stack.enter_context(rendering(cluster, folder, "slurm", "1", "64", "0.5"))
            for sent, folder in folders.items()
        }
        for sent, process in processes.items():
            wait_until(lambda sent=sent: tries(folders[sent]), process)
        for sent, process in processes.items():
            process.send_signal(sent)
        for process in processes.values():
            process.communicate(timeout=30)
    assert {sent: process.returncode for sent, process in processes.items()} == expected
    for folder in folders.values():
        nothing_is_left(cluster, folder)


def test_jobs_that_slurm_refuses_are_an_error(cluster, tmp_path):
    with rendering(cluster, tmp_path, "slurm", "1", "4", "0", queue="none") as process:
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "RuntimeError: SLURM takes no job from here" in errors
    assert "Invalid partition name specified" in errors
    nothing_is_left(cluster, tmp_path)


def test_jobs_that_end_before_they_work_are_an_error_with_their_log(cluster, tmp_path):
    prologue = '["echo no such module >&2", "exit 3"]'
    with rendering(cluster, tmp_path, "slurm", "2", "4", "0", prologue=prologue) as process:
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "jobs before they could work, the last with the log:\nno such module" in errors
    nothing_is_left(cluster, tmp_path)


@pytest.fixture
def field(request, tmp_path, monkeypatch):
    """The file of a field, of the kind that is asked for, seen from where a site's programs are started."""
    monkeypatch.syspath_prepend(FIELDS)
    import random_fields

    network = getattr(random_fields, request.param)()
    save_field(tmp_path / "field.safetensors", random_fields.consistent(network))
    return "../field.safetensors"


def rendered_by_threads(folder: Path) -> dict[str, str]:
    """Path -> hash of all files of a render on this machine's threads."""
    command = ["render", str(folder / "field.safetensors"), str(folder / "threads" / "head.ome.zarr"), *SIZE]
    assert main(command) == 0
    return digest(folder / "threads")


def digest(folder: Path) -> dict[str, str]:
    paths = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): sha256_of(path) for path in paths}


@pytest.mark.parametrize("field", ["dense", "siren"], indirect=True)
def test_a_field_is_rendered_by_slurm_bit_for_bit_as_by_threads(cluster, tmp_path, field):
    before = cluster.jobs()
    command = ["headsr", "render", field, "../slurm/head.ome.zarr", *SIZE, "--scheduler", "slurm", "--workers", "2"]
    finished = subprocess.run(command, **at_site(cluster, tmp_path), capture_output=True, text=True, timeout=120)
    assert finished.returncode == 0, finished.stderr
    assert jobs_since(cluster, before)
    nothing_is_left(cluster, tmp_path)
    assert digest(tmp_path / "slurm") == rendered_by_threads(tmp_path)


@pytest.mark.parametrize("field", ["dense"], indirect=True)
def test_an_array_of_parts_and_a_last_job_render_bit_for_bit_as_threads_do(cluster, tmp_path, field):
    """As docs/rendering.md says it."""
    render = " ".join(["headsr", "render", field, "../array/head.ome.zarr", *SIZE])
    script = f'#!/bin/sh\n#SBATCH --cpus-per-task=1 --mem=2G\n{render} --part "$SLURM_ARRAY_TASK_ID/3"\n'
    how = {**at_site(cluster, tmp_path), "check": True, "capture_output": True, "text": True, "timeout": 120}
    (tmp_path / "here" / "render.sh").write_text(script)
    parts = subprocess.run(["sbatch", "--parsable", "--array=1-3", "render.sh"], **how).stdout.strip()
    # A last job whose parts failed would wait for ever.
    last = ["sbatch", "--wait", "--kill-on-invalid-dep=yes", f"--dependency=afterok:{parts}", "--mem=2G"]
    subprocess.run([*last, "--wrap", render], **how)
    logs = [path.read_bytes() for path in (tmp_path / "here").glob("slurm-*.out")]
    assert sum(b": 100% of" in log for log in logs) == 3 and not any(b"\r" in log for log in logs)
    assert digest(tmp_path / "array") == rendered_by_threads(tmp_path)
