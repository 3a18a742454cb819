"""Many inputs of a kind, one after the other, each from a seed of its own: one that falls can be made again alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
from fuzz.outcomes import Input, Outcome, outcome_of

SEED = 15
Maker = Callable[[np.random.Generator], Input]  # damages what it holds, at random


def fuzz(kind: str, maker: Maker, numbers: Iterable[int]) -> tuple[Counter[Outcome], list[str]]:
    """How often each outcome came, and what was said of those that should not be."""
    counts: Counter[Outcome] = Counter()
    fallen = []
    for number in numbers:
        try:
            outcome, said = outcome_of(input_of(kind, maker, number))
        except KeyboardInterrupt:  # enough of this kind
            break
        counts[outcome] += 1
        if outcome not in (Outcome.RIGHT, Outcome.CLEAR):
            fallen.append(f"{kind} {number}: {outcome}: {said}")
    return counts, fallen


def input_of(kind: str, maker: Maker, number: int) -> Input:
    """One input of a kind: the same for the same number, whatever came before."""
    return maker(np.random.default_rng([SEED, *kind.encode(), number]))


def table_of(counts: dict[str, Counter[Outcome]]) -> str:
    """The counts as a table in Markdown."""
    heads = ["Kind", "Inputs", *(outcome.capitalize() for outcome in Outcome)]
    rows = [[kind, f"{one.total():,}", *(f"{one[outcome]:,}" for outcome in Outcome)] for kind, one in counts.items()]
    return "\n".join("| " + " | ".join(row) + " |" for row in (heads, ["---"] * len(heads), *rows))


def prepared(folder: Path, kinds: dict[str, Callable[[Path], Maker]]) -> dict[str, Maker]:
    """What makes the inputs of every kind, each with a folder of its own."""
    made = {}
    for kind, prepare in kinds.items():
        (folder / kind).mkdir()
        made[kind] = prepare(folder / kind)
    return made
