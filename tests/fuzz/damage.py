"""What a disk, a network, an editor or an attacker makes of an input: of its bytes, its text, and the tree in it."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

from numpy.random import Generator

EDGES = (0, 1, -1, 2, 3, 7, 127, 128, 255, 256, 32767, 32768, -32768, 65535, 2**31 - 1, -(2**31), 2**32 - 1, 2**63 - 1)
DEEP = 100_000  # brackets in one another
ODD_TEXT = (
    "", " ", "\t", "\n", "\r\n", "\0", "\x1b[2J", "\ufeff", "\u202e", "é", "|", "<script>", "../../x", "`id`", "$(id)",
    "{x}", "n/a", "nan", "inf", "-1", "1e999", "0x10", "sub-01", "'", '"', "#", "&a", "*a", "<<", ": ", "- ",
    "x" * 5000,
)  # fmt: skip
ODD_VALUES: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 0.5, -0.0, 1e308, 10**400, 2**63, [], {}, [[]], [None], [{}], {"x": {}}, {"": ""},
    [0, 1, 2], ["x"], [[0, 0, 0, 0]] * 4, "\ud800", *ODD_TEXT,
)  # fmt: skip


def pick(rng: Generator, among: Any) -> Any:
    return among[int(rng.integers(len(among)))]


def damaged_bytes(content: bytes, rng: Generator) -> bytes:
    """One to three faults of storage and transport."""
    for _ in range(int(rng.integers(1, 4))):
        content = pick(rng, _FAULTS)(content, rng)
    return content


def damaged_text(text: str, rng: Generator) -> bytes:
    """One to three slips of an editor or a table program, in the encoding that it saves."""
    for _ in range(int(rng.integers(1, 4))):
        text = pick(rng, _SLIPS)(text, rng)
    encoding = pick(rng, ("utf-8",) * 12 + ("latin-1", "utf-16", "utf-8-sig"))
    content = text.encode(encoding, "surrogatepass" if encoding != "latin-1" else "replace")
    return damaged_bytes(content, rng) if rng.random() < 0.1 else content


def damaged_tree(tree: Any, rng: Generator) -> Any:
    """The same plain data with one to three values that are odd, gone, misspelt, more or in another's place."""
    tree = copy.deepcopy(tree)
    for _ in range(int(rng.integers(1, 4))):
        places = list(_places(tree))
        if not places:
            return pick(rng, ODD_VALUES)
        if rng.random() < 0.05:
            return pick(rng, (*ODD_VALUES, tree[places[0][1]] if places[0][0] is tree else None))
        holder, key = pick(rng, places)
        pick(rng, _CHANGES)(holder, key, tree, rng)
    return tree


def _cut(content: bytes, rng: Generator) -> tuple[int, int]:
    start = int(rng.integers(len(content) + 1))
    return start, min(len(content), start + int(rng.integers(1, 64)))


def _flip(content: bytes, rng: Generator) -> bytes:
    changed = bytearray(content)
    for _ in range(int(rng.integers(1, 9)) if content else 0):
        changed[int(rng.integers(len(changed)))] ^= 1 << int(rng.integers(8))
    return bytes(changed)


def _overwrite(content: bytes, rng: Generator) -> bytes:
    start, stop = _cut(content, rng)
    return (
        content[:start]
        + pick(rng, (rng.bytes(stop - start), bytes(stop - start), b"\xff" * (stop - start)))
        + (content[stop:])
    )


def _number(content: bytes, rng: Generator) -> bytes:
    start, size = int(rng.integers(len(content) + 1)), int(pick(rng, (1, 2, 4, 8)))
    number = int(pick(rng, EDGES)) % 2 ** (8 * size)
    return content[:start] + number.to_bytes(size, pick(rng, ("little", "big"))) + content[start + size :]


def _truncate(content: bytes, rng: Generator) -> bytes:
    return content[: int(rng.integers(len(content) + 1))]


def _insert(content: bytes, rng: Generator) -> bytes:
    start, stop = _cut(content, rng)
    return content[:start] + rng.bytes(stop - start) + content[start:]


def _delete(content: bytes, rng: Generator) -> bytes:
    start, stop = _cut(content, rng)
    return content[:start] + content[stop:]


def _repeat(content: bytes, rng: Generator) -> bytes:
    start, stop = _cut(content, rng)
    return content[:stop] + content[start:]


