"""Lesions as multiple sclerosis makes them: where in the white matter, how many, how large, of which form."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

# mm3 in the whole brain: the three MS phantoms of BrainWeb (Cocosco et al. 1997; Kwan et al. 1999, IEEE TMI 18:1085).
VOLUMES_MM3 = {"none": 0.0, "mild": 400.0, "moderate": 3500.0, "severe": 10100.0}

# Most lesions touch or near the ventricles, and some the cortex: Filippi et al. 2016, Lancet Neurology 15:292.
_SHARES = {"periventricular": 0.5, "juxtacortical": 0.2, "deep": 0.3}
_RADIUS_MM, _RADIUS_SPREAD, _RADIUS_RANGE_MM = 2.2, 0.4, (1.5, 6.0)  # 3 mm is the least diameter that counts as one
_MOST = 1000


def draw_lesions(
    white: NDArray[np.bool_],
    ventricles: NDArray[np.bool_],
    cortex: NDArray[np.bool_],
    *,
    voxel_mm: NDArray[np.float64],
    degree: str,
    rng: np.random.Generator,
) -> NDArray[np.float32]:
    """The part of each voxel (X, Y, Z) that is lesion, 0 outside ``white``; the masks say where the tissues are.

    ``degree`` is a key of VOLUMES_MM3; a worse degree of the same ``rng`` has the lesions of a milder one and more.
    Without ventricles in the map there are no periventricular lesions.
    """
    if degree not in VOLUMES_MM3:
        raise ValueError(f"lesions: {degree} is none of {', '.join(VOLUMES_MM3)}")
    lesions = np.zeros(white.shape, dtype=np.float32)
    if VOLUMES_MM3[degree] == 0 or not white.any():
        return lesions
    to_ventricle, to_cortex = (_distance(mask, voxel_mm) for mask in (ventricles, cortex))
    places = _places(white, to_ventricle, to_cortex)
    # 4 mm of smoothing: the way out of the ventricle, not the way off each voxel of its staircase.
    outwards = ndimage.gaussian_filter(to_ventricle, 4.0 / voxel_mm, truncate=2) if ventricles.any() else to_ventricle
    volume, cell = 0.0, float(np.prod(voxel_mm))
    for _ in range(_MOST):
        if volume >= VOLUMES_MM3[degree]:
            break
        kind = rng.choice(list(_SHARES), p=list(_SHARES.values()))
        radius = float(np.clip(_RADIUS_MM * np.exp(_RADIUS_SPREAD * rng.standard_normal()), *_RADIUS_RANGE_MM))
        place, turn, spoiled = rng.random(), rng.standard_normal(3), rng.standard_normal((5, 5, 5))
        if len(places[kind]) == 0:
            continue
        centre = np.array(np.unravel_index(places[kind][int(place * len(places[kind]))], white.shape))
        if kind == "periventricular":
            turn = _gradient(outwards, centre, voxel_mm)
        elif kind == "juxtacortical":
            turn = _gradient(to_cortex, centre, voxel_mm)
        volume += cell * _add(lesions, white, centre, _axes(kind, radius), turn, spoiled, voxel_mm)
    return lesions


def _distance(mask: NDArray[np.bool_], voxel_mm: NDArray[np.float64]) -> NDArray[np.float32]:
    if not mask.any():
        return np.full(mask.shape, np.inf, dtype=np.float32)
    return ndimage.distance_transform_edt(~mask, sampling=voxel_mm).astype(np.float32)


def _places(
    white: NDArray[np.bool_], to_ventricle: NDArray[np.float32], to_cortex: NDArray[np.float32]
) -> dict[str, NDArray[np.intp]]:
    """Where the centre of a lesion of each kind may lie, as flat indices."""
    near = to_ventricle < 8
    at = {
        "periventricular": white & near & (to_ventricle > 1),
        "juxtacortical": white & (to_cortex < 3) & ~near,
        "deep": white & (to_cortex >= 4) & ~near,
    }
    return {kind: np.flatnonzero(mask) for kind, mask in at.items()}


def _axes(kind: str, radius: float) -> NDArray[np.float64]:
    """Half axes in mm, the one along the given direction first.

    Dawson's fingers are long and stand on the ventricle; lesions at the cortex follow it.
    """
    form = {"periventricular": (2.2, 0.8, 0.8), "juxtacortical": (0.7, 1.3, 1.1), "deep": (1.2, 1.0, 0.9)}[kind]
    return radius * np.array(form)


def _gradient(
    distance: NDArray[np.float32], centre: NDArray[np.intp], voxel_mm: NDArray[np.float64]
) -> NDArray[np.float64]:
    """The direction in which a distance grows fastest."""
    rise = []
    for axis in range(3):
        ends = np.stack([centre, centre])
        ends[:, axis] = np.clip(centre[axis] + np.array([-2, 2]), 0, distance.shape[axis] - 1)
        rise.append(np.diff(distance[tuple(ends.T)])[0])
    return np.array(rise) / voxel_mm + 1e-6


def _add(
    lesions: NDArray[np.float32],
    white: NDArray[np.bool_],
    centre: NDArray[np.intp],
    axes: NDArray[np.float64],
    direction: NDArray[np.float64],
    spoiled: NDArray[np.float64],
    voxel_mm: NDArray[np.float64],
) -> float:
    """Draw one ellipsoid with an uneven and softened surface; returns by how many voxels the lesions grew."""
    reach = np.ceil(1.5 * axes.max() / voxel_mm).astype(int)
    box = tuple(slice(max(0, c - r), min(n, c + r + 1)) for c, r, n in zip(centre, reach, lesions.shape, strict=True))
    mm = [(np.arange(s.start, s.stop) - c) * size for s, c, size in zip(box, centre, voxel_mm, strict=True)]
    offset = np.stack(np.meshgrid(*mm, indexing="ij"))
    along = np.tensordot(direction / np.linalg.norm(direction), offset, axes=1)
    across = np.sqrt(np.maximum((offset**2).sum(axis=0) - along**2, 0))
    radius = np.sqrt((along / axes[0]) ** 2 + (across / np.sqrt(axes[1] * axes[2])) ** 2)
    zoom = np.stack(np.meshgrid(*(2 + 2 * m / (reach.max() * voxel_mm.max()) for m in mm), indexing="ij"))
    uneven = ndimage.map_coordinates(spoiled, zoom, order=2, mode="nearest")
    # The surface is the one of the ellipsoid moved by up to a third of its radius.
    depth = (1 + 0.25 * np.clip(uneven, -1.3, 1.3) - radius) * axes.min()
    part = np.clip(depth + 0.5, 0, 1) * white[box]
    grown = np.maximum(lesions[box], part).astype(np.float32)
    growth = float((grown - lesions[box]).sum())
    lesions[box] = grown
    return growth
