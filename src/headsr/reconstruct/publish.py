"""From the scans of one head on disk to its volume, or its field, on disk: the same code whatever the method."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch

from headsr.acquisition.measurement import Study, load_study
from headsr.devices import choose_device
from headsr.fields.load import save_field
from headsr.files import sha256_of
from headsr.history import write_history
from headsr.recipes import Method, plain
from headsr.reconstruct.estimate import Estimate, FieldEstimate, estimate_of
from headsr.reconstruct.projected import project_onto
from headsr.render.describe import raw_uris
from headsr.render.publish import Outputs, publish_unprojected, publish_volume
from headsr.weights import load_model

Paths = Mapping[str, str | os.PathLike[str]]


def reconstruct_volume(
    lowres: Sequence[str | os.PathLike[str]], *, method: Method, weights: Paths, outputs: Outputs
) -> None:
    """Make the volume of one head, project it onto its scans and publish it in scan units, with what it was before.

    ``weights`` are the files of the models that the method names. Raises ValueError where they do not serve,
    FloatingPointError for an estimate that is not finite.
    """
    study, estimate = _estimated(lowres, method, weights)
    projected, projection = project_onto(estimate.volume, study)
    publish_volume(
        projected,
        estimate.volume,
        study.head,
        outputs,
        scale=study.scale,
        offset=study.offset,
        record={**_record_of(study, method, weights), "consistency": projection, **estimate.record},
        uncertainty=estimate.uncertainty,
        forms=study.forms,
    )


def reconstruct_field(
    lowres: Sequence[str | os.PathLike[str]],
    *,
    method: Method,
    weights: Paths,
    field: str | os.PathLike[str],
    unprojected: str | os.PathLike[str],
    history: str | os.PathLike[str],
) -> None:
    """Make the field of one head and write it, with its volume before it agreed with the scans (NIfTI, scan units).

    ``history`` are JSON lines, ``weights`` as for a volume.
    """
    study, estimate = _estimated(lowres, method, weights)
    if not isinstance(estimate, FieldEstimate):
        raise TypeError(f"{method.part.place} makes a {type(estimate).__name__}; a method that makes a field is needed")
    record = {**_record_of(study, method, weights), **estimate.record}
    publish_unprojected(
        unprojected,
        estimate.volume,
        study.head,
        scale=study.scale,
        offset=study.offset,
        record=record,
        forms=study.forms,
    )
    write_history(history, estimate.history)
    save_field(field, replace(estimate.field, record=record, forms=study.forms))


def _estimated(lowres: Sequence[str | os.PathLike[str]], method: Method, weights: Paths) -> tuple[Study, Estimate]:
    device = choose_device() if method.gpu else torch.device("cpu")
    models = {name: load_model(path, device=device) for name, path in weights.items()}
    study = load_study(lowres, device=device)
    return study, estimate_of(study, method, models)


def _record_of(study: Study, method: Method, weights: Paths) -> dict[str, Any]:
    """What a sidecar says of input, method and models."""
    return {
        "source_key": study.source_key,
        "sources": raw_uris(study.sources),
        "skull_stripped": study.skull_stripped,
        "degradation": study.degradation,
        "views": [scan.view for scan in study.scans],
        "method": plain(method),
        "weights_sha256": {name: sha256_of(path) for name, path in weights.items()},
    }
