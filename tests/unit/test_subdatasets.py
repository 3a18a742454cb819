"""People of a dataset that are datasets of their own in it."""

from pathlib import Path

import pytest

from headsr.annex import run_tool
from headsr.recipes import Dataset
from headsr.scans import Scan, read_scans
from headsr.sourcedata import PinReport, SourceDataError, pin_datasets
from headsr.subdatasets import _joined, clone_of


def commit(repository: Path, files: dict[str, str], *, modules: dict[str, tuple[str, str]] | None = None) -> str:
    """Commit files and subdatasets (path -> address, commit), without git-annex: all that is about them is git's."""
    run_tool(["git", "init", "-q", "-b", "main", repository])
    for name, text in files.items():
        (repository / name).parent.mkdir(parents=True, exist_ok=True)
        (repository / name).write_text(text)
    for path, (url, at) in (modules or {}).items():
        if url:
            run_tool(["git", "config", "-f", repository / ".gitmodules", f"submodule.{path}.path", path])
            run_tool(["git", "config", "-f", repository / ".gitmodules", f"submodule.{path}.url", url])
        run_tool(["git", "-C", repository, "update-index", "--add", "--cacheinfo", f"160000,{at},{path}"])
    run_tool(["git", "-C", repository, "add", "-A", "."], check=False)
    for path, (_, at) in (modules or {}).items():  # `add` takes what is not there for removed
        run_tool(["git", "-C", repository, "update-index", "--add", "--cacheinfo", f"160000,{at},{path}"])
    run_tool(["git", "-C", repository, "commit", "-q", "-m", "scans"])
    run_tool(["git", "-C", repository, "tag", "-f", "v1"])
    return run_tool(["git", "-C", repository, "rev-parse", "HEAD"]).stdout.decode().strip()


def pin(folder: Path, dataset: Path) -> tuple[PinReport, dict[str, Scan]]:
    recipe = Dataset(str(dataset), "v1", "CC0", "nobody")
    report = pin_datasets({"tiny": recipe}, clones=folder / "clones", table=folder / "scans.tsv")
    return report, {scan.path: scan for scan in read_scans(folder / "scans.tsv")}


def test_people_are_found_at_the_commit_of_their_dataset_and_others_are_named(tmp_path: Path) -> None:
    person, session = tmp_path / "person", tmp_path / "session"
    at = commit(session, {"anat/sub-02_ses-a_T1w.nii.gz": "2", "T1w.json": '{"SliceThickness": 4}'})
    of_two = commit(tmp_path / "two", {}, modules={"ses-a": (str(session), at)})
    of_one = commit(person, {"anat/sub-01_T1w.nii.gz": "1"})
    commit(person, {"anat/sub-01_T2w.nii.gz": "later"})  # not what the dataset names
    modules = {
        "sub-01": ("../person", of_one),
        "sub-02": (str(tmp_path / "two"), of_two),
        "sub-03": ("", of_one),
        "sub-04": ("evil::x", of_one),
        "derivatives/prep": ("https://localhost:9/prep", of_one),
    }
    commit(tmp_path / "origin", {"T1w.json": '{"SliceThickness": 2}'}, modules=modules)
    report, rows = pin(tmp_path, tmp_path / "origin")
    assert {path: scan.thickness for path, scan in rows.items()} == {
        "sub-01/anat/sub-01_T1w.nii.gz": "2",
        "sub-02/ses-a/anat/sub-02_ses-a_T1w.nii.gz": "4",
    }
    assert [words.split(":")[1].strip() for words in report.left_out] == ["derivatives/prep (https", "sub-03", "sub-04"]
    assert "does not say in .gitmodules where it is" in report.left_out[1]
    assert "evil::x is reached by a program of its own" in report.left_out[2]
    clone = tmp_path / "clones/tiny"
    assert clone_of(clone, "sub-02/ses-a/anat/x.nii.gz") == clone / "sub-02/ses-a"
    assert clone_of(clone, "sub-03/anat/x.nii.gz") == clone
    assert not pin(tmp_path, tmp_path / "origin")[0].written


def test_a_person_who_cannot_be_had_now_fails_the_pin_by_name(tmp_path: Path) -> None:
    at = commit(tmp_path / "person", {"anat/sub-01_T1w.nii.gz": "1"})
    commit(tmp_path / "origin", {"sub-02/anat/sub-02_T1w.nii.gz": "2"}, modules={"sub-01": ("../person", "1" * 40)})
    with pytest.raises(SourceDataError, match=r"its subdataset sub-01: .*/person lacks its commit 1{40}"):
        pin(tmp_path, tmp_path / "origin")
    assert not (tmp_path / "scans.tsv").exists()
    commit(tmp_path / "origin", {}, modules={"sub-01": ("https://localhost:9/nosuch", at)})
    with pytest.raises(SourceDataError, match=r"its subdataset sub-01: https://localhost:9/nosuch could not be cloned"):
        pin(tmp_path / "again", tmp_path / "origin")
    assert not (tmp_path / "again/scans.tsv").exists()


@pytest.mark.parametrize(
    ("parent", "url", "address"),
    [
        ("https://example.org/lab/study", "../sub-01", "https://example.org/lab/sub-01"),
        ("https://example.org/lab/study/.git", "./sub-01", "https://example.org/lab/study/sub-01"),
        ("git@example.org:lab/study.git", "../people/sub-01.git", "git@example.org:lab/people/sub-01.git"),
        ("/data/study/", "../../sub-01", "/sub-01"),
    ],
)
def test_an_address_that_is_relative_is_read_as_git_reads_it(parent: str, url: str, address: str) -> None:
    assert _joined(parent, url) == address
