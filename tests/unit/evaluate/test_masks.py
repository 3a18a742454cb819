import numpy as np
import pytest
from PIL import Image

from headsr.evaluate.masks import _BRAIN, _HEAD, draw_masks
from headsr.files import write_json
from headsr.volumes import Grid, save_volume

SHAPE = (60, 72, 20)
PIXEL_MM = 180 / 150  # 20 slices of 9 mm are the longest side


@pytest.fixture
def scan(tmp_path):
    """A ball of texture in thick slices, the masks of a head and of a brain in it, and its sidecar."""
    grid = Grid(SHAPE, np.diag([3.0, 3.0, 9.0, 1.0]))
    away = np.sqrt((((np.indices(SHAPE).T - np.array(SHAPE) / 2 + 0.5) * grid.voxel_size) ** 2).sum(-1).T)
    rng = np.random.default_rng(0)
    save_volume(tmp_path / "scan.nii.gz", ((away < 80) * rng.uniform(0.3, 0.9, SHAPE)).astype(np.float32), grid)
    save_volume(tmp_path / "head.nii.gz", (away < 80).astype(np.uint8), grid)
    save_volume(tmp_path / "brain.nii.gz", (away < 60).astype(np.uint8), grid)
    write_json(tmp_path / "scan.json", {"SkullStripped": False, "headsr": {}})
    return tmp_path


def draw(folder, brain="brain"):
    draw_masks(
        folder / "masks.png",
        scan=folder / "scan.nii.gz",
        head_mask=folder / "head.nii.gz",
        brain_mask=folder / f"{brain}.nii.gz",
        suffix="T1w",
        title="demo/sub-06_T1w",
    )
    return np.asarray(Image.open(folder / "masks.png").convert("RGB")).astype(int)


def widths(picture, colour):
    """How wide the outline of a colour is on each of the three planes, in mm."""
    drawn = (picture == colour).all(axis=-1)
    wide = picture.shape[1] // 3
    across = [np.flatnonzero(part.any(axis=0)) for part in np.split(drawn[:, : 3 * wide], 3, axis=1)]
    return [PIXEL_MM * (c[-1] - c[0] + 1) if len(c) else 0 for c in across]


def test_both_masks_are_outlined_at_their_size_on_three_planes(scan):
    picture = draw(scan)
    assert widths(picture, _HEAD) == pytest.approx([160] * 3, abs=6)
    assert widths(picture, _BRAIN) == pytest.approx([120] * 3, abs=6)
    assert (scan / "masks.png").stat().st_size < 25_000


def test_where_both_are_one_the_brain_is_shown(scan):
    picture = draw(scan, brain="head")
    assert widths(picture, _HEAD) == [0] * 3
    assert widths(picture, _BRAIN) == pytest.approx([160] * 3, abs=6)


def test_a_stripped_scan_is_called_so(scan):
    before = draw(scan)
    write_json(scan / "scan.json", {"SkullStripped": True, "headsr": {}})
    after = draw(scan)
    changed = np.argwhere(np.abs(before - after).max(axis=-1) > 60)
    assert len(changed) > 50
    assert changed[:, 0].min() > before.shape[0] - 35  # the lines below the planes


def test_the_same_bytes_each_time(scan):
    draw(scan)
    first = (scan / "masks.png").read_bytes()
    draw(scan)
    assert (scan / "masks.png").read_bytes() == first
