import numpy as np
import pytest
import torch

from headsr.acquisition.measurement import load_study
from headsr.degrade.lowres import acquired_head, simulate_lowres
from headsr.files import read_json, sha256_of, sidecar_of, write_json
from headsr.recipes import Degradation, RecipeError, Stack
from headsr.volumes import AXES, Grid, VolumeError, load_volume, save_volume

STACKS = tuple(Stack(view, 4.0) for view in ("axial", "coronal", "sagittal"))
AFFINE = np.array([[1.1, 0, 0, -9], [0, 0.9, 0.2, -5], [0, -0.2, 0.9, -7], [0, 0, 0, 1.0]])


def preprocessed(folder, shape=(20, 18, 16), affine=AFFINE, noise=0.0):
    """A ball with texture on a tilted grid, its mask and its sidecar."""
    grid = Grid(shape, affine)
    x, y, z = np.meshgrid(*[np.linspace(-1, 1, n) for n in shape], indexing="ij")
    head = x**2 + y**2 + z**2 < 0.7
    rng = np.random.default_rng(0)
    data = (head * (0.6 + 0.2 * np.sin(5 * x + 4 * y + 3 * z))).astype(np.float32)
    if noise:
        data = np.hypot(data + rng.normal(0, noise, shape), rng.normal(0, noise, shape)).astype(np.float32)
    save_volume(folder / "scan_T1w.nii.gz", data, grid)
    save_volume(folder / "mask.nii.gz", head.astype(np.uint8), grid)
    write_json(folder / "scan_T1w.json", {"headsr": {"scale": 321.5, "offset": 0, "source_key": "KEY"}})
    return folder / "scan_T1w.nii.gz", folder / "mask.nii.gz"


def scan_file(name):
    return f"sub-01_desc-{name}_T1w.nii.gz"


def make(folder, volume, mask=None, *, view, degradation, thickness="", output="low", name="demo/sub-01_T1w"):
    simulate_lowres(
        volume, folder / scan_file(output), view=view, degradation=degradation, name=name, degradation_name="some",
        thickness=thickness, source_key="KEY", head_mask=mask or volume.with_name("mask.nii.gz"),
    )  # fmt: skip
    return folder / scan_file(output)


def test_simulated_stacks_agree_with_the_head_that_they_came_from(tmp_path):
    volume, _ = preprocessed(tmp_path)
    degradation = Degradation("simulated", STACKS)
    paths = [make(tmp_path, volume, view=s.view, degradation=degradation, output=s.view) for s in STACKS]
    study, truth = load_study(paths), load_volume(volume)
    assert study.head.same_as(truth.grid) and study.scale == 321.5 and study.source_key == "KEY"
    for scan, axis, slices in zip(study.scans, (2, 1, 0), (4, 5, 5), strict=True):
        assert scan.data.shape[axis] == slices and scan.noise == 0
        residual = scan.operator.forward(torch.as_tensor(truth.data)) - scan.data
        assert residual.abs().max() < 1e-5


@pytest.mark.parametrize("stripped", [True, False])
def test_a_study_knows_whether_its_scans_were_skull_stripped(tmp_path, stripped):
    volume, _ = preprocessed(tmp_path)
    write_json(sidecar_of(volume), {"SkullStripped": stripped, **read_json(sidecar_of(volume))})
    path = make(tmp_path, volume, view="axial", degradation=Degradation("simulated", STACKS))
    assert load_study([path]).skull_stripped is stripped


def test_an_integer_box_is_the_block_mean(tmp_path):
    volume, _ = preprocessed(tmp_path)
    low = load_volume(make(tmp_path, volume, view="axial", degradation=Degradation("simulated", STACKS)))
    truth = load_volume(volume).data
    np.testing.assert_allclose(low.data, truth.reshape(20, 18, 4, 4).mean(3), atol=1e-6)


def test_noise_is_rician_of_the_stated_size_and_belongs_to_the_name(tmp_path):
    volume, _ = preprocessed(tmp_path, shape=(40, 40, 40), affine=np.eye(4))
    clean = make(tmp_path, volume, view="axial", degradation=Degradation("simulated", STACKS))
    noisy = Degradation("simulated", STACKS, noise_percent=2.0)
    first, again, other = (
        make(tmp_path, volume, view="axial", degradation=noisy, output=str(i), name=name)
        for i, name in enumerate(("demo/sub-01_T1w", "demo/sub-01_T1w", "demo/sub-02_T1w"))
    )
    assert sha256_of(first) == sha256_of(again) != sha256_of(other)
    difference = (load_volume(first).data - load_volume(clean).data)[load_volume(clean).data > 0.5]
    assert abs(difference.std() / 0.02 - 1) < 0.08
    assert load_study([first]).scans[0].noise == 0.02


def test_a_view_without_a_stack_is_refused(tmp_path):
    volume, _ = preprocessed(tmp_path)
    with pytest.raises(RecipeError, match=r"some\.stacks.*coronal.*axial"):
        make(tmp_path, volume, view="coronal", degradation=Degradation("simulated", STACKS[:1]))


