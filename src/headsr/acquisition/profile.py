"""Slice profiles: the weight with which each thin cell contributes to one thick sample.

``box`` and ``gaussian`` (FWHM = thickness) as in slice-to-volume reconstruction, ``cubic`` the anti-aliased cubic of
Keys (1981), and ``zoom``, no profile at all: points of a cubic spline through the cells, as ``scipy.ndimage.zoom``
takes them and several papers made their low-resolution data.
"""

from __future__ import annotations

import numpy as np
from numpy.polynomial import hermite_e, legendre
from numpy.typing import NDArray
from scipy import ndimage

PROFILES = ("box", "gaussian", "cubic", "zoom")
_FWHM_PER_SIGMA = 2.0 * np.sqrt(2.0 * np.log(2.0))
_SIGMAS = 4.0  # where a Gaussian ends
_NODES = 8


def profile_matrix(n: int, centres: NDArray[np.float64], thickness: float, profile: str = "box") -> NDArray[np.float64]:
    """Weights (len(centres), n) of n unit cells in each sample.

    ``centres`` and ``thickness`` are in cells (cell i spans i - 0.5 to i + 0.5). A row sums to the share of its sample
    that lies inside the n cells: one for a sample that does not reach outside, zero for one that lies wholly outside.
    """
    refuse_unknown(profile)
    centres = np.asarray(centres, dtype=np.float64)
    if profile == "zoom":
        return _spline_points(n, centres)
    reach = int(np.ceil(support(profile) * max(thickness, 1.0) / 2)) + 1
    first = min(0, int(np.floor(centres.min())) - reach)
    last = max(n, int(np.ceil(centres.max())) + reach + 1)
    weights = _KERNELS[profile](np.arange(first, last)[None, :] - centres[:, None], thickness)
    return (weights / weights.sum(axis=1, keepdims=True))[:, -first : n - first]


def profile_nodes(thickness: float, profile: str = "box") -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Where to evaluate a continuous field around a sample's centre, and with which weights: (Q,) each, sum one.

    ``thickness`` and the offsets are in cells of the grid that the field is rendered on. A box of a whole number of
    cells is taken at the cells' centres, so that the sum is the block mean of the rendered volume; any other box by
    Gauss-Legendre quadrature with two nodes a cell, a Gaussian by Gauss-Hermite with eight, Keys' cubic piece by piece.
    """
    refuse_unknown(profile)
    if profile == "zoom":
        return np.zeros(1), np.ones(1)
    if profile == "gaussian":
        nodes, weights = hermite_e.hermegauss(_NODES)
        return nodes * thickness / _FWHM_PER_SIGMA, weights / weights.sum()
    whole = round(thickness)
    if profile == "box" and whole >= 1 and abs(thickness - whole) < 1e-6:
        return np.arange(whole) - (whole - 1) / 2, np.full(whole, 1 / whole)
    if profile == "box":
        nodes, weights = legendre.leggauss(max(2, int(np.ceil(2 * thickness))))
        return nodes * thickness / 2, weights / 2
    nodes, weights = legendre.leggauss(_NODES)
    # Keys' cubic is a polynomial on each of its four pieces; only there is quadrature exact.
    offsets = ((nodes[None, :] + 1) / 2 + np.arange(-2, 2)[:, None]).ravel()
    weights = np.tile(weights / 2, 4) * _keys_cubic(offsets)
    return offsets * max(thickness, 1.0), weights / weights.sum()


def support(profile: str) -> float:
    """How wide the part of a profile is that is not zero, in units of its thickness."""
    return {"box": 1.0, "gaussian": 2 * _SIGMAS / _FWHM_PER_SIGMA, "cubic": 4.0, "zoom": 0.0}[profile]


def refuse_unknown(profile: str) -> None:
    """Raise ValueError for a profile that is none of PROFILES."""
    if profile not in PROFILES:
        raise ValueError(f"unknown slice profile {profile!r}; choose one of {', '.join(PROFILES)}")


def _spline_points(n: int, centres: NDArray[np.float64]) -> NDArray[np.float64]:
    """Points of the cubic spline that ``scipy.ndimage.zoom`` draws through n cells, mirrored at the outer centres."""
    inside = np.abs(centres - (n - 1) / 2) <= n / 2 + 1e-6
    places = np.clip(centres, 0, n - 1)[None]
    columns = [ndimage.map_coordinates(unit, places, order=min(3, n - 1), mode="mirror") for unit in np.eye(n)]
    return np.stack(columns, axis=1) * inside[:, None]


def _box(distance: NDArray[np.float64], thickness: float) -> NDArray[np.float64]:
    half = thickness / 2
    return np.clip(np.minimum(distance + 0.5, half) - np.maximum(distance - 0.5, -half), 0, None)


def _gaussian(distance: NDArray[np.float64], thickness: float) -> NDArray[np.float64]:
    sigma = thickness / _FWHM_PER_SIGMA
    return np.where(np.abs(distance) > _SIGMAS * sigma + 1, 0.0, np.exp(-0.5 * (distance / sigma) ** 2))


def _cubic(distance: NDArray[np.float64], thickness: float) -> NDArray[np.float64]:
    return _keys_cubic(distance / max(thickness, 1.0))


def _keys_cubic(x: NDArray[np.float64], a: float = -0.5) -> NDArray[np.float64]:
    """Keys' cubic convolution kernel (1981, eq. 4) with support [-2, 2]."""
    x = np.abs(x)
    near = (a + 2) * x**3 - (a + 3) * x**2 + 1
    far = a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a
    return np.where(x <= 1, near, np.where(x < 2, far, 0.0))


_KERNELS = {"box": _box, "gaussian": _gaussian, "cubic": _cubic}
