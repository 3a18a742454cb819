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

from project import BIN, SNAKEMAKE, copy_project, delta, environment  # noqa: E402

PEOPLE = (10, 100, 1000)
CHAIN = 4
# Without starting Python and importing Snakemake, which every command pays.
PARSE = """
import sys, time
from pathlib import Path
from snakemake.api import SnakemakeApi
from snakemake.settings.types import ConfigSettings, OutputSettings, Quietness, ResourceSettings
with SnakemakeApi(OutputSettings(quiet={Quietness.ALL})) as api:
    config = ConfigSettings(configfiles=[Path(path) for path in sys.argv[1:]])
    flow = api.workflow(resource_settings=ResourceSettings(cores=1), config_settings=config)
    start = time.perf_counter()
    flow.list_rules()
    print("parsed in", time.perf_counter() - start, file=sys.stderr)
"""
PLANNED = """
import sys
from headsr.plan import planned_jobs
for job in planned_jobs(sys.argv[1:]):
    print(*(f"output: {path}" for path in job.outputs), sep="\\n")
"""
TOUCH = """
from snakemake.cli import main
from snakemake.executors import touch
touch.Executor.SLEEPING_TIME = 0  # otherwise a tenth of a second for each job
main()
"""
SOURCE = {"url": "dataset", "version": "v1", "license": "made", "citation": "made"}


def main() -> None:
    """Print one line per number of people."""
    print("people   jobs    pin  pin again  parsing  -n, nothing done  minimal  ratio  -n, all done  minimal  ratio")
    for people in PEOPLE:
        with tempfile.TemporaryDirectory() as folder:
            print(measured(Path(folder), people), flush=True)


def measured(folder: Path, people: int) -> str:
    """Pin, parse and plan a project with so many people, and a minimal one with as many jobs."""
    project = copy_project(folder / "project")
    make_dataset(project / "dataset", people)
    config = configure(project, people)
    pins = [seconds([BIN / "headsr", "pin", "demo", *config], project) for _ in range(2)]
    dry_run = [*SNAKEMAKE, "--dry-run", "--profile", "profiles/local", *config]
    jobs = int(re.search(r"^total +(\d+)$", run(dry_run, project), re.M)[1])
    minimal = make_minimal(folder / "minimal", jobs)
    floor = [*SNAKEMAKE, "--dry-run", "--cores", "2"]
    parse_s = min(float(run([sys.executable, "-c", PARSE, *config[1:]], project).split()[-1]) for _ in range(2))
    nothing_done = [fastest(dry_run, project), fastest(floor, minimal)]
    pretend_all_done(project, outputs_of(project, config), config)
    pretend_all_done(minimal, [f"out/{i}.{k}" for i in range(jobs // CHAIN) for k in range(CHAIN)], [])
    all_done = [fastest(dry_run, project), fastest(floor, minimal)]
    plans = "".join(f"{ours:13.1f} s {least:7.1f} s {ours / least:6.2f}" for ours, least in (nothing_done, all_done))
    return f"{people:6} {jobs:6} {pins[0]:4.1f} s {pins[1]:8.1f} s {parse_s:6.2f} s {plans}"


def outputs_of(project: Path, config: list[str]) -> list[str]:
    """Every output of the project's plan."""
    printed = run([sys.executable, "-c", PLANNED, *config[1:]], project)
    return re.findall(r"^output: (.+)$", printed, re.M)


def pretend_all_done(folder: Path, outputs: list[str], config: list[str]) -> None:
    """Make every output, empty, and have Snakemake record that its job made it."""
    for output in outputs:
        (folder / output).parent.mkdir(parents=True, exist_ok=True)
        (folder / output).touch()
    run([sys.executable, "-c", TOUCH, "--touch", "--forceall", "--cores", "100000", "--quiet", "all", *config], folder)


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


def fastest(command: list, folder: Path) -> float:
    """Seconds that the faster of two runs took."""
    return min(seconds(command, folder) for _ in range(2))


def seconds(command: list, folder: Path) -> float:
    """Wall time of a command. Stops the benchmark if the command fails."""
    start = time.perf_counter()
    run(command, folder)
    return time.perf_counter() - start


def run(command: list, folder: Path) -> str:
    """Run a command in a folder; returns what it printed."""
    words = [os.fspath(word) for word in command]
    process = subprocess.run(words, cwd=folder, env=environment(folder), capture_output=True, text=True)
    if process.returncode:
        sys.exit(f"{' '.join(words)}\n{process.stdout[-2000:]}{process.stderr[-2000:]}")
    return process.stdout + process.stderr


if __name__ == "__main__":
    main()
