import os

import numpy as np
import pytest
import zarr

from headsr.files import read_json
from headsr.render import store as stores
from headsr.render.pyramid import level_grids
from headsr.render.tiles import Tile, TileError, lay_out
from headsr.volumes import Grid


@pytest.fixture
def root(tmp_path):
    return tmp_path / "sub-01_res-hi_desc-sr_T1w.ome.zarr" / "zarr.json"


def random_affine(rng):
    """Oblique, flipped, permuted, anisotropic."""
    rotation, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    affine = np.eye(4)
    affine[:3, :3] = rotation @ np.diag(rng.uniform(0.06, 3, 3))
    affine[:3, 3] = rng.uniform(-150, 150, 3)
    return affine


def write(root, data, grid, *, chunk=4, shard=8, fingerprint="a"):
    stores.begin(root, fingerprint)
    layout = lay_out(grid.shape, chunk=chunk, shard=shard)
    array = stores.create_level(root, 0, layout)
    for tile in layout.tiles:
        stores.write_tile(array, tile, data[tile.slices])
    stores.commit(root, level_grids(grid), name="sub-01", record={"version": "test"})


@pytest.mark.parametrize("shape", [(5, 6, 7), (17, 9, 16), (1, 20, 3)])
def test_what_is_written_is_read(root, shape):
    data = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    write(root, data, Grid(shape, np.eye(4)))
    np.testing.assert_array_equal(stores.read_level(root), data)
    assert zarr.open_group(root.parent, mode="r")["0"].shape == shape[::-1]


def test_the_affine_comes_back_to_a_hundredth_of_a_voxel(root):
    rng = np.random.default_rng(3)
    for _ in range(20):
        grid = Grid((30, 40, 50), random_affine(rng))
        stores.begin(root, None)
        stores.create_level(root, 0, lay_out(grid.shape))
        stores.commit(root, level_grids(grid), name="sub-01", record={})
        back = stores.read_grid(root)
        assert back.same_as(grid)
        scale, translation = stores.read_scales(root)[0]
        directions = grid.affine[:3, :3] / grid.voxel_size
        index = np.array([29, 0, 49])
        np.testing.assert_allclose(directions @ (scale * index + translation), grid.affine[:3] @ [*index, 1], atol=1e-6)


def test_scale_and_translation_of_a_straight_grid_are_its_affine(root):
    affine = np.diag([0.5, 1, 2, 1.0])
    affine[:3, 3] = [-10, -20, 30]
    write(root, np.zeros((8, 8, 8), np.float32), Grid((8, 8, 8), affine))
    scale, translation = stores.read_scales(root)[0]
    np.testing.assert_array_equal(scale, [0.5, 1, 2])
    np.testing.assert_array_equal(translation, [-10, -20, 30])


def test_a_tile_that_is_not_one_whole_shard_is_refused(root):
    stores.begin(root, "a")
    array = stores.create_level(root, 0, lay_out((16, 16, 16), chunk=4, shard=8))
    for tile in (Tile((4, 0, 0), (8, 8, 8)), Tile((0, 0, 0), (4, 8, 8)), Tile((0, 0, 0), (16, 8, 8))):
        with pytest.raises(TileError, match="whole shard"):
            stores.write_tile(array, tile, np.zeros(tile.shape, np.float32))


def test_without_its_root_metadata_a_store_is_not_finished(root):
    data = np.ones((8, 8, 8), np.float32)
    write(root, data, Grid((8, 8, 8), np.eye(4)))
    stores.begin(root, "a")
    assert not root.exists()


def test_the_root_changes_with_any_voxel_though_nothing_else_in_it_does(root):
    data, grid = np.ones((8, 8, 8), np.float32), Grid((8, 8, 8), np.eye(4))
    write(root, data, grid)
    before = read_json(root)["attributes"]["headsr"]["content"]
    write(root, data, grid)
    assert read_json(root)["attributes"]["headsr"]["content"] == before
    data[7, 0, 3] = 2
    write(root, data, grid, fingerprint="b")
    assert read_json(root)["attributes"]["headsr"]["content"] != before


def test_shards_of_the_same_fingerprint_stay_and_leftovers_of_another_go(root):
    layout = lay_out((16, 8, 8), chunk=4, shard=8)
    stores.begin(root, "a")
    array = stores.create_level(root, 0, layout)
    stores.write_tile(array, layout.tiles[1], np.ones((8, 8, 8), np.float32))
    partial = root.parent / "0" / "c" / "0.abc.partial"
    partial.touch()
    stores.begin(root, "a")
    assert [stores.is_written(root, 0, layout, tile) for tile in layout.tiles] == [False, True]
    assert not partial.exists()
    stores.begin(root, "b")
    assert not (root.parent / "0").exists()
    stores.begin(root, None)
    assert os.listdir(root.parent) == ["fingerprint.json"]


def test_a_shard_of_zeros_is_written_too(root):
    """A missing file means that a tile is still to do."""
    layout = lay_out((16, 8, 8), chunk=4, shard=8)
    stores.begin(root, "a")
    stores.write_tile(stores.create_level(root, 0, layout), layout.tiles[0], np.zeros((8, 8, 8), np.float32))
    assert stores.is_written(root, 0, layout, layout.tiles[0])


def test_only_a_folder_named_ome_zarr_is_emptied(tmp_path):
    (tmp_path / "precious").touch()
    with pytest.raises(ValueError, match=r"ome\.zarr"):
        stores.begin(tmp_path / "zarr.json", None)
    assert (tmp_path / "precious").exists()


@pytest.mark.parametrize("where", [0.3, 0.6, 0.9])
def test_a_flipped_bit_in_a_shard_is_an_error_not_another_voxel(root, where):
    data = np.random.default_rng(0).normal(size=(16, 16, 16)).astype(np.float32)
    write(root, data, Grid(data.shape, np.eye(4)), shard=16)
    shard = root.parent / "0" / "c" / "0" / "0" / "0"
    content = bytearray(shard.read_bytes())
    content[int(where * len(content))] ^= 8
    shard.write_bytes(content)
    with pytest.raises(Exception):  # noqa: B017 - whatever the codec raises
        stores.read_level(root)
