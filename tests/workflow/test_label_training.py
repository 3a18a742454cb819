"""The plan of a training on label maps, without running it."""

import shutil
from collections import Counter

import pytest
from project import ROOT, copy_project, delta, made_up_scans, plan, planned

from headsr.scans import Scan, companion_name, read_scans, write_scans

PEOPLE = {"sub-01": "train", "sub-02": "train", "sub-03": "val", "sub-04": "train", "sub-05": "test"}
UNLABELLED = {"sub-04"}
SMOKE = ("--configfile", "tests/config/smoke/config.yaml", "made_up.yaml")
MADE_UP = {
    "kind": "baseline",
    "network": {"architecture": "residual2d", "channels": 4, "blocks": 1},
    "data": {"kind": "studies", "source": "labels", "suffixes": ["T1w"], "block": [8, 8, 8]},
    "budget": {"steps": 2, "batch": 1},
    "optimizer": {"learning_rate": 0.001},
    "schedule": {"shape": "constant"},
    "seed": 1,
    "losses": {"l1": 1.0},
}


def labels_of(scan: Scan, key: str = "1") -> Scan:
    stem, suffix = companion_name(scan, "labels")
    path = f"derivatives/{stem}_{suffix}.nii.gz"
    key = f"SHA256E-s9--{scan.subject}labels{key}.nii.gz"
    return Scan(scan.dataset, scan.subject, stem, suffix, path, key, 9, "", "used", of=scan.name)


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A project in which a baseline may be trained on studies, as no kind of model that is shipped yet may."""
    project = copy_project(tmp_path_factory.mktemp("labels"))
    shutil.copytree(ROOT / "src", project / "src", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    models = project / "src/headsr/recipes/models.py"
    told = models.read_text()
    models.write_text(told.replace('= ("slices",)\n', '= ("slices", "studies")\n', 1))
    assert models.read_text() != told
    made_up_scans(project, PEOPLE)
    scans = read_scans(project / "scans.tsv")
    write_scans(project / "scans.tsv", [*scans, *(labels_of(one) for one in scans if one.subject not in UNLABELLED)])
    datasets = {"demo": {"url": "none", "version": "v1", "license": "none", "citation": "none"}}
    heads = {**MADE_UP, "data": {**MADE_UP["data"], "source": "heads"}}
    overrides = {"datasets": datasets, "models": {"of_labels": MADE_UP, "of_heads": heads}}
    delta(project, "made_up", {"scans": "scans.tsv", "overrides": overrides})
    return project


def test_jobs_from_a_scan_and_its_labels_to_their_slices(project):
    store = "results/slices/demo/sub-01/sub-01_T1w_labels.zarr/zarr.json"
    chain = ("correct_bias", "register_to_template", "mask_head", "normalize_intensity", "carry_labels")
    wanted = {"fetch_scan": 2, "make_template": 1, **dict.fromkeys(chain, 1), "extract_labels": 1}
    assert planned(project, store, *SMOKE) == Counter(wanted)


def test_a_training_on_labels_takes_the_scans_that_have_them(project):
    of_labels, of_heads = (
        planned(project, f"results/models/{name}/training.json", *SMOKE) for name in ("of_labels", "of_heads")
    )
    assert of_labels["extract_slices"] == of_labels["carry_labels"] == of_labels["extract_labels"] == 3
    assert of_labels["fetch_scan"] == 6 and of_labels["list_training_data"] == 1
    assert of_heads["extract_slices"] == of_heads["fetch_scan"] == 4
    assert of_heads["carry_labels"] == of_heads["extract_labels"] == 0


def test_both_profiles_plan_it(project):
    jobs = plan(project, *SMOKE, "--", "results/models/of_labels/weights.safetensors")
    assert len([job for job in jobs if "label map" in job]) == 2 * 3


def test_no_other_job_knows_of_labels(project):
    assert not {"carry_labels", "extract_labels"} & planned(project, *SMOKE).keys()
