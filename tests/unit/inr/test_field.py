import subprocess
import sys

import numpy as np
import pytest

from headsr.inr.field import Field, FieldDesign, FieldError, level_shape, load_field, save_field
from headsr.volumes import Grid


@pytest.fixture(scope="module")
def field() -> Field:
    """A field of random weights on an oblique grid with voxel sizes that no float holds exactly."""
    rng, shape, cells, counts, hidden = np.random.default_rng(0), (11, 9, 13), (4, 2, 1), (2, 1, 2), 6
    affine = np.array([[0.9, -0.1, 0, -30.3], [0.1, 0.9, 0, 17.77], [0, 0, 1.1, -3.9], [0, 0, 0, 1]])

    def draw(*size: int) -> np.ndarray:
        return rng.standard_normal(size).astype(np.float32)

    return Field(
        Grid(shape, affine),
        812.5,
        0.0,
        cells,
        tuple(draw(n, *level_shape(shape, c)) for n, c in zip(counts, cells, strict=True)),
        hidden_weight=draw(hidden, sum(counts)),
        hidden_bias=draw(hidden),
        output_weight=draw(hidden),
        output_bias=draw(1)[0],
        carried=draw(*shape),
        record={"method": "trial"},
    )


def only_carried(field: Field, carried: np.ndarray) -> Field:
    return Field(
        field.grid,
        1.0,
        0.0,
        (1,),
        (np.zeros((1, *field.grid.shape), np.float32),),
        hidden_weight=np.zeros((1, 1), np.float32),
        hidden_bias=np.zeros(1, np.float32),
        output_weight=np.zeros(1, np.float32),
        output_bias=np.float32(0),
        carried=carried.astype(np.float32),
    )


@pytest.mark.parametrize("shape", [(11, 9, 13), (23, 31, 17), (44, 36, 52), (5, 3, 7)])
@pytest.mark.parametrize("tile", [(1, 1, 1), (7, 5, 3), (16, 16, 16), (64, 2, 64)])
def test_a_tile_is_bit_for_bit_the_same_part_of_the_whole(
    field: Field, shape: tuple[int, int, int], tile: tuple[int, int, int]
) -> None:
    if tile == (1, 1, 1) and np.prod(shape) > 300:
        shape = (5, 3, 7)
    grid = field.grid.resized(shape)
    whole, tiled = field.evaluate(grid), np.empty(shape, np.float32)
    for start in np.ndindex(*(-(-n // t) for n, t in zip(shape, tile, strict=True))):
        first = tuple(s * t for s, t in zip(start, tile, strict=True))
        size = tuple(min(t, n - f) for t, n, f in zip(tile, shape, first, strict=True))
        part = tuple(slice(f, f + s) for f, s in zip(first, size, strict=True))
        tiled[part] = field.evaluate(grid.block(first, size))
    assert whole.dtype == np.float32 and whole.flags.writeable
    np.testing.assert_array_equal(tiled, whole)


def test_the_voxel_grid_is_interpolated_at_cell_centres(field: Field) -> None:
    x, y, z = np.indices(field.grid.shape)
    ramp = only_carried(field, 2 * x - 3 * y + 0.5 * z)
    finer = field.grid.resized(tuple(2 * n for n in field.grid.shape))
    i, j, k = (
        np.clip((index + 0.5) / 2 - 0.5, 0, n - 1)
        for index, n in zip(np.indices(finer.shape), field.grid.shape, strict=True)
    )
    np.testing.assert_allclose(ramp.evaluate(finer), 2 * i - 3 * j + 0.5 * k, atol=1e-4)
    np.testing.assert_array_equal(ramp.evaluate(field.grid), ramp.carried)


def test_beyond_the_head_the_border_value_continues(field: Field) -> None:
    flat = only_carried(field, np.indices(field.grid.shape)[0] + 5.0)
    outside = Grid((1, 1, 1), field.grid.block((-40, 0, 0), (1, 1, 1)).affine)
    assert flat.evaluate(outside).item() == 5.0


def test_a_level_of_cell_two_has_its_nodes_between_voxels(field: Field) -> None:
    nodes = np.arange(6, dtype=np.float32).reshape(1, 6, 1, 1) * np.ones((1, 6, 5, 7), np.float32)
    level = Field(
        field.grid,
        1.0,
        0.0,
        (2,),
        (nodes,),
        hidden_weight=np.ones((1, 1), np.float32),
        hidden_bias=np.zeros(1, np.float32),
        output_weight=np.ones(1, np.float32),
        output_bias=np.float32(0),
        carried=np.zeros(field.grid.shape, np.float32),
    )
    # Node i lies at head index 2 i + 0.5.
    expected = np.clip((np.arange(11) - 0.5) / 2, 0, 5)
    np.testing.assert_allclose(level.evaluate(field.grid)[:, 4, 6], expected, atol=1e-6)


def test_a_rotated_grid_is_refused(field: Field) -> None:
    rotated = field.grid.affine.copy()
    rotated[:3, :3] = rotated[:3, :3] @ np.array([[0, -1, 0], [1, 0, 0], [0, 0, 1]])
    with pytest.raises(ValueError, match="rotated"):
        field.evaluate(Grid((4, 4, 4), rotated))


def test_saving_and_loading_changes_no_bit(field: Field, tmp_path) -> None:
    save_field(tmp_path / "a.safetensors", field)
    loaded = load_field(tmp_path / "a.safetensors")
    save_field(tmp_path / "b.safetensors", loaded)
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()
    assert loaded.record == field.record and loaded.scale == field.scale
    grid = field.grid.resized((9, 10, 11))
    np.testing.assert_array_equal(loaded.evaluate(grid), field.evaluate(grid))


def test_a_damaged_or_missing_file_is_named(field: Field, tmp_path) -> None:
    path = tmp_path / "field.safetensors"
    with pytest.raises(FieldError, match=r"field\.safetensors: does not exist"):
        load_field(path)
    save_field(path, field)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(FieldError, match=r"field\.safetensors: is damaged"):
        load_field(path)


@pytest.mark.parametrize(
    "block",
    [{"cells": (2, 1), "features": (2,)}, {"cells": (), "features": ()}, {"hidden": 0}, {"start": "zero"}],
)
def test_a_design_that_does_not_work_is_refused(block: dict) -> None:
    with pytest.raises(ValueError, match="field"):
        FieldDesign(**block)


def test_evaluating_a_field_needs_no_torch() -> None:
    code = "import sys, headsr.inr.field; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0
