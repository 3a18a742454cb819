"""Read a YAML file without letting it grow: 500 bytes of aliases and merges can stand for more than memory holds."""

from __future__ import annotations

import os
import re
from typing import Any

import yaml

from headsr.files import open_file

MOST_BYTES = 4 * 2**20
MOST_VALUES = 200_000  # every alias and merge written out; the shipped recipes have some thousand
MOST_DEPTH = 50  # of blocks in one another; whatever goes through a recipe goes through all of them


def read_yaml(path: str | os.PathLike[str]) -> Any:
    """The content of a YAML file.

    yaml.YAMLError for what is no YAML, and for what is too large, written out, or contains itself. NotAFileError for a
    pipe or a device, FileNotFoundError where there is none.
    """
    with open_file(path) as stream:
        text = stream.read(MOST_BYTES + 1)
    if len(text) > MOST_BYTES:
        raise yaml.YAMLError(f"it has more than {MOST_BYTES:,} bytes")
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        if root is None:
            return None
        _refuse_growth(root)
        loader = yaml.SafeLoader("")
        try:
            return loader.construct_document(root)
        finally:
            loader.dispose()
    except RecursionError:
        raise yaml.YAMLError(_TOO_DEEP) from None
    except ValueError as error:  # of a number with thousands of digits, of a day that there is not
        raise yaml.YAMLError(str(error)) from error


def _refuse_growth(root: yaml.Node) -> None:
    sizes: dict[yaml.Node, int | None] = {}  # None: is being counted
    if _size(root, sizes, 0) > MOST_VALUES:
        raise yaml.YAMLError(f"it stands for more than {MOST_VALUES:,} values once its aliases are written out")


def _size(node: yaml.Node, sizes: dict[yaml.Node, int | None], depth: int) -> int:
    """How many values a node stands for, each alias written out."""
    if node in sizes:
        known = sizes[node]
        if known is None:
            raise yaml.YAMLError("a block contains itself")
        return known
    if depth > MOST_DEPTH:
        raise yaml.YAMLError(_TOO_DEEP)
    if isinstance(node, yaml.ScalarNode) and _HALF.search(node.value):
        raise yaml.YAMLError("a text holds half a character (\\ud800 to \\udfff), which no file can keep")
    for key, _ in node.value if isinstance(node, yaml.MappingNode) else ():
        if not isinstance(key, yaml.ScalarNode):
            raise yaml.YAMLError(f"a key is a list or a block, and must be a text, in line {key.start_mark.line + 1}")
    sizes[node] = None
    inner = node.value if isinstance(node, yaml.CollectionNode) else []
    parts = [part for item in inner for part in (item if isinstance(item, tuple) else (item,))]
    sizes[node] = 1 + sum(_size(part, sizes, depth + 1) for part in parts)
    return sizes[node]


_TOO_DEEP = "its blocks lie too deep in one another"
_HALF = re.compile("[\ud800-\udfff]")
