"""How far a simulated head is from a real one: the distribution of its intensities, and its spectrum.

Both are of scans divided by their own 99.9th percentile inside the head, as headsr normalises every scan, and of the
part of the head that every scan shows: the upper 150 mm, so that fields of view with more or less neck compare.
"""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from headsr.preprocess.outline import head_of
from headsr.volumes import Grid, Volume

PERCENTILE = 99.9
_HEAD_MM, _BRAIN_MM, _DEPTH_MM = 150.0, 110.0, 20.0
_LAYERS_MM = (0, 4, 8, 12, 18, 26, 40, 80)
_BINS, _TOP = 50, 1.25  # wider than a grey level of an 8-bit scan
_CUBE_MM = 128.0
_BAND = (0.02, 0.45)  # cycles/mm: from the lobes of the brain to just below the limit of 1 mm voxels
_RINGS = 22


class Distances(NamedTuple):
    """How far two scans are from each other; zero for a scan and itself.

    ``head`` and ``brain``: the 1-Wasserstein distance of their normalised intensities (1 is the 99.9th percentile).
    ``head_bits`` and ``brain_bits``: the Jensen-Shannon divergence of the histograms (0 to 1 bit).
    ``layers``: the mean of the same distance over layers of depth below the scalp, which know what belongs where.
    ``spectrum_db``: the root mean square difference of their radial power spectra in decibels.
    """

    head: float
    brain: float
    head_bits: float
    brain_bits: float
    layers: float
    spectrum_db: float


class Profile(NamedTuple):
    """What is compared of one scan: histograms inside head, brain and layers, and the radial power spectrum."""

    head: NDArray[np.float64]
    brain: NDArray[np.float64]
    layers: tuple[NDArray[np.float64], ...]
    frequencies: NDArray[np.float64]
    spectrum: NDArray[np.float64]


def distances(one: Profile, other: Profile) -> Distances:
    """Compare two scans' profiles; symmetric."""
    difference = decibels(one.spectrum) - decibels(other.spectrum)
    return Distances(
        wasserstein(one.head, other.head),
        wasserstein(one.brain, other.brain),
        jensen_shannon(one.head, other.head),
        jensen_shannon(one.brain, other.brain),
        float(np.mean([wasserstein(*pair) for pair in zip(one.layers, other.layers, strict=True)])),
        float(np.sqrt(np.nanmean(difference**2))),
    )


def profile(volume: Volume) -> Profile:
    """Histograms inside the upper head and inside the brain (what lies deep in its top), and the brain's spectrum."""
    head = head_of(volume)
    top = head & _below_top(head, volume.grid, _HEAD_MM)
    depth = ndimage.distance_transform_edt(head, sampling=volume.grid.voxel_size)
    brain = (depth > _DEPTH_MM) & _below_top(head, volume.grid, _BRAIN_MM)
    data = volume.data / np.percentile(volume.data[top], PERCENTILE)
    centre = np.array(ndimage.center_of_mass(brain))
    frequencies, spectrum = radial_spectrum(data, volume.grid, centre)
    upper = top & _below_top(head, volume.grid, _BRAIN_MM)
    layers = [histogram(data[upper & (depth > low) & (depth <= high)]) for low, high in pairwise(_LAYERS_MM)]
    return Profile(histogram(data[top]), histogram(data[brain]), tuple(layers), frequencies, spectrum)


def _below_top(head: NDArray[np.bool_], grid: Grid, reach_mm: float) -> NDArray[np.bool_]:
    """The planes (1, 1, Z) of a RAS volume down to ``reach_mm`` below the top of the head."""
    planes = np.arange(head.shape[2])
    top = np.flatnonzero(head.any(axis=(0, 1)))[-1]
    return (planes > top - reach_mm / grid.voxel_size[2])[None, None, :]


def histogram(values: NDArray[np.float32]) -> NDArray[np.float64]:
    """The share of values in each of 50 bins from 0 to 1.25; what is outside counts in the outermost."""
    counts, _ = np.histogram(np.clip(values, 0, _TOP * (1 - 1e-6)), bins=_BINS, range=(0, _TOP))
    return counts / counts.sum()


def wasserstein(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    """The earth mover's distance of two histograms, in normalised intensity."""
    return float(np.abs(np.cumsum(one - other)).sum() * _TOP / _BINS)


def jensen_shannon(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    """The Jensen-Shannon divergence of two histograms in bits (Lin 1991, IEEE Transactions on Information Theory)."""
    middle = (one + other) / 2
    return float(sum(np.sum(p[p > 0] * np.log2(p[p > 0] / middle[p > 0])) for p in (one, other)) / 2)


def radial_spectrum(
    data: NDArray[np.float32], grid: Grid, centre: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Power per mm^-3 over rings of spatial frequency (cycles/mm), of a cube of 128 mm around ``centre`` (voxels).

    Hann's window along each axis keeps the cube's faces out. NaN where the voxels are too coarse for a frequency.
    """
    size = grid.voxel_size
    count = np.rint(_CUBE_MM / size).astype(int)
    start = np.rint(centre - count / 2).astype(int)
    padded = np.pad(data, [(c, c) for c in count])
    cube = padded[tuple(slice(s + c, s + 2 * c) for s, c in zip(start, count, strict=True))]
    windows = [np.hanning(n + 2)[1:-1] for n in count]
    window = np.einsum("i,j,k->ijk", *windows)
    cube = (cube - (cube * window).sum() / window.sum()) * window
    power = np.abs(np.fft.rfftn(cube)) ** 2 * np.prod(size) / (window**2).sum()
    axes = [np.fft.fftfreq(n, mm) for n, mm in zip(count[:2], size[:2], strict=True)]
    axes.append(np.fft.rfftfreq(count[2], size[2]))
    frequency = np.sqrt(sum(axis**2 for axis in np.ix_(*axes)))
    edges = np.linspace(*_BAND, _RINGS + 1)
    ring = np.digitize(frequency, edges)
    within = frequency < 0.5 / size.max()
    sums = np.bincount(ring[within], power[within], minlength=_RINGS + 2)[1:-1]
    counts = np.bincount(ring[within], minlength=_RINGS + 2)[1:-1]
    spectrum = np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)
    # A ring that the sphere of resolved frequencies cuts is not one of this scan.
    spectrum[edges[1:] > 0.5 / size.max()] = np.nan
    return (edges[:-1] + edges[1:]) / 2, spectrum


def decibels(power: NDArray[np.float64]) -> NDArray[np.float64]:
    """Ten times the decimal logarithm."""
    return 10 * np.log10(power)
