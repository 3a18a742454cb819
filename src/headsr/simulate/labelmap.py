"""A head as a map of labels: which structure every voxel belongs to, imaged finer than the map's voxels.

A structure's part of a fine voxel is its mask under a cubic B-spline; the largest part wins. So boundaries are smooth
surfaces, not the staircase of the map, and voxels at them average what is on both sides.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from headsr.seeds import seed_of
from headsr.simulate.imaging import smooth_field
from headsr.simulate.labels import LabelMapError, Structure, read_structures, whole_numbers
from headsr.simulate.lesions import draw_lesions
from headsr.simulate.look import FAT_LAYER_MM, MIXTURE_MM, TEXTURE, VESSEL_CURVE_MM, VESSEL_MM, draw_look
from headsr.simulate.scene import FieldOfView, Sampler
from headsr.simulate.warp import Scales
from headsr.volumes import Grid, Volume, axis_positions, load_volume

_SLOW_MM = 2.0  # the grid of what varies slowly
_MARGIN_MM = 12.0  # of air around the head: as much as a person's turn and size move the scalp
_CUT_MM2 = 2000.0  # a head that ends at a plane with a larger face was cut there by the edge of its scan
_ROUND_MM = 800.0  # per mm of a voxel: what the last plane of a round end may have of a face in a coarse map
_TRIM_MM, _CONTINUED_MM = 6.0, 24.0  # cut faces are not always flat; behind them the last plane goes on


@dataclass(frozen=True, eq=False)
class LabelMap:
    """``labels`` (X, Y, Z) index ``structures``; structure 0 is air. The axes of ``grid`` are the mm axes.

    They are uint8, and uint16 where a table has more structures than that can count.
    """

    grid: Grid
    labels: NDArray[np.unsignedinteger]
    structures: tuple[Structure, ...]
    field_of_view: FieldOfView
    # However coarse the scan: the truth at two voxel sizes is one truth.
    sample_mm: float = 0.5
    # Gently, for the gyri of a map are those of a person already, and the scalp is smooth.
    scales_mm: Scales = ((35.0, 3.0), (16.0, 0.6))

    def imaged(
        self, suffix: str, *, seed: int, lesions: str, rng: np.random.Generator, spacing_mm: NDArray[np.float64]
    ) -> Sampler:
        """The signal of a contrast (see Anatomy)."""
        look = draw_look(self.structures, suffix, rng)
        detail = _draw_detail(self, seed)
        lesion = self.lesions(seed=seed, degree=lesions)

        def signal(positions: NDArray[np.float32]) -> NDArray[np.float32]:
            fine, labels = self._around(positions, spacing_mm)
            if not labels.any():
                return np.zeros(positions.shape[1:], dtype=np.float32)
            texture = _on(detail.texture, fine)
            image = look.mean[labels] + look.texture[labels] * texture
            image += look.mixture[labels] * _on(detail.mixture, fine)
            image += look.has_vessels[labels] * _tubes(detail.tubes, fine) * (look.vessel - image)
            if lesion.data.any():
                part = look.is_white[labels] * _on(lesion, fine)
                image += part * (look.lesion + look.lesion_texture * texture - image)
            return _sampled(np.maximum(image, 0), fine, positions, order=1)

        return signal

    def labelled(self, spacing_mm: NDArray[np.float64]) -> Sampler:
        """The table's number of the structure that is there."""
        numbers = np.array([structure.label for structure in self.structures], dtype=np.float32)

        def label(positions: NDArray[np.float32]) -> NDArray[np.float32]:
            fine, labels = self._around(positions, spacing_mm)
            return numbers[_sampled(labels, fine, positions, order=0)]

        return label

    def lesioned(self, *, seed: int, degree: str, spacing_mm: NDArray[np.float64]) -> Sampler:
        """The part of lesion that is there."""
        lesion, white = self.lesions(seed=seed, degree=degree), self._is("white")

        def part(positions: NDArray[np.float32]) -> NDArray[np.float32]:
            fine, labels = self._around(positions, spacing_mm)
            return _sampled(white[labels] * _on(lesion, fine), fine, positions, order=1)

        return part

    def lesions(self, *, seed: int, degree: str) -> Volume:
        """The lesions of a person: the part of each voxel of the map that is lesion."""
        white, ventricle, grey = (self._is(tissue)[self.labels] > 0 for tissue in ("white", "ventricle", "grey"))
        box = _box_of(white | ventricle, margin=8)
        rng = np.random.default_rng(seed_of("lesions", seed))
        size = self.grid.voxel_size
        drawn = draw_lesions(white[box], ventricle[box], grey[box], voxel_mm=size, degree=degree, rng=rng)
        return Volume(drawn, self.grid.block(tuple(s.start for s in box), drawn.shape))

    def halved(self, box: Sequence[slice]) -> NDArray[np.unsignedinteger]:
        """The structures of a box of the map's voxels at half their size."""
        ends = zip(box, self.grid.shape, strict=True)
        around = tuple(slice(max(0, s.start - 2), min(n, s.stop + 2)) for s, n in ends)
        part, shape = self.labels[around], np.array([s.stop - s.start for s in box])
        if part.min() == part.max():
            return np.full(2 * shape, part.flat[0], dtype=part.dtype)
        fine = self.grid.block(tuple(s.start for s in box), tuple(shape)).resized(tuple(2 * shape))
        return _winners(part, self.grid.block(tuple(s.start for s in around), part.shape), fine)

    def depth(self, box: Sequence[slice], voxel_mm: float) -> NDArray[np.float64]:
        """How far below the scalp voxels of about ``voxel_mm`` lie that fill a box of the map, in mm; 0 in air."""
        shape = tuple(s.stop - s.start for s in box)
        grid = self.grid.block(tuple(s.start for s in box), shape)
        return _depth_of(self.labels[tuple(box)], grid, grid.at_voxel_size(voxel_mm))

    def _is(self, *tissues: str) -> NDArray[np.float32]:
        return np.array([structure.tissue in tissues for structure in self.structures], dtype=np.float32)

    def _around(
        self, positions: NDArray[np.float32], spacing_mm: NDArray[np.float64]
    ) -> tuple[Grid, NDArray[np.unsignedinteger]]:
        """The structures around some positions, on a fine grid whose voxels are at most half of the map's."""
        size, start = self.grid.voxel_size, self.grid.affine[:3, 3]
        flat = positions.reshape(3, -1)
        low = np.floor((flat.min(axis=1) - start) / size).astype(int) - 1
        high = np.ceil((flat.max(axis=1) - start) / size).astype(int) + 2
        low = np.clip(low, 0, np.array(self.grid.shape) - 1)
        high = np.clip(high, low + 1, self.grid.shape)
        factor = np.maximum(2, np.ceil(size / spacing_mm - 1e-6)).astype(int)
        grid = self.grid.block(tuple(low), tuple(high - low))
        fine = grid.resized(tuple((high - low) * factor))
        margin_low, margin_high = np.maximum(low - 2, 0), np.minimum(high + 2, self.grid.shape)
        part = self.labels[tuple(slice(a, b) for a, b in zip(margin_low, margin_high, strict=True))]
        return fine, _winners(part, self.grid.block(tuple(margin_low), part.shape), fine)