@pytest.mark.parametrize(("axis", "plane"), [(0, "sagittal"), (1, "coronal"), (2, "axial")])
def test_an_acquired_scan_is_itself_and_gets_a_finer_grid_in_the_same_box(tmp_path, axis, plane):
    shape, sizes = [24, 24, 24], [1.0, 1.0, 1.0]
    shape[axis], sizes[axis] = 7, 3.0
    volume, mask = preprocessed(tmp_path, shape=tuple(shape), affine=np.diag([*sizes, 1.0]), noise=0.03)
    low = make(tmp_path, volume, mask, view="acquired", degradation=Degradation("acquired"), thickness="2.5")
    study, scan = load_study([low]), load_volume(volume)
    np.testing.assert_array_equal(load_volume(low).data, scan.data)
    assert study.head.shape[axis] == 21 and study.scans[0].view == plane
    np.testing.assert_allclose(study.head.corners, scan.grid.corners, atol=1e-5)
    assert read_json(sidecar_of(tmp_path / scan_file("low")))["headsr"]["thickness"] == 2.5
    assert abs(study.scans[0].noise / 0.03 - 1) < 0.1


@pytest.mark.parametrize(("spacing", "thin"), [(3.1, 3 * 8), (2.45, 20), (1.0, 8), (0.7, 8), (6.0, 48)])
def test_the_head_grid_is_the_whole_or_nearest_refinement(spacing, thin):
    scan = Grid((30, 32, 8), np.diag([1.0, 1.0, spacing, 1.0]))
    head = acquired_head(scan, 2)
    assert head.shape == (30, 32, thin)
    np.testing.assert_allclose(head.corners, scan.corners, atol=1e-9)


def test_an_unknown_thickness_is_an_error_that_says_where_to_give_it(tmp_path):
    volume, mask = preprocessed(tmp_path, shape=(20, 20, 8), affine=np.diag([1.0, 1.0, 5.0, 1.0]))
    with pytest.raises(VolumeError, match=r"demo/sub-01_T1w.*5\.00 mm apart.*SliceThickness.*thickness"):
        make(tmp_path, volume, mask, view="acquired", degradation=Degradation("acquired"))
    with pytest.raises(VolumeError, match="cannot be"):
        make(tmp_path, volume, mask, view="acquired", degradation=Degradation("acquired"), thickness="50")
    with pytest.raises(VolumeError, match="axial, not coronal"):
        make(tmp_path, volume, mask, view="coronal", degradation=Degradation("acquired"), thickness="5")
    assert not (tmp_path / scan_file("low")).exists() and not list(tmp_path.glob("*-low*"))


def test_nearly_isotropic_voxels_need_no_thickness(tmp_path):
    volume, mask = preprocessed(tmp_path, shape=(20, 20, 14), affine=np.diag([1.0, 1.0, 1.4, 1.0]))
    make(tmp_path, volume, mask, view="acquired", degradation=Degradation("acquired"), thickness=None)
    assert read_json(sidecar_of(tmp_path / scan_file("low")))["headsr"]["thickness"] == pytest.approx(1.4)


def test_a_mask_of_another_grid_is_refused(tmp_path):
    volume, mask = preprocessed(tmp_path, shape=(20, 20, 14), affine=np.eye(4))
    save_volume(mask, np.ones((20, 20, 7), np.uint8) * np.arange(7, dtype=np.uint8), Grid((20, 20, 7), np.eye(4)))
    with pytest.raises(VolumeError, match="not on the grid"):
        make(tmp_path, volume, mask, view="acquired", degradation=Degradation("acquired"))


@pytest.mark.parametrize(("factor", "thin"), [(2.0, 10), (3.0, 7), (2.5, 8)])
def test_an_isotropic_scan_is_coarse_along_every_axis(tmp_path, factor, thin):
    volume, _ = preprocessed(tmp_path)
    low = make(tmp_path, volume, view="isotropic", degradation=Degradation("simulated", (Stack("isotropic", factor),)))
    (scan,), truth = load_study([low]).scans, load_volume(volume)
    assert scan.operator.axis is None and scan.data.shape[0] == thin
    assert (scan.operator.forward(torch.as_tensor(truth.data)) - scan.data).abs().max() < 1e-5
    if factor == 2:
        np.testing.assert_allclose(scan.data, truth.data.reshape(10, 2, 9, 2, 8, 2).mean((1, 3, 5)), atol=1e-6)


@pytest.mark.parametrize("factor", [2.0, 4.0, 8.0])
def test_row_masking_keeps_one_thin_row_in_so_many(tmp_path, factor):
    volume, _ = preprocessed(tmp_path)
    masked = Degradation("simulated", (Stack("axial", factor, thickness=1.0),))
    low, truth = load_volume(make(tmp_path, volume, view="axial", degradation=masked)), load_volume(volume)
    np.testing.assert_allclose(low.data, truth.data[..., :: int(factor)], atol=1e-6)
    np.testing.assert_allclose(low.grid.affine[:3, 3], truth.grid.affine[:3, 3], atol=1e-5)
    assert load_study([tmp_path / scan_file("low")]).scans[0].operator.axis == 2


