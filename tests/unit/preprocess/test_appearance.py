"""What a scan shows, and scans in which the head cannot be seen."""

import re

import nibabel as nib
import numpy as np
import pytest

from headsr.preprocess.appearance import oddities_of, shown_in
from headsr.preprocess.bias import bias_field_of, correct_bias
from headsr.preprocess.intensity import normalize_intensity
from headsr.preprocess.load import load_scan, noise_of_corners
from headsr.preprocess.register import save_for_ants
from headsr.sr.given import Slices, read_given
from headsr.volumes import Grid, Volume, VolumeError, load_volume, save_volume


def uni_of(head):
    """The UNI image of MP2RAGE from two noisy inversions: air is a quotient of noise, over the whole range."""
    rng, clean = np.random.default_rng(1), head.data
    tissue = clean > 0.02
    first = np.where(tissue, clean - 0.55, 0) + rng.normal(0, 0.02, clean.shape)
    second = np.where(tissue, 0.8 + 0.2 * clean, 0) + rng.normal(0, 0.02, clean.shape)
    uni = first * second / (first**2 + second**2)
    return Volume(np.rint((uni + 0.5) * 4095).astype(np.float32), head.grid)


def test_a_uni_image_is_refused_by_everything_that_begins_with_a_scan(tmp_path, make_head):
    head, path = make_head(noise=0), tmp_path / "sub-01_T1w.nii.gz"
    save_volume(path, uni_of(head).data, head.grid)
    for begin in (
        load_scan,
        lambda path: correct_bias(path, tmp_path / "out.nii.gz"),
        lambda path: read_given(path, Slices()),
    ):
        with pytest.raises(
            VolumeError, match=r"sub-01_T1w\.nii\.gz: there is noise over the whole range.*MP2RAGE.*UNI-DEN"
        ):
            begin(path)
    assert not (tmp_path / "out.nii.gz").exists()


@pytest.mark.parametrize("noise", [0.0, 0.01, 0.05, 0.1])
def test_the_noise_of_any_usual_scan_is_far_from_that(make_head, noise):
    assert noise_of_corners(make_head(noise=noise)) < 0.12


def test_a_corner_of_tissue_is_no_noise(make_head):
    head = make_head((2.0, 2.0, 2.0), noise=0.01)
    inside = Volume(head.data[25:60, 30:70, 35:60], Grid((35, 40, 25), head.grid.affine))
    assert noise_of_corners(inside) < 0.05
    assert any("shows no air" in said for said in oddities_of(inside))


def test_a_head_as_most_are_has_nothing_odd(make_head, brain_alone):
    head = make_head(noise=0.02)
    assert oddities_of(head) == [] and "whole head" in shown_in(head)
    assert "brain alone" in shown_in(brain_alone(make_head((3.0, 3.0, 3.0))))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda data: np.where(data < 0.02, -1000, 300 * data), "computed tomography"),
        (lambda data: np.where(data > 0.3, 1, 0), "2 different values"),
        (lambda data: with_vessels(0.2 * data), "probably an angiography"),
        (lambda data: np.where(np.indices(data.shape)[0] < 4, data, 0), "9[0-9]% of its voxels are 0"),
    ],
)
def test_what_is_odd_is_said(make_head, change, said):
    head = make_head(noise=0.02)
    found = oddities_of(Volume(change(head.data).astype(np.float32), head.grid))
    assert any(re.search(said, one) for one in found), found


def test_slices_that_were_lost_between_others_are_counted_and_air_at_the_ends_is_not(make_head):
    head = make_head((1.5, 1.5, 6.0), noise=0.02)
    for gone, said in (([0, -1, -2], None), ([8, 11], "2 of its slices hold one value alone")):
        data = head.data.copy()
        data[:, :, gone] = 0
        found = oddities_of(Volume(data, head.grid))
        assert any(said in one for one in found) if said else not any("hold one value" in one for one in found)


def with_vessels(data):
    data = data.copy()
    data[18:26:4, 20:36:4, 10:40] = 1.0
    return data


def test_a_mask_that_is_the_whole_box_is_one(tmp_path, make_head):
    head = make_head()
    save_volume(tmp_path / "scan.nii.gz", head.data, head.grid)
    save_volume(tmp_path / "mask.nii.gz", np.ones(head.data.shape, np.uint8), head.grid)
    normalize_intensity(tmp_path / "scan.nii.gz", tmp_path / "mask.nii.gz", tmp_path / "out.nii.gz", source_key="k")
    assert load_volume(tmp_path / "out.nii.gz").data.max() == pytest.approx(1, abs=0.2)
    save_volume(tmp_path / "mask.nii.gz", np.zeros(head.data.shape, np.uint8), head.grid)
    with pytest.raises(VolumeError, match="no signal inside the head mask"):
        normalize_intensity(tmp_path / "scan.nii.gz", tmp_path / "mask.nii.gz", tmp_path / "out.nii.gz", source_key="k")


def sheared(head):
    affine = head.grid.affine.copy()
    affine[1, 2] = 1.2
    return Volume(head.data, Grid(head.data.shape, affine))


def test_a_tilted_gantry_is_no_matter_to_ants(tmp_path, make_head):
    """ITK reads no axes that are not at right angles, and N4 needs to know distances alone."""
    upright = make_head()
    tilted = sheared(upright)
    difference = np.abs(bias_field_of(tilted, name="x") / bias_field_of(upright, name="x") - 1)
    assert difference.max() < 0.02
    save_for_ants(tmp_path / "a.nii", tilted)
    resampled = load_volume(tmp_path / "a.nii")
    assert not resampled.grid.is_sheared and nib.load(tmp_path / "a.nii").header["qform_code"] == 1
    centre = [
        np.average(nib.affines.apply_affine(v.grid.affine, np.argwhere(v.data > 0.4)), axis=0)
        for v in (tilted, resampled)
    ]
    np.testing.assert_allclose(*centre, atol=0.5)
