"""The same comparison with its axes in another order."""

from collections.abc import Callable

import numpy as np

from headsr.evaluate.metrics.comparison import Comparison


def at_every_axis(measure: Callable[[Comparison], float], comparison: Comparison) -> list[float]:
    """A measure of the same comparison with its thick axis turned to every axis of the array."""
    values = []
    for turn in ((0, 1, 2), (2, 0, 1), (0, 2, 1)):
        volume, truth, mask = (
            np.ascontiguousarray(np.transpose(v, turn)) for v in (comparison.volume, comparison.truth, comparison.mask)
        )
        voxel_mm, spacings = (tuple(per[a] for a in turn) for per in (comparison.voxel_mm, comparison.spacings))
        values.append(measure(Comparison(volume, truth, mask, 1.0, voxel_mm, spacings)))
    return values
