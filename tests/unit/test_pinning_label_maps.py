"""Label maps pinned and fetched: from a plain git repository, as SynthSeg is one, and from a DataLad dataset."""

import dataclasses
import gzip
from pathlib import Path

import pytest

from headsr.annex import run_tool
from headsr.labelmaps import PinnedMap, read_maps, write_maps
from headsr.recipes import LabelMaps
from headsr.sourcedata import PinReport, SourceDataError, fetch_scan, pin_label_maps

MAPS = {f"data/maps/seg_{n}.nii.gz": f"sub-0{n}" for n in (1, 2, 3)}
SPLITS = {"train": ("sub-01",), "val": ("sub-02",)}


def content(text: str) -> bytes:
    return gzip.compress(text.encode(), mtime=0)


def commit(repository: Path, tag: str, **files: str) -> None:
    """Commit label maps by their subject, or what else is given by its path."""
    path_of = {subject.removeprefix("sub-"): path for path, subject in MAPS.items()}
    for name, text in files.items():
        path = repository / path_of.get(name.removeprefix("sub_"), name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content(text))
    run_tool(["git", "-C", repository, "add", "--all"])
    run_tool(["git", "-C", repository, "commit", "--quiet", "--allow-empty", "-m", tag])
    run_tool(["git", "-C", repository, "tag", tag])


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A git repository without git-annex: three maps, and what else there is in one."""
    path = tmp_path / "origin"
    run_tool(["git", "init", "--quiet", "-b", "main", path])
    commit(path, "v1", sub_01="one", sub_02="two", sub_03="three", code="x")
    return path


def recipe(url: Path, version: str = "v1", **change: object) -> LabelMaps:
    about = {"url": str(url), "version": version, "license": "x", "citation": "x", "maps": MAPS, "splits": SPLITS}
    return LabelMaps(**about | change)


def pin(folder: Path, dataset: LabelMaps) -> tuple[PinReport, dict[str, PinnedMap]]:
    report = pin_label_maps({"drawn": dataset}, clones=folder / "clones", table=folder / "labelmaps.tsv")
    return report, {one.subject: one for one in read_maps(folder / "labelmaps.tsv")}


def fetched(folder: Path, one: PinnedMap) -> bytes:
    output = folder / "results" / f"{one.place}.nii.gz"
    fetch_scan(output, clone=folder / "clones/drawn", name=one.name, key=one.key)
    return output.read_bytes()


def test_maps_in_git_are_pinned_by_their_blobs_and_fetched_by_them(repository: Path, tmp_path: Path) -> None:
    report, rows = pin(tmp_path, recipe(repository))
    assert report.added == ("drawn/sub-01", "drawn/sub-02", "drawn/sub-03") and report.written
    assert {subject: row.split for subject, row in rows.items()} == {
        "sub-01": "train",
        "sub-02": "val",
        "sub-03": "unused",  # named in no split
    }
    for subject, text in (("sub-01", "one"), ("sub-02", "two"), ("sub-03", "three")):
        row = rows[subject]
        blob = run_tool(["git", "-C", repository, "rev-parse", f"v1:{row.path}"]).stdout.decode().strip()
        assert (row.key, row.bytes) == (f"GIT-s{len(content(text))}--{blob}", len(content(text)))
        assert fetched(tmp_path, row) == content(text)


def test_a_first_commit_is_a_version_and_its_content_stays_pinned(repository: Path, tmp_path: Path) -> None:
    first = run_tool(["git", "-C", repository, "rev-parse", "v1^{commit}"]).stdout.decode().strip()
    _, before = pin(tmp_path, recipe(repository, first))
    commit(repository, "v2", sub_02="another two")
    report, rows = pin(tmp_path, recipe(repository, first))
    assert not report.written and rows == before
    report, rows = pin(tmp_path, recipe(repository, "v2"))
    assert report.changed == ("drawn/sub-02",) and len(report.unchanged) == 2
    assert rows["sub-01"] == before["sub-01"] and rows["sub-02"].split == "val"
    assert fetched(tmp_path, rows["sub-02"]) == content("another two")
    assert fetched(tmp_path, before["sub-02"]) == content("two")  # no longer in the newest version


def test_splits_are_a_person_s_and_what_comes_later_is_unused(repository: Path, tmp_path: Path) -> None:
    table = tmp_path / "labelmaps.tsv"
    other = PinnedMap("other", "sub-01", "a.nii.gz", "MD5E-s1--a", 1, "train")
    _, rows = pin(tmp_path, recipe(repository, maps={path: who for path, who in MAPS.items() if who != "sub-03"}))
    write_maps(table, [dataclasses.replace(rows["sub-01"], split="val"), rows["sub-02"], other])
    report, _ = pin(tmp_path, recipe(repository, splits={"train": ("sub-03",), "val": ("sub-02",)}))
    assert {one.name: one.split for one in read_maps(table)} == {
        "drawn/sub-01": "val",
        "drawn/sub-02": "val",
        "drawn/sub-03": "unused",
        "other/sub-01": "train",
    }
    assert report.added == ("drawn/sub-03",)
    differing, new = report.notes
    assert differing.startswith("drawn: its recipe says train of sub-03, and the table of pins, which decides, says un")
    assert new == "1 new label maps are unused until you choose their split in the table"
    fewer = {path: who for path, who in MAPS.items() if who != "sub-02"}
    report, rows = pin(tmp_path, recipe(repository, maps=fewer, splits={"train": ("sub-01",), "val": ("sub-03",)}))
    assert report.vanished == ("drawn/sub-02",)
    assert [one.split for one in read_maps(table) if one.name == "drawn/sub-02"] == ["unused"]


def test_a_datalad_dataset_is_pinned_by_its_annex_keys(tmp_path: Path) -> None:
    origin = tmp_path / "origin"
    run_tool(["datalad", "create", origin])
    for path, subject in MAPS.items():
        (origin / path).parent.mkdir(parents=True, exist_ok=True)
        (origin / path).write_bytes(content(subject))
    run_tool(["datalad", "save", "-d", origin, "-m", "maps", "--version-tag", "v1"])
    _, rows = pin(tmp_path, recipe(origin))
    assert all(row.key.startswith(("MD5E-", "SHA256E-")) for row in rows.values())
    assert fetched(tmp_path, rows["sub-03"]) == content("sub-03")


def test_a_map_that_is_not_there_is_refused_and_the_table_stays(repository: Path, tmp_path: Path) -> None:
    pin(tmp_path, recipe(repository))
    before = (tmp_path / "labelmaps.tsv").read_text()
    wrong = {**MAPS, "data/maps/seg_4.nii.gz": "sub-04"}
    with pytest.raises(SourceDataError, match=r"^dataset drawn: its maps names .*seg_4\.nii\.gz.* it has is .*seg_\d"):
        pin(tmp_path, recipe(repository, maps=wrong))
    with pytest.raises(SourceDataError, match=r"^dataset drawn: version 'v9' is neither a tag nor a commit"):
        pin(tmp_path, recipe(repository, "v9"))
    assert (tmp_path / "labelmaps.tsv").read_text() == before


def test_a_table_that_cannot_be_read_is_not_written_over(repository: Path, tmp_path: Path) -> None:
    (tmp_path / "labelmaps.tsv").write_text("mine\n")
    with pytest.raises(SourceDataError, match=r"its columns must be .*Pinning keeps the splits"):
        pin_label_maps({"drawn": recipe(repository)}, clones=tmp_path / "clones", table=tmp_path / "labelmaps.tsv")
    assert (tmp_path / "labelmaps.tsv").read_text() == "mine\n"
