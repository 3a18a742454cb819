"""Recipes of trained models: one class a kind, named by ``kind``. What a kind computes is its part's code."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal

from headsr.parts import LOSSES, NETWORKS, Part
from headsr.recipes.convert import FOR_MACHINE, FOR_PEOPLE, Among, Ascending, Doc, Kinds, Names, Range, unknown
from headsr.recipes.data import LEAST_PIXELS, Count, Probability, Seed, Suffix
from headsr.recipes.shipped import Shipped

PRECISIONS = ("fp32", "bf16", "auto")
IMAGE_FEATURES = "image_features"  # a kind of model that no recipe trains: networks of photographs, imported
FALLING = 5  # one part in so many of a training's segments has a falling rate, where its schedule is a decay
Rate = Annotated[float, Range(0, 1, above=True)]
Decay = Annotated[float, Range(0, 1, below=True)]
Told = Literal["spline", "least_squares"]


@dataclass(frozen=True, kw_only=True)
class Data:
    """What a training sees: the preprocessed scans of some suffixes and datasets, of the splits train and val."""

    kind: ClassVar[str]
    part: ClassVar[Part]
    # What a denoiser is told of a slice: the interpolation of one scan, or least squares over all of a study.
    told: ClassVar[Told] = "spline"
    suffixes: Annotated[tuple[Suffix, ...], Doc("Contrasts to train on.")]
    datasets: Annotated[tuple[Annotated[str, Names("datasets")], ...], Doc("Only these datasets; empty is all.")] = ()

    def __post_init__(self) -> None:
        if not self.suffixes:
            raise ValueError("suffixes: name at least one")

    @property
    def drawn_from(self) -> str:
        """The kind of the datasets that it sees."""
        return "scans"

    @property
    def voxels(self) -> int:
        """Of one example: what its memory follows from."""
        return self.crop**2

    @property
    def words(self) -> str:
        """What a training sees, for people: slices of scans in some contrasts."""
        return f"{', '.join(self.suffixes)} {self.kind}"


@dataclass(frozen=True, kw_only=True)
class Paintable(Data):
    """What is cut from preprocessed heads or, with ``source`` labels, painted from the label maps of ``datasets``.

    Shape, contrast and lesions of what is painted are drawn anew every time; ``suffixes`` are the contrasts to paint,
    and without them it is any, also such as no sequence has.
    """

    source: Annotated[
        Literal["heads", "labels"], Doc("Preprocessed heads, or label maps in a contrast drawn at random.")
    ] = "heads"
    suffixes: Annotated[tuple[Suffix, ...], Doc("Contrasts to train on; none is any, of label maps alone.")] = ()

    def __post_init__(self) -> None:
        if self.source == "heads":
            super().__post_init__()
        elif not self.datasets:
            raise ValueError("datasets: name the label maps to draw from, such as synthseg, with source labels")

    @property
    def drawn_from(self) -> str:
        """Scans, or label maps."""
        return "labelmaps" if self.source == "labels" else "scans"

    @property
    def words(self) -> str:
        """The same, or painted from label maps in these contrasts or in any."""
        if self.source == "heads":
            return super().words
        return f"{self.kind} painted from {', '.join(self.datasets)} in {', '.join(self.suffixes) or 'any contrast'}"


@dataclass(frozen=True, kw_only=True)
class Slices(Paintable):
    """2-D crops, and what the blind degradation ``degradation`` makes of them.

    ``view`` edge_on: rows are the direction that is made thick; in_plane: rows and columns are coarse alike. Both are
    interpolated back, but for networks of a ``scale`` above 1, which make slices larger themselves.
    """

    kind: ClassVar[str] = "slices"
    part: ClassVar[Part] = Part("headsr.training.data.slices.SlicePairs", version=2)
    crop: Annotated[int, Range(4, 4096), Doc("Pixels a side of a crop.")]
    degradation: Annotated[str, Names("blind"), Doc("The blind degradation of the slices.")]
    view: Annotated[Literal["edge_on", "in_plane"], Doc("Thick slices from the side, or coarse ones from above.")] = (
        "edge_on"
    )
    visits: Annotated[Count, Doc("Steps in a row that see a painted slice, each another crop of it degraded anew.")] = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.visits > 1 and self.source == "heads":
            raise ValueError("visits: only painted slices are visited more than once, with source labels")


@dataclass(frozen=True, kw_only=True)
class MarkedSlices(Data):
    """2-D crops with plane, position and degradation; every second one is degraded by ``degradation``."""

    kind: ClassVar[str] = "marked_slices"
    part: ClassVar[Part] = Part("headsr.training.data.marked_slices.MarkedSampler", version=2)
    crop: Annotated[int, Range(4, 4096), Doc("Pixels a side of a crop.")]
    degradation: Annotated[str, Names("blind"), Doc("The blind degradation of every second crop.")]


@dataclass(frozen=True, kw_only=True)
class Patches(Data):
    """3-D blocks of preprocessed heads."""

    kind: ClassVar[str] = "patches"
    part: ClassVar[Part] = Part("headsr.training.data.patches.PatchSampler")
    block: Annotated[tuple[Count, Count, Count], Doc("Voxels of a block along x, y and z.")]

    @property
    def voxels(self) -> int:
        """Of one block."""
        return math.prod(self.block)


@dataclass(frozen=True, kw_only=True)
class Measured(Paintable):
    """Blocks of heads and what a drawn acquisition measures of them: ``scans`` at once, spaced by ``factor`` voxels and
    turned by up to ``tilt_degrees``, with ``noise`` in units of the range. A share ``short`` of them ends within."""

    scans: Annotated[tuple[Count, Count], Ascending(), Doc("Fewest and most scans of a study.")] = (1, 3)
    factor: Annotated[
        tuple[Annotated[float, Range(1, 16)], Annotated[float, Range(1, 16)]], Ascending(), Doc("Slice spacing.")
    ] = (1.5, 8.0)
    noise: Annotated[tuple[Decay, Decay], Ascending(), Doc("Least and greatest standard deviation of the noise.")] = (
        0.0,
        0.05,
    )
    tilt_degrees: Annotated[float, Range(0, 45), Doc("Greatest turn of a scan.")] = 0.0
    short: Annotated[Probability, Doc("Share of the scans that end within the block.")] = 0.0


@dataclass(frozen=True, kw_only=True)
class Studies(Measured):
    """Blocks of heads with the scans simulated from each: operator and data.

    One acquisition is drawn per step and shared by the batch.
    """

    kind: ClassVar[str] = "studies"
    part: ClassVar[Part] = Part("headsr.training.data.studies.StudySampler", version=3)
    block: Annotated[tuple[Count, Count, Count], Doc("Voxels of a block along x, y and z.")]

    @property
    def voxels(self) -> int:
        """Of one block."""
        return math.prod(self.block)


@dataclass(frozen=True, kw_only=True)
class StudySlices(Measured):
    """2-D slices of blocks in any plane, what least squares makes of them from the scans, and how many of these cover
    what. A block of ``crop`` voxels a side is measured for every ``per_block`` slices of a batch."""

    kind: ClassVar[str] = "study_slices"
    part: ClassVar[Part] = Part("headsr.training.data.study_slices.StudySlicePairs")
    told: ClassVar[Told] = "least_squares"
    crop: Annotated[int, Range(4, 4096), Doc("Pixels a side of a slice.")]
    per_block: Annotated[Count, Doc("Slices of a batch that are of one block; more are cheaper and more alike.")] = 16

    @property
    def block(self) -> tuple[int, int, int]:
        """Voxels of a block along x, y and z."""
        return (self.crop,) * 3


DATA: dict[str, type[Data]] = {one.kind: one for one in (Slices, MarkedSlices, Patches, Studies, StudySlices)}
DataRecipe = Annotated[Data, Kinds(DATA)]


@dataclass(frozen=True)
class Budget:
    """How long a training is: ``segments`` resumable jobs of ``steps`` optimiser steps on ``batch`` examples each."""

    steps: Annotated[Count, Doc("Optimiser steps of one segment.")]
    batch: Annotated[Count, Doc("Examples of one step.")]
    segments: Annotated[Count, Doc("Jobs that the training is cut into.")] = 1


@dataclass(frozen=True)
class Optimizer:
    """AdamW. Weights of more than one dimension decay; gradients are cut to the norm ``clip``."""

    learning_rate: Annotated[Rate, Doc("At the top of the schedule.")]
    betas: Annotated[tuple[Decay, Decay], Doc("Of Adam's two moments.")] = (0.9, 0.99)
    weight_decay: Annotated[float, Range(0, 1), Doc("Of parameters of more than one dimension.")] = 0.01
    clip: Annotated[float, Range(0, math.inf, above=True, below=True), Doc("Greatest norm of the gradients.")] = 1.0
    accumulation: Annotated[Count, Doc("Batches that make one step.")] = 1


@dataclass(frozen=True)
class Schedule:
    """The learning rate over the steps, after ``warm_up`` steps of linear rise.

    cosine: half a cosine down to 1 % over the whole training, whose length is part of what it is. constant: may be
    prolonged at any time; the moving average does what a decay would do. decay: constant, then straight down to 0 over
    the last fifth of the segments, at least one; prolonging it redoes only those.
    """

    shape: Annotated[Literal["cosine", "constant", "decay"], Doc("Of the learning rate.")]
    warm_up: Annotated[int, Range(0), Doc("Steps of linear rise.")] = 50


@dataclass(frozen=True)
class LossTerm:
    """One loss of a training: its weight, and the model whose features it compares, if it does."""

    shorthand: ClassVar[str] = "weight"
    weight: Annotated[float, Range(0, math.inf, below=True)]
    features: Annotated[str, Names("models", ("slice_encoder", "autoencoder", IMAGE_FEATURES))] = ""


Losses = dict[Annotated[str, Among(LOSSES, "loss")], LossTerm]


@dataclass(frozen=True, kw_only=True)
class Model:
    """One trained model: its network, what it sees and how it is trained.

    ``network`` names its ``architecture``; the other keys are that constructor's. ``losses_of`` says what the kind can
    compare by a loss (parts.Loss.of).
    """

    kind: ClassVar[str]
    part: ClassVar[Part]
    losses_of: ClassVar[tuple[str, ...]] = ("images",)
    data_kinds: ClassVar[tuple[str, ...]] = ("slices",)
    # What its users get where a network is of use only together with the models that these fields name.
    assembly: ClassVar[Part | None] = None
    kept: ClassVar[tuple[str, ...]] = ()
    network: Annotated[dict[str, Any], Doc("architecture, and the arguments of its constructor.")]
    data: Annotated[DataRecipe, Doc("What the training sees.")]
    budget: Annotated[Budget, Doc("How long the training is.")]
    optimizer: Annotated[Optimizer, Doc("How it descends.")]
    schedule: Annotated[Schedule, Doc("The learning rate over the steps.")]
    seed: Annotated[Seed, Doc("Of weights, crops and noise.")]
    losses: Annotated[Losses, Doc("Loss to weight, or to a block of weight and features.")]
    ema_decay: Annotated[Decay, Doc("Of the moving average of the weights, which is what is used.")] = 0.999
    precision: Annotated[Literal[PRECISIONS], Doc("Of matrix products; auto is bf16 where that is native.")] = "auto"
    checkpointing: Annotated[
        bool, FOR_MACHINE, Doc("Keep the inputs of blocks alone: less memory, a third more time, the same bytes.")
    ] = False
    title: Annotated[str, FOR_PEOPLE, Doc("What people call it.")] = ""
    citation: Annotated[str, FOR_PEOPLE, Doc("The paper that it follows.")] = ""
    published: Annotated[str, FOR_PEOPLE, Doc("What its paper reports.")] = ""

    def __post_init__(self) -> None:
        refuse_other_network(self.network, self.kind, "network")
        refuse_other_losses(self.losses, self.losses_of, self.kind)
        if self.data.kind not in self.data_kinds:
            raise ValueError(f"data.kind: {unknown(f'data of a {self.kind}', self.data.kind, self.data_kinds)}")

    @property
    def scale(self) -> int:
        """How many times as many pixels a side what the network makes has as what it is given."""
        return self.network.get("scale", 1)

    def networks(self) -> dict[str, Mapping[str, Any]]:
        """The ``network`` block of every network that is trained, by the turn in which it is."""
        return {"network": self.network}

    def course(self, segment: int) -> dict[str, int]:
        """What of the number of segments decides the bytes of one: a cosine's length, where in a fall it stands.

        ``falls`` counts the segments in which the rate falls, up to this one, of the ``of`` in which it does in the
        end; before them it is 0.
        """
        segments = self.budget.segments
        falling = math.ceil(segments / FALLING)
        falls = max(0, segment + 1 - (segments - falling))
        return {
            "cosine": {"total": self.budget.steps * segments},
            "constant": {},
            "decay": {"falls": falls, "of": falling} if falls else {"falls": 0},
        }[self.schedule.shape]


@dataclass(frozen=True, kw_only=True)
class Baseline(Model):
    """Degraded slices in, clean slices out."""

    kind: ClassVar[str] = "baseline"
    part: ClassVar[Part] = Part("headsr.training.tasks.baseline.BaselineTask")

    def __post_init__(self) -> None:
        super().__post_init__()
        _refuse_other_pixels(self)


@dataclass(frozen=True, kw_only=True)
class Adversarial(Model):
    """A baseline as generator, with a discriminator that is trained in turn with it.

    ``generator`` names the trained baseline that it starts from ('' starts from random weights).
    """

    kind: ClassVar[str] = "adversarial"
    part: ClassVar[Part] = Part("headsr.training.tasks.adversarial.AdversarialTask")
    losses_of: ClassVar[tuple[str, ...]] = ("images", "verdicts")
    discriminator: Annotated[dict[str, Any], Doc("architecture of the discriminator, and its arguments.")]
    generator: Annotated[str, Names("models", ("baseline",)), Doc("The baseline that it starts from.")] = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        _refuse_other_pixels(self)
        _refuse_other_judge(self.discriminator, self.losses)

    def networks(self) -> dict[str, Mapping[str, Any]]:
        """The generator's block and the discriminator's."""
        return {"network": self.network, "discriminator": self.discriminator}


@dataclass(frozen=True, kw_only=True)
class Autoencoder(Model):
    """Slices to latents and back; with a ``discriminator`` trained in turn with it, where the recipe has one."""

    kind: ClassVar[str] = "autoencoder"
    part: ClassVar[Part] = Part("headsr.training.tasks.autoencoder.AutoencoderTask")
    losses_of: ClassVar[tuple[str, ...]] = ("images", "posterior", "verdicts")
    discriminator: Annotated[dict[str, Any], Doc("architecture of the discriminator, and its arguments; none: {}.")] = (
        field(default_factory=dict)
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.discriminator:
            _refuse_other_judge(self.discriminator, self.losses)
        elif judged := [name for name in self.losses if LOSSES[name].of == "verdicts"]:
            raise ValueError(f"losses.{judged[0]}: is of a discriminator's verdicts, and the recipe has none; add one")

    def networks(self) -> dict[str, Mapping[str, Any]]:
        """The autoencoder's block and, where it has one, the discriminator's."""
        return {"network": self.network} | ({"discriminator": self.discriminator} if self.discriminator else {})


@dataclass(frozen=True, kw_only=True)
class Ldm(Model):
    """Denoises the latents of an autoencoder, given what scans show of the slice and how it lies.

    With data of kind slices that is one thick scan, with study_slices least squares over all scans of a study.
    ``denoiser`` names the trained one, in the latents of the same autoencoder, that it starts from ('' starts from
    random weights).
    """

    kind: ClassVar[str] = "ldm"
    part: ClassVar[Part] = Part("headsr.training.tasks.ldm.DenoisingTask", version=2)
    losses_of: ClassVar[tuple[str, ...]] = ("images", "residuals")
    data_kinds: ClassVar[tuple[str, ...]] = ("slices", "study_slices")
    assembly: ClassVar[Part] = Part("headsr.networks.latent_diffusion.LatentDiffusion")
    kept: ClassVar[tuple[str, ...]] = ("autoencoder",)
    autoencoder: Annotated[str, Names("models", ("autoencoder",)), Doc("The autoencoder whose latents it lives in.")]
    denoiser: Annotated[str, Names("models", ("ldm",)), Doc("The denoiser that it starts from.")] = ""
    unconditional: Annotated[Decay, Doc("Share of the slices of which it is shown nothing.")] = 0.2
    weighting: Annotated[
        Literal["even", "min_snr"],
        Doc("even: what is left of the estimate counts alike; min_snr: the clean latents, by signal to noise up to 5."),
    ] = "even"


@dataclass(frozen=True, kw_only=True)
class SliceEncoder(Model):
    """Features of slices, learned without labels: it predicts plane, slice position and degradation of a crop."""

    kind: ClassVar[str] = "slice_encoder"
    part: ClassVar[Part] = Part("headsr.training.tasks.slice_encoder.SliceEncoderTask")
    losses_of: ClassVar[tuple[str, ...]] = ("planes", "positions", "degradations")
    data_kinds: ClassVar[tuple[str, ...]] = ("marked_slices",)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.budget.batch < 2:
            raise ValueError("budget.batch: every second crop is degraded; it must be at least 2")


@dataclass(frozen=True, kw_only=True)
class UnrolledNetwork(Model):
    """Scans and their operators in, the head and the spread of its errors out."""

    kind: ClassVar[str] = "unrolled"
    part: ClassVar[Part] = Part("headsr.training.tasks.unrolled.UnrolledTask", version=2)
    losses_of: ClassVar[tuple[str, ...]] = ("images", "spreads")
    data_kinds: ClassVar[tuple[str, ...]] = ("studies",)


MODELS: dict[str, type[Model]] = {
    one.kind: one for one in (Baseline, Adversarial, Autoencoder, Ldm, SliceEncoder, UnrolledNetwork)
}
ModelRecipe = Annotated[Model | Shipped, Kinds({**MODELS, Shipped.kind: Shipped})]


def _refuse_other_judge(discriminator: Mapping[str, Any], losses: Losses) -> None:
    """ValueError for a network that is no discriminator, and for one whose verdicts no loss is of."""
    refuse_other_network(discriminator, "discriminator", "discriminator")
    if not any(LOSSES[name].of == "verdicts" and term.weight > 0 for name, term in losses.items()):
        known = ", ".join(name for name, part in LOSSES.items() if part.of == "verdicts")
        raise ValueError(f"losses: one on the discriminator's verdicts must have a weight above 0: {known}")


def _refuse_other_pixels(model: Model) -> None:
    """ValueError for slices that a network cannot make larger by its scale."""
    if not isinstance(model.scale, int) or model.scale < 1:
        raise ValueError(f"network.scale: {model.scale!r}; it is a whole number from 1")
    if model.scale > 1 and model.data.view != "in_plane":
        raise ValueError(
            f"network.scale: {model.scale} makes rows and columns finer alike, and data.view {model.data.view} is of "
            "thick slices; set data.view to in_plane, or the scale to 1"
        )
    if model.scale > 1 and (model.data.crop % model.scale or model.data.crop < LEAST_PIXELS * model.scale):
        raise ValueError(
            f"data.crop: {model.data.crop} must be a multiple of network.scale, {model.scale}, and at least "
            f"{LEAST_PIXELS * model.scale}"
        )


def refuse_other_network(network: Mapping[str, Any], kind: str, key: str) -> None:
    """ValueError for an architecture that is not one of this kind of model."""
    known = [name for name, part in NETWORKS.items() if kind in part.kinds]
    if network.get("architecture") not in known:
        raise ValueError(f"{key}.architecture: {unknown('architecture', network.get('architecture'), known)}")


def refuse_other_losses(losses: Mapping[str, LossTerm], of: tuple[str, ...], kind: str) -> None:
    """ValueError for a loss that this kind of model has not, and for none at all."""
    known = [name for name, part in LOSSES.items() if part.of in of]
    for name, term in losses.items():
        if name not in known:
            raise ValueError(f"losses.{name}: {unknown(f'loss of a {kind}', name, known)}")
        if LOSSES[name].features and not term.features:
            raise ValueError(f"losses.{name}.features: name the model whose features it compares")
        if term.features and not LOSSES[name].features:
            raise ValueError(f"losses.{name}.features: this loss compares no features; leave it out")
    if not any(term.weight > 0 for term in losses.values()):
        raise ValueError(f"losses: at least one weight must be above 0; known: {', '.join(known)}")
