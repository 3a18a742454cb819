"""What planning costs: `headsr pin`, parsing the Snakefile and `snakemake -n` of everything, for 10 to 1,000 people.

The floor is Snakemake itself: a minimal Snakefile with as many jobs, in chains of four, each with one input, one output
and a script. Both run in the same minute, each twice, and the faster counts. One scan a head; 70 % of the people train,
10 % validate, 20 % are tested, as in the shipped table; tables and methods are those of config/config.yaml.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests" / "workflow"))

from project import BIN, SNAKEMAKE, copy_project, delta, environment, made_up_scans  # noqa: E402

PEOPLE = (10, 100, 1000)
CHAIN = 4
SOURCE = {"url": "dataset", "version": "v1", "license": "made", "citation": "made"}


def main() -> None:
    """Print one line per number of people."""
    print("people   jobs   pin     pin again   parsing (beyond an empty Snakefile)   snakemake -n   minimal   ratio")
    for people in PEOPLE:
        with tempfile.TemporaryDirectory() as folder:
            print(measured(Path(folder), people), flush=True)


def measured(folder: Path, people: int) -> str:
    """Pin, parse and plan a project with so many people, and a minimal one with as many jobs."""
    project = copy_project(folder / "project")
    make_dataset(project / "dataset", people)
    config = configure(project, people)
    pins = [seconds([BIN / "headsr", "pin", "demo", *config], project)[0] for _ in range(2)]
    made_up_scans(project, {name(i): split_of(i, people) for i in range(people)})
    plan_s, output = fastest([*SNAKEMAKE, "--dry-run", "--profile", "profiles/local", *config], project)
    jobs = int(re.search(r"^total +(\d+)$", output, re.M)[1])
    minimal = make_minimal(folder / "minimal", jobs)
    floor_s, _ = fastest([*SNAKEMAKE, "--dry-run", "--cores", "2"], minimal)
    parse_s = fastest([*SNAKEMAKE, "--list-rules", *config], project)[0]
    empty_s = fastest([*SNAKEMAKE, "--list-rules"], minimal)[0]
    return (
        f"{people:6} {jobs:6} {pins[0]:6.1f} s {pins[1]:7.1f} s {parse_s - empty_s:14.2f} s {plan_s:31.1f} s "
        f"{floor_s:9.1f} s {plan_s / floor_s:6.2f}"
    )


def make_dataset(path: Path, people: int) -> None:
    """A dataset with a locked annexed scan per person, as git sees it: links whose content nobody has."""
    path.mkdir()
    run(["git", "init", "--quiet", "-b", "main"], path)
    for i in range(people):
        folder = path / name(i) / "anat"
        folder.mkdir(parents=True)
        key = f"SHA256E-s9--{i:064x}.nii.gz"
        (folder / f"{name(i)}_T1w.nii.gz").symlink_to(f"../../.git/annex/objects/aa/bb/{key}/{key}")
    (path / "dataset_description.json").write_text(json.dumps({"Name": "benchmark", "BIDSVersion": "1.10.0"}))
    run(["git", "annex", "init", "--quiet"], path)
    run(["git", "add", "--all"], path)
    run(["git", "-c", "user.name=b", "-c", "user.email=b@localhost", "commit", "--quiet", "-m", "scans"], path)
    run(["git", "tag", "v1"], path)


def configure(project: Path, people: int) -> list[str]:
    """Point the shipped configuration to the dataset; returns the arguments that say so."""
    splits = {
        split: [name(i) for i in range(people) if split_of(i, people) == split] for split in ("train", "val", "test")
    }
    tables = {table: {"datasets": ["demo"]} for table in ("three_orthogonal", "one_thick")}
    overrides = {"datasets": {"demo": {**SOURCE, "splits": splits}}, "tables": tables}
    return ["--configfile", delta(project, "benchmark", {"scans": "scans.tsv", "overrides": overrides})]


def make_minimal(path: Path, jobs: int) -> Path:
    """A Snakefile that makes ``jobs`` jobs in chains, and nothing else."""
    path.mkdir()
    rules = "".join(
        f'rule step{k}:\n    input: "out/{{i}}.{k - 1}"\n    output: "out/{{i}}.{k}"\n    script: "step.py"\n'
        for k in range(1, CHAIN)
    )
    first = 'rule step0:\n    output: "out/{i}.0"\n    script: "step.py"\n'
    ends = f'rule all:\n    input: expand("out/{{i}}.{CHAIN - 1}", i=range({jobs // CHAIN}))\n'
    (path / "Snakefile").write_text(ends + first + rules)
    (path / "step.py").touch()
    return path


def name(number: int) -> str:
    """The name of a person."""
    return f"sub-{number:04d}"


def split_of(number: int, people: int) -> str:
    """70 % train, 10 % validate, 20 % are tested."""
    return "train" if number < 0.7 * people else "val" if number < 0.8 * people else "test"


def fastest(command: list, folder: Path) -> tuple[float, str]:
    """The faster of two runs."""
    return min(seconds(command, folder) for _ in range(2))


def seconds(command: list, folder: Path) -> tuple[float, str]:
    """Wall time of a command, and what it printed. Stops the benchmark if the command fails."""
    start = time.perf_counter()
    output = run(command, folder)
    return time.perf_counter() - start, output


def run(command: list, folder: Path) -> str:
    """Run a command in a folder; returns what it printed."""
    words = [os.fspath(word) for word in command]
    process = subprocess.run(words, cwd=folder, env=environment(folder), capture_output=True, text=True)
    if process.returncode:
        sys.exit(f"{' '.join(words)}\n{process.stdout[-2000:]}{process.stderr[-2000:]}")
    return process.stdout + process.stderr


if __name__ == "__main__":
    main()
