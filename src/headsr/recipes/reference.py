"""The reference tables of config/README.md, from the recipes' annotations: ``python -m headsr.recipes.reference``."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, Literal, get_args, get_origin

from headsr.recipes.config import Config, Files, Larger, Overrides, Render
from headsr.recipes.convert import Among, Doc, Kinds, Matching, Names, Range, hints_of, plain, stated
from headsr.recipes.data import DATASETS, Blind, BlindStage, Degradation, Stack
from headsr.recipes.methods import METHODS, Fit, GridField
from headsr.recipes.models import DATA, MODELS, Budget, LossTerm, Optimizer, Schedule
from headsr.recipes.shipped import Shipped
from headsr.recipes.tables import Column, Expectation, Table

README = Path("config/README.md")
MARK = "<!-- From here on made by: python -m headsr.recipes.reference -->\n"
_SECTIONS = {
    "config.yaml": [Config, Render, Larger, Files, Overrides],
    "datasets.yaml": [*DATASETS.values()],
    "degradations.yaml": [Degradation, Stack],
    "blind.yaml": [Blind, BlindStage],
    "models/NAME.yaml": [*MODELS.values(), Shipped, *DATA.values(), Budget, Optimizer, Schedule, LossTerm],
    "methods.yaml": [*METHODS.values(), Fit, GridField],
    "experiments.yaml": [Table, Column, Expectation],
}


def reference() -> str:
    """Every key of every recipe: what it may be, its default, what it means."""
    return "\n".join(line for name, classes in _SECTIONS.items() for line in _section(name, classes))


def _section(name: str, classes: list[type]) -> Iterator[str]:
    yield f"## {name}"
    for one in classes:
        kind = getattr(one, "kind", None)
        yield f"\n**{one.__name__}**" + (f" (`kind: {kind}`)" if isinstance(kind, str) else "")
        yield f": {one.__doc__.splitlines()[0]}\n"
        yield "| key | value | default | |\n|---|---|---|---|"
        for field in dataclasses.fields(one):
            may_be, meaning = allowed(hints_of(one)[field.name]), _meaning(one, field)
            yield f"| `{field.name}` | {may_be} | {_default(field)} | {meaning} |"
    yield ""


def allowed(hint: Any) -> str:
    """What a value of an annotated type may be, in words."""
    kind, marks = (hint.__origin__, hint.__metadata__) if get_origin(hint) is Annotated else (hint, ())
    for mark in marks:
        if isinstance(mark, Kinds):
            return "block of kind " + ", ".join(mark.table)
        if isinstance(mark, Names):
            return f"name in {mark.part}" + (f" of kind {', '.join(mark.kinds)}" if mark.kinds else "")
        if isinstance(mark, Matching):
            return mark.what
        if isinstance(mark, Among):
            return f"{mark.what}: {', '.join(mark.known)}"
    ranges = [str(mark) for mark in marks if isinstance(mark, Range)]
    return ", ".join([_type(kind), *ranges])


def _type(kind: Any) -> str:
    origin, arguments = get_origin(kind), get_args(kind)
    if NoneType in arguments:
        return f"{allowed(arguments[0])}, or null"
    if origin is Literal:
        return ", ".join(map(str, arguments))
    if origin is tuple and arguments[-1] is Ellipsis:
        return f"list of {allowed(arguments[0])}"
    if origin is tuple:
        return f"[{'; '.join(map(allowed, arguments))}]"
    if origin is dict:
        return f"block of {allowed(arguments[0])} to {allowed(arguments[1])}"
    names = {float: "number", int: "whole number", str: "text", bool: "true or false", Any: "any value"}
    return names.get(kind, kind.__name__)


def _default(field: dataclasses.Field) -> str:
    if field.default is not dataclasses.MISSING:
        value = field.default
    elif field.default_factory is not dataclasses.MISSING:
        value = field.default_factory()
    else:
        return "needed"
    return f"`{plain(value)}`" if stated(value) not in ("", [], {}) else "empty"


def _meaning(recipe: type, field: dataclasses.Field) -> str:
    marks = getattr(hints_of(recipe)[field.name], "__metadata__", ())
    return next((mark.text for mark in marks if isinstance(mark, Doc)), "")


def main() -> None:
    """Write the tables into config/README.md, after the mark."""
    text = README.read_text(encoding="utf-8")
    README.write_text(text.partition(MARK)[0] + MARK + reference(), encoding="utf-8")


if __name__ == "__main__":
    main()
