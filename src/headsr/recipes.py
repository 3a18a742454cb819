"""A frozen type for every YAML block: what a name means. An unknown, missing or misspelt key is a named error."""

from __future__ import annotations

import dataclasses
import difflib
import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

import yaml

from headsr.scans import SUFFIXES, may_be_named, parse_name

Recipe = TypeVar("Recipe")
VIEWS = ("axial", "coronal", "sagittal", "isotropic")  # of simulated scans
PROFILES = ("box", "gaussian", "cubic", "zoom")  # headsr.acquisition.profile says what they are
METHOD_KINDS = ("spline", "average", "tikhonov", "slice_network", "inr")
DEGRADATION_KINDS = ("simulated", "acquired")
MODEL_KINDS = ("baseline", "autoencoder", "ldm")


class RecipeError(ValueError):
    """A configuration block cannot be used. The message names the file, the key and the way out."""


@dataclass(frozen=True)
class Dataset:
    """Where a BIDS dataset comes from. ``splits`` (split -> subjects) is what the first pin proposes.

    ``bids_names`` (path in the dataset -> name such as ``sub-01_rec-average_T1w``) adds scans that the dataset keeps
    outside BIDS' anat folders or under other names, most often in ``derivatives``.
    """

    url: str
    version: str
    license: str
    citation: str
    splits: dict[str, list[str]] = field(default_factory=dict)
    bids_names: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Stack:
    """One low-resolution scan.

    ``view`` is the plane of its thick slices, or ``isotropic``: coarse along all three axes. Slices lie ``factor`` thin
    ones apart and are ``thickness`` thin ones thick (None: as thick as far apart). ``profile`` is one of
    PROFILES.
    """

    view: str
    factor: float
    profile: str = "box"
    thickness: float | None = None


@dataclass(frozen=True)
class Degradation:
    """A named way to make low-resolution scans.

    ``kind`` is ``simulated`` (``stacks`` are sampled from a high-resolution scan; ``noise_percent`` of the reference
    intensity as Rician noise) or ``acquired`` (the scan itself is the thick scan; nothing is simulated; a stack, if one
    is given, says how many times finer than the scan its volume shall be along which view). ``together`` makes one
    study of all acquired scans of a head, session and contrast: the others are aligned to the first by name.
    """

    kind: str
    stacks: tuple[Stack, ...] = ()
    noise_percent: float = 0.0
    seed: int = 0
    together: bool = False


@dataclass(frozen=True)
class BlindStage:
    """Probabilities and ranges of one pass of the blind degradation (lengths in mm, noise in units of the range).

    ``blur_kernels``, ``resize_modes`` and ``noise_kinds`` give weights to names (``degrade.pipeline``); they need not
    sum to one. Cut-offs are shares of the Nyquist frequency. ``noise_photons`` is the number of photons behind
    intensity 1, ``ringing_taper`` the share of the kept k-space that falls off as half a cosine.
    """

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
    blur_kernels: dict[str, float] = field(default_factory=lambda: {"isotropic": 0.5, "anisotropic": 0.5})
    resize_probability: float = 0.0
    resize_scale: tuple[float, float] = (0.5, 1.0)
    resize_modes: dict[str, float] = field(default_factory=lambda: {"area": 1.0, "bilinear": 1.0, "bicubic": 1.0})
    ringing_taper: tuple[float, float] = (0.0, 0.0)
    noise_kinds: dict[str, float] = field(default_factory=lambda: {"rician": 1.0})
    noise_photons: tuple[float, float] = (28.0, 1e5)
    jinc_probability: float = 0.0
    jinc_cutoff: tuple[float, float] = (1 / 3, 1.0)


@dataclass(frozen=True)
class Blind:
    """The blind high-order degradation of training slices: ``first`` always, ``second`` with its probability.

    ``order`` of the operations of a stage is fixed or shuffled. A smooth field between 1 - s and 1 + s, s drawn from
    ``bias_strength``, multiplies the slice before the stages; ``bias_on`` says whether the clean slice has it too
    (both: the network leaves it alone) or not (low: the network removes it). ``pool`` is how many finished pairs
    training batches are mixed from, a multiple of the batch; 0 is no pool.
    """

    first: BlindStage
    second: BlindStage
    second_probability: float
    order: str = "fixed"
    bias_probability: float = 0.0
    bias_strength: tuple[float, float] = (0.2, 0.4)
    bias_on: str = "both"
    pool: int = 0


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
    """One table or figure of results: every method on every degradation, over one split and the named suffixes.

    ``datasets`` limits it to the scans of these datasets, ``scans`` to the scans of these names; empty means all.
    """

    title: str
    methods: tuple[str, ...]
    degradations: tuple[str, ...]
    suffixes: tuple[str, ...]
    split: str = "test"
    datasets: tuple[str, ...] = ()
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


