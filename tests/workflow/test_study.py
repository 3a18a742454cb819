"""Nothing of one scan ever reaches the results of another: every scan carries a number, and every result is read."""

import pytest
from study import NUMBERS, PEOPLE, SCANS, WITH_LESIONS, number_in, path_of

from headsr.files import read_json
from headsr.render import store as stores
from headsr.scans import read_scans
from headsr.volumes import save_volume

MADE = {
    "the preprocessed scan": "preprocessed/demo/{folder}/{stem}_desc-preproc_{suffix}.nii.gz",
    "the thick scan": "lowres/axial_x2/demo/{folder}/{stem}_desc-axial_{suffix}.nii.gz",
    "the volume": "reconstructions/demo/headsr-spline-axial_x2/{folder}/anat/{stem}_res-hi_desc-sr_{suffix}.nii.gz",
    "the volume before projection": "reconstructions/demo/headsr-spline-axial_x2/{folder}/anat/"
    "{stem}_res-hi_desc-unprojected_{suffix}.nii.gz",
}


def made(project, what, name):
    stem, suffix = name.rsplit("_", 1)
    folder = path_of(name).split("/anat/")[0]
    return project / "results" / what.format(folder=folder, stem=stem, suffix=suffix)


@pytest.mark.parametrize("what", MADE.values(), ids=MADE)
def test_every_scan_s_number_is_in_its_own_results(finished_study, what):
    read = {name: number_in(made(finished_study, what, name)) for name in SCANS}
    assert read == NUMBERS
    folder = finished_study / "results" / what.split("/demo/")[0]
    pattern = what.rsplit("desc-", 1)[1].replace("{suffix}", "*")
    assert len(list(folder.rglob(f"*desc-{pattern}"))) == len(SCANS)


@pytest.mark.parametrize("name", [SCANS[0], SCANS[7], SCANS[-1]])
def test_the_zarr_volume_has_the_number_too(finished_study, name, tmp_path):
    store = made(finished_study, MADE["the volume"].replace(".nii.gz", ".ome.zarr/zarr.json"), name)
    save_volume(tmp_path / "volume.nii.gz", stores.read_level(store), stores.read_grid(store), description="")
    assert number_in(tmp_path / "volume.nii.gz") == NUMBERS[name]


def test_every_score_and_sidecar_names_the_key_of_its_own_scan(finished_study):
    keys = {f"{scan.scan}_{scan.suffix}": scan.key for scan in read_scans(finished_study / "scans.tsv")}
    for name in SCANS:
        score = made(finished_study, "scores/voxels/spline/axial_x2/demo/{folder}/{stem}_{suffix}.json", name)
        assert read_json(score)["source_key"] == keys[name]
        sidecar = made(finished_study, MADE["the volume"].replace(".nii.gz", ".json"), name)
        assert read_json(sidecar)["headsr"]["source_key"] == keys[name]


def test_the_lesion_of_one_head_never_scores_another(finished_study):
    for name in SCANS:
        score = read_json(
            made(finished_study, "scores/voxels/spline/axial_x2/demo/{folder}/{stem}_{suffix}.json", name)
        )
        masks = {row["mask"] for row in score["rows"]}
        if name in WITH_LESIONS:
            assert score["mask"]["lesion"] == NUMBERS[name] and masks == {"head", "lesion"}
        else:
            assert set(score["mask"]) == masks == {"head"}
    assert "(of 3)" in (finished_study / "results/tables/study.md").read_text()


def test_the_missing_contrast_is_missed_and_nothing_else(finished_study):
    scans = read_scans(finished_study / "scans.tsv")
    assert {f"{scan.scan}_{scan.suffix}" for scan in scans} == set(SCANS)
    assert {scan.subject for scan in scans if scan.suffix == "T2w"} == set(PEOPLE[:2])
    assert not list((finished_study / "results").rglob("sub-03*_T2w*"))
