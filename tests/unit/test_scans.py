import csv
import dataclasses
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headsr.files import NotAFileError, UnreadableError
from headsr.recipes import load_config, load_recipes
from headsr.scans import (
    COLUMNS,
    COMPANIONS,
    ENTITIES,
    PINNED_PATTERN,
    SPLITS,
    SUFFIXES,
    Scan,
    ScansError,
    companion_name,
    copies_in_splits,
    may_be_named,
    other_splits,
    parse_companion,
    parse_name,
    parse_path,
    read_pins,
    read_scans,
    write_scans,
)

TRUE_KEYS = Path(__file__).parents[3] / "shared/data/openneuro/anat_keys.tsv"
KEY = f"SHA256E-s12--{'0' * 64}.nii.gz"
SCAN = Scan("demo", "sub-01", "sub-01", "T1w", "sub-01/anat/sub-01_T1w.nii.gz", KEY, 12, "", "train")
SESSION = Scan(
    "demo", "sub-02", "sub-02_ses-a_run-1", "FLAIR", "sub-02/ses-a/anat/sub-02_ses-a_run-1_FLAIR.nii.gz", KEY, 0, "2.5",
    "test",
)  # fmt: skip
AVERAGE = Scan(
    "demo", "sub-03", "sub-03_ses-b_rec-average", "T1w", "derivatives/average+/sub-03_mean.nii.gz", KEY, 3, "", "test"
)

LESION = Scan(
    "demo", "sub-01", "sub-01_label-lesion_desc-T1w", "mask", "derivatives/made/sub-01.nii.gz", KEY, 4, "", "used",
    of="demo/sub-01_T1w",
)  # fmt: skip

labels = st.text("abcXYZ019", min_size=1, max_size=8)
entities = st.dictionaries(st.sampled_from(ENTITIES), labels)


@given(subject=labels, session=st.none() | labels, others=entities, suffix=st.sampled_from(SUFFIXES))
def test_every_anatomical_name_comes_apart_and_together(subject, session, others, suffix) -> None:
    folder = f"sub-{subject}" + (f"/ses-{session}" if session else "")
    stem = "_".join([folder.replace("/", "_"), *(f"{name}-{label}" for name, label in others.items())])
    path = f"{folder}/anat/{stem}_{suffix}.nii.gz"
    assert parse_path(path) == parse_name(f"{stem}_{suffix}") == (f"sub-{subject}", stem, suffix)
    assert parse_path(path.removesuffix(".gz")) == parse_path(path)
    scan = Scan("demo", f"sub-{subject}", stem, suffix, path, KEY, 1, "", "unused")
    assert scan.folder == folder
    assert scan.name == f"demo/{stem}_{suffix}"
    assert scan.stem == f"demo/{folder}/{stem}"


@given(subject=labels, others=entities, suffix=st.sampled_from(SUFFIXES), kind=st.sampled_from(sorted(COMPANIONS)))
def test_the_name_of_a_companion_says_whose_it_is(subject, others, suffix, kind) -> None:
    stem = "_".join([f"sub-{subject}", *(f"{name}-{label}" for name, label in others.items())])
    scan = Scan("demo", f"sub-{subject}", stem, suffix, "x.nii.gz", KEY, 1, "", "unused")
    name = "_".join(companion_name(scan, kind))
    assert parse_companion(name) == (f"{stem}_{suffix}", kind)
    assert parse_name(name) is None and parse_companion(f"{stem}_{suffix}") is None
    assert all(re.fullmatch(PINNED_PATTERN, one) for one in (name, f"{stem}_{suffix}"))


