"""From the scans of one head to their super-resolved volume: what is asked, what is foretold, what is made."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from headsr.acquisition.consistency import residuals
from headsr.devices import choose_device
from headsr.files import partials_of, sidecar_of, write_json
from headsr.lock import holding
from headsr.models.card import PACKAGE
from headsr.models.shipped import load_shipped
from headsr.provenance import contents_of, plain_params
from headsr.recipes import Method, MethodRecipe, ModelRecipe, Unrolled, build, plain
from headsr.recipes.convert import unknown
from headsr.recipes.shipped import card_of
from headsr.reconstruct.estimate import Estimate, estimate_of
from headsr.reconstruct.projected import project_onto
from headsr.render.describe import describe_residual, describe_volume
from headsr.render.ours import DESCRIPTION
from headsr.render.plan import time_said
from headsr.render.publish import Outputs, publish_volume, refuse_foreign
from headsr.render.pyramid import level_grids, preview_level
from headsr.render.store import StoreError
from headsr.sr.cost import Cost, cost_of, refuse_without_room, seconds_of
from headsr.sr.given import GivenScan, Slices, read_given, refuse_twins, views_of
from headsr.sr.outputs import Result
from headsr.sr.ranges import outside_of
from headsr.sr.record import WEIGHTS, is_done, of_the_code, sealed
from headsr.sr.study import Prepared, prepare
from headsr.sr.target import Size, target_of
from headsr.sr.zeroed import zeroed
from headsr.volumes import Forms, Grid, save_volume
from headsr.weights import TrainedModel
from headsr.words import shown

# What needs nothing but the scans.
_PLAIN = {"spline": {}, "average": {}, "tikhonov": {"iterations": 20}, "tv": {}}


class OutsideTrainingError(ValueError):
    """The scans are none that the weights were trained on. The message says in what, and the way out."""


@dataclass(frozen=True)
class Request:
    """What is asked for: the result of some scans of one head, and how.

    ``named`` says where a result on a grid goes, with a residual for each of the scans' views. ``memory`` are bytes;
    ``method`` is unrolled or one that needs no training; ``force`` takes scans that the weights were not trained on.
    """

    scans: tuple[Path, ...]
    named: Callable[[Grid, Sequence[str]], Result]
    memory: int
    slices: Slices = field(default_factory=Slices)
    size: Size = field(default_factory=Size)
    method: str = Unrolled.kind
    force: bool = False
    report: bool = False


@dataclass(frozen=True, eq=False)
class Foretold:
    """What a request will make, before anything is made."""

    given: tuple[GivenScan, ...]
    target: Grid
    method: Method
    model: TrainedModel | None
    cost: Cost
    result: Result

    def words(self, memory: int) -> str:
        """For people, where so many bytes are allowed: what it is made of, what it will be, and what that takes."""
        shape, size = (" x ".join(f"{n:.4g}" for n in values) for values in (self.target.shape, self.target.voxel_size))
        made = f"{self.result.store or self.result.volume}: {shape} voxels of {size} mm, by {self.method.kind}"
        takes = f"takes up to {self.cost.within(memory) / 1e9:.2g} GB of memory"
        if self.model is not None:
            takes += f" and about {time_said(seconds_of(self.target, self.model, memory))}"
        return "\n".join([*(scan.words() for scan in self.given), made, takes])


def method_named(name: str) -> Method:
    """The recipe of a method that ``headsr sr`` knows. ValueError for another one."""
    if name == Unrolled.kind:
        return Unrolled(model=WEIGHTS)
    if name not in _PLAIN:
        raise ValueError(f"--method: {unknown('method', name, [Unrolled.kind, *_PLAIN])}")
    return build(MethodRecipe, {"kind": name, **_PLAIN[name]}, name)


def foretell(request: Request) -> Foretold:
    """Read the scans and say what will be made.

    Raises VolumeError for scans that cannot be used, ValueError for what cannot be asked, ResourcesError where memory
    is short, StoreError where somebody else's file is in the way.
    """
    method = method_named(request.method)
    given = tuple(read_given(path, request.slices) for path in request.scans)
    refuse_twins(given)
    target = target_of(given[0], request.size)
    result = request.named(target, views_of(given))
    if any(path.resolve() == scan.path.resolve() for path in result.files() for scan in given):
        raise ValueError(f"{result.volume}: the result would lie on the scan itself. Name it otherwise")
    refuse_foreign(result.files())
    _refuse_rival(result)
    cost = cost_of(target, method)
    refuse_without_room(cost, request.memory)
    model = load_shipped(WEIGHTS, choose_device()) if isinstance(method, Unrolled) else None
    return Foretold(given, target, method, model, cost, result)


def super_resolve(request: Request, foretold: Foretold, *, quiet: bool = False) -> bool:
    """Make what was foretold and write it, the sidecar last; whether anything was to be done. Says how far it is.

    A result that follows from the same scans, weights, options and versions, byte for byte, stays as it is. Raises
    OutsideTrainingError for scans that the weights were not trained on, unless ``request.force``, VolumeError for those
    without a head, FloatingPointError for numbers that are not finite, HeldError where another process writes there.
    """
    say: Callable[[str], None] = _say_nothing if quiet else partial(print, flush=True)
    wanted = follows_from(request, foretold)
    if is_done(foretold.result.sidecar, wanted):
        say(f"{foretold.result.sidecar}: is as it should be; nothing to do")
        return False
    say("looking for the head, its noise and, with several scans, their placement")
    prepared = prepare(foretold.given, foretold.target, choose_device() if foretold.method.gpu else torch.device("cpu"))
    outside = outside_training(foretold.given, foretold.method, prepared)
    for what in outside:
        say(f"outside of what the weights were trained on: {what}")
    if not request.force:
        refuse_outside(foretold.given, outside)
    lock = foretold.result.volume.with_name(f".{foretold.result.volume.name}.lock")
    with holding(lock, what=foretold.result.volume):  # before what takes long
        _make(request, foretold, prepared, {"follows_from": wanted, "outside_training": outside}, say)
    return True


def _make(
    request: Request, foretold: Foretold, prepared: Prepared, record: dict[str, Any], say: Callable[[str], None]
) -> None:
    """Reconstruct what was prepared and publish it, with what its record says already."""
    label = f"reconstructing by {foretold.method.kind}"
    say(label)
    models = {} if foretold.model is None else {WEIGHTS: foretold.model}
    study = prepared.study
    estimate = estimate_of(
        study, foretold.method, models, memory=request.memory, label="" if say is _say_nothing else label
    )
    empty = zeroed(study, prepared.seen[0].data)
    say("making it agree with what was measured")
    volume, projection = project_onto(_emptied(estimate.volume, empty), study)
    volume = _emptied(volume, empty)
    record = record | {
        "zeroed_voxels": 0 if empty is None else int(empty.sum()),
        "consistency": projection,
        **_record_of(foretold, prepared),
        **estimate.record,
    }
    say("writing")
    _publish(foretold, prepared, replace(estimate, volume=volume), record, request)


def _say_nothing(words: str) -> None:
    pass


def follows_from(request: Request, foretold: Foretold) -> dict[str, Any]:
    """All that a result follows from, as it comes back from JSON: scans, weights, options and versions of the code."""
    return plain_params(
        {
            "scans": [scan.sha256 for scan in foretold.given],
            "slices": [[scan.thickness, scan.profile] for scan in foretold.given],
            "target": [list(foretold.target.shape), foretold.target.affine.tolist()],
            "method": plain(foretold.method),
            "report": request.report,
            **of_the_code(foretold.method.kind),
        }
    )


def outside_training(given: Sequence[GivenScan], method: Method, prepared: Prepared) -> list[str]:
    """In what scans are none that the method's weights were trained on, in words."""
    if not isinstance(method, Unrolled):
        return []
    training = build(ModelRecipe, dict(card_of(WEIGHTS, PACKAGE).recipe), WEIGHTS).data
    return outside_of(training, prepared.study, given)


