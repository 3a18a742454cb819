"""How far the slices of many volumes are from those of their truths, as two sets."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from typing import Any

import torch
from torch import Tensor

from headsr.evaluate.features import TRUTH, feature_name
from headsr.evaluate.score import DATA_RANGE, trained_on
from headsr.files import write_json
from headsr.parts import METRICS
from headsr.recipes.tables import VARIANTS
from headsr.weights import load_tensors


def score_set(
    features: Sequence[str | os.PathLike[str]],
    output: str | os.PathLike[str],
    *,
    unit: Mapping[str, str],
    measures: Mapping[str, Sequence[str]],
    weights: Sequence[str | os.PathLike[str]],
) -> None:
    """Compare the slices of volumes with those of their truths by every metric and in the planes that it names.

    ``features`` are files of ``score_features``, one a volume. ``unit`` names the set as a volume is named (dataset:
    empty; scan: the table; suffix: of one contrast, or empty; method, degradation). ``weights`` are those of the models
    behind the method and of the encoder. Beside every value stand the number of slices of a side and the value's
    standard error, where the metric has one.
    """
    heads = [load_tensors(path)[0] for path in features]
    write_json(
        output,
        {
            "unit": dict(unit),
            "profile": "",
            "source_key": "",
            "seed": None,
            "trained_on": [trained_on(path) for path in weights],
            "data_range": DATA_RANGE,
            "rows": list(_rows(heads, measures)),
        },
    )


def _rows(heads: Sequence[Mapping[str, Tensor]], measures: Mapping[str, Sequence[str]]) -> Iterator[dict[str, Any]]:
    for metric, planes in measures.items():
        distance = METRICS[metric].load()
        for plane, variant in product(planes, VARIANTS):
            ours, theirs = (_together(heads, feature_name(of, plane)) for of in (variant, TRUTH))
            found = distance(ours.numpy(), theirs.numpy())
            error = {} if math.isnan(found.error) else {"error": found.error}
            yield {"variant": variant, "mask": plane, "metric": metric, "value": found.value, "n": found.n, **error}


def _together(heads: Sequence[Mapping[str, Tensor]], name: str) -> Tensor:
    """The slices of all heads, in fp64: distances are small differences of large sums."""
    return torch.cat([head[name] for head in heads]).double()
