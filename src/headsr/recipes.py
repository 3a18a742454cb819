"""A frozen type for every YAML block: what a name means. An unknown, missing or misspelt key is an error that names it."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

Recipe = TypeVar("Recipe")


class RecipeError(ValueError):
    """A configuration block cannot be used. The message names the file, the key and the way out."""


@dataclass(frozen=True)
class Dataset:
    """Where a BIDS dataset comes from. ``splits`` (split -> subjects) is what the first pin proposes."""

    url: str
    version: str
    license: str
    citation: str
    splits: dict[str, list[str]] = field(default_factory=dict)


@dataclass(frozen=True)
class Stack:
    """One thick-slice scan: the plane of its slices, how many thin slices one thick slice spans, and its profile."""

    view: str
    factor: float
    profile: str = "box"


@dataclass(frozen=True)
class Degradation:
    """A named way to make low-resolution scans.

    ``kind`` is ``simulated`` (``stacks`` are sampled from a high-resolution scan; ``noise_percent`` of the reference
    intensity as Rician noise) or ``acquired`` (the scan itself is the thick scan; nothing is simulated).
    """

    kind: str
    stacks: tuple[Stack, ...] = ()
    noise_percent: float = 0.0
    seed: int = 0


@dataclass(frozen=True)
class BlindStage:
    """Probabilities and ranges of one pass of the blind degradation (lengths in mm, noise in units of the range)."""

    blur_probability: float
    blur_sigma_mm: tuple[float, float]
    thick_factor: tuple[float, float]
    thick_probability: float
    noise_probability: float
    noise_sigma: tuple[float, float]
    correlated_noise_probability: float
    ringing_probability: float
    ringing_cutoff: tuple[float, float]
    compression_probability: float
    compression_quality: tuple[float, float]


@dataclass(frozen=True)
class Blind:
    """The blind high-order degradation of training slices: ``first`` always, ``second`` with its probability."""

    first: BlindStage
    second: BlindStage
    second_probability: float
    order: str = "fixed"


@dataclass(frozen=True)
class Budget:
    """How long a training is: ``segments`` resumable jobs of ``steps`` optimiser steps on ``batch`` crops each."""

    steps: int
    batch: int
    crop: int
    segments: int = 1


@dataclass(frozen=True)
class Model:
    """One trained model: its network, the slices it sees and how it is trained.

    ``kind`` is baseline, autoencoder or ldm. ``network`` holds the keyword arguments of the network of that name.
    ``precision`` is fp32, bf16 or auto (bf16 where the device multiplies it natively). ``autoencoder`` names the model
    whose latents an ldm lives in.
    """

    kind: str
    network: dict[str, Any]
    suffixes: tuple[str, ...]
    budget: Budget
    learning_rate: float
    seed: int
    losses: dict[str, float] = field(default_factory=dict)
    ema_decay: float = 0.999
    precision: str = "auto"
    degradation: Blind | None = None
    autoencoder: str = ""
    expected: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Fit:
    """How an implicit neural representation is fitted to one head."""

    field: dict[str, Any]
    steps: int
    learning_rate: float
    smoothness: float = 0.0
    prior_weight: float = 0.0
    prior_every: int = 4
    prior_from: float = 0.3
    prior_slices: int = 8
    prior_noise: tuple[float, float] = (0.02, 0.4)
    seed: int = 0


@dataclass(frozen=True)
class Method:
    """A named way to make a volume: kind is spline, average, tikhonov, slice_network or inr."""

    kind: str
    title: str
    model: str = ""
    prior: str = ""
    weight: float = 0.0
    iterations: int = 0
    fit: Fit | None = None


@dataclass(frozen=True)
class Table:
    """One table or figure of results: every method on every degradation, over one split and the named suffixes."""

    title: str
    methods: tuple[str, ...]
    degradations: tuple[str, ...]
    suffixes: tuple[str, ...]
    split: str = "test"
    scans: tuple[str, ...] = ()
    expectations: tuple[dict[str, Any], ...] = ()


def build(kind: type[Recipe], block: Mapping[str, Any], where: str) -> Recipe:
    """Make a recipe from a parsed YAML block; ``where`` (file and name) begins every error message."""
    if not isinstance(block, Mapping):
        raise RecipeError(f"{where}: must be a block of keys, not {block!r}")
    hints = get_type_hints(kind)
    known = {f.name: f for f in dataclasses.fields(kind)}
    for key in block:
        if key not in known:
            near = difflib.get_close_matches(str(key), known, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else f"; known keys: {', '.join(known)}"
            raise RecipeError(f"{where}: unknown key {key!r}{hint}")
    for name, f in known.items():
        if name not in block and f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING:
            raise RecipeError(f"{where}: the key {name!r} is missing")
    return kind(**{key: _convert(hints[key], value, f"{where}.{key}") for key, value in block.items()})


def build_all(kind: type[Recipe], blocks: Mapping[str, Any], where: str) -> dict[str, Recipe]:
    """Make every recipe of one file."""
    return {name: build(kind, block, f"{where}: {name}") for name, block in blocks.items()}


def plain(recipe: Any) -> Any:
    """A recipe as plain sorted data, for rule params and JSON: equal recipes give equal text."""
    if dataclasses.is_dataclass(recipe):
        return {
            f.name: plain(getattr(recipe, f.name)) for f in sorted(dataclasses.fields(recipe), key=lambda f: f.name)
        }
    if isinstance(recipe, Mapping):
        return {str(key): plain(recipe[key]) for key in sorted(recipe)}
    if isinstance(recipe, (list, tuple)):
        return [plain(item) for item in recipe]
    return recipe


def merged(base: Mapping[str, Any], change: Mapping[str, Any]) -> dict[str, Any]:
    """``base`` with the keys of ``change`` laid over it, blocks key by key."""
    result = dict(base)
    for key, value in change.items():
        both = isinstance(value, Mapping) and isinstance(result.get(key), Mapping)
        result[key] = merged(result[key], value) if both else value
    return result


def _convert(hint: Any, value: Any, where: str) -> Any:
    """Check one value against its type; numbers and lists become what the recipe declares."""
    if hint is Any:
        return value
    origin, arguments = get_origin(hint), get_args(hint)
    if type(None) in arguments:
        return None if value is None else _convert(arguments[0], value, where)
    if dataclasses.is_dataclass(hint):
        return build(hint, value, where)
    if origin is tuple and isinstance(value, (list, tuple)):
        inner = [arguments[0]] * len(value) if arguments[-1] is Ellipsis else arguments
        if len(inner) != len(value):
            raise RecipeError(f"{where}: needs {len(inner)} values, not {len(value)}")
        return tuple(
            _convert(kind, item, f"{where}[{i}]") for i, (kind, item) in enumerate(zip(inner, value, strict=True))
        )
    if origin is list and isinstance(value, (list, tuple)):
        return [_convert(arguments[0], item, f"{where}[{i}]") for i, item in enumerate(value)]
    if origin is dict and isinstance(value, Mapping):
        return {str(key): _convert(arguments[1], item, f"{where}.{key}") for key, item in value.items()}
    if hint is float and isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    if hint in (int, str, bool) and type(value) is hint:
        return value
    raise RecipeError(f"{where}: {value!r} is not {getattr(hint, '__name__', hint)}")
