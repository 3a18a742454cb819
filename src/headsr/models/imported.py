"""Weights that others published, as headsr's: networks for grey slices that give what the published ones give."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from headsr.files import sha256_of, whole
from headsr.models.card import NOT_KNOWN, Card, read_card, weights_path, write_card
from headsr.models.checkpoint import read_checkpoint
from headsr.models.layouts import photographs, rrdb, swinir
from headsr.models.layouts.layout import Layout, Reading
from headsr.models.ship import refuse_foreign
from headsr.networks.build import check_network
from headsr.recipes import versions
from headsr.recipes.convert import NAME
from headsr.weights import FORMAT, StateError, save_tensors

LAYOUTS: tuple[Layout, ...] = (*rrdb.LAYOUTS, *swinir.LAYOUTS, *photographs.LAYOUTS)
_SHOWN = 5  # of the names that are missing or too many
_WAY_OUT = "Get the file as its authors publish it"
# Files that lie beside those that are taken, by names that only they have.
_OTHERS = {
    "conv1.weight_orig": "the discriminator of Real-ESRGAN. Import the generator that was trained with it",
    "body.0.weight": "a compact network of Real-ESRGAN (SRVGGNet), which headsr does not have",
    "conv0_0.weight": "the discriminator of ESRGAN. Import the generator that was trained with it",
}


@dataclass(frozen=True)
class Published:
    """A checkpoint that was read: its layout, what it was found to be, and the tensors of headsr's network."""

    layout: Layout
    reading: Reading
    tensors: dict[str, Tensor]

    @property
    def words(self) -> str:
        """What the file is."""
        return f"{self.layout.name}: {self.reading.words}"


def import_model(
    file: str | os.PathLike[str],
    *,
    name: str,
    folder: str | os.PathLike[str],
    license: str,
    trained_on: str = NOT_KNOWN,
    citation: str = "",
) -> Card:
    """Put the weights of a published checkpoint, as headsr's, and their card into ``folder``.

    They take the place of what has this name there. The same file and facts give the same bytes. ``license`` and
    ``trained_on`` are the user's words: no checkpoint says them. StateError names a file that cannot be imported, what
    of it is missing or too many, and what is in the way; ValueError for a name that is none.
    """
    if not NAME.fullmatch(name):
        raise ValueError(f"{name!r} is no name for weights; names are letters, digits and '_'. Choose one with --name")
    if not license.strip():
        raise ValueError(
            "license: say under which licence the weights may be used, as those say from whom you have them"
        )
    published = read_published(file)
    layout, network = published.layout, published.reading.network
    imported = {"file": Path(file).name, "sha256": sha256_of(file), "layout": published.words}
    recipe = {"kind": layout.kind, "network": network, "data": {}}
    refuse_foreign(name, folder)
    with whole(weights_path(name, folder)) as partial:
        save_tensors(partial, published.tensors, _metadata(name, recipe, imported))
        facts_of_file = {"sha256": sha256_of(partial), "bytes": partial.stat().st_size}
    card = Card(
        **facts_of_file,
        kind=layout.kind,
        architectures=[network["architecture"]],
        trained_on=trained_on,
        datasets={},
        recipe=recipe,
        seed=None,
        steps=None,
        device=NOT_KNOWN,
        minutes=None,
        machine=NOT_KNOWN,
        curve=[],
        scores=[],
        license=license,
        citation=citation or layout.citation,
        imported=imported,
    )
    write_card(name, card, folder)
    return read_card(name, folder)


def read_published(file: str | os.PathLike[str]) -> Published:
    """What a checkpoint is, by the names of its tensors. StateError for one that headsr has no network for."""
    tensors = read_checkpoint(file)
    layout = next((one for one in LAYOUTS if one.is_of(tensors)), None)
    if layout is None:
        raise StateError(f"{file}: {_what_else(tensors)}. {_taken()}")
    try:
        reading = layout.read(tensors)
        return Published(layout, reading, _converted(tensors, reading))
    except KeyError as error:
        raise StateError(f"{file}: looks like {layout.name}, but lacks {error.args[0]}. {_WAY_OUT}") from error
    except (ValueError, IndexError, RuntimeError, ArithmeticError) as error:
        raise StateError(f"{file}: looks like {layout.name}, but {error}") from error


def _converted(tensors: Mapping[str, Tensor], reading: Reading) -> dict[str, Tensor]:
    """The tensors of headsr's network. ValueError for a checkpoint that has not exactly those of its layout."""
    wanted = {source.name for source in reading.sources.values()}
    lacking = [name for name in sorted(wanted) if name not in tensors]
    more = [name for name in sorted(tensors) if name not in wanted and not reading.unused(name)]
    if lacking or more:
        different = " and ".join(filter(None, [_listed("lacks", lacking), _listed("has also", more)]))
        raise ValueError(f"{different}. {_WAY_OUT}")
    made = check_network(reading.network).state_dict()
    found = {}
    for ours, like in made.items():
        source = reading.sources[ours]
        tensor = tensors[source.name]
        tensor = source.change(tensor.double()) if source.change else tensor
        if tensor.shape != like.shape:
            raise ValueError(
                f"{source.name} has the shape {list(tensors[source.name].shape)}, which does not fit. {_WAY_OUT}"
            )
        if not tensor.isfinite().all():
            raise ValueError(f"{source.name} holds numbers that are not finite. {_WAY_OUT}")
        found[ours] = tensor.to(like.dtype)
    return found


def _listed(word: str, names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"{word} {', '.join(names[:_SHOWN])}{more}" if names else ""


def _what_else(tensors: Mapping[str, Tensor]) -> str:
    for name, words in _OTHERS.items():
        if name in tensors:
            return f"is {words}"
    return f"is of no network that headsr knows ({_listed('it has', list(tensors))})"


def _taken() -> str:
    return f"Taken are {', '.join(layout.name for layout in LAYOUTS)}"


def _metadata(name: str, recipe: Mapping[str, Any], imported: Mapping[str, str]) -> dict[str, Any]:
    """What load_model needs, and what of a training there is none of."""
    return {
        "format": FORMAT,
        "model": name,
        "recipe": dict(recipe),
        "imported": dict(imported),
        "training_keys": NOT_KNOWN,
        "stage": versions(f"network.{recipe['network']['architecture']}"),
        "task": recipe["kind"],
        "network": recipe["network"],
        "companions": {},
        "precision": "fp32",  # what the published networks compute in
    }
