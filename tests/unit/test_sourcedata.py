import csv
import dataclasses
import gzip
import json
import os
import shutil
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from headsr import annex, clones, sourcedata
from headsr.annex import run_tool
from headsr.recipes import Dataset, load_config, load_recipes
from headsr.scans import Scan, read_pins, read_scans, write_scans
from headsr.sourcedata import PinReport, SourceDataError, fetch_scan, pin_datasets

OPENNEURO = Path(__file__).parents[3] / "shared/data/openneuro"
AVERAGE = "derivatives/sub-01/averages/sub-01_ses-1+2_original_T1w.nii.gz"
SPLITS = {"train": ["01", "sub-02"], "test": ["03"]}


def recipe(
    url: str | Path,
    version: str = "v1",
    splits: dict[str, list[str]] | None = None,
    bids_names: dict[str, str] | None = None,
) -> Dataset:
    return Dataset(str(url), version, "CC0", "nobody", SPLITS if splits is None else splits, bids_names or {})


def pin(folder: Path, dataset: Dataset) -> tuple[PinReport, dict[str, Scan]]:
    report = pin_datasets({"tiny": dataset}, clones=folder / "clones", table=folder / "scans.tsv")
    return report, {scan.name: scan for scan in read_pins(folder / "scans.tsv")}


def save(dataset: Path, tag: str) -> None:
    run_tool(["datalad", "save", "-d", dataset, "-m", f"version {tag}", "--version-tag", tag])


