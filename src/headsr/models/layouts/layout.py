"""What a layout says of a checkpoint, and how weights for colours become those for grey images."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

Change = Callable[[Tensor], Tensor]
Tensors = Mapping[str, Tensor]


@dataclass(frozen=True)
class Source:
    """Where a tensor of headsr's network comes from: the published name, and what is done with it."""

    name: str
    change: Change | None = None


@dataclass(frozen=True)
class Reading:
    """What a checkpoint was found to be.

    ``network`` is the block of headsr's network, ``sources`` has each of its tensors by name, ``words`` say the sizes.
    ``unused`` are the published names that belong to the layout and are not needed.
    """

    network: dict[str, Any]
    sources: dict[str, Source]
    words: str
    unused: Callable[[str], bool] = field(default=lambda name: False)


@dataclass(frozen=True)
class Layout:
    """A published network: its name, the kind of model that it becomes, what to cite, and how it is told and read.

    ``read`` raises KeyError for a published name that is not there, ValueError for sizes that headsr has not.
    """

    name: str
    kind: str
    citation: str
    is_of: Callable[[Iterable[str]], bool]
    read: Callable[[Tensors], Reading]


def both(ours: str, theirs: str, change: Change | None = None) -> dict[str, Source]:
    """The sources of weight and bias of one layer; ``change`` is for both."""
    return {f"{ours}.{part}": Source(f"{theirs}.{part}", change) for part in ("weight", "bias")}


def numbered(names: Iterable[str], pattern: str) -> int:
    """How many numbers stand where ``pattern`` has its group."""
    return len({found[1] for name in names if (found := re.match(pattern, name))})


def for_grey_input(colours: int) -> Change:
    """A first convolution that sees a grey image once instead of in every colour: exact, since it is linear.

    Of inputs that are rearranged pixels those of one colour stand together.
    """
    return lambda weight: weight.unflatten(1, (colours, -1)).sum(dim=1)


def for_grey_output(colours: int) -> Change:
    """A last layer that gives the mean of its colours: exact, since it is linear.

    Of outputs that become pixels those of one colour stand together.
    """
    return lambda tensor: tensor.unflatten(0, (colours, -1)).mean(dim=0)


def colours_of(first: Tensor, last: Tensor, *, each: int = 1) -> int:
    """In how many colours a network is, of its first convolution and its last, whose outputs are ``each`` a colour."""
    colours, rest = divmod(last.shape[0], each)
    if rest or colours not in (1, 3) or first.shape[1] % colours:
        raise ValueError(
            f"it has {first.shape[1]} channels before its first and {last.shape[0]} after its last convolution, which "
            "are no images of 1 or 3 channels"
        )
    return colours
