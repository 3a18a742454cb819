"""The default of every key of a recipe. ``python tests/unit/recipes/defaults.py`` records them.

What has its default is not tracked (headsr.recipes.convert.tracked), so with another default the same recipe would mean
something else and rerun nothing. A default that is recorded stays, or the version of its part is raised with it.
"""

import dataclasses
import json
from pathlib import Path
from typing import Any, get_args

from headsr.recipes import Recipes, plain
from headsr.recipes.convert import Kinds, hints_of

RECORD = Path(__file__).with_suffix(".json")


def classes_of(hint: Any) -> set[type]:
    """Every recipe's class that a type can hold, at any depth."""
    marks = getattr(hint, "__metadata__", ())
    kind = hint.__origin__ if marks else hint
    found = {kind} if isinstance(kind, type) and dataclasses.is_dataclass(kind) else set()
    for mark in marks:
        found |= set(mark.table.values()) if isinstance(mark, Kinds) else set()
    inside = [one for recipe in found for one in hints_of(recipe).values()] + list(get_args(kind))
    return found.union(*(classes_of(one) for one in inside))


def defaults() -> dict[str, Any]:
    """``Class.key`` to its default as plain data."""
    result = {}
    for one in classes_of(Recipes) - {Recipes}:
        for field in dataclasses.fields(one):
            if field.default_factory is not dataclasses.MISSING:
                result[f"{one.__name__}.{field.name}"] = plain(field.default_factory())
            elif field.default is not dataclasses.MISSING:
                result[f"{one.__name__}.{field.name}"] = plain(field.default)
    return dict(sorted(result.items()))


if __name__ == "__main__":
    lines = [f"  {json.dumps(name)}: {json.dumps(value)}" for name, value in defaults().items()]
    RECORD.write_text("{\n" + ",\n".join(lines) + "\n}\n")
