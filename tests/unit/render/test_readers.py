"""A rendered store as others read it: zarr, ome-zarr, tensorstore (C++) and ngff-zarr (on zarrista, Rust)."""

import json

import ngff_zarr
import nibabel as nib
import numpy as np
import pytest
import tensorstore
import zarr
from known_fields import AFFINE, Waves
from ome_zarr.io import parse_url
from ome_zarr.reader import Reader
from ome_zarr_models.v05 import Image

from headsr.render import store as stores
from headsr.render.field import Manner, render
from headsr.render.plan import plan_volume
from headsr.render.publish import Outputs
from headsr.render.pyramid import halve, level_grids
from headsr.volumes import Grid, Storage

SHAPE = (70, 45, 150)
TURN = np.deg2rad(20)
OBLIQUE = np.eye(4)
OBLIQUE[:3, :3] = (
    np.array([[np.cos(TURN), -np.sin(TURN), 0], [np.sin(TURN), np.cos(TURN), 0], [0, 0, 1]])
    @ np.array([[1, 0, 0], [0, np.cos(0.3), -np.sin(0.3)], [0, np.sin(0.3), np.cos(0.3)]])
    @ np.diag([0.5, 0.75, 1.0])
)
OBLIQUE[:3, 3] = (-20.7, -31.13, 4.9)


class Ball(Waves):
    """Waves inside of a ball of 50 mm at one end of the box, and air around it."""

    def __init__(self, shape, affine=OBLIQUE):
        super().__init__(shape, affine)

    def evaluate(self, grid):
        index = np.linalg.inv(self.grid.affine) @ grid.affine
        x, y, z = (np.rint(index[i, i] * np.arange(n) + index[i, 3]) for i, n in enumerate(grid.shape))
        far = ((x - 30) / 25)[:, None, None] ** 2 + ((y - 20) / 15)[:, None] ** 2 + ((z - 30) / 25) ** 2
        return np.where(far < 1, 3 + super().evaluate(grid), 0).astype(np.float32)


@pytest.fixture(scope="module", params=["float32", "float16", "uint16"])
def rendered(request, tmp_path_factory):
    """A store with empty chunks and shards: its outputs, and the intensities of every level (X, Y, Z)."""
    folder = tmp_path_factory.mktemp(request.param)
    outputs = Outputs(folder / "a.ome.zarr" / "zarr.json", folder / "a.nii.gz", folder / "a.json")
    field = Ball(SHAPE)
    render(field, outputs, identity="x", manner=Manner(dtype=request.param, skip_air=True, chunk=16, shard=32))
    storage, levels = stores.read_storage(outputs.store), []
    values = field.evaluate(field.grid) * np.float32(100) + np.float32(5)
    for _ in level_grids(field.grid):
        stored = storage.encode(values)
        levels.append(stored)
        values = halve(storage.decode(stored))
    return outputs, levels


