"""A whole head in MNI152 space: the template's brain with a skull, a scalp, a face block and a neck built around it.

The MNI152 T1, grey-matter and white-matter maps (ICBM 2009a, symmetric) come with nilearn, so nothing is downloaded.
They are skull-stripped and end at z = -72 mm; everything else here is geometry, in mm.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from headsr.seeds import seed_of
from headsr.simulate.contrast import RANDOM, random_signal, tissue_signal_of
from headsr.simulate.scene import FieldOfView, Sampler
from headsr.simulate.warp import Scales
from headsr.volumes import Grid, Volume, cell_average, spline_resample

TISSUES = ("white", "grey", "csf", "bone", "marrow", "fat", "muscle", "skin", "vitreous")

# The voxel-cell box of the anatomy in mm: the template's own in x and y, a little of the neck below its last plane.
_X, _Y, _Z = (-98, 99), (-134, 99), (-102, 107)
_FIELD_OF_VIEW = FieldOfView((0.0, -17.0, 8.0), (200.0, 230.0, 190.0))  # at 2.5 mm: 80 x 92 x 76 voxels
_SHELL_MM = 2.0  # the resolution of the smooth shells; they have no finer detail
_CSF_MM, _BONE_MM, _TABLE_MM, _SCALP_MM, _SKIN_MM = 2.0, 6.5, 2.0, 6.0, 2.0

# T1w and T2w as real scans show these averaged tissue maps; the other contrasts follow from the signal equations.
SIGNAL = {
    "T1w": dict(
        white=0.85, grey=0.60, csf=0.20, bone=0.07, marrow=0.50, fat=1.00, muscle=0.42, skin=0.50, vitreous=0.18
    ),
    "T2w": dict(
        white=0.40, grey=0.58, csf=0.95, bone=0.04, marrow=0.30, fat=0.62, muscle=0.28, skin=0.36, vitreous=0.92
    ),
}
_TEXTURE_SIGN = {"T1w": 0.85, "T2w": -0.6}  # bright detail on T1 is dark on T2
_SIGNAL_SPREAD = 0.04  # relative spread of a tissue's signal between heads


@dataclass(frozen=True, eq=False)
class TissueMaps:
    """Tissue fractions (T, X, Y, Z) of TISSUES on a 1 mm grid (air is what is missing to 1), the brain and its texture.

    ``brain`` is the mask (bool) of the intracranial template; ``texture`` the template's T1 detail that the tissue
    fractions do not explain, relative to its white matter.
    """

    grid: Grid
    fractions: NDArray[np.float32]
    brain: NDArray[np.bool_]
    texture: NDArray[np.float32]
    field_of_view: FieldOfView = _FIELD_OF_VIEW
    sample_mm: float = 2.5
    scales_mm: Scales = ((35.0, 3.5), (9.0, 1.3))  # the shape of the head, and the course of its gyri

    def imaged(
        self, suffix: str, *, seed: int, lesions: str, rng: np.random.Generator, spacing_mm: NDArray[np.float64]
    ) -> Sampler:
        """The signal of a contrast (see Anatomy), the same detail for every ``seed``, as fine as the maps are.

        Raises ValueError for lesions: the averaged maps have no ventricles of a person to draw them around.
        """
        if lesions != "none":
            raise ValueError(f"lesions: {lesions} can be drawn into label maps only, not into the MNI152 template")
        return self.sampler(self.signal(suffix, rng=rng))

    def signal(self, suffix: str, *, rng: np.random.Generator | None = None) -> NDArray[np.float32]:
        """Noise-free signal (X, Y, Z) on the maps' grid; with ``rng`` the tissues' brightness varies as in people."""
        if suffix == RANDOM:
            if rng is None:
                raise ValueError(f"{RANDOM}: a random contrast needs a random generator")
            table = random_signal(list(TISSUES), rng=rng)
        else:
            table = SIGNAL.get(suffix) or tissue_signal_of(suffix)
        signal = np.array([table[tissue] for tissue in TISSUES], dtype=np.float32)
        if rng is not None:
            signal *= (1 + _SIGNAL_SPREAD * np.clip(rng.standard_normal(len(signal)), -2, 2)).astype(np.float32)
        mixed = (signal @ self.fractions.reshape(len(signal), -1)).reshape(self.grid.shape)
        return np.maximum(mixed + np.float32(_TEXTURE_SIGN.get(suffix, 0.0)) * self.texture, 0)

    def sampler(self, image: NDArray) -> Sampler:
        """An image on the maps' grid as a function of positions in mm."""
        start = self.grid.affine[:3, 3].astype(np.float32)[:, None, None, None]
        image = image.astype(np.float32, copy=False)
        return lambda positions: ndimage.map_coordinates(image, positions - start, order=1, mode="nearest")


