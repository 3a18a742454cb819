"""profiles/slurm against a real SLURM: SLURM's own records say what each job was given and what became of it."""

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from slurm_cluster import Cluster, missing_programs, running_cluster

ROOT = Path(__file__).resolve().parents[2]
PROFILE = ROOT / "profiles" / "slurm"

TOY = """\
rule all:
    input:
        "cpu.txt", "gpu.txt", "gres.txt", "killed_once.txt"

rule on_cpu:
    output: "cpu.txt"
    threads: 2
    resources: mem_mb=300, runtime=7
    shell: "echo ${{CUDA_VISIBLE_DEVICES-unset}} > {output}"

rule on_gpu:
    output: "gpu.txt"
    resources: gpu=1, mem_mb=400, runtime=9
    shell: "echo ${{CUDA_VISIBLE_DEVICES-unset}} > {output}"

rule on_gres:
    output: "gres.txt"
    resources: gpu=1, mem_mb=400, runtime=9
    shell: "echo ${{CUDA_VISIBLE_DEVICES-unset}} > {output}"

rule killed_once:
    output: "killed_once.txt"
    resources: mem_mb=lambda wildcards, attempt: 100 * attempt, runtime=5
    shell:
        "if [ -e started ]; then echo whole > {output}; else echo half > {output}; touch started; sleep 300; fi"

rule killed:
    output: "killed.txt"
    retries: 0
    resources: mem_mb=100, runtime=5
    shell: "echo half > {output}; touch started; sleep 300"
"""


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


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "Snakefile").write_text(TOY)
    return tmp_path


def submit(cluster: Cluster, folder: Path, *arguments: str) -> subprocess.Popen:
    """Start snakemake with the product's own profile; only the pause between status checks is shorter."""
    command = [sys.executable, "-m", "snakemake", "--profile", str(PROFILE), "--directory", str(folder)]
    command += ["--slurm-init-seconds-before-status-checks", "3", "--latency-wait", "10", *arguments]
    with (folder / "snakemake.log").open("w") as log:
        return subprocess.Popen(command, cwd=folder, env=cluster.environment, stdout=log, stderr=subprocess.STDOUT)


def finish(process: subprocess.Popen, folder: Path, *, timeout: float = 120) -> tuple[int, str]:
    """Wait for snakemake; returns its exit status and what it printed."""
    try:
        status = process.wait(timeout)
    except subprocess.TimeoutExpired:
        process.terminate()  # it cancels its jobs
        process.wait(60)
        raise
    return status, (folder / "snakemake.log").read_text()


def kill_when_started(cluster: Cluster, rule: str, folder: Path) -> str:
    """scancel a rule's job once its shell has written half of its output; returns the job's id."""
    job = cluster.wait_for(rule)["JobId"]
    end = time.monotonic() + 60
    while not (folder / "started").exists():
        assert time.monotonic() < end, f"job {job} of {rule} did not start its shell"
        time.sleep(0.1)
    cluster.run("scancel", job)
    return job


@pytest.mark.slurm
def test_jobs_get_what_their_rules_ask_for_and_a_killed_job_is_tried_again(cluster, folder):
    to_gpu = [f"{rule}:slurm_partition=gpu" for rule in ("on_gpu", "on_gres")]
    by_gres = ["on_gres:gpu=0", "on_gres:gres=gpu:1"]
    process = submit(cluster, folder, "--set-resources", *to_gpu, *by_gres)
    killed = kill_when_started(cluster, "killed_once", folder)
    status, printed = finish(process, folder)
    assert status == 0, printed

    seen = cluster.visible_devices()
    (on_cpu,), (on_gpu,), (on_gres,) = (cluster.jobs_of(rule) for rule in ("on_cpu", "on_gpu", "on_gres"))
    assert requests(on_cpu) == ("cpu", "300M", "00:07:00", "2", None)
    assert requests(on_gpu) == ("gpu", "400M", "00:09:00", "1", "gpu:1")
    assert requests(on_gres) == ("gpu", "400M", "00:09:00", "1", "gpu:1")
    assert [seen[job["JobId"]] for job in (on_cpu, on_gpu, on_gres)] == [{"unset"}, {"0"}, {"0"}]
    written = [(folder / name).read_text().strip() for name in ("cpu.txt", "gpu.txt", "gres.txt")]
    assert written == ["unset", "0", "0"]

    first, second = cluster.jobs_of("killed_once")
    assert (first["JobId"], first["JobState"], second["JobState"]) == (killed, "CANCELLED", "COMPLETED")
    assert (requests(first)[1], requests(second)[1]) == ("100M", "200M")
    assert (folder / "killed_once.txt").read_text() == "whole\n"
    ended = {job["JobId"]: job["JobState"] for job in cluster.completed()}
    assert ended[killed] == "CANCELLED"
    assert ended[second["JobId"]] == "COMPLETED"


@pytest.mark.slurm
def test_a_killed_job_without_retries_is_an_error_and_leaves_nothing(cluster, folder):
    process = submit(cluster, folder, "killed.txt")
    killed = kill_when_started(cluster, "killed", folder)
    status, printed = finish(process, folder)
    assert status != 0
    assert re.search(rf"SLURM-job '{killed}' failed, SLURM status is: 'CANCELLED'", printed), printed
    assert "killed.txt" in printed
    assert not (folder / "killed.txt").exists()
    assert [job["JobState"] for job in cluster.jobs_of("killed")] == ["CANCELLED"]


def test_the_profile_sends_the_gpu_rules_and_only_them_to_the_gpu_partition():
    profile = yaml.safe_load((PROFILE / "profile.v9+.yaml").read_text())
    sent = {rule for rule, site in profile["set-resources"].items() if site["slurm_partition"] == "gpu"}
    assert sent == gpu_rules()
    assert profile["default-resources"]["slurm_partition"] == "cpu"


def gpu_rules() -> set[str]:
    """The rules of the workflow that ask for a GPU."""
    text = "\n".join(path.read_text() for path in sorted((ROOT / "workflow" / "rules").glob("*.smk")))
    rules = re.split(r"^(?:rule|checkpoint) (\w+):", text, flags=re.M)
    return {name for name, body in zip(rules[1::2], rules[2::2], strict=True) if re.search(r"^\s+gpu=1\b", body, re.M)}


def requests(job: dict[str, str]) -> tuple[str, str, str, str, str | None]:
    """What a job was given: partition, memory, time limit, CPUs, and the GPU."""
    given = dict(part.split("=") for part in job["TRES"].split(","))
    gpu = None if job["JOB_GRES"] == "(null)" else job["JOB_GRES"]
    return job["Partition"], given["mem"], job["TimeLimit"], given["cpu"], gpu