def load_label_map(path: str | os.PathLike[str], table: str | os.PathLike[str]) -> LabelMap:
    """Read a segmentation and its table as an anatomy in its own millimetres, its axes turned to RAS.

    Lesions in the map become the white matter around them, so that the lesions of a simulated head are those that
    were asked for. Raises LabelMapError for numbers that the table does not have, VolumeError for a damaged file.
    """
    volume = load_volume(path)
    numbers = whole_numbers(volume.data, path)
    used = set(np.unique(numbers).tolist())
    rows = read_structures(table, used=used)
    structures = (Structure(0, "background", "air", "air", None), *(s for s in rows if s.tissue != "air"))
    unknown = used - {s.label for s in structures} - {s.label for s in rows if s.tissue == "air"}
    if unknown:
        raise LabelMapError(f"{path}: label {', '.join(map(str, sorted(unknown)))} is not in {table}. Add a row for it")
    index = np.zeros(numbers.max() + 1, dtype=np.min_scalar_type(len(structures) - 1))
    for place, structure in enumerate(structures):
        if 0 <= structure.label < len(index):
            index[structure.label] = place
    labels = index[np.maximum(numbers, 0)]
    size = volume.grid.voxel_size
    straight = np.diag([*size, 1.0])
    straight[:3, 3] = volume.grid.corners.mean(axis=0) - size * (np.array(labels.shape) - 1) / 2
    labels, grid, view = _framed(labels, Grid(labels.shape, straight), path)
    return LabelMap(grid, _healed(labels, structures), structures, view)


@dataclass(frozen=True, eq=False)
class _Detail:
    """What is finer than the map in one person: unit texture, unit mixture of fat and muscle, two fields of tubes."""

    texture: Volume
    mixture: Volume
    tubes: tuple[Volume, Volume]


