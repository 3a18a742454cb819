"""The pieces of code that recipes exchange by name: networks, losses, metrics. One line each; standard library only.

A part is named here and not imported: Snakemake parses the recipes in every job, and must know every name without
torch. Kinds of models, data and methods are parts too; theirs stand in their recipes' classes (headsr.recipes).
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Part:
    """One exchangeable piece of code: ``place`` is its module and name, as ``headsr.losses.pixel.l1_loss``.

    ``version`` is raised when what it computes changes: what uses this part is made anew, and nothing else.
    """

    place: str
    version: int = 1

    def load(self) -> Any:
        """Import the piece of code."""
        module, _, name = self.place.rpartition(".")
        return getattr(importlib.import_module(module), name)


@dataclass(frozen=True)
class Network(Part):
    """An architecture. ``kinds`` are the kinds of model that it can be the network of."""

    kinds: tuple[str, ...] = ()


@dataclass(frozen=True)
class Loss(Part):
    """A loss. ``of`` says what it compares, and so which trainings can have it."""

    of: str = "images"


@dataclass(frozen=True)
class Metric(Part):
    """A measure. ``family`` says what it is measured on, and so which rule does it: voxels, features ... ."""

    family: str = "voxels"
    title: str = ""
    unit: str = ""
    decimals: int = 2
    larger_is_better: bool = True
    words: str = ""


NETWORKS: dict[str, Network] = {
    "residual2d": Network("headsr.networks.residual2d.ResidualSliceNetwork", kinds=("baseline", "adversarial")),
    "kl": Network("headsr.networks.autoencoder.KLAutoencoder", kinds=("autoencoder",)),
    "unet2d": Network("headsr.networks.unet2d.LatentUnet", kinds=("ldm",)),
    "slice_encoder": Network("headsr.networks.slice_encoder.SliceEncoder", kinds=("slice_encoder",)),
}

LOSSES: dict[str, Loss] = {
    "l1": Loss("headsr.losses.pixel.l1_loss"),
    "gradient": Loss("headsr.losses.gradient.gradient_loss"),
    "wavelet": Loss("headsr.losses.wavelet.wavelet_loss"),
    "denoising": Loss("headsr.losses.pixel.mse_loss", of="residuals"),
    "kl": Loss("headsr.losses.posterior.kl_divergence", of="posterior"),
    "plane": Loss("headsr.losses.answers.cross_entropy", of="planes"),
    "position": Loss("headsr.losses.answers.smooth_l1", of="positions"),
    "degradation": Loss("headsr.losses.answers.smooth_l1", of="degradations"),
}

METRICS: dict[str, Metric] = {
    "psnr": Metric("headsr.evaluate.metrics.voxels.psnr", title="PSNR", unit="dB"),
    "ssim": Metric("headsr.evaluate.metrics.voxels.ssim", title="SSIM", decimals=4),
    "nrmse": Metric("headsr.evaluate.metrics.voxels.nrmse", title="NRMSE", decimals=4, larger_is_better=False),
    "kid": Metric(
        "headsr.evaluate.metrics.sets.kid",
        family="set",
        title="KID",
        decimals=4,
        larger_is_better=False,
        words="kernel distance of the slices' features from the truth's, unbiased; ± its standard error over N slices",
    ),
    "slice_fid": Metric(
        "headsr.evaluate.metrics.sets.fid",
        family="set",
        title="SliceFID",
        decimals=3,
        larger_is_better=False,
        words="Fréchet distance of the slices' features from the truth's; grows as N gets small, so compare equal N",
    ),
}
