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
    """A loss. ``of`` says what it compares, and so which trainings can have it.

    ``features``: it compares what another model makes of both, which the recipe must name.
    """

    of: str = "images"
    features: bool = False


@dataclass(frozen=True)
class Metric(Part):
    """A measure. ``family`` says what it is measured on, and so which rule does it: voxels, set ... .

    Larger values are better, smaller ones, or those that are nearer to ``ideal``, where there is one.
    """

    family: str = "voxels"
    title: str = ""
    unit: str = ""
    decimals: int = 2
    larger_is_better: bool = True
    ideal: float | None = None
    words: str = ""

    def gain(self, value: float, than: float) -> float:
        """By how much a value is better than another one."""
        if self.ideal is not None:
            return abs(than - self.ideal) - abs(value - self.ideal)
        return value - than if self.larger_is_better else than - value

    @property
    def better(self) -> str:
        """Which values are better, in words."""
        if self.ideal is not None:
            return f"the nearer to {self.ideal:g} the better"
        return "larger is better" if self.larger_is_better else "smaller is better"


NETWORKS: dict[str, Network] = {
    "residual2d": Network(
        "headsr.networks.residual2d.ResidualSliceNetwork", version=2, kinds=("baseline", "adversarial")
    ),
    "slice_unet": Network("headsr.networks.slice_unet.SliceUnet", version=2, kinds=("baseline", "adversarial")),
    "rrdb": Network("headsr.networks.rrdb.ResidualDenseNetwork", version=2, kinds=("baseline", "adversarial")),
    "swinir": Network("headsr.networks.swinir.SwinNetwork", version=2, kinds=("baseline", "adversarial")),
    "kl": Network("headsr.networks.autoencoder.KLAutoencoder", version=2, kinds=("autoencoder",)),
    "diffusers_kl": Network("headsr.networks.diffusers_autoencoder.DiffusersAutoencoder", kinds=("autoencoder",)),
    "unet2d": Network("headsr.networks.unet2d.LatentUnet", version=3, kinds=("ldm",)),
    "slice_encoder": Network("headsr.networks.slice_encoder.SliceEncoder", kinds=("slice_encoder",)),
    "unrolled": Network("headsr.networks.unrolled.Unrolled", kinds=("unrolled",)),
    "vgg19": Network("headsr.networks.vgg.Vgg19", kinds=("image_features",)),
    "efficientnet_lite0": Network("headsr.networks.efficientnet.EfficientNetLite0", kinds=("image_features",)),
    "patch_discriminator": Network("headsr.networks.patch_discriminator.PatchDiscriminator", kinds=("discriminator",)),
    "unet_discriminator": Network(
        "headsr.networks.unet_discriminator.UnetDiscriminator", version=2, kinds=("discriminator",)
    ),
}

LOSSES: dict[str, Loss] = {
    "l1": Loss("headsr.losses.pixel.l1_loss"),
    "gradient": Loss("headsr.losses.gradient.gradient_loss"),
    "wavelet": Loss("headsr.losses.wavelet.wavelet_loss"),
    "denoising": Loss("headsr.losses.pixel.mse_loss", of="residuals"),
    "low_band": Loss("headsr.losses.wavelet.low_band_loss", of="residuals"),
    "detail_bands": Loss("headsr.losses.wavelet.detail_bands_loss", of="residuals"),
    "kl": Loss("headsr.losses.posterior.kl_divergence", of="posterior"),
    "plane": Loss("headsr.losses.answers.cross_entropy", of="planes"),
    "position": Loss("headsr.losses.answers.smooth_l1", of="positions"),
    "degradation": Loss("headsr.losses.answers.smooth_l1", of="degradations"),
    "perceptual": Loss("headsr.losses.perceptual.perceptual_loss", features=True),
    "laplace": Loss("headsr.losses.likelihood.laplace_loss", of="spreads"),
    "vanilla": Loss("headsr.losses.adversarial.vanilla_loss", of="verdicts"),
    "relativistic": Loss("headsr.losses.adversarial.relativistic_loss", of="verdicts"),
}

METRICS: dict[str, Metric] = {
    "psnr": Metric(
        "headsr.evaluate.metrics.voxels.psnr",
        title="PSNR",
        unit="dB",
        words="20 log10(data range / root mean square error inside the mask)",
    ),
    "ssim": Metric(
        "headsr.evaluate.metrics.voxels.ssim",
        title="SSIM",
        decimals=4,
        words="mean inside the mask of the 3-D map (Gaussian window, sigma 1.5 voxels, population covariance)",
    ),
    "nrmse": Metric(
        "headsr.evaluate.metrics.voxels.nrmse",
        title="NRMSE",
        decimals=4,
        larger_is_better=False,
        words="root mean square error over the root mean square of the truth, both inside the mask",
    ),
    "seam_ratio": Metric(
        "headsr.evaluate.metrics.seams.seam_ratio",
        title="Seam ratio",
        decimals=3,
        ideal=1.0,
        words="mean step across the borders of slices over that of all steps, relative to the truth's; 1: no seams",
    ),
    "stripe_peak": Metric(
        "headsr.evaluate.metrics.seams.stripe_peak",
        title="Stripe peak",
        ideal=1.0,
        words="power of the rises at the frequency of the slices over that beside it, relative to the truth's; 1: none",
    ),
    "edge_width": Metric(
        "headsr.evaluate.metrics.edges.edge_width",
        title="Edge width",
        unit="mm",
        larger_is_better=False,
        words="10 to 90 % rise along the thick axis of the error function fitted to the mean strong edge",
    ),
    "spectrum_z": Metric(
        "headsr.evaluate.metrics.spectrum.spectrum_z",
        title="Fine power",
        unit="dB",
        ideal=0.0,
        words="power along the thick axis above the slices' Nyquist frequency, right or wrong; 0: as the truth",
    ),
    "fsc_resolution": Metric(
        "headsr.evaluate.metrics.spectrum.fsc_resolution",
        title="FSC resolution",
        unit="mm",
        larger_is_better=False,
        words="where the Fourier shell correlation with the truth, 30 degrees around the thick axis, falls below 0.5",
    ),
    "sharpness": Metric(
        "headsr.evaluate.metrics.edges.sharpness",
        title="Sharpness",
        decimals=3,
        ideal=1.0,
        words="headsr's own: share of the truth's gradients along the thick axis that the volume has; 1: as sharp",
    ),
    "lesion_contrast": Metric(
        "headsr.evaluate.metrics.lesions.lesion_contrast",
        title="Lesion contrast",
        ideal=1.0,
        words="contrast of the lesions with a ring of 3 mm around them, over what it is in the truth; 1: kept",
    ),
    "coverage": Metric(
        "headsr.evaluate.metrics.uncertainty.coverage",
        title="Coverage",
        decimals=3,
        ideal=0.9,
        words="share of the errors within the foretold interval that is to hold 90 % of them; blank: none foretold",
    ),
    "uncertainty_rank": Metric(
        "headsr.evaluate.metrics.uncertainty.uncertainty_rank",
        title="Uncertainty rank",
        words="Spearman's correlation of the foretold uncertainty with the size of the error; blank: none foretold",
    ),
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
