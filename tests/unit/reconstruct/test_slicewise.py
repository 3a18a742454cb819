import numpy as np
import pytest
import torch
from tiny_methods import METHODS
from torch import nn

from headsr.acquisition.measurement import load_study
from headsr.acquisition.operator import Acquisition
from headsr.recipes import Stack
from headsr.reconstruct.estimate import estimate_of
from headsr.reconstruct.interpolate import fused_average, spline_of
from headsr.reconstruct.slicewise import slice_orders, upsample_slicewise
from headsr.volumes import Grid

GRID = Grid((9, 8, 7), np.eye(4))


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_both_planes_show_the_thick_axis_as_rows(axis: int) -> None:
    orders = slice_orders(Acquisition(GRID, GRID.thick(axis, 2), axis=axis))
    assert {order[0] for order in orders} == {0, 1, 2} - {axis}
    assert all(order[1] == axis and sorted(order) == [0, 1, 2] for order in orders)


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("across", [False, True])
def test_slices_that_are_coarse_themselves_are_seen_from_above(axis: int, across: bool) -> None:
    coarse = [i for i in range(3) if across or i != axis]
    (order,) = slice_orders(Acquisition(GRID, GRID, axis=axis, coarse=coarse))
    assert order[0] == axis and sorted(order) == [0, 1, 2]


@pytest.mark.parametrize("views", [("axial",), ("sagittal", "coronal"), ("axial", "coronal", "sagittal")])
def test_a_network_that_changes_nothing_gives_the_fused_average(measure, views: tuple[str, ...]) -> None:
    study = load_study(measure(views))
    estimate = upsample_slicewise(study, nn.Identity(), precision=None)
    np.testing.assert_allclose(estimate, fused_average(study), atol=1e-6)


@pytest.mark.parametrize("factors", [(4, 4, 1), (2, 2, 3.3), (3, 1, 1)])
def test_one_that_changes_nothing_leaves_coarse_slices_as_interpolated(simulate, factors) -> None:
    study = load_study(simulate(Stack("axial", factors=factors)))
    estimate = upsample_slicewise(study, nn.Identity(), precision=None)
    np.testing.assert_array_equal(estimate, spline_of(study.scans[0], study.head))


class Shift(nn.Module):
    """Moves every slice down by one row."""

    def forward(self, slices: torch.Tensor) -> torch.Tensor:
        assert slices.ndim == 4 and slices.shape[1] == 1
        return slices.roll(1, dims=2)


def test_the_network_sees_rows_along_the_thick_axis_in_both_planes(measure) -> None:
    study = load_study(measure(["axial"]))
    expected = np.roll(spline_of(study.scans[0], study.head), 1, axis=2)
    np.testing.assert_allclose(upsample_slicewise(study, Shift(), precision=None), expected, atol=1e-6)


@pytest.mark.parametrize(("view", "rows"), [("axial", 1), ("coronal", 2), ("sagittal", 2)])
def test_a_network_sees_coarse_slices_as_they_are_stored_for_training(simulate, view: str, rows: int) -> None:
    factors = tuple(1 if plane == view else 2 for plane in ("sagittal", "coronal", "axial"))
    study = load_study(simulate(Stack(view, factors=factors)))
    expected = np.roll(spline_of(study.scans[0], study.head), 1, axis=rows)
    np.testing.assert_array_equal(upsample_slicewise(study, Shift(), precision=None), expected)


class Larger(nn.Module):
    """Makes slices larger by repeating pixels; rows get brighter from the first to the last."""

    def __init__(self, scale: int) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, slices: torch.Tensor) -> torch.Tensor:
        larger = slices.repeat_interleave(self.scale, dim=2).repeat_interleave(self.scale, dim=3)
        return larger + torch.arange(larger.shape[2])[:, None]


@pytest.mark.parametrize(("view", "rows", "columns"), [("axial", 1, 0), ("coronal", 2, 0), ("sagittal", 2, 1)])
def test_a_network_that_makes_slices_larger_sees_those_of_the_scan(
    simulate, view: str, rows: int, columns: int
) -> None:
    factors = tuple(1 if plane == view else 2 for plane in ("sagittal", "coronal", "axial"))
    study = load_study(simulate(Stack(view, factors=factors)))
    expected = study.scans[0].data.numpy().repeat(2, axis=rows).repeat(2, axis=columns)
    expected += np.arange(expected.shape[rows]).reshape([-1 if axis == rows else 1 for axis in range(3)])
    x, y, z = study.head.shape  # the scan reaches beyond the head where that has an odd number of voxels
    made = upsample_slicewise(study, Larger(2), precision=None)
    np.testing.assert_allclose(made, expected[:x, :y, :z], atol=1e-5)


@pytest.mark.parametrize(
    "stack",
    [Stack("axial", factors=(4, 4, 1)), Stack("axial", factors=(2, 1, 1)), Stack("axial", 2), Stack("isotropic", 2)],
)
def test_scans_that_are_not_coarse_by_its_scale_are_refused(simulate, stack: Stack) -> None:
    study = load_study(simulate(stack))
    with pytest.raises(ValueError, match=r"the \w+ scan has voxels .* and the network makes rows and columns 2 times"):
        upsample_slicewise(study, Larger(2), precision=None)


def test_the_model_is_used_in_its_precision(measure, models) -> None:
    study = load_study(measure(["axial", "coronal"]))
    estimate = estimate_of(study, METHODS["slice_network"], models)
    np.testing.assert_allclose(estimate.volume, fused_average(study) + 0.125, atol=1e-4)
    coarse = models["edsr"]._replace(precision="bf16")
    rounded = estimate_of(study, METHODS["slice_network"], {"edsr": coarse})
    assert 0 <= np.abs(rounded.volume - estimate.volume).max() < 0.02
