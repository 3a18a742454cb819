"""`headsr verify` on a real run: all is well, then the same as the plan would say, though the plan lost its memory."""

import dataclasses
import shutil

import pytest
from project import delta, headsr, snakemake
from smoke import CONFIG, LOCAL, VOLUME

from headsr.scans import read_scans, write_scans

TABLE = "results/tables/one_thick.md"
FIELD = VOLUME.format(method="inr", degradation="axial_x4") + "_desc-field_T1w.safetensors"
RESIDUAL = VOLUME.format(method="inr", degradation="axial_x4") + "_desc-srresidualAxial_T1w.nii.gz"


def findings(run):
    """The paths of each state that a run of verify printed."""
    lines = [line.split(maxsplit=1) for line in run.stdout.splitlines()]
    states = ("STALE", "DAMAGED", "MISSING", "ORPHAN")
    return {state: {line[1].split(":")[0] for line in lines if line[:1] == [state]} for state in states}


def verify(project, *arguments):
    return headsr(project, "verify", *arguments)


def pending(project, *arguments):
    """The outputs that Snakemake would make anew, and those that it would not."""
    run = snakemake(project, "--summary", "--profile", "profiles/local", *arguments)
    rows = [line.split("\t") for line in run.stdout.splitlines() if line.startswith("results/")]
    assert rows, run.stdout
    return {row[0] for row in rows if row[-1] == "update pending"}


def test_after_a_run_all_is_well_to_the_last_byte(finished_project):
    run = verify(finished_project, "--deep", *CONFIG)
    assert run.returncode == 0, run.stdout
    assert "0 stale, 0 damaged, 0 missing, 0 orphan" in run.stdout


def change_recipe(project):
    return delta(project, "change", {"overrides": {"methods": {"inr": {"fit": {"smoothness": 0.01}}}}})


def change_scan(project):
    scans = [
        dataclasses.replace(scan, key=scan.key.replace("--", "--0")) if scan.subject == "sub-03" else scan
        for scan in read_scans(project / "scans.tsv")
    ]
    write_scans(project / "scans.tsv", scans)
    return delta(project, "change", {})


def change_model(project):
    return delta(project, "change", {"overrides": {"models": {"edsr": {"budget": {"steps": 5}}}}})


@pytest.mark.parametrize("make_change", [change_recipe, change_scan, change_model])
def test_without_snakemake_s_memory_the_same_is_stale_that_it_would_have_made_anew(smoke, make_change):
    change = make_change(smoke)
    expected = pending(smoke, *CONFIG, change)
    assert 5 < len(expected) < 100
    shutil.rmtree(smoke / ".snakemake")
    run = verify(smoke, *CONFIG, change)
    assert run.returncode == 1
    assert findings(run)["STALE"] == expected
    assert "0 damaged, 0 missing, 0 orphan" in run.stdout


def test_the_way_out_that_is_printed_leads_out(smoke):
    change = change_recipe(smoke)
    shutil.rmtree(smoke / ".snakemake")
    forced = next(line.split() for line in verify(smoke, *CONFIG, change).stdout.splitlines() if "--forcerun" in line)
    assert forced[:2] == ["--forcerun", FIELD]
    run = snakemake(smoke, *LOCAL, change, *forced)
    assert run.returncode == 0, run.stdout[-4000:]
    assert verify(smoke, "--deep", *CONFIG, change).returncode == 0


def test_what_was_damaged_deleted_or_left_behind_is_told_apart(smoke):
    (smoke / TABLE).unlink()
    (smoke / RESIDUAL).write_bytes((smoke / RESIDUAL).read_bytes()[:-9])
    field = bytearray((smoke / FIELD).read_bytes())
    field[-5] ^= 1
    (smoke / FIELD).write_bytes(field)
    left_behind = "results/scores/voxels/inr/axial_x4/demo/sub-09/sub-09_T1w.json"
    (smoke / left_behind).parent.mkdir()
    (smoke / left_behind).write_text("{}")
    at_a_glance = verify(smoke, *CONFIG)
    expected = {"STALE": set(), "DAMAGED": {RESIDUAL}, "MISSING": {TABLE}, "ORPHAN": {left_behind}}
    assert findings(at_a_glance) == expected
    assert findings(verify(smoke, "--deep", *CONFIG)) == {**expected, "DAMAGED": {RESIDUAL, FIELD}}
    assert at_a_glance.returncode == 1


def test_a_plan_that_cannot_be_made_is_an_error_with_a_reason(smoke):
    run = verify(smoke, *CONFIG, delta(smoke, "change", {"tables": ["one_thik"]}))
    assert run.returncode == 2
    assert "did you mean 'one_thick'" in run.stdout
