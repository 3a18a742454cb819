"""Projection puts a volume onto its measurement, no further than the noise, and leaves agreement alone."""

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from headsr.acquisition.consistency import allowed, project, residuals
from headsr.acquisition.measurement import Measurement, Protocol, load_study, save_measurement
from headsr.acquisition.operator import Acquisition
from headsr.acquisition.profile import PROFILES
from headsr.volumes import AXES, Grid

HEAD = Grid((16, 12, 20), np.diag([1.0, 1.0, 1.2, 1.0]))


def measured(truth, views, noise, profile="box", factor=4):
    generator = torch.Generator().manual_seed(3)
    scans = []
    for view in views:
        axis = AXES[view]
        operator = Acquisition(HEAD, HEAD.thick(axis, factor), axis=axis, profile=profile)
        clean = operator.forward(truth)
        scans.append(Measurement(view, operator, clean + noise * torch.randn(clean.shape, generator=generator), noise))
    return scans


def rms(residual):
    return float(residual.double().pow(2).mean().sqrt())


@pytest.mark.parametrize("views", [["axial"], ["axial", "coronal", "sagittal"]])
@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("noise", [0.005, 0.02])
def test_projection_leaves_at_most_the_noise(views, profile, noise, signed):
    truth = torch.rand(HEAD.shape, generator=torch.Generator().manual_seed(0))
    scans = measured(truth, views, noise, profile)
    projection = project(torch.zeros(HEAD.shape), scans, signed=signed)
    assert projection.outcome == "met"
    left = [rms(r) / noise for r in residuals(projection.volume, scans)]
    assert min(left) > 0.2 and max(left) <= 1  # the noise itself is not fitted
    assert signed or projection.volume.min() >= 0


@pytest.mark.parametrize("profile", PROFILES)
def test_what_is_left_beyond_the_noise_is_for_the_bound(profile):
    """Slices of a Gaussian hide fine contrasts; without noise, to bring these out takes more than the residuals say."""
    truth = torch.rand(HEAD.shape, generator=torch.Generator().manual_seed(0))
    scans = measured(truth, ["axial"], 0.0, profile)
    projection = project(torch.zeros(HEAD.shape), scans)
    (left,) = residuals(projection.volume, scans)
    assert projection.outcome == ("met" if profile in ("box", "zoom") else "bounded")
    assert (rms(left) <= allowed(scans[0])) == (projection.outcome == "met")
    assert projection.change == pytest.approx(projection.change_at_most, rel=1e-5 if left.abs().max() > 0.01 else 0.2)


def test_one_box_scan_is_the_closed_form():
    truth, start = torch.rand(2, *HEAD.shape, generator=torch.Generator().manual_seed(0))
    (scan,) = measured(truth, ["axial"], 0.0)
    difference = scan.data - scan.operator.forward(start)
    projection = project(start, [scan], signed=True)
    closed = start + difference.repeat_interleave(4, dim=2)
    assert torch.allclose(projection.volume, closed, atol=2e-3)  # it stops at rounding
    assert projection.change == pytest.approx(projection.change_at_most, rel=1e-3)


@pytest.mark.parametrize("views", [["axial"], ["axial", "coronal", "sagittal"]])
def test_a_local_disagreement_does_not_hide_below_the_mean(views):
    """A wrong corner is far above the noise there, though the root mean square over the scan is only just above it."""
    truth = torch.rand(HEAD.shape)
    scans = measured(truth, views, 0.02)
    wrong = truth.clone()
    wrong[:4, :4, :4] += 0.5
    before = [float(r.abs().max()) for r in residuals(wrong, scans)]
    after = [float(r.abs().max()) for r in residuals(project(wrong, scans).volume, scans)]
    assert min(before) > 0.4
    assert max(after) < 5 * 0.02


def test_agreement_is_left_alone():
    truth = torch.rand(HEAD.shape)
    assert torch.equal(project(truth, measured(truth, ["axial", "coronal"], 0.0)).volume, truth)


def test_study_round_trip(tmp_path):
    truth = torch.rand(HEAD.shape)
    paths = []
    for scan in measured(truth, ["axial", "coronal"], 0.01):
        protocol = Protocol(
            view=scan.view,
            profile="box",
            thickness=float(scan.operator.scan.voxel_size[AXES[scan.view]]),
            noise=scan.noise,
            head_shape=HEAD.shape,
            head_affine=tuple(map(tuple, HEAD.affine.tolist())),
            scale=812.5,
            offset=0.0,
            degradation="test",
            source_key="KEY",
        )
        paths.append(tmp_path / f"sub-01_desc-{scan.view}_T1w.nii.gz")
        save_measurement(paths[-1], scan.data, scan.operator.scan, protocol, scan.head.numpy())
    study = load_study(paths)
    assert study.head.same_as(HEAD) and study.scale == 812.5
    for read, scan in zip(study.scans, measured(truth, ["axial", "coronal"], 0.01), strict=True):
        assert torch.allclose(read.operator.forward(truth), scan.operator.forward(truth), atol=1e-6)
        assert torch.allclose(read.data, scan.data)


def test_two_scans_of_one_view_have_names_of_their_own(tmp_path):
    (scan,) = measured(torch.rand(HEAD.shape), ["axial"], 0.01)
    paths = [tmp_path / f"sub-01_desc-acquired{n}_T2w.nii.gz" for n in ("", "2", "3")]
    for path, view in zip(paths, ("axial", "axial", "coronal"), strict=True):
        protocol = Protocol(view, "box", 4.8, 0.01, HEAD.shape, HEAD.affine.tolist(), 1.0, 0.0, "test", "KEY")
        save_measurement(path, scan.data, scan.operator.scan, protocol, scan.head.numpy())
    assert [scan.view for scan in load_study(paths).scans] == ["axial", "axial2", "coronal"]


@pytest.mark.parametrize("profile", ["box", "gaussian"])
def test_projection_onto_turned_scans_that_reach_outside(profile):
    """Three stacks in placements of their own, partly outside the head's grid: each agrees to within its noise."""
    head = Grid((15, 13, 12), np.diag([1.0, 1.0, 1.2, 1.0]))
    truth = torch.rand(head.shape)
    generator = torch.Generator().manual_seed(1)
    scans = []
    for axis, (view, turn) in enumerate([("sagittal", 0.0), ("coronal", 12.0), ("axial", -25.0)]):
        affine = head.thick(axis, 3).affine
        turned = np.eye(4)
        turned[:3, :3] = Rotation.from_euler("xyz", [turn, turn / 2, 0], degrees=True).as_matrix()
        scan = Grid(head.thick(axis, 3).shape, turned @ affine)
        operator = Acquisition(head, scan, axis=axis, profile=profile)
        clean = operator.forward(truth)
        noisy = clean + 0.02 * torch.randn(clean.shape, generator=generator)
        scans.append(Measurement(view, operator, noisy, 0.02))
    assert scans[0].operator.covered.all() and not scans[2].operator.covered.all()
    assert (scans[2].data[~scans[2].operator.covered] == 0).all()
    projected = project(torch.zeros(head.shape), scans).volume
    for residual, scan in zip(residuals(projected, scans), scans, strict=True):
        assert scan.rms(residual) <= allowed(scan)
        covered = residual[scan.operator.covered]
        assert scan.rms(residual) == pytest.approx(rms(covered), rel=1e-5)
