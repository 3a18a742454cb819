"""A training on label maps: from a git repository through its anatomies to the list of them, and what a change redoes.

Fetching, pinning and preparing are real. What trains and exports is made up: what they would do decides no plan.
"""

import re
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from project import copy_project, delta, headsr, made_up_scans, plan, planned, snakemake

from headsr.annex import run_tool
from headsr.files import read_json
from headsr.labelmaps import read_maps, synthseg_labels
from headsr.volumes import Grid, save_volume

PEOPLE = {"sub-01": "train", "sub-02": "train", "sub-03": "val", "sub-04": "test"}
CONFIG = ("--configfile", "tests/config/smoke/config.yaml", "made_up.yaml")
MAPS = {f"maps/seg_{n}.nii.gz": f"sub-0{n}" for n in (1, 2, 3, 4)}
SPLITS = {"train": ["sub-01", "sub-02"], "val": ["sub-03"]}
DRAWN = {"kind": "labelmaps", "license": "none", "citation": "none", "maps": MAPS, "splits": SPLITS}
MODEL = {
    "kind": "unrolled",
    "network": {"architecture": "unrolled"},
    "data": {"kind": "studies", "source": "labels", "datasets": ["drawn"], "block": [8, 8, 8]},
    "budget": {"steps": 2, "batch": 1},
    "optimizer": {"learning_rate": 0.001},
    "schedule": {"shape": "constant"},
    "seed": 1,
    "losses": {"l1": 1.0},
}
MODELS = {
    "of_labels": MODEL,
    "of_others": {**MODEL, "data": {**MODEL["data"], "datasets": ["other"]}},
    "of_both": {**MODEL, "data": {**MODEL["data"], "datasets": ["drawn", "other"]}},
    "of_heads": {**MODEL, "data": {"kind": "studies", "suffixes": ["T1w"], "block": [8, 8, 8]}},
}
MADE_UP = """
from headsr.jobs import job

with job(snakemake):
    from pathlib import Path

    [Path(path).write_text("made up") for path in snakemake.output]
"""
# (outer radius in mm, label of the shipped table): skin, skull, CSF, cortex, white matter, ventricle.
BALLS = ((78, 511), (70, 515), (64, 24), (60, 3), (48, 2), (16, 4))


def save_map(path: Path, size: float) -> None:
    """A head of nested balls, ``size`` times as large as usual, on voxels of 6 mm."""
    shape, voxel_mm = (30, 30, 30), 6.0
    affine = np.diag([voxel_mm] * 3 + [1.0])
    affine[:3, 3] = -voxel_mm * (shape[0] - 1) / 2
    radius = np.linalg.norm((np.indices(shape) - (shape[0] - 1) / 2) * voxel_mm, axis=0) / size
    labels = np.zeros(shape, dtype=np.uint16)
    for outer, label in BALLS:
        labels[radius < outer] = label
    path.parent.mkdir(parents=True, exist_ok=True)
    save_volume(path, labels, Grid(shape, affine))


def publish(repository: Path, tag: str, **sizes: float) -> None:
    """Commit the maps of some subjects, ``sub_01=1.0``, to a plain git repository and tag it."""
    if not repository.exists():
        run_tool(["git", "init", "--quiet", "-b", "main", repository])
    path_of = {subject: path for path, subject in MAPS.items()}
    for subject, size in sizes.items():
        save_map(repository / path_of[subject.replace("_", "-")], size)
    run_tool(["git", "-C", repository, "add", "--all"])
    run_tool(["git", "-C", repository, "commit", "--quiet", "-m", tag])
    run_tool(["git", "-C", repository, "tag", tag])


def configure(project: Path, version: str = "v1", table: str = "", **change: dict) -> None:
    """Write the configuration: of which version ``drawn`` is, and which table ``other`` names."""
    datasets = {
        "demo": {"url": "none", "version": "v1", "license": "none", "citation": "none"},
        "drawn": {**DRAWN, "url": "drawn", "version": version},
        "other": {**DRAWN, "url": "other", "version": "v1", "table": table},
    }
    overrides = {"datasets": datasets, "models": MODELS, **change}
    delta(project, "made_up", {"scans": "scans.tsv", "labelmaps": "labelmaps.tsv", "overrides": overrides})


def pin(project: Path) -> str:
    run = headsr(project, "pin", "drawn", "other", *CONFIG)
    assert run.returncode == 0, run.stdout
    return run.stdout


def weights(*models: str) -> list[str]:
    return [f"results/models/{model}/weights.safetensors" for model in models]


def prepared(subject: str, dataset: str = "drawn") -> list[str]:
    """The jobs that make an anatomy."""
    fetch = f"Fetch {subject}_dseg of {dataset} by its content key"
    return [fetch, f"Prepare the anatomy {subject} of {dataset}"]


def trained(model: str) -> list[str]:
    """The jobs that follow from a model's anatomies."""
    train = [f"Train {model}, segment 0", f"Export the averaged weights of {model}"]
    return [f"List the anatomies that {model} is trained on", *train]


@pytest.fixture(scope="module")
def pinned(tmp_path_factory):
    """A project with two repositories of label maps, pinned."""
    project = copy_project(tmp_path_factory.mktemp("labels"))
    for script in ("train_segment", "export_model"):
        (project / f"workflow/scripts/{script}.py").write_text(f'"""Made up."""\n{MADE_UP}')
    made_up_scans(project, PEOPLE)
    for number, dataset in enumerate(("drawn", "other")):
        publish(project / dataset, "v1", **{f"sub_0{n}": 0.9 + 0.04 * n + 0.01 * number for n in (1, 2, 3, 4)})
    configure(project)
    said = pin(project)
    assert all(f"{dataset}/sub-04" in said for dataset in ("drawn", "other"))
    return project


