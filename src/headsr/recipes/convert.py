"""From a YAML block to a frozen dataclass and back. A wrong key or value is an error that names file, key and way out.

What a value may be stands in the annotation of its field: its type, ``Literal`` choices, and the marks below.
"""

from __future__ import annotations

import dataclasses
import datetime
import difflib
import itertools
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import MISSING, dataclass
from functools import cache
from typing import Annotated, Any, Literal, NamedTuple, get_args, get_origin, get_type_hints

from headsr.words import without_password

# A part of paths, of Snakemake's wildcards and of the commands that schedulers get; a point stands inside numbers.
NAME = re.compile(r"(?!.{101})[A-Za-z0-9][A-Za-z0-9_]*(?:\.[A-Za-z0-9_]+)*")


class RecipeError(ValueError):
    """A configuration block cannot be used. The message names the file, the key and the way out."""


@dataclass(frozen=True)
class Range:
    """The least and the greatest value; ``above`` and ``below`` leave the ends themselves out."""

    least: float = -math.inf
    most: float = math.inf
    above: bool = False
    below: bool = False

    def refuse(self, value: float, where: str) -> None:
        """RecipeError for a value outside; a NaN is outside."""
        low = value > self.least if self.above else value >= self.least
        high = value < self.most if self.below else value <= self.most
        if not (low and high):
            raise RecipeError(f"{where}: {value:g} is out of range; it must be {self}")

    def __str__(self) -> str:
        low, high = "above" if self.above else "at least", "below" if self.below else "at most"
        ends = [(low, self.least), (high, self.most)]
        return " and ".join(f"{word} {end:g}" for word, end in ends if math.isfinite(end)) or "a number"


class Ascending:
    """A pair whose first number is at most its second."""

    def refuse(self, value: tuple[float, float], where: str) -> None:
        """RecipeError for a pair the wrong way round."""
        if not value[0] <= value[1]:
            raise RecipeError(f"{where}: [{value[0]:g}, {value[1]:g}] goes down; write the smaller number first")


@dataclass(frozen=True)
class Among:
    """A name that must be in ``known``, a table of parts."""

    known: Mapping[str, Any]
    what: str

    def refuse(self, value: str, where: str) -> None:
        """RecipeError for a name that is not there."""
        if value not in self.known:
            raise RecipeError(f"{where}: {unknown(self.what, value, self.known)}")


@dataclass(frozen=True)
class Matching:
    """A text of this form, which ``what`` says in words."""

    pattern: str
    what: str

    def refuse(self, value: str, where: str) -> None:
        """RecipeError for any other text."""
        if not re.fullmatch(self.pattern, value):
            raise RecipeError(f"{where}: {value!r} is not {self.what}")


@dataclass(frozen=True)
class Names:
    """The name of another recipe of ``part`` (models, methods ...), of one of ``kinds`` if any are given."""

    part: str
    kinds: tuple[str, ...] = ()


@dataclass(frozen=True)
class Kinds:
    """A block whose ``kind`` picks its dataclass from ``table``.

    A block that names none is of the class whose ``kind_goes_without_saying``, and that class's recipes never say it.
    """

    table: Mapping[str, type]

    @property
    def unsaid(self) -> type | None:
        """The class of a block that names no kind."""
        return next((one for one in self.table.values() if _goes_without_saying(one)), None)


@dataclass(frozen=True)
class Doc:
    """What a key means, for the reference in config/README.md."""

    text: str


class Untracked:
    """A value that no result depends on: it never makes a result stale."""


class ForPeople(Untracked):
    """A value that people read."""


class ForMachine(Untracked):
    """A value that says what time and memory a result may take: the same bytes come of any."""


FOR_PEOPLE = ForPeople()
FOR_MACHINE = ForMachine()


class Address:
    """An address that may hold a password: no result, record or report ever has it, only who fetches."""


class Reference(NamedTuple):
    """Where a recipe names another one, and of which part and kinds that must be."""

    name: str
    part: str
    kinds: tuple[str, ...]
    where: str


