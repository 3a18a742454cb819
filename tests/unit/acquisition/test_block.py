"""A block of a study: its samples are those of the whole, and see nothing that is outside."""

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from headsr.acquisition.block import middle_of
from headsr.acquisition.measurement import Measurement, Study
from headsr.acquisition.operator import Acquisition
from headsr.volumes import Grid

HEAD = Grid((40, 44, 48), np.diag([1.0, 1.2, 0.9, 1.0]))


def turned(grid: Grid, degrees: tuple[float, ...]) -> Grid:
    middle, motion = grid.corners.mean(axis=0), np.eye(4)
    motion[:3, :3] = Rotation.from_euler("xyz", degrees, degrees=True).as_matrix()
    motion[:3, 3] = middle - motion[:3, :3] @ middle
    return Grid(grid.shape, motion @ grid.affine)


def study_of(*operators: Acquisition) -> Study:
    truth = torch.rand(HEAD.shape, generator=torch.Generator().manual_seed(0))
    scans = tuple(Measurement(str(i), o, o.forward(truth), 0.01) for i, o in enumerate(operators))
    return Study(HEAD, scans, 1.0, 0.0, "some", "KEY")


@pytest.mark.parametrize("degrees", [(0, 0, 0), (12, -5, 8)])
@pytest.mark.parametrize("profile", ["box", "gaussian", "cubic"])
def test_the_samples_of_a_block_are_those_of_the_whole(degrees, profile):
    study = study_of(
        *(Acquisition(HEAD, turned(HEAD.thick(axis, 3), degrees), axis=axis, profile=profile) for axis in (0, 2))
    )
    block = middle_of(study, voxels=40_000)
    assert 30_000 < np.prod(block.head.shape) <= 40_000
    truth = torch.rand(HEAD.shape, generator=torch.Generator().manual_seed(0))
    start = np.round(np.linalg.solve(HEAD.affine, block.head.affine[:, 3])[:3]).astype(int)
    part = truth[tuple(slice(a, a + n) for a, n in zip(start, block.head.shape, strict=True))]
    for scan in block.scans:
        assert scan.data.numel() > 1_500
        torch.testing.assert_close(scan.operator.forward(part), scan.data, atol=1e-5, rtol=0)


def test_a_small_study_stays_whole_and_a_scan_elsewhere_is_left_out():
    slab = HEAD.block((0, 0, 0), (40, 44, 4)).thick(2, 4)
    study = study_of(Acquisition(HEAD, HEAD.thick(2, 4), axis=2), Acquisition(HEAD, slab, axis=2))
    assert middle_of(study, voxels=10**6) is study
    assert [scan.view for scan in middle_of(study, voxels=30_000).scans] == ["0"]


def test_the_block_lies_in_the_middle_of_the_head_not_of_the_air():
    whole = study_of(Acquisition(HEAD, HEAD, axis=2))
    inside = torch.zeros(HEAD.shape, dtype=torch.bool)
    inside[:20, 4:24, 2:22] = True
    scan = whole.scans[0]
    study = Study(HEAD, (Measurement("0", scan.operator, scan.data, 0.01, head=inside),), 1.0, 0.0, "some", "KEY")
    block = middle_of(study, voxels=4000)
    assert block.head.same_as(HEAD.block((2, 6, 4), (15, 15, 15)))