def build_anatomy() -> TissueMaps:
    """Build the undeformed head from nilearn's templates; the same arrays every time (about 7 s, 2 GB at its peak)."""
    grid = _anatomy_grid()
    t1, grey, white = (_padded(image, grid) for image in _templates())
    brain = t1 > 0
    coarse = grid.at_voxel_size(_SHELL_MM)
    shells = _shells(cell_average(brain.astype(np.float32), coarse.shape) > 0.5, coarse)
    fractions = _compose(grey, white, *(spline_resample(Volume(shell, coarse), grid) for shell in shells), grid)
    return TissueMaps(grid, fractions, brain & (_points(grid)[2] >= -72), _texture(t1, grey, white, brain))


def _anatomy_grid() -> Grid:
    affine = np.eye(4)
    affine[:3, 3] = (_X[0], _Y[0], _Z[0])
    return Grid((_X[1] - _X[0], _Y[1] - _Y[0], _Z[1] - _Z[0]), affine)


def _templates() -> list[Volume]:
    from nilearn import datasets  # 2.5 s: only when a head is built

    loaders = (datasets.load_mni152_template, datasets.load_mni152_gm_template, datasets.load_mni152_wm_template)
    images = [loader(resolution=1) for loader in loaders]
    return [Volume(i.get_fdata(dtype=np.float32), Grid(i.shape, i.affine)) for i in images]


def _padded(template: Volume, grid: Grid) -> NDArray[np.float32]:
    """Put a template onto the grid; below its last plane that plane is repeated, which continues the brain stem."""
    start = np.rint(grid.affine[:3, 3] - template.grid.affine[:3, 3]).astype(int)
    index = [np.arange(n) + s for n, s in zip(grid.shape, start, strict=True)]
    inside = [
        (i >= (0 if axis < 2 else -100)) & (i < n)
        for axis, (i, n) in enumerate(zip(index, template.grid.shape, strict=True))
    ]
    clipped = [np.clip(i, 0, n - 1) for i, n in zip(index, template.grid.shape, strict=True)]
    return template.data[np.ix_(*clipped)] * np.einsum("i,j,k->ijk", *inside).astype(np.float32)


def _points(grid: Grid) -> list[NDArray[np.float32]]:
    """Open coordinate arrays in mm: (X, 1, 1), (1, Y, 1), (1, 1, Z)."""
    axes = [grid.affine[a, a] * np.arange(n) + grid.affine[a, 3] for a, n in enumerate(grid.shape)]
    return list(np.ix_(*(axis.astype(np.float32) for axis in axes)))


def _shells(brain: NDArray[np.bool_], grid: Grid) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Signed distances in mm (negative inside) to the brain's smooth hull and to the outer surface of the head."""
    size = float(grid.voxel_size[0])
    x, y, z = _points(grid)
    # Only the brain proper has a skull around it: the repeated brain stem below it runs in the neck.
    hull = _closed(brain & (z > -70), 11.0, size)
    to_hull = ndimage.gaussian_filter(_signed_distance(hull, size), 2.0 / size)
    face = _ellipsoid(x, y, z, centre=(0, 32, -52), radii=(64, 62, 66))
    neck = np.maximum(_ellipsoid(x, y, z * 0, centre=(0, -38, 0), radii=(60, 66, 1)), z + 30)
    around = to_hull - (_CSF_MM + _BONE_MM + _SCALP_MM)
    outer = np.minimum(np.minimum(around, face), np.broadcast_to(neck, grid.shape))
    surface = _signed_distance(ndimage.gaussian_filter(outer, 4.0 / size) < 0, size)
    return to_hull, ndimage.gaussian_filter(surface, 2.0 / size)


def _closed(mask: NDArray[np.bool_], radius: float, size: float) -> NDArray[np.bool_]:
    """Morphological closing with a ball of ``radius`` mm, by distance transforms."""
    margin = int(np.ceil(radius / size)) + 1
    wide = np.pad(mask, margin)
    dilated = ndimage.distance_transform_edt(~wide, sampling=size) <= radius
    closed = ndimage.distance_transform_edt(dilated, sampling=size) > radius
    return ndimage.binary_fill_holes(closed)[(slice(margin, -margin),) * 3] | mask


def _signed_distance(mask: NDArray[np.bool_], size: float) -> NDArray[np.float32]:
    outside = ndimage.distance_transform_edt(~mask, sampling=size)
    inside = ndimage.distance_transform_edt(mask, sampling=size)
    return (outside - inside - np.where(mask, -0.5, 0.5) * size).astype(np.float32)


