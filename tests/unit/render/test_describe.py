import json
import os
import socket

import numpy as np
import pytest
from bids_names import validate

from headsr.evaluate.checked import residual_path
from headsr.recipes import Dataset
from headsr.render.describe import (
    DESCRIPTIONS,
    describe_derivatives,
    describe_folder,
    describe_residual,
    describe_volume,
    raw_uris,
)
from headsr.volumes import AXES, Grid

DATASET = Dataset(url="https://example.org/ds1", version="v1", license="CC0", citation="Somebody (2020)")


@pytest.fixture
def derivatives(tmp_path):
    folder = tmp_path / "headsr-inr-axial4"
    describe_derivatives(
        folder / "dataset_description.json", dataset=DATASET, name="demo", method="inr", degradation="axial4"
    )
    return folder


def publish_names(folder, stem, suffix):
    """Every file that headsr writes for one volume, empty."""
    check = folder / f"{stem}_desc-check_{suffix}.json"
    residuals = [residual_path(check, view) for view in AXES]
    names = [
        f"{stem}_res-hi_desc-sr_{suffix}.ome.zarr/zarr.json",
        f"{stem}_res-hi_desc-sr_{suffix}.ome.zarr/0/c/0/0/0",
        *(f"{stem}_res-hi_desc-sr_{suffix}.{ending}" for ending in ("nii.gz", "json")),
        *(f"{stem}_res-hi_desc-unprojected_{suffix}.{ending}" for ending in ("nii.gz", "json")),
        *(path.name for path in residuals),
        *(path.name.replace(".nii.gz", ".json") for path in residuals),
        f"{stem}_desc-field_{suffix}.safetensors",
        f"{stem}_desc-fit_{suffix}.jsonl",
        check.name,
    ]
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def test_the_bids_schema_accepts_every_published_name(derivatives):
    publish_names(derivatives / "sub-01/anat", "sub-01", "T1w")
    publish_names(derivatives / "sub-02/ses-a/anat", "sub-02_ses-a_acq-x_rec-y_run-1", "FLAIR")
    publish_names(derivatives / "sub-02/ses-a/anat", "sub-02_ses-a_ce-z", "PDw")
    refused, listed = validate(derivatives)
    assert refused == set()
    assert {"dataset_description.json", "descriptions.tsv", "sub-01_res-hi_desc-sr_T1w.ome.zarr"} <= listed
    assert "sub-01_desc-srresidualAxial_T1w.nii.gz" in listed and len(listed) == 2 + 3 * 11
    assert not any("desc-field" in name or "desc-fit" in name or "desc-check" in name for name in listed)


def test_the_schema_would_have_refused_a_wrong_name(derivatives):
    publish_names(derivatives / "sub-01/anat", "sub-01", "T1w")
    (derivatives / "sub-01/anat/sub-01_desc-sr_res-hi_T1w.nii.gz").touch()
    (derivatives / ".bidsignore").write_text("")
    refused, _ = validate(derivatives)
    assert {"sub-01_desc-sr_res-hi_T1w.nii.gz", "sub-01_desc-field_T1w.safetensors"} <= refused


def test_the_dataset_says_who_made_it_from_what(derivatives):
    said = json.loads((derivatives / "dataset_description.json").read_text())
    assert said["DatasetType"] == "derivative" and said["BIDSVersion"].startswith("1.11")
    headsr, ants = said["GeneratedBy"]
    assert headsr["Name"] in derivatives.name and headsr["Version"]
    assert ants["Name"] == "ANTs" and ants["Version"][0].isdigit()
    assert said["SourceDatasets"] == [{"URL": DATASET.url, "Version": "v1"}]
    assert said["License"] == "CC0" and said["DatasetLinks"] == {"raw": DATASET.url}


def test_every_desc_label_is_explained_once(derivatives):
    header, *rows = (derivatives / "descriptions.tsv").read_text().splitlines()
    assert header.split("\t") == ["desc_id", "description"]
    labels = [row.split("\t")[0] for row in rows]
    assert labels == list(DESCRIPTIONS) and all(
        len(row.split("\t")) == 2 and label.isalnum() for row, label in zip(rows, labels, strict=True)
    )


def test_the_sources_are_what_the_record_says_each_once():
    grid = Grid((4, 5, 6), np.eye(4))
    record = {"seed": 3, "sources": raw_uris(["sub-01/anat/sub-01_T1w.nii", "", "sub-01/anat/sub-01_T1w.nii", "x.nii"])}
    said = describe_volume(grid, preview=grid, scale=2.0, offset=0.0, record=record, label="sr")
    assert said["Sources"] == ["bids:raw:sub-01/anat/sub-01_T1w.nii", "bids:raw:x.nii"]
    assert said["headsr"]["seed"] == 3 and "sources" not in said["headsr"]
    for other in ({}, {"sources": 5}):  # of a field from before there were sources, or of somebody's own
        said = describe_volume(grid, preview=grid, scale=2.0, offset=0.0, record=other, label="sr")
        assert said["Sources"] == []


def test_a_record_cannot_deny_that_it_is_research():
    grid = Grid((4, 5, 6), np.eye(4))
    said = describe_volume(grid, preview=grid, scale=2.0, offset=0.0, record={"IntendedUse": "diagnosis"}, label="sr")
    assert said["headsr"]["IntendedUse"] == "research"


@pytest.mark.parametrize("stripped", [True, False])
def test_it_says_whether_the_scan_was_skull_stripped(stripped):
    grid = Grid((4, 5, 6), np.eye(4))
    record = {"skull_stripped": stripped}
    said = describe_volume(grid, preview=grid, scale=2.0, offset=0.0, record=record, label="sr")
    assert said["SkullStripped"] is stripped
    assert describe_residual("axial", skull_stripped=stripped, sources=[])["SkullStripped"] is stripped


def test_what_a_killed_run_left_half_written_goes_and_what_is_in_work_stays(tmp_path):
    names = ("dataset_description.json", ".bidsignore", "descriptions.tsv")
    gone, others, own = (
        [tmp_path / f".{host}.{pid}.partial.{name}" for name in names]
        for host, pid in ((socket.gethostname(), 999_999_999), ("elsewhere", 7), (socket.gethostname(), os.getppid()))
    )
    for path in (*gone, *others, *own):
        path.touch()
    describe_folder(tmp_path, source=tmp_path / "bids", method="spline")
    assert not any(path.exists() for path in gone) and all(path.exists() for path in (*others, *own))
