"""How bright a tissue is: relaxation times, the signal equations of four sequences, and the words that name tissues."""

from __future__ import annotations

import re
from typing import NamedTuple

import numpy as np

SEQUENCES = ("T1w", "T2w", "PDw", "FLAIR")
RANDOM = "random"  # a brightness per tissue that no sequence gives, for networks that must not depend on contrast
BRAIN_PEAK = 0.85  # signal of the brightest brain tissue, in every contrast


class Tissue(NamedTuple):
    """T1 and T2 in ms at 3 T, proton density relative to water, and the relative spread of its signal within a head."""

    t1: float
    t2: float
    density: float
    spread: float


# White and grey matter: Wansapura et al. 1999, JMRI 9:531 (3 T); nuclei: Wansapura 1999 and Gelman et al. 1999, MRM
# 42:1; muscle, nerve, blood: Stanisz et al. 2005, MRM 54:507; fat and marrow: Gold et al. 2004, AJR 183:343, with the
# T2 that trains of echoes show; CSF: Rooney et al. 2007, MRM 57:308; skin: Song and Wehrli 1997, JMR 126:1. Densities:
# Whittall et al. 1997, MRM 37:34, and the water content of tissues. Lesions: the range of Stevenson et al. 2000, JMRI
# 12:1 (T1 and T2 long, density up).
TISSUES = {
    "white": Tissue(832, 80, 0.70, 0.04),
    "hindbrain": Tissue(960, 84, 0.73, 0.06),  # brain stem and the white matter of the cerebellum: tracts with nuclei
    "grey": Tissue(1331, 110, 0.82, 0.05),
    "striatum": Tissue(1200, 90, 0.80, 0.05),
    "thalamus": Tissue(1100, 90, 0.78, 0.06),
    "pallidum": Tissue(970, 65, 0.75, 0.05),
    "csf": Tissue(4300, 1800, 1.00, 0.05),
    "ventricle": Tissue(4300, 1800, 1.00, 0.03),
    "choroid": Tissue(1900, 250, 0.90, 0.15),
    "lesion": Tissue(1400, 170, 0.86, 0.06),
    "nerve": Tissue(1080, 78, 0.75, 0.05),
    "artery": Tissue(1900, 250, 0.80, 0.10),
    "vein": Tissue(1850, 60, 0.80, 0.10),
    "vitreous": Tissue(4000, 1300, 0.98, 0.03),
    "fat": Tissue(370, 110, 0.60, 0.12),
    "muscle": Tissue(1412, 40, 0.76, 0.12),
    "soft": Tissue(900, 70, 0.68, 0.45),  # fat and muscle in one label: the spread tells them apart
    "mucosa": Tissue(1500, 90, 0.80, 0.20),
    "skin": Tissue(700, 45, 0.60, 0.25),
    "marrow": Tissue(500, 80, 0.40, 0.30),
    "bone": Tissue(600, 40, 0.12, 0.40),  # what is left of the marrow and vessels in it: its own water has no T2
    "air": Tissue(1000, 1, 0.0, 0.0),
}
# What flows leaves a spin echo before it is read; into a gradient echo it brings spins that no pulse has tired.
_FLOW = {"artery": {"T1w": 1.3}, "vein": {"T1w": 0.25}}
_FLOW_VOID = 0.05

# ms: magnetisation-prepared gradient echo, two turbo spin echoes, and an inversion that nulls CSF.
_TIMES = {
    "T1w": dict(tr=2300, te=3, ti=1100),
    "T2w": dict(tr=5000, te=100, ti=None),
    "PDw": dict(tr=3000, te=15, ti=None),
    "FLAIR": dict(tr=9000, te=90, ti=2500),
}