def expanded(blocks: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Blocks with an ``each`` written out: one block for every combination of its values.

    ``each: {factor: [2, 4], profile: [box, zoom]}`` under the name ``axial_x{factor}_{profile}`` makes four blocks, in
    which ``"{factor}"`` is the number and text that holds it is completed. Raises RecipeError for a placeholder that
    ``each`` does not list, and for a name that comes twice.
    """
    result: dict[str, Any] = {}
    for name, block in blocks.items():
        choices = block.get("each", {}) if isinstance(block, Mapping) else {}
        for values in itertools.product(*choices.values()):
            chosen = dict(zip(choices, values, strict=True))
            rest = {key: value for key, value in block.items() if key != "each"} if choices else block
            one = str(_filled(name, chosen, f"{where}: {name}"))
            if one in result:
                raise RecipeError(f"{where}: {name}: the name {one!r} comes twice; put every key of 'each' into it")
            result[one] = _filled(rest, chosen, f"{where}: {name}") if choices else rest
    return result


def _filled(value: Any, chosen: Mapping[str, Any], where: str) -> Any:
    """A YAML value with every placeholder replaced; text that is nothing but a placeholder becomes its value."""
    if isinstance(value, Mapping):
        return {key: _filled(item, chosen, where) for key, item in value.items()}
    if isinstance(value, list):
        return [_filled(item, chosen, where) for item in value]
    if not isinstance(value, str):
        return value
    for key, chosen_value in chosen.items():
        if value == f"{{{key}}}":
            return chosen_value
        value = value.replace(f"{{{key}}}", str(chosen_value))
    if "{" in value:
        raise RecipeError(f"{where}: {value!r} holds a placeholder that 'each' does not list ({', '.join(chosen)})")
    return value


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


@dataclass(frozen=True)
class Recipes:
    """Every name that the configuration gives a meaning to."""

    datasets: dict[str, Dataset]
    degradations: dict[str, Degradation]
    models: dict[str, Model]
    methods: dict[str, Method]
    tables: dict[str, Table]


def load_config(deltas: Sequence[str]) -> dict[str, Any]:
    """``config/config.yaml`` with each delta laid over it, as Snakemake does; RecipeError names a missing file."""
    config: dict[str, Any] = {}
    for path in ("config/config.yaml", *deltas):
        try:
            config = merged(config, yaml.safe_load(Path(path).read_text(encoding="utf-8")) or {})
        except FileNotFoundError:
            raise RecipeError(f"{path}: does not exist here. Run headsr in the project's root folder") from None
        except yaml.YAMLError as error:
            raise RecipeError(f"{path}: is not valid YAML ({error})") from error
    return config


def load_recipes(config: Mapping[str, Any]) -> Recipes:
    """Read the recipe files that ``config["recipes"]`` names, with ``config["overrides"]`` laid over them.

    Raises RecipeError for an unknown key and for a name that no file defines.
    """
    files, changes = config["recipes"], config.get("overrides", {})

    def blocks(part: str) -> dict[str, Any]:
        return merged(expanded(_read_blocks(files[part]), files[part]), changes.get(part, {}))

    recipes = Recipes(
        datasets=build_all(Dataset, blocks("datasets"), files["datasets"]),
        degradations=build_all(Degradation, blocks("degradations"), files["degradations"]),
        models=build_all(Model, blocks("models"), files["models"]),
        methods=build_all(Method, blocks("methods"), files["methods"]),
        tables=build_all(Table, blocks("tables"), files["tables"]),
    )
    _refuse_unknown_names(recipes, config)
    for name, dataset in recipes.datasets.items():
        _refuse_wrong_bids_names(dataset, f"{files['datasets']}: {name}.bids_names")
    return recipes


def _read_blocks(path: str) -> dict[str, Any]:
    """The blocks of one YAML file, or of a folder with one file per name."""
    source = Path(path)
    if source.is_dir():
        return {file.stem: _read_blocks(str(file)) for file in sorted(source.glob("*.yaml"))}
    try:
        blocks = yaml.safe_load(source.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise RecipeError(f"{path}: does not exist; config.yaml names it under 'recipes'") from None
    except yaml.YAMLError as error:
        raise RecipeError(f"{path}: is not valid YAML ({error})") from error
    return blocks or {}


def _refuse_unknown_names(recipes: Recipes, config: Mapping[str, Any]) -> None:
    """Every name that one recipe uses must be defined by another."""
    for name, method in recipes.methods.items():
        where = f"{config['recipes']['methods']}: {name}"
        if method.kind not in METHOD_KINDS:
            raise RecipeError(f"{where}.kind: {_unknown('kind', method.kind, METHOD_KINDS)}")
        for used in filter(None, (method.model, method.prior)):
            _require("model", used, recipes.models, where)
        if (method.kind == "inr") != (method.fit is not None):
            raise RecipeError(f"{where}: the block 'fit' belongs to methods of kind inr, and each of them needs it")
        if (method.kind == "slice_network") != bool(method.model):
            raise RecipeError(f"{where}: the key 'model' belongs to methods of kind slice_network")
    for name, model in recipes.models.items():
        where = f"{config['recipes']['models']}: {name}"
        if model.kind not in MODEL_KINDS:
            raise RecipeError(f"{where}.kind: {_unknown('kind', model.kind, MODEL_KINDS)}")
        if model.autoencoder:
            _require("model", model.autoencoder, recipes.models, where)
    for name, degradation in recipes.degradations.items():
        _refuse_wrong_stacks(degradation, f"{config['recipes']['degradations']}: {name}")
    for name, table in recipes.tables.items():
        where = f"{config['recipes']['tables']}: {name}"
        for method in table.methods:
            _require("method", method, recipes.methods, where)
        for degradation in table.degradations:
            _require("degradation", degradation, recipes.degradations, where)
            _refuse_sliceless(table, degradation, recipes, where)
        for dataset in table.datasets:
            _require("dataset", dataset, recipes.datasets, where)
    for table in config["tables"]:
        _require("table", table, recipes.tables, "config: tables")


def _refuse_sliceless(table: Table, degradation: str, recipes: Recipes, where: str) -> None:
    """A network or prior of 2-D slices needs thick slices; a scan that is coarse along every axis has none."""
    if any(stack.view == "isotropic" for stack in recipes.degradations[degradation].stacks):
        for name in table.methods:
            method = recipes.methods[name]
            if method.model or method.prior:
                raise RecipeError(f"{where}: {name!r} needs thick slices, and {degradation!r} has none; leave one out")


def _refuse_wrong_stacks(degradation: Degradation, where: str) -> None:
    views = [stack.view for stack in degradation.stacks]
    if degradation.kind not in DEGRADATION_KINDS:
        raise RecipeError(f"{where}.kind: {_unknown('kind', degradation.kind, DEGRADATION_KINDS)}")
    if degradation.kind == "simulated" and not views:
        raise RecipeError(f"{where}.stacks: a simulated degradation needs one or more")
    if degradation.kind == "acquired" and (len(views) > 1 or "isotropic" in views):
        raise RecipeError(f"{where}.stacks: an acquired scan is refined along one view, not {', '.join(views)}")
    if degradation.together and degradation.kind != "acquired":
        raise RecipeError(f"{where}.together: stacks simulated from one head lie together already; leave it out")
    for view in views:
        if view not in VIEWS:
            raise RecipeError(f"{where}.stacks: {_unknown('view', view, VIEWS)}")
    if len(set(views)) < len(views):
        raise RecipeError(f"{where}.stacks: one stack a view, not {', '.join(views)}")
    for stack in degradation.stacks:
        if stack.profile not in PROFILES:
            raise RecipeError(f"{where}.stacks: {_unknown('profile', stack.profile, PROFILES)}")
        if not (stack.factor >= 1 and (stack.thickness is None or stack.thickness > 0)):
            raise RecipeError(f"{where}.stacks: factor must be at least 1 and thickness above 0, not {stack}")


def _refuse_wrong_bids_names(dataset: Dataset, where: str) -> None:
    path_of: dict[str, str] = {}
    for path, name in dataset.bids_names.items():
        if parse_name(name) is None:
            form = "sub-<label>[_ses-<label>][_acq-<label>][_ce-<label>][_rec-<label>][_run-<label>]_<suffix>"
            hint = f"give it one of the form {form}: labels of letters and digits, suffix {', '.join(SUFFIXES)}"
            raise RecipeError(f"{where}: {name!r} (of {path}) is not the BIDS name of an anatomical scan; {hint}")
        if not may_be_named(path, name):
            hint = "name only .nii.gz files, and none that has a BIDS name in its anat folder already"
            raise RecipeError(f"{where}: {path} cannot be the scan {name!r}; {hint}")
        if path_of.setdefault(name, path) != path:
            raise RecipeError(
                f"{where}: {path_of[name]} and {path} are both {name!r}; give each scan a name of its own"
            )


def _require(kind: str, name: str, known: Mapping[str, Any], where: str) -> None:
    if name not in known:
        raise RecipeError(f"{where}: {_unknown(kind, name, known)}")


def _unknown(kind: str, name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, list(known), n=1)
    return f"unknown {kind} {name!r}" + (f"; did you mean {near[0]!r}?" if near else f"; known: {', '.join(known)}")
