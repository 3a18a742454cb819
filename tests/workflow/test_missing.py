"""What is deleted of a finished run: what is published is made again, and `headsr verify` says what the plan says.

Nothing is run: every output of the plan is a file with a word in it, each younger than what it is made from.
"""

import json
import os
from pathlib import Path

import pytest
from project import ROOT, copy_project, delta, made_up_scans, planned

from headsr.plan import planned_jobs
from headsr.verify import State, verify_results

DATASETS = {"demo": {"url": "none", "version": "v1", "license": "none", "citation": "none"}}
CONFIG = ("tests/config/smoke/config.yaml", "made_up.yaml")
PEOPLE = {"sub-01": "train", "sub-02": "val", "sub-03": "test", "sub-04": "test", "sub-05": "test"}


def volume(method: str, person: str, name: str) -> str:
    """One file of a volume."""
    return f"results/reconstructions/demo/headsr-{method}/{person}/anat/{person}_{name}"


# What is published, and who makes it: each of a job of its own, since a job that runs makes all that it makes.
MADE_FROM_SCANS = {
    volume("inr-axial_x4", "sub-03", "desc-field_T1w.safetensors"): "fit_field",
    volume("inr-axial_x4", "sub-04", "desc-fit_T1w.jsonl"): "fit_field",
    volume("inr-axial_x4", "sub-05", "res-fine_desc-sr_T1w.nii.gz"): "render_volume",
    volume("inr_prior-orthogonal_x4", "sub-03", "res-hi_desc-sr_T1w.ome.zarr/zarr.json"): "render_volume",
    volume("slice_network-orthogonal_x4", "sub-03", "res-hi_desc-sr_T1w.nii.gz"): "reconstruct_volume_gpu",
    volume("slice_network-orthogonal_x4", "sub-04", "res-hi_desc-sr_T1w.json"): "reconstruct_volume_gpu",
    volume("tikhonov-orthogonal_x4", "sub-04", "res-hi_desc-unprojected_T1w.nii.gz"): "reconstruct_volume",
    volume("average-orthogonal_x4", "sub-04", "res-hi_desc-unprojected_T1w.json"): "reconstruct_volume",
    volume("tikhonov-orthogonal_x4", "sub-05", "res-hi_desc-sr_T1w.ome.zarr/zarr.json"): "reconstruct_volume",
    volume("average-orthogonal_x4", "sub-05", "desc-check_T1w.json"): "check_volume",
    "results/reconstructions/demo/headsr-inr-axial_x4/dataset_description.json": "describe_derivatives",
    "results/reconstructions/demo/headsr-tikhonov-orthogonal_x4/descriptions.tsv": "describe_derivatives",
    "results/reconstructions/demo/headsr-average-orthogonal_x4/.bidsignore": "describe_derivatives",
}
MADE_FROM_VOLUMES = {
    "results/figures/axial_x4/demo/sub-03/sub-03_T1w.png": "draw_figure",
    "results/figures/demo/sub-03/sub-03_desc-masks_T1w.png": "draw_masks",
    "results/figures/curves.png": "draw_curves",
    "results/figures/rulegraph.png": "draw_rulegraph",
    "results/tables/one_thick.tsv": "make_table",
}
MADE_FROM_SCORES = {"results/scores/scores.tsv": "collect_scores"}
BETWEEN = "results/preprocessed/demo/sub-03/sub-03_desc-preproc_T1w.nii.gz"


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A project of which every output is there."""
    project = copy_project(tmp_path_factory.mktemp("missing"))
    (project / "src").symlink_to(ROOT / "src")
    made_up_scans(project, PEOPLE)
    larger = {"render": {"larger": {"fine": {"scale": [2]}}}}
    delta(project, "made_up", {"scans": "scans.tsv", "overrides": {"datasets": DATASETS}, **larger})
    with pytest.MonkeyPatch.context() as context:
        context.chdir(project)
        for age, job in enumerate(planned_jobs(CONFIG)):
            for path in map(Path, job.outputs):
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text("made")
                os.utime(path, (1e9 + age, 1e9 + age))
    return project


@pytest.fixture
def without(project, monkeypatch):
    """A function: the jobs of the plan that run where some files are not there."""
    monkeypatch.chdir(project)
    gone = {}

    def jobs(*paths):
        for path in map(Path, paths):
            gone[path] = path.stat()
            path.unlink()
        return planned_jobs(CONFIG)

    yield jobs
    for path, was in gone.items():
        path.write_text("made")
        os.utime(path, (was.st_mtime, was.st_mtime))


@pytest.mark.parametrize("published", [MADE_FROM_SCANS, MADE_FROM_VOLUMES, MADE_FROM_SCORES])
def test_what_is_published_and_missing_is_made_again(without, published):
    jobs = without(*published)
    runs = {path: job.rule for job in jobs if job.runs for path in job.outputs}
    assert {path: runs.get(path) for path in published} == published
    missing = verify_results(jobs, "results").of(State.MISSING)
    assert {finding.path: finding.made_by for finding in missing} == published


NUMBERS = ("rms_before", "rms_after", "rms_before_everywhere", "rms_after_everywhere", "allowed")


@pytest.mark.parametrize("lost", ["desc-srresidualCoronal_T1w.nii.gz", "desc-srresidualCoronal_T1w.json"])
def test_a_residual_map_that_is_missing_is_made_again_and_nothing_else(without, lost):
    """Which maps there are only the check of the volume says."""
    check = volume("tikhonov-orthogonal_x4", "sub-03", "desc-check_T1w.json")
    views = {view: dict.fromkeys(NUMBERS, 0.1) for view in ("axial", "coronal")}
    said = {"headsr": {"views": views, "projection": {"outcome": "met"}}}
    was = os.stat(check)
    Path(check).write_text(json.dumps(said))
    os.utime(check, (was.st_mtime, was.st_mtime))
    maps = [
        Path(volume("tikhonov-orthogonal_x4", "sub-03", f"desc-srresidual{view.capitalize()}_T1w.{ending}"))
        for view in views
        for ending in ("nii.gz", "json")
    ]
    for path in maps:
        path.write_text("made")
    lost = volume("tikhonov-orthogonal_x4", "sub-03", lost)
    try:
        assert not [job.rule for job in without() if job.runs]
        jobs = without(lost)
        assert [job.rule for job in jobs if job.runs] == ["map_residual"]
        (missing,) = verify_results(jobs, "results").of(State.MISSING)
        assert (missing.path, missing.made_by) == (lost, "map_residual")
    finally:
        Path(check).write_text("made")
        os.utime(check, (was.st_mtime, was.st_mtime))
        for path in maps:
            path.unlink(missing_ok=True)


def test_what_only_made_something_that_is_there_is_not_and_verify_says_so(without):
    jobs = without(BETWEEN)
    assert not [job.rule for job in jobs if job.runs]
    (missing,) = verify_results(jobs, "results").of(State.MISSING)
    assert (missing.path, missing.made_by) == (BETWEEN, "")


def test_the_plan_of_verify_is_that_of_a_dry_run(without, project):
    jobs = without(*MADE_FROM_VOLUMES, BETWEEN)
    said = planned(project, "--profile", "profiles/local", "--configfile", *CONFIG)
    rules = [job.rule for job in jobs if job.runs]
    assert {rule: rules.count(rule) for rule in rules} == {rule: n for rule, n in said.items() if rule != "all"}
