"""Where a voxel lies survives everything: any orientation, any size, NIfTI and OME-Zarr, there and back."""

import ast
import itertools
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from nibabel.orientations import aff2axcodes

from headsr.files import read_json
from headsr.render import store as stores
from headsr.render.publish import Outputs, publish_volume
from headsr.volumes import (
    Grid,
    Storage,
    Volume,
    VolumeError,
    cell_average,
    cell_matrix,
    load_volume,
    save_volume,
    spline_matrix,
    spline_resample,
)

ROOT = Path(__file__).resolve().parents[2]
CT = ROOT.parent / "shared/data/ct/head_ct.nii.gz"
LAYOUTS = [
    (order, signs) for order in itertools.permutations(range(3)) for signs in itertools.product((1, -1), repeat=3)
]


def rotation_of(rng, largest=np.pi):
    axis = rng.normal(size=3)
    return nib.quaternions.angle_axis2mat(rng.uniform(0, largest), axis / np.linalg.norm(axis))


def random_affine(rng, number):
    """One of the 48 layouts, straight, tilted or turned anyhow, with anisotropic voxels, and sheared now and then."""
    order, signs = LAYOUTS[number % 48]
    linear = np.diag(np.exp(rng.uniform(np.log(0.2), np.log(6), 3)))
    if number % 3 == 0:  # a tilted gantry: slices shifted along one of their own axes
        shear = np.eye(3)
        shear[1, 2] = np.tan(rng.uniform(-0.5, 0.5))
        linear = shear @ linear
    turn = rotation_of(rng, (0, 0.3, np.pi)[number // 48 % 3])
    return nib.affines.from_matvec((turn @ linear)[:, order] * signs, rng.uniform(-300, 300, 3))


def laid_out(grid, order, signs):
    """The same grid with its axes in another order and direction."""
    turn = nib.orientations.inv_ornt_aff(np.stack([order, signs], axis=1), grid.shape)
    return Grid(np.array(grid.shape)[np.argsort(order)], grid.affine @ turn)


def blob(shape, centre, sigma=1.2):
    """A Gaussian whose centroid is ``centre``, in voxel indices."""
    index = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1)
    return np.exp(-((index - centre) ** 2).sum(axis=-1) / (2 * sigma**2)).astype(np.float32)


def centroid(data):
    weights = data.astype(np.float64)
    return np.array(
        [(np.arange(n) * weights.sum(axis=tuple({0, 1, 2} - {a}))).sum() for a, n in enumerate(data.shape)]
    ) / (weights.sum())


def to_mm(affine, index):
    return nib.affines.apply_affine(affine, index)


def voxels_off(grid, mm, other):
    """How far two points in mm lie apart, in voxels of the grid, along the axis where they do most."""
    return np.abs(np.linalg.solve(grid.affine[:3, :3], np.asarray(mm) - other)).max()


def box_distance(one, other):
    """The greatest distance in mm between the corners of two boxes, in whatever order each names them."""
    return np.linalg.norm(one.corners[:, None] - other.corners[None], axis=-1).min(axis=1).max()


def test_a_thousand_grids_keep_their_box_and_their_points():
    for number in range(1000):
        rng = np.random.default_rng(number)
        grid = Grid(rng.integers(3, 80, 3), random_affine(rng, number))
        factor = rng.uniform(0.3, 4, 3)
        for other in (grid.resized(tuple(rng.integers(1, 90, 3))), grid.scaled(factor), grid.at_voxel_size(1.7)):
            assert np.abs(other.corners - grid.corners).max() < 1e-4
            assert np.sign(np.linalg.det(other.affine)) == np.sign(np.linalg.det(grid.affine))
            assert other.resized(grid.shape).same_as(grid, 1e-6)
            # The convention: index i sits at (i + 0.5)/k - 0.5 on the other grid.
            points = rng.uniform(0, grid.shape, (20, 3))
            there = (points + 0.5) * np.array(other.shape) / grid.shape - 0.5
            mm = to_mm(other.affine, there)
            assert np.abs(mm - to_mm(grid.affine, points)).max() < 1e-4
            back = to_mm(np.linalg.inv(grid.affine), mm)
            assert np.abs(back - points).max() < 0.01


def test_a_thousand_files_are_read_resized_written_and_read_again(tmp_path):
    path = tmp_path / "scan.nii"
    for number in range(1000):
        rng = np.random.default_rng(number)
        shape, affine = tuple(rng.integers(12, 15, 3)), random_affine(rng, number)
        centre = np.array(shape) / 2 - 0.5 + rng.uniform(-0.6, 0.6, 3)
        data, fiducial = blob(shape, centre), to_mm(affine, centre)
        path.write_bytes(nib.Nifti1Image(data, affine).to_bytes())

        volume = load_volume(path)
        assert box_distance(volume.grid, Grid(shape, affine)) < 1e-4
        assert voxels_off(volume.grid, centroid_mm(volume), fiducial) < 0.01

        other = volume.grid.scaled(rng.uniform(0.85, 1.4, 3))
        resized = Volume(spline_resample(volume, other), other)
        assert box_distance(other, volume.grid) < 1e-4
        assert voxels_off(other, centroid_mm(resized), fiducial) < 0.01

        save_volume(path, spline_resample(resized, volume.grid), volume.grid)
        back = load_volume(path)
        assert back.grid.same_as(volume.grid, 1e-3)
        assert voxels_off(back.grid, centroid_mm(back), fiducial) < 0.01


def centroid_mm(volume):
    return to_mm(volume.grid.affine, centroid(volume.data))


@pytest.mark.parametrize("form", ["sform", "qform"])
def test_one_head_stored_in_48_layouts_is_one_volume(tmp_path, form):
    rng = np.random.default_rng(0)
    grid = Grid((7, 9, 8), nib.affines.from_matvec(rotation_of(rng, 0.4) @ np.diag([0.8, 1.1, 2.5]), [-90.3, 20, 47]))
    data = rng.random(grid.shape, dtype=np.float32)
    left = data.copy()
    left[0] += 5  # the outermost sagittal plane, low x: left
    for order, signs in LAYOUTS:
        turned = nib.orientations.apply_orientation(left, np.stack([order, signs], axis=1))
        affine = laid_out(grid, order, signs).affine
        image = nib.Nifti1Image(turned, None)
        getattr(image, f"set_{form}")(affine, code="scanner")
        path = tmp_path / "scan.nii"
        path.write_bytes(image.to_bytes())
        volume = load_volume(path)
        np.testing.assert_array_equal(volume.data, left)
        # A qform keeps few digits of a turn that is nearly a half one.
        assert volume.grid.same_as(grid, 1e-4 if form == "sform" else 0.01)
        assert aff2axcodes(volume.grid.affine) == ("R", "A", "S")


def test_forms_agree_as_far_as_a_quaternion_can_say(tmp_path):
    """Near a half turn float32 keeps few digits of a qform's tilt; that is not another place, a millimetre is."""
    rng, path, apart = np.random.default_rng(1), tmp_path / "scan.nii", []
    for tilt in (1e-4, 1e-3, 3e-3, 1e-2, 0.1) * 8:
        linear = rotation_of(rng, tilt) @ np.diag([-25, 25, 25])
        image = nib.Nifti1Image(rng.integers(0, 9, (11, 11, 11), dtype=np.uint8), None)
        image.set_sform(nib.affines.from_matvec(linear, [90, -120, -70]), code=1)
        image.set_qform(image.get_sform(), code=1)
        path.write_bytes(image.to_bytes())
        apart.append(box_distance(Grid(image.shape, image.get_sform()), Grid(image.shape, image.get_qform())))
        assert box_distance(load_volume(path).grid, Grid(image.shape, image.get_sform())) < 1e-4
        image.header["qoffset_y"] += 1
        path.write_bytes(image.to_bytes())
        with pytest.raises(VolumeError, match="disagree by 1"):
            load_volume(path)
    assert max(apart) > 0.1


def with_forms(path, sform, qform):
    image = nib.Nifti1Image(blob((20, 20, 20), 9.5), None)
    image.set_sform(nib.affines.from_matvec(sform * 9, [-80, -70, -60]), code=1)
    image.set_qform(nib.affines.from_matvec(qform * 9, [-80, -70, -60]), code=1)
    path.write_bytes(image.to_bytes())
    return image


SHEARED = np.array([[1, 0, 0], [0, 1, 0.1], [0, 0, 1]])


@pytest.mark.parametrize("wrong", ["turned", "sheared", "flipped", "larger"])
def test_a_qform_that_is_not_the_sform_is_refused(tmp_path, wrong):
    tilt = nib.quaternions.angle_axis2mat(0.02, [0, 0, 1])
    sform = {"turned": tilt, "sheared": SHEARED, "flipped": np.diag([-1, 1, 1]), "larger": np.eye(3) * 1.01}[wrong]
    with_forms(tmp_path / "scan.nii", sform, np.eye(3))
    with pytest.raises(VolumeError, match="sform and qform disagree"):
        load_volume(tmp_path / "scan.nii")


def test_of_a_shear_a_qform_says_the_nearest_turn_and_the_sform_counts(tmp_path):
    """Converters write a tilted gantry so, and copying the one over the other changes nothing."""
    image = with_forms(tmp_path / "scan.nii", SHEARED, SHEARED)
    apart = box_distance(Grid(image.shape, image.get_sform()), Grid(image.shape, image.get_qform()))
    grid = load_volume(tmp_path / "scan.nii").grid
    assert apart > 5 and box_distance(grid, Grid(image.shape, image.get_sform())) < 1e-4
    assert grid.is_sheared and not Grid(image.shape, image.get_qform()).is_sheared


def test_an_offset_of_kilometres_costs_less_than_a_hundredth_of_a_voxel(tmp_path):
    grid = Grid((6, 7, 8), nib.affines.from_matvec(np.diag([0.5, 0.5, 0.5]), [9e3, -8e3, 7e3]))
    save_volume(tmp_path / "far.nii", np.random.default_rng(0).random(grid.shape, dtype=np.float32), grid)
    assert load_volume(tmp_path / "far.nii").grid.same_as(grid)


def ramp(grid, slope=(0.3, -0.2, 0.7)):
    index = np.stack(np.meshgrid(*map(np.arange, grid.shape), indexing="ij"), axis=-1)
    return (to_mm(grid.affine, index) @ slope).astype(np.float32)


@pytest.mark.parametrize("seed", range(40))
def test_a_ramp_is_the_same_ramp_on_any_grid_inside_the_outermost_centres(seed):
    rng = np.random.default_rng(seed)
    source = Grid(rng.integers(1, 14, 3) if seed % 4 else (2, 3, 9), random_affine(rng, seed))
    whole = Volume(ramp(source), source)
    parallel = source.resized(tuple(rng.integers(2, 30, 3)))
    targets = {
        "resized": parallel,
        "another order": laid_out(parallel, *LAYOUTS[seed]),
        "rotated": Grid((9, 8, 7), nib.affines.from_matvec(rotation_of(rng) * 0.9, centre_mm(source) - 3)),
    }
    for name, target in targets.items():
        index = np.stack(np.meshgrid(*map(np.arange, target.shape), indexing="ij"), axis=-1)
        inside = to_mm(np.linalg.inv(source.affine) @ target.affine, index)
        expected = to_mm(source.affine, np.clip(inside, 0, np.array(source.shape) - 1)) @ (0.3, -0.2, 0.7)
        # Beyond the outermost centres the nearest one is kept, which the clipped index says.
        np.testing.assert_allclose(
            spline_resample(whole, target), expected, atol=2e-6 * (np.abs(expected).max() + 1), err_msg=name
        )


def centre_mm(grid):
    return to_mm(grid.affine, (np.array(grid.shape) - 1) / 2)


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 2, 3), (4, 5, 6)])
def test_a_constant_stays_that_constant_on_any_grid(shape):
    rng = np.random.default_rng(5)
    volume = Volume(np.full(shape, 41.3, np.float32), Grid(shape, random_affine(rng, 100)))
    target = Grid((7, 8, 9), random_affine(rng, 130))
    np.testing.assert_allclose(spline_resample(volume, target), 41.3, rtol=1e-6)


