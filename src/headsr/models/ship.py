"""Making a pair of shipped weights and card from a finished training and what its files do not say."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated

import yaml

from headsr.files import sha256_of, whole
from headsr.history import read_history
from headsr.models.card import MOST_BYTES, PACKAGE, Card, card_path, is_card, read_card, weights_path, write_card
from headsr.models.trained import facts_of_training
from headsr.recipes import Dataset, RecipeError, build
from headsr.recipes.convert import NAME, Doc, Names, Range, unknown
from headsr.recipes.yaml_file import read_yaml
from headsr.weights import StateError, load_model, load_tensors, read_metadata, save_tensors


@dataclass(frozen=True, kw_only=True)
class Score:
    """A row of scores for people: what the model reaches on some scans, and other methods beside it."""

    measure: Annotated[str, Doc("What was measured, as PSNR in the head.")]
    value: Annotated[float, Doc("Of this model.")]
    scans: Annotated[str, Doc("Of which heads, in words.")]
    unit: Annotated[str, Doc("Of the values.")] = ""
    others: Annotated[dict[str, float], Doc("Other methods, and what they reach on the same.")] = field(
        default_factory=dict
    )


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What of a shipped model no file of its training says."""

    trained_on: Annotated[str, Doc("What it saw, in words.")]
    datasets: Annotated[tuple[Annotated[str, Names("datasets")], ...], Doc("Where that came from.")]
    device: Annotated[str, Doc("On which it was trained.")]
    minutes: Annotated[float, Range(0, math.inf, above=True), Doc("That the training took.")]
    machine: Annotated[str, Doc("In words.")]
    license: Annotated[str, Doc("Of the weights.")]
    citation: Annotated[str, Doc("What to cite for the weights.")]
    scores: Annotated[tuple[Score, ...], Doc("The first is the headline.")] = ()


def read_facts(path: str | os.PathLike[str]) -> Facts:
    """The facts of a YAML file; RecipeError names the key that is wrong or missing."""
    try:
        return build(Facts, read_yaml(path) or {}, f"{path}: facts")
    except FileNotFoundError:
        raise RecipeError(f"{path}: does not exist. docs/models.md says what stands in it") from None
    except yaml.YAMLError as error:
        raise RecipeError(f"{path}: is not valid YAML ({error})") from error


def ship(
    model: str | os.PathLike[str],
    facts: Facts,
    *,
    name: str,
    datasets: Mapping[str, Dataset],
    folder: str | os.PathLike[str] = PACKAGE,
) -> Card:
    """Put the weights of a trained model and their card into ``folder``, in place of what has this name there.

    ``model`` is its folder as export_model leaves it (weights.safetensors, history.jsonl, recipe.yaml). The same files
    and facts give the same bytes. StateError for files that are not of one training, weights that are too large, and
    what has this name and is not headsr's; ValueError for facts that cannot be.
    """
    if not NAME.fullmatch(name):
        raise ValueError(f"{name!r} is no name for weights; names are letters, digits and '_', with single '.' between")
    weights = Path(model, "weights.safetensors")
    history = _history_of(weights)
    load_model(weights)  # that it can be used
    facts_for_people = {**asdict(facts), "datasets": _described(facts.datasets, datasets)}
    refuse_foreign(name, folder)
    with whole(weights_path(name, folder)) as partial:
        save_tensors(partial, *load_tensors(weights))  # written anew: weights from before there were seals get one
        if (size := partial.stat().st_size) > MOST_BYTES:
            raise StateError(f"{weights}: has {size:,} bytes, at most {MOST_BYTES:,} ship. Train a smaller network")
        facts_of_file = {"sha256": sha256_of(partial), "bytes": size}
    write_card(name, Card(**facts_for_people, **facts_of_training(weights, history), **facts_of_file), folder)
    return read_card(name, folder)


def refuse_foreign(name: str, folder: str | os.PathLike[str]) -> None:
    """StateError where something has the name that is no weights or no card of headsr."""
    weights, card = weights_path(name, folder), card_path(name, folder)
    for path, is_ours in ((weights, _is_weights), (card, is_card)):
        if os.path.lexists(path) and (path.is_symlink() or not is_ours(path)):
            raise StateError(
                f"{path}: is in the way: headsr did not write it and will not overwrite it. Move it away, or take "
                "another name"
            )


def _is_weights(path: Path) -> bool:
    try:
        return "network" in read_metadata(path)
    except StateError:
        return False


def _history_of(weights: Path) -> list[dict[str, float]]:
    """The history beside the weights, which must be of the same training, as the recipe there."""
    metadata = read_metadata(weights)
    try:
        recipe = read_yaml(weights.parent / "recipe.yaml")
        history = read_history(weights.parent / "history.jsonl")
    except FileNotFoundError as error:
        raise StateError(f"{error.filename}: is missing beside the weights. Export the model again") from None
    except yaml.YAMLError as error:
        raise StateError(
            f"{weights}: recipe.yaml beside it is not valid YAML ({error}). Export the model again"
        ) from error
    if recipe != metadata.get("recipe") or not history or history[-1] != metadata.get("validation"):
        raise StateError(f"{weights}: recipe or history beside it are of another training. Export the model again")
    return history


def _described(names: Sequence[str], datasets: Mapping[str, Dataset]) -> dict[str, dict[str, str]]:
    for name in names:
        if name not in datasets:
            raise ValueError(f"datasets: {unknown('dataset', name, datasets)}")
    keys = ("version", "license", "citation")
    return {name: {key: getattr(datasets[name], key) for key in keys} for name in names}
