"""What is known of the slices of a scan, who says so, and what is no scan."""

import numpy as np
import pytest

from headsr.acquisition.thickness import ThicknessEstimate
from headsr.sr import given
from headsr.sr.given import Slices, read_given, views_of
from headsr.volumes import VolumeError


def test_the_sidecar_says_how_thick_slices_are(scan):
    one = read_given(scan(metadata={"SliceThickness": 3.5}), Slices())
    assert (one.axis, one.plane, one.spacing, one.thickness) == (2, "axial", 4.0, 3.5)
    assert "sidecar" in one.thickness_from and "3.5 mm thick" in one.words()


@pytest.mark.parametrize(
    ("slices", "thickness"), [(Slices(thickness_mm=5), 5.0), (Slices(gap_mm=1), 3.0), (Slices(gap_mm=-1), 5.0)]
)
def test_what_a_person_says_counts_for_more(scan, slices, thickness):
    one = read_given(scan(metadata={"SliceThickness": 3.5}), slices)
    assert one.thickness == thickness and "you say" in one.thickness_from


def test_both_thickness_and_gap_are_one_too_many():
    with pytest.raises(ValueError, match="twice"):
        Slices(thickness_mm=4, gap_mm=0)


def test_slices_as_fine_as_pixels_have_no_gap(scan):
    one = read_given(scan(size=(1, 1, 1.4)), Slices())
    assert one.thickness == pytest.approx(1.4) and not one.is_thick


def test_a_scan_that_nobody_describes_is_asked_itself(scan, monkeypatch):
    asked = []

    def estimate(volume, axis, head, *, profile):
        asked.append((volume.data.shape, axis, head.shape, profile))
        return ThicknessEstimate(4.4, (4.0, 5.0))

    monkeypatch.setattr(given, "estimate_thickness", estimate)
    found = read_given(scan(), Slices(profile="gaussian"))
    assert asked == [((48, 50, 12), 2, (48, 50, 12), "gaussian")]
    assert found.thickness == 4.4 and "estimated from the scan, 4 to 5 mm" in found.words()


def test_slices_of_which_nobody_tells_the_thickness_are_refused_with_the_way_out(scan):
    with pytest.raises(VolumeError, match=r"sub-01_T1w.*4 mm apart.*only 8 slices.*--thickness MM"):
        read_given(scan(shape=(48, 50, 8)), Slices())


@pytest.mark.parametrize("content", [b"{", b"[1]", b"\xff\xfe", b'{"SliceThickness": NaN}', b"[" * 100_000])
def test_a_sidecar_that_is_none_is_refused_by_name(scan, content):
    path = scan()
    path.with_name("sub-01_T1w.json").write_bytes(content)
    with pytest.raises(VolumeError, match=r"sub-01_T1w\.json: "):
        read_given(path, Slices())


def test_a_thickness_that_is_written_as_text_is_that_number(scan):
    assert read_given(scan(metadata={"SliceThickness": "3.50"}), Slices()).thickness == 3.5


@pytest.mark.parametrize("said", ["4 mm", "inf", "", True, [4], 0, -1])
def test_a_thickness_that_is_no_number_is_refused_by_the_name_of_the_sidecar(scan, said):
    with pytest.raises(VolumeError, match=r"sub-01_T1w\.json: SliceThickness"):
        read_given(scan(metadata={"SliceThickness": said}), Slices())


@pytest.mark.parametrize("thickness", [0.1, 17.0])
def test_a_thickness_that_cannot_be_is_refused(scan, thickness):
    with pytest.raises(VolumeError, match="cannot be 4 mm apart"):
        read_given(scan(), Slices(thickness_mm=thickness))


def test_dicom_is_refused_with_the_line_that_converts_it(tmp_path):
    with pytest.raises(VolumeError, match="dcm2niix"):
        read_given(tmp_path, Slices())
    file = tmp_path / "IM0001"
    file.write_bytes(bytes(128) + b"DICM" + bytes(100))
    with pytest.raises(VolumeError, match=r"IM0001: is a DICOM file.*dcm2niix"):
        read_given(file, Slices())


def test_scans_along_one_axis_have_names_of_their_own(scan):
    axial = read_given(scan("a.nii.gz"), Slices(gap_mm=0))
    sagittal = read_given(scan("b.nii.gz", shape=(12, 50, 48), size=(4, 1, 1)), Slices(gap_mm=0))
    assert views_of([axial, sagittal, axial, axial]) == ["axial", "sagittal", "axial2", "axial3"]


def test_slices_are_those_of_the_head_whatever_the_order_of_the_file_s_axes(scan):
    one = read_given(scan(axes="SLP"), Slices(gap_mm=0))
    assert (one.plane, one.volume.axes) == ("axial", "SLP")
    assert np.allclose(one.volume.grid.voxel_size, [1, 1, 4])
