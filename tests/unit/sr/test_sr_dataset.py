"""A BIDS folder: every scan by itself, with BIDS names, and one that fails stops no other."""

import warnings
from functools import partial
from pathlib import Path

import pytest
from bids_names import validate

from headsr import cli
from headsr.files import read_json, sidecar_of
from headsr.sr import dataset
from headsr.sr.dataset import scans_in

SAYS = {"SliceThickness": 4.0}


@pytest.fixture
def bids(scan, tmp_path):
    for name in ("sub-01/anat/sub-01_T1w", "sub-01/anat/sub-01_T2w", "sub-02/ses-a/anat/sub-02_ses-a_run-1_FLAIR"):
        scan(f"bids/{name}.nii.gz", metadata=SAYS)
    scan("bids/sub-02/ses-b/anat/sub-02_ses-b_angio.nii.gz", metadata=SAYS)
    broken = tmp_path / "bids/sub-03/anat/sub-03_T1w.nii.gz"
    broken.parent.mkdir(parents=True)
    broken.write_bytes(b"no scan")
    return tmp_path / "bids"


def test_scans_are_found_by_people_and_sessions(bids):
    found = scans_in(bids)
    assert [path.name for path in found.scans] == [
        "sub-01_T1w.nii.gz", "sub-01_T2w.nii.gz", "sub-02_ses-a_run-1_FLAIR.nii.gz", "sub-03_T1w.nii.gz"
    ]  # fmt: skip
    assert [path.name for path in found.others] == ["sub-02_ses-b_angio.nii.gz"]
    assert len(scans_in(bids, participants=["sub-01", "03"]).scans) == 3
    assert len(scans_in(bids, sessions=["a"]).scans) == 1
    assert [path.name for path in scans_in(bids, participants=["02", "03"], sessions=["ses-a"]).scans] == [
        "sub-02_ses-a_run-1_FLAIR.nii.gz"
    ]


@pytest.mark.parametrize(
    ("chosen", "said"),
    [
        ({"participants": ["1", "01", "sub-0"]}, "has no sub-0, sub-1; it has 01, 02, 03"),
        ({"sessions": ["A"]}, "has no ses-A; it has a, b"),
        ({"participants": ["01"], "sessions": ["a"]}, r"has no ses-a; it has no ses-\*"),
        ({"participants": ["02"], "sessions": ["b"]}, "has no .*T1w.* of those people"),
    ],
)
def test_labels_are_whole_ones_and_unknown_ones_are_listed(bids, chosen, said):
    with pytest.raises(ValueError, match=said):
        scans_in(bids, **chosen)


def test_a_place_that_is_none_is_refused(bids, tmp_path, capsys):
    for out, said in ((bids, "holds the scans themselves"), (tmp_path / "x.nii.gz", "go into a folder")):
        assert cli.main(["sr", str(bids), str(out), "--method", "spline"]) == 2
        assert said in capsys.readouterr().err


def is_whole_and_valid(folder, capsys):
    """What the BIDS schema asks of derivatives, and what ``headsr verify`` finds."""
    refused, listed = validate(folder)
    assert refused == set() and len(listed) == 2 + 3 * 4
    said = read_json(folder / "dataset_description.json")
    assert said["DatasetType"] == "derivative" and said["Name"] and said["GeneratedBy"][0]["Name"] == "headsr"
    for image in folder.rglob("*.nii.gz"):
        sidecar = read_json(sidecar_of(image))
        assert isinstance(sidecar["SkullStripped"], bool) and sidecar["Description"]
        assert "Resolution" in sidecar or "_res-" not in image.name
        assert all((folder / said["DatasetLinks"]["raw"] / uri.split(":")[2]).exists() for uri in sidecar["Sources"])
    assert cli.main(["verify", str(folder)]) == 0
    assert "13 outputs as they should be" in capsys.readouterr().out


def test_of_two_files_of_one_name_the_compressed_one_is_taken_and_what_is_not_is_counted(bids, tmp_path, capsys):
    (bids / "sub-01/anat/sub-01_T1w.nii").write_bytes(b"the same once more")
    assert [path.name for path in scans_in(bids).scans].count("sub-01_T1w.nii") == 0
    assert cli.main(["sr", str(bids), str(tmp_path / "out"), "--method", "spline", "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert "left out: 1 image beside a .nii.gz of the same name: sub-01/anat/sub-01_T1w.nii\n" in said
    assert "left out: 1 image of suffix angio, none of T1w, T2w, PDw, FLAIR: sub-02/ses-b/anat/sub-02" in said


def test_one_broken_scan_stops_no_other_and_the_second_run_makes_nothing(bids, tmp_path, capsys):
    command = ["sr", str(bids), str(tmp_path / "out"), "--method", "spline", "--mem-gb", "3"]
    assert cli.main(command) == 1
    said = capsys.readouterr()
    assert "3 of 4 scans are done" in said.out and "angio" in said.out
    assert said.err.count("REJECTED") == 1 and "sub-03_T1w.nii.gz" in said.err
    made = tmp_path / "out/sub-02/ses-a/anat/sub-02_ses-a_run-1_res-hi_desc-sr_FLAIR.json"
    sources = read_json(made)["Sources"]
    assert sources == ["bids:raw:sub-02/ses-a/anat/sub-02_ses-a_run-1_FLAIR.nii.gz"]
    is_whole_and_valid(tmp_path / "out", capsys)
    stamps = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*.nii.gz")}
    assert len(stamps) == 6
    assert cli.main([*command, "--participant-label", "01", "02"]) == 0
    assert "kept" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*.nii.gz")} == stamps


def test_a_dataset_that_headsr_did_not_make_is_not_written_into(bids, tmp_path, capsys):
    other = tmp_path / "other"
    other.mkdir()
    (other / "dataset_description.json").write_text('{"Name": "mine"}')
    assert cli.main(["sr", str(bids), str(other), "--method", "spline"]) == 2
    assert "did not make" in capsys.readouterr().err


def test_what_a_scan_warns_of_is_said_with_its_name_and_nothing_else(monkeypatch, capsys):
    def made(*_, **__):
        print("projection: contradictory")
        warnings.warn("The scans contradict each other", stacklevel=1)
        return True

    monkeypatch.setattr(dataset, "foretell", lambda request: None)
    monkeypatch.setattr(dataset, "super_resolve", made)
    request = dataset.Request(scans=(Path("sub-01_T1w.nii.gz"),), named=partial(dataset.derivative_at, "out"), memory=1)
    outcome = dataset._outcome_of(request)
    assert (outcome.state, outcome.words) == ("done", "sub-01_T1w.nii.gz: The scans contradict each other")
    assert capsys.readouterr().out == ""
