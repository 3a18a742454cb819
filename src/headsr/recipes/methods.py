"""Recipes of methods: one class a kind, named by ``kind``. What a kind computes is its part's code."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from headsr.parts import Part
from headsr.recipes.convert import FOR_PEOPLE, Ascending, Doc, Kinds, Names, Range
from headsr.recipes.data import Count, Probability, Seed, Weight


@dataclass(frozen=True, kw_only=True)
class Method:
    """A named way to make a volume from the low-resolution scans of one head.

    ``makes`` says whether its code returns the volume itself or a field that is rendered; ``foretells`` whether it says
    how large the errors of its volume are; ``gpu`` whether it wants a GPU; ``bytes_per_voxel`` what it takes in memory
    per voxel of the head beside a fixed part; ``tiled`` whether it takes less where less is allowed; ``uses`` which
    scans of a head it uses where there are several.
    """

    kind: ClassVar[str]
    part: ClassVar[Part]
    makes: ClassVar[Literal["volume", "field"]] = "volume"
    foretells: ClassVar[bool] = False
    gpu: ClassVar[bool] = False
    tiled: ClassVar[bool] = False
    uses: ClassVar[Literal["all scans", "the first scan only"]] = "all scans"
    bytes_per_voxel: ClassVar[int]
    title: Annotated[str, FOR_PEOPLE, Doc("What people call it; empty is its name.")] = ""

    def words(self) -> str:
        """What it does, for the report: the rest of a sentence that begins with its title."""
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class Spline(Method):
    """Cubic B-spline interpolation of the first scan."""

    kind: ClassVar[str] = "spline"
    part: ClassVar[Part] = Part("headsr.reconstruct.interpolate.spline")
    uses: ClassVar[Literal["all scans", "the first scan only"]] = "the first scan only"
    bytes_per_voxel: ClassVar[int] = 80

    def words(self) -> str:
        """See Method."""
        return "cubic B-spline interpolation of the first scan onto the head's grid."


@dataclass(frozen=True, kw_only=True)
class Average(Method):
    """The mean of the interpolations of all scans (CubeAvg)."""

    kind: ClassVar[str] = "average"
    part: ClassVar[Part] = Part("headsr.reconstruct.interpolate.average")
    bytes_per_voxel: ClassVar[int] = 80

    def words(self) -> str:
        """See Method."""
        return "the mean of the cubic B-spline interpolations of all scans."


@dataclass(frozen=True, kw_only=True)
class Tikhonov(Method):
    """Regularised least squares with the scans' own operators."""

    kind: ClassVar[str] = "tikhonov"
    part: ClassVar[Part] = Part("headsr.reconstruct.tikhonov.least_squares", version=2)
    bytes_per_voxel: ClassVar[int] = 120
    weight: Annotated[Weight | None, Doc("Of the squared gradient; null chooses it for every head.")] = None
    iterations: Annotated[int, Range(1, 10_000), Doc("Conjugate-gradient steps.")]

    def words(self) -> str:
        """See Method."""
        return (
            f"least squares ||A x - y||² + {_weight_words(self.weight)} ||∇x||² over all scans, each weighted by its "
            f"noise, in {self.iterations} conjugate-gradient steps from the fused average{_chosen_words(self.weight)}."
        )


@dataclass(frozen=True, kw_only=True)
class TotalVariation(Method):
    """Least squares with the scans' own operators that spares edges: isotropic total variation."""

    kind: ClassVar[str] = "tv"
    part: ClassVar[Part] = Part("headsr.reconstruct.total_variation.total_variation")
    bytes_per_voxel: ClassVar[int] = 120
    weight: Annotated[Weight | None, Doc("Of the length of the gradient; null chooses it for every head.")] = None
    iterations: Annotated[int, Range(1, 10_000), Doc("Steps at most.")] = 100

    def words(self) -> str:
        """See Method."""
        return (
            f"½ ||A x - y||² + {_weight_words(self.weight)} Σ|∇x| over all scans, each weighted by its noise, in at "
            f"most {self.iterations} steps of ADMM from least squares{_chosen_words(self.weight)}."
        )


@dataclass(frozen=True, kw_only=True)
class SliceNetwork(Method):
    """A 2-D network on the slices of the interpolated scans."""

    kind: ClassVar[str] = "slice_network"
    part: ClassVar[Part] = Part("headsr.reconstruct.slicewise.slice_network")
    gpu: ClassVar[bool] = True
    bytes_per_voxel: ClassVar[int] = 120
    model: Annotated[str, Names("models", ("baseline", "adversarial")), Doc("The trained network.")]

    def words(self) -> str:
        """See Method."""
        return f"the 2-D network {self.model} on the interpolated slices that cut across the thick direction."


