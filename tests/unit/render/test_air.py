import numpy as np
import pytest
from known_fields import Waves
from scipy import ndimage

from headsr.files import write_json
from headsr.render import store as stores
from headsr.render.air import Air, coarser, find_air, no_air, read_air
from headsr.render.field import Manner, render
from headsr.render.publish import Outputs
from headsr.render.pyramid import below, level_grids
from headsr.render.tiles import lay_out

SHAPE = (96, 112, 104)  # voxels of 2 mm: a head of 150 x 180 x 165 mm in its box
AFFINE = np.diag([2.0, 2.0, 2.0, 1.0])
CHUNK, SHARD = 16, 48


def inside(x, y, z, centre, radii):
    return sum(((a - c) / r) ** 2 for a, c, r in zip((x, y, z), centre, radii, strict=True)) < 1


class Head(Waves):
    """A head in air: tissue of 0.3 to 1, an ear that is 6 mm thin, a dark sinus inside, noise of so much everywhere."""

    scale, offset = 1.0, 0.0

    def __init__(self, shape=SHAPE, *, noise=0.0, background=0.0, thread=None):
        super().__init__(shape, AFFINE)
        self.noise, self.background, self.thread, self.voxels = noise, background, thread, 0

    def places(self, grid):
        index = np.linalg.inv(self.grid.affine) @ grid.affine
        axes = [np.rint(64 * (index[i, i] * np.arange(n) + index[i, 3])) / 32 for i, n in enumerate(grid.shape)]
        return np.meshgrid(*axes, indexing="ij", sparse=True)

    def tissue(self, grid):
        """Where the head is, its dark inside too."""
        x, y, z = self.places(grid)
        skull = inside(x, y, z, (96, 112, 104), (75, 90, 82))
        ear = inside(x, y, z, (170, 105, 100), (3, 18, 30)) | inside(x, y, z, (22, 105, 100), (3, 18, 30))
        return skull | ear | self._thread(x, y, z)

    def evaluate(self, grid):
        x, y, z = self.places(grid)
        sinus = inside(x, y, z, (96, 170, 90), (15, 14, 18))
        value = np.where(self.tissue(grid) & ~sinus, 0.65 + 0.35 * np.sin(x / 9) * np.cos(y / 7 + z / 11), 0.0)
        wild = np.sin(12.9898 * x + 78.233 * y + 37.719 * z) * 43758.5453
        value = value + self.noise * (2 * (wild - np.floor(wild)) - 1) * np.sqrt(3)
        self.voxels += value.size
        return (value * (1 - self.background) + self.background).astype(np.float32)

    def _thread(self, x, y, z):
        if self.thread is None:
            return (x + y + z) < -np.inf
        a, b, radius = self.thread
        return ((x - a) ** 2 + (y - b) ** 2 + 0 * z) < radius**2


def chunks_with(mask, layout):
    """Which chunks hold any of a mask (X, Y, Z)."""
    found = np.zeros(layout.chunks, bool)
    for block in layout.whole.blocks(layout.chunk):
        found[block.cells(layout.chunk).start] = mask[block.slices].any()
    return found


def found_in(field, factor=1, seed=0):
    grid = field.grid.scaled(factor)
    layout = lay_out(grid.shape, chunk=CHUNK, shard=SHARD)
    return find_air(field, grid, layout, seed=seed), layout, grid


@pytest.mark.parametrize("noise", [0.0, 0.01, 0.02])
@pytest.mark.parametrize("factor", [1, 2])
def test_no_chunk_of_the_head_is_skipped_and_most_of_the_air_is(noise, factor):
    field = Head(noise=noise)
    air, layout, grid = found_in(field, factor)
    held = chunks_with(field.tissue(grid), layout)
    assert not (air.empty & held).any()
    assert air.empty.sum() > 0.7 * (~held).sum()
    assert air.checked == max(4, np.ceil(0.01 * air.empty.sum())) and air.worst <= air.tolerance
    assert abs(air.background) < 0.02


def test_the_dark_inside_of_a_head_is_kept():
    """Chunks all in a sinus as large as the head's half: as dark as the air, and not air."""
    field = Head()
    field.tissue = lambda grid: inside(*field.places(grid), (96, 112, 104), (75, 90, 82))
    hollow = field.evaluate

    def evaluate(grid):
        return np.where(inside(*field.places(grid), (96, 112, 104), (60, 75, 67)), 0, hollow(grid)).astype(np.float32)

    field.evaluate = evaluate
    air, layout, grid = found_in(field)
    dark = ~chunks_with(evaluate(grid) != 0, layout)
    within = ~chunks_with(~field.tissue(grid), layout)
    assert (dark & within).any()
    assert not (air.empty & within).any()


def test_ct_has_its_air_at_minus_1000():
    field = Head(noise=0.01, background=-1000.0)
    field.offset, field.scale = 0.0, 1.0
    air, layout, grid = found_in(field)
    assert air.background == pytest.approx(-1000, abs=25)
    assert not (air.empty & chunks_with(field.tissue(grid), layout)).any()
    assert air.share > 0.2


