"""Pictures: what is in them, where, and how large the files are."""

from dataclasses import asdict

import numpy as np
import pytest
from PIL import Image

from headsr.acquisition.protocol import Protocol
from headsr.evaluate.figures import draw_figure
from headsr.evaluate.picture import _LEVELS, FIGURE_BYTES, Panel, _indexed, _nearest
from headsr.files import write_json
from headsr.volumes import Grid, Volume, cell_average, load_volume, save_volume

SHAPE = (31, 36, 28)
SCALE = 500.0


@pytest.fixture
def head(tmp_path):
    """A noisy ball as truth, its thick axial slices, and volumes of it in scan units."""
    grid = Grid(SHAPE, np.diag([2.0, 2.0, 2.0, 1.0]))
    index = np.stack(np.meshgrid(*[np.linspace(-1, 1, n) for n in SHAPE], indexing="ij"))
    ball = ((index**2).sum(0) < 0.8).astype(np.float32)
    rng = np.random.default_rng(0)
    truth = (ball * rng.uniform(0.2, 0.9, SHAPE)).astype(np.float32)
    thick = grid.resized((31, 36, 7))
    save_volume(tmp_path / "mask.nii.gz", ball, grid)
    save_volume(tmp_path / "truth.nii.gz", truth, grid)
    save_volume(tmp_path / "lowres.nii.gz", cell_average(truth, thick.shape), thick)
    protocol = Protocol("axial", "box", None, 0.01, grid.shape, grid.affine.tolist(), SCALE, 0.0, "thick", "key")
    write_json(tmp_path / "lowres.json", {"headsr": asdict(protocol)})
    save_volume(tmp_path / "residual.nii.gz", (0.01 * SCALE * rng.standard_normal(thick.shape)).astype("f4"), thick)
    view = {"map": "residual.nii.gz", "rms_before": 0.02, "rms_after": 0.01, "allowed": 0.01}
    view |= {"rms_before_everywhere": 0.02, "rms_after_everywhere": 0.01}
    write_json(tmp_path / "check.json", {"headsr": {"views": {"axial": view}, "projection": {"outcome": "met"}}})
    for name, noise in (("good", 0.01), ("bad", 0.1)):
        save_volume(tmp_path / f"{name}.nii.gz", ((truth + noise * ball) * SCALE).astype(np.float32), grid)
    return tmp_path


def draw(head, **change):
    inputs = {
        "lowres": [head / "lowres.nii.gz"],
        "volumes": {"A good one": head / "good.nii.gz", "A bad one": head / "bad.nii.gz"},
        "checks": {"A good one": head / "check.json"},
        "truth": head / "truth.nii.gz",
        "head_mask": head / "mask.nii.gz",
        "brain_mask": head / "mask.nii.gz",
        "suffix": "T1w",
        "title": "demo/sub-06_T1w",
    }
    draw_figure(head / "figure.png", **(inputs | change))
    return Image.open(head / "figure.png")


def test_a_small_readable_file(head):
    picture = draw(head)
    assert (head / "figure.png").stat().st_size <= FIGURE_BYTES
    assert picture.width > 4 * 170
    colours = np.asarray(picture.convert("RGB")).reshape(-1, 3)
    assert (colours.max(axis=1) - colours.min(axis=1) > 100).any()  # error maps and residuals are not grey


def test_the_same_bytes_each_time(head):
    draw(head)
    first = (head / "figure.png").read_bytes()
    draw(head)
    assert (head / "figure.png").read_bytes() == first


