import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from headsr.annex import AnnexError
from headsr.files import sha256_of
from headsr.scans import parse_path
from headsr.simulate import demo
from headsr.simulate.publish import DatasetError

SETTINGS = {"voxel_mm": 12.0, "heads": 3, "seed": 0}


def git(folder, *arguments):
    return subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, check=True).stdout


@pytest.fixture(scope="module")
def dataset(tmp_path_factory, anatomy):
    folder = tmp_path_factory.mktemp("demo") / "dataset"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(demo, "build_anatomy", lambda: anatomy)
        # A machine where git knows no user must do.
        patch.setenv("HOME", str(tmp_path_factory.mktemp("home")))
        for name in [name for name in os.environ if name.startswith("GIT_")]:
            patch.delenv(name)
        demo.make_demo_dataset(folder, **SETTINGS)
    return folder


def test_it_is_a_clean_tagged_datalad_dataset(dataset):
    assert git(dataset, "status", "--porcelain") == ""
    assert git(dataset, "tag").split() == ["v1"]
    assert git(dataset, "rev-parse", "v1^{commit}") == git(dataset, "rev-parse", "HEAD")
    assert "datalad" in (dataset / ".datalad" / "config").read_text()
    assert [path.name for path in dataset.parent.iterdir()] == ["dataset"]


def test_images_are_annexed_by_content_and_the_rest_is_plain_git(dataset):
    images = sorted(path.relative_to(dataset).as_posix() for path in dataset.glob("sub-*/anat/*.nii.gz"))
    expected = [f"sub-{n:02d}/anat/sub-{n:02d}_T1w.nii.gz" for n in (1, 2, 3)]
    expected += [f"sub-{n:02d}/anat/sub-{n:02d}_T2w.nii.gz" for n in (2, 3)]
    assert images == sorted(expected)
    for image in images:
        assert parse_path(image) is not None
        key = Path(os.readlink(dataset / image)).name
        assert key.startswith("SHA256E-s")
        assert key.split("--")[1].removesuffix(".nii.gz") == sha256_of(dataset / image)
    links = [
        line.split("\t")[1] for line in git(dataset, "ls-tree", "-r", "HEAD").splitlines() if line.startswith("120000")
    ]
    assert sorted(links) == images


def test_sidecars_describe_the_scan(dataset):
    sidecar = json.loads((dataset / "sub-03" / "anat" / "sub-03_T2w.json").read_text())
    assert sidecar["SliceThickness"] == 12.0
    assert sidecar["RepetitionTime"] < 10, "BIDS gives times in seconds"
    description = json.loads((dataset / "dataset_description.json").read_text())
    assert description["DatasetType"] == "raw"
    assert (dataset / "participants.tsv").read_text().split() == ["participant_id", "sub-01", "sub-02", "sub-03"]


def test_made_once_and_other_settings_are_refused(dataset, monkeypatch):
    monkeypatch.setattr(demo, "build_anatomy", lambda: pytest.fail("built again"))
    before = git(dataset, "rev-parse", "HEAD")
    demo.make_demo_dataset(dataset, **SETTINGS)
    assert git(dataset, "rev-parse", "HEAD") == before
    with pytest.raises(DatasetError, match="9 mm"):
        demo.make_demo_dataset(dataset, **{**SETTINGS, "voxel_mm": 9.0})


def test_a_folder_of_something_else_is_left_alone(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(DatasetError, match=r"something else.*Move it away"):
        demo.make_demo_dataset(tmp_path, **SETTINGS)
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_a_failure_leaves_nothing_and_a_killed_run_is_cleared(tmp_path, anatomy, monkeypatch):
    killed = tmp_path / ".dataset.partial-999999999"
    (killed / ".git" / "objects").mkdir(parents=True)
    (killed / ".git" / "objects").chmod(0o500)
    monkeypatch.setattr(demo, "build_anatomy", lambda: anatomy)
    monkeypatch.setattr(demo, "simulate_head", lambda *a, **k: (_ for _ in ()).throw(MemoryError("no room")))
    with pytest.raises(MemoryError):
        demo.make_demo_dataset(tmp_path / "dataset", **SETTINGS)
    assert list(tmp_path.iterdir()) == []


def test_without_datalad_the_error_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "executable", str(tmp_path / "bin" / "python"))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(AnnexError, match="datalad is not installed"):
        demo.make_demo_dataset(tmp_path / "dataset", **SETTINGS)
    assert list(tmp_path.iterdir()) == []
