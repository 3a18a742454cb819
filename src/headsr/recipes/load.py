"""All recipes of a configuration, with every name that one uses defined by another."""

from __future__ import annotations

import graphlib
import itertools
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import yaml

from headsr.files import UnreadableError
from headsr.parts import LOSSES, METRICS, NETWORKS, Part
from headsr.recipes.config import Config, Files, paths_of
from headsr.recipes.convert import NAME, RecipeError, Reference, build, expanded, merged, references, unknown
from headsr.recipes.data import Blind, Dataset, DatasetRecipe, Degradation, LabelMaps
from headsr.recipes.methods import METHODS, Method, MethodRecipe
from headsr.recipes.models import DATA, MODELS, Model, ModelRecipe
from headsr.recipes.shipped import Shipped
from headsr.recipes.tables import Table, read_published
from headsr.recipes.yaml_file import read_yaml
from headsr.scans import DATASET_PATTERN, ENTITIES, SUFFIXES, may_be_named, parse_companion, parse_name
from headsr.stages import STAGE_VERSIONS

CONFIG_FILE = "config/config.yaml"
_NO_PATH = re.compile(r'[\x00-\x1f\x7f{}<>$`"\\]')


@dataclass(frozen=True)
class Recipes:
    """Every name that the configuration gives a meaning to."""

    datasets: dict[str, DatasetRecipe]
    degradations: dict[str, Degradation]
    blind: dict[str, Blind]
    models: dict[str, ModelRecipe]
    methods: dict[str, MethodRecipe]
    tables: dict[str, Table]

    def used_by(self, part: str, names: Iterable[str]) -> dict[str, set[str]]:
        """Every name that these recipes of ``part`` use at any depth, by part; they themselves too.

        What is behind a name that nothing defines is not known, and passed over.
        """
        used: dict[str, set[str]] = {field.name: set() for field in fields(self)}
        todo = [(part, name) for name in names]
        while todo:
            part, name = todo.pop()
            if name not in used[part] and name in getattr(self, part):
                used[part].add(name)
                todo += [(one.part, one.name) for one in references(None, getattr(self, part)[name], name)]
        return used

    def titles_in(self, table: str) -> dict[str, str]:
        """What people call the methods of a table; one that leaves out scans of a head which has several says so."""
        recipe = self.tables[table]
        several = any(self.degradations[name].has_several_scans for name in recipe.degradations)
        return {
            name: f"{method.title or name}{f' ({method.uses})' if several and method.uses != 'all scans' else ''}"
            for name, method in ((name, self.methods[name]) for name in recipe.methods)
        }

    def models_of(self, part: str, name: str) -> list[str]:
        """The models that a recipe uses itself: a method's network or prior, a model's autoencoder."""
        return list(dict.fromkeys(one.name for one in model_references(getattr(self, part)[name])))


def model_references(recipe: Method | Model | Shipped) -> list[Reference]:
    """Where a recipe names a trained model, and of which kinds that must be."""
    return [one for one in references(None, recipe, recipe.kind) if one.part == "models"]


def load_config(deltas: Sequence[str]) -> dict[str, Any]:
    """``config/config.yaml`` with each delta laid over it, as Snakemake does.

    RecipeError names the file that is missing or wrong: the first with which what was laid so far cannot be used.
    """
    config: dict[str, Any] = {}
    for path in config_files(deltas):
        try:
            content = read_yaml(path)
        except FileNotFoundError:
            raise RecipeError(f"{path}: does not exist here. Run headsr in the project's root folder") from None
        except yaml.YAMLError as error:
            raise RecipeError(f"{path}: is not valid YAML ({error})") from error
        if not isinstance(content, Mapping | None):
            raise RecipeError(f"{path}: must be a block of keys, not {_short(content)}")
        config = merged(config, content or {})
        check_config(config, f"{path}")
    write_out_paths(config, ", ".join(config_files(deltas)))
    return config


def config_files(deltas: Sequence[str | os.PathLike[str]]) -> tuple[str, ...]:
    """The files of a configuration, in the order in which they are laid over each other."""
    return (CONFIG_FILE, *map(str, deltas))


def check_config(config: Mapping[str, Any], where: str) -> None:
    """RecipeError, which begins with ``where`` (the files), for a configuration that lacks a key or has a wrong one."""
    build(Config, config, f"{where}: config")


