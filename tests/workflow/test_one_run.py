"""One run writes in a results folder; one that was killed, and a mirror that failed, are made good by the next run."""

import signal
import subprocess
import time

import pytest
from project import ROOT, SNAKEMAKE, copy_project, delta, environment, made_up_scans, planned, snakemake

from headsr.demo import run_demo
from headsr.files import read_json
from headsr.lock import HeldError, holding_results

DATASETS = {"demo": {"url": "none", "version": "v1", "license": "none", "citation": "none"}}
CONFIG = ("--configfile", "tests/config/smoke/config.yaml", "made_up.yaml")
FIGURE = "results/figures/rulegraph.png"
RECORD = "results/mlflow.json"


@pytest.fixture
def project(tmp_path):
    project = copy_project(tmp_path / "project")
    (project / "src").symlink_to(ROOT / "src")
    made_up_scans(project, {"sub-01": "train", "sub-02": "val", "sub-03": "test"})
    made_up = {"scans": "scans.tsv", "mlflow": "results/db/mlflow.db", "overrides": {"datasets": DATASETS}}
    delta(project, "made_up", made_up)
    return project


def run(project, *words):
    return snakemake(project, "--cores", "1", *CONFIG, *words)


def test_a_second_run_is_refused_whichever_checkout_it_is_of(project, tmp_path):
    lab = tmp_path / "lab"
    lab.mkdir()
    (project / "results").symlink_to(lab)
    with holding_results(lab):
        refused = run(project, "--", FIGURE)
        assert refused.returncode != 0
        assert "results: is being written by process" in refused.stdout
        assert "Wait until that has ended, or end it" in refused.stdout
        assert planned(project, *CONFIG, "--", FIGURE)["draw_rulegraph"] == 1  # what changes nothing is free to all
        assert [path.name for path in lab.iterdir()] == [".headsr.lock"]
    assert run(project, "--", FIGURE).returncode == 0
    assert not (lab / ".headsr.lock").exists()


def test_a_run_that_was_killed_goes_on_by_the_same_command(project):
    words = [*SNAKEMAKE, "--cores", "1", *CONFIG, "--", FIGURE]
    killed = subprocess.Popen(
        words,
        cwd=project,
        env=environment(project),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    deadline = time.monotonic() + 300
    while not (project / "results/.headsr.lock").exists():
        assert killed.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    assert (project / "results/.headsr.lock").exists()
    # So did Snakemake's own lock, which a run with an earlier headsr left.
    (project / ".snakemake/locks").mkdir(parents=True, exist_ok=True)
    (project / ".snakemake/locks/0.output.lock").write_text(f"{FIGURE}\n")
    again = run(project, "--", FIGURE)
    assert again.returncode == 0, again.stdout
    assert (project / FIGURE).stat().st_size > 0 and not (project / "results/.headsr.lock").exists()


def test_a_mirror_that_failed_is_tried_again_until_it_is_there(project):
    delta(project, "no_tables", {"tables": []})
    one = ("no_tables.yaml", "--", RECORD)
    (project / "results").mkdir()
    (project / "results/db").write_text("in the way")
    assert run(project, *one).returncode == 0  # no result depends on it
    assert read_json(project / RECORD)["synced"] is None
    assert planned(project, *CONFIG, *one)["sync_mlflow"] == 1
    assert run(project, *one).returncode == 0
    assert read_json(project / RECORD)["synced"] is None
    (project / "results/db").unlink()
    assert run(project, *one).returncode == 0
    assert read_json(project / RECORD)["synced"] == {"written": 0, "unchanged": 0}
    assert not planned(project, *CONFIG, *one)


def test_a_second_demo_is_refused_in_words(project, monkeypatch):
    monkeypatch.chdir(project)
    with holding_results("results/demo"), pytest.raises(HeldError, match="results/demo: is being written by process"):
        run_demo(cores=1)
    assert not any((project / "results/demo").iterdir())
