"""ITK's affine transforms on disk, read without ANTs, and volumes moved through them."""

from __future__ import annotations

import os

import numpy as np
from numpy.typing import NDArray
from scipy import io, ndimage

from headsr.volumes import Grid, Volume

_LPS = np.diag(
    [-1.0, -1.0, 1.0, 1.0]
)  # ITK points are (left, posterior, superior), NIfTI's (right, anterior, superior)
_KINDS = ("AffineTransform", "MatrixOffsetTransformBase", "Euler3DTransform")


def read_affine(path: str | os.PathLike[str]) -> NDArray[np.float64]:
    """Read an ITK affine ``.mat`` as the 4 x 4 matrix that takes a template point to a scan point (mm, RAS+).

    ITK maps points of the fixed image (the template) to the moving one (the scan): x' = M (x - c) + c + t, in LPS.
    Raises ValueError naming the file when it holds something else.
    """
    try:
        content = io.loadmat(path)
        (kind,) = [key for key in content if key.startswith(_KINDS)]
        parameters, centre = content[kind].ravel().astype(np.float64), content["fixed"].ravel().astype(np.float64)
        if parameters.shape != (12,) or centre.shape != (3,):
            raise ValueError(f"{len(parameters)} parameters where an affine has 12")
    except (io.matlab.MatReadError, ValueError, TypeError, NotImplementedError) as error:
        raise ValueError(f"{path}: is not an ITK affine transform ({error}). Move it away and run again") from error
    matrix = np.eye(4)
    matrix[:3, :3] = parameters[:9].reshape(3, 3)
    matrix[:3, 3] = centre + parameters[9:] - matrix[:3, :3] @ centre
    return _LPS @ matrix @ _LPS


def resample_through(image: Volume, to_scan: NDArray[np.float64], scan: Grid) -> NDArray[np.float32]:
    """An image of the template as it lies in the scan: linear, 0 outside.

    ``to_scan`` (4, 4) takes template points to scan points in mm (RAS+); the result has the shape of ``scan``.
    """
    index = np.linalg.inv(image.grid.affine) @ np.linalg.inv(to_scan) @ scan.affine
    return ndimage.affine_transform(
        image.data, index[:3, :3], offset=index[:3, 3], output_shape=scan.shape, order=1, mode="constant", cval=0.0
    )
