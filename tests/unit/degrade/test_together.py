import json
from pathlib import Path

import numpy as np
import pytest
import torch
from stacks_of_waves import BOX_MM, placement_error, rigid, stack

from headsr.acquisition.measurement import Protocol, load_study, save_measurement
from headsr.acquisition.placement import PlacedScan
from headsr.degrade.lowres import acquired_head
from headsr.degrade.together import _as_read, align_scan
from headsr.files import head_mask_of, sha256_of, sidecar_of
from headsr.volumes import AXES, Grid, Volume, VolumeError, load_volume


def scan_file(name):
    return f"sub-01_desc-{name}_T1w.nii.gz"


TRUE = rigid((4, -3, 5), (5, -4, 6))


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """As the workflow runs it; on small volumes more threads only wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def measured(folder, name, view, *, scale, **how):
    volume = stack(view, **how)
    head = acquired_head(volume.grid, AXES[view])
    protocol = Protocol(
        view=view,
        profile="box",
        thickness=8.0,
        noise=0.01,
        head_shape=head.shape,
        head_affine=tuple(map(tuple, head.affine.tolist())),
        scale=scale,
        offset=0.0,
        degradation="acquired_together",
        source_key=f"MD5E-s1--{name}.nii.gz",
    )
    path = folder / scan_file(name)
    save_measurement(path, torch.as_tensor(volume.data), volume.grid, protocol, volume.data > 0.2)
    return path


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """The first scan of a head as measured, and a second one that is half as bright, moved and aligned."""
    folder = tmp_path_factory.mktemp("together")
    first = measured(folder, "axial", "axial", scale=700.0)
    second = measured(folder, "coronal", "coronal", scale=300.0, to_head=TRUE, gain=0.5)
    names = {"moving_name": "tiny/sub-01_acq-coronal_T1w", "reference_name": "tiny/sub-01_acq-axial_T1w"}
    align_scan(second, first, folder / scan_file("aligned"), **names)
    return folder, names


def test_the_scans_are_one_study_in_the_reference_intensities(study):
    folder, _ = study
    one = load_study([folder / scan_file("axial"), folder / scan_file("aligned")])
    assert [scan.view for scan in one.scans] == ["axial", "coronal"] and one.scale == 700
    assert one.source_key == "MD5E-s1--axial.nii.gz"
    assert one.scans[1].noise == pytest.approx(0.02, rel=0.01)
    assert torch.equal(
        one.scans[1].head.sum(), torch.as_tensor(load_volume(folder / scan_file("coronal")).data > 0.2).sum()
    )
    bright = [float(scan.data[scan.data > 0.2].mean()) for scan in one.scans]
    assert bright[0] == pytest.approx(bright[1], rel=0.02)


def test_the_scan_lies_where_the_head_was_and_the_sidecar_says_how_it_came_there(study):
    folder, names = study
    record = json.loads(sidecar_of(folder / scan_file("aligned")).read_text())["alignment"]
    assert {"moving": names["moving_name"], "reference": names["reference_name"]}.items() <= record.items()
    motion, nominal = np.array(record["motion"]), load_volume(folder / scan_file("coronal"))
    degrees, mm = placement_error(motion, TRUE)
    assert degrees < 0.1 and mm < 0.1, f"{degrees:.3f} degrees, {mm:.3f} mm, of slices of 8 mm"
    aligned = load_volume(folder / scan_file("aligned"))
    np.testing.assert_allclose(aligned.grid.affine, motion @ nominal.grid.affine, atol=1e-4)
    np.testing.assert_allclose(aligned.data * record["after"]["gain"], nominal.data, atol=1e-6)
    assert record["after"]["gain"] == pytest.approx(0.5, rel=0.005)
    assert record["after"]["correlation"] > 0.95 > 0.7 > record["before"]["correlation"]
    assert record["after"]["residual"] < 0.5 * record["before"]["residual"]
    assert record["moving_source_key"] == "MD5E-s1--coronal.nii.gz"


def test_the_same_bytes_twice(study):
    folder, names = study
    align_scan(folder / scan_file("coronal"), folder / scan_file("axial"), folder / scan_file("again"), **names)
    first, second = (folder / scan_file(name) for name in ("aligned", "again"))
    for beside in (Path, sidecar_of, head_mask_of):
        assert sha256_of(beside(first)) == sha256_of(beside(second))


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ({"person": 2}, "correlate by 0"),
        ({"box": BOX_MM * (1, 1, 0.3), "to_head": rigid((0, 0, 0), (0, 0, -90))}, "share only|correlate by"),
    ],
)
def test_a_scan_of_another_person_or_another_place_is_refused_by_both_names(study, tmp_path, wrong, why):
    folder, names = study
    stranger = measured(tmp_path, "stranger", "coronal", scale=500.0, **wrong)
    match = rf"tiny/sub-01_acq-coronal_T1w cannot be aligned to tiny/sub-01_acq-axial_T1w: .*({why}).*'unused'"
    with pytest.raises(VolumeError, match=match):
        align_scan(stranger, folder / scan_file("axial"), tmp_path / scan_file("out"), **names)
    assert not list(tmp_path.glob("*-out*"))


def test_a_scan_that_is_turned_over_is_named_by_the_view_in_which_it_is_read():
    affine = rigid((44, 0, 0), (0, 0, 0)) @ np.diag([2.0, 2.0, 6.0, 1.0])
    data = np.arange(5 * 6 * 4, dtype=np.float32).reshape(5, 6, 4)
    scan = PlacedScan(Volume(data, Grid(data.shape, affine)), AXES["axial"], "box", 6.0)
    still, _, same = _as_read(scan, scan.volume.data > 0, "axial")
    assert same == "axial" and (still.data == data).all()
    moved = scan.moved(rigid((4, 0, 0), (0, 0, 0)))
    turned, mask, view = _as_read(moved, moved.volume.data > 0, "axial")
    assert view == "coronal" and turned.grid.shape[1] == 4
    for index in np.ndindex(data.shape):
        at = np.rint(np.linalg.inv(turned.grid.affine) @ moved.volume.grid.affine @ [*index, 1])[:3].astype(int)
        assert turned.data[tuple(at)] == data[index] and mask[tuple(at)] == (data[index] > 0)