def refuse_outside(given: Sequence[GivenScan], outside: Sequence[str]) -> None:
    """OutsideTrainingError for scans that lie ``outside`` of what the weights were trained on."""
    if outside:
        raise OutsideTrainingError(
            f"{given[0].path}: {'; '.join(outside)}. What comes of it was never tested: --force makes it all "
            "the same, or ask for other voxels, or take --method tikhonov"
        )


def _refuse_rival(result: Result) -> None:
    """StoreError where another volume lies that would have the same sidecar as the result."""
    for rival in result.rivals():
        if os.path.lexists(rival):
            raise StoreError(
                f"{rival}: lies there, and a result {result.volume.name} would take its sidecar, "
                f"{result.sidecar.name}. Choose another name for the result, or move that away"
            )


def _emptied(volume: NDArray[np.float32], empty: torch.Tensor | None) -> NDArray[np.float32]:
    return volume if empty is None else np.where(empty.numpy(), np.float32(0), volume)


def _record_of(foretold: Foretold, prepared: Prepared) -> dict[str, Any]:
    """What the sidecar says of the scans and of how the volume was made of them."""
    study, method = prepared.study, foretold.method
    scans = [
        {
            "file": shown(given.path.name),
            "sha256": given.sha256,
            "view": scan.view,
            "spacing_mm": given.spacing,
            "thickness_mm": given.thickness,
            "thickness_from": given.thickness_from,
            "profile": given.profile,
            "noise": scan.noise * study.scale,
            "affine": scan.operator.scan.affine.tolist(),
            "shape": list(scan.operator.scan.shape),
        }
        for given, scan in zip(foretold.given, study.scans, strict=True)
    ]
    for scan, alignment in zip(scans[1:], prepared.alignments, strict=True):
        scan["alignment"] = alignment
    weights = {}
    if isinstance(method, Unrolled):
        card = card_of(WEIGHTS, PACKAGE)
        weights = {"weights": {"name": WEIGHTS, "sha256": card.sha256, "license": card.license}}
    said = {"sources": list(foretold.result.sources), "skull_stripped": study.skull_stripped}
    return {"scans": scans, "method": plain(method), **said, **weights}


