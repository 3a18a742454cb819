"""From the ``network`` block of a model's recipe to the network: an explicit table, no registry."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from headsr.networks.autoencoder import KLAutoencoder
from headsr.networks.residual2d import ResidualSliceNetwork
from headsr.networks.unet2d import LatentUnet

NETWORKS: dict[str, dict[str, Callable[..., nn.Module]]] = {
    "baseline": {"residual2d": ResidualSliceNetwork},
    "autoencoder": {"kl": KLAutoencoder},
    "ldm": {"unet2d": LatentUnet},
}


def build_network(kind: str, network: Mapping[str, Any]) -> nn.Module:
    """The network of a model kind (baseline, autoencoder, ldm) with random weights.

    ``network`` names its ``architecture``; the other keys are that constructor's. ValueError names an unknown one.
    """
    if kind not in NETWORKS:
        raise ValueError(f"unknown kind of model {kind!r}; known: {', '.join(NETWORKS)}")
    architecture = network.get("architecture")
    if architecture not in NETWORKS[kind]:
        raise ValueError(f"network.architecture {architecture!r} is not one of a {kind}: {', '.join(NETWORKS[kind])}")
    constructor = NETWORKS[kind][architecture]
    known = inspect.signature(constructor).parameters
    arguments = {key: value for key, value in network.items() if key != "architecture"}
    for key in arguments:
        if key not in known:
            raise ValueError(f"network.{key} is not a setting of {architecture}; known: {', '.join(known)}")
    for key, parameter in known.items():
        if key not in arguments and parameter.default is inspect.Parameter.empty:
            raise ValueError(f"network.{key} of {architecture} is missing")
    return constructor(**arguments)
