"""The recipe of a model that is not trained here: its weights ship or were imported, and its card says what it is."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, ClassVar

from headsr.models.card import PACKAGE, Card, CardError, read_card, shipped_names
from headsr.parts import NETWORKS
from headsr.recipes.convert import Doc, unknown


@dataclass(frozen=True, kw_only=True)
class Shipped:
    """Weights from the package, or from a folder of somebody's own, of the kind that their card says.

    ``sha256`` pins them. Where the recipe leaves it out it becomes that of the card, so that other weights under the
    same name are another recipe, and make anew what uses them.
    """

    kind: ClassVar[str] = "shipped"
    name: Annotated[str, Doc("Of the weights and their card: a row of `headsr models list`.")]
    sha256: Annotated[str, Doc("Of the weights; with another one they are refused. Empty takes what is there.")] = ""
    folder: Annotated[str, Doc("Where weights and card lie; empty is the package.")] = ""

    def __post_init__(self) -> None:
        for architecture in self.card.architectures:
            if architecture not in NETWORKS:
                raise ValueError(f"name: {self.name!r} has an {unknown('architecture', architecture, NETWORKS)}")
        if self.sha256 not in ("", self.card.sha256):
            raise ValueError(
                f"sha256: the weights {self.name!r} are now of SHA-256 {self.card.sha256}. Install the headsr that has "
                "those of the recipe, or give it the new number"
            )
        object.__setattr__(self, "sha256", self.card.sha256)

    @property
    def place(self) -> Path:
        """The folder of weights and card."""
        return Path(self.folder) if self.folder else PACKAGE

    @cached_property
    def card(self) -> Card:
        """What is known of the weights, as it was when the recipe was built."""
        return card_of(self.name, self.place)

    @property
    def seed(self) -> int | None:
        """Of the training that made the weights; None where nobody knows it."""
        return self.card.seed


def card_of(name: str, folder: str | os.PathLike[str] = PACKAGE) -> Card:
    """The card of a shipped model; CardError names the nearest one for a name that there is not."""
    names = shipped_names(folder)
    if name not in names:
        hint = unknown("shipped model", name, names) if names else f"no weights ship here, so none as {name!r}"
        raise CardError(f"{folder}: {hint}")
    return read_card(name, folder)