def _publish(
    foretold: Foretold, prepared: Prepared, estimate: Estimate, record: dict[str, Any], request: Request
) -> None:
    """Write the result: what lies beside the volume first, the sidecar, which says that all is whole, last."""
    study, result, given = prepared.study, foretold.result, foretold.given[0].volume
    _clear(result)
    header = {"axes": given.axes, "forms": given.forms}
    maps = residuals(torch.as_tensor(estimate.volume, device=study.scans[0].data.device), study.scans)
    written = []
    for scan, residual, path in zip(study.scans, maps, result.residuals, strict=True):
        in_units = residual.cpu().numpy() * np.float32(study.scale)
        described = describe_residual(scan.view, skull_stripped=study.skull_stripped, sources=result.sources)
        written += _write(path, in_units, scan.operator.scan, described, **header)
    if estimate.uncertainty is not None:
        half = estimate.uncertainty * np.float32(study.scale)
        described = _described(foretold, record, "uncertainty", scale=study.scale, offset=0.0)
        written += _write(result.uncertainty, half, foretold.target, described, **header)
    if request.report:
        from headsr.sr.page import write_page  # a second of imports

        write_page(result.report, foretold.method, study, estimate, record)
        written.append(result.report)
    scaled = {"scale": study.scale, "offset": study.offset}
    if result.store is not None:
        outputs = Outputs(result.store / "zarr.json", result.volume, result.sidecar)
        publish_volume(estimate.volume, None, foretold.target, outputs, **scaled, record=record, forms=given.forms)
        written.append(outputs.store)
    else:
        data = estimate.volume * np.float32(study.scale) + np.float32(study.offset)
        save_volume(result.volume, data, foretold.target, description=DESCRIPTION, **header)
    files = contents_of([result.volume, *written], result.sidecar.parent)
    said = record | {"outputs": {name: asdict(content) for name, content in files.items()}}
    write_json(result.sidecar, sealed(_described(foretold, said, "sr", **scaled)))


def _clear(result: Result) -> None:
    """Take away what lies there of an earlier result, the sidecar first, and what a kill left half-written.

    StoreError where something lies there that headsr did not write.
    """
    refuse_foreign(result.files())
    result.sidecar.unlink(missing_ok=True)
    for path in result.files():
        for old in (path, *partials_of(path)):
            old.unlink(missing_ok=True)


def _described(
    foretold: Foretold, record: dict[str, Any], label: str, *, scale: float, offset: float
) -> dict[str, Any]:
    grid, result = foretold.target, foretold.result
    grids = level_grids(grid)
    shown = grid if result.store is None or label != "sr" else grids[preview_level(grids)]
    return describe_volume(
        grid,
        preview=shown,
        scale=scale,
        offset=offset,
        record=record,
        label=label,
    )


def _write(
    path: Path, data: NDArray[np.float32], grid: Grid, described: dict[str, Any], *, axes: str, forms: Forms
) -> list[Path]:
    """Write one volume beside the result and its sidecar; returns both."""
    write_json(sidecar_of(path), described)
    save_volume(path, data, grid, description=DESCRIPTION, axes=axes, forms=forms)
    return [path, sidecar_of(path)]