def build(hint: Any, value: Any, where: str) -> Any:
    """The value of an annotated type from parsed YAML: a recipe from its block, with everything in it.

    ``where`` (file and name) begins every message of RecipeError: an unknown, missing or misspelt key, a wrong type, a
    choice that there is not, a number out of its range.
    """
    kind, marks = _parted(hint)
    built = _of_kind(kind, marks, value, where) if _kinds(marks) else _convert(kind, value, where)
    for mark in marks:
        if hasattr(mark, "refuse") and built is not None:
            mark.refuse(built, where)
    return built


def plain(recipe: Any) -> Any:
    """A recipe as plain sorted data, for JSON: equal recipes give equal text, and build makes it a recipe again."""
    if dataclasses.is_dataclass(recipe):
        names = sorted(field.name for field in dataclasses.fields(recipe))
        return {**_kind_of(recipe), **{name: plain(_public(recipe, name)) for name in names}}
    return _plain_inside(recipe, plain)


def tracked(recipe: Any) -> Any:
    """What of a recipe decides results, as plain sorted data: nothing untracked, no field that has its default.

    A new option with a default leaves it as it was, so that it reruns nothing. ``build`` makes a recipe of it again.
    """
    return _said(recipe, all_of_it=False)


def stated(recipe: Any) -> Any:
    """What is tracked, with what is for people or a machine: what tables and the report are made from."""
    return _said(recipe, all_of_it=True)


def is_untracked(recipe: type, field: str) -> bool:
    """Whether no result depends on a field of a recipe's class."""
    return any(isinstance(mark, Untracked) for mark in _parted(hints_of(recipe)[field])[1])


def references(hint: Any, value: Any, where: str) -> Iterator[Reference]:
    """Every name of another recipe in a value of an annotated type, at any depth."""
    kind, marks = _parted(hint)
    if value is None:
        return
    if type(None) in get_args(kind):
        kind, marks = _parted(get_args(kind)[0])
    for mark in marks:
        if isinstance(mark, Names):
            yield Reference(value, mark.part, mark.kinds, where)
    if dataclasses.is_dataclass(value):
        hints = hints_of(type(value))
        for field in dataclasses.fields(value):
            held = getattr(value, field.name)
            if not (held == "" and field.default == ""):  # names nothing, and need not
                yield from references(hints[field.name], held, f"{where}.{field.name}")
    elif isinstance(value, Mapping):
        keys, values = get_args(kind) or (Any, Any)
        for key, item in value.items():
            yield from references(keys, key, f"{where}.{key}")
            yield from references(values, item, f"{where}.{key}")
    elif isinstance(value, (list, tuple)) and get_args(kind):
        for i, item in enumerate(value):
            yield from references(_item_hints(kind, value, where)[i], item, f"{where}[{i}]")


MOST = 2**63 - 1  # of whole numbers: NumPy, torch and SQLite keep no larger ones
MOST_OF_EACH = 10_000  # blocks that one ``each`` may make: a product of lists grows quickly


