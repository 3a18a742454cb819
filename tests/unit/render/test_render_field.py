import hashlib
import subprocess
import sys
import tracemalloc

import numpy as np
import pytest

from headsr.files import read_json
from headsr.inr.field import Field, level_shape, save_field
from headsr.render import field as rendering
from headsr.render import store as stores
from headsr.render.field import expected_memory, render, render_field
from headsr.render.publish import Outputs, publish_volume
from headsr.render.pyramid import level_grids
from headsr.render.tiles import TileError, lay_out
from headsr.volumes import Grid, load_volume

AFFINE = np.diag([0.5, 0.75, 1.0, 1.0])
AFFINE[:3, 3] = [-10, 4, -7]
RECORD = {"method": "waves", "source_key": "none"}


class Waves:
    """A field that is a known function of position in mm."""

    scale, offset = 100.0, 5.0

    def __init__(self, shape, fail_at=None):
        self.record = RECORD
        self.grid = Grid(shape, AFFINE)
        self.calls, self.fail_at = 0, fail_at

    def evaluate(self, grid):
        self.calls += 1
        if self.calls == self.fail_at:
            raise KeyboardInterrupt
        axes = [grid.affine[i, i] * np.arange(n) + grid.affine[i, 3] for i, n in enumerate(grid.shape)]
        x, y, z = (a.astype(np.float32) for a in np.meshgrid(*axes, indexing="ij", sparse=True))
        return np.sin(x) + np.cos(y) * z


class Noise(Waves):
    """The worst that there is to compress."""

    def evaluate(self, grid):
        return np.random.default_rng(0).random(grid.shape, dtype=np.float32)


def outputs_in(folder):
    stem = "sub-01_res-hi_desc-sr_T1w"
    return Outputs(folder / f"{stem}.ome.zarr" / "zarr.json", folder / f"{stem}.nii.gz", folder / f"{stem}.json")


def digest(folder):
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


SMALL = {"chunk": 16, "shard": 32}


@pytest.mark.parametrize("shape", [(70, 33, 81), (2, 64, 65), (20, 21, 22)])
def test_rendered_by_tiles_is_evaluated_at_once(tmp_path, shape):
    waves, outputs = Waves(shape), outputs_in(tmp_path)
    render(waves, outputs, identity="waves", **SMALL)
    whole = waves.evaluate(waves.grid).astype(np.float32)
    np.testing.assert_allclose(stores.read_level(outputs.store), whole * 100 + 5, rtol=1e-5, atol=1e-3)
    assert load_volume(outputs.preview).grid.same_as(stores.read_grid(outputs.store))


def test_a_rendered_field_and_a_published_array_are_the_same_store(tmp_path):
    waves, a, b = Waves((70, 33, 81)), outputs_in(tmp_path / "a"), outputs_in(tmp_path / "b")
    render(waves, a, identity="waves")
    volume = waves.evaluate(waves.grid)
    publish_volume(volume, None, waves.grid, b, scale=100.0, offset=5.0, record=RECORD)
    assert digest(tmp_path / "a") == digest(tmp_path / "b")


def test_the_number_of_workers_changes_no_byte(tmp_path):
    for workers in (1, 2, 5):
        render(Waves((40, 33, 65)), outputs_in(tmp_path / str(workers)), identity="waves", workers=workers, **SMALL)
    assert digest(tmp_path / "1") == digest(tmp_path / "2") == digest(tmp_path / "5")


@pytest.mark.parametrize("fail_at", [1, 20, 45])
def test_a_killed_render_goes_on_and_ends_in_the_same_bytes(tmp_path, fail_at):
    shape = (64, 64, 65)
    render(Waves(shape), outputs_in(tmp_path / "whole"), identity="waves", **SMALL)
    outputs = outputs_in(tmp_path / "cut")
    with pytest.raises(KeyboardInterrupt):
        render(Waves(shape, fail_at), outputs, identity="waves", **SMALL)
    assert not outputs.store.exists()
    again = Waves(shape)
    render(again, outputs, identity="waves", **SMALL)
    assert digest(tmp_path / "cut") == digest(tmp_path / "whole")
    # Shards hold eight blocks; those that were whole are not evaluated again.
    assert again.calls == 80 - (fail_at - 1) // 8 * 8