def test_plane_by_plane_is_axis_by_axis():
    """A grid that is turned by next to nothing, but more than parallel axes may be."""
    rng = np.random.default_rng(6)
    source = Grid((9, 12, 10), np.diag([1, 2, 1.5, 1.0]))
    volume = Volume(rng.random(source.shape, dtype=np.float32), source)
    target = source.resized((14, 9, 23))
    turned = target.affine.copy()
    turned[0, 1] += 2e-3
    expected = spline_resample(volume, target)
    assert 0 < np.abs(spline_resample(volume, Grid(target.shape, turned)) - expected).max() < 0.05


def test_a_blob_is_found_where_it_was_on_rotated_grids():
    for seed in range(50):
        rng = np.random.default_rng(seed)
        turn, centre = rotation_of(rng), np.array([9.1, 8.4, 9.7])
        source = Grid(
            (19, 19, 19), nib.affines.from_matvec(turn @ np.diag(rng.uniform(0.8, 1.2, 3)), rng.uniform(-99, 99, 3))
        )
        fiducial = to_mm(source.affine, centre)
        linear = rotation_of(rng) @ np.diag(rng.uniform(0.7, 1.0, 3))
        target = Grid((26, 26, 26), nib.affines.from_matvec(linear, fiducial - linear @ [12.3, 12.9, 12.5]))
        resampled = spline_resample(Volume(blob(source.shape, centre), source), target)
        assert np.abs(centroid(resampled) - [12.3, 12.9, 12.5]).max() < 0.01


