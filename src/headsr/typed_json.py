"""JSON that headsr wrote, read as what it must be: by the annotations of a class, as recipes are."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from typing import Any

from headsr.files import UnreadableError, read_json
from headsr.recipes.convert import RecipeError, build

_AGAIN = "Move it away and run again to make it anew"


def read_as(hint: Any, path: str | os.PathLike[str], *keys: str) -> Any:
    """What a JSON file says under some keys, one in the other, as a value of an annotated type.

    Of a class the file may say more than its fields. UnreadableError names a file that is not there or cannot be
    read, and a key that it lacks or that holds something else.
    """
    try:
        content = read_json(path)
    except FileNotFoundError:
        raise UnreadableError(f"{path}: does not exist. Run again what makes it") from None
    for number, key in enumerate(keys):
        if not isinstance(content, Mapping) or key not in content:
            raise UnreadableError(f"{path}: says no {'.'.join(keys[: number + 1])}. {_AGAIN}")
        content = content[key]
    try:
        return picked(hint, content, f"{path}: {'.'.join(keys) or 'its content'}")
    except RecipeError as error:
        raise UnreadableError(f"{error}. {_AGAIN}") from None


def picked(hint: Any, content: Any, where: str) -> Any:
    """A value of an annotated type from plain data, without the keys that a class has no field for.

    RecipeError begins with ``where``.
    """
    if dataclasses.is_dataclass(hint) and isinstance(content, Mapping):
        names = {field.name for field in dataclasses.fields(hint)}
        content = {key: value for key, value in content.items() if key in names}
    return build(hint, content, where)
