"""How noisy a scan is inside the head, whatever was done to its air.

Two places tell. The flattest spots of the head show what mixed second differences (Immerkaer, Comput. Vis. Image
Underst. 64(2), 1996) leave there, within the slices and never across them, for slices may be thick. In the air the
magnitudes deviate by a part of the noise that hardly depends on the number of coils, and averaging and interpolation
shrink both alike; but air can be zeroed, scaled or smoothed. So the air, which has no anatomy, is believed where the
head does not contradict it.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import replace
from itertools import takewhile
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from headsr.volumes import Volume

_LOG = logging.getLogger(__name__)
_SLICES = 64  # spread over the scan: more do not tell more
_FLAT, _APART = 2, 4  # samples around a spot that are head or air as well; in air, noise this far apart is independent
_DARK = 0.25  # of the way from the scan's darkest to the head's bright tissue; magnitude noise is Gaussian above
_SHARES = (0.01, 0.02, 0.05, 0.1, 0.2)  # of the head's spots, the flattest first
_MANY = 4  # times as many spots as the flattest: where all of them look alike it is noise that they show
_LEAST = 300  # spots that make an estimate
_SAME = 0.04  # differences whose correlations with the next ones are nearer than this look alike
# Neighbouring differences of white noise correlate by -2/3, and by more where samples were interpolated or filtered:
_COLOURED, _COLOURED_WIDELY = -0.58, -0.63  # in the flattest spots; where all shares look like them
# What second differences along an axis leave of noise that was interpolated (up to -0.4) or filled up with zeros in the
# frequencies beyond a tapered end (from -0.2), against how neighbouring ones then correlate:
_CORRELATION = (-2 / 3, -0.63, -0.59, -0.53, -0.43, -0.2, 0.03, 0.11, 0.30, 0.48, 0.65, 0.80)
_LEFT = (1.0, 0.93, 0.856, 0.775, 0.69, 0.62, 0.52, 0.47, 0.363, 0.263, 0.175, 0.101)
_GROWTH = 1.2  # of the deviation from the flattest spots to others that look like them: more is anatomy
_TILE, _EVEN = 24, 1.35  # samples along a side of a part of the air; times as much noise in one part as in another
_WITHIN_THREE = 0.9866  # of the deviation is left without what lies beyond three of it
_AIR = 0.66  # deviation of magnitudes in air as part of the noise: 0.655 with one coil, 0.707 with many
_NOT_ZERO = 0.97  # share of the samples around a spot of air; some are, where air is stored in coarse steps
_LEAST_UNTOUCHED = 0.1  # part of the air with so few zeros
_LEAST_LEVEL = 1.2  # of the air in its deviations: 1.8 with one coil, more with many and after averaging
_AGREES = 1.25  # times more or less air noise than the head's is still the same


class _Evidence(NamedTuple):
    """A noise, how its differences correlate, and the least and the most noise that do not contradict it."""

    sigma: float
    correlation: float
    least: float = 0.0
    most: float = np.inf


class _Differences(NamedTuple):
    """The deviation of so many spots' second differences, and how they correlate with the next ones along both axes."""

    count: int
    deviation: float
    correlations: tuple[float, float]

    @property
    def correlation(self) -> float:
        return float(np.mean(self.correlations))


class _Slice(NamedTuple):
    """Samples (U, V) of a slice and where the head is."""

    data: NDArray[np.float32]
    head: NDArray[np.bool_]


def estimate_noise(scan: Volume, head: NDArray[np.bool_]) -> float:
    """Standard deviation of the noise of a scan's samples inside ``head`` (X, Y, Z), in the scan's own units.

    Where the air tells nothing, this is an upper bound: texture as fine as the voxels cannot be told from noise. 0,
    with a warning, where there are too few samples to tell anything.
    """
    # Squares of any scan's units would leave what float32 holds; by a power of two no digit changes.
    _, exponent = np.frexp(np.abs(scan.data).max())
    return float(np.ldexp(_noise_of(replace(scan, data=np.ldexp(scan.data, -exponent)), head), exponent))


