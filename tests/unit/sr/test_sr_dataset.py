"""A BIDS folder: every scan by itself, with BIDS names, and one that fails stops no other."""

import pytest

from headsr import cli
from headsr.files import read_json
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
    with pytest.raises(ValueError, match="has no sub-1; it has 01, 02, 03"):
        scans_in(bids, participants=["1"])


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
    assert read_json(tmp_path / "out/dataset_description.json")["DatasetType"] == "derivative"
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