def test_a_brain_is_as_bright_as_its_contrast_asks_for_whatever_else_is_bright(head):
    """The published volumes are half and a quarter as bright in normalised units: fat and fluid set what becomes 1."""
    for dark, suffix, grey in ((2, "T1w", 0.6), (4, "T1w", 0.6), (4, "T2w", 0.42)):
        for name in ("truth", "lowres"):
            volume = load_volume(head / f"{name}.nii.gz")
            save_volume(head / f"dark_{name}.nii.gz", volume.data / dark, volume.grid)
        (head / "dark_lowres.json").write_text((head / "lowres.json").read_text())
        good = load_volume(head / "good.nii.gz")
        save_volume(head / "dark_good.nii.gz", good.data / dark, good.grid)
        change = {"lowres": [head / "dark_lowres.nii.gz"], "volumes": {"A": head / "dark_good.nii.gz"}, "checks": {}}
        drawn = draw(head, **change, truth=head / "dark_truth.nii.gz", suffix=suffix).convert("L")
        brain = np.asarray(drawn, dtype=float)[140:180, 74 + 240 : 74 + 290]  # the middle of the axial plane
        assert abs(np.median(brain) / 255 - grey) < 0.06


def test_larger_errors_are_brighter(head):
    """The error row of the bad volume (column 2) against that of the good one (column 1)."""
    picture = np.asarray(draw(head).convert("L"), dtype=float)
    height = round(176 * 32 / 27)  # about: the axial plane is as high as its box
    row = picture[56 + height + 20 : 56 + 2 * height - 20]
    good, bad = row[:, 74 + 180 : 74 + 350].mean(), row[:, 74 + 360 : 74 + 530].mean()
    assert bad > good + 30


def test_without_a_truth_there_are_no_error_rows(head):
    with_truth = draw(head).size
    without = draw(head, truth=None).size
    assert without[0] < with_truth[0]
    assert without[1] < 0.7 * with_truth[1]


def test_another_grid_is_refused(head):
    shifted = Grid(SHAPE, np.diag([2.0, 2.0, 2.0, 1.0]) + np.eye(4, k=3))
    save_volume(head / "bad.nii.gz", np.random.default_rng(0).random(SHAPE).astype("f4"), shifted)
    with pytest.raises(ValueError, match=r"bad\.nii\.gz: lies on another grid"):
        draw(head)


def test_a_mask_elsewhere_is_refused(head):
    save_volume(head / "mask.nii.gz", np.pad(np.ones((2, 2, 2), "f4"), 3), Grid((8, 8, 8), np.eye(4)))
    far = np.diag([2.0, 2.0, 2.0, 1.0])
    far[:3, 3] = 500
    for name in ("good", "bad"):
        save_volume(head / f"{name}.nii.gz", np.random.default_rng(0).random(SHAPE).astype("f4"), Grid(SHAPE, far))
    with pytest.raises(ValueError, match="no part of the head mask"):
        draw(head, truth=None)


def test_thick_slices_stay_visible():
    """Every voxel of the head shows the thick slice that it lies in."""
    fine = Grid((2, 2, 12), np.eye(4))
    thick = Volume(np.zeros((2, 2, 3), dtype=np.float32), fine.thick(2, 4))
    assert _nearest(thick, fine)[2].tolist() == [0] * 4 + [1] * 4 + [2] * 4
    assert _nearest(thick, fine)[0].tolist() == [0, 1]


def test_a_thick_scan_as_it_was_acquired(head):
    """Its mask lies on its own coarse grid, the volume on a refined one."""
    coarse = Grid((31, 36, 7), np.diag([2.0, 2.0, 8.0, 1.0]))
    save_volume(head / "mask.nii.gz", np.pad(np.ones((27, 32, 5), "f4"), ((2, 2), (2, 2), (1, 1))), coarse)
    assert draw(head, truth=None, checks={}).height > 300


def test_the_window_is_shown_from_end_to_end():
    image = np.array([[-1.0, 0.0], [1.0, 9.0]], dtype=np.float32)
    grey = _indexed(Panel(image, 0.0, 1.0), (4, 4))
    assert grey[0, 0] == grey[0, 3] == 0
    assert grey[3, 0] == grey[3, 3] == _LEVELS["gray"] - 1
    assert _indexed(Panel(image, 0.0, 1.0, "inferno"), (4, 4)).min() == _LEVELS["gray"]
