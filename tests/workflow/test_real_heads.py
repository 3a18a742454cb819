"""Real heads through the same workflow: two with known truth, one clinical scan with 6 mm slices as it was acquired."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from project import ROOT, copy_project, delta, environment, snakemake

SHARED = ROOT.parent / "shared/data/scans"
pytestmark = [
    pytest.mark.long,
    pytest.mark.shared,
    pytest.mark.skipif(
        not SHARED.exists(), reason="the real scans (../shared/data/scans) are not beside this checkout"
    ),
]
PEOPLE = {"sub-chris": ["T1w"], "sub-seg3d": ["T1w"], "sub-brainix": ["T1w"], "sub-wide": ["T1w"]}


def datalad(*arguments: str, cwd: Path) -> None:
    settings = {
        "GIT_AUTHOR_NAME": "t",
        "GIT_AUTHOR_EMAIL": "t@t",
        "GIT_COMMITTER_NAME": "t",
        "GIT_COMMITTER_EMAIL": "t@t",
    }
    subprocess.run(
        ["datalad", *arguments], cwd=cwd, env={**environment(cwd), **settings}, check=True, capture_output=True
    )


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """The real scans as a DataLad dataset, pinned, and the workflow run on them at a coarse voxel size."""
    project = copy_project(tmp_path_factory.mktemp("real"))
    datalad("create", "-c", "text2git", "origin", cwd=project)
    for person, suffixes in PEOPLE.items():
        for suffix in suffixes:
            for ending in ("nii.gz", "json"):
                source = SHARED / person / "anat" / f"{person}_{suffix}.{ending}"
                target = project / "origin" / person / "anat" / source.name
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source, target)
    shutil.copyfile(SHARED / "dataset_description.json", project / "origin/dataset_description.json")
    datalad("save", "-m", "real heads", "--version-tag", "v1", cwd=project / "origin")
    splits = {"train": ["sub-wide"], "test": ["sub-chris", "sub-seg3d", "sub-brainix"]}
    dataset = {"url": "origin", "version": "v1", "license": "mixed", "citation": "see scans.tsv", "splits": splits}
    tables = {
        "truth": {
            "title": "Real heads, truth known",
            "methods": ["average", "tikhonov", "inr"],
            "degradations": ["orthogonal_x4"],
            "suffixes": ["T1w"],
            "scans": ["real/sub-chris_T1w", "real/sub-seg3d_T1w"],
        },
        "thick": {
            "title": "Real heads, one thick scan",
            "methods": ["spline", "tikhonov"],
            "degradations": ["axial_x4"],
            "suffixes": ["T1w"],
            "scans": ["real/sub-chris_T1w", "real/sub-seg3d_T1w"],
        },
        "clinical": {
            "title": "A clinical scan as acquired",
            "methods": ["spline", "tikhonov", "inr"],
            "degradations": ["acquired"],
            "suffixes": ["T1w"],
            "scans": ["real/sub-brainix_T1w"],
        },
    }
    content = {
        # The one switch: null works at full resolution.
        "voxel_mm": 3.0,
        "template_voxel_mm": 4.0,
        "scans": "scans.tsv",
        "tables": list(tables),
        "overrides": {"datasets": {"real": dataset}, "tables": tables},
    }
    configuration = delta(project, "real", content)
    pin = [sys.executable, "-m", "headsr.cli", "pin", "real", "--configfile", configuration]
    subprocess.run(pin, cwd=project, env=environment(project), check=True, capture_output=True)
    run = snakemake(project, "--cores", "2", "--profile", "profiles/local", "--configfile", configuration)
    assert run.returncode == 0, run.stdout[-6000:]
    return project


def mean_psnr(project: Path, person: str, method: str, degradation: str) -> float:
    score = json.loads(
        (project / f"results/scores/voxels/{method}/{degradation}/real/{person}/{person}_T1w.json").read_text()
    )
    wanted = ("unprojected", "head", "psnr")
    return next(row["value"] for row in score["rows"] if (row["variant"], row["mask"], row["metric"]) == wanted)


@pytest.mark.parametrize("person", ["sub-chris", "sub-seg3d"])
def test_least_squares_is_above_the_fused_average_on_real_heads(project, person):
    average, solved, fitted = (
        mean_psnr(project, person, method, "orthogonal_x4") for method in ("average", "tikhonov", "inr")
    )
    assert solved > average + 1
    assert fitted > average + 1


def test_the_clinical_scan_becomes_isotropic_in_its_own_box(project):
    anat = project / "results/reconstructions/real/headsr-inr-acquired/sub-brainix/anat"
    image = nib.load(anat / "sub-brainix_res-hi_desc-sr_T1w.nii.gz")
    source = nib.load(SHARED / "sub-brainix/anat/sub-brainix_T1w.nii.gz")
    voxel = nib.affines.voxel_sizes(image.affine)
    assert voxel.max() / voxel.min() < 1.1
    extent = np.array(source.shape) * nib.affines.voxel_sizes(source.affine)
    assert np.allclose(np.sort(voxel * image.shape), np.sort(extent), atol=0.05)
    check = json.loads((anat / "sub-brainix_desc-check_T1w.json").read_text())
    (view,) = check["headsr"]["views"].values()
    assert view["rms_after"] <= view["allowed"] * 1.01


def test_its_slice_thickness_came_from_its_own_sidecar(project):
    (row,) = [line for line in (project / "scans.tsv").read_text().splitlines() if "sub-brainix" in line]
    assert float(row.split("\t")[7]) == 6.0


def test_report_shows_real_heads(project):
    report = (project / "results/report/report.html").read_text()
    assert "sub-brainix" in report and "not for clinical use" in report
    if folder := os.environ.get("HEADSR_KEEP_REPORT"):
        shutil.copyfile(project / "results/report/report.html", folder)
