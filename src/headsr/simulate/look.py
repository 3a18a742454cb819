"""What the structures of a label map look like in one scan: their brightness, texture, vessels and lesions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from headsr.simulate.contrast import BRAIN_PEAK, RANDOM, TISSUES, random_signal, tissue_signal_of
from headsr.simulate.labels import Structure

TEXTURE = ((0.45, 0.9), (2.0, 0.44))  # of a tissue: (correlation length in mm, weight)
MIXTURE_MM, FAT_LAYER_MM = (1.5, 2.5, 5.0), 5.0  # of fat and muscle: the length of their strands, the layer of fat
VESSEL_MM, VESSEL_CURVE_MM = 0.7, 6.0  # the radius of vessels, and over what length they bend
_PRIOR_UNITS = 160.29 / BRAIN_PEAK  # of the tables' t1_mean (0 to 255): white matter at its signal
_TOGETHER = 0.9  # correlation of the tissues' brightness between heads: most of it is the scanner's doing
_BETWEEN_HEADS = 0.06  # relative, where no prior says it
# Texture is this part of a prior's spread within a class, the rest being partial volume, bias and noise. It is less in
# fluids, and more where a label holds several tissues: fat and muscle, layers of skin, vessels with and without inflow.
_TEXTURE_SHARE = {"csf": 0.15, "ventricle": 0.1, "soft": 0.9, "skin": 0.7, "artery": 0.9, "muscle": 0.6, "marrow": 0.6}
_OTHER_SHARE = 0.35
_VESSEL_TISSUES, _STEADY = ("csf", "grey"), ("soft",)


@dataclass(frozen=True, eq=False)
class Look:
    """The signal of the structures (S,) in one scan, of which BRAIN_PEAK is the brightest tissue of the brain.

    ``mean``, and what a unit of ``texture`` and of the ``mixture`` of fat and muscle adds to it; the signal of a
    ``vessel`` where structures have some (0 or 1), of a ``lesion`` and what a unit of texture adds to that.
    """

    mean: NDArray[np.float32]
    texture: NDArray[np.float32]
    mixture: NDArray[np.float32]
    has_vessels: NDArray[np.float32]
    is_white: NDArray[np.float32]
    vessel: np.float32
    lesion: np.float32
    lesion_texture: np.float32


def draw_look(structures: Sequence[Structure], suffix: str, rng: np.random.Generator) -> Look:
    """What a scanner makes of some structures: ``suffix`` is T1w, T2w, PDw, FLAIR or random.

    T1w follows the priors of structures that have one, other contrasts relaxation times (``tissue_signal_of``).
    """
    groups = dict.fromkeys(structure.group for structure in structures)
    common, own = rng.standard_normal(2), {name: rng.standard_normal(2) for name in [*groups, "artery", "lesion"]}
    drawn = random_signal([*TISSUES, *groups], rng=rng) if suffix == RANDOM else tissue_signal_of(suffix)
    mean, texture = [], []
    for structure in structures:
        shift = np.clip(_TOGETHER * common + np.sqrt(1 - _TOGETHER**2) * own[structure.group], -2, 2)
        if structure.tissue == "air":
            bright, spread = 0.0, 0.0
        elif suffix == "T1w" and structure.prior:
            level, level_sd, within, within_sd = structure.prior
            bright = (level + level_sd * shift[0]) / _PRIOR_UNITS
            share = _TEXTURE_SHARE.get(structure.tissue, _OTHER_SHARE)
            spread = share * max(0.0, within + within_sd * shift[1]) / _PRIOR_UNITS
        else:
            bright = drawn.get(structure.group, drawn[structure.tissue]) * (1 + _BETWEEN_HEADS * shift[0])
            spread = TISSUES[structure.tissue].spread * bright
        mean.append(max(bright, 0.0))
        texture.append(spread)
    sign = 1.0 if suffix == "T1w" else -1.0  # what is bright on T1 is dark on T2, but for fat and muscle
    mixed = np.array([structure.tissue in _STEADY for structure in structures])
    texture = np.array(texture, dtype=np.float32)
    has_vessels = [structure.tissue in _VESSEL_TISSUES for structure in structures]
    return Look(
        mean=np.array(mean, dtype=np.float32),
        texture=np.where(mixed, 0.2, sign).astype(np.float32) * texture,
        mixture=np.where(mixed, texture, 0).astype(np.float32),
        has_vessels=np.array(has_vessels, dtype=np.float32),
        is_white=np.array([structure.tissue == "white" for structure in structures], dtype=np.float32),
        vessel=np.float32(drawn["artery"] * (1 + _BETWEEN_HEADS * own["artery"][0])),
        lesion=np.float32(drawn["lesion"] * (1 + _BETWEEN_HEADS * own["lesion"][0])),
        lesion_texture=np.float32(sign * TISSUES["lesion"].spread * drawn["lesion"]),
    )
