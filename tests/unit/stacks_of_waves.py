"""Thick stacks of a small analytic head, averaged over points inside each voxel: simulated without any operator."""

import numpy as np
from scipy.spatial.transform import Rotation

from headsr.volumes import AXES, Grid, Volume

BOX_MM = np.array([136.0, 160.0, 144.0])
HEAD_MM = np.array([54.0, 66.0, 58.0])


def signal_at(points, person):
    """Signal at mm points (..., 3): an egg with a bright rim, filled with a person's own plane waves."""
    rng = np.random.default_rng(person)
    radius = np.linalg.norm(points / np.float32(HEAD_MM), axis=-1)
    waves = np.zeros(radius.shape, dtype=np.float32)
    for _ in range(24):
        direction = rng.standard_normal(3)
        direction *= 2 * np.pi / rng.uniform(16, 50) / np.linalg.norm(direction)
        waves += np.cos(points @ direction.astype(np.float32) + np.float32(rng.uniform(0, 2 * np.pi)))
    inside = 1 / (1 + np.exp(np.float32(30) * (radius - 1)))
    rim = np.exp(-(((radius - np.float32(0.93)) / np.float32(0.06)) ** 2))
    return inside * np.clip(0.45 + 0.08 * waves, 0.05, 1) * (1 - rim) + inside * rim


def rigid(turn_degrees, shift_mm):
    """A motion (4, 4) about the origin."""
    motion = np.eye(4)
    motion[:3, :3] = Rotation.from_rotvec(turn_degrees, degrees=True).as_matrix()
    motion[:3, 3] = shift_mm
    return motion


def stack(view, *, to_head=None, person=1, gain=1.0, size=4.0, thickness=8.0, noise=0.01, box=BOX_MM):
    """A stack of a head that lies ``to_head`` (4, 4; mm) from where the stack's affine says, with Rician noise."""
    axis = AXES[view]
    sizes = np.full(3, size)
    sizes[axis] = thickness
    shape = np.rint(box / sizes).astype(int)
    affine = np.diag([*sizes, 1.0])
    affine[:3, 3] = -sizes * (shape - 1) / 2
    offsets = [(np.arange(n) + 0.5) / n - 0.5 for n in np.ceil(sizes / 2).astype(int)]
    to_mm = affine if to_head is None else to_head @ affine
    signal = np.zeros(shape)
    for offset in np.stack(np.meshgrid(*offsets, indexing="ij"), axis=-1).reshape(-1, 3):
        points = (np.stack(np.indices(shape), axis=-1) + offset) @ to_mm[:3, :3].T + to_mm[:3, 3]
        signal += signal_at(points.astype(np.float32), person)
    rng = np.random.default_rng(AXES[view])
    real, imaginary = noise * rng.standard_normal((2, *shape))
    data = gain * np.hypot(signal / np.prod([len(o) for o in offsets]) + real, imaginary)
    return Volume(data.astype(np.float32), Grid(tuple(shape), affine))


def placement_error(found, true):
    """Degrees between two motions, and the largest distance in mm by which they part a point of the head."""
    turn = Rotation.from_matrix((np.linalg.inv(found) @ true)[:3, :3]).as_rotvec(degrees=True)
    signs = np.array([(x, y, z) for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)]) / np.sqrt(3)
    points = np.c_[signs * HEAD_MM, np.ones(8)]
    return np.linalg.norm(turn), np.linalg.norm((points @ (found - true).T)[:, :3], axis=1).max()