def replace(path: Path, content: bytes) -> None:
    path.unlink(missing_ok=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


@pytest.fixture
def pinned(tiny_dataset: Path, tiny_clone: Path, tmp_path: Path) -> tuple[Path, Path]:
    """A dataset and a folder where it has been pinned (with a copied clone, which is quicker than a new one)."""
    folder = tmp_path / "work"
    (folder / "clones").mkdir(parents=True)
    tiny_clone.rename(folder / "clones" / "tiny")
    run_tool(["git", "-C", folder / "clones" / "tiny", "config", "headsr.url", tiny_dataset])
    pin(folder, recipe(tiny_dataset))
    return tiny_dataset, folder


def test_the_first_pin_clones_and_writes_the_table(tiny_dataset: Path, tmp_path: Path) -> None:
    report, rows = pin(tmp_path, recipe(tiny_dataset))
    assert {name: (scan.split, scan.thickness) for name, scan in rows.items()} == {
        "tiny/sub-01_T1w": ("train", "2.5"),  # its own sidecar
        "tiny/sub-01_T2w": ("train", ""),  # none
        "tiny/sub-02_ses-a_run-1_T1w": ("train", "6"),  # the subject's, as its own does not say
        "tiny/sub-03_T1w": ("test", "1"),  # the root's
        "tiny/sub-04_T1w": ("unused", "3"),  # its own is annexed, and got; named in no split
    }
    for scan in rows.values():
        content = (tiny_dataset / scan.path).read_bytes()
        assert scan.bytes == len(content) and scan.key.startswith(("SHA256E-", "GIT-"))
    assert report.added == tuple(rows) and report.written
    assert report.changed == report.vanished == report.unchanged == ()
    commit = run_tool(["git", "-C", tiny_dataset, "rev-parse", "v1^{commit}"]).stdout.decode().strip()
    assert report.commits == {"tiny": commit}
    assert os.listdir(tmp_path / "clones") == ["tiny"]


def test_pinning_again_touches_nothing(pinned: tuple[Path, Path]) -> None:
    dataset, folder = pinned
    table = folder / "scans.tsv"
    text = table.read_text()
    os.utime(table, (1, 1))
    report, _ = pin(folder, recipe(dataset, splits={"test": ["01", "02", "03", "04"]}))
    assert not report.written and len(report.unchanged) == 5
    assert (table.read_text(), table.stat().st_mtime) == (text, 1)
    assert "same table" in report.text()
    said = "note: tiny: its recipe says test of sub-01, sub-02, and the table of pins, which decides, says train."
    assert (
        said in report.text() and "test of sub-04, and the table of pins, which decides, says unused" in report.text()
    )


def test_a_new_version_keeps_splits_and_reports_what_changed(pinned: tuple[Path, Path]) -> None:
    dataset, folder = pinned
    before = {scan.name: scan for scan in read_scans(folder / "scans.tsv")}
    replace(dataset / "sub-01/anat/sub-01_T1w.nii.gz", b"changed")
    replace(dataset / "sub-01/anat/sub-01_acq-new_T1w.nii.gz", b"another scan of a known person")
    replace(dataset / "sub-05/anat/sub-05_T1w.nii.gz", b"a new person")
    shutil.rmtree(dataset / "sub-03")
    save(dataset, "v2")
    report, rows = pin(folder, recipe(dataset, "v2"))
    assert report.changed == ("tiny/sub-01_T1w",)
    assert sorted(report.added) == ["tiny/sub-01_acq-new_T1w", "tiny/sub-05_T1w"]
    assert report.vanished == ("tiny/sub-03_T1w",)
    assert len(report.unchanged) == 3
    assert rows["tiny/sub-01_T1w"].split == "train"
    assert rows["tiny/sub-01_T1w"].key != before["tiny/sub-01_T1w"].key
    assert rows["tiny/sub-01_acq-new_T1w"].split == rows["tiny/sub-05_T1w"].split == "unused"
    assert rows["tiny/sub-03_T1w"] == dataclasses.replace(before["tiny/sub-03_T1w"], split="unused")
    for words in ("changed", "added (2)", "no longer in the dataset", "2 new scans are unused", "unchanged: 3"):
        assert words in report.text()

    report, again = pin(folder, recipe(dataset, "v2"))  # and it stays so
    assert again == rows and not report.written and report.vanished == ("tiny/sub-03_T1w",)
    report, back = pin(folder, recipe(dataset, "v1"))  # the older version is still a version
    assert {name: scan.key for name, scan in back.items() if name in before} == {n: s.key for n, s in before.items()}


def test_scans_outside_the_anat_folders_are_pinned_by_the_names_they_are_given(
    pinned: tuple[Path, Path], tmp_path: Path
) -> None:
    dataset, folder = pinned
    average = gzip.compress(b"the mean of two sessions")
    replace(dataset / AVERAGE, average)
    replace(dataset / AVERAGE.replace(".nii.gz", ".json"), b'{"SliceThickness": 0.25}')
    save(dataset, "v2")
    names = {AVERAGE: "sub-01_rec-original_T1w", "derivatives/sub-01/anat/sub-01_T1w.nii.gz": "sub-01_rec-other_T1w"}
    (folder / "scans.tsv").unlink()
    report, rows = pin(folder, recipe(dataset, "v2", bids_names=names))
    assert len(report.added) == 5 + 2
    scan = rows["tiny/sub-01_rec-original_T1w"]
    assert (scan.path, scan.bytes, scan.thickness, scan.split) == (AVERAGE, len(average), "0.25", "train")
    assert scan.stem == "tiny/sub-01/sub-01_rec-original"
    assert rows["tiny/sub-01_rec-other_T1w"].thickness == ""  # what the root's T1w.json says is not about it
    fetch_scan(tmp_path / "got.nii.gz", clone=folder / "clones/tiny", name=scan.name, key=scan.key)
    assert (tmp_path / "got.nii.gz").read_bytes() == average

    write_scans(folder / "scans.tsv", [dataclasses.replace(row, split="val") for row in rows.values()])
    report, rows = pin(folder, recipe(dataset, "v2", bids_names=names))
    assert not report.written and {row.split for row in rows.values()} == {"val"}  # as people decided

    moved = AVERAGE.replace("averages", "means")
    (dataset / moved).parent.mkdir()
    (dataset / AVERAGE).rename(dataset / moved)
    save(dataset, "v3")
    report, rows = pin(folder, recipe(dataset, "v3", bids_names={moved: "sub-01_rec-original_T1w"}))
    assert report.changed == ("tiny/sub-01_rec-original_T1w",) and report.vanished == ("tiny/sub-01_rec-other_T1w",)
    assert (rows[scan.name].path, rows[scan.name].key, rows[scan.name].split) == (moved, scan.key, "val")

    report, rows = pin(folder, recipe(dataset, "v3", bids_names={moved: "sub-01_rec-mean_T1w"}))
    assert report.added == ("tiny/sub-01_rec-mean_T1w",) and report.vanished[0] == "tiny/sub-01_rec-original_T1w"
    assert rows[scan.name].split == rows["tiny/sub-01_rec-mean_T1w"].split == "unused"


def test_companions_are_pinned_by_their_own_keys_and_fetched_like_scans(
    pinned: tuple[Path, Path], tmp_path: Path
) -> None:
    dataset, folder = pinned
    mask = "derivatives/raters/{0}/anat/{0}_label-lesion_mask.nii.gz"
    lesions = {person: gzip.compress(f"the lesions of {person}".encode()) for person in ("sub-01", "sub-03")}
    for person, content in lesions.items():
        replace(dataset / mask.format(person), content)
    replace(dataset / "derivatives/roi.nii.gz", gzip.compress(b"drawn on the fourth head"))
    save(dataset, "v2")
    before = {scan.name: scan for scan in read_scans(folder / "scans.tsv")}
    named = {"derivatives/roi.nii.gz": "sub-04_label-lesion_desc-T1w_mask"}
    report, rows = pin(folder, recipe(dataset, "v2", bids_names=named))
    owners = {"sub-01": ("T1w", "T2w"), "sub-03": ("T1w",), "sub-04": ("T1w",)}
    masks = {
        f"tiny/{p}_label-lesion_desc-{s}_mask": f"tiny/{p}_{s}" for p, suffixes in owners.items() for s in suffixes
    }
    assert {scan.name: scan.of for scan in rows.values() if scan.of} == masks
    assert set(report.added) == set(masks) and not report.changed
    assert {scan.name: scan for scan in read_scans(folder / "scans.tsv")} == before  # no scan, and no split, is another
    assert not report.notes

    for person, content in lesions.items():
        scan = rows[f"tiny/{person}_label-lesion_desc-T1w_mask"]
        fetch_scan(tmp_path / "got.nii.gz", clone=folder / "clones/tiny", name=scan.name, key=scan.key)
        assert (tmp_path / "got.nii.gz").read_bytes() == content

    rejected = dataclasses.replace(rows["tiny/sub-03_label-lesion_desc-T1w_mask"], split="unused")
    write_scans(folder / "scans.tsv", [*(row for row in rows.values() if row.name != rejected.name), rejected])
    replace(dataset / mask.format("sub-01"), b"drawn anew")
    save(dataset, "v3")
    report, rows = pin(folder, recipe(dataset, "v3", bids_names=named))
    assert set(report.changed) == {name for name in masks if "sub-01" in name}
    assert rows[rejected.name] == rejected  # as people decided
    report, rows = pin(folder, recipe(dataset, "v1"))
    assert set(report.vanished) == set(masks) and {row.split for row in rows.values() if row.of} == {"unused"}
    with pytest.raises(SourceDataError, match=r"gives derivatives/roi.nii.gz to sub-99_T1w, a scan that it does not"):
        pin(folder, recipe(dataset, "v3", bids_names={"derivatives/roi.nii.gz": "sub-99_label-lesion_desc-T1w_mask"}))


def test_names_for_files_that_are_absent_or_clash_are_refused(pinned: tuple[Path, Path]) -> None:
    dataset, folder = pinned
    table = (folder / "scans.tsv").read_text()
    near = "derivatives/sub-01/anat/sub-01_T1w.nii.gz"
    with pytest.raises(SourceDataError, match=rf"names derivatives/sub-1/.*, which it does not have at .* is {near}"):
        pin(folder, recipe(dataset, bids_names={near.replace("01/", "1/"): "sub-01_rec-x_T1w"}))
    with pytest.raises(SourceDataError, match=rf"{near} and sub-01/anat/sub-01_T1w.nii.gz are both sub-01_T1w"):
        pin(folder, recipe(dataset, bids_names={near: "sub-01_T1w"}))
    assert (folder / "scans.tsv").read_text() == table


@pytest.mark.skipif(not OPENNEURO.exists(), reason="the git side of an OpenNeuro dataset is not here")
def test_a_real_openneuro_dataset_without_a_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its scans are pinned by their true keys from git alone; a fetch that reaches no remote leaves nothing."""
    origin = tmp_path / "ds000001.git"
    run_tool(["git", "clone", "--quiet", "--mirror", OPENNEURO / "ds000001.bundle", origin])
    begin = time.monotonic()
    dataset = recipe(origin, "1.0.0", splits={})
    report = pin_datasets({"ds000001": dataset}, clones=tmp_path / "clones", table=tmp_path / "scans.tsv")
    with (OPENNEURO / "anat_keys.tsv").open(encoding="utf-8") as stream:
        true = [row for row in csv.DictReader(stream, delimiter="\t") if row["dataset"] == "ds000001"]
    scans = read_scans(tmp_path / "scans.tsv")
    assert [(scan.path, scan.key, str(scan.bytes)) for scan in scans] == [
        (row["path"], row["annex_key"], row["bytes"])
        for row in true
        if "_T1w" in row["path"]  # and no inplaneT2
    ]
    assert len(scans) == 16 and report.commits == {"ds000001": true[0]["commit"]}

    monkeypatch.setattr(annex, "sleep", lambda seconds: None)
    # Where there is a network the fetch would succeed: no remote of the dataset may be asked over it.
    for name, value in (("COUNT", "1"), ("KEY_0", "annex.security.allowed-url-schemes"), ("VALUE_0", "file")):
        monkeypatch.setenv(f"GIT_CONFIG_{name}", value)
    clone, scan, output = tmp_path / "clones/ds000001", scans[4], tmp_path / "results/sub-05_T1w.nii.gz"
    before = files_of(clone)
    with pytest.raises(SourceDataError, match=rf"^ds000001/sub-05_T1w: .*{scan.key}.* s3-PUBLIC\. Check the network"):
        fetch_scan(output, clone=clone, name=scan.name, key=scan.key)
    assert not [path for path in output.parent.rglob("*") if path.is_file()]
    grown = {path: size for path, size in files_of(clone).items() if before.get(path) != size}
    assert sum(grown.values()) < 200_000, grown  # git-annex's own database of the remote, made once; the scan is 5.5 MB
    assert not [path for path in grown if "objects/" in path or "annex/tmp/" in path]
    assert time.monotonic() - begin < 60  # seconds on any machine; 2 here


@pytest.mark.skipif(not OPENNEURO.exists(), reason="the list of OpenNeuro's true keys is not here")
def test_pinning_the_shipped_datasets_finds_the_shipped_rows(tmp_path: Path) -> None:
    """A git tree of the true paths and keys stands in for each dataset: no row changes, nor does a first pin differ."""
    with (OPENNEURO / "anat_keys.tsv").open(encoding="utf-8") as stream:
        true = list(csv.DictReader(stream, delimiter="\t"))
    datasets = {}
    for name, dataset in load_recipes(load_config([])).datasets.items():
        if dataset.kind != "scans":
            continue
        links = {f"{row['path']}@": link_to(row["annex_key"]) for row in true if row["dataset"] == name}
        commit = commit_files(tmp_path / name, links)
        run_tool(["git", "-C", tmp_path / name, "symbolic-ref", "HEAD", "refs/heads/all"])
        datasets[name] = dataclasses.replace(dataset, url=str(tmp_path / name), version=commit)
    table = Path(shutil.copy("config/scans.tsv", tmp_path / "scans.tsv"))
    report = pin_datasets(datasets, clones=tmp_path / "clones", table=table)
    assert not report.written and len(report.unchanged) == 50
    table.unlink()
    pin_datasets(datasets, clones=tmp_path / "clones", table=table)
    assert table.read_text() == Path("config/scans.tsv").read_text()


def link_to(key: str) -> bytes:
    """What git holds of a locked file."""
    return f".git/annex/objects/aa/bb/{key}/{key}".encode()


def files_of(folder: Path) -> dict[str, int]:
    """The bytes of every file below a folder."""
    return {str(path.relative_to(folder)): path.lstat().st_size for path in folder.rglob("*") if path.is_file()}


def test_a_tag_that_moved_is_followed(pinned: tuple[Path, Path]) -> None:
    dataset, folder = pinned
    replace(dataset / "sub-05/anat/sub-05_T1w.nii.gz", b"a new person")
    save(dataset, "v2")
    run_tool(["git", "-C", dataset, "tag", "-f", "v1", "v2"])
    assert pin(folder, recipe(dataset))[0].added == ("tiny/sub-05_T1w",)


def test_a_commit_that_is_here_needs_no_network(pinned: tuple[Path, Path]) -> None:
    dataset, folder = pinned
    commit = run_tool(["git", "-C", dataset, "rev-parse", "v1^{commit}"]).stdout.decode().strip()
    dataset.joinpath(".git").rename(dataset / "away")
    (dataset / ".git").mkdir()  # a dataset that cannot be fetched from
    assert not pin(folder, recipe(dataset, commit))[0].written
    assert not pin(folder, recipe(dataset, commit[:8]))[0].written
    with pytest.raises(SourceDataError, match="dataset tiny"):
        pin(folder, recipe(dataset, "v1"))


def test_a_dataset_that_moved_is_followed(pinned: tuple[Path, Path], tmp_path: Path) -> None:
    dataset, folder = pinned
    moved = dataset.rename(tmp_path / "elsewhere")
    with pytest.raises(SourceDataError, match=r"does not exist. Correct the url"):
        pin(folder, recipe(dataset))
    report, rows = pin(folder, recipe(moved))
    assert not report.written
    scan = rows["tiny/sub-01_T1w"]
    fetch_scan(tmp_path / "got.nii.gz", clone=folder / "clones/tiny", name=scan.name, key=scan.key)


def test_a_dataset_made_anew_at_the_same_place_is_followed(pinned: tuple[Path, Path], tmp_path: Path) -> None:
    """As the demo is when its voxel size changes: another history, another git-annex repository, the same tag."""
    dataset, folder = pinned
    clones._remove(dataset)
    run_tool(["datalad", "create", dataset])
    replace(dataset / "sub-01/anat/sub-01_T1w.nii.gz", b"made anew")
    save(dataset, "v1")
    report, rows = pin(folder, recipe(dataset))
    assert report.changed == ("tiny/sub-01_T1w",) and len(report.vanished) == 4
    scan = rows["tiny/sub-01_T1w"]
    with pytest.raises(SourceDataError, match=r"tiny/sub-01_T1w.*damaged gzip file"):  # got, though it is no image
        fetch_scan(tmp_path / "got.nii.gz", clone=folder / "clones/tiny", name=scan.name, key=scan.key)


def test_people_decide_in_the_table(pinned: tuple[Path, Path]) -> None:
    dataset, folder = pinned
    table = folder / "scans.tsv"
    rows = [dataclasses.replace(scan, split="val", thickness=scan.thickness or "4") for scan in read_scans(table)]
    rows[0] = dataclasses.replace(rows[0], split="test")  # one person in two splits
    other = Scan("other", "sub-1", "sub-1", "T1w", "sub-1/anat/sub-1_T1w.nii.gz", "MD5E-s1--aa", 1, "", "test")
    write_scans(table, [*rows, other])
    report, _ = pin(folder, recipe(dataset))
    assert set(read_scans(table)) == {*rows, other} and not report.written
    *differing, last = report.notes
    assert last == "tiny/sub-01 is in test and val: keep a person in one split"
    assert differing and all("the table of pins, which decides, says" in note for note in differing)


def test_a_thickness_that_pin_replaces_is_said(pinned: tuple[Path, Path]) -> None:
    dataset, folder = pinned
    table = folder / "scans.tsv"
    typed = {"tiny/sub-01_T1w": "4", "tiny/sub-01_T2w": "5", "tiny/sub-04_T1w": "7"}
    rows = read_scans(table)
    write_scans(table, [dataclasses.replace(scan, thickness=typed.get(scan.name, scan.thickness)) for scan in rows])
    report, after = pin(folder, recipe(dataset))
    said = "slice thickness in mm, replaced by what the sidecars say: tiny/sub-01_T1w 4 -> 2.5, tiny/sub-04_T1w 7 -> 3"
    assert report.notes == (said,) and f"note: {said}" in report.text()
    assert after["tiny/sub-01_T2w"].thickness == "5"  # no sidecar says one
    replace(dataset / "sub-01/anat/sub-01_T2w.nii.gz", b"measured again")
    save(dataset, "v2")
    report, after = pin(folder, recipe(dataset, "v2"))
    assert after["tiny/sub-01_T2w"].thickness == ""
    assert report.notes == ("slice thickness in mm, replaced by what the sidecars say: tiny/sub-01_T2w 5 -> unknown",)


def test_an_annexed_sidecar_is_got_once_and_one_that_cannot_be_had_is_named(
    pinned: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset, folder = pinned
    monkeypatch.setattr(annex, "get_content", lambda *_, **__: pytest.fail("it was got already"))
    report, rows = pin(folder, recipe(dataset))
    assert not report.written and not report.notes and rows["tiny/sub-04_T1w"].thickness == "3"

    monkeypatch.undo()
    monkeypatch.setattr(annex, "sleep", lambda seconds: pytest.fail("a person waits for this"))
    shutil.rmtree(folder / "clones/tiny/.git/headsr-texts")
    run_tool(["git", "-C", dataset, "annex", "drop", "--force", "sub-04/anat/sub-04_T1w.json"])
    report, rows = pin(folder, recipe(dataset))
    (note,) = report.notes
    assert note.startswith("tiny: 1 of 1 annexed sidecars could not be had") and "sub-04/anat/sub-04_T1w.json: " in note
    assert rows["tiny/sub-04_T1w"].thickness == "3" and not report.written  # as the table has it


def test_splits_by_hash_are_stable_and_about_70_10_20() -> None:
    splits = [sourcedata._hashed_split("ds000001", f"sub-{i:04}") for i in range(3000)]
    shares = [splits.count(split) / 3000 for split in ("train", "val", "test")]
    assert shares == pytest.approx([0.7, 0.1, 0.2], abs=0.03)
    assert splits[:6] == ["train", "train", "train", "train", "train", "val"]


def test_every_scan_of_a_person_gets_the_hashed_split(pinned: tuple[Path, Path]) -> None:
    dataset, folder = pinned
    (folder / "scans.tsv").unlink()
    _, rows = pin(folder, recipe(dataset, splits={}))
    assert all(scan.split == sourcedata._hashed_split("tiny", scan.subject) for scan in rows.values())


@pytest.mark.parametrize(
    ("splits", "message"),
    [
        ({"training": ["01"]}, "'training'; it must be one of train, val, test, unused"),
        ({"train": ["01"], "test": ["sub-01"]}, "sub-01 is in two splits, train and test"),
        ({"train": ["99"]}, "names sub-99, which it does not have"),
    ],
)
def test_wrong_splits_are_refused(splits, message: str, pinned: tuple[Path, Path]) -> None:
    dataset, folder = pinned
    (folder / "scans.tsv").unlink()
    with pytest.raises(SourceDataError, match=f"dataset tiny: .*{message}"):
        pin(folder, recipe(dataset, splits=splits))
    assert not (folder / "scans.tsv").exists()


@pytest.mark.parametrize(
    ("version", "message"),
    [
        ("v2", r"'v2' is neither a tag nor a commit of it. It has: v1"),
        ("HEAD", "is a branch, which moves. Give a tag or a commit; now it is at [0-9a-f]{40}"),
        ("", "neither a tag nor a commit"),
        ("--help", "neither a tag nor a commit"),
        ("0123456789abcdef", "neither a tag nor a commit"),
    ],
)
def test_wrong_versions_are_refused(version: str, message: str, pinned: tuple[Path, Path]) -> None:
    dataset, folder = pinned
    with pytest.raises(SourceDataError, match=f"dataset tiny: version .*{message}"):
        pin(folder, recipe(dataset, version))


def test_what_is_no_dataset_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    plain, scanless, file = (tmp_path / name for name in ("plain", "scanless", "file"))
    replace(plain / "sub-01/anat/sub-01_T1w.nii.gz", b"scan")
    scanless.mkdir()
    file.write_text("")
    for url, message in [
        (plain, r"plain folder, not a DataLad dataset\. .*datalad create --force .*datalad save"),
        (scanless, r"plain folder, not a DataLad dataset, and it holds no sub-"),
        (file, "is a file, not a DataLad dataset"),
        (tmp_path / "nosuch", "does not exist"),
        (tmp_path, "is a plain folder"),
        ("https://localhost:9/nosuch", r"could not be cloned or brought up to date. Check the url .* the network"),
    ]:
        with pytest.raises(SourceDataError, match=message) as raised:
            pin(tmp_path / "work", recipe(url))
        assert str(raised.value).startswith("dataset tiny: ")
        left = [str(path.relative_to(tmp_path / "work")) for path in (tmp_path / "work").rglob("*")]
        assert left in ([], ["clones"])


def test_the_way_out_for_a_plain_folder_works(tmp_path: Path) -> None:
    plain = tmp_path / "my heads"
    replace(plain / "sub-01/anat/sub-01_T1w.nii.gz", b"scan")
    with pytest.raises(SourceDataError) as raised:
        pin(tmp_path, recipe(plain, splits={}))
    commands = str(raised.value).split("scans: ")[1].split("; then")[0]
    for command in commands.split(" && "):
        run_tool(["sh", "-c", command])
    _, rows = pin(tmp_path, recipe(plain, splits={}))
    assert list(rows) == ["tiny/sub-01_T1w"]


def test_a_repository_without_a_commit(tmp_path: Path) -> None:
    run_tool(["git", "init", "-q", tmp_path / "empty"])
    with pytest.raises(SourceDataError, match=r"dataset tiny: "):
        pin(tmp_path, recipe(tmp_path / "empty"))
    assert not (tmp_path / "scans.tsv").exists()


def test_a_dataset_without_anatomical_scans(tmp_path: Path) -> None:
    run_tool(["git", "init", "-q", tmp_path / "code"])
    replace(tmp_path / "code/sub-01/func/sub-01_bold.nii.gz", b"x")
    for words in (["add", "."], ["commit", "-qm", "x"], ["tag", "v1"]):
        run_tool(["git", "-C", tmp_path / "code", *words])
    with pytest.raises(SourceDataError, match=r"has no sub-.*anat.*url and version; left out: 1 image in func, not in"):
        pin(tmp_path, recipe(tmp_path / "code"))


def test_a_folder_in_the_way_and_a_killed_clone(tiny_dataset: Path, tmp_path: Path) -> None:
    clones = tmp_path / "clones"
    replace(clones / ".tiny.partial" / ".git" / "objects" / "half", b"")  # what a killed pin leaves, write-protected
    (clones / ".tiny.partial" / ".git" / "objects").chmod(stat.S_IRUSR | stat.S_IXUSR)
    (clones / "tiny").mkdir()  # empty: made by hand or by a workflow
    pin(tmp_path, recipe(tiny_dataset))
    assert os.listdir(clones) == ["tiny"]

    replace(clones / "other" / "file", b"mine")
    with pytest.raises(SourceDataError, match=r"dataset other: .* is in the way"):
        pin_datasets({"other": recipe(tiny_dataset)}, clones=clones, table=tmp_path / "scans.tsv")
    assert (clones / "other" / "file").read_bytes() == b"mine"


def test_only_the_named_datasets(pinned: tuple[Path, Path], tmp_path: Path) -> None:
    dataset, folder = pinned
    datasets = {"tiny": recipe(dataset), "away": recipe("https://localhost:9/nosuch")}
    report = pin_datasets(datasets, clones=folder / "clones", table=folder / "scans.tsv", only=["tiny"])
    assert list(report.commits) == ["tiny"]
    with pytest.raises(SourceDataError, match=r"no dataset 'tinny'. Known datasets: tiny, away"):
        pin_datasets(datasets, clones=folder / "clones", table=folder / "scans.tsv", only=["tinny"])
    with pytest.raises(SourceDataError, match="letters and digits"):
        pin_datasets({"a/b": recipe(dataset)}, clones=folder / "clones", table=folder / "scans.tsv")


def test_a_broken_table_is_not_written_over(pinned: tuple[Path, Path]) -> None:
    dataset, folder = pinned
    table = folder / "scans.tsv"
    broken = table.read_text().replace("train", "trian", 1)
    table.write_text(broken)
    with pytest.raises(SourceDataError, match=r"line 2: split 'trian'.*repair that line"):
        pin(folder, recipe(dataset))
    assert table.read_text() == broken


def test_without_a_git_identity(tiny_dataset: Path, tmp_path: Path) -> None:
    """git refuses to commit where no name is configured; pinning and fetching work there all the same."""
    program = (
        "import sys; from headsr.recipes import Dataset; from headsr.sourcedata import *; from headsr.scans import *\n"
        "pin_datasets({'tiny': Dataset(sys.argv[1], 'v1', '', '')}, clones='clones', table='scans.tsv')\n"
        "scan = read_scans('scans.tsv')[0]\n"
        "fetch_scan('got.nii.gz', clone='clones/tiny', name=scan.name, key=scan.key)"
    )
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("GIT_", "EMAIL"))}
    environment |= {"HOME": str(tmp_path), "GIT_CONFIG_NOSYSTEM": "1", "XDG_CONFIG_HOME": str(tmp_path)}
    subprocess.run([sys.executable, "-c", program, tiny_dataset], cwd=tmp_path, env=environment, check=True)
    assert (tmp_path / "got.nii.gz").exists()


def commit_files(repository: Path, files: dict[str, bytes]) -> str:
    """Make a repository with one commit of these files, without a checkout; a name ending in @ is a link."""
    run_tool(["git", "init", "-q", repository])
    stream = [b"commit refs/heads/all\ncommitter a <a> 0 +0000\ndata 0\n"]
    for name, content in files.items():
        mode = b"120000" if name.endswith("@") else b"100644"
        stream.append(b"M %s inline %s\ndata %d\n%s\n" % (mode, name.rstrip("@").encode(), len(content), content))
    run_tool(["git", "-C", repository, "fast-import", "--quiet"], stdin=b"".join(stream))
    return run_tool(["git", "-C", repository, "rev-parse", "refs/heads/all"]).stdout.decode().strip()


def test_a_thousand_subjects_within_five_seconds(tmp_path: Path) -> None:
    files: dict[str, bytes] = {"T2w.json": b'{"SliceThickness": 2}'}
    for i in range(1000):
        for suffix in ("T1w", "T2w"):
            stem = f"sub-{i:04}/ses-a/anat/sub-{i:04}_ses-a_{suffix}"
            key = f"SHA256E-s1234567--{i:060x}{suffix.encode()[1:2].hex():>04}.nii.gz"
            files[f"{stem}.nii.gz@"] = f"../../../.git/annex/objects/aa/bb/{key}/{key}".encode()
            files[f"{stem}.json"] = json.dumps({"EchoTime": i, "filling": "x" * 3000}).encode()
        for run in range(4):
            name = f"sub-{i:04}/ses-a/func/sub-{i:04}_ses-a_task-rest_run-{run}_bold.nii.gz@"
            files[name] = f"../../../.git/annex/objects/aa/bb/MD5E-s9--{i}{run}/MD5E-s9--{i}{run}".encode()
    commit = commit_files(tmp_path, files)
    begin = time.monotonic()
    scans = sourcedata._held_at("large", tmp_path, commit, {}).rows
    assert time.monotonic() - begin < 5
    assert len(scans) == 2000 and {scan.bytes for scan in scans} == {1234567}
    assert {(scan.suffix, scan.thickness) for scan in scans} == {("T1w", ""), ("T2w", "2")}


def test_fetches_a_scan_whole(pinned: tuple[Path, Path], tmp_path: Path) -> None:
    dataset, folder = pinned
    for scan in read_scans(folder / "scans.tsv")[1:4]:  # unlocked, locked, held by git
        output = tmp_path / "results" / f"{scan.stem}_{scan.suffix}.nii.gz"
        fetch_scan(output, clone=folder / "clones/tiny", name=scan.name, key=scan.key)
        assert output.read_bytes() == (dataset / scan.path).read_bytes()
        assert os.listdir(output.parent) == [output.name]
    assert not [path for path in (folder / "clones/tiny/.git/annex/objects").rglob("*") if path.is_file()]
    assert not list((tmp_path / "results").rglob(".*"))


def test_an_image_that_nobody_compressed_is_compressed(tmp_path: Path) -> None:
    plain = (348).to_bytes(4, "little") + bytes(3000)
    commit = commit_files(tmp_path / "clone", {"sub-1/anat/sub-1_T1w.nii": plain})
    (scan,) = sourcedata._held_at("tiny", tmp_path / "clone", commit, {}).rows
    contents = []
    for name in ("a", "b"):
        output = tmp_path / name / "sub-1_T1w.nii.gz"
        fetch_scan(output, clone=tmp_path / "clone", path=scan.path, name=scan.name, key=scan.key)
        assert os.listdir(output.parent) == [output.name]
        contents.append(output.read_bytes())
    assert contents[0] == contents[1] and gzip.decompress(contents[0]) == plain


def test_a_scan_that_cannot_be_fetched_is_named_and_the_old_output_stays(
    pinned: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(annex, "sleep", lambda seconds: None)
    _, folder = pinned
    output = tmp_path / "sub-01_T1w.nii.gz"
    output.write_bytes(b"from before")
    key = f"SHA256E-s5--{'a' * 64}.nii.gz"
    with pytest.raises(SourceDataError, match=rf"tiny/sub-01_T1w: .*{key}.*not available"):
        fetch_scan(output, clone=folder / "clones/tiny", name="tiny/sub-01_T1w", key=key)
    with pytest.raises(SourceDataError, match=r"tiny/sub-01_T1w: .*headsr pin"):
        fetch_scan(output, clone=tmp_path / "nosuch", name="tiny/sub-01_T1w", key=key)
    assert output.read_bytes() == b"from before"
    assert not list(tmp_path.glob(".*.nii.gz"))


def test_a_long_report_is_cut() -> None:
    names = tuple(f"tiny/sub-{i}_T1w" for i in range(1000))
    text = PinReport(names, (), (), (), {"tiny": "abc"}, (), True).text()
    assert "added (1000):" in text and "and 980 more" in text and text.count("\n") < 30


@pytest.mark.parametrize("how", ["link", "folder", "file"])
def test_what_lies_where_a_half_clone_would_is_left_alone(tiny_dataset: Path, tmp_path: Path, how: str) -> None:
    own = tmp_path / "own"
    own.mkdir(mode=0o750)
    (own / "thesis.txt").write_text("my own")
    planted = tmp_path / "clones" / ".tiny.partial"
    planted.parent.mkdir()
    if how == "link":
        planted.symlink_to(own)
    elif how == "folder":
        shutil.copytree(own, planted)
    else:
        planted.write_text("my own")
    with pytest.raises(SourceDataError, match=r"\.tiny\.partial: is in the way: .*Move it away and pin again"):
        pin(tmp_path, recipe(tiny_dataset))
    assert stat.S_IMODE(own.stat().st_mode) == 0o750 and planted.is_symlink() == (how == "link")
    assert (planted / "thesis.txt" if how != "file" else planted).read_text() == "my own"