# Which tissue a structure is, by words of its name, the first that fits: names of FreeSurfer, of SimNIBS' head labels
# (502 to 530; Puonti et al. 2020, NeuroImage 219:117044), and of BIDS' common labels (GM, WM, CSF, ...).
_WORDS = (
    ("grey", r"^ctx\b"),  # FreeSurfer's parcels of the cortex, whatever they are called, ctx-lh-unknown too
    ("air", r"background|^bg$|\bair|sinus(es)?\b|unknown|cavit"),
    ("ventricle", r"ventricle|\binf-lat-vent"),
    ("lesion", r"lesion|hypointens|^l$"),
    ("choroid", r"choroid|extra class|counterpart of 136"),
    ("hindbrain", r"brain.?stem|^bs$|cerebell\w*.white|pons|medulla|midbrain"),
    ("nerve", r"chiasm|optic|nerve|cord|\b512\b|\b530\b"),
    ("thalamus", r"thalamus|ventral.?dc"),
    ("pallidum", r"pallid"),
    ("striatum", r"putamen"),
    ("white", r"white|\bwm\b|callosum|\bcc\b"),
    ("grey", r"gr[ea]y|\bc?gm\b|\bscgm\b|cortex|cerebell|\bcbm\b|caudate|hippocamp|amygdala|accumbens|claustrum"),
    ("artery", r"arter|vessel|\b502\b"),
    ("vein", r"vein|venous|dura|\b514\b"),
    ("csf", r"csf|cerebro.?spinal"),
    ("vitreous", r"eyes?\b(?! class)|eyeball|vitreous|\b506\b"),
    ("mucosa", r"mucosa|\b509\b"),
    ("skin", r"skin|scalp|\b511\b"),
    ("marrow", r"marrow|spongy|cancellous|diploe|\b516\b"),
    ("muscle", r"muscle|\b508\b"),
    ("fat", r"\bfat|adipose"),
    ("soft", r"other.tissue|\b507\b|soft tissue\W*$|^st$|non.?brain|^nb$"),
    ("bone", r"\b515\b|bone(?! or)|^b$|skull"),
)


def tissue_of(name: str) -> str | None:
    """The tissue (a key of TISSUES) that a structure's name says, None where it says none that is known."""
    lower = name.lower().replace("_", " ")
    return next((tissue for tissue, words in _WORDS if re.search(words, lower)), None)


def tissue_signal_of(suffix: str) -> dict[str, float]:
    """The signal of every tissue in a sequence, scaled so that the brightest of white, grey and CSF has BRAIN_PEAK.

    Density times exp(-TE/T2) times 1 - exp(-TR/T1) (spin echo) or |1 - 2 exp(-TI/T1) + exp(-TR/T1)| (with inversion);
    for example Bernstein, King and Zhou 2004, Handbook of MRI Pulse Sequences, sections 14.2 and 16.3.
    Raises ValueError for a suffix that is none of SEQUENCES.
    """
    if suffix not in SEQUENCES:
        raise ValueError(f"{suffix}: no contrast that can be simulated. It is one of {', '.join(SEQUENCES)}")
    times = _TIMES[suffix]
    raw = {name: _echo(tissue, **times) for name, tissue in TISSUES.items()}
    scale = BRAIN_PEAK / max(raw[name] for name in ("white", "grey", "csf"))
    signal = {name: scale * value for name, value in raw.items()}
    return signal | {name: flow.get(suffix, _FLOW_VOID) for name, flow in _FLOW.items()}


def random_signal(names: list[str], *, rng: np.random.Generator) -> dict[str, float]:
    """A signal between 0 and 1 for every name, air dark: Billot et al. 2023, SynthSeg (Medical Image Analysis 86)."""
    return {name: 0.0 if name == "air" else float(rng.uniform(0.05, 1)) for name in names}


def _echo(tissue: Tissue, *, tr: float, te: float, ti: float | None) -> float:
    recovered = 1 - np.exp(-tr / tissue.t1)
    if ti is not None:
        recovered = abs(1 - 2 * np.exp(-ti / tissue.t1) + np.exp(-tr / tissue.t1))
    return float(tissue.density * recovered * np.exp(-te / tissue.t2))