def test_the_spline_is_the_natural_one():
    from scipy.interpolate import CubicSpline

    rng = np.random.default_rng(7)
    for m in (2, 3, 4, 9, 40):
        positions = rng.uniform(-2, m + 1, 30)
        reference = CubicSpline(np.arange(m), np.eye(m), bc_type="natural")(np.clip(positions, 0, m - 1))
        np.testing.assert_allclose(spline_matrix(positions, m), reference, atol=1e-12)
        np.testing.assert_allclose(spline_matrix(np.arange(m), m), np.eye(m), atol=1e-15)


def test_cell_averages_of_a_ramp_are_exact_for_integers_and_an_eighth_of_a_cell_off_at_most():
    """Cells are constant inside: the mean over a part of a cell cannot know which part it is."""
    rng = np.random.default_rng(8)
    for _ in range(200):
        m = int(rng.integers(1, 30))
        n = int(rng.integers(m, 120))
        error = np.abs(cell_matrix(n, m) @ np.arange(n) - ((np.arange(m) + 0.5) * n / m - 0.5)).max()
        assert error < (1e-9 if n % m == 0 else 1 / 8 * m / n + 1e-9)
    grid = Grid((12, 20, 9), random_affine(rng, 40))
    coarse = grid.resized((4, 5, 3))
    np.testing.assert_allclose(cell_average(ramp(grid), coarse.shape), ramp(coarse), atol=1e-4)