@dataclass(frozen=True, kw_only=True)
class Unrolled(Method):
    """The operator-aware network: least squares, corrected and brought back to the scans several times over."""

    kind: ClassVar[str] = "unrolled"
    part: ClassVar[Part] = Part("headsr.reconstruct.unrolled.unrolled")
    foretells: ClassVar[bool] = True
    gpu: ClassVar[bool] = True
    tiled: ClassVar[bool] = True
    bytes_per_voxel: ClassVar[int] = 700
    model: Annotated[str, Names("models", ("unrolled",)), Doc("The trained network.")]

    def words(self) -> str:
        """See Method."""
        return (
            f"the operator-aware network {self.model}: least squares over all scans, corrected by a 3-D network and "
            "brought back to the scans by conjugate gradients, several times over."
        )


@dataclass(frozen=True)
class GridField:
    """The ``field`` block of a fit: feature grids of several cell sizes and one small network.

    ``cells`` are the cell sizes in head voxels, ``features`` the features of each, ``hidden`` the width of the
    network's one layer, ``start`` what the field is added to: the fused ``average`` of the scans, or ``none``.
    """

    cells: Annotated[tuple[Count, ...], Doc("Cell sizes of the grids in voxels.")] = (8, 4, 2, 1)
    features: Annotated[tuple[Count, ...], Doc("Features of each grid.")] = (2, 2, 2, 2)
    hidden: Annotated[Count, Doc("Width of the network's layer.")] = 16
    start: Annotated[Literal["average", "none"], Doc("What the field is added to.")] = "average"

    def __post_init__(self) -> None:
        if len(self.cells) != len(self.features) or not self.cells:
            raise ValueError(f"cells {self.cells} and features {self.features} must pair up")


@dataclass(frozen=True)
class Fit:
    """How an implicit neural representation is fitted to one head."""

    field: Annotated[GridField, Doc("What is fitted.")]
    steps: Annotated[Count, Doc("Of Adam.")]
    learning_rate: Annotated[float, Range(0, 1, above=True), Doc("At the start; it falls along half a cosine.")]
    smoothness: Annotated[Weight | None, Doc("Of the second differences; null chooses it for every head.")] = None
    prior_weight: Annotated[Weight, Doc("Weight of the prior.")] = 0.0
    prior_every: Annotated[Count, Doc("Steps from one visit of the prior to the next.")] = 4
    prior_from: Annotated[Probability, Doc("Share of the steps before its first visit.")] = 0.3
    prior_slices: Annotated[Count, Doc("Slices that it sees in one visit.")] = 8
    prior_noise: Annotated[
        tuple[Probability, Probability], Ascending(), Doc("Noise of the visits, as fractions of the chain.")
    ] = (0.02, 0.4)
    seed: Annotated[Seed, Doc("Of the start and of the visits.")] = 0


@dataclass(frozen=True, kw_only=True)
class Inr(Method):
    """An implicit neural representation, fitted to the scans through their operators; with or without a prior."""

    kind: ClassVar[str] = "inr"
    part: ClassVar[Part] = Part("headsr.inr.fit.fit_field", version=2)
    makes: ClassVar[Literal["volume", "field"]] = "field"
    gpu: ClassVar[bool] = True
    bytes_per_voxel: ClassVar[int] = 600
    fit: Annotated[Fit, Doc("How the field is fitted.")]
    prior: Annotated[str, Names("models", ("ldm",)), Doc("The diffusion model behind the prior.")] = ""

    def __post_init__(self) -> None:
        if self.fit.prior_weight and not self.prior:
            raise ValueError("fit.prior_weight: weighs a prior, and none is named; add 'prior: NAME' or leave it out")

    def words(self) -> str:
        """See Method."""
        fit = self.fit
        text = (
            f"an implicit neural representation fitted to all scans through A in {fit.steps} steps, learning rate "
            f"{fit.learning_rate:g}, smoothness weight {_weight_words(fit.smoothness)}{_chosen_words(fit.smoothness)}"
        )
        if not self.prior:
            return f"{text}; data term alone."
        return (
            f"{text}; the frozen latent diffusion model {self.prior} as a prior of weight {fit.prior_weight:g} on "
            f"{fit.prior_slices} slices every {fit.prior_every} steps, after {fit.prior_from:.0%} of them."
        )


def _weight_words(weight: float | None) -> str:
    return "w" if weight is None else f"{weight:g}"


def _chosen_words(weight: float | None) -> str:
    return "" if weight is not None else " (w: least estimated prediction error of each head, SURE)"


METHODS: dict[str, type[Method]] = {
    one.kind: one
    for one in (
        Spline,
        Average,
        Tikhonov,
        TotalVariation,
        SliceNetwork,
        Unrolled,
        Inr,
    )
}
MethodRecipe = Annotated[Method, Kinds(METHODS)]
