"""Which files of a dataset are the lesion masks of which scan."""

import pytest

from headsr.annex import TreeFile
from headsr.companions import companions_of, may_be_companion
from headsr.scans import Scan, parse_name


def scan(name: str) -> Scan:
    subject, stem, suffix = parse_name(name)
    return Scan("demo", subject, stem, suffix, f"{name}.nii.gz", f"MD5E-s1--{name}", 1, "", "test")


def found(scans: list[str], paths: list[str], bids_names: dict[str, str] | None = None) -> dict[str, str]:
    """Name of a companion -> the path that it was found at."""
    files = {path: TreeFile(path, f"MD5E-s7--{path}", 7, None) for path in [*paths, *(bids_names or {})]}
    rows, lonely = companions_of([scan(name) for name in scans], files, bids_names or {})
    assert not lonely
    for row in rows:
        assert (row.key, row.bytes, row.split) == (f"MD5E-s7--{row.path}", 7, "used")
        assert row.of.removeprefix("demo/") in scans
    return {f"{row.scan}_{row.suffix}": row.path for row in rows}


TRUTH = "derivatives/truth/sub-01/anat/sub-01_"


def test_what_simulate_publishes_belongs_to_every_contrast_of_its_head():
    paths = [f"{TRUTH}label-L_mask.nii.gz", f"{TRUTH}dseg.nii.gz"]
    assert found(["sub-01_T1w", "sub-01_FLAIR", "sub-02_T1w"], paths) == {
        "sub-01_label-lesion_desc-T1w_mask": paths[0],
        "sub-01_label-lesion_desc-FLAIR_mask": paths[0],
    }


ALL = ["sub-01_T1w", "sub-01_acq-a_T1w", "sub-01_acq-b_T1w", "sub-01_T2w"]


@pytest.mark.parametrize(
    ("name", "owners"),
    [
        ("sub-01_label-lesion_mask", ALL),
        ("sub-01_label-lesionManual_desc-rater1_mask", ALL),
        ("sub-01_acq-a_label-lesion_mask", ["sub-01_acq-a_T1w"]),
        ("sub-01_label-lesion_desc-T2w_mask", ["sub-01_T2w"]),
        ("sub-01_space-orig_label-L_mask", ALL),
        ("sub-01_space-MNI152NLin6Asym_label-L_mask", []),
        ("sub-01_desc-brain_mask", []),
        ("sub-01_label-lesion_dseg", []),
        ("sub-02_label-lesion_mask", []),
        ("sub-012_label-lesion_mask", []),
    ],
)
def test_a_mask_belongs_to_the_scans_that_its_name_fits(name, owners):
    scans = [*ALL, "sub-01_ses-a_T1w"]
    person = name.split("_")[0]
    for ending in (".nii.gz", ".nii"):
        assert list(found(scans, [f"derivatives/x/{person}/anat/{name}{ending}"])) == [
            f"{one.rpartition('_')[0]}_label-lesion_desc-{one.rpartition('_')[2]}_mask" for one in owners
        ]


def test_the_name_that_says_more_is_nearer():
    paths = [f"x/sub-01/anat/sub-01_{name}_mask.nii.gz" for name in ("label-L", "acq-a_label-L", "label-L_desc-T2w")]
    masks = found(["sub-01_acq-a_T1w", "sub-01_acq-b_T1w", "sub-01_T2w"], paths)
    assert list(masks.values()) == [paths[1], paths[0], paths[2]]


def test_sessions_are_kept_apart():
    paths = [f"d/sub-01/ses-{s}/anat/sub-01_ses-{s}_label-lesion_mask.nii.gz" for s in "ab"]
    scans = ["sub-01_ses-a_T1w", "sub-01_ses-b_T1w", "sub-01_ses-c_T1w"]
    assert list(found(scans, paths).values()) == paths
    assert not may_be_companion("d/sub-01/ses-a/anat/sub-01_ses-b_label-lesion_mask.nii.gz")
    assert not may_be_companion("d/sub-01/anat/sub-02_label-lesion_mask.nii.gz")


def test_of_two_that_fit_alike_neither_is_taken(caplog):
    paths = [f"derivatives/{rater}/sub-01/anat/sub-01_label-lesion_mask.nii.gz" for rater in "ab"]
    name = "sub-01_label-lesion_desc-T1w_mask"
    assert found(["sub-01_T1w"], paths) == {}
    assert f"give one the name {name} in the dataset's bids_names" in caplog.text
    assert found(["sub-01_T1w"], paths[:1], {paths[1]: name}) == {name: paths[1]}


def test_a_named_file_belongs_to_that_scan_alone():
    path = "sub-01/anat/sub-01_acq-T2sel_FLAIR_roi.nii.gz"
    names = {path: "sub-01_acq-T2sel_label-lesion_desc-FLAIR_mask"}
    scans = ["sub-01_T1w", "sub-01_acq-T2sel_FLAIR"]
    assert found(scans, [f"{TRUTH}label-L_mask.nii.gz"], names) == {
        "sub-01_label-lesion_desc-T1w_mask": f"{TRUTH}label-L_mask.nii.gz",
        "sub-01_acq-T2sel_label-lesion_desc-FLAIR_mask": path,
    }
    files = {path: TreeFile(path, "k", 1, None)}
    assert companions_of([scan("sub-01_T1w")], files, names) == ([], [path])
