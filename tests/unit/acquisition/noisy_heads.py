"""Random scans whose noise is known, whatever was done to them: for the tests of the estimate and their benchmark."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from headsr.simulate.imaging import add_rician_noise, bias_field, smooth_field
from headsr.volumes import Grid, Volume, cell_average

_MOST_SAMPLES = 3e5  # of a scan: more slices than that are left out


@dataclass(frozen=True, eq=False)
class NoisyHead:
    """A scan and the same without noise (X, Y, Z), its voxel size in mm and where its head is."""

    data: NDArray[np.float32]
    clean: NDArray[np.float32]
    size: NDArray[np.float64]
    head: NDArray[np.bool_]
    sigma: float
    rng: np.random.Generator

    @property
    def volume(self) -> Volume:
        return Volume(self.data.astype(np.float32), Grid(self.data.shape, np.diag([*self.size, 1.0])))

    @property
    def noise(self) -> float:
        """The root mean square of what noise changed in the head's tissue."""
        tissue = self.head & (self.clean > max(0.2, 3 * self.sigma)) & (self.data != 0)
        return float(np.sqrt(np.mean((self.data - self.clean)[tissue] ** 2)))

    @property
    def in_plane(self) -> list[int]:
        return [axis for axis in range(3) if axis != np.argmax(self.size)]

    def each(self, change: Callable[[NDArray], NDArray]) -> NoisyHead:
        """The same done to the scan with noise and to the one without."""
        return replace(self, data=change(self.data), clean=change(self.clean))


def noisy_head(seed: int, treatment: str) -> NoisyHead:
    """A random head, orientation, voxel size (in-plane 0.7 to 2 mm, slices 1 to 8 times as thick) and noise."""
    rng = np.random.default_rng(seed)
    size = np.full(3, rng.uniform(0.7, 2.0))
    size[rng.integers(3)] *= rng.choice([1.0, rng.uniform(1, 8)], p=[0.2, 0.8])
    clean, head = folded_head(size, rng)
    sigma = float(np.exp(rng.uniform(np.log(0.002), np.log(0.06))))
    return TREATMENTS[treatment](_scanned(clean, size, head, sigma, rng))


def folded_head(size: NDArray[np.float64], rng: np.random.Generator) -> tuple[NDArray, NDArray[np.bool_]]:
    """The signal (X, Y, Z) of ellipsoids in random contrast, white matter folded into grey, and where the head is."""
    shape = np.rint(np.array((170, 210, 180)) * rng.uniform(1, 1.2, 3) / size).astype(int)
    thick = int(np.argmax(size))
    shape[thick] = np.clip(int(_MOST_SAMPLES * shape[thick] / shape.prod()), 3, shape[thick])
    points = [((np.arange(2 * n) + 0.5) / 2 - n / 2) * mm for n, mm in zip(shape, size, strict=True)]
    x, y, z = np.meshgrid(*points, indexing="ij", sparse=True)
    radii = rng.uniform(0.88, 1.08, 3)
    folds = smooth_field(tuple(np.ceil(shape * size / 3).astype(int) + 4), sigma=1.2, rng=rng)
    folds = ndimage.zoom(folds, 2 * shape / folds.shape, order=1)

    def within(*radius: float) -> NDArray[np.float32]:
        return np.sqrt(sum((p / (r * k)) ** 2 for p, r, k in zip((x, y, z), radius, radii, strict=True)))

    signal = np.zeros(tuple(2 * shape), np.float32)
    for inside, tissue in (
        (within(78, 96, 84), rng.uniform(0.6, 1)),  # scalp
        (within(72, 90, 78), 0.06),  # bone
        (within(68, 86, 74), rng.uniform(0.1, 1)),  # fluid
        (within(66, 84, 72) + 0.05 * folds, rng.uniform(0.4, 0.7)),  # grey
        (within(56, 74, 60) + 0.12 * folds, rng.uniform(0.4, 0.9)),  # white
        (within(20, 30, 14) + 0.1 * folds, rng.uniform(0.1, 1)),  # ventricles
    ):
        signal[inside < 1] = tissue * (1 + 0.01 * folds[inside < 1])
    signal = cell_average(signal * (1 + 0.15 * x / 80 - 0.1 * z / 80).astype(np.float32), tuple(shape))
    return signal / np.percentile(signal[signal > 0], 99.9), cell_average(
        (within(79, 97, 85) < 1) * 1.0, tuple(shape)
    ) > 0


def _scanned(clean: NDArray, size: NDArray, head: NDArray, sigma: float, rng: np.random.Generator) -> NoisyHead:
    return NoisyHead(add_rician_noise(clean, sigma=sigma, rng=rng), clean, size, head, sigma, rng)


def _again(scan: NoisyHead, clean: NDArray, sigma: float) -> NoisyHead:
    return replace(scan, data=add_rician_noise(clean, sigma=sigma, rng=scan.rng), clean=clean)


def _zeroed(scan: NoisyHead) -> NoisyHead:
    return replace(scan, data=scan.data * ndimage.binary_dilation(scan.head))


def _thresholded(scan: NoisyHead) -> NoisyHead:
    return replace(scan, data=np.where(scan.data < max(0.15, 4 * scan.sigma), 0, scan.data))


def _framed(scan: NoisyHead) -> NoisyHead:
    """Up to 30 % of the field of view is zero at its ends."""
    kept = 1 - scan.rng.uniform(0, 0.1)
    inner = np.ix_(*[abs(np.linspace(-1, 1, n)) < kept for n in scan.data.shape])
    frame = np.ones(scan.data.shape)
    frame[inner] = 0
    return replace(scan, data=np.where(frame, 0, scan.data))