def expanded(blocks: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Blocks with an ``each`` written out: one block for every combination of its values.

    ``each: {factor: [2, 4], profile: [box, zoom]}`` under the name ``axial_x{factor}_{profile}`` makes four blocks, in
    which ``"{factor}"`` is the number and text that holds it is completed. Raises RecipeError for a placeholder that
    ``each`` does not list, and for a name that comes twice.
    """
    result: dict[str, Any] = {}
    for name, block in blocks.items():
        choices = block.get("each", {}) if isinstance(block, Mapping) else {}
        if not (isinstance(choices, Mapping) and all(isinstance(values, list) for values in choices.values())):
            raise RecipeError(f"{where}: {name}.each: must give each key a list of values, as factor: [2, 4]")
        if math.prod(map(len, choices.values())) > MOST_OF_EACH:
            raise RecipeError(f"{where}: {name}.each: makes more than {MOST_OF_EACH:,} blocks. List fewer values")
        for values in itertools.product(*choices.values()):
            chosen = dict(zip(choices, values, strict=True))
            rest = {key: value for key, value in block.items() if key != "each"} if choices else block
            one = str(_filled(name, chosen, f"{where}: {name}")) if choices else name
            if one in result:
                raise RecipeError(f"{where}: {name}: the name {one!r} comes twice; put every key of 'each' into it")
            result[one] = _filled(rest, chosen, f"{where}: {name}") if choices else rest
    return result


def merged(base: Mapping[str, Any], change: Mapping[str, Any]) -> dict[str, Any]:
    """``base`` with the keys of ``change`` laid over it, blocks key by key."""
    result = dict(base)
    for key, value in change.items():
        both = isinstance(value, Mapping) and isinstance(result.get(key), Mapping)
        result[key] = merged(result[key], value) if both else value
    return result


def unknown(what: str, name: Any, known: Iterable[str]) -> str:
    """What is wrong with a name that is not ``known``, with the nearest one or all of them."""
    known = list(known)
    near = difflib.get_close_matches(str(name), known, n=1)
    return f"unknown {what} {name!r}" + (f"; did you mean {near[0]!r}?" if near else f"; known: {', '.join(known)}")


@cache
def hints_of(recipe: type) -> dict[str, Any]:
    """The annotated type of every field."""
    return get_type_hints(recipe, include_extras=True)


def _parted(hint: Any) -> tuple[Any, tuple[Any, ...]]:
    """A type and the marks of its annotation."""
    return (hint.__origin__, hint.__metadata__) if get_origin(hint) is Annotated else (hint, ())


def _kinds(marks: Iterable[Any]) -> Kinds | None:
    return next((mark for mark in marks if isinstance(mark, Kinds)), None)


def _of_kind(base: type, marks: Iterable[Any], value: Any, where: str) -> Any:
    """A block whose ``kind`` picks its class."""
    table = _kinds(marks).table
    block = _block(value, where)
    if "kind" not in block and (unsaid := _kinds(marks).unsaid):
        return _recipe(unsaid, block, where)
    if "kind" not in block:
        raise RecipeError(f"{where}: the key 'kind' is missing; known: {', '.join(table)}")
    if not (isinstance(block["kind"], str) and block["kind"] in table):
        raise RecipeError(f"{where}.kind: {unknown('kind', block['kind'], table)}")
    return _recipe(table[block["kind"]], {key: item for key, item in block.items() if key != "kind"}, where)


def _recipe(recipe: type, block: Mapping[str, Any], where: str) -> Any:
    hints, fields = hints_of(recipe), {field.name: field for field in dataclasses.fields(recipe)}
    for key in block:
        if key not in fields:
            raise RecipeError(f"{where}: {unknown('key', key, fields)}")
    values = {key: build(hints[key], item, f"{where}.{key}") for key, item in block.items()}
    for name, field in fields.items():
        if name not in block and _default(field) is MISSING:
            raise RecipeError(f"{where}: the key {name!r} is missing")
    try:
        return recipe(**values)
    except RecipeError:
        raise
    except ValueError as error:
        raise RecipeError(f"{where}: {error}") from None


def _block(value: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise RecipeError(f"{where}: must be a block of keys, not {value!r}")
    return value


def _convert(kind: Any, value: Any, where: str) -> Any:
    """Check one value against its type; numbers and lists become what the recipe declares."""
    origin, arguments = get_origin(kind), get_args(kind)
    if kind is Any:
        return _of_any_kind(value, where)
    if type(None) in arguments:
        return None if value is None else build(arguments[0], value, where)
    if dataclasses.is_dataclass(kind):
        short = getattr(kind, "shorthand", None)
        return _recipe(
            kind, {short: value} if short and not isinstance(value, Mapping) else _block(value, where), where
        )
    if origin is Literal:
        if value not in arguments:
            raise RecipeError(f"{where}: {unknown(where.rpartition('.')[2].partition('[')[0], value, arguments)}")
        return value
    if origin is tuple and isinstance(value, (list, tuple)):
        hints = _item_hints(kind, value, where)
        return tuple(
            build(hint, item, f"{where}[{i}]") for i, (hint, item) in enumerate(zip(hints, value, strict=True))
        )
    if origin is list and isinstance(value, list):
        return [build(arguments[0], item, f"{where}[{i}]") for i, item in enumerate(value)]
    if origin is dict and isinstance(value, Mapping):
        keys, items = arguments
        return {build(keys, key, where): build(items, item, f"{where}.{key}") for key, item in value.items()}
    return _scalar(kind, value, where)


def _of_any_kind(value: Any, where: str) -> Any:
    """What is checked by whom it is for, as a network's arguments are: text, numbers, lists and blocks alone."""
    if isinstance(value, Mapping):
        return {build(str, key, where): _of_any_kind(item, f"{where}.{key}") for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_of_any_kind(item, f"{where}[{i}]") for i, item in enumerate(value)]
    if value is None or isinstance(value, bool):
        return value
    return _scalar(type(value) if isinstance(value, (int, float)) else str, value, where)


def _item_hints(kind: Any, value: Any, where: str) -> list[Any]:
    arguments = get_args(kind)
    hints = [arguments[0]] * len(value) if arguments[-1] is Ellipsis else list(arguments)
    if len(hints) != len(value):
        raise RecipeError(f"{where}: needs {len(hints)} values, not {len(value)}")
    return hints


def _scalar(kind: Any, value: Any, where: str) -> Any:
    if isinstance(value, int) and abs(value) > MOST:
        raise RecipeError(f"{where}: is too large a number; it must be at most {MOST:,}")
    if kind is float and isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    if kind in (int, str, bool) and type(value) is kind:
        return value
    if kind is str and isinstance(value, (int, float, bool, datetime.date)):
        raise RecipeError(f'{where}: {value!r} is no text to YAML; put it in quotes as it is meant, such as "{value}"')
    if kind in (float, int) and isinstance(value, str) and _is_number(value):
        raise RecipeError(f"{where}: {value!r} is text to YAML; write a number, with a point before any e: 1.0e-3")
    known = {tuple: "a list", list: "a list", dict: "a block of keys"}
    name = known.get(get_origin(kind), getattr(kind, "__name__", kind))
    raise RecipeError(f"{where}: {value!r} is not {name}")


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _said(recipe: Any, *, all_of_it: bool) -> Any:
    """The fields that have not their default, with the untracked ones or without, as plain sorted data."""
    if not dataclasses.is_dataclass(recipe):
        return _plain_inside(recipe, lambda item: _said(item, all_of_it=all_of_it))
    values = {
        field.name: _said(_public(recipe, field.name), all_of_it=all_of_it)
        for field in dataclasses.fields(recipe)
        if (all_of_it or not is_untracked(type(recipe), field.name)) and getattr(recipe, field.name) != _default(field)
    }
    return {**_kind_of(recipe), **{name: values[name] for name in sorted(values)}}


def _public(recipe: Any, field: str) -> Any:
    """The value of a field, an address without its password."""
    value = getattr(recipe, field)
    marks = _parted(hints_of(type(recipe))[field])[1]
    return without_password(value) if any(isinstance(mark, Address) for mark in marks) else value


def _default(field: dataclasses.Field) -> Any:
    return field.default if field.default_factory is MISSING else field.default_factory()


def _kind_of(recipe: Any) -> dict[str, str]:
    """The key that says which class a recipe is of, where its part has several."""
    kind = getattr(type(recipe), "kind", None)
    return {"kind": kind} if isinstance(kind, str) and not _goes_without_saying(type(recipe)) else {}


def _goes_without_saying(recipe: type) -> bool:
    return getattr(recipe, "kind_goes_without_saying", False)


def _plain_inside(value: Any, of: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): of(value[key]) for key in sorted(value, key=str)}
    return [of(item) for item in value] if isinstance(value, (list, tuple)) else value


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
