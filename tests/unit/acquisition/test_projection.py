"""What a projection must never do to a volume, over random studies with and without faults."""

import numpy as np
import pytest
import torch
from random_studies import FAULTS, Case, estimates_of, made_up_head, motion, random_case, rician
from scipy import ndimage

from headsr.acquisition.consistency import allowed, project, residuals
from headsr.acquisition.measurement import Measurement, Study, head_voxels
from headsr.acquisition.operator import Acquisition
from headsr.degrade.lowres import stack_operator
from headsr.recipes import Stack
from headsr.reconstruct.tikhonov import tikhonov
from headsr.seeds import seed_of
from headsr.volumes import AXES, Grid


def projections(name, cases, faults):
    """Random cases with these faults in turn: each with an estimate's name, the estimate and its projection."""
    for index in range(cases):
        rng = np.random.default_rng(seed_of(name, index))
        case = random_case(rng, faults[index % len(faults)])
        for method, estimate in estimates_of(case, rng).items():
            yield case, method, estimate, project(estimate, case.study.scans)


def size_over(head, change):
    return float(change[head].double().square().mean().sqrt())


@pytest.mark.parametrize("cases", [12, pytest.param(60, marks=pytest.mark.long)])
def test_on_consistent_studies_nothing_is_lost(cases):
    """And they are met to within the noise, but for profiles and turns that determine much of the head badly."""
    for case, method, estimate, projection in projections("consistent", cases, [None]):
        assert case.loss(estimate, projection.volume) < 0.1, (case.words, method)
        left = residuals(projection.volume, case.study.scans)
        within = all(s.rms(r) <= 1.0001 * allowed(s) for s, r in zip(case.study.scans, left, strict=True))
        assert within == (projection.outcome in ("agreed", "met")), (case.words, method)
        hard = any(word in case.words for word in ("gaussian", "cubic", "turned"))
        assert within or (projection.outcome == "bounded" and hard), (case.words, method)


@pytest.mark.parametrize("cases", [18, pytest.param(180, marks=pytest.mark.long)])
def test_on_inconsistent_studies_hardly_anything_is_lost(cases):
    found = list(projections("inconsistent", cases, FAULTS))
    losses = [case.loss(estimate, projection.volume) for case, _, estimate, projection in found]
    assert max(losses) < 0.5, found[int(np.argmax(losses))][0].words
    assert np.mean(np.array(losses) > 0.1) < 0.05
    assert np.mean(losses) < -0.5  # the rest gain


def test_a_change_is_never_larger_than_the_residuals_justify():
    for case, method, estimate, projection in projections("bound", 10, [*FAULTS, None]):
        start = estimate.clamp_min(0)
        justified = sum(
            s.rms(r) ** 2 for s, r in zip(case.study.scans, residuals(start, case.study.scans), strict=True)
        )
        change = size_over(case.head, projection.volume - start)
        assert change <= 1.0001 * justified**0.5, (case.words, method)
        assert projection.change == pytest.approx(change, rel=1e-3, abs=1e-6)
        assert projection.change_at_most == pytest.approx(justified**0.5, rel=1e-4)
        after = residuals(projection.volume, case.study.scans)
        assert sum(s.rms(r) ** 2 for s, r in zip(case.study.scans, after, strict=True)) <= 1.0001 * justified


def test_residuals_of_little_more_than_rounding_do_not_grow():
    """Points of a spline, least squares through them, and nothing below zero."""
    truth, grid, mask = made_up_head(np.random.default_rng(0))
    operator = stack_operator(grid, Stack("axial", 3, "zoom"))
    seen = operator.forward(torch.as_tensor(mask, dtype=torch.float32)) >= 0.5
    scan = Measurement("axial", operator, operator.forward(torch.as_tensor(truth)), 0.0, seen)
    start = tikhonov(Study(grid, (scan,), 1.0, 0.0, "zoom", "KEY"), weight=1e-5, iterations=30)
    start = torch.as_tensor(start).clamp_min(0)
    projection = project(start, [scan])
    before, after = (scan.rms(residuals(volume, [scan])[0]) for volume in (start, projection.volume))
    assert after <= before < 2e-4


def test_a_wrong_thickness_is_bounded_in_change():
    """No data can tell that one scan's sidecar lies."""
    truth, grid, mask = made_up_head(np.random.default_rng(0))
    scan = grid.thick(2, 4)
    true, said = (Acquisition(grid, scan, axis=2, thickness=mm) for mm in (9.0, 36.0))
    measured = true.forward(torch.as_tensor(truth))
    seen = said.forward(torch.as_tensor(mask, dtype=torch.float32)) > 0.5
    measurement = Measurement("axial", said, measured, 0.01, seen)
    projection = project(torch.as_tensor(truth), [measurement])
    assert projection.outcome == "bounded"
    assert projection.change <= 1.0001 * projection.change_at_most
    assert projection.change_at_most == pytest.approx(
        measurement.rms(residuals(torch.as_tensor(truth), [measurement])[0])
    )