@pytest.fixture(scope="module")
def finished(pinned):
    """The same, after its models of labels were trained."""
    wanted = weights("of_labels", "of_others", "of_both")
    run = snakemake(pinned, "--cores", "2", "--profile", "profiles/local", *CONFIG, "--", *wanted)
    assert run.returncode == 0, run.stdout[-6000:]
    return pinned


@pytest.fixture
def project(finished, tmp_path):
    """A copy of the finished project, for one test to change."""
    return shutil.copytree(finished, tmp_path / "project", symlinks=True)


def test_the_jobs_from_label_maps_to_the_list_of_their_anatomies(pinned):
    jobs = planned(pinned, *CONFIG, "--forceall", "--", "results/models/of_both/training.json")
    assert jobs == Counter({"fetch_scan": 6, "prepare_anatomy": 6, "list_anatomies": 1})


def test_a_model_of_heads_is_listed_by_its_slices(pinned):
    jobs = planned(pinned, *CONFIG, "--", "results/models/of_heads/training.json")
    assert jobs["fetch_scan"] == jobs["extract_slices"] == 3 and jobs["list_training_data"] == 1
    assert jobs["prepare_anatomy"] == jobs["list_anatomies"] == 0


def test_no_other_job_knows_of_label_maps(pinned):
    said = "\n".join(plan(pinned, *CONFIG))
    assert "Fetch sub-01_T1w of demo" in said and not re.search("drawn|other|anatom", said)


def test_label_maps_are_fetched_and_prepared_and_listed(finished):
    index = finished / "results/models/of_labels/training.json"
    entries = read_json(index)["stores"]
    assert [(entry["name"], entry["split"]) for entry in entries] == [
        ("drawn/sub-01", "train"),
        ("drawn/sub-02", "train"),
        ("drawn/sub-03", "val"),
    ]
    assert all((index.parent / entry["anatomy"]).is_file() for entry in entries)
    assert len({entry["key"] for entry in entries}) == 3
    assert not (finished / "results/anatomies/drawn/sub-04.safetensors").exists()  # unused
    assert not list((finished / "results/sourcedata").rglob("*.nii.gz"))  # temporary, as fetched scans are


def test_steady_state_plans_nothing(project):
    shutil.rmtree(project / "results/clones/drawn")
    pin(project)
    assert plan(project, *CONFIG, "--", *weights("of_labels", "of_others", "of_both")) == []


def test_a_changed_map_redoes_its_anatomy_and_what_is_trained_on_it_alone(project):
    publish(project / "drawn", "v2", sub_02=1.1)
    configure(project, "v2")
    before = read_maps(project / "labelmaps.tsv")
    assert "changed; what is made of them will be made anew (1):\n  drawn/sub-02\n" in pin(project)
    assert len(set(before) & set(read_maps(project / "labelmaps.tsv"))) == 7
    expected = [*prepared("sub-02"), *trained("of_labels"), *trained("of_both")]
    assert plan(project, *CONFIG, "--", *weights("of_labels", "of_others", "of_both")) == sorted(expected)
    index = project / "results/models/of_labels/training.json"
    old = {entry["name"]: entry["key"] for entry in read_json(index)["stores"]}
    run = snakemake(
        project, "--cores", "2", "--profile", "profiles/local", *CONFIG, "--", str(index.relative_to(project))
    )
    assert run.returncode == 0, run.stdout[-6000:]
    new = {entry["name"]: entry["key"] for entry in read_json(index)["stores"]}
    assert {name for name in old if old[name] != new[name]} == {"drawn/sub-02"}


def test_a_map_that_joins_the_validation_redoes_the_trainings_alone(project):
    table = project / "labelmaps.tsv"
    table.write_text(re.sub(r"^(drawn\tsub-04\t.*)unused$", r"\1val", table.read_text(), flags=re.M))
    expected = [*prepared("sub-04"), *trained("of_labels"), *trained("of_both")]
    assert plan(project, *CONFIG, "--", *weights("of_labels", "of_others", "of_both")) == sorted(expected)


def test_another_table_of_labels_redoes_the_anatomies_of_its_dataset(project):
    own = synthseg_labels().read_text()
    (project / "own.tsv").write_text(own)
    configure(project, table="own.tsv")
    wanted = weights("of_labels", "of_others", "of_both")
    assert plan(project, *CONFIG, "--", *wanted) == []  # it says the same
    (project / "own.tsv").write_text(own.replace("160.29", "150.00"))
    anatomies = [job for subject in ("sub-01", "sub-02", "sub-03") for job in prepared(subject, "other")]
    expected = [*anatomies, *trained("of_others"), *trained("of_both")]
    assert plan(project, *CONFIG, "--", *wanted) == sorted(expected)


def test_label_maps_that_nobody_pinned_are_refused_with_the_way_out(project):
    """Of a model that is asked for, and of one that a table uses."""
    rows = (project / "labelmaps.tsv").read_text().splitlines()
    (project / "labelmaps.tsv").write_text("\n".join(row for row in rows if not row.startswith("drawn")) + "\n")
    shutil.rmtree(project / "results/models")
    asked = snakemake(project, "--dry-run", "--cores", "2", *CONFIG, "--", *weights("of_labels"))
    table = {"one_thick": {"methods": ["painted"], "expectations": []}}
    configure(project, methods={"painted": {"kind": "unrolled", "model": "of_labels"}}, tables=table)
    used = snakemake(project, "--dry-run", "--cores", "2", *CONFIG)
    for run in (asked, used):
        assert run.returncode != 0
        assert "the model 'of_labels' learns from drawn, which is not pinned: headsr pin drawn" in run.stdout
