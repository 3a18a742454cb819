"""Recipes of data: where scans come from, how low-resolution scans sample the head, and the blind degradation."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Literal

from headsr import labelmaps
from headsr.recipes.convert import FOR_PEOPLE, Address, Ascending, Doc, Kinds, Range, RecipeError
from headsr.scans import IMAGES, SPLITS, SUFFIXES

VIEWS = ("axial", "coronal", "sagittal", "isotropic")  # of simulated scans
_ACROSS = ("sagittal", "coronal", "axial")  # the view whose slices are stacked along x, y, z
PROFILES = ("box", "gaussian", "cubic", "zoom")  # headsr.acquisition.profile says what they are
DEGRADATION_KINDS = ("simulated", "acquired")
KERNELS = (
    "isotropic", "anisotropic", "generalised_isotropic", "generalised_anisotropic", "plateau_isotropic",
    "plateau_anisotropic", "jinc",
)  # fmt: skip
RESIZE_MODES = ("area", "bilinear", "bicubic", "nearest")
LEAST_PIXELS = 8  # a side, of the smallest slices that anything is made of
NOISES = ("rician", "gaussian", "poisson", "transmission")

Suffix = Literal[SUFFIXES]
Split = Literal[SPLITS]
Probability = Annotated[float, Range(0, 1)]
Weight = Annotated[float, Range(0, math.inf, below=True)]
Count = Annotated[int, Range(1)]
Seed = Annotated[int, Range(0)]


class SomeWeight:
    """Weights of which at least one is above 0."""

    def refuse(self, weights: dict[str, float], where: str) -> None:
        """RecipeError where all are 0."""
        if not sum(weights.values()) > 0:
            raise RecipeError(f"{where}: at least one weight must be above 0")


def _between(least: float, most: float = math.inf) -> tuple:
    """A rising pair of numbers within limits."""
    number = Annotated[float, Range(least, most, below=math.isinf(most))]
    return Annotated[tuple[number, number], Ascending()]


@dataclass(frozen=True)
class Dataset:
    """Where a BIDS dataset of scans comes from; it need not name its kind. ``splits`` is what the first pin proposes.

    ``bids_names`` (path in the dataset -> name such as ``sub-01_rec-average_T1w``) adds scans that the dataset keeps
    outside BIDS' anat folders or under other names, most often in ``derivatives``.
    """

    kind: ClassVar[str] = "scans"
    kind_goes_without_saying: ClassVar[bool] = True
    url: Annotated[str, Address(), Doc("Clone URL of the DataLad dataset, or a local folder.")]
    version: Annotated[str, Doc("Tag or commit to pin.")]
    license: Annotated[str, FOR_PEOPLE, Doc("License of the data.")]
    citation: Annotated[str, FOR_PEOPLE, Doc("What to cite for the data.")]
    splits: Annotated[dict[Split, tuple[str, ...]], Doc("Split to subjects, as the first pin proposes them.")] = field(
        default_factory=dict
    )
    bids_names: Annotated[dict[str, str], Doc("Path in the dataset to BIDS name, for files outside anat folders.")] = (
        field(default_factory=dict)
    )
    signed: Annotated[
        bool, Doc("Intensities may be below zero; without it they are magnitudes, and so is what is made of them.")
    ] = False


@dataclass(frozen=True, kw_only=True)
class LabelMaps:
    """Where label maps of heads come from, on which models learn anatomy: a DataLad dataset, or any git repository.

    ``maps`` (path in the dataset -> whose head it is, ``sub-01``) names every one that is used, and ``splits`` (split
    -> subjects) what the first pin proposes. ``table`` says what the numbers in them mean (headsr.simulate.labels).
    """

    kind: ClassVar[str] = "labelmaps"
    url: Annotated[str, Address(), Doc("Clone URL of the repository, or a local folder.")]
    version: Annotated[str, Doc("Tag or commit to pin.")]
    license: Annotated[str, FOR_PEOPLE, Doc("License of the label maps.")]
    citation: Annotated[str, FOR_PEOPLE, Doc("What to cite for them.")]
    maps: Annotated[dict[str, str], Doc("Path of a label map to its subject, such as sub-01.")]
    splits: Annotated[
        dict[Literal[labelmaps.SPLITS], tuple[str, ...]], Doc("Split to subjects, as the first pin proposes them.")
    ]
    table: Annotated[str, Doc("Table of the labels, from the project's folder; empty is SynthSeg's, as shipped.")] = ""

    def __post_init__(self) -> None:
        path_of: dict[str, str] = {}
        for path, subject in self.maps.items():
            if re.fullmatch(labelmaps.SUBJECT_PATTERN, subject) is None or not path.endswith(IMAGES):
                raise ValueError(f"maps: {path}: {subject!r}; a NIfTI file is the head of a subject, such as sub-01")
            if path_of.setdefault(subject, path) != path:
                raise ValueError(f"maps: {path_of[subject]} and {path} are both {subject!r}; name each another")
        for split in ("train", "val"):
            if not self.splits.get(split):
                raise ValueError(f"splits: gives no map to {split}; a training needs both train and val")
        split_of: dict[str, str] = {}
        for split, subjects in self.splits.items():
            for subject in subjects:
                if split_of.setdefault(subject, split) != split:
                    raise ValueError(f"splits: {subject} is in two, {split_of[subject]} and {split}; keep it in one")


DATASETS: dict[str, type[Dataset | LabelMaps]] = {one.kind: one for one in (Dataset, LabelMaps)}
DatasetRecipe = Annotated[Dataset | LabelMaps, Kinds(DATASETS)]


@dataclass(frozen=True)
class Stack:
    """One low-resolution scan.

    ``view`` is the plane of its slices, or ``isotropic``: coarse alike along all three axes. Slices lie ``factor`` thin
    ones apart and are ``thickness`` thin ones thick (None: as thick as far apart). ``factors`` instead says how coarse
    the scan is along each axis (x, y, z), so along its rows and columns too. ``profile`` is one of PROFILES.
    """

    view: Annotated[Literal[VIEWS], Doc("Plane of the slices, or isotropic.")]
    factor: Annotated[Annotated[float, Range(1, 64)] | None, Doc("Thin slices from one thick slice to the next.")] = (
        None
    )
    profile: Annotated[Literal[PROFILES], Doc("Slice profile.")] = "box"
    thickness: Annotated[
        Annotated[float, Range(0, 64, above=True)] | None, Doc("Thickness in thin slices; null is the factor.")
    ] = None
    factors: Annotated[
        tuple[Annotated[float, Range(1, 64)], Annotated[float, Range(1, 64)], Annotated[float, Range(1, 64)]] | None,
        Doc("Instead of factor: one along each of x, y and z."),
    ] = None

    def __post_init__(self) -> None:
        if (self.factor is None) == (self.factors is None):
            raise ValueError("the key 'factor' is missing, or 'factors', one along each axis; one of the two")
        if self.factors is not None and (self.view == "isotropic" or self.thickness is not None):
            raise ValueError("factors: say all; leave thickness out, and name the plane of the slices as the view")

    @property
    def along(self) -> tuple[float, float, float]:
        """How many voxels of the head one of the scan spans from centre to centre, along x, y and z."""
        if self.factors is not None:
            return self.factors
        return tuple(self.factor if self.view in (view, "isotropic") else 1.0 for view in _ACROSS)

    @property
    def coarse(self) -> tuple[int, ...]:
        """The axes along which its profile acts: across its slices, all three, or those whose factor is above 1."""
        if self.factors is not None:
            return tuple(axis for axis, factor in enumerate(self.factors) if factor > 1)
        return tuple(axis for axis, view in enumerate(_ACROSS) if self.view in (view, "isotropic"))

    @property
    def in_plane(self) -> tuple[float, ...]:
        """Along each axis but that of its slices, how many voxels of the head one of the scan spans."""
        return tuple(factor for factor, view in zip(self.along, _ACROSS, strict=True) if self.view != view)

    @property
    def seen(self) -> str | None:
        """How 2-D slices show what it leaves out: edge_on (thick, from the side) or in_plane (its own, coarse).

        None where it has no slices.
        """
        if self.view == "isotropic":
            return None
        return "in_plane" if any(_ACROSS[axis] != self.view for axis in self.coarse) else "edge_on"


@dataclass(frozen=True)
class Degradation:
    """A named way to make low-resolution scans.

    ``kind`` is ``simulated`` (``stacks`` are sampled from a high-resolution scan; ``noise_percent`` of the reference
    intensity as Rician noise) or ``acquired`` (the scan itself is the thick scan; nothing is simulated; a stack, if one
    is given, says how many times finer than the scan its volume shall be along which view). ``together`` makes one
    study of all acquired scans of a head, session and contrast: the others are aligned to the first by name.
    """

    kind: Annotated[Literal[DEGRADATION_KINDS], Doc("simulated from a fine scan, or acquired as it is.")]
    stacks: Annotated[tuple[Stack, ...], Doc("The scans, one a view.")] = ()
    noise_percent: Annotated[float, Range(0, 100), Doc("Rician noise in percent of the reference intensity.")] = 0.0
    seed: Annotated[Seed, Doc("Of the noise.")] = 0
    together: Annotated[bool, Doc("Make one study of all acquired scans of a head and contrast.")] = False

    def __post_init__(self) -> None:
        views = [stack.view for stack in self.stacks]
        if self.kind == "simulated" and not views:
            raise ValueError("stacks: a simulated degradation needs one or more")
        if self.kind == "acquired" and (len(views) > 1 or "isotropic" in views):
            raise ValueError(f"stacks: an acquired scan is refined along one view, not {', '.join(views)}")
        if self.kind == "acquired" and any(stack.factors for stack in self.stacks):
            raise ValueError("stacks: an acquired scan is refined across its slices alone; give a factor")
        if self.together and self.kind != "acquired":
            raise ValueError("together: stacks simulated from one head lie together already; leave it out")
        if len(set(views)) < len(views):
            raise ValueError(f"stacks: one stack a view, not {', '.join(views)}")

    @property
    def has_several_scans(self) -> bool:
        """Whether a head may have more than one."""
        return self.together or len(self.stacks) > 1

    @property
    def seen(self) -> set[str | None]:
        """How 2-D slices show what its scans leave out (Stack.seen); an acquired scan has thick slices."""
        return {"edge_on"} if self.kind == "acquired" else {stack.seen for stack in self.stacks}


@dataclass(frozen=True)
class BlindStage:
    """Probabilities and ranges of one pass of the blind degradation (lengths in mm, noise in units of the range).

    ``blur_kernels``, ``resize_modes`` and ``noise_kinds`` give weights to names (``degrade.pipeline``); they need not
    sum to one. Cut-offs are shares of the Nyquist frequency. ``noise_photons`` is the number of photons behind
    intensity 1, ``ringing_taper`` the share of the kept k-space that falls off as half a cosine.
    """

    blur_probability: Probability
    blur_sigma_mm: _between(0)
    thick_factor: _between(1)
    thick_probability: Probability
    noise_probability: Probability
    noise_sigma: _between(0)
    correlated_noise_probability: Probability
    ringing_probability: Probability
    ringing_cutoff: _between(0.05, 1)
    compression_probability: Probability
    compression_quality: _between(1, 95)
    blur_kernels: Annotated[dict[Literal[KERNELS], Weight], SomeWeight()] = field(
        default_factory=lambda: {"isotropic": 0.5, "anisotropic": 0.5}
    )
    resize_probability: Probability = 0.0
    resize_scale: _between(0.1, 2) = (0.5, 1.0)
    resize_modes: Annotated[dict[Literal[RESIZE_MODES], Weight], SomeWeight()] = field(
        default_factory=lambda: {"area": 1.0, "bilinear": 1.0, "bicubic": 1.0}
    )
    ringing_taper: _between(0, 1) = (0.0, 0.0)
    noise_kinds: Annotated[dict[Literal[NOISES], Weight], SomeWeight()] = field(default_factory=lambda: {"rician": 1.0})
    noise_photons: _between(1, 1e7) = (28.0, 1e5)
    jinc_probability: Probability = 0.0
    jinc_cutoff: _between(0.05, 1) = (1 / 3, 1.0)


@dataclass(frozen=True)
class Blind:
    """The blind high-order degradation of training slices: ``first`` always, ``second`` with its probability.

    ``order`` of the operations of a stage is fixed or shuffled. A smooth field between 1 - s and 1 + s, s drawn from
    ``bias_strength``, multiplies the slice before the stages; ``bias_on`` says whether the clean slice has it too
    (both: the network leaves it alone) or not (low: the network removes it). ``pool`` is how many finished pairs
    training batches are mixed from, a multiple of the batch; 0 is no pool.
    """

    first: BlindStage
    second: BlindStage
    second_probability: Probability
    order: Literal["fixed", "shuffled"] = "fixed"
    bias_probability: Probability = 0.0
    bias_strength: _between(0, 0.9) = (0.2, 0.4)
    bias_on: Literal["both", "low"] = "both"
    pool: Annotated[int, Range(0, 1_000_000)] = 0
