import numpy as np
from random_fields import head

from headsr.fields.dense import DenseField


def field_of(cell: int, level: np.ndarray) -> DenseField:
    """A field of one level of one feature that is nowhere below -100, which the network leaves as it is."""
    return DenseField(
        head(),
        (cell,),
        (level.astype(np.float32),),
        hidden_weight=np.ones((1, 1), np.float32),
        hidden_bias=np.full(1, 100, np.float32),
        output_weight=np.ones(1, np.float32),
        output_bias=np.float32(-100),
    )


def test_a_level_of_cell_one_has_its_nodes_at_voxels() -> None:
    x, y, z = np.indices(head().shape)
    ramp = field_of(1, (2 * x - 3 * y + 0.5 * z)[None])
    finer = head().resized(tuple(2 * n for n in head().shape))
    i, j, k = (
        np.clip((index + 0.5) / 2 - 0.5, 0, n - 1)
        for index, n in zip(np.indices(finer.shape), head().shape, strict=True)
    )
    np.testing.assert_allclose(ramp.evaluate(finer), 2 * i - 3 * j + 0.5 * k, atol=1e-4)
    np.testing.assert_allclose(ramp.evaluate(head()), ramp.levels[0][0], atol=1e-5)


def test_a_level_of_cell_two_has_its_nodes_between_voxels() -> None:
    nodes = np.arange(6).reshape(1, 6, 1, 1) * np.ones((1, 6, 5, 7))
    field = field_of(2, nodes)
    # Node i lies at head index 2 i + 0.5.
    expected = np.clip((np.arange(11) - 0.5) / 2, 0, 5)
    np.testing.assert_allclose(field.evaluate(head())[:, 4, 6], expected, atol=1e-5)
