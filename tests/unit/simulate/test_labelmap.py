from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage

from headsr.simulate.contrast import RANDOM, SEQUENCES
from headsr.simulate.head import head_truth, simulate_head
from headsr.simulate.labelmap import LabelMap, _framed, _kernel, _tubes, _winners, load_label_map
from headsr.simulate.labels import LabelMapError, Structure
from headsr.simulate.scene import FieldOfView
from headsr.simulate.store import prepare_anatomy
from headsr.volumes import Grid, Volume, cell_average, load_volume, save_volume


@pytest.fixture(scope="module")
def quick(ball):
    """The ball sampled more coarsely."""
    return replace(ball, sample_mm=1.0)


def structure(label, tissue, prior=None):
    return Structure(label, tissue, tissue, tissue, prior)


def test_a_map_is_read_in_its_own_millimetres_and_healed(ball):
    names = {s.label: index for index, s in enumerate(ball.structures)}
    assert not (ball.labels == names[25]).any(), "lesions of the map are white matter"
    size = ball.grid.voxel_size
    np.testing.assert_allclose(size, 1)
    centre = tuple(np.rint(-ball.grid.affine[:3, 3]).astype(int))
    assert ball.labels[centre] == names[4]
    assert ball.labels[centre[0] + 9, centre[1], centre[2]] == names[2]
    np.testing.assert_allclose(ball.field_of_view.centre, 0, atol=2.1)
    # 12 mm of air around 32 mm of head, up to the next multiple of 4 mm.
    assert ball.field_of_view.size == (88.0, 88.0, 88.0)


def test_more_structures_than_a_byte_counts_are_told_apart(tmp_path):
    inside = ((np.indices((34, 34, 34)) - 16.5) ** 2).sum(axis=0) < 14**2
    labels = np.zeros(inside.shape, dtype=np.float32)
    labels[inside] = 1000 + np.arange(inside.sum()) * 300 // inside.sum()
    save_volume(tmp_path / "sub-01_dseg.nii.gz", labels, Grid(labels.shape, np.diag([2.0, 2, 2, 1])))
    rows = [f"{1000 + n}\tctx-lh-{n}\tgrey" for n in range(300)] + ["9\tnobody knows\t"]
    (tmp_path / "dseg.tsv").write_text("\n".join(["index\tname\ttissue", *rows]) + "\n")
    head = load_label_map(tmp_path / "sub-01_dseg.nii.gz", tmp_path / "dseg.tsv")
    numbers = np.array([structure.label for structure in head.structures])[head.labels]
    assert set(np.unique(numbers)) == {0, *range(1000, 1300)}
    far = np.argwhere(numbers == 1290).mean(axis=0).astype(int)
    winners = head.halved([slice(n, n + 2) for n in far])
    assert winners.max() > 255 and abs(int(winners.max()) - 291) < 10
    with pytest.raises(LabelMapError, match=r"dseg\.tsv: has 301 structures, and an anatomy to train on holds 256"):
        prepare_anatomy(tmp_path / "sub-01_dseg.nii.gz", tmp_path / "dseg.tsv", tmp_path / "a.safetensors")


def test_where_the_scan_cut_the_head_it_goes_on():
    labels = np.zeros((60, 60, 60), dtype=np.uint8)
    labels[5:55, 5:55, 3:40] = 1
    framed, grid, view = _framed(labels[:, :, 3:], Grid((60, 60, 57), np.eye(4)), "x")
    floor = view.centre[2] - view.size[2] / 2
    assert floor > 2, "there is no air below the cut, which is trimmed"
    inside = np.rint(np.array((30, 30, floor - 10)) - grid.affine[:3, 3]).astype(int)
    assert framed[tuple(inside)] == 1, "the neck goes on below the field of view"


