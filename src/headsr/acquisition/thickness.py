"""How thick slices are that nobody wrote it down for, from how alike neighbouring slices are.

The idea is PRISM's (MICCAI 2026): a head is much the same along all axes, so what its in-plane axes show beyond the
through-plane one is what the slice profile took away. Slices are few and aliased, so their spectrum is not compared
itself. Of all that has in-plane frequency q, slices S apart with profiles of thickness T have the covariances

    C_m(q) = integral P(q, k) |H(k T)|^2 cos(2 pi k m S) dk                                             (1)

m slices apart (Wiener and Khinchin; aliases are in it, exactly), H being the transfer function of the profile and
P the head's power spectrum at the through-plane frequency k. Nearly all of T is in C_0: a thick slice loses detail that
its neighbours do not share. What P would be without slices, the in-plane spectrum and the other lags tell:

    P(q, k) = R(sqrt(q^2 + (k / c)^2)) exp(d sin(2 theta)^2),   tan(theta) = k / q                      (2)
    log R(f) = r - n log(f S) - b log(f S)^2                                                            (3)

A spectrum that depends on the direction by c and d is needed, since heads do: taken for isotropic they are off by half.
White noise adds to C_0 alone. Seven numbers (r, n, b, c, d, the noise and T) explain the powers C_0(q) and the
correlations C_m(q) / C_0(q); of each thickness the misfit remains when the others are fitted, a profile likelihood.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import fft, interpolate, ndimage, optimize

from headsr.acquisition.noise import estimate_noise
from headsr.acquisition.profile import profile_matrix
from headsr.volumes import Volume, cell_average

PROFILES = ("box", "gaussian")  # those with a thickness to estimate

# All lengths in slice spacings S, all frequencies in 1/S. Chosen on painted heads (docs/results/thickness.md).
_RATIOS = np.geomspace(0.4, 1.8, 16)  # thicknesses that are tried
_BANDS = np.geomspace(0.3, 1.7, 6)  # in-plane frequencies q at the middle of a band
_WIDTH = 0.35  # of a band: the deviation of log q (log-Gabor filters: Field 1987, J. Opt. Soc. Am. A 4:2379)
_FINEST = 0.45  # of a band's middle, in 1/voxel
_LEAST_BANDS = 3
_LAGS = 3
_PIXEL, _MARGIN = 0.25, 1.5  # what slices are averaged to in the plane; what is around them against wrapping
_RIM = 0.75  # of the head that is left out, in the plane
_TILES = 5  # along a side of a slice: parts of the head that err independently
_LEAST_OF_TILE, _MOST_OF_TILE = 0.02, 20.0  # of the largest tile's samples; how much more a dim tile may count
_LEAST_SLICES, _LEAST_TILES = 10, 6
_SEEN = 2.0  # times the noise: a band with less power shows nothing of the head

_THROUGH = np.arange(0, 4.001, 0.025)  # frequencies k at which (1) is summed
_WITHIN_BAND = np.linspace(-1.6, 1.6, 5)  # frequencies q in a band, in its deviations
_WAVES = np.cos(2 * np.pi * np.outer(_THROUGH, np.arange(_LAGS + 1)))  # of (1); its sum over k by trapezia
_WAVES[0] /= 2
_CELLS = 32  # of a slice spacing, from which the transfer function is summed

# What (2) leaves unexplained of a correlation and of a log power, beside the errors that the tiles show.
_CORRELATION, _POWER = 0.015, 0.1
# What is expected and how much it varies: log(T/S); log c, d, n, b and the log of the noise over its estimate.
_RATIO = 0.5
_EXPECTED = np.array([0.0, 0.0, 4.0, 0.2, 0.0])
_SPREAD = np.array([0.3, 0.3, 1.0, 0.3, 0.7])
_LEAST_NOISE = 0.004  # of the head's bright tissue: grain of the head itself

# A squared deviation counts so much less than it says: on real heads, and where the best fit is worse than usual.
_OVERCONFIDENT, _USUAL_MISFIT = 2.0, 8.0
_INTERVAL = 2.706  # of a squared deviation, for 90 %
_TOLD = 1.4  # ends of an interval that are further apart tell nothing


@dataclass(frozen=True)
class ThicknessEstimate:
    """The full width (box) or the width at half maximum (Gaussian) of a scan's slices, in mm.

    ``thickness_mm`` is None where the scan does not tell it, and ``why_not`` says why. The truth is in ``interval_mm``
    with a probability of 90 %; where nothing is known, that is all that was considered.
    """

    thickness_mm: float | None
    interval_mm: tuple[float, float]
    why_not: str = ""


class _Slices(NamedTuple):
    """Slices (Z, U, V), where the head is, the in-plane size of their pixels in slice spacings, and how many of them
    a voxel of the scan makes: the part of the noise's variance that is left."""

    data: NDArray[np.float32]
    head: NDArray[np.bool_]
    pixel: NDArray[np.float64]
    per_voxel: float