def test_the_store_has_chunks_and_shards_that_are_not_there(rendered):
    outputs, levels = rendered
    array = zarr.open_array(outputs.store.parent / "0", mode="r")
    shards = [path for path in (outputs.store.parent / "0" / "c").rglob("*") if path.is_file()]
    assert 0 < len(shards) < np.prod([-(-n // s) for n, s in zip(array.shape, array.shards, strict=True)])
    assert (levels[0] == array.fill_value).mean() > 0.5


def test_zarr_reads_every_level(rendered):
    outputs, levels = rendered
    group = zarr.open_group(outputs.store.parent, mode="r")
    for level, stored in enumerate(levels):
        assert group[str(level)].dtype == stored.dtype
        np.testing.assert_array_equal(group[str(level)][:], stored.T)
    assert str(len(levels)) not in group


def test_tensorstore_reads_every_level(rendered):
    outputs, levels = rendered
    for level, stored in enumerate(levels):
        where = {"driver": "file", "path": str(outputs.store.parent / str(level))}
        array = tensorstore.open({"driver": "zarr3", "kvstore": where}, read=True).result()
        np.testing.assert_array_equal(array.read().result(), stored.T)
        assert array.domain.labels == ("z", "y", "x")


def test_ome_zarr_reads_every_level(rendered):
    outputs, levels = rendered
    (node, *_) = Reader(parse_url(outputs.store.parent))()
    for array, stored in zip(node.data, levels, strict=True):
        np.testing.assert_array_equal(np.asarray(array), stored.T)


def test_ngff_zarr_reads_every_level_where_it_lies(rendered):
    outputs, levels = rendered
    images = ngff_zarr.from_ngff_zarr(str(outputs.store.parent), validate=True).images
    for image, stored, (scale, translation) in zip(images, levels, stores.read_scales(outputs.store), strict=True):
        np.testing.assert_array_equal(np.asarray(image.data), stored.T)
        assert list(image.dims) == ["z", "y", "x"] and set(image.axes_units.values()) == {"millimeter"}
        np.testing.assert_allclose([image.scale[axis] for axis in "xyz"], scale)
        np.testing.assert_allclose([image.translation[axis] for axis in "xyz"], translation)


def test_ome_zarr_models_validates_mm_and_the_half_voxel_offsets(rendered):
    outputs, _ = rendered
    (multiscale,) = Image.from_zarr(zarr.open_group(outputs.store.parent, mode="r")).ome_attributes.multiscales
    assert [(axis.name, axis.type, axis.unit) for axis in multiscale.axes] == [
        (name, "space", "millimeter") for name in "zyx"
    ]
    directions = OBLIQUE[:3, :3] / np.linalg.norm(OBLIQUE[:3, :3], axis=0)
    for level, dataset in enumerate(multiscale.datasets):
        scale, translation = (
            np.array(step)[::-1]
            for step in (dataset.coordinateTransformations[0].scale, dataset.coordinateTransformations[1].translation)
        )
        np.testing.assert_allclose(scale, np.array([0.5, 0.75, 1]) * 2**level)
        first = OBLIQUE @ [*([2**level / 2 - 0.5] * 3), 1]  # the first voxel's centre: half of 2^level from the face
        np.testing.assert_allclose(directions @ translation, first[:3], atol=1e-9)


def test_the_preview_lies_where_its_level_does(rendered):
    outputs, levels = rendered
    image = nib.load(outputs.preview)
    assert max(image.shape) <= 512 and image.shape == levels[0].shape
    assert image.header.get_xyzt_units()[0] == "mm"
    corners = Grid(image.shape, image.affine)
    assert corners.same_as(Grid(SHAPE, OBLIQUE), tolerance_voxel=0.01)
    expected = stores.read_storage(outputs.store).decode(levels[0])
    np.testing.assert_allclose(np.asarray(image.dataobj), expected, rtol=1e-6)


def test_the_preview_of_a_large_volume_is_the_first_level_of_at_most_512(tmp_path):
    outputs = Outputs(tmp_path / "a.ome.zarr" / "zarr.json", tmp_path / "a.nii.gz", tmp_path / "a.json")
    field = Waves((1025, 6, 3), OBLIQUE)
    render(field, outputs, identity="x", manner=Manner(chunk=64, shard=128))
    image, grids = nib.load(outputs.preview), level_grids(field.grid)
    assert image.shape == (257, 2, 1)  # 1025, 513, 257
    assert Grid(image.shape, image.affine).same_as(grids[2], tolerance_voxel=0.01)
    np.testing.assert_array_equal(np.asarray(image.dataobj), stores.read_level(outputs.store, 2))


@pytest.mark.parametrize("dtype", ["float32", "uint16"])
def test_a_volume_of_4096_voxels_a_side_is_at_most_1000_files(dtype):
    volume = plan_volume(Grid((4096,) * 3, AFFINE), Storage(dtype))
    assert [max(grid.shape) for grid in volume.grids] == [4096, 2048, 1024, 512, 256, 128, 64]
    assert len(volume.tiles) + len(volume.grids) + 6 <= 1000
    keys = [task.key for task in volume.tasks]
    assert sorted(keys) == sorted(volume.tiles) and len(set(keys)) == len(keys)
    place = {key: number for number, key in enumerate(keys)}
    assert all(place[need] < place[task.key] for task in volume.tasks for need in task.needs)
    assert json.dumps(keys[-1]) == '"6/c/0/0/0"'