def _framed(
    labels: NDArray[np.unsignedinteger], grid: Grid, path: str | os.PathLike[str]
) -> tuple[NDArray[np.unsignedinteger], Grid, FieldOfView]:
    """Cut the map to the head, with air around it, but none where the head itself was cut: there it goes on."""
    if not labels.any():
        raise LabelMapError(f"{path}: holds nothing but background")
    size, box = grid.voxel_size, list(_box_of(labels > 0, margin=0))
    low, high, view = [], [], []
    for axis in range(3):
        area = np.prod(np.delete(size, axis))
        ends = [np.count_nonzero(labels.take(end, axis=axis)) * area for end in (box[axis].start, box[axis].stop - 1)]
        whole = max(_CUT_MM2, _ROUND_MM * size[axis])
        cut, trim = [end > whole for end in ends], int(np.ceil(_TRIM_MM / size[axis]))
        start, stop = box[axis].start + trim * cut[0], box[axis].stop - trim * cut[1]
        box[axis] = slice(start, stop)
        air, on = int(np.ceil(_MARGIN_MM / size[axis])), int(np.ceil(_CONTINUED_MM / size[axis]))
        view.append((start - (0 if cut[0] else air), stop + (0 if cut[1] else air)))
        low.append((on, 0) if cut[0] else (0, air + on))
        high.append((on, 0) if cut[1] else (0, air + on))
    labels = labels[tuple(box)]
    for axis in range(3):
        widths = [[(0, 0)] * 3 for _ in range(2)]
        for kind in range(2):
            widths[kind][axis] = (low[axis][kind], high[axis][kind])
        labels = np.pad(np.pad(labels, widths[0], mode="edge"), widths[1])
    start = tuple(s.start - sum(before) for s, before in zip(box, low, strict=True))
    start_mm = grid.affine[:3, 3] + size * (np.array([v[0] for v in view]) - 0.5)
    size_mm = size * np.array([v[1] - v[0] for v in view])
    centre = tuple(float(mm) for mm in start_mm + size_mm / 2)
    # A multiple of 4 mm: scans of 1, 2 and 4 mm then have one box.
    return (
        labels,
        grid.block(start, labels.shape),
        FieldOfView(centre, tuple(float(4 * np.ceil(s / 4)) for s in size_mm)),
    )


def _healed(labels: NDArray[np.unsignedinteger], structures: tuple[Structure, ...]) -> NDArray[np.unsignedinteger]:
    """The map with the nearest white matter in place of lesions."""
    white, lesion = (np.array([s.tissue == tissue for s in structures])[labels] for tissue in ("white", "lesion"))
    if not (white.any() and lesion.any()):
        return labels
    box = _box_of(lesion, margin=8)
    nearest = ndimage.distance_transform_edt(~white[box], return_distances=False, return_indices=True)
    healed = labels.copy()
    healed[box] = np.where(lesion[box], labels[box][tuple(nearest)], labels[box])
    return healed


def _draw_detail(head: LabelMap, seed: int) -> _Detail:
    rng = np.random.default_rng(seed_of("detail", seed))
    size = float(head.grid.voxel_size.min())
    texture = sum(w * smooth_field(head.grid.shape, sigma=mm / size, rng=rng) for mm, w in TEXTURE)
    slow = head.grid.at_voxel_size(_SLOW_MM)
    tubes = [smooth_field(slow.shape, sigma=VESSEL_CURVE_MM / _SLOW_MM, rng=rng) for _ in range(2)]
    strands = rng.standard_normal(slow.shape, dtype=np.float32)
    strands = ndimage.gaussian_filter(strands, np.array(MIXTURE_MM) / _SLOW_MM, mode="wrap", truncate=3)
    depth = _depth_of(head.labels, head.grid, slow)
    mixture = np.tanh(1.5 * (strands / strands.std() - 0.3) + 3 * np.clip(1.5 - depth / FAT_LAYER_MM, 0, 1))
    return _Detail(
        Volume(texture, head.grid),
        Volume(mixture.astype(np.float32), slow),
        (Volume(tubes[0], slow), Volume(tubes[1], slow)),
    )


def _depth_of(labels: NDArray[np.unsignedinteger], grid: Grid, slow: Grid) -> NDArray[np.float64]:
    """The distance in mm from the air on another grid."""
    return ndimage.distance_transform_edt(_on_nearest(labels > 0, grid, slow), sampling=slow.voxel_size)


def _tubes(fields: tuple[Volume, Volume], fine: Grid) -> NDArray[np.float32]:
    """The part of vessel: around the curves on which two smooth random fields are both zero.

    Near such a curve the fields' length over their mean slope is about the distance from it.
    """
    slope = np.sqrt(1.5) / VESSEL_CURVE_MM  # of a field of unit spread that a Gaussian of that length smoothed
    distance = np.hypot(*(_on(field, fine) for field in fields)) / slope
    edge = float(fine.voxel_size.max())
    return np.clip((VESSEL_MM - distance) / edge + 0.5, 0, 1)


