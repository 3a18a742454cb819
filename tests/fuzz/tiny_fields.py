"""The smallest field of each kind of network, of random weights."""

import numpy as np

from headsr.fields.consistent import ConsistentField
from headsr.fields.dense import DenseField
from headsr.fields.hash_grid import HashField
from headsr.fields.lattice import level_shape
from headsr.fields.siren import SirenField
from headsr.volumes import Grid


def tiny_field(head: Grid, kind: str = "dense") -> ConsistentField:
    """A field on a head's grid, with a record as publishing takes it."""
    rng = np.random.default_rng(0)

    def draw(*size: int) -> np.ndarray:
        return rng.standard_normal(size).astype(np.float32)

    if kind == "dense":
        levels = tuple(draw(2, *level_shape(head.shape, cell)) for cell in (4, 2))
        network = DenseField(head, (4, 2), levels, draw(3, 4), draw(3), draw(3), draw(1)[0])
    elif kind == "siren":
        network = SirenField(head, (draw(6, 3), draw(5, 6), draw(1, 5)), (draw(6), draw(5), draw(1)))
    else:
        levels = tuple(draw(2, *level_shape(head.shape, cell)) for cell in (4.0, 2.0))
        network = HashField(head, (4.0, 2.0), levels, (draw(5, 4), draw(1, 5)), (draw(5), draw(1)))
    field = ConsistentField.of(network, np.abs(draw(*head.shape)), scale=800.0, offset=0.0, signed=False)
    record = {"method": "inr", "skull_stripped": False, "consistency": {"outcome": "within"}}
    return ConsistentField(network, field.projected, field.carried, 800.0, 0.0, False, record)
