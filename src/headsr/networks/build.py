"""From the ``network`` block of a model's recipe to the network; parts.NETWORKS says what there is."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import nn

from headsr.parts import NETWORKS


def build_network(network: Mapping[str, Any], key: str = "network") -> nn.Module:
    """The network with random weights: ``network`` names its ``architecture``, the other keys are that constructor's.

    ValueError names an unknown architecture, and an unknown or missing setting, of the recipe's block ``key``.
    """
    architecture = network.get("architecture")
    if architecture not in NETWORKS:
        raise ValueError(f"{key}.architecture: {architecture!r} is none{_nearest(architecture, NETWORKS)}")
    constructor = NETWORKS[architecture].load()
    known = inspect.signature(constructor).parameters
    arguments = {name: value for name, value in network.items() if name != "architecture"}
    for name in arguments:
        if name not in known:
            raise ValueError(f"{key}.{name}: {architecture} has no such setting{_nearest(name, known)}")
    for name, parameter in known.items():
        if name not in arguments and parameter.default is inspect.Parameter.empty:
            raise ValueError(f"{key}.{name}: is missing; {architecture} needs it")
    return constructor(**arguments)


def check_network(network: Mapping[str, Any], key: str = "network") -> nn.Module:
    """The network without its numbers, on torch's meta device: what it would be, within milliseconds.

    ValueError for whatever its constructor cannot take, and for what is negative: many would take that for 0.
    """
    for name, value in network.items():
        numbers = value if isinstance(value, (list, tuple)) else [value]
        if any(isinstance(number, (int, float)) and number < 0 for number in numbers):
            raise ValueError(f"{key}.{name}: {value} is negative; settings of a network are sizes and counts")
    try:
        with torch.device("meta"):
            return build_network(network, key)
    except (TypeError, RuntimeError, IndexError, ZeroDivisionError) as error:
        raise ValueError(f"{key}: {network['architecture']} cannot be built so ({error})") from error


def _nearest(name: Any, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(str(name), list(known), n=1)
    return f"; did you mean {near[0]!r}?" if near else f"; known: {', '.join(known)}"