def _ellipsoid(
    x: NDArray, y: NDArray, z: NDArray, *, centre: tuple[float, ...], radii: tuple[float, ...]
) -> NDArray[np.float32]:
    """An approximate signed distance in mm to an ellipsoid (exact on its surface)."""
    scaled = sum(((p - c) / r) ** 2 for p, c, r in zip((x, y, z), centre, radii, strict=True))
    return ((np.sqrt(scaled) - 1) * min(r for r in radii if r > 1)).astype(np.float32)


def _below(distance: NDArray[np.float32], edge: float = 0.0) -> NDArray[np.float32]:
    """The fraction of a 1 mm voxel on the near side of the surface where ``distance`` equals ``edge``."""
    return np.clip(edge - distance + 0.5, 0, 1)


def _compose(grey: NDArray, white: NDArray, to_hull: NDArray, to_air: NDArray, grid: Grid) -> NDArray[np.float32]:
    """Tissue fractions (T, X, Y, Z): the brain first, then outwards; each new part takes what is still free."""
    x, y, z = _points(grid)
    inside = _below(to_air)
    brain = _brain_fractions(grey, white)
    parts = dict.fromkeys(TISSUES, np.float32(0))
    parts["white"], parts["grey"] = brain
    free = inside * (1 - brain[0] - brain[1])
    parts["csf"] = free * _below(to_hull, _CSF_MM)
    free = free - parts["csf"]
    skull = free * _below(to_hull, _CSF_MM + _BONE_MM)
    diploe = _below(to_hull, _CSF_MM + _BONE_MM - _TABLE_MM) * (1 - _below(to_hull, _CSF_MM + _TABLE_MM))
    parts["marrow"], parts["bone"] = 0.8 * skull * diploe, skull * (1 - 0.8 * diploe)
    free = free - skull
    free = free * (1 - _cavities(x, y, z))
    eyes = free * np.maximum(
        *(_below(_ellipsoid(x, y, z, centre=(s * 31, 62, -38), radii=(12, 12, 12))) for s in (-1, 1))
    )
    free = free - eyes
    spine = free * _below(_ellipsoid(x, y, z * 0, centre=(0, -32, 0), radii=(20, 16, 1))) * _below(z, -74.0)
    parts["vitreous"], parts["bone"] = eyes, parts["bone"] + 0.5 * spine
    parts["marrow"] = parts["marrow"] + 0.5 * spine
    free = free - spine
    parts["skin"] = free * (1 - _below(to_air, -_SKIN_MM))
    free = free - parts["skin"]
    fat = np.maximum(_below(-to_air, 0.75 * _SCALP_MM), _streaks(grid))
    parts["fat"], parts["muscle"] = free * fat, free * (1 - fat)
    return np.stack([np.broadcast_to(parts[name], grid.shape).astype(np.float32) for name in TISSUES])


def _brain_fractions(grey: NDArray, white: NDArray) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Sharpen the group averages towards one head: squared and renormalised, so the gyri regain their edges."""
    csf = np.clip(1 - grey - white, 0, 1)
    total = grey**2 + white**2 + csf**2 + np.float32(1e-6)
    return white**2 / total, grey**2 / total


def _cavities(x: NDArray, y: NDArray, z: NDArray) -> NDArray[np.float32]:
    """Nose, maxillary sinuses and throat: air."""
    places = (
        ((0, 58, -58), (9, 26, 20)),
        ((25, 58, -62), (12, 14, 15)),
        ((-25, 58, -62), (12, 14, 15)),
        ((0, 18, -80), (12, 9, 40)),
    )
    return np.maximum.reduce([_below(_ellipsoid(x, y, z, centre=c, radii=r)) for c, r in places])


def _streaks(grid: Grid) -> NDArray[np.float32]:
    """Streaks of fat between muscles: a thresholded smooth random field of fixed seed."""
    noise = np.random.default_rng(seed_of("anatomy", "streaks")).standard_normal(grid.at_voxel_size(2.0).shape)
    smooth = ndimage.gaussian_filter(noise.astype(np.float32), (1.2, 1.8, 3.0))
    field = spline_resample(Volume(smooth / smooth.std(), grid.at_voxel_size(2.0)), grid)
    return np.clip((field - 0.9) * 3, 0, 1)


def _texture(t1: NDArray, grey: NDArray, white: NDArray, brain: NDArray[np.bool_]) -> NDArray[np.float32]:
    """What the template's T1 shows inside the brain beyond its tissue maps (nuclei, folia): T1 minus their best mix."""
    design = np.stack([white[brain], grey[brain], (1 - white - grey)[brain]], axis=1).astype(np.float64)
    mix = np.linalg.lstsq(design[::7], t1[brain][::7].astype(np.float64), rcond=None)[0]
    residual = np.zeros(t1.shape, dtype=np.float32)
    residual[brain] = (t1[brain] - design @ mix) / mix[0]
    return residual
