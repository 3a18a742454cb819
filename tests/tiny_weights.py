"""A finished training in small, as export_model leaves it, and facts to ship it with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from headsr.history import write_history
from headsr.models.card import Card
from headsr.models.ship import Facts, Score, ship
from headsr.networks.build import build_network
from headsr.recipes import Dataset, ModelRecipe, build, merged
from headsr.training.chain import write_recipe
from headsr.weights import save_model

BASELINE = {
    "kind": "baseline",
    "network": {"architecture": "residual2d", "channels": 4, "blocks": 1},
    "data": {"kind": "slices", "suffixes": ["T1w"], "crop": 16, "degradation": "thick_slices"},
    "budget": {"steps": 20, "batch": 2},
    "optimizer": {"learning_rate": 1.0e-5},
    "schedule": {"shape": "constant"},
    "seed": 5,
    "losses": {"l1": 1.0},
}
UNROLLED = {
    **BASELINE,
    "kind": "unrolled",
    "network": {
        "architecture": "unrolled",
        "stages": 2,
        "widths": [4, 4],
        "blocks": [1, 1, 1],
        "solves": 1,
    },
    "data": {"kind": "studies", "suffixes": ["T1w"], "block": [16, 16, 16]},
}
HISTORY = [
    {"step": 0, "psnr": 20.0},
    {"step": 10, "learning_rate": 1e-5, "train_l1": 0.5},
    {"step": 20, "learning_rate": 1e-5, "train_l1": 0.25, "psnr": 25.5},
]
FACTS = Facts(
    trained_on="label maps of 20 people",
    datasets=("maps",),
    device="CPU",
    minutes=1.5,
    machine="two cores",
    license="CC-BY-4.0",
    citation="headsr",
    scores=(Score(measure="PSNR", value=31.25, unit="dB", scans="two test heads", others={"spline": 28.5}),),
)
DATASETS = {"maps": Dataset(url="none", version="v1", license="CC0", citation="Somebody (2026)")}


def finished_training(
    folder: Path, changes: dict[str, Any] | None = None, *, block: dict[str, Any] = BASELINE, seed: int = 0
) -> Path:
    """The folder of a model whose weights are as they were drawn."""
    recipe = build(ModelRecipe, merged(block, changes or {}), "tiny")
    torch.manual_seed(seed)
    record = {"training_keys": "k", "stage": {"train_segment": 1}, "validation": HISTORY[-1]}
    save_model(folder / "weights.safetensors", build_network(recipe.network), recipe, record=record)
    write_recipe(folder / "recipe.yaml", recipe)
    write_history(folder / "history.jsonl", HISTORY)
    return folder


def shipped(folder: Path, name: str = "tiny", *, seed: int = 0) -> Card:
    """The card of a tiny baseline that was shipped into ``folder``."""
    model = finished_training(folder / "trained" / name, seed=seed)
    return ship(model, FACTS, name=name, datasets=DATASETS, folder=folder)
