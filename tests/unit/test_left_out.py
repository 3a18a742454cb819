"""Every image of a dataset that is no scan is counted with its reason."""

import pytest

from headsr.left_out import left_out, why_left_out


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("sub-1/anat/sub-1_CT.nii.gz", "of suffix CT, which headsr does not take yet"),
        ("sub-1/anat/sub-1_UNIT1.nii.gz", "of suffix UNIT1, none of T1w, T2w, PDw, FLAIR"),
        ("sub-1/anat/sub-1_space-MNI_desc-brain_mask.nii.gz", "of suffix mask, none of"),
        ("sub-1/anat/sub-1_echo-1_part-phase_T2w.nii", "of another part of a complex image than its magnitude"),
        ("sub-1/anat/sub-1_part-real_run-1_T2w.nii", "of another part of a complex image than its magnitude"),
        ("sub-1/anat/sub-1_inv-2_T1w.nii.gz", "with inv-, an entity that no scan of headsr has"),
        ("sub-1/anat/sub-1_desc-preproc_T1w.nii.gz", "with desc-, an entity"),
        ("sub-1/anat/sub-2_T1w.nii.gz", "in the folder of another person or session than its name says"),
        ("sub-1/ses-a/anat/sub-1_T1w.nii.gz", "in the folder of another person or session than its name says"),
        ("sub-1/anat/sub-1_t1w.nii.gz", "without a scan's name (sub-1/"),
        ("sub-1/anat/sub-1_T1w.NII.GZ", "without a scan's name"),
        ("sub-A_B/anat/sub-A_B_T1w.nii.gz", "without a scan's name"),
        ("sub-1/ses-1-2/anat/sub-1_ses-1-2_T1w.nii.gz", "without a scan's name"),
        ("sub-\u00e9/anat/sub-\u00e9_T1w.nii.gz", "without a scan's name"),
        ("sub-1/anat/IM0001.dcm", "in another format than NIfTI"),
        ("sub-1/anat/sub-1_T1w.nii.gz", "of which git-annex has no content"),
        ("sub-1/sub-1_T1w.nii.gz", "beside an anat folder, not in it"),
        ("sub-1/Anat/sub-1_T1w.nii.gz", "in Anat, not in anat"),
        ("sub-1/func/sub-1_task-rest_bold.nii.gz", "in func, not in anat"),
        ("derivatives/x/sub-1/anat/sub-1_T1w.nii.gz", "outside the folders of people (sub-*)"),
        ("T1w.nii.gz", "outside the folders of people (sub-*)"),
    ],
)
def test_why_an_image_is_no_scan(path: str, why: str) -> None:
    assert why_left_out(path).startswith(why)


def test_images_are_counted_by_reason_and_other_files_are_not_named() -> None:
    pinned = {"sub-1/anat/sub-1_T1w.nii.gz"}
    bold = [f"sub-{n}/func/sub-{n}_task-rest_bold.nii.gz" for n in range(1, 6)]
    paths = [*pinned, *bold, "README", "sub-1/anat/sub-1_T1w.json", "sub-1/anat/sub-1_T1w.nii", "code/\x1b.nii"]
    assert left_out(paths, pinned) == [
        "1 image outside the folders of people (sub-*): code/\\x1b.nii",
        "1 image beside a .nii.gz of the same name: sub-1/anat/sub-1_T1w.nii",
        f"5 images in func, not in anat: {', '.join(bold[:3])}, ...",
    ]
