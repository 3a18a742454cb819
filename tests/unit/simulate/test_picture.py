import shutil

import numpy as np
import pytest
from PIL import Image

from headsr.simulate import picture
from headsr.simulate.head import simulate_head
from headsr.volumes import save_volume


@pytest.mark.long
def test_the_picture_shows_eight_panels_and_is_small(tmp_path, ball, ball_folder, monkeypatch):
    monkeypatch.setattr(picture, "_BELOW_TOP_MM", 30.0)
    monkeypatch.setattr(picture, "_VOXEL_MM", 4.0)
    for name in ("sub-01", "sub-02", "sub-03"):
        shutil.copy(ball_folder / "sub-01_dseg.nii.gz", tmp_path / f"{name}_dseg.nii.gz")
    shutil.copy(ball_folder / "labels.tsv", tmp_path)
    scan = simulate_head(ball, suffix="T1w", voxel_mm=4.0, seed=1)
    save_volume(tmp_path / "scan.nii.gz", scan.data, scan.grid)
    picture.draw_heads(tmp_path / "scan.nii.gz", tmp_path, tmp_path / "heads.png")
    pixels = np.asarray(Image.open(tmp_path / "heads.png"))
    assert pixels.ndim == 2
    rows, columns = pixels.shape[0] // 2, pixels.shape[1] // 4
    panels = [pixels[r * rows : (r + 1) * rows, c * columns : (c + 1) * columns] for r in range(2) for c in range(4)]
    assert all((panel < 30).mean() > 0.1 and panel.std() > 20 for panel in panels)
    assert (tmp_path / "heads.png").stat().st_size < 250_000