@pytest.mark.parametrize(
    "path",
    [
        "sub-01/anat/sub-02_T1w.nii.gz",
        "sub-01/ses-a/anat/sub-01_T1w.nii.gz",
        "sub-01/ses-a/anat/sub-01_ses-b_T1w.nii.gz",
        "sub-01/ses-a/anat/sub-01_ses-a_ses-b_T1w.nii.gz",
        "sub-01/anat/sub-01_ses-a_T1w.nii.gz",
        "sub-01/anat/sub-01_bold.nii.gz",
        "sub-01/anat/sub-01_T1w.mgz",
        "sub-01/anat/sub-01_T1w.json",
        "sub-01/func/sub-01_T1w.nii.gz",
        "sub-01/anat/sub-01_desc-preproc_T1w.nii.gz",
        "derivatives/sub-01/anat/sub-01_T1w.nii.gz",
        "sub-01/anat/../anat/sub-01_T1w.nii.gz",
        "sub-01/anat/sub-01_T1w.nii.gz\n",
        "sub-0 1/anat/sub-0 1_T1w.nii.gz",
        "",
    ],
)
def test_any_other_file_is_no_scan(path: str) -> None:
    assert parse_path(path) is None


@pytest.mark.parametrize(
    "name",
    ["sub-01", "sub-01_bold", "T1w", "sub-01_T1w.nii.gz", "sub-01_acq-x_ses-a_T1w", "sub-01_ses-a_ses-b_T1w",
     "sub-01_ses-a+b_T1w", "sub-01_desc-x_T1w", "sub-01_part-phase_T1w", "sub-01_part-magic_T1w", "sub-0 1_T1w", ""],
)  # fmt: skip
def test_any_other_name_is_no_scan(name: str) -> None:
    assert parse_name(name) is None


@pytest.mark.parametrize(
    ("path", "name", "allowed"),
    [
        ("derivatives/sub-01/mean.nii.gz", "sub-01_rec-mean_T1w", True),
        ("derivatives/sub-01/anat/sub-01_T1w.nii.gz", "sub-01_rec-mean_T1w", True),  # the same name, another folder
        ("sub-01/anat/sub-01_UNIT1.nii.gz", "sub-01_acq-mp2rage_T1w", True),  # a name that BIDS has and headsr has not
        ("sub-01/anat/sub-01_T1w.nii.gz", "sub-01_T1w", True),
        ("sub-01/anat/sub-01_ses-a_T1w.nii.gz", "sub-01_ses-a_T1w", True),  # BIDS wants a folder ses-a
        ("sub-01/anat/sub-01_T1w.nii.gz", "sub-01_rec-mean_T1w", False),
        ("sub-01/anat/sub-02_T1w.nii.gz", "sub-01_T1w", False),
        ("derivatives/sub-01/mean.nii", "sub-01_rec-mean_T1w", True),
        ("derivatives/sub-01/mean.mgz", "sub-01_rec-mean_T1w", False),
        ("sub-01/anat/sub-01_part-phase_T1w.nii.gz", "sub-01_rec-phase_T1w", True),
        ("sub-01/anat/sub-01_T1w.nii", "sub-01_rec-mean_T1w", False),
    ],
)
def test_a_file_that_has_a_bids_name_gets_no_other(path: str, name: str, allowed: bool) -> None:
    assert may_be_named(path, name) == allowed


@pytest.mark.parametrize("scan", ["sub-012", "sub-01x_run-1"])
def test_a_longer_label_is_another_person(scan: str) -> None:
    """sub-01's folder must not take sub-012's file, though the one name begins with the other."""
    assert parse_path(f"sub-01/anat/{scan}_T1w.nii.gz") is None


def test_a_table_round_trips_sorted(tmp_path: Path) -> None:
    table = tmp_path / "config" / "scans.tsv"
    other = dataclasses.replace(SCAN, dataset="abc", split="unused")
    write_scans(table, [SESSION, SCAN, AVERAGE, other])
    assert read_scans(table) == (other, AVERAGE, SCAN, SESSION)
    assert table.read_text().splitlines()[0].split("\t") == list(COLUMNS)
    write_scans(table, [other, SESSION, SCAN])
    assert read_scans(table) == (other, SCAN, SESSION)
    assert os.listdir(table.parent) == ["scans.tsv"]
    write_scans(table, [])
    assert read_scans(table) == ()