def test_a_coarse_map_of_a_whole_head_is_not_taken_for_cut():
    """The last plane of 4 mm of a round head has a face as large as where a finer map would be cut."""
    x, y, z = np.indices((48, 56, 50)) - np.array([23.5, 27.5, 24.5]).reshape(3, 1, 1, 1)
    labels = ((x * 4 / 78) ** 2 + (y * 4 / 96) ** 2 + (z * 4 / 84) ** 2 <= 1).astype(np.uint8)
    framed, _, view = _framed(labels, Grid(labels.shape, np.diag([4.0, 4, 4, 1])), "x")
    assert framed.sum() == labels.sum()
    assert min(np.array(view.size) - [148, 188, 164]) >= 2 * 8


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda labels: np.where(labels == 3, 77, labels), r"label 77 is not in .*labels.tsv"),
        (lambda labels: np.where(labels > 0, 0, labels) + (np.arange(69) == 3) * 0.5, "holds fractions"),
    ],
)
def test_maps_that_do_not_fit_the_table_are_refused(tmp_path, ball_folder, change, message):
    path = tmp_path / "sub-02_dseg.nii.gz"
    labels = load_volume(ball_folder / "sub-01_dseg.nii.gz").data
    save_volume(path, change(labels).astype(np.float32), Grid(labels.shape, np.eye(4)))
    with pytest.raises(LabelMapError, match=message):
        load_label_map(path, ball_folder / "labels.tsv")


