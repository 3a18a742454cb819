"""What a volume holds of the truth's fine detail, frequency by frequency along the thick axes of its scans.

Volumes are seen through the soft window of the mask, which keeps the mask's border out of the spectra. Where scans are
thick along several axes, the worst axis counts. NaN where no scan is thick, and for a mask that is thinner than the
window's border. Frequencies are in cycles per mm.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from headsr.evaluate.metrics.comparison import Comparison, worst_axis

_HALF = 0.5
_CONE = math.cos(math.radians(30.0))


class Powers(NamedTuple):
    """The power of a volume and of its truth at some frequencies, (F,) each."""

    frequencies: NDArray[np.float64]
    volume: NDArray[np.float64]
    truth: NDArray[np.float64]


def spectrum_z(comparison: Comparison) -> float:
    """Power of the volume over that of the truth above the Nyquist frequency of the thick slices, in dB.

    0: as much fine detail as the truth, right or wrong. Noise and staircases count too; ``fsc_resolution`` tells.
    """
    return worst_axis(comparison, _fine_power_along, min) if comparison.window.any() else math.nan


def fsc_resolution(comparison: Comparison) -> float:
    """1 / frequency, in mm, at which the Fourier shell correlation with the truth first falls below 0.5.

    Two voxels where it never does, which is all that the grid holds. A correlation knows no gain: a blur that loses
    nothing in noise leaves it alone, and all interpolations of the same slices come out nearly alike.
    """
    return worst_axis(comparison, _resolution_along, max) if comparison.window.any() else math.nan


def powers_along(comparison: Comparison, axis: int) -> Powers:
    """The powers at the frequencies along an axis, summed over all lines."""
    volume, truth = _windowed(comparison)
    frequencies = fft.rfftfreq(truth.shape[axis], comparison.voxel_mm[axis])
    return Powers(frequencies, _power(volume, axis), _power(truth, axis))


def shell_correlation(comparison: Comparison, axis: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Frequencies, and the correlation of volume and truth on the shells around them (van Heel and Schatz 2005).

    Of each shell what lies within 30 degrees of the axis: elsewhere it holds what the slices resolve anyway.
    """
    volume, truth = _windowed(comparison)
    waves = _waves(truth.shape, comparison.voxel_mm)
    radius = np.sqrt(sum(wave**2 for wave in waves))
    chosen = (np.abs(waves[axis]) >= _CONE * radius) & (radius <= _HALF / comparison.voxel_mm[axis])
    width = 1.0 / (truth.shape[axis] * comparison.voxel_mm[axis])
    shell = np.rint(radius[chosen] / width).astype(int)
    correlation = _correlation(fft.fftn(volume)[chosen], fft.fftn(truth)[chosen], shell)
    return np.arange(len(correlation)) * width, correlation


def _fine_power_along(comparison: Comparison, axis: int) -> float:
    frequencies, volume, truth = powers_along(comparison, axis)
    fine = frequencies > _HALF / (comparison.spacings[axis] * comparison.voxel_mm[axis])
    if not truth[fine].any():
        return math.nan
    with np.errstate(divide="ignore"):
        return float(10.0 * np.log10(volume[fine].sum() / truth[fine].sum()))


def _resolution_along(comparison: Comparison, axis: int) -> float:
    frequencies, correlation = shell_correlation(comparison, axis)
    correlation[0] = 1.0  # of the mean, which is taken away
    below = np.flatnonzero(correlation < _HALF)
    if not below.size:
        return 2.0 * float(comparison.voxel_mm[axis])
    around = [below[0], below[0] - 1]
    return 1.0 / float(np.interp(_HALF, correlation[around], frequencies[around]))


def _windowed(comparison: Comparison) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The volume and the truth in the box around the mask, each less its mean, through the window."""
    box = comparison.box(0)
    window = comparison.window[box]
    volume, truth = (
        (v[box] - np.float32(np.average(v[box], weights=window))) * window
        for v in (comparison.volume, comparison.truth)
    )
    return volume, truth


def _power(volume: NDArray[np.float32], axis: int) -> NDArray[np.float64]:
    power = np.abs(fft.rfft(volume, axis=axis)) ** 2
    return np.moveaxis(power, axis, 0).reshape(power.shape[axis], -1).sum(axis=1, dtype=np.float64)


def _waves(shape: tuple[int, ...], voxel_mm: tuple[float, float, float]) -> list[NDArray[np.float64]]:
    """The frequencies along every axis, so shaped that they broadcast."""
    along = (fft.fftfreq(n, size) for n, size in zip(shape, voxel_mm, strict=True))
    return np.meshgrid(*along, indexing="ij", sparse=True)


def _correlation(
    volume: NDArray[np.complex64], truth: NDArray[np.complex64], shell: NDArray[np.int_]
) -> NDArray[np.float64]:
    """The correlation of two spectra (K,) on every shell; 0 where one of them is empty."""
    common = np.bincount(shell, (volume * truth.conj()).real)
    powers = np.bincount(shell, np.abs(volume) ** 2) * np.bincount(shell, np.abs(truth) ** 2)
    return np.divide(common, np.sqrt(powers), out=np.zeros_like(common), where=powers > 0)