def test_a_scan_lies_where_its_name_says_wherever_its_dataset_keeps_it() -> None:
    assert AVERAGE.folder == "sub-03/ses-b"
    assert AVERAGE.stem == "demo/sub-03/ses-b/sub-03_ses-b_rec-average"


def test_companions_stand_in_the_table_and_are_no_scans(tmp_path: Path) -> None:
    table = tmp_path / "scans.tsv"
    write_scans(table, [SCAN, LESION])
    assert read_pins(table) == (LESION, SCAN)
    assert read_scans(table) == (SCAN,)
    assert not any(line.endswith("\t") for line in table.read_text().splitlines())  # nothing for editors to strip


def test_a_table_from_before_there_were_companions_is_read(tmp_path: Path) -> None:
    table = tmp_path / "scans.tsv"
    write_scans(table, [SCAN, SESSION])
    rows = [line.split("\t") for line in table.read_text().splitlines()]
    place = rows[0].index("of")
    table.write_text("".join("\t".join(row[:place] + row[place + 1 :]) + "\n" for row in rows))
    assert "of" not in table.read_text().splitlines()[0].split("\t")
    assert read_pins(table) == (SCAN, SESSION)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"of": "demo/sub-01_T2w"}, "is not the name of a companion of 'sub-01_T2w'"),
        ({"of": "other/sub-01_T1w"}, "is not the name of a companion of 'other/sub-01_T1w'"),
        ({"of": ""}, "'sub-01_label-lesion_desc-T1w_mask' is not the BIDS name of a scan of 'sub-01'"),
        ({"subject": "sub-02"}, "is not the name of a companion of 'sub-01_T1w' of 'sub-02'"),
        ({"split": "test"}, "split 'test' must be one of used, unused"),
        ({"path": "sub-01/anat/sub-01_T1w.nii.gz"}, "do not match the path"),
        ({"scan": "sub-09_label-lesion_desc-T1w", "subject": "sub-09", "of": "demo/sub-09_T1w"}, "which has no row"),
    ],
)
def test_a_companion_of_another_scan_is_refused(change: dict, message: str, tmp_path: Path) -> None:
    table = tmp_path / "scans.tsv"
    write_scans(table, [SCAN, dataclasses.replace(LESION, **change)])
    with pytest.raises(ScansError, match=re.escape(message)):
        read_scans(table)


def broken(tmp_path: Path, change) -> Path:
    table = tmp_path / "scans.tsv"
    write_scans(table, [SCAN, SESSION])
    table.write_text(change(table.read_text()))
    return table


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: "", "its columns must be"),
        (lambda text: text.replace("split", "Split", 1), "its columns must be"),
        (lambda text: text.replace("\ttrain", "", 1), "line 2: the row does not have 10 columns"),
        (lambda text: text.replace("\ttrain", "\ttrain\tmore", 1), "line 2: the row does not have 10 columns"),
        (lambda text: text.replace("\ttest", "\ttesting", 1), "line 3: split 'testing' must be one of"),
        (lambda text: text.replace("\tT1w\t", "\tT2w\t", 1), "line 2: subject, scan or suffix do not match the path"),
        (lambda text: text.replace("demo\t", "de_mo\t", 1), "line 2: the dataset name 'de_mo'"),
        (lambda text: text.replace(KEY, "", 1), "line 2: key or bytes is missing"),
        (lambda text: text.replace("\t12\t", "\t-12\t", 1), "line 2: key or bytes is missing"),
        (lambda text: text.replace("\t12\t", "\t²\t", 1), "line 2: key or bytes is missing"),
        (lambda text: text.replace("\t12\t", f"\t{'9' * 5000}\t", 1), "line 2: key or bytes is missing"),
        (lambda text: text.replace("demo\t", '"demo\t', 1), "line 3: the row does not have 10 columns"),
        (
            lambda text: text.replace("demo\t", "d" * 200_000 + "\t", 1),
            "line 2: cannot be read as a table (field larger",
        ),
        (lambda text: text + text.splitlines()[1] + "\n", "demo/sub-01_T1w is listed twice"),
        (
            lambda text: text + text.splitlines()[1].replace(SCAN.path, AVERAGE.path) + "\n",
            f"demo/sub-01_T1w is listed twice, as {SCAN.path} and {AVERAGE.path}",
        ),
        (lambda text: text.replace("_run-1\tFLAIR", "\tFLAIR", 1), "line 3: subject, scan or suffix do not match"),
        (lambda text: text.replace(SCAN.path, "derivatives/sub-01.mgz", 1), "line 2: subject, scan or suffix do not"),
        (lambda text: text.replace("\tsub-01\tsub-01\t", "\tsub-01\tmean\t", 1), "line 2: 'mean_T1w' is not the BIDS"),
        (lambda text: text.replace("\tsub-01\tsub-01\t", "\tsub-2\tsub-01\t", 1), "of a scan of 'sub-2'"),
    ],
)
def test_a_broken_table_names_the_file_and_the_line(change, message: str, tmp_path: Path) -> None:
    table = broken(tmp_path, change)
    with pytest.raises(UnreadableError, match=re.escape(message)) as raised:
        read_scans(table)
    assert str(raised.value).startswith(str(table))