def write_out_paths(config: dict[str, Any], where: str) -> None:
    """Write ``~`` and ``$VARIABLE`` in the paths of a configuration out, in place, as a shell does.

    RecipeError, which begins with ``where`` (the files), for a variable that is not set and a home that there is not.
    """
    for block, kind, within in ((config, Config, ""), (config["recipes"], Files, "recipes.")):
        for key in paths_of(kind):
            block[key] = _written_out(block[key], f"{where}: {within}{key}")


def _written_out(path: str, where: str) -> str:
    written = os.path.expanduser(os.path.expandvars(path))
    lacking = re.search(r"\$(\w+|\{[^}]*\})|^~[^/]*", written)
    if lacking:
        raise RecipeError(f"{where}: {path!r}: there is no {lacking.group()} here. Set it, or write the path out")
    return written


def load_recipes(config: Mapping[str, Any], read_from: Sequence[str] = ()) -> Recipes:
    """Read the recipe files that ``config["recipes"]`` names, with ``config["overrides"]`` laid over them.

    ``read_from`` are the files of the configuration, the one that others are laid over first, so that an error can name
    them. Raises RecipeError for whatever cannot be used, and for a name that no file defines where the configuration
    needs it. Elsewhere the recipe that has such a name is left out: a shipped table is about datasets that are not
    among somebody's own.
    """
    where = _Places(config, tuple(read_from))
    for folder in ("results", "clones"):
        if folder not in config:
            raise RecipeError(f"{where.config}: the key {folder!r} is missing")
        _refuse_no_folder(config[folder], f"{where.config}: {folder}")
    recipes = _without_strangers(
        Recipes(**{field.name: _load_part(field.name, config, where) for field in fields(Recipes)}), config
    )
    for reference in _references(recipes, where):
        _refuse_wrong(reference, recipes)
    _refuse_circles(recipes, where.of("models"))
    for name, dataset in recipes.datasets.items():
        _refuse_wrong_names(dataset, where.of("datasets", name))
    for name, table in recipes.tables.items():
        _refuse_elsewhere(table, where.of("tables", name))
        _refuse_other_slices(table, recipes, where.of("tables", name))
        _refuse_wrong_published(table, where.of("tables", name))
    for name, model in recipes.models.items():
        if isinstance(model, Shipped):  # trained elsewhere, on data that need not be here
            continue
        _refuse_wrong_pool(model, recipes, where.of("models", name))
        _refuse_other_latents(model, recipes, where.of("models", name))
        _refuse_other_datasets(model, recipes, f"{where.of('models', name)}.data.datasets")
    for table in config["tables"]:
        if table not in recipes.tables:
            raise RecipeError(f"{where.config}: tables: {unknown('table', table, recipes.tables)}")
    return recipes


def load_datasets(config: Mapping[str, Any], read_from: Sequence[str] = ()) -> dict[str, Any]:
    """The recipes of datasets alone, whatever is wrong with others; arguments and errors as load_recipes."""
    return _load_part("datasets", config, _Places(config, tuple(read_from)))


@dataclass(frozen=True)
class _Places:
    """What error messages begin with: the files that a recipe, or a key of the configuration, stands in."""

    all: Mapping[str, Any]
    read_from: tuple[str, ...]

    @property
    def config(self) -> str:
        """Where the configuration itself stands."""
        return ", ".join(self.read_from) or "config"

    def of(self, part: str, name: str | None = None) -> str:
        """The file of a recipe, with those that may override it; without a name that of all recipes of a part."""
        file, overrides = self.all["recipes"][part], (self.all.get("overrides") or {}).get(part)
        over = self.read_from[1:] or self.read_from
        laid = f"{', '.join(over)}, laid over " if overrides and over else ""
        if name is None:
            return f"{laid}{file}"
        return f"{laid if name in (overrides or {}) else ''}{stated_in(file, name)}"


def _load_part(part: str, config: Mapping[str, Any], where: _Places) -> dict[str, Any]:
    """All recipes of a kind: one attribute of Recipes."""
    file, changes = config["recipes"][part], (config.get("overrides") or {}).get(part) or {}
    return _build_all(part, merged(expanded(_read_blocks(file, where.config), file), changes), where)


# What recipes exchange by name: the parts themselves, or the classes of kinds, each with its part.
_EXCHANGED: dict[str, Mapping[str, Any]] = {
    "network": NETWORKS,
    "loss": LOSSES,
    "metric": METRICS,
    "task": MODELS,
    "data": DATA,
    "method": METHODS,
}


