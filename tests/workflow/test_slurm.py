"""profiles/slurm against a real SLURM: SLURM's own records say what each job was given and what became of it."""

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from slurm_cluster import Cluster, missing_programs, running_cluster
from smoke import CONFIG, VOLUME

ROOT = Path(__file__).resolve().parents[2]
PROFILE = ROOT / "profiles" / "slurm"

TOY = """\
rule all:
    input:
        "cpu.txt", "gpu.txt", "gres.txt", "killed_once.txt"

rule on_cpu:
    output: "cpu.txt"
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


@dataclass(frozen=True)
class Run:
    """A run of snakemake that has ended: where, how, what it printed, and the job that was killed in it."""

    folder: Path
    status: int
    printed: str
    killed: str


@pytest.fixture(scope="module")
def toy_runs(cluster, tmp_path_factory):
    """Two runs through the profile, at the same time: the pauses between the executor's questions are most of each."""
    to_gpu = [f"{rule}:slurm_partition=gpu" for rule in ("on_gpu", "on_gres")]
    by_gres = ["on_gres:gpu=0", "on_gres:gres=gpu:1"]
    asked = {"killed": ["killed.txt"], "killed_once": ["--set-resources", *to_gpu, *by_gres]}
    folders = {rule: tmp_path_factory.mktemp(rule) for rule in asked}
    for folder in folders.values():
        (folder / "Snakefile").write_text(TOY)
    with ExitStack() as stack:
        processes = {}
        for rule in asked:
            processes[rule] = stack.enter_context(submitted(cluster, folders[rule], *asked[rule]))
            wait_until(lambda rule=rule: cluster.jobs_of(rule), f"no job of {rule}")  # the first in the queue
        killed = kill_when_started(cluster, folders)
        ended = {rule: finish(process, folders[rule], timeout=240) for rule, process in processes.items()}
    return {rule: Run(folders[rule], *ended[rule], killed[rule]) for rule in asked}


@contextmanager
def submitted(cluster: Cluster, folder: Path, *arguments: str) -> Iterator[subprocess.Popen]:
    """A running snakemake with the product's own profile; only the pauses between its questions are shorter."""
    command = [sys.executable, "-m", "snakemake", "--profile", str(PROFILE)]
    command += ["--slurm-init-seconds-before-status-checks", "10", "--latency-wait", "10", *arguments]
    with (folder / "snakemake.log").open("w") as log:
        process = subprocess.Popen(command, cwd=folder, env=cluster.environment, stdout=log, stderr=subprocess.STDOUT)
    try:
        yield process
    finally:
        process.kill()  # nothing, where it has ended; the cluster cancels its jobs
        process.wait()


def finish(process: subprocess.Popen, folder: Path, *, timeout: float) -> tuple[int, str]:
    """Wait for snakemake; returns its exit status and what it printed."""
    return process.wait(timeout), (folder / "snakemake.log").read_text()


def kill_when_started(cluster: Cluster, folders: dict[str, Path]) -> dict[str, str]:
    """scancel each rule's job once its shell has written half of its output; returns the ids of the jobs, by rule."""
    killed = {}
    for rule, folder in folders.items():
        wait_until((folder / "started").exists, f"no job of {rule} has started")
        killed[rule] = cluster.jobs_of(rule)[-1]["JobId"]
        cluster.run("scancel", killed[rule])
    return killed


def wait_until(condition: Callable[[], object], otherwise: str, *, timeout: float = 90) -> None:
    """Wait until something holds."""
    end = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < end, otherwise
        time.sleep(0.1)


@pytest.mark.slurm
def test_the_jobs_that_ask_for_the_gpu_get_it_and_no_other(cluster, toy_runs):
    run, seen = toy_runs["killed_once"], cluster.visible_devices()
    assert run.status == 0, run.printed
    (on_cpu,), (on_gpu,), (on_gres,) = (cluster.jobs_of(rule) for rule in ("on_cpu", "on_gpu", "on_gres"))
    assert requests(on_cpu) == ("cpu", "300M", "00:07:00", "1", None)
    assert requests(on_gpu) == ("gpu", "400M", "00:09:00", "1", "gpu:1")
    assert requests(on_gres) == ("gpu", "400M", "00:09:00", "1", "gpu:1")
    assert [seen[job["JobId"]] for job in (on_cpu, on_gpu, on_gres)] == [{"unset"}, {"0"}, {"0"}]
    assert [read(run.folder / f"{name}.txt") for name in ("cpu", "gpu", "gres")] == ["unset", "0", "0"]


@pytest.mark.slurm
def test_a_killed_job_is_tried_again(cluster, toy_runs):
    run = toy_runs["killed_once"]
    first, second = cluster.jobs_of("killed_once")
    assert (first["JobId"], first["JobState"], second["JobState"]) == (run.killed, "CANCELLED", "COMPLETED")
    assert (requests(first)[1], requests(second)[1]) == ("100M", "200M")
    assert read(run.folder / "killed_once.txt") == "whole"
    ended = {job["JobId"]: job["JobState"] for job in cluster.completed()}
    assert (ended[run.killed], ended[second["JobId"]]) == ("CANCELLED", "COMPLETED")