def test_spline_weights_sum_to_one_and_are_symmetric():
    weights = _kernel(np.array([-3.0, -0.25, 0.25, 5.0, 11.4]), 12)
    np.testing.assert_allclose(weights.sum(axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(weights[3, 4:7], [1 / 6, 2 / 3, 1 / 6], atol=1e-6)


def test_boundaries_are_smooth_surfaces_not_the_staircase_of_the_map():
    grid = Grid((40, 40, 40), np.eye(4))
    x, y, z = np.indices(grid.shape) - 19.5
    slope = x + 0.37 * y + 0.21 * z
    fine = grid.resized((160, 160, 160))
    winners = _winners((slope > 0).astype(np.uint8), grid, fine)
    nearest = np.kron(slope > 0, np.ones((4, 4, 4), dtype=bool))
    fx, fy, fz = (np.indices(fine.shape) + 0.5) / 4 - 0.5 - 19.5
    truth = fx + 0.37 * fy + 0.21 * fz > 0
    inner = (slice(16, -16),) * 3
    wrong, stairs = ((found != truth)[inner].sum() for found in (winners, nearest))
    assert wrong < 0.6 * stairs
    plane = winners[inner][:, 60].argmax(axis=0)  # along z the surface must climb one fine voxel at a time
    assert np.abs(np.diff(plane)).max() <= 1


def test_one_voxel_thin_sheets_survive():
    labels = np.zeros((20, 20, 20), dtype=np.uint8)
    labels[10] = 1
    grid = Grid(labels.shape, np.eye(4))
    fine = _winners(labels, grid, grid.resized((40, 40, 40)))
    assert fine[20:22].all()


def test_vessels_are_thin_and_long():
    grid = Grid((60, 60, 60), np.eye(4))
    rng = np.random.default_rng(0)
    fields = [ndimage.gaussian_filter(rng.standard_normal(grid.shape), 6).astype(np.float32) for _ in range(2)]
    vessels = _tubes(tuple(Volume(f / f.std(), grid) for f in fields), grid) > 0.5
    assert 0.001 < vessels.mean() < 0.05
    thick = ndimage.distance_transform_edt(vessels).max()
    parts, _ = ndimage.label(vessels, np.ones((3, 3, 3)))
    longest = max(max(s.stop - s.start for s in part) for part in ndimage.find_objects(parts))
    assert thick <= 3 and longest > 15


@pytest.mark.parametrize(
    ("coarse", "times"), [pytest.param(2.0, (2, 2, 2), marks=pytest.mark.long), ((1.0, 2.0, 4.0), (1, 2, 4))]
)
def test_one_person_at_two_voxel_sizes_is_one_head(ball, coarse, times):
    fine = simulate_head(ball, suffix="T1w", voxel_mm=1.0, seed=3, lesions="mild", noise=0)
    thick = simulate_head(ball, suffix="T1w", voxel_mm=coarse, seed=3, lesions="mild", noise=0)
    np.testing.assert_array_equal(np.array(thick.data.shape) * times, fine.data.shape)
    np.testing.assert_allclose(thick.grid.corners, fine.grid.corners, atol=1e-6)
    averaged = cell_average(fine.data, thick.data.shape)
    other = simulate_head(ball, suffix="T1w", voxel_mm=coarse, seed=4, lesions="mild", noise=0).data
    assert np.abs(thick.data - averaged).mean() < 0.02 * np.abs(other - averaged).mean()
    truths = [head_truth(ball, voxel_mm=mm, seed=3, lesions="mild") for mm in (1.0, coarse)]
    shares = [[(t.labels.data == label).mean() for label in (2, 3, 24, 515)] for t in truths]
    np.testing.assert_allclose(shares[1], shares[0], rtol=0.05)
    volumes = [t.lesions.data.sum() * t.lesions.grid.voxel_size.prod() for t in truths]
    assert volumes[1] == pytest.approx(volumes[0], rel=0.35)


def test_voxels_at_boundaries_average_both_sides(quick):
    scan = simulate_head(quick, suffix="T1w", voxel_mm=2.0, seed=5, noise=0)
    labels = head_truth(quick, voxel_mm=2.0, seed=5).labels.data
    water, white = (np.median(scan.data[labels == label]) for label in (4, 2))
    at_ventricle = ndimage.binary_dilation(labels == 4) & ndimage.binary_dilation(labels == 2)
    share = (scan.data[at_ventricle & np.isin(labels, (2, 4))] - water) / (white - water)
    # A sphere's surface cuts voxels everywhere between not at all and in halves.
    assert np.mean((share > 0.2) & (share < 0.8)) > 0.3


@pytest.mark.parametrize("suffix", [*SEQUENCES, RANDOM])
def test_every_contrast_shows_the_tissues_it_should(quick, suffix):
    scan = simulate_head(quick, suffix=suffix, voxel_mm=2.0, seed=1)
    again = simulate_head(quick, suffix=suffix, voxel_mm=2.0, seed=1)
    np.testing.assert_array_equal(scan.data, again.data)
    labels = head_truth(quick, voxel_mm=2.0, seed=1).labels.data
    white, grey, csf, air = (np.median(scan.data[labels == label]) for label in (2, 3, 24, 0))
    if suffix != RANDOM:
        order = {
            "T1w": (white, grey, csf),
            "T2w": (csf, grey, white),
            "PDw": (grey, white),
            "FLAIR": (grey, white, csf),
        }
        assert list(order[suffix]) == sorted(order[suffix], reverse=True)
    assert air < 30


def test_the_spread_within_a_class_is_near_its_prior(ball):
    still = replace(ball, scales_mm=((30.0, 0.1),))
    priors = {2: (160, 10), 3: (96, 14)}
    scan = simulate_head(still, suffix="T1w", voxel_mm=1.0, seed=2)
    labels = head_truth(still, voxel_mm=1.0, seed=2).labels.data
    inner = ndimage.minimum_filter(labels, 3) == ndimage.maximum_filter(labels, 3)
    for label, (mean, spread) in priors.items():
        values = scan.data[inner & (labels == label)] * 160.29 / 850
        assert values.mean() == pytest.approx(mean, rel=0.2)
        assert 0.3 * spread < values.std() < 2 * spread


def test_lesions_are_bright_on_flair_dark_on_t1w_and_are_returned_as_truth(quick):
    mask = head_truth(quick, voxel_mm=2.0, seed=6, lesions="moderate").lesions.data.astype(bool)
    assert 1000 < mask.sum() * 8 < 5000
    away = ~ndimage.binary_dilation(mask, iterations=3)
    for suffix, sign in (("FLAIR", 1), ("T2w", 1), ("PDw", 1), ("T1w", -1)):
        healthy, ill = (
            simulate_head(quick, suffix=suffix, voxel_mm=2.0, seed=6, lesions=degree, noise=0).data
            for degree in ("none", "moderate")
        )
        brighter = sign * (ill - healthy)
        assert (brighter[mask] > 0).mean() > 0.99
        assert np.abs(brighter[away]).mean() < 0.01 * brighter[mask].mean()
    assert not head_truth(quick, voxel_mm=2.0, seed=6).lesions.data.any()


def test_texture_is_smooth_not_white():
    grid = Grid((64, 64, 64), np.eye(4))
    labels = np.ones(grid.shape, dtype=np.uint8)
    structures = (structure(0, "air"), structure(1, "white"))
    head = LabelMap(grid, labels, structures, FieldOfView((31.5, 31.5, 31.5), (48.0, 48.0, 48.0)))
    scan = simulate_head(head, suffix="T2w", voxel_mm=1.0, seed=1, noise=0).data
    detail = scan / ndimage.gaussian_filter(scan, 6) - 1
    assert 0.005 < detail.std() < 0.1
    assert np.corrcoef(detail[:-1].ravel(), detail[1:].ravel())[0, 1] > 0.3