def _append(content: bytes, rng: Generator) -> bytes:
    return content + pick(rng, (b"\0", rng.bytes(40), content, b"\n"))


_FAULTS: tuple[Callable[[bytes, Generator], bytes], ...] = (
    _flip, _flip, _flip, _overwrite, _number, _truncate, _insert, _delete, _repeat, _append,
)  # fmt: skip


def _insert_text(text: str, rng: Generator) -> str:
    start = int(rng.integers(len(text) + 1))
    return text[:start] + pick(rng, ODD_TEXT) + text[start:]


def _replace_word(text: str, rng: Generator) -> str:
    words = text.split(" ")
    words[int(rng.integers(len(words)))] = pick(rng, ODD_TEXT)
    return " ".join(words)


def _other_lines(text: str, rng: Generator) -> str:
    lines = text.split("\n")
    one, other = (int(rng.integers(len(lines))) for _ in range(2))
    kind = int(rng.integers(4))
    if kind == 0:
        lines[one], lines[other] = lines[other], lines[one]
    elif kind == 1:
        lines.insert(one, lines[other])
    elif kind == 2:
        del lines[one]
    else:
        lines[one] = pick(rng, ("  ", "\t", "")) + lines[one].strip()
    return "\n".join(lines)


def _other_cell(text: str, rng: Generator) -> str:
    """Another value between tabs, commas or colons."""
    mark = pick(rng, [mark for mark in "\t,:" if mark in text] or [" "])
    cells = text.split(mark)
    cells[int(rng.integers(len(cells)))] = pick(rng, (*ODD_TEXT, pick(rng, cells)))
    return mark.join(cells)


def _brackets(text: str, rng: Generator) -> str:
    start = int(rng.integers(len(text) + 1))
    return text[:start] + pick(rng, ("[", "{", "- ", '{"a":', "(")) * int(pick(rng, (1, 50, 1500, DEEP))) + text[start:]


def _digits(text: str, rng: Generator) -> str:
    start = int(rng.integers(len(text) + 1))
    return text[:start] + "9" * int(pick(rng, (20, 400, 5000))) + text[start:]


def _line_ends(text: str, rng: Generator) -> str:
    return text.replace("\n", pick(rng, ("\r\n", "\r", "\n\n", "\u2028", "")))


_SLIPS: tuple[Callable[[str, Generator], str], ...] = (
    _insert_text, _insert_text, _replace_word, _other_lines, _other_lines, _other_cell, _other_cell, _other_cell,
    _brackets, _digits, _line_ends,
)  # fmt: skip


def _places(tree: Any) -> Any:
    """Every value in a tree, as what holds it and its key there."""
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in list(items):
        yield tree, key
        yield from _places(value)


def _odd(holder: Any, key: Any, tree: Any, rng: Generator) -> None:
    holder[key] = copy.deepcopy(pick(rng, ODD_VALUES))


def _gone(holder: Any, key: Any, tree: Any, rng: Generator) -> None:
    del holder[key]


def _misspelt(holder: Any, key: Any, tree: Any, rng: Generator) -> None:
    if isinstance(holder, dict):
        text = str(key)
        at = int(rng.integers(len(text) + 1))
        holder[pick(rng, (text[:at] + text[at + 1 :], text[:at] + "x" + text[at:], text.upper(), ""))] = holder.pop(key)
    else:
        holder.append(holder[key])


def _more(holder: Any, key: Any, tree: Any, rng: Generator) -> None:
    if isinstance(holder, dict):
        holder[pick(rng, ("x", "kind", "name", "headsr", "", "shape"))] = copy.deepcopy(pick(rng, ODD_VALUES))
    else:
        holder.insert(key, copy.deepcopy(pick(rng, (*ODD_VALUES, holder[key]))))


def _elsewhere(holder: Any, key: Any, tree: Any, rng: Generator) -> None:
    other, place = pick(rng, list(_places(tree)))
    holder[key] = copy.deepcopy(other[place])


def _numerically(holder: Any, key: Any, tree: Any, rng: Generator) -> None:
    value = holder[key]
    if isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e300:
        holder[key] = pick(rng, (-value, value * 1e6, value / 1e6, value + 1, int(value), 0, *EDGES))
    else:
        _odd(holder, key, tree, rng)


_CHANGES: tuple[Callable[[Any, Any, Any, Generator], None], ...] = (
    _odd, _odd, _odd, _gone, _misspelt, _more, _elsewhere, _numerically,
)  # fmt: skip