def _noise_of(scan: Volume, head: NDArray[np.bool_]) -> float:
    """The same of a scan whose intensities are about 1."""
    slices = _slices(scan, head)
    inside, air = _noise_of_head(slices, _tissue(scan, head)), _noise_of_air(slices)
    if inside is None and air is None:
        _LOG.warning("too few samples to measure the noise of a scan; it is taken to have none")
        return 0.0
    if inside is None or air is None:
        return (inside or air).sigma
    smoothed = air.correlation > inside.correlation + 2 * _SAME
    return air.sigma if inside.least <= air.sigma <= inside.most and not smoothed else inside.sigma


def _noise_of_head(slices: list[_Slice], tissue: float) -> _Evidence | None:
    """What the flattest spots say, and as many others as look like them; None where there are too few.

    Anatomy makes the differences larger, and their correlations higher, the less flat the spots are. Correlations that
    are high and stay the same are those of the noise, which then is larger than its differences. High ones leave open
    how much noise there is: anatomy or a smoothness that the air, as magnitudes, has not.
    """
    spots = _joined(_spots_of_head(part, tissue) for part in slices)
    if spots.shape[1] < _LEAST:
        return None
    spots = spots[1:, np.argsort(spots[0], kind="stable")]
    parts = [_differences(spots[:, : max(_LEAST, int(share * spots.shape[1]))]) for share in _SHARES]
    flattest = parts[0]
    alike = list(takewhile(lambda part: part.correlation <= flattest.correlation + _SAME, parts))
    *_, even = (part for part in alike if part.deviation <= _GROWTH * flattest.deviation)
    coloured = np.array(flattest.correlations) > (_COLOURED_WIDELY if len(alike) == len(parts) else _COLOURED)
    sigma = even.deviation
    if len(alike) == len(parts) or alike[-1].count >= _MANY * flattest.count:
        sigma /= _shrinkage(np.array(even.correlations)[coloured])
    if coloured.any():
        return _Evidence(sigma, flattest.correlation)
    agrees = _AGREES * (1 + 3 / np.sqrt(even.count))  # the error of its own among it
    return _Evidence(sigma, flattest.correlation, sigma / agrees, sigma * agrees)


def _noise_of_air(slices: list[_Slice]) -> _Evidence | None:
    """What the deviation of the air says; None where most was zeroed, or the rest is not a receiver's noise.

    That is even. Where it is not, the air was shaded, as by a correction of the coils, or it has ghosts.
    """
    airs = [_within(~part.head, _APART) for part in slices]
    spots = _joined(_spots_of_air(part, air) for part, air in zip(slices, airs, strict=True))
    if spots.shape[1] < max(_LEAST, _LEAST_UNTOUCHED * sum(int(air.sum()) for air in airs)):
        return None
    tile, level, apart, second = spots[0], np.median(spots[1]), spots[2:4], spots[4:]
    deviation = _deviation(apart) / np.sqrt(2)
    if not 0 < _LEAST_LEVEL * deviation < level or not _is_even(apart, tile):
        return None
    return _Evidence(deviation / _AIR, _differences(second).correlation)