def test_a_missing_table_says_how_to_write_it(tmp_path: Path) -> None:
    with pytest.raises(ScansError, match=r"nosuch\.tsv: .*headsr pin"):
        read_scans(tmp_path / "nosuch.tsv")


def test_a_failed_write_leaves_the_old_table(tmp_path: Path) -> None:
    table = tmp_path / "scans.tsv"
    write_scans(table, [SCAN])
    with pytest.raises(UnicodeEncodeError):
        write_scans(table, [dataclasses.replace(SCAN, thickness="\udcff")])
    assert read_scans(table) == (SCAN,)


def test_the_splits_and_suffixes_are_those_of_the_docs() -> None:
    assert SPLITS == ("train", "val", "test", "unused")
    assert SUFFIXES == ("T1w", "T2w", "PDw", "FLAIR")


def test_importing_what_every_job_imports_brings_only_the_standard_library() -> None:
    program = (
        "import sys; before = set(sys.modules); import headsr.scans, headsr.annex, headsr.sourcedata\n"
        "new = {name.split('.')[0] for name in set(sys.modules) - before}\n"
        "foreign = new - sys.stdlib_module_names - {'headsr'}; assert not foreign, foreign"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_the_shipped_table_has_the_scans_of_the_shipped_datasets() -> None:
    datasets = {name: one for name, one in load_recipes(load_config([])).datasets.items() if one.kind == "scans"}
    scans = read_scans("config/scans.tsv")
    assert {scan.dataset for scan in scans} == set(datasets)
    named = {(name, *place) for name, dataset in datasets.items() for place in dataset.bids_names.items()}
    elsewhere = [scan for scan in scans if parse_path(scan.path) is None]
    assert {(scan.dataset, scan.path, f"{scan.scan}_{scan.suffix}") for scan in elsewhere} == named
    for scan in scans:
        splits = datasets[scan.dataset].splits
        assert scan.subject in splits[scan.split], scan.name


@pytest.mark.skipif(not TRUE_KEYS.exists(), reason="the list of OpenNeuro's true keys is not here")
def test_the_shipped_table_pins_the_true_content() -> None:
    datasets = load_recipes(load_config([])).datasets
    with TRUE_KEYS.open(encoding="utf-8") as stream:
        true = {(row["dataset"], row["path"]): row for row in csv.DictReader(stream, delimiter="\t")}
    scans = read_scans("config/scans.tsv")
    for scan in scans:
        row = true[scan.dataset, scan.path]
        assert (scan.key, str(scan.bytes)) == (row["annex_key"], row["bytes"]), scan.name
        assert datasets[scan.dataset].version in (row["tag"], row["commit"])
        assert datasets[scan.dataset].license == row["license"]
    shipped = {(scan.dataset, scan.path) for scan in scans}
    anatomical = {place for place in true if place[0] in datasets and parse_path(place[1]) is not None}
    assert anatomical <= shipped


def test_a_scan_table_that_is_a_pipe_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "scans.tsv")
    with pytest.raises(NotAFileError, match=r"scans\.tsv: is a pipe or a device"):
        read_pins(tmp_path / "scans.tsv")