def _winners(labels: NDArray[np.unsignedinteger], grid: Grid, fine: Grid) -> NDArray[np.unsignedinteger]:
    """The label of the largest part at each voxel of ``fine``; the parts are the labels' masks under B-splines."""
    weights = [_kernel(positions, n) for positions, n in zip(axis_positions(fine, grid), grid.shape, strict=True)]
    winner, most = np.zeros(fine.shape, dtype=labels.dtype), np.zeros(fine.shape, dtype=np.float32)
    boxes = ndimage.find_objects(labels.astype(np.int32) + 1)
    for label, box in enumerate(boxes):
        if box is None:
            continue
        mask = (labels[box] == label).astype(np.float32)
        columns = [w[:, s] for w, s in zip(weights, box, strict=True)]
        rows = [_rows(w) for w in columns]
        if any(r.start >= r.stop for r in rows):
            continue
        part = _separable([w[r] for w, r in zip(columns, rows, strict=True)], mask)
        here = tuple(rows)
        wins = part > most[here]
        winner[here][wins] = label
        most[here][wins] = part[wins]
    return winner


def _rows(weights: NDArray[np.float32]) -> slice:
    """The rows that are not all zero."""
    used = np.flatnonzero(weights.any(axis=1))
    return slice(used[0], used[-1] + 1) if len(used) else slice(0, 0)


def _on(field: Volume, fine: Grid) -> NDArray[np.float32]:
    """A smooth field on a finer grid, by cubic B-splines; zero outside of the field's box."""
    weights, data = [], field.data
    for axis, positions in enumerate(axis_positions(fine, field.grid)):
        weight = _kernel(positions, field.grid.shape[axis])
        weight[(positions < -0.5) | (positions > field.grid.shape[axis] - 0.5)] = 0
        used = np.flatnonzero(weight.any(axis=0))
        if len(used) == 0:
            return np.zeros(fine.shape, dtype=np.float32)
        data = data[(slice(None),) * axis + (slice(used[0], used[-1] + 1),)]
        weights.append(weight[:, used[0] : used[-1] + 1])
    return _separable(weights, data)


def _kernel(positions: NDArray[np.float64], n: int) -> NDArray[np.float32]:
    """Weights (len(positions), n) of the cubic B-spline as a kernel; beyond the ends the last sample is kept."""
    whole = np.floor(positions).astype(int)
    weights = np.zeros((len(positions), n), dtype=np.float32)
    for step in range(-1, 3):
        distance = np.abs(positions - (whole + step))
        near, far = 2 / 3 - distance**2 + distance**3 / 2, (2 - np.minimum(distance, 2)) ** 3 / 6
        np.add.at(
            weights, (np.arange(len(positions)), np.clip(whole + step, 0, n - 1)), np.where(distance < 1, near, far)
        )
    return weights


def _separable(weights: list[NDArray[np.float32]], data: NDArray[np.float32]) -> NDArray[np.float32]:
    """Apply one matrix per axis, the last axis first: each product is a plain matrix product."""
    x, y, z = weights
    data = data.astype(np.float32, copy=False) @ z.T
    data = np.matmul(y, data)
    return np.tensordot(x, data, axes=1)


def _sampled(image: NDArray, fine: Grid, positions: NDArray[np.float32], *, order: int) -> NDArray:
    start, size = fine.affine[:3, 3].astype(np.float32), fine.voxel_size.astype(np.float32)
    index = (positions - start[:, None, None, None]) / size[:, None, None, None]
    return ndimage.map_coordinates(image, index, order=order, mode="nearest")


def _on_nearest(mask: NDArray[np.bool_], grid: Grid, target: Grid) -> NDArray[np.bool_]:
    index = [
        np.clip(np.rint(p).astype(int), 0, n - 1) for p, n in zip(axis_positions(target, grid), grid.shape, strict=True)
    ]
    return mask[np.ix_(*index)]


def _box_of(mask: NDArray[np.bool_], *, margin: int) -> tuple[slice, slice, slice]:
    """The box around a mask, with a margin in voxels; everything where the mask is empty."""
    found = ndimage.find_objects(mask.astype(np.uint8))
    if not found:
        return tuple(slice(0, n) for n in mask.shape)
    return tuple(
        slice(max(0, s.start - margin), min(n, s.stop + margin)) for s, n in zip(found[0], mask.shape, strict=True)
    )