@pytest.mark.slurm
def test_a_killed_job_without_retries_is_an_error_and_leaves_nothing(cluster, toy_runs):
    run = toy_runs["killed"]
    assert run.status == 1, run.printed
    assert f"SLURM-job '{run.killed}' failed, SLURM status is: 'CANCELLED'" in run.printed
    assert "killed.txt" in run.printed
    assert not (run.folder / "killed.txt").exists()
    assert [job["JobState"] for job in cluster.jobs_of("killed")] == ["CANCELLED"]


# A volume by each kind of GPU rule: these need every training, an upsampling and a fit.
UNITS = (("slice_network", "orthogonal_x4"), ("inr_prior", "orthogonal_x4"))


@pytest.fixture(scope="module")
def slurm_project(cluster, finished_project, tmp_path_factory):
    """The project that ran locally, run again from its first step through SLURM, as far as two scores.

    And a volume with what is foretold of its errors, which no table of the smoke configuration asks for.
    """
    project = tmp_path_factory.mktemp("through_slurm") / "project"
    shutil.copytree(finished_project, project, symlinks=True, ignore=shutil.ignore_patterns("results", ".snakemake"))
    shutil.copytree(finished_project / "results/clones", project / "results/clones", symlinks=True)
    scores = [
        f"results/scores/voxels/{method}/{degradation}/demo/sub-03/sub-03_T1w.json" for method, degradation in UNITS
    ]
    foretold = VOLUME.format(method="unrolled", degradation="orthogonal_x4") + "_res-hi_desc-uncertainty_T1w.nii.gz"
    # The node has two cores, and the rules ask for up to four: what --cores does locally, --max-threads does here.
    with submitted(cluster, project, *CONFIG, "--max-threads", "2", "--", *scores, foretold) as process:
        status, printed = finish(process, project, timeout=600)
    assert status == 0, printed[-6000:]
    return project


@pytest.mark.long
@pytest.mark.slurm
def test_the_workflow_asks_for_the_gpu_where_a_rule_needs_it_and_nowhere_else(cluster, slurm_project):
    seen = cluster.visible_devices()
    assert {requests(job)[3] for job in cluster.jobs_of("train_segment")} == {"2"}  # its threads
    on_gpu = {job["JobId"] for rule in gpu_rules() for job in cluster.jobs_of(rule)}
    assert all(cluster.jobs_of(rule) for rule in gpu_rules())
    jobs = [job for job in cluster.jobs() if job["WorkDir"] == str(slurm_project)]
    assert len(jobs) > len(on_gpu) >= 6
    for job in jobs:
        partition, memory, _, _, gpu = requests(job)
        expected = ("gpu", "gpu:1", {"0"}) if job["JobId"] in on_gpu else ("cpu", None, {"unset"})
        assert (partition, gpu, seen[job["JobId"]]) == expected, job["Comment"]
        assert job["JobState"] == "COMPLETED", job["Comment"]
        assert int(memory.removesuffix("M")) >= 300, job["Comment"]


@pytest.mark.long
@pytest.mark.slurm
@pytest.mark.parametrize(("method", "degradation"), UNITS)
def test_the_result_is_that_of_this_machine(finished_project, slurm_project, method, degradation):
    volume = VOLUME.format(method=method, degradation=degradation)
    for ending in ("_res-hi_desc-sr_T1w.nii.gz", "_res-hi_desc-unprojected_T1w.nii.gz"):
        here, there = ((project / (volume + ending)).read_bytes() for project in (finished_project, slurm_project))
        assert here == there, ending


def test_the_profile_sends_the_gpu_rules_and_only_them_to_the_gpu_partition():
    profile = yaml.safe_load((PROFILE / "profile.v9+.yaml").read_text())
    sent = {rule for rule, site in profile["set-resources"].items() if site["slurm_partition"] == "gpu"}
    assert sent == gpu_rules()
    assert profile["default-resources"]["slurm_partition"] == "cpu"


def gpu_rules() -> set[str]:
    """The rules of the workflow that ask for a GPU."""
    text = "\n".join(path.read_text() for path in sorted((ROOT / "workflow" / "rules").glob("*.smk")))
    rules = re.split(r"^(?:rule|checkpoint|use rule \w+ as) (\w+)(?: with)?:", text, flags=re.M)
    return {name for name, body in zip(rules[1::2], rules[2::2], strict=True) if re.search(r"^\s+gpu=1\b", body, re.M)}


def requests(job: dict[str, str]) -> tuple[str, str, str, str, str | None]:
    """What a job was given: partition, memory, time limit, CPUs, and the GPU."""
    given = dict(part.split("=") for part in job["TRES"].split(","))
    gpu = None if job["JOB_GRES"] == "(null)" else job["JOB_GRES"]
    return job["Partition"], given["mem"], job["TimeLimit"], given["cpu"], gpu


def read(path: Path) -> str:
    return path.read_text().strip()
