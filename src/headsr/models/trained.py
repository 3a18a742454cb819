"""The card of a model that was trained here, beside its weights."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from headsr.files import sha256_of
from headsr.models.card import NOT_KNOWN, Card, write_card
from headsr.weights import made_of, read_metadata

_LICENSE = "that of the data it was trained on"


def write_trained_card(
    weights: str | os.PathLike[str],
    history: Sequence[Mapping[str, Any]],
    *,
    trained_on: str,
    datasets: Mapping[str, Mapping[str, str]],
    citation: str,
) -> None:
    """Write the card of finished ``weights`` (NAME.safetensors) to NAME.json, from what its training left.

    ``history`` are all its lines, ``trained_on`` says in words what it saw, and ``datasets`` (name -> version, license,
    citation) where that came from.
    """
    weights = Path(weights)
    card = Card(
        **facts_of_training(weights, history),
        sha256=sha256_of(weights),
        bytes=weights.stat().st_size,
        trained_on=trained_on,
        datasets={name: dict(origin) for name, origin in datasets.items()},
        device=NOT_KNOWN,  # segments may be of different machines
        minutes=None,
        machine=NOT_KNOWN,
        scores=[],
        license=_LICENSE,
        citation=citation,
    )
    write_card(weights.stem, card, weights.parent)


def facts_of_training(weights: str | os.PathLike[str], history: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What weights and the history of their training say for a card."""
    recipe, made = read_metadata(weights)["recipe"], made_of(weights)
    return {
        "kind": made.task,
        "architectures": made.architectures,
        "recipe": recipe,
        "seed": recipe["seed"],
        "steps": history[-1]["step"],
        "curve": curve_of(history),
    }


def curve_of(history: Sequence[Mapping[str, float]]) -> list[dict[str, float]]:
    """The lines of a history that hold validation measures, and of these the measures alone."""
    lines = [{key: value for key, value in line.items() if not _of_training(key)} for line in history]
    return [line for line in lines if line.keys() > {"step"}]


def _of_training(key: str) -> bool:
    return key == "learning_rate" or key.startswith(("train_", "share_"))