def every_part() -> dict[str, Part]:
    """Everything that recipes exchange by name, as ``network.residual2d``, ``task.ldm``, ``method.inr`` ... ."""
    return {
        f"{what}.{name}": getattr(one, "part", one) for what, table in _EXCHANGED.items() for name, one in table.items()
    }


def parts_of_model(model: Model) -> list[str]:
    """The names of the parts that a model is made by: task, data, networks and losses."""
    networks = [f"network.{block['architecture']}" for block in model.networks().values()]
    losses = [f"loss.{name}" for name, term in model.losses.items() if term.weight > 0]
    return sorted({f"task.{model.kind}", f"data.{model.data.kind}", *networks, *losses})


def parts_of_method(method: Method, recipes: Recipes) -> list[str]:
    """The names of the parts that a method works by: its own, and the networks of the models that it uses."""
    behind = recipes.used_by("models", [one.name for one in model_references(method)])["models"]
    networks = [f"network.{one}" for name in behind for one in architectures_of(recipes.models[name])]
    return sorted({f"method.{method.kind}", *networks})


def architectures_of(model: Model | Shipped) -> list[str]:
    """The networks by which a model answers: its own, and those that shipped weights hold beside it."""
    return list(model.card.architectures) if isinstance(model, Shipped) else [model.network["architecture"]]


def versions(stage: str, parts: Iterable[str] = ()) -> dict[str, int]:
    """What a rule's params carry, sorted by name: the version of its stage, and of each part that its job uses.

    Raises ValueError for a name that has no version.
    """
    return {name: _version_of(name) for name in sorted({stage, *parts})}


def _version_of(name: str) -> int:
    """Looked up alone: a plan of 1,000 people asks ten thousand times."""
    if name in STAGE_VERSIONS:
        return STAGE_VERSIONS[name]
    what, _, one = name.partition(".")
    if one not in _EXCHANGED.get(what, {}):
        raise ValueError(unknown("stage or part", name, [*STAGE_VERSIONS, *every_part()]))
    return getattr(_EXCHANGED[what][one], "part", _EXCHANGED[what][one]).version


def _read_blocks(path: str, named_in: str) -> dict[str, Any]:
    """The blocks of one YAML file, or of a folder with one file per name, that the configuration names."""
    source = Path(path)
    if _what_lies_at(source, named_in) == "folder":
        return {file.stem: _read_blocks(str(file), named_in) for file in sorted(source.glob("*.yaml"))}
    try:
        blocks = read_yaml(source)
    except FileNotFoundError:
        raise RecipeError(f"{path}: does not exist; {named_in} names it under 'recipes'") from None
    except yaml.YAMLError as error:
        raise RecipeError(f"{path}: is not valid YAML ({error})") from error
    if not isinstance(blocks, Mapping | None):
        raise RecipeError(f"{path}: must be a block of keys, not {_short(blocks)}")
    return dict(blocks or {})


def _build_all(part: str, blocks: Mapping[str, Any], where: _Places) -> dict[str, Any]:
    """Every recipe of one part, by its name."""
    hint = {
        "datasets": DatasetRecipe,
        "degradations": Degradation,
        "blind": Blind,
        "models": ModelRecipe,
        "methods": MethodRecipe,
        "tables": Table,
    }[part]
    for name in blocks:
        if not (isinstance(name, str) and NAME.fullmatch(name)):
            text = "text of letters, digits and '_', with single '.' between, at most 100"
            raise RecipeError(f"{where.of(part)}: {_short(name)} is no name; names are {text}")
        if part == "datasets" and re.fullmatch(DATASET_PATTERN, name) is None:
            raise RecipeError(
                f"{where.of(part)}: {name!r} is no name of a dataset; it must be letters and digits, as BIDS' labels"
            )
    return {name: build(hint, block, where.of(part, name)) for name, block in blocks.items()}


def _what_lies_at(path: Path, where: str) -> str:
    """Whether a folder, a file or nothing lies at a path. RecipeError for what no file system takes for one."""
    try:
        return "folder" if path.is_dir() else "file" if path.exists() else ""
    except OSError as error:  # too long, most often
        raise RecipeError(f"{where}: {str(path)[:60]!r}... is no path ({error.strerror}). Name another one") from None


