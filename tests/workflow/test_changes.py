"""Which jobs a change of the configuration makes other jobs, by their parameters: exactly those, and nothing is run.

What follows from them by their files is in test_rerun.py.
"""

import json
import subprocess
import sys

import pytest
from project import copy_project, delta, environment, made_up_scans

from headsr.recipes import merged
from headsr.scans import Scan, companion_name, read_scans, write_scans

PEOPLE = {"sub-01": "train", "sub-02": "val", "sub-03": "test", "sub-04": "test"}
MADE_UP = {
    "scans": "scans.tsv",
    "overrides": {"datasets": {"demo": {"url": "none", "version": "v1", "license": "none", "citation": "none"}}},
}
PLAN = """
import json, sys
from headsr.plan import planned_jobs
jobs = {job.log: [job.rule, job.params, job.stage, job.inputs] for job in planned_jobs(sys.argv[1:])}
print("PLAN", json.dumps(jobs))
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    project = copy_project(tmp_path_factory.mktemp("changes"))
    made_up_scans(project, PEOPLE)
    return project


def jobs_of(project, change):
    """Rule, parameters, versions and inputs of every job of the plan, by the job's log."""
    config = delta(project, "changed", merged(MADE_UP, change))
    command = [sys.executable, "-c", PLAN, "tests/config/smoke/config.yaml", config]
    run = subprocess.run(command, cwd=project, env=environment(project), capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    (line,) = [line for line in run.stdout.splitlines() if line.startswith("PLAN ")]
    return json.loads(line.removeprefix("PLAN "))


@pytest.fixture(scope="module")
def before(project):
    return jobs_of(project, {})


def changed(project, before, change):
    """The logs of the jobs that are other jobs after the change, or were not there before."""
    after = jobs_of(project, change)
    return {log.removeprefix("results/logs/") for log, job in after.items() if before.get(log) != job}


def logs(rule, *units):
    return {f"{rule}/{unit}.log" for unit in units}


def test_a_full_stop_in_a_method_s_title_remakes_its_tables_and_the_report(project, before):
    change = {"overrides": {"methods": {"slice_network": {"title": "2-D network."}}}}
    assert changed(project, before, change) == {"make_table/three_orthogonal.log", "write_report.log"}


@pytest.mark.parametrize(
    "change",
    [
        {"tables": {"one_thick": {"title": "One thick scan."}}},
        {"tables": {"one_thick": {"across": "degradations"}}},
    ],
)
def test_how_a_table_is_printed_remakes_it_and_the_report(project, before, change):
    assert changed(project, before, {"overrides": change}) == {"make_table/one_thick.log", "write_report.log"}


def test_another_citation_of_a_model_remakes_the_report(project, before):
    change = {"overrides": {"models": {"edsr": {"citation": "A paper."}}}}
    assert changed(project, before, change) == {"write_report.log"}


def test_published_values_remake_their_table_and_the_report(project, before):
    (project / "theirs.csv").write_text("method,degradation,metric,mask,value\ninr,axial_x4,psnr,head,30\n")
    change = {"overrides": {"tables": {"one_thick": {"published": "theirs.csv"}}}}
    assert changed(project, before, change) == {"make_table/one_thick.log", "write_report.log"}


def test_other_words_of_a_metric_would_print_its_tables_anew(before):
    words = before["results/logs/make_table/one_thick.log"][1]["metrics"]
    assert words["psnr"][:2] == ["PSNR", "dB"] and set(words) == {"psnr", "ssim", "nrmse"}
    assert before["results/logs/write_report.log"][1]["metrics"] == words


@pytest.mark.parametrize("key", ["columns", "expectations"])
def test_a_metric_more_scores_the_volumes_of_its_table_alone(project, before, key):
    gain = {"text": "x", "degradation": "axial_x4", "method": "inr", "than": "spline", "at_least": 0.0}
    more = {"columns": ["psnr", "edge_width"], "expectations": [{**gain, "metric": "edge_width"}]}[key]
    found = changed(project, before, {"overrides": {"tables": {"one_thick": {key: more}}}})
    units = [f"{m}/axial_x4/demo/{p}/{p}_T1w" for m in ("spline", "inr") for p in ("sub-03", "sub-04")]
    assert found == {*logs("score_volume", *units), "make_table/one_thick.log", "write_report.log"}


def test_a_lesion_mask_scores_its_own_head_alone(project):
    lesions = {"overrides": {"tables": {"one_thick": {"columns": ["psnr", {"metric": "psnr", "mask": "lesion"}]}}}}
    before = jobs_of(project, lesions)
    scans = read_scans(project / "scans.tsv")
    owner = next(scan for scan in scans if scan.subject == "sub-03")
    stem, suffix = companion_name(owner, "lesion")
    mask = Scan("demo", "sub-03", stem, suffix, "roi.nii.gz", "SHA256E-s9--lesion.nii.gz", 9, "", "used", of=owner.name)
    write_scans(project / "scans.tsv", [*scans, mask])
    try:
        found = changed(project, before, lesions)
    finally:
        write_scans(project / "scans.tsv", scans)
    units = [f"{method}/axial_x4/demo/sub-03/sub-03_T1w" for method in ("spline", "inr")]
    assert found == {
        *logs("score_volume", *units),
        "fetch_scan/demo/sub-03/sub-03_label-lesion_desc-T1w_mask.log",
        "carry_companion/demo/sub-03/sub-03_T1w.log",
    }
