"""A shipped model as a model of the workflow: its weights where those of a trained model would lie."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from headsr.files import whole
from headsr.history import write_history
from headsr.models.card import checked_weights, write_card
from headsr.recipes import Shipped


def take_model(recipe: Shipped, *, weights: str | os.PathLike[str], history: str | os.PathLike[str]) -> None:
    """Copy the weights that ``recipe`` names, byte for byte, and their card, and write its curve as ``history``.

    CardError if they are not the weights of their card.
    """
    source = checked_weights(recipe.name, recipe.place)
    write_history(history, [dict(line) for line in recipe.card.curve])
    with whole(weights) as partial:
        shutil.copyfile(source, partial)
    write_card(Path(weights).stem, recipe.card, Path(weights).parent)