@pytest.fixture(scope="module", params=[0, 7, 13, 42, 101, 146])
def published(request, tmp_path_factory):
    """A blob published on an oblique, flipped or sheared grid (0, 42: sheared), too long for one level."""
    rng = np.random.default_rng(request.param)
    grid, centre = Grid((560, 32, 40), random_affine(rng, request.param)), np.array([283.4, 15.2, 20.1])
    folder, stem = tmp_path_factory.mktemp("anat"), "sub-01_res-hi_desc-sr_T1w"
    outputs = Outputs(folder / f"{stem}.ome.zarr/zarr.json", folder / f"{stem}.nii.gz", folder / f"{stem}.json")
    along = np.exp(-((np.arange(560) - centre[0]) ** 2) / (2 * 40.0**2))
    data = blob((1, 32, 40), np.array([0, *centre[1:]]), sigma=3.0) * along[:, None, None].astype(np.float32)
    publish_volume(data, None, grid, outputs, scale=100.0, offset=0.0, record={})
    return grid, to_mm(grid.affine, centre), outputs


def test_ome_zarr_and_nifti_say_one_geometry_at_every_level(published):
    grid, fiducial, outputs = published
    header = stores.read_grid(outputs.store)
    assert box_distance(header, grid) < 1e-4
    directions = header.affine[:3, :3] / header.voxel_size
    steps = stores.read_scales(outputs.store)
    assert len(steps) == 5
    rng = np.random.default_rng(0)
    for level, (scale, translation) in enumerate(steps):
        data = stores.read_level(outputs.store, level)
        said = Grid(data.shape, nib.affines.from_matvec(directions * scale, directions @ translation))
        index = rng.uniform(-0.5, data.shape, (20, 3))
        np.testing.assert_allclose(
            to_mm(said.affine, index), to_mm(header.affine, (index + 0.5) * 2**level - 0.5), atol=1e-4
        )
        if level < 3:  # coarser, the blob is smaller than a voxel
            assert voxels_off(said, to_mm(said.affine, centroid(data)), fiducial) < 0.01


def test_the_preview_lies_where_its_level_of_the_store_lies(published):
    grid, fiducial, outputs = published
    preview = nib.load(outputs.preview)
    directions = grid.affine[:3, :3] / grid.voxel_size
    scale, translation = stores.read_scales(outputs.store)[1]
    np.testing.assert_allclose(preview.affine[:3, :3], directions * scale, atol=1e-6)
    np.testing.assert_allclose(preview.affine[:3, 3], directions @ translation, atol=1e-4)
    np.testing.assert_array_equal(preview.get_fdata(dtype=np.float32), stores.read_level(outputs.store, 1))
    assert voxels_off(grid, centroid_mm(load_volume(outputs.preview)), fiducial) < 0.01


def test_orientation_and_sidecar_say_it_too(published):
    grid, _, outputs = published
    axes = read_json(outputs.store)["attributes"]["ome"]["multiscales"][0]["axes"]
    ends = {"L": "left", "R": "right", "P": "posterior", "A": "anterior", "I": "inferior", "S": "superior"}
    toward = [axis["orientation"]["value"].split("-to-")[1] for axis in axes]
    assert toward[::-1] == [ends[code] for code in aff2axcodes(nib.load(outputs.preview).affine)]
    assert read_json(outputs.sidecar)["headsr"]["affine"] == grid.affine.tolist()


