"""The cards that lie beside weights: what they are, how they were made, who may use them. No torch."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from headsr.files import read_json, sha256_of, write_json

PACKAGE = Path(__file__).parent  # where the pairs of weights and card lie that ship with headsr
NOT_KNOWN = "not known"
MOST_BYTES = 16 * 2**20  # of one file of weights: a package that installs quickly


class CardError(ValueError):
    """Weights or card of a shipped model cannot be used. The message names the file and the way out."""


@dataclass(frozen=True, kw_only=True)
class Card:
    """What is known of weights.

    ``sha256`` and ``bytes`` are those of the weights' file, ``kind`` is the model's, ``architectures`` are all networks
    in the file, its own first. ``trained_on`` says in words what it saw, ``datasets`` (name -> version, license,
    citation) where that came from. ``recipe`` is the training's, as plain data and for people; ``curve`` are the lines
    of its history with validation measures. ``scores`` are rows for people (ship.Score). Of weights that others
    published ``imported`` says from which file they are (its name, SHA-256 and layout), and most of the rest is not
    known: then numbers are None, as are those that no file of a training says where weights were just trained.
    """

    sha256: str
    bytes: int
    kind: str
    architectures: list[str]
    trained_on: str
    datasets: dict[str, dict[str, str]]
    recipe: dict[str, Any]
    seed: int | None
    steps: int | None
    device: str
    minutes: float | None
    machine: str
    curve: list[dict[str, Any]]
    scores: list[dict[str, Any]]
    license: str
    citation: str
    imported: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not isinstance(self.recipe.get("data"), Mapping):
            raise ValueError("recipe: says no data")
        for number, line in enumerate(self.curve):
            if type(line.get("step")) is not int or not all(map(_is_number, line.values())):
                raise ValueError(f"curve[{number}]: is no line of numbers with their step")
        for number, score in enumerate(self.scores):
            texts = (score.get(key) for key in ("measure", "unit", "scans"))
            others = score.get("others")
            values = (score.get("value"), *(others.values() if isinstance(others, Mapping) else (None,)))
            if not (all(isinstance(text, str) for text in texts) and all(map(_is_number, values))):
                raise ValueError(f"scores[{number}]: is no score: measure, unit, scans, value, others")

    @property
    def headline(self) -> str:
        """The first score in words; '' where none is known."""
        return words_of(self.scores[0]) if self.scores else ""


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def words_of(score: Mapping[str, Any]) -> str:
    """A row of scores as people read it: ``PSNR 31.20 dB (tikhonov 30.02), three scans of 5 mm``."""
    unit = f" {score['unit']}" if score["unit"] else ""
    others = ", ".join(f"{name} {value:g}" for name, value in score["others"].items())
    return f"{score['measure']} {score['value']:g}{unit}{f' ({others})' if others else ''}, {score['scans']}"


def table_of(cards: Mapping[str, Card]) -> str:
    """The cards as a table for people, a line each under its header."""
    header = ("name", "kind", "trained on", "steps", "size", "license", "headline")
    rows = [
        (name, c.kind, c.trained_on, _steps_of(c), f"{c.bytes / 2**20:.2f} MiB", c.license, c.headline)
        for name, c in cards.items()
    ]
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in (header, *rows))
    return "\n".join(line.rstrip() for line in lines)


def _steps_of(card: Card) -> str:
    return "imported" if card.steps is None else f"{card.steps:,}"


def weights_path(name: str, folder: str | os.PathLike[str] = PACKAGE) -> Path:
    """Where the weights of a shipped model lie."""
    return Path(folder, f"{name}.safetensors")


def card_path(name: str, folder: str | os.PathLike[str] = PACKAGE) -> Path:
    """Where the card of a shipped model lies."""
    return Path(folder, f"{name}.json")


def shipped_names(folder: str | os.PathLike[str] = PACKAGE) -> list[str]:
    """The name of everything in the folder that is weights or a card, whether it has its other half or not."""
    return sorted({path.stem for path in Path(folder).glob("*") if path.suffix in (".safetensors", ".json")})


def shipped_models(folder: str | os.PathLike[str] = PACKAGE) -> dict[str, Card]:
    """The card of every shipped model by its name; CardError for weights without a card, or a card without weights."""
    return {name: read_card(name, folder) for name in shipped_names(folder)}


def read_card(name: str, folder: str | os.PathLike[str] = PACKAGE) -> Card:
    """The card of one shipped model, whose weights are there. CardError names what is missing or is not as it was."""
    weights, path = weights_path(name, folder), card_path(name, folder)
    for half, other, word in ((path, weights, "card"), (weights, path, "weights")):
        if not half.exists():
            raise CardError(f"{other}: the {word} beside it, {half.name}, is missing. {_WAYS_OUT}")
    try:
        content = read_json(path)
    except ValueError as error:
        raise CardError(f"{path}: is no JSON. {_WAYS_OUT}") from error
    keys, said = {field.name for field in dataclasses.fields(Card)}, {"imported"}  # which only imported weights have
    if not isinstance(content, Mapping) or (said := said | content.keys()) != keys:
        different = sorted(keys ^ said) if isinstance(content, Mapping) else ["no block of keys"]
        raise CardError(f"{path}: is no card of this version of headsr ({', '.join(different)}). {_WAYS_OUT}")
    from headsr.recipes.convert import RecipeError, build  # not before: recipes read cards

    try:
        return build(Card, content, f"{path}")
    except RecipeError as error:
        raise CardError(f"{error}. {_WAYS_OUT}") from error


def is_card(path: Path) -> bool:
    """Whether a file is a card, of this version of headsr or of another."""
    try:
        content = read_json(path)
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(content, Mapping) and {"sha256", "kind", "architectures"} <= content.keys()


def checked_weights(name: str, folder: str | os.PathLike[str] = PACKAGE) -> Path:
    """The weights of a shipped model, which are those of its card; CardError where they are not."""
    card, path = read_card(name, folder), weights_path(name, folder)
    if (found := sha256_of(path)) != card.sha256:
        raise CardError(f"{path}: has the SHA-256 {found}, its card says {card.sha256}. {_WAYS_OUT}")
    return path


def write_card(name: str, card: Card, folder: str | os.PathLike[str]) -> None:
    """Write a card beside its weights, the same bytes for the same facts."""
    facts = dataclasses.asdict(card)
    if not card.imported:
        del facts["imported"]
    write_json(card_path(name, folder), facts)


_WAYS_OUT = "Install headsr again, ship the model again (headsr models ship), or import it again (headsr models import)"