def _refuse_no_folder(path: Any, where: str) -> None:
    """What everything is written to is a folder, and no path in which a shell or Snakemake sees more than a path."""
    if not isinstance(path, str) or not path.strip():
        raise RecipeError(f"{where}: {path!r} is no folder; name one, such as {where.rpartition(' ')[2]}")
    if _NO_PATH.search(path):
        raise RecipeError(f'{where}: {path!r} has one of {{ }} < > $ ` " \\ or a control character; name it without')
    if Path(path).absolute() == Path(Path(path).anchor) or _what_lies_at(Path(path), where) == "file":
        raise RecipeError(f"{where}: {path!r} is no folder for results; name one that is, or is not there yet")


def stated_in(file: str, name: str) -> str:
    """What error messages about a recipe begin with: its file, and its name."""
    return f"{file}/{name}.yaml: {name}" if Path(file).is_dir() else f"{file}: {name}"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _without_strangers(recipes: Recipes, config: Mapping[str, Any]) -> Recipes:
    """Leave out what names something that nothing defines, and what names that in turn.

    What the tables of the configuration need stays, and what its overrides speak of: there such a name is a slip.
    """
    needed = recipes.used_by("tables", config["tables"])
    for part, blocks in (config.get("overrides") or {}).items():
        needed[part].update(blocks or {})
    left = {field.name: dict(getattr(recipes, field.name)) for field in fields(recipes)}

    def is_stranger(part: str, name: str) -> bool:
        named = references(None, left[part][name], name)
        return name not in needed[part] and any(one.name not in left[one.part] for one in named)

    while strangers := [(part, name) for part in left for name in left[part] if is_stranger(part, name)]:
        for part, name in strangers:
            del left[part][name]
    return Recipes(**left)


def _references(recipes: Recipes, where: _Places) -> Iterator[Reference]:
    for field in fields(recipes):
        for name, recipe in getattr(recipes, field.name).items():
            yield from references(None, recipe, where.of(field.name, name))


def _refuse_wrong(reference: Reference, recipes: Recipes) -> None:
    """What one recipe names must be defined, and be of a kind that can serve."""
    known = getattr(recipes, reference.part)
    if reference.name not in known:
        raise RecipeError(f"{reference.where}: {unknown(reference.part.rstrip('s'), reference.name, known)}")
    kind = _kind_of(known[reference.name])
    if reference.kinds and kind not in reference.kinds:
        wanted = " or ".join(reference.kinds)
        raise RecipeError(f"{reference.where}: {reference.name!r} is of kind {kind}; it must be of kind {wanted}")


def _kind_of(recipe: Any) -> str:
    """The kind that a recipe serves as: shipped weights as the model that they are."""
    return recipe.card.kind if isinstance(recipe, Shipped) else getattr(recipe, "kind", "")


def _refuse_circles(recipes: Recipes, file: str) -> None:
    """A model cannot be trained before itself."""
    try:
        graphlib.TopologicalSorter({name: recipes.models_of("models", name) for name in recipes.models}).prepare()
    except graphlib.CycleError as error:
        raise RecipeError(f"{file}: {' needs '.join(error.args[1])}: none of them can be trained first") from None


def _refuse_elsewhere(table: Table, where: str) -> None:
    """An expectation is about what its table compares."""
    choices = {
        "method": table.methods,
        "than": table.methods,
        "degradation": table.degradations,
        "suffix": ("", *table.suffixes),
    }
    for number, expectation in enumerate(table.expectations):
        for key, known in choices.items():
            name = getattr(expectation, key)
            if name not in known:
                said = unknown(f"{key} of this table", name, known)
                raise RecipeError(f"{where}.expectations[{number}].{key}: {said}")


def _refuse_other_slices(table: Table, recipes: Recipes, where: str) -> None:
    """A model of 2-D slices serves scans whose slices show what they leave out as those that it was trained on did."""
    for method, degradation in itertools.product(table.methods, table.degradations):
        for model in recipes.models_of("methods", method):
            trained = _view_of(recipes.models[model])
            for seen in recipes.degradations[degradation].seen:
                if trained not in (None, seen):
                    raise RecipeError(
                        f"{where}: {method!r} has the model {model!r}, trained on {_SLICES[trained]}; the scans of "
                        f"{degradation!r} have {_SLICES[seen]}. Leave one out"
                    )
            scale = _scale_of(recipes.models[model])
            for stack in recipes.degradations[degradation].stacks:
                if scale > 1 and stack.in_plane != (scale, scale):
                    coarse = " and ".join(f"{factor:g}" for factor in stack.in_plane)
                    raise RecipeError(
                        f"{where}: {method!r} has the model {model!r}, which makes rows and columns {scale} times as "
                        f"fine; those of {degradation!r} are {coarse} times as coarse. Leave one out"
                    )


