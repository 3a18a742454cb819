"""Degradations of the papers through the workflow: coarse along all axes or two, points of a spline, refined."""

import json

import nibabel as nib
import numpy as np
import pytest
from project import delta, snakemake
from smoke import LOCAL, VOLUME

SIMULATED = ("isotropic_x2_gaussian", "axial_x3_zoom", "inplane_x4_noise1")
REFINED = "through_plane_x4"
METHOD = "tikhonov"


@pytest.fixture
def project(smoke):
    """The finished smoke run, with volumes under four more degradations."""
    table = {
        "title": "Papers",
        "methods": [METHOD],
        "degradations": [*SIMULATED, REFINED],
        "suffixes": ["T1w"],
        "datasets": ["demo"],
    }
    config = delta(smoke, "papers", {"tables": ["papers"], "overrides": {"tables": {"papers": table}}})
    volumes = [VOLUME.format(method=METHOD, degradation=d) + "_desc-check_T1w.json" for d in table["degradations"]]
    scores = [f"results/scores/voxels/{METHOD}/{d}/demo/sub-03/sub-03_T1w.json" for d in SIMULATED]
    run = snakemake(smoke, *LOCAL, config, "--", *volumes, *scores)
    assert run.returncode == 0, run.stdout[-6000:]
    return smoke


@pytest.mark.long
def test_volumes_under_the_papers_degradations_agree_with_their_scans(project):
    truth = nib.load(next(project.glob("results/preprocessed/demo/sub-03/sub-03_desc-preproc_T1w.nii.gz")))
    for degradation in (*SIMULATED, REFINED):
        unit = VOLUME.format(method=METHOD, degradation=degradation)
        check = json.loads((project / (unit + "_desc-check_T1w.json")).read_text())["headsr"]
        (view,) = check["views"].values()
        # Without noise a ten-thousandth of the range is allowed, and what is left of it justifies no larger change.
        bounded = check["projection"]["outcome"] == "bounded" and view["noise"] == 0 and view["rms_after"] < 5e-4
        assert view["rms_after"] <= 1.01 * view["allowed"] or bounded, degradation
        volume = nib.load(project / (unit + "_res-hi_desc-sr_T1w.nii.gz"))
        refined = (1, 1, 4) if degradation == REFINED else (1, 1, 1)
        assert volume.shape == tuple(np.multiply(truth.shape, refined)), degradation
    low = nib.load(project / "results/lowres/isotropic_x2_gaussian/demo/sub-03/sub-03_desc-isotropic_T1w.nii.gz")
    assert low.shape == tuple(-(-n // 2) for n in truth.shape)
    low = nib.load(project / "results/lowres/inplane_x4_noise1/demo/sub-03/sub-03_desc-axial_T1w.nii.gz")
    assert low.shape == (*(-(-n // 4) for n in truth.shape[:2]), truth.shape[2])
    for degradation in SIMULATED:
        path = project / f"results/scores/voxels/{METHOD}/{degradation}/demo/sub-03/sub-03_T1w.json"
        rows = json.loads(path.read_text())["rows"]
        assert all(10 < row["value"] < 60 for row in rows if row["metric"] == "psnr") and rows, degradation