def test_zoom_keeps_the_outermost_centres_and_says_where_its_slices_lie(tmp_path):
    volume, _ = preprocessed(tmp_path)
    zoomed = Degradation("simulated", (Stack("axial", 4.0, "zoom"),))
    low, truth = load_volume(make(tmp_path, volume, view="axial", degradation=zoomed)), load_volume(volume)
    assert low.data.shape == (20, 18, 4)
    np.testing.assert_allclose(low.data[..., [0, -1]], truth.data[..., [0, -1]], atol=1e-5)
    last = low.grid.affine @ [0, 0, 3, 1], truth.grid.affine @ [0, 0, 15, 1]
    np.testing.assert_allclose(*last, atol=1e-4)


def test_overlapping_slices_are_thicker_than_they_are_apart(tmp_path):
    volume, _ = preprocessed(tmp_path)
    overlapping = Degradation("simulated", (Stack("axial", 2.0, thickness=4.0),))
    low, truth = load_volume(make(tmp_path, volume, view="axial", degradation=overlapping)), load_volume(volume)
    expected = np.stack([truth.data[..., i : i + 4].mean(-1) for i in range(0, 16, 2)], -1)
    np.testing.assert_allclose(low.data, expected, atol=1e-6)
    assert load_study([tmp_path / scan_file("low")]).head.same_as(truth.grid)


@pytest.mark.parametrize("profile", ["box", "gaussian", "zoom"])
@pytest.mark.parametrize(
    ("view", "factors", "coarse"),
    [
        ("axial", (4, 4, 1), (0, 1)),
        ("coronal", (3, 1, 2.5), (0, 2)),
        ("axial", (2, 2, 3.3), (0, 1, 2)),
        ("sagittal", (1, 1, 5), (2,)),
        ("axial", (1, 1, 1), ()),
    ],
)
def test_factors_say_how_coarse_a_scan_is_along_each_axis(tmp_path, profile, view, factors, coarse):
    volume, _ = preprocessed(tmp_path, shape=(21, 18, 16))
    degradation = Degradation("simulated", (Stack(view, profile=profile, factors=factors),))
    study, truth = load_study([make(tmp_path, volume, view=view, degradation=degradation)]), load_volume(volume)
    (scan,) = study.scans
    assert study.head.same_as(truth.grid) and scan.view == view
    assert scan.operator.coarse == coarse and AXES[view] == scan.operator.axis
    residual = scan.operator.forward(torch.as_tensor(truth.data)) - scan.data
    assert residual.abs().max() < 1e-5
    samples = [n / factor for n, factor in zip(truth.data.shape, factors, strict=True)]
    assert list(scan.data.shape) == [round(n) if profile == "zoom" else int(np.ceil(n)) for n in samples]


def test_integer_factors_with_a_box_are_the_block_mean(tmp_path):
    volume, _ = preprocessed(tmp_path)
    in_plane = Degradation("simulated", (Stack("axial", factors=(4, 2, 1)),))
    low, truth = load_volume(make(tmp_path, volume, view="axial", degradation=in_plane)), load_volume(volume)
    np.testing.assert_allclose(low.data, truth.data.reshape(5, 4, 9, 2, 16).mean((1, 3)), atol=1e-6)
    np.testing.assert_allclose(low.grid.corners, truth.grid.corners, atol=1e-5)


@pytest.mark.parametrize("profile", ["box", "gaussian", "zoom"])
def test_factors_of_one_axis_are_that_factor(tmp_path, profile):
    """A stack of thick slices by either way of writing it; their data are the same bytes."""
    volume, _ = preprocessed(tmp_path)
    ways = {"factor": Stack("axial", 3.3, profile), "factors": Stack("axial", profile=profile, factors=(1, 1, 3.3))}
    paths = [
        make(tmp_path, volume, view="axial", degradation=Degradation("simulated", (stack,), 2.0), output=way)
        for way, stack in ways.items()
    ]
    one, other = (load_study([path]).scans[0] for path in paths)
    assert torch.equal(one.data, other.data) and one.operator.coarse == other.operator.coarse == (2,)
    assert not one.operator.coarse_in_plane and not other.operator.coarse_in_plane


def test_an_acquired_isotropic_scan_is_refined_where_the_recipe_says(tmp_path):
    volume, mask = preprocessed(tmp_path, shape=(20, 20, 14), affine=np.eye(4))
    finer = Degradation("acquired", (Stack("axial", 4.0),))
    study = load_study([make(tmp_path, volume, mask, view="acquired", degradation=finer, thickness=1.0)])
    assert study.head.shape == (20, 20, 56) and study.scans[0].view == "axial"
    np.testing.assert_allclose(study.head.voxel_size, [1, 1, 0.25])
