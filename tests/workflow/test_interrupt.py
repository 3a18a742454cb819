"""Ctrl-C reaches every process of a run; what is said of it is one line."""

import os
import signal
import subprocess
import time

import pytest
from project import ROOT, SNAKEMAKE, environment

WORKFLOW = """
rule all:
    input: "1", "2"
rule wait:
    output: "{n,[12]}"
    message: "Wait for {wildcards.n}"
    script: "wait.py"
"""
SCRIPT = """
import os, time
os.write(2, b"a disk is full\\n")
open(f"begun{snakemake.wildcards.n}", "w").close()
time.sleep(600)
"""


@pytest.fixture
def project(tmp_path):
    (tmp_path / "src").symlink_to(ROOT / "src")
    (tmp_path / "Snakefile").write_text(WORKFLOW)
    (tmp_path / "wait.py").write_text(SCRIPT)
    return tmp_path


def test_an_interrupt_is_a_line_and_no_traceback(project):
    run = subprocess.Popen(
        [*SNAKEMAKE, "--cores", "2", "--logger", "headsr"],
        cwd=project,
        env=environment(project),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    deadline = time.monotonic() + 300
    while not all((project / f"begun{n}").exists() for n in (1, 2)):
        assert run.poll() is None and time.monotonic() < deadline
        time.sleep(0.1)
    time.sleep(2)  # what its jobs said before goes on to the terminal
    os.killpg(run.pid, signal.SIGINT)
    said, _ = run.communicate(timeout=300)
    assert run.returncode != 0
    lines = ["Building DAG of jobs...", "2 jobs: 2 wait", *["a disk is full"] * 2]
    assert said.split("\n")[:5] == [*lines, "Interrupted: ending the jobs that run. The same command goes on."]
    assert "Traceback" not in said and "Error" not in said
