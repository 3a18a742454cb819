"""From the ``network`` block of a model's recipe to the network; parts.NETWORKS says what there is."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import nn

from headsr.parts import NETWORKS


def build_network(network: Mapping[str, Any]) -> nn.Module:
    """The network with random weights: ``network`` names its ``architecture``, the other keys are that constructor's.

    ValueError names an unknown architecture, and an unknown or missing key.
    """
    architecture = network.get("architecture")
    if architecture not in NETWORKS:
        raise ValueError(f"network.architecture: {architecture!r} is none{_nearest(architecture, NETWORKS)}")
    constructor = NETWORKS[architecture].load()
    known = inspect.signature(constructor).parameters
    arguments = {key: value for key, value in network.items() if key != "architecture"}
    for key in arguments:
        if key not in known:
            raise ValueError(f"network.{key}: {architecture} has no such setting{_nearest(key, known)}")
    for key, parameter in known.items():
        if key not in arguments and parameter.default is inspect.Parameter.empty:
            raise ValueError(f"network.{key}: is missing; {architecture} needs it")
    return constructor(**arguments)


def check_network(network: Mapping[str, Any]) -> nn.Module:
    """The network without its numbers, on torch's meta device: what it would be, within milliseconds.

    ValueError for whatever its constructor cannot take.
    """
    try:
        with torch.device("meta"):
            return build_network(network)
    except (TypeError, RuntimeError, IndexError, ZeroDivisionError) as error:
        raise ValueError(f"network: {network['architecture']} cannot be built so ({error})") from error


def _nearest(name: Any, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(str(name), list(known), n=1)
    return f"; did you mean {near[0]!r}?" if near else f"; known: {', '.join(known)}"
