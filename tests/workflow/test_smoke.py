"""The whole pipeline on three small heads: fetched from a real DataLad dataset, run twice, damaged on purpose."""

import json
import sqlite3
import subprocess

import pytest
from project import delta, environment, planned, snakemake
from smoke import LOCAL, VOLUME

from headsr.render.store import read_grid, read_storage


@pytest.fixture(scope="module")
def project(finished_project):
    return finished_project


def test_everything_that_was_promised_is_there(project):
    for method, degradation in (("average", "orthogonal_x4"), ("spline", "axial_x4"), ("inr_prior", "orthogonal_x4")):
        unit = VOLUME.format(method=method, degradation=degradation)
        for ending in (
            "_res-hi_desc-sr_T1w.ome.zarr/zarr.json",
            "_res-hi_desc-sr_T1w.nii.gz",
            "_res-hi_desc-sr_T1w.json",
        ):
            assert (project / (unit + ending)).exists(), unit + ending
    for name in (
        "report/report.html",
        "mlflow.db",
        "tables/one_thick.md",
        "scores/scores.tsv",
        "models/ldm/weights.safetensors",
    ):
        assert (project / "results" / name).stat().st_size > 0, name
    assert (project / "results/report/report.html").stat().st_size < 5e6


def test_every_volume_agrees_with_its_scan(project):
    checks = list(project.glob("results/reconstructions/demo/*/sub-03/anat/*_desc-check_T1w.json"))
    assert len(checks) == 6
    for path in checks:
        views = json.loads(path.read_text())["headsr"]["views"]
        assert len(views) == (1 if "axial_x4" in str(path) else 3), path
        assert all(view["rms_after"] <= view["allowed"] * 1.01 for view in views.values()), path


def test_mlflow_has_every_training_fit_score_and_check(project):
    with sqlite3.connect(f"file:{project}/results/mlflow.db?mode=ro", uri=True) as database:
        units = {unit for (unit,) in database.execute("SELECT value FROM tags WHERE key = 'headsr.unit'")}
        steps = database.execute("SELECT count(*) FROM metrics WHERE step > 0").fetchone()[0]
        keys = database.execute("SELECT count(*) FROM tags WHERE key = 'annex_keys' AND value != ''").fetchone()[0]
    assert {"model/edsr", "model/kl_f4", "model/ldm"} <= units
    assert {unit.split("/")[0] for unit in units} == {"model", "fit", "score", "check"}
    assert len(units) == 3 + 2 + 6 + 6 == keys
    assert steps > 10


def test_run_again_it_finds_nothing_to_do(project):
    again = snakemake(project, *LOCAL)
    assert again.returncode == 0
    assert "Nothing to be done" in again.stdout, again.stdout[-3000:]


def test_the_clone_is_left_without_content(project):
    kept = subprocess.run(
        ["git", "annex", "find"],
        cwd=project / "results/clones/demo",
        env=environment(project),
        capture_output=True,
        text=True,
    )
    assert kept.stdout.strip() == ""


def test_the_sidecar_says_where_the_volume_comes_from(project):
    sidecar = json.loads(
        (project / (VOLUME.format(method="inr", degradation="axial_x4") + "_res-hi_desc-sr_T1w.json")).read_text()
    )
    key = next(line.split("\t")[5] for line in (project / "scans.tsv").read_text().splitlines() if "sub-03" in line)
    assert sidecar["headsr"]["source_key"] == key
    assert sidecar["headsr"]["IntendedUse"] == "research"


def test_a_larger_volume_is_rendered_from_the_fields_that_are_there(smoke):
    larger = delta(smoke, "larger", {"render": {"larger": {"fine": {"scale": [2], "dtype": "uint16"}}}})
    assert set(planned(smoke, *LOCAL[2:], larger)) == {"all", "render_volume"}
    run = snakemake(smoke, *LOCAL, larger)
    assert run.returncode == 0, run.stdout[-6000:]
    for method, degradation in (("inr_prior", "orthogonal_x4"), ("inr", "axial_x4")):
        volume = VOLUME.format(method=method, degradation=degradation)
        fine, own = (smoke / f"{volume}_res-{name}_desc-sr_T1w.ome.zarr/zarr.json" for name in ("fine", "hi"))
        assert read_grid(fine).same_as(read_grid(own).scaled(2))
        assert (read_storage(fine).dtype, read_storage(own).dtype) == ("uint16", "float32")
    longer = {"render": {"larger": {"fine": {"scale": [2], "dtype": "uint16", "runtime_min": 600}}}}
    assert not planned(smoke, *LOCAL[2:], delta(smoke, "longer", longer))


def test_a_damaged_scan_stops_its_own_chain_with_its_name(project, tmp_path):
    """One flipped bit in the only copy of a test scan: the fetch fails, names it, and leaves no half file."""
    link = next((project / "origin").glob("sub-03/anat/*_T1w.nii.gz"))
    content = link.resolve()
    whole = content.read_bytes()
    content.chmod(0o644)
    damaged = bytearray(whole)
    damaged[len(damaged) // 2] ^= 4
    try:
        content.write_bytes(damaged)
        run = snakemake(
            project, *LOCAL, "--forcerun", "fetch_scan", "--", "results/sourcedata/demo/sub-03/sub-03_T1w.nii.gz"
        )
    finally:
        content.write_bytes(whole)
    log = (project / "results/logs/fetch_scan/demo/sub-03/sub-03_T1w.log").read_text()
    assert run.returncode != 0
    assert "demo/sub-03_T1w" in log
    assert not (project / "results/sourcedata/demo/sub-03/sub-03_T1w.nii.gz").exists()
