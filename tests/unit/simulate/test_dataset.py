import json
import stat
import subprocess

import numpy as np
import pytest

from headsr.scans import parse_path
from headsr.simulate.dataset import make_simulated_dataset
from headsr.simulate.labels import LabelMapError, read_structures
from headsr.simulate.publish import DatasetError, publish_dataset
from headsr.volumes import load_volume

SETTINGS = {"heads": 2, "suffixes": ("T1w", "FLAIR"), "voxel_mm": (4.0, 4.0, 8.0), "lesions": "moderate", "seed": 1}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory, ball_folder):
    folder = tmp_path_factory.mktemp("simulated") / "dataset"
    make_simulated_dataset(ball_folder, folder, **SETTINGS)
    return folder


def test_it_is_a_tagged_clean_bids_dataset(dataset):
    def git(*words):
        return subprocess.run(["git", *words], cwd=dataset, capture_output=True, text=True, check=True).stdout

    assert git("status", "--porcelain") == ""
    assert git("tag").split() == ["v1"]
    scans = sorted(path.relative_to(dataset).as_posix() for path in dataset.glob("sub-*/anat/*.nii.gz"))
    assert scans == [f"sub-0{n}/anat/sub-0{n}_{suffix}.nii.gz" for n in (1, 2) for suffix in ("FLAIR", "T1w")]
    assert all(parse_path(scan) for scan in scans)
    assert "FLAIR" in json.loads((dataset / "dataset_description.json").read_text())["GeneratedBy"][0]["Description"]
    rows = [line.split("\t") for line in (dataset / "participants.tsv").read_text().splitlines()]
    assert rows[0] == ["participant_id", "label_map", "lesions", "lesion_mm3"]
    assert [row[:3] for row in rows[1:]] == [[f"sub-0{n}", "sub-01_dseg.nii.gz", "moderate"] for n in (1, 2)]


def test_the_truth_lies_on_the_voxels_of_the_scan(dataset):
    truth = dataset / "derivatives/truth/sub-02/anat"
    scan = load_volume(dataset / "sub-02/anat/sub-02_FLAIR.nii.gz")
    labels, lesions = (load_volume(truth / f"sub-02_{name}.nii.gz") for name in ("dseg", "label-L_mask"))
    assert labels.grid.same_as(scan.grid) and lesions.grid.same_as(scan.grid)
    np.testing.assert_allclose(scan.grid.voxel_size, SETTINGS["voxel_mm"])
    assert set(np.unique(lesions.data)) == {0, 1}
    assert scan.data[lesions.data == 1].mean() > scan.data[labels.data == 2].mean()
    names = {s.label for s in read_structures(dataset / "derivatives/truth/dseg.tsv")}
    assert set(np.unique(labels.data)) <= names
    description = json.loads((dataset / "derivatives/truth/dataset_description.json").read_text())
    assert description["DatasetType"] == "derivative"


def test_it_is_made_once(dataset, ball_folder, monkeypatch):
    monkeypatch.setattr("headsr.simulate.dataset.load_label_map", lambda *_: pytest.fail("made again"))
    make_simulated_dataset(ball_folder, dataset, **SETTINGS)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"heads": 0}, "heads: 0"),
        ({"suffixes": ("T1w", "bold")}, "suffix: bold is none of T1w"),
        ({"voxel_mm": (1.0, 2.0)}, "three numbers"),
        ({"voxel_mm": (1.0, 1.0, 0.0)}, "0.2 to 20 mm"),
        ({"lesions": "terrible"}, "terrible is none of none, mild"),
    ],
)
def test_what_cannot_be_simulated_is_refused_at_once(tmp_path, ball_folder, change, message):
    with pytest.raises(ValueError, match=message):
        make_simulated_dataset(ball_folder, tmp_path / "out", **{**SETTINGS, **change})
    assert list(tmp_path.iterdir()) == []


def test_a_folder_without_label_maps_is_refused_before_anything_is_made(tmp_path):
    (tmp_path / "in").mkdir()
    with pytest.raises(LabelMapError, match="holds no label map"):
        make_simulated_dataset(tmp_path / "in", tmp_path / "out", **SETTINGS)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("how", ["link", "folder", "file"])
def test_what_is_named_like_a_half_made_dataset_and_is_none_is_left_alone(tmp_path, how):
    own, planted = tmp_path / "own", tmp_path / ".out.partial-4194999"  # beyond every process's number
    own.mkdir(mode=0o750)
    (own / "thesis.txt").write_text("my own")
    if how == "link":
        planted.symlink_to(own)
    elif how == "folder":
        planted.mkdir()
        (planted / "thesis.txt").write_text("my own")
    else:
        planted.write_text("my own")
    with pytest.raises(DatasetError, match=r"\.out\.partial-4194999: is in the way.*Move it away"):
        publish_dataset(tmp_path / "out", name="x", made_from="y", write=lambda _: None)
    assert stat.S_IMODE(own.stat().st_mode) == 0o750 and planted.is_symlink() == (how == "link")
    assert (planted / "thesis.txt" if how != "file" else planted).read_text() == "my own"
