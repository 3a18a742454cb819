"""The plan with a model whose weights ship: it is taken, and what follows from it is made anew with new weights."""

from collections import Counter

import pytest
import torch
from project import copy_project, delta, headsr, made_up_scans, plan, planned, snakemake
from published_networks import rrdb_weights
from smoke import CONFIG, VOLUME, smoke_project
from tiny_weights import shipped

from headsr.files import read_json, sha256_of
from headsr.models.imported import import_model

PEOPLE = {"sub-01": "train", "sub-02": "val", "sub-03": "test", "sub-04": "test"}
DATASETS = {"demo": {"url": "none", "version": "v1", "license": "none", "citation": "none"}}
TABLE = {"one_thick": {"methods": ["spline", "slice_network"], "datasets": [], "expectations": []}}


@pytest.fixture
def project(tmp_path):
    project = copy_project(tmp_path / "project")
    made_up_scans(project, PEOPLE)
    overrides = {"datasets": DATASETS, "tables": TABLE}
    delta(project, "made_up", {"scans": "scans.tsv", "tables": ["one_thick"], "overrides": overrides})
    shipped(project / "weights", "tiny")
    return project


def take(project, **changes):
    block = {"kind": "shipped", "name": "tiny", "folder": "weights", **changes}
    models = {"taken": block}
    return delta(project, "take", {"overrides": {"models": models, "methods": {"slice_network": {"model": "taken"}}}})


SMOKE = ("--configfile", "tests/config/smoke/config.yaml", "made_up.yaml")


def test_a_shipped_model_takes_the_place_of_a_training(project):
    before, jobs = planned(project, *SMOKE), planned(project, *SMOKE, take(project))
    assert jobs["take_model"] == 1 and jobs["train_segment"] == jobs["export_model"] == jobs["check_model"] == 0
    gone = Counter({"list_training_data": 1, "check_model": 1, "train_segment": 1, "export_model": 1})
    # No scan but those of the tests is needed any more.
    chain = ("fetch_scan", "correct_bias", "register_to_template", "mask_head", "normalize_intensity", "extract_slices")
    assert before - jobs - Counter({"total": 1}) == gone + Counter(dict.fromkeys(chain, 2))
    assert jobs - before == Counter({"take_model": 1})


def test_an_imported_network_takes_the_place_of_a_training_too(project):
    torch.save({"params_ema": rrdb_weights(colours=3, scale=1)}, project / "published.pth")
    import_model(project / "published.pth", name="published", folder=project / "weights", license="BSD-3-Clause")
    jobs = planned(project, *SMOKE, take(project, name="published"))
    assert jobs["take_model"] == 1 and jobs["train_segment"] == jobs["check_model"] == 0
    assert jobs == planned(project, *SMOKE, take(project))


def test_it_is_among_the_models(project):
    assert planned(project, *SMOKE, take(project), "--", "models") == Counter({"take_model": 1, "models": 1})


def test_nothing_of_a_training_can_be_asked_of_it(project):
    for path in ("check.json", "segment-0.safetensors"):
        run = snakemake(project, "-n", *SMOKE, take(project), "--", f"results/models/taken/{path}")
        assert run.returncode != 0 and "MissingRuleException" in run.stdout, path


def test_a_name_that_does_not_ship_stops_the_plan(project):
    run = snakemake(project, "-n", *SMOKE, take(project, name="tyny"))
    assert run.returncode != 0 and "unknown shipped model 'tyny'; did you mean 'tiny'" in run.stdout


def test_new_weights_are_taken_anew_with_what_follows(project):
    target = ("--", "results/models/taken/weights.safetensors")
    taken = project / "results/models/taken/weights.safetensors"
    arguments = ("--profile", "profiles/local", "--cores", "1", *SMOKE, take(project))
    run = snakemake(project, *arguments, *target)
    assert run.returncode == 0, run.stdout
    assert sha256_of(taken) == sha256_of(project / "weights/tiny.safetensors")
    assert plan(project, *SMOKE, take(project), *target) == []
    card = project / "weights/tiny.json"
    card.write_text(card.read_text().replace("CC-BY-4.0", "CC0"))
    assert plan(project, *SMOKE, take(project), *target) == []
    shipped(project / "weights", "tiny", seed=1)
    assert plan(project, *SMOKE, take(project), *target) == ["Take the weights of taken from the package"]
    run = snakemake(project, *arguments, *target)
    assert run.returncode == 0, run.stdout
    assert sha256_of(taken) == sha256_of(project / "weights/tiny.safetensors")


@pytest.mark.long
def test_new_weights_make_anew_what_uses_them_and_nothing_else(tmp_path):
    """From a scan to the report, with a model that nobody trained."""
    project = smoke_project(tmp_path / "smoke")
    shipped(project / "weights", "tiny")
    delta(project, "table", {"tables": ["one_thick"], "overrides": {"tables": TABLE}})
    config = (*CONFIG, "table.yaml", take(project))
    run = snakemake(project, "--cores", "2", "--profile", "profiles/local", *config)
    assert run.returncode == 0, run.stdout
    assert headsr(project, "verify", "--deep", *config).returncode == 0
    report = (project / "results/report/report.html").read_text()
    assert "Model taken: baseline, network residual2d, not trained here" in report
    shipped(project / "weights", "tiny", seed=1)
    volume = ("take_model", "reconstruct_volume_gpu", "check_volume", "score_volume")
    people = ("collect_scores", "make_table", "draw_figure", "draw_curves", "write_report", "sync_mlflow", "all")
    assert planned(project, "--profile", "profiles/local", *config) == Counter(dict.fromkeys((*volume, *people), 1))


@pytest.mark.long
def test_what_the_shipped_network_foretells_is_published_and_scored(tmp_path):
    """From a scan to the table, with the weights that ship; of a method that foretells nothing the column is blank."""
    project = smoke_project(tmp_path / "smoke")
    columns = ["psnr", "coverage", "uncertainty_rank"]
    table = {"one_thick": {"methods": ["spline", "unrolled"], "datasets": [], "expectations": [], "columns": columns}}
    delta(project, "table", {"tables": ["one_thick"], "overrides": {"tables": table}})
    run = snakemake(project, "--cores", "2", "--profile", "profiles/local", *CONFIG, "table.yaml")
    assert run.returncode == 0, run.stdout
    volume = VOLUME.format(method="unrolled", degradation="axial_x4")
    assert (project / f"{volume}_res-hi_desc-uncertainty_T1w.nii.gz").exists()
    scores = [read_json(path) for path in sorted((project / "results/scores/voxels").rglob("*.json"))]
    found = {score["unit"]["method"]: {row["metric"]: row["value"] for row in score["rows"]} for score in scores}
    assert set(found["spline"]) == {"psnr"} and set(found["unrolled"]) == set(columns)
    assert 0.3 < found["unrolled"]["coverage"] <= 1 and 0 < found["unrolled"]["uncertainty_rank"] <= 1
    assert "Coverage" in (project / "results/report/report.html").read_text()