class _Likeness(NamedTuple):
    """What bands (B) of in-plane frequencies say: correlations (B, _LAGS) of slices and their standard errors, log
    powers (B,), and which power (B,) the noise is estimated to have."""

    frequencies: NDArray[np.float64]
    correlations: NDArray[np.float64]
    errors: NDArray[np.float64]
    log_powers: NDArray[np.float64]
    noise: NDArray[np.float64]


def estimate_thickness(scan: Volume, axis: int, head: NDArray[np.bool_], *, profile: str = "box") -> ThicknessEstimate:
    """The thickness of the slices along ``axis`` of a scan, by what they show inside ``head`` (X, Y, Z).

    Any contrast and any units. Raises ValueError for a profile that has no thickness and a head of another shape.
    """
    if profile not in PROFILES:
        raise ValueError(f"slices of profile {profile!r} have no thickness to estimate; choose {' or '.join(PROFILES)}")
    if head.shape != scan.data.shape:
        raise ValueError(f"a head of shape {head.shape} does not fit a scan of shape {scan.data.shape}")
    spacing, voxel = float(scan.grid.voxel_size[axis]), np.delete(scan.grid.voxel_size, axis)
    bands = np.array([band for band in _BANDS if band <= _FINEST * spacing / voxel.max()])
    if len(bands) < _LEAST_BANDS:
        return _untold(
            spacing, f"its slices are {spacing:.2f} mm apart, hardly more than its pixels of {voxel.max():.2f} mm"
        )
    slices = int(head.any(axis=tuple({0, 1, 2} - {axis})).sum())
    if slices < _LEAST_SLICES:
        return _untold(spacing, f"only {slices} slices show the head, and {_LEAST_SLICES} are needed")
    likeness = _likeness(_slices(scan, axis, head), bands, _noise(scan, head))
    if likeness is None:
        return _untold(spacing, "too little of the head is in it")
    if (likeness.log_powers > np.log(_SEEN * likeness.noise)).sum() < _LEAST_BANDS:
        return _untold(spacing, "its detail is lost in noise")
    return _told(spacing, _misfits(likeness, profile))


def _untold(spacing: float, why_not: str) -> ThicknessEstimate:
    return ThicknessEstimate(None, (float(_RATIOS[0] * spacing), float(_RATIOS[-1] * spacing)), why_not)


def _told(spacing: float, misfits: NDArray[np.float64]) -> ThicknessEstimate:
    """The thickness of the least misfit (of _RATIOS), and those that do not fit much worse."""
    ratios = np.geomspace(_RATIOS[0], _RATIOS[-1], 501)
    curve = interpolate.CubicSpline(np.log(_RATIOS), misfits)(np.log(ratios))
    within = ratios[curve <= curve.min() + _INTERVAL * max(_OVERCONFIDENT, curve.min() / _USUAL_MISFIT)]
    low, high = float(within[0] * spacing), float(within[-1] * spacing)
    if high > _TOLD * low:
        gaps = f", and being {spacing:.1f} mm apart they have gaps" if high < spacing else ""
        return ThicknessEstimate(None, (low, high), f"slices of {low:.1f} to {high:.1f} mm explain it alike{gaps}")
    return ThicknessEstimate(float(ratios[curve.argmin()] * spacing), (low, high))


def _noise(scan: Volume, head: NDArray[np.bool_]) -> float:
    return max(estimate_noise(scan, head), _LEAST_NOISE * float(np.percentile(scan.data[head], 99)))


def _slices(scan: Volume, axis: int, head: NDArray[np.bool_]) -> _Slices:
    """The slices around the head, averaged to pixels that are as fine as the bands need."""
    data, head = np.moveaxis(scan.data, axis, 0), np.moveaxis(head, axis, 0)
    sides = [np.flatnonzero(head.any(axis=others)) for others in ((1, 2), (0, 2), (0, 1))]
    box = tuple(slice(side[0], side[-1] + 1) for side in sides)
    data, head = data[box], head[box]
    voxel = np.delete(scan.grid.voxel_size, axis) / scan.grid.voxel_size[axis]
    plane = np.maximum(1, np.rint(np.array(data.shape[1:]) * voxel / np.maximum(voxel, _PIXEL))).astype(int)
    pixel = voxel * data.shape[1:] / plane
    shape = (len(data), *plane.tolist())
    inside = _within(cell_average(head.astype(np.float32), shape) > 0.5, pixel)
    return _Slices(cell_average(data, shape), inside, pixel, voxel.prod() / pixel.prod())