def _view_of(model: Model | Shipped) -> str | None:
    """How the slices of a model's training showed what a scan leaves out; None where it saw no such slices."""
    if isinstance(model, Shipped):
        return model.card.recipe["data"].get("view")
    return getattr(model.data, "view", None)


def _scale_of(model: Model | Shipped) -> int:
    """How many times as fine as the scans the slices are that a model makes."""
    return model.card.recipe["network"].get("scale", 1) if isinstance(model, Shipped) else model.scale


_SLICES = {
    "edge_on": "thick slices seen from the side",
    "in_plane": "slices whose rows and columns are coarse",
    None: "no slices, but are coarse alike along every axis",
}


def _refuse_wrong_published(table: Table, where: str) -> None:
    """The values of a paper that a table names are there, and about what it compares."""
    if table.published:
        try:
            read_published(table.published, table)
        except (RecipeError, UnreadableError) as error:
            raise RecipeError(f"{where}.published: {error}") from None


def _refuse_wrong_pool(model: Model, recipes: Recipes, where: str) -> None:
    """The pairs of a pool are whole batches."""
    blind = getattr(model.data, "degradation", None)
    if blind and recipes.blind[blind].pool % model.budget.batch:
        raise RecipeError(
            f"{where}: the pool of {blind!r}, {recipes.blind[blind].pool} pairs, must be a multiple of budget.batch, "
            f"{model.budget.batch}"
        )


def _refuse_other_latents(model: Model, recipes: Recipes, where: str) -> None:
    """A denoiser goes on in the latents that it learned in. Of shipped ones the training itself compares them."""
    start = recipes.models.get(getattr(model, "denoiser", ""))
    if isinstance(start, Model) and start.autoencoder != model.autoencoder:
        raise RecipeError(
            f"{where}.denoiser: {model.denoiser!r} lives in the latents of {start.autoencoder!r}, not in those of "
            f"{model.autoencoder!r}. Name one of the same"
        )


def _refuse_other_datasets(model: Model, recipes: Recipes, where: str) -> None:
    """Scans are trained on as scans, and label maps as label maps."""
    wanted = model.data.drawn_from
    for number, name in enumerate(model.data.datasets):
        if (kind := recipes.datasets[name].kind) != wanted:
            known = [one for one, dataset in recipes.datasets.items() if dataset.kind == wanted]
            way_out = "data with source labels take label maps, and all others scans"
            raise RecipeError(
                f"{where}[{number}]: {name!r} is of kind {kind}; it must be of kind {wanted} "
                f"({', '.join(known) or 'there is none'}): {way_out}"
            )


def _refuse_wrong_names(dataset: Dataset | LabelMaps, where: str) -> None:
    """What a dataset says of single files and subjects fits together."""
    if isinstance(dataset, Dataset):
        return _refuse_wrong_bids_names(dataset, f"{where}.bids_names")
    for split, subjects in dataset.splits.items():
        for subject in subjects:
            if subject not in (known := dataset.maps.values()):
                raise RecipeError(f"{where}.splits.{split}: {unknown('subject', subject, known)}")
    if dataset.table and not Path(dataset.table).is_file():
        raise RecipeError(f"{where}.table: {dataset.table} is not there. Leave the key out for SynthSeg's labels")
    return None


def _refuse_wrong_bids_names(dataset: Dataset, where: str) -> None:
    path_of: dict[str, str] = {}
    for path, name in dataset.bids_names.items():
        if parse_name(name) is None and parse_companion(name) is None:
            form = "sub-<label>[_ses-<label>][_<entity>-<label>]_<suffix>"
            entities = f"entities {', '.join(ENTITIES)}, suffix {', '.join(SUFFIXES)}"
            hint = f"give it one of the form {form}: labels of letters and digits, {entities}"
            raise RecipeError(f"{where}: {name!r} (of {path}) is not the BIDS name of an anatomical scan; {hint}")
        if not may_be_named(path, name):
            hint = "name only NIfTI files, and none that has a BIDS name in its anat folder already"
            raise RecipeError(f"{where}: {path} cannot be the scan {name!r}; {hint}")
        if path_of.setdefault(name, path) != path:
            raise RecipeError(
                f"{where}: {path_of[name]} and {path} are both {name!r}; give each scan a name of its own"
            )