def test_shards_of_another_field_are_not_mixed_in(tmp_path):
    outputs = outputs_in(tmp_path / "cut")
    with pytest.raises(KeyboardInterrupt):
        render(Waves((64, 64, 64), 30), outputs, identity="old", **SMALL)
    new = Waves((64, 64, 64))
    render(new, outputs, identity="new", **SMALL)
    assert new.calls == 64


def test_memory_is_bounded_by_tile_and_workers_not_by_the_volume(tmp_path):
    peaks = []
    for n in (1, 2, 4):
        noise = Noise((64, 64, 64 * n))
        layouts = [lay_out(grid.shape, chunk=32, shard=64) for grid in level_grids(noise.grid)]
        outputs = outputs_in(tmp_path)
        stores.begin(outputs.store, str(n))
        tracemalloc.start()
        for level, layout in enumerate(layouts):
            rendering._render_level(noise, noise.grid, outputs, level=level, layout=layout, workers=1)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert peaks[-1] < layouts[0].tile_bytes
    assert peaks[2] < 1.1 * peaks[1]


def test_expected_memory_counts_tiles_and_preview():
    grids = level_grids(Grid((2048, 2048, 2048), AFFINE))
    layouts = [lay_out(grid.shape) for grid in grids]
    one = 4 * (3 * 512**3 + 16 * 128**3)
    assert expected_memory(grids, layouts, 1) == one == layouts[0].tile_bytes
    assert expected_memory(grids, layouts, 4) == 4 * one
    small = level_grids(Grid((513, 513, 513), AFFINE))
    assert expected_memory(small, [lay_out(grid.shape) for grid in small], 1) >= 3 * 4 * 257**3


def test_too_little_memory_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(TileError, match="Allow more memory"):
        render(Waves((300, 300, 300)), outputs_in(tmp_path), identity="waves", memory_mb=64)
    assert list(tmp_path.iterdir()) == []


def test_a_field_can_be_rendered_on_a_finer_grid(tmp_path):
    waves, outputs = Waves((20, 20, 20)), outputs_in(tmp_path)
    finer = waves.grid.resized((40, 60, 20))
    render(waves, outputs, identity="waves", grid=finer, **SMALL)
    assert stores.read_grid(outputs.store).same_as(finer)
    np.testing.assert_allclose(stores.read_level(outputs.store), waves.evaluate(finer) * 100 + 5, rtol=1e-5, atol=1e-3)


def test_it_says_what_it_will_do_first(tmp_path, capsys):
    render(Waves((64, 64, 65)), outputs_in(tmp_path), identity="waves", **SMALL)
    first, *rest = capsys.readouterr().out.splitlines()
    assert "64 x 64 x 65 voxels, 2 levels" in first and "GB" in first and "14 files" in first
    assert rest[-1].endswith("level 1: 2 of 2 tiles, 0 s left")


def test_a_field_that_is_not_finite_is_refused(tmp_path):
    waves, outputs = Waves((20, 20, 20)), outputs_in(tmp_path)
    waves.scale = np.nan
    with pytest.raises(FloatingPointError):
        render(waves, outputs, identity="waves")
    assert not outputs.store.exists()


def test_a_fitted_field_is_rendered_from_its_file(tmp_path):
    """Bit for bit what it is when it is evaluated at once, for which it is made."""
    rng, shape = np.random.default_rng(0), (20, 18, 22)
    levels = tuple(rng.random((2, *level_shape(shape, cell)), dtype=np.float32) for cell in (4, 2))
    hidden = [rng.normal(size=size).astype(np.float32) for size in ((3, 4), (3,), (3,), ())]
    carried = rng.random(shape, dtype=np.float32)
    fitted = Field(Grid(shape, AFFINE), 300.0, 0.0, (4, 2), levels, *hidden, carried=carried, record=RECORD)
    save_field(tmp_path / "field.safetensors", fitted)
    finer = fitted.grid.resized((40, 36, 44))
    outputs = outputs_in(tmp_path)
    render_field(tmp_path / "field.safetensors", outputs, grid=finer, workers=2)
    np.testing.assert_array_equal(stores.read_level(outputs.store), fitted.evaluate(finer) * np.float32(300))
    assert read_json(outputs.sidecar)["headsr"]["source_key"] == RECORD["source_key"]


def test_neither_publishing_nor_rendering_imports_torch_or_needs_dask_for_one_tile():
    code = "import sys, headsr.render.field; print({'torch', 'dask'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "set()"