def _slices(scan: Volume, head: NDArray[np.bool_]) -> list[_Slice]:
    """Slices across the coarsest axis, the shortest of them, or one too short to look along; none where two are."""
    shape, size = np.array(scan.grid.shape), scan.grid.voxel_size.round(3)
    short = shape <= 2 * _FLAT
    if short.sum() > 1:
        return []
    across = int(np.lexsort((-shape, size, short))[-1])
    data, mask = np.moveaxis(scan.data, across, 0), np.moveaxis(head, across, 0)
    step = -(-len(data) // _SLICES)
    return [_Slice(*part) for part in zip(data[::step], mask[::step], strict=True)]


def _tissue(scan: Volume, head: NDArray[np.bool_]) -> float:
    """The intensity that tissue is brighter than, if not dark bone, fluid or air in cavities."""
    dark = np.percentile(scan.data[::2, ::2, ::2], 1)
    return float(dark + _DARK * (np.percentile(scan.data[head], 90) - dark)) if head.any() else np.inf


def _spots_of_head(part: _Slice, tissue: float) -> NDArray[np.float32]:
    """How steep the flat spots of a slice are, and their second differences (4, spots)."""
    spots = _within(part.head & (_smooth(part.data) > tissue), _FLAT)
    return np.stack([values[spots] for values in (_steepness(part), *_second_differences(part))])


def _spots_of_air(part: _Slice, air: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Tile, level, differences far apart and second differences of air without zeros (7, spots)."""
    spots = air & (_smooth((part.data != 0).astype(np.float32), 2 * _APART + 1) > _NOT_ZERO)
    apart = [part.data - np.roll(part.data, _APART, axis) for axis in (0, 1)]
    u, v = np.indices(part.data.shape, dtype=np.float32) // _TILE
    return np.stack([values[spots] for values in (u + len(u) * v, part.data, *apart, *_second_differences(part))])


def _is_even(apart: NDArray[np.float32], tile: NDArray[np.float32]) -> bool:
    """Whether differences (2, spots) deviate alike in the tiles of the slices that have enough of them."""
    order = np.argsort(tile, kind="stable")
    ends = np.flatnonzero(np.diff(tile[order])) + 1
    tiles = [part for part in np.split(apart[:, order], ends, axis=1) if part.shape[1] >= _LEAST]
    low, high = np.quantile([_deviation(part) for part in tiles or [apart]], (0.1, 0.9))
    return bool(high <= _EVEN * low)


def _joined(spots: Iterable[NDArray[np.float32]]) -> NDArray[np.float32]:
    parts = list(spots)
    return np.concatenate(parts, axis=1) if parts else np.zeros((1, 0), np.float32)


def _within(mask: NDArray[np.bool_], reach: int) -> NDArray[np.bool_]:
    """Where a mask (U, V) holds for ``reach`` samples to all sides; beyond the slice it does not."""
    return ndimage.minimum_filter(mask.view(np.uint8), 2 * reach + 1, mode="constant").view(np.bool_)


def _second_differences(part: _Slice) -> list[NDArray[np.float32]]:
    """Mixed second differences (U, V) that keep the deviation of white noise, and the next ones along both axes."""
    weights = np.array([1, -2, 1]) / np.sqrt(6)
    here = ndimage.correlate1d(ndimage.correlate1d(part.data, weights, 0), weights, 1)
    return [here, np.roll(here, -1, 0), np.roll(here, -1, 1)]


def _steepness(part: _Slice) -> NDArray[np.float32]:
    """The squared slope around each sample, to which white noise adds regardless of its second difference there."""
    slopes = (
        ndimage.correlate1d(ndimage.uniform_filter1d(part.data, 3, 1 - axis), [-1, 0, 1], axis) for axis in (0, 1)
    )
    return _smooth(sum(slope**2 for slope in slopes))


def _smooth(data: NDArray[np.float32], width: int = 3) -> NDArray[np.float32]:
    return ndimage.uniform_filter(data, width)


def _differences(spots: NDArray[np.float32]) -> _Differences:
    """Of second differences and the next ones along both axes (3, spots); outliers are cut to the limit."""
    deviation = _deviation(spots[0])
    here, *others = np.clip(spots, -3 * deviation, 3 * deviation).astype(np.float64)
    return _Differences(spots.shape[1], deviation, tuple(_correlation(here, other) for other in others))


def _correlation(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    power = np.mean(a**2 + b**2) / 2
    return float(np.mean(a * b) / power) if power > 0 else 0.0


def _deviation(values: NDArray[np.float32]) -> float:
    """The standard deviation of Gaussian values around 0, from those within three of it.

    Their median size says what three are, but not more: of integers it is a whole number, at worst 0.
    """
    sizes = np.abs(values)
    within = sizes[sizes <= 3 * np.median(sizes) / 0.6745]
    kept = within if within.any() else sizes
    return float(np.sqrt(np.mean(kept.astype(np.float64) ** 2)) / _WITHIN_THREE)


def _shrinkage(correlations: NDArray[np.float64]) -> float:
    """How much smaller than the noise its second differences are, which correlate so along axes of coloured noise."""
    return float(np.prod(np.interp(correlations, _CORRELATION, _LEFT)))
