"""One scan that cannot be fetched: the others are finished, the reason is printed, and it is made up for later."""

from pathlib import Path

import pytest
from project import snakemake
from smoke import LOCAL, smoke_project

from headsr.annex import run_tool
from headsr.scans import read_scans

PEOPLE = ("sub-01", "sub-02", "sub-03")
MISSING = "sub-02"


def corrected(person: str) -> str:
    return f"results/preprocessed/demo/{person}/{person}_desc-biascorrected_T1w.nii.gz"


COMMAND = (*LOCAL, "--", *(corrected(person) for person in PEOPLE))


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return smoke_project(tmp_path_factory.mktemp("fetch"))


def images_in(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*.nii.gz"))


def test_one_scan_that_no_remote_has_stops_nothing_else_and_is_made_up_for(project: Path, tmp_path: Path) -> None:
    key = next(scan.key for scan in read_scans(project / "scans.tsv") if scan.name == f"demo/{MISSING}_T1w")
    origin = project / "origin"
    content = tmp_path / "content.nii.gz"
    content.write_bytes(next(origin.glob(f"{MISSING}/anat/*_T1w.nii.gz")).read_bytes())
    run_tool(["git", "-C", origin, "annex", "drop", "--force", f"--key={key}"])

    run = snakemake(project, *COMMAND)
    assert run.returncode != 0
    said = next(line for line in run.stdout.splitlines() if f"demo/{MISSING}_T1w: the content of {key}" in line)
    assert "could not be fetched" in said
    assert f"git -C results/clones/demo annex whereis --key={key} names who should; enable or add that remote" in said
    finished = {person: (project / corrected(person)) for person in PEOPLE if person != MISSING}
    times = {person: path.stat().st_mtime_ns for person, path in finished.items()}
    assert images_in(project / "results/sourcedata/demo") == []
    assert images_in(project / f"results/preprocessed/demo/{MISSING}") == []
    assert not [path for path in (project / "results/clones/demo/.git/annex/objects").rglob("*") if path.is_file()]

    run_tool(["git", "-C", origin, "annex", "setkey", key, content])
    run = snakemake(project, *COMMAND)
    assert run.returncode == 0, run.stdout[-3000:]
    assert "2 jobs: 1 fetch_scan, 1 correct_bias\n" in run.stdout
    assert {person: path.stat().st_mtime_ns for person, path in finished.items()} == times
    assert (project / corrected(MISSING)).exists()
    assert "Nothing to be done" in snakemake(project, *COMMAND).stdout


def test_another_bound_reruns_nothing(project: Path) -> None:
    run = snakemake(project, "--dry-run", *LOCAL, "--config", "fetches_at_once=1", *COMMAND[len(LOCAL) :])
    assert "Nothing to be done" in run.stdout, run.stdout[-3000:]


def test_a_bound_of_none_is_refused(project: Path) -> None:
    run = snakemake(project, "--dry-run", *LOCAL, "--config", "fetches_at_once=0", *COMMAND[len(LOCAL) :])
    assert run.returncode != 0 and "fetches_at_once" in run.stdout
