"""A copy of the project in a temporary folder, and how tests run Snakemake in it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import yaml

from headsr.scans import Scan, write_scans

ROOT = Path(__file__).parents[2]
SNAKEMAKE = [sys.executable, "-m", "snakemake"]
BIN = Path(sys.executable).parent


def copy_project(folder: Path) -> Path:
    """The files that a run reads: no results, no history, so that nothing of one test reaches another."""
    for part in ("Snakefile", "workflow", "config", "profiles", "tests/config"):
        source, target = ROOT / part, folder / part
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(source, target) if source.is_dir() else shutil.copy2(source, target)
    return folder


def environment(project: Path) -> dict[str, str]:
    """Children find git-annex and datalad beside the interpreter, and before all the package in the project, if any."""
    path = f"{BIN}{os.pathsep}{os.environ['PATH']}"
    return {**os.environ, "PATH": path, "PYTHONPATH": str(project / "src"), "PYTHONUNBUFFERED": "1"}


def snakemake(project: Path, *arguments: str, timeout: float = 900) -> subprocess.CompletedProcess[str]:
    """Run Snakemake in a copy of the project; its output is in stdout."""
    return subprocess.run(
        [*SNAKEMAKE, *arguments],
        cwd=project,
        env=environment(project),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=timeout,
    )


def headsr(project: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a command of headsr in a copy of the project; its output is in stdout."""
    return subprocess.run(
        [sys.executable, "-m", "headsr.cli", *arguments],
        cwd=project,
        env=environment(project),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def plan(project: Path, *arguments: str) -> list[str]:
    """What a dry run says of each job that it plans, sorted; the SLURM profile must plan the same as the local one."""
    with ThreadPoolExecutor() as pool:
        profiles = ("profiles/local", "profiles/slurm")
        runs = list(pool.map(lambda at: snakemake(project, "--dry-run", "--profile", at, *arguments), profiles))
    assert all(run.returncode == 0 for run in runs), runs[0].stdout + runs[1].stdout
    local, slurm = (sorted(re.findall(r"^ *Job \d+: (.+)$", run.stdout, re.M)) for run in runs)
    assert local == slurm
    return local


def planned(project: Path, *arguments: str) -> Counter[str]:
    """How many jobs of each rule a dry run plans; AssertionError with the output when it fails."""
    run = snakemake(project, "--dry-run", "--cores", "2", *arguments)
    assert run.returncode == 0, run.stdout
    return Counter(
        dict((rule, int(n)) for rule, n in re.findall(r"^(\w+) +(\d+)$", run.stdout, re.M) if rule != "total")
    )


def delta(project: Path, name: str, content: dict) -> str:
    """Write a configuration delta into the project; returns its path for --configfile."""
    path = project / f"{name}.yaml"
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return path.name


def made_up_scans(project: Path, people: dict[str, str], suffixes: tuple[str, ...] = ("T1w",)) -> str:
    """A scan table for dry runs: person -> split; keys that no file has."""
    rows = [
        Scan(
            "demo",
            person,
            person,
            suffix,
            f"{person}/anat/{person}_{suffix}.nii.gz",
            f"SHA256E-s9--{person}{suffix}.nii.gz",
            9,
            "1.0",
            split,
        )
        for person, split in people.items()
        for suffix in suffixes
    ]
    write_scans(project / "scans.tsv", rows)
    return "scans.tsv"