@pytest.mark.shared
@pytest.mark.skipif(not CT.exists(), reason="the real CT (../shared/data/ct) is not beside this checkout")
def test_a_real_ct_keeps_its_numbers_and_its_place(tmp_path):
    image = nib.as_closest_canonical(nib.load(CT))
    volume = load_volume(CT)
    np.testing.assert_array_equal(volume.data, np.asarray(image.dataobj))
    np.testing.assert_allclose(volume.grid.affine, image.affine, atol=1e-6)
    assert np.abs(volume.grid.affine[:3, :3] - np.diag(volume.grid.voxel_size)).max() > 0.01, "it is oblique"
    assert volume.storage == Storage("uint8")

    save_volume(tmp_path / "ct.nii.gz", volume.data, volume.grid, storage=volume.storage)
    again = nib.load(tmp_path / "ct.nii.gz")
    assert again.get_data_dtype() == np.uint8
    np.testing.assert_array_equal(np.asarray(again.dataobj), np.asarray(image.dataobj))
    assert load_volume(tmp_path / "ct.nii.gz").grid.same_as(volume.grid, 1e-3)

    thin = volume.grid.at_voxel_size((0.9, 0.9, 1.6))
    assert np.abs(thin.corners - volume.grid.corners).max() < 1e-4
    fine = spline_resample(volume, thin)
    low, high = volume.storage.limits
    save_volume(tmp_path / "thin.nii.gz", np.clip(fine, low, high), thin, storage=volume.storage)
    thinner = load_volume(tmp_path / "thin.nii.gz")
    assert np.abs(thinner.data - np.clip(fine, low, high)).max() <= 0.5
    back = spline_resample(thinner, volume.grid)
    slopes = np.stack([slope.ravel() for slope in np.gradient(volume.data)], axis=1)
    moved, *_ = np.linalg.lstsq(slopes, (volume.data - back).ravel(), rcond=None)
    assert np.abs(moved).max() < 0.01


# Each ties the outermost centres together, or keeps another box than ours, by default.
FORBIDDEN = (
    "scipy.ndimage.zoom",
    "skimage.transform",
    "cv2.resize",
    "nibabel.processing",
    "nilearn.image.resample",
    "torchvision.transforms",
)


def forbidden_calls(code):
    """The names of resampling functions of other conventions that Python code refers to, under whatever alias."""
    tree, known, found = ast.parse(code), {}, []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            known |= {
                a.asname or a.name.split(".")[0]: a.name if a.asname else a.name.split(".")[0] for a in node.names
            }
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            known |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
            found += [f"{node.module}.{alias.name}" for alias in node.names]
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            first, *rest = ast.unparse(node).split(".")
            found.append(".".join([known.get(first, first), *rest]))
        elif isinstance(node, ast.keyword) and node.arg == "align_corners" and ast.unparse(node.value) != "False":
            found.append("align_corners")
    return sorted({name for name in found if name.startswith((*FORBIDDEN, "align_corners"))})


@pytest.mark.parametrize(
    "code",
    [
        "from scipy import ndimage\nndimage.zoom(a, 2)",
        "from scipy import ndimage as nd\nnd.zoom(a, 2)",
        "import scipy.ndimage\nscipy.ndimage.zoom(a, 2)",
        "import scipy.ndimage as nd\nnd.zoom(a, 2)",
        "from scipy.ndimage import zoom as grow\ngrow(a, 2)",
        "from skimage import transform\ntransform.resize(a, (2, 2))",
        "from skimage.transform import rescale",
        "from nilearn import image\nimage.resample_img(a)",
        "from nibabel import processing",
        "F.interpolate(a, scale_factor=2, align_corners=True)",
    ],
)
def test_the_search_for_other_conventions_finds_them(code):
    assert forbidden_calls(code)


def test_the_search_leaves_the_right_ones_alone():
    assert not forbidden_calls("from scipy import ndimage\nndimage.map_coordinates(a, b)\nimage.resize(size)")
    assert not forbidden_calls("F.grid_sample(a, b, align_corners=False)")


@pytest.mark.parametrize("folder", ["src", "workflow", "benchmarks"])
def test_no_other_grid_convention_is_used(folder):
    files = sorted((ROOT / folder).rglob("*.py"))
    assert files
    used = {str(file.relative_to(ROOT)): forbidden_calls(file.read_text(encoding="utf-8")) for file in files}
    assert {name: calls for name, calls in used.items() if calls} == {}