def _within(head: NDArray[np.bool_], pixel: NDArray[np.float64]) -> NDArray[np.bool_]:
    """The head (Z, U, V) without its rim: one long wall around all slices is not what (2) describes."""
    reach = np.floor(_RIM / pixel).astype(int)
    u, v = (np.arange(-n, n + 1) * size for n, size in zip(reach, pixel, strict=True))
    return ndimage.binary_erosion(head, (np.hypot(u[:, None], v) <= _RIM)[None])


def _likeness(slices: _Slices, bands: NDArray[np.float64], noise: float) -> _Likeness | None:
    """Powers and correlations in bands of in-plane frequencies; None where there are too few tiles of head.

    Every tile counts by its samples and not by its power: else scalp and fat would say it all.
    """
    tiles = _tiles(slices.head.shape[1:])
    samples = _in_tiles(slices.head.sum(axis=0), tiles)
    sums = np.stack([_products(band, slices.head, tiles) for band in _filtered(slices, bands)], axis=1)
    power = sums[:, len(bands) // 2, 0, 0] / np.maximum(samples, 1)
    used = (samples > _LEAST_OF_TILE * samples.max()) & (power > 0) & (sums[..., 1].min(axis=(1, 2)) > 0)
    if used.sum() < _LEAST_TILES:
        return None
    weights = np.minimum(power[used].mean() / power[used], _MOST_OF_TILE)
    sums = sums[used] * weights[:, None, None, None]
    total = sums.sum(axis=0)
    without = _correlations(total - sums)
    errors = np.sqrt((used.sum() - 1) * without.var(axis=0))  # the jackknife
    powers = total[:, 0, 0] / (samples[used] * weights).sum()
    noises = noise**2 * slices.per_voxel * _white_power(slices, bands)
    return _Likeness(bands, _correlations(total), errors, np.log(powers), noises)


def _correlations(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    return sums[..., 1:, 0] / sums[..., 1:, 1]


def _products(band: NDArray[np.float32], head: NDArray[np.bool_], tiles: NDArray[np.intp]) -> NDArray[np.float64]:
    """Of slices 0 to _LAGS apart: their products and the mean of their squares, summed over tiles (tiles, lags, 2)."""
    squares, sums = band**2, []
    for lag in range(_LAGS + 1):
        last = len(band) - lag
        first, second = slice(0, last), slice(lag, lag + last)
        product = np.einsum("zuv,zuv->uv", band[first], band[second])
        square = np.einsum("zuv,zuv->uv", squares[first], head[second].astype(np.float32))
        square += np.einsum("zuv,zuv->uv", squares[second], head[first].astype(np.float32))
        sums.append([_in_tiles(product, tiles), _in_tiles(square / 2, tiles)])
    return np.moveaxis(np.array(sums), 2, 0)


def _tiles(shape: tuple[int, ...]) -> NDArray[np.intp]:
    """The number of the tile of each pixel (U, V)."""
    u, v = (np.arange(n) * _TILES // n for n in shape)
    return u[:, None] * _TILES + v


def _in_tiles(values: NDArray, tiles: NDArray[np.intp]) -> NDArray[np.float64]:
    return np.bincount(tiles.ravel(), values.ravel(), _TILES**2)


def _filtered(slices: _Slices, bands: NDArray[np.float64]) -> Iterator[NDArray[np.float32]]:
    """What slices (Z, U, V) have in each band; zero outside the head."""
    shape, full = slices.data.shape[1:], _padded(slices)
    margin = np.ceil(_MARGIN / slices.pixel).astype(int)
    around = [(0, 0)] + [(m, f - n - m) for n, m, f in zip(shape, margin, full, strict=True)]
    spectrum = fft.rfft2(np.pad(slices.data, around, mode="edge"))
    inside = tuple(slice(m, m + n) for n, m in zip(shape, margin, strict=True))
    for band in bands:
        passed = _passed(band, full, slices.pixel).astype(np.float32)
        yield fft.irfft2(spectrum * passed, s=full)[:, *inside] * slices.head


def _padded(slices: _Slices) -> list[int]:
    """How many pixels along U and V are transformed, margins among them."""
    sides = zip(slices.data.shape[1:], slices.pixel, strict=True)
    return [fft.next_fast_len(n + 2 * math.ceil(_MARGIN / pixel), real=True) for n, pixel in sides]


def _white_power(slices: _Slices, bands: NDArray[np.float64]) -> NDArray[np.float64]:
    """The variance that white noise of variance 1 has in each band."""
    shape = _padded(slices)
    twice = np.full(shape[1] // 2 + 1, 2.0)  # what a real transform leaves out
    twice[0] = 1
    return np.array([np.sum(twice * _passed(band, shape, slices.pixel) ** 2) for band in bands]) / np.prod(shape)


def _passed(band: float, shape: list[int], pixel: NDArray[np.float64]) -> NDArray[np.float64]:
    """The transfer function of a band's filter at the frequencies of a real transform of ``shape``."""
    frequency = np.hypot(fft.fftfreq(shape[0], pixel[0])[:, None], fft.rfftfreq(shape[1], pixel[1]))
    frequency[0, 0] = np.finfo(float).tiny
    return np.exp(-0.5 * (np.log(frequency / band) / _WIDTH) ** 2)


def _misfits(likeness: _Likeness, profile: str) -> NDArray[np.float64]:
    """The least misfit (squared deviations) of every thickness of _RATIOS, whatever the head and the noise are."""
    misfits, middle = np.empty(len(_RATIOS)), int(np.abs(np.log(_RATIOS)).argmin())
    for way in (range(middle, len(_RATIOS)), range(middle - 1, -1, -1)):
        start = np.array([*_EXPECTED, 0.0])
        for number in way:
            fit = _fitted(likeness, _RATIOS[number], profile, start)
            start, misfits[number] = fit.x, 2 * fit.cost
    return misfits


def _fitted(likeness: _Likeness, ratio: float, profile: str, start: NDArray[np.float64]) -> optimize.OptimizeResult:
    """What explains a scan of a thickness best: log c, d, n, b, the log of the noise over its estimate, and r."""
    passed = _passed_through(ratio, profile)
    weights = np.hypot(likeness.errors, _CORRELATION)
    scale = float(np.mean(likeness.log_powers - np.log(_covariances(likeness.frequencies, _EXPECTED, passed)[:, 0])))

    def deviations(unknown: NDArray[np.float64]) -> NDArray[np.float64]:
        *of_spectrum, log_noise, level = unknown
        covariances = np.exp(scale + level) * _covariances(likeness.frequencies, of_spectrum, passed)
        powers = covariances[:, 0] + np.exp(2 * log_noise) * likeness.noise
        correlations = covariances[:, 1:] / powers[:, None]
        return np.concatenate(
            [
                ((correlations - likeness.correlations) / weights).ravel(),
                (np.log(powers) - likeness.log_powers) / _POWER,
                (unknown[:-1] - _EXPECTED) / _SPREAD,
                [np.log(ratio) / _RATIO],
            ]
        )

    return optimize.least_squares(deviations, start, method="lm", diff_step=1e-4, xtol=1e-4, ftol=1e-4)


def _covariances(
    frequencies: NDArray[np.float64], of_spectrum: Sequence[float], passed: NDArray[np.float64]
) -> NDArray[np.float64]:
    """C_m of (1) in bands, up to a factor: (B, 1 + _LAGS). ``of_spectrum`` is log c, d, n and b of (2) and (3)."""
    log_c, d, n, b, *_ = of_spectrum
    q = (frequencies[:, None] * np.exp(_WIDTH * _WITHIN_BAND))[..., None]
    squared_sine = _THROUGH**2 / (q**2 + _THROUGH**2)
    log_f = 0.5 * np.log(q**2 + (_THROUGH * np.exp(-log_c)) ** 2)
    power = np.exp(-n * log_f - b * log_f**2 + 4 * d * squared_sine * (1 - squared_sine))
    # A band is a ring, of an area q^2 d log q.
    rings = np.exp(-(_WITHIN_BAND**2))[:, None] * q**2
    return (rings * power).sum(axis=1) @ (passed[:, None] * _WAVES)


def _passed_through(ratio: float, profile: str) -> NDArray[np.float64]:
    """|H|^2 of a slice profile at _THROUGH."""
    half = 2 * _CELLS * math.ceil(ratio)
    (weights,) = profile_matrix(2 * half + 1, np.array([half]), ratio * _CELLS, profile)
    places = np.arange(-half, half + 1) / _CELLS
    return (np.cos(2 * np.pi * np.outer(_THROUGH, places)) @ weights) ** 2