def _banded(scan: NoisyHead) -> NoisyHead:
    width, axis = scan.rng.integers(2, 40), scan.rng.integers(3)
    band = np.indices(scan.data.shape)[axis] // width % 2 == 0
    return replace(scan, data=np.where(band & ~scan.head, 0, scan.data))


def _faceless(scan: NoisyHead) -> NoisyHead:
    data = scan.data.copy()
    data[:, int(0.7 * data.shape[1]) :, : data.shape[2] // 2] = 0
    return replace(scan, data=data)


def _rotated(scan: NoisyHead) -> NoisyHead:
    angle, axes = scan.rng.uniform(3, 15), scan.in_plane

    def turned(data: NDArray) -> NDArray:
        return ndimage.rotate(data, angle, axes, reshape=False, order=1)

    return replace(scan.each(turned), head=turned(scan.head.astype(np.float32)) > 0.5)


def _stripped(scan: NoisyHead) -> NoisyHead:
    deep = ndimage.distance_transform_edt(np.pad(scan.head, 1, mode="edge"), sampling=scan.size)[1:-1, 1:-1, 1:-1]
    return replace(scan, data=np.where(deep > 14, scan.data, 0), head=deep > 14)


def _averaged(scan: NoisyHead) -> NoisyHead:
    """Acquired with voxels two or three times finer in the plane, averaged."""
    factor = int(scan.rng.integers(2, 4))
    fine = scan.clean
    for axis in scan.in_plane:
        fine = np.repeat(fine, factor, axis)
    return _again(scan, fine, factor * scan.sigma).each(lambda data: cell_average(data, scan.data.shape))


def _stored_as_integers(scan: NoisyHead) -> NoisyHead:
    step = scan.sigma / scan.rng.choice([0.7, 1, 2, 5])
    return replace(scan, data=np.rint(scan.data / step) * step)


def _two_slices(scan: NoisyHead) -> NoisyHead:
    thick = int(np.argmax(scan.size))
    middle = scan.data.shape[thick] // 2
    size = scan.size.copy()
    size[thick] = max(size[thick], 3 * size.min())

    def two(data: NDArray) -> NDArray:
        return np.take(data, [middle, middle + 1], thick)

    return _zeroed(replace(scan.each(two), head=two(scan.head), size=size))


def _without_air(scan: NoisyHead) -> NoisyHead:
    box = tuple(slice(int(0.28 * n), int(np.ceil(0.72 * n))) for n in scan.data.shape)
    return replace(scan.each(lambda data: data[box]), head=np.ones_like(scan.head[box]))


def _of_coils(scan: NoisyHead) -> NoisyHead:
    """The root of the sum of squares of four to eight coils."""
    coils = int(scan.rng.integers(4, 9))
    seen = scan.clean / np.sqrt(coils)
    each = (add_rician_noise(seen, sigma=scan.sigma, rng=scan.rng) ** 2 for _ in range(coils))
    return replace(scan, data=np.sqrt(sum(each)))


def _air_smoothed(scan: NoisyHead) -> NoisyHead:
    width = [1.5 * (axis in scan.in_plane) for axis in range(3)]
    return replace(scan, data=np.where(scan.head, scan.data, ndimage.gaussian_filter(scan.data, width)))


def _air_dimmed(scan: NoisyHead) -> NoisyHead:
    return replace(scan, data=np.where(ndimage.binary_dilation(scan.head), scan.data, 0.2 * scan.data))


def _zero_filled(scan: NoisyHead) -> NoisyHead:
    """Reconstructed finer than it was acquired, through a filter against ringing, as scanners do."""
    share = scan.rng.uniform(0.25, 0.4)

    def cut(image: NDArray) -> NDArray:
        spectrum = np.fft.fftn(image, axes=scan.in_plane)
        for axis in scan.in_plane:
            frequency = np.moveaxis(np.fft.fftfreq(image.shape[axis])[:, None, None], 0, axis)
            spectrum *= np.cos(np.pi / 2 * np.clip(3 * abs(frequency) / share - 2, 0, 1)) ** 2
        return np.fft.ifftn(spectrum, axes=scan.in_plane)

    real, imaginary = cut(scan.rng.standard_normal(scan.clean.shape)), cut(scan.rng.standard_normal(scan.clean.shape))
    noise = scan.sigma / real.real.std() * (real.real + 1j * imaginary.real)
    clean = cut(scan.clean).real
    return replace(scan, data=abs(clean + noise), clean=abs(clean))


def _bias_corrected(scan: NoisyHead) -> NoisyHead:
    field = bias_field(scan.data.shape, strength=0.25, rng=scan.rng)
    return scan.each(lambda data: data / field)


TREATMENTS: dict[str, Callable[[NoisyHead], NoisyHead]] = {
    "as acquired": lambda scan: scan,
    "air zeroed": _zeroed,
    "thresholded": _thresholded,
    "zero frame": _framed,
    "zero bands": _banded,
    "face removed": _faceless,
    "rotated": _rotated,
    "rotated, air zeroed": lambda scan: _zeroed(_rotated(scan)),
    "skull-stripped": _stripped,
    "averaged": _averaged,
    "averaged, air zeroed": lambda scan: _zeroed(_averaged(scan)),
    "integers": _stored_as_integers,
    "two slices": _two_slices,
    "no air": _without_air,
    "many coils": _of_coils,
    "air smoothed": _air_smoothed,
    "air dimmed": _air_dimmed,
    "zero-filled": _zero_filled,
    "bias-corrected": _bias_corrected,
    "bias-corrected, air zeroed": lambda scan: _zeroed(_bias_corrected(scan)),
}