@pytest.mark.parametrize("thread", [(12.0, 12.0, 40.0), (185.0, 216.0, 12.0)])
def test_anatomy_in_a_corner_of_the_box_is_kept(thread):
    field = Head(thread=thread)
    air, layout, grid = found_in(field)
    assert not (air.empty & chunks_with(field.tissue(grid), layout)).any()


def test_anatomy_that_the_samples_miss_is_found_by_the_check_and_then_nothing_is_skipped():
    """Rods between the samples through all the air, of which each checked chunk has a part."""

    class Rods(Head):
        def _thread(self, x, y, z):
            # At factor 2 chunks are 16 mm a side, and samples lie at 0, 2, 4, ... mm.
            return (np.abs(x % 16 - 9) < 0.8) & (np.abs(y % 16 - 9) < 0.8) & (z > -np.inf)

    field = Rods()
    air, *_ = found_in(field, 2)
    assert air.worst > air.tolerance > 0
    assert air.share == 0
    plain, *_ = found_in(Head(), 2)
    assert plain.share > 0.2


def test_a_box_without_air_is_rendered_whole():
    field = Waves(SHAPE, AFFINE)
    field.at = lambda x, y, z: 2 + np.sin(x / 5) + np.cos(y / 5) * np.sin(z / 5)
    assert found_in(field)[0].share == 0


@pytest.mark.parametrize("value", [0.0, 3.7])
def test_a_constant_field_is_all_air_and_reads_as_its_value(tmp_path, value):
    field = Waves((40, 30, 70))
    field.at = lambda x, y, z: value + 0 * (x + y + z)
    outputs = Outputs(tmp_path / "a.ome.zarr" / "zarr.json", tmp_path / "a.nii.gz", tmp_path / "a.json")
    render(field, outputs, identity="x", manner=Manner(skip_air=True, chunk=16, shard=32, workers=2))
    expected = np.float32(value) * np.float32(100) + np.float32(5)
    for level in (0, 1):
        np.testing.assert_array_equal(stores.read_level(outputs.store, level), expected)
    assert not (outputs.store.parent / "0" / "c").exists()


def test_what_is_not_skipped_is_bit_for_bit_what_it_is_without_skipping(tmp_path):
    levels = {}
    for skip in (True, False):
        folder = tmp_path / str(skip)
        outputs = Outputs(folder / "a.ome.zarr" / "zarr.json", folder / "a.nii.gz", folder / "a.json")
        field = Head(noise=0.01)
        render(field, outputs, identity="x", manner=Manner(skip_air=skip, chunk=CHUNK, shard=SHARD))
        levels[skip] = [stores.read_level(outputs.store, level) for level in range(2)]
    air, layout, grid = found_in(Head(noise=0.01), seed=0)
    assert air.share > 0.2
    skipped = np.zeros(SHAPE, bool)
    for block in layout.whole.blocks(layout.chunk):
        skipped[block.slices] = air.empty[block.cells(layout.chunk).start]
    np.testing.assert_array_equal(levels[True][0][~skipped], levels[False][0][~skipped])
    assert np.ptp(levels[True][0][skipped]) == 0
    assert np.abs(levels[False][0][skipped] - levels[True][0][skipped]).max() < 0.05
    coarse = lay_out(level_grids(grid)[1].shape, chunk=CHUNK, shard=SHARD)
    kept = ~coarser(air.empty, layout, coarse, below)
    near = ndimage.zoom(~skipped, 0.5, order=0)  # a coarse voxel is of eight that are all skipped or all not
    assert kept.any() and near.shape == levels[True][1].shape
    np.testing.assert_array_equal(levels[True][1][near], levels[False][1][near])


def test_air_comes_back_from_json(tmp_path):
    empty = np.random.default_rng(0).random((3, 5, 7)) < 0.5
    air = Air(empty, -3.25, 0.5, 4, 0.125)
    write_json(tmp_path / "air.json", air.as_json())
    back = read_air(tmp_path / "air.json")
    np.testing.assert_array_equal(back.empty, empty)
    assert (back.background, back.tolerance, back.checked, back.worst) == (-3.25, 0.5, 4, 0.125)
    assert no_air(lay_out((3, 4, 5))).share == 0


def test_looking_for_air_takes_a_hundredth_of_the_voxels():
    field = Head((384, 448, 416))
    grid = field.grid
    find_air(field, grid, lay_out(grid.shape, chunk=64, shard=128), seed=0)
    assert field.voxels < 0.02 * np.prod(grid.shape)


@pytest.mark.parametrize("manner", [{"skip_air": True}, {"dtype": "uint16"}])
def test_a_field_that_is_not_finite_has_neither_air_nor_a_range(tmp_path, manner):
    outputs = Outputs(tmp_path / "a.ome.zarr" / "zarr.json", tmp_path / "a.nii.gz", tmp_path / "a.json")
    field = Head()
    field.tissue = lambda grid: inside(*field.places(grid), (96, 112, 104), (75, 90, 82))
    whole = field.evaluate
    field.evaluate = lambda grid: np.where(whole(grid) > 0.99, np.nan, whole(grid)).astype(np.float32)
    with pytest.raises(FloatingPointError, match="finite"):
        render(field, outputs, identity="x", manner=Manner(chunk=CHUNK, shard=SHARD, **manner))