def test_a_scan_table_with_line_ends_of_windows_is_read(tmp_path):
    write_scans(tmp_path / "scans.tsv", [SCAN])
    text = (tmp_path / "scans.tsv").read_bytes().replace(b"\n", b"\r\n")
    (tmp_path / "windows.tsv").write_bytes(text)
    assert read_scans(tmp_path / "windows.tsv") == read_scans(tmp_path / "scans.tsv")


def test_a_person_whose_split_is_another_than_the_recipe_says_is_named():
    run = dataclasses.replace(SCAN, scan="sub-01_run-2", split="unused")
    assert other_splits("demo", {"train": ["sub-01"], "test": ["02"]}, [SCAN, run, SESSION]) == []  # one run left out
    first, second = other_splits("demo", {"test": ["01"], "val": ["sub-02", "sub-99"]}, [SCAN, SESSION])
    said = "demo: its recipe says test of sub-01, and the table of pins, which decides, says train. Write the same in"
    assert first.startswith(said) and "says val of sub-02" in second and "decides, says test" in second
    assert other_splits("other", {"test": ["sub-01"]}, [SCAN]) == []
    many = [dataclasses.replace(SCAN, subject=f"sub-{number}") for number in range(7)]
    (said,) = other_splits("demo", {"val": [one.subject for one in many]}, many)
    assert "sub-0, sub-1, sub-2, sub-3, sub-4 and 2 more" in said


def test_one_content_in_several_splits_is_named() -> None:
    other, unused = (dataclasses.replace(SCAN, scan=f"sub-{n}", split=s) for n, s in ((4, "train"), (5, "unused")))
    (said,) = copies_in_splits([SCAN, SESSION, other, unused])
    assert said.startswith("demo/sub-01_T1w and demo/sub-02_ses-a_run-1_FLAIR have one content")
    assert "in the splits train and test: scores" in said
    apart = dataclasses.replace(SESSION, key=KEY.replace("s12", "s13"))
    assert copies_in_splits([SCAN, apart, other, dataclasses.replace(SESSION, split="unused")]) == []


@pytest.mark.parametrize(
    ("written", "read"),
    [("n/a", ""), ("5,5", "5.5"), (" 0,625 ", "0.625"), ("5.5", "5.5"), ("11", "11"), ("1e1", "1e1")],
)
def test_a_thickness_is_read_as_people_write_it(written: str, read: str, tmp_path: Path) -> None:
    table = tmp_path / "scans.tsv"
    write_scans(table, [dataclasses.replace(SCAN, thickness=written)])
    assert read_scans(table)[0].thickness == read


@pytest.mark.parametrize("written", ["5.5 mm", "nan", "-5", "0", "inf", "5,5,5", "5,", ",5", "NA"])
def test_any_other_thickness_is_refused_with_its_line(written: str, tmp_path: Path) -> None:
    table = tmp_path / "scans.tsv"
    write_scans(table, [dataclasses.replace(SCAN, thickness=written)])
    with pytest.raises(ScansError, match=f"line 2: thickness '{re.escape(written)}' is no size in mm"):
        read_scans(table)


def test_a_table_that_a_spreadsheet_marked_is_read(tmp_path: Path) -> None:
    table = tmp_path / "scans.tsv"
    write_scans(table, [SCAN, LESION])
    table.write_bytes(b"\xef\xbb\xbf" + table.read_bytes())
    assert read_pins(table) == (LESION, SCAN)
