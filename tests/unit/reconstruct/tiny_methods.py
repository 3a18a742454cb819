"""A recipe of every method, and of the model that one of them has, small enough for tests."""

from headsr.recipes import MethodRecipe, Model, ModelRecipe, build

TRAINING = {
    "data": {"kind": "slices", "suffixes": ["T1w"], "crop": 16, "degradation": "mild"},
    "budget": {"steps": 1, "batch": 1},
    "optimizer": {"learning_rate": 0.01},
    "schedule": {"shape": "constant"},
    "seed": 0,
    "losses": {"l1": 1.0},
}
BLOCKS = {
    "spline": {"kind": "spline"},
    "average": {"kind": "average"},
    "tikhonov": {"kind": "tikhonov", "weight": 1e-3, "iterations": 5},
    "tv": {"kind": "tv", "weight": 1e-3, "iterations": 20},
    "slice_network": {"kind": "slice_network", "model": "edsr"},
    "unrolled": {"kind": "unrolled", "model": "unrolled"},
    "inr": {
        "kind": "inr",
        "fit": {"field": {"cells": [4, 1], "features": [2, 2]}, "steps": 12, "learning_rate": 0.02, "smoothness": 0.0},
    },
}
METHODS = {name: build(MethodRecipe, block, name) for name, block in BLOCKS.items()}


def model(kind: str, network: dict, **more: object) -> Model:
    return build(ModelRecipe, {"kind": kind, "network": network, **TRAINING, **more}, kind)


UNROLLED = model(
    "unrolled",
    {
        "architecture": "unrolled",
        "stages": 2,
        "widths": [8, 8],
        "blocks": [1, 1, 1],
        "solves": 3,
    },
    data={"kind": "studies", "suffixes": ["T1w"], "block": [16, 16, 16]},
)
EDSR = model("baseline", {"architecture": "residual2d", "channels": 4, "blocks": 1})