def two_stacks(rng, *, aligned):
    """The study of the issue: cubic splines through the head instead of slices; the second turned, moved and brighter.

    Alignment leaves 0.01 degrees, 0.03 mm and 0.15 % of it.
    """
    truth, grid, mask = made_up_head(rng)
    scans = []
    for index, view in enumerate(("axial", "coronal")):
        placed = grid.thick(AXES[view], 4 / 4.5 * 3)
        lies = motion(grid, 3, 2, rng) if index else np.eye(4)
        to_head = np.linalg.inv(grid.affine) @ lies @ placed.affine
        points = (
            np.einsum("ij,jxyz->ixyz", to_head[:3, :3], np.indices(placed.shape)) + to_head[:3, 3, None, None, None]
        )
        clean = torch.as_tensor(ndimage.map_coordinates(truth, points, order=3), dtype=torch.float32)
        data = rician(clean * (1.3 if index else 1.0), 0.01, rng)
        if aligned and index:
            placed = Grid(placed.shape, motion(grid, 0.01, 0.03, rng) @ lies @ placed.affine)
            data = data / (1.3 * 1.0015)
        operator = Acquisition(grid, placed, axis=AXES[view])
        seen = operator.forward(torch.as_tensor(mask, dtype=torch.float32)) > 0.5
        scans.append(Measurement(view, operator, data, 0.01, seen))
    head = head_voxels(scans)
    return Case(Study(grid, tuple(scans), 1.0, 0.0, "issue", "KEY"), torch.as_tensor(truth), head, "two stacks")


@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize("seed", range(3))
def test_two_stacks_that_contradict_each_other_leave_the_volume_whole(seed, aligned):
    rng = np.random.default_rng(seed)
    case = two_stacks(rng, aligned=aligned)
    for method, estimate in estimates_of(case, rng).items():
        projection = project(estimate, case.study.scans)
        assert projection.outcome in ("bounded", "contradictory"), method
        assert case.loss(estimate, projection.volume) < 0.1, method
        assert projection.volume.max() < 1.2 * max(1, estimate.max()), method


def test_how_much_air_is_around_changes_nothing():
    """The same scans with more air of Rician noise around them: the same head to rounding, whatever the outcome."""
    rng = np.random.default_rng(3)
    for fault in ("alignment", "gain", "turned", "slices"):
        case = random_case(rng, fault)
        estimate = estimates_of(case, rng)["average"]
        around = 8
        study, wide_estimate = padded(case.study, estimate, around, rng)
        projection, wide = project(estimate, case.study.scans), project(wide_estimate, study.scans)
        inner = wide.volume[around:-around, around:-around, around:-around]
        assert wide.outcome == projection.outcome
        assert (inner - projection.volume)[case.head].abs().max() < 2e-4, case.words
        assert wide.change_at_most == pytest.approx(projection.change_at_most, rel=1e-4)


def padded(study, estimate, around, rng):
    """The study in a larger box of the head, every scan in a larger box of its own, and the estimate in it."""
    wide = study.head.block((-around,) * 3, tuple(n + 2 * around for n in study.head.shape))
    scans = []
    for scan in study.scans:
        grid, more = scan.operator.scan, [2, 2, 2]
        placed = grid.block(tuple(-m for m in more), tuple(n + 2 * m for n, m in zip(grid.shape, more, strict=True)))
        old = scan.operator
        operator = Acquisition(wide, placed, axis=old.axis, profile=old._profiles[old.axis], thickness=old.thickness)
        data = rician(torch.zeros(placed.shape), scan.noise, rng)
        head = torch.zeros(placed.shape, dtype=torch.bool)
        inside = tuple(slice(m, -m) for m in more)
        data[inside], head[inside] = scan.data, scan.head
        scans.append(Measurement(scan.view, operator, data, scan.noise, head))
    more_air = torch.as_tensor(np.abs(0.01 * rng.standard_normal(wide.shape)), dtype=torch.float32)
    more_air[around:-around, around:-around, around:-around] = estimate
    return Study(wide, tuple(scans), 1.0, 0.0, "wide", "KEY"), more_air


@pytest.mark.parametrize("seed", range(4))
def test_magnitudes_stay_at_zero_or_above(seed):
    """Where an estimate is below zero, zero is nearer to the truth; and the scans are met as well as with any sign."""
    rng = np.random.default_rng(seed)
    case = random_case(rng)
    estimate = case.truth + torch.as_tensor(0.1 * rng.standard_normal(case.truth.shape), dtype=torch.float32)
    projection, any_sign = (project(estimate, case.study.scans, signed=signed) for signed in (False, True))
    assert projection.volume.min() >= 0 > any_sign.volume.min()
    assert projection.outcome == any_sign.outcome == "met"
    assert case.distance(projection.volume) <= case.distance(any_sign.volume)


def test_the_same_study_gives_the_same_bytes():
    rng = np.random.default_rng(1)
    case = random_case(rng, "alignment")
    estimate = estimates_of(case, rng)["average"]
    first, again = (project(estimate, case.study.scans) for _ in range(2))
    assert torch.equal(first.volume, again.volume) and first.explained == again.explained
