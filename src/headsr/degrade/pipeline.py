"""The blind high-order degradation of training slices, drawn anew for every sample.

One stage blurs, samples thick slices along the rows, resizes, cuts k-space, adds noise, takes a circular low-pass and
compresses; what happens after the thick slices and the resizing happens at their low resolution. The image is then
interpolated by splines back onto the fine grid, as any real thick scan is before a network sees it, or left as it is
where its draws say so. A second, milder stage may follow (Wang et al. 2021, Real-ESRGAN; a shuffled order as in Zhang
et al. 2021, BSRGAN). Unlike there, nothing is sharpened, nothing rounded to 8 bits, and lengths are in mm.

In the fixed order the truncation comes before the noise: both arise in k-space, and the magnitude is taken last. The
low-pass and the compression that follow change places in half of the samples that draw both. Rows are the through-plane
direction where slices are thick, so there k-space is cut, noise correlated and the image resized along the columns
only: slices are acquired one by one.

Numbers are drawn by Philox, a counter-based generator, whose key is the sample's seed. Noise is drawn on the device,
by torch's generator of that device with a seed derived from the sample's: a CPU and a GPU make the same draws, but add
different noise.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from headsr.degrade.bias import WAVES, bias_field
from headsr.degrade.blur import (
    REACH,
    covariance,
    gaussian_blur,
    generalised_profiles,
    low_pass,
    plateau_profiles,
    radial_blur,
    radial_spectra,
)
from headsr.degrade.compression import BLOCK, compress
from headsr.degrade.noise import add_poisson, add_rician, add_transmission, correlate, white_noise
from headsr.degrade.resample import (
    STEPS,
    ThickSlices,
    interpolate_rows,
    resize_columns,
    resize_rows,
    sample_thick,
)
from headsr.degrade.ringing import truncate_both, truncate_columns
from headsr.recipes import Blind, BlindStage
from headsr.recipes.data import LEAST_PIXELS
from headsr.seeds import seed_of

FIXED_ORDER = ("blur", "thick", "resize", "ringing", "noise", "jinc", "compression")
_THICK_PROFILES = ("box", "gaussian")
# What Wang et al. draw and a recipe rarely changes: exponents of the kernels (below and above 1 equally often), and the
# half widths of the low-pass in pixels.
_GENERALISED_BETA = ((0.5, 1.0), (1.0, 4.0))
_PLATEAU_BETA = ((1.0, 1.0), (1.0, 2.0))
_JINC_RADIUS_PX = (3.0, 10.0)
# Noise is correlated over this many pixels (Gaussian sigma); heads transmit down to exp(-depth) of an X-ray.
_CORRELATION_PX = (0.5, 1.5)
_TRANSMISSION_DEPTH = (2.0, 6.0)
_DRAWS = 40


@dataclass(frozen=True, eq=False)
class Degraded:
    """Degraded images (N, 1, H, W) on the grid of the slices they came from, and every draw that made each of them.

    They are smaller where the draws say that the first stage is not ``interpolated``. ``clean`` (N, 1, H, W) is what a
    network should make of them: the slices, with the bias field if that is on both.
    """

    images: Tensor
    clean: Tensor
    metadata: list[dict[str, Any]]


@dataclass(eq=False)
class _Sample:
    """One image (R, W) on its way through a stage, of which the first ``rows`` rows count, and the stage's draws.

    Thick slices fill up their image to one of a few sizes, so that most samples of a batch share theirs.
    """

    image: Tensor
    pixel_mm: Sequence[float]
    draw: Mapping[str, Any]

    def __post_init__(self) -> None:
        self.fine = self.image.shape
        self.rows = self.image.shape[0]


_Operation = Callable[[list[_Sample]], Iterable[Tensor]]


class BlindDegradation:
    """Degrades training slices. The thick direction is the rows.

    A sample's draws, and so its result, depend on its own seed and nothing else in the batch.
    """

    def __init__(self, recipe: Blind, *, device: torch.device | str = "cpu") -> None:
        self.recipe = recipe
        self.device = torch.device(device)

    def __call__(self, slices: Tensor, pixel_mm: Tensor, seeds: Sequence[int]) -> Degraded:
        """Degrade slices (N, 1, H, W) whose pixels are ``pixel_mm`` (N, 2; rows, columns), one seed per sample."""
        return self.replay(slices, self.draws(pixel_mm, seeds))

    def draws(self, pixel_mm: Tensor, seeds: Sequence[int]) -> list[dict[str, Any]]:
        """All draws of every sample, as plain data."""
        return [
            {"seed": int(seed), "pixel_mm": [float(size) for size in pixel], **self._draw(int(seed))}
            for seed, pixel in zip(seeds, pixel_mm.tolist(), strict=True)
        ]

    def replay(self, slices: Tensor, metadata: Sequence[dict[str, Any]]) -> Degraded:
        """Degrade slices (N, 1, H, W) by draws made before, whatever this recipe says."""
        slices = slices.to(self.device, torch.float32)
        clean, images = _multiply_bias(slices, metadata)
        done, pixels = list(images[:, 0]), [sample["pixel_mm"] for sample in metadata]
        for stage in range(2):
            drawn = [i for i, sample in enumerate(metadata) if len(sample["stages"]) > stage]
            samples = [_Sample(done[i], pixels[i], metadata[i]["stages"][stage]) for i in drawn]
            _run_stage(samples)
            for i, sample in zip(drawn, samples, strict=True):
                done[i] = sample.image
                if not _goes_back(sample):
                    pixels[i] = sample.pixel_mm
        return Degraded(torch.stack(done)[:, None], clean, list(metadata))

    def _draw(self, seed: int) -> dict[str, Any]:
        """The draws of one sample, as plain data."""
        recipe, generator = self.recipe, np.random.Generator(np.random.Philox(key=seed))
        drawn = [recipe.first, recipe.second] if generator.random() < recipe.second_probability else [recipe.first]
        stages = [_draw_stage(stage, generator) for stage in drawn]
        for number, stage in enumerate(stages):
            if recipe.order == "shuffled":
                stage["order"] = _thick_before_noise(generator.permutation(FIXED_ORDER).tolist())
            else:
                stage["order"] = _fixed_order(stage, swapped=generator.random() < 0.5)
            if stage["noise"]:
                stage["noise"]["seed"] = seed_of(seed, "noise", number)
        bias = None
        if recipe.bias_probability and generator.random() < recipe.bias_probability:
            low, high = recipe.bias_strength
            bias = {
                "on": recipe.bias_on,
                "strength": low + (high - low) * generator.random(),
                "weights": generator.standard_normal((WAVES, WAVES)).tolist(),
            }
        return {"bias": bias, "stages": stages}


def _draw_stage(stage: BlindStage, generator: np.random.Generator) -> dict[str, Any]:
    """All draws of one stage but their order; an operation that does not happen is None."""
    uniform = iter(generator.random(_DRAWS).tolist())

    def between(limits: tuple[float, float]) -> float:
        return limits[0] + (limits[1] - limits[0]) * next(uniform)

    def below(n: int) -> int:
        return int(n * next(uniform))

    def one_of(weights: Mapping[str, float]) -> str:
        names = sorted(name for name, weight in weights.items() if weight > 0)
        mark = next(uniform) * sum(weights.values())
        for name in names:
            mark -= weights[name]
            if mark < 0:
                return name
        return names[-1]

    def perhaps(probability: float, draws: dict[str, Any]) -> dict[str, Any] | None:
        return draws if next(uniform) < probability else None

    # Every number is drawn whether it is used or not: changing one probability changes nothing else.
    sigma = [between(stage.blur_sigma_mm), between(stage.blur_sigma_mm)]
    angle = between((0.0, np.pi))
    beta = {
        "generalised": between(_GENERALISED_BETA[below(2)]),
        "plateau": between(_PLATEAU_BETA[below(2)]),
    }
    jincs = [{"cutoff": between(stage.jinc_cutoff), "radius_px": between(_JINC_RADIUS_PX)} for _ in range(2)]
    factor = round(between(stage.thick_factor) * STEPS) / STEPS
    correlation = between(_CORRELATION_PX)
    if next(uniform) >= stage.correlated_noise_probability:
        correlation = 0.0
    few, many = stage.noise_photons
    photons, depth = few * (many / few) ** next(uniform), between(_TRANSMISSION_DEPTH)
    kernel, noise = one_of(stage.blur_kernels), one_of(stage.noise_kinds)
    noises = {
        "rician": {"sigma": between(stage.noise_sigma), "correlation_px": correlation},
        "poisson": {"photons": photons},
        "transmission": {"photons": photons, "depth": depth},
    }
    noises["gaussian"] = noises["rician"]
    return {
        "blur": perhaps(stage.blur_probability, _kernel(kernel, sigma, angle, beta, jincs[0])),
        "thick": perhaps(
            stage.thick_probability,
            {"factor": factor, "phase": below(STEPS) / STEPS, "profile": _THICK_PROFILES[below(len(_THICK_PROFILES))]},
        ),
        "resize": perhaps(
            stage.resize_probability, {"scale": between(stage.resize_scale), "mode": one_of(stage.resize_modes)}
        ),
        "ringing": perhaps(
            stage.ringing_probability, {"cutoff": between(stage.ringing_cutoff), "taper": between(stage.ringing_taper)}
        ),
        "noise": perhaps(stage.noise_probability, {"kind": noise, **noises[noise]}),
        "jinc": perhaps(stage.jinc_probability, jincs[1]),
        "compression": perhaps(
            stage.compression_probability,
            {"quality": between(stage.compression_quality), "offset": [below(BLOCK), below(BLOCK)]},
        ),
    }


def _kernel(
    kernel: str, sigma: list[float], angle: float, beta: Mapping[str, float], jinc: Mapping[str, float]
) -> dict[str, Any]:
    """The draws that a kernel needs, out of all that were made."""
    if kernel == "jinc":
        return {"kernel": kernel, **jinc}
    shape = {"kernel": kernel, "sigma_mm": sigma, "angle": angle}
    if kernel.endswith("_isotropic") or kernel == "isotropic":
        shape |= {"sigma_mm": [sigma[0], sigma[0]], "angle": 0.0}
    family = kernel.partition("_")[0]
    return {**shape, "beta": beta[family]} if family in beta else shape


def _fixed_order(stage: Mapping[str, Any], *, swapped: bool) -> list[str]:
    order = list(FIXED_ORDER)
    if swapped and stage["jinc"] and stage["compression"]:
        order[-2:] = order[:-3:-1]
    return order


def _thick_before_noise(order: list[str]) -> list[str]:
    """Noise belongs to the measured samples: whatever the order, it is added at the low resolution."""
    first, second = sorted((order.index("thick"), order.index("noise")))
    order[first], order[second] = "thick", "noise"
    return order


def _multiply_bias(slices: Tensor, metadata: Sequence[dict[str, Any]]) -> tuple[Tensor, Tensor]:
    """Clean slices and those to degrade, with the bias fields that were drawn for one or both."""
    drawn = [i for i, sample in enumerate(metadata) if sample["bias"]]
    if not drawn:
        return slices, slices
    draws = [metadata[i]["bias"] for i in drawn]
    weights, strength = (
        torch.tensor([draw[key] for draw in draws], device=slices.device) for key in ("weights", "strength")
    )
    fields = bias_field(tuple(slices.shape[-2:]), weights=weights, strength=strength)
    clean, images = slices.clone(), slices.clone()
    for i, draw, field in zip(drawn, draws, fields, strict=True):
        images[i] *= field
        if draw["on"] == "both":
            clean[i] = images[i]
    return clean, images


def _run_stage(samples: Sequence[_Sample]) -> None:
    """One stage: every operation at once on all samples of a size whose turn it is, then back to the fine grid."""
    for turn in range(len(FIXED_ORDER)):
        groups: dict[Any, list[_Sample]] = defaultdict(list)
        for sample in samples:
            name = sample.draw["order"][turn]
            if sample.draw[name]:
                groups[_operation(name, sample.draw), sample.image.shape, _size_after(name, sample)].append(sample)
        _run(groups)
    groups = defaultdict(list)
    for sample in samples:
        if not _goes_back(sample):
            sample.image = sample.image[: sample.rows]
        elif sample.draw["thick"] or sample.draw["resize"]:
            back = _interpolate if sample.draw["thick"] else _resize_back
            groups[back, sample.image.shape].append(sample)
    _run(groups)


def _goes_back(sample: _Sample) -> bool:
    """Whether an image ends a stage on the fine grid; of a drawing that says nothing it does."""
    return sample.draw.get("interpolated", True)


def _run(groups: Mapping[Any, list[_Sample]]) -> None:
    for (operation, *_), group in groups.items():
        for sample, image in zip(group, operation(group), strict=True):
            sample.image = image


def _operation(name: str, draw: Mapping[str, Any]) -> _Operation:
    """The function that does what was drawn: samples with another one are another group."""
    if name == "blur":
        return _BLURS[draw["blur"]["kernel"]]
    if name == "ringing":
        return _cut_columns if draw["thick"] else _cut_both
    if name == "noise":
        return _NOISES[draw["noise"]["kind"], draw["noise"].get("correlation_px", 0) > 0]
    return {"thick": _thick, "resize": _resize, "jinc": _jinc, "compression": _compress}[name]


def _size_after(name: str, sample: _Sample) -> tuple[int, int]:
    """The size of the image after an operation: a few sizes for thick slices, the size asked for after resizing."""
    height, width = sample.image.shape
    if name == "thick":
        step = max(24, sample.fine[0] // 16)
        return -(-_thick_of(sample).rows(height) // step) * step, width
    if name == "resize":
        scale = sample.draw["resize"]["scale"]
        height, width = (max(min(size, LEAST_PIXELS), round(size * scale)) for size in (height, width))
        return (sample.image.shape[0], width) if sample.draw["thick"] else (height, width)
    return height, width


def _blur(samples: list[_Sample]) -> Tensor:
    spread = covariance(_drawn(samples, "blur", "sigma_mm"), _drawn(samples, "blur", "angle"))
    return gaussian_blur(_images(samples), _rows(samples), pixel_mm=_pixel_mm(samples), covariance_mm=spread)


def _blur_generalised(samples: list[_Sample]) -> Tensor:
    return _blur_radially(samples, generalised_profiles(_drawn(samples, "blur", "beta")))


def _blur_plateau(samples: list[_Sample]) -> Tensor:
    return _blur_radially(samples, plateau_profiles(_drawn(samples, "blur", "beta")))


def _blur_radially(samples: list[_Sample], profiles: Tensor) -> Tensor:
    reach = covariance(REACH * _drawn(samples, "blur", "sigma_mm"), _drawn(samples, "blur", "angle"))
    return radial_blur(
        _images(samples),
        _rows(samples),
        pixel_mm=_pixel_mm(samples),
        covariance_mm=reach,
        spectra=radial_spectra(profiles),
    )


def _kernel_low_pass(samples: list[_Sample]) -> Tensor:
    return _low_pass(samples, "blur")


_BLURS: dict[str, _Operation] = {
    "isotropic": _blur,
    "anisotropic": _blur,
    "generalised_isotropic": _blur_generalised,
    "generalised_anisotropic": _blur_generalised,
    "plateau_isotropic": _blur_plateau,
    "plateau_anisotropic": _blur_plateau,
    "jinc": _kernel_low_pass,
}


def _jinc(samples: list[_Sample]) -> Tensor:
    return _low_pass(samples, "jinc")


def _low_pass(samples: list[_Sample], operation: str) -> Tensor:
    cutoff, radius = (_drawn(samples, operation, key) for key in ("cutoff", "radius_px"))
    return low_pass(_images(samples), _rows(samples), cutoff=cutoff, radius_px=radius)


def _thick(samples: list[_Sample]) -> Tensor:
    size, _ = _size_after("thick", samples[0])
    result = sample_thick(_images(samples), size, [_thick_of(sample) for sample in samples])
    for sample in samples:
        sample.rows = _thick_of(sample).rows(sample.rows)
        sample.pixel_mm = [sample.pixel_mm[0] * sample.draw["thick"]["factor"], sample.pixel_mm[1]]
    return result


def _resize(samples: list[_Sample]) -> Tensor:
    height, width = _size_after("resize", samples[0])
    modes = [sample.draw["resize"]["mode"] for sample in samples]
    result = resize_columns(_images(samples), width, modes)
    if height != samples[0].image.shape[0]:
        result = resize_rows(result, height, modes)
    for sample in samples:
        before, after = sample.image.shape, (height, width)
        sample.pixel_mm = [mm * n / m for mm, n, m in zip(sample.pixel_mm, before, after, strict=True)]
        if not sample.draw["thick"]:
            sample.rows = height
    return result


def _interpolate(samples: list[_Sample]) -> Tensor:
    height, width = samples[0].fine
    images = _images(samples)
    if images.shape[2] != width:
        images = resize_columns(images, width, ["spline"] * len(samples))
    return interpolate_rows(images, height, [_thick_of(sample) for sample in samples])


def _resize_back(samples: list[_Sample]) -> Tensor:
    height, width = samples[0].fine
    splines = ["spline"] * len(samples)
    return resize_rows(resize_columns(_images(samples), width, splines), height, splines)


def _cut_columns(samples: list[_Sample]) -> Tensor:
    return truncate_columns(_images(samples), *(_drawn(samples, "ringing", key) for key in ("cutoff", "taper")))


def _cut_both(samples: list[_Sample]) -> Tensor:
    return truncate_both(_images(samples), *(_drawn(samples, "ringing", key) for key in ("cutoff", "taper")))


def _rician(samples: list[_Sample]) -> Tensor:
    return add_rician(_images(samples), _white(samples))


def _rician_correlated(samples: list[_Sample]) -> Tensor:
    return add_rician(_images(samples), _correlated(samples))


def _gaussian(samples: list[_Sample]) -> Tensor:
    return _images(samples) + _white(samples)[:, 0]


def _gaussian_correlated(samples: list[_Sample]) -> Tensor:
    return _images(samples) + _correlated(samples)[:, 0]


def _poisson(samples: list[_Sample]) -> Tensor:
    return add_poisson(_images(samples), _drawn(samples, "noise", "photons"), _noise_seeds(samples))


def _transmission(samples: list[_Sample]) -> Tensor:
    photons, depth = (_drawn(samples, "noise", key) for key in ("photons", "depth"))
    return add_transmission(_images(samples), photons, depth, _noise_seeds(samples))


_NOISES: dict[tuple[str, bool], _Operation] = {
    ("rician", False): _rician,
    ("rician", True): _rician_correlated,
    ("gaussian", False): _gaussian,
    ("gaussian", True): _gaussian_correlated,
    ("poisson", False): _poisson,
    ("transmission", False): _transmission,
}


def _white(samples: list[_Sample]) -> Tensor:
    noise = white_noise(_noise_seeds(samples), tuple(samples[0].image.shape), samples[0].image.device)
    return noise.mul_(_drawn(samples, "noise", "sigma")[:, None, None, None])


def _correlated(samples: list[_Sample]) -> Tensor:
    width = _drawn(samples, "noise", "correlation_px")
    in_plane = torch.tensor([not sample.draw["thick"] for sample in samples], device=width.device)
    return correlate(_white(samples), torch.stack([width * in_plane, width], 1))


def _noise_seeds(samples: list[_Sample]) -> list[int]:
    return [sample.draw["noise"]["seed"] for sample in samples]


def _compress(samples: list[_Sample]) -> Tensor:
    offset = torch.tensor([sample.draw["compression"]["offset"] for sample in samples], device=samples[0].image.device)
    quality = _drawn(samples, "compression", "quality")
    return compress(_images(samples), _rows(samples), quality=quality, offset=offset)


def _images(samples: list[_Sample]) -> Tensor:
    return torch.stack([sample.image for sample in samples])


def _rows(samples: list[_Sample]) -> Tensor:
    return torch.tensor([sample.rows for sample in samples], device=samples[0].image.device)


def _pixel_mm(samples: list[_Sample]) -> Tensor:
    return torch.tensor([list(sample.pixel_mm) for sample in samples], device=samples[0].image.device)


def _thick_of(sample: _Sample) -> ThickSlices:
    return ThickSlices(**sample.draw["thick"])


def _drawn(samples: list[_Sample], operation: str, key: str) -> Tensor:
    drawn = [sample.draw[operation][key] for sample in samples]
    return torch.tensor(drawn, dtype=torch.float32, device=samples[0].image.device)
